//! RFC 5780 over sockets: the answer leaves by the listener that was asked for.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use taciturn::proto::{ChangeRequest, Method, OtherAddress, Padding, ResponseOrigin, ResponsePort};

use crate::loopback::PATIENCE;
use crate::loopback::message::{Answer, Build};
use crate::loopback::plane::{Setup, loopback_of_its_own};

const PORTS: [u16; 2] = [3478, 3479];

/// Asks at `listener`; the answer as it reaches `heard`, and where it came from.
fn ask(
    asking: &UdpSocket,
    heard: &UdpSocket,
    listener: SocketAddr,
    fill: impl Fn(Build) -> Build,
) -> (SocketAddr, Answer) {
    let request = fill(Build::request(Method::BINDING, [7; 12])).bytes();
    asking.send_to(&request, listener).unwrap();
    let mut buf = [0; 4_096];
    let (len, from) = heard.recv_from(&mut buf).unwrap();
    (from, Answer(buf[..len].to_vec()))
}

#[test]
fn answers_leave_by_the_listener_that_was_asked_for() {
    for workers in [1, 4] {
        let ips = [(); 2].map(|()| IpAddr::from(loopback_of_its_own()));
        let mut setup = Setup::relay(workers);
        setup.listen = ips
            .iter()
            .flat_map(|ip| PORTS.map(|port| SocketAddr::new(*ip, port)))
            .collect();
        setup.nat_discovery = true;
        let _plane = setup.start();
        let [client, other] = [(); 2].map(|()| {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket
        });
        let here = SocketAddr::new(ips[0], PORTS[0]);
        for (change_ip, change_port) in [(false, false), (true, false), (false, true), (true, true)]
        {
            let expected =
                SocketAddr::new(ips[usize::from(change_ip)], PORTS[usize::from(change_port)]);
            let change = ChangeRequest {
                change_ip,
                change_port,
            };
            let (from, answer) = ask(&client, &client, here, |r| r.with(&change));
            assert_eq!(from, expected);
            assert_eq!(answer.find::<ResponseOrigin>().unwrap().0, expected);
            let opposite = SocketAddr::new(ips[1], PORTS[1]);
            assert_eq!(answer.find::<OtherAddress>().unwrap().0, opposite);

            // Longer than a batch of small answers takes.
            let padding = [0; 1_500];
            let (from, answer) = ask(&client, &client, here, |r| {
                r.with(&change).with(&Padding(&padding))
            });
            assert_eq!(from, expected);
            assert!(answer.0.len() > 1_500);
        }
        let port = other.local_addr().unwrap().port();
        let (from, answer) = ask(&client, &other, here, |r| r.with(&ResponsePort(port)));
        assert_eq!(from, here);
        assert_eq!(answer.mapped(), client.local_addr().ok());
    }
}
