//! T62: a call in which much goes wrong, and everything that the daemon says of it.

use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::process::ExitStatusExt;

use taciturn::proto::{AddressFamily, Method, MobilityTicket, RequestedTransport, XorPeerAddress};
use taciturn::turn::Transport;
use taciturn::turn::credential::Label;
use taciturn::turn::policy::PeerPolicy;

use crate::collect::{self, Said};
use crate::lab::Addresses;
use crate::lab::search::in_text;
use crate::loopback::client::{Client, SUCCESS};
use crate::loopback::eventually;
use crate::loopback::message::Received;
use crate::loopback::plane::{V4, V6};
use crate::report::Report;
use crate::routes::Door;
use crate::stage::{AWAY, Daemon, Party, Stage, get, of};

use super::CHANNEL;
use super::names::Mint;

/// Everything on that could say more.
const ALL_ON: [(&str, &str); 3] = [
    ("features.mobility", "true"),
    ("features.tcp_relay", "true"),
    ("proxy_protocol.trusted", r#"["198.18.66.66"]"#),
];
/// Classic TURN, in which peers are outside and endpoints may be named as peers.
const ANY: (&str, &str) = ("policy.peers", r#""any""#);

/// Whose addresses may stand nowhere.
fn hidden() -> [Addresses; 3] {
    [Party::Alice.addresses(), Party::Bob.addresses(), AWAY]
}

/// What stays open while it is looked at.
type Open = Vec<Client>;

/// The call, by every transport and family; its allocations are still live.
fn play(stage: &Stage, daemon: &Daemon<'_>) -> Open {
    let mut open = Open::new();
    for family in [V4, V6] {
        // A platform may call its users by their addresses.
        let name = Party::Alice.at(family).to_string();
        let alice = stage.client(Party::Alice, family, &name);
        let bob = stage.client(Party::Bob, family, "bob");
        open.extend(call(stage, alice, bob, family));
    }
    for transport in [Transport::Tcp, Transport::Tls] {
        let alice = stage.client_over(Party::Alice, transport, "alice");
        let bob = stage.client_over(Party::Bob, transport, "bob");
        open.extend(call(stage, alice, bob, V4));
    }
    open.extend(sealed(stage, &Mint::of(daemon)));
    tcp_relay(stage);
    open
}

/// The call of two whose names are sealed, and all the claims there are.
fn sealed(stage: &Stage, mint: &Mint) -> [Client; 2] {
    let client = |party: Party| {
        let credential = mint.sealed(&party.at(V4).to_string(), |credentials, claims| {
            claims.call = credentials.call("203.0.113.7 calls 198.51.100.20");
            claims.tenant = Label::new("acme");
            claims.policy = Some(PeerPolicy::Call);
            claims.masked = true;
            claims.strict = true;
        });
        let mut client = stage.client_at(party, party.at(V4), credential);
        let relayed = client.allocate(V4);
        (client, relayed)
    };
    let ((mut a, at_a), (mut b, at_b)) = (client(Party::Alice), client(Party::Bob));
    assert_eq!((a.permit(at_b), b.permit(at_a)), (SUCCESS, SUCCESS));
    a.send_to(at_b, b"hello");
    assert_eq!(b.receive(), Received::Data(at_a, b"hello".to_vec()));
    [a, b]
}

fn call(stage: &Stage, mut a: Client, mut b: Client, family: AddressFamily) -> [Client; 2] {
    let answer = a.request(Method::ALLOCATE, |r| {
        r.with(&RequestedTransport::UDP)
            .with(&taciturn::proto::RequestedAddressFamily(family))
            .with(&MobilityTicket(b""))
    });
    assert_eq!(answer.code(), SUCCESS);
    let (at_a, ticket) = (answer.relayed()[0], answer.ticket().unwrap());
    let at_b = b.allocate(family);
    assert_eq!((a.bind(CHANNEL, at_b), b.permit(at_a)), (SUCCESS, SUCCESS));
    a.send_channel(CHANNEL, Party::Alice.at(family).to_string().as_bytes());
    assert!(matches!(b.receive(), Received::Data(from, _) if from == at_a));
    b.send_to(at_a, b"hello");
    a.receive();

    // Endpoints as peers: refused under `relay`, reached and answered by ICMP under `any`.
    let own = SocketAddr::new(Party::Bob.at(family), 9);
    a.permit(own);
    a.bind(0x4001, own);
    a.send_to(own, b"is it you?");
    a.send_whole(own, &[0; 1_200]);
    a.send_channel(0x4001, b"is it you?");
    a.send_channel(0x4fff, b"no channel");
    for noise in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 20], &[0xff; 300]] {
        if a.stream.is_none() {
            a.send_raw(noise);
        }
    }
    assert_eq!(a.try_allocate(family).code(), 437);
    if a.stream.is_none() {
        assert_eq!(a.request(Method::BINDING, |r| r).mapped(), Some(a.addr()));
        let mut wrong = stage.client(Party::Alice, family, "mallory");
        wrong.credential.password = "wrong".to_owned();
        assert_eq!(wrong.try_allocate(family).code(), 401);
        wrong.credential.username = format!("1:{}", Party::Alice.at(family));
        assert_eq!(wrong.try_allocate(family).code(), 401);
        // To another place and back to work.
        let away = SocketAddr::new(of(AWAY, family), 0);
        let socket = stage
            .party(Party::Alice)
            .enter(|| UdpSocket::bind(away).unwrap());
        a.socket = socket;
        let moved = a.request(Method::REFRESH, |r| r.with(&MobilityTicket(&ticket)));
        assert_eq!(moved.code(), SUCCESS);
        // By which she has moved.
        a.send_channel(CHANNEL, b"here I am");
        assert!(matches!(b.receive(), Received::Data(from, _) if from == at_a));
    }
    let mut short = if a.stream.is_none() {
        stage.client(Party::Alice, family, "short")
    } else {
        stage.client_over(Party::Alice, Transport::Tcp, "short")
    };
    short.allocate(family);
    assert_eq!(short.refresh(0).code(), SUCCESS);
    short.send_channel(CHANNEL, b"no allocation");
    [a, b]
}

