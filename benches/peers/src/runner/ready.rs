//! Waits for a server: it is ready when it answers a Binding request.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use taciturn::proto::{Class, Message, Method, TransactionId, Writer};

const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn wait(server: SocketAddr) -> Result<()> {
    let mut request = [0; 20];
    let id = TransactionId::new([1; 12]);
    let length = Writer::new(&mut request, Class::Request, Method::BINDING, id)?.finish();
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(Duration::from_millis(50)))?;
    let began = Instant::now();
    let mut answer = [0; 1500];
    while began.elapsed() < PATIENCE {
        // Until somebody listens, both may be refused.
        socket.send(&request[..length]).ok();
        match socket.recv(&mut answer) {
            Ok(length) if Message::decode(&answer[..length]).is_ok() => return Ok(()),
            _ => std::thread::sleep(Duration::from_millis(20)),
        }
    }
    bail!("no answer within {} s", PATIENCE.as_secs())
}
