//! Handshakes: certificates, and a network that loses, doubles and reorders.

use std::sync::Arc;
use std::time::Duration;

use openssl::pkey::Id;
use openssl::ssl::{SslContextBuilder, SslVerifyMode};
use openssl::x509::store::X509StoreBuilder;
use proptest::prelude::*;

use super::harness::{Client, Issued, Shaken, World, address, context, ecdsa, plain_context, rsa};
use crate::dataplane::dtls::{DtlsContext, Identity, Idle, Limits, Received};

/// Trusts this root and nothing else.
fn trusting(root: &Issued) -> impl FnOnce(&mut SslContextBuilder) {
    let mut store = X509StoreBuilder::new().unwrap();
    store.add_cert(root.certificate.clone()).unwrap();
    let store = store.build();
    move |builder| {
        builder.set_verify(SslVerifyMode::PEER);
        builder.set_cert_store(store);
    }
}

#[test]
fn a_client_that_trusts_only_the_root_accepts_the_whole_chain_for_rsa_and_for_ecdsa() {
    for make in [rsa, ecdsa] {
        let root = Issued::new("root", make(), None);
        let middle = Issued::new("middle", make(), Some(&root));
        let lower = Issued::new("lower one", make(), Some(&middle));
        let server = Issued::new("turn.test", make(), Some(&lower));
        let mut world = World::new(context(&[&server]), Limits::default());
        let mut client = Client::with(address(1, 1), "turn.test", trusting(&root));
        assert_eq!(world.shake(&mut client), Shaken::Done);
        assert!(world.passes(&mut client));
        assert_eq!(client.ssl().version_str(), "DTLSv1.2");
    }
}

#[test]
fn rsa_and_ecdsa_certificates_of_one_name_have_each_its_chain() {
    let roots = [("root of rsa", rsa()), ("root of ecdsa", ecdsa())]
        .map(|(name, key)| Issued::new(name, key, None));
    let middles = roots
        .each_ref()
        .map(|root| Issued::new("middle", ecdsa(), Some(root)));
    let [of_rsa, of_ecdsa] = [(rsa(), &middles[0]), (ecdsa(), &middles[1])]
        .map(|(key, issuer)| Issued::new("turn.test", key, Some(issuer)));
    let mut world = World::new(context(&[&of_rsa, &of_ecdsa]), Limits::default());
    for (port, (ciphers, root, id)) in [
        (1, ("ECDHE-RSA-AES128-GCM-SHA256", &roots[0], Id::RSA)),
        (2, ("ECDHE-ECDSA-AES128-GCM-SHA256", &roots[1], Id::EC)),
    ] {
        let mut client = Client::with(address(1, port), "turn.test", |builder| {
            trusting(root)(builder);
            builder.set_cipher_list(ciphers).unwrap();
        });
        assert_eq!(world.shake(&mut client), Shaken::Done);
        assert_eq!(client.certificate().public_key().unwrap().id(), id);
    }
}

#[test]
fn a_client_that_names_a_server_gets_its_certificate() {
    let [one, two, wild] =
        ["one.test", "two.test", "*.wild.test"].map(|name| Issued::new(name, ecdsa(), None));
    let mut world = World::new(context(&[&one, &two, &wild]), Limits::default());
    for (port, (asked, given)) in [
        (1, ("one.test", &one)),
        (2, ("two.test", &two)),
        (3, ("TWO.test", &two)),
        (4, ("a.wild.test", &wild)),
        (5, ("a.b.wild.test", &one)),
        (6, ("wild.test", &one)),
        (7, ("unknown.test", &one)),
        // No name is sent for an address.
        (8, ("192.0.2.1", &one)),
    ] {
        let mut client = Client::with(address(1, port), asked, |builder| {
            builder.set_verify(SslVerifyMode::NONE);
        });
        assert_eq!(world.shake(&mut client), Shaken::Done);
        assert!(client.certificate() == given.certificate, "{asked}");
    }
}

#[test]
fn unusable_certificates_are_told_apart() {
    let (chain, key) = Issued::new("one.test", ecdsa(), None).pem();
    let (_, other) = Issued::new("two.test", ecdsa(), None).pem();
    let refusal = |chain: &[u8], key: &[u8]| {
        let error = DtlsContext::new(&[Identity { chain, key }]).unwrap_err();
        error.to_string()
    };
    assert_eq!(refusal(b"", &key), "there is no certificate");
    let broken = String::from_utf8(chain.clone())
        .unwrap()
        .replace("\nMII", "\n!!!");
    assert_eq!(
        refusal(broken.as_bytes(), &key),
        "a certificate cannot be read"
    );
    assert_eq!(refusal(&chain, b"none"), "a private key cannot be read");
    assert_eq!(
        refusal(&chain, &other),
        "a private key does not fit its certificate"
    );
    let none = DtlsContext::new(&[]).unwrap_err();
    assert_eq!(none.to_string(), "there is no certificate");
}

#[test]
fn no_datagram_of_a_handshake_is_longer_than_the_path_allows() {
    let root = Issued::new("root", rsa(), None);
    let middle = Issued::new("middle", rsa(), Some(&root));
    let server = Issued::new("turn.test", rsa(), Some(&middle));
    let mut world = World::new(context(&[&server]), Limits::default());
    let mut client = Client::new(address(1, 1));
    let mut lens = Vec::new();
    while client.shake() == Shaken::Waiting {
        for datagram in client.sent() {
            world.deliver(client.addr, &datagram);
        }
        for datagram in world.sent_to(client.addr) {
            lens.push(datagram.len());
            client.receive(&datagram);
        }
    }
    assert!(lens.iter().sum::<usize>() > 1_800, "{lens:?}");
    assert!(lens.iter().all(|len| *len <= 1_200), "{lens:?}");
}

