//! Bugs planted around the server: what the house hands out is altered on its way, so that the
//! code under test stays what it is. A simulation that does not notice them is blind.

use std::cell::RefCell;
use std::net::IpAddr;
use std::sync::Arc;

use taciturn::turn::credential::Subject;
use taciturn::turn::ports::{Drawn, NoPort, PortWish, Token};
use taciturn::turn::quota::{Admitted, Applicant, Quotas};
use taciturn::turn::rates::SharedBuckets;
use taciturn::turn::route::{Landing, Landings, NamedPort, PeerKind, Permission, Standing};
use taciturn::turn::stats::Limit;
use taciturn::turn::unvalidated::Rate;
use taciturn::turn::{
    AllocationId, Deadline, Environment, FiveTuple, RelayedAddr, SocketRefused, Tick, WorkerId,
};

use super::environment::Room;

/// What is wrong with a house.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plant {
    Nothing,
    /// Every receiver permits and names everybody: B's admission check is gone.
    AdmissionRemoved,
    /// Whoever permits a relay IP has named everybody on it.
    NamingRemoved,
    /// Landings never end.
    DeadlineIgnored,
    /// Permissions in landings never end.
    PermissionKept,
    /// Receivers' channels are forgotten.
    ChannelsForgotten,
    /// Every receiver is somebody else: data goes to the client of another landing.
    ReceiverConfused,
    /// Landings stay when their allocation is gone.
    WithdrawForgotten,
    /// Sockets stay open when their allocation is gone.
    SocketKept,
    /// Users may hold any number.
    QuotaIgnored,
    /// All together may hold any number.
    TotalIgnored,
    /// Packets for an allocation are not counted on its rate.
    RateForgotten,
    /// Receivers do not ask who is of their call.
    CallForgotten,
    /// What was taken back ends no allocation.
    RevocationUntold,
    /// What was taken back ends allocations, and makes new ones.
    RevocationUnknown,
    /// Nobody tells the server that a connection is gone.
    DisconnectForgotten,
    /// What waited for a connection goes to the next one on its 5-tuple.
    FormerQueueKept,
}

impl Plant {
    pub const BUGS: [Self; 16] = [
        Self::AdmissionRemoved,
        Self::NamingRemoved,
        Self::DeadlineIgnored,
        Self::PermissionKept,
        Self::ChannelsForgotten,
        Self::ReceiverConfused,
        Self::WithdrawForgotten,
        Self::SocketKept,
        Self::QuotaIgnored,
        Self::TotalIgnored,
        Self::RateForgotten,
        Self::CallForgotten,
        Self::RevocationUntold,
        Self::RevocationUnknown,
        Self::DisconnectForgotten,
        Self::FormerQueueKept,
    ];
}

/// A room with something wrong.
#[derive(Debug)]
pub struct Planted {
    pub room: Room,
    pub plant: Plant,
    /// Deadlines that are ignored until the input is handled, and when they truly end.
    ignored: RefCell<Vec<(Arc<Landing>, Tick)>>,
}

impl Planted {
    pub fn new(room: Room, plant: Plant) -> Self {
        Self {
            room,
            plant,
            ignored: RefCell::default(),
        }
    }

    /// Puts back what was altered in place, once an input is handled.
    pub fn put_back(&self) {
        for (landing, end) in self.ignored.borrow_mut().drain(..) {
            landing.until().set(end);
        }
    }

    fn alter(&self, landing: &Landing) -> Landing {
        let mut altered = landing.clone();
        match self.plant {
            Plant::AdmissionRemoved => {
                let house = self.room.house.borrow();
                let mut ips: Vec<IpAddr> = house.landings.keys().map(|at| at.ip()).collect();
                ips.sort_unstable();
                ips.dedup();
                altered.permissions = ips.into_iter().map(|ip| self.open(ip)).collect();
            }
            Plant::NamingRemoved => {
                for permission in &mut altered.permissions {
                    permission.names = self.everybody().collect();
                }
            }
            Plant::PermissionKept => {
                for permission in &mut altered.permissions {
                    permission.until = never();
                }
            }
            Plant::ChannelsForgotten => altered.channels.clear(),
            Plant::RateForgotten => altered.rates = None,
            Plant::CallForgotten => altered.same_call_only = false,
            Plant::ReceiverConfused => {
                let house = self.room.house.borrow();
                let other = house.landings.values().map(|l| l.client);
                altered.client = other
                    .min_by_key(|tuple| tuple.client.expose())
                    .unwrap_or(landing.client);
            }
            Plant::Nothing
            | Plant::DeadlineIgnored
            | Plant::WithdrawForgotten
            | Plant::SocketKept
            | Plant::QuotaIgnored
            | Plant::TotalIgnored
            | Plant::RevocationUntold
            | Plant::RevocationUnknown
            | Plant::DisconnectForgotten
            | Plant::FormerQueueKept => {}
        }
        altered
    }

