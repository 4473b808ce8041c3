//! Two allocations and the packets between them. The client is the `turn` crate's, which knows
//! nothing of this server's code; every step has a deadline, since that client has none that an
//! operator would wait for.

use std::cell::RefCell;
use std::fmt::Display;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use indicatif::ProgressBar;
use secrecy::ExposeSecret;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use turn::client::{Client, ClientConfig};
use webrtc_util::Conn;

use super::Pace;
use super::link::{Ending, Way};
use super::tally::{Kind, Packets, Tally, Totals};
use crate::daemon::ice::Credential;

/// How long each step may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long after the last packet one may still return.
const STRAGGLERS: Duration = Duration::from_secs(2);
/// Time between attempts to be heard.
const HELLO: Duration = Duration::from_millis(100);
/// The largest payload we look at.
const MAX_PACKET: usize = 1500;
/// The client's first wait for an answer where nothing is sent twice (RFC 8489 §6.2.2), longer than
/// anybody here waits.
const RELIABLE_RTO_MS: u16 = 32_000;

/// What was relayed, and between which addresses.
#[derive(Debug)]
pub(super) struct Relayed {
    /// How long each allocation took.
    pub(super) allocated: [Duration; 2],
    pub(super) addresses: [SocketAddr; 2],
    pub(super) totals: Totals,
}

/// Why nothing was relayed.
#[derive(Debug)]
pub(super) struct Stopped {
    /// How long each allocation took, if there were two.
    pub(super) allocated: Option<[Duration; 2]>,
    pub(super) text: String,
}

impl From<String> for Stopped {
    fn from(text: String) -> Self {
        Self {
            allocated: None,
            text,
        }
    }
}

/// Allocates twice on the server and sends packets from one allocation to the other and back.
///
/// # Errors
/// With what an operator should know, when it does not come to that.
pub(super) async fn exchange(
    way: &Way,
    credential: &Credential,
    pace: Pace,
    progress: &ProgressBar,
) -> Result<Relayed, Stopped> {
    let (first, second) = (
        Caller::new(way, credential).await?,
        Caller::new(way, credential).await?,
    );
    let began = Instant::now();
    let here = first.does("the first allocation", first.client.allocate());
    let here = here.await?;
    let between = Instant::now();
    let there = second.does("the second allocation", second.client.allocate());
    let there = there.await?;
    let allocated = [between - began, between.elapsed()];
    let address = |conn: &dyn Conn| conn.local_addr().map_err(|error| explain("it", &error));
    let addresses = [address(&here)?, address(&there)?];
    let mut token = [0; 16];
    getrandom::fill(&mut token).map_err(|error| explain("the packets", &error))?;
    let packets = Packets::new(token);
    let ends = [
        End::new(&first, &here, addresses[1]),
        End::new(&second, &there, addresses[0]),
    ];

    let outcome = match meet(&ends, packets).await {
        Ok(()) => Ok(Relayed {
            allocated,
            addresses,
            totals: ping(&ends, packets, pace, progress).await,
        }),
        Err(text) => Err(Stopped {
            allocated: Some(allocated),
            text,
        }),
    };
    // The server need not keep allocations that nobody refreshes.
    for end in &ends {
        if let Ok(Err(error)) | Err(error) = timeout(PATIENCE, end.conn.close())
            .await
            .map(|closed| closed.map_err(|error| error.to_string()))
            .map_err(|elapsed| elapsed.to_string())
        {
            tracing::debug!(%error, "an allocation was not freed");
        }
    }
    for caller in [first, second] {
        caller.hang_up().await;
    }
    outcome
}

/// A client and the connection that it speaks on.
struct Caller {
    client: Client,
    conn: Arc<dyn Conn + Send + Sync>,
    ending: Arc<Ending>,
}

impl Caller {
    async fn new(way: &Way, credential: &Credential) -> Result<Self, String> {
        let link = way.open(PATIENCE).await.map_err(|failure| {
            format!("one more connection was not to be had: {}", failure.text)
        })?;
        let reliable = link.connected.is_some();
        let client = Client::new(ClientConfig {
            stun_serv_addr: String::new(),
            turn_serv_addr: way.server.to_string(),
            username: credential.username.clone(),
            password: credential.password.expose_secret().to_owned(),
            realm: String::new(),
            software: String::new(),
            rto_in_ms: if reliable { RELIABLE_RTO_MS } else { 0 },
            conn: Arc::clone(&link.conn),
            vnet: None,
        });
        let client = client.await.map_err(|error| explain("a client", &error))?;
        let listening = client.listen().await;
        listening.map_err(|error| explain("a client", &error))?;
        Ok(Self {
            client,
            conn: link.conn,
            ending: link.ending,
        })
    }

    /// Waits for an outcome as long as an operator would, and no longer than the connection is.
    async fn does<T, E: Display>(
        &self,
        what: &str,
        future: impl Future<Output = Result<T, E>>,
    ) -> Result<T, String> {
        tokio::select! {
            biased;
            outcome = timeout(PATIENCE, future) => match outcome {
                Ok(Ok(value)) => Ok(value),
                Ok(Err(error)) => Err(explain(what, &error)),
                Err(_) => Err(format!("no answer to {what} within 5 s")),
            },
            reason = self.ending.reached() => Err(format!("{what} failed: {reason}")),
        }
    }

    async fn hang_up(self) {
        // Whatever comes of it, nobody uses the connection any more.
        self.client.close().await.ok();
        timeout(PATIENCE, self.conn.close()).await.ok();
    }
}

