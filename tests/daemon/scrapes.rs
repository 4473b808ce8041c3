//! What scrapes of ten thousand allocations cost, and what a call notices of them: the figures of
//! docs/observability.md. No time is asserted: on a busy machine any may be late.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::house::{Daemon, House, credential};
use crate::http::parse;
use crate::loopback::PATIENCE;
use crate::loopback::client::{Client, SUCCESS};
use crate::loopback::message::Received;
use crate::loopback::plane::V4;
use crate::media::talk;
use crate::metrics::PAGE;

/// Two parties each.
const CALLS: u16 = 5_000;
const SCRAPES: u32 = 20;
/// How often it is scraped while a call is on.
const INTERVAL: Duration = Duration::from_secs(1);
/// Rounds with and without scrapes, in turns, unless `SCRAPE_ROUNDS` says how many.
const ROUNDS: usize = 1;
const PACKETS: u32 = 10_000;
const SPACING: Duration = Duration::from_millis(1);

/// Nanoseconds for which a CPU has worked for the thread that serves the pages, which is the first.
fn cpu_of_the_control_thread(daemon: &Daemon) -> u64 {
    let pid = daemon.pid().as_raw_pid();
    let stat = fs::read_to_string(format!("/proc/{pid}/task/{pid}/schedstat")).unwrap();
    stat.split(' ').next().unwrap().parse().unwrap()
}

/// Calls with streams in both directions. A client needs its socket no longer than that.
fn fill(house: &House, daemon: &Daemon) {
    let minted = credential(&house.mint("alice"));
    let server = daemon.listener(V4);
    for call in 0..CALLS {
        let [high, low] = call.to_be_bytes();
        let local = Ipv4Addr::new(127, 1, high, low);
        let client = || Client::at(local.into(), server, minted.clone());
        let [mut a, mut b] = [client(), client()];
        let at_a = a.allocate(V4);
        (b.realm, b.nonce) = (a.realm.clone(), a.nonce.clone());
        let at_b = b.allocate(V4);
        let bound = (a.bind(0x4000, at_b), b.bind(0x4000, at_a));
        assert_eq!(bound, (SUCCESS, SUCCESS));
        talk(&a, &mut b, 0..3);
        talk(&b, &mut a, 0..3);
    }
}

/// Takes a page as it comes and keeps nothing of it; how long it is.
fn take(server: SocketAddr, path: &str) -> usize {
    let mut stream = TcpStream::connect(server).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {server}\r\n\r\n").unwrap();
    let (mut buf, mut length) = (vec![0; 1 << 16], 0);
    loop {
        match stream.read(&mut buf).unwrap() {
            0 => return length,
            more => length += more,
        }
    }
}

fn rounds() -> usize {
    match std::env::var("SCRAPE_ROUNDS") {
        Ok(wanted) => wanted.parse().unwrap(),
        Err(_) => ROUNDS,
    }
}

/// Whether pages are taken just now, and until when.
#[derive(Default)]
struct Scraper {
    is_at_it: AtomicBool,
    is_over: AtomicBool,
}

impl Scraper {
    /// Takes a page each interval until it is over; how many.
    fn run(&self, server: SocketAddr) -> u32 {
        let began = Instant::now();
        let mut scrapes = 0;
        while !self.is_over.load(Ordering::Relaxed) {
            self.is_at_it.store(true, Ordering::Relaxed);
            take(server, PAGE);
            self.is_at_it.store(false, Ordering::Relaxed);
            scrapes += 1;
            thread::sleep((began + INTERVAL * scrapes).saturating_duration_since(Instant::now()));
        }
        scrapes
    }
}

/// How long the packets of a constant stream take, and of those among them that were sent while a
/// page was taken.
fn latencies(
    a: &Client,
    b: &mut Client,
    at_a: SocketAddr,
    scraper: &Scraper,
) -> [Vec<Duration>; 2] {
    let began = Instant::now();
    let (mut all, mut during) = (Vec::new(), Vec::new());
    for n in 0..PACKETS {
        thread::sleep((began + SPACING * n).saturating_duration_since(Instant::now()));
        let is_scraped = scraper.is_at_it.load(Ordering::Relaxed);
        let sent = Instant::now();
        a.send_channel(0x4000, &n.to_be_bytes());
        assert_eq!(b.receive(), Received::Data(at_a, n.to_be_bytes().to_vec()));
        all.push(sent.elapsed());
        if is_scraped {
            during.extend(all.last());
        }
    }
    [all, during]
}

/// Within which times a half, 99 of 100, 999 of 1,000 and all came.
fn said(what: &str, times: &mut [Duration]) -> String {
    times.sort();
    let within = [500, 990, 999, 1_000].map(|part| times[(times.len() - 1) * part / 1_000]);
    format!("{what}, {} packets: {within:?}", times.len())
}

#[test]
#[ignore = "opens ten thousand allocations and prints what scrapes of them cost"]
fn scrapes_of_ten_thousand_allocations_and_what_they_cost() {
    let house = House::new("[metrics]\nallocations = 10000\n");
    let config = fs::read_to_string(house.config()).unwrap();
    house.write(&config.replace("61000-65535", "50000-65535"));
    let daemon = house.serve();
    fill(&house, &daemon);
    let admin = daemon.addresses("admin listens")[0];
    for path in [PAGE, "/metrics"] {
        let (before, began) = (cpu_of_the_control_thread(&daemon), Instant::now());
        let mut length = 0;
        for _ in 0..SCRAPES {
            length = take(admin, path);
        }
        let cpu = (cpu_of_the_control_thread(&daemon) - before) / u64::from(SCRAPES);
        println!(
            "{path}: {} kB, {}.{:03} ms of CPU and {:?} of time each",
            length / 1_000,
            cpu / 1_000_000,
            cpu / 1_000 % 1_000,
            began.elapsed() / SCRAPES
        );
    }
    let [mut a, mut b] = ["bob", "carol"].map(|user| house.client(&daemon, user));
    let (at_a, at_b) = (a.allocate(V4), b.allocate(V4));
    let mut all_during = Vec::new();
    for round in 0..2 * rounds() {
        assert_eq!((a.bind(0x4000, at_b), b.permit(at_a)), (SUCCESS, SUCCESS));
        let scraper = Scraper::default();
        let (scrapes, [mut all, during]) = thread::scope(|scope| {
            let run = (round % 2 == 1).then(|| scope.spawn(|| scraper.run(admin)));
            let times = latencies(&a, &mut b, at_a, &scraper);
            scraper.is_over.store(true, Ordering::Relaxed);
            (run.map_or(0, |run| run.join().unwrap()), times)
        });
        println!("{}", said(&format!("{scrapes} scrapes"), &mut all));
        all_during.extend(during);
    }
    println!("{}", said("while it was scraped", &mut all_during));
    let page = parse(&daemon.get(PAGE).body);
    assert_eq!(page["taciturn_allocation_series{series=\"own\"}"], 10_000.0);
    assert_eq!(page["taciturn_allocation_series{series=\"other\"}"], 2.0);
}
