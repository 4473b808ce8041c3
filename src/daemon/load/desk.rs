//! A small TURN client for many allocations at once, without sockets or a clock: requests go in,
//! datagrams and answers come out (RFC 8489 §6.2.1, §9.2; RFC 8656 §7 to §12).
//!
//! A transaction id carries the place of its request in the table, so that an answer is found
//! without asking where it arrived. The integrity of answers is not checked: this measures a
//! server, and trusts nothing to it.

use std::fmt;
use std::net::SocketAddr;

use slab::Slab;

use super::crowd::{Seat, Side};
use super::login::Login;
use crate::proto::{
    AddressFamily, ChannelNumberAttribute, Class, ErrorCode, Full, Lifetime, Message, Method,
    Nonce, Realm, RequestedAddressFamily, RequestedTransport, TransactionId, Username, Writer,
    XorPeerAddress, XorRelayedAddress,
};

/// RFC 8489 §6.2.1: the first wait for an answer; each is twice the one before.
const FIRST_WAIT: u64 = 500_000_000;
/// RFC 8489 §6.2.1: how often a request is sent, and how many first waits the last one has.
const SENDS: u32 = 7;
const LAST_WAITS: u64 = 16;
/// RFC 8489 §6.2.2: how long an answer may take over a stream, where nothing is sent twice.
const STREAM_WAIT: u64 = 39_500_000_000;
/// How often the table is looked through for requests without an answer.
const SWEEP: u64 = 20_000_000;
/// How often a request may be refused for its nonce.
const STALE_MAX: u32 = 3;
const REQUEST_MAX: usize = 1024;

/// What a client can ask for.
#[derive(Clone, Copy)]
pub(super) enum Request {
    Allocate,
    Permit(SocketAddr),
    Bind(u16, SocketAddr),
    Refresh,
    Release,
}

impl Request {
    const fn method(self) -> Method {
        match self {
            Self::Allocate => Method::ALLOCATE,
            Self::Permit(_) => Method::CREATE_PERMISSION,
            Self::Bind(..) => Method::CHANNEL_BIND,
            Self::Refresh | Self::Release => Method::REFRESH,
        }
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Allocate => "Allocate",
            Self::Permit(_) => "CreatePermission",
            Self::Bind(..) => "ChannelBind",
            Self::Refresh => "Refresh",
            Self::Release => "Refresh with lifetime 0",
        })
    }
}

/// Why a request failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// The server said no.
    Refused { code: u16, reason: String },
    /// It said nothing.
    Silence,
    /// It said something that makes no sense.
    Nonsense(&'static str),
}

/// The end of a request.
pub(super) struct Answer {
    pub(super) client: usize,
    pub(super) request: Request,
    pub(super) outcome: Result<(), Failure>,
}

/// One allocation, or one to be.
pub(super) struct Client {
    pub(super) side: Side,
    pub(super) seat: Seat,
    /// Where to send, unless the socket knows.
    pub(super) to: Option<SocketAddr>,
    /// Its relayed transport address, once it has one.
    pub(super) relayed: Option<SocketAddr>,
    login: usize,
    nonce: Option<Box<str>>,
    way: Way,
}

/// What happens to a datagram on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// It may be lost.
    Datagrams,
    /// It arrives.
    Stream,
}

struct Pending {
    client: usize,
    request: Request,
    generation: u32,
    bytes: Vec<u8>,
    next: u64,
    wait: u64,
    sends: u32,
    stale: u32,
}

/// All clients and their requests.
pub(super) struct Desk {
    logins: Vec<Login>,
    realm: Option<Box<str>>,
    family: AddressFamily,
    clients: Slab<Client>,
    pending: Slab<Pending>,
    /// Pending requests to be sent.
    out: Vec<usize>,
    spare: Vec<Vec<u8>>,
    token: u32,
    generation: u32,
    seated: usize,
    swept: u64,
}

impl Desk {
    pub(super) const fn new(logins: Vec<Login>, family: AddressFamily, token: u32) -> Self {
        Self {
            logins,
            realm: None,
            family,
            clients: Slab::new(),
            pending: Slab::new(),
            out: Vec::new(),
            spare: Vec::new(),
            token,
            generation: 0,
            seated: 0,
            swept: 0,
        }
    }

