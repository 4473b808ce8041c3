//! The bodies of the fuzz targets, plain functions: `fuzz/` feeds them from libFuzzer, the tests
//! here from seeded random bytes. They assert more than the absence of panics.

use std::net::{IpAddr, SocketAddr};

use taciturn::dataplane::proxy::{MAX_HEADER, Parsed, parse_datagram, parse_stream};
use taciturn::proto::{
    AdditionalAddressFamily, AddressErrorCode, AlternateDomain, AlternateServer, Attribute as _,
    AttributeType, Border, ChangeRequest, ChannelData, ChannelNumber, ChannelNumberAttribute,
    ChannelRange, Class, ConnectionId, DATA_INDICATION_HEADROOM, Data, DontFragment, ErrorCode,
    EvenPort, Full, HEADER_LEN, Icmp, Kind, Lifetime, LongTermKey, MAGIC_COOKIE,
    MAX_STREAM_MESSAGE, MappedAddress, Message, Method, MobilityTicket, Nonce, OtherAddress,
    Padding, PasswordAlgorithm, PasswordAlgorithms, Realm, RequestedAddressFamily,
    RequestedTransport, ReservationToken, ResponseOrigin, ResponsePort, Software, TransactionId,
    UnknownAttributes, Userhash, Username, Writer, XorMappedAddress, XorPeerAddress,
    XorRelayedAddress, classify, data_indication_headroom, frame_channel_data,
    frame_data_indication, next_border,
};

const RANGES: [ChannelRange; 2] = [ChannelRange::Rfc8656, ChannelRange::Rfc5766];

/// Reads `data` in every way a datagram can be read, and frames it as a payload.
pub(crate) fn decode(data: &[u8]) {
    if let Some(&first) = data.first() {
        for range in RANGES {
            let is_stun = classify(first, range) == Kind::Stun;
            assert_eq!(is_stun, first < 4);
        }
    }
    if let Ok(message) = Message::decode(data) {
        inspect(&message);
    }
    // Past the header, which random bytes seldom get right.
    if let Some(message) = with_header(data) {
        match Message::decode(&message) {
            Ok(message) => inspect(&message),
            Err(error) => assert!(Walked::all(&message[HEADER_LEN..]).is_none(), "{error}"),
        }
    }
    if let Ok(channel_data) = ChannelData::decode_datagram(data) {
        assert!(channel_data.encoded_len() <= data.len());
        assert_eq!(
            data[ChannelData::HEADER_LEN..channel_data.encoded_len()],
            *channel_data.payload
        );
    }
    if let [k0, k1, value @ ..] = data {
        let id = TransactionId::new([0x42; 12]);
        values(
            AttributeType::new(u16::from_be_bytes([*k0, *k1])),
            value,
            id,
        );
    }
    frame(data);
}

/// Follows the borders of `data` as of a stream, whole and in pieces.
pub(crate) fn stream_border(data: &[u8]) {
    for range in RANGES {
        let mut rest = data;
        // Every message takes at least four bytes, so this ends.
        while let Border::Whole { kind, len, padded } = next_border(rest, range) {
            assert!(ChannelData::HEADER_LEN <= len && len <= padded && padded <= rest.len());
            assert!(padded - len < 4 && padded.is_multiple_of(4) && padded <= MAX_STREAM_MESSAGE);
            let message = &rest[..len];
            assert_eq!(classify(message[0], range), kind);
            match kind {
                Kind::Stun => assert!(len >= HEADER_LEN && len == padded),
                Kind::ChannelData => {
                    let decoded = ChannelData::decode_datagram(message);
                    assert_eq!(decoded.map(|it| it.encoded_len()), Ok(len));
                }
                Kind::Neither => assert_ne!(kind, Kind::Neither),
            }
            // A reader that saw less of it asked for no more than this.
            for seen in [0, 1, 3, 4, 7, len - 1, padded - 1] {
                if seen < padded {
                    let Border::NeedMore { at_least } = next_border(&rest[..seen], range) else {
                        assert_eq!(seen, padded, "a beginning is neither whole nor invalid");
                        return;
                    };
                    assert!(seen < at_least && at_least <= padded);
                }
            }
            rest = &rest[padded..];
        }
        match next_border(rest, range) {
            Border::NeedMore { at_least } => {
                assert!(rest.len() < at_least && at_least <= MAX_STREAM_MESSAGE);
            }
            Border::Invalid => assert!(!rest.is_empty()),
            Border::Whole { .. } => assert_eq!(rest.len(), 0, "the loop takes whole messages"),
        }
    }
}

