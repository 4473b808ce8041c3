use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn at(seconds: u64) -> Tick {
    Tick::default().plus(Duration::from_secs(seconds))
}

/// So many bytes came from the client, in as many packets; as many are dropped on the way out.
fn values(amount: u64) -> Values {
    Values {
        packets: [amount, 0],
        bytes: [amount, 0],
        drops: [0, amount],
    }
}

fn live(id: u64, amount: u64) -> Live {
    Live {
        id: AllocationId(id),
        transport: Transport::Udp,
        values: values(amount),
        age: 1,
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
    book.look(Vec::new(), at(60));
    assert_eq!(book.known.len(), 1);
    book.look(Vec::new(), at(61));
    assert!(book.known.is_empty());
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

/// What Prometheus makes of scrapes: by series, how much it grew between two of them.
#[derive(Default)]
struct Scraper {
    last: BTreeMap<Arc<str>, u64>,
    other: u64,
    increase: u64,
}

impl Scraper {
    fn scrape(&mut self, rows: &[Row], other: &Values) {
        let now: BTreeMap<_, _> = rows
            .iter()
            .map(|row| (Arc::clone(&row.labels), row.values.traffic()))
            .collect();
        assert_eq!(now.len(), rows.len(), "a row twice");
        for (labels, value) in &now {
            // It knows nothing of what was before the first sample.
            let before = self.last.get(labels).unwrap_or(value);
            assert!(value >= before, "a counter went backwards");
            self.increase += value - before;
        }
        assert!(other.traffic() >= self.other, "other went backwards");
        self.increase += other.traffic() - self.other;
        (self.last, self.other) = (now, other.traffic());
    }
}

#[derive(Debug, Clone)]
enum Step {
    Open,
    Relay(prop::sample::Index, u16),
    Close(prop::sample::Index),
    Scrape,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => Just(Step::Open),
        6 => (any::<prop::sample::Index>(), any::<u16>()).prop_map(|(i, n)| Step::Relay(i, n)),
        1 => any::<prop::sample::Index>().prop_map(Step::Close),
        2 => Just(Step::Scrape),
    ]
}

proptest! {
    /// However allocations come, relay and go: the increases of all rows are what was relayed, no
    /// counter goes backwards, and who has a row keeps it.
    #[test]
    fn the_increases_of_all_rows_add_up_to_what_was_relayed(
        most in 0_usize..5,
        steps in prop::collection::vec(step(), 1..200),
    ) {
        let mut book = book(most);
        let mut scraper = Scraper::default();
        let mut open: Vec<(u64, u64)> = Vec::new();
        let (mut made, mut relayed) = (0, 0);
        for (second, step) in (1..).zip(steps.into_iter().chain([Step::Scrape])) {
            match step {
                Step::Open => {
                    made += 1;
                    open.push((made, 0));
                }
                Step::Relay(index, amount) if !open.is_empty() => {
                    index.get_mut(&mut open).1 += u64::from(amount);
                    relayed += u64::from(amount);
                }
                Step::Close(index) if !open.is_empty() => {
                    let (id, amount) = open.swap_remove(index.index(open.len()));
                    book.close(AllocationId(id), &values(amount));
                }
                Step::Relay(..) | Step::Close(_) => {}
                Step::Scrape => {
                    let before: Vec<u64> = scraper.last.keys().map(|labels| {
                        u64::from_str_radix(labels.split('"').nth(1).unwrap(), 16).unwrap()
                    }).collect();
                    let all = open.iter().map(|(id, amount)| live(*id, *amount)).collect();
                    let rows = book.look(all, at(second));
                    let ids = ids(&rows);
                    prop_assert!(ids.len() == most.min(open.len()));
                    for id in before.iter().filter(|id| open.iter().any(|(o, _)| o == *id)) {
                        prop_assert!(ids.contains(id), "{} lost its row", id);
                    }
                    scraper.scrape(&rows, &book.other);
                }
            }
        }
        prop_assert_eq!(scraper.increase, relayed);
    }
}

fn page(rows: usize) -> Page {
    let book = &mut book(rows);
    let all = (1..=rows as u64).map(|id| live(id, id)).collect();
    let mut rows = book.look(all, at(1));
    rows.push(Row {
        labels: OTHER.into(),
        values: book.other,
        age: None,
    });
    Page {
        own: rows.len() - 1,
        other: 0,
        rows,
        family: 0,
        row: 0,
    }
}

#[test]
fn a_page_is_written_in_pieces_of_bounded_length() {
    let pieces: Vec<String> = page(2_000).collect();
    assert!(pieces.len() > 5);
    assert!(pieces.iter().all(|piece| piece.len() < PIECE + 1_024));
    let whole = pieces.concat();
    for family in FAMILIES {
        let begun = format!("# TYPE {} ", family.name);
        assert_eq!(whole.matches(&begun).count(), 1, "{}", family.name);
    }
    let rows = whole.lines().filter(|line| !line.starts_with('#')).count();
    assert_eq!(rows, 2 + 2_001 * 6 + 2_000);
    assert!(whole.ends_with('\n'));
}
