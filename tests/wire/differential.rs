//! Whole messages, read by us and by `stun-types`/`turn-types`: accepted by both with the same
//! attributes, or refused by both. Every deliberate difference is named where it is excused.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use stun_types::attribute as stun;
use stun_types::message as theirs;
use stun_types::message::{IntegrityAlgorithm, MessageWrite as _, MessageWriteExt as _};
use stun_types::prelude::Attribute as _;
use taciturn::proto::{
    AttributeType, ChannelData, Class, Data, DecodeError, ErrorCode, EvenPort, Fingerprint,
    HEADER_LEN, Integrity, Lifetime, LongTermKey, Message, Method, Nonce, RawAttribute, Realm,
    Reserve, Software, TransactionId, Username, Writer, XorMappedAddress, XorPeerAddress,
    XorRelayedAddress,
};
use turn_types::attribute as turn;

use crate::generate::{Plan, damage, key, plan};
use crate::oracle::{self, compare_value, their_id};

proptest! {
    #[test]
    fn whole_messages_are_read_alike(plan in plan()) {
        let bytes = plan.write();
        prop_assert!(Message::decode(&bytes).is_ok());
        compare_message(&bytes);
        compare_integrity(&bytes, &plan);
    }

    #[test]
    fn channel_data_is_read_alike(
        first in prop_oneof![0x3E..=0x42_u8, 0x7E..=0x82_u8, any::<u8>()],
        second in any::<u8>(),
        length in prop_oneof![0..20_u16, any::<u16>()],
        rest in vec(any::<u8>(), 0..20),
        cut in 0..5_usize,
    ) {
        let mut bytes = vec![first, second];
        bytes.extend(length.to_be_bytes());
        bytes.extend(rest);
        bytes.drain(bytes.len().saturating_sub(cut)..);
        let ours = ChannelData::decode_datagram(&bytes);
        match (ours, turn_types::channel::ChannelData::parse(&bytes)) {
            (Ok(ours), Ok(theirs)) => {
                prop_assert_eq!((ours.channel, ours.payload), (theirs.id(), theirs.data()));
            }
            // RFC 8656 §12.6: "If the message uses a value in the reserved range (0x5000 through
            // 0xFFFF), then the message is silently discarded"; what RFC 5766 leaves of that range
            // is refused here, the rest by the server. The oracle reads it all but 0xFFFF.
            (Err(_), Ok(theirs)) => prop_assert!(theirs.id() >= 0x8000),
            (Ok(ours), Err(error)) => prop_assert!(false, "{ours:?} but {error}"),
            (Err(_), Err(_)) => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(5000))]

    #[test]
    fn damaged_messages_are_read_alike(plan in plan(), damages in damage()) {
        let mut bytes = plan.write();
        damages.iter().for_each(|damage| damage.strike(&mut bytes));
        compare_message(&bytes);
    }

    #[test]
    fn arbitrary_values_are_read_alike(
        kind in select(&oracle::TYPES[..]),
        value in value(),
        id in any::<[u8; 12]>(),
    ) {
        compare_value(RawAttribute { kind, value: &value }, TransactionId::new(id));
    }

    #[test]
    fn long_text_is_read_alike(
        kind in select(&oracle::TYPES[..]),
        len in 250..800_usize,
        byte in select(&[b'a', 0xC3][..]),
    ) {
        let mut value = vec![b'a'; len];
        value[len - 1] = byte;
        compare_value(RawAttribute { kind, value: &value }, TransactionId::new([0; 12]));
    }
}

