use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::page::{FAMILIES, PIECE, Says};
use super::*;

fn at(seconds: u64) -> Tick {
    Tick::default().plus(Duration::from_secs(seconds))
}

/// So many bytes came from the client, in as many packets; as many are dropped on the way out.
fn values(amount: u64) -> Values {
    let mut values = Values::default();
    values.set(Count::Packets, Direction::In, amount);
    values.set(Count::Bytes, Direction::In, amount);
    values.set(Count::Drops, Direction::Out, amount);
    values
}

/// The same, and so many of the packets were RTP, of whose streams each second one was lost.
fn heard(amount: u64, rtp: u64) -> Values {
    let mut values = values(amount);
    values.set(Count::Media, Direction::In, rtp);
    values.set(Count::MediaExpected, Direction::In, 2 * rtp);
    values
}

fn live(id: u64, amount: u64) -> Live {
    with(id, values(amount))
}

fn with(id: u64, values: Values) -> Live {
    Live {
        id: AllocationId(id),
        transport: Transport::Udp,
        values,
        state: State {
            age: 1,
            jitter: [Duration::ZERO; 2],
        },
        seen: None,
    }
}

fn book(most: usize) -> Book {
    Book {
        most,
        ..Book::default()
    }
}

/// The ids that have rows.
fn ids(rows: &[Row]) -> Vec<u64> {
    let mut ids: Vec<u64> = rows.iter().map(id).collect();
    ids.sort_unstable();
    ids
}

fn id(row: &Row) -> u64 {
    let text = row.labels.split('"').nth(1).unwrap();
    u64::from_str_radix(text, 16).unwrap()
}

#[test]
fn the_busiest_have_rows_and_keep_them_until_they_end() {
    let mut book = book(2);
    let rows = book.look(vec![live(1, 10), live(2, 30), live(3, 20)], at(1));
    assert_eq!(ids(&rows), [2, 3]);
    assert_eq!(book.other, values(60), "rows begin with what was counted");
    // The first is the busiest now, and there is no room.
    let rows = book.look(vec![live(1, 1_000), live(2, 30), live(3, 20)], at(2));
    assert_eq!(ids(&rows), [2, 3]);
    assert_eq!(book.other, values(60 + 990));
    book.close(AllocationId(2), &values(35));
    assert_eq!(book.other, values(60 + 990 + 5), "nobody has seen the last");
    let rows = book.look(vec![live(1, 1_001), live(3, 20), live(4, 0)], at(3));
    assert_eq!(ids(&rows), [1, 3]);
    assert_eq!(
        rows.iter().find(|row| id(row) == 1).unwrap().values,
        values(1_001)
    );
    assert_eq!(book.other, values(60 + 990 + 5 + 1));
}

#[test]
fn what_lived_between_two_scrapes_is_in_the_other_row() {
    let mut book = book(10);
    book.look(vec![live(1, 5)], at(1));
    book.close(AllocationId(2), &values(7));
    book.close(AllocationId(1), &values(5));
    assert_eq!(book.other, values(12));
    assert!(book.known.is_empty());
}

#[test]
fn without_room_everything_is_in_the_other_row() {
    let mut book = book(0);
    assert!(book.look(vec![live(1, 5), live(2, 6)], at(1)).is_empty());
    assert_eq!(book.other, values(11));
}

#[test]
fn with_less_room_than_before_rows_stay_until_their_ends() {
    let mut book = book(3);
    book.look(vec![live(1, 1), live(2, 2), live(3, 3)], at(1));
    book.most = 1;
    let rows = book.look(vec![live(1, 1), live(2, 2), live(4, 9)], at(2));
    assert_eq!(ids(&rows), [1, 2]);
    let rows = book.look(vec![live(4, 9)], at(3));
    assert_eq!(ids(&rows), [4]);
}

#[test]
fn an_allocation_whose_end_nobody_told_is_forgotten() {
    let mut book = book(1);
    book.look(vec![live(1, 5)], at(1));
    book.look(Vec::new(), at(2));
    book.look(Vec::new(), at(61));
    assert_eq!(book.known.len(), 1);
    book.look(Vec::new(), at(62));
    assert!(book.known.is_empty());
}

/// However seldom somebody scrapes, what is in an allocation's own row is not in the other one too.
#[test]
fn an_end_that_is_told_after_a_scrape_has_missed_the_allocation_counts_once() {
    let mut book = book(1);
    book.look(vec![live(1, 5)], at(1));
    book.look(Vec::new(), at(301));
    book.close(AllocationId(1), &values(7));
    assert_eq!(book.other, values(7));
}

