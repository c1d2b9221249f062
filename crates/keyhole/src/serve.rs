//! `keyhole serve`: starts the workers from the options, and shuts them down in order.

mod choice;
mod error;
mod greeting;

use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, mpsc as channel};
use std::thread;
use std::time::Duration;

use arc_swap::ArcSwap;
use keyhole_node::{AccessTable, Config, PolicyDefaults, TrustedProxies};
use keyhole_s3::ops::HostNames;
use tokio::sync::{mpsc, watch};
use tracing::Level;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::access::{self, Access, LoadedAccess};
use crate::audit::Audit;
use crate::background::Duties;
use crate::cli::serve::{IoMode, LogFormat, ServeOptions, SyncMode};
use crate::control::{Control, Running};
use crate::engine::AnyEngine;
use crate::error::SystemError;
use crate::lock_clock::NodeLockClock;
use crate::memory::Budget;
use crate::metrics::{Counting, Meter};
use crate::net::activation::Inherited;
use crate::net::{Listener, listen, tls};
use crate::observe::Observers;
use crate::platform::Interface;
use crate::process::{self, Signal, Signals};
use crate::reload::{self, Reloads};
use crate::remote::{self, ReadRequest, RemoteReads, Remotes, ShippingSetup, StoreRequest};
use crate::status::{Monitor, NodeFacts, Phase};
use crate::store::{self, Make, OpenedStore, StoreLocation, StoreOptions};
use crate::watchdog::{Heartbeat, Watchdog};
use crate::worker::{self, Setup, TlsSetup};
use crate::{admin, service};

use choice::{choose_engine, choose_io};
pub(crate) use error::ServeError;
use greeting::Addresses;

/// The warning of a build that skips syncs to make the power loss test fail.
const SKIPS_SYNC: &str = "keyhole: WARNING: this is a test build with the feature skip-sync. NOTHING IS MADE DURABLE: \
    a power cut loses what was acknowledged. Never keep data with it.";

/// Runs the node until a signal ends it.
pub(crate) fn serve(options: &ServeOptions, warnings: &[String]) -> Result<(), ServeError> {
    start_log(options);
    if cfg!(feature = "skip-sync") {
        eprintln!("{SKIPS_SYNC}");
    }
    warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    process::harden();
    let signals = Signals::block().map_err(|error| SystemError::new("cannot block signals", error))?;
    let mut inherited = Inherited::from_manager()?;
    let platform = Platform::choose(options)?;
    let budget = platform.budget;
    let mut reloads = Reloads::new();
    let tls_config = load_tls(options, &mut reloads)?;
    let location = StoreLocation::find(&options.data, options.state.as_deref())?;
    if !location.is_device {
        process::warn_of_other_owners(&[&location.data, &location.state]);
    }
    let monitor = Monitor::new(platform.facts(options));
    let admin_address = start_admin(options.admin_listen, &mut inherited, &monitor)?;
    let store_options = StoreOptions { budget: Some(budget), ..store_options(options, budget.workers) };
    let starting = service::starting(store_options.read.clone());
    let store = store::open(&location, &store_options)?;
    drop(starting);
    let threads = workers_of(&store.store, budget.workers);
    monitor.set_store(store.store.clone(), store.damaged);
    monitor.set_presence(store.presence.clone());
    monitor.set_read_path(store.medium.read_path().clone());
    // A read-only store usually lies in a read-only directory: do not create a credential there.
    let may_make_key = store.store.read_only().is_none() || location.state != location.data;
    let LoadedAccess { access, table, origin } = Access::load(&location.state, may_make_key)?;
    let remotes = Remotes::load(&location.state)?;
    let http = inherited.take_or("http", threads, |option| listen(options.listen, threads, option))?;
    let mut https = listen_for_tls(options, tls_config, &mut inherited, threads)?;
    inherited.check_all_taken()?;
    let addresses = Addresses { plain: http.address, tls: https.address, admin: admin_address };
    let audit = options.audit_log.as_deref().map(Audit::start).transpose()?;
    let (evicted, reads) = RemoteReads::new(monitor.remotes().clone());
    let config = Config { evicted: Some(evicted), ..configure(options, table, &monitor, audit.clone(), budget)? };
    let config = Arc::new(config);

    let lock_clock = NodeLockClock::new(options.lock_clock_leap.0);
    let running = Arc::new(Running {
        config: config.clone(),
        access,
        remotes,
        monitor: monitor.clone(),
        audit: audit.clone(),
        lock_clock,
    });
    reloads.push(Box::new(running.clone()));
    if let Some(audit) = &audit {
        reloads.push(Box::new(audit.clone()));
    }
    let (stop, stopping) = watch::channel(false);
    let requests = ship_to_remotes(options, &location, &store, &running, (reads, stopping.clone()))?;
    let (control, mut first) = open_control(&location, running, requests);
    let (events, received) = channel::channel();
    let mut watchdog = Watchdog::from_manager();
    let plan =
        WorkerPlan { options, platform, store: &store, config, monitor: monitor.clone(), stop: stopping, events };
    for (index, listener) in http.listeners.into_iter().enumerate() {
        let heartbeat = watchdog.heartbeat();
        plan.spawn(OwnParts { index, listener, tls: https.setups.pop(), first: first.take(), heartbeat })?;
    }
    drop(plan);
    // A signal that arrives before the node serves takes effect as soon as it does.
    await_all(&received, threads, |event| matches!(event, WorkerEvent::Serving))?;
    watchdog.watch().map_err(SystemError::thread)?;
    monitor.enter_phase(Phase::Serving);
    addresses.greet(&origin, &options.region);
    let status = addresses.status(store.store.read_only().map(|why| &**why));
    service::ready(&status);
    let handler = SignalHandler { status, grace: options.grace, stop, monitor };
    thread::spawn(move || handler.run(&signals, &mut reloads));
    await_all(&received, threads, |event| matches!(event, WorkerEvent::Ended))?;
    if let Some(control) = control {
        control.remove();
    }
    if let Some(audit) = audit {
        audit.finish();
    }
    tracing::info!("ended");
    // The workers' rings may have an accept in flight, which ends with the process.
    std::process::exit(0);
}

