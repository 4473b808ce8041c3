//! Whether a pseudonym of the log stands for an address that somebody suspects, while its day's key
//! lives in this process alone.
//!
//! Only the control socket has it, and the OpenAPI document does not: over the network it would let
//! whoever holds a key try addresses until one fits.

use std::net::IpAddr;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};

use super::Api;
use super::gate::AUDIT;
use super::problem::{Body, Problem};
use super::revocations::refused;
use crate::turn::Pseudonym;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Question {
    pseudonym: String,
    address: String,
}

#[derive(Serialize)]
pub(super) struct Answer {
    scope: &'static str,
    days: Vec<Day>,
}

/// A day whose key lives.
#[derive(Serialize)]
struct Day {
    /// Counted from 1970.
    day: u64,
    /// Whether the pseudonym stood for the address.
    fits: bool,
}

pub(super) async fn answer(
    State(api): State<Api>,
    Body(question): Body<Question>,
) -> Result<Json<Answer>, Problem> {
    let pseudonym = Pseudonym::parse(&question.pseudonym).ok_or_else(|| {
        Problem::unprocessable("pseudonym: 16 digits from 0 to f, as the log has it")
    })?;
    // What was written there instead is not said again: it may be an address with a slip in it.
    let address: IpAddr = question.address.parse().map_err(|_| {
        Problem::unprocessable("address: write one such as 198.51.100.20, without a port")
    })?;
    tracing::info!(target: AUDIT, %pseudonym, "whois asked");
    let days = api.control().whois(pseudonym, address.to_canonical()).await;
    let days = days.map_err(|error| refused(&error))?.into_iter();
    Ok(Json(Answer {
        scope: "node",
        days: days.map(|(day, fits)| Day { day, fits }).collect(),
    }))
}
