//! A worker: one thread with its own ring or poller, listener, buffers and segments.

use std::future::pending;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use keyhole_log::{Log, Store};
use keyhole_node::{Config, Host, Node, Platform};
use tokio::sync::watch;
use tokio::task::{JoinHandle, spawn_local};

use crate::background::{Background, Duties};
use crate::buffer::Pools;
use crate::cli::serve::SyncMode;
use crate::engine::AnyEngine;
use crate::env::WorkerSystem;
use crate::medium::Medium;
use crate::metrics::{self, Meter};
use crate::net::tls::Acceptor;
use crate::net::{Accept, Connection, Connections, Listener};
use crate::platform::{AnyDisk, AnyListener, AnySocket, Interface};
use crate::skip_sync::break_worker;
use crate::status::Monitor;
use crate::watchdog::Heartbeat;
use crate::{epoll, uring};

/// Delay before the next accept after a failed one (too many open files).
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// The parts that a worker is built from.
pub(crate) struct Setup {
    pub(crate) store: Arc<Store>,
    pub(crate) medium: Medium,
    pub(crate) config: Arc<Config>,
    pub(crate) listener: Listener,
    pub(crate) tls: Option<TlsSetup>,
    pub(crate) sync: SyncMode,
    /// Limit of concurrent connections, at most [`CONNECTIONS_MAX`](crate::net::CONNECTIONS_MAX).
    pub(crate) connections: usize,
    pub(crate) engine: AnyEngine,
    /// Called once the worker accepts connections.
    pub(crate) serving: Box<dyn FnOnce() + Send>,
    /// Heartbeat of the worker's thread.
    pub(crate) heartbeat: Arc<Heartbeat>,
    /// Becomes true when the node is to shut down.
    pub(crate) stop: watch::Receiver<bool>,
    /// Time that requests in flight may take after that.
    pub(crate) grace: Duration,
    /// Additional duties of the first worker; `None` for the others.
    pub(crate) first: Option<Duties>,
    /// The worker's counters.
    pub(crate) meter: Meter,
    pub(crate) monitor: Arc<Monitor>,
}

/// The parts that a worker needs to listen for TLS.
pub(crate) struct TlsSetup {
    pub(crate) listener: Listener,
    /// Shared by the workers, as are the resumable sessions. Replaced when files have changed.
    pub(crate) configs: watch::Receiver<Arc<rustls::ServerConfig>>,
}

/// Runs a worker and calls `done` when it has finished. On a ring, the thread then waits for the
/// process to exit, because its runtime may still have an accept in flight.
pub(crate) fn run(setup: Setup, interface: Interface, done: impl FnOnce()) -> io::Result<()> {
    match interface {
        Interface::Uring => uring::block_on(async {
            work(setup, interface).await?;
            done();
            pending().await
        })?,
        Interface::Epoll => {
            epoll::block_on(work(setup, interface))??;
            done();
            Ok(())
        }
    }
}

/// Serves until the node shuts down; returns once the requests in flight are answered or the grace
/// period is over, and everything that was handed to the log is written.
async fn work(setup: Setup, interface: Interface) -> io::Result<()> {
    let listener = |listener| AnyListener::new(interface, listener);
    let plain = listener(setup.listener)?;
    let tls = setup.tls.map(|tls| io::Result::Ok((listener(tls.listener)?, Acceptor::new(tls.configs))));
    let tls = tls.transpose()?;
    let pools = Pools::new(setup.config.share);
    let releasing = spawn_local(pools.clone().release_when_idle());
    let disk = Rc::new(AnyDisk::new(interface, setup.medium, pools)?);
    break_worker();
    let (log, writer) = keyhole_log::worker(setup.store.clone(), disk.clone());
    let writer = spawn_local(writer.run());
    let mut background = setup.first.map(|first| {
        let mut background = Background::start(setup.store, disk);
        background.with_log(&log, first);
        background
    });
    let flusher = match setup.sync {
        SyncMode::Interval(period) => Some(spawn_local(flush_regularly(log.clone(), period))),
        SyncMode::Always | SyncMode::Never => None,
    };
    let system = WorkerSystem::default();
    let cleaning = spawn_local(system.clone().keep_stack_clean());
    let node: WorkerNode = Node::new(setup.config, log.clone(), setup.engine, Host::new(system));
    let meter = setup.meter;
    let monitor = setup.monitor;
    meter.enter(node.gauge());
    let connections = Rc::new(Connections::new(setup.connections));
    let timekeeper = spawn_local(keep_time(connections.clone(), meter.clone(), monitor));
    let heartbeat = setup.heartbeat;
    let beating = spawn_local({
        let heartbeat = heartbeat.clone();
        async move { heartbeat.beat().await }
    });
    (setup.serving)();
    let mut stop = setup.stop;
    tokio::select! {
        _ = stop.wait_for(|stop| *stop) => {}
        () = accept_plain(&plain, &node, &connections, &meter) => {}
        () = accept_tls(tls.as_ref(), &node, &connections, &meter) => {}
    }
    plain.close();
    if let Some((tls, _)) = tls {
        tls.close();
    }
    let drained = connections.drain(setup.grace);
    let released = async {
        if let Some(background) = &mut background {
            background.release().await;
        }
    };
    tokio::join!(drained, released);
    timekeeper.abort();
    flush_finally(&log, flusher).await;
    drop((node, log));
    // A request that was cut off still holds the log; its acknowledged writes have been flushed.
    let all_answered = connections.count() == 0;
    if all_answered {
        let _ = writer.await;
    }
    if let Some(background) = background
        && !(all_answered && background.end().await)
    {
        tracing::warn!("the last checkpoint was not written; the next start takes longer");
    }
    beating.abort();
    cleaning.abort();
    releasing.abort();
    heartbeat.rest();
    Ok(())
}

