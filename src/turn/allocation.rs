//! An allocation with its permissions and channel bindings (RFC 8656 §3.2, §9, §12), and what is
//! published of it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use crate::proto::{AddressFamily, ChannelNumber, TransactionId};
use crate::turn::address::{ClientAddr, FiveTuple, PeerAddr, RelayedAddr};
use crate::turn::auth::{Expected, KnownKey};
use crate::turn::clock::{Deadline, Tick};
use crate::turn::credential::Subject;
use crate::turn::icmp::Told;
use crate::turn::mobility::Mobility;
use crate::turn::outcome::EndReason;
use crate::turn::policy::{PeerJudge, PeerPolicy};
use crate::turn::ports::Token;
use crate::turn::rates::Rates;
use crate::turn::reached::Reached;
use crate::turn::revocation::{Issued, When};
use crate::turn::route::{
    AllocationId, ChannelBinding, Framing, InCall, Landing, Landings, MAX_NAMES, Name, NamedPort,
    PeerKind, Permission, RelayProtocol, Route, Sender, Standing, framing,
};
use crate::turn::stats::{DropReason, Meters};

/// RFC 8656 §9: the permission lifetime is 300 seconds.
pub(crate) const PERMISSION_LIFETIME: Duration = Duration::from_secs(300);
/// RFC 8656 §12: a channel binding lasts ten minutes.
pub(crate) const CHANNEL_LIFETIME: Duration = Duration::from_secs(600);
/// RFC 8656 §12: neither number nor peer is bound anew for five minutes after a binding ended.
const CHANNEL_COOL_DOWN: Duration = Duration::from_secs(300);

/// A relayed transport address of an allocation. What belongs to it, permissions and channels for
/// peers of its family, stands in its landing alone.
#[derive(Debug)]
pub(crate) struct Relay {
    landing: Arc<Landing>,
    /// Whether this very landing is what others find.
    is_published: bool,
}

impl Relay {
    /// A relay that nobody finds yet.
    pub(crate) fn new(landing: Landing) -> Self {
        Self {
            landing: Arc::new(landing),
            is_published: false,
        }
    }

    pub(crate) fn relayed(&self) -> RelayedAddr {
        self.landing.relayed
    }

    /// When it ends.
    pub(crate) fn until(&self) -> &Deadline {
        self.landing.until()
    }

    /// Whether it has a socket of its own; between relayed addresses of one server none is needed.
    pub(crate) fn has_socket(&self) -> bool {
        self.landing.has_socket
    }

    /// How its peers are spoken to.
    pub(crate) fn protocol(&self) -> RelayProtocol {
        self.landing.protocol
    }

    /// Whether a peer data connection from `sender` is taken.
    pub(crate) fn admit<L: Landings>(
        &self,
        sender: &Sender,
        now: Tick,
        landings: &L,
    ) -> Result<(), DropReason> {
        self.landing.admit(sender, now, landings).map(|_| ())
    }

    /// The receiver's half if it is to be published anew, which the caller does.
    pub(crate) fn take_unpublished(&mut self) -> Option<Arc<Landing>> {
        let was_published = std::mem::replace(&mut self.is_published, true);
        (!was_published).then(|| Arc::clone(&self.landing))
    }

    /// To change what is not a deadline. What others found until now stays as it was.
    pub(crate) fn change(&mut self) -> &mut Landing {
        self.is_published = false;
        Arc::make_mut(&mut self.landing)
    }
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
    pub(crate) tuple: FiveTuple,
    /// Whose it is by name, the key it was made with, and what vouched for that.
    pub(crate) known: Box<KnownKey>,
    pub(crate) subject: Subject,
    pub(crate) policy: Arc<PeerPolicy>,
    /// Its [`Limits`], apart: together they would take more room.
    pub(crate) session_end: Tick,
    pub(crate) expiry: Expiry,
    /// What is needed to build the success of a retransmitted Allocate anew.
    pub(crate) made_by: MadeBy,
    /// One, or one of each family.
    pub(crate) relays: SmallVec<[Relay; 1]>,
    pub(crate) standing: Arc<Standing>,
    pub(crate) reached: Reached,
    pub(crate) told: Told,
    /// RFC 8016: what its ticket stands for, if its client asked for one.
    pub(crate) mobility: Option<Box<Mobility>>,
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
    /// Its opaque name.
    pub(crate) fn id(&self) -> AllocationId {
        self.standing.id
    }