#[test]
fn a_client_that_comes_another_way_gets_another_row() {
    let mut book = book(1);
    book.look(vec![live(1, 5)], at(1));
    let moved = Live {
        transport: Transport::Tcp,
        ..live(1, 9)
    };
    let rows = book.look(vec![moved], at(2));
    assert!(rows[0].labels.contains("transport=\"tcp\""));
    assert_eq!((rows[0].values, book.other), (values(9), values(9)));
}

#[test]
fn series_of_media_begin_with_the_first_stream_and_what_it_had_is_in_the_other_row() {
    let mut book = book(1);
    let rows = book.look(vec![with(1, heard(5, 0))], at(1));
    assert!(!rows[0].tells_of_media());
    assert_eq!(book.other, heard(5, 0));
    let rows = book.look(vec![with(1, heard(9, 3))], at(2));
    assert!(rows[0].tells_of_media());
    assert_eq!((rows[0].values, book.other), (heard(9, 3), heard(5, 3)));
    book.look(vec![with(1, heard(20, 10))], at(3));
    assert_eq!(book.other, heard(5, 3), "the row has what came since");
    book.close(AllocationId(1), &heard(21, 11));
    assert_eq!(book.other, heard(6, 4));
}

/// What Prometheus makes of scrapes: how much each family's series grew between two of them.
#[derive(Default)]
struct Scraper {
    last: BTreeMap<String, u64>,
    increase: BTreeMap<&'static str, u64>,
}

impl Scraper {
    fn scrape(&mut self, rows: Vec<Row>, other: Values) {
        let counters = FAMILIES.iter().map(|family| family.name);
        let counters: Vec<_> = counters.filter(|name| name.ends_with("_total")).collect();
        let mut now = BTreeMap::new();
        for line in Page::new(rows, 0, other).collect::<String>().lines() {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let name = series.split('{').next().unwrap();
            let Some(name) = counters.iter().find(|counter| **counter == name) else {
                continue;
            };
            // Of seconds only whole ones are made here.
            let value = value.split('.').next().unwrap().parse().unwrap();
            // It knows nothing of what was before the first sample, which `other` has from the start.
            let is_other = series.contains("\"other\"");
            let begin = if is_other { 0 } else { value };
            let before = *self.last.get(series).unwrap_or(&begin);
            assert!(value >= before, "{series} went backwards");
            *self.increase.entry(name).or_default() += value - before;
            let twice = now.insert(series.to_owned(), value);
            assert_eq!(twice, None, "{series} twice");
        }
        self.last = now;
    }

    fn increase(&self, name: &str) -> u64 {
        self.increase.get(name).copied().unwrap_or_default()
    }

    /// Which allocations have rows.
    fn ids(&self) -> BTreeSet<u64> {
        let ids = self.last.keys().filter_map(|series| {
            let labels = series.strip_prefix("taciturn_allocation_packets_total{")?;
            u64::from_str_radix(labels.split('"').nth(1)?, 16).ok()
        });
        ids.collect()
    }
}

#[derive(Debug, Clone)]
enum Step {
    Open,
    Relay(prop::sample::Index, u16),
    /// So many packets of a stream come, and so many were lost before.
    Hear(prop::sample::Index, u16, u16),
    Close(prop::sample::Index),
    Scrape,
}

fn step() -> impl Strategy<Value = Step> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        2 => Just(Step::Open),
        4 => (index(), any::<u16>()).prop_map(|(i, n)| Step::Relay(i, n)),
        4 => (index(), any::<u16>(), any::<u16>()).prop_map(|(i, n, l)| Step::Hear(i, n, l)),
        1 => index().prop_map(Step::Close),
        2 => Just(Step::Scrape),
    ]
}

/// An allocation, and all of them together.
fn count(one: &mut Values, all: &mut Values, amounts: &[(Count, Direction, u64)]) {
    let mut more = Values::default();
    for (count, direction, amount) in amounts {
        more.set(*count, *direction, *amount);
    }
    one.add(&more);
    all.add(&more);
}

