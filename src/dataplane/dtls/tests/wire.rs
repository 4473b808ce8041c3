//! Independent clients over a real socket: `openssl s_client` and coturn's `turnutils_uclient`.

use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::net::UdpSocket;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::harness::plain_context;
use crate::dataplane::dtls::{Counts, Dtls, Idle, Limits};
use crate::turn::{ClientAddr, Tick};

/// A server that echoes, on a socket and a thread of its own, until it is asked what it counted.
struct Echo {
    port: u16,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Counts>,
}

impl Echo {
    fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(20)))
            .unwrap();
        let port = socket.local_addr().unwrap().port();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let began = Instant::now();
            let now = || Tick::from_nanos(0).plus(began.elapsed());
            let mut dtls = Dtls::new(plain_context(), [9; 32], Limits::default());
            let mut out = |to: ClientAddr, datagram: &[u8]| {
                socket.send_to(datagram, to.expose()).unwrap();
            };
            let (mut datagram, mut plain) = ([0; 2_048], [0; 2_048]);
            while !stopped.load(Ordering::Relaxed) {
                if let Ok((len, from)) = socket.recv_from(&mut datagram) {
                    let client = ClientAddr::new(from);
                    dtls.receive(client, &datagram[..len], now(), &mut out);
                    while let Some(len) = dtls.read(&mut plain, &mut out) {
                        dtls.send(client, &[&plain[..len]], &mut out).unwrap();
                    }
                }
                dtls.handle_timeout(now(), &mut |_| Idle::Stay, &mut out);
                while dtls.take_closed().is_some() {}
            }
            *dtls.counts()
        });
        Self { port, stop, thread }
    }

    fn stop(self) -> Counts {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// A child that does not outlive its test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// Reads lines until one holds `wanted`; all of them, if none does.
fn read_until(lines: &mut impl BufRead, wanted: &str) -> String {
    let mut read = String::new();
    while !read.contains(wanted) && lines.read_line(&mut read).unwrap() > 0 {}
    read
}

#[test]
fn s_client_shakes_hands_is_echoed_and_may_not_renegotiate() {
    let echo = Echo::start();
    let mut client = Command::new("openssl")
        .args(["s_client", "-dtls1_2", "-connect"])
        .arg(format!("127.0.0.1:{}", echo.port))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map(Killed)
        .unwrap();
    let mut input = client.0.stdin.take().unwrap();
    let mut output = BufReader::new(client.0.stdout.take().unwrap());
    let shown = read_until(&mut output, "Extended master secret");
    assert!(shown.contains("New, TLSv1.2, Cipher is ECDHE"), "{shown}");
    input.write_all(b"a line\n").unwrap();
    let shown = read_until(&mut output, "a line");
    assert!(shown.contains("a line"), "{shown}");
    // s_client's command to renegotiate, which ends it when the server does not.
    input.write_all(b"R\n").unwrap();
    let mut errors = String::new();
    let mut stderr = client.0.stderr.take().unwrap();
    stderr.read_to_string(&mut errors).unwrap();
    assert!(errors.contains("no renegotiation"), "{errors}");
    drop(input);
    drop(client);
    let counts = echo.stop();
    assert_eq!((counts.begun, counts.finished, counts.failed), (1, 1, 0));
}

/// turnutils_uclient chooses DTLS 1.0 or 1.2 by chance for every connection, and chooses anew when
/// it gets an alert.
#[test]
#[ignore = "needs coturn"]
fn uclient_finds_the_version_that_is_spoken() {
    let echo = Echo::start();
    let client = Command::new("turnutils_uclient")
        .args([
            "-S", "-n", "1", "-m", "4", "-y", "-u", "user", "-w", "password", "-p",
        ])
        .arg(echo.port.to_string())
        .arg("127.0.0.1")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map(Killed)
        .unwrap();
    // It goes on to ask an echo for an allocation, which is not what is shown here.
    std::thread::sleep(Duration::from_secs(10));
    drop(client);
    let counts = echo.stop();
    assert!(counts.finished > 0, "{counts:?}");
    assert_eq!(counts.failed, 0);
}
