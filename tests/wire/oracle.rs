//! `stun-types` and `turn-types` as oracle for single attribute values. Every deliberate
//! difference is named where it is excused.

use std::fmt::Debug;
use std::net::SocketAddr;

use stun_types::attribute as stun;
use stun_types::prelude::AttributeFromRaw as _;
use taciturn::proto::{
    AdditionalAddressFamily, AddressErrorCode, AddressFamily, Algorithm, AlternateDomain,
    AlternateServer, Attribute, AttributeType, ChannelNumberAttribute, ConnectionId, Data,
    DontFragment, ErrorCode, EvenPort, Icmp, Lifetime, MappedAddress, Nonce, OtherAddress,
    PasswordAlgorithm, PasswordAlgorithms, RawAttribute, Realm, RequestedAddressFamily,
    RequestedTransport, ReservationToken, Reserve, ResponseOrigin, Software, TransactionId,
    UnknownAttributes, Userhash, Username, XorMappedAddress, XorPeerAddress, XorRelayedAddress,
};
use turn_types::attribute as turn;

/// The types that the oracle decodes too.
pub(crate) const TYPES: [AttributeType; 28] = [
    AttributeType::MAPPED_ADDRESS,
    AttributeType::USERNAME,
    AttributeType::ERROR_CODE,
    AttributeType::UNKNOWN_ATTRIBUTES,
    AttributeType::CHANNEL_NUMBER,
    AttributeType::LIFETIME,
    AttributeType::XOR_PEER_ADDRESS,
    AttributeType::DATA,
    AttributeType::REALM,
    AttributeType::NONCE,
    AttributeType::XOR_RELAYED_ADDRESS,
    AttributeType::REQUESTED_ADDRESS_FAMILY,
    AttributeType::EVEN_PORT,
    AttributeType::REQUESTED_TRANSPORT,
    AttributeType::DONT_FRAGMENT,
    AttributeType::PASSWORD_ALGORITHM,
    AttributeType::USERHASH,
    AttributeType::XOR_MAPPED_ADDRESS,
    AttributeType::RESERVATION_TOKEN,
    AttributeType::CONNECTION_ID,
    AttributeType::ADDITIONAL_ADDRESS_FAMILY,
    AttributeType::ADDRESS_ERROR_CODE,
    AttributeType::PASSWORD_ALGORITHMS,
    AttributeType::ALTERNATE_DOMAIN,
    AttributeType::ICMP,
    AttributeType::SOFTWARE,
    AttributeType::ALTERNATE_SERVER,
    AttributeType::RESPONSE_ORIGIN,
];

