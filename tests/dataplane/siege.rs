//! Many bad connections at once: what they cost, and that calls go on meanwhile. The figures are
//! printed.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use taciturn::dataplane::sys;
use taciturn::turn::Transport;
use taciturn::turn::stats::DropReason;

use crate::loopback::client::{Client, SUCCESS};
use crate::loopback::message::Received;
use crate::loopback::plane::{Plane, Setup};
use crate::loopback::stream::Stream;
use crate::loopback::{PATIENCE, eventually};

const HALF_OPEN: u64 = 2_000;
const CHANNEL: u16 = 0x4123;

/// Two parties who hear each other.
struct Call {
    a: Client,
    at_a: SocketAddr,
    b: Client,
}

impl Call {
    fn new(plane: &mut Plane, over: [Transport; 2]) -> Self {
        let [(mut a, at_a), (mut b, at_b)] = over.map(|transport| plane.party_over(transport));
        assert_eq!(a.bind(CHANNEL, at_b), SUCCESS);
        assert_eq!(b.permit(at_a), SUCCESS);
        Self { a, at_a, b }
    }

    /// Says something, and waits until the other one has heard it.
    fn say(&mut self, data: &[u8]) -> Duration {
        let began = Instant::now();
        self.a.send_channel(CHANNEL, data);
        let expected = Received::Data(self.at_a, data.to_vec());
        assert_eq!(self.b.receive(), expected);
        began.elapsed()
    }
}

/// Memory of this process that is in use, server and clients, in kilobytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS"));
    let mut words = line.unwrap().split_whitespace();
    words.nth(1).unwrap().parse().unwrap()
}

/// A TLS ClientHello of an ordinary client, without whatever would follow.
fn hello() -> Vec<u8> {
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let config = rustls::ClientConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let name = rustls::pki_types::ServerName::try_from("turn.test").unwrap();
    let mut client = rustls::ClientConnection::new(config.into(), name).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    hello
}

/// T36: silent connections, handshakes that are not finished, messages that are not whole, and one
/// byte now and then.
#[test]
fn two_thousand_half_open_connections_cost_little_and_harm_nobody() {
    sys::raise_descriptor_limit().unwrap();
    let mut plane = Setup::streams(1).start();
    let [tcp, tls] = [Transport::Tcp, Transport::Tls].map(|over| plane.reached_over(over));
    let mut calls = [
        [Transport::Udp, Transport::Udp],
        [Transport::Tcp, Transport::Tls],
        [Transport::Udp, Transport::Tls],
    ]
    .map(|over| Call::new(&mut plane, over));
    let open = |plane: &Plane| {
        let over = |over| plane.sum(|w| w.over(over).connections.load(Ordering::Relaxed));
        over(Transport::Tcp) + over(Transport::Tls)
    };
    let (before, others, hello) = (resident(), open(&plane), hello());
    let mut half: Vec<TcpStream> = Vec::new();
    for n in 0..HALF_OPEN {
        let mut stream = TcpStream::connect(if n % 4 < 2 { tls } else { tcp }).unwrap();
        match n % 4 {
            0 => {}
            1 => stream.write_all(&hello).unwrap(),
            2 => stream.write_all(&[0, 1, 0, 8, 0x21]).unwrap(),
            _ => stream.write_all(&[0x40, 0, 4, 0]).unwrap(),
        }
        half.push(stream);
        if n % 100 == 0 {
            for call in &mut calls {
                call.say(b"while they come");
            }
        }
    }
    eventually("all are there", || open(&plane) == others + HALF_OPEN);
    let grown = resident().saturating_sub(before);
    let each = grown * 1_024 / HALF_OPEN;
    eprintln!("{HALF_OPEN} half-open connections: {grown} kB, {each} bytes each, clients included");
    assert!(
        each < 32 * 1_024,
        "{each} bytes for a connection that said nothing"
    );
    // A byte now and then is no whole message.
    let mut drips = (3..half.len()).step_by(4).cycle();
    eventually("they are let go", || {
        let next = drips.next().unwrap();
        // It may be closed already.
        half[next].write_all(&[0]).ok();
        for call in &mut calls {
            call.say(b"while they wait");
        }
        open(&plane) <= others
    });
    let refused = |over| plane.sum(|w| w.over(over).connections_refused.total());
    let refused = refused(Transport::Tcp) + refused(Transport::Tls);
    assert!(
        refused >= HALF_OPEN * 9 / 10,
        "{refused} were refused on a deadline"
    );
    for call in &mut calls {
        call.say(b"afterwards");
    }
}

