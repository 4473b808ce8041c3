//! NAT behaviour discovery (RFC 5780 §6): Binding requests that ask for an answer from another
//! address or port of this server, to another port of their own, or as long as themselves.
//!
//! Served at the four UDP listeners of a [`Rectangle`] alone; elsewhere, and with the feature off,
//! the attributes are unknown. The answers leave under the cap on unvalidated replies like any
//! other, are never longer for PADDING than what came in, and go to the IP address that the request
//! came from. Which listener is which is decided by the configuration; see
//! [`NatDiscovery::new`].

use std::net::{IpAddr, SocketAddr};

use smallvec::SmallVec;

use crate::proto::{
    AttributeType, ChangeRequest, Full, MappedAddress, Message, Method, OtherAddress, Padding,
    ResponseOrigin, ResponsePort, Writer,
};
use crate::turn::address::{ClientAddr, FiveTuple, ListenerId, Transport, Via};
use crate::turn::environment::Environment;
use crate::turn::request::{Reject, Request};
use crate::turn::{Handled, Server};

/// RFC 5780 §7: the comprehension-required attributes of a Binding request.
const BEHAVIOUR: [AttributeType; 3] = [
    AttributeType::CHANGE_REQUEST,
    AttributeType::RESPONSE_PORT,
    AttributeType::PADDING,
];
/// RFC 5780 §7.6: PADDING as long as the MTU of the outgoing interface; that of Ethernet.
const LONGEST_PADDING: usize = 1_500;
const ZEROS: [u8; LONGEST_PADDING] = [0; LONGEST_PADDING];
/// MESSAGE-INTEGRITY-SHA256 with its header.
const LONGEST_SIGNATURE: usize = 36;
/// The header of an attribute.
const ATTRIBUTE_HEADER: usize = 4;

/// RFC 5780 §6: two IP addresses and two ports, and a listener on each of the four pairs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rectangle {
    ips: [IpAddr; 2],
    ports: [u16; 2],
}

impl Rectangle {
    /// The first rectangle of each family that `listeners` form. Addresses are taken by name: a
    /// wildcard does not say which two of a machine's addresses are meant, nor port 0 which port.
    #[must_use]
    pub fn among(listeners: &[SocketAddr]) -> Vec<Self> {
        let stands = |ip, port| listeners.contains(&SocketAddr::new(ip, port));
        let is_named = |at: &&SocketAddr| !at.ip().is_unspecified() && at.port() != 0;
        let named: Vec<&SocketAddr> = listeners.iter().filter(is_named).collect();
        let first_of = |v4: bool| {
            let family = named.iter().filter(|at| at.is_ipv4() == v4);
            family.clone().find_map(|one| {
                family
                    .clone()
                    .find(|other| {
                        one.ip() != other.ip()
                            && one.port() != other.port()
                            && stands(one.ip(), other.port())
                            && stands(other.ip(), one.port())
                    })
                    .map(|other| Self {
                        ips: [one.ip(), other.ip()],
                        ports: [one.port(), other.port()],
                    })
            })
        };
        [true, false].into_iter().filter_map(first_of).collect()
    }

    /// The address that shares with `address`, one of the four, what `change` does not change.
    fn changed(&self, address: SocketAddr, change: ChangeRequest) -> SocketAddr {
        let other = |is_first: bool, change: bool| usize::from(is_first == change);
        let ip = other(self.ips[0] == address.ip(), change.change_ip);
        let port = other(self.ports[0] == address.port(), change.change_port);
        SocketAddr::new(self.ips[ip], self.ports[port])
    }

    fn corners(&self) -> [SocketAddr; 4] {
        let [a, b] = self.ips;
        let [p, q] = self.ports;
        [(a, p), (a, q), (b, p), (b, q)].map(|(ip, port)| SocketAddr::new(ip, port))
    }
}

/// Which listeners serve NAT behaviour discovery; by default none does.
#[derive(Debug, Clone, Default)]
pub struct NatDiscovery {
    rectangles: SmallVec<[[Corner; 4]; 1]>,
}

/// A listener of a rectangle.
#[derive(Debug, Clone, Copy)]
struct Corner {
    listener: ListenerId,
    address: SocketAddr,
}

