//! Sends at a rate and counts what arrives: one thread that alternates both, and never waits.

use std::net::SocketAddr;
use std::time::Duration;

use hdrhistogram::Histogram;

use super::background::Background;
use super::crowd::{Crowd, Seat, Side};
use super::pace::{Pacer, Stream};
use super::packet::{Arrival, Fate, Framing, Stamp, Track, unframe};
use super::progress::Progress;
use super::wire::Wire;
use crate::dataplane::sys::{self, Posted, SEGMENTS_MAX};

/// How long after the last packet others still count as delivered.
const GRACE: u64 = 200_000_000;
/// Packets sent between two looks at what arrived.
const BATCH: u64 = 64;
/// The longest latency told apart from a longer one, in nanoseconds.
const LONGEST: u64 = 60_000_000_000;
/// The longest time in which a look at empty sockets can come back.
const IDLE_MAX: u64 = 10_000;
/// How often a person is shown where it stands.
const REDRAW: u64 = 200_000_000;

/// One direction between two ends.
#[derive(Clone)]
pub(super) struct Flow {
    pub(super) side: Side,
    pub(super) seat: Seat,
    pub(super) to: Option<SocketAddr>,
    pub(super) framing: Framing,
    /// How its packets are to arrive.
    pub(super) arrival: Arrival,
}

/// What arrived of one flow.
struct Heard {
    arrival: Arrival,
    track: Track,
}

/// Everything that is sent and heard.
pub(super) struct Traffic {
    flows: Vec<Flow>,
    numbers: Vec<u32>,
    heard: Vec<Heard>,
    streams: Vec<Stream>,
    cursors: Vec<usize>,
    segmented: bool,
    token: u32,
    step: u32,
    /// Nanoseconds after which a packet is of no use any more.
    useful: u64,
    /// Whether others need this CPU.
    yielding: bool,
}

/// One rate held for a while.
#[derive(Debug)]
pub(super) struct Step {
    /// Packets a second that were asked for.
    pub(super) wanted: f64,
    pub(super) elapsed: Duration,
    pub(super) sent: u64,
    /// Packets that were due and did not leave: too late, or the socket was full.
    pub(super) unsent: u64,
    /// Packets that the kernel refused, and why.
    pub(super) refused: u64,
    pub(super) error: Option<i32>,
    pub(super) received: u64,
    pub(super) duplicates: u64,
    pub(super) reordered: u64,
    /// Packets that came by another way than they should.
    pub(super) astray: u64,
    /// Packets that came too late to be of use, which are counted as lost.
    pub(super) late: u64,
    /// One way, in nanoseconds.
    pub(super) latency: Histogram<u64>,
    /// Nanoseconds in which there was nothing to do.
    pub(super) idle: u64,
}

impl Step {
    fn new(wanted: f64) -> anyhow::Result<Self> {
        Ok(Self {
            wanted,
            elapsed: Duration::ZERO,
            sent: 0,
            unsent: 0,
            refused: 0,
            error: None,
            received: 0,
            duplicates: 0,
            reordered: 0,
            astray: 0,
            late: 0,
            latency: Histogram::new_with_bounds(1, LONGEST, 2)?,
            idle: 0,
        })
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "packets of minutes are exact in a double"
    )]
    pub(super) fn loss(&self) -> f64 {
        if self.sent == 0 {
            return 1.0;
        }
        self.sent.saturating_sub(self.received) as f64 / self.sent as f64
    }

    pub(super) fn offered_pps(&self) -> f64 {
        per_second(self.sent, self.elapsed)
    }

    pub(super) fn delivered_pps(&self) -> f64 {
        per_second(self.received, self.elapsed)
    }

    /// Whether the generator sent what it was asked for.
    pub(super) fn kept(&self) -> bool {
        const TOLERANCE: f64 = 0.97;
        self.offered_pps() >= self.wanted * TOLERANCE
    }

    const fn add(&mut self, posted: Posted) {
        self.sent += posted.sent;
        self.unsent += posted.blocked;
        self.refused += posted.refused;
        if posted.error.is_some() {
            self.error = posted.error;
        }
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "packets of minutes are exact in a double"
)]
fn per_second(count: u64, elapsed: Duration) -> f64 {
    let seconds = elapsed.as_secs_f64();
    if seconds > 0.0 {
        count as f64 / seconds
    } else {
        0.0
    }
}

