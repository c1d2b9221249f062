//! One worker: a thread with its own ring or poller, listener, blocks and segments.

use std::cell::{Cell, RefCell};
use std::io;
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::ops::Range;
use std::os::unix::net::UnixListener;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use keyhole_log::{Disk, Log, Shared};
use keyhole_node::{Config, Node, Stream};
use socket2::SockRef;
use tokio::sync::{Notify, watch};
use tokio::task::spawn_local;
use tokio::time::{Instant, timeout_at};
use zeroize::Zeroize;

use crate::activation::Listener;
use crate::buffer::Block;
use crate::chores::Chores;
use crate::cli::SyncMode;
use crate::connection::Connection;
use crate::control::Running;
use crate::engine::Chosen;
use crate::env::System;
use crate::medium::Medium;
use crate::metrics::{self, Connected, Meter};
use crate::status::Monitor;
use crate::tls::Acceptor;
use crate::watchdog::Heart;

/// Connections that one worker serves at a time, where there is memory for as many; beyond it they wait in the listeners' queues.
/// (With two listeners it may be one more: both may be accepting when the last place is taken.)
pub(crate) const CONNECTIONS_MAX: usize = 1024;

/// How long a connection that was just accepted has for its first request when the node is ending: that may be on its way.
const FIRST_REQUEST: Duration = Duration::from_secs(1);

/// How long the tasks of connections may take to end that were cut off.
const CUT_OFF: Duration = Duration::from_secs(2);

/// How long to wait where a connection cannot be accepted (too many open files).
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// How long a peer may be quiet before its connection is shut down; up to a [`TICK`] more.
const IDLE: Duration = Duration::from_secs(30);

/// How often it is looked who has been quiet for too long. A timer for each operation would be a good part of what it costs.
const TICK: Duration = Duration::from_secs(1);

/// The slowest that a peer may send a request or take a reply: so many bytes a second, over so many ticks in which it is waited for. What
/// the node itself takes its time for does not count.
const RATE_MIN: u64 = 256;
const RATE_TICKS: u64 = 30;

/// As many ticks.
const IDLE_TICKS: u64 = IDLE.as_secs() / TICK.as_secs();

/// How long, and for how many bytes, to listen to a peer that still sends after its reply.
pub(crate) const LINGER: Duration = Duration::from_secs(2);
pub(crate) const LINGER_BYTES: usize = 64 << 20;

/// What a worker is made of.
pub(crate) struct Setup {
    pub(crate) shared: Arc<Shared>,
    pub(crate) medium: Medium,
    pub(crate) config: Arc<Config>,
    pub(crate) listener: Listener,
    pub(crate) tls: Option<TlsSetup>,
    pub(crate) sync: SyncMode,
    /// How many connections it serves at a time, up to [`CONNECTIONS_MAX`].
    pub(crate) connections: usize,
    pub(crate) engine: Chosen,
    /// Told once the worker accepts connections.
    pub(crate) serving: Box<dyn FnOnce() + Send>,
    /// Shows that the worker's thread goes round.
    pub(crate) heart: Arc<Heart>,
    /// Becomes true when the node is to end.
    pub(crate) stop: watch::Receiver<bool>,
    /// How long requests in flight may go on then.
    pub(crate) grace: Duration,
    /// Of the first worker alone.
    pub(crate) first: Option<First>,
    /// What it counts.
    pub(crate) meter: Meter,
    pub(crate) monitor: Arc<Monitor>,
}

/// What a worker needs to listen for TLS.
pub(crate) struct TlsSetup {
    pub(crate) listener: Listener,
    /// Shared by the workers, and so are the sessions that clients may resume. Another one comes when files have changed.
    pub(crate) configs: watch::Receiver<Arc<rustls::ServerConfig>>,
}

/// What the first worker does besides.
pub(crate) struct First {
    /// The control socket, if there is one.
    pub(crate) control: Option<UnixListener>,
    /// What its clients ask about.
    pub(crate) running: Arc<Running>,
}

/// A connection as the system has it, without TLS.
#[allow(async_fn_in_trait)]
pub(crate) trait Socket: Stream<Buf = Block> {
    /// Its time, and how far its peer is.
    fn open(&self) -> &Open;

    /// Whether the peer has sent something that was not received yet.
    fn has_come(&self) -> bool;

