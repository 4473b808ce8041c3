//! What a platform takes back and whom an operator bans, under a plane that runs: how soon packets
//! stop, and whose.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use taciturn::admin::control::{BanTarget, Control, ControlError, PseudonymKeys, Refusals};
use taciturn::admin::events::Events;
use taciturn::dataplane::Record;
use taciturn::turn::{ClientAddr, EndReason, Pseudonymizer};
use tokio::runtime::Runtime;
use zeroize::Zeroizing;

use crate::loopback::client::{Client, SUCCESS};
use crate::loopback::eventually;
use crate::loopback::plane::{Plane, Setup, V4, credential, unix};

/// What the issue allows from the order to the last packet.
const SOON: Duration = Duration::from_secs(1);
const MAX_TTL: Duration = Duration::from_secs(48 * 3_600);

/// A plane with a hand on it, which keeps what it is told in `state`.
struct House {
    plane: Plane,
    control: Control,
    runtime: Runtime,
}

fn pseudonymizer() -> Pseudonymizer {
    Pseudonymizer::new(Zeroizing::new([5; 32]))
}

fn house(setup: Setup, state: Option<&Path>) -> House {
    let refusals = Refusals::open(state, &[6; 32], MAX_TTL).unwrap();
    let plane = Setup {
        revocations: refusals.revocations(),
        bans: refusals.bans(),
        ..setup
    }
    .start();
    let keys = PseudonymKeys::new(|| vec![(20_000, pseudonymizer())]);
    House {
        control: Control::new(refusals, plane.handle.clone(), keys, Events::default()),
        runtime: Runtime::new().unwrap(),
        plane,
    }
}

/// A party that sends and one that receives.
struct Call {
    from: Client,
    to: Client,
    last: Option<Instant>,
}

impl Call {
    fn new(plane: &mut Plane) -> Self {
        let (mut from, at_from) = plane.party(V4);
        let (to, at_to) = plane.party(V4);
        Self::between(&mut from, at_from, to, at_to)
    }

    fn between(from: &mut Client, at_from: SocketAddr, mut to: Client, at_to: SocketAddr) -> Self {
        assert_eq!(from.bind(0x4000, at_to), SUCCESS);
        assert_eq!(to.permit(at_from), SUCCESS);
        let server = from.server;
        let credential = from.credential.clone();
        Self {
            from: std::mem::replace(from, Client::new(server, credential)),
            to,
            last: None,
        }
    }

    fn send(&mut self) {
        self.from.send_channel(0x4000, b"a word");
        while self.to.receive_within(Duration::from_millis(1)).is_some() {
            self.last = Some(Instant::now());
        }
    }
}

/// Streams both calls, has `order` done meanwhile, and streams on for longer than may be. The first
/// must have ended in time, and the second must go on.
#[track_caller]
fn assert_ends_the_first(calls: &mut [Call; 2], order: impl FnOnce()) {
    let stream = |calls: &mut [Call; 2], time: Duration| {
        let until = Instant::now() + time;
        while Instant::now() < until {
            calls.iter_mut().for_each(Call::send);
        }
    };
    eventually("both calls have words", || {
        calls.iter_mut().for_each(Call::send);
        calls.iter().all(|call| call.last.is_some())
    });
    let ordered = Instant::now();
    order();
    stream(calls, 2 * SOON);
    let [ended, other] = calls.each_ref().map(|call| call.last.unwrap());
    assert!(ended < ordered + SOON, "{:?} later", ended - ordered);
    assert!(other > ordered + SOON, "another call ended too");
}

#[track_caller]
fn assert_closed(plane: &mut Plane, why: EndReason) {
    loop {
        if let Record::Closed { reason, .. } = plane.record() {
            assert_eq!(reason, why);
            return;
        }
    }
}

/// T25
#[test]
fn packets_of_a_revoked_user_stop_within_a_second_and_another_call_goes_on() {
    for workers in [1, 4] {
        let mut house = house(Setup::relay(workers), None);
        let mut calls = [Call::new(&mut house.plane), Call::new(&mut house.plane)];
        assert_ends_the_first(&mut calls, || {
            let revoked = house.runtime.block_on(house.control.revoke_user("user-1"));
            assert!(!revoked.unwrap().durable);
        });
        assert_closed(&mut house.plane, EndReason::Revoked);
        assert_eq!(calls[0].from.try_allocate(V4).code(), 401);
    }
}

