//! `forward` by io_uring: every socket has a multishot receive over one ring of buffers, and all
//! sends, over whatever sockets, leave with the one system call that also waits.
#![expect(unsafe_code, reason = "the ring shares memory with the kernel")]

use std::alloc::{Layout, alloc_zeroed};
use std::io;
use std::mem::zeroed;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::{Context, Result, ensure};
use io_uring::squeue::Entry;
use io_uring::types::{BufRingEntry, Fd};
use io_uring::{IoUring, Probe, cqueue, opcode};
use libc::{iovec, msghdr, sockaddr_in};

use super::Options;
use super::control::key;
use super::forward::{Clients, Framing, is_data};
use super::sys::{DATAGRAM, ROOM, bind, name};

/// Submissions that fit before a system call is due; completions get four times as many.
const ENTRIES: u32 = 1024;
/// Buffers that receives take and sends give back.
const BUFFERS: u16 = 1024;
/// In front of the payload the kernel puts 16 bytes of lengths and the name asked for.
const PAYLOAD: usize = 16 + 16;
const BUFFER: usize = PAYLOAD + DATAGRAM;
const GROUP: u16 = 0;

const LISTENER: u64 = u32::MAX as u64;
/// Marks the completion of a send; the rest is its buffer.
const SENT: u64 = 1 << 63;

pub(crate) fn run(options: Options) -> Result<()> {
    let listener = bind(options.listen, false, false)
        .with_context(|| format!("cannot listen on {}", options.listen))?;
    let mut ring = ring().context("the kernel forbids io_uring, or is older than 6.1")?;
    let mut forward = Forward {
        listener,
        clients: Clients::new(options, true),
        buffers: Buffers::register(&ring)?,
        sends: (0..BUFFERS).map(|_| Send::new()).collect(),
        // SAFETY: integers and pointers, for which zero is a value.
        template: unsafe { zeroed() },
        queue: Vec::new(),
    };
    forward.template.msg_namelen = 16;
    forward.receive(LISTENER);
    loop {
        forward.submit(&mut ring)?;
        let completions: Vec<cqueue::Entry> = ring.completion().collect();
        for completion in completions {
            forward.complete(&completion);
        }
        while let Some(index) = forward.clients.fresh.pop() {
            forward.receive(u64::try_from(index)?);
        }
    }
}

/// A ring with all it takes, or why not.
fn ring() -> Result<IoUring> {
    let ring = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_cqsize(ENTRIES * 4)
        .build(ENTRIES)?;
    let mut probe = Probe::new();
    ring.submitter().register_probe(&mut probe)?;
    for code in [opcode::RecvMsgMulti::CODE, opcode::SendMsg::CODE] {
        ensure!(probe.is_supported(code), "operation {code} is missing");
    }
    Ok(ring)
}

/// The ring of receive buffers.
struct Buffers {
    entries: *mut BufRingEntry,
    memory: Vec<u8>,
    tail: u16,
}

impl Buffers {
    fn register(ring: &IoUring) -> Result<Self> {
        let size = usize::from(BUFFERS) * size_of::<BufRingEntry>();
        let layout = Layout::from_size_align(size, 4096)?;
        // SAFETY: the layout is not empty.
        let entries = unsafe { alloc_zeroed(layout) };
        ensure!(!entries.is_null(), "no memory");
        let address = u64::try_from(entries.addr())?;
        // SAFETY: the entries live as long as the process.
        unsafe {
            ring.submitter()
                .register_buf_ring_with_flags(address, BUFFERS, GROUP, 0)
        }
        .context("no ring of buffers")?;
        let memory = vec![0; usize::from(BUFFERS) * BUFFER];
        let mut buffers = Self {
            entries: entries.cast(),
            memory,
            tail: 0,
        };
        for id in 0..BUFFERS {
            buffers.give_back(id);
        }
        Ok(buffers)
    }

    fn give_back(&mut self, id: u16) {
        let address = self.bytes(id).as_mut_ptr().addr();
        let slot = usize::from(self.tail % BUFFERS);
        let entry = self.entries.wrapping_add(slot);
        // SAFETY: `slot` is inside the ring, and the kernel does not read it before the tail moves.
        let entry = unsafe { &mut *entry };
        entry.set_addr(u64::try_from(address).unwrap_or_default());
        entry.set_len(u32::try_from(BUFFER).unwrap_or_default());
        entry.set_bid(id);
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: the first entry is initialised; the address is that of a u16 in it.
        let tail = unsafe { BufRingEntry::tail(self.entries) };
        // SAFETY: aligned, shared with the kernel, and written nowhere else.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }

    fn bytes(&mut self, id: u16) -> &mut [u8] {
        let start = usize::from(id) * BUFFER;
        &mut self.memory[start..start + BUFFER]
    }
}

/// What the kernel reads while a send is under way.
struct Send {
    header: msghdr,
    bytes: iovec,
    target: sockaddr_in,
}

impl Send {
    fn new() -> Self {
        Self {
            // SAFETY: integers and pointers, for which zero is a value.
            header: unsafe { zeroed() },
            // SAFETY: as above.
            bytes: unsafe { zeroed() },
            target: name(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0)),
        }
    }
}

