//! Timeouts of connections, their number, and their end at shutdown.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::Shutdown;
use std::rc::{Rc, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

/// Limit of concurrent connections of one worker, if the memory allows as many. Beyond it, a new
/// connection takes the place of the one that has kept the node waiting longest. (With two listeners
/// the count can exceed the limit by one: both may be accepting when the last place is taken.)
pub(crate) const CONNECTIONS_MAX: usize = 1024;

/// Places that an HTTPS connection takes where memory limits their number: it receives into a buffer
/// of its own.
const PLACES_PER_TLS: usize = 4;

/// Rate in bytes per second at which a peer keeps up with the node, when places run out.
const RATE_CROWDED: u64 = 64 * 1024;

/// Time that a peer must have kept the node waiting to lose its place.
const OWED_MIN: Duration = Duration::from_millis(20);

/// Interval at which a new connection looks for a place, while every open one keeps up.
const PLACE_RETRY: Duration = Duration::from_millis(5);

/// Share of the places by which connections that were cut off for others, and have not ended yet,
/// may exceed the limit.
const LEAVING_SHARE: usize = 8;

/// Time that a connection accepted just before shutdown has for its first request, which may be on
/// its way.
const FIRST_REQUEST: Duration = Duration::from_secs(1);

/// Time that the tasks of cut-off connections may take to end.
const CUT_OFF: Duration = Duration::from_secs(2);

/// Idle timeout: a peer may be silent this long, and up to a [`TICK`] longer, before its connection
/// is shut down.
const IDLE: Duration = Duration::from_secs(30);

/// Interval of the timeout checks. A timer for each operation would be a considerable part of the
/// operation's cost.
const TICK: Duration = Duration::from_secs(1);

/// Minimum rate of a peer that sends a request or receives a reply: bytes per second, averaged over
/// [`RATE_TICKS`] ticks in which the node waits for the peer. The node's own delays do not count.
const RATE_MIN: u64 = 256;

const RATE_TICKS: u64 = 30;

/// [`IDLE`] in ticks.
const IDLE_TICKS: u64 = IDLE.as_secs() / TICK.as_secs();

/// A connection that can be shut down while it is idle, silent for too long, or too slow.
pub(crate) trait Supervised {
    /// Returns the connection's timeout state.
    fn state(&self) -> &ConnectionState;

    /// Shuts down one direction or both: pending operations in it complete.
    fn shut_down(&self, how: Shutdown);

    /// Closes the connection if it waits for a request; otherwise it closes after the reply.
    fn stop_if_idle(&self) {
        if self.state().refuse_if_idle() {
            self.shut_down(Shutdown::Read);
        }
    }

    /// Closes the connection if its peer has been silent for too long or is too slow.
    fn stop_if_late(&self) {
        if let Some(how) = self.state().late() {
            self.shut_down(how);
        }
    }

    /// Ends the pending operation. A peer that sends can still be answered.
    fn interrupt(&self) {
        self.shut_down(if self.state().is_reading.get() { Shutdown::Read } else { Shutdown::Both });
    }

    /// Closes the connection in any state.
    fn cut_off(&self) {
        self.shut_down(Shutdown::Both);
    }

    /// Returns the bytes sent that the peer has not received yet.
    fn unsent(&self) -> u64;

    /// Returns the time that the peer has kept the node waiting beyond what its bytes take at
    /// [`RATE_CROWDED`]; zero if the node does not wait for it.
    fn owed(&self) -> Duration {
        let state = self.state();
        if state.is_leaving.get() || state.pending_since.get().is_none() {
            return Duration::ZERO;
        }
        // What a peer sends counts at once, what it is sent only when it has received it.
        let unsent = if state.is_reading.get() { 0 } else { self.unsent() };
        state.owed(unsent)
    }
}

/// The stage of the node's shutdown.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
enum DrainPhase {
    #[default]
    Serving,
    /// Accepts no further requests, except the first one of a connection.
    Ending,
    /// Accepts no further requests.
    Refusing,
}

/// The open connections of a worker.
#[derive(Default)]
pub(crate) struct Connections {
    /// Limit of concurrent connections.
    max: usize,
    open: RefCell<Vec<Weak<dyn Supervised>>>,
    count: Cell<usize>,
    /// Those among them that were cut off for others.
    leaving: Cell<usize>,
    phase: Cell<DrainPhase>,
    changed: Notify,
    /// Ticks since the worker started.
    ticks: Cell<u64>,
}

/// Counts one connection while it lives, and holds its timeout state.
pub(crate) struct ConnectionState {
    of: Rc<Connections>,
    /// Tick at which the pending operation began; `u64::MAX` if none is pending.
    since: Cell<u64>,
    /// The pending operation was cancelled because its peer was silent for too long.
    is_late: Cell<bool>,
    /// The pending operation is a read.
    is_reading: Cell<bool>,
    /// Ticks spent waiting for the peer, and bytes moved meanwhile, in the current request since
    /// the last check of the rate.
    waited: Cell<u64>,
    moved: Cell<u64>,
    /// Time at which the pending operation began.
    pending_since: Cell<Option<Instant>>,
    /// Time spent waiting for the peer in the current request, or for it, without the pending
    /// operation, and bytes moved meanwhile.
    waited_time: Cell<Duration>,
    moved_in_request: Cell<u64>,
    /// Bytes moved since the connection was opened.
    transferred: Cell<u64>,
    /// The peer owes a request of which no byte has arrived.
    is_idle: Cell<bool>,
    /// No request has arrived yet.
    is_new: Cell<bool>,
    /// The connection was closed while idle: bytes that arrive anyway may be cut off and are not a
    /// request.
    is_refused: Cell<bool>,
    /// The connection was cut off, and its place is another's.
    is_leaving: Cell<bool>,
}

impl Connections {
    /// Returns the empty set of connections, with a limit of their number.
    pub(crate) fn new(max: usize) -> Self {
        Connections { max, ..Connections::default() }
    }

    /// Returns the count of open connections.
    pub(crate) fn count(&self) -> usize {
        self.count.get()
    }

    /// Registers a new connection in the count.
    pub(crate) fn open(self: &Rc<Self>) -> ConnectionState {
        self.count.set(self.count.get() + 1);
        ConnectionState {
            of: self.clone(),
            since: Cell::new(u64::MAX),
            is_late: Cell::new(false),
            is_reading: Cell::new(false),
            waited: Cell::new(0),
            moved: Cell::new(0),
            pending_since: Cell::new(None),
            waited_time: Cell::default(),
            moved_in_request: Cell::new(0),
            transferred: Cell::new(0),
            is_idle: Cell::new(false),
            is_new: Cell::new(true),
            is_refused: Cell::new(false),
            is_leaving: Cell::new(false),
        }
    }

    /// Closes connections with silent or slow peers, once per tick, without end; calls `beat` each
    /// time.
    pub(crate) async fn keep_time(&self, beat: impl Fn()) {
        loop {
            beat();
            tokio::time::sleep(TICK).await;
            self.ticks.set(self.ticks.get() + 1);
            self.for_each(|connection| connection.stop_if_late());
        }
    }

    /// Registers a connection so that shutdown can close it.
    pub(crate) fn register(&self, connection: Weak<dyn Supervised>) {
        let mut open = self.open.borrow_mut();
        if open.len() >= 2 * self.count.get().max(8) {
            open.retain(|connection| connection.strong_count() > 0);
        }
        open.push(connection);
    }

    fn for_each(&self, act: impl Fn(&dyn Supervised)) {
        self.open.borrow().iter().filter_map(Weak::upgrade).for_each(|connection| act(&*connection));
    }

    /// Accepts no further requests and waits for those in flight; cuts them off after the grace
    /// period.
    pub(crate) async fn drain(&self, grace: Duration) {
        let end = Instant::now() + grace;
        for (phase, until) in
            [(DrainPhase::Ending, end.min(Instant::now() + FIRST_REQUEST)), (DrainPhase::Refusing, end)]
        {
            self.phase.set(phase);
            self.for_each(|connection| connection.stop_if_idle());
            if timeout_at(until, self.below(1)).await.is_ok() {
                return;
            }
        }
        tracing::warn!(connections = self.count.get(), "grace period over: aborting requests in flight");
        self.for_each(|connection| connection.cut_off());
        // Tasks that remain hold the log, which then cannot be closed in order.
        let _ = timeout_at(Instant::now() + CUT_OFF, self.below(1)).await;
    }

    /// Makes a place for a new connection: while there is none, cuts off the connection that has kept
    /// the node waiting longest; if there is none, `shed` ends a request that waits for the node.
    ///
    /// Does not wait for a connection that was cut off to end, unless many do.
    pub(crate) async fn make_room(&self, shed: impl Fn() -> bool) {
        let is_full = || self.count.get() - self.leaving.get() >= self.max;
        loop {
            if is_full() && !self.close_longest_waiting() {
                shed();
            }
            if !is_full() && self.count.get() < self.max + self.max / LEAVING_SHARE {
                return;
            }
            let _ = timeout_at(Instant::now() + PLACE_RETRY, self.changed.notified()).await;
        }
    }

    /// Cuts off the connection whose peer owes the node the most time. Returns whether any owes some.
    fn close_longest_waiting(&self) -> bool {
        let open: Vec<_> = self.open.borrow().iter().filter_map(Weak::upgrade).collect();
        let owed = open.iter().filter_map(|connection| {
            let owed = connection.owed();
            (owed >= OWED_MIN).then_some((owed, connection))
        });
        let Some((_, connection)) = owed.max_by_key(|(owed, _)| *owed) else { return false };
        connection.state().is_leaving.set(true);
        self.leaving.set(self.leaving.get() + 1);
        connection.cut_off();
        true
    }

    /// Takes the further places of an HTTPS connection, while the result lives.
    pub(crate) fn take_tls_places(self: &Rc<Self>) -> ExtraPlaces {
        let count = if self.max < CONNECTIONS_MAX { PLACES_PER_TLS - 1 } else { 0 };
        self.count.set(self.count.get() + count);
        ExtraPlaces { of: self.clone(), count }
    }

    async fn below(&self, limit: usize) {
        while self.count.get() >= limit {
            self.changed.notified().await;
        }
    }
}

impl ConnectionState {
    /// Returns whether the node is shutting down and accepts no further requests.
    pub(crate) fn is_draining(&self) -> bool {
        self.of.phase.get() != DrainPhase::Serving
    }

    /// Marks that the peer owes a request, and returns whether one is accepted: during shutdown,
    /// only if `has_pending_bytes`. Must be followed by [`request_begun`](Self::request_begun).
    pub(crate) fn begin_request(&self, has_pending_bytes: impl FnOnce() -> bool) -> bool {
        let is_wanted = match self.of.phase.get() {
            DrainPhase::Serving => true,
            DrainPhase::Ending => self.is_new.get() || has_pending_bytes(),
            DrainPhase::Refusing => has_pending_bytes(),
        };
        self.is_idle.set(is_wanted);
        self.waited_time.set(Duration::ZERO);
        self.moved_in_request.set(0);
        is_wanted
    }

    /// Marks the first bytes of a request, or the connection's end; returns `Ok(0)` if the
    /// connection was closed while idle.
    pub(crate) fn request_begun(&self, result: io::Result<usize>) -> io::Result<usize> {
        self.is_idle.set(false);
        self.is_new.set(false);
        self.waited.set(0);
        self.moved.set(0);
        self.waited_time.set(Duration::ZERO);
        self.moved_in_request.set(0);
        if self.is_refused.get() { Ok(0) } else { result }
    }

    /// Returns whether to close the connection because it waits for a request and none is accepted
    /// any more. The caller closes it.
    pub(crate) fn refuse_if_idle(&self) -> bool {
        let may_send_one = self.is_new.get() && self.of.phase.get() == DrainPhase::Ending;
        let is_refused = self.is_idle.get() && !may_send_one;
        self.is_refused.set(is_refused);
        is_refused
    }

    /// Marks that the bytes received so far were not a request yet.
    pub(crate) fn mark_new(&self) {
        self.is_new.set(true);
    }

    /// Awaits an operation that depends on the peer.
    ///
    /// # Errors
    /// `TimedOut` if the operation was cancelled because the peer was silent for too long or too
    /// slow.
    pub(crate) async fn timed<B>(
        &self,
        operation: impl Future<Output = (io::Result<usize>, B)>,
    ) -> (io::Result<usize>, B) {
        self.since.set(self.of.ticks.get());
        self.pending_since.set(Some(Instant::now()));
        let (result, buf) = operation.await;
        self.since.set(u64::MAX);
        self.waited_time.set(self.waited_time());
        self.pending_since.set(None);
        if let Ok(len) = result {
            for moved in [&self.moved, &self.moved_in_request, &self.transferred] {
                moved.set(moved.get() + len as u64);
            }
        }
        (timed_out(result, !self.is_late.replace(false)), buf)
    }

    /// Returns the time spent waiting for the peer, with the pending operation.
    fn waited_time(&self) -> Duration {
        self.waited_time.get() + self.pending_since.get().map(|since| since.elapsed()).unwrap_or_default()
    }

    /// Returns the time spent waiting for the peer beyond what the bytes moved take at
    /// [`RATE_CROWDED`], without those that are still `unsent`.
    fn owed(&self, unsent: u64) -> Duration {
        let moved = self.moved_in_request.get().saturating_sub(unsent);
        self.waited_time().saturating_sub(Duration::from_secs_f64(moved as f64 / RATE_CROWDED as f64))
    }

    /// Returns the bytes moved since the connection was opened.
    pub(crate) fn transferred(&self) -> u64 {
        self.transferred.get()
    }

    /// As [`timed`](Self::timed), for a read.
    pub(crate) async fn timed_read<B>(
        &self,
        operation: impl Future<Output = (io::Result<usize>, B)>,
    ) -> (io::Result<usize>, B) {
        self.is_reading.set(true);
        let result = self.timed(operation).await;
        self.is_reading.set(false);
        result
    }

    /// Returns the direction to shut down if the peer is late. Called in each tick.
    pub(crate) fn late(&self) -> Option<Shutdown> {
        if !self.check_late() {
            return None;
        }
        // A peer that has begun a request gets an error reply. A peer that takes no reply, or has
        // sent nothing, cannot get one.
        let can_be_answered = self.is_reading.get() && !self.is_idle.get();
        Some(if can_be_answered { Shutdown::Read } else { Shutdown::Both })
    }

    /// Checks whether the pending operation takes too long, or the request or its reply is too
    /// slow, and marks the operation if so.
    fn check_late(&self) -> bool {
        let since = self.since.get();
        if since == u64::MAX {
            return false;
        }
        let is_late = self.of.ticks.get().saturating_sub(since) > IDLE_TICKS || self.check_slow();
        if is_late {
            self.is_late.set(true);
        }
        is_late
    }

    /// Counts a tick spent waiting for the peer, and returns whether the rate is below the minimum.
    fn check_slow(&self) -> bool {
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

impl Drop for ConnectionState {
    fn drop(&mut self) {
        self.of.count.set(self.of.count.get() - 1);
        self.of.leaving.set(self.of.leaving.get() - usize::from(self.is_leaving.get()));
        // Both listeners may be waiting.
        self.of.changed.notify_waiters();
    }
}

/// Further places of a connection.
pub(crate) struct ExtraPlaces {
    of: Rc<Connections>,
    count: usize,
}

impl Drop for ExtraPlaces {
    fn drop(&mut self) {
        self.of.count.set(self.of.count.get() - self.count);
        self.of.changed.notify_waiters();
    }
}

/// Awaits an operation; after `limit`, cancels it with `cancel` and still awaits it, because an
/// operation in flight must not be dropped. Also returns whether it completed in time.
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

/// Converts the result of an operation that was cancelled by a timeout into `TimedOut`.
pub(crate) fn timed_out<T>(result: io::Result<T>, was_in_time: bool) -> io::Result<T> {
    if was_in_time { result } else { Err(io::ErrorKind::TimedOut.into()) }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    #[test]
    fn silent_peer_times_out() {
        let connections = Rc::new(Connections::default());
        let open = connections.open();
        let ticks = |ticks| connections.ticks.set(ticks);
        ticks(1000);
        assert!(!open.check_late(), "nothing is waited for");
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        let waiting = open.timed(pending::<(io::Result<usize>, ())>());
        let mut waiting = Box::pin(waiting);
        assert!(waiting.as_mut().poll(&mut cx).is_pending());
        ticks(1000 + IDLE_TICKS);
        assert!(!open.check_late());
        ticks(1001 + IDLE_TICKS);
        assert!(open.check_late());
        drop(waiting);
        let (result, ()) = at_once(open.timed(async { (io::Result::Ok(1), ()) }));
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::TimedOut, "it was ended for that");
        let (result, ()) = at_once(open.timed(async { (io::Result::Ok(1), ()) }));
        assert!(result.is_ok());
    }

    #[test]
    fn slow_peer_times_out() {
        let connections = Rc::new(Connections::default());
        let open = connections.open();
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        let mut ticks = 0;
        // Simulates one second in which `bytes` arrive and the node waits for more.
        let mut second = |bytes: u64| {
            let bytes = usize::try_from(bytes).unwrap();
            at_once(open.timed(async { (io::Result::Ok(bytes), ()) })).0.unwrap();
            let mut waiting = Box::pin(open.timed(pending::<(io::Result<usize>, ())>()));
            assert!(waiting.as_mut().poll(&mut cx).is_pending());
            ticks += 1;
            connections.ticks.set(ticks);
            let is_late = open.check_late();
            drop(waiting);
            open.is_late.set(false);
            is_late
        };
        for _ in 0..3 * RATE_TICKS {
            assert!(!second(RATE_MIN), "it is just fast enough");
        }
        let found = (0..RATE_TICKS).filter(|_| second(RATE_MIN - 1)).count();
        assert_eq!(found, 1, "at the end");
        // The next request starts a new measurement; idle time before it does not count.
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

    /// A connection that is registered, and remembers that it was cut off.
    struct Registered {
        state: ConnectionState,
        is_cut_off: Cell<bool>,
        unsent: Cell<u64>,
    }

    impl Supervised for Registered {
        fn state(&self) -> &ConnectionState {
            &self.state
        }

        fn shut_down(&self, _: Shutdown) {
            self.is_cut_off.set(true);
        }

        fn unsent(&self) -> u64 {
            self.unsent.get()
        }
    }

    fn register(connections: &Rc<Connections>) -> Rc<Registered> {
        let (is_cut_off, unsent) = Default::default();
        let connection = Rc::new(Registered { state: connections.open(), is_cut_off, unsent });
        connections.register(Rc::downgrade(&connection) as Weak<dyn Supervised>);
        connection
    }

    #[tokio::test]
    async fn longest_waiting_connection_makes_room() {
        let connections = Rc::new(Connections::new(3));
        let [idle, slow, working] = [0; 3].map(|_| register(&connections));
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        // One waits for a request, one for bytes that come at half of the rate, one for nothing.
        assert!(idle.state.begin_request(|| true));
        let mut waiting = Box::pin(idle.state.timed_read(pending::<(io::Result<usize>, ())>()));
        assert!(waiting.as_mut().poll(&mut cx).is_pending());
        let bytes = usize::try_from(RATE_CROWDED / 2).unwrap();
        at_once(slow.state.timed_read(async { (Ok(bytes), ()) })).0.unwrap();
        let mut receiving = Box::pin(slow.state.timed_read(pending::<(io::Result<usize>, ())>()));
        assert!(receiving.as_mut().poll(&mut cx).is_pending());
        assert!(!connections.close_longest_waiting());
        assert!(!idle.is_cut_off.get() && !slow.is_cut_off.get(), "they have just begun to wait");
        for connection in [&idle, &slow] {
            connection.state.pending_since.set(Instant::now().checked_sub(Duration::from_secs(10)));
        }
        assert!(slow.owed() < idle.owed() && working.owed().is_zero());
        assert!(connections.close_longest_waiting());
        assert_eq!([&idle, &slow, &working].map(|connection| connection.is_cut_off.get()), [true, false, false]);
        assert!(connections.close_longest_waiting(), "it does not count twice");
        assert_eq!([&idle, &slow, &working].map(|connection| connection.is_cut_off.get()), [true, true, false]);
        assert!(!connections.close_longest_waiting());
        drop((waiting, receiving));
        drop((idle, slow));
        assert_eq!((connections.count(), connections.leaving.get()), (1, 0));
    }

    /// Lets a connection wait for its peer for ten seconds, in a write.
    fn wait_to_send(connection: &Registered, sent: u64) {
        connection.state.moved_in_request.set(sent);
        connection.state.pending_since.set(Instant::now().checked_sub(Duration::from_secs(10)));
    }

    #[tokio::test]
    async fn bytes_count_when_the_peer_has_received_them() {
        let connections = Rc::new(Connections::new(3));
        let [taking, stalled] = [0; 2].map(|_| register(&connections));
        let sent = 20 * RATE_CROWDED;
        wait_to_send(&taking, sent);
        wait_to_send(&stalled, sent);
        stalled.unsent.set(sent);
        assert!(taking.owed().is_zero() && stalled.owed() >= Duration::from_secs(10));
        assert!(connections.close_longest_waiting() && !connections.close_longest_waiting());
        assert!(stalled.is_cut_off.get() && !taking.is_cut_off.get());
    }

    #[tokio::test]
    async fn place_is_free_before_the_connection_has_ended() {
        let max = 2 * LEAVING_SHARE;
        let connections = Rc::new(Connections::new(max));
        let mut open: Vec<_> = (0..max).map(|_| register(&connections)).collect();
        open.iter().for_each(|connection| wait_to_send(connection, 0));
        // Two more than there are places, while as many end.
        for n in 1..=2 {
            connections.make_room(|| false).await;
            open.push(register(&connections));
            assert_eq!((connections.count(), connections.leaving.get()), (max + n, n));
        }
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        let mut room = Box::pin(connections.make_room(|| false));
        assert!(room.as_mut().poll(&mut cx).is_pending(), "too many have not ended yet");
        open.retain(|connection| !connection.is_cut_off.get());
        room.await;
        assert_eq!((connections.count(), connections.leaving.get()), (max - 1, 0));
    }

    #[test]
    fn https_connection_takes_more_places_where_memory_is_short() {
        for (max, expected) in [(CONNECTIONS_MAX - 1, PLACES_PER_TLS - 1), (CONNECTIONS_MAX, 0)] {
            let connections = Rc::new(Connections::new(max));
            let places = connections.take_tls_places();
            assert_eq!(connections.count(), expected);
            drop(places);
            assert_eq!(connections.count(), 0);
        }
    }

    fn at_once<T>(future: impl Future<Output = T>) -> T {
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        match std::pin::pin!(future).poll(&mut cx) {
            std::task::Poll::Ready(value) => value,
            std::task::Poll::Pending => panic!("it does not wait"),
        }
    }
}
