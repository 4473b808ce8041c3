use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::proto::{Border, ChannelRange, next_border};

const NOW: Tick = Tick::from_nanos(1_000_000_000);

fn later(after: Duration) -> Tick {
    NOW.plus(after)
}

#[test]
fn messages_are_padded_and_leave_in_order() {
    let mut queue = Queue::new();
    assert!(queue.push(&[&[1], &[2, 3]], Worth::Packet, NOW).taken);
    assert!(queue.push(&[&[4; 8]], Worth::Answer, NOW).taken);
    assert_eq!(queue.bytes(), [1, 2, 3, 0, 4, 4, 4, 4, 4, 4, 4, 4]);
    assert_eq!(queue.first(), Some(&[1, 2, 3, 0][..]));
    queue.sent(5);
    assert_eq!(queue.bytes(), [4; 7]);
    assert_eq!(queue.first(), Some(&[4; 7][..]));
    queue.sent(7);
    assert!(queue.is_empty() && queue.bytes().is_empty());
}

/// T38: what a slow reader costs is bounded, and what it loses is counted.
#[test]
fn a_slow_reader_loses_packets_and_never_memory() {
    let mut queue = Queue::new();
    let (mut taken, mut dropped) = (0_u64, 0);
    for _ in 0..10_000 {
        let pushed = queue.push(&[&[9; 1_200]], Worth::Packet, NOW);
        taken += u64::from(pushed.taken);
        dropped += pushed.dropped;
    }
    assert_eq!(taken + dropped, 10_000);
    assert_eq!(taken, (PACKETS_MAX / 1_200) as u64);
    assert!(queue.bytes.capacity() <= 2 * ALL_MAX);
    // A response still has room, though not without end.
    let answers = (0..1_000).filter(|_| queue.push(&[&[7; 100]], Worth::Answer, NOW).taken);
    assert!((100..300).contains(&answers.count()));
}

#[test]
fn late_packets_make_way_for_new_ones_but_not_the_one_that_was_begun() {
    let mut queue = Queue::new();
    for n in 1..=4 {
        queue.push(&[&[n; 8]], Worth::Packet, NOW);
    }
    queue.sent(3);
    let at = later(STALE + Duration::from_millis(1));
    let pushed = queue.push(&[&[5; 8]], Worth::Packet, at);
    assert_eq!(
        pushed,
        Pushed {
            taken: true,
            dropped: 3
        }
    );
    assert_eq!(queue.bytes(), [1, 1, 1, 1, 1, 5, 5, 5, 5, 5, 5, 5, 5]);
    queue.sent(5);
    assert_eq!(queue.bytes(), [5; 8]);
}

#[test]
fn a_response_is_not_dropped_for_its_age() {
    let mut queue = Queue::new();
    queue.push(&[&[1; 4]], Worth::Answer, NOW);
    queue.push(&[&[2; 4]], Worth::Packet, NOW);
    let pushed = queue.push(&[&[3; 4]], Worth::Packet, later(STALE * 2));
    assert_eq!(pushed.dropped, 0);
    assert_eq!(queue.bytes().len(), 12);
}

#[test]
fn an_empty_queue_gives_back_what_it_has_not_needed_lately() {
    let mut queue = Queue::new();
    for _ in 0..50 {
        queue.push(&[&[0; 1_200]], Worth::Packet, NOW);
    }
    let needed = queue.bytes().len();
    queue.sent(needed);
    queue.rest();
    assert!(queue.bytes.capacity() >= needed, "it was needed just now");
    queue.rest();
    assert!(queue.bytes.capacity() <= KEPT && queue.messages.capacity() <= 2 * KEPT_PLACES);
}

#[test]
fn a_queue_that_fills_and_empties_without_end_keeps_its_memory() {
    let mut queue = Queue::new();
    let mut kept = None;
    for _ in 0..5 {
        for _ in 0..30 {
            queue.push(&[&[0; 1_200]], Worth::Packet, NOW);
        }
        queue.sent(queue.bytes().len());
        queue.rest();
        let memory = (queue.bytes.capacity(), queue.messages.capacity());
        assert_eq!(*kept.get_or_insert(memory), memory);
    }
}

/// What happens to a queue.
#[derive(Debug, Clone)]
enum Step {
    /// A message with so much payload is pushed, cut into parts here.
    Push {
        payload: usize,
        cut: usize,
        worth: Worth,
    },
    /// The connection takes at most so many bytes.
    Write(usize),
    /// TLS takes so many messages, one by one.
    WriteWhole(usize),
    Wait(Duration),
    Rest,
}

fn step() -> impl Strategy<Value = Step> {
    let payload = prop_oneof![4 => 8..1_500_usize, 1 => 8..28_usize, 1 => 10_000..65_000_usize];
    let worth = prop_oneof![6 => Just(Worth::Packet), 1 => Just(Worth::Answer)];
    prop_oneof![
        8 => (payload, 0..1_500_usize, worth)
            .prop_map(|(payload, cut, worth)| Step::Push { payload, cut, worth }),
        3 => (1..4_000_usize).prop_map(Step::Write),
        1 => Just(Step::Write(usize::MAX)),
        2 => (1..12_usize).prop_map(Step::WriteWhole),
        2 => (0..600_u64).prop_map(|millis| Step::Wait(Duration::from_millis(millis))),
        1 => Just(Step::Rest),
    ]
}

