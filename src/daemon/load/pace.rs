//! When packets are due: evenly spread over time, burst by burst, flow after flow.

use super::options::Payload;

/// How far a sender may fall behind before it gives up catching up.
const BACKLOG: u64 = 5_000_000;

/// Packets of one kind that every flow sends.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Stream {
    /// Bytes of application data.
    pub(super) payload: u16,
    /// Packets back to back.
    pub(super) burst: u16,
    /// Packets of one flow a second, as the payload has them by nature.
    pub(super) natural: f64,
}

/// What the flows send.
pub(super) fn streams(payload: Payload, burst: Option<u16>) -> Vec<Stream> {
    const AUDIO: Stream = Stream {
        payload: 172,
        burst: 1,
        natural: 50.0,
    };
    const VIDEO: Stream = Stream {
        payload: 1200,
        burst: 4,
        natural: 120.0,
    };
    match payload {
        Payload::Bytes(payload) => vec![Stream {
            payload,
            burst: burst.unwrap_or(1),
            natural: 50.0,
        }],
        Payload::Audio => vec![AUDIO],
        Payload::Video => vec![VIDEO],
        Payload::Call => vec![AUDIO, VIDEO],
    }
}

/// Packets that all flows send in a second when each does what is natural.
pub(super) fn natural(streams: &[Stream], flows: usize) -> f64 {
    let each: f64 = streams.iter().map(|stream| stream.natural).sum();
    #[expect(clippy::cast_precision_loss, reason = "flows are few")]
    let flows = flows as f64;
    each * flows
}

/// The bursts of one stream over all flows.
#[derive(Debug)]
pub(super) struct Pacer {
    start: u64,
    /// Nanoseconds from one burst to the next.
    interval: f64,
    done: u64,
    /// Bursts that were due and never left.
    skipped: u64,
}

impl Pacer {
    /// So many bursts a second from `start` on.
    pub(super) fn new(start: u64, per_second: f64) -> Self {
        Self {
            start,
            interval: 1e9 / per_second.max(f64::MIN_POSITIVE),
            done: 0,
            skipped: 0,
        }
    }

    /// How many bursts are due at `now`. A backlog that nobody can work off is forgotten: to make
    /// it up would be a flood that nobody asked for.
    pub(super) fn due(&mut self, now: u64) -> u64 {
        let until = self.bursts(now.saturating_sub(self.start));
        let backlog = self.bursts(BACKLOG).max(1);
        let due = until.saturating_sub(self.done);
        if due <= backlog {
            return due;
        }
        self.skipped += due - backlog;
        self.done += due - backlog;
        backlog
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "nanoseconds of minutes are exact in a double, and nothing is negative"
    )]
    fn bursts(&self, nanoseconds: u64) -> u64 {
        (nanoseconds as f64 / self.interval) as u64
    }

    /// Counts a burst as done.
    pub(super) const fn count(&mut self) {
        self.done += 1;
    }

    /// Bursts that were due and never left.
    pub(super) const fn skipped(&self) -> u64 {
        self.skipped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn bursts_are_spread_evenly() {
        let mut pacer = Pacer::new(SECOND, 1000.0);
        assert_eq!(pacer.due(SECOND), 0);
        let mut sent = 0;
        for step in 1..=2000 {
            let due = pacer.due(SECOND + step * SECOND / 2000);
            assert!(due <= 1, "a clump of {due}");
            for _ in 0..due {
                pacer.count();
                sent += 1;
            }
        }
        assert_eq!((sent, pacer.skipped()), (1000, 0));
    }

    #[test]
    fn a_short_pause_is_made_up_and_a_long_one_is_not() {
        let mut pacer = Pacer::new(0, 1000.0);
        assert_eq!(pacer.due(4_500_000), 4);
        for _ in 0..4 {
            pacer.count();
        }
        assert_eq!(pacer.due(SECOND), 5);
        assert_eq!(pacer.skipped(), 991);
        // What is due again is not forgotten twice.
        assert_eq!(pacer.due(SECOND), 5);
        assert_eq!(pacer.skipped(), 991);
    }

    #[test]
    fn a_slow_pace_still_sends() {
        let mut pacer = Pacer::new(0, 1.0);
        assert_eq!(pacer.due(SECOND / 2), 0);
        assert_eq!(pacer.due(SECOND), 1);
    }

    #[test]
    fn a_call_is_audio_and_video() {
        let streams = streams(Payload::Call, None);
        assert!((natural(&streams, 20) - 3400.0).abs() < 1e-9);
        assert_eq!(natural(&streams, 0), 0.0);
        let bursts: Vec<u16> = streams.iter().map(|stream| stream.burst).collect();
        assert_eq!(bursts, [1, 4]);
    }
}
