//! Certificates that are renewed while the daemon runs: their files are looked at every ten
//! seconds by their paths, so that a directory or a link that is swapped under them counts as well
//! as a file that is written, and at once on SIGHUP. Files of other names come with other settings
//! (`reload.rs`).

use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::Signal;

use tokio::sync::watch;

use crate::config::Settings;
use crate::dataplane::sys;
use crate::dataplane::tls::{TlsError, TlsKeys};

/// How often the files are looked at.
const TURN: Duration = Duration::from_secs(10);

/// Why the files are looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cause {
    /// It is time.
    Turn,
    /// The operator asked.
    Hangup,
}

/// Whose certificates they are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whose {
    /// Of the listeners of TLS and DTLS.
    Listeners,
    /// Of the API.
    Api,
}

impl Whose {
    fn keys(self, settings: &Settings) -> Option<Arc<TlsKeys>> {
        let keys = match self {
            Self::Listeners => settings.tls.keys.as_ref(),
            Self::Api => settings.api.tls.as_ref().map(|tls| &tls.keys),
        };
        keys.map(Arc::clone)
    }
}

/// What was read from other files, to be served in the place of what is.
#[derive(Debug)]
pub(crate) struct Renewal {
    served: Arc<TlsKeys>,
    read: Arc<TlsKeys>,
}

impl Renewal {
    /// Puts what is served in the place of what was read, so that whoever has it serves on; what is
    /// left to be done is returned. Files of the same names are left to [`follow`].
    pub(crate) fn of(served: &Arc<TlsKeys>, read: &mut Arc<TlsKeys>) -> Option<Self> {
        let read = std::mem::replace(read, Arc::clone(served));
        let has_other_files = read.files() != served.files();
        has_other_files.then(|| Self {
            served: Arc::clone(served),
            read,
        })
    }

    /// Serves it.
    pub(crate) fn take_up(self) {
        if self.served.take_over(&self.read) {
            tell_of_new(&self.served);
        }
    }
}

/// Keeps certificates in step with their files, for ever. Bad files are told of once, and the
/// certificates from before stay.
pub(crate) async fn follow(
    whose: Whose,
    settings: watch::Receiver<Arc<Settings>>,
    mut hangups: Signal,
) {
    let mut turns = tokio::time::interval(TURN);
    turns.tick().await;
    let mut told = None;
    loop {
        let cause = tokio::select! {
            _ = turns.tick() => Cause::Turn,
            _ = hangups.recv() => Cause::Hangup,
        };
        let keys = whose.keys(&settings.borrow());
        let Some(keys) = &keys else {
            if cause == Cause::Hangup && whose == Whose::Listeners {
                tracing::info!("SIGHUP: there are no certificates to read again");
            }
            continue;
        };
        let reading = Arc::clone(keys);
        let outcome = tokio::task::spawn_blocking(move || reading.reload()).await;
        match outcome {
            Ok(outcome) => tell(keys, &outcome, cause, &mut told),
            Err(error) => tracing::error!("reading certificates ended in a panic: {error}"),
        }
    }
}

/// Writes down what came of it. `told` is the last problem that was written down.
fn tell(keys: &TlsKeys, outcome: &Result<bool, TlsError>, cause: Cause, told: &mut Option<String>) {
    match outcome {
        Ok(true) => {
            *told = None;
            tell_of_new(keys);
        }
        Ok(false) => {
            if told.take().is_some() {
                tracing::info!("the files of certificates are again what is served");
            } else if cause == Cause::Hangup {
                tracing::info!("SIGHUP: the certificates are the same");
            }
        }
        Err(error) => {
            let error = error.to_string();
            if cause == Cause::Hangup || told.as_ref() != Some(&error) {
                tracing::error!("the certificates from before are still served: {error}");
            }
            *told = Some(error);
        }
    }
}

fn tell_of_new(keys: &TlsKeys) {
    let now = sys::unix_seconds();
    for pair in keys.current().iter() {
        let certificate = pair.certificate();
        let names = certificate.names.join(", ");
        match certificate.days_left(now) {
            Some(days) => tracing::info!(%names, days, "a new certificate is served"),
            None => tracing::warn!(%names, "a new certificate is served, and has expired"),
        }
    }
}
