//! Who may pass: keys, scopes, rates, and a line in the log for each change.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::keys::{self, Scope, Scopes};
use super::problem::Problem;
use super::serve::Origin;
use super::{Adapter, Api, MAX_BODY, Route};
use crate::dataplane::sys;
use crate::turn::Tick;
use crate::turn::credential::Subject;
use crate::turn::unvalidated::Rate;

/// The target of the lines that tell who changed what; they are written whatever the log's level.
pub const AUDIT: &str = "taciturn::audit";

/// How long a request may take, its body included.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where a key may stand besides `Authorization: Bearer`.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
    /// Nowhere else.
    Bearer,
    /// The password of `Authorization: Basic`.
    Basic,
    /// A parameter of the query.
    Query(&'static str),
}

/// What stands before a route.
#[derive(Clone, Debug)]
pub(super) struct Gate {
    api: Api,
    place: Place,
    scope: Option<Scope>,
    adapter: Option<Adapter>,
}

impl Gate {
    /// One that takes any key.
    pub(super) fn bare(api: &Api) -> Self {
        Self {
            api: api.clone(),
            place: Place::Bearer,
            scope: None,
            adapter: None,
        }
    }

    /// The one of a route.
    pub(super) fn before(api: &Api, route: &Route) -> Self {
        Self {
            api: api.clone(),
            place: route.place,
            scope: Some(route.scope),
            adapter: route.adapter,
        }
    }
}

/// Who asks.
struct Caller {
    id: String,
    scopes: Scopes,
    is_metered: bool,
}

/// Whom a change was about, for the audit log; a response carries it as an extension.
#[derive(Clone, Copy, Debug)]
pub(super) struct About(pub(super) Subject);

/// Lets a request through to its route if its key may.
pub(super) async fn pass(State(gate): State<Gate>, request: Request, next: Next) -> Response {
    let caller = match caller(&gate, &request) {
        Ok(caller) => caller,
        Err(refusal) => return *refusal,
    };
    let adapters = &gate.api.rules().adapters;
    if gate
        .adapter
        .is_some_and(|adapter| !adapters.contains(&adapter))
    {
        let detail = "this adapter is off; api.adapters lists those that are on";
        return Problem::not_found(detail).into_response();
    }
    if gate.scope.is_some_and(|scope| !caller.scopes.has(scope)) {
        let scope = gate.scope.map_or("", Scope::label);
        let detail = format!("this takes a key with the scope {scope}");
        return Problem::new(StatusCode::FORBIDDEN, detail).into_response();
    }
    if caller.is_metered {
        let rate = gate.api.rules().rate;
        let now = Tick::from_nanos(sys::monotonic_nanos());
        if let Err(wait) = gate.api.budgets().take(&caller.id, rate, now) {
            return too_many("this key asks more often than api.rate lets it", wait);
        }
    }
    let is_change = matches!(gate.scope, Some(Scope::Mint | Scope::Revoke));
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let change = is_change.then(|| Change {
        key: caller.id,
        method,
        route,
        is_told: false,
    });
    let response = next.run(request).await;
    if let Some(mut change) = change {
        change.answered(&response);
    }
    response
}

/// A request that may change something. It is told of also when nobody waits for its answer any
/// more, since what it asked for may be done all the same.
struct Change {
    key: String,
    method: Method,
    route: Option<MatchedPath>,
    is_told: bool,
}

impl Change {
    fn route(&self) -> &str {
        self.route.as_ref().map_or("none", MatchedPath::as_str)
    }

    fn answered(&mut self, response: &Response) {
        self.is_told = true;
        let (key, method, route) = (&self.key, &self.method, self.route());
        let status = response.status().as_u16();
        match response.extensions().get::<About>() {
            Some(About(user)) => {
                tracing::info!(target: AUDIT, %key, %method, route, status, %user, "API change")
            }
            None => tracing::info!(target: AUDIT, %key, %method, route, status, "API change"),
        }
    }
}

