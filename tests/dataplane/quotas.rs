//! Limits of allocations under races: many clients on many workers, who come, go, come again from
//! elsewhere and replace each other.

use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use taciturn::turn::credential::{Claims, Label};
use taciturn::turn::quota::{Quotas, REPLACEABLE_AFTER};
use taciturn::turn::{Limits, Transport};

use crate::loopback::client::{Client, Credential, SUCCESS};
use crate::loopback::eventually;
use crate::loopback::plane::{Plane, Setup, V4, claims, sealed};
use crate::loopback::stream::Stream;

const WORKERS: usize = 4;
/// Each is a thread. Two of them share a user, and every second user a tenant.
const CLIENTS: usize = 12;
const USERS: usize = 6;
const TENANTS: [&str; 2] = ["north", "south"];
const FULL: u16 = 486;
const GONE: u16 = 437;

const fn limited(user: Option<u32>, tenant: Option<u32>, total: Option<u32>) -> Quotas {
    Quotas {
        user,
        tenant,
        total,
    }
}

/// How many live allocations a client can be sure of: counted once an answer says that there is one,
/// and no more once its end is asked for. The server has as many at any instant, or more.
struct Sure {
    quotas: Quotas,
    users: [AtomicU32; USERS],
    tenants: [AtomicU32; TENANTS.len()],
    total: AtomicU32,
}

impl Sure {
    fn new(quotas: Quotas) -> Self {
        Self {
            quotas,
            users: Default::default(),
            tenants: Default::default(),
            total: AtomicU32::new(0),
        }
    }

    fn of(&self, user: usize) -> [(&AtomicU32, Option<u32>); 3] {
        [
            (&self.users[user], self.quotas.user),
            (&self.tenants[user % TENANTS.len()], self.quotas.tenant),
            (&self.total, self.quotas.total),
        ]
    }

    #[track_caller]
    fn begins(&self, user: usize) {
        for (live, limit) in self.of(user) {
            let live = live.fetch_add(1, SeqCst) + 1;
            assert!(
                limit.is_none_or(|limit| live <= limit),
                "{live} live ones where {limit:?} may be: {:?}",
                self.quotas
            );
        }
    }

    fn ends(&self, user: usize) {
        for (live, _) in self.of(user) {
            live.fetch_sub(1, SeqCst);
        }
    }

    /// How many there are when nobody is let in any more.
    fn full(&self) -> u32 {
        let Quotas {
            user,
            tenant,
            total,
        } = self.quotas;
        let users = u32::try_from(USERS / TENANTS.len()).unwrap();
        let of_users = user.map_or(u32::MAX, |user| user * users);
        let of_tenant = of_users.min(tenant.unwrap_or(u32::MAX));
        of_tenant.saturating_mul(2).min(total.unwrap_or(u32::MAX))
    }
}

/// A thread's clients.
struct Party<'a> {
    plane: &'a Plane,
    sure: &'a Sure,
    user: usize,
    credential: Credential,
    live: Vec<Client>,
    rng: StdRng,
}

impl<'a> Party<'a> {
    fn new(plane: &'a Plane, sure: &'a Sure, number: usize, seed: u64) -> Self {
        let user = number % USERS;
        let claims = Claims {
            tenant: Label::new(TENANTS[user % TENANTS.len()]),
            ..claims(&format!("user-{user}"), "c")
        };
        Self {
            plane,
            sure,
            user,
            credential: sealed(&claims),
            live: Vec::new(),
            rng: StdRng::seed_from_u64(seed ^ number as u64),
        }
    }

    /// Whether there was room for one more.
    fn comes(&mut self) -> bool {
        let mut client = client(self.plane, self.credential.clone(), &mut self.rng);
        match client.try_allocate(V4).code() {
            SUCCESS => {
                self.sure.begins(self.user);
                self.live.push(client);
                true
            }
            code => {
                assert_eq!(code, FULL);
                false
            }
        }
    }