/// Holds our reading of a value against the oracle's: both refuse it, or both read the same.
#[expect(clippy::too_many_lines, reason = "one arm for each attribute type")]
pub(crate) fn compare_value(attribute: RawAttribute<'_>, id: TransactionId) {
    let RawAttribute { kind, value } = attribute;
    let raw = stun::RawAttribute::new(kind.value().into(), value);
    let their_id = their_id(id);
    macro_rules! agree {
        ($ours:ty, $theirs:ty, |$a:ident, $b:ident| $same:expr) => {{
            let (ours, theirs) = (<$ours>::decode(value, id), <$theirs>::from_raw_ref(&raw));
            assert_both(ours, theirs, |$a, $b| $same);
        }};
    }
    match kind {
        AttributeType::MAPPED_ADDRESS => plain::<MappedAddress>(value, id, &raw, |a| a.0),
        AttributeType::ALTERNATE_SERVER => plain::<AlternateServer>(value, id, &raw, |a| a.0),
        AttributeType::RESPONSE_ORIGIN => plain::<ResponseOrigin>(value, id, &raw, |a| a.0),
        AttributeType::OTHER_ADDRESS => plain::<OtherAddress>(value, id, &raw, |a| a.0),
        AttributeType::XOR_MAPPED_ADDRESS => {
            agree!(XorMappedAddress, stun::XorMappedAddress, |a, b| a.0
                == b.addr(their_id));
        }
        AttributeType::XOR_PEER_ADDRESS => {
            agree!(XorPeerAddress, turn::XorPeerAddress, |a, b| a.0
                == b.addr(their_id));
        }
        AttributeType::XOR_RELAYED_ADDRESS => {
            agree!(XorRelayedAddress, turn::XorRelayedAddress, |a, b| a.0
                == b.addr(their_id));
        }
        AttributeType::USERNAME => {
            // RFC 8489 §14.3: "A compliant implementation MUST be able to parse a UTF-8-encoded
            // sequence of 763 or fewer octets"; the oracle stops at 513.
            if (514..=763).contains(&value.len()) {
                assert_eq!(
                    Username::decode(value, id).is_ok(),
                    str::from_utf8(value).is_ok()
                );
            } else {
                agree!(Username<'_>, stun::Username, |a, b| a.0 == b.username());
            }
        }
        AttributeType::REALM => agree!(Realm<'_>, stun::Realm, |a, b| a.0 == b.realm()),
        AttributeType::NONCE => agree!(Nonce<'_>, stun::Nonce, |a, b| a.0 == b.nonce()),
        AttributeType::SOFTWARE => agree!(Software<'_>, stun::Software, |a, b| a.0 == b.software()),
        AttributeType::ALTERNATE_DOMAIN => {
            // RFC 8489 §14.16: "a valid DNS name [...] of 255 or fewer ASCII characters"; the
            // oracle takes any UTF-8.
            if value.is_ascii() && value.len() <= 255 {
                agree!(AlternateDomain<'_>, stun::AlternateDomain, |a, b| a.0
                    == b.domain());
            } else {
                assert!(AlternateDomain::decode(value, id).is_err());
            }
        }
        AttributeType::USERHASH => agree!(Userhash, stun::Userhash, |a, b| a.0 == *b.hash()),
        AttributeType::ERROR_CODE => {
            agree!(ErrorCode<'_>, stun::ErrorCode, |a, b| a.code == b.code()
                && a.reason == b.reason());
        }
        AttributeType::ADDRESS_ERROR_CODE => {
            agree!(AddressErrorCode<'_>, turn::AddressErrorCode, |a, b| {
                same_family(a.family, b.family())
                    && a.code == b.error().code()
                    && a.reason == b.error().reason()
            });
        }
        AttributeType::UNKNOWN_ATTRIBUTES => {
            agree!(UnknownAttributes<'_>, stun::UnknownAttributes, |a, b| {
                a.iter().count() * 2 == value.len()
                    && a.iter().all(|kind| b.has_attribute(kind.value().into()))
            });
        }
        AttributeType::PASSWORD_ALGORITHM => compare_password_algorithm(value, id, &raw),
        AttributeType::PASSWORD_ALGORITHMS => compare_password_algorithms(value, id, &raw),
        AttributeType::CHANNEL_NUMBER => {
            agree!(ChannelNumberAttribute, turn::ChannelNumber, |a, b| a.0
                == b.channel());
        }
        AttributeType::LIFETIME => agree!(Lifetime, turn::Lifetime, |a, b| a.0 == b.seconds()),
        AttributeType::DATA => agree!(Data<'_>, turn::Data<'_>, |a, b| a.0 == b.data()),
        AttributeType::REQUESTED_ADDRESS_FAMILY => {
            agree!(
                RequestedAddressFamily,
                turn::RequestedAddressFamily,
                |a, b| { same_family(a.0, b.family()) }
            );
        }
        AttributeType::ADDITIONAL_ADDRESS_FAMILY => {
            // RFC 8656 §18.11: "0x02 (IPv6 address) is the only valid value in Allocate request";
            // the oracle refuses IPv4 while decoding, here the server does.
            if matches!(value, [1, _, _, _]) {
                let ours = AdditionalAddressFamily::decode(value, id);
                assert_eq!(ours, Ok(AdditionalAddressFamily(AddressFamily::V4)));
            } else {
                agree!(
                    AdditionalAddressFamily,
                    turn::AdditionalAddressFamily,
                    |a, b| { same_family(a.0, b.family()) }
                );
            }
        }
        AttributeType::EVEN_PORT => {
            agree!(EvenPort, turn::EvenPort, |a, b| (a.reserve_next
                == Reserve::Yes)
                == b.requested());
        }
        AttributeType::REQUESTED_TRANSPORT => {
            agree!(RequestedTransport, turn::RequestedTransport, |a, b| a.0
                == b.protocol());
        }
        AttributeType::DONT_FRAGMENT => agree!(DontFragment, turn::DontFragment, |_a, _b| true),
        AttributeType::RESERVATION_TOKEN => {
            agree!(ReservationToken, turn::ReservationToken, |a, b| a.0
                == b.token().to_be_bytes());
        }
        AttributeType::CONNECTION_ID => {
            agree!(ConnectionId, turn::ConnectionId, |a, b| a.0 == b.id());
        }
        AttributeType::ICMP => {
            agree!(Icmp, turn::Icmp, |a, b| (a.kind, a.code)
                == (b.icmp_type(), b.code())
                && a.data == b.data().to_be_bytes());
        }
        _ => {}
    }
}

/// The oracle's form of a transaction id.
pub(crate) fn their_id(id: TransactionId) -> stun_types::message::TransactionId {
    let mut bytes = [0; 16];
    bytes[4..].copy_from_slice(id.as_bytes());
    u128::from_be_bytes(bytes).into()
}

fn plain<'a, A: Attribute<'a> + Debug>(
    value: &'a [u8],
    id: TransactionId,
    raw: &stun::RawAttribute<'_>,
    address: impl FnOnce(&A) -> SocketAddr,
) {
    let theirs = stun::MappedSocketAddr::from_raw(raw);
    assert_both(A::decode(value, id), theirs, |a, b| address(a) == b.addr());
}

fn compare_password_algorithm(value: &[u8], id: TransactionId, raw: &stun::RawAttribute<'_>) {
    let ours = PasswordAlgorithm::decode(value, id);
    let theirs = stun::PasswordAlgorithm::from_raw_ref(raw);
    match (ours, theirs) {
        (Ok(ours), Ok(theirs)) => assert!(same_algorithm(ours, theirs.algorithm())),
        // RFC 8489 §14.12: the value is one number and its parameters; the oracle overlooks what
        // follows.
        (Err(_), Ok(_)) => assert!(value.len() > 4),
        // RFC 8489 §18.5: algorithms are registered as time goes on; the oracle refuses those it
        // does not know, and all parameters.
        (Ok(ours), Err(_)) => assert!(is_beyond_the_oracle(ours), "{ours:?}"),
        (Err(_), Err(_)) => {}
    }
}

fn compare_password_algorithms(value: &[u8], id: TransactionId, raw: &stun::RawAttribute<'_>) {
    let ours = PasswordAlgorithms::decode(value, id);
    let theirs = stun::PasswordAlgorithms::from_raw_ref(raw);
    match (ours, theirs) {
        (Ok(ours), Ok(theirs)) => {
            assert_eq!(ours.iter().count(), theirs.algorithms().len());
            assert!(
                ours.iter()
                    .zip(theirs.algorithms())
                    .all(|(a, &b)| same_algorithm(a, b))
            );
        }
        // As for PASSWORD-ALGORITHM.
        (Ok(ours), Err(_)) => assert!(ours.iter().any(is_beyond_the_oracle)),
        (Err(error), Ok(theirs)) => unreachable!("{error} but {theirs:?}"),
        (Err(_), Err(_)) => {}
    }
}

fn same_algorithm(ours: PasswordAlgorithm<'_>, theirs: stun::PasswordAlgorithmValue) -> bool {
    let expected = match theirs {
        stun::PasswordAlgorithmValue::MD5 => Algorithm::Md5,
        stun::PasswordAlgorithmValue::SHA256 => Algorithm::Sha256,
    };
    ours == PasswordAlgorithm {
        algorithm: expected,
        parameters: &[],
    }
}

fn is_beyond_the_oracle(ours: PasswordAlgorithm<'_>) -> bool {
    matches!(ours.algorithm, Algorithm::Other(_)) || !ours.parameters.is_empty()
}

fn same_family(ours: AddressFamily, theirs: stun_types::AddressFamily) -> bool {
    matches!(
        (ours, theirs),
        (AddressFamily::V4, stun_types::AddressFamily::IPV4)
            | (AddressFamily::V6, stun_types::AddressFamily::IPV6)
    )
}

fn assert_both<A: Debug, B: Debug>(
    ours: Result<A, impl Debug>,
    theirs: Result<B, impl Debug>,
    same: impl FnOnce(&A, &B) -> bool,
) {
    match (ours, theirs) {
        (Ok(ours), Ok(theirs)) => assert!(same(&ours, &theirs), "{ours:?} is not {theirs:?}"),
        (Err(_), Err(_)) => {}
        (ours, theirs) => unreachable!("one accepts, one refuses: {ours:?}, {theirs:?}"),
    }
}