    /// As `read_block`, for what a request begins in: `Ok(0)` as well where none is wanted any more.
    async fn read_request_block(&self, buf: Block, at: Range<usize>) -> (io::Result<usize>, Block) {
        if !self.open().begin_request(|| self.has_come()) {
            return (Ok(0), buf);
        }
        let (result, buf) = self.read_block(buf, at).await;
        (self.open().request_begun(result), buf)
    }

    /// The same as `read_bytes` is to `read_block`.
    async fn read_request_bytes(&self, bytes: Vec<u8>) -> (io::Result<usize>, Vec<u8>) {
        if !self.open().begin_request(|| self.has_come()) {
            return (Ok(0), bytes);
        }
        let before = bytes.len();
        let (result, bytes) = self.read_bytes(bytes).await;
        unread(self.open().request_begun(result), bytes, before)
    }
}

/// Takes connections from a listener.
#[allow(async_fn_in_trait)]
pub(crate) trait Accept {
    type Stream: Socket;

    async fn accept(&self, connections: &Rc<Connections>) -> io::Result<Self::Stream>;

    /// Takes no more: who connects is refused, or waits for those that share the socket.
    fn close(self);
}

/// A connection that may be told that no further request is wanted, or that its peer has been quiet for too long.
pub(crate) trait Idle {
    /// Its time, and how far its peer is.
    fn open(&self) -> &Open;

    /// Ends one direction of it, or both: what is under way in it comes to an end.
    fn shut_down(&self, how: Shutdown);

    /// Ends the connection where it waits for a request; otherwise it ends after the reply.
    fn stop_if_idle(&self) {
        if self.open().refuse_if_idle() {
            self.shut_down(Shutdown::Read);
        }
    }

    /// Ends the connection if its peer has been quiet for too long, or is too slow.
    fn stop_if_late(&self) {
        if let Some(how) = self.open().late() {
            self.shut_down(how);
        }
    }

    /// Ends the connection, whatever is under way.
    fn cut_off(&self) {
        self.shut_down(Shutdown::Both);
    }
}

/// How far the end of the node is.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
enum Phase {
    #[default]
    Serving,
    /// No further request is wanted, but for the first of a connection.
    Ending,
    /// Nor is that.
    Refusing,
}

/// The open connections of a worker.
#[derive(Default)]
pub(crate) struct Connections {
    /// How many there may be.
    max: usize,
    open: RefCell<Vec<Weak<dyn Idle>>>,
    count: Cell<usize>,
    phase: Cell<Phase>,
    changed: Notify,
    /// Ticks since the worker started.
    ticks: Cell<u64>,
}

/// Counts one connection for as long as it lives, and keeps its time.
pub(crate) struct Open {
    of: Rc<Connections>,
    /// When the operation under way was begun, in ticks; none is: `u64::MAX`.
    since: Cell<u64>,
    /// It was ended, as its peer was quiet for too long.
    is_late: Cell<bool>,
    /// The operation under way is to receive.
    is_reading: Cell<bool>,
    /// Ticks in which the peer was waited for, and bytes that came or went meanwhile: of the request at hand, since its rate was looked
    /// at last.
    waited: Cell<u64>,
    moved: Cell<u64>,
    /// The peer owes a request, and nothing of one has come.
    is_idle: Cell<bool>,
    /// No request has come yet.
    is_new: Cell<bool>,
    /// It was ended while it was idle: what has come all the same may be cut, and is no request.
    is_refused: Cell<bool>,
}

impl Connections {
    /// Counts a connection in.
    pub(crate) fn open(self: &Rc<Self>) -> Open {
        self.count.set(self.count.get() + 1);
        Open {
            of: self.clone(),
            since: Cell::new(u64::MAX),
            is_late: Cell::new(false),
            is_reading: Cell::new(false),
            waited: Cell::new(0),
            moved: Cell::new(0),
            is_idle: Cell::new(false),
            is_new: Cell::new(true),
            is_refused: Cell::new(false),
        }
    }

    /// Ends, for ever, the connections whose peers are quiet for too long. `beat` is called each time.
    async fn keep_time(&self, beat: impl Fn()) {
        loop {
            beat();
            tokio::time::sleep(TICK).await;
            self.ticks.set(self.ticks.get() + 1);
            self.for_each(|connection| connection.stop_if_late());
        }
    }

