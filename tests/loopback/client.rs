//! A TURN client on a UDP socket of its own, or on a connection. It takes up challenges, sends a request again until
//! it is answered, and keeps what arrives meanwhile.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on panics"
)]

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use taciturn::proto::{
    AddressFamily, Algorithm, AttributeType, ChannelNumber, ChannelNumberAttribute, ChannelRange,
    Class, Data, DontFragment, Lifetime, Message, Method, Nonce, Realm, RequestedAddressFamily,
    RequestedTransport, Username, XorPeerAddress, frame_channel_data,
};

use super::PATIENCE;
use super::message::{Answer, Build, Received, is_signed, key};
use super::stream::Stream;

/// The code of a success response, as [`Answer::code`] gives it.
pub(crate) const SUCCESS: u16 = 0;
/// After how long a request is sent again.
const RESEND: Duration = Duration::from_secs(1);

/// What a client authenticates with.
#[derive(Clone)]
pub(crate) struct Credential {
    pub(crate) username: String,
    pub(crate) password: String,
}

/// A client with at most one allocation.
pub(crate) struct Client {
    pub(crate) socket: UdpSocket,
    /// What it speaks over instead of the socket.
    pub(crate) stream: Option<Stream>,
    #[cfg(feature = "dtls")]
    pub(crate) dtls: Option<super::dtls::Dtls>,
    /// What stands in front of each of its datagrams.
    pub(crate) prefix: Vec<u8>,
    pub(crate) server: SocketAddr,
    pub(crate) credential: Credential,
    /// What the last challenge said.
    pub(crate) realm: Option<String>,
    pub(crate) nonce: Option<String>,
    waiting: VecDeque<Vec<u8>>,
    transactions: u64,
}

impl Client {
    /// A client on the loopback address of the server's family.
    pub(crate) fn new(server: SocketAddr, credential: Credential) -> Self {
        let local: IpAddr = match server {
            SocketAddr::V4(_) => [127, 0, 0, 1].into(),
            SocketAddr::V6(_) => [0, 0, 0, 0, 0, 0, 0, 1].into(),
        };
        Self::at(local, server, credential)
    }

    /// A client on this address, on a port of the kernel's choice.
    pub(crate) fn at(local: IpAddr, server: SocketAddr, credential: Credential) -> Self {
        Self {
            socket: UdpSocket::bind(SocketAddr::new(local, 0)).unwrap(),
            stream: None,
            #[cfg(feature = "dtls")]
            dtls: None,
            prefix: Vec::new(),
            server,
            credential,
            realm: None,
            nonce: None,
            waiting: VecDeque::new(),
            transactions: 0,
        }
    }

    /// A client on a connection.
    pub(crate) fn over(stream: Stream, credential: Credential) -> Self {
        let server = stream.socket.peer_addr().unwrap();
        Self {
            stream: Some(stream),
            ..Self::new(server, credential)
        }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        #[cfg(feature = "dtls")]
        if let Some(dtls) = &self.dtls {
            return dtls.socket.local_addr().unwrap();
        }
        match &self.stream {
            Some(stream) => stream.socket.local_addr().unwrap(),
            None => self.socket.local_addr().unwrap(),
        }
    }

    /// Sends bytes as they are.
    pub(crate) fn send_raw(&self, bytes: &[u8]) {
        if let Some(stream) = &self.stream {
            return stream.send(bytes);
        }
        #[cfg(feature = "dtls")]
        if let Some(dtls) = &self.dtls {
            return dtls.send(bytes);
        }
        let whole = [&self.prefix, bytes].concat();
        let sent = self.socket.send_to(&whole, self.server).unwrap();
        assert_eq!(sent, whole.len());
    }

    fn transaction(&mut self) -> [u8; 12] {
        self.transactions += 1;
        let mut id = [0; 12];
        id[2..4].copy_from_slice(&self.addr().port().to_be_bytes());
        id[4..].copy_from_slice(&self.transactions.to_be_bytes());
        id
    }

    /// A request that `fill` completes, with credentials if there was a challenge.
    pub(crate) fn build(&mut self, method: Method, fill: impl Fn(Build) -> Build) -> Build {
        let request = fill(Build::request(method, self.transaction()));
        let (Some(realm), Some(nonce)) = (&self.realm, &self.nonce) else {
            return request;
        };
        request
            .with(&Username(&self.credential.username))
            .with(&Realm(realm))
            .with(&Nonce(nonce))
            .integrity(&self.key())
    }

    fn key(&self) -> Vec<u8> {
        let Credential { username, password } = &self.credential;
        let realm = self.realm.as_deref().unwrap_or_default();
        key(Algorithm::Md5, username, realm, password)
    }

    /// Sends a request that `fill` completes until it is answered; challenges are taken up, as far
    /// as they bring a nonce that was not tried.
    #[track_caller]
    pub(crate) fn request(&mut self, method: Method, fill: impl Fn(Build) -> Build) -> Answer {
        for _ in 0..2 {
            let had_nonce = self.nonce.is_some();
            let answer = self.request_once(method, &fill);
            let is_challenge = answer.code() == 438 || answer.code() == 401 && !had_nonce;
            if !is_challenge {
                return answer;
            }
        }
        self.request_once(method, &fill)
    }

