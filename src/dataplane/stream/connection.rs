//! One client's connection: plain or within TLS, read and written without waiting. It knows its
//! bytes, not what they mean, and holds no more of them than one message that is not whole yet and
//! one queue.

use std::fmt;
use std::io::{self, Read, Write};
use std::sync::Arc;

use rustls::ServerConnection;

use crate::dataplane::stream::queue::{Pushed, Queue, Worth};
use crate::dataplane::sys::{Interest, RecvBatch, TcpStream};
use crate::turn::{FiveTuple, Tick};

/// About how much is given to TLS at once.
const SHARE: usize = 16 * 1_024;

/// rustls asks the connection for at least so much at once; what comes shorter was all there was.
const READ: usize = 4_096;

/// How often a connection is read from before something is decrypted.
const READS: usize = 8;

/// What lies between the client's messages and the connection.
pub(in crate::dataplane) enum Layer {
    Plain,
    Tls(Box<ServerConnection>),
}

/// A connection whose client and transport are known.
pub(crate) struct Connection {
    stream: TcpStream,
    layer: Layer,
    pub(crate) tuple: FiveTuple,
    /// The beginning of a message.
    partial: Vec<u8>,
    queue: Queue,
    /// What the poller waits for.
    pub(crate) interest: Interest,
    /// When it was accepted, or had its last whole message.
    pub(crate) heard: Tick,
    /// Since when the message in `partial` is not whole.
    pub(crate) begun: Option<Tick>,
    /// Whether it waits in the list of those that have something to be written.
    pub(crate) dirty: bool,
    /// Whether it waits for the next turn.
    pub(crate) delayed: bool,
    /// It can no longer keep its promises, and is to be closed.
    pub(crate) broken: bool,
}

/// What a read came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// Bytes in this slot of the batch, so many, and whether more may wait.
    Slot {
        index: usize,
        len: usize,
        more: bool,
    },
    /// Nothing now.
    Nothing,
    /// The client is gone, or broke the protocol.
    Closed,
}

impl Connection {
    /// A plain connection whose first bytes are `seen`.
    pub(crate) const fn plain(
        stream: TcpStream,
        tuple: FiveTuple,
        seen: Vec<u8>,
        now: Tick,
    ) -> Self {
        Self::new(stream, Layer::Plain, tuple, seen, now)
    }

    /// A connection within TLS whose first bytes are `seen`.
    ///
    /// # Errors
    /// If rustls cannot begin.
    pub(crate) fn tls(
        stream: TcpStream,
        config: Arc<rustls::ServerConfig>,
        tuple: FiveTuple,
        mut seen: &[u8],
        now: Tick,
    ) -> io::Result<Self> {
        let mut tls = ServerConnection::new(config).map_err(io::Error::other)?;
        // The queue is the limit; of a message that it gives up, all is taken.
        tls.set_buffer_limit(None);
        while !seen.is_empty() {
            tls.read_tls(&mut seen)?;
        }
        let layer = Layer::Tls(Box::new(tls));
        Ok(Self::new(stream, layer, tuple, Vec::new(), now))
    }

    const fn new(
        stream: TcpStream,
        layer: Layer,
        tuple: FiveTuple,
        partial: Vec<u8>,
        now: Tick,
    ) -> Self {
        Self {
            stream,
            layer,
            tuple,
            partial,
            queue: Queue::new(),
            interest: Interest::Read,
            heard: now,
            begun: None,
            dirty: false,
            delayed: false,
            broken: false,
        }
    }

    pub(crate) const fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Whether its TLS handshake goes on.
    pub(crate) fn is_opening(&self) -> bool {
        match &self.layer {
            Layer::Plain => false,
            Layer::Tls(tls) => tls.is_handshaking(),
        }
    }

    /// Whether TLS has decrypted more than was read. No socket reports that.
    pub(crate) fn has_decrypted(&mut self) -> bool {
        match &mut self.layer {
            Layer::Plain => false,
            Layer::Tls(tls) => tls
                .process_new_packets()
                .is_ok_and(|state| state.plaintext_bytes_to_read() > 0),
        }
    }

