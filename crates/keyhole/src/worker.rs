//! One worker: a thread with its own ring or poller, listener, blocks and segments.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use keyhole_log::{Disk, Log, Shared};
use keyhole_node::{Config, Node, Stream};
use tokio::sync::{Notify, watch};
use tokio::task::spawn_local;

use crate::buffer::Block;
use crate::chores::Chores;
use crate::cli::SyncMode;
use crate::connection::Connection;
use crate::engine::Chosen;
use crate::env::System;
use crate::medium::Medium;
use crate::tls::Acceptor;

/// Connections that one worker serves at a time; beyond it they wait in the listeners' queues. (With two listeners it may be
/// one more: both may be accepting when the last place is taken.)
const CONNECTIONS_MAX: usize = 1024;

/// How long requests in flight may go on after the node was told to end.
const GRACE: Duration = Duration::from_secs(10);

/// How long to wait where a connection cannot be accepted (too many open files).
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// How long a peer may be quiet before its connection is shut down.
pub(crate) const IDLE: Duration = Duration::from_secs(30);

/// How long, and for how many bytes, to listen to a peer that still sends after its reply.
pub(crate) const LINGER: Duration = Duration::from_secs(2);
pub(crate) const LINGER_BYTES: usize = 64 << 20;

/// What a worker is made of.
pub(crate) struct Setup {
    pub(crate) shared: Arc<Shared>,
    pub(crate) medium: Medium,
    pub(crate) config: Arc<Config>,
    pub(crate) listener: TcpListener,
    pub(crate) tls: Option<TlsSetup>,
    pub(crate) sync: SyncMode,
    pub(crate) engine: Chosen,
    /// Becomes true when the node is to end.
    pub(crate) stop: watch::Receiver<bool>,
    /// Of the first worker alone.
    pub(crate) first: Option<First>,
}

/// What a worker needs to listen for TLS.
pub(crate) struct TlsSetup {
    pub(crate) listener: TcpListener,
    /// Shared by the workers, and so are the sessions that clients may resume.
    pub(crate) config: Arc<rustls::ServerConfig>,
}

/// What the first worker does besides.
pub(crate) struct First {
    /// The control socket, if there is one.
    pub(crate) control: Option<UnixListener>,
}

/// A connection as the system has it, without TLS.
pub(crate) trait Socket: Stream<Buf = Block> {
    /// Whether the node is ending, and no further request wanted.
    fn is_draining(&self) -> bool;
}

/// Takes connections from a listener.
#[allow(async_fn_in_trait)]
pub(crate) trait Accept {
    type Stream: Socket;

    async fn accept(&self, connections: &Rc<Connections>) -> io::Result<Self::Stream>;
}

/// A connection that may be told that no further request is wanted.
pub(crate) trait Idle {
    /// Ends the connection where it waits for a request; otherwise it ends after the reply.
    fn stop_if_idle(&self);
}

/// The open connections of a worker.
#[derive(Default)]
pub(crate) struct Connections {
    open: RefCell<Vec<Weak<dyn Idle>>>,
    count: Cell<usize>,
    draining: Cell<bool>,
    changed: Notify,
}

/// Counts one connection for as long as it lives.
pub(crate) struct Open(Rc<Connections>);

impl Connections {
    /// Counts a connection in.
    pub(crate) fn open(self: &Rc<Self>) -> Open {
        self.count.set(self.count.get() + 1);
        Open(self.clone())
    }

    /// Takes note of a connection, to end it when the node ends.
    pub(crate) fn register(&self, connection: Weak<dyn Idle>) {
        let mut open = self.open.borrow_mut();
        if open.len() >= 2 * self.count.get().max(8) {
            open.retain(|connection| connection.strong_count() > 0);
        }
        open.push(connection);
    }

    fn drain(&self) {
        self.draining.set(true);
        self.open.borrow().iter().filter_map(Weak::upgrade).for_each(|connection| connection.stop_if_idle());
    }

    async fn below(&self, limit: usize) {
        while self.count.get() >= limit {
            self.changed.notified().await;
        }
    }
}

impl Open {
    /// Whether the node is ending, and no further request wanted.
    pub(crate) fn is_draining(&self) -> bool {
        self.0.draining.get()
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.count.set(self.0.count.get() - 1);
        // Both listeners may be waiting.
        self.0.changed.notify_waiters();
    }
}

