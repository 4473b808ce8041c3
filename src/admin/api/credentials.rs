//! Minting: from what a platform wants for one of its users to a credential for a client.

use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use zeroize::Zeroizing;

use super::gate::About;
use super::problem::{Body, Problem, object, whole};
use super::{Api, Node, Rules};
use crate::dataplane::sys;
use crate::turn::credential::{
    CLAIMED_NETWORKS, CallId, ClaimedLimits, Claims, Label, MintError, Subject, choose,
};
use crate::turn::policy::PeerPolicy;

/// How long a credential lives when nobody says.
pub(super) const DEFAULT_TTL: Duration = Duration::from_secs(3_600);
/// The longest user id or call id in bytes; a REST username has room for this one.
const MAX_ID: usize = 400;

/// What a credential is wanted for.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CredentialRequest {
    /// Whom it is for, as the platform calls them. Nobody else learns it.
    #[schema(
        min_length = 1,
        max_length = 400,
        pattern = r"^[^~\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*$",
        example = "alice"
    )]
    user: String,
    /// For which call, as the platform calls it. Both parties of a call get the same.
    #[schema(
        min_length = 1,
        max_length = 400,
        pattern = r"^[^\x00-\x1f\x7f-\x9f]+$",
        example = "call-7"
    )]
    call: Option<String>,
    /// Seconds for which it lets its holder allocate: 3600 unless given, at most `auth.max_ttl`.
    #[serde(default, deserialize_with = "whole")]
    #[schema(minimum = 1)]
    ttl: Option<u64>,
    /// With whom its allocations may exchange packets; it narrows `policy.ceiling`.
    policy: Option<WantedPolicy>,
    /// How much its holder may use; the server's own limits stay.
    #[serde(default, deserialize_with = "object")]
    limits: Option<WantedLimits>,
    /// On whose account.
    #[schema(pattern = "^[A-Za-z0-9._-]{1,32}$", example = "north")]
    tenant: Option<String>,
    /// Whether its client is told its relayed address as its mapped one.
    #[serde(default)]
    masked: bool,
    /// Whether its allocations end when it expires.
    #[serde(default)]
    strict: bool,
    /// Seconds for which an allocation may be refreshed; it shortens `auth.session_max`.
    #[serde(default, deserialize_with = "whole")]
    #[schema(minimum = 1, maximum = 4_294_967_295_u64, format = Int64)]
    session_max: Option<u32>,
}

/// A peer policy, or the networks of one.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged)]
enum WantedPolicy {
    Word(PolicyWord),
    Networks(Vec<String>),
}

/// A peer policy: relayed addresses of the same call, relayed addresses, or everybody.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum PolicyWord {
    Call,
    Relay,
    Any,
}

/// The most that a holder may use.
#[derive(Clone, Copy, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct WantedLimits {
    /// Allocations at a time.
    #[serde(default, deserialize_with = "whole")]
    #[schema(minimum = 1, maximum = 4_294_967_295_u64, format = Int64)]
    allocations: Option<u32>,
    /// Bits a second of each allocation.
    #[serde(default, deserialize_with = "whole")]
    #[schema(minimum = 1)]
    bits: Option<u64>,
    /// Packets a second of each allocation.
    #[serde(default, deserialize_with = "whole")]
    #[schema(minimum = 1)]
    packets: Option<u64>,
}

/// A credential, in the shape of an RTCConfiguration.
#[derive(Serialize, ToSchema)]
pub(super) struct Credential {
    /// What a browser is given.
    #[serde(rename = "iceServers")]
    ice_servers: [IceServer; 1],
    /// Always `relay`: a client that gathered other candidates would tell the other party where
    /// it is.
    #[serde(rename = "iceTransportPolicy")]
    #[schema(example = "relay")]
    ice_transport_policy: &'static str,
    /// Seconds for which it lets its holder allocate.
    ttl: u64,
    /// When that ends, in seconds of the Unix epoch.
    expires: u64,
    /// What stands for the user in allocations, events and logs.
    #[schema(value_type = String, example = "6bba8e5d0df0f0a1c53ee5f38f2e2a4b")]
    subject: String,
    /// The only node that takes it, where calls are shared between nodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<String>,
}

/// Servers and the credential for them.
#[derive(Clone, Serialize, ToSchema)]
pub(super) struct IceServer {
    /// RFC 7065 URLs.
    pub(super) urls: Vec<String>,
    /// What a client authenticates with.
    pub(super) username: String,
    /// The password that belongs to it.
    pub(super) credential: String,
}

