//! The platform's API as this daemon opens it: its listener, and the control socket.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::admin::api::{Api, Around, Course, Door, Rules, Tls};
use crate::admin::control::Control;
use crate::config::{self, ApiTls, Settings};
use crate::daemon::certificates::{self, Renewal, Whose};
use crate::daemon::control::place::{self, Laid};
use crate::daemon::house::House;
use crate::daemon::reached;
use crate::dataplane;
use crate::dataplane::tls::TlsKeys;
use crate::turn::ServerConfig;
use crate::turn::unvalidated::Rate;

/// What nobody has come in by yet.
#[derive(Debug)]
pub(crate) struct Doors {
    doors: Vec<Door>,
    address: Option<SocketAddr>,
    around: Around,
    /// The control socket goes with this.
    laid: Option<Laid>,
}

impl Doors {
    /// Where the API listens, if it does.
    pub(crate) const fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// Lets in whoever comes.
    ///
    /// # Errors
    /// When no rules follow from the settings.
    pub(crate) fn open(
        self,
        house: &House,
        handle: &dataplane::Handle,
        control: Control,
        course: Course,
    ) -> anyhow::Result<Platform> {
        let settings = &house.settings;
        let rules = rules(settings, &*house.rules()?, handle);
        let api = Api::new(rules, handle.clone(), control, course);
        if let Some(address) = self.address {
            tracing::info!(%address, "API listens");
        }
        for door in self.doors {
            tokio::spawn(api.clone().serve(door));
        }
        if self.address.is_some() {
            let hangups = signal(SignalKind::hangup()).context("cannot wait for SIGHUP")?;
            tokio::spawn(certificates::follow(Whose::Api, house.follow(), hangups));
        }
        Ok(Platform {
            api,
            around: self.around,
            _laid: self.laid,
        })
    }
}

/// The API in use. The control socket is there as long as this.
#[derive(Debug)]
pub(crate) struct Platform {
    api: Api,
    around: Around,
    _laid: Option<Laid>,
}

/// TLS of the API by other settings, ready to be used.
pub(crate) struct NewTls {
    renewal: Option<Renewal>,
    /// None where it stays what it is.
    around: Option<Option<Tls>>,
}

impl Platform {
    /// Makes TLS by `new` settings ready, in which certificates that are served stay the ones that
    /// `running` has, whichever files they come from.
    ///
    /// # Errors
    /// When the library refuses.
    pub(crate) fn prepare(running: &Settings, new: &mut Settings) -> anyhow::Result<NewTls> {
        Ok(match (&running.api.tls, &mut new.api.tls) {
            (Some(former), Some(new)) => {
                let renewal = Renewal::of(&former.keys, &mut new.keys);
                let around = if new.asks_as(former) {
                    None
                } else {
                    Some(Some(around(new)?))
                };
                NewTls { renewal, around }
            }
            (None, Some(new)) => NewTls {
                renewal: None,
                around: Some(Some(around(new)?)),
            },
            (former, None) => NewTls {
                renewal: None,
                around: former.is_some().then_some(None),
            },
        })
    }

    /// Speaks TLS like this from now on.
    pub(crate) fn take_up(&self, tls: NewTls) {
        if let Some(renewal) = tls.renewal {
            renewal.take_up();
        }
        if let Some(around) = tls.around {
            self.around.change(around);
        }
    }

    /// Keeps the API in step with the settings, for ever.
    pub(crate) async fn follow(&self, house: &House, handle: &dataplane::Handle) {
        let mut told = house.follow();
        while told.changed().await.is_ok() {
            match house.rules() {
                Ok(config) => self.api.reconfigure(rules(&house.now(), &config, handle)),
                Err(error) => {
                    tracing::error!("the API goes by the settings from before: {error:#}")
                }
            }
        }
        std::future::pending().await
    }
}

/// TLS of the API by these settings.
fn around(tls: &ApiTls) -> anyhow::Result<Tls> {
    let config = tls
        .keys
        .server_config_for(&[b"http/1.1"], tls.clients.clone());
    Ok(Tls {
        config: config.context("TLS of the API cannot be set up")?,
        certified: tls.clients.is_some(),
    })
}

/// Binds what the settings name.
///
/// # Errors
/// When an address or a path that was configured cannot be used.
pub(crate) async fn doors(settings: &Settings) -> anyhow::Result<Doors> {
    let tls = settings.api.tls.as_ref().map(around).transpose()?;
    let mut doors = Doors {
        doors: Vec::new(),
        address: None,
        around: Around::new(tls),
        laid: None,
    };
    if let Some(listen) = settings.api.door() {
        let listener = TcpListener::bind(listen).await.with_context(|| {
            format!(
                "cannot listen on api.listen {listen}; another address or \"off\" can be given \
                 there, or in TACITURN_API__LISTEN"
            )
        })?;
        doors.address = Some(listener.local_addr()?);
        let around = doors.around.clone();
        doors.doors.push(Door::Network(listener, around));
    }
    let Some(path) = &settings.control.socket else {
        return Ok(doors);
    };
    match place::lay(path).and_then(|(listener, laid)| Ok((Door::control(listener, path)?, laid))) {
        Ok((door, laid)) => {
            doors.doors.push(door);
            doors.laid = Some(laid);
        }
        Err(error) if settings.control.is_configured => {
            return Err(
                error.context("control.socket cannot be used; name another path there, or \"off\"")
            );
        }
        Err(error) => tracing::warn!(
            "there is no control socket, so that `taciturn revoke` and others do not reach this \
             daemon: {error:#}; control.socket names another path, or \"off\""
        ),
    }
    Ok(doors)
}

/// The certificates that are served, and by what.
fn certificates(settings: &Settings) -> Vec<(&'static str, Arc<TlsKeys>)> {
    let of_listeners = settings.tls.keys.as_ref().map(|keys| ("listen", keys));
    let of_api = settings.api.tls.as_ref().map(|tls| ("api", &tls.keys));
    let both = of_listeners.into_iter().chain(of_api);
    both.map(|(by, keys)| (by, Arc::clone(keys))).collect()
}

/// What the API goes by, where the turn servers go by `config`.
fn rules(settings: &Settings, config: &ServerConfig, handle: &dataplane::Handle) -> Rules {
    let rate = |rate: config::Rate| Rate {
        per_second: rate.per_second,
        burst: rate.burst,
    };
    Rules {
        keys: settings.api.keys.clone(),
        rate: rate(settings.api.rate),
        failures: rate(settings.api.failures),
        credentials: config.credentials.clone(),
        max_ttl: config.max_ttl,
        ceiling: config.ceiling.clone(),
        urls: reached::ice_urls(settings, &handle.listening()),
        node: settings.api.node.clone(),
        nodes: settings.api.nodes.clone(),
        adapters: settings.api.adapters.clone(),
        certificates: certificates(settings),
    }
}
