//! Every route of the daemon's HTTP listeners, and what it is asked in the suite: so that it
//! answers, and has something to tell.

/// Which listener serves it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Door {
    /// For operators.
    Admin,
    /// For the platform.
    Api,
    /// For this machine's user.
    Control,
}

/// A route and the requests for it.
pub(crate) struct Route {
    pub(crate) path: &'static str,
    pub(crate) door: Door,
    pub(crate) asks: &'static [Ask],
}

/// A request that has to be understood.
pub(crate) struct Ask {
    pub(crate) method: &'static str,
    /// What follows the path.
    pub(crate) query: &'static str,
    pub(crate) auth: Auth,
    pub(crate) body: &'static str,
}

/// How the key is shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Auth {
    Bearer,
    Basic,
    /// In the query, where `{key}` stands.
    Query,
}

/// The key of the stage's API, with every scope.
pub(crate) const KEY: &str = "stage-key-that-nobody-guesses";

const fn ask(method: &'static str, query: &'static str, auth: Auth, body: &'static str) -> Ask {
    Ask {
        method,
        query,
        auth,
        body,
    }
}

const fn get(query: &'static str) -> Ask {
    ask("GET", query, Auth::Bearer, "")
}

const fn delete() -> Ask {
    ask("DELETE", "", Auth::Bearer, "")
}

const fn api(path: &'static str, asks: &'static [Ask]) -> Route {
    let door = Door::Api;
    Route { path, door, asks }
}

const fn admin(path: &'static str) -> Route {
    let (door, asks) = (Door::Admin, const { &[get("")] });
    Route { path, door, asks }
}

/// In this order: what ends something comes last.
pub(crate) const ROUTES: &[Route] = &[
    admin("/healthz"),
    admin("/metrics"),
    admin("/metrics/allocations"),
    admin("/readyz"),
    api("/v1/openapi.json", &[get("")]),
    api(
        "/v1/credentials",
        &[ask(
            "POST",
            "",
            Auth::Bearer,
            r#"{"user":"203.0.113.7","call":"198.51.100.20","ttl":600,"tenant":"acme"}"#,
        )],
    ),
    api("/v1/status", &[get("")]),
    api(
        "/v1/allocations",
        &[
            get(""),
            get("?user=bob"),
            get("?limit=2"),
            get("?user=203.0.113.7"),
        ],
    ),
    Route {
        path: "/v1/whois",
        door: Door::Control,
        asks: &[ask(
            "POST",
            "",
            Auth::Bearer,
            r#"{"pseudonym":"0123456789abcdef","address":"203.0.113.7"}"#,
        )],
    },
    api("/v1/allocations/{id}", &[get(""), delete()]),
    api(
        "/v1/bans",
        &[
            ask("POST", "", Auth::Bearer, r#"{"network":"2001:db8:b::20"}"#),
            get(""),
        ],
    ),
    api("/v1/bans/{id}", &[delete()]),
    api("/v1/credentials/{username}", &[delete()]),
    api("/v1/users/{id}", &[delete()]),
    api("/v1/calls/{id}", &[delete()]),
    api(
        "/v1/turn/keys/{id}/credentials/generate-ice-servers",
        &[ask(
            "POST",
            "",
            Auth::Bearer,
            r#"{"ttl":600,"customIdentifier":"alice"}"#,
        )],
    ),
    api(
        "/v1/turn/keys/{id}/credentials/generate",
        &[ask("POST", "", Auth::Bearer, r#"{"ttl":600}"#)],
    ),
    api(
        "/v1/turn/keys/{id}/credentials/{username}/revoke",
        &[ask("POST", "", Auth::Bearer, "")],
    ),
    api(
        "/api/v1/turn/credentials",
        &[ask("GET", "?apiKey={key}", Auth::Query, "")],
    ),
    api(
        "/api/v1/turn/credential",
        &[ask(
            "POST",
            "?secretKey={key}",
            Auth::Query,
            r#"{"expiryInSeconds":600,"label":"alice"}"#,
        )],
    ),
    api(
        "/turn",
        &[
            ask(
                "GET",
                "?service=turn&username=alice&key={key}",
                Auth::Query,
                "",
            ),
            ask(
                "POST",
                "?service=turn&username=alice&key={key}",
                Auth::Query,
                "",
            ),
        ],
    ),
    api("/_matrix/client/v3/voip/turnServer", &[get("")]),
    api(
        "/ice",
        &[ask(
            "GET",
            "?service=turn&username=alice&key={key}",
            Auth::Query,
            "",
        )],
    ),
    api(
        "/2010-04-01/Accounts/{sid}/Tokens.json",
        &[ask("POST", "", Auth::Basic, "Ttl=600")],
    ),
    api(
        "/_turn/{channel}",
        &[ask("PUT", "", Auth::Basic, r#"{"format":"urls"}"#)],
    ),
];

/// Routes that the stage's daemon does not serve, and why.
pub(crate) const UNASKED: &[(&str, &str)] = &[
    ("/", "the page of `taciturn demo`, a text of the binary"),
    ("/{file}", "its files, the same"),
    (
        "/credentials/{party}",
        "what `taciturn mint` prints, for that page",
    ),
    (
        "/signals/{party}",
        "what that page's two tabs tell each other: signalling, in memory alone",
    ),
];
