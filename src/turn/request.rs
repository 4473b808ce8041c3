//! The checks that all requests have in common, in the order of RFC 8656 §5 and RFC 8489 §6.3 and
//! §9.2, and the one place where an outcome is turned into bytes.

use crate::proto::{
    AttributeType, Class, ErrorCode, Fingerprint, Full, LongTermKey, Message, Method, Nonce,
    PasswordAlgorithms, Realm, UnknownAttributes, Writer,
};
use crate::turn::address::FiveTuple;
use crate::turn::allocation::Allocation;
use crate::turn::auth::{Authenticated, OFFERED, Signature, Source, Unauthenticated, authenticate};
use crate::turn::binding::BindingRequests;
use crate::turn::clock::Clock;
use crate::turn::environment::Environment;
use crate::turn::nonce::Features;
use crate::turn::stats::{AuthFailure, DropReason};
use crate::turn::{EndReason, Handled, Server};

/// The comprehension-required attributes that a request may carry.
const KNOWN: &[AttributeType] = &[
    AttributeType::USERNAME,
    AttributeType::USERHASH,
    AttributeType::MESSAGE_INTEGRITY,
    AttributeType::MESSAGE_INTEGRITY_SHA256,
    AttributeType::REALM,
    AttributeType::NONCE,
    AttributeType::PASSWORD_ALGORITHM,
    AttributeType::CHANNEL_NUMBER,
    AttributeType::LIFETIME,
    AttributeType::XOR_PEER_ADDRESS,
    AttributeType::REQUESTED_ADDRESS_FAMILY,
    AttributeType::EVEN_PORT,
    AttributeType::REQUESTED_TRANSPORT,
    AttributeType::DONT_FRAGMENT,
    AttributeType::RESERVATION_TOKEN,
    AttributeType::CONNECTION_ID,
];
/// A response names at most so many unknown attributes, so that it stays small.
const MAX_UNKNOWN: usize = 8;
/// A 401 or 438 is at most 128 bytes; with a longer realm the reason phrase gives way.
const LONGEST_REALM_WITH_REASON: usize = 32;

/// A request that is refused with an error response (RFC 8489 §14.8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reject {
    pub(crate) code: u16,
    pub(crate) reason: &'static str,
}

impl Reject {
    pub(crate) const TRY_ALTERNATE: Self = Self::new(300, "Try Alternate");
    pub(crate) const BAD_REQUEST: Self = Self::new(400, "Bad Request");
    pub(crate) const UNAUTHENTICATED: Self = Self::new(401, "Unauthorized");
    pub(crate) const FORBIDDEN: Self = Self::new(403, "Forbidden");
    pub(crate) const MOBILITY_FORBIDDEN: Self = Self::new(405, "Mobility Forbidden");
    pub(crate) const UNKNOWN_ATTRIBUTE: Self = Self::new(420, "Unknown Attribute");
    pub(crate) const ALLOCATION_MISMATCH: Self = Self::new(437, "Allocation Mismatch");
    pub(crate) const STALE_NONCE: Self = Self::new(438, "Stale Nonce");
    pub(crate) const FAMILY_NOT_SUPPORTED: Self = Self::new(440, "Address Family not Supported");
    pub(crate) const WRONG_CREDENTIALS: Self = Self::new(441, "Wrong Credentials");
    pub(crate) const TRANSPORT: Self = Self::new(442, "Unsupported Transport Protocol");
    pub(crate) const PEER_FAMILY: Self = Self::new(443, "Peer Address Family Mismatch");
    pub(crate) const CONNECTION_EXISTS: Self = Self::new(446, "Connection Already Exists");
    pub(crate) const CONNECTION_FAILED: Self = Self::new(447, "Connection Timeout or Failure");
    pub(crate) const QUOTA: Self = Self::new(486, "Allocation Quota Reached");
    pub(crate) const CAPACITY: Self = Self::new(508, "Insufficient Capacity");

    const fn new(code: u16, reason: &'static str) -> Self {
        Self { code, reason }
    }
}

/// A decoded request that passed the long-term credential mechanism.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    pub(crate) message: Message<'a>,
    pub(crate) tuple: FiveTuple,
    pub(crate) clock: Clock,
    pub(crate) auth: Authenticated,
}

