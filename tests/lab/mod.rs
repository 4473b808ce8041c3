//! A small internet for end-to-end tests: two parties and a relay, each in a
//! network namespace of its own, with captures on both legs.
//!
//! ```text
//!   alice ── leg ── relay ── leg ── bob
//! ```
//!
//! The relay's namespace is the router between the parties too, so a direct
//! path between them exists: a call that stays relayed does so by choice.
//! Needs root and the tools that `.ci/install` installs; says so loudly when
//! something is missing. Everything is taken down when [`Lab`] is dropped,
//! even by a failing test.

pub(crate) mod capture;
pub(crate) mod certificate;
pub(crate) mod http;
pub(crate) mod namespace;
pub(crate) mod packet;
pub(crate) mod process;
pub(crate) mod relay;
pub(crate) mod search;

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use capture::Capture;
use namespace::Namespace;

/// One end of a leg, by both address families.
#[derive(Clone, Copy)]
pub(crate) struct Addresses {
    pub(crate) v4: Ipv4Addr,
    pub(crate) v6: Ipv6Addr,
}

impl Addresses {
    pub(crate) fn all(self) -> [IpAddr; 2] {
        [self.v4.into(), self.v6.into()]
    }
}

/// Where the relay listens and relays: on neither leg's network.
pub(crate) const SERVICE: Addresses = Addresses {
    v4: Ipv4Addr::new(203, 0, 113, 7),
    v6: Ipv6Addr::new(0x2001, 0xdb8, 7, 0, 0, 0, 0, 7),
};

/// A party of the call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Party {
    Alice,
    Bob,
}

impl Party {
    pub(crate) const BOTH: [Self; 2] = [Self::Alice, Self::Bob];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Alice => "alice",
            Self::Bob => "bob",
        }
    }

    pub(crate) fn other(self) -> Self {
        match self {
            Self::Alice => Self::Bob,
            Self::Bob => Self::Alice,
        }
    }

    /// The party's own addresses, which the other one must never see.
    pub(crate) fn addresses(self) -> Addresses {
        match self {
            Self::Alice => Addresses {
                v4: Ipv4Addr::new(192, 0, 2, 10),
                v6: Ipv6Addr::new(0x2001, 0xdb8, 0xa, 0, 0, 0, 0, 0x10),
            },
            Self::Bob => Addresses {
                v4: Ipv4Addr::new(198, 51, 100, 20),
                v6: Ipv6Addr::new(0x2001, 0xdb8, 0xb, 0, 0, 0, 0, 0x20),
            },
        }
    }

    /// The router's addresses on this party's leg.
    fn gateway(self) -> Addresses {
        match self {
            Self::Alice => Addresses {
                v4: Ipv4Addr::new(192, 0, 2, 1),
                v6: Ipv6Addr::new(0x2001, 0xdb8, 0xa, 0, 0, 0, 0, 1),
            },
            Self::Bob => Addresses {
                v4: Ipv4Addr::new(198, 51, 100, 1),
                v6: Ipv6Addr::new(0x2001, 0xdb8, 0xb, 0, 0, 0, 0, 1),
            },
        }
    }

    /// The name of this leg's interface in the relay's namespace.
    fn leg(self) -> &'static str {
        match self {
            Self::Alice => "to-alice",
            Self::Bob => "to-bob",
        }
    }
}

/// Two cores carry one call at a time: a second one would take the first
/// one's frames, and a test would fail for no fault of the relay.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// The three namespaces, joined.
pub(crate) struct Lab {
    pub(crate) relay: Namespace,
    alice: Namespace,
    bob: Namespace,
    directory: tempfile::TempDir,
    _turn: MutexGuard<'static, ()>,
}

impl Lab {
    /// Builds the network. Panics, with the reason, where that is impossible.
    pub(crate) fn new(tools: &[&str]) -> Self {
        // A failed test poisons the lock, which says nothing about the next one.
        let turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        require(tools);
        namespace::sweep();
        let lab = Self {
            relay: Namespace::new("relay"),
            alice: Namespace::new("alice"),
            bob: Namespace::new("bob"),
            directory: tempfile::Builder::new()
                .prefix("lab-")
                .tempdir_in(env!("CARGO_TARGET_TMPDIR"))
                .expect("cargo's directory for tests is writable"),
            _turn: turn,
        };
        for party in Party::BOTH {
            lab.join(party);
        }
        for address in ["203.0.113.7/32", "2001:db8:7::7/128"] {
            lab.relay.ip(&["address", "add", address, "dev", "lo"]);
        }
        certificate::issue(&lab);
        lab.relay.write_setting("net/ipv4/ip_forward", "1");
        lab.relay.write_setting("net/ipv6/conf/all/forwarding", "1");
        lab
    }

    pub(crate) fn party(&self, party: Party) -> &Namespace {
        match party {
            Party::Alice => &self.alice,
            Party::Bob => &self.bob,
        }
    }

    /// For logs, captures and profiles; kept if the test fails.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory().join(name)
    }

    /// Starts to capture what passes between the relay and `party`.
    pub(crate) fn capture(&self, party: Party) -> Capture {
        Capture::start(&self.relay, party.leg(), self.directory())
    }

    fn join(&self, party: Party) {
        let (inside, leg) = (self.party(party), party.leg());
        self.relay.ip(&[
            "link",
            "add",
            leg,
            "type",
            "veth",
            "peer",
            "name",
            "eth0",
            "netns",
            inside.name(),
        ]);
        let ends = [
            (&self.relay, leg, party.gateway()),
            (inside, "eth0", party.addresses()),
        ];
        for (namespace, interface, addresses) in ends {
            // Segments are seen on the wire one by one, so that they can be counted.
            namespace.run(&[
                "ethtool", "-K", interface, "gso", "off", "tso", "off", "gro", "off",
            ]);
            namespace.run(&["ethtool", "-K", interface, "tx-udp-segmentation", "off"]);
            let (v4, v6) = (
                format!("{}/24", addresses.v4),
                format!("{}/64", addresses.v6),
            );
            namespace.ip(&["address", "add", &v4, "dev", interface]);
            namespace.ip(&["address", "add", &v6, "dev", interface, "nodad"]);
            namespace.ip(&["link", "set", interface, "up"]);
        }
        inside.know(certificate::NAME, SERVICE);
        let gateway = party.gateway();
        inside.ip(&["route", "add", "default", "via", &gateway.v4.to_string()]);
        inside.ip(&[
            "-6",
            "route",
            "add",
            "default",
            "via",
            &gateway.v6.to_string(),
        ]);
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.directory.disable_cleanup(true);
            writeln!(io::stderr(), "logs and captures: {:?}", self.directory()).ok();
        }
    }
}

/// Panics with a clear message where this machine lacks what the lab needs.
fn require(tools: &[&str]) {
    assert!(
        rustix::process::geteuid().is_root(),
        "the lab makes network namespaces, which needs root: run it as root (see .ci/run)"
    );
    for tool in ["ip", "ethtool", "tcpdump"].iter().chain(tools) {
        let found = Command::new("sh")
            .args(["-c", "command -v \"$1\" >/dev/null", "sh", tool])
            .status()
            .expect("sh runs")
            .success();
        assert!(found, "`{tool}` is not installed: run .ci/install");
    }
}