impl NatDiscovery {
    /// The rectangles among `configured`, each of whose addresses is listened on; `udp` are the
    /// transport addresses of the UDP listeners by their place in a [`ListenerId`].
    #[must_use]
    pub fn new(configured: &[SocketAddr], udp: &[SocketAddr]) -> Self {
        let corner = |address: SocketAddr| {
            let place = udp.iter().position(|at| *at == address)?;
            Some(Corner {
                listener: ListenerId::new(Transport::Udp, u16::try_from(place).ok()?),
                address,
            })
        };
        let rectangles = Rectangle::among(configured).into_iter();
        Self {
            rectangles: rectangles
                .filter_map(|rectangle| {
                    let [a, b, c, d] = rectangle.corners().map(corner);
                    Some([a?, b?, c?, d?])
                })
                .collect(),
        }
    }

    fn serves(&self, listener: ListenerId) -> bool {
        let mut corners = self.rectangles.iter().flatten();
        corners.any(|corner| corner.listener == listener)
    }

    /// The listener that `change` leads to from `listener`.
    fn changed(&self, listener: ListenerId, change: ChangeRequest) -> Option<Corner> {
        let is_it = |corner: &&Corner| corner.listener == listener;
        let corners = self
            .rectangles
            .iter()
            .find(|corners| corners.iter().any(|c| is_it(&c)))?;
        let here = corners.iter().find(is_it)?.address;
        let [a, b, c, d] = corners.map(|corner| corner.address);
        debug_assert!(a.ip() == b.ip() && c.ip() == d.ip());
        let rectangle = Rectangle {
            ips: [a.ip(), c.ip()],
            ports: [a.port(), b.port()],
        };
        let wanted = rectangle.changed(here, change);
        corners
            .iter()
            .copied()
            .find(|corner| corner.address == wanted)
    }
}

/// What the answer to a Binding request has beyond XOR-MAPPED-ADDRESS, and where it leaves.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Behaviour {
    mapped: ClientAddr,
    origin: SocketAddr,
    other: SocketAddr,
    /// The longest the answer may become, if it is to be padded.
    padded_to: Option<usize>,
    /// Where it goes, and by which listener.
    to: FiveTuple,
}

impl Behaviour {
    /// Appends the attributes.
    pub(crate) fn push(&self, writer: &mut Writer<'_>) -> Result<(), Full> {
        // RFC 5780 §6.1: both MAPPED-ADDRESS and XOR-MAPPED-ADDRESS.
        writer.push(&MappedAddress(self.mapped.expose()))?;
        writer.push(&ResponseOrigin(self.origin))?;
        writer.push(&OtherAddress(self.other))?;
        if let Some(longest) = self.padded_to {
            let room = longest.saturating_sub(writer.written() + ATTRIBUTE_HEADER);
            let length = room.min(LONGEST_PADDING) / 4 * 4;
            writer.push(&Padding(ZEROS.get(..length).unwrap_or_default()))?;
        }
        Ok(())
    }

    /// The same with room for a signature.
    pub(crate) fn to_be_signed(self) -> Self {
        let left = |longest: usize| longest.saturating_sub(LONGEST_SIGNATURE);
        Self {
            padded_to: self.padded_to.map(left),
            ..self
        }
    }

    /// How the answer to a request on `tuple` leaves.
    pub(crate) fn handled(&self, tuple: FiveTuple) -> Handled {
        if self.to == tuple && self.padded_to.is_none() {
            Handled::Answer
        } else {
            Handled::AnswerBy(self.to)
        }
    }
}

