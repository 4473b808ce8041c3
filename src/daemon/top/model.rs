//! What `taciturn top` shows, apart from how: rows with rates from two polls, their order, the filter,
//! the selection, and what a key does. It knows no terminal, no socket and no clock.

use std::cmp::Ordering;
use std::collections::{BTreeMap, VecDeque};

use hashbrown::HashMap;
use serde::Deserialize;

/// How many rates of the whole daemon are remembered.
const HISTORY: usize = 600;
/// Over how many polls loss is told.
const WINDOW: usize = 11;

/// Packets and bytes so far.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
pub(super) struct Volume {
    pub(super) packets: u64,
    pub(super) bytes: u64,
}

/// RTP packets of one direction so far.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub(super) struct Streams {
    packets: u64,
    lost: u64,
}

/// RTP of both directions.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub(super) struct Media {
    received: Streams,
    sent: Streams,
}

/// An allocation as the API tells it.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Allocation {
    pub(super) id: String,
    pub(super) subject: String,
    pub(super) call: Option<String>,
    pub(super) tenant: Option<String>,
    pub(super) transport: String,
    pub(super) path: Option<String>,
    pub(super) worker: u16,
    pub(super) opened: u64,
    pub(super) received: Volume,
    pub(super) sent: Volume,
    pub(super) dropped: u64,
    pub(super) media: Option<Media>,
}

/// A worker as the API tells it.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Worker {
    pub(super) busy: f64,
}

/// The daemon as the API tells it.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Status {
    pub(super) version: String,
    pub(super) ready: bool,
    pub(super) began: u64,
    pub(super) uptime: u64,
    pub(super) received: Volume,
    pub(super) sent: Volume,
    pub(super) drops: BTreeMap<String, u64>,
    pub(super) imbalance: f64,
    pub(super) workers: Vec<Worker>,
}

/// What was found at one moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Poll {
    /// Nanoseconds of a clock that never steps back.
    pub(super) at: u64,
    /// Seconds of the Unix epoch.
    pub(super) now: u64,
    pub(super) status: Status,
    pub(super) allocations: Vec<Allocation>,
}

/// Something a second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Rate {
    pub(super) packets: f64,
    pub(super) bits: f64,
}

/// A line of the table.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) allocation: Allocation,
    /// From its client and to it; none until it was seen twice.
    pub(super) traffic: Option<Rate>,
    /// The share of its media's packets that did not come of late; none without media.
    pub(super) loss: Option<f64>,
    /// Packets for its client that were dropped, a second.
    pub(super) drops: Option<f64>,
    /// In seconds.
    pub(super) age: u64,
}

/// What rows are ordered by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sort {
    Traffic,
    Loss,
    Age,
    Path,
    Worker,
}

impl Sort {
    const fn of_key(key: char) -> Option<Self> {
        match key {
            't' => Some(Self::Traffic),
            'l' => Some(Self::Loss),
            'a' => Some(Self::Age),
            'p' => Some(Self::Path),
            'w' => Some(Self::Worker),
            _ => None,
        }
    }

    /// What stands first: the most of a number, the least of a name.
    fn order(self, a: &Row, b: &Row) -> Ordering {
        let bits = |row: &Row| row.traffic.map_or(-1.0, |rate| rate.bits);
        let loss = |row: &Row| row.loss.unwrap_or(-1.0);
        let by = match self {
            Self::Traffic => bits(b).total_cmp(&bits(a)),
            Self::Loss => loss(b).total_cmp(&loss(a)),
            Self::Age => b.age.cmp(&a.age),
            Self::Path => a.allocation.path.cmp(&b.allocation.path),
            Self::Worker => a.allocation.worker.cmp(&b.allocation.worker),
        };
        by.then_with(|| bits(b).total_cmp(&bits(a)))
            .then_with(|| a.allocation.id.cmp(&b.allocation.id))
    }
}

/// What keys are for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// The table.
    Browse,
    /// The filter is written.
    Filter,
    /// Whether to end this allocation.
    Ask(String),
    /// What keys there are.
    Help,
}

/// A key, as far as one does something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Char(char),
    Up,
    Down,
    PageUp,
    PageDown,
    Home,
    End,
    Enter,
    Escape,
    Backspace,
    Delete,
    Interrupt,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Deed {
    Nothing,
    Quit,
    /// End this allocation.
    End(String),
}

/// Media so far.
#[derive(Clone, Copy, Default)]
struct Heard {
    lost: u64,
    packets: u64,
}

impl Heard {
    fn of(media: &Media) -> Self {
        Self {
            lost: media.received.lost + media.sent.lost,
            packets: media.received.packets + media.sent.packets,
        }
    }
}

