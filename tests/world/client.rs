//! A TURN client by hand: it answers challenges, signs requests and checks the signatures of
//! responses, and lets a test do anything else itself.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::net::SocketAddr;

use taciturn::proto::{
    AdditionalAddressFamily, AddressFamily, Algorithm, AttributeType, ChannelNumber,
    ChannelNumberAttribute, ChannelRange, Class, Data, Lifetime, Method, MobilityTicket, Nonce,
    PasswordAlgorithms, Realm, RequestedTransport, Username, XorPeerAddress, frame_channel_data,
};
use taciturn::turn::{ClientAddr, FiveTuple, ListenerId, WorkerId};

use super::message::{Answer, Build, MD5, OFFERED, SHA256, key};
use super::servers::{Outcome, REALM, World, at};

/// What [`Client`]'s methods return as the code of a success response.
pub const SUCCESS: u16 = 0;

/// How a client authenticates (RFC 8489 §9.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// As every browser: MD5 key, MESSAGE-INTEGRITY.
    Md5,
    /// PASSWORD-ALGORITHM SHA-256, MESSAGE-INTEGRITY-SHA256.
    Sha256,
    /// PASSWORD-ALGORITHM MD5, MESSAGE-INTEGRITY-SHA256.
    Md5Chosen,
}

/// A client of one worker.
#[derive(Debug, Clone)]
pub struct Client {
    pub tuple: FiveTuple,
    pub worker: WorkerId,
    pub username: String,
    pub password: String,
    pub realm: String,
    /// What the server sent last.
    pub nonce: Option<String>,
    pub scheme: Scheme,
    transactions: u64,
}

impl Client {
    pub fn new(addr: SocketAddr, username: &str, password: &str) -> Self {
        Self {
            tuple: FiveTuple {
                client: ClientAddr::new(addr),
                listener: ListenerId(u16::from(addr.is_ipv6())),
            },
            worker: WorkerId(0),
            username: username.to_owned(),
            password: password.to_owned(),
            realm: REALM.to_owned(),
            nonce: None,
            scheme: Scheme::Md5,
            transactions: 0,
        }
    }

    /// The same client, whose packets reach another worker.
    pub fn on(mut self, worker: u16) -> Self {
        self.worker = WorkerId(worker);
        self
    }

    /// The same user and credential at another address.
    pub fn moved(&self, addr: &str) -> Self {
        let mut moved = self.clone();
        moved.tuple.client = ClientAddr::new(at(addr));
        moved
    }

    pub fn addr(&self) -> SocketAddr {
        self.tuple.client.expose()
    }

    /// An id that neither this client nor one at another address has used.
    pub fn transaction(&mut self) -> [u8; 12] {
        self.transactions += 1;
        let mut id = [0; 12];
        id[..2].copy_from_slice(&self.addr().port().to_be_bytes());
        id[2] = match self.addr() {
            SocketAddr::V4(addr) => addr.ip().octets()[3],
            SocketAddr::V6(addr) => addr.ip().octets()[15],
        };
        id[4..].copy_from_slice(&self.transactions.to_be_bytes());
        id
    }

    /// The key of this client's password.
    pub fn key(&self) -> Vec<u8> {
        let algorithm = match self.scheme {
            Scheme::Sha256 => Algorithm::Sha256,
            Scheme::Md5 | Scheme::Md5Chosen => Algorithm::Md5,
        };
        key(algorithm, &self.username, &self.realm, &self.password)
    }

    /// A request without credentials.
    pub fn build(&mut self, method: Method) -> Build {
        Build::request(method, self.transaction())
    }

    /// Appends username, realm and nonce.
    pub fn credentials(&self, request: Build) -> Build {
        let request = request
            .with(&Username(&self.username))
            .with(&Realm(&self.realm));
        match &self.nonce {
            Some(nonce) => request.with(&Nonce(nonce)),
            None => request,
        }
    }

    /// Completes a request with credentials and signature.
    pub fn sign(&self, request: Build) -> Vec<u8> {
        let request = self.credentials(request);
        let algorithms = PasswordAlgorithms::new(OFFERED);
        match self.scheme {
            Scheme::Md5 => request.integrity(&self.key()),
            Scheme::Sha256 => request
                .with(&algorithms)
                .with(&SHA256)
                .integrity_sha256(&self.key()),
            Scheme::Md5Chosen => request
                .with(&algorithms)
                .with(&MD5)
                .integrity_sha256(&self.key()),
        }
        .bytes()
    }

    /// Asks for a nonce, as the first request of every client does, and keeps it.
    #[track_caller]
    pub fn fetch_nonce(&mut self, world: &mut World) -> String {
        let bytes = self.build(Method::REFRESH).bytes();
        let answer = world.send(self, &bytes).answer();
        assert_eq!(answer.code(), 401);
        self.nonce = answer.nonce();
        self.nonce.clone().unwrap()
    }

    /// Sends a request that `fill` completes; a challenge is taken up once, as clients do.
    #[track_caller]
    pub fn request(
        &mut self,
        world: &mut World,
        method: Method,
        fill: impl Fn(Build) -> Build,
    ) -> Answer {
        if self.nonce.is_none() {
            self.fetch_nonce(world);
        }
        let answer = self.request_once(world, method, &fill);
        if answer.code() != 438 {
            return answer;
        }
        self.nonce = answer.nonce();
        self.request_once(world, method, &fill)
    }