    /// Reads what has come, behind the beginning of a message that came before.
    pub(crate) fn read(&mut self, batch: &mut RecvBatch) -> Taken {
        let Self {
            stream,
            layer,
            partial,
            ..
        } = self;
        let mut came = Came::Nothing;
        let staged = batch.stage(|room| {
            let (kept, free) = room
                .split_at_mut_checked(partial.len())
                .ok_or(io::ErrorKind::InvalidData)?;
            kept.copy_from_slice(partial);
            came = match layer {
                Layer::Plain => plain(stream, free)?,
                Layer::Tls(tls) => decrypted(tls, stream, free)?,
            };
            // What was kept stays where it is as long as nothing is added to it.
            Ok(match came {
                Came::Bytes { len, .. } => kept.len() + len,
                Came::Nothing | Came::End => 0,
            })
        });
        match (staged, came) {
            (Ok((index, len)), Came::Bytes { more, .. }) => {
                partial.clear();
                Taken::Slot { index, len, more }
            }
            (Ok(_), Came::Nothing) => Taken::Nothing,
            (Err(error), _) if error.kind() == io::ErrorKind::OutOfMemory => Taken::Nothing,
            (Ok(_), Came::End) | (Err(_), _) => Taken::Closed,
        }
    }

    /// Takes what was kept as if it had just come.
    pub(crate) fn read_kept(&mut self, batch: &mut RecvBatch) -> Taken {
        if self.partial.is_empty() {
            return Taken::Nothing;
        }
        let kept = std::mem::take(&mut self.partial);
        let staged = batch.stage(|room| {
            let place = room
                .get_mut(..kept.len())
                .ok_or(io::ErrorKind::InvalidData)?;
            place.copy_from_slice(&kept);
            Ok(kept.len())
        });
        match staged {
            Ok((_, 0)) => Taken::Nothing,
            Ok((index, len)) => Taken::Slot {
                index,
                len,
                more: true,
            },
            Err(_) => Taken::Closed,
        }
    }

    /// Keeps the beginning of a message until the rest comes.
    pub(crate) fn keep(&mut self, bytes: &[u8], now: Tick) {
        self.partial.extend_from_slice(bytes);
        self.begun = self.begun.or(Some(now));
    }

    /// Whole messages came, and nothing is left over unless [`keep`](Self::keep) says so.
    pub(crate) fn progressed(&mut self, now: Tick) {
        self.heard = now;
        self.begun = None;
    }

    /// Gives back memory that was not needed lately; to be called now and then.
    pub(crate) fn rest(&mut self) {
        if self.partial.is_empty() {
            self.partial = Vec::new();
        }
        self.queue.rest();
    }

    /// Adds a message to what will be written.
    pub(crate) fn push(&mut self, parts: &[&[u8]], worth: Worth, now: Tick) -> Pushed {
        let pushed = self.queue.push(parts, worth, now);
        self.broken |= !pushed.taken && worth == Worth::Answer;
        pushed
    }

    /// Drops packets that have waited too long; says how many.
    pub(crate) fn drop_stale(&mut self, now: Tick) -> u64 {
        self.queue.drop_stale(now)
    }

    /// Writes as much as the connection takes; says what to wait for next.
    ///
    /// # Errors
    /// When the connection is gone.
    pub(crate) fn flush(&mut self) -> io::Result<Interest> {
        let written = match &mut self.layer {
            Layer::Plain => write_plain(&self.stream, &mut self.queue),
            Layer::Tls(tls) => write_encrypted(tls, &self.stream, &mut self.queue),
        };
        match written {
            Ok(()) => Ok(Interest::Read),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Interest::ReadAndWrite),
            Err(error) => Err(error),
        }
    }

    /// The connection without its messages, and what of them has not been written.
    pub(in crate::dataplane) fn into_raw(self) -> (TcpStream, Layer, Vec<u8>) {
        let unsent = self.queue.bytes().to_vec();
        (self.stream, self.layer, unsent)
    }

    /// Has it begin with `rest`, which was read by another worker, as `tuple`.
    pub(super) fn begin_anew(&mut self, tuple: FiveTuple, rest: Vec<u8>) {
        self.tuple = tuple;
        self.partial = rest;
        self.begun = None;
        self.interest = Interest::Read;
        self.dirty = false;
    }

    /// Says goodbye as far as that goes without waiting.
    pub(crate) fn part(&mut self) {
        if let Layer::Tls(tls) = &mut self.layer {
            tls.send_close_notify();
        }
        // Whoever is gone hears no goodbye.
        self.flush().ok();
        self.stream.finish().ok();
    }
}