/// Decodes `value` as every attribute there is; what decodes, and is within the sender's limits,
/// encodes to something that decodes to the same.
pub(crate) fn values(kind: AttributeType, value: &[u8], id: TransactionId) {
    macro_rules! round_trip {
        ($($attribute:ty),* $(,)?) => {$(
            if let Ok(decoded) = <$attribute>::decode(value, id) {
                let mut buf = vec![0xAA; value.len() + 40];
                let written = Writer::new(&mut buf, Class::Request, Method::BINDING, id)
                    .and_then(|mut writer| writer.push(&decoded).map(|()| writer.finish()));
                match written {
                    // Text is received longer than it may be sent.
                    Err(Full) => assert!(value.len() > 127),
                    Ok(len) => {
                        let message = Message::decode(&buf[..len]);
                        let again = message.map(|message| message.find::<$attribute>());
                        assert_eq!(again, Ok(Some(Ok(decoded))));
                    }
                }
            }
        )*};
    }
    round_trip!(
        AdditionalAddressFamily,
        AddressErrorCode<'_>,
        AlternateDomain<'_>,
        AlternateServer,
        ChangeRequest,
        ChannelNumberAttribute,
        ConnectionId,
        Data<'_>,
        DontFragment,
        ErrorCode<'_>,
        EvenPort,
        Icmp,
        Lifetime,
        MappedAddress,
        MobilityTicket<'_>,
        Nonce<'_>,
        OtherAddress,
        Padding<'_>,
        PasswordAlgorithm<'_>,
        PasswordAlgorithms<'_>,
        Realm<'_>,
        RequestedAddressFamily,
        RequestedTransport,
        ReservationToken,
        ResponseOrigin,
        ResponsePort,
        Software<'_>,
        UnknownAttributes<'_>,
        Userhash,
        Username<'_>,
        XorMappedAddress,
        XorPeerAddress,
        XorRelayedAddress,
    );
    assert_eq!(kind.is_comprehension_required(), kind.value() < 0x8000);
}

/// Reads everything a message offers.
fn inspect(message: &Message<'_>) {
    let all = Walked::all(&message.as_bytes()[HEADER_LEN..]);
    let count = all.map_or(0, |walked| walked.count);
    assert!(message.attributes().count() <= count);
    for attribute in message.attributes() {
        assert!(message.has(attribute.kind));
        if attribute.value.len() <= 2000 {
            values(attribute.kind, attribute.value, message.transaction_id());
        }
    }
    assert!(
        message
            .unknown_required(&[])
            .all(AttributeType::is_comprehension_required)
    );
    let key = LongTermKey::short_term("key");
    let _unkeyed = (
        message.verify_integrity(&key),
        message.verify_integrity_sha256(&key),
    );
    let _unjudged = message.fingerprint();
    assert!(!format!("{message:?}").is_empty());
}

/// `data` as the attributes of a message, preceded by the header that fits.
fn with_header(data: &[u8]) -> Option<Vec<u8>> {
    let body = &data[..data.len() & !3];
    let length = u16::try_from(body.len()).ok()?;
    let mut bytes = vec![0x00, 0x03];
    bytes.extend(length.to_be_bytes());
    bytes.extend(MAGIC_COOKIE.to_be_bytes());
    bytes.extend([0x42; 12]);
    bytes.extend(body);
    Some(bytes)
}

/// What a walk over type-length-values finds, written without a look at the decoder.
struct Walked {
    count: usize,
}

impl Walked {
    /// Nothing when an attribute leaves the body, or something follows FINGERPRINT.
    fn all(body: &[u8]) -> Option<Self> {
        let (mut at, mut count, mut ended) = (0, 0, false);
        while at < body.len() {
            if ended || body.len() - at < 4 {
                return None;
            }
            ended = body[at..at + 2] == [0x80, 0x28];
            at += 4 + usize::from(body[at + 2]) * 256 + usize::from(body[at + 3]);
            at = at.div_ceil(4) * 4;
            count += 1;
        }
        (at == body.len()).then_some(Self { count })
    }
}