/// Mint a credential
///
/// For one user, and at best for one call: its id keeps both parties on one node, and strangers
/// out where the policy is `call`.
#[utoipa::path(
    post,
    path = "/v1/credentials",
    operation_id = "create_credential",
    tag = "credentials",
    request_body = CredentialRequest,
    responses((status = 201, description = "It is minted.", body = Credential)),
)]
pub(super) async fn create(
    State(api): State<Api>,
    Body(request): Body<CredentialRequest>,
) -> Result<Response, Problem> {
    let minted = mint(&api.rules(), &Wish::of(request)?)?;
    let about = About(minted.subject);
    let server = minted.ice_server();
    let credential = Credential {
        ice_servers: [server],
        ice_transport_policy: "relay",
        ttl: minted.ttl,
        expires: minted.expires,
        subject: minted.subject.to_string(),
        node: minted.node.map(|node| node.to_string()),
    };
    Ok((StatusCode::CREATED, Extension(about), Json(credential)).into_response())
}

/// What is to be minted.
#[derive(Default)]
pub(super) struct Wish {
    /// The platform's user id; without one the holder is somebody of their own.
    pub(super) user: Option<String>,
    pub(super) call: Option<String>,
    pub(super) ttl: Option<Duration>,
    pub(super) policy: Option<PeerPolicy>,
    pub(super) limits: ClaimedLimits,
    pub(super) tenant: Option<Label>,
    pub(super) session_max: Option<Duration>,
    pub(super) strict: bool,
    pub(super) masked: bool,
}

impl Wish {
    fn of(request: CredentialRequest) -> Result<Self, Problem> {
        let limits = request.limits.unwrap_or_default();
        let is_nothing = [
            limits.allocations.map(u64::from),
            limits.bits,
            limits.packets,
            request.session_max.map(u64::from),
        ];
        if is_nothing.contains(&Some(0)) {
            return Err(Problem::unprocessable(
                "a limit of 0 would admit nothing; leave it out for the server's own",
            ));
        }
        let tenant = request.tenant.map(|tenant| {
            Label::new(&tenant).ok_or_else(|| {
                Problem::unprocessable("tenant: use 1 to 32 letters, digits, '-', '_' or '.'")
            })
        });
        Ok(Self {
            user: Some(request.user),
            call: request.call,
            ttl: request.ttl.map(Duration::from_secs),
            policy: request.policy.map(policy).transpose()?,
            limits: ClaimedLimits {
                allocations: limits.allocations,
                bits: limits.bits,
                packets: limits.packets,
            },
            tenant: tenant.transpose()?,
            session_max: request
                .session_max
                .map(|seconds| Duration::from_secs(seconds.into())),
            strict: request.strict,
            masked: request.masked,
        })
    }
}

fn policy(wanted: WantedPolicy) -> Result<PeerPolicy, Problem> {
    let networks = match wanted {
        WantedPolicy::Word(PolicyWord::Call) => return Ok(PeerPolicy::Call),
        WantedPolicy::Word(PolicyWord::Relay) => return Ok(PeerPolicy::Relay),
        WantedPolicy::Word(PolicyWord::Any) => return Ok(PeerPolicy::Any),
        WantedPolicy::Networks(networks) => networks,
    };
    if !(1..=CLAIMED_NETWORKS).contains(&networks.len()) {
        let detail = format!("policy: list 1 to {CLAIMED_NETWORKS} networks");
        return Err(Problem::unprocessable(detail));
    }
    let network = |text: &String| {
        let network = text.parse::<IpNet>().ok();
        network.filter(|network| network.trunc() == *network)
    };
    let networks: Option<Vec<IpNet>> = networks.iter().map(network).collect();
    networks.map(PeerPolicy::Networks).ok_or_else(|| {
        Problem::unprocessable(
            "policy: write networks such as 192.0.2.0/24 or 2001:db8::/32, without bits outside \
             their prefix",
        )
    })
}

/// A credential as it was minted.
pub(super) struct Minted {
    pub(super) username: String,
    pub(super) password: Zeroizing<String>,
    pub(super) urls: Vec<String>,
    pub(super) ttl: u64,
    pub(super) expires: u64,
    pub(super) subject: Subject,
    pub(super) node: Option<Label>,
}

