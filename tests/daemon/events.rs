//! Events of the real binary: in a file, and posted to a receiver that checks signatures, fails
//! first, or never answers.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use hmac::{Hmac, KeyInit as _, Mac as _};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustix::process::Signal;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};
use sha2::Sha256;
use socket2::{Domain, Socket, Type};

use crate::certificates::hang_up;
use crate::house::{Daemon, House};
use crate::http::parse;
use crate::loopback::client::{Client, SUCCESS};
use crate::loopback::message::Received;
use crate::loopback::plane::V4;
use crate::loopback::{PATIENCE, eventually};

const SECRET: &str = "hook-secret-of-this-test";

/// A POST as it came.
struct Post {
    delivery: String,
    signature: String,
    body: String,
}

/// Answers posts: the first ones with these codes, all others with 204. It ends with its socket.
fn receiver(codes: &'static [u16]) -> (SocketAddr, Receiver<Post>) {
    receiver_within(codes, |stream| stream)
}

/// The same within what `wrap` makes of a connection.
fn receiver_within<S: Read + Write>(
    codes: &'static [u16],
    wrap: impl Fn(TcpStream) -> S + Send + 'static,
) -> (SocketAddr, Receiver<Post>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (address, received(listener, codes, wrap))
}

/// What is posted there.
fn received<S: Read + Write>(
    listener: TcpListener,
    codes: &'static [u16],
    wrap: impl Fn(TcpStream) -> S + Send + 'static,
) -> Receiver<Post> {
    let (sender, posts) = channel();
    thread::spawn(move || {
        let mut codes = codes.iter();
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut stream = BufReader::new(wrap(stream));
            // Connections are kept.
            while let Some(post) = read(&mut stream) {
                let code = codes.next().unwrap_or(&204);
                let answer = format!("HTTP/1.1 {code} x\r\ncontent-length: 0\r\n\r\n");
                stream.get_mut().write_all(answer.as_bytes()).unwrap();
                if sender.send(post).is_err() {
                    return;
                }
            }
        }
    });
    posts
}