    fn alter_applicant<'a>(&self, applicant: &Applicant<'a>) -> Applicant<'a> {
        let quotas = match self.plant {
            Plant::QuotaIgnored => Quotas {
                user: None,
                ..applicant.quotas
            },
            Plant::TotalIgnored => Quotas {
                total: None,
                ..applicant.quotas
            },
            _ => applicant.quotas,
        };
        Applicant {
            quotas,
            ..*applicant
        }
    }

    fn open(&self, ip: IpAddr) -> Permission {
        Permission {
            ip,
            kind: PeerKind::Own,
            until: never(),
            names: self.everybody().collect(),
        }
    }

    fn everybody(&self) -> impl Iterator<Item = NamedPort> + use<> {
        let house = self.room.house.borrow();
        let names: Vec<NamedPort> = house
            .landings
            .values()
            .map(|landing| NamedPort {
                port: landing.relayed.port(),
                subject: Some(landing.subject),
            })
            .collect();
        names.into_iter()
    }
}

fn never() -> Deadline {
    Deadline::new(Tick::from_nanos(u64::MAX))
}

impl Landings for Planted {
    fn find(&self, relayed: RelayedAddr) -> Option<Arc<Landing>> {
        let found = self.room.find(relayed)?;
        if self.plant == Plant::Nothing {
            return Some(found);
        }
        let altered = self.alter(&found);
        // Who holds it looks again, and gets what is altered then.
        altered.current.supersede();
        if self.plant == Plant::DeadlineIgnored {
            let mut ignored = self.ignored.borrow_mut();
            // A deadline that is ignored already does not say when it ends.
            if !ignored
                .iter()
                .any(|(landing, _)| Arc::ptr_eq(&landing.standing, &found.standing))
            {
                ignored.push((Arc::clone(&found), found.until().at()));
            }
            found.until().set(Tick::from_nanos(u64::MAX));
        }
        Some(Arc::new(altered))
    }
}

impl Environment for Planted {
    fn publish(&mut self, landing: Arc<Landing>) {
        self.room.publish(landing);
    }

    fn withdraw(&mut self, relayed: RelayedAddr) {
        if self.plant != Plant::WithdrawForgotten {
            self.room.withdraw(relayed);
        }
    }

    fn draw_port(&mut self, wish: PortWish, user: Subject, now: Tick) -> Result<Drawn, NoPort> {
        self.room.draw_port(wish, user, now)
    }

    fn claim_port(&mut self, token: Token, user: Subject, now: Tick) -> Option<RelayedAddr> {
        self.room.claim_port(token, user, now)
    }

    fn rest_port(&mut self, relayed: RelayedAddr, now: Tick) {
        self.room.rest_port(relayed, now);
    }

    fn open_socket(&mut self, relayed: RelayedAddr, id: AllocationId) -> Result<(), SocketRefused> {
        self.room.open_socket(relayed, id)
    }

    fn close_socket(&mut self, relayed: RelayedAddr) {
        if self.plant != Plant::SocketKept {
            self.room.close_socket(relayed);
        }
    }

    fn has_room(&self, applicant: &Applicant<'_>, now: Tick) -> Result<(), Limit> {
        self.room.has_room(&self.alter_applicant(applicant), now)
    }

    fn admit(&mut self, applicant: &Applicant<'_>, holding: Arc<Standing>, now: Tick) -> Admitted {
        let applicant = self.alter_applicant(applicant);
        self.room.admit(&applicant, holding, now)
    }

    fn shared_buckets(&mut self, user: Subject, holding: &Standing) -> SharedBuckets {
        self.room.shared_buckets(user, holding)
    }

    fn allow_newcomer(&self, ip: IpAddr, rate: Rate, now: Tick) -> bool {
        self.room.allow_newcomer(ip, rate, now)
    }

    fn allow_failure(&self, ip: IpAddr, rate: Rate, now: Tick) -> bool {
        self.room.allow_failure(ip, rate, now)
    }

    fn release(&mut self, user: Subject, holding: &Arc<Standing>) {
        self.room.release(user, holding);
    }

    fn condemn(&mut self, worker: WorkerId, id: AllocationId) {
        self.room.condemn(worker, id);
    }

    fn own(&mut self, tuple: FiveTuple) {
        self.room.own(tuple);
    }

    fn disown(&mut self, tuple: FiveTuple) {
        self.room.disown(tuple);
    }

    fn other_owner(&self, tuple: FiveTuple) -> Option<WorkerId> {
        self.room.other_owner(tuple)
    }

    fn disconnected(&mut self, owner: WorkerId, tuple: FiveTuple) {
        self.room.disconnected(owner, tuple);
    }

    fn is_worker(&self, worker: WorkerId) -> bool {
        self.room.is_worker(worker)
    }

    fn allow_unvalidated(&self, ip: IpAddr, now: Tick) -> bool {
        self.room.allow_unvalidated(ip, now)
    }

    fn allow_connected(&self, ip: IpAddr, now: Tick) -> bool {
        self.room.allow_connected(ip, now)
    }
}
