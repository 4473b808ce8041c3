//! Strategies for addresses, attributes and messages, and the damage done to messages.

use std::net::{IpAddr, SocketAddr};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use taciturn::proto::{
    AdditionalAddressFamily, AddressErrorCode, AddressFamily, Algorithm, AlternateDomain,
    AlternateServer, AttributeType, ChangeRequest, ChannelNumberAttribute, Class, ConnectionId,
    Data, DontFragment, ErrorCode, EvenPort, Full, Icmp, Lifetime, LongTermKey, MappedAddress,
    Method, MobilityTicket, Nonce, OtherAddress, Padding, PasswordAlgorithm, PasswordAlgorithms,
    Realm, RequestedAddressFamily, RequestedTransport, ReservationToken, Reserve, ResponseOrigin,
    ResponsePort, Software, TransactionId, UnknownAttributes, Userhash, Username, Writer,
    XorMappedAddress, XorPeerAddress, XorRelayedAddress,
};

/// An attribute that owns its value, in the order of the types' numbers.
#[derive(Clone, Debug)]
pub(crate) enum Owned {
    MappedAddress(SocketAddr),
    ChangeRequest(bool, bool),
    Username(String),
    ErrorCode(u16, String),
    UnknownAttributes(Vec<u16>),
    ChannelNumber(u16),
    Lifetime(u32),
    XorPeerAddress(SocketAddr),
    Data(Vec<u8>),
    Realm(String),
    Nonce(String),
    XorRelayedAddress(SocketAddr),
    RequestedAddressFamily(AddressFamily),
    EvenPort(Reserve),
    RequestedTransport(u8),
    DontFragment,
    PasswordAlgorithm(u16, Vec<u8>),
    Userhash([u8; 32]),
    XorMappedAddress(SocketAddr),
    ReservationToken([u8; 8]),
    Padding(Vec<u8>),
    ResponsePort(u16),
    ConnectionId(u32),
    AdditionalAddressFamily(AddressFamily),
    AddressErrorCode(AddressFamily, u16, String),
    PasswordAlgorithms(Vec<(u16, Vec<u8>)>),
    AlternateDomain(String),
    Icmp(u8, u8, [u8; 4]),
    Software(String),
    AlternateServer(SocketAddr),
    ResponseOrigin(SocketAddr),
    OtherAddress(SocketAddr),
    MobilityTicket(Vec<u8>),
}

/// What ends a message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ending {
    pub(crate) integrity: bool,
    pub(crate) integrity_sha256: bool,
    pub(crate) fingerprint: bool,
}

/// A message to be written.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) class: Class,
    pub(crate) method: Method,
    pub(crate) id: [u8; 12],
    pub(crate) attributes: Vec<Owned>,
    pub(crate) ending: Ending,
}

impl Plan {
    /// The message, written into a buffer that held something else.
    pub(crate) fn write(&self) -> Vec<u8> {
        let mut buf = vec![0xAA; 70_000];
        let id = TransactionId::new(self.id);
        let mut writer = Writer::new(&mut buf, self.class, self.method, id).unwrap();
        for attribute in &self.attributes {
            attribute.push(&mut writer).unwrap();
        }
        if self.ending.integrity {
            writer.integrity(&key()).unwrap();
        }
        if self.ending.integrity_sha256 {
            writer.integrity_sha256(&key()).unwrap();
        }
        if self.ending.fingerprint {
            writer.fingerprint().unwrap();
        }
        let len = writer.finish();
        buf.truncate(len);
        buf
    }
}

/// The key of every generated message.
pub(crate) fn key() -> LongTermKey {
    LongTermKey::md5("user", "realm", "pass")
}

