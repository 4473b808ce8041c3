//! A build without the feature `dtls` has no DTLS clients; configuration refuses their listeners.
#![expect(
    clippy::needless_pass_by_ref_mut,
    clippy::unnecessary_wraps,
    reason = "the signatures are those of `sessions.rs`"
)]

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;

use crate::dataplane::surroundings::Surroundings;
use crate::dataplane::sys::UdpSocket;
use crate::dataplane::tls::TlsKeys;
use crate::turn::stats::Counters;
use crate::turn::{FiveTuple, ListenerId, Tick};

/// A socket that nobody reads.
#[derive(Debug)]
#[expect(dead_code, reason = "there is none in this build")]
pub(crate) struct DtlsSocket {
    pub(crate) socket: UdpSocket,
    pub(crate) place: u16,
}

/// No sessions.
#[derive(Debug)]
pub(crate) struct Sessions;

impl Sessions {
    pub(crate) fn new(
        sockets: Vec<DtlsSocket>,
        _: Option<Arc<TlsKeys>>,
        _: Arc<Counters>,
        _: impl FnMut() -> std::io::Result<[u8; 32]>,
    ) -> std::io::Result<Self> {
        if sockets.is_empty() {
            Ok(Self)
        } else {
            Err(std::io::ErrorKind::Unsupported.into())
        }
    }

    pub(crate) fn listening(&self) -> impl Iterator<Item = (ListenerId, SocketAddr)> + '_ {
        std::iter::empty()
    }

    pub(crate) const fn mark(&mut self, _: u8) {}

    pub(crate) const fn watch(&self, _: &Surroundings) -> std::io::Result<()> {
        Ok(())
    }

    pub(crate) const fn fill(&mut self, _: u16) -> Range<usize> {
        0..0
    }

    pub(crate) fn datagrams(&self, _: usize) -> impl Iterator<Item = Range<usize>> + use<> {
        std::iter::empty()
    }

    pub(crate) const fn receive(
        &mut self,
        _: u16,
        _: usize,
        _: Range<usize>,
        _: Tick,
    ) -> Option<FiveTuple> {
        None
    }

    pub(crate) const fn read(&mut self, _: u16, _: &mut [u8]) -> Option<usize> {
        None
    }

    pub(crate) const fn push(&mut self, _: FiveTuple, _: &[&[u8]]) {}

    pub(crate) const fn poll_timeout(&self) -> Option<Tick> {
        None
    }

    pub(crate) fn handle_timeout(&mut self, _: Tick, _: impl Fn(FiveTuple) -> bool) {}

    pub(crate) const fn take_gone(&mut self) -> Option<FiveTuple> {
        None
    }

    pub(crate) const fn close_all(&mut self) {}

    pub(crate) const fn count(&mut self) {}
}