/// Serves until the node is told to end, then until the requests in flight are answered or the grace is over, and all
/// that was handed to the log is written. `listener` makes what connections are accepted from.
pub(crate) async fn run<D, A>(setup: Setup, disk: D, listener: impl Fn(TcpListener) -> io::Result<A>) -> io::Result<()>
where
    D: Disk<Buf = Block>,
    A: Accept,
{
    let plain = listener(setup.listener)?;
    let tls = match setup.tls {
        Some(tls) => Some((listener(tls.listener)?, Acceptor::new(tls.config))),
        None => None,
    };
    let disk = Rc::new(disk);
    let (log, writer) = keyhole_log::worker(setup.shared.clone(), disk.clone());
    let writer = spawn_local(writer.run());
    let mut chores = setup.first.map(|first| {
        let mut chores = Chores::start(setup.shared, disk);
        chores.with_log(&log, first.control);
        chores
    });
    let flusher = match setup.sync {
        SyncMode::Interval(period) => Some(spawn_local(flush_regularly(log.clone(), period))),
        SyncMode::Always | SyncMode::Never => None,
    };
    let node = Node::new(setup.config, log.clone(), setup.engine, System);
    let connections = Rc::new(Connections::default());
    let mut stop = setup.stop;
    tokio::select! {
        _ = stop.wait_for(|stop| *stop) => {}
        () = accept_plain(&plain, &node, &connections) => {}
        () = accept_tls(tls.as_ref(), &node, &connections) => {}
    }
    connections.drain();
    if let Some(chores) = &mut chores {
        chores.release().await;
    }
    if tokio::time::timeout(GRACE, connections.below(1)).await.is_err() {
        tracing::warn!(connections = connections.count.get(), "the grace is over; requests in flight are cut off");
    }
    if let Some(flusher) = flusher {
        flusher.abort();
        let _ = flusher.await;
    }
    if let Err(error) = log.flush().await {
        tracing::error!(%error, "the last writes could not be made durable");
    }
    drop((node, log));
    // A request that was cut off still holds the log; what it was promised has been flushed.
    let all_answered = connections.count.get() == 0;
    if all_answered {
        let _ = writer.await;
    }
    if let Some(chores) = chores
        && !(all_answered && chores.end().await)
    {
        tracing::warn!("the last checkpoint was not written; the next start reads more");
    }
    Ok(())
}

type Served<D> = Rc<Node<D, Chosen, System>>;

async fn accept_plain<D, A>(listener: &A, node: &Served<D>, connections: &Rc<Connections>)
where
    D: Disk<Buf = Block>,
    A: Accept,
{
    let serve = |stream| serve(node.clone(), async move { Some(Connection::Plain(stream)) });
    accept_all(listener, connections, serve).await;
}

/// Accepts from the TLS listener, where there is one.
async fn accept_tls<D, A>(tls: Option<&(A, Acceptor)>, node: &Served<D>, connections: &Rc<Connections>)
where
    D: Disk<Buf = Block>,
    A: Accept,
{
    let Some((listener, acceptor)) = tls else { return std::future::pending().await };
    let serve = |stream| {
        let acceptor = acceptor.clone();
        serve(node.clone(), async move { acceptor.accept(stream).await.map(Connection::Tls) })
    };
    accept_all(listener, connections, serve).await;
}

/// Serves a connection as soon as there is one.
async fn serve<D, P>(node: Served<D>, connection: impl Future<Output = Option<Connection<P>>>)
where
    D: Disk<Buf = Block>,
    P: Socket,
{
    if let Some(connection) = connection.await {
        node.serve(connection).await;
    }
}

/// Accepts connections for ever, and has each served by a task of its own.
async fn accept_all<A, F>(listener: &A, connections: &Rc<Connections>, serve: impl Fn(A::Stream) -> F)
where
    A: Accept,
    F: Future<Output = ()> + 'static,
{
    loop {
        connections.below(CONNECTIONS_MAX).await;
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

async fn flush_regularly<D: Disk>(log: Log<D>, period: Duration) {
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Err(error) = log.flush().await {
            tracing::error!(%error, "writes could not be made durable");
            return;
        }
    }
}

/// Awaits an operation; where nothing comes of it within `limit`, ends it with `cancel` and awaits it all the same, for an
/// operation in flight must not be dropped. Whether it was in time.
pub(crate) async fn in_time<T>(
    limit: Duration,
    operation: impl Future<Output = T>,
    cancel: impl FnOnce(),
) -> (T, bool) {
    let mut operation = std::pin::pin!(operation);
    tokio::select! {
        biased;
        result = &mut operation => (result, true),
        () = tokio::time::sleep(limit) => {
            cancel();
            (operation.await, false)
        }
    }
}

/// What an operation that was ended for want of time comes to.
pub(crate) fn timed_out<T>(result: io::Result<T>, was_in_time: bool) -> io::Result<T> {
    if was_in_time { result } else { Err(io::ErrorKind::TimedOut.into()) }
}
