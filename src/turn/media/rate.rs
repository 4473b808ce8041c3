//! The rate of a stream's clock, which only the signalling names. It is found by how far timestamps
//! go on while time does: at the end of a window, the rate among those in use that is less than a
//! twentieth away. A window that fits none is made longer, so that what held up its last packet
//! weighs less; a window that fits one is followed by another, so that a wrong guess does not stay.

use std::time::Duration;

use crate::turn::clock::Tick;

/// Rates of RFC 3551 and of what browsers send, in Hz. 44,100 is left out: it is nearer to 48,000
/// than a short window tells.
const RATES: [u32; 6] = [8_000, 16_000, 24_000, 32_000, 48_000, 90_000];
/// The windows, in seconds.
const SHORTEST: u8 = 1;
const LONGEST: u8 = 8;
/// A pause in which timestamps may have gone anywhere.
const PAUSE: Duration = Duration::from_secs(30);
const SECOND: u64 = 1_000_000_000;
/// A unit's length has so many bits behind the point.
const FRACTION: u32 = 10;

/// What is known of a stream's clock.
#[derive(Debug)]
pub(super) struct SenderClock {
    /// When the window began, at which timestamp.
    from: Tick,
    timestamp: u32,
    /// How long a unit of the timestamp is, in 1,024ths of a nanosecond; 0 while that is not known.
    unit: u32,
    /// How long the window is, in seconds.
    window: u8,
}

impl SenderClock {
    pub(super) const fn new(timestamp: u32, now: Tick) -> Self {
        Self {
            from: now,
            timestamp,
            unit: 0,
            window: SHORTEST,
        }
    }

    /// By how many nanoseconds more than its timestamp says a packet came after another one, where
    /// `elapsed` lie between the two and `units` between their timestamps.
    pub(super) fn delay(&self, elapsed: Duration, units: i32) -> Option<i64> {
        if self.unit == 0 {
            return None;
        }
        let elapsed = i64::try_from(elapsed.as_nanos()).ok()?;
        let sent = (i64::from(units) * i64::from(self.unit)) >> FRACTION;
        elapsed.checked_sub(sent)
    }

    /// Notes a packet in order.
    pub(super) fn note(&mut self, timestamp: u32, now: Tick) {
        let span = now.since(self.from);
        if span < Duration::from_secs(self.window.into()) {
            return;
        }
        let units = timestamp.wrapping_sub(self.timestamp);
        let measured = rate_of(units, span).filter(|_| span < PAUSE);
        match measured {
            Some(rate) => {
                self.unit = unit_of(rate);
                self.window = LONGEST / 2;
            }
            None if self.window < LONGEST && span < PAUSE => {
                self.window *= 2;
                return;
            }
            None => {
                if span < PAUSE {
                    // What was found before was a guess, or is so no longer.
                    self.unit = 0;
                }
                self.window = SHORTEST;
            }
        }
        self.from = now;
        self.timestamp = timestamp;
    }

    #[cfg(test)]
    pub(super) fn rate(&self) -> Option<u32> {
        RATES.into_iter().find(|rate| unit_of(*rate) == self.unit)
    }
}

/// The rate at which a clock goes that made `units` in `span`, if it is one of [`RATES`].
fn rate_of(units: u32, span: Duration) -> Option<u32> {
    let nanos = u64::try_from(span.as_nanos()).ok()?;
    let measured = (u64::from(units) * SECOND).checked_div(nanos)?;
    RATES.into_iter().find(|rate| {
        let rate = u64::from(*rate);
        measured.abs_diff(rate) * 20 < rate
    })
}

/// A unit's length at `rate`: at most 128,000,000, at 8,000 Hz.
fn unit_of(rate: u32) -> u32 {
    u32::try_from((SECOND << FRACTION) / u64::from(rate)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_that_a_short_window_only_seemed_to_have_is_given_up() {
        let begin = Tick::default();
        let mut clock = SenderClock::new(0, begin);
        // 44,100 Hz, whose second packet came late enough to look like 48,000.
        clock.note(45_900, begin.plus(Duration::from_secs(1)));
        assert_eq!(clock.rate(), Some(48_000));
        for second in 2..=9 {
            let timestamp = 45_900 + 44_100 * (second - 1);
            clock.note(timestamp, begin.plus(Duration::from_secs(second.into())));
        }
        assert_eq!(clock.rate(), None);
        assert_eq!(clock.delay(Duration::from_millis(20), 882), None);
    }
}
