//! `taciturn serve`: binds, says so, and relays until it is told to stop.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::field::DisplayValue;

use crate::admin::api::Course;
use crate::admin::control::{Control, PseudonymKeys, Refusals};
use crate::admin::events::Events;
use crate::admin::{Admin, Numbers, Readiness, Reloads};
use crate::config::{self, Keys, Machine, SHOWN_ADDRESSES, Settings, Sources};
use crate::daemon::certificates::Whose;
use crate::daemon::check::{self, summary};
use crate::daemon::cli::Serve;
use crate::daemon::demo::Page;
use crate::daemon::events::{self, Failures, Outlets};
use crate::daemon::house::{CREDENTIAL_LIFE, House};
use crate::daemon::pseudonyms::Pseudonyms;
use crate::daemon::reload::Reload;
use crate::daemon::runtime::Left;
use crate::daemon::{FEATURES, announce, api, certificates, keys, log, print, runtime};
use crate::dataplane::{self, Dataplane, Record, Records, sys};
use crate::turn::credential::{Secret, SecretsRing};
use crate::turn::stats::Direction;
use crate::turn::{BreakGlass, FiveTuple};

/// How often this machine's addresses are looked at.
const RESCAN: Duration = Duration::from_secs(10);

/// Runs the daemon until SIGTERM or Ctrl-C.
///
/// # Errors
/// When it cannot start.
pub(crate) fn run(arguments: &Serve) -> anyhow::Result<()> {
    start(arguments.sources(), None)
}

