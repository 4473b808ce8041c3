//! HTTP for the platform: it mints credentials, revokes them, bans, and looks at what is live.
//!
//! Owns the routes under `/v1`, the adapters that answer as other services do, and the OpenAPI
//! document, which is made from the same code. Who may ask is `gate`'s to decide, how connections
//! come is `serve`'s, and what a credential is, `turn::credential`'s. Nothing here answers with an
//! address of a client or a peer, and no user id reaches the log.

mod adapters;
mod allocations;
mod bans;
mod credentials;
mod document;
mod gate;
mod keys;
mod problem;
mod revocations;
mod serve;
mod status;
mod walks;
mod whois;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::extract::DefaultBodyLimit;
use axum::handler::Handler as _;
use axum::routing::{get, post};
use axum::{Router, middleware};
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter};
use utoipa_axum::routes;

use crate::admin::control::Control;
use crate::admin::{Readiness, Reloads};
use crate::dataplane::Handle;
use crate::dataplane::tls::TlsKeys;
use crate::turn::credential::{Credentials, Label};
use crate::turn::policy::PeerPolicy;
use crate::turn::unvalidated::{Rate, Unvalidated};

pub use self::adapters::Adapter;
pub use self::document::openapi;
pub use self::gate::AUDIT;
pub use self::keys::{ApiKey, Scope, Scopes};
pub use self::serve::{Around, Door, Origin, Tls, answer};

use self::gate::{Budgets, Gate, Place};
use self::problem::Problem;
use self::walks::Walks;

/// The longest body of a request.
const MAX_BODY: usize = 64 << 10;

/// What the answers depend on and the operator may change while the daemon runs.
#[derive(Debug)]
pub struct Rules {
    /// Who may ask for what.
    pub keys: Vec<ApiKey>,
    /// How often each of these may.
    pub rate: Rate,
    /// How often a source may try that shows no good key.
    pub failures: Rate,
    /// What credentials are minted with.
    pub credentials: Credentials,
    /// The longest that one may live.
    pub max_ttl: Duration,
    /// The widest policy that one may claim.
    pub ceiling: PeerPolicy,
    /// Where clients reach this server.
    pub urls: Vec<String>,
    /// What this node is called.
    pub node: Option<Label>,
    /// Between which nodes calls are shared; none, and all are this server's.
    pub nodes: Vec<Node>,
    /// Which other services' shapes are answered too.
    pub adapters: Vec<Adapter>,
    /// The certificates that are served, and by what.
    pub certificates: Vec<(&'static str, Arc<TlsKeys>)>,
}

/// How the daemon around it fares.
#[derive(Clone, Debug)]
pub struct Course {
    /// When it began, in seconds of the Unix epoch.
    pub began: u64,
    /// Whether it takes allocations.
    pub readiness: Readiness,
    /// How often it read its configuration again.
    pub reloads: Reloads,
    /// The optional parts of this build.
    pub features: &'static [&'static str],
}

/// A node that calls may be sent to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// What it is called.
    pub id: Label,
    /// Where clients reach it.
    pub urls: Vec<String>,
    /// Whether it takes no new calls.
    pub drained: bool,
}

/// The platform's API; every clone is the same one.
#[derive(Clone, Debug)]
pub struct Api(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    rules: ArcSwap<Rules>,
    dataplane: Handle,
    control: Control,
    course: Course,
    budgets: Budgets,
    failures: OnceLock<Unvalidated>,
    walks: Walks,
}

impl Api {
    /// An API by these rules, with this hand on this data plane.
    #[must_use]
    pub fn new(rules: Rules, dataplane: Handle, control: Control, course: Course) -> Self {
        Self(Arc::new(Shared {
            rules: ArcSwap::from_pointee(rules),
            dataplane,
            control,
            course,
            budgets: Budgets::default(),
            failures: OnceLock::new(),
            walks: Walks::default(),
        }))
    }

    /// Goes by other rules from now on.
    pub fn reconfigure(&self, rules: Rules) {
        self.0.rules.store(Arc::new(rules));
    }

    fn rules(&self) -> Arc<Rules> {
        self.0.rules.load_full()
    }

    fn dataplane(&self) -> &Handle {
        &self.0.dataplane
    }

    fn control(&self) -> &Control {
        &self.0.control
    }

    fn course(&self) -> &Course {
        &self.0.course
    }

    fn budgets(&self) -> &Budgets {
        &self.0.budgets
    }

    fn walks(&self) -> &Walks {
        &self.0.walks
    }

    fn failures(&self) -> &Unvalidated {
        let rate = self.rules().failures;
        let failures = self.0.failures.get_or_init(|| Unvalidated::new(rate));
        failures.set(rate);
        failures
    }

    /// What is answered to this machine's user alone, besides all that others are.
    fn router_of_control(&self) -> Router {
        Router::new()
            .route("/v1/whois", post(whois::answer))
            .layer(DefaultBodyLimit::max(MAX_BODY))
            .layer(middleware::from_fn(gate::bounds))
            .with_state(self.clone())
            .merge(self.router())
    }

    fn router(&self) -> Router {
        let mut routes = OpenApiRouter::<Self>::default();
        for route in table() {
            let gate = Gate::before(self, &route);
            let gated = OpenApiRouter::default()
                .routes(route.router)
                .route_layer(middleware::from_fn_with_state(gate, gate::pass));
            routes = routes.merge(gated);
        }
        let (router, _) = routes.split_for_parts();
        let bare = Gate::bare(self);
        let document =
            get(document::serve).layer(middleware::from_fn_with_state(bare.clone(), gate::pass));
        router
            .route("/v1/openapi.json", document)
            .route("/healthz", get(|| async { "ok\n" }))
            .fallback(nothing.layer(middleware::from_fn_with_state(bare.clone(), gate::pass)))
            .method_not_allowed_fallback(
                other_method.layer(middleware::from_fn_with_state(bare, gate::pass)),
            )
            .layer(DefaultBodyLimit::max(MAX_BODY))
            .layer(middleware::from_fn(gate::bounds))
            .with_state(self.clone())
    }
}

async fn nothing() -> Problem {
    Problem::not_found("there is nothing here; GET /v1/openapi.json lists what there is")
}

async fn other_method() -> Problem {
    Problem::method_not_allowed()
}

/// A route, and what stands before it.
struct Route {
    scope: Scope,
    place: Place,
    /// The service whose shape it has, if it is not our own.
    adapter: Option<Adapter>,
    router: UtoipaMethodRouter<Api>,
}

impl Route {
    const fn own(scope: Scope, router: UtoipaMethodRouter<Api>) -> Self {
        Self {
            scope,
            place: Place::Bearer,
            adapter: None,
            router,
        }
    }
}

/// Every route that takes a key with a scope.
fn table() -> Vec<Route> {
    let mut table = vec![
        Route::own(Scope::Mint, routes!(credentials::create)),
        Route::own(Scope::Read, routes!(status::show)),
        Route::own(Scope::Read, routes!(allocations::list)),
        Route::own(Scope::Read, routes!(allocations::show)),
        Route::own(Scope::Revoke, routes!(revocations::end)),
        Route::own(Scope::Revoke, routes!(revocations::credential)),
        Route::own(Scope::Revoke, routes!(revocations::user)),
        Route::own(Scope::Revoke, routes!(revocations::call)),
        Route::own(Scope::Revoke, routes!(bans::create)),
        Route::own(Scope::Read, routes!(bans::list)),
        Route::own(Scope::Revoke, routes!(bans::lift)),
    ];
    table.extend(adapters::table());
    table
}
