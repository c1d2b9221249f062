//! `keyhole serve`: from options to running workers, and to an orderly end.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, mpsc};
use std::thread;

use arc_swap::ArcSwap;
use keyhole_core::suite;
use keyhole_node::{Config, PolicyDefaults, TrustedProxies};
use keyhole_s3::ops::HostNames;
use socket2::{Domain, Socket, Type};
use tokio::sync::watch;

use crate::access::{self, Access, Origin};
use crate::audit::Audit;
use crate::cli::{EngineChoice, IoMode, LogFormat, ServeOptions, SyncMode};
use crate::control::{Control, Running};
use crate::engine::Chosen;
use crate::metrics::{Counting, Meter};
use crate::observe::Observers;
use crate::process::{self, Signal, Signals};
use crate::reload::{self, Reloads};
use crate::status::{Facts, Monitor, Phase};
use crate::store::{self, Make, Place, StoreOptions};
use crate::worker::{First, Setup, TlsSetup};
use crate::{admin, epoll, tls, uring};

/// Connections that wait to be accepted, at each listener.
const BACKLOG: i32 = 1024;

/// What a build says that was made to fail the power loss test.
const SKIPS_SYNC: &str = "keyhole: WARNING: this is a test build with the feature skip-sync. NOTHING IS MADE DURABLE: \
    a power cut loses what was acknowledged. Never keep data with it.";

/// Runs the node until it is told to end.
pub(crate) fn serve(options: &ServeOptions, warnings: &[String]) -> Result<(), String> {
    start_log(options);
    if cfg!(feature = "skip-sync") {
        eprintln!("{SKIPS_SYNC}");
    }
    warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    process::harden();
    let signals = Signals::block().map_err(|error| format!("cannot block signals: {error}"))?;
    let engine = choose_engine(options.engine)?;
    tracing::info!("AES-256-GCM by the {} engine", format!("{engine:?}").to_lowercase());
    let use_uring = choose_io(options.io)?;
    let threads = match options.threads {
        Some(threads) => threads,
        None => thread::available_parallelism().map_or(1, usize::from).min(keyhole_log::limits::WORKERS_MAX),
    };
    let sync = match options.sync {
        SyncMode::Always => keyhole_log::Sync::Always,
        SyncMode::Interval(_) | SyncMode::Never => keyhole_log::Sync::Deferred,
    };
    let store_options = StoreOptions {
        make: if options.format { Make::Format } else { Make::File },
        capacity: options.capacity,
        sync,
        ring: options.ring,
        workers: threads,
        ..StoreOptions::default()
    };
    let mut reloads = Reloads::new();
    let tls_config = load_tls(options, &mut reloads)?;
    let place = Place::find(&options.data, options.state.as_deref())?;
    let monitor = Monitor::new(facts(options, engine, use_uring, threads));
    let admin_address = start_admin(options.admin_listen, &monitor)?;
    let store = store::open(&place, &store_options)?;
    monitor.opened(store.shared.clone(), store.damaged);
    let (access, keys, origin) = Access::load(&place.state)?;
    let listeners = listen(options.listen, threads, "--listen")?;
    let address = listeners[0].local_addr().map_err(|error| error.to_string())?;
    let (mut tls_setups, tls_address) = match options.tls_listen.zip(tls_config) {
        Some((address, configs)) => {
            let listeners = listen(address, threads, "--tls-listen")?;
            let address = listeners[0].local_addr().map_err(|error| error.to_string())?;
            let setups = listeners.into_iter().map(|listener| TlsSetup { listener, configs: configs.clone() });
            (setups.collect(), Some(address))
        }
        None => (Vec::new(), None),
    };
    let addresses = Addresses { plain: address, tls: tls_address, admin: admin_address };
    let greeting = greeting(&addresses, &origin, &options.region);
    let host_names = HostNames::new(options.host_names.clone());
    let audit = options.audit_log.as_deref().map(Audit::start).transpose()?;
    let proxies = TrustedProxies::new(options.trusted_proxies.clone());
    if proxies.are_too_many() {
        return Err(format!(
            "there are more than {} --trusted-proxy; give networks",
            keyhole_node::limits::TRUSTED_PROXIES_MAX
        ));
    }
    let config = Arc::new(Config {
        region: options.region.clone(),
        host_names,
        access: ArcSwap::from_pointee(keys),
        proxies,
        defaults: PolicyDefaults::new(options.policies.clone()),
        observer: Box::new(Observers { counting: Counting(monitor.metrics().clone()), audit: audit.clone() }),
    });

    let running = Arc::new(Running { config: config.clone(), access, monitor: monitor.clone() });
    reloads.push(Box::new(running.clone()));
    if let Some(audit) = &audit {
        reloads.push(Box::new(audit.clone()));
    }
    let (control, mut first) = open_control(&place, running);
    let (stop, stopping) = watch::channel(false);
    let (done, finished) = mpsc::channel();
    for (index, listener) in listeners.into_iter().enumerate() {
        let setup = Setup {
            shared: store.shared.clone(),
            medium: store.medium.try_clone().map_err(|error| format!("cannot share the object file: {error}"))?,
            config: config.clone(),
            listener,
            tls: tls_setups.pop(),
            sync: options.sync,
            engine,
            stop: stopping.clone(),
            first: first.take(),
            meter: Meter::new(monitor.metrics().clone(), index),
            monitor: monitor.clone(),
        };
        let done = done.clone();
        let run = move || {
            let report = done.clone();
            let report = move || drop(report.send(Ok(())));
            let result = if use_uring { uring::run(setup, report) } else { epoll::run(setup, report) };
            if let Err(error) = result {
                let _ = done.send(Err(error));
            }
        };
        thread::Builder::new()
            .name(format!("worker-{index}"))
            .spawn(run)
            .map_err(|error| format!("cannot start a thread: {error}"))?;
    }
    drop(done);
    monitor.enter(Phase::Serving);
    print(&greeting);
    mind_signals(signals, reloads, stop, monitor);
    for _ in 0..threads {
        match finished.recv() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(format!("a worker cannot run: {error}")),
            Err(_) => return Err("a worker has died; see the log".to_owned()),
        }
    }
    if let Some(control) = control {
        control.remove();
    }
    if let Some(audit) = audit {
        audit.finish();
    }
    tracing::info!("ended");
    // The workers' rings may have an accept in flight: they end with the process.
    std::process::exit(0);
}