    /// The same with the nonce at hand, whatever comes of it.
    #[track_caller]
    pub fn request_once(
        &mut self,
        world: &mut World,
        method: Method,
        fill: impl Fn(Build) -> Build,
    ) -> Answer {
        let request = fill(self.build(method));
        let id = request.id();
        let bytes = self.sign(request);
        let answer = world.send(self, &bytes).answer();
        assert_eq!(answer.message().method(), method);
        assert_eq!(*answer.message().transaction_id().as_bytes(), id);
        if answer.message().class() == Class::Success {
            assert!(self.has_signed(&answer), "a success without its signature");
        }
        answer
    }

    /// Whether a response carries the signature that this client's scheme asks for.
    pub fn has_signed(&self, answer: &Answer) -> bool {
        let kind = match self.scheme {
            Scheme::Md5 => AttributeType::MESSAGE_INTEGRITY,
            Scheme::Sha256 | Scheme::Md5Chosen => AttributeType::MESSAGE_INTEGRITY_SHA256,
        };
        super::message::is_signed(&answer.0, kind, &self.key())
    }

    /// Allocates a relayed IPv4 address; panics if that is refused.
    #[track_caller]
    pub fn allocate(&mut self, world: &mut World) -> SocketAddr {
        let answer = self.allocate_with(world, |request| request);
        assert_eq!(answer.code(), SUCCESS);
        answer.relayed()[0]
    }

    /// Allocates a relayed address of each family, IPv4 first; panics if that is refused.
    #[track_caller]
    pub fn allocate_dual(&mut self, world: &mut World) -> [SocketAddr; 2] {
        let answer = self.allocate_with(world, |request| {
            request.with(&AdditionalAddressFamily(AddressFamily::V6))
        });
        answer.relayed().try_into().unwrap()
    }

    /// Sends an Allocate for UDP that `fill` completes.
    #[track_caller]
    pub fn allocate_with(&mut self, world: &mut World, fill: impl Fn(Build) -> Build) -> Answer {
        self.request(world, Method::ALLOCATE, |request| {
            fill(request.with(&RequestedTransport::UDP))
        })
    }

    /// Allocates a relayed IPv4 address that the client may take along, with the ticket for it;
    /// panics if that is refused.
    #[track_caller]
    pub fn allocate_mobile(&mut self, world: &mut World) -> (SocketAddr, Vec<u8>) {
        let answer = self.allocate_with(world, |request| request.with(&MobilityTicket(b"")));
        assert_eq!(answer.code(), SUCCESS);
        (answer.relayed()[0], answer.ticket().unwrap())
    }

    /// Refreshes with a ticket.
    #[track_caller]
    pub fn resume(&mut self, world: &mut World, ticket: &[u8]) -> Answer {
        self.request(world, Method::REFRESH, |request| {
            request.with(&MobilityTicket(ticket))
        })
    }

    /// Refreshes for so many seconds, or for the default.
    #[track_caller]
    pub fn refresh(&mut self, world: &mut World, lifetime: Option<u32>) -> Answer {
        self.request(world, Method::REFRESH, |request| match lifetime {
            Some(seconds) => request.with(&Lifetime(seconds)),
            None => request,
        })
    }

    /// CreatePermission for all of `peers` at once; returns the code.
    #[track_caller]
    pub fn permit(&mut self, world: &mut World, peers: &[SocketAddr]) -> u16 {
        self.request(world, Method::CREATE_PERMISSION, |request| {
            peers.iter().fold(request, |request, peer| {
                request.with(&XorPeerAddress(*peer))
            })
        })
        .code()
    }

    /// ChannelBind; returns the code.
    #[track_caller]
    pub fn bind(&mut self, world: &mut World, number: u16, peer: SocketAddr) -> u16 {
        self.request(world, Method::CHANNEL_BIND, |request| {
            request
                .with(&ChannelNumberAttribute(number))
                .with(&XorPeerAddress(peer))
        })
        .code()
    }

    /// A Send indication.
    pub fn send_to(&mut self, world: &mut World, peer: SocketAddr, data: &[u8]) -> Outcome {
        let bytes = self.send_indication(peer, data).bytes();
        world.send(self, &bytes)
    }

    pub fn send_indication(&mut self, peer: SocketAddr, data: &[u8]) -> Build {
        let id = self.transaction();
        Build::new(Class::Indication, Method::SEND, id)
            .with(&XorPeerAddress(peer))
            .with(&Data(data))
    }

    /// ChannelData.
    pub fn channel_data(&self, world: &mut World, number: u16, data: &[u8]) -> Outcome {
        world.send(self, &channel_data(number, data))
    }
}

/// A ChannelData message.
pub fn channel_data(number: u16, data: &[u8]) -> Vec<u8> {
    let number = ChannelNumber::new(number, ChannelRange::Rfc5766).unwrap();
    let mut bytes = [&[0; 4], data].concat();
    let range = frame_channel_data(&mut bytes, 4..4 + data.len(), number).unwrap();
    bytes[range].to_vec()
}
