//! `keyhole serve`: from options to running workers, and to an orderly end.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use keyhole_core::suite;
use keyhole_node::Config;
use keyhole_s3::ops::HostNames;
use socket2::{Domain, Socket, Type};
use tokio::sync::watch;

use crate::activation::{Inherited, Listener};
use crate::cli::{EngineChoice, IoMode, ServeOptions, SyncMode};
use crate::control::Control;
use crate::credentials::{self, Credential, Origin};
use crate::engine::Chosen;
use crate::process::{self, Asked, Signals};
use crate::store::{self, Make, Place, StoreOptions};
use crate::watchdog::Watchdog;
use crate::worker::{CONNECTIONS_MAX, First, Setup, TlsSetup};
use crate::{epoll, service, tls, uring};

/// Connections that wait to be accepted, at each listener.
const BACKLOG: i32 = 1024;

/// What a build says that was made to fail the power loss test.
const SKIPS_SYNC: &str = "keyhole: WARNING: this is a test build with the feature skip-sync. NOTHING IS MADE DURABLE: \
    a power cut loses what was acknowledged. Never keep data with it.";

/// Runs the node until it is told to end.
pub(crate) fn serve(options: &ServeOptions) -> Result<(), String> {
    tracing_subscriber::fmt().with_max_level(options.log).with_writer(io::stderr).with_ansi(false).init();
    if cfg!(feature = "skip-sync") {
        eprintln!("{SKIPS_SYNC}");
    }
    process::harden();
    let signals = Signals::block().map_err(|error| format!("cannot block signals: {error}"))?;
    let mut inherited = Inherited::of_manager()?;
    let engine = choose_engine(options.engine)?;
    tracing::info!("AES-256-GCM by the {} engine", format!("{engine:?}").to_lowercase());
    let use_uring = choose_io(options.io)?;
    tracing::info!("connections and disk by {}", if use_uring { "io_uring" } else { "epoll and plain file I/O" });
    let threads = match options.threads {
        Some(threads) => threads,
        None => thread::available_parallelism().map_or(1, usize::from).min(keyhole_log::limits::WORKERS_MAX),
    };
    process::allow_connections((threads * CONNECTIONS_MAX) as u64);
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
    let tls_config = load_tls(options)?;
    let place = Place::find(&options.data, options.state.as_deref())?;
    let starting = service::starting(store_options.read.clone());
    let store = store::open(&place, &store_options)?;
    drop(starting);
    let (credential, origin) = credentials::load(&place.state)?;
    let (listeners, address) = match inherited.take("http", threads)? {
        Some(handed_over) => handed_over,
        None => listen(options.listen, threads, "--listen")?,
    };
    let (mut tls_setups, tls_address) = match options.tls_listen.zip(tls_config) {
        Some((address, config)) => {
            let (listeners, address) = match inherited.take("https", threads)? {
                Some(handed_over) => handed_over,
                None => listen(address, threads, "--tls-listen")?,
            };
            let setups = listeners.into_iter().map(|listener| TlsSetup { listener, config: config.clone() });
            (setups.collect(), Some(address))
        }
        None => (Vec::new(), None),
    };
    inherited.nothing_left()?;
    let greeting = greeting(address, tls_address, &credential, &origin, &options.region);
    let host_names = HostNames::new(options.host_names.clone());
    let config = Arc::new(Config { region: options.region.clone(), host_names, credentials: Box::new(credential) });

    let (control, mut first) = open_control(&place);
    let (stop, stopping) = watch::channel(false);
    let (report, reports) = mpsc::channel();
    let mut watchdog = Watchdog::of_manager();
    for (index, listener) in listeners.into_iter().enumerate() {
        let setup = Setup {
            shared: store.shared.clone(),
            medium: store.medium.try_clone().map_err(|error| format!("cannot share the object file: {error}"))?,
            config: config.clone(),
            listener,
            tls: tls_setups.pop(),
            sync: options.sync,
            engine,
            serving: {
                let report = report.clone();
                Box::new(move || drop(report.send(Report::Serving)))
            },
            heart: watchdog.heart(),
            stop: stopping.clone(),
            grace: options.grace,
            first: first.take(),
        };
        let report = report.clone();
        let run = move || work(setup, use_uring, &report);
        thread::Builder::new()
            .name(format!("worker-{index}"))
            .spawn(run)
            .map_err(|error| format!("cannot start a thread: {error}"))?;
    }
    drop(report);
    // Told to end before it serves, it ends as soon as it does.
    await_all(&reports, threads, |report| matches!(report, Report::Serving))?;
    watchdog.watch().map_err(|error| format!("cannot start a thread: {error}"))?;
    print(&greeting);
    let status = status(address, tls_address);
    service::ready(&status);
    obey_signals(signals, status, options.grace, stop);
    await_all(&reports, threads, |report| matches!(report, Report::Ended))?;
    if let Some(control) = control {
        control.remove();
    }
    tracing::info!("ended");
    // The workers' rings may have an accept in flight: they end with the process.
    std::process::exit(0);
}

/// What a worker says of itself.
enum Report {
    /// It accepts connections.
    Serving,
    /// It has done all it had to.
    Ended,
    /// It will do nothing more, and why.
    Failed(String),
}

/// Runs a worker to its end, and reports what comes of it.
fn work(setup: Setup, use_uring: bool, report: &mpsc::Sender<Report>) {
    let ended = || drop(report.send(Report::Ended));
    let run = || if use_uring { uring::run(setup, ended) } else { epoll::run(setup, ended) };
    let failure = match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(())) => return,
        Ok(Err(error)) => format!("a worker cannot run: {error}"),
        Err(_) => "a worker has died; see the log".to_owned(),
    };
    let _ = report.send(Report::Failed(failure));
}