/// The choices that depend on the machine.
#[derive(Clone, Copy)]
struct Platform {
    engine: AnyEngine,
    interface: Interface,
    budget: Budget,
}

impl Platform {
    /// Chooses engine, I/O interface and memory budget, and logs them.
    fn choose(options: &ServeOptions) -> Result<Self, ServeError> {
        let engine = choose_engine(options.engine)?;
        tracing::info!("AES-256-GCM by the {} engine", format!("{engine:?}").to_lowercase());
        let interface = choose_io(options.io)?;
        let io = match interface {
            Interface::Uring => "io_uring",
            Interface::Epoll => "epoll and plain file I/O",
        };
        tracing::info!("I/O by {io}");
        let threads = match options.threads {
            Some(threads) => threads,
            None => thread::available_parallelism().map_or(1, usize::from).min(keyhole_log::limits::WORKERS_MAX),
        };
        let budget = Budget::find(options.memory, threads)?;
        process::allow_connections((budget.workers * budget.connections) as u64);
        Ok(Platform { engine, interface, budget })
    }

    /// Returns the constant facts that the node reports about itself.
    fn facts(&self, options: &ServeOptions) -> NodeFacts {
        NodeFacts {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            engine: format!("{:?}", self.engine).to_lowercase(),
            io: format!("{:?}", self.interface).to_lowercase(),
            sync: options.sync.to_string(),
            workers: self.budget.workers,
            memory: self.budget,
        }
    }
}

/// The parts that all workers share.
struct WorkerPlan<'a> {
    options: &'a ServeOptions,
    platform: Platform,
    store: &'a OpenedStore,
    config: Arc<Config>,
    monitor: Arc<Monitor>,
    stop: watch::Receiver<bool>,
    events: channel::Sender<WorkerEvent>,
}

/// The parts of one worker.
struct OwnParts {
    index: usize,
    listener: Listener,
    tls: Option<TlsSetup>,
    first: Option<Duties>,
    heartbeat: Arc<Heartbeat>,
}

impl WorkerPlan<'_> {
    /// Starts the thread of one worker.
    fn spawn(&self, own: OwnParts) -> Result<(), ServeError> {
        let medium = self.store.medium.try_clone();
        let setup = Setup {
            store: self.store.store.clone(),
            medium: medium.map_err(|error| SystemError::new("cannot duplicate a descriptor", error))?,
            config: self.config.clone(),
            listener: own.listener,
            tls: own.tls,
            sync: self.options.sync,
            connections: self.platform.budget.connections,
            engine: self.platform.engine,
            serving: {
                let events = self.events.clone();
                Box::new(move || drop(events.send(WorkerEvent::Serving)))
            },
            heartbeat: own.heartbeat,
            stop: self.stop.clone(),
            grace: self.options.grace,
            first: own.first,
            meter: Meter::new(self.monitor.metrics().clone(), own.index),
            monitor: self.monitor.clone(),
        };
        let events = self.events.clone();
        let interface = self.platform.interface;
        let run = move || work(setup, interface, &events);
        thread::Builder::new().name(format!("worker-{}", own.index)).spawn(run).map_err(SystemError::thread)?;
        Ok(())
    }
}

