//! What the simulation found, step by step. The model and the invariants judge here as there.

use std::net::SocketAddr;

use taciturn::proto::{AddressFamily, ChannelRange, Method, Reserve};
use taciturn::turn::Bind;

use crate::sim::dice::Dice;
use crate::sim::model::{Fate, Says};
use crate::sim::plant::Plant;
use crate::sim::run::Run;
use crate::sim::setting::{EPOCH, Policy, SECOND, Setting, address};
use crate::sim::speech::{Say, Signing};

const UDP: Say = Say::Transport(17);

/// Two users with three clients each, under the default policy.
fn run() -> Run {
    let setting = Setting {
        policy: Policy::Relay,
        ceiling: Policy::Relay,
        bind: Bind::Auto,
        strict: false,
        channels: ChannelRange::Rfc8656,
        relays: vec![address("198.41.0.1"), address("2606:4700::1")],
        ports: 50_000..=50_063,
        quota: 0,
        total: 0,
        permissions: 128,
        channels_of_one: 128,
        pace: None,
        allocation_lifetime: 3_600,
        session_max: 86_400,
        tight: false,
        workers: 3,
        stream_workers: 0,
        queue: 65_536,
        clients: 6,
        users: 2,
    };
    let mut run = Run::within(setting, Dice::new(1), Plant::Nothing, false);
    for client in 0..6 {
        run.clients[client].identity =
            crate::sim::speech::Identity::mint(client % 2, EPOCH + 90_000);
        let id = run.id();
        let asked = run.ask_as(client, Method::REFRESH, vec![], Signing::None, id);
        asked.unwrap();
    }
    run
}

fn ask(run: &mut Run, client: usize, method: Method, says: Vec<Say>) {
    run.ask(client, method, says).unwrap();
    run.check().unwrap();
}

fn allocate(run: &mut Run, client: usize) -> SocketAddr {
    ask(run, client, Method::ALLOCATE, vec![UDP]);
    run.model.on(run.clients[client].tuple).unwrap().relays[0].addr
}

fn permit(run: &mut Run, client: usize, peers: impl IntoIterator<Item = SocketAddr>) {
    let says = peers.into_iter().map(Say::Peer).collect();
    ask(run, client, Method::CREATE_PERMISSION, says);
}

fn send(run: &mut Run, client: usize, peer: SocketAddr) -> Fate {
    let says = Says::Send {
        peer,
        forbid: false,
    };
    run.say(client, says, b"data").unwrap()
}

#[test]
fn naming_a_port_whose_allocation_has_ended_names_nobody_who_held_it() {
    let mut run = run();
    let ended = allocate(&mut run, 1);
    run.now += 600 * SECOND;
    let receiver = allocate(&mut run, 0);
    permit(&mut run, 0, [ended]);
    // Another allocation of the user who held the port.
    allocate(&mut run, 3);
    permit(&mut run, 3, [receiver]);
    assert_eq!(send(&mut run, 3, receiver), Fate::Dropped);
}

#[test]
fn a_name_without_a_holder_means_no_holder_whose_allocation_has_ended() {
    let mut run = run();
    let receiver = allocate(&mut run, 0);
    let brief = allocate(&mut run, 1);
    ask(&mut run, 1, Method::REFRESH, vec![Say::Lifetime(0)]);
    permit(&mut run, 0, [brief]);
    run.now += 60 * SECOND;
    // Every port is tried until the named one is held again.
    let mut held = None;
    while held != Some(brief) {
        if held.is_some() {
            ask(&mut run, 1, Method::REFRESH, vec![Say::Lifetime(0)]);
        }
        run.now += SECOND;
        held = Some(allocate(&mut run, 1));
        permit(&mut run, 0, [receiver]);
    }
    let until = run.model.on(run.clients[1].tuple).unwrap().relays[0].until;
    while run.now < until {
        run.now = until.min(run.now + 200 * SECOND);
        permit(&mut run, 0, [receiver]);
        ask(&mut run, 0, Method::REFRESH, vec![]);
    }
    allocate(&mut run, 3);
    permit(&mut run, 3, [receiver]);
    assert_eq!(send(&mut run, 3, receiver), Fate::Dropped);
}

#[test]
fn ports_outside_the_relay_range_push_no_name_out() {
    let mut run = run();
    let receiver = allocate(&mut run, 0);
    let named = allocate(&mut run, 1);
    permit(&mut run, 0, [named]);
    permit(&mut run, 1, [receiver]);
    permit(
        &mut run,
        0,
        (1..=40).map(|port| SocketAddr::new(named.ip(), port)),
    );
    assert_ne!(send(&mut run, 1, receiver), Fate::Dropped);
}

#[test]
fn a_refused_socket_leaves_no_port_reserved() {
    let mut setting = Setting::draw(&mut Dice::new(1));
    setting.bind = Bind::Always;
    let mut run = Run::within(setting, Dice::new(1), Plant::Nothing, false);
    run.clients[0].identity = crate::sim::speech::Identity::mint(0, EPOCH + 90_000);
    let id = run.id();
    run.ask_as(0, Method::REFRESH, vec![], Signing::None, id)
        .unwrap();
    run.house.borrow_mut().exhausted = true;
    ask(
        &mut run,
        0,
        Method::ALLOCATE,
        vec![UDP, Say::Even(Reserve::Yes)],
    );
    assert_eq!(run.house.borrow().ports.counts().reserved, 0);
}

#[test]
fn a_landing_knows_of_its_socket_when_the_other_familys_is_refused() {
    let mut run = run();
    let both = Say::Additional(AddressFamily::V6);
    ask(&mut run, 0, Method::ALLOCATE, vec![UDP, both]);
    let relays = run.model.on(run.clients[0].tuple).unwrap().relays.clone();
    assert_ne!(relays[0].addr.port(), relays[1].addr.port());
    run.house.borrow_mut().taken.insert(relays[1].addr.port());
    let fleet = ["198.41.7.1", "2606:4700:7::1"].map(|ip| SocketAddr::new(address(ip), 40_001));
    permit(&mut run, 0, fleet);
    assert_eq!(run.sockets(), [relays[0].addr]);
}
