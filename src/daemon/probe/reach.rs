//! Whether a server answers at all: a STUN Binding request (RFC 8489 §2) before anything else,
//! so that an operator learns whether to look at the network or at the credentials. What address
//! the answer says we have is not looked at.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use webrtc_util::{Conn, Error};

use super::link::{Ending, Failure, Secured, Stage, Way};
use crate::proto::{Class, HEADER_LEN, Message, Method, RequestedTransport, TransactionId, Writer};
use crate::turn::Transport;

/// How long a server has to answer, and a name to be found.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// The first wait for an answer, RFC 8489 §6.2.1; each is twice the one before.
const FIRST_WAIT: Duration = Duration::from_millis(500);

/// A server that answered.
#[derive(Debug, Clone)]
pub(super) struct Reached {
    /// Where.
    pub(super) server: SocketAddr,
    /// How long a TCP connection took, if there is one.
    pub(super) connected: Option<Duration>,
    pub(super) secured: Option<Secured>,
    /// How long an answer to STUN took.
    pub(super) round_trip: Duration,
}

/// The first of these addresses that answers, with the way there, or why none does.
///
/// # Errors
/// With the failure that came furthest, and the words of all.
pub(super) async fn first(ways: Vec<Way>, patience: Duration) -> Result<(Way, Reached), Failure> {
    let mut failures: Vec<Failure> = Vec::new();
    for way in ways {
        match server(&way, patience).await {
            Ok(reached) => return Ok((way, reached)),
            Err(failure) => failures.push(failure),
        }
    }
    let texts: Vec<&str> = failures
        .iter()
        .map(|failure| failure.text.as_str())
        .collect();
    let text = texts.join("; ");
    let furthest = failures.into_iter().max_by_key(|failure| failure.stage);
    Err(furthest.map_or_else(
        || Failure::new(Stage::Reach, "there is no address to try"),
        |failure| Failure { text, ..failure },
    ))
}

async fn server(way: &Way, patience: Duration) -> Result<Reached, Failure> {
    let link = way.open(patience).await?;
    let answered = binding(&*link.conn, &link.ending, way, patience).await;
    // Nobody uses it any more, whatever came of it.
    link.conn.close().await.ok();
    let certificate = link
        .secured
        .as_ref()
        .map(|secured| secured.certificate.clone());
    match answered {
        Ok(round_trip) => Ok(Reached {
            server: way.server,
            connected: link.connected,
            secured: link.secured,
            round_trip,
        }),
        Err(text) => Err(Failure {
            stage: if certificate.is_some() {
                Stage::Speech
            } else {
                Stage::Reach
            },
            text,
            certificate,
        }),
    }
}

async fn binding(
    conn: &(dyn Conn + Send + Sync),
    ending: &Ending,
    way: &Way,
    patience: Duration,
) -> Result<Duration, String> {
    let fault = |error: &Error| {
        if let Error::Io(error) = error {
            way.explain(&error.0)
        } else {
            format!("{} cannot be reached: {error}", way.server)
        }
    };
    // A connected socket hears of ICMP port unreachable.
    let connected = conn.connect(way.server).await;
    connected.map_err(|error| fault(&error))?;
    let mut id = [0; 12];
    getrandom::fill(&mut id).map_err(|error| error.to_string())?;
    let id = TransactionId::new(id);
    let (binding, allocate) = requests(id).ok_or("the requests are too long")?;

    let deadline = Instant::now() + patience;
    let reliable = way.transport.is_stream();
    let mut wait = FIRST_WAIT;
    let mut round = 0;
    while Instant::now() < deadline {
        let sent = Instant::now();
        let mut requests = Vec::new();
        // RFC 8489 §6.2.2: over a stream nothing is sent twice.
        if round == 0 || !reliable {
            requests.push(&binding);
        }
        // A server may keep Binding to itself; to this one it says no.
        if round == 1 || round > 1 && !reliable {
            requests.push(&allocate);
        }
        for request in requests {
            let sent = conn.send_to(request, way.server).await;
            sent.map_err(|error| fault(&error))?;
        }
        round += 1;
        let until = deadline.min(sent + wait);
        match timeout_at(until, answer(conn, id)).await {
            Ok(Ok(())) => return Ok(sent.elapsed()),
            Ok(Err(error)) => {
                // Why a connection ended says more than that it did.
                let ended = ending
                    .reason()
                    .map(|why| format!("{} is there, but {why}", way.server));
                return Err(ended.unwrap_or_else(|| fault(&error)));
            }
            Err(_) => wait *= 2,
        }
    }
    Err(silence(way, patience))
}

