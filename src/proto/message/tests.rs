use super::*;
use crate::proto::{Lifetime, Realm, Software, Username, Writer, XorPeerAddress};

const ID: TransactionId = TransactionId::new(*b"abcdefghijkl");

/// A Refresh request with these attributes, types and values as given.
fn raw(attributes: &[(AttributeType, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (kind, value) in attributes {
        body.extend(kind.value().to_be_bytes());
        body.extend(u16::try_from(value.len()).expect("short").to_be_bytes());
        body.extend(*value);
        body.resize(body.len().next_multiple_of(4), 0);
    }
    let length = u16::try_from(body.len()).expect("short");
    let mut bytes = vec![0x00, 0x04];
    bytes.extend(length.to_be_bytes());
    bytes.extend(MAGIC_COOKIE.to_be_bytes());
    bytes.extend(ID.as_bytes());
    bytes.extend(body);
    bytes
}

/// A message signed as `sign` says, then `attributes` behind, with the header's length corrected.
fn signed(
    sign: impl FnOnce(&mut Writer<'_>) -> Result<(), crate::proto::Full>,
    attributes: &[(AttributeType, &[u8])],
) -> Vec<u8> {
    let mut buf = [0; 200];
    let mut writer = Writer::new(&mut buf, Class::Request, Method::REFRESH, ID).expect("room");
    writer.push(&Lifetime(600)).expect("room");
    sign(&mut writer).expect("room");
    let len = writer.finish();
    let mut bytes = buf[..len].to_vec();
    bytes.extend(&raw(attributes)[HEADER_LEN..]);
    let length = u16::try_from(bytes.len() - HEADER_LEN).expect("short");
    bytes[2..4].copy_from_slice(&length.to_be_bytes());
    bytes
}

fn key() -> LongTermKey {
    LongTermKey::md5("user", "realm", "pass")
}

fn kinds(message: &Message<'_>) -> Vec<AttributeType> {
    message
        .attributes()
        .map(|attribute| attribute.kind)
        .collect()
}

#[test]
fn every_type_is_its_class_and_method() {
    for value in 0..=0xFFF {
        let method = Method::new(value).expect("twelve bits");
        for class in [
            Class::Request,
            Class::Indication,
            Class::Success,
            Class::Error,
        ] {
            let bits = encode_type(class, method);
            assert_eq!(bits & 0xC000, 0);
            assert_eq!(decode_type(bits), (class, method));
        }
    }
    assert_eq!(Method::new(0x1000), None);
}

#[test]
fn types_stand_on_the_wire_as_the_rfcs_print_them() {
    assert_eq!(encode_type(Class::Request, Method::BINDING), 0x0001);
    assert_eq!(encode_type(Class::Success, Method::BINDING), 0x0101);
    assert_eq!(encode_type(Class::Error, Method::ALLOCATE), 0x0113);
    assert_eq!(encode_type(Class::Indication, Method::SEND), 0x0016);
}

#[test]
fn bad_headers_are_told_apart() {
    let good = raw(&[(AttributeType::LIFETIME, &[0, 0, 0, 1])]);
    let with = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        Message::decode(&bytes).map(|_| ())
    };
    assert_eq!(
        Message::decode(&good[..19]).map(|_| ()),
        Err(DecodeError::TooShort)
    );
    assert_eq!(with(0, 0x40), Err(DecodeError::NotStun));
    assert_eq!(with(0, 0x80), Err(DecodeError::NotStun));
    assert_eq!(with(4, 0x20), Err(DecodeError::BadCookie));
    assert_eq!(with(3, 4), Err(DecodeError::BadLength));
    assert_eq!(with(3, 12), Err(DecodeError::BadLength));
    assert_eq!(with(3, 9), Err(DecodeError::BadLength));
    assert_eq!(with(0, 0x00), Ok(()));
}

#[test]
fn a_length_that_is_no_multiple_of_four_is_refused_even_when_it_fits() {
    let mut bytes = raw(&[]);
    bytes.extend([0, 0x1A, 0, 0, 0]);
    bytes[3] = 5;
    assert_eq!(Message::decode(&bytes), Err(DecodeError::BadLength));
}

/// T46
#[test]
fn an_attribute_beyond_the_message_is_refused() {
    for length in [5, 8, 0x7FFF, 0xFFFC, 0xFFFD, 0xFFFF_u16] {
        let mut bytes = raw(&[(AttributeType::LIFETIME, &[0, 0, 0, 1])]);
        bytes[22..24].copy_from_slice(&length.to_be_bytes());
        assert_eq!(
            Message::decode(&bytes),
            Err(DecodeError::BadAttribute),
            "{length}"
        );
    }
}

/// T49
#[test]
fn fingerprint_is_the_last_attribute_or_the_message_is_refused() {
    let fingerprint = (AttributeType::FINGERPRINT, &[0; 4][..]);
    let software = (AttributeType::SOFTWARE, &b"x"[..]);
    let decode = |attributes: &[_]| Message::decode(&raw(attributes)).map(|_| ());
    assert_eq!(decode(&[software, fingerprint]), Ok(()));
    assert_eq!(
        decode(&[fingerprint, software]),
        Err(DecodeError::FingerprintNotLast)
    );
    assert_eq!(
        decode(&[fingerprint, fingerprint]),
        Err(DecodeError::FingerprintNotLast)
    );
}

#[test]
fn fingerprint_is_judged() {
    let valid = signed(|writer| writer.fingerprint(), &[]);
    let fingerprint = |bytes: &[u8]| Message::decode(bytes).map(|message| message.fingerprint());
    assert_eq!(fingerprint(&valid), Ok(Fingerprint::Valid));
    assert_eq!(fingerprint(&raw(&[])), Ok(Fingerprint::Absent));
    for at in [1, 10, 25, valid.len() - 1] {
        let mut bytes = valid.clone();
        bytes[at] ^= 1;
        assert_eq!(fingerprint(&bytes), Ok(Fingerprint::Invalid), "{at}");
    }
    let long = raw(&[(AttributeType::FINGERPRINT, &[0; 8])]);
    assert_eq!(fingerprint(&long), Ok(Fingerprint::Invalid));
}

/// T16
#[test]
fn attributes_after_message_integrity_do_not_count() {
    let peer = [0, 1, 0, 0, 0, 0, 0, 0];
    let appended: &[(AttributeType, &[u8])] = &[
        (AttributeType::LIFETIME, &[0xFF; 4]),
        (AttributeType::XOR_PEER_ADDRESS, &peer),
        (AttributeType::new(0x7ABC), &[]),
        (AttributeType::MESSAGE_INTEGRITY, &[0; 20]),
    ];
    let bytes = signed(|writer| writer.integrity(&key()), appended);
    let message = Message::decode(&bytes).expect("a message");
    assert_eq!(
        kinds(&message),
        [AttributeType::LIFETIME, AttributeType::MESSAGE_INTEGRITY]
    );
    assert_eq!(
        message.all::<Lifetime>().collect::<Vec<_>>(),
        [Ok(Lifetime(600))]
    );
    assert_eq!(message.find::<XorPeerAddress>(), None);
    assert!(!message.has(AttributeType::XOR_PEER_ADDRESS));
    let known = [AttributeType::LIFETIME, AttributeType::MESSAGE_INTEGRITY];
    assert_eq!(message.unknown_required(&known).count(), 0);
    assert_eq!(message.verify_integrity(&key()), Integrity::Valid);
}

/// T16
#[test]
fn both_integrities_and_fingerprint_count_in_their_order() {
    let both = |writer: &mut Writer<'_>| {
        writer.integrity(&key())?;
        writer.integrity_sha256(&key())?;
        writer.fingerprint()
    };
    let bytes = signed(both, &[]);
    let message = Message::decode(&bytes).expect("a message");
    assert_eq!(message.verify_integrity(&key()), Integrity::Valid);
    assert_eq!(message.verify_integrity_sha256(&key()), Integrity::Valid);
    assert_eq!(message.fingerprint(), Fingerprint::Valid);
}

/// T16
#[test]
fn only_fingerprint_counts_after_message_integrity_sha256() {
    let appended: &[(AttributeType, &[u8])] = &[
        (AttributeType::LIFETIME, &[0xFF; 4]),
        (AttributeType::MESSAGE_INTEGRITY, &[0; 20]),
        (AttributeType::MESSAGE_INTEGRITY_SHA256, &[0; 32]),
        (AttributeType::FINGERPRINT, &[0; 4]),
    ];
    let bytes = signed(|writer| writer.integrity_sha256(&key()), appended);
    let message = Message::decode(&bytes).expect("a message");
    let expected = [
        AttributeType::LIFETIME,
        AttributeType::MESSAGE_INTEGRITY_SHA256,
        AttributeType::FINGERPRINT,
    ];
    assert_eq!(kinds(&message), expected);
    assert_eq!(message.verify_integrity(&key()), Integrity::Absent);
    assert_eq!(message.verify_integrity_sha256(&key()), Integrity::Valid);
}

/// T17
#[test]
fn the_first_of_two_attributes_is_the_one() {
    let bytes = raw(&[
        (AttributeType::REALM, b"first"),
        (AttributeType::LIFETIME, &[0, 0, 0, 1]),
        (AttributeType::REALM, b"second"),
        (AttributeType::LIFETIME, &[0, 0, 0, 2]),
    ]);
    let message = Message::decode(&bytes).expect("a message");
    assert_eq!(message.find(), Some(Ok(Realm("first"))));
    assert_eq!(message.find(), Some(Ok(Lifetime(1))));
    assert_eq!(
        message.all().collect::<Vec<_>>(),
        [Ok(Realm("first")), Ok(Realm("second"))]
    );
}

/// T17
#[test]
fn a_good_attribute_does_not_mend_a_bad_one_before_it() {
    let bytes = raw(&[
        (AttributeType::LIFETIME, &[1]),
        (AttributeType::LIFETIME, &[0, 0, 0, 2]),
    ]);
    let message = Message::decode(&bytes).expect("a message");
    assert_eq!(
        message.find::<Lifetime>(),
        Some(Err(AttributeError::BadLength))
    );
}

/// T47
#[test]
fn unknown_required_types_are_listed_in_their_order() {
    let bytes = raw(&[
        (AttributeType::new(0x7FFF), &[]),
        (AttributeType::REALM, b"r"),
        (AttributeType::new(0xC001), &[]),
        (AttributeType::new(0x0000), &[]),
        (AttributeType::new(0x7FFF), &[]),
    ]);
    let message = Message::decode(&bytes).expect("a message");
    let unknown: Vec<_> = message
        .unknown_required(&[AttributeType::REALM])
        .map(AttributeType::value)
        .collect();
    assert_eq!(unknown, [0x7FFF, 0x0000, 0x7FFF]);
}

/// T18
#[test]
fn an_integrity_of_another_length_is_invalid() {
    let valid = signed(|writer| writer.integrity(&key()), &[]);
    let mac = &valid[valid.len() - 20..];
    let lifetime = (AttributeType::LIFETIME, &[0, 0, 2, 88][..]);
    let with = |mac: &[u8]| {
        let bytes = raw(&[lifetime, (AttributeType::MESSAGE_INTEGRITY, mac)]);
        Message::decode(&bytes).map(|message| message.verify_integrity(&key()))
    };
    assert_eq!(with(mac), Ok(Integrity::Valid));
    for len in 0..20 {
        assert_eq!(with(&mac[..len]), Ok(Integrity::Invalid), "{len}");
    }
    assert_eq!(with(&[mac, &[0]].concat()), Ok(Integrity::Invalid));
    assert_eq!(with(&[mac, &[0; 4]].concat()), Ok(Integrity::Invalid));
}

/// T18
#[test]
fn a_truncated_sha256_integrity_is_judged_by_what_is_there() {
    for len in 0..=36 {
        // The length field covers the attribute, so each truncation has an HMAC of its own.
        let covered = raw(&[(AttributeType::LIFETIME, &[0, 0, 2, 88])]);
        let mac = integrity::hmac_sha256(&covered, len, &key());
        let value = [&mac[..], &[0; 4]].concat();
        let bytes = raw(&[
            (AttributeType::LIFETIME, &[0, 0, 2, 88]),
            (AttributeType::MESSAGE_INTEGRITY_SHA256, &value[..len]),
        ]);
        let message = Message::decode(&bytes).expect("a message");
        let expected = match len {
            16 | 20 | 24 | 28 | 32 => Integrity::Valid,
            _ => Integrity::Invalid,
        };
        assert_eq!(message.verify_integrity_sha256(&key()), expected, "{len}");
    }
}

/// T18
#[test]
fn one_wrong_bit_or_another_key_makes_an_integrity_invalid() {
    let sign = |writer: &mut Writer<'_>| {
        writer.integrity(&key())?;
        writer.integrity_sha256(&key())
    };
    let valid = signed(sign, &[]);
    let other = LongTermKey::md5("user", "realm", "pasS");
    let message = Message::decode(&valid).expect("a message");
    assert_eq!(message.verify_integrity(&other), Integrity::Invalid);
    assert_eq!(message.verify_integrity_sha256(&other), Integrity::Invalid);
    let sha1_value = HEADER_LEN + 8 + 4..HEADER_LEN + 8 + 24;
    for at in sha1_value {
        for bit in 0..8 {
            let mut bytes = valid.clone();
            bytes[at] ^= 1 << bit;
            let message = Message::decode(&bytes).expect("a message");
            assert_eq!(message.verify_integrity(&key()), Integrity::Invalid);
            assert_eq!(message.verify_integrity_sha256(&key()), Integrity::Invalid);
        }
    }
    for at in valid.len() - 32..valid.len() {
        let mut bytes = valid.clone();
        bytes[at] ^= 0x80;
        let message = Message::decode(&bytes).expect("a message");
        assert_eq!(message.verify_integrity(&key()), Integrity::Valid);
        assert_eq!(message.verify_integrity_sha256(&key()), Integrity::Invalid);
    }
}

