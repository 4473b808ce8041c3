//! draft-uberti-behave-turn-rest: `/turn?service=turn&username=…&key=…`; and the same answer where
//! a Matrix client looks for it, so that a reverse proxy can send it here.
#![expect(unused_qualifications, reason = "the macro for routes writes them")]

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{for_user, or_a_day};
use crate::admin::api::Api;
use crate::admin::api::gate::About;
use crate::admin::api::problem::{Asked, Problem};

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Wanted {
    #[serde(rename = "service")]
    #[param(inline)]
    _service: Service,
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

/// The service that is wanted; there is one.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Service {
    /// TURN.
    Turn,
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct MatrixUser {
    /// Whom it is for, as application services say it.
    #[param(
        min_length = 1,
        max_length = 400,
        pattern = r"^[^~\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*$",
        example = "@alice:example.org"
    )]
    user_id: Option<String>,
}

#[derive(Serialize, ToSchema)]
pub(super) struct TurnServer {
    username: String,
    password: String,
    ttl: u64,
    uris: Vec<String>,
}

/// Mint as draft-uberti-behave-turn-rest does
#[utoipa::path(
    get,
    path = "/turn",
    operation_id = "rest_get",
    tag = "adapters",
    params(Wanted),
    responses((status = 200, description = "It is minted.", body = TurnServer)),
)]
pub(super) async fn get(
    State(api): State<Api>,
    Asked(wanted): Asked<Wanted>,
) -> Result<Response, Problem> {
    answer(&api, wanted.username.as_deref(), wanted.ttl)
}

/// Mint as draft-uberti-behave-turn-rest does, by POST
#[utoipa::path(
    post,
    path = "/turn",
    operation_id = "rest_post",
    tag = "adapters",
    params(Wanted),
    responses((status = 200, description = "It is minted.", body = TurnServer)),
)]
pub(super) async fn post(
    State(api): State<Api>,
    Asked(wanted): Asked<Wanted>,
) -> Result<Response, Problem> {
    answer(&api, wanted.username.as_deref(), wanted.ttl)
}

/// Mint as a Matrix homeserver does
#[utoipa::path(
    get,
    path = "/_matrix/client/v3/voip/turnServer",
    operation_id = "matrix_turn_server",
    tag = "adapters",
    params(MatrixUser),
    responses((status = 200, description = "It is minted.", body = TurnServer)),
)]
pub(super) async fn turn_server(
    State(api): State<Api>,
    Asked(user): Asked<MatrixUser>,
) -> Result<Response, Problem> {
    answer(&api, user.user_id.as_deref(), None)
}

fn answer(api: &Api, user: Option<&str>, ttl: Option<u64>) -> Result<Response, Problem> {
    let minted = for_user(api, user, Some(or_a_day(api, ttl)))?;
    let server = TurnServer {
        username: minted.username,
        password: minted.password.as_str().to_owned(),
        ttl: minted.ttl,
        uris: minted.urls,
    };
    Ok((Extension(About(minted.subject)), Json(server)).into_response())
}
