//! Messages over a byte stream (RFC 8489 §6.2.2; RFC 8656 §12.5): ChannelData padded to four
//! bytes on the way out, one whole message at a time on the way in.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::Mutex;
use webrtc_util::{Conn, Error};

use super::{Ending, tame};
use crate::proto::{Border, ChannelData, ChannelRange, MAX_STREAM_MESSAGE, next_border};

/// A connection of messages over a stream.
pub(super) struct Framed<S> {
    reader: Mutex<Reader<S>>,
    writer: Mutex<WriteHalf<S>>,
    here: SocketAddr,
    server: SocketAddr,
    ending: Arc<Ending>,
}

struct Reader<S> {
    stream: ReadHalf<S>,
    /// What has arrived and was not handed out, never longer than a message and a read.
    bytes: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite> Framed<S> {
    pub(super) fn new(
        stream: S,
        here: SocketAddr,
        server: SocketAddr,
        ending: Arc<Ending>,
    ) -> Self {
        let (reader, writer) = tokio::io::split(stream);
        Self {
            reader: Mutex::new(Reader {
                stream: reader,
                bytes: Vec::new(),
            }),
            writer: Mutex::new(writer),
            here,
            server,
            ending,
        }
    }

    /// The same error for the caller, and for whoever asks why it ended.
    fn ended(&self, text: String) -> Error {
        self.ending.because(text.as_str());
        io::Error::new(io::ErrorKind::ConnectionAborted, text).into()
    }
}

impl<S: AsyncRead> Reader<S> {
    /// The next message, without its padding. Cut short anywhere, nothing is lost.
    async fn message(&mut self, room: &mut [u8]) -> Result<usize, String> {
        loop {
            match next_border(&self.bytes, ChannelRange::Rfc8656) {
                Border::Whole { len, padded, .. } => {
                    let fits = room.get_mut(..len).zip(self.bytes.get(..len));
                    let copied = fits.map(|(room, message)| room.copy_from_slice(message));
                    self.bytes.drain(..padded);
                    if copied.is_some() {
                        return Ok(len);
                    }
                }
                Border::NeedMore { .. } => {
                    // A message ends before this limit, or its border would have been found.
                    if self.bytes.len() >= MAX_STREAM_MESSAGE {
                        return Err("the server sends what has no end".to_owned());
                    }
                    match self.stream.read_buf(&mut self.bytes).await {
                        Ok(0) => return Err("the server closed the connection".to_owned()),
                        Ok(_) => {}
                        Err(error) => return Err(broken(&error)),
                    }
                }
                Border::Invalid => return Err(nonsense(&self.bytes)),
            }
        }
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the others say enough themselves"
)]
fn broken(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionReset => "the server reset the connection".to_owned(),
        io::ErrorKind::UnexpectedEof => {
            "the server closed the connection without the TLS alert that announces it".to_owned()
        }
        _ => format!("the connection broke: {}", tame(error)),
    }
}

/// What a server may be that sends this.
fn nonsense(bytes: &[u8]) -> String {
    // RFC 8446 §5.1: an alert or a handshake record, major version 3.
    if matches!(bytes, [0x15 | 0x16, 3, ..]) {
        "the server answers with TLS on this port: write turns: for it".to_owned()
    } else {
        "the server sends what is neither STUN nor ChannelData: is this a TURN port?".to_owned()
    }
}

#[async_trait]
impl<S: AsyncRead + AsyncWrite + Send + 'static> Conn for Framed<S> {
    /// It is.
    async fn connect(&self, _: SocketAddr) -> Result<(), Error> {
        Ok(())
    }

    async fn recv(&self, room: &mut [u8]) -> Result<usize, Error> {
        let message = self.reader.lock().await.message(room).await;
        message.map_err(|reason| self.ended(reason))
    }

    async fn recv_from(&self, room: &mut [u8]) -> Result<(usize, SocketAddr), Error> {
        Ok((self.recv(room).await?, self.server))
    }

    async fn send(&self, message: &[u8]) -> Result<usize, Error> {
        let padded = ChannelData::padded_len(message.len());
        let mut bytes = message.to_vec();
        bytes.resize(padded, 0);
        let mut writer = self.writer.lock().await;
        let written = async {
            writer.write_all(&bytes).await?;
            writer.flush().await
        };
        match written.await {
            Ok(()) => Ok(message.len()),
            Err(error) => Err(self.ended(broken(&error))),
        }
    }

    async fn send_to(&self, message: &[u8], _: SocketAddr) -> Result<usize, Error> {
        self.send(message).await
    }

    fn local_addr(&self) -> Result<SocketAddr, Error> {
        Ok(self.here)
    }

    fn remote_addr(&self) -> Option<SocketAddr> {
        Some(self.server)
    }

    async fn close(&self) -> Result<(), Error> {
        self.writer.lock().await.shutdown().await?;
        Ok(())
    }

    fn as_any(&self) -> &(dyn std::any::Any + Send + Sync) {
        self
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::DuplexStream;

    use super::*;

    fn pair() -> (Framed<DuplexStream>, DuplexStream) {
        let (here, there) = tokio::io::duplex(1 << 20);
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        let framed = Framed::new(here, address, address, Arc::default());
        (framed, there)
    }

    const BINDING: [u8; 20] = [
        1, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12,
    ];
    const CHANNEL: [u8; 9] = [0x40, 0, 0, 5, 1, 2, 3, 4, 5];

    #[tokio::test]
    async fn messages_cut_anywhere_and_glued_together_come_out_whole() {
        let stream = [&BINDING[..], &CHANNEL, &[0; 3], &BINDING].concat();
        for cut in 1..stream.len() {
            let (framed, mut there) = pair();
            let (first, second) = stream.split_at(cut);
            let mut room = [0; 100];
            there.write_all(first).await.unwrap();
            let mut messages = Vec::new();
            let late = async {
                tokio::task::yield_now().await;
                there.write_all(second).await.unwrap();
            };
            let read = async {
                while messages.len() < 3 {
                    let length = framed.recv(&mut room).await.unwrap();
                    messages.push(room[..length].to_vec());
                }
            };
            tokio::join!(read, late);
            assert_eq!(messages, [&BINDING[..], &CHANNEL, &BINDING], "cut at {cut}");
        }
    }

    /// RFC 8656 §12.5
    #[tokio::test]
    async fn channel_data_leaves_padded_to_four_bytes() {
        let (framed, mut there) = pair();
        framed.send(&CHANNEL).await.unwrap();
        framed.send(&BINDING).await.unwrap();
        let mut sent = [0; 32];
        there.read_exact(&mut sent).await.unwrap();
        assert_eq!(sent[..], [&CHANNEL[..], &[0; 3], &BINDING].concat());
    }

    #[tokio::test]
    async fn why_it_ended_is_known_to_whoever_waits() {
        for (said, word) in [
            (&[0x15, 3, 3, 0, 2, 2, 10][..], "turns:"),
            (b"\xff\xff\xff\xff", "neither STUN"),
            (&[], "closed"),
        ] {
            let (framed, mut there) = pair();
            there.write_all(said).await.unwrap();
            drop(there);
            assert!(framed.recv(&mut [0; 100]).await.is_err());
            let reason = framed.ending.reached().await;
            assert!(reason.contains(word), "{reason}");
        }
    }
}