    /// A client that speaks from `seat`.
    pub(super) fn add(
        &mut self,
        side: Side,
        seat: Seat,
        to: Option<SocketAddr>,
        way: Way,
    ) -> usize {
        let login = self.seated % self.logins.len().max(1);
        self.seated += 1;
        self.clients.insert(Client {
            side,
            seat,
            to,
            relayed: None,
            login,
            nonce: None,
            way,
        })
    }

    pub(super) fn remove(&mut self, client: usize) -> Option<Client> {
        self.clients.try_remove(client)
    }

    pub(super) fn client(&self, client: usize) -> Option<&Client> {
        self.clients.get(client)
    }

    /// How many requests have no answer yet.
    pub(super) fn outstanding(&self) -> usize {
        self.pending.len()
    }

    /// Forgets all requests.
    pub(super) fn give_up(&mut self) {
        self.pending.clear();
        self.out.clear();
    }

    /// Asks for something.
    pub(super) fn ask(&mut self, client: usize, request: Request, now: u64) {
        self.send(client, request, 0, now);
    }

    fn send(&mut self, client: usize, request: Request, stale: u32, now: u64) {
        self.generation = self.generation.wrapping_add(1);
        let mut bytes = self.spare.pop().unwrap_or_default();
        bytes.resize(REQUEST_MAX, 0);
        let entry = self.pending.vacant_entry();
        let slot = entry.key();
        let mut id = [0; 12];
        id[..4].copy_from_slice(&u32::try_from(slot).unwrap_or(u32::MAX).to_be_bytes());
        id[4..8].copy_from_slice(&self.generation.to_be_bytes());
        id[8..].copy_from_slice(&self.token.to_be_bytes());
        let written = self.clients.get(client).map_or(Err(Full), |client| {
            let login = self.logins.get(client.login);
            let context = Context {
                login,
                realm: self.realm.as_deref(),
                nonce: client.nonce.as_deref(),
                family: self.family,
            };
            context.encode(&mut bytes, request, TransactionId::new(id))
        });
        let way = self.clients.get(client).map(|client| client.way);
        let (wait, sends) = match way {
            Some(Way::Stream) => (STREAM_WAIT, SENDS),
            _ => (FIRST_WAIT, 1),
        };
        // What does not fit is sent as nothing, and ends as silence.
        bytes.truncate(written.unwrap_or(0));
        entry.insert(Pending {
            client,
            request,
            generation: self.generation,
            bytes,
            next: now + wait,
            wait,
            sends,
            stale,
        });
        self.out.push(slot);
    }

    /// Hands over what is to be sent: from where, whereto, and the bytes.
    pub(super) fn transmit(&mut self, mut each: impl FnMut(&Client, &[u8])) {
        for slot in self.out.drain(..) {
            if let Some(pending) = self.pending.get(slot)
                && let Some(client) = self.clients.get(pending.client)
            {
                each(client, &pending.bytes);
            }
        }
    }

    /// Takes a datagram that may be an answer; says what it ends.
    pub(super) fn handle(&mut self, datagram: &[u8], now: u64) -> Option<Answer> {
        let message = Message::decode(datagram).ok()?;
        if !matches!(message.class(), Class::Success | Class::Error) {
            return None;
        }
        let id = message.transaction_id();
        let &[s0, s1, s2, s3, g0, g1, g2, g3, ref token @ ..] = id.as_bytes();
        let slot = usize::try_from(u32::from_be_bytes([s0, s1, s2, s3])).ok()?;
        let pending = self.pending.get(slot)?;
        if *token != self.token.to_be_bytes()
            || pending.generation != u32::from_be_bytes([g0, g1, g2, g3])
            || pending.request.method() != message.method()
        {
            return None;
        }
        let Pending {
            client,
            request,
            bytes,
            stale,
            ..
        } = self.pending.remove(slot);
        self.spare.push(bytes);
        let outcome = match message.class() {
            Class::Success => self.granted(client, request, &message),
            Class::Error | Class::Request | Class::Indication => {
                match self.refused(client, stale, &message) {
                    Some(failure) => Err(failure),
                    None => {
                        self.send(client, request, stale + 1, now);
                        return None;
                    }
                }
            }
        };
        Some(Answer {
            client,
            request,
            outcome,
        })
    }