/// T25: also where it is the receiver who is revoked, on TCP and TLS.
#[test]
fn packets_to_a_revoked_credential_stop_within_a_second_over_every_transport() {
    use taciturn::turn::Transport::{Tcp, Tls};
    for transport in [Tcp, Tls] {
        let mut house = house(Setup::streams(2), None);
        let (mut from, at_from) = house.plane.party(V4);
        let (to, at_to) = house.plane.party_over(transport);
        let username = to.credential.username.clone();
        let first = Call::between(&mut from, at_from, to, at_to);
        let mut calls = [first, Call::new(&mut house.plane)];
        assert_ends_the_first(&mut calls, || {
            let revoked = house.control.revoke_credential(&username);
            house.runtime.block_on(revoked).unwrap();
        });
        assert_closed(&mut house.plane, EndReason::Revoked);
    }
}

#[test]
fn packets_of_whoever_is_banned_stop_within_a_second_and_the_ban_can_be_lifted() {
    let mut house = house(Setup::relay(2), None);
    let listener = house.plane.listener(V4);
    let mut abuser = Client::at(
        [127, 3, 2, 1].into(),
        listener,
        credential("abuser", unix() + 60),
    );
    let at_abuser = abuser.allocate(V4);
    let client = ClientAddr::new(abuser.addr());
    let (to, at_to) = house.plane.party(V4);
    let first = Call::between(&mut abuser, at_abuser, to, at_to);
    let mut calls = [first, Call::new(&mut house.plane)];

    let pseudonym = pseudonymizer().of(client);
    let mut banned = None;
    assert_ends_the_first(&mut calls, || {
        let ban = house.control.ban(BanTarget::Pseudonym(pseudonym), None);
        banned = Some(house.runtime.block_on(ban).unwrap());
    });
    assert_closed(&mut house.plane, EndReason::Banned);
    let banned = banned.unwrap();
    let network = "127.3.2.1/32".parse().unwrap();
    assert_eq!(banned.bans.len(), 1);
    assert_eq!(banned.bans[0].id, house.control.ban_of(network));
    let mut again = Client::at(
        [127, 3, 2, 1].into(),
        listener,
        credential("somebody else", unix() + 60),
    );
    assert_eq!(again.try_allocate(V4).code(), 403);
    let lifted = house.control.unban(banned.bans[0].id);
    assert!(house.runtime.block_on(lifted).unwrap());
    assert_eq!(again.try_allocate(V4).code(), SUCCESS);
}

#[test]
fn one_allocation_can_be_ended_by_its_name() {
    let mut house = house(Setup::relay(2), None);
    let (mut client, _) = house.plane.party(V4);
    let Record::Opened { id, .. } = house.plane.record() else {
        panic!("nothing was opened");
    };
    let end = || house.runtime.block_on(house.control.end(id)).unwrap();
    assert!(end());
    eventually("it has ended", || !end());
    assert_eq!(client.refresh(600).code(), 437);
    client.allocate(V4);
}

/// T25
#[test]
fn what_was_refused_is_still_after_a_restart() {
    let state = tempfile::tempdir().unwrap();
    let third = credential("user-3", unix() + 7_200);
    {
        let mut house = house(Setup::relay(1), Some(state.path()));
        let (mut client, _) = house.plane.party(V4);
        let username = &third.username;
        house.runtime.block_on(async {
            let control = &house.control;
            assert!(control.revoke_user("user-1").await.unwrap().durable);
            assert!(control.revoke_credential(username).await.unwrap().durable);
            let banned = control.ban(BanTarget::User("user-2".to_owned()), None);
            assert!(banned.await.unwrap().durable);
        });
        assert_eq!(client.refresh(600).code(), 401);
    }
    let mut house = house(Setup::relay(1), Some(state.path()));
    for code in [401, 403, SUCCESS, SUCCESS] {
        let answer = house.plane.client(V4).try_allocate(V4);
        assert_eq!(answer.code(), code);
    }
    let mut third = Client::new(house.plane.listener(V4), third);
    assert_eq!(third.try_allocate(V4).code(), 401);
    for name in ["revocations", "bans"] {
        let text = std::fs::read_to_string(state.path().join(name)).unwrap();
        assert!(!text.is_empty() && !text.contains("user-"), "{text}");
    }
}

#[test]
fn what_nobody_has_is_refused_with_a_reason() {
    let house = house(Setup::relay(1), None);
    house.runtime.block_on(async {
        let control = &house.control;
        for name in ["", "gateway", "1800000000", "1800000000:~1.AAAA"] {
            let refused = control.revoke_credential(name).await;
            assert!(matches!(refused, Err(ControlError::NoCredential)), "{name}");
        }
        let refused = control.revoke_user("").await;
        assert!(matches!(refused, Err(ControlError::Empty)));
        let nobody = pseudonymizer().of(ClientAddr::new(([192, 0, 2, 1], 1).into()));
        let refused = control.ban(BanTarget::Pseudonym(nobody), None).await;
        assert!(matches!(refused, Err(ControlError::NobodyThere)));
        assert!(control.bans().await.unwrap().is_empty());
    });
}