impl Drop for Change {
    fn drop(&mut self) {
        if !self.is_told {
            let (key, method, route) = (&self.key, &self.method, self.route());
            tracing::info!(target: AUDIT, %key, %method, route, "API change, unanswered");
        }
    }
}

fn caller(gate: &Gate, request: &Request) -> Result<Caller, Box<Response>> {
    let origin = request.extensions().get::<Origin>().copied();
    let (source, is_certified) = match origin {
        Some(Origin::Control) => {
            return Ok(Caller {
                id: "control".to_owned(),
                scopes: Scopes::all(),
                is_metered: false,
            });
        }
        Some(Origin::Network { source, certified }) => (Some(source), certified),
        None => (None, false),
    };
    let rules = gate.api.rules();
    let presented = presented(gate.place, request);
    let key = presented
        .as_ref()
        .and_then(|key| keys::find(&rules.keys, key.as_str()));
    if let Some(key) = key {
        return Ok(Caller {
            id: key.id().to_owned(),
            scopes: key.scopes(),
            is_metered: true,
        });
    }
    // Who has a certificate of client_ca has shown something as good as a key, where there is none.
    if is_certified && rules.keys.is_empty() {
        return Ok(Caller {
            id: "certificate".to_owned(),
            scopes: Scopes::all(),
            is_metered: true,
        });
    }
    let now = Tick::from_nanos(sys::monotonic_nanos());
    if source.is_some_and(|source| !gate.api.failures().allow(source, now)) {
        let detail = "too many requests came from there without a key that is known";
        return Err(Box::new(too_many(detail, Duration::from_secs(1))));
    }
    Err(Box::new(unauthorized(gate.place)))
}

fn unauthorized(place: Place) -> Response {
    let (challenge, detail) = match place {
        Place::Basic => (
            "Basic realm=\"taciturn\"",
            "this takes an API key, as the password of Authorization: Basic or as Authorization: \
             Bearer",
        ),
        Place::Bearer | Place::Query(_) => (
            "Bearer",
            "this takes an API key, as Authorization: Bearer <key>",
        ),
    };
    let problem = Problem::new(StatusCode::UNAUTHORIZED, detail);
    let challenge = HeaderValue::from_static(challenge);
    ([(header::WWW_AUTHENTICATE, challenge)], problem).into_response()
}

fn too_many(detail: &str, wait: Duration) -> Response {
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    let problem = Problem::new(StatusCode::TOO_MANY_REQUESTS, detail);
    (
        [(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)))],
        problem,
    )
        .into_response()
}

/// The key that a request shows.
fn presented(place: Place, request: &Request) -> Option<Zeroizing<String>> {
    let header = request.headers().get(header::AUTHORIZATION);
    if let Some(header) = header {
        let (scheme, rest) = header.to_str().ok()?.split_once(' ')?;
        let rest = rest.trim_matches(' ');
        if scheme.eq_ignore_ascii_case("bearer") {
            return Some(Zeroizing::new(rest.to_owned()));
        }
        if scheme.eq_ignore_ascii_case("basic") && matches!(place, Place::Basic) {
            let both = Zeroizing::new(STANDARD.decode(rest).ok()?);
            let (_, password) = std::str::from_utf8(&both).ok()?.split_once(':')?;
            return Some(Zeroizing::new(password.to_owned()));
        }
        return None;
    }
    let Place::Query(name) = place else {
        return None;
    };
    let query = request.uri().query()?;
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let (_, value) = pairs.into_iter().find(|(key, _)| *key == name)?;
    percent_decoded(value)
}

/// `application/x-www-form-urlencoded`, read.
fn percent_decoded(text: &str) -> Option<Zeroizing<String>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digit = |byte: u8| char::from(byte).to_digit(16);
                let (high, low) = (digit(rest.next()?)?, digit(rest.next()?)?);
                u8::try_from(high * 16 + low).ok()?
            }
            other => other,
        });
    }
    String::from_utf8(bytes).ok().map(Zeroizing::new)
}

