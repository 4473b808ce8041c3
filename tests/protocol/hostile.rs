//! Hostile bytes: whatever reaches a listener or a relay socket, the server neither panics nor
//! falls out of step.

use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use taciturn::proto::{
    AttributeType, ChannelNumberAttribute, Lifetime, Method, RequestedTransport, XorPeerAddress,
};

use crate::world::call::Call;
use crate::world::client::channel_data;
use crate::world::servers::{Outcome, Setup, at};

/// A valid message of every kind that a client sends.
fn samples(call: &mut Call) -> Vec<Vec<u8>> {
    let (alice, b) = (&mut call.alice, call.b);
    let requests = [
        alice.build(Method::ALLOCATE).with(&RequestedTransport::UDP),
        alice.build(Method::REFRESH).with(&Lifetime(600)),
        alice
            .build(Method::CREATE_PERMISSION)
            .with(&XorPeerAddress(b)),
        alice
            .build(Method::CHANNEL_BIND)
            .with(&ChannelNumberAttribute(0x4000))
            .with(&XorPeerAddress(b)),
    ];
    let mut samples: Vec<_> = requests.map(|request| alice.sign(request)).into();
    samples.push(alice.build(Method::BINDING).fingerprint().bytes());
    samples.push(alice.send_indication(b, b"payload").fingerprint().bytes());
    samples.push(channel_data(0x4000, b"payload"));
    samples
}

fn mutate(bytes: &mut Vec<u8>, rng: &mut StdRng) {
    for _ in 0..rng.random_range(1..4) {
        let len = bytes.len();
        let at = rng.random_range(0..len.max(1));
        match rng.random_range(0..6) {
            0 if len > 0 => bytes[at] ^= 1 << rng.random_range(0..8),
            1 if len > 0 => bytes[at] = rng.random(),
            2 => bytes.truncate(at),
            3 => bytes.insert(at.min(len), rng.random()),
            4 if len > 3 => bytes[2..4].copy_from_slice(&rng.random::<[u8; 2]>()),
            _ if len > 0 => {
                let tail = bytes[at..].to_vec();
                bytes.extend(tail);
            }
            _ => {}
        }
    }
}

/// T44
#[test]
fn random_bytes_do_no_harm() {
    let mut call = Call::permitted(Setup::any());
    let mut rng = StdRng::seed_from_u64(44);
    let mut buf = [0; 200];
    for _ in 0..50_000 {
        let len = rng.random_range(0..buf.len());
        rng.fill_bytes(&mut buf[..len]);
        let bytes = &mut buf[..len];
        // Half of them at least claim to be STUN or ChannelData.
        if len > 8 && rng.random() {
            bytes[0] = [0x00, 0x01, 0x40][rng.random_range(0..3)];
            bytes[2..4].copy_from_slice(&u16::try_from(len & !3).unwrap().to_be_bytes());
            bytes[4..8].copy_from_slice(&[0x21, 0x12, 0xA4, 0x42]);
        }
        let outcome = call.world.send(&call.alice, bytes);
        assert!(!matches!(outcome, Outcome::Elsewhere(_)));
    }
    call.alice_says(b"still here").at(&call.bob);
}

/// T44
#[test]
fn mutated_messages_do_no_harm() {
    let mut call = Call::permitted(Setup::any());
    call.alice.bind(&mut call.world, 0x4000, call.b);
    let samples = samples(&mut call);
    let mut rng = StdRng::seed_from_u64(45);
    let (mut answered, mut dropped) = (0, 0);
    for n in 0..50_000 {
        let mut bytes = samples[n % samples.len()].clone();
        mutate(&mut bytes, &mut rng);
        match call.world.send(&call.alice, &bytes) {
            Outcome::Answer(answer) => {
                assert!(answer.0.len() <= 200);
                answered += 1;
            }
            Outcome::Dropped(_) => dropped += 1,
            Outcome::Client { .. } | Outcome::Peer { .. } | Outcome::Consumed => {}
            Outcome::AnswerBy(..) => panic!("NAT behaviour discovery is off"),
            Outcome::Elsewhere(_) | Outcome::HandOver(_) => panic!("there is one worker"),
            Outcome::Spliced(..) => panic!("TCP was relayed"),
        }
        if n % 1_000 == 0 {
            call.world.stall(1);
        }
    }
    assert!(answered > 500 && dropped > 500, "{answered} {dropped}");
    let fresh = call.alice.refresh(&mut call.world, None);
    assert_eq!(fresh.code(), 0, "the allocation is as it was");
}

