//! The control path: every request is granted at once, nothing is checked or signed.
//!
//! The first Allocate is answered 401 as by any server, so that clients make the same number of
//! round trips.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::net::{IpAddr, SocketAddr, SocketAddrV4};

use taciturn::proto::{
    Attribute, ChannelNumberAttribute, Class, ErrorCode, Full, Lifetime, Message, Method, Nonce,
    Realm, Username, Writer, XorMappedAddress, XorPeerAddress, XorRelayedAddress,
};

/// Room for any answer.
pub(crate) const ANSWER_MAX: usize = 256;

/// The first relayed port; those after it follow the order of allocation.
pub(crate) const FIRST_PORT: u16 = 49_152;

/// What a data path must do when clients speak.
pub(crate) trait Relay {
    /// A new client; its relayed port, or none if there are no more.
    fn allocate(&mut self, client: SocketAddrV4) -> Option<u16>;
    /// `client` gives its allocation back.
    fn release(&mut self, client: SocketAddrV4);
    /// From now on `client`'s packets on `channel` go to `peer`.
    fn bind(&mut self, client: SocketAddrV4, channel: u16, peer: SocketAddrV4);
}

/// Answers one datagram on the control path; the length of the answer in `out`.
pub(crate) fn answer(
    request: &[u8],
    client: SocketAddrV4,
    listen: SocketAddrV4,
    relay: &mut impl Relay,
    out: &mut [u8; ANSWER_MAX],
) -> Option<usize> {
    let request = Message::decode(request).ok()?;
    if request.class() != Class::Request {
        return None;
    }
    let refusal = match request.method() {
        Method::ALLOCATE if !request.has(Username::TYPE) => Some(401),
        _ => None,
    };
    write(&request, refusal, client, listen, relay, out).ok()?
}

fn write(
    request: &Message<'_>,
    refusal: Option<u16>,
    client: SocketAddrV4,
    listen: SocketAddrV4,
    relay: &mut impl Relay,
    out: &mut [u8; ANSWER_MAX],
) -> Result<Option<usize>, Full> {
    let class = if refusal.is_some() {
        Class::Error
    } else {
        Class::Success
    };
    let mut writer = Writer::new(out, class, request.method(), request.transaction_id())?;
    if let Some(code) = refusal {
        writer.push(&ErrorCode { code, reason: "" })?;
        writer.push(&Realm("floor"))?;
        writer.push(&Nonce("floor"))?;
        return Ok(Some(writer.finish()));
    }
    match request.method() {
        Method::BINDING => writer.push(&XorMappedAddress(client.into()))?,
        Method::ALLOCATE => {
            let Some(port) = relay.allocate(client) else {
                return Ok(None);
            };
            writer.push(&XorRelayedAddress(SocketAddr::new(
                IpAddr::V4(*listen.ip()),
                port,
            )))?;
            writer.push(&Lifetime(3600))?;
            writer.push(&XorMappedAddress(client.into()))?;
        }
        Method::REFRESH => {
            let lifetime = match request.find::<Lifetime>() {
                Some(Ok(Lifetime(0))) => 0,
                _ => 3600,
            };
            if lifetime == 0 {
                relay.release(client);
            }
            writer.push(&Lifetime(lifetime))?;
        }
        Method::CREATE_PERMISSION => {}
        Method::CHANNEL_BIND => {
            let channel = request.find::<ChannelNumberAttribute>();
            let peer = request.find::<XorPeerAddress>();
            let (Some(Ok(channel)), Some(Ok(XorPeerAddress(SocketAddr::V4(peer))))) =
                (channel, peer)
            else {
                return Ok(None);
            };
            relay.bind(client, channel.0, peer);
        }
        _ => return Ok(None),
    }
    Ok(Some(writer.finish()))
}

/// Finds something by a client's address.
pub(crate) type ByAddress<V> = HashMap<u64, V, BuildHasherDefault<Mix>>;

/// The key of `address` in a [`ByAddress`].
pub(crate) fn key(address: SocketAddrV4) -> u64 {
    u64::from(address.ip().to_bits()) << 16 | u64::from(address.port())
}

/// One multiplication: enough for addresses that nobody chooses to harm.
#[derive(Default)]
pub(crate) struct Mix(u64);

impl Hasher for Mix {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }

    fn write_u64(&mut self, value: u64) {
        let product = (self.0 ^ value).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 = product ^ product >> 32;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
