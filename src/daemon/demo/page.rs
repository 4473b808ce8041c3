//! The demo's page over HTTP: its files, which are part of the binary, credentials for its parties,
//! and the mailboxes of two tabs. On loopback alone, and for pages from there alone: a name that
//! somebody's DNS points here is refused, and so is what a page from elsewhere sends.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::Value;
use tokio::net::TcpListener;

use super::credentials;
use super::signals::{Full, Mailboxes, Party};
use crate::admin::api::{Around, Door, answer};
use crate::daemon::house::House;
use crate::dataplane;

/// The longest message from one tab to the other; a session description takes 5 KiB.
const MAX_BODY: usize = 32 << 10;
/// How long a request may take, its body included.
const PATIENCE: Duration = Duration::from_secs(10);

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// What every answer carries.
static HEADERS: [(HeaderName, &str); 6] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
         img-src data:; media-src blob:; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'",
    ),
    (header::CACHE_CONTROL, "no-store"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        "same-origin",
    ),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
];

/// The page's listener, which answers nobody yet.
#[derive(Debug)]
pub(crate) struct Page {
    listener: TcpListener,
    address: SocketAddr,
}

impl Page {
    /// Binds the listener, if there is to be one.
    ///
    /// # Errors
    /// When the system refuses.
    pub(crate) async fn bind(address: Option<SocketAddr>) -> anyhow::Result<Option<Self>> {
        let Some(address) = address else {
            return Ok(None);
        };
        let listener = TcpListener::bind(address).await.with_context(|| {
            format!("cannot serve the page on {address}; --page names another address")
        })?;
        let address = listener.local_addr()?;
        Ok(Some(Self { listener, address }))
    }

    /// Where it is.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers from now on; what to say to whoever started it.
    pub(crate) fn open(self, house: &Arc<House>, handle: &dataplane::Handle) -> String {
        let desk = Desk {
            house: Arc::clone(house),
            handle: handle.clone(),
            mailboxes: Mailboxes::default(),
        };
        let door = Door::Network(self.listener, Around::new(None));
        tokio::spawn(answer(door, router(desk)));
        super::text(self.address, &handle.listening())
    }
}

/// What requests are answered from.
struct Desk {
    house: Arc<House>,
    handle: dataplane::Handle,
    mailboxes: Mailboxes,
}

fn router(desk: Desk) -> Router {
    Router::new()
        .route("/", get(|| file(Path("page.html".to_owned()))))
        .route("/{file}", get(file))
        .route("/credentials/{party}", post(mint))
        .route("/signals/{party}", get(take).post(leave))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(middleware::from_fn(guard))
        .with_state(Arc::new(desk))
}

async fn file(Path(name): Path<String>) -> Response {
    let (kind, text) = match name.as_str() {
        "page.html" => (HTML, include_str!("page/page.html")),
        "page.css" => (CSS, include_str!("page/page.css")),
        "page.js" => (SCRIPT, include_str!("page/page.js")),
        "panel.js" => (SCRIPT, include_str!("page/panel.js")),
        "call.js" => (SCRIPT, include_str!("page/call.js")),
        "picture.js" => (SCRIPT, include_str!("page/picture.js")),
        _ => return StatusCode::NOT_FOUND.into_response(),
    };
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

async fn mint(State(desk): State<Arc<Desk>>, Path(party): Path<Party>) -> Response {
    match credentials::mint(party, &desk.house, &desk.handle) {
        Ok(minted) => Json(minted).into_response(),
        Err(error) => {
            tracing::error!("no credential for the page: {error:#}");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

async fn take(State(desk): State<Arc<Desk>>, Path(party): Path<Party>) -> Json<Vec<Value>> {
    Json(desk.mailboxes.take(party))
}

async fn leave(
    State(desk): State<Arc<Desk>>,
    Path(party): Path<Party>,
    Json(message): Json<Value>,
) -> StatusCode {
    match desk.mailboxes.leave(party, message) {
        Ok(()) => StatusCode::NO_CONTENT,
        Err(Full) => StatusCode::TOO_MANY_REQUESTS,
    }
}

/// What holds for every request.
async fn guard(request: Request, next: Next) -> Response {
    let mut response = if let Err(refusal) = from_here(request.headers()) {
        refusal.into_response()
    } else {
        match tokio::time::timeout(PATIENCE, next.run(request)).await {
            Ok(response) => response,
            Err(_) => StatusCode::REQUEST_TIMEOUT.into_response(),
        }
    };
    for (name, value) in &HEADERS {
        let value = HeaderValue::from_static(value);
        response.headers_mut().insert(name, value);
    }
    response
}

/// Lets pass what a browser of this machine asks on behalf of this page.
fn from_here(headers: &HeaderMap) -> Result<(), (StatusCode, &'static str)> {
    let text = |name| {
        headers
            .get(name)
            .and_then(|value: &HeaderValue| value.to_str().ok())
    };
    // A stranger's page whose name now leads here says that name (DNS rebinding).
    let Some(host) = text(header::HOST).filter(|host| is_loopback(host)) else {
        return Err((
            StatusCode::MISDIRECTED_REQUEST,
            "this page is for browsers of its machine: http://127.0.0.1 and the port\n",
        ));
    };
    let is_own = |origin: &HeaderValue| origin.as_bytes() == format!("http://{host}").as_bytes();
    if headers
        .get(header::ORIGIN)
        .is_some_and(|origin| !is_own(origin))
    {
        return Err((StatusCode::FORBIDDEN, "another page asks\n"));
    }
    Ok(())
}

/// Whether a `Host` is this machine, whatever DNS says. The port is not looked at: it may be
/// another one at the near end of a tunnel.
fn is_loopback(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else {
        return false;
    };
    let name = authority.host();
    let bare = name
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    let ip = bare.unwrap_or(name).parse::<IpAddr>();
    !host.contains('@')
        && (name.eq_ignore_ascii_case("localhost") || ip.is_ok_and(|ip| ip.is_loopback()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(headers: &[(HeaderName, &str)]) -> StatusCode {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(name, value.parse().unwrap());
        }
        from_here(&map).map_or_else(|(status, _)| status, |()| StatusCode::OK)
    }

    #[test]
    fn a_host_is_this_machine_by_address_or_not_at_all() {
        for own in [
            "127.0.0.1:8081",
            "127.0.0.2",
            "localhost:9000",
            "LOCALHOST",
            "[::1]:8081",
        ] {
            assert_eq!(asked(&[(header::HOST, own)]), StatusCode::OK, "{own}");
        }
        for foreign in [
            "evil.example",
            "evil.example:8081",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "evil@127.0.0.1",
            "192.0.2.7:8081",
            "0.0.0.0:8081",
            "[::]:8081",
            "2130706433",
            "127.1",
            "",
        ] {
            let status = asked(&[(header::HOST, foreign)]);
            assert_eq!(status, StatusCode::MISDIRECTED_REQUEST, "{foreign}");
        }
        assert_eq!(asked(&[]), StatusCode::MISDIRECTED_REQUEST);
    }

    #[test]
    fn another_origin_is_refused() {
        let from = |origin| asked(&[(header::HOST, "127.0.0.1:8081"), (header::ORIGIN, origin)]);
        assert_eq!(from("http://127.0.0.1:8081"), StatusCode::OK);
        for other in [
            "https://evil.example",
            "http://127.0.0.1:3000",
            "http://localhost:8081",
            "http://127.0.0.1:8081.evil.example",
            "null",
        ] {
            assert_eq!(from(other), StatusCode::FORBIDDEN, "{other}");
        }
    }
}
