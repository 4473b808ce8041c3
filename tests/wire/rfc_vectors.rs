//! The messages printed in RFC 5769 §2 and RFC 8489 appendix B.1, read and written again.

use std::net::SocketAddr;

use taciturn::proto::{
    Algorithm, Attribute, AttributeType, Class, DecodeError, Fingerprint, Full, Integrity,
    LongTermKey, Message, Method, Nonce, PasswordAlgorithm, Realm, Sink, Software, TransactionId,
    Userhash, Username, Writer, XorMappedAddress,
};

/// RFC 5769 §2.1. Text is padded with spaces there.
const REQUEST: &str = "000100582112a442b7e7a701bc34d686fa87dfae\
    802200105354554e207465737420636c69656e74\
    002400046e0001ff\
    80290008932ff9b151263b36\
    000600096576746a3a68367659202020\
    000800149aeaa70cbfd8cb56781ef2b5b2d3f249c1b571a2\
    80280004e57a3bcf";

/// RFC 5769 §2.2.
const RESPONSE_V4: &str = "0101003c2112a442b7e7a701bc34d686fa87dfae\
    8022000b7465737420766563746f7220\
    002000080001a147e112a643\
    000800142b91f599fd9e90c38c7489f92af9ba53f06be7d7\
    80280004c07d4c96";

/// RFC 5769 §2.3.
const RESPONSE_V6: &str = "010100482112a442b7e7a701bc34d686fa87dfae\
    8022000b7465737420766563746f7220\
    002000140002a1470113a9faa5d3f179bc25f4b5bed2b9d9\
    00080014a382954e4be67bf11784c97c8292c275bfe3ed41\
    80280004c8fb0b4c";

/// RFC 5769 §2.4. Text is padded with zeroes there.
const REQUEST_LONG_TERM: &str = "000100602112a44278ad3433c6ad72c029da412e\
    00060012e3839ee38388e383aae38383e382afe382b90000\
    0015001c662f2f3439396b39353464364f4c3334\
    6f4c39465354767936347341\
    0014000b6578616d706c652e6f726700\
    00080014f67024656dd64a3e02b8e0712e85c9a28ca89666";

/// RFC 8489 appendix B.1 as erratum 6268 corrects it: with PASSWORD-ALGORITHM, and a length field
/// that fits.
const REQUEST_SHA256: &str = "000100902112a44278ad3433c6ad72c029da412e\
    001e00204a3cf38fef6992bda952c6780417da0f24819415569e60b205c46e41407f1704\
    001500296f624d61744a6f733241414143662f2f3439396b3935346436\
    4f4c33346f4c39465354767936347341000000\
    0014000b6578616d706c652e6f726700\
    001d000400020000\
    001c0020b5c7bf005b6c52a21c51c5e892f81924136296cb927c43149309278cc6518e65";

const USERNAME: &str = "\u{30DE}\u{30C8}\u{30EA}\u{30C3}\u{30AF}\u{30B9}";
const REALM: &str = "example.org";

/// "The<U+00AD>M<U+00AA>tr<U+2168>" after SASLprep; preparing it is not the wire's.
const PASSWORD: &str = "TheMatrIX";

/// T48: RFC 5769 §2.1
#[test]
fn the_sample_request_reads_as_printed() {
    let bytes = from_hex(REQUEST);
    let message = Message::decode(&bytes).unwrap();
    assert_eq!(
        (message.class(), message.method()),
        (Class::Request, Method::BINDING)
    );
    assert_eq!(message.transaction_id(), ice_id());
    assert_eq!(message.find(), Some(Ok(Software("STUN test client"))));
    assert_eq!(message.find(), Some(Ok(Username("evtj:h6vY"))));
    assert_eq!(message.verify_integrity(&ice_key()), Integrity::Valid);
    assert_eq!(message.fingerprint(), Fingerprint::Valid);
    let kinds: Vec<_> = message
        .attributes()
        .map(|attribute| attribute.kind.value())
        .collect();
    assert_eq!(kinds, [0x8022, 0x0024, 0x8029, 0x0006, 0x0008, 0x8028]);
}

/// T48: RFC 5769 §2.2 and §2.3
#[test]
fn the_sample_responses_read_and_write_as_printed() {
    for (hex, address) in [
        (RESPONSE_V4, "192.0.2.1:32853"),
        (RESPONSE_V6, "[2001:db8:1234:5678:11:2233:4455:6677]:32853"),
    ] {
        let address = XorMappedAddress(address.parse::<SocketAddr>().unwrap());
        let bytes = from_hex(hex);
        let message = Message::decode(&bytes).unwrap();
        assert_eq!(
            (message.class(), message.method()),
            (Class::Success, Method::BINDING)
        );
        assert_eq!(message.find(), Some(Ok(address)));
        assert_eq!(message.find(), Some(Ok(Software("test vector"))));
        assert_eq!(message.verify_integrity(&ice_key()), Integrity::Valid);
        assert_eq!(message.fingerprint(), Fingerprint::Valid);

        let mut buf = [0xAA; 200];
        let mut writer = Writer::new(&mut buf, Class::Success, Method::BINDING, ice_id()).unwrap();
        // The RFC pads with a space: twelve bytes of value stand for eleven and the padding.
        writer.push(&Software("test vector ")).unwrap();
        writer.push(&address).unwrap();
        let len = writer.finish();
        let mut expected = bytes[..len].to_vec();
        expected[3] = u8::try_from(len - 20).unwrap();
        expected[23] = 12;
        assert_eq!(buf[..len], expected);
    }
}

