use ratatui::Terminal;
use ratatui::backend::TestBackend;
use serde_json::json;

use super::super::model::{Key, Poll};
use super::*;

const SECOND: u64 = 1_000_000_000;

/// What was found in a second of two parties of a call.
fn poll(second: u64) -> Poll {
    let volume = |packets: u64| json!({ "packets": packets, "bytes": packets * 1_000 });
    let party = |id: &str, worker: u16, packets: u64, lost: u64| {
        json!({
            "id": id, "subject": "5ab1ec7000000000000000000000abcd", "call": "ca11000000000000",
            "tenant": "north", "transport": "udp", "path": "hairpin", "worker": worker,
            "opened": 1_000, "received": volume(packets), "sent": volume(packets), "dropped": second,
            "media": {
                "received": { "packets": packets, "lost": lost },
                "sent": { "packets": packets, "lost": lost },
            },
        })
    };
    let parties = json!([
        party("aaaaaaaaaaaaaaaa", 0, second * 50, 0),
        party("bbbbbbbbbbbbbbbb", 1, second * 5_000, second * 500),
    ]);
    let status = json!({
        "version": "1.2.3", "ready": true, "began": 1_000, "uptime": 7_200 + second, "imbalance": 1.25,
        "received": volume(second * second * 100), "sent": volume(second * second * 100),
        "drops": { "malformed": second * 3 },
        "workers": [{ "busy": 0.25 * second as f64 }, { "busy": 0.9 * second as f64 }],
    });
    Poll {
        at: second * SECOND,
        now: 1_000 + 90 * 60 + second,
        status: serde_json::from_value(status).unwrap(),
        allocations: serde_json::from_value(parties).unwrap(),
    }
}

fn model() -> Model {
    let mut model = Model::new(poll(1));
    for second in 2..=10 {
        model.take(poll(second));
    }
    model
}

/// The screen, line by line, without the blanks at the ends.
fn screen(model: &Model, width: u16, height: u16) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, model)).unwrap();
    let buffer = terminal.backend().buffer();
    let line = |y: u16| {
        let cells = (0..width).map(|x| buffer[(x, y)].symbol());
        cells.collect::<String>().trim_end().to_owned()
    };
    (0..height).map(line).collect()
}

#[test]
fn a_wide_screen_has_every_column() {
    let wanted = [
        "taciturn 1.2.3  ready  up 2h00m  2 allocations  3 drops/s  imbalance 1.2",
        "workers  0: 25% 1: 90%",
        "allocation       user         call         tenant     via  path       worker    age    pps  bit/s   loss drop/s",
        "bbbbbbbbbbbbbbbb 5ab1ec700000 ca1100000000 north      udp  hairpin         1  1h30m    10k    80M   9.1%      1",
        "aaaaaaaaaaaaaaaa 5ab1ec700000 ca1100000000 north      udp  hairpin         0  1h30m    100   800k   0.0%      1",
        "",
        "",
        "q quit  ? help  t l a p w sort  r reverse  / filter  x end one",
    ];
    assert_eq!(screen(&model(), 115, 8), wanted);
}

#[test]
fn a_tall_screen_has_charts_whose_latest_is_at_the_right() {
    let lines = screen(&model(), 80, 20);
    assert!(
        lines[2].contains("packets/s 3.8k, at most 3.8k"),
        "{lines:#?}"
    );
    assert!(lines[2].contains("bit/s 30M, at most 30M"), "{lines:#?}");
    let bottom: Vec<char> = lines[6].chars().collect();
    // Nine rates that grow, behind blanks; the frame is at 39.
    assert!(bottom[1..30].iter().all(|cell| *cell == ' '), "{lines:#?}");
    assert_eq!(bottom[38], '█', "{lines:#?}");
    assert_eq!(lines[3].chars().nth(38), Some('█'), "{lines:#?}");
    assert_ne!(lines[3].chars().nth(37), Some('█'), "{lines:#?}");
}

#[test]
fn a_narrow_screen_keeps_what_matters_most() {
    let lines = screen(&model(), 24, 4);
    assert_eq!(lines[0], "allocation        bit/s");
    assert_eq!(lines[1], "bbbbbbbbbbbbbbbb    80M");
    let lines = screen(&model(), 40, 2);
    assert_eq!(lines[0], "allocation          age    pps  bit/s");
}

#[test]
fn no_screen_is_too_small() {
    let mut model = model();
    for mode in [
        Mode::Browse,
        Mode::Filter,
        Mode::Help,
        Mode::Ask("a".to_owned()),
    ] {
        model.mode = mode;
        for width in [1, 2, 3, 5, 16, 17, 49, 51, 300] {
            for height in [1, 2, 3, 4, 7, 8, 15, 16, 100] {
                assert_eq!(screen(&model, width, height).len(), usize::from(height));
            }
        }
    }
}

#[test]
fn the_footer_asks_before_it_ends_and_shows_what_is_filtered() {
    let mut model = model();
    let foot = |model: &Model| screen(model, 80, 10).pop().unwrap();
    model.press(Key::Char('x'));
    assert_eq!(foot(&model), "end allocation bbbbbbbbbbbbbbbb? y/n");
    model.press(Key::Char('n'));
    model.press(Key::Char('/'));
    model.press(Key::Char('a'));
    model.press(Key::Char('a'));
    assert_eq!(foot(&model), "filter: aa_");
    model.press(Key::Enter);
    assert!(foot(&model).starts_with("filter: aa  q quit"));
    let lines = screen(&model, 80, 10);
    assert!(
        lines.iter().any(|line| line.starts_with("aaaa")),
        "{lines:#?}"
    );
    assert!(
        !lines.iter().any(|line| line.starts_with("bbbb")),
        "{lines:#?}"
    );
    model.press(Key::Char('?'));
    assert!(
        screen(&model, 80, 20)
            .iter()
            .any(|line| line.contains("choose an allocation"))
    );
}

#[test]
fn the_selection_is_on_the_screen_however_far_down_it_is() {
    let mut many = poll(1);
    let one = many.allocations[0].clone();
    many.allocations = (0..100)
        .map(|number| {
            let mut one = one.clone();
            one.id = format!("{number:016}");
            one
        })
        .collect();
    let mut model = Model::new(many);
    model.press(Key::End);
    let lines = screen(&model, 60, 10);
    assert!(lines[8].starts_with(&format!("{:016}", 99)), "{lines:#?}");
    model.press(Key::Home);
    let lines = screen(&model, 60, 10);
    assert!(lines[3].starts_with(&format!("{:016}", 0)), "{lines:#?}");
}

#[test]
fn numbers_and_ages_have_few_letters() {
    for (number, wanted) in [
        (0.0, "0"),
        (999.0, "999"),
        (999.6, "1.0k"),
        (1_234.0, "1.2k"),
        (12_345.0, "12k"),
        (999_400.0, "999k"),
        (999_900.0, "1.0M"),
        (4.2e9, "4.2G"),
        (8e12, "8T"),
    ] {
        assert_eq!(short(Some(number)), wanted);
    }
    for (seconds, wanted) in [
        (7, "7s"),
        (61, "1m01s"),
        (7_261, "2h01m"),
        (200_000, "2d07h"),
    ] {
        assert_eq!(age(seconds), wanted);
    }
    assert!(age(u64::MAX).len() <= 7);
}