proptest! {
    /// However allocations come, relay and go: the increases of all rows are what was relayed and
    /// heard, no counter goes backwards, and who has a row keeps it.
    #[test]
    fn the_increases_of_all_rows_add_up_to_what_was_relayed(
        most in 0_usize..5,
        steps in prop::collection::vec(step(), 1..200),
    ) {
        let mut book = book(most);
        let mut scraper = Scraper::default();
        let mut open: Vec<(u64, Values)> = Vec::new();
        let (mut made, mut all) = (0, Values::default());
        for (second, step) in (1..).zip(steps.into_iter().chain([Step::Scrape])) {
            match step {
                Step::Open => {
                    made += 1;
                    open.push((made, Values::default()));
                }
                Step::Relay(index, amount) if !open.is_empty() => {
                    let one = &mut index.get_mut(&mut open).1;
                    let amount = u64::from(amount);
                    count(one, &mut all, &[
                        (Count::Bytes, Direction::In, amount),
                        (Count::Drops, Direction::Out, amount / 2),
                    ]);
                }
                Step::Hear(index, came, lost) if !open.is_empty() => {
                    let one = &mut index.get_mut(&mut open).1;
                    let (came, lost) = (u64::from(came), u64::from(lost));
                    count(one, &mut all, &[
                        (Count::Media, Direction::Out, came),
                        (Count::MediaExpected, Direction::Out, came + lost),
                        (Count::MediaGapNanos, Direction::In, lost * 1_000_000_000),
                    ]);
                }
                Step::Close(index) if !open.is_empty() => {
                    let (id, values) = open.swap_remove(index.index(open.len()));
                    book.close(AllocationId(id), &values);
                }
                Step::Relay(..) | Step::Hear(..) | Step::Close(_) => {}
                Step::Scrape => {
                    let before = scraper.ids();
                    let live = open.iter().map(|(id, values)| with(*id, *values)).collect();
                    let rows = book.look(live, at(second));
                    scraper.scrape(rows, book.other);
                    let ids = scraper.ids();
                    prop_assert!(ids.len() == most.min(open.len()));
                    for (id, _) in &open {
                        let keeps = !before.contains(id) || ids.contains(id);
                        prop_assert!(keeps, "{} lost its row", id);
                    }
                }
            }
        }
        for family in FAMILIES {
            let (expected, unit) = match family.says {
                Says::Count(count) => (all.get(count), 1),
                Says::Seconds(count) => (all.get(count), 1_000_000_000),
                Says::Age | Says::Jitter => continue,
            };
            let expected = expected.iter().sum::<u64>() / unit;
            prop_assert_eq!(scraper.increase(family.name), expected, "{}", family.name);
        }
    }
}

#[test]
fn a_page_is_written_in_pieces_of_bounded_length() {
    let with_media = |id: u64| with(id, heard(id, id % 2));
    let live = (1..=2_000).map(with_media).collect();
    let book = &mut book(2_000);
    let rows = book.look(live, at(1));
    let pieces: Vec<String> = Page::new(rows, 0, book.other).collect();
    assert!(pieces.len() > 5);
    assert!(pieces.iter().all(|piece| piece.len() < PIECE + 1_024));
    let whole = pieces.concat();
    for family in FAMILIES {
        let begun = format!("# TYPE {} ", family.name);
        assert_eq!(whole.matches(&begun).count(), 1, "{}", family.name);
    }
    let rows = whole.lines().filter(|line| !line.starts_with('#')).count();
    // Three families of all and an age, five of those with media and a jitter.
    assert_eq!(rows, 2 + 2_001 * 6 + 2_000 + 1_001 * 10 + 2_000);
    assert!(whole.ends_with('\n'));
}

#[test]
fn times_are_told_in_seconds_to_the_last_nanosecond() {
    let mut values = heard(1, 1);
    values.set(Count::MediaGapNanos, Direction::Out, 12_000_000_003);
    let mut one = with(1, values);
    one.state.jitter = [Duration::from_micros(1_500), Duration::ZERO];
    let rows = book(1).look(vec![one], at(1));
    let page: String = Page::new(rows, 0, Values::default()).collect();
    for (name, direction, value) in [
        ("gap_seconds_total", "in", "0.000000000"),
        ("gap_seconds_total", "out", "12.000000003"),
        ("jitter_seconds", "in", "0.001500000"),
        ("jitter_seconds", "out", "0.000000000"),
    ] {
        let labels = "allocation=\"0000000000000001\",call=\"\",tenant=\"\",transport=\"udp\"";
        let series = format!("taciturn_allocation_media_{name}{{{labels}");
        let line = format!("\n{series},direction=\"{direction}\"}} {value}\n");
        assert!(page.contains(&line), "{line} in {page}");
    }
    let jitters = page.matches("\ntaciturn_allocation_media_jitter_seconds{");
    assert_eq!(jitters.count(), 2, "the other row has none");
}
