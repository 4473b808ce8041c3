//! New settings under a running daemon: on SIGHUP, and when the configuration file changes or a
//! file that it names for a secret.
//!
//! All or nothing: what is wrong anywhere leaves everything as it was, and is told in the words of
//! `taciturn check`. What needs a restart is named and left. Certificates have their own look-out
//! (`certificates.rs`); here only other files for them are taken up.

use std::time::Duration;

use anyhow::Context;
use tokio::signal::unix::Signal;

use crate::admin::Reloads;
use crate::config::{self, Keys, Loaded, Sources};
use crate::daemon::house::House;
use crate::daemon::{keys, log};
use crate::dataplane::Handle;

/// How often files are looked at. What has changed is taken up once it looks the same twice, so
/// that nobody reads half of what is being written.
const TURN: Duration = Duration::from_secs(1);

/// What reloading needs.
pub(crate) struct Reload<'h> {
    pub(crate) sources: Sources,
    pub(crate) house: &'h House,
    pub(crate) handle: &'h Handle,
    pub(crate) level: log::Level,
    pub(crate) reloads: Reloads,
}

impl Reload<'_> {
    /// Keeps the daemon in step with its configuration, for ever.
    pub(crate) async fn follow(self, mut hangups: Signal) {
        let mut turns = tokio::time::interval(TURN);
        turns.tick().await;
        let mut last = self.look().await;
        let mut in_force = last;
        loop {
            let hung_up = tokio::select! {
                _ = turns.tick() => false,
                _ = hangups.recv() => true,
            };
            let seen = self.look().await;
            let has_settled = seen == last && seen != in_force;
            last = seen;
            if hung_up || has_settled {
                in_force = seen;
                self.reload().await;
            }
        }
    }

    /// What the files are like; none when that cannot be told.
    async fn look(&self) -> Option<[u8; 32]> {
        let sources = self.sources.clone();
        let looked = tokio::task::spawn_blocking(move || config::fingerprint(&sources));
        looked.await.ok()
    }

    async fn reload(&self) {
        match self.read_and_take_up().await {
            Ok(()) => {
                self.reloads.applied();
                tracing::info!("the configuration was read again and is in force");
            }
            Err(error) => {
                self.reloads.refused();
                match error.downcast_ref::<config::Error>() {
                    Some(error) => {
                        for problem in error.problems() {
                            tracing::error!("{problem}");
                        }
                    }
                    None => tracing::error!("{error:#}"),
                }
                tracing::error!("the configuration from before is still in force, all of it");
            }
        }
    }

    async fn read_and_take_up(&self) -> anyhow::Result<()> {
        let (sources, keys) = (self.sources.clone(), self.house.keys());
        let state = self.house.settings.state.dir.clone();
        let read = tokio::task::spawn_blocking(move || -> anyhow::Result<(Loaded, Keys)> {
            let loaded = config::load(&sources)?;
            let sealing = match &state {
                Some(_) => keys::sealing(state.as_deref())?,
                // Drawn for this run.
                None => keys.sealing.clone(),
            };
            Ok((loaded, Keys { sealing, ..keys }))
        });
        let (loaded, keys) = read.await.context("reading ended in a panic")??;
        let running = self.house.now();
        let (mut settings, kept) = loaded.settings.taken_up_by(&running);
        if let (Some(served), Some(new)) = (&running.tls.keys, &settings.tls.keys) {
            let files = new.files();
            if served.files() != files {
                served.take_from(files)?;
            }
            settings.tls.keys = Some(std::sync::Arc::clone(served));
        }
        let level = settings.log.level;
        self.house.take_up(settings, keys, self.handle)?;
        self.level.set(level);
        for warning in &loaded.warnings {
            tracing::warn!("{warning}");
        }
        for key in kept {
            tracing::warn!(key, "this needs a restart, and stays as it was");
        }
        Ok(())
    }
}