/// The platform of a worker: a disk, and connections with or without TLS.
struct WorkerPlatform;

impl Platform for WorkerPlatform {
    type Disk = AnyDisk;
    type Engine = AnyEngine;
    type Stream = Connection<AnySocket>;
}

type WorkerNode = Rc<Node<WorkerPlatform>>;

async fn accept_plain(listener: &AnyListener, node: &WorkerNode, connections: &Rc<Connections>, meter: &Meter) {
    let serve = |stream| {
        let connected = meter.connection(metrics::ListenerKind::Http);
        serve(node.clone(), connected, async move { Some(Connection::Plain(stream)) })
    };
    accept_all(listener, connections, || node.shed(), serve).await;
}

/// Accepts from the TLS listener; pends without end if there is none.
async fn accept_tls(
    tls: Option<&(AnyListener, Acceptor)>,
    node: &WorkerNode,
    connections: &Rc<Connections>,
    meter: &Meter,
) {
    let Some((listener, acceptor)) = tls else { return pending().await };
    let serve = |stream| {
        let acceptor = acceptor.clone();
        let meter = meter.clone();
        let places = connections.take_tls_places();
        serve(node.clone(), (meter.connection(metrics::ListenerKind::Https), places), async move {
            let accepted = acceptor.accept(stream).await;
            meter.handshake(accepted.is_some());
            accepted.map(Connection::Tls)
        })
    };
    accept_all(listener, connections, || node.shed(), serve).await;
}

/// Serves a connection once it is established. `counted` counts it from the accept until its end.
async fn serve<C>(node: WorkerNode, counted: C, connection: impl Future<Output = Option<Connection<AnySocket>>>) {
    if let Some(connection) = connection.await {
        node.serve(connection).await;
    }
    drop(counted);
}

/// Accepts connections without end, and spawns a task for each.
/// `shed` refuses a request that waits for memory.
async fn accept_all<F: Future<Output = ()> + 'static>(
    listener: &AnyListener,
    connections: &Rc<Connections>,
    shed: impl Fn() -> bool,
    serve: impl Fn(AnySocket) -> F,
) {
    loop {
        // Lets the connections be served that were accepted before.
        tokio::task::consume_budget().await;
        connections.make_room(&shed).await;
        match listener.accept(connections).await {
            Ok(stream) => {
                spawn_local(serve(stream));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

/// Closes late connections and sends heartbeats to the monitor, without end.
async fn keep_time(connections: Rc<Connections>, meter: Meter, monitor: Arc<Monitor>) {
    connections.keep_time(|| meter.beat(monitor.uptime())).await;
}

/// Makes everything durable that was written, instead of the regular flushes.
async fn flush_finally(log: &Log<AnyDisk>, flusher: Option<JoinHandle<()>>) {
    if let Some(flusher) = flusher {
        flusher.abort();
        let _ = flusher.await;
    }
    if let Err(error) = log.flush().await {
        tracing::error!(%error, "cannot make the last writes durable");
    }
}

async fn flush_regularly(log: Log<AnyDisk>, period: Duration) {
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Err(error) = log.flush().await {
            tracing::error!(%error, "cannot make writes durable");
            return;
        }
    }
}
