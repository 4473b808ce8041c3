//! The sans-IO client `turn-client-proto` over UDP, TCP and TLS, on loopback: two clients exchange
//! packets by indications, then by channels, each over a transport of its own.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use rcgen::generate_simple_self_signed;
use rustix::process::Signal;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use turn_client_proto::api::{
    Transmit, TurnClientApi, TurnConfig, TurnEvent, TurnPollRet, TurnRecvRet,
};
use turn_client_proto::client::TurnClient;
use turn_client_proto::tcp::TurnClientTcp;
use turn_client_proto::types::stun::message::IntegrityAlgorithm;
use turn_client_proto::types::{Instant, TransportType, TurnCredentials};
use turn_client_proto::udp::TurnClientUdp;

use crate::lab::process::Process;
use crate::lab::relay::{SECRET, credential};

/// Packets that each client sends each way of sending.
const PACKETS: u32 = 100;
/// Packets on their way at once, few enough for every buffer.
const AT_ONCE: u32 = 20;
/// How long anything may take.
const LIMIT: Duration = Duration::from_secs(30);
/// May be lost: this client permits addresses without ports, and so names nobody before it sends.
const GREETING: &[u8] = b"greeting";
/// How long a client looks for something to read.
const GLANCE: Duration = Duration::from_millis(2);

/// What a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Over {
    Udp,
    Tcp,
    Tls,
}

/// A daemon on all of them at one port, and whom its clients trust.
struct Server {
    process: Process,
    address: SocketAddr,
    trust: Arc<ClientConfig>,
}

impl Server {
    fn start(directory: &Path) -> Self {
        let issued = generate_simple_self_signed(vec!["localhost".to_owned()])
            .expect("a certificate for localhost");
        let (cert, key) = (directory.join("cert.pem"), directory.join("key.pem"));
        fs::write(&cert, issued.cert.pem()).expect("the directory is writable");
        fs::write(&key, issued.signing_key.serialize_pem()).expect("the directory is writable");
        let address = free();
        let config = format!(
            r#"realm = "proto.test"
listen = {{ udp = ["{address}"], tls = ["{address}"] }}
tls = {{ cert = [{cert:?}], key = [{key:?}] }}
relay = {{ addresses = ["127.0.0.1"], ports = "61000-65535" }}
auth = {{ secrets = [{{ id = "test", value = "{SECRET}" }}] }}
workers = {{ count = 2 }}
admin = {{ listen = "off" }}
log = {{ format = "json" }}
"#
        );
        let file = directory.join("taciturn.toml");
        fs::write(&file, config).expect("the directory is writable");
        let mut command = Command::new(env!("CARGO_BIN_EXE_taciturn"));
        command.arg("serve").arg("--config").arg(file);
        let mut process = Process::spawn("relay", command, directory);
        process.expect_line("\"message\":\"ready\"", LIMIT);

        let mut roots = RootCertStore::empty();
        roots.add(issued.cert.der().clone()).expect("a certificate");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut trust = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("protocol versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        trust.alpn_protocols = vec![b"stun.turn".to_vec()];
        Self {
            process,
            address,
            trust: Arc::new(trust),
        }
    }

    /// A client with an allocation, and its relayed address.
    fn client(&self, over: Over, user: &str) -> (Client, SocketAddr) {
        let (username, password) = credential(user);
        let mut config = TurnConfig::new(TurnCredentials::new(&username, &password));
        // RFC 8489 §9.2.5: who is offered algorithms answers with MESSAGE-INTEGRITY-SHA256. Left
        // to itself this client chooses MD5 and MESSAGE-INTEGRITY.
        config.set_supported_integrity(IntegrityAlgorithm::Sha256);
        let server = self.address;
        let (pipe, local) = self.pipe(over);
        let turn = match over {
            Over::Udp => TurnClientUdp::allocate(local, server, config).into(),
            Over::Tcp | Over::Tls => TurnClientTcp::allocate(local, server, config).into(),
        };
        let mut client = Client {
            pipe,
            turn,
            local,
            server,
            began: std::time::Instant::now(),
            greeted: false,
            heard: Vec::new(),
        };
        let relayed = client.until(|event| {
            if let TurnEvent::AllocationCreated(_, relayed) = event {
                Some(relayed)
            } else {
                None
            }
        });
        (client, relayed)
    }

    fn pipe(&self, over: Over) -> (Pipe, SocketAddr) {
        if over == Over::Udp {
            let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
            socket.connect(self.address).expect("a route");
            socket.set_read_timeout(Some(GLANCE)).expect("a timeout");
            let local = socket.local_addr().expect("an address");
            return (Pipe::Udp(socket), local);
        }
        let mut stream = TcpStream::connect(self.address).expect("a connection");
        stream.set_nodelay(true).expect("an option");
        let local = stream.local_addr().expect("an address");
        if over == Over::Tcp {
            stream.set_read_timeout(Some(GLANCE)).expect("a timeout");
            return (Pipe::Tcp(stream), local);
        }
        let name = ServerName::try_from("localhost").expect("a name");
        let mut tls = ClientConnection::new(Arc::clone(&self.trust), name).expect("a client");
        while tls.is_handshaking() {
            tls.complete_io(&mut stream).expect("a handshake");
        }
        assert_eq!(tls.alpn_protocol(), Some(&b"stun.turn"[..]));
        stream.set_read_timeout(Some(GLANCE)).expect("a timeout");
        (Pipe::Tls(Box::new(StreamOwned::new(tls, stream))), local)
    }
}

/// A port of loopback that nobody has, neither of UDP nor of TCP.
fn free() -> SocketAddr {
    loop {
        let tcp = TcpListener::bind("127.0.0.1:0").expect("a socket");
        let address = tcp.local_addr().expect("an address");
        if address.port() < 61_000 && UdpSocket::bind(address).is_ok() {
            return address;
        }
    }
}

/// What carries a client's messages.
enum Pipe {
    Udp(UdpSocket),
    Tcp(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Pipe {
    fn write(&mut self, bytes: &[u8]) {
        match self {
            Self::Udp(socket) => assert_eq!(socket.send(bytes).expect("a send"), bytes.len()),
            Self::Tcp(stream) => stream.write_all(bytes).expect("a write"),
            Self::Tls(stream) => {
                stream.write_all(bytes).expect("a write");
                stream.flush().expect("a write");
            }
        }
    }

    fn read(&mut self) -> Option<Vec<u8>> {
        let mut bytes = vec![0; 65_536];
        let read = match self {
            Self::Udp(socket) => socket.recv(&mut bytes),
            Self::Tcp(stream) => stream.read(&mut bytes),
            Self::Tls(stream) => stream.read(&mut bytes),
        };
        match read {
            Ok(0) => panic!("the server closed the connection"),
            Ok(length) => {
                bytes.truncate(length);
                Some(bytes)
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                None
            }
            Err(error) => panic!("the connection broke: {error}"),
        }
    }
}

struct Client {
    pipe: Pipe,
    turn: TurnClient,
    local: SocketAddr,
    server: SocketAddr,
    began: std::time::Instant,
    greeted: bool,
    heard: Vec<(SocketAddr, Vec<u8>)>,
}

/// Whether a client has an allocation, or may have one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Going {
    On,
    Over,
}

impl Client {
    fn now(&self) -> Instant {
        let nanos = self.began.elapsed().as_nanos();
        Instant::from_nanos(i64::try_from(nanos).expect("a test takes no century"))
    }

