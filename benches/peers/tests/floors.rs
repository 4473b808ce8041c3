//! Every floor carries packets both ways, between relayed addresses and to a plain peer.

#![expect(clippy::unwrap_used, reason = "a test may fail at any step")]

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use taciturn::proto::{
    ChannelNumberAttribute, Class, Lifetime, Message, Method, TransactionId, Username, Writer,
    XorPeerAddress, XorRelayedAddress,
};

/// Each client has another, so that a header that was not rewritten shows.
const CHANNELS: [u16; 2] = [0x4001, 0x4002];

struct Floor {
    process: Child,
    address: SocketAddr,
}

impl Floor {
    /// On an IP address of its own, since relayed ports are always the same.
    fn start(last: u8, arguments: &[&str]) -> Self {
        let address = SocketAddr::from((Ipv4Addr::new(127, 55, 0, last), 3478));
        let process = Command::new(env!("CARGO_BIN_EXE_floor"))
            .args(arguments)
            .arg(format!("--listen={address}"))
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        Self { process, address }
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

struct Client {
    socket: UdpSocket,
    relayed: SocketAddr,
}

impl Client {
    fn allocate(floor: &mut Floor) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(floor.address).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(200)))
            .unwrap();
        let mut client = Self {
            socket,
            relayed: floor.address,
        };
        let refused = client.ask(floor, Method::ALLOCATE, None);
        let refused = Message::decode(&refused).unwrap();
        assert_eq!(refused.class(), Class::Error);
        let granted = client.ask(floor, Method::ALLOCATE, Some(None));
        let granted = Message::decode(&granted).unwrap();
        client.relayed = granted.find::<XorRelayedAddress>().unwrap().unwrap().0;
        client
    }

    fn bind(&self, floor: &mut Floor, channel: u16, peer: SocketAddr) {
        let answer = self.ask(floor, Method::CHANNEL_BIND, Some(Some((channel, peer))));
        assert_eq!(Message::decode(&answer).unwrap().class(), Class::Success);
    }

    /// Repeated while the floor is starting; none of `attributes` means an anonymous request.
    fn ask(
        &self,
        floor: &mut Floor,
        method: Method,
        attributes: Option<Option<(u16, SocketAddr)>>,
    ) -> Vec<u8> {
        let mut request = [0; 128];
        let id = TransactionId::new([7; 12]);
        let mut writer = Writer::new(&mut request, Class::Request, method, id).unwrap();
        if let Some(peer) = attributes {
            writer.push(&Username("anyone")).unwrap();
            if method == Method::REFRESH {
                writer.push(&Lifetime(0)).unwrap();
            }
            if let Some((channel, peer)) = peer {
                writer.push(&ChannelNumberAttribute(channel)).unwrap();
                writer.push(&XorPeerAddress(peer)).unwrap();
            }
        }
        let length = writer.finish();
        for _ in 0..50 {
            // Nobody may be listening yet.
            self.socket.send(&request[..length]).ok();
            match self.receive() {
                Some(answer) => return answer,
                None => std::thread::sleep(Duration::from_millis(20)),
            }
            assert!(
                floor.process.try_wait().unwrap().is_none(),
                "the floor ended"
            );
        }
        unreachable!("no answer");
    }

    fn receive(&self) -> Option<Vec<u8>> {
        receive(&self.socket)
    }
}

fn receive(socket: &UdpSocket) -> Option<Vec<u8>> {
    let mut buffer = [0; 2048];
    match socket.recv(&mut buffer) {
        Ok(length) => Some(buffer[..length].to_vec()),
        Err(error) if error.kind() == ErrorKind::WouldBlock => None,
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => None,
        Err(error) => unreachable!("{error}"),
    }
}

fn channel_data(channel: u16, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap();
    [&channel.to_be_bytes()[..], &length.to_be_bytes(), payload].concat()
}

fn carries_calls(last: u8, arguments: &[&str]) {
    let mut floor = Floor::start(last, arguments);
    let clients = [Client::allocate(&mut floor), Client::allocate(&mut floor)];
    let [a, b] = &clients;
    assert_ne!(a.relayed, b.relayed);
    let released = Client::allocate(&mut floor);
    let answer = released.ask(&mut floor, Method::REFRESH, Some(None));
    assert_eq!(Message::decode(&answer).unwrap().class(), Class::Success);
    let next = Client::allocate(&mut floor);
    assert!(![a.relayed, b.relayed].contains(&next.relayed));
    let [x, y] = CHANNELS;
    a.bind(&mut floor, x, b.relayed);
    b.bind(&mut floor, y, a.relayed);
    for length in [0, 1, 172, 1200] {
        let payload = vec![9; length];
        for (from, sent, to, received) in [(a, x, b, y), (b, y, a, x)] {
            from.socket.send(&channel_data(sent, &payload)).unwrap();
            let received = channel_data(received, &payload);
            assert_eq!(to.receive(), Some(received), "{arguments:?}");
        }
    }
}

fn carries_to_plain_peers(last: u8, arguments: &[&str]) {
    let mut floor = Floor::start(last, arguments);
    let client = Client::allocate(&mut floor);
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    peer.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let [channel, _] = CHANNELS;
    client.bind(&mut floor, channel, peer.local_addr().unwrap());
    for length in [1, 172, 1200] {
        let payload = vec![9; length];
        client
            .socket
            .send(&channel_data(channel, &payload))
            .unwrap();
        assert_eq!(receive(&peer), Some(payload.clone()), "{arguments:?}");
        peer.send_to(&payload, client.relayed).unwrap();
        assert_eq!(
            client.receive(),
            Some(channel_data(channel, &payload)),
            "{arguments:?}"
        );
    }
}

#[test]
fn a_hairpin_carries_calls() {
    carries_calls(1, &["hairpin"]);
    carries_calls(2, &["hairpin", "--gso"]);
    carries_calls(3, &["hairpin", "--busy-poll"]);
}

#[test]
fn a_forwarder_carries_calls() {
    carries_calls(11, &["forward"]);
    carries_calls(12, &["forward", "--unbatched"]);
    carries_calls(13, &["forward", "--scratch"]);
    carries_calls(14, &["forward", "--gso"]);
    carries_calls(15, &["forward", "--busy-poll"]);
}

#[test]
fn a_forwarder_carries_packets_to_plain_peers_and_back() {
    carries_to_plain_peers(21, &["forward"]);
    carries_to_plain_peers(22, &["forward", "--unbatched"]);
    carries_to_plain_peers(23, &["forward", "--scratch"]);
}

#[test]
fn a_forwarder_by_io_uring_carries_both_or_says_that_the_kernel_forbids_it() {
    let refused = Command::new(env!("CARGO_BIN_EXE_floor"))
        .args(["forward", "--uring", "--listen=127.55.0.30:3478"])
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut process = refused;
    std::thread::sleep(Duration::from_millis(300));
    if process.try_wait().unwrap().is_some() {
        let output = process.wait_with_output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains("the kernel forbids io_uring"), "{said}");
        return;
    }
    process.kill().unwrap();
    process.wait().unwrap();
    carries_calls(31, &["forward", "--uring"]);
    carries_to_plain_peers(32, &["forward", "--uring"]);
}