#[test]
fn both_write_the_same_bytes() {
    let id = TransactionId::new(*b"123456789abc");
    let addresses = ["192.0.2.1:4000", "[2001:db8::1]:4000"].map(|text| text.parse().unwrap());
    let mut buf = [0xAA; 1000];
    let mut ours = Writer::new(&mut buf, Class::Error, Method::ALLOCATE, id).unwrap();
    let kind = theirs::MessageType::from_class_method(
        theirs::MessageClass::Error,
        turn_types::message::ALLOCATE,
    );
    let mut their = theirs::Message::builder(kind, their_id(id), theirs::MessageWriteVec::new());
    for (push_ours, attribute) in [
        (
            ours.push(&ErrorCode {
                code: 438,
                reason: "Stale",
            }),
            &stun::ErrorCode::new(438, "Stale").unwrap()
                as &dyn stun_types::prelude::AttributeWrite,
        ),
        (
            ours.push(&Username("user")),
            &stun::Username::new("user").unwrap(),
        ),
        (
            ours.push(&Realm("realm")),
            &stun::Realm::new("realm").unwrap(),
        ),
        (ours.push(&Nonce("n")), &stun::Nonce::new("n").unwrap()),
        (
            ours.push(&Software("abc")),
            &stun::Software::new("abc").unwrap(),
        ),
        (
            ours.push(&XorMappedAddress(addresses[0])),
            &stun::XorMappedAddress::new(addresses[0], their_id(id)),
        ),
        (
            ours.push(&XorPeerAddress(addresses[1])),
            &turn::XorPeerAddress::new(addresses[1], their_id(id)),
        ),
        (
            ours.push(&XorRelayedAddress(addresses[1])),
            &turn::XorRelayedAddress::new(addresses[1], their_id(id)),
        ),
        (ours.push(&Lifetime(600)), &turn::Lifetime::new(600)),
        (
            ours.push(&EvenPort {
                reserve_next: Reserve::Yes,
            }),
            &turn::EvenPort::new(true),
        ),
        (
            ours.push(&Data(&[1, 2, 3, 4, 5])),
            &turn::Data::new(&[1, 2, 3, 4, 5]),
        ),
    ] {
        push_ours.unwrap();
        their.add_attribute(attribute).unwrap();
    }
    let credentials = theirs::MessageIntegrityCredentials::from(credentials("pass"));
    ours.integrity(&key()).unwrap();
    ours.integrity_sha256(&LongTermKey::sha256("user", "realm", "pass"))
        .unwrap();
    ours.fingerprint().unwrap();
    their
        .add_message_integrity(&credentials, IntegrityAlgorithm::Sha1)
        .unwrap();
    their
        .add_message_integrity(&credentials, IntegrityAlgorithm::Sha256)
        .unwrap();
    their.add_fingerprint().unwrap();
    let len = ours.finish();
    assert_eq!(buf[..len], their.finish());
}

fn compare_message(bytes: &[u8]) {
    match (Message::decode(bytes), theirs::Message::from_bytes(bytes)) {
        (Ok(ours), Ok(theirs)) => compare_contents(&ours, &theirs),
        // RFC 8489 §14.7: the oracle refuses a message whose FINGERPRINT is wrong; here that is a
        // question of its own.
        (Ok(ours), Err(_)) => assert_eq!(ours.fingerprint(), Fingerprint::Invalid),
        // RFC 8489 §5: "The message length MUST contain the size of the message in bytes"; the
        // oracle reads attributes beyond it. "The last 2 bits of this field are always zero"; the
        // oracle finds out by the last attribute, if it gets there.
        (Err(DecodeError::BadLength), Ok(theirs)) => {
            let length = usize::from(bytes[2]) * 256 + usize::from(bytes[3]);
            let is_odd = !length.is_multiple_of(4);
            assert!(length < bytes.len() - HEADER_LEN || is_odd && may_stop_early(&theirs));
        }
        // RFC 8489 §14.7: "the FINGERPRINT attribute MUST be the last attribute in the message";
        // the oracle ignores what follows.
        (Err(DecodeError::FingerprintNotLast), Ok(_)) => {}
        // RFC 8489 §14: every attribute is well-formed, also those that a receiver ignores; the
        // oracle stops at the first it ignores.
        (Err(DecodeError::BadAttribute), Ok(theirs)) => assert!(may_stop_early(&theirs)),
        (Err(error), Ok(_)) => unreachable!("refused here only: {error}"),
        (Err(_), Err(_)) => {}
    }
}

