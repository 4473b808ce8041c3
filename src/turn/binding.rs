//! Binding (RFC 8489 §2): tells a client its own transport address, and nobody anything else.

use crate::proto::{Class, Full, Message, Method, Writer, XorMappedAddress};
use crate::turn::address::FiveTuple;
use crate::turn::clock::Clock;
use crate::turn::environment::Environment;
use crate::turn::request::Reject;
use crate::turn::stats::DropReason;
use crate::turn::{Handled, Server};

/// What becomes of Binding requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BindingRequests {
    /// Everybody's are answered.
    #[default]
    Open,
    /// Those with a credential, as Allocate takes it, are answered.
    Authenticated,
    /// None is answered.
    Off,
}

impl<E: Environment> Server<E> {
    /// Answers with XOR-MAPPED-ADDRESS and nothing else: 32 bytes, 44 on IPv6.
    pub(crate) fn handle_binding(
        &mut self,
        tuple: FiveTuple,
        message: Message<'_>,
        clock: Clock,
    ) -> Handled {
        if !self.may_answer(tuple, clock) {
            return self.drop(DropReason::Unvalidated);
        }
        if Self::has_unknown(&message) {
            return self.write_error(&message, Reject::UNKNOWN_ATTRIBUTE, None);
        }
        let id = message.transaction_id();
        let written = (|| {
            let mut writer = Writer::new(&mut *self.answer, Class::Success, Method::BINDING, id)?;
            writer.push(&XorMappedAddress(tuple.client.expose()))?;
            Ok::<_, Full>(writer.finish())
        })();
        let Ok(len) = written else {
            return self.drop(DropReason::TooLarge);
        };
        self.answer_len = len;
        self.counters.answered(Method::BINDING.name(), 0);
        Handled::Answer
    }
}