fn read(stream: &mut BufReader<impl Read>) -> Option<Post> {
    let mut post = Post {
        delivery: String::new(),
        signature: String::new(),
        body: String::new(),
    };
    let (mut length, mut line) = (0, String::new());
    loop {
        line.clear();
        if stream.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let Some((name, value)) = line.trim_end().split_once(": ") else {
            if line == "\r\n" {
                break;
            }
            assert!(line.starts_with("POST /hook HTTP/1.1"), "{line}");
            continue;
        };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().unwrap(),
            "taciturn-delivery" => post.delivery = value.to_owned(),
            "taciturn-signature" => post.signature = value.to_owned(),
            "content-type" => assert_eq!(value, "application/x-ndjson"),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    post.body = String::from_utf8(body).unwrap();
    Some(post)
}

/// As docs/events.md says that a receiver does it.
fn is_signed(post: &Post) -> bool {
    let (time, hex) = post.signature.split_once(",v1=").unwrap();
    let time = time.strip_prefix("t=").unwrap();
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.update(format!("{time}.{}", post.body).as_bytes());
    let mac = mac.finalize().into_bytes();
    let expected: String = mac.iter().map(|byte| format!("{byte:02x}")).collect();
    expected == hex
}

fn valid(lines: &str) -> Vec<Value> {
    let schema = include_str!("../../docs/events.schema.json");
    let schema = serde_json::from_str(schema).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    lines
        .lines()
        .map(|line| {
            let value: Value = serde_json::from_str(line).unwrap();
            assert!(validator.is_valid(&value), "{line}");
            value
        })
        .collect()
}

fn house(hook: SocketAddr, more: &str) -> House {
    House::new(&format!(
        "[events]\nfile = \"events.jsonl\"\ninterval = \"1s\"\n{more}\n\
         webhooks = [{{ url = \"http://{hook}/hook\", value = \"{SECRET}\" }}]\n"
    ))
}

/// Two parties who exchange some packets, of whom the first goes.
fn call(house: &House, daemon: &Daemon) -> [Client; 2] {
    let [mut a, mut b] = ["alice", "bob"].map(|user| house.client(daemon, user));
    let (at_a, at_b) = (a.allocate(V4), b.allocate(V4));
    assert_eq!((a.permit(at_b), b.permit(at_a)), (SUCCESS, SUCCESS));
    for n in 0..7 {
        a.send_to(at_b, &[n; 100]);
        assert_eq!(b.receive(), Received::Data(at_a, vec![n; 100]));
    }
    b.send_to(at_a, &[1; 50]);
    assert_eq!(a.receive(), Received::Data(at_b, vec![1; 50]));
    assert_eq!(a.refresh(0).code(), SUCCESS);
    [a, b]
}

/// Somebody who has no password.
fn knock(house: &House, daemon: &Daemon) {
    let mut stranger = house.client(daemon, "mallory");
    stranger.credential.password = "guessed".to_owned();
    for _ in 0..5 {
        assert_eq!(stranger.try_allocate(V4).code(), 401);
    }
}

fn names(events: &[Value], name: &str) -> Vec<Value> {
    let named = events.iter().filter(|event| event["event"] == name);
    named.cloned().collect()
}

/// So many events had this outcome.
fn counted(daemon: &Daemon, outlet: &str, outcome: &str) -> f64 {
    let metrics = parse(&daemon.get("/metrics").body);
    metrics[&format!("taciturn_events_total{{outcome=\"{outcome}\",outlet=\"{outlet}\"}}")]
}

fn file(house: &House) -> String {
    std::fs::read_to_string(house.directory.path().join("events.jsonl")).unwrap()
}

#[test]
fn file_and_webhook_hear_of_a_call_and_can_bill_it() {
    let (hook, posts) = receiver(&[500, 503]);
    let house = house(hook, "");
    let mut daemon = house.serve();
    let clients = call(&house, &daemon);
    knock(&house, &daemon);
    eventually("what happened is in the file", || {
        let text = file(&house);
        text.contains("allocation.closed") && text.contains("auth.failures")
    });
    let events = valid(&file(&house));
    let opened = names(&events, "allocation.opened");
    let closed = names(&events, "allocation.closed");
    assert_eq!((opened.len(), closed.len()), (2, 1), "{events:?}");
    let closed = &closed[0];
    assert_eq!(closed["reason"], "closed");
    let hairpin = &closed["traffic"]["hairpin"];
    let expected = json!({
        "in": { "packets": 7, "bytes": 700 },
        "out": { "packets": 1, "bytes": 50 },
    });
    assert_eq!(hairpin, &expected);
    let of = |event: &Value| (event["allocation"].clone(), event["subject"].clone());
    assert!(opened.iter().any(|event| of(event) == of(closed)));
    let failures = names(&events, "auth.failures");
    let wrong = failures.iter().filter(|event| event["reason"] == "wrong");
    let count: u64 = wrong.map(|event| event["count"].as_u64().unwrap()).sum();
    assert_eq!(count, 5, "{failures:?}");

    eventually("the receiver took some", || {
        counted(&daemon, "webhook", "delivered") > 0.0
    });
    // The one who is still there is told of at the end, which waits for the receiver.
    drop(clients);
    assert_eq!(daemon.stop(Signal::TERM).code(), Some(0));
    let all = file(&house);
    assert_eq!(names(&valid(&all), "allocation.closed").len(), 2);
    let posts: Vec<Post> = posts.try_iter().collect();
    assert!(posts.iter().all(is_signed), "a signature is wrong");
    assert!(posts.len() >= 3, "{} posts", posts.len());
    let first: HashSet<&str> = posts[..3].iter().map(|p| p.delivery.as_str()).collect();
    assert_eq!(first.len(), 1, "tried again under another name");
    assert!(posts[..3].iter().all(|post| post.body == posts[0].body));
    // Two answers said that it was not taken, so that what came before them came again.
    let taken: String = posts[2..].iter().map(|post| post.body.as_str()).collect();
    assert_eq!(taken, all, "both outlets tell the same");
    let said = daemon.stderr();
    assert!(
        !said.contains(SECRET) && !said.contains("given up"),
        "{said}"
    );
}

#[test]
fn a_file_that_is_moved_away_is_followed_by_a_new_one() {
    let (hook, _posts) = receiver(&[]);
    let house = house(hook, "");
    let daemon = house.serve();
    let first = call(&house, &daemon);
    eventually("the first call is told of", || {
        file(&house).contains("allocation.closed")
    });
    let old = house.directory.path().join("events.jsonl.1");
    std::fs::rename(house.directory.path().join("events.jsonl"), &old).unwrap();
    let second = call(&house, &daemon);
    let new = house.directory.path().join("events.jsonl");
    let read = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
    eventually("the second is told of in a new one", || {
        read(&new).contains("allocation.closed")
    });
    let [before, after] = [&old, &new].map(|path| valid(&read(path)));
    assert_eq!(names(&before, "allocation.opened").len(), 2);
    assert_eq!(names(&after, "allocation.opened").len(), 2);
    drop((first, second));
}

/// Not even its end waits long for it, and the queue takes what it may and no more.
#[test]
fn a_receiver_that_never_answers_holds_up_nobody() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let hook = listener.local_addr().unwrap();
    let house = house(hook, "queue = 5");
    let mut daemon = house.serve();
    for _ in 0..5 {
        let [_, mut b] = call(&house, &daemon);
        assert_eq!(b.refresh(0).code(), SUCCESS);
    }
    // Twenty happened: one batch waits for its answer, five in the queue.
    eventually("some are dropped", || {
        counted(&daemon, "webhook", "dropped") >= 9.0
    });
    assert_eq!(counted(&daemon, "webhook", "delivered"), 0.0);
    eventually("all are in the file", || {
        counted(&daemon, "file", "delivered") >= 20.0
    });
    let _last = call(&house, &daemon);
    assert_eq!(daemon.stop(Signal::TERM).code(), Some(0));
}

