//! Binding (RFC 8489 §2): tells a client its own transport address, and nobody anything else. Each
//! listener answers everybody, those with a credential, or nobody.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::proto::{Class, Full, Message, Method, Writer, XorMappedAddress};
use crate::turn::address::{FiveTuple, Transport};
use crate::turn::clock::Clock;
use crate::turn::environment::Environment;
use crate::turn::request::{Reject, Request};
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

/// What becomes of Binding requests at each listener: what its address says, else what its
/// transport says, else the default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BindingRules {
    /// Where nothing else is said.
    pub default: BindingRequests,
    /// By transport.
    pub transports: BTreeMap<Transport, BindingRequests>,
    /// By address; a wildcard stands for every address of its family that is not named itself.
    pub listeners: BTreeMap<SocketAddr, BindingRequests>,
}

impl BindingRules {
    /// What holds at a listener of `transport`, whose address is looked up only if it matters.
    #[must_use]
    pub fn at(
        &self,
        transport: Transport,
        address: impl FnOnce() -> Option<SocketAddr>,
    ) -> BindingRequests {
        self.of_address(address)
            .or_else(|| self.transports.get(&transport).copied())
            .unwrap_or(self.default)
    }

    fn of_address(&self, address: impl FnOnce() -> Option<SocketAddr>) -> Option<BindingRequests> {
        if self.listeners.is_empty() {
            return None;
        }
        let address = address()?;
        let any: IpAddr = match address {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let wildcard = SocketAddr::new(any, address.port());
        let found = self.listeners.get(&address);
        found.or_else(|| self.listeners.get(&wildcard)).copied()
    }
}

impl<E: Environment> Server<E> {
    /// What becomes of a Binding request on this 5-tuple.
    pub(crate) fn binding_requests(&self, tuple: FiveTuple) -> BindingRequests {
        let address = || self.environment.listening(tuple.listener);
        self.config.binding.at(tuple.listener.transport(), address)
    }

    /// A Binding request with a credential: as [`handle_binding`](Self::handle_binding), signed.
    pub(crate) fn answer_binding(&mut self, request: &Request<'_>) -> Result<(), Reject> {
        let masked = request.auth.claims.as_ref().is_some_and(|c| c.masked);
        // Whoever is not told where it is asks in vain before there is something else to tell it.
        if masked && self.table.by_tuple(&request.tuple).is_none() {
            return Err(Reject::FORBIDDEN);
        }
        let mapped = self.mapped(request.tuple);
        let behaviour = self.behaviour(request.tuple, &request.message)?;
        self.succeed(request, |writer| {
            writer.push(&mapped)?;
            match behaviour {
                Some(behaviour) => behaviour.to_be_signed().push(writer),
                None => Ok(()),
            }
        })
    }

    /// What a client is told as its own address.
    fn mapped(&self, tuple: FiveTuple) -> XorMappedAddress {
        let allocation = self.table.by_tuple(&tuple);
        XorMappedAddress(allocation.map_or_else(
            || tuple.client.expose(),
            |allocation| allocation.mapped(tuple.client),
        ))
    }

    /// Answers with XOR-MAPPED-ADDRESS and nothing else: 32 bytes, 44 on IPv6. Only where NAT
    /// behaviour discovery is served there is more.
    pub(crate) fn handle_binding(
        &mut self,
        tuple: FiveTuple,
        message: Message<'_>,
        clock: Clock,
    ) -> Handled {
        if !self.may_answer(tuple, clock) {
            return self.drop(DropReason::Unvalidated);
        }
        // What is told there depends on the allocation, if there is one.
        if self.table.by_tuple(&tuple).is_none()
            && let Some(owner) = self.environment.other_owner(tuple)
        {
            return Handled::Elsewhere(owner);
        }
        let served = self.served(tuple, &message);
        if Self::unknown(&message, served).next().is_some() {
            return self.write_error_where(&message, Reject::UNKNOWN_ATTRIBUTE, None, served);
        }
        let behaviour = match self.behaviour(tuple, &message) {
            Ok(behaviour) => behaviour,
            Err(reject) => return self.write_error(&message, reject, None),
        };
        let id = message.transaction_id();
        let mapped = self.mapped(tuple);
        let written = (|| {
            let mut writer = Writer::new(&mut *self.answer, Class::Success, Method::BINDING, id)?;
            writer.push(&mapped)?;
            if let Some(behaviour) = &behaviour {
                behaviour.push(&mut writer)?;
            }
            Ok::<_, Full>(writer.finish())
        })();
        let Ok(len) = written else {
            return self.drop(DropReason::TooLarge);
        };
        self.answer_len = len;
        self.counters.answered(Method::BINDING.name(), 0);
        behaviour.map_or(Handled::Answer, |behaviour| behaviour.handled(tuple))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_decides_before_a_wildcard_and_that_before_the_transport() {
        use BindingRequests::{Authenticated, Off, Open};
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        let rules = BindingRules {
            default: Authenticated,
            transports: BTreeMap::from([(Transport::Udp, Off)]),
            listeners: BTreeMap::from([
                (at("192.0.2.1:3478"), Open),
                (at("0.0.0.0:3478"), Authenticated),
            ]),
        };
        for (transport, address, expected) in [
            (Transport::Udp, "192.0.2.1:3478", Open),
            (Transport::Tls, "192.0.2.1:3478", Open),
            (Transport::Udp, "192.0.2.2:3478", Authenticated),
            (Transport::Udp, "192.0.2.1:3479", Off),
            (Transport::Udp, "[2001:db8::1]:3478", Off),
            (Transport::Tcp, "[2001:db8::1]:3478", Authenticated),
        ] {
            let found = rules.at(transport, || Some(at(address)));
            assert_eq!(found, expected, "{transport:?} {address}");
        }
        assert_eq!(rules.at(Transport::Udp, || None), Off);
        let default = BindingRules::default();
        let unasked = || unreachable!("no address decides");
        assert_eq!(default.at(Transport::Udp, unasked), Open);
    }
}
