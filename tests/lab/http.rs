//! A GET request, for what the relay shows to operators.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::namespace::Namespace;

/// The body of a successful answer to a GET from inside `namespace`.
pub(crate) fn get(namespace: &Namespace, server: SocketAddr, path: &str) -> io::Result<String> {
    let mut stream = namespace.enter(|| TcpStream::connect(server))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    // HTTP/1.0, so that the body ends with the connection and is never chunked.
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {server}\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .ok_or(io::ErrorKind::InvalidData)?;
    match head.split(' ').nth(1) {
        Some("200") => Ok(body.to_owned()),
        _ => Err(io::Error::other(head.to_owned())),
    }
}
