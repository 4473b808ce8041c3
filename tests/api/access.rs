//! Who may ask: keys, scopes, rates, certificates.

use std::fs;
use std::net::TcpStream;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::ask::{self, KEY, MINT, READ, REVOKE, ask, raw};
use crate::house::House;
use crate::loopback::eventually;

/// T60: without a good key there is nothing but health.
#[test]
fn nothing_but_health_is_answered_without_a_key() {
    let (_house, daemon) = ask::open("");
    for key in [
        None,
        Some("wrong"),
        Some(""),
        Some("platform-key"),
        Some("all"),
    ] {
        for (method, path) in [
            ("POST", "/v1/credentials"),
            ("GET", "/v1/allocations"),
            ("GET", "/v1/allocations/0123456789abcdef"),
            ("GET", "/v1/openapi.json"),
            ("GET", "/metrics"),
            ("GET", "/"),
            ("GET", "/v1"),
            ("GET", "/turn"),
            ("PATCH", "/v1/credentials"),
            ("GET", "/v1/credentials"),
            ("DELETE", "/v1/openapi.json"),
            ("PUT", "/healthz"),
        ] {
            let answer = ask(&daemon, method, path, key, None);
            // The first are refused for want of a key, the rest because there were too many.
            assert!([401, 429].contains(&answer.status), "{path}: {answer:?}");
            let wanted = if answer.status == 401 {
                "www-authenticate: bearer"
            } else {
                "retry-after: "
            };
            assert!(answer.head.contains(wanted), "{answer:?}");
            answer.detail();
        }
    }
    // Who has a key is told that there is no such method, and which there are.
    let answer = ask(&daemon, "PATCH", "/v1/credentials", Some(KEY), None);
    assert_eq!(answer.status, 405, "{answer:?}");
    assert!(answer.head.contains("allow: post"), "{answer:?}");
    let health = ask(&daemon, "GET", "/healthz", None, None);
    assert_eq!((health.status, health.text.as_str()), (200, "ok\n"));
    // A source that was refused so often still comes in with its key.
    assert_eq!(
        ask(&daemon, "GET", "/v1/allocations", Some(KEY), None).status,
        200
    );
}

/// T60: the API is not opened before anybody could be let in.
#[test]
fn without_a_key_the_api_does_not_listen() {
    let house = House::new("api = { listen = \"127.0.0.1:0\" }");
    let daemon = house.serve();
    assert!(daemon.addresses("API listens").is_empty());
    let answer = daemon.get("/v1/allocations");
    assert_eq!(answer.status, 404);
}

/// T60
#[test]
fn the_api_listens_on_loopback_unless_told_otherwise() {
    let house = House::new(&format!(
        "api = {{ keys = [{{ id = \"a\", value = \"{KEY}\", scopes = [\"read\"] }}] }}"
    ));
    let said = house.run(&["check", "--config", "taciturn.toml"]);
    assert_eq!(said.status.code(), Some(0), "{said:?}");
    assert!(!String::from_utf8_lossy(&said.stdout).contains("api.listen"));
    let config = fs::read_to_string(house.config()).unwrap();
    house.write(&config.replace("api = { keys", "api = { listen = \"0.0.0.0:8080\", keys"));
    let said = house.run(&["check", "--config", "taciturn.toml"]);
    let text = String::from_utf8_lossy(&said.stdout) + String::from_utf8_lossy(&said.stderr);
    assert!(
        text.contains("api.listen = 0.0.0.0:8080") && text.contains("in clear"),
        "{text}"
    );
}

#[test]
fn a_key_is_good_for_its_scopes_alone() {
    let (_house, daemon) = ask::open("");
    let wanted = json!({ "user": "alice" });
    for (key, mints, reads, revokes) in [
        (KEY, 201, 200, 404),
        (MINT, 201, 403, 403),
        (READ, 403, 200, 403),
        (REVOKE, 403, 403, 404),
    ] {
        let answer = ask(&daemon, "POST", "/v1/credentials", Some(key), Some(&wanted));
        assert_eq!(answer.status, mints, "{answer:?}");
        let answer = ask(&daemon, "GET", "/v1/allocations", Some(key), None);
        assert_eq!(answer.status, reads, "{answer:?}");
        let path = "/v1/allocations/0123456789abcdef";
        let answer = ask(&daemon, "DELETE", path, Some(key), None);
        assert_eq!(answer.status, revokes, "{answer:?}");
        let answer = ask(&daemon, "GET", "/v1/openapi.json", Some(key), None);
        assert_eq!(
            (answer.status, &answer.json()["openapi"]),
            (200, &"3.1.0".into())
        );
    }
}

