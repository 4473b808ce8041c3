//! What clients say and how they read answers. Messages are built with `proto`'s writer, which has
//! tests of its own; here it is their meaning that matters.

use std::net::SocketAddr;
use std::rc::Rc;

use taciturn::proto::{
    AdditionalAddressFamily, AddressErrorCode, AddressFamily, Algorithm, Attribute, AttributeError,
    AttributeType, ChannelData, ChannelNumber, ChannelNumberAttribute, ChannelRange, Class, Data,
    DontFragment, ErrorCode, EvenPort, Full, Integrity, Lifetime, LongTermKey, Message, Method,
    MobilityTicket, Nonce, PasswordAlgorithm, PasswordAlgorithms, Realm, RequestedAddressFamily,
    RequestedTransport, ReservationToken, Reserve, Sink, TransactionId, Username, Writer,
    XorMappedAddress, XorPeerAddress, XorRelayedAddress,
};
use taciturn::turn::credential::{Minted, Secret, mint};

use super::setting::{Claimed, REALM, SECRET, credentials};

/// A credential, with its keys.
#[derive(Debug)]
pub struct Identity {
    pub user: usize,
    pub username: String,
    pub expires: u64,
    /// When it was issued, if it says so.
    pub issued: Option<u64>,
    /// What the username says beyond that, if it is sealed.
    pub claimed: Option<Claimed>,
    md5: LongTermKey,
    sha256: LongTermKey,
}

impl Identity {
    pub fn mint(user: usize, expires: u64) -> Rc<Self> {
        let minted = mint(&Secret::new("sim", SECRET), &user_id(user), expires).unwrap();
        Self::new(user, (None, expires), None, minted)
    }

    pub fn seal(
        user: usize,
        (issued, expires): (u64, u64),
        claimed: Claimed,
        nonce: [u8; 16],
    ) -> Rc<Self> {
        let claims = claimed.claims(&user_id(user), issued);
        let minted = credentials().mint_sealed(&claims, expires, nonce).unwrap();
        Self::new(user, (Some(issued), expires), Some(claimed), minted)
    }

    fn new(
        user: usize,
        (issued, expires): (Option<u64>, u64),
        claimed: Option<Claimed>,
        minted: Minted,
    ) -> Rc<Self> {
        let (name, password) = (minted.username, minted.password.as_str());
        Rc::new(Self {
            user,
            expires,
            issued,
            claimed,
            md5: LongTermKey::md5(&name, REALM, password),
            sha256: LongTermKey::sha256(&name, REALM, password),
            username: name,
        })
    }

    const fn key(&self, dialect: Dialect) -> &LongTermKey {
        match dialect {
            Dialect::Sha1 => &self.md5,
            Dialect::Sha256 => &self.sha256,
        }
    }
}

pub fn user_id(user: usize) -> String {
    format!("user-{user}")
}

/// RFC 8489 §9.2: what clients knew before it, or all it offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    Sha1,
    Sha256,
}

const OFFERED: &[PasswordAlgorithm<'static>] = &[
    PasswordAlgorithm {
        algorithm: Algorithm::Sha256,
        parameters: &[],
    },
    PasswordAlgorithm {
        algorithm: Algorithm::Md5,
        parameters: &[],
    },
];

/// An attribute of a request.
#[derive(Debug, Clone)]
pub enum Say {
    Transport(u8),
    Lifetime(u32),
    Family(AddressFamily),
    Additional(AddressFamily),
    Even(Reserve),
    Token([u8; 8]),
    Peer(SocketAddr),
    Channel(u16),
    /// A mobility ticket; empty, the wish for one.
    Ticket(Vec<u8>),
    /// Comprehension-required, and nobody's.
    Unknown,
}

/// How a request is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signing {
    Right,
    WrongPassword,
    /// Without MESSAGE-INTEGRITY, as the first request of every client.
    None,
    /// With MESSAGE-INTEGRITY but without NONCE.
    NoNonce,
}

/// A request but for its attributes.
#[derive(Debug, Clone)]
pub struct Envelope {
    pub method: Method,
    pub id: TransactionId,
    pub identity: Rc<Identity>,
    pub dialect: Dialect,
    pub nonce: String,
    pub signing: Signing,
    pub fingerprint: bool,
}

struct Nobodys;

impl<'a> Attribute<'a> for Nobodys {
    const TYPE: AttributeType = AttributeType::new(0x7ABC);

    fn decode(_: &'a [u8], _: TransactionId) -> Result<Self, AttributeError> {
        Ok(Self)
    }

    fn encode(&self, _: TransactionId, _: &mut Sink<'_>) -> Result<(), Full> {
        Ok(())
    }
}

pub fn request(envelope: &Envelope, says: &[Say]) -> Vec<u8> {
    let mut bytes = vec![0; 4_096];
    let len = write_request(&mut bytes, envelope, says).unwrap();
    bytes.truncate(len);
    bytes
}