impl Owned {
    pub(crate) fn push(&self, writer: &mut Writer<'_>) -> Result<(), Full> {
        match self {
            Self::MappedAddress(address) => writer.push(&MappedAddress(*address)),
            Self::ChangeRequest(change_ip, change_port) => writer.push(&ChangeRequest {
                change_ip: *change_ip,
                change_port: *change_port,
            }),
            Self::Username(text) => writer.push(&Username(text)),
            Self::ErrorCode(code, reason) => writer.push(&ErrorCode {
                code: *code,
                reason,
            }),
            Self::UnknownAttributes(types) => {
                let types: Vec<_> = types
                    .iter()
                    .map(|&value| AttributeType::new(value))
                    .collect();
                writer.push(&UnknownAttributes::new(&types))
            }
            Self::ChannelNumber(number) => writer.push(&ChannelNumberAttribute(*number)),
            Self::Lifetime(seconds) => writer.push(&Lifetime(*seconds)),
            Self::XorPeerAddress(address) => writer.push(&XorPeerAddress(*address)),
            Self::Data(bytes) => writer.push(&Data(bytes)),
            Self::Realm(text) => writer.push(&Realm(text)),
            Self::Nonce(text) => writer.push(&Nonce(text)),
            Self::XorRelayedAddress(address) => writer.push(&XorRelayedAddress(*address)),
            Self::RequestedAddressFamily(family) => writer.push(&RequestedAddressFamily(*family)),
            Self::EvenPort(reserve) => writer.push(&EvenPort {
                reserve_next: *reserve,
            }),
            Self::RequestedTransport(protocol) => writer.push(&RequestedTransport(*protocol)),
            Self::DontFragment => writer.push(&DontFragment),
            Self::PasswordAlgorithm(number, parameters) => {
                writer.push(&password_algorithm(*number, parameters))
            }
            Self::Userhash(hash) => writer.push(&Userhash(*hash)),
            Self::XorMappedAddress(address) => writer.push(&XorMappedAddress(*address)),
            Self::ReservationToken(token) => writer.push(&ReservationToken(*token)),
            Self::Padding(bytes) => writer.push(&Padding(bytes)),
            Self::ResponsePort(port) => writer.push(&ResponsePort(*port)),
            Self::ConnectionId(id) => writer.push(&ConnectionId(*id)),
            Self::AdditionalAddressFamily(family) => writer.push(&AdditionalAddressFamily(*family)),
            Self::AddressErrorCode(family, code, reason) => writer.push(&AddressErrorCode {
                family: *family,
                code: *code,
                reason,
            }),
            Self::PasswordAlgorithms(entries) => {
                writer.push(&PasswordAlgorithms::new(&password_algorithms(entries)))
            }
            Self::AlternateDomain(name) => writer.push(&AlternateDomain(name)),
            Self::Icmp(kind, code, data) => writer.push(&Icmp {
                kind: *kind,
                code: *code,
                data: *data,
            }),
            Self::Software(text) => writer.push(&Software(text)),
            Self::AlternateServer(address) => writer.push(&AlternateServer(*address)),
            Self::ResponseOrigin(address) => writer.push(&ResponseOrigin(*address)),
            Self::OtherAddress(address) => writer.push(&OtherAddress(*address)),
            Self::MobilityTicket(bytes) => writer.push(&MobilityTicket(bytes)),
        }
    }
}

pub(crate) fn password_algorithm(number: u16, parameters: &[u8]) -> PasswordAlgorithm<'_> {
    let algorithm = match number {
        1 => Algorithm::Md5,
        2 => Algorithm::Sha256,
        other => Algorithm::Other(other),
    };
    PasswordAlgorithm {
        algorithm,
        parameters,
    }
}

pub(crate) fn password_algorithms(entries: &[(u16, Vec<u8>)]) -> Vec<PasswordAlgorithm<'_>> {
    entries
        .iter()
        .map(|(number, parameters)| password_algorithm(*number, parameters))
        .collect()
}

pub(crate) fn address() -> impl Strategy<Value = SocketAddr> {
    (any::<IpAddr>(), any::<u16>()).prop_map(SocketAddr::from)
}

fn family() -> impl Strategy<Value = AddressFamily> {
    prop_oneof![Just(AddressFamily::V4), Just(AddressFamily::V6)]
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[ -~]{0,127}", "\\PC{0,40}"]
}

fn code() -> impl Strategy<Value = u16> {
    300..700_u16
}

fn algorithm() -> impl Strategy<Value = (u16, Vec<u8>)> {
    prop_oneof![
        (1..=2_u16).prop_map(|number| (number, Vec::new())),
        (any::<u16>(), bytes(9))
    ]
}

fn bytes(max: usize) -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..=max)
}

pub(crate) fn attribute() -> impl Strategy<Value = Owned> {
    let addresses = prop_oneof![
        address().prop_map(Owned::MappedAddress),
        address().prop_map(Owned::XorPeerAddress),
        address().prop_map(Owned::XorRelayedAddress),
        address().prop_map(Owned::XorMappedAddress),
        address().prop_map(Owned::AlternateServer),
        address().prop_map(Owned::ResponseOrigin),
        address().prop_map(Owned::OtherAddress),
    ];
    let texts = prop_oneof![
        text().prop_map(Owned::Username),
        text().prop_map(Owned::Realm),
        text().prop_map(Owned::Nonce),
        text().prop_map(Owned::Software),
        "[a-z.-]{0,255}".prop_map(Owned::AlternateDomain),
        (code(), text()).prop_map(|(code, reason)| Owned::ErrorCode(code, reason)),
        (family(), code(), text())
            .prop_map(|(family, code, reason)| Owned::AddressErrorCode(family, code, reason)),
    ];
    let binary = prop_oneof![
        bytes(1500).prop_map(Owned::Data),
        bytes(1500).prop_map(Owned::Padding),
        bytes(100).prop_map(Owned::MobilityTicket),
        any::<[u8; 32]>().prop_map(Owned::Userhash),
        any::<[u8; 8]>().prop_map(Owned::ReservationToken),
        vec(any::<u16>(), 0..9).prop_map(Owned::UnknownAttributes),
        algorithm().prop_map(|(number, bytes)| Owned::PasswordAlgorithm(number, bytes)),
        vec(algorithm(), 1..5).prop_map(Owned::PasswordAlgorithms),
    ];
    let numbers = prop_oneof![
        any::<(bool, bool)>().prop_map(|(ip, port)| Owned::ChangeRequest(ip, port)),
        any::<u16>().prop_map(Owned::ChannelNumber),
        any::<u32>().prop_map(Owned::Lifetime),
        family().prop_map(Owned::RequestedAddressFamily),
        family().prop_map(Owned::AdditionalAddressFamily),
        prop_oneof![Just(Reserve::Yes), Just(Reserve::No)].prop_map(Owned::EvenPort),
        any::<u8>().prop_map(Owned::RequestedTransport),
        Just(Owned::DontFragment),
        any::<u16>().prop_map(Owned::ResponsePort),
        any::<u32>().prop_map(Owned::ConnectionId),
        any::<(u8, u8, [u8; 4])>().prop_map(|(kind, code, data)| Owned::Icmp(kind, code, data)),
    ];
    prop_oneof![addresses, texts, binary, numbers]
}

