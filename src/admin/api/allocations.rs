//! What is live: allocations by their subjects, without anybody's address.
#![expect(unused_qualifications, reason = "the macro for routes writes them")]

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::credentials::checked;
use super::problem::{Asked, Named, Problem};
use super::{Api, Rules};
use crate::dataplane::{Seen, sys};
use crate::turn::credential::{CallId, Claims, Label, Subject};
use crate::turn::route::{AllocationId, RelayProtocol};
use crate::turn::stats::{Direction, Meters, Path as Way};
use crate::turn::{Tick, Transport, media};

/// How many allocations a page has unless fewer or more are asked for.
const PAGE: u16 = 100;
/// The most that may be asked for.
const LARGEST_PAGE: u16 = 10_000;

/// Which allocations are wanted.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Wanted {
    /// Those of a user, as the platform calls them.
    #[param(
        min_length = 1,
        max_length = 400,
        pattern = r"^[^\x00-\x1f\x7f-\x9f]+$"
    )]
    user: Option<String>,
    /// Those of a subject.
    #[param(pattern = "^[0-9a-f]{32}$")]
    subject: Option<String>,
    /// Those of a call, as the platform calls it.
    #[param(
        min_length = 1,
        max_length = 400,
        pattern = r"^[^\x00-\x1f\x7f-\x9f]+$"
    )]
    call: Option<String>,
    /// Those on a tenant's account.
    #[param(pattern = "^[A-Za-z0-9._-]{1,32}$")]
    tenant: Option<String>,
    /// Those whose clients speak so.
    #[param(inline)]
    transport: Option<TransportName>,
    /// Where the page before ended: its `next`.
    #[param(pattern = "^[0-9a-f]{16}$")]
    cursor: Option<String>,
    /// How many at most: 100 unless given.
    #[param(minimum = 1, maximum = 10_000)]
    limit: Option<u16>,
}

/// Between client and server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum TransportName {
    Udp,
    Tcp,
    Tls,
    Dtls,
}

impl From<Transport> for TransportName {
    fn from(transport: Transport) -> Self {
        match transport {
            Transport::Udp => Self::Udp,
            Transport::Tcp => Self::Tcp,
            Transport::Tls => Self::Tls,
            Transport::Dtls => Self::Dtls,
        }
    }
}

/// A page of allocations, in the order of their ids.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Page {
    /// Where these allocations are: this node knows of no other's.
    #[schema(example = "node")]
    scope: &'static str,
    allocations: Vec<Allocation>,
    /// The cursor of the next page, if there is more.
    next: Option<String>,
}

/// A live allocation.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Allocation {
    /// Its opaque name, as in logs and events.
    #[schema(pattern = "^[0-9a-f]{16}$")]
    id: String,
    /// What stands for its user.
    #[schema(pattern = "^[0-9a-f]{32}$")]
    subject: String,
    /// What stands for its call, if its credential names one.
    call: Option<String>,
    /// On whose account it is.
    tenant: Option<String>,
    transport: TransportName,
    /// What its peers are spoken to by: `udp` or `tcp`.
    relay: TransportName,
    /// The way that most of its packets took: `hairpin`, `relay` or `indication`; null before the
    /// first.
    path: Option<&'static str>,
    /// The worker that has it, as `taciturn_worker_busy_seconds_total` counts them.
    worker: u16,
    /// When it was made, in seconds of the Unix epoch.
    opened: u64,
    /// When it ends unless it is refreshed, in seconds of the Unix epoch.
    until: u64,
    /// How many peer addresses it permits.
    permissions: usize,
    /// How many channels it has bound.
    channels: usize,
    /// What came from its client.
    received: Usage,
    /// What went to its client.
    sent: Usage,
    /// Packets for its client that were dropped.
    dropped: u64,
    /// Its RTP streams, if it has had any.
    media: Option<Media>,
}

/// RTP streams, by their headers.
#[derive(Debug, Serialize, ToSchema)]
struct Media {
    /// Those that came from its client.
    received: Quality,
    /// Those that went to its client.
    sent: Quality,
}

/// What RTP streams came to; `docs/media-quality.md` says how it is measured.
#[derive(Debug, Serialize, ToSchema)]
struct Quality {
    /// How many there were.
    streams: u64,
    /// Their packets that came.
    packets: u64,
    /// Their packets that did not.
    lost: u64,
    /// Packets that came out of order.
    reordered: u64,
    /// Packets that came again.
    duplicates: u64,
    /// Times at which one stood still although its sender did not.
    gaps: u64,
    /// How long those lasted, in seconds.
    gap_seconds: f64,
    /// The greatest jitter of those that live, in seconds.
    jitter_seconds: f64,
    /// RTP packets of no measured stream.
    unmeasured: u64,
    /// RTCP packets.
    rtcp: u64,
}

