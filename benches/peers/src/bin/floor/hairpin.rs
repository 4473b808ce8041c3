//! One socket: a batch is received, each packet aimed at its target, and the batch sent.

use std::net::{SocketAddrV4, UdpSocket};

use anyhow::{Context, Result};
use libc::sockaddr_in;

use super::Options;
use super::control::{ANSWER_MAX, ByAddress, FIRST_PORT, Relay, answer, key};
use super::sys::{Slots, bind, name};

#[derive(Default)]
struct Hairpin {
    ports: ByAddress<u16>,
    /// By relayed port, counted from the first.
    clients: Vec<SocketAddrV4>,
    /// The same for their channels, 0 before they have one.
    channels: Vec<u16>,
    free: Vec<u16>,
    targets: ByAddress<Target>,
}

/// Where a client's packets go, and with which channel number.
struct Target {
    name: sockaddr_in,
    port: u16,
    channel: u16,
}

impl Relay for Hairpin {
    fn allocate(&mut self, client: SocketAddrV4) -> Option<u16> {
        if let Some(port) = self.ports.get(&key(client)) {
            return Some(*port);
        }
        let port = if let Some(port) = self.free.pop() {
            self.clients[usize::from(port - FIRST_PORT)] = client;
            port
        } else {
            self.clients.push(client);
            self.channels.push(0);
            FIRST_PORT.checked_add(u16::try_from(self.clients.len() - 1).ok()?)?
        };
        self.ports.insert(key(client), port);
        Some(port)
    }

    fn release(&mut self, client: SocketAddrV4) {
        self.targets.remove(&key(client));
        self.free.extend(self.ports.remove(&key(client)));
    }

    fn bind(&mut self, client: SocketAddrV4, channel: u16, peer: SocketAddrV4) {
        let index = usize::from(peer.port().wrapping_sub(FIRST_PORT));
        let (Some(other), Some(own)) = (self.clients.get(index), self.ports.get(&key(client)))
        else {
            return;
        };
        self.channels[usize::from(own - FIRST_PORT)] = channel;
        if let Some(target) = self.targets.get_mut(&key(*other))
            && target.port == *own
        {
            target.channel = channel;
        }
        let target = Target {
            name: name(*other),
            port: peer.port(),
            channel: self.channels[index],
        };
        self.targets.insert(key(client), target);
    }
}

pub(crate) fn run(options: Options) -> Result<()> {
    let socket = bind(options.listen, options.gso, options.busy_poll)
        .with_context(|| format!("cannot listen on {}", options.listen))?;
    let flags = if options.busy_poll {
        libc::MSG_DONTWAIT
    } else {
        libc::MSG_WAITFORONE
    };
    let mut slots = Slots::new(options.batch, options.gso);
    let mut hairpin = Hairpin::default();
    loop {
        let received = slots.receive(&socket, 0, options.batch, flags);
        let mut first = 0;
        for slot in 0..received {
            if let Some(target) = hairpin.targets.get(&slots.source(slot))
                && slots.datagram(slot).first() >= Some(&0x40)
            {
                slots.aim(slot, &target.name);
                slots.set_channel(slot, target.channel);
                continue;
            }
            slots.send(&socket, first, slot);
            first = slot + 1;
            hairpin.control(&slots, slot, &socket, options.listen);
        }
        slots.send(&socket, first, received);
        slots.recycle(0, received);
    }
}

impl Hairpin {
    fn control(&mut self, slots: &Slots, slot: usize, socket: &UdpSocket, listen: SocketAddrV4) {
        let client = slots.source_address(slot);
        let mut out = [0; ANSWER_MAX];
        if let Some(length) = answer(slots.datagram(slot), client, listen, self, &mut out) {
            // A lost answer is asked for again.
            socket.send_to(&out[..length], client).ok();
        }
    }
}
