//! What is live, as anybody may look at it without asking a worker: a walk through the directory.

use std::sync::Arc;

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;

use crate::dataplane::directory::Directory;
use crate::turn::credential::Subject;
use crate::turn::route::{AllocationId, Landing, RelayProtocol, Standing};
use crate::turn::{Tick, Transport};

/// A live allocation. There is no address in it.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Whose it is.
    pub subject: Subject,
    /// How its client speaks to the server.
    pub transport: Transport,
    /// How its peers are spoken to.
    pub protocol: RelayProtocol,
    /// How many peer addresses it permits.
    pub permissions: usize,
    /// How many channels it has bound.
    pub channels: usize,
    /// When it ends unless it is refreshed.
    pub until: Tick,
    /// What every worker may read of it.
    pub standing: Arc<Standing>,
}

impl Seen {
    fn new(landing: &Landing, now: Tick) -> Self {
        Self {
            subject: landing.subject,
            transport: landing.client.listener.transport(),
            protocol: landing.protocol,
            permissions: landing
                .permissions
                .iter()
                .filter(|permission| permission.until.holds(now))
                .count(),
            channels: landing
                .channels
                .iter()
                .filter(|channel| channel.until.holds(now))
                .count(),
            until: landing.until().at(),
            standing: Arc::clone(&landing.standing),
        }
    }
}

/// The allocations that live at `now`. One with an IPv4 and an IPv6 relayed address is one.
pub(super) fn allocations(directory: &Directory, now: Tick) -> Vec<Seen> {
    let mut places: HashMap<AllocationId, usize, foldhash::quality::RandomState> =
        HashMap::default();
    let mut all: Vec<Seen> = Vec::new();
    directory.each(|landing| {
        if !landing.until().holds(now) {
            return;
        }
        let seen = Seen::new(landing, now);
        match places.entry(landing.id()) {
            Entry::Vacant(place) => {
                place.insert(all.len());
                all.push(seen);
            }
            Entry::Occupied(place) => {
                if let Some(one) = all.get_mut(*place.get()) {
                    one.permissions += seen.permissions;
                    one.channels += seen.channels;
                    one.until = one.until.max(seen.until);
                }
            }
        }
    });
    all
}
