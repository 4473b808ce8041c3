//! Requests for what the relay shows to operators, and for what it does for platforms.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::namespace::Namespace;

/// The body of a successful answer to a GET from inside `namespace`.
pub(crate) fn get(namespace: &Namespace, server: SocketAddr, path: &str) -> io::Result<String> {
    match ask(namespace, server, &format!("GET {path}"), "", "")? {
        (200, body) => Ok(body),
        (status, body) => Err(io::Error::other(format!("{status} {body}"))),
    }
}

/// The status and body of the answer to a request, `<method> <path>`, from inside `namespace`.
/// Each line of `fields` ends with CRLF.
pub(crate) fn ask(
    namespace: &Namespace,
    server: SocketAddr,
    request: &str,
    fields: &str,
    body: &str,
) -> io::Result<(u16, String)> {
    let mut stream = namespace.enter(|| TcpStream::connect(server))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let length = body.len();
    // HTTP/1.0, so that the body ends with the connection and is never chunked.
    write!(
        stream,
        "{request} HTTP/1.0\r\nHost: {server}\r\n{fields}Content-Length: {length}\r\n\r\n{body}"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .ok_or(io::ErrorKind::InvalidData)?;
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    let status = status.ok_or(io::ErrorKind::InvalidData)?;
    Ok((status, body.to_owned()))
}