    /// The same without taking up a challenge, but for remembering it.
    #[track_caller]
    pub(crate) fn request_once(&mut self, method: Method, fill: impl Fn(Build) -> Build) -> Answer {
        let request = self.build(method, fill);
        let id = request.id();
        let answer = self.exchange(&request.bytes(), id);
        if answer.message().class() == Class::Success && method != Method::BINDING {
            let signed = is_signed(&answer.0, AttributeType::MESSAGE_INTEGRITY, &self.key());
            assert!(signed, "a success without its signature");
        }
        if let (Some(realm), Some(nonce)) = (answer.realm(), answer.nonce()) {
            self.realm = Some(realm);
            self.nonce = Some(nonce);
        }
        answer
    }

    #[track_caller]
    fn exchange(&mut self, request: &[u8], id: [u8; 12]) -> Answer {
        let deadline = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < deadline, "a request was not answered");
            self.send_raw(request);
            let again = Instant::now() + RESEND;
            while let Some(bytes) = self.read(again) {
                match Message::decode(&bytes) {
                    Ok(message) if message.class() != Class::Indication => {
                        // The answer to an earlier request that was sent twice comes twice.
                        if *message.transaction_id().as_bytes() == id {
                            return Answer(bytes);
                        }
                    }
                    _ => self.waiting.push_back(bytes),
                }
            }
        }
    }

    fn read(&mut self, deadline: Instant) -> Option<Vec<u8>> {
        if let Some(stream) = &mut self.stream {
            return stream.receive(deadline);
        }
        #[cfg(feature = "dtls")]
        if let Some(dtls) = &mut self.dtls {
            return dtls.receive(deadline);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let left = left.max(Duration::from_millis(1));
        self.socket.set_read_timeout(Some(left)).unwrap();
        let mut buf = vec![0; 65_536];
        match self.socket.recv_from(&mut buf) {
            Ok((len, from)) => {
                assert_eq!(from, self.server, "from another address than the server's");
                buf.truncate(len);
                Some(buf)
            }
            Err(error) => {
                let timeout = [ErrorKind::WouldBlock, ErrorKind::TimedOut];
                assert!(timeout.contains(&error.kind()), "{error}");
                None
            }
        }
    }

    /// The next packet from a peer, as it came.
    #[track_caller]
    pub(crate) fn receive_bytes(&mut self) -> Vec<u8> {
        self.receive_within(PATIENCE)
            .expect("nothing came from a peer")
    }

    /// The next packet from a peer.
    #[track_caller]
    pub(crate) fn receive(&mut self) -> Received {
        Received::decode(&self.receive_bytes())
    }

    /// The next packet from a peer, if one comes within `limit`.
    pub(crate) fn receive_within(&mut self, limit: Duration) -> Option<Vec<u8>> {
        if let Some(bytes) = self.waiting.pop_front() {
            return Some(bytes);
        }
        let deadline = Instant::now() + limit;
        loop {
            let bytes = self.read(deadline)?;
            // What is left of a request that was answered twice.
            if !Message::decode(&bytes).is_ok_and(|message| message.class() != Class::Indication) {
                return Some(bytes);
            }
        }
    }

    /// Allocates a relayed address of `family`.
    #[track_caller]
    pub(crate) fn allocate(&mut self, family: AddressFamily) -> SocketAddr {
        let answer = self.try_allocate(family);
        assert_eq!(answer.code(), SUCCESS, "Allocate");
        answer.relayed()[0]
    }

    #[track_caller]
    pub(crate) fn try_allocate(&mut self, family: AddressFamily) -> Answer {
        self.request(Method::ALLOCATE, |request| {
            request
                .with(&RequestedTransport::UDP)
                .with(&RequestedAddressFamily(family))
        })
    }

    /// Refreshes; 0 gives the allocation up.
    #[track_caller]
    pub(crate) fn refresh(&mut self, seconds: u32) -> Answer {
        self.request(Method::REFRESH, |request| request.with(&Lifetime(seconds)))
    }

    /// CreatePermission; returns the code.
    #[track_caller]
    pub(crate) fn permit(&mut self, peer: SocketAddr) -> u16 {
        self.request(Method::CREATE_PERMISSION, |request| {
            request.with(&XorPeerAddress(peer))
        })
        .code()
    }

    /// ChannelBind; returns the code.
    #[track_caller]
    pub(crate) fn bind(&mut self, number: u16, peer: SocketAddr) -> u16 {
        self.request(Method::CHANNEL_BIND, |request| {
            request
                .with(&ChannelNumberAttribute(number))
                .with(&XorPeerAddress(peer))
        })
        .code()
    }

    /// ChannelData.
    pub(crate) fn send_channel(&self, number: u16, data: &[u8]) {
        self.send_raw(&channel_data(number, data));
    }

    /// A Send indication.
    pub(crate) fn send_to(&mut self, peer: SocketAddr, data: &[u8]) {
        let id = self.transaction();
        self.send_raw(&send_indication(id, peer, data).bytes());
    }

    /// A Send indication with DONT-FRAGMENT.
    pub(crate) fn send_whole(&mut self, peer: SocketAddr, data: &[u8]) {
        let id = self.transaction();
        self.send_raw(&send_indication(id, peer, data).with(&DontFragment).bytes());
    }
}

fn send_indication(id: [u8; 12], peer: SocketAddr, data: &[u8]) -> Build {
    Build::new(Class::Indication, Method::SEND, id)
        .with(&XorPeerAddress(peer))
        .with(&Data(data))
}

/// A ChannelData message.
pub(crate) fn channel_data(number: u16, data: &[u8]) -> Vec<u8> {
    let number = ChannelNumber::new(number, ChannelRange::Rfc5766).unwrap();
    let mut bytes = [&[0; 4], data].concat();
    let range = frame_channel_data(&mut bytes, 4..4 + data.len(), number).unwrap();
    bytes[range].to_vec()
}
