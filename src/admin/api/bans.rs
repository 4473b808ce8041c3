//! Bans: who may not allocate, by user, subject, address, network or pseudonym.

use std::net::IpAddr;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Api;
use super::allocations::subject_of;
use super::credentials::checked;
use super::problem::{Body, Named, Problem, whole};
use super::revocations::refused;
use crate::admin::control::BanTarget;
use crate::admin::{Ban, BanId};
use crate::dataplane::sys;
use crate::turn::Pseudonym;
use crate::turn::ban::Banned;

/// Who is to be banned: one of `user`, `subject`, `network` and `pseudonym`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct BanRequest {
    /// As the platform calls them.
    #[schema(min_length = 1, max_length = 400, example = "alice")]
    user: Option<String>,
    /// By what stands for them.
    #[schema(pattern = "^[0-9a-f]{32}$")]
    subject: Option<String>,
    /// Whoever comes from an address, or from a network such as 192.0.2.0/24.
    #[schema(example = "192.0.2.0/24")]
    network: Option<String>,
    /// Whoever is at the address behind a pseudonym of the log, while they have an allocation.
    #[schema(pattern = "^[0-9a-f]{16}$")]
    pseudonym: Option<String>,
    /// Seconds until it ends by itself; without it, it does not.
    #[serde(default, deserialize_with = "whole")]
    #[schema(minimum = 1)]
    ttl: Option<u64>,
}

/// Somebody who may not allocate.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Shown {
    /// By which it can be lifted.
    #[schema(pattern = "^[0-9a-f]{16}$")]
    id: String,
    /// `subject` or `network`.
    kind: &'static str,
    /// What stands for a banned user.
    subject: Option<String>,
    /// The length of a banned network's prefix; which one it is, is kept only as a keyed hash.
    prefix: Option<u8>,
    /// Since when, in seconds of the Unix epoch.
    since: u64,
    /// Until when; null is for good.
    until: Option<u64>,
}

impl From<&Ban> for Shown {
    fn from(ban: &Ban) -> Self {
        let (kind, subject, prefix) = match &ban.banned {
            Banned::Subject(subject) => ("subject", Some(subject.to_string()), None),
            Banned::Network(network) => ("network", None, Some(network.prefix.length())),
        };
        Self {
            id: ban.id.to_string(),
            kind,
            subject,
            prefix,
            since: ban.since,
            until: ban.until,
        }
    }
}

/// The bans in force on this node.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Bans {
    #[schema(example = "node")]
    scope: &'static str,
    bans: Vec<Shown>,
}

/// Somebody is banned.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Banning {
    /// On this node alone: a platform with several tells each of them.
    #[schema(example = "node")]
    scope: &'static str,
    /// Whether it outlives this process, which it does with a `state.dir`.
    durable: bool,
    /// More than one where several users or addresses were meant.
    bans: Vec<Shown>,
}

/// Ban somebody
///
/// They allocate nothing from now on, and their allocations end within a second.
#[utoipa::path(
    post,
    path = "/v1/bans",
    operation_id = "create_ban",
    tag = "bans",
    request_body = BanRequest,
    responses(
        (status = 201, description = "They are banned.", body = Banning),
        (status = 404, description = "Nobody with this pseudonym has an allocation.",
         body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn create(
    State(api): State<Api>,
    Body(request): Body<BanRequest>,
) -> Result<Response, Problem> {
    let until = match request.ttl {
        Some(0) => return Err(Problem::unprocessable("ttl: at least a second")),
        Some(ttl) => Some(sys::unix_seconds().saturating_add(ttl)),
        None => None,
    };
    let banning = api.control().ban(target(&request)?, until).await;
    let banning = banning.map_err(|error| refused(&error))?;
    let body = Banning {
        scope: "node",
        durable: banning.durable,
        bans: banning.bans.iter().map(Shown::from).collect(),
    };
    Ok((StatusCode::CREATED, Json(body)).into_response())
}

fn target(request: &BanRequest) -> Result<BanTarget, Problem> {
    let one = "name one of user, subject, network and pseudonym";
    match request {
        BanRequest {
            user: Some(user),
            subject: None,
            network: None,
            pseudonym: None,
            ..
        } => Ok(BanTarget::User(checked(user, "user")?.to_owned())),
        BanRequest {
            user: None,
            subject: Some(subject),
            network: None,
            pseudonym: None,
            ..
        } => Ok(BanTarget::Subject(subject_of(subject)?)),
        BanRequest {
            user: None,
            subject: None,
            network: Some(network),
            pseudonym: None,
            ..
        } => Ok(BanTarget::Network(parsed(network)?)),
        BanRequest {
            user: None,
            subject: None,
            network: None,
            pseudonym: Some(pseudonym),
            ..
        } => Pseudonym::parse(pseudonym)
            .map(BanTarget::Pseudonym)
            .ok_or_else(|| {
                Problem::unprocessable("pseudonym: 16 digits from 0 to f, as the log has it")
            }),
        BanRequest { .. } => Err(Problem::unprocessable(one)),
    }
}

fn parsed(text: &str) -> Result<IpNet, Problem> {
    let address = || text.parse::<IpAddr>().ok().map(IpNet::from);
    let network = text.parse::<IpNet>().ok().or_else(address);
    let network = network.filter(|network| network.trunc() == *network);
    // A ban of everybody is a slip of the hand; `policy` and `relay` close a server.
    // The mapped addresses are all of IPv4.
    let least = |network: &IpNet| match network.addr().to_canonical() {
        IpAddr::V4(_) if network.addr().is_ipv6() => 97,
        IpAddr::V4(_) | IpAddr::V6(_) => 1,
    };
    let network = network.filter(|network| network.prefix_len() >= least(network));
    network.ok_or_else(|| {
        Problem::unprocessable(
            "network: write an address or a network such as 192.0.2.0/24, without bits outside \
             its prefix, and not the whole of the internet",
        )
    })
}

/// List bans
#[utoipa::path(
    get,
    path = "/v1/bans",
    operation_id = "list_bans",
    tag = "bans",
    responses((status = 200, description = "Those in force.", body = Bans)),
)]
pub(super) async fn list(State(api): State<Api>) -> Result<Json<Bans>, Problem> {
    let bans = api
        .control()
        .bans()
        .await
        .map_err(|error| refused(&error))?;
    Ok(Json(Bans {
        scope: "node",
        bans: bans.iter().map(Shown::from).collect(),
    }))
}

/// Lift a ban
#[utoipa::path(
    delete,
    path = "/v1/bans/{id}",
    operation_id = "lift_ban",
    tag = "bans",
    params(("id" = String, Path, description = "Its id.", pattern = "^[0-9a-f]{16}$")),
    responses(
        (status = 204, description = "It is lifted."),
        (status = 404, description = "There is none of that id.", body = Problem,
         content_type = "application/problem+json"),
    ),
)]
pub(super) async fn lift(
    State(api): State<Api>,
    Named(id): Named<String>,
) -> Result<StatusCode, Problem> {
    let none = || Problem::not_found("no ban with this id is in force on this node");
    let id = BanId::parse(&id).ok_or_else(none)?;
    let lifted = api.control().unban(id).await;
    match lifted.map_err(|error| refused(&error))? {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(none()),
    }
}
