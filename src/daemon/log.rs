//! Where log events go: to the journal under systemd, else to standard error, as text for a person
//! at a terminal and as JSON for everything else. Below `warn` only the daemon's own targets are
//! shown, since a library does not know which of its fields is an endpoint's address.

use std::fs;
use std::io::IsTerminal;
use std::os::unix::fs::MetadataExt;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, reload};

use crate::admin::api::AUDIT;
use crate::config::{Log, LogFormat};

/// The layer that writes to standard error.
type Stderr = tracing_subscriber::fmt::Layer<
    Registry,
    tracing_subscriber::fmt::format::DefaultFields,
    tracing_subscriber::fmt::format::Format,
    fn() -> std::io::Stderr,
>;

/// The journal, if that is where standard error goes: systemd says which file that is in
/// `JOURNAL_STREAM` (systemd.exec(5)), and whoever redirected it since did so on purpose.
fn journal() -> Option<tracing_journald::Layer> {
    let named = std::env::var("JOURNAL_STREAM").ok()?;
    let (device, inode) = named.split_once(':')?;
    let stderr = fs::metadata("/proc/self/fd/2").ok()?;
    let is_stderr = device.parse() == Ok(stderr.dev()) && inode.parse() == Ok(stderr.ino());
    if !is_stderr {
        return None;
    }
    let layer = tracing_journald::layer().ok()?;
    // Fields as they are called in every other format, not F_-prefixed.
    Some(
        layer
            .with_field_prefix(None)
            .with_syslog_identifier("taciturn".to_owned()),
    )
}

/// What writes log events down.
type Writer = Box<dyn Layer<Registry> + Send + Sync>;

/// A log that has begun.
#[derive(Clone)]
pub(crate) struct Output {
    level: reload::Handle<Targets, Registry>,
    writer: reload::Handle<Writer, Registry>,
}

impl Output {
    /// Writes as `new` says from now on, after it was written as `former` says.
    pub(crate) fn take_up(&self, former: &Log, new: &Log) {
        if new.format != former.format
            && let Err(error) = self.writer.reload(writer(new.format))
        {
            tracing::error!("the format of the log stays as it was: {error}");
        }
        if let Err(error) = self.level.reload(targets(new.level)) {
            tracing::error!("the level of the log stays as it was: {error}");
        }
    }
}

fn targets(level: tracing::Level) -> Targets {
    let level = LevelFilter::from_level(level);
    let others = level.min(LevelFilter::WARN);
    Targets::new()
        .with_default(others)
        .with_target("taciturn", level)
        // Who changed what is told however little else is.
        .with_target(AUDIT, level.max(LevelFilter::INFO))
}

fn writer(format: LogFormat) -> Writer {
    let to_stderr =
        tracing_subscriber::fmt::layer().with_writer(std::io::stderr as fn() -> std::io::Stderr);
    let text = |layer: Stderr| layer.with_ansi(std::io::stderr().is_terminal()).boxed();
    let json = |layer: Stderr| layer.json().flatten_event(true).boxed();
    match format {
        LogFormat::Text => text(to_stderr),
        LogFormat::Json => json(to_stderr),
        LogFormat::Auto if std::io::stderr().is_terminal() => text(to_stderr),
        LogFormat::Auto => match journal() {
            Some(journal) => journal.boxed(),
            None => json(to_stderr),
        },
    }
}

/// Begins to log.
pub(crate) fn start(log: &Log) -> Output {
    let (filter, level) = reload::Layer::new(targets(log.level));
    let (layer, writer) = reload::Layer::new(writer(log.format));
    // A second call in one process changes nothing.
    if tracing_subscriber::registry()
        .with(layer.with_filter(filter))
        .try_init()
        .is_err()
    {
        tracing::debug!("the log was started before");
    }
    Output { level, writer }
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn who_changed_what_is_written_at_any_level() {
        for level in [Level::ERROR, Level::INFO, Level::TRACE] {
            let targets = targets(level);
            assert!(targets.would_enable(AUDIT, &Level::INFO), "{level}");
            assert!(targets.would_enable("taciturn::turn", &level), "{level}");
        }
        assert!(!targets(Level::WARN).would_enable("taciturn::daemon", &Level::INFO));
        assert!(!targets(Level::TRACE).would_enable("rustls", &Level::INFO));
    }
}
