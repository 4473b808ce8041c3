use super::*;

const SECOND: u64 = 1_000_000_000;

fn allocation(id: &str, packets: u64) -> Allocation {
    Allocation {
        id: id.to_owned(),
        subject: format!("subject-of-{id}"),
        transport: "udp".to_owned(),
        opened: 100,
        received: Volume {
            packets,
            bytes: packets * 100,
        },
        ..Allocation::default()
    }
}

fn poll(second: u64, allocations: Vec<Allocation>) -> Poll {
    Poll {
        at: second * SECOND,
        now: 1_000 + second,
        status: Status {
            uptime: second,
            ..Status::default()
        },
        allocations,
    }
}

fn ids(model: &Model) -> Vec<&str> {
    let rows = model.visible().into_iter();
    rows.map(|row| row.allocation.id.as_str()).collect()
}

fn type_in(model: &mut Model, text: &str) {
    for letter in text.chars() {
        model.press(Key::Char(letter));
    }
}

#[test]
fn rates_are_the_difference_of_two_polls_over_the_time_between() {
    let mut model = Model::new(poll(1, vec![allocation("a", 10)]));
    assert_eq!(model.visible()[0].traffic, None);
    let mut second = poll(3, vec![allocation("a", 30), allocation("b", 5)]);
    second.allocations[0].dropped = 4;
    second.status.received = Volume {
        packets: 40,
        bytes: 1_000,
    };
    second.status.drops = BTreeMap::from([("no_channel".to_owned(), 6)]);
    model.take(second);
    let rows = model.visible();
    let wanted = Rate {
        packets: 10.0,
        bits: 8_000.0,
    };
    assert_eq!(rows[0].traffic, Some(wanted));
    assert_eq!(rows[0].drops, Some(2.0));
    assert_eq!(rows[0].age, 903);
    assert_eq!((rows[1].traffic, rows[1].drops), (None, None));
    assert_eq!(model.history.front(), Some(&(20, 4_000)));
    assert!((model.drops - 3.0).abs() < 1e-9);
}

#[test]
fn a_daemon_that_began_anew_gives_no_rates_at_first() {
    let mut model = Model::new(poll(5, vec![allocation("a", 10)]));
    let mut anew = poll(6, vec![allocation("a", 0)]);
    anew.status.began = 1;
    model.take(anew);
    assert_eq!(model.visible()[0].traffic, None);
    assert!(model.history.is_empty());
}

#[test]
fn workers_are_as_busy_as_their_time_says() {
    let mut first = poll(0, Vec::new());
    first.status.workers = vec![Worker { busy: 1.0 }, Worker { busy: 2.0 }];
    let mut second = poll(2, Vec::new());
    second.status.workers = vec![Worker { busy: 2.0 }, Worker { busy: 9.0 }];
    let mut model = Model::new(first);
    model.take(second);
    assert_eq!(model.busy, [0.5, 1.0]);
}

#[test]
fn loss_is_told_of_the_last_polls_alone() {
    let with = |lost: u64, packets: u64| {
        let streams = Streams { packets, lost };
        let mut one = allocation("a", packets);
        one.media = Some(Media {
            received: streams,
            sent: Streams::default(),
        });
        vec![one]
    };
    let mut model = Model::new(poll(0, with(50, 50)));
    assert_eq!(model.visible()[0].loss, Some(0.5));
    for second in 1..=11 {
        model.take(poll(second, with(50 + second, 50 + second * 99)));
    }
    let loss = model.visible()[0].loss.unwrap();
    assert!((loss - 0.01).abs() < 1e-9, "{loss}");
    assert_eq!(
        Model::new(poll(0, vec![allocation("a", 1)])).visible()[0].loss,
        None
    );
}

#[test]
fn each_order_begins_with_what_one_looks_for_and_can_be_reversed() {
    let made = |id: &str, opened: u64, path: &str, worker: u16| Allocation {
        opened,
        path: Some(path.to_owned()),
        worker,
        ..allocation(id, 0)
    };
    let all = vec![
        made("a", 300, "relay", 1),
        made("b", 100, "hairpin", 2),
        made("c", 200, "indication", 0),
    ];
    let mut model = Model::new(poll(0, all.clone()));
    let mut later = all;
    for (one, packets) in later.iter_mut().zip([5, 50, 500]) {
        one.received.bytes = packets;
    }
    later[0].media = Some(Media {
        received: Streams {
            packets: 1,
            lost: 1,
        },
        sent: Streams::default(),
    });
    model.take(poll(1, later));
    for (key, wanted) in [
        ('t', ["c", "b", "a"]),
        ('l', ["a", "c", "b"]),
        ('a', ["b", "c", "a"]),
        ('p', ["b", "c", "a"]),
        ('w', ["c", "a", "b"]),
    ] {
        model.press(Key::Char(key));
        assert_eq!(ids(&model), wanted, "{key}");
        assert_eq!(model.place(), 0);
        model.press(Key::Char('r'));
        let reversed: Vec<&str> = wanted.into_iter().rev().collect();
        assert_eq!(ids(&model), reversed, "{key}");
    }
}