impl Media {
    fn of(meters: &Meters) -> Option<Self> {
        let quality = |direction| meters.quality(direction).map(Quality::from);
        Some(Self {
            received: quality(Direction::In)?,
            sent: quality(Direction::Out)?,
        })
    }
}

impl From<media::Quality> for Quality {
    fn from(quality: media::Quality) -> Self {
        Self {
            streams: quality.streams,
            packets: quality.packets,
            lost: quality.lost(),
            reordered: quality.reordered,
            duplicates: quality.duplicates,
            gaps: quality.gaps,
            gap_seconds: quality.gap_time.as_secs_f64(),
            jitter_seconds: quality.jitter.as_secs_f64(),
            unmeasured: quality.unmeasured,
            rtcp: quality.rtcp,
        }
    }
}

/// Application data, without TURN's framing.
#[derive(Debug, Default, Serialize, ToSchema)]
struct Usage {
    packets: u64,
    bytes: u64,
}

/// List live allocations
#[utoipa::path(
    get,
    path = "/v1/allocations",
    operation_id = "list_allocations",
    tag = "allocations",
    params(Wanted),
    responses((status = 200, description = "A page of them.", body = Page)),
)]
pub(super) async fn list(
    State(api): State<Api>,
    Asked(wanted): Asked<Wanted>,
) -> Result<Json<Page>, Problem> {
    let limit = wanted.limit.unwrap_or(PAGE);
    if !(1..=LARGEST_PAGE).contains(&limit) {
        let detail = format!("limit: from 1 to {LARGEST_PAGE}");
        return Err(Problem::unprocessable(detail));
    }
    let after = match &wanted.cursor {
        Some(cursor) => Some(id_of(cursor).ok_or_else(|| {
            Problem::unprocessable("cursor: write what `next` of the page before says")
        })?),
        None => None,
    };
    let filter = Filter::new(&wanted, &api.rules())?;
    let dataplane = api.dataplane().clone();
    let page = api.walks().take(move || {
        let mut found = dataplane.allocations();
        found.retain(|seen| {
            after.is_none_or(|after| seen.standing.id > after) && filter.takes(seen)
        });
        found.sort_unstable_by_key(|seen| seen.standing.id);
        let has_more = found.len() > usize::from(limit);
        found.truncate(limit.into());
        let next = found.last().filter(|_| has_more);
        let next = next.map(|last| shown_id(last.standing.id));
        let clock = Now::read();
        Page {
            scope: "node",
            allocations: found.iter().map(|seen| clock.show(seen)).collect(),
            next,
        }
    });
    Ok(Json(page.await?))
}

/// Look at an allocation
#[utoipa::path(
    get,
    path = "/v1/allocations/{id}",
    operation_id = "show_allocation",
    tag = "allocations",
    params(("id" = String, Path, description = "Its id.", pattern = "^[0-9a-f]{16}$")),
    responses(
        (status = 200, description = "It is live.", body = Allocation),
        (status = 404, description = "It is not live on this node.", body = Problem,
         content_type = "application/problem+json"),
    ),
)]
pub(super) async fn show(
    State(api): State<Api>,
    Named(id): Named<String>,
) -> Result<Json<Allocation>, Problem> {
    let id = id_of(&id).ok_or_else(not_live)?;
    let dataplane = api.dataplane().clone();
    let found = api.walks().take(move || {
        let found = dataplane.allocations();
        let seen = found.iter().find(|seen| seen.standing.id == id);
        seen.map(|seen| Now::read().show(seen))
    });
    found.await?.map(Json).ok_or_else(not_live)
}

pub(super) fn not_live() -> Problem {
    Problem::not_found("no allocation with this id is live on this node")
}

/// An allocation's id as it is shown.
fn shown_id(id: AllocationId) -> String {
    format!("{:016x}", id.0)
}

/// The id that is shown so.
pub(super) fn id_of(text: &str) -> Option<AllocationId> {
    let is_plain = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'a'..=b'f');
    if text.len() != 16 || !text.bytes().all(is_plain) {
        return None;
    }
    u64::from_str_radix(text, 16).ok().map(AllocationId)
}

struct Filter {
    subject: Option<Subject>,
    calls: Option<Vec<CallId>>,
    tenant: Option<Label>,
    transport: Option<TransportName>,
}