/// What the node is.
fn facts(options: &ServeOptions, engine: Chosen, use_uring: bool, workers: usize) -> Facts {
    Facts {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        engine: format!("{engine:?}").to_lowercase(),
        io: if use_uring { "uring" } else { "epoll" }.to_owned(),
        sync: options.sync.to_string(),
        workers,
    }
}

/// Starts what watches the node, and shows it to whoever asks, where it is to be shown: from before the store is opened. The
/// address that it listens on.
fn start_admin(listen: Option<SocketAddr>, monitor: &Arc<Monitor>) -> Result<Option<SocketAddr>, String> {
    let listener = match listen {
        Some(address) => self::listen(address, 1, "--admin-listen")?.pop(),
        None => None,
    };
    let address = listener.as_ref().map(TcpListener::local_addr).transpose().map_err(|error| error.to_string())?;
    if let Some(address) = address {
        tracing::info!("metrics, health and the status page are on http://{address}/");
    }
    admin::start(monitor.clone(), listener).map_err(|error| format!("cannot start a thread: {error}"))?;
    Ok(address)
}

fn start_log(options: &ServeOptions) {
    let log = tracing_subscriber::fmt().with_max_level(options.log).with_writer(io::stderr).with_ansi(false);
    match options.log_format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().flatten_event(true).init(),
    }
}

/// Finds out whether a node would start with these options, as far as that can be without starting one.
pub(crate) fn check(options: &ServeOptions) -> Result<(), String> {
    choose_engine(options.engine)?;
    if options.io == IoMode::Uring {
        choose_io(options.io)?;
    }
    load_tls(options, &mut Reloads::new())?;
    let place = Place::find(&options.data, options.state.as_deref())?;
    access::describe(&place.state).map(|_| ())
}

/// What the TLS listener says to clients, where there is one, now and when its files have changed.
fn load_tls(
    options: &ServeOptions,
    reloads: &mut Reloads,
) -> Result<Option<watch::Receiver<Arc<rustls::ServerConfig>>>, String> {
    if options.tls_listen.is_none() {
        return Ok(None);
    }
    let source = tls::Source::open(tls::Files::of(options)?)?;
    let configs = source.subscribe();
    reloads.push(Box::new(source));
    Ok(Some(configs))
}

/// What the first worker does besides, and the name of the control socket. A node without one serves all the same.
fn open_control(place: &Place, running: Arc<Running>) -> (Option<Control>, Option<First>) {
    let path = place.socket();
    match Control::bind(&path) {
        Ok((control, listener)) => (Some(control), Some(First { control: Some(listener), running })),
        Err(error) => {
            tracing::warn!(
                "cannot make the control socket {}: {error}; stat, compact, scrub and bucket work while the node does not \
                 run, or with --state DIR on another file system",
                path.display()
            );
            (None, Some(First { control: None, running }))
        }
    }
}