/// T48: RFC 5769 §2.4
#[test]
fn the_long_term_request_reads_and_writes_as_printed() {
    let bytes = from_hex(REQUEST_LONG_TERM);
    let message = Message::decode(&bytes).unwrap();
    let nonce = Nonce("f//499k954d6OL34oL9FSTvy64sA");
    let key = LongTermKey::md5(USERNAME, REALM, PASSWORD);
    assert_eq!(message.find(), Some(Ok(Username(USERNAME))));
    assert_eq!(message.find(), Some(Ok(nonce)));
    assert_eq!(message.find(), Some(Ok(Realm(REALM))));
    assert_eq!(message.verify_integrity(&key), Integrity::Valid);
    assert_eq!(message.fingerprint(), Fingerprint::Absent);

    let mut buf = [0xAA; 200];
    let id = message.transaction_id();
    let mut writer = Writer::new(&mut buf, Class::Request, Method::BINDING, id).unwrap();
    writer.push(&Username(USERNAME)).unwrap();
    writer.push(&nonce).unwrap();
    writer.push(&Realm(REALM)).unwrap();
    writer.integrity(&key).unwrap();
    let len = writer.finish();
    assert_eq!(buf[..len], bytes);
}

/// T48: RFC 8489 appendix B.1
#[test]
fn the_sha256_request_reads_and_writes_as_corrected() {
    let bytes = from_hex(REQUEST_SHA256);
    let message = Message::decode(&bytes).unwrap();
    let userhash = Userhash::of(USERNAME, REALM);
    let nonce = Nonce("obMatJos2AAACf//499k954d6OL34oL9FSTvy64sA");
    let algorithm = PasswordAlgorithm {
        algorithm: Algorithm::Sha256,
        parameters: &[],
    };
    let key = LongTermKey::sha256(USERNAME, REALM, PASSWORD);
    assert_eq!(message.find(), Some(Ok(userhash)));
    assert_eq!(message.find(), Some(Ok(nonce)));
    assert_eq!(message.find(), Some(Ok(Realm(REALM))));
    assert_eq!(message.find(), Some(Ok(algorithm)));
    assert_eq!(message.verify_integrity_sha256(&key), Integrity::Valid);
    assert_eq!(message.verify_integrity(&key), Integrity::Absent);

    let mut buf = [0xAA; 200];
    let id = message.transaction_id();
    let mut writer = Writer::new(&mut buf, Class::Request, Method::BINDING, id).unwrap();
    writer.push(&userhash).unwrap();
    writer.push(&nonce).unwrap();
    writer.push(&Realm(REALM)).unwrap();
    writer.push(&algorithm).unwrap();
    writer.integrity_sha256(&key).unwrap();
    let len = writer.finish();
    assert_eq!(buf[..len], bytes);
}

/// T48: the length field printed in RFC 8489 appendix B.1 does not fit the message there.
#[test]
fn the_sha256_request_as_printed_is_refused_for_its_length() {
    let mut bytes = from_hex(REQUEST_SHA256);
    bytes[3] = 0x9C;
    assert_eq!(Message::decode(&bytes), Err(DecodeError::BadLength));
}

/// T48: the header of RFC 5769 §2.1 written with attributes of ICE, which the server has no type
/// for.
#[test]
fn the_sample_request_writes_as_printed() {
    let bytes = from_hex(REQUEST);
    let mut buf = [0xAA; 200];
    let mut writer = Writer::new(&mut buf, Class::Request, Method::BINDING, ice_id()).unwrap();
    writer.push(&Software("STUN test client")).unwrap();
    writer.push(&Priority([0x6E, 0x00, 0x01, 0xFF])).unwrap();
    let len = writer.finish();
    assert_eq!(buf[4..len], bytes[4..len]);
}

/// T18: the vectors are valid with their key alone.
#[test]
fn the_samples_are_invalid_with_another_key() {
    let other = LongTermKey::short_term("VOkJxbRl1RmTxUk/WvJxBT");
    for hex in [REQUEST, RESPONSE_V4, RESPONSE_V6, REQUEST_LONG_TERM] {
        let bytes = from_hex(hex);
        let message = Message::decode(&bytes).unwrap();
        assert_eq!(message.verify_integrity(&other), Integrity::Invalid);
    }
    let bytes = from_hex(REQUEST_SHA256);
    let message = Message::decode(&bytes).unwrap();
    assert_eq!(message.verify_integrity_sha256(&other), Integrity::Invalid);
}

struct Priority([u8; 4]);

impl<'a> Attribute<'a> for Priority {
    const TYPE: AttributeType = AttributeType::new(0x0024);

    fn decode(
        value: &'a [u8],
        _id: TransactionId,
    ) -> Result<Self, taciturn::proto::AttributeError> {
        value
            .try_into()
            .map(Self)
            .map_err(|_| taciturn::proto::AttributeError::BadLength)
    }

    fn encode(&self, _id: TransactionId, out: &mut Sink<'_>) -> Result<(), Full> {
        out.put(&self.0)
    }
}

fn ice_key() -> LongTermKey {
    LongTermKey::short_term("VOkJxbRl1RmTxUk/WvJxBt")
}

fn ice_id() -> TransactionId {
    TransactionId::new([
        0xB7, 0xE7, 0xA7, 0x01, 0xBC, 0x34, 0xD6, 0x86, 0xFA, 0x87, 0xDF, 0xAE,
    ])
}

fn from_hex(hex: &str) -> Vec<u8> {
    let digits: Vec<_> = hex
        .chars()
        .map(|digit| digit.to_digit(16).unwrap())
        .collect();
    digits
        .chunks(2)
        .map(|pair| u8::try_from(pair[0] * 16 + pair[1]).unwrap())
        .collect()
}
