//! The shapes in which other services hand out TURN credentials, so that a platform that speaks to
//! one of them can speak to this server instead. Each takes an API key in the place where that
//! service has its own, or as `Authorization: Bearer`, and is off unless `api.adapters` names it.
//!
//! What they answer differs from their models in one thing: there are only `turn:` and `turns:`
//! URLs, unless `public.urls` lists others, and where there is room the policy `relay`.

mod cloudflare;
mod metered;
mod rest;
mod stunner;
mod twilio;
mod xirsys;

use std::time::Duration;

use utoipa_axum::router::UtoipaMethodRouter;
use utoipa_axum::routes;

use super::credentials::{Minted, Wish, mint};
use super::gate::Place;
use super::keys::Scope;
use super::problem::Problem;
use super::{Api, Route};

/// A service whose shape can be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Adapter {
    /// Cloudflare Realtime TURN.
    Cloudflare,
    /// Twilio Network Traversal Service.
    Twilio,
    /// Metered.
    Metered,
    /// Xirsys.
    Xirsys,
    /// draft-uberti-behave-turn-rest.
    Rest,
    /// `/voip/turnServer` of Matrix.
    Matrix,
    /// STUNner's authentication service.
    Stunner,
}

impl Adapter {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Cloudflare,
        Self::Twilio,
        Self::Metered,
        Self::Xirsys,
        Self::Rest,
        Self::Matrix,
        Self::Stunner,
    ];

    /// The word that stands for it in configuration.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Cloudflare => "cloudflare",
            Self::Twilio => "twilio",
            Self::Metered => "metered",
            Self::Xirsys => "xirsys",
            Self::Rest => "rest",
            Self::Matrix => "matrix",
            Self::Stunner => "stunner",
        }
    }
}

/// Their routes.
pub(super) fn table() -> Vec<Route> {
    use Adapter::{Cloudflare, Matrix, Metered, Rest, Stunner, Twilio, Xirsys};
    let route = |adapter, scope, place, router: UtoipaMethodRouter<Api>| Route {
        scope,
        place,
        adapter: Some(adapter),
        router,
    };
    let mint = |adapter, place, router| route(adapter, Scope::Mint, place, router);
    vec![
        mint(
            Cloudflare,
            Place::Bearer,
            routes!(cloudflare::generate_ice_servers),
        ),
        mint(Cloudflare, Place::Bearer, routes!(cloudflare::generate)),
        route(
            Cloudflare,
            Scope::Revoke,
            Place::Bearer,
            routes!(cloudflare::revoke),
        ),
        mint(Twilio, Place::Basic, routes!(twilio::tokens)),
        mint(
            Metered,
            Place::Query("apiKey"),
            routes!(metered::credentials),
        ),
        mint(
            Metered,
            Place::Query("secretKey"),
            routes!(metered::credential),
        ),
        mint(Xirsys, Place::Basic, routes!(xirsys::turn)),
        mint(Rest, Place::Query("key"), routes!(rest::get, rest::post)),
        mint(Matrix, Place::Bearer, routes!(rest::turn_server)),
        mint(Stunner, Place::Query("key"), routes!(stunner::ice)),
    ]
}

/// Mints for `user`, if the service's request names one, for `ttl`.
fn for_user(api: &Api, user: Option<&str>, ttl: Option<Duration>) -> Result<Minted, Problem> {
    let wish = Wish {
        user: user.map(str::to_owned),
        ttl,
        ..Wish::default()
    };
    mint(&api.rules(), &wish)
}

/// So many seconds as these services mean when nobody says: a day, or as long as there may be.
fn or_a_day(api: &Api, ttl: Option<u64>) -> Duration {
    let day = Duration::from_secs(86_400).min(api.rules().max_ttl);
    ttl.map_or(day, Duration::from_secs)
}