    /// Sends what is to be sent and takes what has arrived.
    fn turn(&mut self) -> Going {
        let now = self.now();
        if matches!(self.turn.poll(now), TurnPollRet::Closed) {
            return Going::Over;
        }
        while let Some(transmit) = self.turn.poll_transmit(now) {
            self.pipe.write(&transmit.data);
        }
        let Some(bytes) = self.pipe.read() else {
            return Going::On;
        };
        let now = self.now();
        let transmit = Transmit::new(bytes, self.turn.transport(), self.server, self.local);
        match self.turn.recv(transmit, now) {
            TurnRecvRet::Handled => {}
            TurnRecvRet::PeerData(data) => self.hear(data.peer, data.data()),
            other @ (TurnRecvRet::Ignored(_) | TurnRecvRet::PeerIcmp { .. }) => {
                panic!("the client cannot use {other:?}")
            }
        }
        while let Some(data) = self.turn.poll_recv(now) {
            self.hear(data.peer, data.data());
        }
        Going::On
    }

    fn hear(&mut self, peer: SocketAddr, packet: &[u8]) {
        if packet == GREETING {
            self.greeted = true;
        } else {
            self.heard.push((peer, packet.to_vec()));
        }
    }

    fn until<T>(&mut self, mut wanted: impl FnMut(TurnEvent) -> Option<T>) -> T {
        let began = std::time::Instant::now();
        loop {
            self.turn();
            while let Some(event) = self.turn.poll_event() {
                let said = format!("{event:?}");
                assert!(!said.contains("Failed"), "{said}");
                if let Some(found) = wanted(event) {
                    return found;
                }
            }
            assert!(began.elapsed() < LIMIT, "the server does not answer");
        }
    }