/// One allocation, and the relayed address of the other.
struct End<'a> {
    caller: &'a Caller,
    conn: &'a (dyn Conn + Send + Sync),
    other: SocketAddr,
}

impl<'a> End<'a> {
    fn new(caller: &'a Caller, conn: &'a (dyn Conn + Send + Sync), other: SocketAddr) -> Self {
        Self {
            caller,
            conn,
            other,
        }
    }

    async fn send(&self, bytes: &[u8]) -> Result<(), String> {
        let sent = self.conn.send_to(bytes, self.other);
        let sent = self.caller.does("a permission or a packet", sent);
        sent.await.map(|_| ())
    }

    /// The next of our packets that comes from the other's relayed address; anything else is not
    /// what was to be relayed. Never ends when the client is closed.
    async fn receive(&self, packets: Packets) -> (Kind, u32) {
        let mut bytes = [0; MAX_PACKET];
        loop {
            let Ok((length, from)) = self.conn.recv_from(&mut bytes).await else {
                return std::future::pending().await;
            };
            let packet = packets.read(bytes.get(..length).unwrap_or_default());
            if let Some(packet) = packet.filter(|_| from == self.other) {
                return packet;
            }
        }
    }
}

/// Makes each permit the other and bind a channel, and waits until both have heard.
///
/// # Errors
/// When they do not.
async fn meet(ends: &[End<'_>; 2], packets: Packets) -> Result<(), String> {
    let hello = packets.write(Kind::Hello, 0);
    let [here, there] = ends;
    let mut heard = [false; 2];
    let deadline = Instant::now() + PATIENCE;
    while heard != [true; 2] {
        if Instant::now() > deadline {
            let who = match heard {
                [false, false] => "neither allocation hears the other",
                [true, _] => "the second allocation does not hear the first",
                [false, true] => "the first allocation does not hear the second",
            };
            return Err(format!(
                "{who}, though each permits the other's relayed address. Can this server reach \
                 its own relay addresses, and does its policy let its allocations meet?"
            ));
        }
        here.send(&hello).await?;
        there.send(&hello).await?;
        let pause = sleep(HELLO);
        tokio::pin!(pause);
        while heard != [true; 2] {
            tokio::select! {
                _ = here.receive(packets) => heard[0] = true,
                _ = there.receive(packets) => heard[1] = true,
                () = &mut pause => break,
            }
        }
    }
    // The client holds back what follows a ChannelBind until that is answered: the packets to
    // come shall not wait for it.
    here.send(&hello).await?;
    there.send(&hello).await
}

/// Sends at an even pace; what arrives at the second end is returned from there.
async fn ping(ends: &[End<'_>; 2], packets: Packets, pace: Pace, progress: &ProgressBar) -> Totals {
    let [here, there] = ends;
    let tally = RefCell::new(Tally::default());
    let sending = async {
        let mut ticks = interval(pace.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for _ in 0..pace.packets {
            ticks.tick().await;
            let number = tally.borrow_mut().send(Instant::now().into_std());
            // What cannot be sent does not arrive, and is counted as that.
            if here.send(&packets.write(Kind::Ping, number)).await.is_err() {
                break;
            }
        }
        sleep(STRAGGLERS).await;
    };
    let returning = async {
        loop {
            let (kind, number) = there.receive(packets).await;
            if kind == Kind::Ping {
                tally.borrow_mut().there(number);
                // As above.
                if there
                    .send(&packets.write(Kind::Pong, number))
                    .await
                    .is_err()
                {
                    continue;
                }
            }
        }
    };
    let receiving = async {
        loop {
            let (kind, number) = here.receive(packets).await;
            if kind == Kind::Pong {
                let at = Instant::now().into_std();
                tally.borrow_mut().back(number, at);
                let returned = tally.borrow().returned() as u64;
                progress.set_position(returned);
                if returned == u64::from(pace.packets) {
                    return;
                }
            }
        }
    };
    tokio::select! {
        () = sending => {}
        () = receiving => {}
        () = returning => {}
    }
    tally.into_inner().totals()
}

/// An error in an operator's words. It may hold a server's text, which is not trusted.
fn explain(what: &str, error: &impl Display) -> String {
    let error: String = error.to_string().escape_debug().take(200).collect();
    let code = error
        .split_once("(error ")
        .and_then(|(_, rest)| rest.get(..3))
        .unwrap_or_default();
    let hint = match code {
        "401" => {
            "the credential is refused: is it minted with this server's secret, has it expired, \
             and do both clocks agree?"
        }
        "403" => "the server's policy forbids it",
        "440" => "the server has no relay address of the family asked for",
        "486" => "the user may hold no more allocations, and the probe needs two",
        "508" => "the server has no relay port left",
        _ => return format!("{what} failed: {error}"),
    };
    format!("{what} failed: {hint} ({error})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_code_is_explained() {
        let error = "Allocate error response (error 401: Unauthorized)";
        let text = explain("the first allocation", &error);
        assert!(text.contains("the credential is refused"), "{text}");
        assert!(text.contains("401: Unauthorized"), "{text}");
    }

    #[test]
    fn a_servers_text_is_neither_long_nor_alive() {
        let error = format!("\u{1b}[2J\n{}", "x".repeat(10_000));
        let text = explain("it", &error);
        assert!(
            text.len() < 300 && !text.contains(['\u{1b}', '\n']),
            "{text}"
        );
        assert!(explain("it", &"(error é)").contains('é'));
    }
}
