//! What names a way to a peer, and what goes along it: CHANNEL-NUMBER, DATA (RFC 8656 §18.1,
//! §18.4) and CONNECTION-ID (RFC 6062 §6.2.1).

use std::fmt;

use super::{Attribute, AttributeError, AttributeType, exactly};
use crate::proto::message::TransactionId;
use crate::proto::writer::{Full, Sink};

/// CHANNEL-NUMBER: the number as received; its range is judged by the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelNumberAttribute(pub u16);

impl<'a> Attribute<'a> for ChannelNumberAttribute {
    const TYPE: AttributeType = AttributeType::CHANNEL_NUMBER;

    fn decode(value: &'a [u8], _id: TransactionId) -> Result<Self, AttributeError> {
        // RFC 8656 §18.1: two reserved bytes follow, ignored on reception.
        let &[n0, n1, _, _] = exactly(value)?;
        Ok(Self(u16::from_be_bytes([n0, n1])))
    }

    fn encode(&self, _id: TransactionId, out: &mut Sink<'_>) -> Result<(), Full> {
        let [n0, n1] = self.0.to_be_bytes();
        out.put(&[n0, n1, 0, 0])
    }
}

/// CONNECTION-ID: names a peer data connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub u32);

impl<'a> Attribute<'a> for ConnectionId {
    const TYPE: AttributeType = AttributeType::CONNECTION_ID;

    fn decode(value: &'a [u8], _id: TransactionId) -> Result<Self, AttributeError> {
        Ok(Self(u32::from_be_bytes(*exactly(value)?)))
    }

    fn encode(&self, _id: TransactionId, out: &mut Sink<'_>) -> Result<(), Full> {
        out.put(&self.0.to_be_bytes())
    }
}

/// DATA: application data. `Debug` shows its length only.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Data<'a>(pub &'a [u8]);

impl<'a> Attribute<'a> for Data<'a> {
    const TYPE: AttributeType = AttributeType::DATA;

    fn decode(value: &'a [u8], _id: TransactionId) -> Result<Self, AttributeError> {
        Ok(Self(value))
    }

    fn encode(&self, _id: TransactionId, out: &mut Sink<'_>) -> Result<(), Full> {
        out.put(self.0)
    }
}

impl fmt::Debug for Data<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Data({} bytes)", self.0.len())
    }
}