impl Traffic {
    pub(super) fn new(
        flows: Vec<Flow>,
        streams: Vec<Stream>,
        segmented: bool,
        token: u32,
        yielding: bool,
    ) -> Self {
        let heard = flows
            .iter()
            .map(|flow| Heard {
                arrival: flow.arrival,
                track: Track::default(),
            })
            .collect();
        Self {
            numbers: vec![0; flows.len()],
            heard,
            cursors: vec![0; streams.len()],
            flows,
            streams,
            segmented,
            token,
            step: 0,
            useful: u64::MAX,
            yielding,
        }
    }

    /// Counts what takes longer than others are waited for as lost. A datagram that waits is lost
    /// by itself; a stream keeps everything, however late.
    pub(super) const fn live(mut self) -> Self {
        self.useful = GRACE;
        self
    }

    /// Takes what is still on its way, until there is silence.
    pub(super) fn drain(wire: &mut Wire, progress: &Progress) -> anyhow::Result<()> {
        const SILENCE: u64 = 50_000_000;
        let mut last = sys::monotonic_nanos();
        loop {
            let mut heard = wire.clients.receive(|_| {})?;
            if let Some(callees) = &mut wire.callees {
                heard += callees.receive(|_| {})?;
            }
            let now = sys::monotonic_nanos();
            if heard > 0 {
                last = now;
            } else if now > last + SILENCE || progress.stopped() {
                return Ok(());
            }
        }
    }

    /// How many flows there are.
    pub(super) const fn flows(&self) -> usize {
        self.flows.len()
    }

    /// What the flows send.
    pub(super) fn streams(&self) -> &[Stream] {
        &self.streams
    }

