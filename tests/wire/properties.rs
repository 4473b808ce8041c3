//! Properties: what is written reads back as what was meant, and no bytes make a decoder panic.

use proptest::collection::vec;
use proptest::prelude::*;
use taciturn::proto::{
    AdditionalAddressFamily, AddressErrorCode, AlternateDomain, AlternateServer, Attribute,
    AttributeType, ChangeRequest, ChannelData, ChannelNumber, ChannelNumberAttribute, ChannelRange,
    ConnectionId, Data, DontFragment, ErrorCode, EvenPort, Fingerprint, HEADER_LEN, Icmp,
    Integrity, Lifetime, MappedAddress, Message, MobilityTicket, Nonce, OtherAddress, Padding,
    PasswordAlgorithms, Realm, RequestedAddressFamily, RequestedTransport, ReservationToken,
    ResponseOrigin, ResponsePort, Software, TransactionId, UnknownAttributes, Userhash, Username,
    XorMappedAddress, XorPeerAddress, XorRelayedAddress,
};

use crate::fuzz_bodies;
use crate::generate::{
    Ending, Owned, Plan, damage, key, password_algorithm, password_algorithms, plan,
};

proptest! {
    #[test]
    fn a_written_message_reads_back(plan in plan()) {
        let bytes = plan.write();
        let message = Message::decode(&bytes).unwrap();
        prop_assert_eq!(message.class(), plan.class);
        prop_assert_eq!(message.method(), plan.method);
        prop_assert_eq!(message.transaction_id(), TransactionId::new(plan.id));
        prop_assert_eq!(message.as_bytes(), &bytes[..]);

        let Ending { integrity, integrity_sha256, fingerprint } = plan.ending;
        let expected = |there| if there { Integrity::Valid } else { Integrity::Absent };
        prop_assert_eq!(message.verify_integrity(&key()), expected(integrity));
        prop_assert_eq!(message.verify_integrity_sha256(&key()), expected(integrity_sha256));
        let expected = if fingerprint { Fingerprint::Valid } else { Fingerprint::Absent };
        prop_assert_eq!(message.fingerprint(), expected);

        let ending = [integrity, integrity_sha256, fingerprint].into_iter().filter(|&it| it);
        let raw: Vec<_> = message.attributes().collect();
        prop_assert_eq!(raw.len(), plan.attributes.len() + ending.count());
        for (raw, owned) in raw.iter().zip(&plan.attributes) {
            assert_reads_as(raw.kind, raw.value, message.transaction_id(), owned);
        }
    }

    /// T45
    #[test]
    fn every_byte_between_values_is_zero(plan in plan()) {
        let bytes = plan.write();
        let mut rest = &bytes[HEADER_LEN..];
        while let [_, _, l0, l1, tail @ ..] = rest {
            let len = usize::from(u16::from_be_bytes([*l0, *l1]));
            let padded = len.next_multiple_of(4);
            prop_assert!(tail[len..padded].iter().all(|&byte| byte == 0));
            rest = &tail[padded..];
        }
        prop_assert!(rest.is_empty());
    }

    #[test]
    fn channel_data_reads_back(
        number in 0x4000..=0x4FFF_u16,
        payload in vec(any::<u8>(), 0..2000),
        trailing in vec(any::<u8>(), 0..4),
    ) {
        let channel = ChannelNumber::new(number, ChannelRange::Rfc8656).unwrap();
        let length = u16::try_from(payload.len()).unwrap();
        let mut bytes = ChannelData::encode_header(channel, length).to_vec();
        bytes.extend(&payload);
        bytes.extend(trailing);
        let expected = ChannelData { channel: number, payload: &payload };
        prop_assert_eq!(ChannelData::decode_datagram(&bytes), Ok(expected));
    }

    /// T44
    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..600)) {
        for start in 0..bytes.len().min(4) {
            fuzz_bodies::decode(&bytes[start..]);
            fuzz_bodies::stream_border(&bytes[start..]);
        }
    }

    /// T44
    #[test]
    fn damaged_messages_never_panic(plan in plan(), damages in damage(), shift in 0..4_usize) {
        let mut bytes = plan.write();
        damages.iter().for_each(|damage| damage.strike(&mut bytes));
        // A slice at any alignment.
        let mut shifted = vec![0; shift];
        shifted.extend(bytes);
        fuzz_bodies::decode(&shifted[shift..]);
        fuzz_bodies::stream_border(&shifted[shift..]);
    }

    /// T44
    #[test]
    fn arbitrary_values_never_panic(
        kind in any::<u16>(),
        value in vec(any::<u8>(), 0..40),
        id in any::<[u8; 12]>(),
    ) {
        fuzz_bodies::values(AttributeType::new(kind), &value, TransactionId::new(id));
    }

    /// T18: a change anywhere in what an integrity covers is noticed.
    #[test]
    fn a_signed_message_with_another_bit_is_not_valid(
        plan in plan(),
        at in any::<prop::sample::Index>(),
        bit in 0..8_u8,
    ) {
        let ending = Ending { integrity: true, integrity_sha256: true, fingerprint: false };
        let mut bytes = Plan { ending, ..plan }.write();
        // Up to and including the header of MESSAGE-INTEGRITY-SHA256, but for the length fields.
        let at = at.index(bytes.len() - 36);
        bytes[at] ^= 1 << bit;
        if let Ok(message) = Message::decode(&bytes) {
            prop_assert_ne!(message.verify_integrity_sha256(&key()), Integrity::Valid);
        }
    }
}