fn silence(way: &Way, patience: Duration) -> String {
    let server = way.server;
    match way.transport {
        Transport::Udp => format!(
            "{server} did not answer a STUN request within {patience:?}. Is the server running, \
             and does every firewall between let UDP to port {} through?",
            server.port()
        ),
        Transport::Tcp | Transport::Tls | Transport::Dtls => format!(
            "{server} took a connection and did not answer a STUN request within {patience:?}. Is \
             this a TURN server, or something in between?"
        ),
    }
}

/// A Binding request, and an Allocate that any server refuses for its lack of a credential.
fn requests(id: TransactionId) -> Option<(Vec<u8>, Vec<u8>)> {
    const ROOM: usize = HEADER_LEN + 8;
    let mut binding = vec![0; ROOM];
    let length = Writer::new(&mut binding, Class::Request, Method::BINDING, id)
        .ok()?
        .finish();
    binding.truncate(length);
    let mut allocate = vec![0; ROOM];
    let mut writer = Writer::new(&mut allocate, Class::Request, Method::ALLOCATE, id).ok()?;
    writer.push(&RequestedTransport::UDP).ok()?;
    let length = writer.finish();
    allocate.truncate(length);
    Some((binding, allocate))
}

/// Waits for the answer to this request, whatever else arrives.
async fn answer(conn: &(dyn Conn + Send + Sync), id: TransactionId) -> Result<(), Error> {
    let mut bytes = vec![0; 1500];
    loop {
        let (length, _) = conn.recv_from(&mut bytes).await?;
        let ours = Message::decode(&bytes[..length]).is_ok_and(|message| {
            message.transaction_id() == id
                && matches!(message.class(), Class::Success | Class::Error)
        });
        if ours {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use tokio::net::UdpSocket;

    use super::super::link::trust::{Rigour, Trust};

    async fn server(host: &str, port: u16, patience: Duration) -> Result<Reached, String> {
        let way = Way {
            transport: Transport::Udp,
            server: SocketAddr::new(host.parse().unwrap(), port),
            host: host.to_owned(),
            trust: Trust::new(None, Rigour::Strict).unwrap().into(),
        };
        let reached = first(vec![way], patience).await;
        reached
            .map(|(_, reached)| reached)
            .map_err(|failure| failure.text)
    }

    async fn socket() -> (UdpSocket, u16) {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let port = socket.local_addr().unwrap().port();
        (socket, port)
    }

    #[tokio::test]
    async fn a_port_where_nothing_listens_is_told_at_once() {
        let (free, port) = socket().await;
        drop(free);
        let failure = server("127.0.0.1", port, PATIENCE).await.unwrap_err();
        assert!(failure.contains("nothing listens"), "{failure}");
    }

    #[tokio::test]
    async fn silence_ends_within_the_patience() {
        let (_silent, port) = socket().await;
        let began = Instant::now();
        let patience = Duration::from_millis(700);
        let failure = server("127.0.0.1", port, patience).await.unwrap_err();
        assert!(failure.contains("within 700ms"), "{failure}");
        assert!(began.elapsed() >= patience);
    }

    #[tokio::test]
    async fn only_the_answer_to_this_request_counts() {
        let (socket, port) = socket().await;
        let answer = tokio::spawn(async move {
            let mut request = [0; 20];
            let (length, from) = socket.recv_from(&mut request).await.unwrap();
            assert_eq!(length, 20, "a Binding request without attributes");
            let mut reply = request;
            // RFC 8489 §5: the class of a success response.
            reply[0] = 0x01;
            reply[19] ^= 1;
            socket.send_to(&reply, from).await.unwrap();
            socket.send_to(b"noise", from).await.unwrap();
            tokio::time::sleep(Duration::from_millis(100)).await;
            reply[19] ^= 1;
            socket.send_to(&reply, from).await.unwrap();
        });
        let reached = server("127.0.0.1", port, PATIENCE).await.unwrap();
        answer.await.unwrap();
        assert!(reached.round_trip >= Duration::from_millis(100));
        assert_eq!(reached.server.port(), port);
    }

    #[tokio::test]
    async fn a_server_that_keeps_binding_to_itself_is_reached_by_its_refusal() {
        let (socket, port) = socket().await;
        let answer = tokio::spawn(async move {
            let mut request = [0; 28];
            loop {
                let (length, from) = socket.recv_from(&mut request).await.unwrap();
                if length == 28 {
                    // RFC 8489 §5: the class of an error response; a body is not looked at.
                    let mut reply = request;
                    (reply[0], reply[1]) = (0x01, 0x13);
                    return socket.send_to(&reply, from).await.unwrap();
                }
            }
        });
        let reached = server("127.0.0.1", port, PATIENCE).await.unwrap();
        answer.await.unwrap();
        assert_eq!(reached.server.port(), port);
    }
}
