//! ALTERNATE-SERVER (RFC 8489 §10, §14.15; RFC 8656 §7.2): an Allocate that would make a new
//! allocation is sent to another server with a 300, always or while this one is being emptied.
//!
//! The unauthenticated Allocate is answered so, in the place of the 401, under the same budget and
//! in fewer bytes, without REALM and NONCE, which are the other server's to give. One with a good
//! credential gets the same, signed. Nothing is remembered: which of several servers it is, is
//! drawn anew each time.

use std::net::SocketAddr;

use crate::proto::{
    AlternateServer, AttributeType, Class, ErrorCode, Full, LongTermKey, Message, Method, Writer,
};
use crate::turn::address::FiveTuple;
use crate::turn::auth::Signature;
use crate::turn::environment::Environment;
use crate::turn::request::{Reject, sign};
use crate::turn::{Handled, Server};

/// When clients are sent to another server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Redirect {
    /// While this one is being emptied.
    #[default]
    Draining,
    /// Always; this one allocates only for those whom no alternate server can take.
    Always,
}

/// Other servers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Alternate {
    /// Their transport addresses.
    pub servers: Vec<SocketAddr>,
    /// When clients are sent there.
    pub redirect: Redirect,
}

impl<E: Environment> Server<E> {
    /// Whether another server is to take this request.
    pub(crate) fn is_redirected(&self, tuple: FiveTuple, message: &Message<'_>) -> bool {
        let alternate = &self.config.alternate;
        let redirects = match alternate.redirect {
            Redirect::Always => true,
            Redirect::Draining => self.config.draining,
        };
        let family = tuple.client.expose().is_ipv4();
        redirects
            && message.method() == Method::ALLOCATE
            // What this server holds for a client, no other one has.
            && self.table.by_tuple(&tuple).is_none()
            && !message.has(AttributeType::RESERVATION_TOKEN)
            // RFC 8489 §10: the address must be of the family of the request's source.
            && alternate.servers.iter().any(|s| s.is_ipv4() == family)
    }

    /// RFC 8489 §10: 300 with a server of the request's family, and behind it one of the other.
    pub(crate) fn redirect(
        &mut self,
        tuple: FiveTuple,
        message: &Message<'_>,
        signed: Option<(&LongTermKey, Signature)>,
    ) -> Handled {
        let (method, id) = (message.method(), message.transaction_id());
        let family = tuple.client.expose().is_ipv4();
        let servers = [family, !family].map(|is_ipv4| self.draw_alternate(is_ipv4));
        let reject = Reject::TRY_ALTERNATE;
        let written = (|| {
            let mut writer = Writer::new(&mut *self.answer, Class::Error, method, id)?;
            // Without a reason phrase, so that what answers a forged source stays small.
            writer.push(&ErrorCode {
                code: reject.code,
                reason: "",
            })?;
            for server in servers.into_iter().flatten() {
                writer.push(&AlternateServer(server))?;
            }
            if let Some((key, signature)) = signed {
                sign(&mut writer, key, signature)?;
            }
            Ok::<_, Full>(writer.finish())
        })();
        self.answered(method, reject, written)
    }

    fn draw_alternate(&mut self, is_ipv4: bool) -> Option<SocketAddr> {
        let drawn = u64::from_be_bytes(self.random_bytes());
        let servers = self.config.alternate.servers.iter();
        let family = servers.filter(|server| server.is_ipv4() == is_ipv4);
        let count = u64::try_from(family.clone().count()).ok()?;
        let place = drawn.checked_rem(count)?;
        family.copied().nth(usize::try_from(place).ok()?)
    }
}