#[test]
fn a_key_that_asks_too_often_is_told_to_wait() {
    let house = House::new(&ask::api("").replace("1000000/s", "1/s burst 5"));
    let daemon = house.serve();
    let codes: Vec<u16> = (0..20)
        .map(|_| ask(&daemon, "GET", "/v1/allocations", Some(KEY), None).status)
        .collect();
    assert_eq!(&codes[..5], [200; 5]);
    assert!(codes.contains(&429), "{codes:?}");
    let answer = ask(&daemon, "GET", "/v1/allocations", Some(KEY), None);
    assert!(
        answer.status != 429 || answer.head.contains("retry-after: 1"),
        "{answer:?}"
    );
    // Another key has a budget of its own.
    assert_eq!(
        ask(&daemon, "GET", "/v1/allocations", Some(READ), None).status,
        200
    );
}

/// T25: a key that is taken out of the configuration is refused, and the one put in is not.
#[test]
fn keys_change_with_the_configuration() {
    let (house, daemon) = ask::open("");
    let status = |key| ask(&daemon, "GET", "/v1/allocations", Some(key), None).status;
    let new = "a-new-key-that-nobody-guesses";
    assert_eq!((status(READ), status(new)), (200, 401));
    let config = fs::read_to_string(house.config()).unwrap();
    house.write(&config.replace(READ, new));
    rustix::process::kill_process(daemon.pid(), rustix::process::Signal::HUP).unwrap();
    eventually("the new key is good", || status(new) == 200);
    assert_eq!((status(READ), status(KEY)), (401, 200));
}

#[test]
fn how_often_a_stranger_may_try_changes_with_the_configuration() {
    let (house, daemon) = ask::open(", failures = \"1/s burst 1\"");
    let status = || ask(&daemon, "GET", "/v1/allocations", Some("wrong"), None).status;
    let tries = |n| (0..n).map(|_| status()).collect::<Vec<_>>();
    assert!(tries(10).contains(&429));
    let config = fs::read_to_string(house.config()).unwrap();
    house.write(&config.replace("1/s burst 1\"", "100000/s\""));
    rustix::process::kill_process(daemon.pid(), rustix::process::Signal::HUP).unwrap();
    eventually("strangers may try", || tries(10) == [401; 10]);
}

/// T26
#[test]
fn keys_are_in_no_argument_and_no_output_even_if_they_come_in_a_query() {
    for format in ["json", "text"] {
        let config = ask::api(", adapters = [\"rest\", \"metered\", \"twilio\"]");
        let house = House::new(&format!(
            "log = {{ level = \"trace\", format = \"{format}\" }}\n{config}"
        ));
        let daemon = house.serve();
        let server = ask::at(&daemon);
        let wrong = "a-wrong-key-of-some-length";
        for key in [KEY, wrong] {
            let basic = STANDARD.encode(format!("AC1:{key}"));
            let basic = format!("Authorization: Basic {basic}\r\n");
            raw(
                server,
                "GET",
                &format!("/turn?service=turn&username=alice&key={key}"),
                "",
                "",
            );
            raw(
                server,
                "GET",
                &format!("/api/v1/turn/credentials?apiKey={key}"),
                "",
                "",
            );
            raw(
                server,
                "GET",
                &format!("/turn?service=%zz&key={key}"),
                "",
                "",
            );
            raw(server, "GET", &format!("/nothing?key={key}"), "", "");
            raw(
                server,
                "POST",
                "/2010-04-01/Accounts/AC1/Tokens.json",
                &basic,
                "",
            );
            ask(
                &daemon,
                "POST",
                "/v1/credentials",
                Some(key),
                Some(&json!({ "user": "alice-7" })),
            );
        }
        eventually("the last change is logged", || {
            daemon.stderr().contains("/v1/credentials")
        });
        let arguments = fs::read(format!("/proc/{}/cmdline", daemon.child.id())).unwrap();
        let said = daemon.stderr() + &daemon.stdout() + &String::from_utf8_lossy(&arguments);
        assert!(
            said.contains("taciturn.toml") && said.contains("API change"),
            "{said}"
        );
        for secret in [KEY, wrong, "alice-7", "127.0.0.1:0"] {
            for form in [secret.to_owned(), STANDARD.encode(secret)] {
                assert!(!said.contains(&form), "{form} in\n{said}");
            }
        }
        let asked = house.run(&["check", "--config", "taciturn.toml"]);
        let asked = String::from_utf8_lossy(&asked.stdout) + String::from_utf8_lossy(&asked.stderr);
        assert!(!asked.contains(KEY), "{asked}");
    }
}