#[test]
fn keys_are_made_as_the_rfc_says() {
    // MD5 and SHA-256 of "user:realm:pass".
    assert_eq!(
        LongTermKey::md5("user", "realm", "pass").as_bytes(),
        [
            0x84, 0x93, 0xfb, 0xc5, 0x3b, 0xa5, 0x82, 0xfb, 0x4c, 0x04, 0x4c, 0x45, 0x6b, 0xdc,
            0x40, 0xeb
        ]
    );
    assert_eq!(
        LongTermKey::sha256("user", "realm", "pass")
            .as_bytes()
            .len(),
        32
    );
    assert_eq!(LongTermKey::short_term("pass").as_bytes(), b"pass");
    assert_eq!(
        format!("{:?}", LongTermKey::short_term("pass")),
        "LongTermKey(hidden)"
    );
}

/// T62
#[test]
fn debug_shows_no_value() {
    let mut buf = [0; 200];
    let mut writer = Writer::new(&mut buf, Class::Request, Method::SEND, ID).expect("room");
    writer
        .push(&XorPeerAddress(
            "203.0.113.7:7777".parse().expect("an address"),
        ))
        .expect("room");
    writer.push(&Username("alice")).expect("room");
    writer.push(&Software("browser")).expect("room");
    let len = writer.finish();
    let message = Message::decode(&buf[..len]).expect("a message");
    assert_eq!(
        format!("{message:?}"),
        "Message { class: Request, method: Method(0x006 send), attributes: \
         [AttributeType(0x0012), AttributeType(0x0006), AttributeType(0x8022)], .. }"
    );
    let raw = message.attributes().next().expect("an attribute");
    assert_eq!(
        format!("{raw:?}"),
        "RawAttribute { kind: AttributeType(0x0012), len: 8 }"
    );
}

#[test]
fn every_method_has_a_name_of_its_own() {
    let methods = [
        Method::BINDING,
        Method::ALLOCATE,
        Method::REFRESH,
        Method::SEND,
        Method::DATA,
        Method::CREATE_PERMISSION,
        Method::CHANNEL_BIND,
        Method::CONNECT,
        Method::CONNECTION_BIND,
        Method::CONNECTION_ATTEMPT,
    ];
    let mut names: Vec<_> = methods.map(Method::name).to_vec();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), methods.len());
    assert!(!names.contains(&"other"));
    assert_eq!(Method::new(0xABC).map(Method::name), Some("other"));
}
