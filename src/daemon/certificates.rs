//! Certificates that are renewed while the daemon runs: their files are looked at every ten
//! seconds by their paths, so that a directory or a link that is swapped under them counts as well
//! as a file that is written, and at once on SIGHUP.

use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::Signal;

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

/// Keeps certificates in step with their files, for ever. Bad files are told of once, and the
/// certificates from before stay.
pub(crate) async fn follow(keys: Option<Arc<TlsKeys>>, mut hangups: Signal) {
    let mut turns = tokio::time::interval(TURN);
    turns.tick().await;
    let mut told = None;
    loop {
        let cause = tokio::select! {
            _ = turns.tick() => Cause::Turn,
            _ = hangups.recv() => Cause::Hangup,
        };
        let Some(keys) = &keys else {
            if cause == Cause::Hangup {
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
