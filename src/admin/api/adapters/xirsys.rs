//! Xirsys: `PUT /_turn/{channel}`, with the API key as the password of HTTP Basic.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{for_user, or_a_day};
use crate::admin::api::Api;
use crate::admin::api::credentials::IceServer;
use crate::admin::api::gate::About;
use crate::admin::api::problem::{Body, Named, Problem, whole};

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Turn {
    /// The answer has this one.
    #[serde(rename = "format")]
    _format: Option<Format>,
    /// Seconds; 86400 unless given.
    #[serde(default, deserialize_with = "whole")]
    #[schema(minimum = 1)]
    expire: Option<u64>,
    /// Whom it is for.
    #[schema(
        min_length = 1,
        max_length = 400,
        pattern = r"^[^~\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*$"
    )]
    k: Option<String>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Format {
    Urls,
}

#[derive(Serialize, ToSchema)]
pub(super) struct Envelope {
    v: Inner,
    #[schema(example = "ok")]
    s: &'static str,
}

#[derive(Serialize, ToSchema)]
struct Inner {
    #[serde(rename = "iceServers")]
    ice_servers: IceServer,
}

/// Mint as Xirsys does
#[utoipa::path(
    put,
    path = "/_turn/{channel}",
    operation_id = "xirsys_turn",
    tag = "adapters",
    params(("channel" = String, Path, description = "Any; it is not looked at.")),
    request_body = Turn,
    responses((status = 200, description = "It is minted.", body = Envelope)),
)]
pub(super) async fn turn(
    State(api): State<Api>,
    Named(_channel): Named<String>,
    Body(request): Body<Turn>,
) -> Result<Response, Problem> {
    let ttl = or_a_day(&api, request.expire);
    let minted = for_user(&api, request.k.as_deref(), Some(ttl))?;
    let envelope = Envelope {
        v: Inner {
            ice_servers: minted.ice_server(),
        },
        s: "ok",
    };
    Ok((Extension(About(minted.subject)), Json(envelope)).into_response())
}
