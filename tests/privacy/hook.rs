//! The receiver of webhooks: it takes whatever is posted and keeps every byte.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::lab::namespace::Namespace;

/// Where it listens, in the relay's namespace.
pub(crate) const ADDRESS: ([u8; 4], u16) = ([127, 0, 0, 1], 8181);

/// A receiver that lives as long as the test's process.
pub(crate) struct Hook(Arc<Mutex<Vec<u8>>>);

impl Hook {
    pub(crate) fn open(relay: &Namespace) -> Self {
        let bind = || TcpListener::bind(std::net::SocketAddr::from(ADDRESS)).unwrap();
        let listener = relay.enter(bind);
        let posted = Arc::<Mutex<Vec<u8>>>::default();
        let kept = Arc::clone(&posted);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, kept) = (stream.unwrap(), Arc::clone(&kept));
                // Connections are kept open by who posts.
                thread::spawn(move || serve(stream, &kept));
            }
        });
        Self(posted)
    }

    /// All that was posted since it was asked before.
    pub(crate) fn taken(&self) -> Vec<u8> {
        std::mem::take(&mut self.0.lock().unwrap())
    }

    /// Whether this was posted since.
    pub(crate) fn has(&self, text: &str) -> bool {
        let posted = self.0.lock().unwrap();
        String::from_utf8_lossy(&posted).contains(text)
    }
}

fn serve(stream: TcpStream, kept: &Mutex<Vec<u8>>) {
    let mut stream = BufReader::new(stream);
    while let Some(post) = read(&mut stream) {
        kept.lock().unwrap().extend(post);
        let answer = b"HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n";
        if stream.get_mut().write_all(answer).is_err() {
            return;
        }
    }
}

/// A request, head and body.
fn read(stream: &mut BufReader<TcpStream>) -> Option<Vec<u8>> {
    let (mut post, mut length) = (Vec::new(), 0);
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).ok()? == 0 {
            return None;
        }
        post.extend(line.as_bytes());
        if line == "\r\n" {
            break;
        }
        let line = line.to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    let head = post.len();
    post.resize(head + length, 0);
    stream.read_exact(&mut post[head..]).ok()?;
    Some(post)
}