/// T44: what is signed well and means nonsense, as a hostile user would send it.
#[test]
fn signed_nonsense_does_no_harm() {
    let mut call = Call::permitted(Setup::any());
    let mut rng = StdRng::seed_from_u64(46);
    let methods = [
        Method::ALLOCATE,
        Method::REFRESH,
        Method::CREATE_PERMISSION,
        Method::CHANNEL_BIND,
    ];
    let kinds = [
        AttributeType::CHANNEL_NUMBER,
        AttributeType::LIFETIME,
        AttributeType::XOR_PEER_ADDRESS,
        AttributeType::DATA,
        AttributeType::REQUESTED_ADDRESS_FAMILY,
        AttributeType::EVEN_PORT,
        AttributeType::REQUESTED_TRANSPORT,
        AttributeType::DONT_FRAGMENT,
        AttributeType::RESERVATION_TOKEN,
        AttributeType::ADDITIONAL_ADDRESS_FAMILY,
        AttributeType::PASSWORD_ALGORITHM,
        AttributeType::PASSWORD_ALGORITHMS,
        AttributeType::FINGERPRINT,
    ];
    let mut codes = std::collections::BTreeSet::new();
    let mut mallory = call.world.client("mallory", "198.51.100.66:6");
    for n in 0..3_000_u32 {
        if n % 50 == 0 {
            mallory.fetch_nonce(&mut call.world);
            call.world.advance(20);
        }
        let method = methods[rng.random_range(0..methods.len())];
        let mut request = mallory.build(method);
        if rng.random() {
            request = request.with(&RequestedTransport::UDP);
        }
        for _ in 0..rng.random_range(0..4) {
            let kind = kinds[rng.random_range(0..kinds.len())];
            let mut value = vec![0; [0, 1, 4, 4, 8, 8, 20][rng.random_range(0..7)]];
            if rng.random() {
                rng.fill_bytes(&mut value);
            }
            if value.len() == 8 && rng.random() {
                value[..2].copy_from_slice(&[0, 1]);
            }
            if value.len() == 4 && rng.random() {
                value[0] = [1, 2, 17, 0x40][rng.random_range(0..4)];
            }
            request = request.raw(kind, &value);
        }
        let bytes = mallory.sign(request);
        if let Outcome::Answer(answer) = call.world.send(&mallory, &bytes) {
            codes.insert(answer.code());
        }
        if n % 3 == 0 {
            let source = SOURCES[n as usize % SOURCES.len()];
            let inbound = call.world.receive_from_peer(call.a, source, &bytes);
            assert!(inbound.dropped().is_some(), "nobody permitted {source}");
            call.alice.refresh(&mut call.world, Some(3_600));
        }
    }
    for code in [0, 400, 420, 437, 443] {
        assert!(codes.contains(&code), "{code} is not among {codes:?}");
    }
    mallory.refresh(&mut call.world, Some(0));
    let house = call.world.house.borrow();
    let held = house.ports.counts().held;
    assert_eq!(held as u64, call.world.allocations());
}

const SOURCES: [&str; 4] = ["1.1.1.1:1", "203.0.113.7:50000", "10.0.0.1:1", "0.0.0.0:0"];

/// T44: buffers without the room that the contract asks for drop packets, and no more.
#[test]
fn a_range_outside_the_buffer_is_dropped() {
    let mut call = Call::permitted(Setup::default());
    let clock = call.world.clock;
    let id = *call
        .world
        .house
        .borrow()
        .landings
        .values()
        .next()
        .map(|landing| &landing.standing.id)
        .unwrap();
    let mut bytes = channel_data(0x4000, b"12345");
    let len = bytes.len();
    let server = &mut call.world.servers[0];
    for range in [0..len + 1, len..len, len + 1..len + 2] {
        let handled = server.handle_client(call.alice.tuple, &mut bytes, range.clone(), clock);
        assert!(
            matches!(handled, taciturn::turn::Handled::Dropped(_)),
            "{range:?}"
        );
        let source = taciturn::turn::PeerAddr::new(at("1.1.1.1:1"));
        let handled = server.handle_peer(id, source, &mut bytes, range.clone(), clock.now);
        assert!(
            matches!(handled, taciturn::turn::Handled::Dropped(_)),
            "{range:?}"
        );
    }
}