/// Whether to use io_uring.
fn choose_io(mode: IoMode) -> Result<bool, String> {
    if mode == IoMode::Epoll {
        return Ok(false);
    }
    match uring::probe() {
        Ok(()) => Ok(true),
        Err(error) if mode == IoMode::Uring => {
            Err(format!("the system refuses io_uring ({error}); allow it, or use --io epoll"))
        }
        Err(error) => {
            eprintln!("keyhole: the system refuses io_uring ({error}); using epoll and plain file I/O");
            Ok(false)
        }
    }
}

/// The engine that was asked for, once it has passed the suite on this machine.
fn choose_engine(choice: EngineChoice) -> Result<Chosen, String> {
    let passes = |engine: Chosen| suite::run(&engine, &mut vec![0; suite::SCRATCH_LEN]);
    let engine = match choice {
        EngineChoice::Portable => Chosen::Portable,
        EngineChoice::Accelerated | EngineChoice::Auto => Chosen::Accelerated,
    };
    match (passes(engine), choice) {
        (Ok(()), _) => Ok(engine),
        (Err(failure), EngineChoice::Auto) => {
            eprintln!("keyhole: the accelerated engine fails its test ({failure}); using the portable one");
            passes(Chosen::Portable).map_err(|failure| format!("the portable engine fails its test: {failure}"))?;
            Ok(Chosen::Portable)
        }
        (Err(failure), _) => Err(format!("the engine fails its test: {failure}; try another --engine")),
    }
}

/// One listener for each thread, all on one port.
fn listen(address: SocketAddr, threads: usize, option: &str) -> Result<Vec<TcpListener>, String> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::AddrInUse => {
            format!("{address} is in use by another process; stop it, or give another {option}")
        }
        _ => format!("cannot listen on {address}: {error}"),
    };
    let socket = |address: SocketAddr, shared: bool| {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(shared)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        io::Result::Ok(TcpListener::from(socket))
    };
    // Sharing a port with SO_REUSEPORT would also share it with another node of the same user: a listener that does not
    // share finds out.
    let alone = socket(address, false).map_err(failed)?;
    if threads == 1 {
        return Ok(vec![alone]);
    }
    let address = alone.local_addr().map_err(failed)?;
    drop(alone);
    (0..threads).map(|_| socket(address, true).map_err(failed)).collect()
}

/// Tells the workers to end when a signal says so, and until then has what has changed read again.
fn mind_signals(signals: Signals, mut reloads: Reloads, stop: watch::Sender<bool>, monitor: Arc<Monitor>) {
    thread::spawn(move || {
        let signal = reload::until_end(&signals, &mut reloads);
        tracing::info!("{signal}: no further requests are taken");
        monitor.enter(Phase::Draining);
        let _ = stop.send(true);
        loop {
            if let Some(Signal::End(signal)) = signals.wait(reload::LOOK_EVERY) {
                tracing::warn!("{signal} again: ending at once");
                std::process::exit(1);
            }
        }
    });
}

fn print(text: &str) {
    let mut out = io::stdout().lock();
    // Nobody may be reading; the node serves all the same.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Where the node listens.
struct Addresses {
    plain: SocketAddr,
    tls: Option<SocketAddr>,
    admin: Option<SocketAddr>,
}

/// What is said at the start: with which credential, where, and what to try.
fn greeting(addresses: &Addresses, origin: &Origin, region: &str) -> String {
    let address = addresses.plain;
    let mut text = String::new();
    let mut line = |line: &str| {
        text.push_str(line);
        text.push('\n');
    };
    match origin {
        Origin::Environment => line("credential: from KEYHOLE_ACCESS_KEY and KEYHOLE_SECRET_KEY"),
        Origin::File(path) => line(&format!("credential: from {}", path.display())),
        Origin::Made(path, key) => {
            let endpoint = format!("aws --endpoint-url http://{address}");
            line(&format!("A credential was made and written to {}. To try the node:", path.display()));
            line("");
            line(&format!("  export AWS_ACCESS_KEY_ID={}", key.id));
            line(&format!("  export AWS_SECRET_ACCESS_KEY={}", key.secret.expose()));
            line(&format!("  export AWS_DEFAULT_REGION={region}"));
            line(&format!("  {endpoint} s3api create-bucket --bucket my-bucket"));
            line("  openssl rand -out ssec.key 32");
            line(&format!("  {endpoint} s3 cp FILE s3://my-bucket/ --sse-c AES256 --sse-c-key fileb://ssec.key"));
            line(&format!("  {endpoint} s3 cp s3://my-bucket/FILE COPY --sse-c AES256 --sse-c-key fileb://ssec.key"));
            line("");
        }
    }
    if let Some(address) = addresses.admin {
        line(&format!("status page on http://{address}/"));
    }
    if let Some(address) = addresses.tls {
        line(&format!("listening on https://{address}"));
    }
    line(&format!("listening on http://{address}"));
    text
}
