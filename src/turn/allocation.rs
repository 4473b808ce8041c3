//! An allocation with its permissions and channel bindings (RFC 8656 §3.2, §9, §12), and what is
//! published of it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crate::proto::{AddressFamily, ChannelNumber, TransactionId};
use crate::turn::address::{FiveTuple, PeerAddr, RelayedAddr};
use crate::turn::auth::Owner;
use crate::turn::clock::{Deadline, Tick};
use crate::turn::credential::Subject;
use crate::turn::policy::{PeerJudge, PeerPolicy};
use crate::turn::ports::Token;
use crate::turn::route::{
    AllocationId, ChannelBinding, Framing, Landing, Landings, MAX_NAMES, Name, PeerKind,
    Permission, Route, framing,
};
use crate::turn::stats::Meters;

/// RFC 8656 §9: the permission lifetime is 300 seconds.
pub(crate) const PERMISSION_LIFETIME: Duration = Duration::from_secs(300);
/// RFC 8656 §12: a channel binding lasts ten minutes.
pub(crate) const CHANNEL_LIFETIME: Duration = Duration::from_secs(600);
/// RFC 8656 §12: neither number nor peer is bound anew for five minutes after a binding ended.
const CHANNEL_COOL_DOWN: Duration = Duration::from_secs(300);
/// Permissions of one allocation at once; more get 508.
pub(crate) const MAX_PERMISSIONS: usize = 128;
/// Channel bindings of one allocation at once, those cooling down included; more get 508.
pub(crate) const MAX_CHANNELS: usize = 128;

/// A relayed transport address of an allocation.
#[derive(Debug, Clone)]
pub(crate) struct Relay {
    pub(crate) relayed: RelayedAddr,
    pub(crate) until: Deadline,
    pub(crate) socket: Socket,
}

/// Whether a relayed address has a socket of its own; between relayed addresses of one server none
/// is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Socket {
    Open,
    None,
}

/// How long an allocation may live at most, whatever its client asks for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// When the session is over.
    pub(crate) session_end: Tick,
    /// Whether it ends with its credential.
    pub(crate) expiry: Expiry,
}

/// What a credential's expiry means for the allocation made with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expiry {
    /// It gates Allocate only.
    Lenient,
    /// The allocation ends with it.
    Strict,
}

/// Why a channel was not bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BindRefused {
    /// The number or the peer is bound otherwise, or was less than five minutes ago.
    Conflict,
    /// There are too many.
    Full,
}

/// One allocation, owned by one worker.
#[derive(Debug)]
pub(crate) struct Allocation {
    pub(crate) id: AllocationId,
    pub(crate) tuple: FiveTuple,
    pub(crate) owner: Owner,
    pub(crate) subject: Subject,
    pub(crate) policy: PeerPolicy,
    pub(crate) limits: Limits,
    pub(crate) opened: Tick,
    /// What is needed to build the success of a retransmitted Allocate anew.
    pub(crate) made_by: MadeBy,
    pub(crate) relays: Vec<Relay>,
    pub(crate) permissions: Vec<Permission>,
    pub(crate) channels: Vec<ChannelBinding>,
    pub(crate) meters: Arc<Meters>,
    /// The moment at which the server looks at it again.
    pub(crate) armed: Tick,
}

/// The Allocate request that made an allocation, as far as its response depends on it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MadeBy {
    pub(crate) transaction: TransactionId,
    pub(crate) token: Option<Token>,
    pub(crate) refused_family: Option<(AddressFamily, u16)>,
}

impl Allocation {
    /// The relay of `family` that is live at `now`.
    pub(crate) fn relay(&self, family: AddressFamily, now: Tick) -> Option<&Relay> {
        self.relays
            .iter()
            .find(|relay| AddressFamily::of(relay.relayed.ip()) == family && relay.until.holds(now))
    }

    /// Whether it exchanges packets only within its call. Call ids are not minted yet, so that
    /// under this policy it reaches nobody.
    pub(crate) const fn is_reachable_only_in_its_call(&self) -> bool {
        matches!(self.policy, PeerPolicy::Call)
    }

    /// When the first of its relays ends.
    pub(crate) fn first_end(&self) -> Option<Tick> {
        self.relays.iter().map(|relay| relay.until.at()).min()
    }

    /// The live permission for `ip`.
    pub(crate) fn permission(&self, ip: IpAddr, now: Tick) -> Option<&Permission> {
        self.permissions
            .iter()
            .find(|permission| permission.ip == ip && permission.until.holds(now))
    }

    /// Where ChannelData on `number` goes.
    pub(crate) fn route_of_channel(&self, number: u16, now: Tick) -> Option<Route> {
        let channel = self
            .channels
            .iter()
            .find(|channel| channel.number.value() == number)?;
        let until = channel.until.at();
        (now < until).then_some(())?;
        let relay = self.relay(AddressFamily::of(channel.peer.expose().ip()), now)?;
        Some(Route {
            from: relay.relayed,
            peer: channel.peer,
            kind: channel.kind,
            until: until.min(relay.until.at()),
        })
    }

    /// How this client gets what comes from `peer` by a relay socket.
    pub(crate) fn framing(&self, peer: SocketAddr, now: Tick) -> Framing {
        framing(&self.channels, peer, now)
    }

