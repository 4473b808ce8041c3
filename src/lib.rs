//! A TURN/STUN relay that keeps its mouth shut: neither party of a call, nor a log line, nor a
//! metric learns an endpoint's address.
//!
//! # The map
//! As in a router, a control plane decides and data planes execute. Arrows point one way; a test
//! holds them.
//!
//! ```text
//! proto ← turn ← dataplane ← admin ← config ← daemon ← main
//! wire    state  packets     HTTP    typed    wiring
//! ```
//!
//! - [`proto`]: bytes to types and back (RFC 8489, RFC 8656). No state, no clock, no allocation.
//! - [`turn`]: the server as a state machine. It owns allocations, permissions and channel
//!   bindings, judges peers and credentials, and decides where each packet goes. No I/O.
//! - [`dataplane`]: sockets and worker threads, each around one server, and the directory in which
//!   workers find each other's allocations.
//! - [`admin`]: HTTP for operators. Reads counters.
//! - [`config`]: what the operator wrote, what it means, and what each layer is told.
//! - [`daemon`]: the wiring, from arguments to exit code.
//!
//! # The walk of one packet
//! Two parties of a call have an allocation each. A sends ChannelData:
//!
//! 1. A's worker receives it, with up to 31 others, into a slot with room in front
//!    (`dataplane/worker.rs`, `dataplane/sys/receive.rs`).
//! 2. [`turn::Server::handle_client`] finds A's allocation by its 5-tuple, and by the channel the
//!    *route*: to B's relayed transport address, good until a deadline (`turn/forward.rs`).
//! 3. That address is this server's own, so the packet takes the *hairpin*: the directory
//!    (`dataplane/directory.rs`) holds B's *landing*, published by B's worker. It says whether B
//!    admits A (a permission for A's relay IP, and A's relayed address among those that B named),
//!    and on which channel, if any (`turn/route.rs`).
//! 4. The payload stays where it is; a ChannelData header, or a Data indication with A's
//!    *relayed* address, is written around it. A's own address is nowhere in it.
//! 5. A's worker counts it on both allocations and on the path it took, and sends it with the
//!    rest of the batch from its own socket of B's listener (`dataplane/sys/send.rs`).
//!
//! No lock, no allocation, no other thread and no log line on that walk; one receive, one send.
//!
//! A party on TCP, TLS or DTLS has its connection with a stream worker (`dataplane/stream`), which
//! reads messages into the same kind of batch; from step 2 on all is the same. A packet *for* such a
//! party crosses a bounded ring to the worker that has its connection (`dataplane/ring.rs`), unless
//! that is the one that received it.

pub mod admin;
pub mod config;
pub mod daemon;
pub mod dataplane;
pub mod proto;
pub mod turn;
