//! All that passed on one party's leg: packets, and what they carried between that party and the
//! relay by whichever transport.

use std::net::{IpAddr, SocketAddr};

use crate::lab::packet::{Packet, application_data};
use crate::lab::search::{Finding, Form, in_packets, in_text};
use crate::lab::{Addresses, SERVICE};
use crate::reach::Via;
use crate::stream::{self, Stream};
use crate::tls::Secrets;

/// A captured leg.
pub(crate) struct Leg {
    pub(crate) packets: Vec<Packet>,
    /// By the ways that have streams; TLS is opened.
    streams: Vec<(Via, Stream)>,
    /// TLS connections that could not be opened.
    pub(crate) unread: usize,
}

/// Who sent a message.
#[derive(Clone, Copy, PartialEq, Eq)]
enum From {
    Client,
    Relay,
}

/// What was said to the relay by one way.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Tally {
    /// IP packets, both directions.
    pub(crate) packets: usize,
    /// Allocate success responses.
    pub(crate) allocations: usize,
    /// CreatePermission success responses.
    pub(crate) permissions: usize,
    /// ChannelBind success responses.
    pub(crate) channels: usize,
    /// Send indications from the client.
    pub(crate) indications: usize,
    /// ChannelData from the client.
    pub(crate) channel_data: usize,
    /// RTP and RTCP among both.
    pub(crate) media: usize,
}

impl Leg {
    /// `secrets` are those of the party's browser.
    pub(crate) fn of(packets: Vec<Packet>, secrets: &Secrets) -> Self {
        let (mut streams, mut tls) = (Vec::new(), Vec::new());
        for stream in stream::streams(&packets) {
            let ends = [stream.source, stream.destination];
            match ends.into_iter().find_map(way_of_stream) {
                Some(Via::Tls) => tls.push(stream),
                Some(via) => streams.push((via, stream)),
                None => {}
            }
        }
        let mut unread = 0;
        for client in &tls {
            let answers = |other: &&Stream| {
                (other.source, other.destination) == (client.destination, client.source)
            };
            if way_of_stream(client.destination).is_none() {
                continue;
            }
            let server = tls.iter().find(answers);
            let said = server.map_or(&[][..], |server| &server.bytes);
            let Some([from_client, from_server]) = secrets.open(&client.bytes, said) else {
                unread += 1;
                continue;
            };
            let (source, destination) = (client.source, client.destination);
            for (source, destination, bytes) in [
                (source, destination, from_client),
                (destination, source, from_server),
            ] {
                let opened = Stream {
                    source,
                    destination,
                    bytes,
                };
                streams.push((Via::Tls, opened));
            }
        }
        Self {
            packets,
            streams,
            unread,
        }
    }

    /// Every finding of one of `addresses`, in packets as they passed and in what streams carried.
    pub(crate) fn findings(&self, addresses: Addresses) -> Vec<Finding> {
        let mut findings = in_packets(addresses, &self.packets);
        findings.extend(self.in_streams(addresses));
        findings
    }

    fn in_streams(&self, addresses: Addresses) -> impl Iterator<Item = Finding> {
        let streams = self.streams.iter();
        streams.flat_map(move |(_, stream)| in_text(addresses, &stream.bytes))
    }

    /// Whether one of `addresses` stands in a stream as XOR-MAPPED-ADDRESS has it.
    pub(crate) fn is_mapped_in_streams(&self, addresses: Addresses) -> bool {
        self.in_streams(addresses)
            .any(|finding| finding.form == Form::Xored)
    }

    /// Application datagrams that the browser handed to the relay.
    pub(crate) fn sent(&self) -> impl Iterator<Item = &[u8]> {
        let messages = Via::ALL.into_iter().flat_map(|via| self.messages(via));
        messages
            .filter(|(from, _)| *from == From::Client)
            .filter_map(|(_, message)| application_data(message))
    }

    /// What was said by `via`.
    pub(crate) fn tally(&self, via: Via) -> Tally {
        let packets = self
            .packets
            .iter()
            .filter(|packet| way(packet) == Some(via));
        let mut tally = Tally {
            packets: packets.count(),
            ..Tally::default()
        };
        for (from, message) in self.messages(via) {
            // RFC 8656 §18: the types as they stand on the wire.
            let counter = match (from, message) {
                (From::Relay, [0x01, 0x03, ..]) => &mut tally.allocations,
                (From::Relay, [0x01, 0x08, ..]) => &mut tally.permissions,
                (From::Relay, [0x01, 0x09, ..]) => &mut tally.channels,
                (From::Client, [0x00, 0x16, ..]) => &mut tally.indications,
                (From::Client, [0x40..0x80, ..]) => &mut tally.channel_data,
                _ => continue,
            };
            *counter += 1;
            let data = application_data(message).filter(|_| from == From::Client);
            tally.media += usize::from(data.is_some_and(is_media));
        }
        tally
    }

    /// UDP and TCP packets between the party and the relay by none of the ways.
    pub(crate) fn by_other_ways(&self) -> usize {
        let ends = self
            .packets
            .iter()
            .filter_map(|packet| Some((packet, packet.ends()?)));
        ends.filter(|(_, ends)| ends.iter().any(|end| is_relay(end.ip())))
            .filter(|(packet, _)| way(packet).is_none())
            .count()
    }

    /// STUN messages and ChannelData, each with its sender.
    fn messages(&self, via: Via) -> Vec<(From, &[u8])> {
        if via == Via::Udp {
            let packets = self.packets.iter();
            return packets
                .filter(|packet| way(packet) == Some(Via::Udp))
                .filter_map(|packet| Some((sender(packet.source), packet.udp_payload()?)))
                .collect();
        }
        let streams = self.streams.iter().filter(|(way, _)| *way == via);
        streams
            .flat_map(|(_, stream)| {
                let from = sender(stream.source.ip());
                let messages = stream::messages(&stream.bytes).into_iter();
                messages.map(move |message| (from, message))
            })
            .collect()
    }
}

/// RFC 7983 §7: the first byte of RTP and RTCP.
pub(crate) fn is_media(data: &[u8]) -> bool {
    matches!(data, [128..192, ..])
}

/// The same of STUN.
pub(crate) fn is_check(data: &[u8]) -> bool {
    matches!(data, [0..4, ..])
}

fn is_relay(address: IpAddr) -> bool {
    SERVICE.all().contains(&address)
}

fn sender(address: IpAddr) -> From {
    if is_relay(address) {
        From::Relay
    } else {
        From::Client
    }
}

/// The way that ends at this address of the relay.
fn way_of_stream(end: SocketAddr) -> Option<Via> {
    [Via::Tcp, Via::Tls]
        .into_iter()
        .find(|via| is_relay(end.ip()) && end.port() == via.port())
}

/// The way by which this packet went to or from the relay.
fn way(packet: &Packet) -> Option<Via> {
    let [source, destination] = packet.ends()?;
    let end = [source, destination]
        .into_iter()
        .find(|end| is_relay(end.ip()))?;
    match packet.udp_payload() {
        Some(_) => (end.port() == Via::Udp.port()).then_some(Via::Udp),
        None => way_of_stream(end),
    }
}