impl<E: Environment> Server<E> {
    /// A STUN message from a client that is not a Send indication.
    pub(crate) fn handle_message(
        &mut self,
        tuple: FiveTuple,
        message: Message<'_>,
        clock: Clock,
    ) -> Handled {
        if self.is_bad_source(tuple.client) {
            return self.drop(DropReason::BadSource);
        }
        if message.fingerprint() == Fingerprint::Invalid {
            return self.drop(DropReason::Fingerprint);
        }
        match (message.class(), message.method()) {
            (Class::Request, Method::BINDING) => match self.binding_requests(tuple) {
                BindingRequests::Open => self.handle_binding(tuple, message, clock),
                BindingRequests::Authenticated => self.handle_authenticated(tuple, message, clock),
                BindingRequests::Off => self.drop(DropReason::BindingOff),
            },
            // RFC 8489 §6.3.2: a Binding indication keeps a NAT mapping alive and has no answer.
            (Class::Indication, Method::BINDING) => Handled::Consumed,
            (
                Class::Request,
                Method::ALLOCATE
                | Method::REFRESH
                | Method::CREATE_PERMISSION
                | Method::CHANNEL_BIND,
            ) => self.handle_authenticated(tuple, message, clock),
            (Class::Request, Method::CONNECT | Method::CONNECTION_BIND)
                if self.config.tcp_relay =>
            {
                self.handle_authenticated(tuple, message, clock)
            }
            (Class::Request, _) => self.drop(DropReason::UnknownMethod),
            (Class::Indication | Class::Success | Class::Error, _) => {
                // RFC 8489 §6.3.3: what answers nothing is dropped, so that nothing loops.
                self.drop(DropReason::Unexpected)
            }
        }
    }

    fn handle_authenticated(
        &mut self,
        tuple: FiveTuple,
        message: Message<'_>,
        clock: Clock,
    ) -> Handled {
        if self.table.by_tuple(&tuple).is_none()
            && let Some(owner) = self.environment.other_owner(tuple)
        {
            return Handled::Elsewhere(owner);
        }
        let allocation = self.table.by_tuple(&tuple);
        let expected = allocation.map(Allocation::expected);
        let source = tuple.client.expose().ip();
        let auth = match authenticate(&self.config, &message, source, expected, clock) {
            Ok(auth) => auth,
            Err(refused) => return self.challenge(tuple, &message, refused, clock),
        };
        // What has ended is gone, also when the timer comes later than the request.
        let first_end = self.table.by_tuple(&tuple).and_then(Allocation::first_end);
        if let Some(end) = first_end.filter(|end| *end <= clock.now) {
            self.reap(&tuple, EndReason::told_by(end), clock.now);
        }
        let request = Request {
            message,
            tuple,
            clock,
            auth,
        };
        // RFC 8016 §3.2.2: the ticket says which allocation is meant, not the 5-tuple.
        let outcome = if request.message.method() == Method::REFRESH
            && request.message.has(AttributeType::MOBILITY_TICKET)
        {
            self.resume(&request)
        } else {
            self.judge(&request)
        };
        match outcome {
            Ok(Handled::Answer) => self.way_of_success(&request),
            Ok(handled) => handled,
            Err(reject) => self.reject(&request, reject),
        }
    }

    /// What an authenticated request must pass before its method is looked at.
    fn judge(&mut self, request: &Request<'_>) -> Result<Handled, Reject> {
        let method = request.message.method();
        if let Some(worker) = self.elsewhere_to_bind(request) {
            return Ok(Handled::HandOver(worker));
        }
        if let Some(allocation) = self.table.by_tuple(&request.tuple) {
            if !allocation.known.owner().is(&request.auth.owner) {
                self.counters.auth_failed(AuthFailure::OtherUser);
                // RFC 8656 §5: a request by another user than the allocation's gets 441; but an
                // Allocate on a 5-tuple in use is a mismatch, whoever asks (§7.2).
                return Err(match method {
                    Method::ALLOCATE => Reject::ALLOCATION_MISMATCH,
                    _ => Reject::WRONG_CREDENTIALS,
                });
            }
            allocation.meters().heard(request.clock.now);
        }
        if let Some(failure) = request.auth.untimely(request.clock, self.config.max_ttl)
            && !self.outlives_its_credential(request)
        {
            self.counters.auth_failed(failure);
            return Err(Reject::UNAUTHENTICATED);
        }
        let served = self.served(request.tuple, &request.message);
        if Self::unknown(&request.message, served).next().is_some() {
            return Err(Reject::UNKNOWN_ATTRIBUTE);
        }
        if self.is_redirected(request.tuple, &request.message) {
            return Err(Reject::TRY_ALTERNATE);
        }
        if matches!(method, Method::ALLOCATE | Method::REFRESH) {
            self.refuse_banned(request)?;
        }
        if method != Method::ALLOCATE {
            self.arrive(request.tuple, request.clock.now);
        }
        match method {
            Method::BINDING => self.answer_binding(request),
            Method::ALLOCATE => self.allocate(request),
            Method::REFRESH => self.refresh(request),
            Method::CREATE_PERMISSION => self.create_permission(request),
            Method::CONNECT => return self.connect(request),
            Method::CONNECTION_BIND => return self.connection_bind(request),
            _ => self.channel_bind(request),
        }
        .map(|()| Handled::Answer)
    }

