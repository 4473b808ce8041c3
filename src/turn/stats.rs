//! Plain counters. [`Meters`] belong to one allocation, [`Counters`] to one worker; both are
//! atomics so that a scrape may read them while the worker writes, and neither knows a format.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use once_cell::race::OnceBox;

use super::address::Transport;
use super::clock::Tick;
use super::histogram::{Histograms, Sizes};
use super::media::{MediaCounters, MediaMeters, Quality, Spell, Tally};
use super::outcome::EndReason;

/// A counter that one thread adds to and any thread reads: a load and a store, no locked
/// instruction.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`; only the owning worker may call it.
    pub fn add(&self, n: u64) {
        self.0.store(
            self.0.load(Ordering::Relaxed).wrapping_add(n),
            Ordering::Relaxed,
        );
    }

    /// Adds `n` where several workers may add.
    pub fn add_shared(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// What has been counted.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Declares an enum whose variants are metric labels.
macro_rules! labels {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident => $label:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name { $($(#[$vdoc])* $variant,)+ }

        impl $name {
            /// Every variant, in the order of its index.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The word that stands for it in metrics and logs.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self { $(Self::$variant => $label,)+ }
            }
        }
    };
}

pub(crate) use labels;

labels! {
    /// The way a packet took through the relay.
    Path {
        /// Between two relayed addresses of this server: one receive, one send, in whichever
        /// framing either side uses.
        Hairpin => "hairpin",
        /// By a relay socket, in a channel; or on a TCP data connection, where a packet is a read.
        Relay => "relay",
        /// By a relay socket, in a Send or Data indication.
        Indication => "indication",
    }
}

labels! {
    /// As the client sees it.
    Direction {
        /// From the client.
        In => "in",
        /// To the client.
        Out => "out",
    }
}

labels! {
    /// Why a datagram was dropped without an answer.
    DropReason {
        /// Neither STUN nor ChannelData (RFC 8656 §12), or not decodable as either.
        Malformed => "malformed",
        /// A STUN message without the magic cookie: classic RFC 3489, or noise.
        NoCookie => "no_cookie",
        /// A FINGERPRINT that does not fit.
        Fingerprint => "fingerprint",
        /// A response or an indication that no client sends to a server.
        Unexpected => "unexpected",
        /// A method this server does not know.
        UnknownMethod => "unknown_method",
        /// A Binding request where Binding is off.
        BindingOff => "binding_off",
        /// A source that no client has: port 0, broadcast, multicast, or this server itself.
        BadSource => "bad_source",
        /// An unvalidated source, or one that shows no credential, over its cap of replies.
        Unvalidated => "unvalidated",
        /// A request that failed to authenticate, from a network over its cap of these.
        PrefixFailures => "prefix_failures",
        /// Data on a 5-tuple without an allocation.
        NoAllocation => "no_allocation",
        /// ChannelData on a number that is not bound, or whose binding expired.
        NoChannel => "no_channel",
        /// Data for a peer without a permission, or from one.
        NoPermission => "no_permission",
        /// A Send indication that lacks an attribute or has one it must not have.
        BadIndication => "bad_indication",
        /// The policy does not admit the peer.
        PolicyRefused => "policy",
        /// The peer is an address of this server, but no live relayed transport address.
        NoLanding => "no_landing",
        /// The other allocation has no permission for this relayed address.
        NotPermitted => "not_permitted",
        /// The other allocation permits this relayed IP but never named this relayed address.
        NotNamed => "not_named",
        /// One of the two belongs to a call that the other does not.
        OtherCall => "other_call",
        /// The families of peer and relayed address differ.
        Family => "family",
        /// The packet does not fit the receiver's framing.
        TooLarge => "too_large",
        /// A packet reached a relay socket from a relay address of this server.
        ByKernel => "by_kernel",
        /// A relay socket's datagram whose allocation is gone.
        NoRelay => "no_relay",
        /// An ICMP error that no client is told of: about a hidden peer or one without a
        /// permission, of a type that says nothing of a datagram, or one too many.
        Icmp => "icmp",
        /// The client's connection is gone, and it may come back with its ticket.
        Away => "client_away",
        /// A peer's TCP connection beyond those that an allocation may have, or a second one from
        /// the same transport address.
        Connections => "connections",
        /// The kernel refused the send, or its buffer was full.
        SendRefused => "send_refused",
        /// The ring to another worker was full.
        QueueFull => "queue_full",
        /// The client's connection is slower than what is sent to it.
        SlowReader => "slow_reader",
        /// A load balancer's datagram does not say for which client it is.
        NoProxyHeader => "no_proxy_header",
        /// More than the allocation, its user or its tenant may have relayed a second.
        OverRate => "over_rate",
    }
}

labels! {
    /// Which limit was reached, by its name in the configuration if it is one of that; a credential
    /// may claim a smaller one.
    Limit {
        /// Allocations of one user.
        UserAllocations => "user_allocations",
        /// Allocations of one tenant.
        TenantAllocations => "tenant_allocations",
        /// Allocations of all.
        TotalAllocations => "total_allocations",
        /// Allocate requests of one network.
        PrefixAllocates => "prefix_allocates",
        /// Failed authentications of one network.
        PrefixFailures => "prefix_failures",
        /// Openings and ends of allocations that wait to be told of; no limit of the configuration.
        Journal => "journal",
        /// Permissions of one allocation.
        Permissions => "permissions",
        /// Channels of one allocation.
        Channels => "channels",
        /// Bits a second of one allocation.
        AllocationRate => "allocation_rate",
        /// Packets a second of one allocation.
        AllocationPackets => "allocation_packets",
        /// Bits a second of one user.
        UserRate => "user_rate",
        /// Packets a second of one user.
        UserPackets => "user_packets",
        /// Bits a second of one tenant.
        TenantRate => "tenant_rate",
        /// Packets a second of one tenant.
        TenantPackets => "tenant_packets",
    }
}

labels! {
    /// Why a request failed to authenticate.
    AuthFailure {
        /// No MESSAGE-INTEGRITY: the first request of every client.
        Missing => "missing",
        /// MESSAGE-INTEGRITY without USERNAME, REALM or NONCE, or a wrong PASSWORD-ALGORITHM.
        Incomplete => "incomplete",
        /// Unknown user or wrong password; the two are not told apart.
        Wrong => "wrong",
        /// A good credential that is pinned to another node.
        OtherNode => "other_node",
        /// A credential past its expiry.
        Expired => "expired",
        /// A credential that was taken back, or whose user or call was.
        Revoked => "revoked",
        /// A credential that lasts for longer than any may.
        TooLong => "too_long",
        /// A nonce that aged out or belongs to another source.
        StaleNonce => "stale_nonce",
        /// A good credential that does not own this 5-tuple's allocation.
        OtherUser => "other_user",
    }
}

const PATHS: usize = Path::ALL.len();
const DIRECTIONS: usize = Direction::ALL.len();
const DROPS: usize = DropReason::ALL.len();
const FAILURES: usize = AuthFailure::ALL.len();
const LIMITS: usize = Limit::ALL.len();

/// Packets and bytes.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Application datagrams.
    pub packets: Counter,
    /// Their payload, without TURN framing.
    pub bytes: Counter,
}

/// A run of packets and the bytes of their payload, before they are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Volume {
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
}

