//! `taciturn top`: a live view of the daemon of this machine, in a terminal. `model` is what it shows
//! and `view` how; here are the terminal and the thread that asks the daemon. It knows allocations,
//! users and calls by the pseudonyms of the API and nothing else.

mod model;
mod view;

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use anyhow::{Context, bail};
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use tokio::signal::unix::{SignalKind, signal};

use crate::daemon::cli::Top;
use crate::daemon::control::{self, Client, percent_encoded};
use crate::dataplane::sys;

use model::{Allocation, Deed, Key, Model, Poll};

/// How long a key may wait before it does something.
const TURN: Duration = Duration::from_millis(100);

/// Shows what goes on until q is pressed.
///
/// # Errors
/// When there is no terminal or no daemon.
pub(crate) fn run(arguments: &Top) -> anyhow::Result<()> {
    if !std::io::stdin().is_terminal() || !std::io::stdout().is_terminal() {
        bail!("top needs a terminal; `taciturn status` and `taciturn allocations` are for scripts");
    }
    let client = Client::new(&arguments.at.socket);
    // Before the screen changes, so that an error stands where it is read.
    let first = look(&client)?;
    let is_over = terminated()?;
    let (orders, from_view) = channel();
    let (to_view, told) = channel();
    let interval = arguments.interval;
    std::thread::spawn(move || ask(&client, interval, &from_view, &to_view));
    // From here on a panic leaves the terminal as it was, too.
    let mut terminal = ratatui::try_init().context("the terminal cannot be used")?;
    let outcome = watch(&mut terminal, Model::new(first), &is_over, &orders, &told);
    ratatui::try_restore().context("the terminal cannot be put back")?;
    outcome
}

/// What the thread that asks has to say.
enum Told {
    Found(Box<Poll>),
    /// The daemon did not answer.
    Lost(String),
    /// What came of ending an allocation.
    Ended(String),
}

fn watch(
    terminal: &mut DefaultTerminal,
    mut model: Model,
    is_over: &AtomicBool,
    orders: &Sender<String>,
    told: &Receiver<Told>,
) -> anyhow::Result<()> {
    while !is_over.load(Ordering::Relaxed) {
        terminal.draw(|frame| view::draw(frame, &model))?;
        for news in told.try_iter() {
            match news {
                Told::Found(poll) => {
                    model.lost = None;
                    model.take(*poll);
                }
                Told::Lost(text) => model.lost = Some(text),
                Told::Ended(text) => model.notice = Some(text),
            }
        }
        let mut wait = TURN;
        while event::poll(wait)? {
            wait = Duration::ZERO;
            let Some(key) = key_of(&event::read()?) else {
                continue;
            };
            match model.press(key) {
                Deed::Nothing => {}
                Deed::Quit => return Ok(()),
                Deed::End(id) => {
                    model.notice = Some(format!("ending {id}"));
                    orders.send(id).context("nobody asks the daemon any more")?;
                }
            }
        }
    }
    Ok(())
}

/// A key that does something.
fn key_of(event: &Event) -> Option<Key> {
    let Event::Key(key) = event else {
        return None;
    };
    if key.kind == KeyEventKind::Release {
        return None;
    }
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        return (key.code == KeyCode::Char('c')).then_some(Key::Interrupt);
    }
    let plain = [
        (KeyCode::Up, Key::Up),
        (KeyCode::Down, Key::Down),
        (KeyCode::PageUp, Key::PageUp),
        (KeyCode::PageDown, Key::PageDown),
        (KeyCode::Home, Key::Home),
        (KeyCode::End, Key::End),
        (KeyCode::Enter, Key::Enter),
        (KeyCode::Esc, Key::Escape),
        (KeyCode::Backspace, Key::Backspace),
        (KeyCode::Delete, Key::Delete),
    ];
    if let KeyCode::Char(letter) = key.code {
        return Some(Key::Char(letter));
    }
    let mut known = plain.iter();
    known.find_map(|(code, means)| (*code == key.code).then_some(*means))
}

/// Becomes true on SIGTERM, SIGHUP and SIGINT, so that the terminal is put back.
fn terminated() -> anyhow::Result<Arc<AtomicBool>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot wait for signals")?;
    let within = runtime.enter();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    drop(within);
    let is_over = Arc::new(AtomicBool::new(false));
    let tell = Arc::clone(&is_over);
    std::thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = hang_up.recv() => {}
                _ = interrupt.recv() => {}
            }
        });
        tell.store(true, Ordering::Relaxed);
    });
    Ok(is_over)
}

/// Asks the daemon once in an interval, and ends what is ordered, until nobody listens.
fn ask(client: &Client, interval: Duration, orders: &Receiver<String>, tell: &Sender<Told>) {
    loop {
        match orders.recv_timeout(interval) {
            Ok(id) => {
                if tell.send(Told::Ended(end(client, &id))).is_err() {
                    return;
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let news = match look(client) {
            Ok(poll) => Told::Found(Box::new(poll)),
            Err(error) => Told::Lost(format!("{error:#}")),
        };
        if tell.send(news).is_err() {
            return;
        }
    }
}

fn end(client: &Client, id: &str) -> String {
    let path = format!("/v1/allocations/{}", percent_encoded(id));
    match client.ask("DELETE", &path, None) {
        Ok(_) => format!("ended {id}; its client may make another"),
        Err(error) => format!("{id} was not ended: {error:#}"),
    }
}

/// All of what is shown.
fn look(client: &Client) -> anyhow::Result<Poll> {
    let other = "the daemon's answer is not understood; is it of this version?";
    let status = client.get("/v1/status")?;
    let allocations = control::every_allocation(client, "")?;
    let allocations: Result<Vec<Allocation>, _> = allocations
        .into_iter()
        .map(serde_json::from_value::<Allocation>)
        .collect();
    Ok(Poll {
        at: sys::monotonic_nanos(),
        now: sys::unix_seconds(),
        status: serde_json::from_value::<model::Status>(status).context(other)?,
        allocations: allocations.context(other)?,
    })
}

#[cfg(test)]
mod tests {
    use ratatui::crossterm::event::KeyEvent;

    use super::*;

    #[test]
    fn keys_are_what_they_say_and_ctrl_c_is_no_letter() {
        let pressed = |code, modifiers| key_of(&Event::Key(KeyEvent::new(code, modifiers)));
        let plain = |code| pressed(code, KeyModifiers::NONE);
        assert_eq!(plain(KeyCode::Char('q')), Some(Key::Char('q')));
        assert_eq!(plain(KeyCode::Up), Some(Key::Up));
        assert_eq!(plain(KeyCode::Delete), Some(Key::Delete));
        assert_eq!(plain(KeyCode::F(1)), None);
        let held = |letter| pressed(KeyCode::Char(letter), KeyModifiers::CONTROL);
        assert_eq!((held('c'), held('x')), (Some(Key::Interrupt), None));
        assert_eq!(key_of(&Event::Resize(1, 1)), None);
    }
}
