//! What the workers may be told anew while they run, beside the rules of their servers: relay ports,
//! what sockets are marked with, whose PROXY headers are believed, and how much the unvalidated get.
//!
//! Ports are for allocations to come. Sockets that are open are marked anew; their buffers stay.

use std::ops::RangeInclusive;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use ipnet::IpNet;

use crate::dataplane::shared::Command;
use crate::dataplane::sys::SocketOptions;
use crate::dataplane::worker::Worker;
use crate::dataplane::{Config, Handle};
use crate::turn::unvalidated::Rate;

/// The part of [`Config`] that may change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tuning {
    /// [`Config::ports`]
    pub ports: RangeInclusive<u16>,
    /// [`Config::port_rest`]
    pub port_rest: Duration,
    /// [`Config::relay_buffer`]
    pub relay_buffer: usize,
    /// [`Config::dscp`]
    pub dscp: u8,
    /// [`Config::proxy_trusted`]
    pub proxy_trusted: Arc<[IpNet]>,
    /// [`Config::unvalidated`]
    pub unvalidated: Rate,
}

impl Config {
    /// The part of it that may change.
    #[must_use]
    pub fn tuning(&self) -> Tuning {
        Tuning {
            ports: self.ports.clone(),
            port_rest: self.port_rest,
            relay_buffer: self.relay_buffer,
            dscp: self.dscp,
            proxy_trusted: self.proxy_trusted.clone().into(),
            unvalidated: self.unvalidated,
        }
    }
}

impl Tuning {
    /// What relay sockets are opened with.
    pub(crate) const fn relay_options(&self) -> SocketOptions {
        SocketOptions {
            receive_buffer: self.relay_buffer,
            dscp: self.dscp,
        }
    }
}

impl Handle {
    /// Has this hold from now on. Relayed addresses on former ports live on: the rules that workers
    /// have by then must know those ports as well as the new ones. Waits while mailboxes are full.
    pub fn retune(&self, tuning: Tuning) {
        // Held, so that a listener that is being bound elsewhere is marked too.
        let _listeners = self
            .listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if **self.tuning.load() == tuning {
            return;
        }
        let tuning = Arc::new(tuning);
        self.shared.directory.cover(&tuning.ports);
        self.shared.unvalidated.set(tuning.unvalidated);
        self.shared
            .ports(|ports| ports.change(&tuning.ports, tuning.port_rest));
        for mailbox in &self.shared.mailboxes {
            mailbox.insist(Command::Retune(Arc::clone(&tuning)));
        }
        self.tuning.store(tuning);
    }
}

impl Worker {
    /// Does what [`Handle::retune`] says.
    pub(super) fn retune(&mut self, tuning: &Tuning) {
        self.connected.trust(Arc::clone(&tuning.proxy_trusted));
        self.outgoing.mark(tuning.dscp);
        self.connected.mark(tuning.dscp);
        let house = self.server.environment_mut();
        house.open_with(tuning.relay_options());
    }
}
