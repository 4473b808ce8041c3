//! How many allocations a server makes in a second.

use std::time::Duration;

use super::desk::Request;
use super::options::Measure;
use super::progress::Progress;
use super::wire::{Wire, settled};
use crate::dataplane::sys;

/// What the rounds came to.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Rounds {
    /// Allocations, or full sequences.
    pub(super) done: u64,
    /// Time in which they were made.
    pub(super) elapsed: Duration,
    /// Nanoseconds of the server's CPU meanwhile.
    pub(super) server_nanos: Option<u64>,
}

/// Allocates in rounds of `round` until that took `duration`. Between rounds, and not counted,
/// what was allocated is deleted; each round has clients that the server has not seen.
pub(super) fn run(
    wire: &mut Wire,
    measure: Measure,
    round: usize,
    duration: Duration,
    cpu: impl Fn() -> Option<u64>,
    progress: &Progress,
) -> anyhow::Result<Rounds> {
    const CHANNEL: u16 = 0x4000;
    let mut rounds = Rounds::default();
    progress.stage("allocations", round);
    while rounds.elapsed < duration && !progress.stopped() {
        let clients: Vec<usize> = (0..round)
            .map(|_| wire.client())
            .collect::<anyhow::Result<_>>()?;
        let work = clients.iter().map(|&client| (client, Request::Allocate));
        let before = cpu();
        let began = sys::monotonic_nanos();
        let driven = wire.drive(work, None, progress, |desk, answer| {
            settled(answer)?;
            let peer = desk.client(answer.client).and_then(|client| client.relayed);
            Ok(match (measure, answer.request, peer) {
                (Measure::Sequence, Request::Allocate, Some(peer)) => Some(Request::Permit(peer)),
                (Measure::Sequence, Request::Permit(peer), _) => Some(Request::Bind(CHANNEL, peer)),
                _ => None,
            })
        });
        rounds.elapsed += Duration::from_nanos(sys::monotonic_nanos() - began);
        rounds.server_nanos = match (before, cpu()) {
            (Some(before), Some(after)) => {
                Some(rounds.server_nanos.unwrap_or(0) + after.saturating_sub(before))
            }
            _ => rounds.server_nanos,
        };
        wire.release(&clients, progress);
        driven?;
        rounds.done += u64::try_from(round).unwrap_or(0);
    }
    Ok(rounds)
}