/// Waits for so many reports of a kind; an error where a worker fails meanwhile.
fn await_all(reports: &mpsc::Receiver<Report>, count: usize, is_it: impl Fn(&Report) -> bool) -> Result<(), String> {
    let mut left = count;
    while left > 0 {
        match reports.recv() {
            Ok(Report::Failed(why)) => return Err(why),
            Ok(report) if is_it(&report) => left -= 1,
            Ok(_) => {}
            Err(_) => return Err("a worker has died; see the log".to_owned()),
        }
    }
    Ok(())
}

/// What the TLS listener says to clients, where there is one. The command line has all three options or none.
fn load_tls(options: &ServeOptions) -> Result<Option<Arc<rustls::ServerConfig>>, String> {
    match (&options.tls_cert, &options.tls_key) {
        (Some(certificate), Some(key)) => tls::load(certificate, key).map(Some),
        _ => Ok(None),
    }
}

/// What the first worker does besides, and the name of the control socket. A node without one serves all the same.
fn open_control(place: &Place) -> (Option<Control>, Option<First>) {
    let path = place.socket();
    match Control::bind(&path) {
        Ok((control, listener)) => (Some(control), Some(First { control: Some(listener) })),
        Err(error) => {
            tracing::warn!(
                "cannot make the control socket {}: {error}; stat, compact, scrub and bucket work while the node does not \
                 run, or with --state DIR on another file system",
                path.display()
            );
            (None, Some(First { control: None }))
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

/// One listener for each thread, all on one port; and the address that came of it.
fn listen(address: SocketAddr, threads: usize, option: &str) -> Result<(Vec<Listener>, SocketAddr), String> {
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
        io::Result::Ok(Listener { socket: TcpListener::from(socket), is_shared: false })
    };
    // Sharing a port with SO_REUSEPORT would also share it with another node of the same user: a listener that does not
    // share finds out.
    let alone = socket(address, false).map_err(failed)?;
    let address = alone.socket.local_addr().map_err(failed)?;
    if threads == 1 {
        return Ok((vec![alone], address));
    }
    drop(alone);
    let listeners: Result<_, _> = (0..threads).map(|_| socket(address, true).map_err(failed)).collect();
    Ok((listeners?, address))
}

/// Does what signals ask for: tells the workers to end, reads anew what can be.
fn obey_signals(signals: Signals, status: String, grace: Duration, stop: watch::Sender<bool>) {
    thread::spawn(move || {
        loop {
            match signals.wait() {
                Asked::Reload if *stop.borrow() => {}
                Asked::Reload => service::reloading(&status, reload),
                Asked::End(signal) if *stop.borrow() => {
                    tracing::warn!("{signal} again: ending at once");
                    std::process::exit(1);
                }
                Asked::End(signal) => {
                    tracing::info!("{signal}: no further requests are taken");
                    service::stopping(grace);
                    stop.send_replace(true);
                }
            }
        }
    });
}

/// Reads anew what may change while the node runs, when SIGHUP asks for it. What fails must leave all as it was.
fn reload() -> Result<(), String> {
    tracing::info!("SIGHUP: nothing of what this node was started with is read anew without a restart");
    Ok(())
}

/// What the service manager shows of a node that is well.
fn status(address: SocketAddr, tls: Option<SocketAddr>) -> String {
    let tls = tls.map(|address| format!(" and https://{address}")).unwrap_or_default();
    format!("serving on http://{address}{tls}")
}

fn print(text: &str) {
    let mut out = io::stdout().lock();
    // Nobody may be reading; the node serves all the same.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// What is said at the start: with which credential, where, and what to try.
fn greeting(
    address: SocketAddr,
    tls: Option<SocketAddr>,
    credential: &Credential,
    origin: &Origin,
    region: &str,
) -> String {
    let mut text = String::new();
    let mut line = |line: &str| {
        text.push_str(line);
        text.push('\n');
    };
    match origin {
        Origin::Environment => line("credential: from KEYHOLE_ACCESS_KEY and KEYHOLE_SECRET_KEY"),
        Origin::File(path) => line(&format!("credential: from {}", path.display())),
        Origin::Made(path) => {
            if service::is_managed() {
                // What is said here is kept in a journal, which others than the owner may read.
                line(&format!("a credential was made: it is in {}", path.display()));
            } else {
                show_credential(&mut line, path, address, credential, region);
            }
        }
    }
    if let Some(address) = tls {
        line(&format!("listening on https://{address}"));
    }
    line(&format!("listening on http://{address}"));
    text
}

/// The credential that was made, for the one time that it is shown, and what to try with it.
fn show_credential(
    line: &mut impl FnMut(&str),
    path: &Path,
    address: SocketAddr,
    credential: &Credential,
    region: &str,
) {
    let endpoint = format!("aws --endpoint-url http://{address}");
    line(&format!("A credential was made and written to {}. To try the node:", path.display()));
    line("");
    line(&format!("  export AWS_ACCESS_KEY_ID={}", credential.access_key));
    line(&format!("  export AWS_SECRET_ACCESS_KEY={}", credential.secret_key.expose()));
    line(&format!("  export AWS_DEFAULT_REGION={region}"));
    line(&format!("  {endpoint} s3api create-bucket --bucket my-bucket"));
    line("  openssl rand -out ssec.key 32");
    line(&format!("  {endpoint} s3 cp FILE s3://my-bucket/ --sse-c AES256 --sse-c-key fileb://ssec.key"));
    line(&format!("  {endpoint} s3 cp s3://my-bucket/FILE COPY --sse-c AES256 --sse-c-key fileb://ssec.key"));
    line("");
}