    /// Takes note of a connection, to end it when the node ends.
    pub(crate) fn register(&self, connection: Weak<dyn Idle>) {
        let mut open = self.open.borrow_mut();
        if open.len() >= 2 * self.count.get().max(8) {
            open.retain(|connection| connection.strong_count() > 0);
        }
        open.push(connection);
    }

    fn for_each(&self, act: impl Fn(&dyn Idle)) {
        self.open.borrow().iter().filter_map(Weak::upgrade).for_each(|connection| act(&*connection));
    }

    /// Takes no further requests, and waits for the end of those in flight; after the grace they are cut off.
    async fn drain(&self, grace: Duration) {
        let end = Instant::now() + grace;
        for (phase, until) in [(Phase::Ending, end.min(Instant::now() + FIRST_REQUEST)), (Phase::Refusing, end)] {
            self.phase.set(phase);
            self.for_each(|connection| connection.stop_if_idle());
            if timeout_at(until, self.below(1)).await.is_ok() {
                return;
            }
        }
        tracing::warn!(connections = self.count.get(), "grace period over: aborting requests in flight");
        self.for_each(|connection| connection.cut_off());
        // Whoever is left holds the log, which then is not closed in good order.
        let _ = timeout_at(Instant::now() + CUT_OFF, self.below(1)).await;
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
        self.of.phase.get() != Phase::Serving
    }

    /// The peer now owes a request. Whether one is wanted: when the node is ending, only what `has_come` already. Then
    /// [`request_begun`](Self::request_begun) has to follow.
    pub(crate) fn begin_request(&self, has_come: impl FnOnce() -> bool) -> bool {
        let is_wanted = match self.of.phase.get() {
            Phase::Serving => true,
            Phase::Ending => self.is_new.get() || has_come(),
            Phase::Refusing => has_come(),
        };
        self.is_idle.set(is_wanted);
        is_wanted
    }

    /// The first bytes of a request have come, or the connection's end; as whose bytes they count.
    pub(crate) fn request_begun(&self, result: io::Result<usize>) -> io::Result<usize> {
        self.is_idle.set(false);
        self.is_new.set(false);
        self.waited.set(0);
        self.moved.set(0);
        if self.is_refused.get() { Ok(0) } else { result }
    }

    /// Whether the connection is to be ended, as it waits for a request and none is wanted any more; who asks ends it.
    pub(crate) fn refuse_if_idle(&self) -> bool {
        let may_send_one = self.is_new.get() && self.of.phase.get() == Phase::Ending;
        let is_refused = self.is_idle.get() && !may_send_one;
        self.is_refused.set(is_refused);
        is_refused
    }

    /// What has come so far was no request yet.
    pub(crate) fn still_owes_the_first(&self) {
        self.is_new.set(true);
    }

    /// Awaits an operation that the peer has a part in; the error is `TimedOut` where it was ended, as the peer was quiet for too
    /// long, or too slow.
    pub(crate) async fn timed<B>(
        &self,
        operation: impl Future<Output = (io::Result<usize>, B)>,
    ) -> (io::Result<usize>, B) {
        self.since.set(self.of.ticks.get());
        let (result, buf) = operation.await;
        self.since.set(u64::MAX);
        if let Ok(len) = result {
            self.moved.set(self.moved.get() + len as u64);
        }
        (timed_out(result, !self.is_late.replace(false)), buf)
    }

    /// The same of an operation that receives.
    pub(crate) async fn timed_read<B>(
        &self,
        operation: impl Future<Output = (io::Result<usize>, B)>,
    ) -> (io::Result<usize>, B) {
        self.is_reading.set(true);
        let result = self.timed(operation).await;
        self.is_reading.set(false);
        result
    }

    /// What of the connection is to be shut down, if its peer is late: asked in each tick.
    pub(crate) fn late(&self) -> Option<Shutdown> {
        if !self.is_late() {
            return None;
        }
        // Who has begun a request is told; who does not take the reply, or has sent nothing, cannot be.
        let can_be_told = self.is_reading.get() && !self.is_idle.get();
        Some(if can_be_told { Shutdown::Read } else { Shutdown::Both })
    }