/// The state of the view.
pub(super) struct Model {
    rows: Vec<Row>,
    last: Poll,
    heard: HashMap<String, VecDeque<Heard>, foldhash::quality::RandomState>,
    /// Packets and bits a second, the latest first.
    pub(super) history: VecDeque<(u64, u64)>,
    /// The share of its time that each worker was busy.
    pub(super) busy: Vec<f64>,
    /// Datagrams dropped a second.
    pub(super) drops: f64,
    pub(super) sort: Sort,
    is_reversed: bool,
    pub(super) filter: String,
    pub(super) mode: Mode,
    selected: Option<String>,
    /// Whether it was chosen by a key; until then it is the first one, whichever that is.
    is_chosen: bool,
    /// Where the selection was last, for when its allocation is gone.
    place: usize,
    is_paused: bool,
    /// What is to be said of the last thing that was done or that failed.
    pub(super) notice: Option<String>,
    /// Why the daemon did not answer the last time; all the rest is of before.
    pub(super) lost: Option<String>,
}

impl Model {
    /// The view of a daemon of which this was found.
    pub(super) fn new(first: Poll) -> Self {
        let mut model = Self {
            rows: Vec::new(),
            last: Poll::default(),
            heard: HashMap::default(),
            history: VecDeque::new(),
            busy: Vec::new(),
            drops: 0.0,
            sort: Sort::Traffic,
            is_reversed: false,
            filter: String::new(),
            mode: Mode::Browse,
            selected: None,
            is_chosen: false,
            place: 0,
            is_paused: false,
            notice: None,
            lost: None,
        };
        model.replace(first, None);
        model
    }

    pub(super) const fn status(&self) -> &Status {
        &self.last.status
    }

    /// How many allocations there are.
    pub(super) const fn all(&self) -> usize {
        self.rows.len()
    }

    pub(super) const fn is_paused(&self) -> bool {
        self.is_paused
    }

    /// Takes up what was found anew, unless nothing is to move.
    pub(super) fn take(&mut self, poll: Poll) {
        if self.is_paused {
            return;
        }
        let seconds = seconds(poll.at.saturating_sub(self.last.at));
        // A daemon that began anew counts from zero.
        let is_same = poll.status.began == self.last.status.began;
        self.replace(poll, (is_same && seconds > 0.0).then_some(seconds));
    }

    fn replace(&mut self, poll: Poll, passed: Option<f64>) {
        let last = std::mem::take(&mut self.last);
        let before: HashMap<&str, &Allocation, foldhash::quality::RandomState> = last
            .allocations
            .iter()
            .map(|one| (one.id.as_str(), one))
            .collect();
        let mut heard = std::mem::take(&mut self.heard);
        self.rows.clear();
        for one in &poll.allocations {
            let former = before.get(one.id.as_str()).copied();
            let looks = one.media.map(|media| {
                let mut looks = heard.remove(&one.id).unwrap_or_default();
                looks.push_back(Heard::of(&media));
                while looks.len() > WINDOW {
                    looks.pop_front();
                }
                looks
            });
            self.rows.push(Row {
                traffic: rate(former, one, passed),
                loss: looks.as_ref().and_then(loss),
                drops: match (former, passed) {
                    (Some(former), Some(passed)) => {
                        Some(number(one.dropped.saturating_sub(former.dropped)) / passed)
                    }
                    (Some(_) | None, _) => None,
                },
                age: poll.now.saturating_sub(one.opened),
                allocation: one.clone(),
            });
            if let Some(looks) = looks {
                self.heard.insert(one.id.clone(), looks);
            }
        }
        if let Some(passed) = passed {
            self.whole(&last.status, &poll.status, passed);
        }
        self.last = poll;
        self.find_selection();
    }

    /// Rates of the whole daemon.
    fn whole(&mut self, last: &Status, status: &Status, passed: f64) {
        let then = [last.received, last.sent];
        let now = [status.received, status.sent];
        let rate = volume_rate(then, now, passed);
        while self.history.len() >= HISTORY {
            self.history.pop_back();
        }
        self.history
            .push_front((whole(rate.packets), whole(rate.bits)));
        let pairs = status.workers.iter().zip(&last.workers);
        let share =
            |(now, then): (&Worker, &Worker)| ((now.busy - then.busy) / passed).clamp(0.0, 1.0);
        self.busy = pairs.map(share).collect();
        let dropped = |status: &Status| status.drops.values().sum::<u64>();
        self.drops = number(dropped(status).saturating_sub(dropped(last))) / passed;
    }

    /// The rows that the filter lets through, in order.
    pub(super) fn visible(&self) -> Vec<&Row> {
        let words: Vec<String> = self
            .filter
            .split_whitespace()
            .map(str::to_lowercase)
            .collect();
        let mut rows: Vec<&Row> = self.rows.iter().filter(|row| fits(row, &words)).collect();
        rows.sort_unstable_by(|a, b| match self.is_reversed {
            true => self.sort.order(b, a),
            false => self.sort.order(a, b),
        });
        rows
    }

    /// Where the selection is among the visible rows.
    pub(super) fn place(&self) -> usize {
        self.place
    }

    fn find_selection(&mut self) {
        let rows = self.visible();
        let is_selected = |row: &&Row| Some(&row.allocation.id) == self.selected.as_ref();
        let place = match self.is_chosen {
            true => rows.iter().position(is_selected).unwrap_or(self.place),
            false => 0,
        };
        let place = place.min(rows.len().saturating_sub(1));
        let selected = rows.get(place).map(|row| row.allocation.id.clone());
        (self.place, self.selected) = (place, selected);
    }