/// Checks whether a node would start with these options, as far as possible without starting one.
pub(crate) fn check(options: &ServeOptions) -> Result<(), ServeError> {
    choose_engine(options.engine)?;
    if options.io == IoMode::Uring {
        choose_io(options.io)?;
    }
    if options.memory.is_some() {
        Budget::find(options.memory, 1)?;
    }
    load_tls(options, &mut Reloads::new())?;
    proxies(options)?;
    let location = StoreLocation::find(&options.data, options.state.as_deref())?;
    access::describe(&location.state)?;
    Remotes::load(&location.state)?;
    Ok(())
}

fn start_log(options: &ServeOptions) {
    let log = tracing_subscriber::fmt().with_max_level(options.log).with_writer(io::stderr).with_ansi(false);
    // The library logs each retry, and a remote may be away for days.
    let is_shown = filter_fn(|event| !event.target().starts_with("object_store") || *event.level() <= Level::WARN);
    match options.log_format {
        LogFormat::Text => log.finish().with(is_shown).init(),
        LogFormat::Json => log.json().flatten_event(true).finish().with(is_shown).init(),
    }
}

fn store_options(options: &ServeOptions, workers: usize) -> StoreOptions {
    StoreOptions {
        make: if options.format { Make::Format } else { Make::File },
        capacity: options.capacity,
        durability: match options.sync {
            SyncMode::Always => keyhole_log::Durability::Always,
            SyncMode::Interval(_) | SyncMode::Never => keyhole_log::Durability::Deferred,
        },
        ring: options.ring,
        max_objects: options.max_objects,
        read_only: options.read_only.then_some(store::ASKED_READ_ONLY),
        workers,
        ..StoreOptions::default()
    }
}

/// Returns the number of threads that the store's capacity allows: each has its own segments.
fn workers_of(store: &keyhole_log::Store, threads: usize) -> usize {
    let workers = store.workers();
    if workers < threads {
        let capacity = store.usage().capacity;
        tracing::warn!("a capacity of {capacity} bytes is enough for {workers} of {threads} threads");
    }
    workers
}

/// Returns the configuration that all workers share.
fn configure(
    options: &ServeOptions,
    keys: AccessTable,
    monitor: &Monitor,
    audit: Option<Arc<Audit>>,
    budget: Budget,
) -> Result<Config, ServeError> {
    Ok(Config {
        region: options.region.clone(),
        host_names: HostNames::new(options.host_names.clone()),
        access: ArcSwap::from_pointee(keys),
        proxies: proxies(options)?,
        defaults: PolicyDefaults::new(options.policies.clone()),
        observer: Box::new(Observers { counting: Counting(monitor.metrics().clone()), audit }),
        share: budget.share(),
        evicted: None,
        has_versions: true,
    })
}

fn proxies(options: &ServeOptions) -> Result<TrustedProxies, ServeError> {
    let proxies = TrustedProxies::new(options.trusted_proxies.clone());
    if proxies.are_too_many() { Err(ServeError::TooManyProxies) } else { Ok(proxies) }
}

/// Starts the monitor and, if configured, the admin listener; returns the listener's address.
///
/// It starts before the store is opened, so that a long recovery is visible.
fn start_admin(
    listen_on: Option<SocketAddr>,
    inherited: &mut Inherited,
    monitor: &Arc<Monitor>,
) -> Result<Option<SocketAddr>, ServeError> {
    let listening = match listen_on {
        Some(address) => Some(inherited.take_or("admin", 1, |option| listen(address, 1, option))?),
        None => inherited.take("admin", 1)?,
    };
    let address = listening.as_ref().map(|listening| listening.address);
    if let Some(address) = address {
        tracing::info!("serving metrics, health and status page on http://{address}/");
    }
    let listener = listening.and_then(|mut listening| listening.listeners.pop()).map(|listener| listener.socket);
    admin::start(monitor.clone(), listener).map_err(SystemError::thread)?;
    Ok(address)
}

type TlsConfigs = watch::Receiver<Arc<rustls::ServerConfig>>;

/// Loads the TLS configuration, if there is a TLS listener, and registers it for reloads.
fn load_tls(options: &ServeOptions, reloads: &mut Reloads) -> Result<Option<TlsConfigs>, ServeError> {
    if options.tls_listen.is_none() {
        return Ok(None);
    }
    let source = tls::TlsSource::open(tls::Files::from_options(options)?)?;
    let configs = source.subscribe();
    reloads.push(Box::new(source));
    Ok(Some(configs))
}