fn compare_contents(ours: &Message<'_>, theirs: &theirs::Message<'_>) {
    assert_eq!(ours.method().value(), theirs.method().value());
    let class = match theirs.class() {
        theirs::MessageClass::Request => Class::Request,
        theirs::MessageClass::Indication => Class::Indication,
        theirs::MessageClass::Success => Class::Success,
        theirs::MessageClass::Error => Class::Error,
    };
    assert_eq!(ours.class(), class);
    assert_eq!(their_id(ours.transaction_id()), theirs.transaction_id());

    let mut remaining = ours.attributes();
    let mut last = None;
    for (_, raw) in theirs.iter_attributes() {
        let attribute = remaining.next().unwrap();
        assert_eq!(attribute.kind.value(), raw.get_type().value());
        assert_eq!(attribute.value, &raw.value[..]);
        compare_value(attribute, ours.transaction_id());
        last = Some(attribute.kind.value());
    }
    // RFC 8489 §9: MESSAGE-INTEGRITY-SHA256 and FINGERPRINT count after MESSAGE-INTEGRITY also
    // when ignored attributes stand between; the oracle stops at the first it ignores.
    for attribute in remaining {
        assert!(last.is_some_and(ends_a_message));
        assert!(
            attribute.kind == AttributeType::MESSAGE_INTEGRITY_SHA256
                || attribute.kind == AttributeType::FINGERPRINT
        );
    }
}

fn compare_integrity(bytes: &[u8], plan: &Plan) {
    let message = Message::decode(bytes).unwrap();
    let theirs = theirs::Message::from_bytes(bytes).unwrap();
    for (password, algorithm) in [
        ("pass", IntegrityAlgorithm::Sha1),
        ("wrong", IntegrityAlgorithm::Sha1),
        ("pass", IntegrityAlgorithm::Sha256),
        ("wrong", IntegrityAlgorithm::Sha256),
    ] {
        let (there, ours) = match algorithm {
            IntegrityAlgorithm::Sha1 => {
                let key = LongTermKey::md5("user", "realm", password);
                (plan.ending.integrity, message.verify_integrity(&key))
            }
            // The plan signs both with the key made by MD5.
            IntegrityAlgorithm::Sha256 => {
                let key = LongTermKey::sha256("user", "realm", password);
                (
                    plan.ending.integrity_sha256,
                    message.verify_integrity_sha256(&key),
                )
            }
        };
        let their_key = credentials(password).make_key(algorithm);
        let accepted = theirs.validate_integrity_with_key(&their_key).is_ok();
        assert_eq!(ours == Integrity::Valid, accepted);
        assert_eq!(ours == Integrity::Absent, !there);
    }
}

/// Whether the oracle met an attribute after which it reads no further than the next one that is
/// to be ignored.
fn may_stop_early(theirs: &theirs::Message<'_>) -> bool {
    let last = theirs.iter_attributes().last();
    last.is_some_and(|(_, raw)| ends_a_message(raw.get_type().value()))
}

fn ends_a_message(kind: u16) -> bool {
    let kind = AttributeType::new(kind);
    kind == AttributeType::MESSAGE_INTEGRITY
        || kind == AttributeType::MESSAGE_INTEGRITY_SHA256
        || kind == AttributeType::FINGERPRINT
}

fn credentials(password: &str) -> theirs::LongTermKeyCredentials {
    theirs::LongTermKeyCredentials::new("user".into(), password.into(), "realm".into())
}

/// Values around the lengths and first bytes that matter.
fn value() -> impl Strategy<Value = Vec<u8>> {
    let len = prop_oneof![0..=9_usize, Just(20_usize), Just(32_usize), 0..50_usize];
    (
        len,
        0..4_u8,
        any::<[u8; 4]>(),
        vec(any::<u8>(), 50),
        any::<bool>(),
    )
        .prop_map(|(len, small, [_, _, class, number], mut bytes, text)| {
            if text {
                bytes.iter_mut().for_each(|byte| *byte &= 0x7F);
            }
            bytes[..4].copy_from_slice(&[0, small, class % 8, number % 110]);
            if class >= 0x80 {
                bytes.swap(0, 1);
            }
            bytes.truncate(len);
            bytes
        })
}