impl Volume {
    /// One packet of `bytes`.
    pub(crate) const fn one(bytes: usize) -> Self {
        Self {
            packets: 1,
            bytes: bytes as u64,
        }
    }
}

/// What went through one allocation. Two relayed addresses of a dual allocation share it.
#[derive(Debug, Default)]
pub struct Meters {
    traffic: [[Traffic; DIRECTIONS]; PATHS],
    /// Packets for this allocation's client that were dropped.
    pub drops: Counter,
    /// Packets from this allocation's client that were dropped; the client's worker alone counts.
    pub drops_in: Counter,
    last_heard: AtomicU64,
    /// Made once there is media, so that an idle allocation has room for a pointer alone.
    media: OnceBox<[MediaMeters; DIRECTIONS]>,
}

impl Meters {
    /// Traffic on `path` in `direction`.
    #[must_use]
    pub const fn traffic(&self, path: Path, direction: Direction) -> &Traffic {
        &self.traffic[path as usize][direction as usize]
    }

    /// Counts a run from the client; the client's worker alone does so.
    pub(crate) fn received(&self, path: Path, run: Volume) {
        let traffic = self.traffic(path, Direction::In);
        traffic.packets.add(run.packets);
        traffic.bytes.add(run.bytes);
    }

    /// Counts a run to the client; any worker may do so.
    pub(crate) fn sent(&self, path: Path, run: Volume) {
        let traffic = self.traffic(path, Direction::Out);
        traffic.packets.add_shared(run.packets);
        traffic.bytes.add_shared(run.bytes);
    }

    /// Notes that the client gave a sign of life.
    pub(crate) fn heard(&self, now: Tick) {
        self.last_heard.store(now.nanos(), Ordering::Relaxed);
    }

    /// When the client last gave a sign of life.
    #[must_use]
    pub fn last_heard(&self) -> Tick {
        Tick::from_nanos(self.last_heard.load(Ordering::Relaxed))
    }

    /// Packets in `direction` that were dropped.
    #[must_use]
    pub fn dropped(&self, direction: Direction) -> u64 {
        match direction {
            Direction::In => self.drops_in.total(),
            Direction::Out => self.drops.total(),
        }
    }