impl Filter {
    fn new(wanted: &Wanted, rules: &Rules) -> Result<Self, Problem> {
        let user = match &wanted.user {
            Some(user) => Some(rules.credentials.subject(checked(user, "user")?)),
            None => None,
        };
        let subject = match &wanted.subject {
            Some(subject) => Some(subject_of(subject)?),
            None => None,
        };
        if user.is_some() && subject.is_some() {
            let detail = "name a user or a subject, not both";
            return Err(Problem::unprocessable(detail));
        }
        let calls = match &wanted.call {
            Some(call) => Some(rules.credentials.calls(checked(call, "call")?).collect()),
            None => None,
        };
        let tenant = match &wanted.tenant {
            Some(tenant) => Some(Label::new(tenant).ok_or_else(|| {
                Problem::unprocessable("tenant: 1 to 32 letters, digits, '-', '_' or '.'")
            })?),
            None => None,
        };
        Ok(Self {
            subject: user.or(subject),
            calls,
            tenant,
            transport: wanted.transport,
        })
    }

    fn takes(&self, seen: &Seen) -> bool {
        let claims = seen.standing.claims.as_deref();
        let is_of_call = |calls: &Vec<CallId>| {
            let call = claims.and_then(|claims| claims.call);
            call.is_some_and(|call| calls.contains(&call))
        };
        let is_of_tenant =
            |tenant: &Label| claims.and_then(|claims| claims.tenant.as_ref()) == Some(tenant);
        self.subject.is_none_or(|subject| seen.subject == subject)
            && self.calls.as_ref().is_none_or(is_of_call)
            && self.tenant.as_ref().is_none_or(is_of_tenant)
            && self
                .transport
                .is_none_or(|transport| TransportName::from(seen.transport) == transport)
    }
}

/// The subject that is shown so.
pub(super) fn subject_of(text: &str) -> Result<Subject, Problem> {
    let is_plain = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'a'..=b'f');
    let number = u128::from_str_radix(text, 16);
    match number {
        Ok(number) if text.len() == 32 && text.bytes().all(is_plain) => {
            Ok(Subject::from_bytes(number.to_be_bytes()))
        }
        Ok(_) | Err(_) => Err(Problem::unprocessable(
            "subject: 32 digits from 0 to f, as allocations and credentials show it",
        )),
    }
}

/// The way that most packets took.
fn most_taken(meters: &Meters) -> Option<Way> {
    let packets = |way: Way| {
        let both = Direction::ALL.iter();
        let both = both.map(|direction| meters.traffic(way, *direction).packets.total());
        both.sum::<u64>()
    };
    let used = Way::ALL.iter().copied().filter(|way| packets(*way) > 0);
    used.max_by_key(|way| packets(*way))
}

/// Both clocks at one moment.
struct Now {
    tick: Tick,
    unix: u64,
}

impl Now {
    fn read() -> Self {
        Self {
            tick: Tick::from_nanos(sys::monotonic_nanos()),
            unix: sys::unix_seconds(),
        }
    }

    fn show(&self, seen: &Seen) -> Allocation {
        let claims: Option<&Claims> = seen.standing.claims.as_deref();
        let meters = &seen.standing.meters;
        let usage = |direction| {
            let ways = Way::ALL.iter().map(|way| meters.traffic(*way, direction));
            ways.fold(Usage::default(), |sum, traffic| Usage {
                packets: sum.packets + traffic.packets.total(),
                bytes: sum.bytes + traffic.bytes.total(),
            })
        };
        let ago = self.tick.since(seen.standing.opened).as_secs();
        let left = seen.until.since(self.tick).as_secs();
        Allocation {
            id: shown_id(seen.standing.id),
            subject: seen.subject.to_string(),
            call: claims
                .and_then(|claims| claims.call)
                .map(|call| call.to_string()),
            tenant: claims
                .and_then(|claims| claims.tenant.as_ref())
                .map(Label::to_string),
            transport: seen.transport.into(),
            relay: match seen.protocol {
                RelayProtocol::Udp => TransportName::Udp,
                RelayProtocol::Tcp => TransportName::Tcp,
            },
            opened: self.unix.saturating_sub(ago),
            until: self.unix.saturating_add(left),
            path: most_taken(meters).map(Way::label),
            worker: seen.standing.worker.0,
            permissions: seen.permissions,
            channels: seen.channels,
            received: usage(Direction::In),
            sent: usage(Direction::Out),
            dropped: meters.drops.total(),
            media: Media::of(meters),
        }
    }
}
