//! What stands in for the data plane: one [`House`] for all workers, seen by each through a
//! [`Room`].

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use taciturn::proto::ConnectionId;
use taciturn::turn::credential::Subject;
use taciturn::turn::ports::{Drawn, NoPort, PortPool, PortWish, Token};
use taciturn::turn::quota::{Admitted, Applicant, Users};
use taciturn::turn::rates::SharedBuckets;
use taciturn::turn::route::{Landing, Landings, PeerKind, Standing};
use taciturn::turn::stats::Limit;
use taciturn::turn::unvalidated::{Networks, Rate, Unvalidated};
use taciturn::turn::{
    AllocationId, Environment, FiveTuple, Forward, Head, ListenerId, PeerAddr, RelayedAddr, Server,
    SocketRefused, Tick, WorkerId,
};

/// The tables that all workers share.
#[derive(Debug)]
pub struct House {
    pub landings: HashMap<RelayedAddr, Arc<Landing>>,
    pub sockets: HashMap<RelayedAddr, AllocationId>,
    pub owners: HashMap<FiveTuple, WorkerId>,
    /// Where clients reach it, by the listeners' places.
    pub listeners: Vec<SocketAddr>,
    pub condemned: Vec<(WorkerId, AllocationId)>,
    pub disconnected: Vec<(WorkerId, FiveTuple)>,
    /// Relayed addresses at which a TCP socket listens.
    pub listening: HashMap<RelayedAddr, AllocationId>,
    /// Every connection to a peer that was begun: by name, from where, to whom.
    pub connects: Vec<(ConnectionId, SocketAddr, SocketAddr, PeerKind)>,
    /// Every connection that was to be closed.
    pub closed: Vec<ConnectionId>,
    pub ports: PortPool,
    pub users: Users,
    pub unvalidated: Unvalidated,
    pub newcomers: Networks,
    pub failures: Networks,
    /// Whether nobody reads what happened.
    pub behind: bool,
    /// Ports that "another process" holds.
    pub taken: HashSet<u16>,
    /// Whether the kernel has no descriptors left.
    pub exhausted: bool,
    /// How many workers there are.
    pub workers: u16,
    /// How often landings were published.
    pub published: u64,
}

impl House {
    pub fn new(
        addresses: &[IpAddr],
        ports: &RangeInclusive<u16>,
        unvalidated: Rate,
        seed: u64,
    ) -> Rc<RefCell<Self>> {
        let rng = StdRng::seed_from_u64(seed);
        Rc::new(RefCell::new(Self {
            landings: HashMap::new(),
            sockets: HashMap::new(),
            owners: HashMap::new(),
            listeners: Vec::new(),
            condemned: Vec::new(),
            disconnected: Vec::new(),
            listening: HashMap::new(),
            connects: Vec::new(),
            closed: Vec::new(),
            ports: PortPool::new(addresses, ports, Duration::from_secs(60), rng),
            users: Users::default(),
            unvalidated: Unvalidated::new(unvalidated),
            newcomers: Networks::default(),
            failures: Networks::default(),
            behind: false,
            taken: HashSet::new(),
            exhausted: false,
            workers: 1,
            published: 0,
        }))
    }
}

/// One worker's view of the house.
#[derive(Debug, Clone)]
pub struct Room {
    pub house: Rc<RefCell<House>>,
    pub worker: WorkerId,
}

impl Landings for Room {
    fn find(&self, relayed: RelayedAddr) -> Option<Arc<Landing>> {
        self.house.borrow().landings.get(&relayed).cloned()
    }
}

impl Environment for Room {
    fn publish(&mut self, landing: Arc<Landing>) {
        let mut house = self.house.borrow_mut();
        house.published += 1;
        house.landings.insert(landing.relayed, landing);
    }

    fn withdraw(&mut self, relayed: RelayedAddr) {
        self.house.borrow_mut().landings.remove(&relayed);
    }

    fn draw_port(&mut self, wish: PortWish, user: Subject, now: Tick) -> Result<Drawn, NoPort> {
        self.house.borrow_mut().ports.draw(wish, user, now)
    }

    fn claim_port(&mut self, token: Token, user: Subject, now: Tick) -> Option<RelayedAddr> {
        self.house.borrow_mut().ports.claim(token, user, now)
    }

    fn rest_port(&mut self, relayed: RelayedAddr, now: Tick) {
        self.house.borrow_mut().ports.rest(relayed, now);
    }