#[test]
fn a_filter_takes_rows_in_which_every_word_stands() {
    let mut all = vec![
        allocation("aa", 0),
        allocation("ab", 0),
        allocation("cc", 0),
    ];
    all[1].tenant = Some("North".to_owned());
    all[2].worker = 7;
    let mut model = Model::new(poll(0, all));
    model.press(Key::Char('/'));
    type_in(&mut model, "a");
    // Of "subject-of-…" no a is one.
    assert_eq!(ids(&model), ["aa", "ab"]);
    type_in(&mut model, " north");
    assert_eq!(ids(&model), ["ab"]);
    // Keys of the table are letters here.
    assert_eq!(model.press(Key::Char('q')), Deed::Nothing);
    assert!(ids(&model).is_empty());
    model.press(Key::Backspace);
    model.press(Key::Enter);
    assert_eq!(
        (model.mode.clone(), ids(&model)),
        (Mode::Browse, vec!["ab"])
    );
    model.press(Key::Escape);
    assert_eq!(ids(&model).len(), 3);
    model.press(Key::Char('/'));
    type_in(&mut model, "w7");
    assert_eq!(ids(&model), ["cc"]);
}

#[test]
fn the_selection_stays_with_its_allocation_and_moves_on_when_that_ends() {
    let mut model = Model::new(poll(
        0,
        vec![allocation("a", 0), allocation("b", 0), allocation("c", 0)],
    ));
    model.press(Key::Down);
    assert_eq!(model.place(), 1);
    // Traffic puts it last.
    model.take(poll(
        1,
        vec![allocation("a", 9), allocation("b", 0), allocation("c", 9)],
    ));
    assert_eq!((ids(&model), model.place()), (vec!["a", "c", "b"], 2));
    model.take(poll(2, vec![allocation("a", 9), allocation("c", 9)]));
    assert_eq!(model.place(), 1);
    for key in [Key::Down, Key::End, Key::PageDown] {
        model.press(key);
        assert_eq!(model.place(), 1);
    }
    model.press(Key::Home);
    model.press(Key::Up);
    assert_eq!(model.place(), 0);
    model.take(poll(3, Vec::new()));
    for key in [Key::Down, Key::Up, Key::Char('x'), Key::End] {
        assert_eq!(model.press(key), Deed::Nothing);
    }
    assert_eq!(model.mode, Mode::Browse);
}

#[test]
fn an_allocation_is_ended_only_after_a_yes_and_it_is_the_one_that_was_asked_about() {
    let mut model = Model::new(poll(0, vec![allocation("a", 0), allocation("b", 0)]));
    model.press(Key::Char('x'));
    assert_eq!(model.mode, Mode::Ask("a".to_owned()));
    assert_eq!(model.press(Key::Enter), Deed::Nothing);
    assert_eq!(model.mode, Mode::Browse);
    model.press(Key::Char('x'));
    model.take(poll(1, vec![allocation("a", 0), allocation("b", 9)]));
    assert_eq!(model.press(Key::Char('y')), Deed::End("a".to_owned()));
}

#[test]
fn q_and_ctrl_c_quit_and_a_pause_holds_everything() {
    let mut model = Model::new(poll(0, vec![allocation("a", 0)]));
    model.press(Key::Char(' '));
    model.take(poll(1, Vec::new()));
    assert_eq!(ids(&model), ["a"]);
    model.press(Key::Char(' '));
    model.take(poll(2, Vec::new()));
    assert!(ids(&model).is_empty());
    model.press(Key::Char('?'));
    assert_eq!(model.mode, Mode::Help);
    model.press(Key::Char('q'));
    assert_eq!(model.press(Key::Char('q')), Deed::Quit);
    model.press(Key::Char('/'));
    assert_eq!(model.press(Key::Interrupt), Deed::Quit);
}
