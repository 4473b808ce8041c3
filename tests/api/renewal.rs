//! TLS of the API while it is spoken: other certificates, other issuers of its clients', and none.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};

use rustix::process::{Signal, kill_process};

use crate::ask;
use crate::house::{Daemon, House};
use crate::loopback::eventually;

/// An authority, which writes its own certificate and those that it issues.
struct Authority(rcgen::Issuer<'static, rcgen::KeyPair>);

impl Authority {
    fn new(house: &House, file: &str) -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let name = (rcgen::DnType::CommonName, file);
        params.distinguished_name.push(name.0, name.1);
        put(house, file, &params.self_signed(&key).unwrap().pem());
        Self(rcgen::Issuer::new(params, key))
    }

    /// Writes a certificate and its key as `name.pem` and `name.key`; the certificate.
    fn issue(&self, house: &House, name: &str) -> String {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let pem = params.signed_by(&key, &self.0).unwrap().pem();
        put(house, &format!("{name}.pem"), &pem);
        put(house, &format!("{name}.key"), &key.serialize_pem());
        pem
    }
}

/// Writes a file in one step.
fn put(house: &House, name: &str, text: &str) {
    let path = house.directory.path().join(name);
    let draft = path.with_extension("draft");
    fs::write(&draft, text).unwrap();
    fs::set_permissions(&draft, fs::Permissions::from_mode(0o600)).unwrap();
    fs::rename(draft, path).unwrap();
}

/// A TLS client of openssl's, with this certificate.
fn client(house: &House, daemon: &Daemon, name: &str) -> Child {
    let at = ask::at(daemon).to_string();
    let mut command = Command::new("openssl");
    command.args(["s_client", "-ign_eof", "-servername", "localhost"]);
    command.args(["-connect", &at, "-cert", &format!("{name}.pem")]);
    command.args(["-key", &format!("{name}.key")]);
    command.current_dir(house.directory.path());
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    command.stderr(Stdio::null()).spawn().unwrap()
}

/// What it was shown, and the answer that it got.
fn asked(house: &House, daemon: &Daemon, name: &str) -> String {
    let mut child = client(house, daemon, name);
    let request = "GET /v1/allocations HTTP/1.0\r\nHost: localhost\r\n\r\n";
    let mut stdin = child.stdin.take().unwrap();
    // Who is refused may be gone by then.
    stdin.write_all(request.as_bytes()).ok();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn is_let_in(said: &str) -> bool {
    said.contains("HTTP/1.0 200")
}

fn shows(said: &str, pem: &str) -> bool {
    let said = said.replace('\r', "");
    said.contains(pem.trim_end().replace('\r', "").as_str())
}

fn change(house: &House, from: &str, to: &str) {
    let config = fs::read_to_string(house.config()).unwrap();
    assert!(config.contains(from), "no {from} in {config}");
    house.write(&config.replace(from, to));
}

/// T25: other files of other names; the issuer's is written anew under its name, without a signal.
#[test]
fn another_certificate_and_another_issuer_are_taken_up_and_who_came_by_the_former_is_out() {
    let house = House::new(
        "api = { listen = \"127.0.0.1:0\", tls = { cert = \"a.pem\", key = \"a.key\", client_ca = \"ca.pem\" } }\n\
         control = { socket = \"control.sock\" }",
    );
    let first = Authority::new(&house, "ca.pem");
    let [served, _] = ["a", "former"].map(|name| first.issue(&house, name));
    let daemon = house.serve();
    let said = asked(&house, &daemon, "former");
    assert!(is_let_in(&said) && shows(&said, &served), "{said}");

    // One that stays, and has been let in.
    let mut standing = client(&house, &daemon, "former");
    let mut stdin = standing.stdin.take().unwrap();
    let request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    stdin.write_all(request).unwrap();
    let mut lines = BufReader::new(standing.stdout.take().unwrap());
    let mut line = String::new();
    while line.trim_end() != "ok" {
        line.clear();
        assert!(
            lines.read_line(&mut line).unwrap() > 0,
            "it was not answered"
        );
    }

    let renewed = first.issue(&house, "b");
    change(&house, "\"a.pem\"", "\"b.pem\"");
    change(&house, "a.key", "b.key");
    kill_process(daemon.pid(), Signal::HUP).unwrap();
    eventually("the new certificate is served", || {
        shows(&asked(&house, &daemon, "former"), &renewed)
    });
    assert!(is_let_in(&asked(&house, &daemon, "former")));

    let second = Authority::new(&house, "ca.pem");
    second.issue(&house, "new");
    eventually("who the new issuer vouches for is let in", || {
        is_let_in(&asked(&house, &daemon, "new"))
    });
    assert!(!asked(&house, &daemon, "former").contains("HTTP/1."));
    // The connection that stood is closed, although its client goes on.
    let mut rest = String::new();
    lines.read_to_string(&mut rest).unwrap();
    assert!(!rest.contains("HTTP/1."), "{rest}");
    drop(stdin);
    standing.wait().unwrap();
}

/// On the listener that it has.
#[test]
fn tls_comes_and_goes_with_the_configuration() {
    let (house, daemon) = ask::open("");
    Authority::new(&house, "ca.pem").issue(&house, "a");
    let plain = || ask::raw(ask::at(&daemon), "GET", "/healthz", "", "");
    assert_eq!(plain().status, 200);
    let tls = "control = { socket = \"control.sock\" }";
    let with =
        ", tls = { cert = \"a.pem\", key = \"a.key\" } }\ncontrol = { socket = \"control.sock\" }";
    let without = format!(" }}\n{tls}");
    change(&house, &without, with);
    kill_process(daemon.pid(), Signal::HUP).unwrap();
    let says = || asked(&house, &daemon, "a");
    eventually("it speaks TLS", || says().contains("HTTP/1.0 401"));
    change(&house, with, &without);
    kill_process(daemon.pid(), Signal::HUP).unwrap();
    eventually("it speaks plain HTTP again", || {
        let mut stream = std::net::TcpStream::connect(ask::at(&daemon)).unwrap();
        stream.write_all(b"GET /healthz HTTP/1.0\r\n\r\n").unwrap();
        let mut text = Vec::new();
        stream.read_to_end(&mut text).ok();
        text.starts_with(b"HTTP/1.0 200")
    });
}