fn write_request(bytes: &mut [u8], envelope: &Envelope, says: &[Say]) -> Result<usize, Full> {
    let mut writer = Writer::new(bytes, Class::Request, envelope.method, envelope.id)?;
    for say in says {
        match say {
            Say::Transport(protocol) => writer.push(&RequestedTransport(*protocol))?,
            Say::Lifetime(seconds) => writer.push(&Lifetime(*seconds))?,
            Say::Family(family) => writer.push(&RequestedAddressFamily(*family))?,
            Say::Additional(family) => writer.push(&AdditionalAddressFamily(*family))?,
            Say::Even(reserve) => writer.push(&EvenPort {
                reserve_next: *reserve,
            })?,
            Say::Token(token) => writer.push(&ReservationToken(*token))?,
            Say::Peer(peer) => writer.push(&XorPeerAddress(*peer))?,
            Say::Channel(number) => writer.push(&ChannelNumberAttribute(*number))?,
            Say::Ticket(ticket) => writer.push(&MobilityTicket(ticket))?,
            Say::Unknown => writer.push(&Nobodys)?,
        }
    }
    if envelope.signing != Signing::None {
        writer.push(&Username(&envelope.identity.username))?;
        writer.push(&Realm(REALM))?;
        if envelope.signing != Signing::NoNonce {
            writer.push(&Nonce(&envelope.nonce))?;
        }
        let wrong = LongTermKey::md5(&envelope.identity.username, REALM, "wrong");
        let key = match envelope.signing {
            Signing::WrongPassword => &wrong,
            Signing::Right | Signing::NoNonce | Signing::None => {
                envelope.identity.key(envelope.dialect)
            }
        };
        match envelope.dialect {
            Dialect::Sha1 => writer.integrity(key)?,
            Dialect::Sha256 => {
                writer.push(&PasswordAlgorithms::new(OFFERED))?;
                writer.push(&OFFERED[0])?;
                writer.integrity_sha256(key)?;
            }
        }
    }
    if envelope.fingerprint {
        writer.fingerprint()?;
    }
    Ok(writer.finish())
}

/// A message without attributes.
pub fn bare(class: Class, method: Method, id: TransactionId) -> Vec<u8> {
    let mut bytes = vec![0; 20];
    Writer::new(&mut bytes, class, method, id).unwrap();
    bytes
}

/// RFC 8656 §11.1; without `data` it lacks what it must have.
pub fn send(id: TransactionId, peer: SocketAddr, data: Option<&[u8]>, forbid: bool) -> Vec<u8> {
    let mut bytes = vec![0; 100 + data.map_or(0, <[u8]>::len)];
    let mut writer = Writer::new(&mut bytes, Class::Indication, Method::SEND, id).unwrap();
    writer.push(&XorPeerAddress(peer)).unwrap();
    if forbid {
        writer.push(&DontFragment).unwrap();
    }
    if let Some(data) = data {
        writer.push(&Data(data)).unwrap();
    }
    let len = writer.finish();
    bytes.truncate(len);
    bytes
}

pub fn channel_data(channel: u16, data: &[u8]) -> Vec<u8> {
    let number = ChannelNumber::new(channel, ChannelRange::Rfc5766).unwrap();
    let mut bytes = ChannelData::encode_header(number, u16::try_from(data.len()).unwrap()).to_vec();
    bytes.extend_from_slice(data);
    bytes
}

/// RFC 8656 §12.5: as a message stands in a stream.
pub fn padded(message: &[u8]) -> Vec<u8> {
    let mut bytes = message.to_vec();
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// What a client reads of a response.
#[derive(Debug, Clone)]
pub struct Answer {
    pub class: Class,
    pub method: Method,
    pub id: TransactionId,
    pub code: Option<u16>,
    pub relayed: Vec<SocketAddr>,
    pub mapped: Option<SocketAddr>,
    pub lifetime: Option<u32>,
    pub token: Option<[u8; 8]>,
    pub ticket: Option<Vec<u8>>,
    pub nonce: Option<String>,
    pub refused_family: Option<(AddressFamily, u16)>,
    pub integrity: Integrity,
}

impl Answer {
    pub fn read(bytes: &[u8], identity: &Identity, dialect: Dialect) -> Result<Self, String> {
        let message = Message::decode(bytes).map_err(|why| format!("a bad response: {why}"))?;
        let key = identity.key(dialect);
        Ok(Self {
            class: message.class(),
            method: message.method(),
            id: message.transaction_id(),
            code: message.find::<ErrorCode<'_>>().map(|e| e.unwrap().code),
            relayed: message
                .all::<XorRelayedAddress>()
                .map(|relayed| relayed.unwrap().0)
                .collect(),
            mapped: message.find::<XorMappedAddress>().map(|m| m.unwrap().0),
            lifetime: message.find::<Lifetime>().map(|l| l.unwrap().0),
            token: message.find::<ReservationToken>().map(|t| t.unwrap().0),
            ticket: message
                .find::<MobilityTicket<'_>>()
                .map(|ticket| ticket.unwrap().0.to_vec()),
            nonce: message
                .find::<Nonce<'_>>()
                .map(|nonce| nonce.unwrap().0.to_owned()),
            refused_family: message.find::<AddressErrorCode<'_>>().map(|refused| {
                let refused = refused.unwrap();
                (refused.family, refused.code)
            }),
            integrity: match dialect {
                Dialect::Sha1 => message.verify_integrity(key),
                Dialect::Sha256 => message.verify_integrity_sha256(key),
            },
        })
    }
}

/// Application data as a client gets it.
#[derive(Debug, PartialEq, Eq)]
pub enum Received<'a> {
    OnChannel(u16, &'a [u8]),
    From(SocketAddr, &'a [u8]),
}

impl<'a> Received<'a> {
    pub fn read(bytes: &'a [u8]) -> Result<Self, String> {
        if bytes.first().is_some_and(|first| first >> 6 == 0b01) {
            let data = ChannelData::decode_datagram(bytes).map_err(|why| why.to_string())?;
            return Ok(Self::OnChannel(data.channel, data.payload));
        }
        let message = Message::decode(bytes).map_err(|why| why.to_string())?;
        if (message.class(), message.method()) != (Class::Indication, Method::DATA) {
            return Err(format!("a client was sent {message:?}"));
        }
        match (message.find::<XorPeerAddress>(), message.find::<Data<'_>>()) {
            (Some(Ok(XorPeerAddress(peer))), Some(Ok(Data(data)))) => Ok(Self::From(peer, data)),
            _ => Err("a Data indication without peer or data".to_owned()),
        }
    }
}