/// ChannelData whose payload says which message it is, byte for byte.
fn numbered(number: usize, payload: usize) -> Vec<u8> {
    let mut bytes = vec![0x40, 0];
    bytes.extend(u16::try_from(payload).unwrap().to_be_bytes());
    bytes.extend(pattern(number).take(payload));
    bytes
}

fn pattern(number: usize) -> impl Iterator<Item = u8> {
    (number as u64 * 0x9E37_79B9 + 1)
        .to_be_bytes()
        .into_iter()
        .cycle()
}

/// What was pushed, and what came out.
#[derive(Default)]
struct Ledger {
    queue: Option<Queue>,
    now: Duration,
    /// Every message, and whether it was an answer that was taken.
    pushed: Vec<(Vec<u8>, bool)>,
    refused: u64,
    dropped: u64,
    wire: Vec<u8>,
}

impl Ledger {
    fn queue(&mut self) -> &mut Queue {
        self.queue.get_or_insert_with(Queue::new)
    }

    fn step(&mut self, step: Step) -> Result<(), TestCaseError> {
        match step {
            Step::Push {
                payload,
                cut,
                worth,
            } => {
                let message = numbered(self.pushed.len(), payload);
                let (first, second) = message.split_at(cut.min(message.len()));
                let at = later(self.now);
                let pushed = self.queue().push(&[first, second], worth, at);
                let is_answer = worth == Worth::Answer;
                self.refused += u64::from(is_answer && !pushed.taken);
                self.dropped += pushed.dropped;
                self.pushed.push((message, is_answer && pushed.taken));
            }
            Step::Write(most) => {
                let len = most.min(self.queue().bytes().len());
                self.write(len);
            }
            Step::WriteWhole(count) => {
                for _ in 0..count {
                    let Some(len) = self.queue().first().map(<[u8]>::len) else {
                        break;
                    };
                    self.write(len);
                }
            }
            Step::Wait(span) => self.now += span,
            Step::Rest => self.queue().rest(),
        }
        let queue = self.queue();
        prop_assert!(queue.bytes().len() <= ALL_MAX);
        prop_assert!(queue.bytes.capacity() <= 2 * ALL_MAX + KEPT);
        prop_assert_eq!(queue.is_empty(), queue.bytes().is_empty());
        Ok(())
    }

    fn write(&mut self, len: usize) {
        let queue = self.queue.get_or_insert_with(Queue::new);
        self.wire.extend_from_slice(&queue.bytes()[..len]);
        queue.sent(len);
    }

    /// The numbers of the messages that came out; all of them whole, and nothing between them.
    fn delivered(&self) -> Result<Vec<usize>, TestCaseError> {
        let mut rest = &self.wire[..];
        let mut delivered = Vec::new();
        let mut candidates = self.pushed.iter().enumerate();
        while !rest.is_empty() {
            let Border::Whole { len, padded, .. } = next_border(rest, ChannelRange::Rfc8656) else {
                return Err(TestCaseError::fail("what came out is cut"));
            };
            let found = candidates.find(|(_, (message, _))| *message == rest[..len]);
            let (number, _) =
                found.ok_or_else(|| TestCaseError::fail("out of order, or altered"))?;
            prop_assert!(rest[len..padded].iter().all(|byte| *byte == 0));
            delivered.push(number);
            rest = &rest[padded..];
        }
        Ok(delivered)
    }
}

proptest! {
    /// T38: whatever is pushed, and written in whatever pieces, what comes out is whole messages in
    /// order, what is gone is counted, and no response is lost that was taken.
    #[test]
    fn what_comes_out_is_whole_and_in_order_and_the_rest_is_counted(
        steps in vec(step(), 1..200),
    ) {
        let mut ledger = Ledger::default();
        for step in steps {
            ledger.step(step)?;
        }
        ledger.step(Step::Write(usize::MAX))?;
        let delivered = ledger.delivered()?;
        let gone = ledger.refused + ledger.dropped;
        prop_assert_eq!(delivered.len() as u64 + gone, ledger.pushed.len() as u64);
        for (number, (_, must_come)) in ledger.pushed.iter().enumerate() {
            prop_assert!(!must_come || delivered.contains(&number), "response {} is lost", number);
        }
    }

    /// A packet is never older when it leaves than the limit and the time since the last one came.
    #[test]
    fn nothing_stale_stands_behind_what_has_begun_once_another_comes(
        ages in vec(0..500_u64, 1..40),
        begun in 0..8_usize,
    ) {
        let mut queue = Queue::new();
        let mut now = Duration::ZERO;
        let mut pushed = Vec::new();
        for (number, age) in ages.into_iter().enumerate() {
            now += Duration::from_millis(age);
            queue.push(&[&numbered(number, 4)], Worth::Packet, later(now));
            pushed.push(now);
            if number == 0 {
                queue.sent(begun);
            }
            let (first, rest) = (usize::from(begun > 0), queue.messages.iter());
            let mut behind = rest.skip(first.min(usize::from(queue.begun)));
            prop_assert!(behind.all(|waiting| later(now).since(waiting.since) <= STALE));
        }
    }
}