#[test]
fn each_change_is_in_the_log_with_its_key_and_outcome() {
    let house = House::new(&format!("log = {{ format = \"json\" }}\n{}", ask::api("")));
    let daemon = house.serve();
    let minted = ask(
        &daemon,
        "POST",
        "/v1/credentials",
        Some(MINT),
        Some(&json!({ "user": "a" })),
    );
    let subject = minted.json()["subject"].clone();
    ask(
        &daemon,
        "POST",
        "/v1/credentials",
        Some(KEY),
        Some(&json!({ "usr": "a" })),
    );
    ask(&daemon, "GET", "/v1/allocations", Some(READ), None);
    let changes = || {
        let log = daemon.log().into_iter();
        let changes = log.filter(|line| line["message"] == "API change");
        changes.collect::<Vec<_>>()
    };
    eventually("both changes are logged", || changes().len() >= 2);
    let changes = changes();
    assert_eq!(changes.len(), 2, "{changes:?}");
    let fields = &changes[0];
    assert_eq!(
        (&fields["key"], &fields["status"]),
        (&"minter".into(), &201.into())
    );
    assert_eq!(
        (&fields["route"], &fields["user"]),
        (&"/v1/credentials".into(), &subject)
    );
    let fields = &changes[1];
    assert_eq!(
        (&fields["key"], &fields["status"]),
        (&"all".into(), &400.into())
    );
}

/// With `client_ca` there is no handshake without a certificate of its issuers; where there are no
/// keys, it lets in.
#[test]
fn a_client_certificate_lets_in_where_it_is_asked_for() {
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let mut ca = rcgen::CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca_cert = ca.self_signed(&ca_key).unwrap();
    let issuer = rcgen::Issuer::new(ca, ca_key);
    let house = House::new(
        "api = { listen = \"127.0.0.1:0\", tls = { cert = \"s.pem\", key = \"s.key\", client_ca = \"ca.pem\" } }\n\
         control = { socket = \"control.sock\" }",
    );
    let put = |name: &str, text: String| {
        use std::os::unix::fs::PermissionsExt;
        let path = house.directory.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    };
    put("ca.pem", ca_cert.pem());
    for name in ["s", "c"] {
        let key = rcgen::KeyPair::generate().unwrap();
        let names = vec!["localhost".to_owned()];
        let params = rcgen::CertificateParams::new(names).unwrap();
        let cert = params.signed_by(&key, &issuer).unwrap();
        put(&format!("{name}.pem"), cert.pem());
        put(&format!("{name}.key"), key.serialize_pem());
    }
    let other = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    put("x.pem", other.cert.pem());
    put("x.key", other.signing_key.serialize_pem());
    let daemon = house.serve();
    let at = ask::at(&daemon);
    assert!(TcpStream::connect(at).is_ok());
    let asked = |name: Option<&str>| {
        let mut command = std::process::Command::new("openssl");
        command.args([
            "s_client",
            "-quiet",
            "-connect",
            &at.to_string(),
            "-servername",
            "localhost",
        ]);
        if let Some(name) = name {
            command.args([
                "-cert",
                &format!("{name}.pem"),
                "-key",
                &format!("{name}.key"),
            ]);
        }
        command.current_dir(house.directory.path());
        command
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped());
        command.stderr(std::process::Stdio::null());
        let mut child = command.spawn().unwrap();
        let request = "GET /v1/allocations HTTP/1.0\r\nHost: localhost\r\n\r\n";
        std::io::Write::write_all(&mut child.stdin.as_mut().unwrap(), request.as_bytes()).ok();
        let output = child.wait_with_output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert!(
        asked(Some("c")).starts_with("HTTP/1.0 200"),
        "{}",
        asked(Some("c"))
    );
    for refused in [None, Some("x")] {
        assert!(!asked(refused).contains("HTTP/1."), "{refused:?}");
    }
}
