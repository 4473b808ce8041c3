//! Certificates of a running daemon: renewed under it, with calls on.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::Path;

use rcgen::{CertificateParams, KeyPair};
use rustix::process::{Signal, kill_process};

use crate::house::{Daemon, House, credential};
use crate::loopback::client::{Client, SUCCESS};
use crate::loopback::eventually;
use crate::loopback::message::Received;
use crate::loopback::plane::V4;
use crate::loopback::stream::Stream;

/// Writes a certificate for `name` and its key; returns the certificate's bytes.
pub(crate) fn certificate(directory: &Path, name: &str) -> Vec<u8> {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    let cert = params.self_signed(&key).unwrap();
    fs::create_dir_all(directory).unwrap();
    fs::write(directory.join("tls.crt"), cert.pem()).unwrap();
    fs::write(directory.join("tls.key"), key.serialize_pem()).unwrap();
    cert.der().to_vec()
}

/// A daemon with a TLS listener whose certificate is where Kubernetes would have it: behind a link
/// to a directory.
pub(crate) fn served(house: &House) -> (Daemon, Vec<u8>) {
    let root = house.directory.path();
    let first = certificate(&root.join("first"), "first.example");
    symlink("first", root.join("data")).unwrap();
    let mut command = house.command(&["serve", "--config", "taciturn.toml"]);
    command.args(["--listen-tls", "127.0.0.1:0"]);
    command.args(["--tls-cert", "data/tls.crt", "--tls-key", "data/tls.key"]);
    (house.start(command), first)
}

pub(crate) fn tls_listener(daemon: &Daemon) -> SocketAddr {
    let log = daemon.log().into_iter();
    let line = log
        .filter(|line| line["message"] == "listening")
        .find(|line| line["transport"] == "tls");
    line.unwrap()["address"].as_str().unwrap().parse().unwrap()
}

/// What a new client is shown.
fn shown(daemon: &Daemon) -> Vec<u8> {
    Stream::shown(tls_listener(daemon))
}

pub(crate) fn hang_up(daemon: &Daemon, says: &str) {
    let before = daemon.stderr().matches(says).count();
    kill_process(daemon.pid(), Signal::HUP).unwrap();
    eventually(says, || daemon.stderr().matches(says).count() > before);
}

/// T59
#[test]
fn a_new_certificate_is_served_on_sighup_and_no_connection_is_dropped() {
    let house = House::new("");
    let (daemon, first) = served(&house);
    let [mut a, mut b] = ["alice", "bob"].map(|user| {
        let stream = Stream::tls(tls_listener(&daemon));
        Client::over(stream, credential(&house.mint(user)))
    });
    assert_eq!(shown(&daemon), first);
    let (at_a, at_b) = (a.allocate(V4), b.allocate(V4));
    assert_eq!((a.bind(0x4000, at_b), b.permit(at_a)), (SUCCESS, SUCCESS));
    hang_up(&daemon, "the certificates are the same");

    let root = house.directory.path();
    let second = certificate(&root.join("first"), "second.example");
    hang_up(&daemon, "a new certificate is served");
    assert_eq!(shown(&daemon), second);
    assert!(daemon.stderr().contains("second.example"));

    fs::write(root.join("first/tls.key"), "no key").unwrap();
    hang_up(&daemon, "the certificates from before are still served");
    assert_eq!(shown(&daemon), second);

    a.send_channel(0x4000, b"still here");
    assert_eq!(b.receive(), Received::Data(at_a, b"still here".to_vec()));
    assert_eq!(a.refresh(600).code(), SUCCESS);
}

#[test]
fn a_link_that_is_swapped_is_noticed_without_a_word() {
    let house = House::new("");
    let (daemon, first) = served(&house);
    assert_eq!(shown(&daemon), first);
    let root = house.directory.path();
    let second = certificate(&root.join("second"), "second.example");
    symlink("second", root.join("new")).unwrap();
    fs::rename(root.join("new"), root.join("data")).unwrap();
    eventually("a new certificate is served", || {
        daemon.stderr().contains("a new certificate is served")
    });
    assert_eq!(shown(&daemon), second);
}

#[test]
fn sighup_without_certificates_changes_nothing() {
    let house = House::new("");
    let mut daemon = house.serve();
    hang_up(&daemon, "there are no certificates to read again");
    house.client(&daemon, "alice").allocate(V4);
    assert_eq!(daemon.stop(Signal::TERM).code(), Some(0));
}
