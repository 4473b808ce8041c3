//! What the daemon runs by. Settings, keys and this machine's addresses may change under it; what
//! follows from them for the workers is worked out here, whole, before any of it is in force.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::watch;

use crate::config::{Keys, Machine, Settings};
use crate::daemon::mint;
use crate::dataplane::{self, RelayAddress, Tuning};
use crate::turn::ServerConfig;
use crate::turn::credential::SecretsRing;

/// For how long a credential is good that is printed at start and kept for `taciturn probe`.
pub(crate) const CREDENTIAL_LIFE: Duration = Duration::from_secs(24 * 3_600);

/// The settings in force and what belongs to them.
pub(crate) struct House {
    /// As they were at the start: what sockets, threads and files were made by.
    pub(crate) settings: Settings,
    pub(crate) relays: Vec<RelayAddress>,
    /// A secret of this run, while no credentials are configured.
    own: Option<SecretsRing>,
    current: Mutex<Current>,
    told: watch::Sender<Arc<Settings>>,
}

/// What follows from other settings, before it is in force.
pub(crate) struct Prepared {
    current: Current,
    rules: Arc<ServerConfig>,
    tuning: Tuning,
}

struct Current {
    settings: Arc<Settings>,
    keys: Keys,
    machine: Machine,
}

impl House {
    pub(crate) fn new(
        settings: Settings,
        keys: Keys,
        own: Option<SecretsRing>,
        relays: Vec<RelayAddress>,
        machine: Machine,
    ) -> Self {
        let shared = Arc::new(settings.clone());
        Self {
            settings,
            relays,
            own,
            told: watch::Sender::new(Arc::clone(&shared)),
            current: Mutex::new(Current {
                settings: shared,
                keys,
                machine,
            }),
        }
    }

    /// The settings in force.
    pub(crate) fn now(&self) -> Arc<Settings> {
        Arc::clone(&self.current().settings)
    }

    /// The settings in force, and each that will be.
    pub(crate) fn follow(&self) -> watch::Receiver<Arc<Settings>> {
        self.told.subscribe()
    }

    /// A credential for this server as it listens, if it has a secret to mint with.
    pub(crate) fn ice_servers(&self, handle: &dataplane::Handle) -> anyhow::Result<Option<Value>> {
        let settings = self.now();
        let ring = self.ring(&settings);
        let Some(secret) = ring.get(0) else {
            return Ok(None);
        };
        let listening = handle.listening();
        mint::ice_servers(&settings, &listening, secret, "probe", CREDENTIAL_LIFE).map(Some)
    }

    /// The rules as everything is now.
    pub(crate) fn rules(&self) -> anyhow::Result<Arc<ServerConfig>> {
        let current = self.current();
        self.rules_of(&current.settings, &current.keys, &current.machine)
    }

    /// Takes note of what this machine is like now, and says whether that is anything new.
    pub(crate) fn meet(&self, look: impl FnOnce(&mut Machine)) -> bool {
        let mut current = self.current();
        let before = current.machine.clone();
        look(&mut current.machine);
        current.machine != before
    }

    /// Works out what follows from other settings and keys.
    ///
    /// # Errors
    /// When no rules do.
    pub(crate) fn prepare(&self, settings: Settings, keys: Keys) -> anyhow::Result<Prepared> {
        let current = self.current();
        let mut machine = current.machine.clone();
        let (former, ports) = (&current.settings.relay.ports, &settings.relay.ports);
        if ports != former && !machine.former_ports.contains(former) {
            machine.former_ports.push(former.clone());
        }
        let rules = self.rules_of(&settings, &keys, &machine)?;
        let tuning = settings.dataplane(self.relays.clone()).tuning();
        Ok(Prepared {
            current: Current {
                settings: Arc::new(settings),
                keys,
                machine,
            },
            rules,
            tuning,
        })
    }

    /// Puts in force what was prepared just before.
    pub(crate) fn take_up(&self, prepared: Prepared, handle: &dataplane::Handle) {
        let Prepared {
            current,
            rules,
            tuning,
        } = prepared;
        let settings = Arc::clone(&current.settings);
        *self.current() = current;
        self.told.send_replace(settings);
        // First, so that no worker meets a relay port that it takes for something else.
        handle.reconfigure(&rules);
        handle.retune(tuning);
    }

    /// The keys in use.
    pub(crate) fn keys(&self) -> Keys {
        self.current().keys.clone()
    }

    fn rules_of(
        &self,
        settings: &Settings,
        keys: &Keys,
        machine: &Machine,
    ) -> anyhow::Result<Arc<ServerConfig>> {
        Ok(settings.server(keys, self.ring(settings), &self.relays, machine)?)
    }

    fn ring(&self, settings: &Settings) -> SecretsRing {
        match &self.own {
            Some(own) if settings.auth.is_empty() => own.clone(),
            Some(_) | None => settings.secrets(),
        }
    }

    // What it guards is whole between any two statements.
    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