impl Minted {
    pub(super) fn ice_server(&self) -> IceServer {
        IceServer {
            urls: self.urls.clone(),
            username: self.username.clone(),
            credential: self.password.as_str().to_owned(),
        }
    }
}

/// Mints what is wished for, if these rules allow it.
pub(super) fn mint(rules: &Rules, wish: &Wish) -> Result<Minted, Problem> {
    let credentials = &rules.credentials;
    let user = match &wish.user {
        Some(user) => checked(user, "user")?.to_owned(),
        None => somebody()?,
    };
    if user.starts_with('~') {
        let detail = "user: ~ at the front is reserved for sealed usernames";
        return Err(Problem::unprocessable(detail));
    }
    let ttl = wish.ttl.unwrap_or_else(|| DEFAULT_TTL.min(rules.max_ttl));
    if ttl < Duration::from_secs(1) || ttl > rules.max_ttl {
        return Err(Problem::unprocessable(format!(
            "ttl: from 1 to {} seconds, which is auth.max_ttl",
            rules.max_ttl.as_secs()
        )));
    }
    let call = match &wish.call {
        Some(call) => Some(call_id(rules, checked(call, "call")?)?),
        None => None,
    };
    if let Some(policy) = &wish.policy
        && !policy.is_within(&rules.ceiling)
    {
        return Err(Problem::unprocessable(
            "policy: wider than policy.ceiling of this server; a credential can only narrow that",
        ));
    }
    if wish.policy == Some(PeerPolicy::Call) && call.is_none() {
        let detail = "policy: \"call\" takes a call id, without which it would match nobody";
        return Err(Problem::unprocessable(detail));
    }
    let node = match call {
        Some(call) if !rules.nodes.is_empty() => Some(node_of(rules, call)?),
        Some(_) | None => None,
    };
    let subject = credentials.subject(&user);
    let now = sys::unix_seconds();
    let claims = Claims {
        call,
        tenant: wish.tenant.clone(),
        policy: wish.policy.clone(),
        limits: wish.limits,
        session_max: wish.session_max,
        strict: wish.strict,
        masked: wish.masked,
        audience: node.map(|node| node.id.clone()),
        ..Claims::new(subject, now)
    };
    let expires = now.saturating_add(ttl.as_secs());
    let minted = credentials
        .mint_sealed(&claims, expires, random()?)
        .map_err(unmintable)?;
    Ok(Minted {
        username: minted.username,
        password: minted.password,
        urls: node.map_or_else(|| rules.urls.clone(), |node| node.urls.clone()),
        ttl: ttl.as_secs(),
        expires,
        subject,
        node: node.map(|node| node.id.clone()),
    })
}

/// The node that a call is sent to.
fn node_of(rules: &Rules, call: CallId) -> Result<&Node, Problem> {
    let open = || rules.nodes.iter().filter(|node| !node.drained);
    let chosen = choose(call, open().map(|node| &node.id));
    let chosen = chosen.and_then(|id| open().find(|node| node.id == *id));
    chosen.ok_or_else(|| Problem::unavailable("every node of api.nodes is drained"))
}

fn unmintable(error: MintError) -> Problem {
    match error {
        MintError::EmptySecret | MintError::NoSealingKey => {
            Problem::unavailable("this server has no secret to mint with: name one in auth.secrets")
        }
        MintError::TooLong
        | MintError::TooManyNetworks
        | MintError::Empty
        | MintError::Reserved
        | MintError::Control => {
            Problem::unprocessable(format!("no credential can say all this: {error}"))
        }
    }
}

/// An id of the platform's: not empty, not endless, and without control characters.
pub(super) fn checked<'t>(text: &'t str, what: &str) -> Result<&'t str, Problem> {
    if text.is_empty() || text.chars().count() > MAX_ID || text.chars().any(char::is_control) {
        let detail = format!("{what}: 1 to {MAX_ID} characters, none of them a control character");
        return Err(Problem::unprocessable(detail));
    }
    Ok(text)
}

fn call_id(rules: &Rules, call: &str) -> Result<CallId, Problem> {
    let hashed = rules.credentials.call(call);
    hashed.ok_or_else(|| unmintable(MintError::NoSealingKey))
}

/// An id that nobody has had.
fn somebody() -> Result<String, Problem> {
    Ok(format!("anonymous-{:032x}", u128::from_be_bytes(random()?)))
}

fn random() -> Result<[u8; 16], Problem> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)
        .map_err(|error| Problem::internal("no random bytes for a credential", &error))?;
    Ok(bytes)
}
