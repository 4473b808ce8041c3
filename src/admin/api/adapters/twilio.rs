//! Twilio Network Traversal Service: `Tokens.json`, with the API key as the password of HTTP Basic.

use axum::extract::{Form, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{for_user, or_a_day};
use crate::admin::api::Api;
use crate::admin::api::gate::About;
use crate::admin::api::problem::{Named, Problem};
use crate::dataplane::sys;

#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct Tokens {
    /// Seconds; 86400 unless given.
    #[serde(rename = "Ttl")]
    #[schema(minimum = 1, value_type = u64, required = false)]
    ttl: Option<u64>,
}

#[derive(Serialize, ToSchema)]
pub(super) struct Token {
    username: String,
    password: String,
    /// A number in a text.
    #[schema(example = "86400")]
    ttl: String,
    account_sid: String,
    #[schema(example = "Mon, 23 Nov 2026 18:00:00 +0000")]
    date_created: String,
    date_updated: String,
    ice_servers: Vec<OneUrl>,
}

#[derive(Serialize, ToSchema)]
struct OneUrl {
    url: String,
    urls: String,
    username: String,
    credential: String,
}

/// Mint as Twilio does
#[utoipa::path(
    post,
    path = "/2010-04-01/Accounts/{sid}/Tokens.json",
    operation_id = "twilio_tokens",
    tag = "adapters",
    params(("sid" = String, Path, description = "Any; it is answered as account_sid.")),
    request_body(content = Tokens, content_type = "application/x-www-form-urlencoded"),
    responses((status = 201, description = "It is minted.", body = Token)),
)]
pub(super) async fn tokens(
    State(api): State<Api>,
    Named(sid): Named<String>,
    form: Result<Form<Tokens>, axum::extract::rejection::FormRejection>,
) -> Result<Response, Problem> {
    let Form(request) = form.map_err(|rejection| match rejection.status() {
        StatusCode::UNPROCESSABLE_ENTITY => Problem::bad_request("Ttl: write whole seconds"),
        status => Problem::new(status, rejection.body_text()),
    })?;
    let minted = for_user(&api, None, Some(or_a_day(&api, request.ttl)))?;
    let date = rfc2822(sys::unix_seconds());
    let server = |url: &String| OneUrl {
        url: url.clone(),
        urls: url.clone(),
        username: minted.username.clone(),
        credential: minted.password.as_str().to_owned(),
    };
    let body = Token {
        ice_servers: minted.urls.iter().map(server).collect(),
        username: minted.username.clone(),
        password: minted.password.as_str().to_owned(),
        ttl: minted.ttl.to_string(),
        account_sid: sid,
        date_created: date.clone(),
        date_updated: date,
    };
    let about = Extension(About(minted.subject));
    Ok((StatusCode::CREATED, about, Json(body)).into_response())
}

/// A moment in the words of RFC 2822 §3.3.
fn rfc2822(unix: u64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(unix);
    // 2026-11-23T18:00:00Z
    let text = humantime::format_rfc3339_seconds(time).to_string();
    let number = |from: usize, to: usize| text.get(from..to).unwrap_or_default().to_owned();
    let month = number(5, 7).parse::<usize>().unwrap_or(1);
    let month = MONTHS.get(month.wrapping_sub(1)).unwrap_or(&"Jan");
    let weekday = usize::try_from(unix / 86_400 % 7).unwrap_or(0);
    let weekday = DAYS.get(weekday).unwrap_or(&"Thu");
    format!(
        "{weekday}, {} {month} {} {} +0000",
        number(8, 10),
        number(0, 4),
        number(11, 19)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_as_mail_has_it() {
        assert_eq!(rfc2822(0), "Thu, 01 Jan 1970 00:00:00 +0000");
        assert_eq!(rfc2822(1_795_456_800), "Mon, 23 Nov 2026 18:00:00 +0000");
        assert_eq!(rfc2822(951_782_399), "Mon, 28 Feb 2000 23:59:59 +0000");
    }
}