#[test]
fn other_certificates_are_for_new_sessions_and_end_no_old_one() {
    let new = Issued::new("plain.test", rsa(), None);
    let mut world = World::plain();
    let mut before = world.connect(address(1, 1));
    let mut between = Client::new(address(1, 2));
    assert_eq!(between.shake(), Shaken::Waiting);
    world.dtls.set_context(context(&[&new]));
    let mut after = world.connect(address(1, 3));
    assert_eq!(world.shake(&mut between), Shaken::Done);
    for client in [&mut before, &mut between, &mut after] {
        assert!(world.passes(client));
    }
    assert!(before.certificate() != new.certificate);
    assert!(between.certificate() == new.certificate);
    assert!(after.certificate() == new.certificate);
}

#[test]
fn no_session_is_resumed() {
    let mut world = World::plain();
    let first = world.connect(address(1, 1));
    let session = first.ssl().session().unwrap().to_owned();
    assert_eq!(session.id(), b"");
    // RFC 5077: a server that gives no ticket sends no NewSessionTicket.
    assert!(!first.ssl().session_reused());
}

#[test]
fn a_flight_that_was_lost_is_sent_anew_after_one_two_and_four_seconds() {
    let mut world = World::plain();
    let mut client = Client::new(address(1, 1));
    assert_eq!(client.shake(), Shaken::Waiting);
    world.deliver(client.addr, &client.sent().concat());
    client.receive(&world.sent_to(client.addr).concat());
    assert_eq!(client.shake(), Shaken::Waiting);
    let hello = client.sent().concat();
    assert_eq!(world.deliver(client.addr, &hello), Received::Handshake);
    let flight = world.sent_to(client.addr);
    assert!(!flight.is_empty());

    let mut resent = Vec::new();
    for tenth in 1..=100 {
        world.pass(Duration::from_millis(100), Idle::Close);
        let datagrams = world.sent_to(client.addr);
        if !datagrams.is_empty() {
            assert_eq!(datagrams, flight);
            resent.push(tenth);
        }
        if tenth == 99 {
            assert_eq!(world.dtls.half_open(), 1);
        }
    }
    assert_eq!(resent, [10, 30, 70]);
    // After ten seconds it is given up; the caller never heard of it.
    assert!(world.dtls.is_empty() && world.closed.is_empty());
    assert_eq!(world.dtls.poll_timeout(), None);
    assert_eq!(world.dtls.counts().timed_out, 1);
}

#[test]
fn a_hello_that_comes_again_is_answered_with_the_same_flight() {
    let mut world = World::plain();
    let mut client = Client::new(address(1, 1));
    let mut hello = Vec::new();
    for _ in 0..2 {
        assert_eq!(client.shake(), Shaken::Waiting);
        hello = client.sent().concat();
        world.deliver(client.addr, &hello);
        let lost = world.dtls.half_open() == 1;
        for datagram in world.sent_to(client.addr).iter().filter(|_| !lost) {
            client.receive(datagram);
        }
    }
    world.deliver(client.addr, &hello);
    for datagram in world.sent_to(client.addr) {
        client.receive(&datagram);
    }
    assert_eq!(world.shake(&mut client), Shaken::Done);
    assert!(world.passes(&mut client));
    assert_eq!((world.dtls.len(), world.dtls.counts().begun), (1, 1));
}

/// What becomes of one datagram.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Arrives,
    Lost,
    Twice,
    Last,
}

/// Lets a client and the server speak over a network that does with each datagram in turn what
/// `fates` say, and later nothing bad. A client that gets no answer says its last flight again.
fn shake_badly(context: Arc<DtlsContext>, fates: &[Fate]) -> bool {
    let mut world = World::new(context, Limits::default());
    let mut client = Client::new(address(1, 1));
    let mut fates = fates.iter().copied();
    let mut travel = |datagrams: &[Vec<u8>]| {
        let (mut arriving, mut last) = (Vec::new(), Vec::new());
        for datagram in datagrams {
            match fates.next().unwrap_or(Fate::Arrives) {
                Fate::Arrives => arriving.push(datagram.clone()),
                Fate::Lost => {}
                Fate::Twice => arriving.extend([datagram.clone(), datagram.clone()]),
                Fate::Last => last.push(datagram.clone()),
            }
        }
        arriving.extend(last);
        arriving
    };
    let mut flight = Vec::new();
    for _ in 0..40 {
        if client.shake() == Shaken::Done {
            return world.passes(&mut client);
        }
        let said = client.sent();
        if !said.is_empty() {
            flight = said;
        }
        for datagram in travel(&flight) {
            world.deliver(client.addr, &datagram);
        }
        world.pass(Duration::from_millis(300), Idle::Close);
        let answers = world.sent_to(client.addr);
        // The server says its last flight again only to a client that seals its own anew, which
        // takes OpenSSL a second; another test waits for that.
        if world.dtls.counts().finished == 1 {
            answers.iter().for_each(|datagram| client.receive(datagram));
        } else {
            let arriving = travel(&answers);
            arriving
                .iter()
                .for_each(|datagram| client.receive(datagram));
        }
    }
    false
}

#[test]
fn a_good_network_takes_a_handshake() {
    assert!(shake_badly(plain_context(), &[]));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_handshake_survives_loss_and_copies_and_disorder(
        fates in prop::collection::vec(
            prop_oneof![
                Just(Fate::Arrives),
                Just(Fate::Lost),
                Just(Fate::Twice),
                Just(Fate::Last),
            ],
            0..24,
        )
    ) {
        prop_assert!(shake_badly(plain_context(), &fates));
    }
}