    /// Sends `rate` packets a second for `duration`, and waits for the last of them.
    pub(super) fn run(
        &mut self,
        wire: &mut Wire,
        rate: f64,
        duration: Duration,
        background: &mut Background,
        progress: &Progress,
    ) -> anyhow::Result<Step> {
        let mut step = Step::new(rate)?;
        self.begin();
        let start = sys::monotonic_nanos();
        let end = start + u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX / 2);
        let mut pacers = self.pacers(rate, start);
        let (mut redraw, mut last) = (start, start);
        loop {
            let now = sys::monotonic_nanos();
            let sending = now < end && !progress.stopped();
            let mut busy = false;
            if sending {
                last = now;
                busy |= self.send(wire, &mut pacers, now, &mut step);
                busy |= background.start(wire, now)?;
            }
            busy |= self.receive(wire, &mut step, background)?;
            busy |= background.go_on(wire, now);
            if !sending && (step.received >= step.sent || now > last + GRACE) {
                break;
            }
            if !busy {
                if self.yielding {
                    std::thread::yield_now();
                }
                // A longer while was another thread's: it is not ours to leave out.
                step.idle += sys::monotonic_nanos().saturating_sub(now).min(IDLE_MAX);
            }
            if now > redraw + REDRAW {
                redraw = now;
                progress.at(usize::try_from((now - start) / 1_000_000).unwrap_or(0));
            }
        }
        step.elapsed = Duration::from_nanos(end.min(last).saturating_sub(start));
        for (stream, pacer) in self.streams.iter().zip(&pacers) {
            step.unsent += pacer.skipped() * u64::from(stream.burst);
        }
        Ok(step)
    }

    fn begin(&mut self) {
        self.step = self.step.wrapping_add(1);
        self.numbers.fill(0);
        for heard in &mut self.heard {
            heard.track = Track::default();
        }
    }

    /// The rate is divided among the streams as nature does.
    fn pacers(&self, rate: f64, start: u64) -> Vec<Pacer> {
        let natural: f64 = self.streams.iter().map(|stream| stream.natural).sum();
        self.streams
            .iter()
            .map(|stream| {
                let packets = rate * stream.natural / natural;
                Pacer::new(start, packets / f64::from(stream.burst))
            })
            .collect()
    }

    fn send(&mut self, wire: &mut Wire, pacers: &mut [Pacer], now: u64, step: &mut Step) -> bool {
        let mut any = false;
        for (index, pacer) in pacers.iter_mut().enumerate() {
            let stream = self.streams[index];
            let most = (BATCH / u64::from(stream.burst)).max(1);
            for _ in 0..pacer.due(now).min(most) {
                let flow = self.cursors[index];
                self.cursors[index] = if flow + 1 < self.flows.len() {
                    flow + 1
                } else {
                    0
                };
                self.burst(wire, flow, stream, now);
                pacer.count();
                any = true;
            }
        }
        if any {
            wire.clients.flush();
            step.add(wire.clients.take_posted());
            if let Some(peers) = &mut wire.peers {
                peers.flush();
                step.add(peers.take_posted());
            }
            if let Some(callees) = &mut wire.callees {
                callees.flush();
                step.add(callees.take_posted());
            }
        }
        any
    }

    fn burst(&mut self, wire: &mut Wire, index: usize, stream: Stream, now: u64) {
        let flow = &self.flows[index];
        let crowd: &mut Crowd = match (flow.side, &mut wire.peers, &mut wire.callees) {
            (Side::Peer, Some(peers), _) => peers,
            (Side::Callee, _, Some(callees)) => callees,
            _ => &mut wire.clients,
        };
        let number = &mut self.numbers[index];
        let mut stamp = Stamp {
            token: self.token,
            step: self.step,
            // Lossless: there are at most two million flows.
            flow: u32::try_from(index).unwrap_or(u32::MAX),
            number: 0,
            sent: now,
        };
        let mut write = |room: &mut [u8]| {
            stamp.number = *number;
            *number += 1;
            flow.framing.write(room, stream.payload, &stamp)
        };
        let framed = flow.framing.framed(stream.payload);
        let run = if self.segmented && stream.burst > 1 {
            (sys::RUN_MAX - 100) / framed.max(1)
        } else {
            1
        };
        let run = u16::try_from(run.min(SEGMENTS_MAX)).unwrap_or(1).max(1);
        let mut left = stream.burst;
        while left > 0 {
            let packets = left.min(run);
            left -= packets;
            let segment = (packets > 1).then(|| u16::try_from(framed).unwrap_or(u16::MAX));
            crowd.post(flow.seat, flow.to, segment, |room| {
                let chunks = room.chunks_mut(framed.max(1)).take(usize::from(packets));
                chunks.map(&mut write).sum()
            });
        }
    }

    fn receive(
        &mut self,
        wire: &mut Wire,
        step: &mut Step,
        background: &mut Background,
    ) -> anyhow::Result<bool> {
        let (heard, token, number) = (&mut self.heard, self.token, self.step);
        let useful = self.useful;
        let mut now = 0;
        let mut take = |arrival: Arrival, payload: &[u8], step: &mut Step| {
            let Some(stamp) = Stamp::read(payload).filter(|stamp| stamp.token == token) else {
                return;
            };
            // One that is later than the step it belongs to was counted as lost.
            if stamp.step != number {
                return;
            }
            let Some(heard) = usize::try_from(stamp.flow)
                .ok()
                .and_then(|flow| heard.get_mut(flow))
            else {
                return;
            };
            if heard.arrival != arrival {
                step.astray += 1;
                return;
            }
            if now == 0 {
                now = sys::monotonic_nanos();
            }
            let latency = now.saturating_sub(stamp.sent);
            if latency > useful {
                step.late += 1;
                return;
            }
            match heard.track.arrive(stamp.number) {
                Fate::Duplicate => {
                    step.duplicates += 1;
                    return;
                }
                Fate::Reordered => step.reordered += 1,
                Fate::InOrder => {}
            }
            step.received += 1;
            step.latency.saturating_record(latency);
        };
        let desk = &mut wire.desk;
        let mut count = wire.clients.receive(|datagram| match unframe(datagram) {
            Some((arrival, payload)) => take(arrival, payload, step),
            None => background.hear(desk, datagram),
        })?;
        if let Some(callees) = &mut wire.callees {
            count += callees.receive(|datagram| {
                if let Some((arrival, payload)) = unframe(datagram) {
                    take(arrival, payload, step);
                }
            })?;
        }
        if let Some(peers) = &mut wire.peers {
            count += peers.receive(|datagram| take(Arrival::Plain, datagram, step))?;
        }
        Ok(count > 0)
    }
}