    /// Whether the operation under way takes too long, or the request at hand comes, or its reply goes, too slowly.
    fn is_late(&self) -> bool {
        let since = self.since.get();
        if since == u64::MAX {
            return false;
        }
        let is_late = self.of.ticks.get().saturating_sub(since) > IDLE_TICKS || self.is_slow();
        if is_late {
            self.is_late.set(true);
        }
        is_late
    }

    /// Counts a tick in which the peer is waited for.
    fn is_slow(&self) -> bool {
        if self.is_idle.get() {
            return false;
        }
        self.waited.set(self.waited.get() + 1);
        if self.waited.get() < RATE_TICKS {
            return false;
        }
        let moved = self.moved.replace(0);
        self.waited.set(0);
        moved < RATE_MIN * RATE_TICKS
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.of.count.set(self.of.count.get() - 1);
        // Both listeners may be waiting.
        self.of.changed.notify_waiters();
    }
}

/// Serves until the node is told to end, then until the requests in flight are answered or the grace is over, and all
/// that was handed to the log is written. `listener` makes what connections are accepted from.
pub(crate) async fn run<D, A>(setup: Setup, disk: D, listener: impl Fn(Listener) -> io::Result<A>) -> io::Result<()>
where
    D: Disk<Buf = Block>,
    A: Accept,
{
    let plain = listener(setup.listener)?;
    let tls = match setup.tls {
        Some(tls) => Some((listener(tls.listener)?, Acceptor::new(tls.configs))),
        None => None,
    };
    let disk = Rc::new(disk);
    let (log, writer) = keyhole_log::worker(setup.shared.clone(), disk.clone());
    let writer = spawn_local(writer.run());
    let mut chores = setup.first.map(|first| {
        let mut chores = Chores::start(setup.shared, disk);
        chores.with_log(&log, first);
        chores
    });
    let flusher = match setup.sync {
        SyncMode::Interval(period) => Some(spawn_local(flush_regularly(log.clone(), period))),
        SyncMode::Always | SyncMode::Never => None,
    };
    let node = Node::new(setup.config, log.clone(), setup.engine, System);
    let (meter, monitor) = (setup.meter, setup.monitor);
    meter.enter(node.gauge());
    let connections = Rc::new(Connections { max: setup.connections, ..Connections::default() });
    let timekeeper = spawn_local({
        let (connections, meter) = (connections.clone(), meter.clone());
        async move { connections.keep_time(|| meter.beat(monitor.uptime())).await }
    });
    let heart = setup.heart;
    let beating = spawn_local({
        let heart = heart.clone();
        async move { heart.beat().await }
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
        if let Some(chores) = &mut chores {
            chores.release().await;
        }
    };
    tokio::join!(drained, released);
    timekeeper.abort();
    if let Some(flusher) = flusher {
        flusher.abort();
        let _ = flusher.await;
    }
    if let Err(error) = log.flush().await {
        tracing::error!(%error, "cannot make the last writes durable");
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
        tracing::warn!("the last checkpoint was not written; the next start takes longer");
    }
    beating.abort();
    heart.rest();
    Ok(())
}

type Served<D> = Rc<Node<D, Chosen, System>>;

async fn accept_plain<D, A>(listener: &A, node: &Served<D>, connections: &Rc<Connections>, meter: &Meter)
where
    D: Disk<Buf = Block>,
    A: Accept,
{
    let serve = |stream| {
        let connected = meter.connection(metrics::Listener::Http);
        serve(node.clone(), connected, async move { Some(Connection::Plain(stream)) })
    };
    accept_all(listener, connections, serve).await;
}

/// Accepts from the TLS listener, where there is one.
async fn accept_tls<D, A>(tls: Option<&(A, Acceptor)>, node: &Served<D>, connections: &Rc<Connections>, meter: &Meter)
where
    D: Disk<Buf = Block>,
    A: Accept,
{
    let Some((listener, acceptor)) = tls else { return std::future::pending().await };
    let serve = |stream| {
        let (acceptor, meter) = (acceptor.clone(), meter.clone());
        serve(node.clone(), meter.connection(metrics::Listener::Https), async move {
            let accepted = acceptor.accept(stream).await;
            meter.handshake(accepted.is_some());
            accepted.map(Connection::Tls)
        })
    };
    accept_all(listener, connections, serve).await;
}

/// Serves a connection as soon as there is one. It counts as `connected` from when it was accepted until it has ended.
async fn serve<D, P>(node: Served<D>, connected: Connected, connection: impl Future<Output = Option<Connection<P>>>)
where
    D: Disk<Buf = Block>,
    P: Socket,
{
    if let Some(connection) = connection.await {
        node.serve(connection).await;
    }
    drop(connected);
}

/// Accepts connections for ever, and has each served by a task of its own.
async fn accept_all<A, F>(listener: &A, connections: &Rc<Connections>, serve: impl Fn(A::Stream) -> F)
where
    A: Accept,
    F: Future<Output = ()> + 'static,
{
    loop {
        connections.below(connections.max).await;
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
            tracing::error!(%error, "cannot make writes durable");
            return;
        }
    }
}

