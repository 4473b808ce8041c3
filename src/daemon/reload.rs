//! New settings under a running daemon: on SIGHUP, and when the configuration file changes, a file
//! that it names for a secret or for clients' issuers, or a key that usernames are sealed with.
//!
//! All or nothing: first everything is made ready, and what is wrong anywhere leaves everything as it
//! was and is told in the words of `taciturn check`; then it is put in force, in steps that cannot
//! fail. What needs a restart is named and left. Certificates have their own look-out
//! (`certificates.rs`); here only other files for them are taken up.

use std::time::Duration;

use anyhow::Context;
use tokio::signal::unix::Signal;

use crate::admin::Reloads;
use crate::config::{self, Keys, Loaded, Sources};
use crate::daemon::api::Platform;
use crate::daemon::certificates::Renewal;
use crate::daemon::events::Outlets;
use crate::daemon::house::House;
use crate::daemon::{keys, log};
use crate::dataplane::Handle;

/// How often files are looked at. What has changed is taken up once it looks the same twice, so
/// that nobody reads half of what is being written.
const TURN: Duration = Duration::from_secs(1);

/// What the files are like: of the configuration, and of the keys that usernames are sealed with.
pub(crate) type Look = [[u8; 32]; 2];

/// What reloading needs.
pub(crate) struct Reload<'h> {
    pub(crate) sources: Sources,
    /// What the files were like that it was started with.
    pub(crate) in_force: Look,
    pub(crate) house: &'h House,
    pub(crate) handle: &'h Handle,
    pub(crate) platform: &'h Platform,
    pub(crate) outlets: &'h Outlets,
    pub(crate) log: log::Output,
    pub(crate) reloads: Reloads,
}

impl Reload<'_> {
    /// Keeps the daemon in step with its configuration, for ever.
    pub(crate) async fn follow(self, mut hangups: Signal) {
        let mut turns = tokio::time::interval(TURN);
        turns.tick().await;
        let mut in_force = Some(self.in_force);
        let mut last = in_force;
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
    async fn look(&self) -> Option<Look> {
        let sources = self.sources.clone();
        let state = self.house.settings.state.dir.clone();
        let looked = tokio::task::spawn_blocking(move || {
            [
                config::fingerprint(&sources),
                keys::sealing_fingerprint(state.as_deref()),
            ]
        });
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
        let (loaded, keys) = self.read().await?;
        let running = self.house.now();
        let (mut settings, kept) = loaded.settings.taken_up_by(&running);
        let log = settings.log.clone();
        let listeners = match (&running.tls.keys, &mut settings.tls.keys) {
            (Some(served), Some(read)) => Renewal::of(served, read),
            (Some(_) | None, _) => None,
        };
        let tls = Platform::prepare(&running, &mut settings)?;
        let outlets = self.outlets.prepare(&settings.events)?;
        let prepared = self.house.prepare(settings, keys)?;

        if let Some(listeners) = listeners {
            listeners.take_up();
        }
        self.platform.take_up(tls);
        self.outlets.take_up(outlets);
        self.house.take_up(prepared, self.handle);
        self.log.take_up(&running.log, &log);
        for warning in &loaded.warnings {
            tracing::warn!("{warning}");
        }
        for key in kept {
            tracing::warn!(key, "this needs a restart, and stays as it was");
        }
        Ok(())
    }

    /// What the sources say now, and the keys that go with it.
    async fn read(&self) -> anyhow::Result<(Loaded, Keys)> {
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
        read.await.context("reading ended in a panic")?
    }
}
