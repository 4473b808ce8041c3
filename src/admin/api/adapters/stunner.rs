//! STUNner's authentication service: `GET /ice`.
#![expect(unused_qualifications, reason = "the macro for routes writes them")]

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::rest::Service;
use super::{for_user, or_a_day};
use crate::admin::api::Api;
use crate::admin::api::credentials::IceServer;
use crate::admin::api::gate::About;
use crate::admin::api::problem::{Asked, Problem};

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Wanted {
    #[serde(rename = "service")]
    #[param(inline)]
    _service: Option<Service>,
    /// Whom it is for.
    #[param(
        min_length = 1,
        max_length = 400,
        pattern = r"^[^~\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*$"
    )]
    username: Option<String>,
    /// Seconds; 86400 unless given.
    #[param(minimum = 1)]
    ttl: Option<u64>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Configuration {
    ice_servers: Vec<IceServer>,
    /// `relay`, where STUNner says `all`.
    #[schema(example = "relay")]
    ice_transport_policy: &'static str,
}

/// Mint as STUNner does
#[utoipa::path(
    get,
    path = "/ice",
    operation_id = "stunner_ice",
    tag = "adapters",
    params(Wanted),
    responses((status = 200, description = "It is minted.", body = Configuration)),
)]
pub(super) async fn ice(
    State(api): State<Api>,
    Asked(wanted): Asked<Wanted>,
) -> Result<Response, Problem> {
    let ttl = or_a_day(&api, wanted.ttl);
    let minted = for_user(&api, wanted.username.as_deref(), Some(ttl))?;
    let configuration = Configuration {
        ice_servers: vec![minted.ice_server()],
        ice_transport_policy: "relay",
    };
    Ok((Extension(About(minted.subject)), Json(configuration)).into_response())
}