/// Frames `data` in place and reads it back.
fn frame(data: &[u8]) {
    const BEHIND: usize = 8;
    let start = DATA_INDICATION_HEADROOM + data.len() % 5;
    let mut buf = vec![0xAA; start];
    buf.extend(data);
    buf.extend([0xAA; BEHIND]);
    let payload = start..start + data.len();

    let id = TransactionId::new([0x11; 12]);
    let peers: [SocketAddr; 2] = [
        ([192, 0, 2, 1], 7).into(),
        ([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1], 7).into(),
    ];
    for peer in peers {
        let Ok(range) = frame_data_indication(&mut buf, payload.clone(), peer, id) else {
            assert!(data.len() > 65_500);
            continue;
        };
        assert_eq!(range.start, start - data_indication_headroom(peer));
        let message = Message::decode(&buf[range]);
        assert_eq!(
            message.map(|it| it.find()),
            Ok(Some(Ok(XorPeerAddress(peer))))
        );
        assert_eq!(message.map(|it| it.find()), Ok(Some(Ok(Data(data)))));
    }
    if let Some(channel) = ChannelNumber::new(0x4001, ChannelRange::Rfc8656) {
        let Ok(range) = frame_channel_data(&mut buf, payload, channel) else {
            assert!(data.len() > 65_535);
            return;
        };
        let decoded = ChannelData::decode_datagram(&buf[range]);
        assert_eq!(
            decoded,
            Ok(ChannelData {
                channel: 0x4001,
                payload: data
            })
        );
    }
}

/// Longer prefixes are not all tried.
const PREFIXES: usize = 300;

/// Reads `data` as what a load balancer sends in front of a stream, and as its datagram.
pub(crate) fn proxy_header(data: &[u8]) {
    let (stream, datagram) = (parse_stream(data), parse_datagram(data));
    for (parsed, transport) in [(stream, 1), (datagram, 2)] {
        match parsed {
            Parsed::Header { len, client } => {
                assert!(0 < len && len <= data.len().min(MAX_HEADER));
                let told = client.map(|client| client.expose());
                if let Some(told) = told {
                    assert_eq!(Some(told), spoken_for(&data[..len], transport));
                }
                // It ends where it ends, and what follows says nothing about it.
                let alone = [&data[..len], b"\r\n\r\n\0"].concat();
                let again = if transport == 1 {
                    parse_stream(&alone)
                } else {
                    parse_datagram(&alone)
                };
                assert_eq!(again, parsed);
            }
            Parsed::NeedMore => assert!(transport == 1 && data.len() < MAX_HEADER),
            Parsed::Absent | Parsed::Invalid => {}
        }
    }
    // Whoever reads byte by byte comes to the same judgement, once.
    let mut judged = None;
    for end in 0..=data.len().min(PREFIXES) {
        let parsed = parse_stream(&data[..end]);
        match judged {
            None if parsed == Parsed::NeedMore => {}
            None => judged = Some(parsed),
            Some(before) => assert_eq!(parsed, before, "with {end} bytes"),
        }
    }
}

/// For whom a header speaks, read from where the documents say it stands, and checked no further.
fn spoken_for(header: &[u8], transport: u8) -> Option<SocketAddr> {
    let port = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    let (ip, port): (IpAddr, u16) = if header.starts_with(b"PROXY ") {
        let line = std::str::from_utf8(header).ok()?;
        let words: Vec<&str> = line.strip_suffix("\r\n")?.split(' ').collect();
        let [_, _, source, _, port, _] = words[..] else {
            return None;
        };
        (source.parse().ok()?, port.parse().ok()?)
    } else if header[12] != 0x21 || header[13] & 0xF != transport {
        return None;
    } else if header[13] >> 4 == 1 {
        let ip: [u8; 4] = header[16..20].try_into().ok()?;
        (ip.into(), port(24))
    } else {
        let ip: [u8; 16] = header[16..32].try_into().ok()?;
        (ip.into(), port(48))
    };
    Some(SocketAddr::new(ip.to_canonical(), port))
}
