//! How long an allocation lives and how it moves: LIFETIME (RFC 8656 §18.2) and MOBILITY-TICKET
//! (RFC 8016 §3.3).

use std::fmt;

use super::{Attribute, AttributeError, AttributeType, exactly};
use crate::proto::message::TransactionId;
use crate::proto::writer::{Full, Sink};

/// LIFETIME: seconds until the allocation expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime(pub u32);

impl<'a> Attribute<'a> for Lifetime {
    const TYPE: AttributeType = AttributeType::LIFETIME;

    fn decode(value: &'a [u8], _id: TransactionId) -> Result<Self, AttributeError> {
        Ok(Self(u32::from_be_bytes(*exactly(value)?)))
    }

    fn encode(&self, _id: TransactionId, out: &mut Sink<'_>) -> Result<(), Full> {
        out.put(&self.0.to_be_bytes())
    }
}

/// MOBILITY-TICKET: empty when the client asks for one, opaque afterwards. `Debug` hides it: who
/// holds it can take the allocation over.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct MobilityTicket<'a>(pub &'a [u8]);

impl<'a> Attribute<'a> for MobilityTicket<'a> {
    const TYPE: AttributeType = AttributeType::MOBILITY_TICKET;

    fn decode(value: &'a [u8], _id: TransactionId) -> Result<Self, AttributeError> {
        Ok(Self(value))
    }

    fn encode(&self, _id: TransactionId, out: &mut Sink<'_>) -> Result<(), Full> {
        out.put(self.0)
    }
}

impl fmt::Debug for MobilityTicket<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MobilityTicket(hidden)")
    }
}
