//! What an Allocate request asks for (RFC 8656 §7.2), checked before anything is drawn for it.

use crate::proto::{
    AdditionalAddressFamily, AddressFamily, AttributeError, AttributeType, EvenPort, Lifetime,
    Message, MobilityTicket, RequestedAddressFamily, RequestedTransport, ReservationToken, Reserve,
};
use crate::turn::Server;
use crate::turn::environment::Environment;
use crate::turn::ports::{Parity, Token};
use crate::turn::request::{Reject, Request};
use crate::turn::route::RelayProtocol;
use crate::turn::tcp_relay;

/// What an Allocate request asks for, checked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    pub(super) protocol: RelayProtocol,
    pub(super) family: AddressFamily,
    pub(super) parity: Parity,
    pub(super) additional: bool,
    pub(super) token: Option<Token>,
    pub(super) lifetime: Option<u32>,
    /// Whether the client wants a ticket.
    pub(super) mobile: bool,
}

impl<E: Environment> Server<E> {
    /// What is asked for, as far as this server does it.
    pub(super) fn wanted(&self, request: &Request<'_>) -> Result<Wanted, Reject> {
        let message = &request.message;
        let protocol = match message.find::<RequestedTransport>() {
            Some(Ok(RequestedTransport::UDP)) => RelayProtocol::Udp,
            Some(Ok(RequestedTransport::TCP)) if self.config.tcp_relay => RelayProtocol::Tcp,
            Some(Ok(_)) => return Err(Reject::TRANSPORT),
            Some(Err(_)) | None => return Err(Reject::BAD_REQUEST),
        };
        if protocol == RelayProtocol::Tcp {
            tcp_relay::check_allocate(request.tuple, message)?;
        }
        Wanted::parse(message, protocol)
    }
}

impl Wanted {
    fn parse(message: &Message<'_>, protocol: RelayProtocol) -> Result<Self, Reject> {
        let has_family = message.has(AttributeType::REQUESTED_ADDRESS_FAMILY);
        let has_additional = message.has(AttributeType::ADDITIONAL_ADDRESS_FAMILY);
        let even = match message.find::<EvenPort>() {
            None => None,
            Some(Ok(even)) => Some(even),
            Some(Err(_)) => return Err(Reject::BAD_REQUEST),
        };
        let token = match message.find::<ReservationToken>() {
            None => None,
            Some(Ok(ReservationToken(token))) => Some(Token(token)),
            Some(Err(_)) => return Err(Reject::BAD_REQUEST),
        };
        if token.is_some() && (even.is_some() || has_family || has_additional) {
            return Err(Reject::BAD_REQUEST);
        }
        if has_family && has_additional {
            return Err(Reject::BAD_REQUEST);
        }
        let family = match message.find::<RequestedAddressFamily>() {
            None => AddressFamily::V4,
            Some(Ok(RequestedAddressFamily(family))) => family,
            Some(Err(why)) => return Err(family_reject(why)),
        };
        let parity = match even {
            None => Parity::Any,
            Some(EvenPort {
                reserve_next: Reserve::No,
            }) => Parity::Even,
            Some(EvenPort {
                reserve_next: Reserve::Yes,
            }) => Parity::EvenAndNext,
        };
        if parity == Parity::EvenAndNext && has_additional {
            return Err(Reject::BAD_REQUEST);
        }
        let additional = match message.find::<AdditionalAddressFamily>() {
            None => false,
            Some(Ok(AdditionalAddressFamily(AddressFamily::V6))) => true,
            // RFC 8656 §7.2: the additional family cannot be IPv4.
            Some(Ok(AdditionalAddressFamily(AddressFamily::V4))) => {
                return Err(Reject::BAD_REQUEST);
            }
            Some(Err(why)) => return Err(family_reject(why)),
        };
        let lifetime = match message.find::<Lifetime>() {
            None => None,
            Some(Ok(Lifetime(seconds))) => Some(seconds),
            Some(Err(_)) => return Err(Reject::BAD_REQUEST),
        };
        let mobile = match message.find::<MobilityTicket<'_>>() {
            None => false,
            Some(Ok(MobilityTicket(b""))) => true,
            // RFC 8016 §3.1.2: only an empty one asks for a ticket.
            Some(_) => return Err(Reject::BAD_REQUEST),
        };
        Ok(Self {
            protocol,
            family,
            parity,
            additional,
            token,
            lifetime,
            mobile,
        })
    }
}

/// A family nobody knows is not supported; a malformed attribute is a bad request.
const fn family_reject(why: AttributeError) -> Reject {
    match why {
        AttributeError::UnknownFamily => Reject::FAMILY_NOT_SUPPORTED,
        AttributeError::BadLength | AttributeError::BadValue | AttributeError::NotUtf8 => {
            Reject::BAD_REQUEST
        }
    }
}