/// What came by a connection.
#[derive(Clone, Copy)]
pub(in crate::dataplane) enum Came {
    /// So many; the last system call may have left some.
    Bytes {
        len: usize,
        more: bool,
    },
    Nothing,
    End,
}

/// Reads what is there.
pub(in crate::dataplane) fn plain(mut stream: &TcpStream, free: &mut [u8]) -> io::Result<Came> {
    loop {
        return match stream.read(free) {
            Ok(0) => Ok(Came::End),
            Ok(len) => Ok(Came::Bytes {
                len,
                more: len == free.len(),
            }),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Came::Nothing),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => Err(error),
        };
    }
}

/// Reads from the connection until there is something within TLS, or nothing more comes.
pub(in crate::dataplane) fn decrypted(
    tls: &mut ServerConnection,
    mut stream: &TcpStream,
    free: &mut [u8],
) -> io::Result<Came> {
    let mut more = true;
    // Records that hold nothing for us may follow each other without end; what is left in the
    // socket is reported again.
    for round in 0..=READS {
        let state = match tls.process_new_packets() {
            Ok(state) => state,
            Err(error) => {
                // The alert that says why; whoever does not take it gets none.
                tls.write_tls(&mut stream).ok();
                return Err(io::Error::other(error));
            }
        };
        if state.plaintext_bytes_to_read() > 0 {
            let len = read_all(tls, free)?;
            let more = more || len == free.len();
            return Ok(Came::Bytes { len, more });
        }
        if state.peer_has_closed() {
            return Ok(Came::End);
        }
        if round == READS {
            break;
        }
        match tls.read_tls(&mut stream) {
            Ok(0) => return Ok(Came::End),
            Ok(len) => more = len >= READ,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Came::Nothing),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Came::Nothing)
}

/// Takes out what was decrypted, as far as there is room.
fn read_all(tls: &mut ServerConnection, free: &mut [u8]) -> io::Result<usize> {
    let mut len = 0;
    while let Some(room) = free.get_mut(len..).filter(|room| !room.is_empty()) {
        match tls.reader().read(room) {
            Ok(0) => break,
            Ok(more) => len += more,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    Ok(len)
}

fn write_plain(mut stream: &TcpStream, queue: &mut Queue) -> io::Result<()> {
    while !queue.is_empty() {
        match stream.write(queue.bytes()) {
            Ok(len) => queue.sent(len),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// TLS gets a share at a time, and the next only once that is out: what has been encrypted cannot be
/// dropped any more. Each message is a record of its own: there are clients that take a record for a
/// message and lose what stands behind (coturn's `turnutils_uclient` 4.6.1).
fn write_encrypted(
    tls: &mut ServerConnection,
    mut stream: &TcpStream,
    queue: &mut Queue,
) -> io::Result<()> {
    loop {
        while tls.wants_write() {
            match tls.write_tls(&mut stream) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if queue.is_empty() || tls.is_handshaking() {
            return Ok(());
        }
        let mut share = 0;
        while share < SHARE
            && let Some(message) = queue.first()
        {
            tls.writer().write_all(message)?;
            let len = message.len();
            queue.sent(len);
            share += len;
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("tuple", &self.tuple)
            .field("queue", &self.queue)
            .finish_non_exhaustive()
    }
}