    /// Counts what a run from the client showed of its media; the client's worker alone does so.
    pub(crate) fn media_received(&self, tally: &Tally) {
        self.media(Direction::In).add(tally);
    }

    /// Counts what a run to the client showed of its media; any worker may do so.
    pub(crate) fn media_sent(&self, tally: &Tally) {
        self.media(Direction::Out).add_shared(tally);
    }

    /// Notes the jitter of its media.
    pub(crate) fn set_jitter(&self, direction: Direction, jitter: Duration) {
        self.media(direction).set_jitter(jitter);
    }

    /// Something of the memory that counts media, for
    /// [`look_ahead`](crate::turn::Server::look_ahead).
    pub(crate) fn touch(&self) -> u64 {
        self.media.get().map_or(0, |[of_in, of_out]| {
            of_in.expected_packets() ^ of_out.expected_packets()
        })
    }

    fn media(&self, direction: Direction) -> &MediaMeters {
        &self.media.get_or_init(Box::default)[direction as usize]
    }

    /// The quality of its media in `direction`, if there was any in either.
    #[must_use]
    pub fn quality(&self, direction: Direction) -> Option<Quality> {
        let media = self.media.get()?;
        Some(media[direction as usize].quality())
    }

    /// Packets in `direction` over all paths.
    #[must_use]
    pub fn packets(&self, direction: Direction) -> u64 {
        Path::ALL
            .iter()
            .map(|path| self.traffic(*path, direction).packets.total())
            .sum()
    }
}

/// A response code, as the metrics count them: the class's own 0 for success.
const CODES: &[u16] = &[
    0, 300, 400, 401, 403, 405, 420, 437, 438, 440, 441, 442, 443, 446, 447, 486, 500, 508,
];
const METHODS: &[&str] = &[
    "binding",
    "allocate",
    "refresh",
    "create_permission",
    "channel_bind",
    "connect",
    "connection_bind",
    "other",
];

/// What one worker has of clients of one transport.
#[derive(Debug, Default)]
pub struct Over {
    /// Allocations that are live.
    pub allocations: AtomicU64,
    /// Allocations ever made.
    pub allocations_total: Counter,
    /// Connections that are open.
    pub connections: AtomicU64,
    /// Connections ever taken up, once their transport was known.
    pub connections_total: Counter,
    /// Connections closed without an allocation: on a deadline, or for want of room.
    pub connections_refused: Counter,
}

/// What one worker's system calls for datagrams did.
#[derive(Debug, Default)]
pub struct Calls {
    /// Calls that receive.
    pub receive: Counter,
    /// Datagrams that they gave.
    pub received: Counter,
    /// Those among them that came merged with others of their flow (GRO).
    pub received_merged: Counter,
    /// Calls that send.
    pub send: Counter,
    /// Datagrams that the kernel took.
    pub sent: Counter,
    /// Those among them that left in one piece with others (GSO).
    pub sent_in_runs: Counter,
    /// 1 while sends in one piece are given up because the interface cannot cut them.
    pub runs_given_up: AtomicU64,
    /// Datagrams that found the receive queue of a relay socket full.
    pub relay_queue_drops: Counter,
}

impl Calls {
    /// Counts a call that gave `messages`, each taken for one datagram.
    pub(crate) fn took(&self, messages: usize) {
        self.receive.add(1);
        self.received.add(messages as u64);
    }

    /// Counts that a message was `datagrams` in truth, where it was more than one.
    pub(crate) fn took_merged(&self, datagrams: usize) {
        if let Some(more @ 1..) = datagrams.checked_sub(1) {
            self.received.add(more as u64);
            self.received_merged.add(datagrams as u64);
        }
    }

    /// Counts a datagram that was sent by itself.
    pub(crate) fn sent_one(&self) {
        self.send.add(1);
        self.sent.add(1);
    }
}

/// What one worker has counted.
#[derive(Debug, Default)]
pub struct Counters {
    traffic: [[Traffic; DIRECTIONS]; PATHS],
    drops: [Counter; DROPS],
    auth_failures: [Counter; FAILURES],
    limited: [Counter; LIMITS],
    requests: [[Counter; CODES.len()]; METHODS.len()],
    over: [Over; Transport::ALL.len()],
    sizes: [Sizes; DIRECTIONS],
    ended: [Counter; EndReason::ALL.len()],
    /// How values are distributed.
    pub histograms: Histograms,
    /// What the system calls for packets did.
    pub calls: Calls,
    media: [MediaCounters; DIRECTIONS],
    /// Allocations that are live.
    pub allocations: AtomicU64,
    /// Allocations ever made.
    pub allocations_total: Counter,
    /// How often a client took its allocation to another 5-tuple.
    pub moved: Counter,
    /// Datagrams handed to the worker that owns their 5-tuple.
    pub misdirected: Counter,
    /// Nanoseconds for which the worker was not waiting.
    pub busy: Counter,
    /// Turns of the worker's loop.
    pub turns: Counter,
    /// Datagrams that the worker took from its sockets.
    pub datagrams: Counter,
}

