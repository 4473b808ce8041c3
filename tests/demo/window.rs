//! A call window as whoever looks at the page reads it.

use std::thread;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::Value;

/// How long a call may take to come about, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A page in a browser.
pub(crate) trait Ask {
    /// What an expression is worth on the page.
    fn ask(&mut self, expression: &str) -> Value;
}

/// Reads every window of the page, as it is shown.
const READ: &str = r#"[...document.querySelectorAll(".panel")].map((panel) => {
  const text = (selector) => panel.querySelector(selector).innerText.trim();
  const video = panel.querySelector("video.other");
  return {
    state: panel.dataset.state,
    way: text(".state"),
    verdict: panel.dataset.verdict,
    headline: text(".verdict"),
    addresses: [...panel.querySelectorAll(".address")].map((one) => one.innerText.trim()),
    from: text("[data-number=from]"),
    rate: text("[data-number=rate]"),
    loss: text("[data-number=loss]"),
    trip: text("[data-number=trip]"),
    picture: text("[data-number=picture]"),
    played: video.currentTime,
    width: video.videoWidth,
  };
})"#;

/// What one window shows.
#[derive(Debug, Deserialize)]
pub(crate) struct Window {
    /// What its connection says of itself.
    state: String,
    /// How the call goes, in the page's words.
    way: String,
    /// How bad it is what was learned.
    pub(crate) verdict: String,
    pub(crate) headline: String,
    /// Every address that was learned.
    pub(crate) addresses: Vec<String>,
    /// Whence media comes.
    pub(crate) from: String,
    rate: String,
    loss: String,
    trip: String,
    picture: String,
    /// Seconds of the other party's video.
    played: f64,
    width: u32,
}

impl Window {
    /// Whether the other party is seen, and everything is measured that the page measures.
    fn is_in_a_call(&self, way: &str) -> bool {
        let is_number = |text: &str| text.starts_with(|c: char| c.is_ascii_digit() || c == '<');
        self.state == "connected"
            && self.way == way
            && self.played > 0.0
            && self.width > 0
            && is_number(&self.rate)
            && self.rate != "0 kbit/s"
            && self.loss.ends_with(" %")
            && is_number(&self.trip)
            && self.picture.contains('×')
    }
}

/// The windows of the page once all of them are in a call that goes this way, and `is_whole` of each.
pub(crate) fn calling(
    page: &mut impl Ask,
    way: &str,
    is_whole: impl Fn(&Window) -> bool,
) -> Vec<Window> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let windows: Vec<Window> =
            serde_json::from_value(page.ask(READ)).expect("a window shows all of this");
        let is_on = |window: &Window| window.is_in_a_call(way) && is_whole(window);
        if !windows.is_empty() && windows.iter().all(is_on) {
            return windows;
        }
        assert!(Instant::now() < deadline, "no call, {way}: {windows:#?}");
        thread::sleep(Duration::from_millis(200));
    }
}