    fn taken(&mut self) -> Option<Client> {
        let place = self.rng.random_range(0..self.live.len().max(1));
        (place < self.live.len()).then(|| self.live.swap_remove(place))
    }

    /// Gives one up; the answer says that it is over.
    fn goes(&mut self) {
        if let Some(mut client) = self.taken() {
            self.sure.ends(self.user);
            let code = client.refresh(0).code();
            // The second answer to a request that was sent twice.
            assert!([SUCCESS, GONE].contains(&code), "{code}");
        }
    }

    /// Comes again from elsewhere while the server has not heard of the end of what was before: a
    /// connection just closes, a socket gives up behind the new one.
    fn reconnects(&mut self) {
        let Some(mut before) = self.taken() else {
            return;
        };
        if before.stream.is_some() {
            self.sure.ends(self.user);
            drop(before);
            self.comes();
        } else {
            self.comes();
            self.sure.ends(self.user);
            let code = before.refresh(0).code();
            assert!([SUCCESS, GONE].contains(&code), "{code}");
        }
    }

    fn stays(&mut self) {
        if let Some(mut client) = self.taken() {
            assert_eq!(client.refresh(600).code(), SUCCESS);
            self.live.push(client);
        }
    }

    fn churns(&mut self) {
        for _ in 0..50 {
            match self.rng.random_range(0..8) {
                0..=3 => drop(self.comes()),
                4 | 5 => self.goes(),
                6 => self.reconnects(),
                _ => self.stays(),
            }
        }
    }

    fn takes_all_it_may(&mut self) {
        while self.comes() {}
    }

    fn ends(&mut self) {
        while !self.live.is_empty() {
            self.goes();
        }
    }

    fn breaks_off(&mut self) {
        while let Some(mut client) = self.taken() {
            self.sure.ends(self.user);
            if client.stream.is_none() {
                let code = client.refresh(0).code();
                assert!([SUCCESS, GONE].contains(&code), "{code}");
            }
        }
    }
}

/// A client from a 5-tuple that nobody had, on a socket or on a connection.
fn client(plane: &Plane, credential: Credential, rng: &mut StdRng) -> Client {
    if rng.random_range(0..3) == 0 {
        let stream = Stream::tcp(plane.reached_over(Transport::Tcp));
        return Client::over(stream, credential);
    }
    Client::new(plane.reached_over(Transport::Udp), credential)
}

fn plane(quotas: Quotas) -> Plane {
    Setup {
        limits: Limits {
            quotas,
            ..Limits::default()
        },
        ..Setup::streams(WORKERS)
    }
    .start()
}

/// All of them at the same time, each on a thread.
fn all<'a>(parties: &mut [Party<'a>], work: impl Fn(&mut Party<'a>) + Sync) {
    thread::scope(|scope| {
        let work = &work;
        for party in parties {
            scope.spawn(move || work(party));
        }
    });
}

fn live(plane: &Plane) -> u64 {
    plane.allocations().iter().sum()
}

/// Under these limits, whoever comes first.
fn races(quotas: Quotas, seed: u64) {
    eprintln!("{quotas:?}: seed {seed:#x}");
    let plane = plane(quotas);
    let sure = Sure::new(quotas);
    let full = sure.full();
    let settled = |count: u32, when: &str| {
        assert_eq!(sure.total.load(SeqCst), count, "{when}");
        eventually(when, || live(&plane) == u64::from(count));
    };
    let mut parties: Vec<_> = (0..CLIENTS)
        .map(|number| Party::new(&plane, &sure, number, seed))
        .collect();
    all(&mut parties, Party::churns);
    settled(sure.total.load(SeqCst), "closed connections are gone");

    all(&mut parties, Party::takes_all_it_may);
    settled(full, "all that may live does");

    // No waiting between: who was told of an end has the place.
    for _ in 0..3 {
        all(&mut parties, Party::ends);
        all(&mut parties, Party::takes_all_it_may);
        settled(full, "a full quota is taken again");
    }

    all(&mut parties, Party::breaks_off);
    settled(0, "connections that broke off leave nothing");
    all(&mut parties, Party::takes_all_it_may);
    settled(full, "nor is any of them still counted");
    let made = plane.counters().iter();
    let made: Vec<u64> = made
        .map(|worker| worker.allocations_total.total())
        .collect();
    let took_part = made.iter().filter(|made| **made > 0).count();
    assert!(took_part >= WORKERS, "{made:?} by each worker");
}