/// RFC 6062: a connection to where nobody listens, at Bob's own address.
fn tcp_relay(stage: &Stage) {
    let mut a = stage.client_over(Party::Alice, Transport::Tcp, "alice");
    let answer = a.request(Method::ALLOCATE, |r| r.with(&RequestedTransport::TCP));
    assert_eq!(answer.code(), SUCCESS);
    let own = SocketAddr::new(Party::Bob.at(V4), 9);
    let refused = a.request(Method::CONNECT, |r| r.with(&XorPeerAddress(own)));
    assert!([403, 447].contains(&refused.code()), "{refused:?}");
}

/// The log of a daemon that is not to say whom it served.
fn told(report: &mut Report, name: &str, log: Vec<u8>) {
    let text = String::from_utf8_lossy(&log);
    for word in ["allocation opened", "allocation moved", "allocation closed"] {
        assert!(text.contains(word), "{name} has no {word:?}:\n{text}");
    }
    assert!(
        text.contains("192.0.2.1"),
        "{name} shows no address at all:\n{text}"
    );
    report.looked(name);
    let said = Said {
        place: name.to_owned(),
        bytes: log,
    };
    collect::search(report, &[said], &hidden());
}

/// L11
pub(super) fn logs(stage: &Stage) -> Report {
    let mut report = Report::default();
    let any = [&ALL_ON[..], &[ANY]].concat();
    let text = [&ALL_ON[..], &[("log.format", r#""text""#)]].concat();
    for (name, changes) in [("JSON", &ALL_ON[..]), ("JSON, any", &any), ("text", &text)] {
        let daemon = stage.serve(changes);
        drop(play(stage, &daemon));
        told(&mut report, name, daemon.stop());
    }
    let daemon = stage.serve_to_journal(&ALL_ON);
    drop(play(stage, &daemon));
    let log = daemon.stop();
    assert!(
        String::from_utf8_lossy(&log).contains("SYSLOG_IDENTIFIER"),
        "not to the journal"
    );
    told(&mut report, "journal", log);
    report
}

/// L11: what shows addresses shows them in the log alone.
pub(super) fn broken_glass(stage: &Stage) -> Report {
    let mut report = Report::default();
    let daemon = stage.serve(&[&ALL_ON[..], &[("log.show_addresses", "true")]].concat());
    let open = play(stage, &daemon);
    let mut said = collect::living(&daemon);
    said.retain(|said| !said.place.ends_with("/daemon.log"));
    drop(open);
    let log = daemon.stop();
    for hidden in hidden() {
        assert!(!in_text(hidden, &log).is_empty(), "the search is blind");
    }
    collect::search(&mut report, &said, &hidden());
    report
}

/// The series of a scrape, without their values.
fn series(daemon: &Daemon<'_>) -> Vec<String> {
    let answer = daemon.ask(Door::Admin, &get("/metrics"));
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    let samples = body.lines().filter(|line| !line.starts_with('#'));
    samples
        .map(|line| line.rsplit_once(' ').unwrap().0.to_owned())
        .collect()
}

/// L12
pub(super) fn metrics(stage: &Stage) -> Report {
    let mut report = Report::default();
    let daemon = stage.serve(&[&ALL_ON[..], &[ANY]].concat());
    let open = play(stage, &daemon);
    let before = series(&daemon);
    let users: Vec<Client> = (0..50)
        .map(|n| {
            let mut client = stage.client(Party::Alice, V4, &format!("user-{n}"));
            client.allocate(V4);
            client
        })
        .collect();
    let after = series(&daemon);
    let new: Vec<_> = after
        .iter()
        .filter(|series| !before.contains(series))
        .collect();
    report.holds(new.is_empty(), format!("fifty users made {new:?}"));
    for word in ["user-", "alice", "bob"] {
        let named: Vec<_> = after
            .iter()
            .filter(|series| series.contains(word))
            .collect();
        report.holds(named.is_empty(), format!("{named:?}"));
    }
    let said = Said {
        place: "/metrics".to_owned(),
        bytes: daemon.ask(Door::Admin, &get("/metrics")).into_bytes(),
    };
    report.looked(format!("{} series", after.len()));
    collect::search(&mut report, &[said], &hidden());
    drop((open, users));
    report
}

/// L13
pub(super) fn interfaces(stage: &Stage) -> Report {
    let mut report = Report::default();
    stage.hook.taken();
    for changes in [ALL_ON.to_vec(), [&ALL_ON[..], &[ANY]].concat()] {
        let daemon = stage.serve(&changes);
        let open = play(stage, &daemon);
        let mut said = collect::living(&daemon);
        drop(open);
        for event in ["opened", "closed", "failures", "revoked"] {
            eventually("an event is posted", || stage.hook.has(event));
        }
        for place in ["events.jsonl", "webhook"] {
            said.push(Said {
                place: place.to_owned(),
                bytes: match place {
                    "webhook" => stage.hook.taken(),
                    file => fs::read(daemon.directory.join(file)).unwrap(),
                },
            });
        }
        collect::search(&mut report, &said, &hidden());
    }
    report
}

/// L15: T71
pub(super) fn host(stage: &Stage) -> Report {
    let mut report = Report::default();
    let daemon = stage.serve(&[&ALL_ON[..], &[ANY]].concat());
    let open = play(stage, &daemon);
    let pid = daemon.pid();
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let core = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max core file size"));
    let core: Vec<&str> = core.unwrap().split_whitespace().take(2).collect();
    report.holds(core == ["0", "0"], format!("cores of {core:?} bytes"));
    // No UDP socket is connected: a remote address that is not zero would be a client or a peer.
    let mut sockets = 0;
    for table in ["udp", "udp6"] {
        let text = fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap();
        for line in text.lines().skip(1) {
            let remote = line.split_whitespace().nth(2).unwrap();
            let is_none = remote.bytes().all(|byte| byte == b'0' || byte == b':');
            report.holds(is_none, format!("{table}: connected to {remote}"));
            sockets += 1;
        }
    }
    assert!(sockets > 8, "only {sockets} UDP sockets");
    // The control: in the table of Alice's host a connected socket is found by the same search.
    let alice = stage.party(Party::Alice).enter(|| {
        let socket = UdpSocket::bind((Party::Alice.addresses().v4, 0)).unwrap();
        socket.connect((Party::Bob.addresses().v4, 9)).unwrap();
        let thread = fs::read("/proc/thread-self/net/udp").unwrap();
        drop(socket);
        thread
    });
    assert!(
        !in_text(Party::Bob.addresses(), alice).is_empty(),
        "the search is blind"
    );

    let said: Vec<Said> = collect::process(pid)
        .into_iter()
        .filter(|said| !said.place.ends_with("/limits"))
        .collect();
    drop(open);
    report.looked(format!("{sockets} UDP sockets"));
    collect::search(&mut report, &said, &hidden());
    let status = daemon.crash();
    report.holds(!status.core_dumped(), format!("a core: {status}"));
    report.looked("a crash");
    report
}
