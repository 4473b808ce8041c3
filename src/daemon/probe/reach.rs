//! Whether a server answers at all: a STUN Binding request (RFC 8489 §2) before anything else,
//! so that an operator learns whether to look at the network or at the credentials. What address
//! the answer says we have is not looked at.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout, timeout_at};

use crate::proto::{Class, HEADER_LEN, Message, Method, TransactionId, Writer};

/// How long a server has to answer, and a name to be found.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// The first wait for an answer, RFC 8489 §6.2.1; each is twice the one before.
const FIRST_WAIT: Duration = Duration::from_millis(500);

/// A server that answered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reached {
    /// Where.
    pub(super) server: SocketAddr,
    /// How long it took.
    pub(super) round_trip: Duration,
}

/// The first address of `host` that answers, or why none does.
pub(super) async fn server(host: &str, port: u16, patience: Duration) -> Result<Reached, String> {
    let found = timeout(patience, tokio::net::lookup_host((host, port))).await;
    let addresses: Vec<SocketAddr> = match found {
        Ok(Ok(addresses)) => addresses.collect(),
        Ok(Err(error)) => return Err(format!("the name {host} is not found: {error}")),
        Err(_) => return Err(format!("the name {host} is not found within {patience:?}")),
    };
    let mut failures = Vec::new();
    for address in addresses.into_iter().take(4) {
        match binding(address, patience).await {
            Ok(round_trip) => {
                return Ok(Reached {
                    server: address,
                    round_trip,
                });
            }
            Err(error) => failures.push(explain(address, patience, &error)),
        }
    }
    match failures.as_slice() {
        [] => Err(format!("the name {host} has no address")),
        failures => Err(failures.join("; ")),
    }
}

fn explain(address: SocketAddr, patience: Duration, error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::ConnectionRefused {
        format!(
            "{address} refused: nothing listens on that UDP port. Is the server running, and is \
             this its port?"
        )
    } else if error.kind() == io::ErrorKind::TimedOut {
        format!(
            "{address} did not answer a STUN Binding request within {patience:?}. Is the server \
             running, and does every firewall between let UDP to port {} through?",
            address.port()
        )
    } else {
        format!("{address} cannot be reached: {error}")
    }
}

async fn binding(server: SocketAddr, patience: Duration) -> io::Result<Duration> {
    let any: IpAddr = if server.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    // A connected socket hears of ICMP port unreachable.
    socket.connect(server).await?;
    let mut id = [0; 12];
    getrandom::fill(&mut id)?;
    let id = TransactionId::new(id);
    let mut request = [0; HEADER_LEN];
    let length = Writer::new(&mut request, Class::Request, Method::BINDING, id)
        .map_err(|_| io::ErrorKind::OutOfMemory)?
        .finish();

    let deadline = Instant::now() + patience;
    let mut wait = FIRST_WAIT;
    while Instant::now() < deadline {
        let sent = Instant::now();
        socket.send(&request[..length]).await?;
        let until = deadline.min(sent + wait);
        if let Ok(answered) = timeout_at(until, answer(&socket, id)).await {
            answered?;
            return Ok(sent.elapsed());
        }
        wait *= 2;
    }
    Err(io::ErrorKind::TimedOut.into())
}

/// Waits for the answer to this request, whatever else arrives.
async fn answer(socket: &UdpSocket, id: TransactionId) -> io::Result<()> {
    let mut bytes = [0; 1500];
    loop {
        let length = socket.recv(&mut bytes).await?;
        let ours = Message::decode(&bytes[..length]).is_ok_and(|message| {
            message.transaction_id() == id && message.class() == Class::Success
        });
        if ours {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