/// Whether a peer has sent something that was not received yet.
pub(crate) fn has_come(socket: &SockRef<'_>) -> bool {
    let mut byte = [MaybeUninit::uninit()];
    matches!(socket.recv_with_flags(&mut byte, libc::MSG_PEEK | libc::MSG_DONTWAIT), Ok(len) if len > 0)
}

/// What was received from `before` on is forgotten where it does not count; there may be a customer key in it.
fn unread(result: io::Result<usize>, mut bytes: Vec<u8>, before: usize) -> (io::Result<usize>, Vec<u8>) {
    if matches!(result, Ok(0)) {
        bytes[before..].zeroize();
        bytes.truncate(before);
    }
    (result, bytes)
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

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    #[test]
    fn who_is_quiet_for_too_long_is_found() {
        let connections = Rc::new(Connections::default());
        let open = connections.open();
        let ticks = |ticks| connections.ticks.set(ticks);
        ticks(1000);
        assert!(!open.is_late(), "nothing is waited for");
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        let waiting = open.timed(pending::<(io::Result<usize>, ())>());
        let mut waiting = Box::pin(waiting);
        assert!(waiting.as_mut().poll(&mut cx).is_pending());
        ticks(1000 + IDLE_TICKS);
        assert!(!open.is_late());
        ticks(1001 + IDLE_TICKS);
        assert!(open.is_late());
        drop(waiting);
        let (result, ()) = at_once(open.timed(async { (io::Result::Ok(1), ()) }));
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::TimedOut, "it was ended for that");
        let (result, ()) = at_once(open.timed(async { (io::Result::Ok(1), ()) }));
        assert!(result.is_ok());
    }

    #[test]
    fn who_is_too_slow_is_found() {
        let connections = Rc::new(Connections::default());
        let open = connections.open();
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        let mut ticks = 0;
        // A second in which so many bytes came, and more is waited for.
        let mut second = |bytes: u64| {
            let bytes = usize::try_from(bytes).unwrap();
            at_once(open.timed(async { (io::Result::Ok(bytes), ()) })).0.unwrap();
            let mut waiting = Box::pin(open.timed(pending::<(io::Result<usize>, ())>()));
            assert!(waiting.as_mut().poll(&mut cx).is_pending());
            ticks += 1;
            connections.ticks.set(ticks);
            let is_late = open.is_late();
            drop(waiting);
            open.is_late.set(false);
            is_late
        };
        for _ in 0..3 * RATE_TICKS {
            assert!(!second(RATE_MIN), "it is just fast enough");
        }
        let found = (0..RATE_TICKS).filter(|_| second(RATE_MIN - 1)).count();
        assert_eq!(found, 1, "at the end");
        // The next request begins anew, and what comes before it does not count.
        for _ in 0..RATE_TICKS - 1 {
            assert!(!second(0));
        }
        assert!(open.begin_request(|| true));
        for _ in 0..2 * RATE_TICKS {
            assert!(!second(0), "it waits for a request");
        }
        open.request_begun(Ok(1)).unwrap();
        assert_eq!((0..RATE_TICKS).filter(|_| second(0)).count(), 1);
    }

    fn at_once<T>(future: impl Future<Output = T>) -> T {
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        match std::pin::pin!(future).poll(&mut cx) {
            std::task::Poll::Ready(value) => value,
            std::task::Poll::Pending => panic!("it does not wait"),
        }
    }
}
