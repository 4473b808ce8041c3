//! HTTP for operators: whether the daemon is well, and what it has counted. It reads counters of
//! the data plane and never touches a server's state; nothing it answers names a client, a peer
//! or a user.

pub mod api;
pub mod control;
pub mod events;
mod ledger;
mod media;
mod metrics;
mod refusals;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;

use crate::admin::events::Events;
use crate::dataplane::{Handle, sys};
use crate::turn::Tick;

pub use ledger::LedgerError;
pub use metrics::{Numbers, Served, Shown};
pub use refusals::{Ban, BanId};

/// What the admin listener is told.
#[derive(Debug, Clone, Copy)]
pub struct Config {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Whether the log shows clients' addresses.
    pub addresses_shown: bool,
}

/// Whether the daemon takes new allocations.
#[derive(Debug, Clone, Default)]
pub struct Readiness(Arc<AtomicBool>);

impl Readiness {
    /// From now on it does.
    pub fn begin(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// From now on it does not.
    pub fn end(&self) {
        self.0.store(false, Ordering::Release);
    }

    fn is_ready(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// How often the configuration was read again; clones are the same one.
#[derive(Debug, Clone, Default)]
pub struct Reloads(Arc<[AtomicU64; 3]>);

impl Reloads {
    /// It is in force.
    pub fn applied(&self) {
        self.0[0].fetch_add(1, Ordering::Relaxed);
        self.note(0);
    }

    /// It was bad, and changed nothing.
    pub fn refused(&self) {
        self.0[1].fetch_add(1, Ordering::Relaxed);
        self.note(1);
    }

    /// Both in one number, so that nobody reads half of it.
    fn note(&self, outcome: u64) {
        let last = sys::unix_seconds() << 1 | outcome;
        self.0[2].store(last, Ordering::Relaxed);
    }

    /// When it was last, in seconds of the Unix epoch, and what came of it.
    fn last(&self) -> Option<(u64, &'static str)> {
        let last = self.0[2].load(Ordering::Relaxed);
        let outcome = if last & 1 == 0 { "applied" } else { "refused" };
        (last > 0).then_some((last >> 1, outcome))
    }

    /// How often each came about.
    fn counts(&self) -> [(&'static str, u64); 2] {
        let count = |index: usize| self.0[index].load(Ordering::Relaxed);
        [("applied", count(0)), ("refused", count(1))]
    }
}

/// A bound admin listener that answers nobody yet.
#[derive(Debug)]
pub struct Admin {
    listener: TcpListener,
    address: SocketAddr,
    addresses_shown: bool,
}

impl Admin {
    /// Binds the listener.
    ///
    /// # Errors
    /// When the system refuses.
    pub async fn bind(config: &Config) -> io::Result<Self> {
        let listener = TcpListener::bind(config.listen).await?;
        let address = listener.local_addr()?;
        Ok(Self {
            listener,
            address,
            addresses_shown: config.addresses_shown,
        })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until the task is dropped.
    ///
    /// # Errors
    /// When the listener fails.
    pub async fn serve(
        self,
        dataplane: Handle,
        readiness: Readiness,
        reloads: Reloads,
        events: Events,
        numbers: Numbers,
    ) -> io::Result<()> {
        axum::serve(
            self.listener,
            router(House {
                dataplane,
                readiness,
                reloads,
                addresses_shown: self.addresses_shown,
                events,
                numbers,
                began: sys::unix_seconds(),
            }),
        )
        .await
    }
}

/// What requests are answered from.
#[derive(Debug, Clone)]
struct House {
    dataplane: Handle,
    readiness: Readiness,
    reloads: Reloads,
    addresses_shown: bool,
    events: Events,
    numbers: Numbers,
    /// When it began to serve, in seconds of the Unix epoch.
    began: u64,
}

fn router(house: House) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/metrics", get(scrape))
        .route("/metrics/allocations", get(scrape_allocations))
        .route("/readyz", get(ready))
        .with_state(house)
}

async fn ready(State(house): State<House>) -> (StatusCode, &'static str) {
    if house.readiness.is_ready() {
        (StatusCode::OK, "ready\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready\n")
    }
}

async fn scrape(State(house): State<House>) -> Response {
    match metrics::text(&house) {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "the metrics could not be written");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

async fn scrape_allocations(State(house): State<House>) -> Response {
    let now = Tick::from_nanos(sys::monotonic_nanos());
    let page = house.numbers.page(&house.dataplane, now);
    let kind = [(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)];
    (kind, Body::new(page)).into_response()
}
