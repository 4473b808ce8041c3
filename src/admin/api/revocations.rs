//! Taking back: credentials, users, calls, and single allocations.
//!
//! Each answers 204 once it is in force here and written down, with the headers `Taciturn-Scope`
//! and `Taciturn-Durable`; with `Prefer: return=representation` (RFC 7240 §4.2) it answers 200 and
//! says the same in JSON.

use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::Serialize;
use utoipa::ToSchema;

use super::Api;
use super::allocations::{id_of, not_live};
use super::credentials::checked;
use super::gate::About;
use super::problem::{Named, Problem};
use crate::admin::control::{ControlError, Outcome};

/// Which nodes a change is in force on.
const SCOPE: HeaderName = HeaderName::from_static("taciturn-scope");
/// Whether it outlives this process.
const DURABLE: HeaderName = HeaderName::from_static("taciturn-durable");
/// RFC 7240 §2 and §3.
const PREFER: HeaderName = HeaderName::from_static("prefer");
const APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// A change is in force.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Done {
    /// On this node alone: a platform with several tells each of them.
    #[schema(example = "node")]
    scope: &'static str,
    /// Whether it outlives this process, which it does with a `state.dir`.
    durable: bool,
}

/// Revoke a credential
///
/// By its username. It is refused from now on, and allocations made with it end within a second.
#[utoipa::path(
    delete,
    path = "/v1/credentials/{username}",
    operation_id = "revoke_credential",
    tag = "revocations",
    params(
        ("username" = String, Path, description = "As it was minted, percent-encoded.",
         min_length = 1),
        ("Prefer" = Option<String>, Header, description = "`return=representation` for a body."),
    ),
    responses(
        (status = 200, description = "It is revoked.", body = Done),
        (status = 204, description = "It is revoked.", headers(
            ("Taciturn-Scope" = String, description = "`node`: this node alone."),
            ("Taciturn-Durable" = bool, description = "Whether it outlives this process."),
        )),
        (status = 404, description = "It names no credential of this server.", body = Problem,
         content_type = "application/problem+json"),
    ),
)]
pub(super) async fn credential(
    State(api): State<Api>,
    Named(username): Named<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let outcome = api.control().revoke_credential(&username).await;
    answer(&headers, outcome)
}

/// Revoke a user
///
/// All that was issued up to now for a user is refused, and live allocations end within a second.
/// What is minted later is good: whoever must stay away is banned.
#[utoipa::path(
    delete,
    path = "/v1/users/{id}",
    operation_id = "revoke_user",
    tag = "revocations",
    params(
        ("id" = String, Path, description = "As the platform calls them, percent-encoded.",
         min_length = 1, max_length = 400),
        ("Prefer" = Option<String>, Header, description = "`return=representation` for a body."),
    ),
    responses(
        (status = 200, description = "They are revoked.", body = Done),
        (status = 204, description = "They are revoked.", headers(
            ("Taciturn-Scope" = String, description = "`node`: this node alone."),
            ("Taciturn-Durable" = bool, description = "Whether it outlives this process."),
        )),
    ),
)]
pub(super) async fn user(
    State(api): State<Api>,
    Named(id): Named<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let subject = api.rules().credentials.subject(checked(&id, "id")?);
    let outcome = api.control().revoke_user(&id).await;
    Ok((Extension(About(subject)), answer(&headers, outcome)?).into_response())
}

/// Revoke a call
///
/// As for a user: all that was issued up to now for a call.
#[utoipa::path(
    delete,
    path = "/v1/calls/{id}",
    operation_id = "revoke_call",
    tag = "revocations",
    params(
        ("id" = String, Path, description = "As the platform calls it, percent-encoded.",
         min_length = 1, max_length = 400),
        ("Prefer" = Option<String>, Header, description = "`return=representation` for a body."),
    ),
    responses(
        (status = 200, description = "It is revoked.", body = Done),
        (status = 204, description = "It is revoked.", headers(
            ("Taciturn-Scope" = String, description = "`node`: this node alone."),
            ("Taciturn-Durable" = bool, description = "Whether it outlives this process."),
        )),
    ),
)]
pub(super) async fn call(
    State(api): State<Api>,
    Named(id): Named<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let outcome = api.control().revoke_call(checked(&id, "id")?).await;
    answer(&headers, outcome)
}

/// End an allocation
///
/// Its client may make another with the same credential, unless that is revoked.
#[utoipa::path(
    delete,
    path = "/v1/allocations/{id}",
    operation_id = "end_allocation",
    tag = "allocations",
    params(("id" = String, Path, description = "Its id.", pattern = "^[0-9a-f]{16}$")),
    responses(
        (status = 204, description = "It has ended, or does as soon as its worker comes to it."),
        (status = 404, description = "It is not live on this node.", body = Problem,
         content_type = "application/problem+json"),
    ),
)]
pub(super) async fn end(
    State(api): State<Api>,
    Named(id): Named<String>,
) -> Result<StatusCode, Problem> {
    let id = id_of(&id).ok_or_else(not_live)?;
    match api.control().end(id).await {
        Ok(true) => Ok(StatusCode::NO_CONTENT),
        Ok(false) => Err(not_live()),
        Err(error) => Err(refused(&error)),
    }
}

/// 204 with headers, or 200 with a body for who prefers that.
fn answer(
    headers: &HeaderMap,
    outcome: Result<Outcome, ControlError>,
) -> Result<Response, Problem> {
    let Outcome { durable } = outcome.map_err(|error| refused(&error))?;
    let said = [
        (SCOPE, HeaderValue::from_static("node")),
        (
            DURABLE,
            HeaderValue::from_static(if durable { "true" } else { "false" }),
        ),
        (header::VARY, HeaderValue::from_static("Prefer")),
    ];
    let wanted = HeaderValue::from_static("return=representation");
    let prefers = headers.get_all(PREFER).iter().any(|preference| {
        let text = preference.to_str().unwrap_or_default();
        text.split(',')
            .any(|one| one.trim().eq_ignore_ascii_case("return=representation"))
    });
    if prefers {
        let done = Done {
            scope: "node",
            durable,
        };
        return Ok((said, [(APPLIED, wanted)], Json(done)).into_response());
    }
    Ok((StatusCode::NO_CONTENT, said).into_response())
}

/// Why it was not done.
pub(super) fn refused(error: &ControlError) -> Problem {
    match error {
        ControlError::NoCredential | ControlError::NobodyThere => {
            Problem::not_found(error.to_string())
        }
        ControlError::Empty => Problem::unprocessable(error.to_string()),
        ControlError::NoCalls | ControlError::Stopping => Problem::unavailable(error.to_string()),
        ControlError::NotKept(_) | ControlError::NotDone(_) => {
            tracing::error!(%error, "the state directory cannot be written");
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
        }
    }
}