    fn select(&mut self, place: usize) {
        self.is_chosen = true;
        let rows = self.visible();
        let place = place.min(rows.len().saturating_sub(1));
        let selected = rows.get(place).map(|row| row.allocation.id.clone());
        (self.place, self.selected) = (place, selected);
    }

    /// Does what a key is for.
    pub(super) fn press(&mut self, key: Key) -> Deed {
        if key == Key::Interrupt {
            return Deed::Quit;
        }
        match std::mem::replace(&mut self.mode, Mode::Browse) {
            Mode::Browse => self.browse(key),
            Mode::Filter => {
                self.write_filter(key);
                Deed::Nothing
            }
            Mode::Ask(id) if matches!(key, Key::Char('y' | 'Y')) => Deed::End(id),
            Mode::Help | Mode::Ask(_) => Deed::Nothing,
        }
    }

    fn browse(&mut self, key: Key) -> Deed {
        self.notice = None;
        match key {
            Key::Char('q') => return Deed::Quit,
            Key::Char('?' | 'h') => self.mode = Mode::Help,
            Key::Char('/') => self.mode = Mode::Filter,
            Key::Char('x') | Key::Delete => {
                self.mode = self.selected.clone().map_or(Mode::Browse, Mode::Ask)
            }
            Key::Char('r') => {
                self.is_reversed = !self.is_reversed;
                self.find_selection();
            }
            Key::Char(' ') => self.is_paused = !self.is_paused,
            Key::Char('k') | Key::Up => self.select(self.place.saturating_sub(1)),
            Key::Char('j') | Key::Down => self.select(self.place.saturating_add(1)),
            Key::PageUp => self.select(self.place.saturating_sub(10)),
            Key::PageDown => self.select(self.place.saturating_add(10)),
            Key::Home => self.select(0),
            Key::End => self.select(usize::MAX),
            Key::Escape => {
                self.filter.clear();
                self.find_selection();
            }
            Key::Char(key) => {
                if let Some(sort) = Sort::of_key(key) {
                    self.sort = sort;
                    self.is_reversed = false;
                    // The first of the new order is what one looks for.
                    self.is_chosen = false;
                    self.find_selection();
                }
            }
            Key::Enter | Key::Backspace | Key::Interrupt => {}
        }
        Deed::Nothing
    }

    fn write_filter(&mut self, key: Key) {
        self.mode = Mode::Filter;
        match key {
            Key::Char(letter) if self.filter.len() < 64 => self.filter.push(letter),
            Key::Backspace => {
                self.filter.pop();
            }
            Key::Enter => self.mode = Mode::Browse,
            Key::Escape => {
                self.filter.clear();
                self.mode = Mode::Browse;
            }
            Key::Char(_)
            | Key::Up
            | Key::Down
            | Key::PageUp
            | Key::PageDown
            | Key::Home
            | Key::End
            | Key::Delete
            | Key::Interrupt => {}
        }
        self.find_selection();
    }
}

/// Whether each word is in something that stands in the row; `w1` is worker 1.
fn fits(row: &Row, words: &[String]) -> bool {
    let one = &row.allocation;
    let worker = format!("w{}", one.worker);
    let texts = [
        one.id.as_str(),
        &one.subject,
        one.call.as_deref().unwrap_or_default(),
        one.tenant.as_deref().unwrap_or_default(),
        &one.transport,
        one.path.as_deref().unwrap_or_default(),
    ];
    words
        .iter()
        .all(|word| *word == worker || texts.iter().any(|text| text.to_lowercase().contains(word)))
}

fn rate(former: Option<&Allocation>, now: &Allocation, passed: Option<f64>) -> Option<Rate> {
    let former = former?;
    let then = [former.received, former.sent];
    Some(volume_rate(then, [now.received, now.sent], passed?))
}

fn volume_rate(then: [Volume; 2], now: [Volume; 2], passed: f64) -> Rate {
    let more = |count: fn(&Volume) -> u64| {
        let sum = |all: &[Volume; 2]| all.iter().map(count).sum::<u64>();
        number(sum(&now).saturating_sub(sum(&then))) / passed
    };
    Rate {
        packets: more(|volume| volume.packets),
        bits: more(|volume| volume.bytes) * 8.0,
    }
}

/// Since the first look that is remembered; since the allocation began where there is one look.
fn loss(looks: &VecDeque<Heard>) -> Option<f64> {
    let last = looks.back()?;
    let first = if looks.len() > 1 {
        *looks.front()?
    } else {
        Heard::default()
    };
    let lost = number(last.lost.saturating_sub(first.lost));
    let came = number(last.packets.saturating_sub(first.packets));
    (lost + came > 0.0).then(|| lost / (lost + came))
}

fn seconds(nanos: u64) -> f64 {
    std::time::Duration::from_nanos(nanos).as_secs_f64()
}

#[expect(clippy::cast_precision_loss, reason = "it is shown in four digits")]
const fn number(count: u64) -> f64 {
    count as f64
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rate is no more than its counters and not negative"
)]
const fn whole(rate: f64) -> u64 {
    rate.round() as u64
}

#[cfg(test)]
mod tests;