/// T31
#[test]
fn no_race_takes_more_than_a_limit_or_loses_a_place() {
    let seed = rand::random();
    for quotas in [
        limited(Some(3), None, None),
        limited(None, Some(5), None),
        limited(None, None, Some(7)),
        limited(Some(4), Some(9), Some(17)),
    ] {
        races(quotas, seed);
    }
}

/// T31 and T56: twice as many come back from elsewhere at the same time as were silent, and each place
/// is taken once. All kinds of limits at once, since it takes as long as an allocation must be silent.
#[test]
fn each_silent_allocation_makes_way_for_one_of_those_who_race_for_it() {
    const PLACES: usize = 8;
    let places = u32::try_from(PLACES).ok();
    let seed: u64 = rand::random();
    eprintln!("seed {seed:#x}");
    let mut rng = StdRng::seed_from_u64(seed);
    let mut came = |plane: &Plane, number: usize| {
        let credential = sealed(&Claims {
            tenant: Label::new(TENANTS[0]),
            ..claims(&format!("user-{number}"), "c")
        });
        client(plane, credential, &mut rng)
    };
    // Of how many users the places are.
    let cases = [
        (limited(places, None, None), 1),
        (limited(None, places, None), PLACES),
        (limited(None, None, places), PLACES),
        (limited(Some(2), places, places), PLACES / 2),
    ];
    let mut silent: Vec<_> = cases
        .into_iter()
        .map(|(quotas, users)| {
            let plane = plane(quotas);
            let mut silent: Vec<_> = (0..PLACES).map(|n| came(&plane, n % users)).collect();
            for one in &mut silent {
                one.allocate(V4);
            }
            assert_eq!(came(&plane, 0).try_allocate(V4).code(), FULL);
            (plane, users, silent)
        })
        .collect();
    thread::sleep(REPLACEABLE_AFTER + Duration::from_secs(1));
    for (plane, users, silent) in &mut silent {
        let users = *users;
        let mut racing: Vec<_> = (0..2 * PLACES).map(|n| came(plane, n % users)).collect();
        let codes: Vec<u16> = thread::scope(|scope| {
            let racing = racing.iter_mut();
            let threads: Vec<_> = racing
                .map(|one| scope.spawn(|| one.try_allocate(V4).code()))
                .collect();
            threads.into_iter().map(|one| one.join().unwrap()).collect()
        });
        for user in 0..users {
            let of_user = codes.iter().skip(user).step_by(users);
            let (taken, refused): (Vec<u16>, Vec<u16>) =
                of_user.partition(|code| **code == SUCCESS);
            assert_eq!(taken.len(), PLACES / users, "{codes:?}");
            assert!(refused.iter().all(|code| *code == FULL), "{codes:?}");
        }
        for one in silent {
            assert_eq!(one.refresh(600).code(), GONE, "it made way");
        }
        eventually("as many live as before", || live(plane) == PLACES as u64);
        for (one, _) in racing
            .iter_mut()
            .zip(codes)
            .filter(|(_, code)| *code == SUCCESS)
        {
            assert!([SUCCESS, GONE].contains(&one.refresh(0).code()));
        }
        let mut again: Vec<_> = (0..PLACES).map(|n| came(plane, n % users)).collect();
        for one in &mut again {
            assert_eq!(
                one.try_allocate(V4).code(),
                SUCCESS,
                "nobody has these places"
            );
        }
        assert_eq!(came(plane, 0).try_allocate(V4).code(), FULL);
    }
}
