//! A worker: one thread with its own ring or poller, listener, buffers and segments.

use std::io;
use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use keyhole_log::{Disk, Log, Store};
use keyhole_node::{Config, Host, Node, Platform};
use tokio::sync::watch;
use tokio::task::{JoinHandle, spawn_local};

use crate::background::{Background, Duties};
use crate::buffer::Buffer;
use crate::cli::serve::SyncMode;
use crate::engine::AnyEngine;
use crate::env::WorkerSystem;
use crate::medium::Medium;
use crate::metrics::{self, Meter};
use crate::net::tls::Acceptor;
use crate::net::{Accept, Connection, Connections, Listener, Socket};
use crate::status::Monitor;
use crate::watchdog::Heartbeat;

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

/// Serves until the node shuts down; returns once the requests in flight are answered or the grace
/// period is over, and everything that was handed to the log is written. `listener` converts a
/// socket into an acceptor.
pub(crate) async fn run<D, A>(setup: Setup, disk: D, listener: impl Fn(Listener) -> io::Result<A>) -> io::Result<()>
where
    D: Disk<Buf = Buffer>,
    A: Accept,
{
    let plain = listener(setup.listener)?;
    let tls = setup.tls.map(|tls| io::Result::Ok((listener(tls.listener)?, Acceptor::new(tls.configs))));
    let tls = tls.transpose()?;
    let disk = Rc::new(disk);
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
    let node: WorkerNode<D, A::Stream> = Node::new(setup.config, log.clone(), setup.engine, Host::new(system));
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
    heartbeat.rest();
    Ok(())
}

/// The platform of a worker: a disk, and connections over sockets `S` with or without TLS.
struct WorkerPlatform<D, S>(PhantomData<(D, S)>);

impl<D: Disk<Buf = Buffer>, S: Socket> Platform for WorkerPlatform<D, S> {
    type Disk = D;
    type Engine = AnyEngine;
    type Stream = Connection<S>;
}

type WorkerNode<D, S> = Rc<Node<WorkerPlatform<D, S>>>;

async fn accept_plain<D, A>(listener: &A, node: &WorkerNode<D, A::Stream>, connections: &Rc<Connections>, meter: &Meter)
where
    D: Disk<Buf = Buffer>,
    A: Accept,
{
    let serve = |stream| {
        let connected = meter.connection(metrics::ListenerKind::Http);
        serve(node.clone(), connected, async move { Some(Connection::Plain(stream)) })
    };
    accept_all(listener, connections, || node.shed(), serve).await;
}

/// Accepts from the TLS listener; pends without end if there is none.
async fn accept_tls<D, A>(
    tls: Option<&(A, Acceptor)>,
    node: &WorkerNode<D, A::Stream>,
    connections: &Rc<Connections>,
    meter: &Meter,
) where
    D: Disk<Buf = Buffer>,
    A: Accept,
{
    let Some((listener, acceptor)) = tls else { return std::future::pending().await };
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
async fn serve<D, P, C>(node: WorkerNode<D, P>, counted: C, connection: impl Future<Output = Option<Connection<P>>>)
where
    D: Disk<Buf = Buffer>,
    P: Socket,
{
    if let Some(connection) = connection.await {
        node.serve(connection).await;
    }
    drop(counted);
}

/// Accepts connections without end, and spawns a task for each.
/// `shed` refuses a request that waits for memory.
async fn accept_all<A, F>(
    listener: &A,
    connections: &Rc<Connections>,
    shed: impl Fn() -> bool,
    serve: impl Fn(A::Stream) -> F,
) where
    A: Accept,
    F: Future<Output = ()> + 'static,
{
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
async fn flush_finally<D: Disk>(log: &Log<D>, flusher: Option<JoinHandle<()>>) {
    if let Some(flusher) = flusher {
        flusher.abort();
        let _ = flusher.await;
    }
    if let Err(error) = log.flush().await {
        tracing::error!(%error, "cannot make the last writes durable");
    }
}

async fn flush_regularly<D: Disk>(log: Log<D>, period: Duration) {
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