    fn granted(
        &mut self,
        client: usize,
        request: Request,
        message: &Message<'_>,
    ) -> Result<(), Failure> {
        let Some(client) = self.clients.get_mut(client) else {
            return Ok(());
        };
        match request {
            Request::Allocate => match message.find::<XorRelayedAddress>() {
                Some(Ok(XorRelayedAddress(relayed))) => client.relayed = Some(relayed),
                _ => return Err(Failure::Nonsense("a success without XOR-RELAYED-ADDRESS")),
            },
            Request::Release => client.relayed = None,
            Request::Permit(_) | Request::Bind(..) | Request::Refresh => {}
        }
        Ok(())
    }

    /// None if the request is to be sent again with the nonce that the server gave.
    fn refused(&mut self, client: usize, stale: u32, message: &Message<'_>) -> Option<Failure> {
        let Some(Ok(ErrorCode { code, reason })) = message.find() else {
            return Some(Failure::Nonsense("an error without ERROR-CODE"));
        };
        let refused = Failure::Refused {
            code,
            reason: printable(reason),
        };
        let client = self.clients.get_mut(client)?;
        // RFC 8489 §9.2.5: a 401 to a request with credentials means that they are wrong; a 438
        // brings a fresh nonce.
        let challenged = code == 401 && client.nonce.is_none();
        if !challenged && (code != 438 || stale > STALE_MAX) {
            return Some(refused);
        }
        let (Some(Ok(Realm(realm))), Some(Ok(Nonce(nonce)))) = (message.find(), message.find())
        else {
            return Some(refused);
        };
        client.nonce = Some(nonce.into());
        if self.realm.as_deref() != Some(realm) {
            self.realm = Some(realm.into());
            for login in &mut self.logins {
                login.learn(realm);
            }
        }
        None
    }

    /// Sends again what has no answer; says which requests never will.
    pub(super) fn sweep(&mut self, now: u64) -> Vec<Answer> {
        if now < self.swept + SWEEP {
            return Vec::new();
        }
        self.swept = now;
        let mut silent = Vec::new();
        for (slot, pending) in &mut self.pending {
            if now < pending.next {
                continue;
            }
            if pending.sends == SENDS {
                silent.push(slot);
                continue;
            }
            pending.sends += 1;
            pending.wait *= 2;
            pending.next = now
                + if pending.sends == SENDS {
                    FIRST_WAIT * LAST_WAITS
                } else {
                    pending.wait
                };
            self.out.push(slot);
        }
        silent
            .into_iter()
            .map(|slot| {
                let pending = self.pending.remove(slot);
                Answer {
                    client: pending.client,
                    request: pending.request,
                    outcome: Err(Failure::Silence),
                }
            })
            .collect()
    }
}

/// A server's reason phrase, without what would confuse a terminal.
fn printable(reason: &str) -> String {
    const LONGEST: usize = 100;
    reason
        .chars()
        .filter(|c| !c.is_control())
        .take(LONGEST)
        .collect()
}

/// What a request is made with.
struct Context<'a> {
    login: Option<&'a Login>,
    realm: Option<&'a str>,
    nonce: Option<&'a str>,
    family: AddressFamily,
}

impl Context<'_> {
    fn encode(&self, bytes: &mut [u8], request: Request, id: TransactionId) -> Result<usize, Full> {
        let mut writer = Writer::new(bytes, Class::Request, request.method(), id)?;
        match request {
            Request::Allocate => {
                writer.push(&RequestedTransport::UDP)?;
                // RFC 8656 §7.1: without it the relayed address is IPv4.
                if self.family == AddressFamily::V6 {
                    writer.push(&RequestedAddressFamily(self.family))?;
                }
            }
            Request::Permit(peer) => writer.push(&XorPeerAddress(peer))?,
            Request::Bind(channel, peer) => {
                writer.push(&ChannelNumberAttribute(channel))?;
                writer.push(&XorPeerAddress(peer))?;
            }
            Request::Refresh => {}
            Request::Release => writer.push(&Lifetime(0))?,
        }
        if let (Some(login), Some(realm), Some(nonce)) = (self.login, self.realm, self.nonce)
            && let Some(key) = &login.key
        {
            writer.push(&Username(&login.username))?;
            writer.push(&Realm(realm))?;
            writer.push(&Nonce(nonce))?;
            writer.integrity(key)?;
        }
        Ok(writer.finish())
    }
}

#[cfg(test)]
mod tests;