/// The same by any sources, and with the demo's page beside it if there is a place for that.
///
/// # Errors
/// When it cannot start.
pub(crate) fn start(sources: Sources, page: Option<SocketAddr>) -> anyhow::Result<()> {
    // Before it is read, so that a change in between is one.
    let fingerprint = config::fingerprint(&sources);
    let loaded = config::load(&sources)?;
    let log = log::start(&loaded.settings.log);
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    sys::forbid_core_dumps().context("cannot forbid core dumps, which would hold addresses")?;
    if let Err(error) = sys::raise_descriptor_limit() {
        tracing::warn!(%error, "the limit of file descriptors stays as it is");
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the control thread")?;
    runtime.block_on(serve(loaded.settings, (sources, fingerprint), log, page))
}

async fn serve(
    settings: Settings,
    (sources, fingerprint): (Sources, [u8; 32]),
    log: log::Output,
    page: Option<SocketAddr>,
) -> anyhow::Result<()> {
    let (keys, refusals) = keys_and_refusals(&settings)?;
    let sealing = keys::sealing_fingerprint(settings.state.dir.as_deref());
    let made_for_this_run = settings.auth.is_empty();
    let own = made_for_this_run.then(secret_of_this_run).transpose()?;
    let relays = settings.relays(&default_relays())?;
    if let Some(warning) = check::few_descriptors(&settings, &relays) {
        tracing::warn!("{warning}");
    }
    let machine = Machine {
        addresses: sys::local_addresses()?,
        ..Machine::default()
    };
    let house = Arc::new(House::new(settings, keys, own, relays, machine));

    let outlets = Outlets::start(&house.settings.events)?;
    let events = outlets.events();
    let admin = bind_admin(&house.settings).await?;
    let admin_address = admin.as_ref().map(Admin::address);
    let doors = api::doors(&house.settings).await?;
    let page = Page::bind(page).await?;
    let page_address = page.as_ref().map(Page::address);
    let others = [admin_address, doors.address(), page_address];
    let mut listening: Vec<_> = others.into_iter().flatten().collect();
    house.meet(|machine| machine.listening.clone_from(&listening));
    let config = house.settings.dataplane(house.relays.clone());
    let (dataplane, records) = Dataplane::start(config, house.rules()?)?;
    let handle = dataplane.handle().clone();
    // Port 0 became a port only now, and no peer may reach it.
    listening.extend(handle.listening().into_iter().map(|(_, address)| address));
    house.meet(|machine| {
        machine.listening = listening;
        machine.udp = handle.listeners();
    });
    handle.reconfigure(&house.rules()?);
    let pseudonyms = Arc::new(Mutex::new(pseudonyms(&house.settings)?));
    let control = control(refusals, &handle, &pseudonyms, events);
    let numbers = Numbers::new(house.settings.shown());
    let (readiness, reloads) = (Readiness::default(), Reloads::default());
    let platform = doors.open(&house, &handle, control, course(&readiness, &reloads))?;
    if let Some(admin) = admin {
        serve_admin(admin, &handle, &readiness, &reloads, events, &numbers);
    }
    let journal = Journal {
        pseudonyms,
        glass: glass(&house.settings),
        events: events.clone(),
        numbers,
        failures: Failures::new(handle.counters(), sys::unix_seconds()),
        settings: house.follow(),
    };
    let journal = tokio::spawn(journal.write(records));
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let [hangups, renewals] = [hangups()?, hangups()?];
    let is_server = page.is_none();
    let demo = page.map(|page| page.open(&house, &handle));
    announce(&house, &handle, admin_address, made_for_this_run, demo)?;
    readiness.begin();
    let reload = Reload {
        sources,
        in_force: [fingerprint, sealing],
        house: &house,
        handle: &handle,
        platform: &platform,
        outlets: &outlets,
        log,
        reloads,
    };
    tokio::select! {
        // `taciturn probe` is not to find the demo in place of a server.
        () = leave_credentials(&house, &handle), if is_server => {}
        _ = terminate.recv() => {}
        interrupted = tokio::signal::ctrl_c() => interrupted.context("cannot wait for Ctrl-C")?,
        () = follow_addresses(&house, &handle) => {}
        () = certificates::follow(Whose::Listeners, house.follow(), renewals) => {}
        () = reload.follow(hangups) => {}
        () = platform.follow(&house, &handle) => {}
    }
    readiness.end();
    drop(platform);
    stop(dataplane, journal).await?;
    finish(outlets, handle.lost_records()).await
}

/// Ends the workers, and the journal with them.
async fn stop(dataplane: Dataplane, journal: JoinHandle<()>) -> anyhow::Result<()> {
    tracing::info!("stopping");
    // Not on this thread, which writes the journal meanwhile.
    let stopped = tokio::task::spawn_blocking(move || dataplane.stop());
    journal.await.context("the journal ended in a panic")?;
    stopped.await.context("stopping ended in a panic")
}

/// What is left to be said once no worker is.
async fn finish(outlets: Outlets, records: u64) -> anyhow::Result<()> {
    let told = tokio::task::spawn_blocking(move || outlets.finish());
    told.await.context("events ended in a panic")?;
    if records > 0 {
        tracing::warn!(
            records,
            "the log was too slow for some moves of allocations"
        );
    }
    tracing::info!("stopped");
    Ok(())
}

/// The admin listener, if there is to be one.
async fn bind_admin(settings: &Settings) -> anyhow::Result<Option<Admin>> {
    let Some(config) = settings.admin() else {
        return Ok(None);
    };
    let admin = Admin::bind(&config).await.with_context(|| {
        format!(
            "cannot listen on admin.listen {}; another address or \"off\" can be given there, or \
             in TACITURN_ADMIN__LISTEN",
            config.listen
        )
    })?;
    Ok(Some(admin))
}

/// Answers operators from now on.
fn serve_admin(
    admin: Admin,
    handle: &dataplane::Handle,
    readiness: &Readiness,
    reloads: &Reloads,
    events: &Events,
    numbers: &Numbers,
) {
    tracing::info!(address = %admin.address(), "admin listens");
    let (handle, readiness, reloads) = (handle.clone(), readiness.clone(), reloads.clone());
    let (events, numbers) = (events.clone(), numbers.clone());
    tokio::spawn(async move {
        let served = admin.serve(handle, readiness, reloads, events, numbers);
        if let Err(error) = served.await {
            tracing::error!(%error, "the admin listener failed");
        }
    });
}

/// The keys of the state directory, and whom it says to refuse.
fn keys_and_refusals(settings: &Settings) -> anyhow::Result<(Keys, Refusals)> {
    let directory = settings.state.dir.as_deref();
    let mut keys = keys::load(directory)?;
    let ban_key = keys::key(directory, "ban.key")?;
    let refusals = Refusals::open(directory, &ban_key, settings.auth.max_ttl)?;
    keys.revocations = refusals.revocations();
    keys.bans = refusals.bans();
    Ok((keys, refusals))
}

fn secret_of_this_run() -> anyhow::Result<SecretsRing> {
    let value = STANDARD.encode(*keys::random()?);
    Ok(SecretsRing::new(vec![Secret::new("this-run", value)]))
}

fn control(
    refusals: Refusals,
    handle: &dataplane::Handle,
    pseudonyms: &Arc<Mutex<Pseudonyms>>,
    events: &Events,
) -> Control {
    let pseudonyms = Arc::clone(pseudonyms);
    let keys = PseudonymKeys::new(move || lock(&pseudonyms).living());
    Control::new(refusals, handle.clone(), keys, events.clone())
}

/// What the API tells of this daemon.
fn course(readiness: &Readiness, reloads: &Reloads) -> Course {
    Course {
        began: sys::unix_seconds(),
        readiness: readiness.clone(),
        reloads: reloads.clone(),
        features: FEATURES,
    }
}

fn hangups() -> anyhow::Result<Signal> {
    signal(SignalKind::hangup()).context("cannot wait for SIGHUP")
}

/// The relay addresses when none are configured: those of the default route, else loopback.
pub(crate) fn default_relays() -> Vec<IpAddr> {
    let found = sys::default_route_addresses();
    if found.is_empty() {
        vec![IpAddr::V4(Ipv4Addr::LOCALHOST)]
    } else {
        found
    }
}

/// Tells what is running, and in a run with a secret of its own how to use it, which the demo says
/// itself.
fn announce(
    house: &House,
    handle: &dataplane::Handle,
    admin: Option<SocketAddr>,
    made_for_this_run: bool,
    demo: Option<String>,
) -> anyhow::Result<()> {
    let settings = &house.settings;
    for (transport, address) in handle.listening() {
        tracing::info!(%address, transport = transport.label(), "listening");
    }
    let workers = handle.counters().len();
    tracing::debug!(workers, bind = ?settings.relay.bind, peers = ?settings.policy.peers, "rules");
    let addresses = sys::local_addresses()?;
    for relay in &house.relays {
        // Of 127.0.0.0/8 the system lists one address, and all of them are its own.
        if !relay.local.is_loopback() && !addresses.contains(&relay.local) {
            tracing::warn!(
                address = %relay.local,
                "a relay address is none of this machine's, so no relay socket can be bound to it",
            );
        }
        let ports = &settings.relay.ports;
        tracing::info!(
            address = %relay.advertised,
            ports = format_args!("{}-{}", ports.start(), ports.end()),
            "relaying"
        );
    }
    let told = if demo.is_some() {
        demo
    } else if made_for_this_run && let Some(servers) = house.ice_servers(handle)? {
        let policy = summary::policy(&settings.policy);
        let program = std::env::args().next();
        let program = program.as_deref().unwrap_or("taciturn");
        let listening = handle.listening();
        Some(announce::text(
            program, &listening, admin, &policy, &servers,
        ))
    } else {
        None
    };
    // Whoever started it may not listen; calls do not depend on that.
    if let Some(text) = told
        && let Err(error) = print(&text)
    {
        tracing::warn!("nobody was told how to use this server: {error:#}");
    }
    tracing::info!("ready");
    Ok(())
}

/// The pseudonyms of this day, whose keys outlive the process if there is a state directory.
fn pseudonyms(settings: &Settings) -> anyhow::Result<Pseudonyms> {
    let state = settings.state.dir.as_deref();
    let days = u64::from(settings.log.pseudonym_days);
    Pseudonyms::load(state, days, sys::unix_seconds())
}

/// Leaves a credential in the runtime directory, readable by its own user alone, in place of the one
/// left before: `taciturn probe` finds the server by it.
fn leave_credential(house: &House, handle: &dataplane::Handle, left: &mut Option<Left>) {
    match house.ice_servers(handle) {
        Ok(Some(servers)) => {
            *left = runtime::leave(runtime::places(), &format!("{servers:#}\n"));
        }
        Ok(None) => {}
        Err(error) => tracing::warn!("no credential is left for `taciturn probe`: {error:#}"),
    }
}

/// Leaves a credential at once, and keeps it good for as long as the daemon runs.
async fn leave_credentials(house: &House, handle: &dataplane::Handle) {
    let mut renewals = tokio::time::interval(CREDENTIAL_LIFE / 4);
    let mut left = None;
    loop {
        // The first tick comes at once.
        renewals.tick().await;
        leave_credential(house, handle, &mut left);
    }
}

/// What is written down of what happens to allocations, and told of it.
struct Journal {
    pseudonyms: Arc<Mutex<Pseudonyms>>,
    glass: Option<BreakGlass>,
    events: Events,
    numbers: Numbers,
    failures: Failures,
    settings: watch::Receiver<Arc<Settings>>,
}

impl Journal {
    /// Writes until no worker is left.
    async fn write(mut self, mut records: Records) {
        const HOUR: Duration = Duration::from_secs(3_600);
        let mut hours = every(HOUR);
        let mut interval = self.settings.borrow().events.interval;
        let mut intervals = every(interval);
        loop {
            let record = tokio::select! {
                record = records.recv() => record,
                _ = hours.tick() => {
                    self.tidy();
                    continue;
                }
                _ = intervals.tick() => {
                    self.sum_up();
                    continue;
                }
                Ok(()) = self.settings.changed() => {
                    let settings = Arc::clone(&self.settings.borrow_and_update());
                    if settings.events.interval != interval {
                        interval = settings.events.interval;
                        intervals = every(interval);
                    }
                    self.keep_keys_for(settings.log.pseudonym_days);
                    self.numbers.take_up(settings.shown());
                    continue;
                }
            };
            let Some(record) = record else {
                self.sum_up();
                return;
            };
            if let Record::Closed { id, totals, .. } = &record {
                self.numbers.closed(*id, totals);
            }
            if let Some(event) = events::of_record(&record, sys::unix_seconds()) {
                self.events.send(&event);
            }
            log_record(&record, &self.pseudonyms, self.glass);
        }
    }

    fn sum_up(&mut self) {
        self.failures.sum_up(&self.events, sys::unix_seconds());
    }

    /// So that old keys go also when nobody calls.
    fn tidy(&self) {
        let mut pseudonyms = lock(&self.pseudonyms);
        let begun = pseudonyms.begin_day_of(sys::unix_seconds());
        tell_of_old_keys(begun.and_then(|()| pseudonyms.forget_old()));
        if self.glass.is_some() {
            tracing::warn!("{SHOWN_ADDRESSES}");
        }
    }

    fn keep_keys_for(&self, days: u16) {
        tell_of_old_keys(lock(&self.pseudonyms).keep_for(days.into()));
    }
}

/// Ticks from so long on from now.
fn every(period: Duration) -> tokio::time::Interval {
    tokio::time::interval_at(tokio::time::Instant::now() + period, period)
}

fn tell_of_old_keys(forgotten: anyhow::Result<()>) {
    if let Err(error) = forgotten {
        tracing::error!("old keys of pseudonyms are still there: {error:#}");
    }
}

fn log_record(record: &Record, pseudonyms: &Mutex<Pseudonyms>, glass: Option<BreakGlass>) {
    match record {
        Record::Opened {
            id, tuple, subject, ..
        } => {
            let client = pseudonym(&mut lock(pseudonyms), *tuple);
            tracing::info!(
                allocation = format_args!("{:016x}", id.0),
                transport = tuple.listener.transport().label(),
                %client,
                client_address = shown(glass, *tuple),
                user = %subject,
                "allocation opened"
            );
        }
        Record::Moved { id, tuple } => {
            let client = pseudonym(&mut lock(pseudonyms), *tuple);
            tracing::info!(
                allocation = format_args!("{:016x}", id.0),
                transport = tuple.listener.transport().label(),
                %client,
                client_address = shown(glass, *tuple),
                "allocation moved"
            );
        }
        Record::Closed {
            id,
            transport,
            reason,
            lived,
            totals,
            ..
        } => {
            tracing::info!(
                allocation = format_args!("{:016x}", id.0),
                transport = transport.label(),
                reason = reason.label(),
                seconds = lived.as_secs(),
                packets_in = totals.packets(Direction::In),
                packets_out = totals.packets(Direction::Out),
                "allocation closed"
            );
        }
    }
}

// What it guards is whole between any two statements.
fn lock(pseudonyms: &Mutex<Pseudonyms>) -> MutexGuard<'_, Pseudonyms> {
    pseudonyms.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The order to show addresses, where the settings give it.
const fn glass(settings: &Settings) -> Option<BreakGlass> {
    BreakGlass::ordered(settings.log.show_addresses)
}

/// The client's address where the glass is broken; a field that is not there where it is whole.
fn shown(glass: Option<BreakGlass>, tuple: FiveTuple) -> Option<DisplayValue<SocketAddr>> {
    glass.map(|glass| tracing::field::display(glass.tell(tuple.client)))
}

fn pseudonym(pseudonyms: &mut Pseudonyms, tuple: FiveTuple) -> String {
    match pseudonyms.of(tuple.client, sys::unix_seconds()) {
        Ok(pseudonym) => pseudonym.to_string(),
        Err(error) => {
            tracing::error!("there is no key for pseudonyms: {error:#}");
            "hidden".to_owned()
        }
    }
}

/// Keeps listeners and rules in step with this machine's addresses, for ever: whatever fails, be
/// it for want of descriptors, is tried again, and ends no call. Looks at workers' load as often.
async fn follow_addresses(house: &House, handle: &dataplane::Handle) {
    let mut turns = tokio::time::interval(RESCAN);
    turns.tick().await;
    loop {
        turns.tick().await;
        handle.weigh();
        if let Err(error) = look_around(house, handle).await {
            tracing::warn!("this machine's addresses were not followed: {error:#}");
        }
    }
}

async fn look_around(house: &House, handle: &dataplane::Handle) -> anyhow::Result<()> {
    let scanned = handle.clone();
    let scan = tokio::task::spawn_blocking(move || scanned.rescan()).await??;
    for address in &scan.new {
        tracing::info!(%address, transport = "udp", "listening on a new address");
    }
    for error in scan.failed {
        let error = anyhow::Error::from(error);
        tracing::warn!("a new address is not listened on: {error:#}");
    }
    let addresses = sys::local_addresses()?;
    let is_new = house.meet(|machine| {
        machine.addresses = addresses;
        machine.udp = handle.listeners();
        machine.listening.extend(scan.new);
    });
    if is_new {
        handle.reconfigure(&house.rules()?);
    }
    Ok(())
}