/// Decodes by the type that `owned` was written as, and compares.
fn assert_reads_as(kind: AttributeType, value: &[u8], id: TransactionId, owned: &Owned) {
    macro_rules! check {
        ($expected:expr) => {{
            let expected = $expected;
            assert_eq!(kind, type_of(&expected));
            assert_eq!(Attribute::decode(value, id), Ok(expected));
        }};
    }
    match owned {
        Owned::MappedAddress(address) => check!(MappedAddress(*address)),
        Owned::ChangeRequest(change_ip, change_port) => {
            check!(ChangeRequest {
                change_ip: *change_ip,
                change_port: *change_port
            });
        }
        Owned::Username(text) => check!(Username(text)),
        Owned::ErrorCode(code, reason) => check!(ErrorCode {
            code: *code,
            reason
        }),
        Owned::UnknownAttributes(types) => {
            let types: Vec<_> = types
                .iter()
                .map(|&value| AttributeType::new(value))
                .collect();
            check!(UnknownAttributes::new(&types));
        }
        Owned::ChannelNumber(number) => check!(ChannelNumberAttribute(*number)),
        Owned::Lifetime(seconds) => check!(Lifetime(*seconds)),
        Owned::XorPeerAddress(address) => check!(XorPeerAddress(*address)),
        Owned::Data(bytes) => check!(Data(bytes)),
        Owned::Realm(text) => check!(Realm(text)),
        Owned::Nonce(text) => check!(Nonce(text)),
        Owned::XorRelayedAddress(address) => check!(XorRelayedAddress(*address)),
        Owned::RequestedAddressFamily(family) => check!(RequestedAddressFamily(*family)),
        Owned::EvenPort(reserve) => check!(EvenPort {
            reserve_next: *reserve
        }),
        Owned::RequestedTransport(protocol) => check!(RequestedTransport(*protocol)),
        Owned::DontFragment => check!(DontFragment),
        Owned::PasswordAlgorithm(number, bytes) => check!(password_algorithm(*number, bytes)),
        Owned::Userhash(hash) => check!(Userhash(*hash)),
        Owned::XorMappedAddress(address) => check!(XorMappedAddress(*address)),
        Owned::ReservationToken(token) => check!(ReservationToken(*token)),
        Owned::Padding(bytes) => check!(Padding(bytes)),
        Owned::ResponsePort(port) => check!(ResponsePort(*port)),
        Owned::ConnectionId(id) => check!(ConnectionId(*id)),
        Owned::AdditionalAddressFamily(family) => check!(AdditionalAddressFamily(*family)),
        Owned::AddressErrorCode(family, code, reason) => {
            check!(AddressErrorCode {
                family: *family,
                code: *code,
                reason
            });
        }
        Owned::PasswordAlgorithms(entries) => {
            let entries = password_algorithms(entries);
            check!(PasswordAlgorithms::new(&entries));
        }
        Owned::AlternateDomain(name) => check!(AlternateDomain(name)),
        Owned::Icmp(kind, code, data) => check!(Icmp {
            kind: *kind,
            code: *code,
            data: *data
        }),
        Owned::Software(text) => check!(Software(text)),
        Owned::AlternateServer(address) => check!(AlternateServer(*address)),
        Owned::ResponseOrigin(address) => check!(ResponseOrigin(*address)),
        Owned::OtherAddress(address) => check!(OtherAddress(*address)),
        Owned::MobilityTicket(bytes) => check!(MobilityTicket(bytes)),
    }
}

fn type_of<'a, A: Attribute<'a>>(_: &A) -> AttributeType {
    A::TYPE
}
