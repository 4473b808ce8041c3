//! NAT behaviour discovery: CHANGE-REQUEST, RESPONSE-PORT and PADDING (RFC 5780 §7).

use std::fmt;

use super::{Attribute, AttributeError, AttributeType, exactly};
use crate::proto::message::TransactionId;
use crate::proto::writer::{Full, Sink};

/// CHANGE-REQUEST: where the response is to come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChangeRequest {
    /// From the other IP address.
    pub change_ip: bool,
    /// From the other port.
    pub change_port: bool,
}

const CHANGE_IP: u8 = 0b100;
const CHANGE_PORT: u8 = 0b010;

impl<'a> Attribute<'a> for ChangeRequest {
    const TYPE: AttributeType = AttributeType::CHANGE_REQUEST;

    fn decode(value: &'a [u8], _id: TransactionId) -> Result<Self, AttributeError> {
        let &[_, _, _, flags] = exactly(value)?;
        Ok(Self {
            change_ip: flags & CHANGE_IP != 0,
            change_port: flags & CHANGE_PORT != 0,
        })
    }

    fn encode(&self, _id: TransactionId, out: &mut Sink<'_>) -> Result<(), Full> {
        let ip = if self.change_ip { CHANGE_IP } else { 0 };
        let port = if self.change_port { CHANGE_PORT } else { 0 };
        out.put(&[0, 0, 0, ip | port])
    }
}

/// RESPONSE-PORT: the port the response is to be sent to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ResponsePort(pub u16);

impl<'a> Attribute<'a> for ResponsePort {
    const TYPE: AttributeType = AttributeType::RESPONSE_PORT;

    fn decode(value: &'a [u8], _id: TransactionId) -> Result<Self, AttributeError> {
        // RFC 5780 §7.5: 16 bits and two bytes of padding, which some count into the length.
        match *value {
            [p0, p1] | [p0, p1, _, _] => Ok(Self(u16::from_be_bytes([p0, p1]))),
            _ => Err(AttributeError::BadLength),
        }
    }

    fn encode(&self, _id: TransactionId, out: &mut Sink<'_>) -> Result<(), Full> {
        let [p0, p1] = self.0.to_be_bytes();
        out.put(&[p0, p1, 0, 0])
    }
}

impl fmt::Debug for ResponsePort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ResponsePort(hidden)")
    }
}

/// PADDING: bytes that make the message long enough to be fragmented.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Padding<'a>(pub &'a [u8]);

impl<'a> Attribute<'a> for Padding<'a> {
    const TYPE: AttributeType = AttributeType::PADDING;

    fn decode(value: &'a [u8], _id: TransactionId) -> Result<Self, AttributeError> {
        Ok(Self(value))
    }

    fn encode(&self, _id: TransactionId, out: &mut Sink<'_>) -> Result<(), Full> {
        out.put(self.0)
    }
}

impl fmt::Debug for Padding<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Padding({} bytes)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: TransactionId = TransactionId::new([0; 12]);

    #[test]
    fn unused_flags_are_ignored() {
        let decoded = ChangeRequest::decode(&[0xFF, 0xFF, 0xFF, 0xFD], ID);
        assert_eq!(
            decoded,
            Ok(ChangeRequest {
                change_ip: true,
                change_port: false
            })
        );
        assert_eq!(
            ChangeRequest::decode(&[0; 3], ID),
            Err(AttributeError::BadLength)
        );
    }

    #[test]
    fn a_response_port_may_count_its_padding() {
        assert_eq!(ResponsePort::decode(&[1, 2], ID), Ok(ResponsePort(0x0102)));
        assert_eq!(
            ResponsePort::decode(&[1, 2, 9, 9], ID),
            Ok(ResponsePort(0x0102))
        );
        assert_eq!(
            ResponsePort::decode(&[1, 2, 9], ID),
            Err(AttributeError::BadLength)
        );
    }
}
