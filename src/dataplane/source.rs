//! What a worker's poller watches, as the number that epoll hands back.

/// What the poller may report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// The mailbox.
    Mailbox,
    /// A listener, by its place.
    Listener(u16),
    /// A socket that takes connections, by its place.
    Acceptor(u16),
    /// A socket of DTLS clients, by its place.
    Dtls(u16),
    /// A connection; the generation tells a slot's present one from a former one.
    Connection { slot: u32, generation: u32 },
    /// A peer's TCP connection, the client's that is spliced to it, or a socket that takes such.
    Peer { slot: u32, generation: u32 },
    /// A relay socket; the generation tells a slot's present socket from a former one.
    Relay { slot: u32, generation: u32 },
}

impl Source {
    /// Generations there are before they begin anew.
    pub(crate) const GENERATIONS: u32 = 1 << 30;

    pub(crate) fn token(self) -> u64 {
        match self {
            Self::Mailbox => 0,
            Self::Acceptor(place) => 1 << 32 | u64::from(place),
            Self::Dtls(place) => 2 << 32 | u64::from(place),
            Self::Listener(place) => 3 << 32 | u64::from(place),
            Self::Peer { slot, generation } => 1 << 62 | Self::place(slot, generation),
            Self::Relay { slot, generation } => 2 << 62 | Self::place(slot, generation),
            Self::Connection { slot, generation } => 3 << 62 | Self::place(slot, generation),
        }
    }

    fn place(slot: u32, generation: u32) -> u64 {
        u64::from(generation % Self::GENERATIONS) << 32 | u64::from(slot)
    }

    #[expect(clippy::cast_possible_truncation, reason = "the fields of a token")]
    pub(crate) const fn of(token: u64) -> Self {
        let slot = token as u32;
        let generation = (token >> 32) as u32 % Self::GENERATIONS;
        match (token >> 62, generation) {
            (0, 0) => Self::Mailbox,
            (0, 1) => Self::Acceptor(token as u16),
            (0, 2) => Self::Dtls(token as u16),
            (0, _) => Self::Listener(token as u16),
            (1, _) => Self::Peer { slot, generation },
            (2, _) => Self::Relay { slot, generation },
            (_, _) => Self::Connection { slot, generation },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_says_its_source() {
        for source in [
            Source::Mailbox,
            Source::Listener(0),
            Source::Listener(u16::MAX),
            Source::Acceptor(0),
            Source::Acceptor(u16::MAX),
            Source::Dtls(7),
            Source::Connection {
                slot: 0,
                generation: 0,
            },
            Source::Connection {
                slot: u32::MAX,
                generation: Source::GENERATIONS - 1,
            },
            Source::Peer {
                slot: 0,
                generation: 0,
            },
            Source::Peer {
                slot: u32::MAX,
                generation: Source::GENERATIONS - 1,
            },
            Source::Relay {
                slot: 0,
                generation: 0,
            },
            Source::Relay {
                slot: u32::MAX,
                generation: Source::GENERATIONS - 1,
            },
        ] {
            assert_eq!(Source::of(source.token()), source);
        }
    }
}
