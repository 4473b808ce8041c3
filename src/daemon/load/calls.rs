//! Sets up who sends to whom: allocations, their channels and permissions, and the flows between
//! them.

use super::crowd::Side;
use super::desk::Request;
use super::options::Mode;
use super::packet::{Arrival, Framing};
use super::progress::Progress;
use super::traffic::Flow;
use super::wire::{Wire, settled};

/// Allocations that are ready for traffic.
pub(super) struct Calls {
    clients: Vec<usize>,
    /// What keeps channels and permissions alive.
    standing: Vec<(usize, Request)>,
    flows: Vec<Flow>,
}

/// The channel of client `index`. Both sides of a call have the same one, so that bare forwarders
/// can be driven which know no numbers; neighbouring calls have different ones, so that a packet at
/// the wrong client is noticed.
fn channel(index: usize) -> u16 {
    const FIRST: u16 = 0x4000;
    const COUNT: usize = 0x1000;
    FIRST + u16::try_from(index / 2 % COUNT).unwrap_or(0)
}

/// How one side of a call sends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Speech {
    Channels,
    Indications,
}

impl Calls {
    /// Allocates and binds.
    pub(super) fn begin(
        wire: &mut Wire,
        mode: Mode,
        allocations: usize,
        progress: &Progress,
    ) -> anyhow::Result<Self> {
        let mut calls = Self {
            clients: Vec::with_capacity(allocations),
            standing: Vec::new(),
            flows: Vec::new(),
        };
        let begun = calls.set_up(wire, mode, allocations, progress);
        if let Err(error) = begun {
            calls.end(wire, progress);
            return Err(error);
        }
        Ok(calls)
    }

    fn set_up(
        &mut self,
        wire: &mut Wire,
        mode: Mode,
        allocations: usize,
        progress: &Progress,
    ) -> anyhow::Result<()> {
        progress.stage("allocations", allocations);
        for index in 0..allocations {
            // The first half of the clients calls the second.
            let called = index >= allocations / 2 && wire.callees.is_some();
            let side = if called { Side::Callee } else { Side::Client };
            self.clients.push(wire.client_of(side)?);
        }
        wire.allocate(&self.clients, progress)?;
        match mode {
            Mode::Peer => self.peers(wire)?,
            Mode::Call => self.pairs(wire, [Speech::Channels; 2]),
            Mode::Send => self.pairs(wire, [Speech::Indications; 2]),
            Mode::Mixed => self.pairs(wire, [Speech::Channels, Speech::Indications]),
        }
        progress.stage("channels and permissions", self.standing.len());
        self.renew_standing(wire, progress)
    }

    /// The first half of the clients calls the second.
    fn pairs(&mut self, wire: &Wire, speech: [Speech; 2]) {
        let half = self.clients.len() / 2;
        let speaks = |index: usize| speech[usize::from(index >= half)];
        for index in 0..2 * half {
            let other = (index + half) % (2 * half);
            let client = wire.desk.client(self.clients[index]);
            let peer = wire.desk.client(self.clients[other]);
            let (Some(client), Some(peer)) = (client, peer.and_then(|peer| peer.relayed)) else {
                continue;
            };
            let (request, framing) = match speaks(index) {
                Speech::Channels => (
                    Request::Bind(channel(index), peer),
                    Some(Framing::channel(channel(index))),
                ),
                Speech::Indications => (Request::Permit(peer), indication(peer, index)),
            };
            let Some(framing) = framing else { continue };
            self.standing.push((self.clients[index], request));
            self.flows.push(Flow {
                side: client.side,
                seat: client.seat,
                to: client.to,
                framing,
                arrival: match speaks(other) {
                    Speech::Channels => Arrival::Channel(channel(other)),
                    Speech::Indications => Arrival::Indication,
                },
            });
        }
    }

    /// Each client exchanges packets with a peer: first all that clients send, then all that
    /// peers send.
    fn peers(&mut self, wire: &mut Wire) -> anyhow::Result<()> {
        let Some(peers) = &mut wire.peers else {
            return Ok(());
        };
        let Some(address) = peers.local_addr() else {
            return Ok(());
        };
        let (seat, _) = peers.seat(address)?;
        let mut back = Vec::new();
        for (index, &id) in self.clients.iter().enumerate() {
            let Some(client) = wire.desk.client(id) else {
                continue;
            };
            self.standing
                .push((id, Request::Bind(channel(index), address)));
            self.flows.push(Flow {
                side: Side::Client,
                seat: client.seat,
                to: client.to,
                framing: Framing::channel(channel(index)),
                arrival: Arrival::Plain,
            });
            back.push(Flow {
                side: Side::Peer,
                seat,
                to: client.relayed,
                framing: Framing::PLAIN,
                arrival: Arrival::Channel(channel(index)),
            });
        }
        self.flows.append(&mut back);
        Ok(())
    }

    fn renew_standing(&self, wire: &mut Wire, progress: &Progress) -> anyhow::Result<()> {
        let standing = self.standing.iter().copied();
        wire.drive(standing, None, progress, |_, answer| {
            settled(answer).map(|()| None)
        })
    }

    /// Who sends to whom.
    pub(super) fn flows(&self) -> Vec<Flow> {
        self.flows.clone()
    }

    /// Keeps everything alive: allocations, channels and permissions.
    pub(super) fn renew(&self, wire: &mut Wire, progress: &Progress) -> anyhow::Result<()> {
        let allocations = self.clients.iter().map(|&id| (id, Request::Refresh));
        wire.drive(allocations, None, progress, |_, answer| {
            settled(answer).map(|()| None)
        })?;
        self.renew_standing(wire, progress)
    }

    /// Deletes the allocations.
    pub(super) fn end(&self, wire: &mut Wire, progress: &Progress) {
        progress.stage("deleting allocations", self.clients.len());
        wire.release(&self.clients, progress);
    }
}

fn indication(peer: std::net::SocketAddr, index: usize) -> Option<Framing> {
    let mut id = [0x5a; 12];
    // Lossless: usize has 64 bits here.
    id[..8].copy_from_slice(&(index as u64).to_be_bytes());
    Framing::indication(peer, id)
}
