//! coturn's names for what we count too, so that dashboards made for it go on, with values that move
//! while a call lives. What coturn counts with TURN's framing is payload here.
//!
//! They are untyped: its counters do not end in `_total`, which the format has counters do.

use std::fmt::Write as _;
use std::sync::atomic::Ordering;

use super::Scrape;
use crate::dataplane::Handle;
use crate::turn::Transport;
use crate::turn::stats::{Direction, DropReason, Path};

/// As coturn spells the client's transport.
const fn spelled(transport: Transport) -> &'static str {
    match transport {
        Transport::Udp => "UDP",
        Transport::Tcp => "TCP",
        Transport::Tls => "TLS/TCP",
        Transport::Dtls => "DTLS",
    }
}

/// The text, family by family.
struct Page(String);

impl Page {
    fn family(&mut self, name: &str, help: &str, samples: &[(String, u64)]) {
        write!(self.0, "# HELP {name} {help}\n# TYPE {name} untyped\n").ok();
        for (labels, value) in samples {
            writeln!(self.0, "{name}{labels} {value}").ok();
        }
    }

    fn one(&mut self, name: &str, help: &str, value: u64) {
        self.family(name, help, &[(String::new(), value)]);
    }
}

impl Scrape<'_> {
    /// Everything under coturn's names.
    pub(super) fn coturn(&self, dataplane: &Handle, realm: &str) -> String {
        let mut page = Page(String::new());
        self.coturn_requests(&mut page);
        self.coturn_traffic(&mut page, realm);
        let allocations = Transport::ALL.into_iter().map(|transport| {
            let live = self.sum(|w| w.over(transport).allocations.load(Ordering::Relaxed));
            (format!("{{type=\"{}\"}}", spelled(transport)), live)
        });
        let allocations: Vec<_> = allocations.collect();
        page.family(
            "turn_total_allocations",
            "As coturn calls taciturn_allocations.",
            &allocations,
        );
        self.coturn_limits(&mut page, dataplane);
        self.coturn_calls(&mut page);
        page.0
    }

    fn coturn_requests(&self, page: &mut Page) {
        let answered = |is_meant: fn(&str, u16) -> bool| {
            let all = self.workers.iter().flat_map(|worker| worker.requests());
            all.filter(|(method, code, _)| is_meant(method, *code))
                .map(|(_, _, count)| count)
                .sum::<u64>()
        };
        let all = answered(|method, _| method == "binding");
        let good = answered(|method, code| method == "binding" && code == 0);
        page.one("stun_binding_request", "Binding requests.", all);
        page.one(
            "stun_binding_response",
            "Successful responses to them.",
            good,
        );
        // Counted by itself: workers go on meanwhile, and a difference could fall.
        let bad = answered(|method, code| method == "binding" && code != 0);
        page.one("stun_binding_error", "Error responses to them.", bad);
        let refused = answered(|_, code| code == 401);
        let silent = self.sum(|w| w.drops(DropReason::Unvalidated));
        page.one(
            "turn_unauthenticated_401_requests",
            "Requests that got a 401, or would have.",
            refused + silent,
        );
        page.one(
            "turn_unauthenticated_401_responses",
            "Responses with 401.",
            refused,
        );
        page.one(
            "turn_unauthenticated_401_dropped_responses",
            "Responses left out because their source had too many.",
            silent,
        );
    }

    fn coturn_traffic(&self, page: &mut Page, realm: &str) {
        let traffic = |direction| {
            let paths = || Path::ALL.iter();
            let packets = self.sum(|w| {
                let of = |path: &Path| w.traffic(*path, direction).packets.total();
                paths().map(of).sum()
            });
            let bytes = self.sum(|w| {
                let of = |path: &Path| w.traffic(*path, direction).bytes.total();
                paths().map(of).sum()
            });
            (packets, bytes)
        };
        let (from_client, to_client) = (traffic(Direction::In), traffic(Direction::Out));
        // The configuration admits no realm with a quote or a backslash.
        let realm = format!("{{realm=\"{realm}\"}}");
        // What comes from a client goes to a peer, and the other way round.
        for (side, received, sent) in [
            ("", from_client, to_client),
            ("peer_", to_client, from_client),
        ] {
            for (what, help, value) in [
                ("rcvp", "Packets received.", received.0),
                ("rcvb", "Bytes of payload received.", received.1),
                ("sentp", "Packets sent.", sent.0),
                ("sentb", "Bytes of payload sent.", sent.1),
            ] {
                let labelled = [(realm.clone(), value)];
                page.family(&format!("turn_traffic_{side}{what}"), help, &labelled);
                page.one(&format!("turn_total_traffic_{side}{what}"), help, value);
            }
        }
    }

    fn coturn_limits(&self, page: &mut Page, dataplane: &Handle) {
        let (occupied, total) = dataplane.unvalidated();
        page.one(
            "turn_ratelimit_occupied_buckets",
            "Sources whose unauthenticated requests are being counted.",
            occupied as u64,
        );
        page.one(
            "turn_ratelimit_total_buckets",
            "Sources that can be told apart for that.",
            total as u64,
        );
        page.one(
            "turn_ratelimit_hash_collisions",
            "Always 0: sources that share a bucket are not told apart.",
            0,
        );
    }

    fn coturn_calls(&self, page: &mut Page) {
        let received = self.sum(|w| w.calls.received.total());
        let dropped = DropReason::ALL.iter();
        let dropped = dropped.map(|reason| self.sum(|w| w.drops(*reason))).sum();
        page.one(
            "turn_packet_processed",
            "Datagrams and messages taken from sockets.",
            self.sum(|w| w.datagrams.total()),
        );
        page.one("turn_packet_dropped", "Datagrams dropped.", dropped);
        page.one(
            "turn_udp_recvmmsg_calls",
            "Calls of recvmmsg.",
            self.sum(|w| w.calls.receive.total()),
        );
        page.one(
            "turn_udp_recvmmsg_packets",
            "Datagrams that they gave.",
            received,
        );
        page.one(
            "turn_udp_sendmmsg_flushes",
            "Calls of sendmmsg.",
            self.sum(|w| w.calls.send.total()),
        );
        page.one(
            "turn_udp_sendmmsg_datagrams",
            "Datagrams that they took.",
            self.sum(|w| w.calls.sent.total()),
        );
        page.one(
            "turn_udp_sendmmsg_gso_datagrams",
            "Those of them that left in one piece with others.",
            self.sum(|w| w.calls.sent_in_runs.total()),
        );
    }
}
