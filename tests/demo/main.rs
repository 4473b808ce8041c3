//! `taciturn demo` as a stranger meets it: it is started, its page opened in Chromium, and two
//! windows call each other there, through the relay and directly. What the page says is held
//! against what the browser's connections were given, which a script of this suite notes.
//!
//! With `TACITURN_DEMO_PICTURES=1` it renews `docs/demo-relay.png` and `docs/demo-direct.png`.

#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a test says why it cannot go on, and ends"
)]

#[expect(
    dead_code,
    reason = "of the lab its namespaces, processes and the search are used"
)]
#[path = "../lab/mod.rs"]
mod lab;

mod chromium;
mod firefox;
mod judgement;
mod window;

use std::path::Path;
use std::time::Duration;
use std::{fs, thread};

use chromium::{Chromium, Tab};
use firefox::Firefox;
use lab::process::Process;
use lab::search::{assert_nothing, in_text};
use lab::{Lab, Party};
use rustix::process::Signal;
use window::{Ask, calling};

/// The relay's address unless `--listen` names another.
const RELAY: &str = "127.0.34.78";
/// The page's unless `--page` does.
const PAGE: &str = "http://127.0.0.1:8081/";

/// A demo on Alice's machine.
struct Demo(Process);

impl Demo {
    fn start(lab: &Lab, arguments: &[&str]) -> Self {
        let alice = lab.party(Party::Alice);
        let mut command = alice.command(env!("CARGO_BIN_EXE_taciturn"));
        command
            .args(["demo", "--log-level", "trace"])
            .args(arguments);
        let mut demo = Process::spawn("demo", command, lab.directory());
        let page = demo.expect_line("    http", Duration::from_secs(20));
        assert_eq!(format!("http{page}"), PAGE);
        Self(demo)
    }

    /// Ends it; all that it wrote names no address of her machine.
    fn end(mut self) {
        assert!(self.0.stop(Signal::TERM).success());
        let written = self.0.written();
        let log = String::from_utf8_lossy(&written);
        assert!(log.contains("allocation opened"), "the log is not one");
        let found = in_text(Party::Alice.addresses(), &written);
        assert_nothing(&found, "in the relay's output");
    }
}

/// What the connections that are open on the page were given.
fn witnessed(page: &mut impl Ask) -> String {
    let given = page.ask("witnessed()");
    given.as_str().expect("the witness writes text").to_owned()
}

/// A call through the relay at `relay`: the page says so of each window, and it is so.
fn assert_hidden_behind(relay: &str, page: &mut impl Ask) {
    for window in calling(page, "relayed", |_| true) {
        assert_eq!(window.addresses, [relay], "{window:?}");
        assert_eq!(window.verdict, "good", "{window:?}");
        assert!(window.headline.starts_with("Only the relay"), "{window:?}");
        assert!(window.from.starts_with(relay), "{window:?}");
    }
    let given = witnessed(page);
    assert!(given.contains(relay), "the witness saw nothing: {given}");
    let found = in_text(Party::Alice.addresses(), given);
    assert_nothing(&found, "in what the connections were given");
}

/// The same at its usual address.
fn assert_hidden(page: &mut impl Ask) {
    assert_hidden_behind(RELAY, page);
}

/// A direct call with the camera allowed, after which the test picture is there again.
fn allow_the_camera(tab: &mut Tab) {
    let is_on = "document.querySelector('#camera').getAttribute('aria-pressed') === 'true'";
    tab.click("#camera");
    tab.ask(&format!(
        "(async () => {{ while (!({is_on})) await new Promise((done) => setTimeout(done, 50)); }})()"
    ));
    tab.click("#camera");
}

/// Keeps a picture of the page for the documentation, where the environment asks for it.
fn keep_picture(tab: &mut Tab, name: &str) {
    if std::env::var_os("TACITURN_DEMO_PICTURES").is_some() {
        // Until the bit rate has grown to what it stays at.
        thread::sleep(Duration::from_secs(8));
        let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
        fs::write(docs.join(name), tab.picture()).expect("docs/ is writable");
    }
}

#[test]
#[ignore = "needs root and Chromium; .ci/run runs it"]
fn through_the_relay_each_window_learns_its_address_alone_and_directly_the_others_own() {
    let lab = Lab::new(&["chromium"]);
    let demo = Demo::start(&lab, &[]);
    let mut browser = Chromium::start(&lab, Party::Alice, PAGE);
    let mut tab = browser.tab();
    tab.before_each_page(include_str!("witness.js"));
    tab.open(PAGE);
    assert_hidden(&mut tab);
    keep_picture(&mut tab, "demo-relay.png");

    let own = Party::Alice.addresses();
    tab.click("#way-direct");
    allow_the_camera(&mut tab);
    // A browser that has found a way need not tell of all its addresses.
    let windows = calling(&mut tab, "direct", |window| {
        let all = own.all().map(|address| address.to_string());
        all.iter().any(|one| window.addresses.contains(one))
    });
    assert_eq!(windows.len(), 2);
    for window in windows {
        assert_eq!(window.verdict, "bad", "{window:?}");
        assert!(window.headline.contains("own address"), "{window:?}");
        assert!(!window.from.contains(RELAY), "{window:?}");
    }
    let found = in_text(own, witnessed(&mut tab));
    assert!(!found.is_empty(), "the witness is blind");
    keep_picture(&mut tab, "demo-direct.png");

    // What was learned belongs to the call before.
    tab.click("#way-relay");
    assert_hidden(&mut tab);
    assert_eq!(tab.complaints(), Vec::<String>::new());
    browser.quit();
    demo.end();
}

#[test]
#[ignore = "needs root and Chromium; .ci/run runs it"]
fn two_tabs_call_each_other_and_change_the_way_together() {
    let lab = Lab::new(&["chromium"]);
    let demo = Demo::start(&lab, &[]);
    let mut browser = Chromium::start(&lab, Party::Alice, PAGE);
    let [mut a, mut b] = ["a", "b"].map(|party| {
        let mut tab = browser.tab();
        tab.before_each_page(include_str!("witness.js"));
        tab.open(&format!("{PAGE}?party={party}"));
        tab
    });
    assert_hidden(&mut a);
    assert_hidden(&mut b);
    b.click("#way-direct");
    for tab in [&mut a, &mut b] {
        let windows = calling(tab, "direct", |window| window.verdict == "bad");
        assert_eq!(windows.len(), 1);
    }
    a.click("#way-relay");
    assert_hidden(&mut a);
    assert_hidden(&mut b);
    for tab in [&mut a, &mut b] {
        assert_eq!(tab.complaints(), Vec::<String>::new());
    }
    browser.quit();
    demo.end();
}

/// Firefox takes no relay on loopback.
#[test]
#[ignore = "needs root and Firefox; .ci/run runs it"]
fn firefox_calls_through_a_relay_at_an_address_of_the_network_and_tells_nothing_of_its_own() {
    const LISTEN: &str = "203.0.113.9";
    let lab = Lab::new(&["firefox-esr"]);
    let alice = lab.party(Party::Alice);
    alice.ip(&["address", "add", &format!("{LISTEN}/32"), "dev", "eth0"]);
    let demo = Demo::start(&lab, &["--listen", LISTEN]);
    let mut firefox = Firefox::start(&lab, Party::Alice);
    firefox.before_each_page(include_str!("witness.js"));
    firefox.open(PAGE);
    assert_hidden_behind(LISTEN, &mut firefox);
    firefox.quit();
    demo.end();
}