    /// Something of every piece of memory that a packet of this client's reads, for
    /// [`look_ahead`](crate::turn::Server::look_ahead); the number itself means nothing.
    pub(crate) fn touch(&self) -> u64 {
        let mut seen = self.standing.meters.last_heard().nanos() ^ self.standing.meters.touch();
        if let Some(relay) = self.relays.first() {
            seen ^= u64::from(relay.landing.relayed.port());
            seen ^= relay.landing.channels.len() as u64;
        }
        if let Some(landing) = self.reached.at(0) {
            seen ^= u64::from(landing.relayed.port());
            seen ^= landing.channels.len() as u64 ^ landing.permissions.len() as u64;
            seen ^= landing.standing.meters.drops.total() ^ landing.standing.meters.touch();
        }
        seen
    }

    /// The relay of `family` that is live at `now`.
    pub(crate) fn relay(&self, family: AddressFamily, now: Tick) -> Option<&Relay> {
        self.relays.iter().find(|relay| {
            AddressFamily::of(relay.relayed().ip()) == family && relay.until().holds(now)
        })
    }

    /// Who is expected to ask on its 5-tuple.
    pub(crate) fn expected(&self) -> Expected<'_> {
        Expected {
            subject: self.subject,
            known: &self.known,
            claims: self.standing.claims.as_ref(),
        }
    }

    /// What it may be taken back by.
    pub(crate) fn issued(&self) -> Issued {
        let claims = self.standing.claims.as_deref();
        Issued {
            name: self.known.owner().digest(),
            subject: self.subject,
            call: claims.and_then(|claims| claims.call),
            when: When::of(claims, self.known.expires()),
        }
    }

    /// It ends at the next look at it, and nothing is forwarded until then.
    pub(crate) fn end_soon(&self, reason: EndReason) {
        for relay in &self.relays {
            relay.until().set(reason.moment());
        }
    }

    /// How long it may live at most.
    pub(crate) const fn limits(&self) -> Limits {
        Limits {
            session_end: self.session_end,
            expiry: self.expiry,
        }
    }

    /// Counts what goes through it, and its client's signs of life.
    pub(crate) fn meters(&self) -> &Meters {
        &self.standing.meters
    }

    /// Who it is to those that it sends to.
    pub(crate) fn sender(&self, from: RelayedAddr) -> Sender {
        let nobody = InCall {
            call: None,
            only: true,
        };
        Sender {
            relayed: from,
            subject: self.subject,
            // Every relay of it says the same.
            in_call: self.relays.first().map_or(nobody, |r| r.landing.in_call()),
        }
    }

    /// Puts it under another policy, as its landings say from now on.
    pub(crate) fn put_under(&mut self, policy: Arc<PeerPolicy>) {
        let only = *policy == PeerPolicy::Call;
        for relay in &mut self.relays {
            if relay.landing.same_call_only != only {
                relay.change().same_call_only = only;
            }
        }
        self.policy = policy;
    }

    /// What its client, which asks from `client`, is told as its own address: RFC 8656 §7.3 has
    /// its server-reflexive one. One that is masked is told its relayed one, of its own family if
    /// it has that, so that it cannot tell others where it is.
    pub(crate) fn mapped(&self, client: ClientAddr) -> SocketAddr {
        let own = client.expose();
        let is_masked = self.standing.claims.as_ref().is_some_and(|c| c.masked);
        if !is_masked {
            return own;
        }
        let mut relayed = self
            .relays
            .iter()
            .map(|relay| relay.relayed().socket_addr());
        let same_family = relayed.clone().find(|addr| addr.is_ipv4() == own.is_ipv4());
        let unspecified = SocketAddr::from(([0; 4], 0));
        same_family
            .or_else(|| relayed.next())
            .unwrap_or(unspecified)
    }

    /// Whether it is a TCP allocation (RFC 6062 §2).
    pub(crate) fn is_tcp(&self) -> bool {
        self.relays
            .first()
            .is_some_and(|relay| relay.protocol() == RelayProtocol::Tcp)
    }

    /// When the first of its relays ends.
    pub(crate) fn first_end(&self) -> Option<Tick> {
        self.relays.iter().map(|relay| relay.until().at()).min()
    }

    fn permissions(&self) -> impl Iterator<Item = &Permission> {
        self.relays.iter().flat_map(|r| &r.landing.permissions)
    }

    fn channels(&self) -> impl Iterator<Item = &ChannelBinding> {
        self.relays.iter().flat_map(|relay| &relay.landing.channels)
    }

    /// The relay to whose landing a peer belongs.
    fn relay_for(&mut self, ip: IpAddr) -> Option<&mut Relay> {
        self.relays
            .iter_mut()
            .find(|relay| relay.relayed().ip().is_ipv4() == ip.is_ipv4())
    }

    /// The live permission for `ip`.
    pub(crate) fn permission(&self, ip: IpAddr, now: Tick) -> Option<&Permission> {
        self.permissions()
            .find(|permission| permission.ip == ip && permission.until.holds(now))
    }

    /// Where ChannelData on `number` goes.
    pub(crate) fn route_of_channel(&self, number: u16, now: Tick) -> Option<Route> {
        let channel = self
            .channels()
            .find(|channel| channel.number.value() == number && channel.until.holds(now))?;
        let until = channel.until.at();
        let relay = self.relay(AddressFamily::of(channel.peer.expose().ip()), now)?;
        Some(Route {
            from: relay.relayed(),
            peer: channel.peer,
            kind: channel.kind,
            until: until.min(relay.until().at()),
        })
    }

    /// How this client gets what comes from `peer` by a relay socket.
    pub(crate) fn framing(&self, peer: SocketAddr, now: Tick) -> Framing {
        framing(self.channels(), peer, now)
    }

    /// How much may go through it.
    pub(crate) fn rates(&self) -> Option<&Arc<Rates>> {
        self.relays.first()?.landing.rates.as_ref()
    }

    /// Whether anything limits that.
    pub(crate) fn is_limited(&self) -> bool {
        self.rates().is_some()
    }

    /// From now on so much may; others see it once it is published.
    pub(crate) fn limit(&mut self, rates: Option<Arc<Rates>>) {
        if rates.is_none() && self.rates().is_none() {
            return;
        }
        for relay in &mut self.relays {
            relay.change().rates.clone_from(&rates);
        }
    }

    /// Whether a permission for each of `ips` can be installed or refreshed, with at most `limit` in
    /// all.
    pub(crate) fn has_room_for(&self, ips: &[IpAddr], limit: usize, now: Tick) -> bool {
        let new = ips
            .iter()
            .enumerate()
            .filter(|(index, ip)| {
                !ips[..*index].contains(ip) && self.permission(**ip, now).is_none()
            })
            .count();
        let live = self.permissions().filter(|p| p.until.holds(now)).count();
        // Those that are there are refreshed whatever the limit has become.
        new == 0 || live + new <= limit
    }

    /// RFC 8656 §9: installs a permission for the peer's IP, or sets it to its full lifetime; and
    /// names the relayed address.
    pub(crate) fn permit(&mut self, ip: IpAddr, kind: PeerKind, name: Option<Name>, now: Tick) {
        let until = now.plus(PERMISSION_LIFETIME);
        let name = name.map(|name| name.kept());
        let Some(relay) = self.relay_for(ip) else {
            return;
        };
        let live = relay
            .landing
            .permissions
            .iter()
            .find(|permission| permission.ip == ip && permission.until.holds(now));
        if let Some(permission) = live
            && permission.kind == kind
            && name.is_none_or(|name| permission.names.last() == Some(&name))
        {
            // A refresh, which is seen where it is published.
            permission.until.set(until);
            return;
        }
        let permissions = &mut relay.change().permissions;
        // Names live as long as the permission; a new one begins without any.
        permissions.retain(|permission| permission.until.holds(now));
        let found = permissions
            .iter()
            .position(|permission| permission.ip == ip);
        let index = found.unwrap_or_else(|| {
            permissions.push(Permission {
                ip,
                kind,
                until: Deadline::default(),
                names: SmallVec::new(),
            });
            permissions.len() - 1
        });
        let permission = &mut permissions[index];
        permission.kind = kind;
        permission.until.set(until);
        if let Some(name) = name {
            permission.names.retain(|other| other.port != name.port);
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
        let name = name.kept();
        let found = self.relays.iter_mut().find_map(|relay| {
            let mut permissions = relay.landing.permissions.iter();
            let place = permissions.position(|p| p.ip == ip && p.until.holds(now))?;
            Some((relay, place))
        });
        let Some((relay, place)) = found else {
            return Named::Already;
        };
        let permission = &relay.landing.permissions[place];
        let names = &permission.names;
        if names.contains(&name) {
            return Named::Already;
        }
        let mut gives_way = names.iter().position(|other| other.port == name.port);
        if gives_way.is_none() && names.len() == MAX_NAMES {
            let is_dead = |n: &NamedPort| {
                let landing = landings.with(permission.relayed(n.port), |_| ());
                landing.is_none()
            };
            gives_way = names.iter().position(is_dead);
            if gives_way.is_none() {
                return Named::Already;
            }
        }
        let names = &mut relay.change().permissions[place].names;
        if let Some(index) = gives_way {
            names.remove(index);
        }
        names.push(name);
        Named::Anew
    }

    /// RFC 8656 §12: binds `number` to `peer`, or refreshes that binding; with at most `limit` in all.
    pub(crate) fn bind(
        &mut self,
        number: ChannelNumber,
        peer: PeerAddr,
        kind: PeerKind,
        limit: usize,
        now: Tick,
    ) -> Result<(), BindRefused> {
        self.check_bind(number, peer, limit, now)?;
        let until = now.plus(CHANNEL_LIFETIME);
        let Some(relay) = self.relay_for(peer.expose().ip()) else {
            return Err(BindRefused::Conflict);
        };
        let found = relay
            .landing
            .channels
            .iter()
            .position(|channel| channel.number == number && is_taken(channel, now));
        match found {
            Some(place) if relay.landing.channels[place].kind == kind => {
                relay.landing.channels[place].until.set(until);
            }
            Some(place) => {
                let channel = &mut relay.change().channels[place];
                channel.kind = kind;
                channel.until.set(until);
            }
            None => {
                let channels = &mut relay.change().channels;
                channels.retain(|channel| is_taken(channel, now));
                channels.push(ChannelBinding {
                    number,
                    peer,
                    kind,
                    until: Deadline::new(until),
                });
            }
        }
        Ok(())
    }

    /// Whether [`bind`](Self::bind) would do it.
    pub(crate) fn check_bind(
        &self,
        number: ChannelNumber,
        peer: PeerAddr,
        limit: usize,
        now: Tick,
    ) -> Result<(), BindRefused> {
        let (mut count, mut is_new) = (0, true);
        for channel in self.channels().filter(|channel| is_taken(channel, now)) {
            let same_number = channel.number == number;
            // RFC 8656 §12.2: the number is not bound to a different peer, the peer not to a
            // different number.
            if same_number != (channel.peer == peer) {
                return Err(BindRefused::Conflict);
            }
            is_new &= !same_number;
            count += 1;
        }
        if is_new && count >= limit {
            return Err(BindRefused::Full);
        }
        Ok(())
    }

    /// Drops what `judge` no longer admits.
    pub(crate) fn judge_anew(&mut self, judge: &PeerJudge) {
        let policy = &*self.policy;
        let permitted = |p: &Permission| judge.permission(policy, p.ip).is_admitted();
        let bound = |c: &ChannelBinding| judge.peer(policy, c.peer.expose()).is_admitted();
        for relay in &mut self.relays {
            let landing = &relay.landing;
            if landing.permissions.iter().all(permitted) && landing.channels.iter().all(bound) {
                continue;
            }
            let landing = relay.change();
            landing
                .permissions
                .retain(|permission| permitted(permission));
            landing.channels.retain(|channel| bound(channel));
        }
    }

    /// Takes out the relays that have ended. If one of two lives on, it keeps the other's
    /// permissions and channels, which count against the limits and cool down there.
    pub(crate) fn take_ended(&mut self, now: Tick) -> SmallVec<[Relay; 1]> {
        let (mut live, ended): (SmallVec<[Relay; 1]>, SmallVec<[Relay; 1]>) = self
            .relays
            .drain(..)
            .partition(|relay| relay.until().holds(now));
        if let Some(heir) = live.first_mut() {
            for relay in &ended {
                if relay.landing.permissions.is_empty() && relay.landing.channels.is_empty() {
                    continue;
                }
                let landing = heir.change();
                let (permissions, channels) = (&relay.landing.permissions, &relay.landing.channels);
                landing.permissions.extend(permissions.iter().cloned());
                landing.channels.extend(channels.iter().cloned());
            }
        }
        self.relays = live;
        ended
    }
}

/// RFC 8656 §12: whether a binding lives or cools down.
fn is_taken(channel: &ChannelBinding, now: Tick) -> bool {
    now < channel.until.at().plus(CHANNEL_COOL_DOWN)
}

/// Whether a landing must be published anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Named {
    Anew,
    Already,
}