pub(crate) fn plan() -> impl Strategy<Value = Plan> {
    let class = prop_oneof![
        Just(Class::Request),
        Just(Class::Indication),
        Just(Class::Success),
        Just(Class::Error)
    ];
    let method = (0..=0xFFF_u16).prop_map(|value| Method::new(value).unwrap());
    let ending = any::<[bool; 3]>().prop_map(|[integrity, integrity_sha256, fingerprint]| Ending {
        integrity,
        integrity_sha256,
        fingerprint,
    });
    (
        class,
        method,
        any::<[u8; 12]>(),
        vec(attribute(), 0..8),
        ending,
    )
        .prop_map(|(class, method, id, attributes, ending)| Plan {
            class,
            method,
            id,
            attributes,
            ending,
        })
}

/// One thing that happens to a message on its way.
#[derive(Clone, Debug)]
pub(crate) enum Damage {
    /// A byte becomes another.
    Byte(Index, u8),
    /// A byte at the beginning of an aligned word becomes another: where types and lengths lie.
    Word(Index, [u8; 4]),
    /// The message ends early; the length field knows, or does not.
    Cut(Index, bool),
    /// Bytes are added; the length field knows, or does not.
    Append(Vec<u8>, bool),
    /// An attribute is added at the end, the length field with it.
    Attribute(u16, Vec<u8>),
}

impl Damage {
    pub(crate) fn strike(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Byte(at, byte) => {
                if !bytes.is_empty() {
                    let at = at.index(bytes.len());
                    bytes[at] = *byte;
                }
            }
            Self::Word(at, word) => {
                if bytes.len() >= 4 {
                    let at = at.index(bytes.len() / 4) * 4;
                    bytes[at..at + 4].copy_from_slice(word);
                }
            }
            Self::Cut(at, fix) => {
                bytes.truncate(at.index(bytes.len() + 1));
                fix_length(bytes, *fix);
            }
            Self::Append(more, fix) => {
                bytes.extend(more);
                fix_length(bytes, *fix);
            }
            Self::Attribute(kind, value) => {
                bytes.extend(kind.to_be_bytes());
                bytes.extend(u16::try_from(value.len()).unwrap().to_be_bytes());
                bytes.extend(value);
                bytes.resize(bytes.len().next_multiple_of(4), 0);
                fix_length(bytes, true);
            }
        }
    }
}

fn fix_length(bytes: &mut [u8], fix: bool) {
    if let (true, Some(length)) = (fix, bytes.len().checked_sub(20)) {
        let length = u16::try_from(length).unwrap_or(u16::MAX);
        bytes[2..4].copy_from_slice(&length.to_be_bytes());
    }
}

pub(crate) fn damage() -> impl Strategy<Value = Vec<Damage>> {
    let kind = prop_oneof![
        prop_oneof![
            Just(0x0008_u16),
            Just(0x001C),
            Just(0x8028),
            Just(0x000D),
            Just(0x0006)
        ],
        any::<u16>()
    ];
    let value = prop_oneof![vec(any::<u8>(), 20), vec(any::<u8>(), 32), bytes(8)];
    let word = prop_oneof![
        any::<[u8; 4]>(),
        (kind.clone(), 0..40_u16).prop_map(|(kind, len)| {
            let ([k0, k1], [l0, l1]) = (kind.to_be_bytes(), len.to_be_bytes());
            [k0, k1, l0, l1]
        }),
    ];
    let one = prop_oneof![
        (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Damage::Byte(at, byte)),
        (any::<Index>(), word).prop_map(|(at, word)| Damage::Word(at, word)),
        (any::<Index>(), any::<bool>()).prop_map(|(at, fix)| Damage::Cut(at, fix)),
        (bytes(12), any::<bool>()).prop_map(|(more, fix)| Damage::Append(more, fix)),
        (kind, value).prop_map(|(kind, value)| Damage::Attribute(kind, value)),
    ];
    vec(one, 1..4)
}