impl<E: Environment> Server<E> {
    /// What a Binding request on `tuple` asks of NAT behaviour discovery; nothing at listeners that
    /// do not serve it.
    pub(crate) fn behaviour(
        &self,
        tuple: FiveTuple,
        message: &Message<'_>,
    ) -> Result<Option<Behaviour>, Reject> {
        let opposite = ChangeRequest {
            change_ip: true,
            change_port: true,
        };
        let discovery = &self.config.nat_discovery;
        // A load balancer's mapping is all that the client of one would learn.
        if tuple.client.via() != Via::DIRECT {
            return Ok(None);
        }
        // RFC 5780 §6: without an alternate address a CHANGE-REQUEST gets 420.
        let Some(other) = discovery.changed(tuple.listener, opposite) else {
            return Ok(None);
        };
        let change = match message.find::<ChangeRequest>() {
            None => ChangeRequest {
                change_ip: false,
                change_port: false,
            },
            Some(Ok(change)) => change,
            Some(Err(_)) => return Err(Reject::BAD_REQUEST),
        };
        let port = match message.find::<ResponsePort>() {
            None => None,
            // No answer reaches port 0.
            Some(Ok(ResponsePort(0)) | Err(_)) => return Err(Reject::BAD_REQUEST),
            Some(Ok(ResponsePort(port))) => Some(port),
        };
        let is_padded = message.has(AttributeType::PADDING);
        // RFC 5780 §6.1: RESPONSE-PORT and PADDING exclude each other.
        if port.is_some() && is_padded {
            return Err(Reject::BAD_REQUEST);
        }
        let origin = discovery
            .changed(tuple.listener, change)
            .ok_or(Reject::BAD_REQUEST)?;
        let mapped = tuple.client.expose();
        // RFC 5780 §7.5: another port, on the source's own IP address.
        let mut to = mapped;
        to.set_port(port.unwrap_or_else(|| mapped.port()));
        let client = ClientAddr::new(to);
        if self.is_bad_source(client) {
            return Err(Reject::BAD_REQUEST);
        }
        let judge = &self.config.judge;
        Ok(Some(Behaviour {
            mapped: tuple.client,
            // Behind 1:1 NAT clients know another address.
            origin: judge.outer_listener(origin.address),
            other: judge.outer_listener(other.address),
            padded_to: is_padded.then_some(message.as_bytes().len()),
            to: FiveTuple {
                client,
                listener: origin.listener,
            },
        }))
    }

    /// How the success of an authenticated request leaves.
    pub(crate) fn way_of_success(&self, request: &Request<'_>) -> Handled {
        if request.message.method() != Method::BINDING {
            return Handled::Answer;
        }
        let behaviour = self.behaviour(request.tuple, &request.message);
        let behaviour = behaviour.ok().flatten();
        behaviour.map_or(Handled::Answer, |b| b.handled(request.tuple))
    }

    /// The comprehension-required attributes that `message` on `tuple` may carry besides those of
    /// every request.
    pub(crate) fn served(
        &self,
        tuple: FiveTuple,
        message: &Message<'_>,
    ) -> &'static [AttributeType] {
        if message.method() != Method::BINDING {
            return &[];
        }
        let is_direct = tuple.client.via() == Via::DIRECT;
        if is_direct && self.config.nat_discovery.serves(tuple.listener) {
            &BEHAVIOUR
        } else {
            &[]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn four_named_listeners_of_one_family_form_a_rectangle() {
        let whole = [
            "192.0.2.1:1",
            "192.0.2.2:2",
            "192.0.2.1:2",
            "[2001:db8::1]:1",
            "192.0.2.2:1",
        ]
        .map(at);
        let found = Rectangle::among(&whole);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].ips, [whole[0].ip(), whole[1].ip()]);
        assert_eq!(found[0].ports, [1, 2]);
        for missing in [0, 1, 2, 4] {
            let mut three = whole.to_vec();
            three.remove(missing);
            assert!(Rectangle::among(&three).is_empty(), "without {missing}");
        }
        let wildcards = ["0.0.0.0:1", "0.0.0.0:2", "192.0.2.1:1", "192.0.2.1:2"].map(at);
        assert!(Rectangle::among(&wildcards).is_empty());
    }

    #[test]
    fn each_flag_leads_to_the_listener_that_shares_the_rest() {
        let listeners = ["192.0.2.1:1", "192.0.2.2:1", "192.0.2.1:2", "192.0.2.2:2"].map(at);
        let discovery = NatDiscovery::new(&listeners, &listeners);
        let change = |place, change_ip, change_port| {
            let change = ChangeRequest {
                change_ip,
                change_port,
            };
            let listener = ListenerId::new(Transport::Udp, place);
            discovery
                .changed(listener, change)
                .map(|corner| corner.listener.place())
        };
        for (place, ip, port, both) in [(0, 1, 2, 3), (1, 0, 3, 2), (2, 3, 0, 1), (3, 2, 1, 0)] {
            assert_eq!(change(place, false, false), Some(place));
            assert_eq!(change(place, true, false), Some(ip));
            assert_eq!(change(place, false, true), Some(port));
            assert_eq!(change(place, true, true), Some(both));
        }
        assert_eq!(change(4, false, false), None);
        let off = NatDiscovery::default();
        let same = ChangeRequest {
            change_ip: false,
            change_port: false,
        };
        assert!(off.changed(ListenerId(0), same).is_none());
    }
}
