//! The ways by which a browser is told to reach the relay.

use crate::lab::SERVICE;
use crate::lab::certificate::NAME;
use crate::lab::relay::{PORT, TLS_PORT};

/// Between browser and relay.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Via {
    Udp,
    Tcp,
    Tls,
}

impl Via {
    pub(crate) const ALL: [Self; 3] = [Self::Udp, Self::Tcp, Self::Tls];

    /// As a candidate's `relayProtocol` says it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
        }
    }

    /// The port of the relay.
    pub(crate) fn port(self) -> u16 {
        match self {
            Self::Udp | Self::Tcp => PORT,
            Self::Tls => TLS_PORT,
        }
    }

    fn url(self, host: &str) -> String {
        match self {
            Self::Udp => format!("turn:{host}:{PORT}?transport=udp"),
            Self::Tcp => format!("turn:{host}:{PORT}?transport=tcp"),
            Self::Tls => format!("turns:{host}:{TLS_PORT}?transport=tcp"),
        }
    }
}

/// The TURN URLs of one party.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Urls {
    /// This way only, by both address families.
    Only(Via),
    /// Three URLs, each another way, as an operator hands them out.
    Three,
}

impl Urls {
    /// The ways that they name.
    pub(crate) fn ways(self) -> Vec<Via> {
        match self {
            Self::Only(via) => vec![via],
            Self::Three => Via::ALL.to_vec(),
        }
    }

    pub(crate) fn list(self) -> Vec<String> {
        match self {
            // A certificate is checked against the name; which family that is, the browser chooses.
            Self::Only(Via::Tls) => vec![Via::Tls.url(NAME)],
            Self::Only(via) => vec![
                via.url(&SERVICE.v4.to_string()),
                via.url(&format!("[{}]", SERVICE.v6)),
            ],
            Self::Three => Via::ALL.map(|via| via.url(NAME)).to_vec(),
        }
    }
}
