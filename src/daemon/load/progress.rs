//! A bar for a person who waits, nothing for a script; and Ctrl-C, which ends a run early but in
//! order.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// What a person sees of a run, and how they end it.
pub(super) struct Progress {
    bar: ProgressBar,
    stop: Arc<AtomicBool>,
}

impl Progress {
    pub(super) fn new() -> Self {
        let bar = if std::io::stderr().is_terminal() {
            ProgressBar::with_draw_target(Some(1), ProgressDrawTarget::stderr())
        } else {
            ProgressBar::hidden()
        };
        let bar = match ProgressStyle::with_template("  {msg:32} {bar:30} {pos}/{len}") {
            Ok(style) => bar.with_style(style),
            Err(_) => bar,
        };
        let stop = Arc::new(AtomicBool::new(false));
        watch(Arc::clone(&stop));
        Self { bar, stop }
    }

    /// Begins something that has so many parts.
    pub(super) fn stage(&self, text: impl Into<String>, parts: usize) {
        // Lossless: usize has 64 bits here.
        self.bar.set_length(parts as u64);
        self.bar.set_position(0);
        self.bar.set_message(text.into());
    }

    /// So many of them are done.
    pub(super) fn at(&self, part: usize) {
        self.bar.set_position(part as u64);
    }

    /// Makes way for other output.
    pub(super) fn clear(&self) {
        self.bar.finish_and_clear();
    }

    /// Whether the user wants it to end.
    pub(super) fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// The first Ctrl-C asks for an end; without a runtime to hear it, it ends the process at once, as
/// ever.
fn watch(stop: Arc<AtomicBool>) {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    else {
        return;
    };
    std::thread::spawn(move || {
        runtime.block_on(async {
            while tokio::signal::ctrl_c().await.is_ok() {
                if stop.swap(true, Ordering::Relaxed) {
                    std::process::exit(1);
                }
            }
        });
    });
}
