//! Just enough of Ethernet, IP and UDP to read a capture.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// An IP packet off the wire.
#[derive(Clone, Debug)]
pub(crate) struct Packet {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) protocol: u8,
    /// All that follows the IP header.
    pub(crate) body: Vec<u8>,
}

pub(crate) const TCP: u8 = 6;
const UDP: u8 = 17;

impl Packet {
    /// The IP packet in an Ethernet frame; `None` for ARP and the like.
    pub(crate) fn of_frame(frame: &[u8]) -> Option<Self> {
        let (header, rest) = frame.split_at_checked(14)?;
        match header[12..14] {
            [0x08, 0x00] => Self::of_ipv4(rest),
            [0x86, 0xdd] => Self::of_ipv6(rest),
            _ => None,
        }
    }

    fn of_ipv4(packet: &[u8]) -> Option<Self> {
        let header = usize::from(packet.first()? & 0x0f) * 4;
        let total = usize::from(u16::from_be_bytes([*packet.get(2)?, *packet.get(3)?]));
        let address = |at: usize| -> Option<IpAddr> {
            let bytes: [u8; 4] = packet.get(at..at + 4)?.try_into().ok()?;
            Some(Ipv4Addr::from(bytes).into())
        };
        Some(Self {
            source: address(12)?,
            destination: address(16)?,
            protocol: *packet.get(9)?,
            body: packet.get(header..total)?.to_vec(),
        })
    }

    fn of_ipv6(packet: &[u8]) -> Option<Self> {
        let length = usize::from(u16::from_be_bytes([*packet.get(4)?, *packet.get(5)?]));
        let address = |at: usize| -> Option<IpAddr> {
            let bytes: [u8; 16] = packet.get(at..at + 16)?.try_into().ok()?;
            Some(Ipv6Addr::from(bytes).into())
        };
        Some(Self {
            source: address(8)?,
            destination: address(24)?,
            protocol: *packet.get(6)?,
            body: packet.get(40..40 + length)?.to_vec(),
        })
    }

    /// Source and destination with their ports, where this is UDP or TCP.
    pub(crate) fn ends(&self) -> Option<[SocketAddr; 2]> {
        let [a, b, c, d, ..] = self.body[..] else {
            return None;
        };
        let source = (self.source, u16::from_be_bytes([a, b]));
        let destination = (self.destination, u16::from_be_bytes([c, d]));
        matches!(self.protocol, UDP | TCP).then_some([source.into(), destination.into()])
    }

    /// The UDP payload, where this is UDP.
    pub(crate) fn udp_payload(&self) -> Option<&[u8]> {
        (self.protocol == UDP).then(|| self.body.get(8..))?
    }

    /// The UDP destination, where this is UDP.
    pub(crate) fn udp_destination(&self) -> Option<SocketAddr> {
        let [_, destination] = self.ends()?;
        (self.protocol == UDP).then_some(destination)
    }

    /// What a client sends by way of the TURN server at `server`: the inside
    /// of ChannelData or of a Send indication.
    pub(crate) fn application_data_to(&self, server: SocketAddr) -> Option<&[u8]> {
        let payload = self.udp_payload()?;
        if self.udp_destination() != Some(server) {
            return None;
        }
        application_data(payload)
    }
}

/// The inside of a client's ChannelData or Send indication.
pub(crate) fn application_data(message: &[u8]) -> Option<&[u8]> {
    match message {
        // RFC 8656 §12: channel numbers begin with 0b01.
        [0x40..0x80, _, high, low, data @ ..] => {
            data.get(..usize::from(u16::from_be_bytes([*high, *low])))
        }
        [0x00, 0x16, ..] => data_attribute(message.get(20..)?),
        _ => None,
    }
}

/// The DATA attribute among a STUN message's attributes.
fn data_attribute(mut attributes: &[u8]) -> Option<&[u8]> {
    const DATA: u16 = 0x0013;

    while let [kind_high, kind_low, high, low, rest @ ..] = attributes {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        if u16::from_be_bytes([*kind_high, *kind_low]) == DATA {
            return rest.get(..length);
        }
        attributes = rest.get(length.next_multiple_of(4)..)?;
    }
    None
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// From 192.0.2.10:5000 to 203.0.113.7:3478.
    pub(crate) fn udp_frame(payload: &[u8]) -> Vec<u8> {
        let udp_length = u16::try_from(8 + payload.len()).unwrap();
        let mut frame = vec![0; 12];
        frame.extend([0x08, 0x00, 0x45, 0]);
        frame.extend((20 + udp_length).to_be_bytes());
        frame.extend([0, 0, 0, 0, 64, UDP, 0, 0, 192, 0, 2, 10, 203, 0, 113, 7]);
        frame.extend(5000_u16.to_be_bytes());
        frame.extend(3478_u16.to_be_bytes());
        frame.extend(udp_length.to_be_bytes());
        frame.extend([0, 0]);
        frame.extend(payload);
        frame
    }

    #[test]
    fn padding_of_the_frame_is_no_payload() {
        let mut frame = udp_frame(b"hello");
        frame.extend([0xee; 20]);
        let packet = Packet::of_frame(&frame).unwrap();
        assert_eq!(packet.udp_payload().unwrap(), b"hello");
        assert_eq!(packet.source, "192.0.2.10".parse::<IpAddr>().unwrap());
    }

    fn application_data(payload: &[u8], server: &str) -> Option<Vec<u8>> {
        let packet = Packet::of_frame(&udp_frame(payload)).unwrap();
        let data = packet.application_data_to(server.parse().unwrap());
        data.map(<[u8]>::to_vec)
    }

    #[test]
    fn application_data_is_taken_out_of_channel_data_without_padding() {
        let message = [0x40, 0, 0, 2, 8, 9, 0, 0];
        let data = application_data(&message, "203.0.113.7:3478");
        assert_eq!(data.unwrap(), [8, 9]);
        assert_eq!(application_data(&message, "203.0.113.7:5349"), None);
    }

    #[test]
    fn application_data_is_taken_out_of_a_send_indication_only() {
        let mut message = vec![0x00, 0x16, 0, 16, 0x21, 0x12, 0xa4, 0x42];
        message.extend([7; 12]);
        message.extend([0x80, 0x22, 0, 3, 1, 2, 3, 0]);
        message.extend([0x00, 0x13, 0, 2, 8, 9, 0, 0]);
        let data = application_data(&message, "203.0.113.7:3478");
        assert_eq!(data.unwrap(), [8, 9]);
        message[1] = 0x01;
        assert_eq!(application_data(&message, "203.0.113.7:3478"), None);
    }
}