/// More at once than a turn of the worker's loop takes: each waits for its turn, and none for ever.
#[test]
fn handshakes_that_come_all_at_once_are_all_answered() {
    let plane = Setup::streams(1).start();
    let tls = plane.reached_over(Transport::Tls);
    let hello = hello();
    let mut all: Vec<TcpStream> = (0..300)
        .map(|_| {
            let mut stream = TcpStream::connect(tls).unwrap();
            stream.write_all(&hello).unwrap();
            stream
        })
        .collect();
    for stream in &mut all {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut first = [0];
        stream.read_exact(&mut first).unwrap();
        assert_eq!(first, [22], "a handshake record");
    }
}

/// A reader that has stopped while its peer sends what it can costs a queue, and no other call
/// anything.
#[test]
fn stalled_readers_cost_a_queue_each_and_harm_nobody() {
    const STALLED: usize = 20;
    let mut plane = Setup::streams(1).start();
    let mut well = Call::new(&mut plane, [Transport::Tcp, Transport::Tls]);
    let stalled: Vec<Call> = (0..STALLED)
        .map(|n| {
            let over = [Transport::Tcp, Transport::Tls][n % 2];
            Call::new(&mut plane, [Transport::Udp, over])
        })
        .collect();
    let before = resident();
    let packet = [9; 1_200];
    for _ in 0..400 {
        for call in &stalled {
            (0..10).for_each(|_| call.a.send_channel(CHANNEL, &packet));
        }
        well.say(b"meanwhile");
    }
    let grown = resident().saturating_sub(before);
    let lost = plane.drops(DropReason::SlowReader);
    eprintln!("{STALLED} stalled readers: {grown} kB in all, {lost} packets lost to them");
    assert!(lost > 0, "nothing was lost");
    assert!(grown < 16 * 1_024, "{grown} kB for {STALLED} of them");
}

/// What handshakes cost those who are in a call over UDP. Handshakes are on stream workers' threads;
/// what both share is the machine.
#[test]
fn a_call_over_udp_goes_on_while_handshakes_come() {
    const EACH: Duration = Duration::from_millis(5);
    let mut plane = Setup::streams(1).start();
    let mut call = Call::new(&mut plane, [Transport::Udp, Transport::Udp]);
    let tls = plane.reached_over(Transport::Tls);
    let mut measure = || {
        let mut took: Vec<Duration> = (0..600)
            .map(|_| {
                thread::sleep(Duration::from_millis(3));
                call.say(b"one packet")
            })
            .collect();
        took.sort_unstable();
        let at = |share: usize| took[took.len() * share / 100];
        (at(50), at(99))
    };
    let quiet = measure();
    let (stop, done) = (AtomicBool::new(false), AtomicU64::new(0));
    let (busy, seconds) = thread::scope(|scope| {
        scope.spawn(|| {
            let mut next = Instant::now();
            while !stop.load(Ordering::Relaxed) {
                drop(Stream::tls(tls).finished());
                done.fetch_add(1, Ordering::Relaxed);
                next += EACH;
                thread::sleep(next.saturating_duration_since(Instant::now()));
            }
        });
        let began = Instant::now();
        let busy = measure();
        let seconds = began.elapsed().as_secs_f64();
        stop.store(true, Ordering::Relaxed);
        (busy, seconds)
    });
    let done = done.load(Ordering::Relaxed);
    assert!(done > 50, "there were {done} handshakes only");
    let rate = done as f64 / seconds;
    eprintln!(
        "there and back over UDP, median and 99 of 100: {quiet:?} alone, {busy:?} with {rate:.0} handshakes/s"
    );
}
