//! What requests cost the server, without a socket: `cargo bench --bench control`. The environment
//! is the tests' (plain maps), so the shared tables' locks are not in the figures.
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on panics")]

#[path = "../tests/world/mod.rs"]
mod world;

use std::cell::RefCell;
use std::net::SocketAddr;

use divan::{Bencher, black_box};
use taciturn::proto::{
    ChannelNumberAttribute, DATA_INDICATION_HEADROOM as HEADROOM, LongTermKey, Message, Method,
    RequestedTransport, XorPeerAddress,
};
use taciturn::turn::unvalidated::Rate;
use taciturn::turn::{ClientAddr, FiveTuple, Handled, ListenerId};

use world::client::Client;
use world::servers::{REALM, Setup, World};

/// Requests are made for so many clients at once, then handled for each.
const AT_ONCE: u32 = 64;
const PEER: ([u8; 4], u16) = ([203, 0, 113, 7], 50_000);

fn main() {
    divan::main();
}

/// A server, and clients that differ in their ports alone, so that one nonce serves all.
struct Rig {
    world: World,
    client: Client,
    port: u16,
    buf: Vec<u8>,
}

/// A client's requests, ready to be handled.
struct Requests {
    tuple: FiveTuple,
    bytes: Vec<Vec<u8>>,
}

impl Rig {
    fn new() -> RefCell<Self> {
        let mut world = Setup {
            unvalidated: Rate {
                per_second: 1_000_000_000,
                burst: 1_000_000_000,
            },
            ..Setup::default()
        }
        .world();
        let mut client = world.client("alice", "198.51.100.1:1");
        client.fetch_nonce(&mut world);
        RefCell::new(Self {
            world,
            client,
            port: 1_023,
            buf: vec![0; 2_048],
        })
    }

    /// The next client with `methods` to ask for. From time to time those before it are gone, at
    /// the border of a sample.
    fn next(&mut self, methods: &[Step]) -> Requests {
        self.port = self.port.checked_add(1).unwrap_or(1_024);
        if self.port.is_multiple_of(4_096) {
            self.world.servers[0].stop(self.world.clock.now);
            self.world.events(0);
        }
        let addr = SocketAddr::from(([198, 51, 100, 1], self.port));
        let tuple = FiveTuple {
            client: ClientAddr::new(addr),
            listener: ListenerId(0),
        };
        self.client.tuple = tuple;
        let bytes = methods.iter().map(|step| self.build(*step)).collect();
        Requests { tuple, bytes }
    }

    fn build(&mut self, step: Step) -> Vec<u8> {
        let peer = XorPeerAddress(SocketAddr::from(PEER));
        let client = &mut self.client;
        match step {
            Step::Knock => {
                let request = client.build(Method::ALLOCATE);
                request.with(&RequestedTransport::UDP).bytes()
            }
            Step::Allocate => {
                let request = client.build(Method::ALLOCATE);
                client.sign(request.with(&RequestedTransport::UDP))
            }
            Step::Permit => {
                let request = client.build(Method::CREATE_PERMISSION);
                client.sign(request.with(&peer))
            }
            Step::Bind => {
                let request = client.build(Method::CHANNEL_BIND);
                client.sign(request.with(&ChannelNumberAttribute(0x4000)).with(&peer))
            }
            Step::Refresh => {
                let request = client.build(Method::REFRESH);
                client.sign(request)
            }
        }
    }

    fn handle(&mut self, requests: &Requests) {
        let Self { world, buf, .. } = self;
        for bytes in &requests.bytes {
            let range = HEADROOM..HEADROOM + bytes.len();
            buf[range.clone()].copy_from_slice(bytes);
            let handled = world.servers[0].handle_client(requests.tuple, buf, range, world.clock);
            assert!(matches!(handled, Handled::Answer));
        }
    }
}

#[derive(Clone, Copy)]
enum Step {
    /// Allocate without credentials, answered by 401.
    Knock,
    Allocate,
    Permit,
    Bind,
    Refresh,
}

/// Handles `steps`, for clients that have been through `before`.
fn run(bencher: Bencher<'_, '_>, before: &[Step], steps: &[Step]) {
    let rig = Rig::new();
    bencher
        .with_inputs(|| {
            let mut rig = rig.borrow_mut();
            let first = rig.next(&[before, steps].concat());
            let (done, left) = first.bytes.split_at(before.len());
            let [done, left] = [done, left].map(|bytes| Requests {
                tuple: first.tuple,
                bytes: bytes.to_vec(),
            });
            rig.handle(&done);
            left
        })
        .bench_local_refs(|requests| rig.borrow_mut().handle(requests));
    let server = &rig.borrow().world.servers[0];
    assert!(
        server
            .counters()
            .requests()
            .all(|(_, code, count)| count == 0 || code == 0 || code == 401)
    );
}

#[divan::bench(sample_size = AT_ONCE)]
fn challenge(bencher: Bencher<'_, '_>) {
    run(bencher, &[], &[Step::Knock]);
}

#[divan::bench(sample_size = AT_ONCE)]
fn challenge_and_allocate(bencher: Bencher<'_, '_>) {
    run(bencher, &[], &[Step::Knock, Step::Allocate]);
}

#[divan::bench(sample_size = AT_ONCE)]
fn full_sequence(bencher: Bencher<'_, '_>) {
    let steps = [Step::Knock, Step::Allocate, Step::Permit, Step::Bind];
    run(bencher, &[], &steps);
}

#[divan::bench(sample_size = AT_ONCE)]
fn permission_and_channel(bencher: Bencher<'_, '_>) {
    run(bencher, &[Step::Allocate], &[Step::Permit, Step::Bind]);
}

#[divan::bench(sample_size = AT_ONCE)]
fn refresh(bencher: Bencher<'_, '_>) {
    run(bencher, &[Step::Allocate], &[Step::Refresh]);
}

#[divan::bench]
fn find_the_candidates_of_a_username(bencher: Bencher<'_, '_>) {
    let rig = Rig::new();
    let rig = rig.borrow();
    let credentials = &rig.world.config.credentials;
    bencher.bench_local(|| {
        credentials
            .find(black_box(&rig.client.username))
            .candidates
            .count()
    });
}

#[divan::bench]
fn derive_a_key(bencher: Bencher<'_, '_>) {
    let rig = Rig::new();
    let rig = rig.borrow();
    let (username, password) = (&rig.client.username, &rig.client.password);
    bencher.bench_local(|| LongTermKey::md5(black_box(username), REALM, password));
}

#[divan::bench]
fn verify_integrity(bencher: Bencher<'_, '_>) {
    let rig = Rig::new();
    let request = rig.borrow_mut().next(&[Step::Bind]);
    let client = &rig.borrow().client;
    let key = LongTermKey::md5(&client.username, REALM, &client.password);
    let message = Message::decode(&request.bytes[0]).unwrap();
    bencher.bench_local(|| black_box(&message).verify_integrity(&key));
}
