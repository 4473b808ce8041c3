//! A listener and a relay socket per client, as servers have them that send every packet through
//! the kernel twice: client, listener, relay socket, peer, and back.
//!
//! Between relayed addresses a packet goes on as it is, ChannelData header and all, and only the
//! channel number is rewritten at the end. For other peers the header is taken off and put on.

use std::net::{SocketAddrV4, UdpSocket};

use anyhow::{Context, Result};
use libc::{MSG_DONTWAIT, sockaddr_in};

use super::Options;
use super::control::{ANSWER_MAX, ByAddress, FIRST_PORT, Relay, answer, key};
use super::sys::{DATAGRAM, Poller, ROOM, Slots, bind, name, receive_one, send_one};

/// How datagrams are read and sent.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    /// recvmmsg everywhere, sendmmsg wherever the socket is the same.
    Batched,
    /// As `Batched`, but relay sockets are read with one recvmsg each time they are ready.
    Scratch,
    /// recvfrom and sendto.
    Unbatched,
}

/// The token of the listener; those of relay sockets are their indexes.
const LISTENER: u64 = u64::MAX;
/// Packets taken from one relay socket before the next has its turn.
const RELAY_BATCH: usize = 16;

/// How packets are wrapped between relay socket and peer.
#[derive(Clone, Copy)]
pub(crate) enum Framing {
    /// The peer is a relayed address too: as they came.
    Whole,
    /// Without the ChannelData header.
    Bare,
}

/// One allocation.
pub(crate) struct Client {
    pub(crate) relay: UdpSocket,
    pub(crate) address: sockaddr_in,
    pub(crate) peer: sockaddr_in,
    pub(crate) framing: Framing,
    /// What it calls its peer.
    pub(crate) channel: u16,
}

/// All allocations.
pub(crate) struct Clients {
    options: Options,
    pub(crate) indexes: ByAddress<usize>,
    pub(crate) clients: Vec<Client>,
    /// Indexes of new relay sockets, which nobody waits for yet.
    pub(crate) fresh: Vec<usize>,
    /// Indexes of released ones; a ring keeps its sockets, and so their clients.
    free: Vec<usize>,
    keeps: bool,
    next_port: u16,
}

impl Clients {
    pub(crate) fn new(options: Options, keeps: bool) -> Self {
        Self {
            options,
            indexes: ByAddress::default(),
            clients: Vec::new(),
            fresh: Vec::new(),
            free: Vec::new(),
            keeps,
            next_port: FIRST_PORT,
        }
    }

    /// A socket on the next port that nobody has.
    fn open(&mut self) -> Option<UdpSocket> {
        let Options {
            listen,
            gso,
            busy_poll,
            ..
        } = self.options;
        (FIRST_PORT..=u16::MAX).find_map(|_| {
            let port = self.next_port;
            self.next_port = port.checked_add(1).unwrap_or(FIRST_PORT);
            bind(SocketAddrV4::new(*listen.ip(), port), gso, busy_poll).ok()
        })
    }

    pub(crate) fn control(&mut self, request: &[u8], client: SocketAddrV4, listener: &UdpSocket) {
        let mut out = [0; ANSWER_MAX];
        let listen = self.options.listen;
        if let Some(length) = answer(request, client, listen, self, &mut out) {
            // A lost answer is asked for again.
            listener.send_to(&out[..length], client).ok();
        }
    }
}

impl Relay for Clients {
    fn allocate(&mut self, client: SocketAddrV4) -> Option<u16> {
        if let Some(index) = self.indexes.get(&key(client)) {
            let address = self.clients[*index].relay.local_addr().ok()?;
            return Some(address.port());
        }
        let relay = self.open()?;
        let port = relay.local_addr().ok()?.port();
        let address = name(client);
        let opened = Client {
            relay,
            address,
            peer: address,
            framing: Framing::Whole,
            channel: 0,
        };
        let index = if let Some(index) = self.free.pop() {
            self.clients[index] = opened;
            index
        } else {
            self.clients.push(opened);
            self.clients.len() - 1
        };
        self.indexes.insert(key(client), index);
        self.fresh.push(index);
        Some(port)
    }

    fn release(&mut self, client: SocketAddrV4) {
        if !self.keeps {
            self.free.extend(self.indexes.remove(&key(client)));
        }
    }

    fn bind(&mut self, client: SocketAddrV4, channel: u16, peer: SocketAddrV4) {
        if let Some(index) = self.indexes.get(&key(client)) {
            let client = &mut self.clients[*index];
            let own = peer.ip() == self.options.listen.ip() && peer.port() >= FIRST_PORT;
            if !own && self.options.gso {
                // Taking the header off each segment of a run is more than a floor does.
                return;
            }
            client.peer = name(peer);
            client.framing = if own { Framing::Whole } else { Framing::Bare };
            client.channel = channel;
        }
    }
}

/// Whether a datagram is for the data path: ChannelData, not STUN.
pub(crate) fn is_data(datagram: &[u8]) -> bool {
    datagram.first() >= Some(&0x40)
}