#[test]
fn a_file_that_cannot_be_opened_ends_the_start() {
    let house = House::new("[events]\nfile = \"no/such/place/events.jsonl\"");
    let output = house.run(&["serve", "--config", "taciturn.toml"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("events.file no/such/place"), "{said}");
}

/// An authority, in a file of PEM, and a receiver on 127.0.0.1 for whom it vouches.
fn https_receiver(house: &House, name: &str) -> (PathBuf, SocketAddr, Receiver<Post>) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let file = house.directory.path().join(format!("{name}.pem"));
    std::fs::write(&file, params.self_signed(&key).unwrap().pem()).unwrap();
    let authority = Issuer::new(params, key);

    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &authority).unwrap();
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        )
        .unwrap();
    let config = Arc::new(config);
    let (hook, posts) = receiver_within(&[500], move |stream| {
        let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
        StreamOwned::new(connection, stream)
    });
    (file, hook, posts)
}

/// Over TLS, to a receiver for whom nobody vouches that this system knows.
#[test]
fn an_https_webhook_trusts_the_authorities_that_are_named_for_it_alone() {
    let house = House::new("");
    let usual = std::fs::read_to_string(house.config()).unwrap();
    let (ours, hook, posts) = https_receiver(&house, "ours");
    let (others, ..) = https_receiver(&house, "others");
    let run = |ca: &str, until: &dyn Fn(&Daemon)| {
        house.write(&format!(
            "{usual}\n[events]\n\
             webhooks = [{{ url = \"https://{hook}/hook\", value = \"{SECRET}\"{ca} }}]\n"
        ));
        let daemon = house.serve();
        let clients = call(&house, &daemon);
        until(&daemon);
        drop(clients);
    };
    let named = |file: &Path| format!(", ca = \"{}\"", file.display());
    for ca in [String::new(), named(&others)] {
        run(&ca, &|daemon| {
            eventually("it is tried again", || {
                let metrics = parse(&daemon.get("/metrics").body);
                metrics["taciturn_event_retries_total{outlet=\"webhook\"}"] >= 1.0
            });
            assert_eq!(counted(daemon, "webhook", "delivered"), 0.0);
        });
        assert!(posts.try_iter().next().is_none(), "it trusts anybody");
    }
    run(&named(&ours), &|daemon| {
        eventually("what happened arrives", || {
            counted(daemon, "webhook", "delivered") >= 3.0
        });
    });
    let posts: Vec<Post> = posts.try_iter().collect();
    assert!(posts.iter().all(is_signed), "a signature is wrong");
    assert_eq!(
        posts[0].delivery, posts[1].delivery,
        "tried again after 500"
    );
    let taken: String = posts[1..].iter().map(|post| post.body.as_str()).collect();
    let events = valid(&taken);
    assert_eq!(names(&events, "allocation.opened").len(), 2);
    assert_eq!(names(&events, "allocation.closed").len(), 1);
}

