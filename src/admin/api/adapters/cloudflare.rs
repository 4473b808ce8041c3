//! Cloudflare Realtime TURN: `generate-ice-servers`, the older `generate`, and `revoke`.

use axum::Extension;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{for_user, or_a_day};
use crate::admin::api::Api;
use crate::admin::api::credentials::{IceServer, Minted};
use crate::admin::api::gate::About;
use crate::admin::api::problem::{Body, Named, Problem, whole};
use crate::admin::api::revocations::refused;

#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Generate {
    /// Seconds; 86400 unless given.
    #[serde(default, deserialize_with = "whole")]
    #[schema(minimum = 1, example = 86_400)]
    ttl: Option<u64>,
    /// Whom it is for.
    #[schema(
        min_length = 1,
        max_length = 400,
        pattern = r"^[^~\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*$"
    )]
    custom_identifier: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct IceServers {
    ice_servers: Vec<IceServer>,
    ice_transport_policy: &'static str,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct OneIceServer {
    ice_servers: IceServer,
}

fn minted(api: &Api, request: &Generate) -> Result<Minted, Problem> {
    let ttl = or_a_day(api, request.ttl);
    for_user(api, request.custom_identifier.as_deref(), Some(ttl))
}

/// Mint as Cloudflare does
#[utoipa::path(
    post,
    path = "/v1/turn/keys/{id}/credentials/generate-ice-servers",
    operation_id = "cloudflare_generate_ice_servers",
    tag = "adapters",
    params(("id" = String, Path, description = "Any; it is not looked at.")),
    request_body = Generate,
    responses((status = 201, description = "It is minted.", body = IceServers)),
)]
pub(super) async fn generate_ice_servers(
    State(api): State<Api>,
    Named(_id): Named<String>,
    Body(request): Body<Generate>,
) -> Result<Response, Problem> {
    let minted = minted(&api, &request)?;
    let body = IceServers {
        ice_servers: vec![minted.ice_server()],
        ice_transport_policy: "relay",
    };
    let about = Extension(About(minted.subject));
    Ok((StatusCode::CREATED, about, Json(body)).into_response())
}

/// Mint as Cloudflare did
#[utoipa::path(
    post,
    path = "/v1/turn/keys/{id}/credentials/generate",
    operation_id = "cloudflare_generate",
    tag = "adapters",
    params(("id" = String, Path, description = "Any; it is not looked at.")),
    request_body = Generate,
    responses((status = 201, description = "It is minted.", body = OneIceServer)),
)]
pub(super) async fn generate(
    State(api): State<Api>,
    Named(_id): Named<String>,
    Body(request): Body<Generate>,
) -> Result<Response, Problem> {
    let minted = minted(&api, &request)?;
    let body = OneIceServer {
        ice_servers: minted.ice_server(),
    };
    let about = Extension(About(minted.subject));
    Ok((StatusCode::CREATED, about, Json(body)).into_response())
}

/// Revoke as Cloudflare does
#[utoipa::path(
    post,
    path = "/v1/turn/keys/{id}/credentials/{username}/revoke",
    operation_id = "cloudflare_revoke",
    tag = "adapters",
    params(
        ("id" = String, Path, description = "Any; it is not looked at."),
        ("username" = String, Path, description = "As it was minted, percent-encoded."),
    ),
    responses(
        (status = 204, description = "It is revoked."),
        (status = 404, description = "It names no credential of this server.", body = Problem,
         content_type = "application/problem+json"),
    ),
)]
pub(super) async fn revoke(
    State(api): State<Api>,
    Named((_id, username)): Named<(String, String)>,
) -> Result<StatusCode, Problem> {
    let outcome = api.control().revoke_credential(&username).await;
    outcome.map_err(|error| refused(&error))?;
    Ok(StatusCode::NO_CONTENT)
}