    /// Deletes the allocation, and waits for the server's word.
    fn end(mut self) {
        let now = self.now();
        self.turn.delete(now).expect("there is an allocation");
        let began = std::time::Instant::now();
        while self.turn() != Going::Over {
            assert!(began.elapsed() < LIMIT, "the server does not answer");
        }
    }

    fn permit(&mut self, peer: SocketAddr) {
        let now = self.now();
        let asked = self
            .turn
            .create_permission(TransportType::Udp, peer.ip(), now);
        asked.expect("a permission can be asked for");
        self.until(|event| matches!(event, TurnEvent::PermissionCreated(..)).then_some(()));
    }

    fn bind(&mut self, peer: SocketAddr) {
        let now = self.now();
        let asked = self.turn.bind_channel(TransportType::Udp, peer, now);
        asked.expect("a channel can be asked for");
        self.until(|event| matches!(event, TurnEvent::ChannelCreated(..)).then_some(()));
    }

    fn send(&mut self, peer: SocketAddr, packet: &[u8]) {
        let now = self.now();
        let built = self.turn.send_to(TransportType::Udp, peer, packet, now);
        let transmit = built.expect("a permission").expect("a message").build();
        self.pipe.write(&transmit.data);
    }
}

/// Makes each the other's peer.
fn meet(a: &mut Client, b: &mut Client, at: [SocketAddr; 2]) {
    a.permit(at[1]);
    b.permit(at[0]);
    let began = std::time::Instant::now();
    while !(a.greeted && b.greeted) {
        a.send(at[1], GREETING);
        b.send(at[0], GREETING);
        a.turn();
        b.turn();
        assert!(began.elapsed() < LIMIT, "neither hears the other");
    }
}

/// Numbered packets; every one arrives, in order and once. Over streams this client pads no
/// ChannelData (RFC 8656 §12.5), so that lengths need no padding.
fn exchange(from: &mut Client, to: &mut Client, at: [SocketAddr; 2]) {
    let [source, target] = at;
    let packet = |number: u32| {
        let length = 40 + 4 * (number % 7) as usize;
        number
            .to_be_bytes()
            .into_iter()
            .cycle()
            .take(length)
            .collect::<Vec<u8>>()
    };
    for first in (0..PACKETS).step_by(AT_ONCE as usize) {
        for number in first..first + AT_ONCE {
            from.send(target, &packet(number));
        }
        let began = std::time::Instant::now();
        while to.heard.len() < AT_ONCE as usize {
            to.turn();
            assert!(began.elapsed() < LIMIT, "{} arrived", to.heard.len());
        }
        let expected: Vec<_> = (first..first + AT_ONCE)
            .map(|number| (source, packet(number)))
            .collect();
        assert!(to.heard == expected, "from {first} on");
        to.heard.clear();
    }
}

#[test]
fn two_clients_of_turn_client_proto_exchange_packets_over_every_transport() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut server = Server::start(directory.path());
    let pairs = [
        (Over::Udp, Over::Udp),
        (Over::Tcp, Over::Tcp),
        (Over::Tls, Over::Tls),
        (Over::Udp, Over::Tls),
        (Over::Tcp, Over::Tls),
    ];
    for (one, other) in pairs {
        eprintln!("{one:?} and {other:?}");
        let ((mut a, at_a), (mut b, at_b)) =
            (server.client(one, "alice"), server.client(other, "bob"));
        meet(&mut a, &mut b, [at_a, at_b]);
        exchange(&mut a, &mut b, [at_a, at_b]);
        exchange(&mut b, &mut a, [at_b, at_a]);
        // One side with a channel, then both.
        a.bind(at_b);
        exchange(&mut a, &mut b, [at_a, at_b]);
        exchange(&mut b, &mut a, [at_b, at_a]);
        b.bind(at_a);
        exchange(&mut a, &mut b, [at_a, at_b]);
        exchange(&mut b, &mut a, [at_b, at_a]);
        a.end();
        b.end();
    }
    // Each deleted its allocation itself, by a Refresh with a lifetime of 0.
    let closed = "\"message\":\"allocation closed\"";
    let began = std::time::Instant::now();
    while server.process.output().matches(closed).count() < 2 * pairs.len() {
        assert!(began.elapsed() < LIMIT, "{}", server.process.output());
        std::thread::sleep(Duration::from_millis(20));
    }
    let log = server.process.output();
    for line in log.lines().filter(|line| line.contains(closed)) {
        assert!(line.contains("\"reason\":\"closed\""), "{line}");
    }
    assert!(server.process.stop(Signal::TERM).success());
}