impl Counters {
    /// What concerns clients of one transport.
    #[must_use]
    pub const fn over(&self, transport: Transport) -> &Over {
        &self.over[transport as usize]
    }

    /// The quality of media in `direction`; what goes from one allocation to another is in both.
    #[must_use]
    pub const fn media(&self, direction: Direction) -> &MediaCounters {
        &self.media[direction as usize]
    }

    /// Counts what a run showed of its media.
    pub(crate) fn media_passed(&self, direction: Direction, tally: &Tally) {
        self.media(direction).add(tally);
    }

    /// Records what a spell of a stream came to.
    pub(crate) fn spell_ended(&self, direction: Direction, spell: &Spell) {
        self.media(direction).record(spell);
    }

    /// Counts a relayed run.
    pub(crate) fn relayed(&self, path: Path, direction: Direction, run: Volume) {
        let traffic = &self.traffic[path as usize][direction as usize];
        traffic.packets.add(run.packets);
        traffic.bytes.add(run.bytes);
    }

    /// Counts the size of a payload that is relayed.
    pub(crate) fn sized(&self, direction: Direction, bytes: usize) {
        self.sizes[direction as usize].observe(bytes);
    }

    /// Sizes of what was relayed in `direction`.
    #[must_use]
    pub const fn sizes(&self, direction: Direction) -> &Sizes {
        &self.sizes[direction as usize]
    }

    pub(crate) fn ended(&self, reason: EndReason) {
        self.ended[reason as usize].add(1);
    }

    /// Allocations that ended for `reason`.
    #[must_use]
    pub fn ends(&self, reason: EndReason) -> u64 {
        self.ended[reason as usize].total()
    }

    /// Counts `n` packets dropped for `reason`.
    pub fn dropped(&self, reason: DropReason, n: u64) {
        self.drops[reason as usize].add(n);
    }

    pub(crate) fn auth_failed(&self, why: AuthFailure) {
        self.auth_failures[why as usize].add(1);
    }

    /// Counts a request that was refused, or a packet that was dropped, for a limit.
    pub(crate) fn limited(&self, limit: Limit) {
        self.limited[limit as usize].add(1);
    }

    /// Counts an answered request; `code` 0 is success.
    pub(crate) fn answered(&self, method: &str, code: u16) {
        let last = METHODS.len() - 1;
        let method = METHODS.iter().position(|m| *m == method).unwrap_or(last);
        if let Some(code) = CODES.iter().position(|c| *c == code) {
            self.requests[method][code].add(1);
        }
    }

    /// Traffic on `path` in `direction`.
    #[must_use]
    pub const fn traffic(&self, path: Path, direction: Direction) -> &Traffic {
        &self.traffic[path as usize][direction as usize]
    }

    /// Packets dropped for `reason`.
    #[must_use]
    pub fn drops(&self, reason: DropReason) -> u64 {
        self.drops[reason as usize].total()
    }

    /// Requests that failed to authenticate for `why`.
    #[must_use]
    pub fn auth_failures(&self, why: AuthFailure) -> u64 {
        self.auth_failures[why as usize].total()
    }

    /// Requests that were refused and packets that were dropped for `limit`.
    #[must_use]
    pub fn limits_reached(&self, limit: Limit) -> u64 {
        self.limited[limit as usize].total()
    }

    /// Requests answered so far: method, code (0 is success), count; all of them, also the zeros.
    pub fn requests(&self) -> impl Iterator<Item = (&'static str, u16, u64)> + '_ {
        METHODS
            .iter()
            .zip(&self.requests)
            .flat_map(|(method, counts)| {
                CODES
                    .iter()
                    .zip(counts)
                    .map(|(code, count)| (*method, *code, count.total()))
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_and_its_label_belong_together() {
        for (index, reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, index);
        }
        for (index, limit) in Limit::ALL.iter().enumerate() {
            assert_eq!(*limit as usize, index);
        }
        for (index, reason) in EndReason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, index);
        }
        let counters = Counters::default();
        counters.dropped(DropReason::NotNamed, 2);
        assert_eq!(counters.drops(DropReason::NotNamed), 2);
        counters.answered("allocate", 486);
        assert!(counters.requests().any(|row| row == ("allocate", 486, 1)));
        counters.answered("no such method", 0);
        assert!(counters.requests().any(|row| row == ("other", 0, 1)));
    }
}