/// The TLS setup of each worker, and the address that they listen on; none without HTTPS.
#[derive(Default)]
struct TlsListeners {
    setups: Vec<TlsSetup>,
    address: Option<SocketAddr>,
}

/// Opens the TLS listeners, if they are configured.
fn listen_for_tls(
    options: &ServeOptions,
    configs: Option<TlsConfigs>,
    inherited: &mut Inherited,
    threads: usize,
) -> Result<TlsListeners, ServeError> {
    let Some((address, configs)) = options.tls_listen.zip(configs) else { return Ok(TlsListeners::default()) };
    let https = inherited.take_or("https", threads, |option| listen(address, threads, option))?;
    let setup = |listener: Listener| TlsSetup { listener, configs: configs.clone() };
    Ok(TlsListeners { setups: https.listeners.into_iter().map(setup).collect(), address: Some(https.address) })
}

/// Starts the thread that ships to remotes. Returns its requests to the first worker.
fn ship_to_remotes(
    options: &ServeOptions,
    location: &StoreLocation,
    store: &OpenedStore,
    running: &Running,
    (reads, stop): (mpsc::Receiver<ReadRequest>, watch::Receiver<bool>),
) -> Result<mpsc::Receiver<StoreRequest>, ServeError> {
    let (worker, requests) = mpsc::channel(remote::REMOTES_MAX);
    let medium = store.medium.try_clone();
    remote::start(ShippingSetup {
        store: store.store.clone(),
        medium: medium.map_err(|error| SystemError::new("cannot duplicate a descriptor", error))?,
        state: location.state.clone(),
        configs: running.remotes.subscribe(),
        reports: running.monitor.remotes().clone(),
        worker,
        is_durable: matches!(options.sync, SyncMode::Always),
        reads,
        stop,
    })?;
    Ok(requests)
}

/// Opens the control socket for the first worker. Without the socket, the node still serves.
fn open_control(
    location: &StoreLocation,
    running: Arc<Running>,
    requests: mpsc::Receiver<StoreRequest>,
) -> (Option<Control>, Option<Duties>) {
    let path = location.socket();
    match Control::bind(&path) {
        Ok((control, listener)) => (Some(control), Some(Duties { control: Some(listener), running, requests })),
        Err(error) => {
            tracing::warn!(
                "cannot create the control socket {}: {error}; stat, compact, scrub and bucket need a stopped node, or \
                 --state DIR on another file system",
                path.display()
            );
            (None, Some(Duties { control: None, running, requests }))
        }
    }
}

/// A worker's message to the main thread.
enum WorkerEvent {
    /// The worker accepts connections.
    Serving,
    /// The worker has shut down in order.
    Ended,
    /// The worker has stopped with this error.
    Failed(ServeError),
}

/// Runs a worker to its end and sends the result.
fn work(setup: Setup, interface: Interface, events: &channel::Sender<WorkerEvent>) {
    let ended = || drop(events.send(WorkerEvent::Ended));
    let run = || worker::run(setup, interface, ended);
    let failure = match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(())) => return,
        Ok(Err(error)) => ServeError::Worker(error),
        Err(_) => ServeError::WorkerPanicked,
    };
    let _ = events.send(WorkerEvent::Failed(failure));
}

/// Waits for `count` events of one kind.
///
/// # Errors
/// A worker has failed meanwhile.
fn await_all(
    events: &channel::Receiver<WorkerEvent>,
    count: usize,
    is_it: impl Fn(&WorkerEvent) -> bool,
) -> Result<(), ServeError> {
    let mut left = count;
    while left > 0 {
        match events.recv() {
            Ok(WorkerEvent::Failed(why)) => return Err(why),
            Ok(event) if is_it(&event) => left -= 1,
            Ok(_) => {}
            Err(_) => return Err(ServeError::WorkerPanicked),
        }
    }
    Ok(())
}

/// Handles the signals of a running node.
struct SignalHandler {
    /// The status text that the service manager shows for a healthy node.
    status: String,
    grace: Duration,
    stop: watch::Sender<bool>,
    monitor: Arc<Monitor>,
}

impl SignalHandler {
    /// Handles signals: reloads changed files until a signal ends the node, then stops the workers.
    fn run(&self, signals: &Signals, reloads: &mut Reloads) {
        let signal = reload::until_end(signals, reloads, &self.status);
        tracing::info!("{signal}: no longer accepting requests");
        self.monitor.enter_phase(Phase::Draining);
        service::stopping(self.grace);
        self.stop.send_replace(true);
        loop {
            if let Some(Signal::End(signal)) = signals.wait(reload::POLL_EVERY) {
                tracing::warn!("{signal} again: exiting immediately");
                std::process::exit(1);
            }
        }
    }
}
