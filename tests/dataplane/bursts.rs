//! Bursts of one flow, which the kernel hands over in one piece, go on whole and in order.

use std::io::IoSlice;
use std::net::{SocketAddr, UdpSocket};

use socket2::{MsgHdr, SockAddr, SockRef};
use taciturn::proto::XorPeerAddress;
use taciturn::proto::{Class, Data, Method};
use taciturn::turn::stats::Path;

use crate::loopback::PATIENCE;
use crate::loopback::client::{Client, SUCCESS, channel_data};
use crate::loopback::message::{Build, Received};
use crate::loopback::plane::{Setup, V4, V6, loopback_of_its_own};

/// Frames of a video burst, numbered; the last is shorter.
const LENGTHS: [usize; 9] = [1_200, 1_200, 1_200, 1_200, 1_200, 1_200, 1_200, 1_200, 333];
const CHANNEL: u16 = 0x4005;

fn payloads() -> Vec<Vec<u8>> {
    (0_u8..)
        .zip(LENGTHS)
        .map(|(number, length)| vec![number; length])
        .collect()
}

/// Sends datagrams of equal length, of which the last may be shorter, as one run.
fn send_as_one(socket: &UdpSocket, to: SocketAddr, datagrams: &[Vec<u8>]) {
    const SOL_UDP: i32 = 17;
    const UDP_SEGMENT: i32 = 103;
    let mut control = [0; 24];
    control[..8].copy_from_slice(&18_usize.to_ne_bytes());
    control[8..12].copy_from_slice(&SOL_UDP.to_ne_bytes());
    control[12..16].copy_from_slice(&UDP_SEGMENT.to_ne_bytes());
    let segment = u16::try_from(datagrams[0].len()).unwrap();
    control[16..18].copy_from_slice(&segment.to_ne_bytes());
    let whole = datagrams.concat();
    let to = SockAddr::from(to);
    let buffers = [IoSlice::new(&whole)];
    let message = MsgHdr::new()
        .with_addr(&to)
        .with_buffers(&buffers)
        .with_control(&control);
    let sent = SockRef::from(socket).sendmsg(&message, 0).unwrap();
    assert_eq!(sent, whole.len());
}

/// How a client sends and receives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    Channel,
    Indication,
}

impl Framing {
    fn admit(self, client: &mut Client, peer: SocketAddr) {
        let code = match self {
            Self::Channel => client.bind(CHANNEL, peer),
            Self::Indication => client.permit(peer),
        };
        assert_eq!(code, SUCCESS);
    }

    fn frame(self, peer: SocketAddr, data: &[u8]) -> Vec<u8> {
        match self {
            Self::Channel => channel_data(CHANNEL, data),
            Self::Indication => Build::new(Class::Indication, Method::SEND, [7; 12])
                .with(&XorPeerAddress(peer))
                .with(&Data(data))
                .bytes(),
        }
    }

    fn received(self, peer: SocketAddr, data: &[u8]) -> Received {
        match self {
            Self::Channel => Received::Channel(CHANNEL, data.to_vec()),
            Self::Indication => Received::Data(peer, data.to_vec()),
        }
    }
}

#[test]
fn a_merged_burst_is_hairpinned_whole_and_in_order_in_every_framing() {
    for (family, workers) in [(V4, 1), (V6, 1), (V4, 4)] {
        for from in [Framing::Channel, Framing::Indication] {
            for to in [Framing::Channel, Framing::Indication] {
                let mut plane = Setup::relay(workers).start();
                let [(mut a, at_a), (mut b, at_b)] = [(); 2].map(|()| plane.party(family));
                from.admit(&mut a, at_b);
                to.admit(&mut b, at_a);
                let before = plane.both_ways(Path::Hairpin);
                let framed: Vec<_> = payloads().iter().map(|p| from.frame(at_b, p)).collect();
                for _ in 0..3 {
                    send_as_one(&a.socket, a.server, &framed);
                    for payload in payloads() {
                        assert_eq!(b.receive(), to.received(at_a, &payload), "{from:?} {to:?}");
                    }
                }
                let now = plane.both_ways(Path::Hairpin);
                assert_eq!([now[0] - before[0], now[1] - before[1]], [27, 27]);
            }
        }
    }
}

#[test]
fn a_merged_burst_passes_a_relay_socket_whole_and_in_order_both_ways() {
    for framing in [Framing::Channel, Framing::Indication] {
        let mut plane = Setup::any(1).start();
        let peer = UdpSocket::bind((loopback_of_its_own(), 0)).unwrap();
        peer.set_read_timeout(Some(PATIENCE)).unwrap();
        let at_peer = peer.local_addr().unwrap();
        let (mut client, relayed) = plane.party(V4);
        framing.admit(&mut client, at_peer);
        let framed: Vec<_> = payloads()
            .iter()
            .map(|p| framing.frame(at_peer, p))
            .collect();
        send_as_one(&client.socket, client.server, &framed);
        let mut buf = [0; 2_000];
        for payload in payloads() {
            let (len, from) = peer.recv_from(&mut buf).unwrap();
            assert_eq!((from, &buf[..len]), (relayed, &payload[..]));
        }
        send_as_one(&peer, relayed, &payloads());
        for payload in payloads() {
            assert_eq!(client.receive(), framing.received(at_peer, &payload));
        }
    }
}

/// A burst with a request, a stranger's channel and noise within: each is judged by itself.
#[test]
fn what_does_not_belong_to_a_merged_run_is_judged_by_itself() {
    let mut plane = Setup::relay(1).start();
    let [(mut a, at_a), (mut b, at_b)] = [(); 2].map(|()| plane.party(V4));
    Framing::Channel.admit(&mut a, at_b);
    Framing::Channel.admit(&mut b, at_a);
    let binding = Build::request(Method::BINDING, [9; 12]).bytes();
    let burst = [
        channel_data(CHANNEL, &[1; 20]),
        channel_data(CHANNEL + 1, &[2; 20]),
        vec![0xFF; 24],
        channel_data(CHANNEL, &[3; 20]),
    ];
    send_as_one(&a.socket, a.server, &burst);
    for data in [[1; 20], [3; 20]] {
        assert_eq!(b.receive(), Received::Channel(CHANNEL, data.to_vec()));
    }
    let short = [channel_data(CHANNEL, &[4; 16]), binding];
    send_as_one(&a.socket, a.server, &short);
    assert_eq!(b.receive(), Received::Channel(CHANNEL, vec![4; 16]));
    let mut buf = [0; 200];
    a.socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let (len, _) = a.socket.recv_from(&mut buf).unwrap();
    assert_eq!(buf[..2], [1, 1], "a Binding success of {len} bytes");
}