    fn open_socket(&mut self, relayed: RelayedAddr, id: AllocationId) -> Result<(), SocketRefused> {
        let mut house = self.house.borrow_mut();
        if house.exhausted {
            return Err(SocketRefused::Exhausted);
        }
        if house.taken.contains(&relayed.port()) {
            return Err(SocketRefused::PortTaken);
        }
        let before = house.sockets.insert(relayed, id);
        assert!(before.is_none(), "{relayed} has two sockets");
        Ok(())
    }

    fn close_socket(&mut self, relayed: RelayedAddr) {
        let mut house = self.house.borrow_mut();
        house.sockets.remove(&relayed);
        house.listening.remove(&relayed);
    }

    fn has_room(&self, applicant: &Applicant<'_>, now: Tick) -> Result<(), Limit> {
        self.house.borrow().users.has_room(applicant, now)
    }

    fn admit(&mut self, applicant: &Applicant<'_>, holding: Arc<Standing>, now: Tick) -> Admitted {
        self.house.borrow_mut().users.admit(applicant, holding, now)
    }

    fn shared_buckets(&mut self, user: Subject, holding: &Standing) -> SharedBuckets {
        let users = &mut self.house.borrow_mut().users;
        users.shared_buckets(user, holding)
    }

    fn is_behind(&self) -> bool {
        self.house.borrow().behind
    }

    fn allow_newcomer(&self, ip: IpAddr, rate: Rate, now: Tick) -> bool {
        self.house.borrow().newcomers.allow(ip, rate, now)
    }

    fn allow_failure(&self, ip: IpAddr, rate: Rate, now: Tick) -> bool {
        self.house.borrow().failures.allow(ip, rate, now)
    }

    fn release(&mut self, user: Subject, holding: &Arc<Standing>) {
        self.house.borrow_mut().users.release(user, holding);
    }

    fn condemn(&mut self, worker: WorkerId, id: AllocationId) {
        self.house.borrow_mut().condemned.push((worker, id));
    }

    fn own(&mut self, tuple: FiveTuple) {
        self.house.borrow_mut().owners.insert(tuple, self.worker);
    }

    fn disown(&mut self, tuple: FiveTuple) {
        self.house.borrow_mut().owners.remove(&tuple);
    }

    fn other_owner(&self, tuple: FiveTuple) -> Option<WorkerId> {
        let owner = self.house.borrow().owners.get(&tuple).copied();
        owner.filter(|owner| *owner != self.worker)
    }

    fn listening(&self, listener: ListenerId) -> Option<SocketAddr> {
        let house = self.house.borrow();
        house.listeners.get(usize::from(listener.place())).copied()
    }

    fn disconnected(&mut self, owner: WorkerId, tuple: FiveTuple) {
        self.house.borrow_mut().disconnected.push((owner, tuple));
    }

    fn is_worker(&self, worker: WorkerId) -> bool {
        worker.0 < self.house.borrow().workers
    }

    fn allow_unvalidated(&self, ip: IpAddr, now: Tick) -> bool {
        self.house.borrow().unvalidated.allow(ip, now)
    }

    fn allow_connected(&self, ip: IpAddr, now: Tick) -> bool {
        self.house.borrow().unvalidated.allow_connected(ip, now)
    }

    fn listen(&mut self, relayed: RelayedAddr, id: AllocationId) -> Result<(), SocketRefused> {
        let mut house = self.house.borrow_mut();
        if house.exhausted {
            return Err(SocketRefused::Exhausted);
        }
        if house.taken.contains(&relayed.port()) {
            return Err(SocketRefused::PortTaken);
        }
        let before = house.listening.insert(relayed, id);
        assert!(before.is_none(), "{relayed} listens twice");
        Ok(())
    }

    fn connect(
        &mut self,
        connection: ConnectionId,
        from: RelayedAddr,
        to: PeerAddr,
        kind: PeerKind,
    ) -> Result<(), SocketRefused> {
        let mut house = self.house.borrow_mut();
        if house.exhausted {
            return Err(SocketRefused::Exhausted);
        }
        house
            .connects
            .push((connection, from.socket_addr(), to.expose(), kind));
        Ok(())
    }

    fn close(&mut self, connection: ConnectionId) {
        self.house.borrow_mut().closed.push(connection);
    }

    fn takes_connections(&self, worker: WorkerId) -> bool {
        worker.0 < self.house.borrow().workers
    }
}

/// The bytes of a packet that goes on.
pub fn forwarded<E: Environment>(server: &Server<E>, buf: &[u8], forward: &Forward) -> Vec<u8> {
    let head = match forward.head {
        Head::InPlace => &[],
        Head::Aside => server.head(),
    };
    let mut bytes = [head, &buf[forward.range.clone()]].concat();
    bytes.resize(bytes.len() + forward.padding, 0);
    bytes
}