    /// Whether a permission for `ip` can be installed or refreshed.
    pub(crate) fn has_room_for(&mut self, ips: &[IpAddr], now: Tick) -> bool {
        self.permissions
            .retain(|permission| permission.until.holds(now));
        let new = ips
            .iter()
            .enumerate()
            .filter(|(index, ip)| {
                !ips[..*index].contains(ip)
                    && self
                        .permissions
                        .iter()
                        .all(|permission| permission.ip != **ip)
            })
            .count();
        self.permissions.len() + new <= MAX_PERMISSIONS
    }

    /// RFC 8656 §9: installs a permission for the peer's IP, or sets it to its full lifetime; and
    /// names the relayed address.
    pub(crate) fn permit(&mut self, ip: IpAddr, kind: PeerKind, name: Option<Name>, now: Tick) {
        let until = now.plus(PERMISSION_LIFETIME);
        let found = self
            .permissions
            .iter()
            .position(|permission| permission.ip == ip);
        let index = found.unwrap_or_else(|| {
            self.permissions.push(Permission {
                ip,
                kind,
                until: Deadline::new(Tick::default()),
                names: Vec::new(),
            });
            self.permissions.len() - 1
        });
        let permission = &mut self.permissions[index];
        if !permission.until.holds(now) {
            // Names live as long as the permission; a new one begins without any.
            permission.names.clear();
        }
        permission.kind = kind;
        permission.until.set(until);
        if let Some(name) = name {
            permission.names.retain(|other| other.peer != name.peer);
            if permission.names.len() == MAX_NAMES {
                permission.names.remove(0);
            }
            permission.names.push(name);
        }
    }

    /// Names a live relayed address because the client sent there under a live permission. Says
    /// whether that changed anything: at the limit a name makes way only once its address is dead,
    /// so that a client cannot make the server publish anew for each packet.
    pub(crate) fn name_by_sending<L: Landings>(
        &mut self,
        name: Name,
        now: Tick,
        landings: &L,
    ) -> Named {
        let ip = name.peer.ip();
        let permission = self
            .permissions
            .iter_mut()
            .find(|permission| permission.ip == ip && permission.until.holds(now));
        let Some(permission) = permission else {
            return Named::Already;
        };
        if permission.names.contains(&name) {
            return Named::Already;
        }
        permission.names.retain(|other| other.peer != name.peer);
        if permission.names.len() == MAX_NAMES {
            let dead = permission
                .names
                .iter()
                .position(|n| landings.with(n.peer, |_| ()).is_none());
            match dead {
                Some(index) => drop(permission.names.remove(index)),
                None => return Named::Already,
            }
        }
        permission.names.push(name);
        Named::Anew
    }

    /// RFC 8656 §12: binds `number` to `peer`, or refreshes that binding.
    pub(crate) fn bind(
        &mut self,
        number: ChannelNumber,
        peer: PeerAddr,
        kind: PeerKind,
        now: Tick,
    ) -> Result<(), BindRefused> {
        self.check_bind(number, peer, now)?;
        let until = now.plus(CHANNEL_LIFETIME);
        match self
            .channels
            .iter_mut()
            .find(|channel| channel.number == number)
        {
            Some(channel) => {
                channel.kind = kind;
                channel.until.set(until);
            }
            None => {
                let until = Deadline::new(until);
                self.channels.push(ChannelBinding {
                    number,
                    peer,
                    kind,
                    until,
                });
            }
        }
        Ok(())
    }

    /// Whether [`bind`](Self::bind) would do it.
    pub(crate) fn check_bind(
        &mut self,
        number: ChannelNumber,
        peer: PeerAddr,
        now: Tick,
    ) -> Result<(), BindRefused> {
        self.channels
            .retain(|channel| now < channel.until.at().plus(CHANNEL_COOL_DOWN));
        let known = |channel: &ChannelBinding| (channel.number == number, channel.peer == peer);
        // RFC 8656 §12.2: the number is not bound to a different peer, the peer not to a
        // different number.
        if self
            .channels
            .iter()
            .map(known)
            .any(|(same_number, same_peer)| same_number != same_peer)
        {
            return Err(BindRefused::Conflict);
        }
        let is_new = !self.channels.iter().any(|channel| channel.number == number);
        if is_new && self.channels.len() >= MAX_CHANNELS {
            return Err(BindRefused::Full);
        }
        Ok(())
    }

    /// Drops what `judge` no longer admits.
    pub(crate) fn judge_anew(&mut self, judge: &PeerJudge) {
        let policy = &self.policy;
        self.permissions
            .retain(|permission| judge.permission(policy, permission.ip).is_admitted());
        self.channels
            .retain(|channel| judge.peer(policy, channel.peer.expose()).is_admitted());
    }

    /// The receiver's half for one of its relays, as it stands now.
    pub(crate) fn landing(&self, relay: &Relay) -> Landing {
        Landing {
            id: self.id,
            relayed: relay.relayed,
            subject: self.subject,
            same_call_only: self.is_reachable_only_in_its_call(),
            client: self.tuple,
            has_socket: relay.socket == Socket::Open,
            until: relay.until.clone(),
            permissions: self.permissions.clone().into_boxed_slice(),
            channels: self.channels.clone().into_boxed_slice(),
            meters: Arc::clone(&self.meters),
        }
    }
}

/// Whether a landing must be published anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Named {
    Anew,
    Already,
}