struct Forward {
    listener: UdpSocket,
    clients: Clients,
    buffers: Buffers,
    sends: Vec<Send>,
    /// What multishot receives take from the message: the room for a name.
    template: msghdr,
    queue: Vec<Entry>,
}

impl Forward {
    fn submit(&mut self, ring: &mut IoUring) -> io::Result<()> {
        for entry in self.queue.drain(..) {
            // SAFETY: what entries point at lives in `self` until their completion.
            while unsafe { ring.submission().push(&entry) }.is_err() {
                ring.submit()?;
            }
        }
        match ring.submit_and_wait(1) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            other => other.map(|_| ()),
        }
    }

    /// Keeps receiving from the listener or a relay socket.
    fn receive(&mut self, token: u64) {
        let client = usize::try_from(token).unwrap_or(usize::MAX);
        let socket = match self.clients.clients.get(client) {
            Some(client) => &client.relay,
            None => &self.listener,
        };
        let template = &raw const self.template;
        let entry = opcode::RecvMsgMulti::new(Fd(socket.as_raw_fd()), template, GROUP).build();
        self.queue.push(entry.user_data(token));
    }

    fn complete(&mut self, completion: &cqueue::Entry) {
        let (token, flags) = (completion.user_data(), completion.flags());
        if token & SENT != 0 {
            self.buffers
                .give_back(u16::try_from(token & !SENT).unwrap_or_default());
            return;
        }
        if !cqueue::more(flags) {
            self.receive(token);
        }
        let length = usize::try_from(completion.result()).unwrap_or(0);
        let Some(id) = cqueue::buffer_select(flags) else {
            return;
        };
        if length < PAYLOAD || !self.forward(token, id, length - PAYLOAD) {
            self.buffers.give_back(id);
        }
    }

    /// Queues the send of what is in buffer `id`; false if there is nothing to send.
    fn forward(&mut self, token: u64, id: u16, length: usize) -> bool {
        let buffer = self.buffers.bytes(id);
        let (socket, target, skip) = if token == LISTENER {
            // Behind the lengths and the family.
            let [p0, p1, a, b, c, d, ..] = buffer[18..] else {
                return false;
            };
            let from = SocketAddrV4::new(Ipv4Addr::new(a, b, c, d), u16::from_be_bytes([p0, p1]));
            let datagram = &buffer[PAYLOAD..PAYLOAD + length];
            let Some(index) = self
                .clients
                .indexes
                .get(&key(from))
                .filter(|_| is_data(datagram))
            else {
                self.clients.control(datagram, from, &self.listener);
                return false;
            };
            let client = &self.clients.clients[*index];
            let skip = match client.framing {
                Framing::Whole => 0,
                Framing::Bare => ROOM.min(length),
            };
            (&client.relay, client.peer, PAYLOAD + skip)
        } else {
            let Some(client) = usize::try_from(token)
                .ok()
                .and_then(|i| self.clients.clients.get(i))
            else {
                return false;
            };
            let channel = client.channel.to_be_bytes();
            let skip = match client.framing {
                Framing::Whole => {
                    buffer[PAYLOAD..PAYLOAD + 2].copy_from_slice(&channel);
                    0
                }
                Framing::Bare => {
                    let length = u16::try_from(length).unwrap_or(u16::MAX);
                    buffer[PAYLOAD - 4..PAYLOAD - 2].copy_from_slice(&channel);
                    buffer[PAYLOAD - 2..PAYLOAD].copy_from_slice(&length.to_be_bytes());
                    ROOM
                }
            };
            (&self.listener, client.address, PAYLOAD - skip)
        };
        let bytes = &mut buffer[skip..PAYLOAD + length];
        let bytes = iovec {
            iov_base: bytes.as_mut_ptr().cast(),
            iov_len: bytes.len(),
        };
        let send = &mut self.sends[usize::from(id)];
        (send.bytes, send.target) = (bytes, target);
        send.header.msg_name = (&raw mut send.target).cast();
        send.header.msg_namelen = 16;
        send.header.msg_iov = &raw mut send.bytes;
        send.header.msg_iovlen = 1;
        let entry = opcode::SendMsg::new(Fd(socket.as_raw_fd()), &raw const send.header)
            .flags(libc::MSG_DONTWAIT.cast_unsigned())
            .build();
        self.queue.push(entry.user_data(SENT | u64::from(id)));
        true
    }
}