    /// Who is banned gets 403, as who is forbidden by policy does (RFC 8656 §19).
    pub(crate) fn refuse_banned(&self, request: &Request<'_>) -> Result<(), Reject> {
        let ip = request.tuple.client.expose().ip();
        let bans = &self.config.bans;
        if bans.cover(request.auth.subject, ip, request.clock.unix) {
            return Err(Reject::FORBIDDEN);
        }
        Ok(())
    }

    /// Expiry gates Allocate: an allocation made in time goes on with the credential it was made
    /// with, unless it is strict. A retransmitted Allocate belongs to what it made.
    fn outlives_its_credential(&self, request: &Request<'_>) -> bool {
        let allocation = match request.message.method() {
            Method::CONNECTION_BIND => self.allocation_to_bind(request),
            _ => self.table.by_tuple(&request.tuple),
        };
        allocation.is_some_and(|allocation| {
            allocation.outlives_its_credential()
                && (request.message.method() != Method::ALLOCATE
                    || allocation.made_by.transaction == request.message.transaction_id())
        })
    }

    /// Answers with what `fill` appends, signed with the request's key.
    pub(crate) fn succeed(
        &mut self,
        request: &Request<'_>,
        fill: impl FnOnce(&mut Writer<'_>) -> Result<(), Full>,
    ) -> Result<(), Reject> {
        let (method, id) = (request.message.method(), request.message.transaction_id());
        let written = (|| {
            let mut writer = Writer::new(&mut *self.answer, Class::Success, method, id)?;
            fill(&mut writer)?;
            sign(&mut writer, &request.auth.key, request.auth.signature)?;
            Ok::<_, Full>(writer.finish())
        })();
        self.answer_len = written.map_err(|Full| Reject::CAPACITY)?;
        self.counters.answered(method.name(), 0);
        Ok(())
    }

    fn reject(&mut self, request: &Request<'_>, reject: Reject) -> Handled {
        // An expired credential gets the same challenge as a wrong one.
        if reject == Reject::UNAUTHENTICATED {
            if !self.may_fail(request.tuple, request.clock.now) {
                return self.drop(DropReason::PrefixFailures);
            }
            return self.send_challenge(request.tuple, &request.message, reject, request.clock);
        }
        let signed = Some((&request.auth.key, request.auth.signature));
        if reject == Reject::TRY_ALTERNATE {
            return self.redirect(request.tuple, &request.message, signed);
        }
        let served = self.served(request.tuple, &request.message);
        self.write_error_where(&request.message, reject, signed, served)
    }

    /// RFC 8489 §9.2.4: 401, 438 or 400 for a request that did not authenticate.
    fn challenge(
        &mut self,
        tuple: FiveTuple,
        message: &Message<'_>,
        refused: Unauthenticated,
        clock: Clock,
    ) -> Handled {
        self.counters.auth_failed(refused.failure);
        if let Err(reason) = self.may_challenge(tuple, refused, clock) {
            return self.drop(reason);
        }
        if refused.failure == AuthFailure::Missing && self.is_redirected(tuple, message) {
            return self.redirect(tuple, message, None);
        }
        match refused.failure {
            AuthFailure::Incomplete => self.write_error(message, Reject::BAD_REQUEST, None),
            AuthFailure::StaleNonce => {
                self.send_challenge(tuple, message, Reject::STALE_NONCE, clock)
            }
            AuthFailure::Missing
            | AuthFailure::Wrong
            | AuthFailure::OtherNode
            | AuthFailure::Revoked
            | AuthFailure::Expired
            | AuthFailure::TooLong
            | AuthFailure::OtherUser => {
                self.send_challenge(tuple, message, Reject::UNAUTHENTICATED, clock)
            }
        }
    }

    /// Takes the answer to a request that did not authenticate off one budget: that of unvalidated
    /// sources, whom a forged packet may name; for those who are there, that of requests without a
    /// credential, which every client begins with, or that of failures. A 438 takes nothing off
    /// either: it is for a credential that is good.
    fn may_challenge(
        &self,
        tuple: FiveTuple,
        refused: Unauthenticated,
        clock: Clock,
    ) -> Result<(), DropReason> {
        let now = clock.now;
        if refused.source == Source::Unvalidated && !self.is_there(tuple) {
            let is_within = self.may_answer(tuple, clock);
            return is_within.then_some(()).ok_or(DropReason::Unvalidated);
        }
        match refused.failure {
            AuthFailure::StaleNonce => Ok(()),
            AuthFailure::Missing => {
                let ip = tuple.client.expose().ip();
                let is_within = self.environment.allow_connected(ip, now);
                is_within.then_some(()).ok_or(DropReason::Unvalidated)
            }
            AuthFailure::Incomplete
            | AuthFailure::Wrong
            | AuthFailure::OtherNode
            | AuthFailure::Revoked
            | AuthFailure::Expired
            | AuthFailure::TooLong
            | AuthFailure::OtherUser => {
                let is_within = self.may_fail(tuple, now);
                is_within.then_some(()).ok_or(DropReason::PrefixFailures)
            }
        }
    }

    /// Whether a source may have one more reply that takes no credential: one with an allocation on
    /// this 5-tuple has echoed a nonce, one on a stream a sequence number, and else it is capped.
    pub(crate) fn may_answer(&self, tuple: FiveTuple, clock: Clock) -> bool {
        self.is_there(tuple)
            || self
                .environment
                .allow_unvalidated(tuple.client.expose().ip(), clock.now)
    }

    /// Whether it is known that the client receives at its address.
    fn is_there(&self, tuple: FiveTuple) -> bool {
        tuple.listener.transport().validates_its_source() || self.table.by_tuple(&tuple).is_some()
    }

    fn send_challenge(
        &mut self,
        tuple: FiveTuple,
        message: &Message<'_>,
        reject: Reject,
        clock: Clock,
    ) -> Handled {
        let random = self.random_bytes();
        let features = if self.config.credentials.knows_userhashes() {
            Features::ALGORITHMS_AND_ANONYMITY
        } else {
            Features::ALGORITHMS
        };
        let source = tuple.client.expose().ip();
        let nonce = self
            .config
            .nonce_key
            .make(source, clock.unix, features, random);
        let realm = self.config.realm.as_str();
        let reason = if realm.len() <= LONGEST_REALM_WITH_REASON {
            reject.reason
        } else {
            ""
        };
        let (method, id) = (message.method(), message.transaction_id());
        let written = (|| {
            let mut writer = Writer::new(&mut *self.answer, Class::Error, method, id)?;
            writer.push(&ErrorCode {
                code: reject.code,
                reason,
            })?;
            writer.push(&Realm(realm))?;
            writer.push(&Nonce(&nonce))?;
            writer.push(&PasswordAlgorithms::new(OFFERED))?;
            Ok::<_, Full>(writer.finish())
        })();
        self.answered(method, reject, written)
    }

    /// An error response; signed if the request's sender is known.
    pub(crate) fn write_error(
        &mut self,
        message: &Message<'_>,
        reject: Reject,
        signed: Option<(&LongTermKey, Signature)>,
    ) -> Handled {
        self.write_error_where(message, reject, signed, &[])
    }

    /// The same where the attributes `served` are known too.
    pub(crate) fn write_error_where(
        &mut self,
        message: &Message<'_>,
        reject: Reject,
        signed: Option<(&LongTermKey, Signature)>,
        served: &[AttributeType],
    ) -> Handled {
        let (method, id) = (message.method(), message.transaction_id());
        let mut unknown = [AttributeType::USERNAME; MAX_UNKNOWN];
        let mut count = 0;
        if reject == Reject::UNKNOWN_ATTRIBUTE {
            for (place, kind) in unknown.iter_mut().zip(Self::unknown(message, served)) {
                *place = kind;
                count += 1;
            }
        }
        let written = (|| {
            let mut writer = Writer::new(&mut *self.answer, Class::Error, method, id)?;
            writer.push(&ErrorCode {
                code: reject.code,
                reason: reject.reason,
            })?;
            if count > 0 {
                writer.push(&UnknownAttributes::new(&unknown[..count]))?;
            }
            if let Some((key, signature)) = signed {
                sign(&mut writer, key, signature)?;
            }
            Ok::<_, Full>(writer.finish())
        })();
        self.answered(method, reject, written)
    }

    pub(crate) fn answered(
        &mut self,
        method: Method,
        reject: Reject,
        written: Result<usize, Full>,
    ) -> Handled {
        // The answer's buffer holds the largest error response, so this arm is never taken.
        let Ok(len) = written else {
            return self.drop(DropReason::TooLarge);
        };
        self.answer_len = len;
        self.counters.answered(method.name(), reject.code);
        Handled::Answer
    }

    /// The comprehension-required attributes of `message` that neither a request of any method nor
    /// one where `served` are known should carry.
    pub(crate) fn unknown(
        message: &Message<'_>,
        served: &[AttributeType],
    ) -> impl Iterator<Item = AttributeType> {
        message
            .unknown_required(KNOWN)
            .filter(|kind| !served.contains(kind))
    }
}

/// Signs a response with the key of its request.
pub(crate) fn sign(
    writer: &mut Writer<'_>,
    key: &LongTermKey,
    signature: Signature,
) -> Result<(), Full> {
    match signature {
        Signature::Sha1 => writer.integrity(key),
        Signature::Sha256 => writer.integrity_sha256(key),
    }
}
