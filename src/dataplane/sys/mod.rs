//! The kernel's door, and but for `dtls/sys.rs` the only unsafe code of this project: UDP sockets
//! with batched receive and send, readiness, wake-ups, this machine's addresses, clocks, CPUs and
//! limits.
//!
//! It owns no policy and no protocol: it does not know what a datagram means. It does own the
//! header fields of outgoing packets, so that nothing of one party's packets shows in those sent
//! to the other: TTL and hop limit 64, the configured DSCP, flow label 0 (RFC 6437 §3), DF only
//! when asked (RFC 8656 §12, §15). ECN (RFC 3168 §5) is read with each datagram and given with
//! each send.
//!
//! Nothing here prints an address: sockets and batches have a `Debug` that shows none.
#![expect(
    unsafe_code,
    reason = "system calls that neither std nor socket2 offer; outside this module only dtls/sys.rs is unsafe"
)]

#[cfg(not(all(target_os = "linux", target_env = "gnu", target_pointer_width = "64")))]
compile_error!("taciturn runs on 64-bit Linux with glibc only, for now");

mod abi;
mod crowd;
mod errors;
mod machine;
mod poll;
mod receive;
mod send;
mod send_batch;
mod tcp;
#[cfg(test)]
mod testing;
mod udp;

pub use crowd::{CrowdSocket, Inbox, Outbox, Posted, RUN_MAX, SEGMENTS_MAX};
pub use errors::{IcmpError, receive_errors};
pub use machine::{
    allowed_cpus, clock_is_synchronised, default_route_addresses, forbid_core_dumps,
    hard_descriptor_limit, local_addresses, monotonic_nanos, open_descriptors, pin_current_thread,
    process_cpu_nanos, raise_descriptor_limit, unix_seconds,
};
pub use poll::{Interest, Poller, Ready, Waker};
pub use receive::{HEADROOM, Received, RecvBatch, TAILROOM};
pub use send::{Refused, Sent, send_parts, send_to, send_to_dont_fragment};
pub use send_batch::{Packet, SendBatch};
pub use tcp::{Sharing, TcpListener, TcpStream};
pub use udp::{Ecn, SocketOptions, UdpSocket};
