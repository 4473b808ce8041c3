//! What goes wrong, as problem details (RFC 9457), and the extractors that fail that way.
//!
//! 400 is a request that does not fit its schema, 422 one that does and still cannot be meant.

use std::fmt;
use std::marker::PhantomData;

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

/// Problem details, RFC 9457.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Problem {
    /// What the status is called.
    title: &'static str,
    /// The HTTP status.
    status: u16,
    /// What is wrong and what would be right.
    detail: String,
}

impl Problem {
    pub(super) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self {
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            detail: detail.into(),
        }
    }

    pub(super) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    pub(super) fn unprocessable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, detail)
    }

    pub(super) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }

    pub(super) fn method_not_allowed() -> Self {
        let detail = "the Allow header lists the methods there are";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, detail)
    }

    pub(super) fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, detail)
    }

    /// Something that only a fault of ours brings about; `what` is for the log.
    pub(super) fn internal(what: &str, error: &dyn fmt::Display) -> Self {
        tracing::error!(%error, "{what}");
        let detail = "something failed here; the log says what";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, detail)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let kind = HeaderValue::from_static("application/problem+json");
        (status, [(header::CONTENT_TYPE, kind)], Json(self)).into_response()
    }
}

/// A body of JSON.
pub(super) struct Body<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        match Json::<Object<T>>::from_request(request, state).await {
            Ok(Json(Object(value))) => Ok(Self(value)),
            Err(rejection) => Err(unread(&rejection)),
        }
    }
}

/// An object of JSON. A struct alone would be read from a list of its fields too.
struct Object<T>(T);

impl<'de, T: DeserializeOwned> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ObjectVisitor(PhantomData))
    }
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: DeserializeOwned> Visitor<'de> for ObjectVisitor<T> {
    type Value = Object<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(Object)
    }
}

/// A part of a body that is an object too, if it is there.
pub(super) fn object<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned,
{
    let object = Option::<Object<T>>::deserialize(deserializer)?;
    Ok(object.map(|Object(value)| value))
}

fn unread(rejection: &JsonRejection) -> Problem {
    let status = match rejection.status() {
        StatusCode::UNPROCESSABLE_ENTITY => StatusCode::BAD_REQUEST,
        status => status,
    };
    Problem::new(status, rejection.body_text())
}

/// A whole number, which in JSON may also be written `1.0`; written so beyond 2^53, it is the nearest
/// one that a double holds (RFC 8259 section 6).
pub(super) fn whole<'de, D, N>(deserializer: D) -> Result<Option<N>, D::Error>
where
    D: Deserializer<'de>,
    N: TryFrom<u64>,
{
    /// 2^63, which a double holds: the document says int64.
    const INT64_END: f64 = 9_223_372_036_854_775_808.0;

    let wrong = || D::Error::custom("a whole number is wanted, neither negative nor too large");
    let Some(number) = Option::<serde_json::Number>::deserialize(deserializer)? else {
        return Ok(None);
    };
    let whole = number.as_u64().or_else(|| {
        let number = number.as_f64()?;
        let is_whole = number.fract() == 0.0 && (0.0..INT64_END).contains(&number);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it was just looked at"
        )]
        is_whole.then_some(number as u64)
    });
    let whole = whole.filter(|whole| i64::try_from(*whole).is_ok());
    let whole = whole.ok_or_else(wrong)?;
    N::try_from(whole).map(Some).map_err(|_| wrong())
}

/// What the path of a URL names.
pub(super) struct Named<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Named<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Path::<T>::from_request_parts(parts, state).await {
            Ok(Path(value)) => Ok(Self(value)),
            Err(_) => Err(Problem::bad_request(
                "the path is not percent-encoded UTF-8",
            )),
        }
    }
}

/// The part of a URL behind the question mark.
pub(super) struct Asked<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Asked<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Query::<T>::from_request_parts(parts, state).await {
            Ok(Query(value)) => Ok(Self(value)),
            // Not what was asked: a key may stand there.
            Err(_) => Err(Problem::bad_request(
                "the query has a parameter that is not known, is missing, stands twice or is of \
                 another kind; GET /v1/openapi.json lists them",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    struct One {
        #[serde(default, deserialize_with = "whole")]
        n: Option<u32>,
    }

    #[derive(Debug, serde::Deserialize)]
    struct Large {
        #[serde(default, deserialize_with = "whole")]
        n: Option<u64>,
    }

    #[test]
    fn a_whole_number_may_have_a_point_and_nothing_behind_it() {
        let read = |text: &str| serde_json::from_str::<One>(text).map(|one| one.n).ok();
        for (text, number) in [
            ("{}", Some(None)),
            (r#"{"n":null}"#, Some(None)),
            (r#"{"n":7}"#, Some(Some(7))),
            (r#"{"n":7.0}"#, Some(Some(7))),
            (r#"{"n":7e2}"#, Some(Some(700))),
            (r#"{"n":7.5}"#, None),
            (r#"{"n":-1}"#, None),
            (r#"{"n":-1.0}"#, None),
            (r#"{"n":4294967296}"#, None),
            (r#"{"n":1e300}"#, None),
            (r#"{"n":"7"}"#, None),
            (r#"{"n":true}"#, None),
        ] {
            assert_eq!(read(text), number, "{text}");
        }
    }

    #[test]
    fn a_large_whole_number_is_read_to_its_last_digit_up_to_what_the_document_allows() {
        for (text, number) in [
            ("1984016887846279.0", Some(1_984_016_887_846_279)),
            ("9007199254740991.0", Some(9_007_199_254_740_991)),
            ("1e18", Some(1_000_000_000_000_000_000)),
            ("9223372036854775807", Some(9_223_372_036_854_775_807)),
            ("9223372036854775808", None),
            ("9223372036854775808.0", None),
        ] {
            let read = serde_json::from_str::<Large>(&format!(r#"{{"n":{text}}}"#));
            assert_eq!(read.ok().and_then(|read| read.n), number, "{text}");
        }
    }
}