/// The new outlets hear of what comes, the former ones of what was; nothing is lost or told twice.
#[test]
fn outlets_follow_the_configuration_and_what_they_have_is_carried_out() {
    let (hook, posts) = receiver(&[]);
    let (other, other_posts) = receiver(&[]);
    let house = house(hook, "");
    let mut daemon = house.serve();
    let first = call(&house, &daemon);
    eventually("the end of one of the first is told of", || {
        file(&house).contains("allocation.closed")
    });
    let config = std::fs::read_to_string(house.config()).unwrap();
    let config = config.replace("events.jsonl", "other.jsonl");
    let config = config.replace(&hook.to_string(), &other.to_string());
    house.write(&config.replace("interval = \"1s\"", "interval = \"2s\"\nqueue = 500"));
    hang_up(&daemon, "the configuration was read again and is in force");
    let second = call(&house, &daemon);
    knock(&house, &daemon);
    let other_file = || {
        let path = house.directory.path().join("other.jsonl");
        std::fs::read_to_string(path).unwrap_or_default()
    };
    eventually("the second is in the other file", || {
        let text = other_file();
        text.contains("allocation.closed") && text.contains("auth.failures")
    });
    drop((first, second));
    assert_eq!(daemon.stop(Signal::TERM).code(), Some(0));
    let opened = |text: &str| names(&valid(text), "allocation.opened").len();
    let closed = |text: &str| names(&valid(text), "allocation.closed").len();
    let (before, after) = (file(&house), other_file());
    assert_eq!((opened(&before), opened(&after)), (2, 2));
    // One of the first call lived until the end.
    assert_eq!((closed(&before), closed(&after)), (1, 3));
    let bodies =
        |posts: Receiver<Post>| -> String { posts.try_iter().map(|post| post.body).collect() };
    assert_eq!((bodies(posts), bodies(other_posts)), (before, after));
    assert_eq!(daemon.stderr().matches("given up").count(), 0);
}

/// What waits for a receiver that is away outlives a change that is not about it: neither another
/// place among the webhooks nor another bound makes it another one.
#[test]
fn a_queue_outlives_the_removal_of_another_webhook_while_its_receiver_is_away() {
    let (hook, posts) = receiver(&[]);
    let away = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    away.bind(&SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0).into())
        .unwrap();
    // Nobody else gets this port, and nobody listens there.
    let absent = away.local_addr().unwrap().as_socket().unwrap();
    let webhook = |address| format!("{{ url = \"http://{address}/hook\", value = \"{SECRET}\" }}");
    let house = House::new("");
    let usual = std::fs::read_to_string(house.config()).unwrap();
    let write = |queue: u32, webhooks: &str| {
        house.write(&format!(
            "{usual}\n[events]\nfile = \"events.jsonl\"\nqueue = {queue}\nwebhooks = [{webhooks}]\n"
        ));
    };
    write(300, &[webhook(hook), webhook(absent)].join(", "));
    let mut daemon = house.serve();
    let first = call(&house, &daemon);
    eventually("the first webhook has it, and the second failed", || {
        let metrics = parse(&daemon.get("/metrics").body);
        metrics["taciturn_event_retries_total{outlet=\"webhook\"}"] >= 1.0
            && counted(&daemon, "webhook", "delivered") >= 3.0
    });

    write(500, &webhook(absent));
    hang_up(&daemon, "the configuration was read again and is in force");
    let second = call(&house, &daemon);
    away.listen(128).unwrap();
    let late = received(away.into(), &[], |stream| stream);
    eventually("the second has all of both calls", || {
        counted(&daemon, "webhook", "delivered") >= 9.0
    });
    drop((first, second));
    assert_eq!(daemon.stop(Signal::TERM).code(), Some(0));
    let bodies =
        |posts: Receiver<Post>| -> String { posts.try_iter().map(|post| post.body).collect() };
    let all = file(&house);
    assert_eq!(names(&valid(&all), "allocation.opened").len(), 4);
    assert_eq!(bodies(late), all, "nothing is lost, nor told twice");
    let early = bodies(posts);
    assert!(!early.is_empty() && all.starts_with(&early), "{early}");
    assert!(!daemon.stderr().contains("given up"), "{}", daemon.stderr());
}
