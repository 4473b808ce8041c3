//! Metered: a bare list of servers for `apiKey`, and one credential for `secretKey`.
#![expect(unused_qualifications, reason = "the macro for routes writes them")]

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{for_user, or_a_day};
use crate::admin::api::Api;
use crate::admin::api::gate::About;
use crate::admin::api::problem::{Asked, Body, Problem, whole};

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Region {
    /// Not looked at: this server is where it is.
    #[serde(rename = "region")]
    _region: Option<String>,
}

#[derive(Serialize, ToSchema)]
pub(super) struct Server {
    urls: String,
    username: String,
    credential: String,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Wanted {
    /// Seconds; 86400 unless given.
    #[serde(default, deserialize_with = "whole")]
    #[schema(minimum = 1)]
    expiry_in_seconds: Option<u64>,
    /// Whom it is for.
    #[schema(
        min_length = 1,
        max_length = 400,
        pattern = r"^[^~\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*$"
    )]
    label: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Created {
    username: String,
    password: String,
    expiry_in_seconds: u64,
    label: String,
    /// Empty: no credential of this server is a key to ask for others.
    api_key: String,
}

/// Mint as Metered does, a list of servers
#[utoipa::path(
    get,
    path = "/api/v1/turn/credentials",
    operation_id = "metered_credentials",
    tag = "adapters",
    params(Region),
    responses((status = 200, description = "It is minted.", body = Vec<Server>)),
)]
pub(super) async fn credentials(
    State(api): State<Api>,
    Asked(_region): Asked<Region>,
) -> Result<Response, Problem> {
    let minted = for_user(&api, None, Some(or_a_day(&api, None)))?;
    let server = |url: &String| Server {
        urls: url.clone(),
        username: minted.username.clone(),
        credential: minted.password.as_str().to_owned(),
    };
    let servers: Vec<Server> = minted.urls.iter().map(server).collect();
    Ok((Extension(About(minted.subject)), Json(servers)).into_response())
}

/// Mint as Metered does, one credential
#[utoipa::path(
    post,
    path = "/api/v1/turn/credential",
    operation_id = "metered_credential",
    tag = "adapters",
    request_body = Wanted,
    responses((status = 200, description = "It is minted.", body = Created)),
)]
pub(super) async fn credential(
    State(api): State<Api>,
    Body(request): Body<Wanted>,
) -> Result<Response, Problem> {
    let ttl = or_a_day(&api, request.expiry_in_seconds);
    let minted = for_user(&api, request.label.as_deref(), Some(ttl))?;
    let created = Created {
        username: minted.username.clone(),
        password: minted.password.as_str().to_owned(),
        expiry_in_seconds: minted.ttl,
        label: request.label.unwrap_or_default(),
        api_key: String::new(),
    };
    Ok((Extension(About(minted.subject)), Json(created)).into_response())
}