pub(crate) fn run(options: Options, method: Method) -> Result<()> {
    let listener = bind(options.listen, options.gso, options.busy_poll)
        .with_context(|| format!("cannot listen on {}", options.listen))?;
    let mut poller = Poller::new(options.busy_poll)?;
    poller.add(&listener, LISTENER)?;
    let mut forward = Forward {
        listener,
        clients: Clients::new(options, false),
        method,
        towards_peers: Slots::new(options.batch, options.gso),
        towards_clients: Slots::new(options.batch, options.gso),
        pending: 0,
        buffer: vec![0; ROOM + DATAGRAM],
    };
    loop {
        for event in 0..poller.wait() {
            match poller.token(event) {
                LISTENER if method == Method::Unbatched => forward.one_from_client(),
                LISTENER => forward.batch_from_clients(),
                index => forward.relay_ready(usize::try_from(index)?),
            }
        }
        forward.flush();
        while let Some(index) = forward.clients.fresh.pop() {
            let relay = &forward.clients.clients[index].relay;
            poller.add(relay, u64::try_from(index)?)?;
        }
    }
}

struct Forward {
    listener: UdpSocket,
    clients: Clients,
    method: Method,
    towards_peers: Slots,
    towards_clients: Slots,
    /// Packets in `towards_clients` that wait for the listener to send them.
    pending: usize,
    buffer: Vec<u8>,
}

impl Forward {
    fn batch_from_clients(&mut self) {
        let slots = &mut self.towards_peers;
        let received = slots.receive(&self.listener, 0, slots.len(), MSG_DONTWAIT);
        let mut first = 0;
        let mut run_of = None;
        for slot in 0..received {
            let index = self.clients.indexes.get(&slots.source(slot)).copied();
            let index = index.filter(|_| is_data(slots.datagram(slot)));
            if index != run_of {
                if let Some(index) = run_of {
                    slots.send(&self.clients.clients[index].relay, first, slot);
                }
                (first, run_of) = (slot, index);
            }
            if let Some(index) = index {
                let client = &self.clients.clients[index];
                match client.framing {
                    Framing::Whole => slots.aim(slot, &client.peer),
                    Framing::Bare => slots.aim_stripped(slot, &client.peer),
                }
            } else {
                let client = slots.source_address(slot);
                self.clients
                    .control(slots.datagram(slot), client, &self.listener);
            }
        }
        if let Some(index) = run_of {
            slots.send(&self.clients.clients[index].relay, first, received);
        }
        slots.recycle(0, received);
    }

    fn one_from_client(&mut self) {
        let Some((length, from)) = receive_one(&self.listener, &mut self.buffer) else {
            return;
        };
        let datagram = &self.buffer[..length];
        let index = self.clients.indexes.get(&key(from)).copied();
        let Some(index) = index.filter(|_| is_data(datagram)) else {
            self.clients.control(datagram, from, &self.listener);
            return;
        };
        let client = &self.clients.clients[index];
        let start = match client.framing {
            Framing::Whole => 0,
            Framing::Bare => ROOM.min(length),
        };
        send_one(&client.relay, &datagram[start..], &client.peer);
    }

    fn relay_ready(&mut self, index: usize) {
        if self.method == Method::Unbatched {
            self.one_from_peer(index);
            return;
        }
        let client = &self.clients.clients[index];
        let slots = &mut self.towards_clients;
        let received = if self.method == Method::Scratch {
            usize::from(slots.receive_one(&client.relay, self.pending))
        } else {
            let room = (slots.len() - self.pending).min(RELAY_BATCH);
            slots.receive(&client.relay, self.pending, room, MSG_DONTWAIT)
        };
        for slot in self.pending..self.pending + received {
            match client.framing {
                Framing::Whole => {
                    slots.aim(slot, &client.address);
                    slots.set_channel(slot, client.channel);
                }
                Framing::Bare => slots.aim_framed(slot, client.channel, &client.address),
            }
        }
        self.pending += received;
        if self.pending == slots.len() {
            self.flush();
        }
    }

    fn one_from_peer(&mut self, index: usize) {
        let client = &self.clients.clients[index];
        let Some((length, _)) = receive_one(&client.relay, &mut self.buffer[ROOM..]) else {
            return;
        };
        let channel = client.channel.to_be_bytes();
        let start = match client.framing {
            Framing::Whole => {
                self.buffer[ROOM..ROOM + 2].copy_from_slice(&channel);
                ROOM
            }
            Framing::Bare => {
                let length = u16::try_from(length).unwrap_or(u16::MAX);
                self.buffer[..2].copy_from_slice(&channel);
                self.buffer[2..4].copy_from_slice(&length.to_be_bytes());
                0
            }
        };
        send_one(
            &self.listener,
            &self.buffer[start..ROOM + length],
            &client.address,
        );
    }

    fn flush(&mut self) {
        self.towards_clients.send(&self.listener, 0, self.pending);
        self.towards_clients.recycle(0, self.pending);
        self.pending = 0;
    }
}