/// What holds for every request, whoever asks.
pub(super) async fn bounds(request: Request, next: Next) -> Response {
    let announced = request.headers().get(header::CONTENT_LENGTH);
    let announced = announced.and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|length| length > MAX_BODY) {
        let detail = format!("a body has at most {MAX_BODY} bytes");
        return Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail).into_response();
    }
    match tokio::time::timeout(PATIENCE, next.run(request)).await {
        Ok(mut response) => {
            // Credentials are nobody's to keep on the way (RFC 9111 §5.2.2.5).
            let headers = response.headers_mut();
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
            let sniffing = HeaderValue::from_static("nosniff");
            headers.insert(header::X_CONTENT_TYPE_OPTIONS, sniffing);
            response
        }
        Err(_) => {
            let detail = "the request took too long to arrive";
            Problem::new(StatusCode::REQUEST_TIMEOUT, detail).into_response()
        }
    }
}

/// How much each key may still ask: the moment at which its bucket would be full again.
#[derive(Debug, Default)]
pub(super) struct Budgets(Mutex<HashMap<String, u64>>);

impl Budgets {
    /// Takes one request off what the key called `id` may ask at `rate`; when there is none left,
    /// says how long to wait. There are as many entries as there are keys.
    fn take(&self, id: &str, rate: Rate, now: Tick) -> Result<(), Duration> {
        let spacing = 1_000_000_000 / u64::from(rate.per_second.max(1));
        let span = spacing.saturating_mul(u64::from(rate.burst.max(1)));
        let mut budgets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let full_at = match budgets.get_mut(id) {
            Some(full_at) => full_at,
            None => budgets.entry(id.to_owned()).or_default(),
        };
        let next = (*full_at).max(now.nanos()).saturating_add(spacing);
        let latest = now.nanos().saturating_add(span);
        if next > latest {
            return Err(Duration::from_nanos(next - latest));
        }
        *full_at = next;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;

    fn shown(place: Place, uri: &str, authorization: Option<&str>) -> Option<String> {
        let mut request = Request::builder().uri(uri);
        if let Some(authorization) = authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        let request = request.body(Body::empty()).unwrap();
        presented(place, &request).map(|key| key.to_string())
    }

    #[test]
    fn a_key_is_found_where_it_may_stand_and_nowhere_else() {
        let key = Some("a-key".to_owned());
        let basic = format!("Basic {}", STANDARD.encode("anybody:a-key"));
        for place in [Place::Bearer, Place::Basic, Place::Query("key")] {
            assert_eq!(shown(place, "/", Some("Bearer a-key")), key);
            assert_eq!(shown(place, "/", Some("bearer  a-key")), key);
            assert_eq!(shown(place, "/", Some("Digest a-key")), None);
            assert_eq!(shown(place, "/", None), None);
        }
        assert_eq!(shown(Place::Basic, "/", Some(&basic)), key);
        assert_eq!(shown(Place::Bearer, "/", Some(&basic)), None);
        assert_eq!(shown(Place::Query("key"), "/?a=b&key=a%2Dkey", None), key);
        assert_eq!(shown(Place::Query("key"), "/?other=a-key", None), None);
        assert_eq!(shown(Place::Bearer, "/?key=a-key", None), None);
        assert_eq!(shown(Place::Query("key"), "/?key=%zz", None), None);
    }

    #[test]
    fn a_key_gets_its_burst_and_then_its_rate() {
        let budgets = Budgets::default();
        let rate = Rate {
            per_second: 10,
            burst: 5,
        };
        let at = |millis: u64| Tick::from_nanos(1_000_000_000 + millis * 1_000_000);
        let taken = |millis| {
            let taken = (0..100).take_while(|_| budgets.take("a", rate, at(millis)).is_ok());
            taken.count()
        };
        assert_eq!(taken(0), 5);
        assert_eq!(taken(100), 1);
        assert_eq!(taken(10_000), 5);
        assert!(budgets.take("b", rate, at(10_000)).is_ok());
        let wait = budgets.take("a", rate, at(10_000)).unwrap_err();
        assert_eq!(wait, Duration::from_millis(100));
    }
}
