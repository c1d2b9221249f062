//! The workload: clients that write, read, copy and delete a few names, and check every answer.

mod audit;
mod audit_versions;
mod buckets;
mod damaged;
mod evictions;
mod findings;
mod objects;
mod script;
mod settings;
mod uploads;
mod versions;
mod watch;

use std::cell::{Cell, RefCell};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;

use futures_util::future::{Either, select};
use keyhole_log::limits::{BLOCK_DATA, SEGMENTS_START};
use keyhole_log::{Condition, Error, Expected, ExpectedEtag, Log, Object, SegmentStat, SegmentState};

pub use audit::audit;
pub use damaged::audit_damaged;
pub use findings::Audit;
pub use script::Operation;
pub use watch::{Watch, Work};

use crate::content::Content;
use crate::disk::{DiskCounters, Medium, Rot, SimDisk};
use crate::executor::Clock;
use crate::model::{BUCKETS, KEYS, Model, Version, etag, number};
use crate::plan::{Bodies, Opening, Plan};
use crate::random::Random;

/// Maximum number of objects that a client holds on to.
const HELD_MAX: usize = 3;

/// Percentage of operations before which a jumping clock jumps, and its offsets: the clock counts
/// operations.
const CLOCK_JUMPS: u64 = 2;
const CLOCKS: [u64; 5] = [0, 30, 1000, 5000, 1 << 40];

/// State shared by all clients of a life.
pub struct World {
    /// The time of this life.
    pub clock: Rc<Clock>,
    /// The medium of this life.
    pub medium: Arc<Medium>,
    /// The possible states of the store.
    pub model: RefCell<Model>,
    /// The parameters of this life.
    pub plan: Plan,
    /// Unreadable data.
    pub rot: RefCell<Rot>,
    /// Options of the current opening.
    pub opening: Cell<Opening>,
    /// Operations begun by clients.
    pub operations: Cell<u64>,
    /// Operations in flight.
    pub watch: Watch,
    /// Whether to print events.
    pub trace: bool,
}

impl World {
    /// Creates the world of a life.
    pub fn new(clock: Rc<Clock>, medium: Arc<Medium>, model: Model, plan: Plan, trace: bool) -> Self {
        World {
            clock,
            medium,
            model: RefCell::new(model),
            opening: Cell::new(plan.opening()),
            plan,
            operations: Cell::new(0),
            watch: Watch::default(),
            rot: RefCell::default(),
            trace,
        }
    }

    /// Returns a copy with a medium and a model of its own, and with the same clock, which only
    /// orders events. No process may have the store open.
    pub fn fork(&self, trace: bool) -> Self {
        let model = self.model.borrow().clone();
        World::new(Rc::clone(&self.clock), self.medium.fork(), model, self.plan.clone(), trace)
    }

    /// Returns another handle to the medium.
    pub fn disk(&self) -> SimDisk {
        SimDisk::new(&self.medium, &self.clock)
    }

    /// Prints an event if tracing is on.
    pub fn say(&self, what: impl FnOnce() -> String) {
        if self.trace {
            println!("{:>9} {}", self.clock.now(), what());
        }
    }

    /// Returns whether there is a cleaner with enough room, so that unused space can always be
    /// reclaimed.
    pub fn has_room_to_clean(&self) -> bool {
        self.plan.maintained && self.opening.get().has_room_to_clean()
    }

    /// Returns whether an error reports damage of one of these bodies that is indeed damaged.
    fn is_rotten(&self, error: &Error, contents: &[Content]) -> bool {
        let rot = self.rot.borrow();
        matches!(error, Error::Damaged(_)) && contents.iter().any(|content| rot.contents.contains(&content.id))
    }

    /// Returns whether a power failure removed only the record of a body while some page is
    /// unreadable. The record may have been on that page, so the object is damaged and not cut.
    /// Marks it as damaged from now on.
    fn is_orphan(&self, power: bool, error: &Error, contents: &[Content]) -> bool {
        let is_lost = matches!(error, Error::Damaged(damage) if damage.what == "a body whose record is lost");
        let mut rot = self.rot.borrow_mut();
        let is_orphan = power && is_lost && !self.model.borrow().durable && !rot.pages.is_empty();
        if is_orphan {
            rot.contents.extend(contents.iter().map(|content| content.id));
        }
        is_orphan
    }

    /// Returns the work done so far.
    pub fn work(&self) -> Work {
        let counters = self.medium.counters();
        Work { events: counters.events, polls: self.clock.polls() }
    }

    /// Returns whether the store may report that it is full.
    fn may_be_full(&self, log: &Log<SimDisk>, since: &Since) -> bool {
        let of_file_system = self.medium.was_short_since(&since.counters);
        if self.plan.ring {
            // Only for lack of space in the file system, or if locked versions fill the store.
            return self.plan.faults.neighbour > 0 || log.store().usage().locked_bytes > 0;
        }
        let stats = log.store().stats();
        let most = stats.usage.capacity.saturating_sub(SEGMENTS_START) / self.plan.segment_len;
        let reserved = stats.usage.reserved / self.plan.segment_len + self.opening.get().workers as u64;
        let count = |of: &dyn Fn(&SegmentStat) -> bool| stats.segments.iter().filter(|s| of(s)).count() as u64;
        let busy = count(&|segment| segment.state != SegmentState::Blank);
        // With a cleaner, the only unused space is that held by bodies in flight.
        let unused = count(&|segment| match segment.state {
            SegmentState::Condemned => true,
            SegmentState::Closed => segment.live == 0,
            _ => false,
        });
        let held = self.plan.clients * self.plan.bodies.most().div_ceil(BLOCK_DATA as u64);
        let cleaned = !self.has_room_to_clean() || unused <= held;
        (busy + reserved >= most && (cleaned || self.plan.faults.neighbour > 0)) || of_file_system
    }
}

/// The moment at which an operation began.
#[derive(Debug, Clone, Copy)]
struct Since {
    tick: u64,
    counters: DiskCounters,
}

/// The meaning of an answer for the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// The operation had no effect.
    Refused,
    /// The effect is unknown.
    Unknown,
}

/// A client, whose operations race with those of others.
pub struct Client {
    name: u64,
    log: Log<SimDisk>,
    world: Rc<World>,
    random: Random,
    /// Objects to be read again later, regardless of their names. No eviction was in flight when they were
    /// looked up, so none takes their bytes.
    held: Vec<(Object, Vec<Content>)>,
    /// Percentage of requests that it abandons.
    impatience: u64,
}

impl Client {
    /// Creates a client of this log.
    pub fn new(name: u64, log: Log<SimDisk>, world: &Rc<World>, random: Random) -> Self {
        let held = Vec::new();
        let impatience = world.plan.impatience;
        Client { name, log, world: Rc::clone(world), random, held, impatience }
    }

    /// Performs this many operations in sequence.
    pub async fn run(mut self, operations: u64) {
        for _ in 0..operations {
            self.world.operations.set(self.world.operations.get() + 1);
            if self.world.plan.clock_jumps && self.random.chance(CLOCK_JUMPS) {
                let to = *self.random.pick(&CLOCKS);
                self.world.model.borrow_mut().set_clock(to);
                self.say(|| format!("the clock jumps to {to}"));
            }
            self.step().await;
            if self.random.chance(10) {
                let time = self.random.below(4 * self.world.plan.faults.slowness + 1);
                self.world.clock.sleep(time).await;
            }
        }
        for (object, contents) in std::mem::take(&mut self.held) {
            self.begin("a read of a held object");
            self.check_held(&object, &contents, false).await;
        }
        self.world.watch.end(self.name);
    }

    fn begin(&self, what: &'static str) {
        self.world.watch.begin(self.name, what, self.world.work());
    }

    async fn step(&mut self) {
        if self.random.chance(self.world.plan.versions) {
            self.begin("an operation on versions");
            return self.step_versions().await;
        }
        let (bucket, key) = self.name();
        let what = self.what();
        self.begin(name(what));
        self.log.disk().note_operation();
        match what {
            0..=33 => self.put(bucket, key).await,
            34..=47 => self.get(bucket, key).await,
            48..=60 => self.delete(bucket, key).await,
            61..=64 => self.copy(bucket, key).await,
            65..=66 => self.retag(bucket, key).await,
            67 => self.list(bucket),
            68..=70 => self.evict().await,
            71..=74 => self.create_upload(bucket, key).await,
            75..=84 => self.put_part().await,
            85..=89 => self.complete_upload().await,
            90..=91 => self.abort_upload().await,
            92..=93 => self.create_bucket(bucket).await,
            94 => self.delete_bucket(bucket).await,
            95 => self.purge(bucket).await,
            96 => self.flush().await,
            97 => self.maintain().await,
            98 if self.world.plan.settings => self.set_bucket(bucket).await,
            99 if self.world.plan.settings => self.expire().await,
            _ => {
                if let Some((object, contents)) = self.held.pop() {
                    self.check_held(&object, &contents, false).await;
                }
            }
        }
    }

    /// Chooses the next operation, as a number below 100.
    fn what(&mut self) -> u64 {
        match self.random.below(100) {
            // Favour expiry where objects expire.
            90..=91 if self.world.plan.settings => 99,
            what => what,
        }
    }

    fn name(&mut self) -> (&'static str, &'static str) {
        // Most operations use one bucket, so that names collide.
        let bucket = BUCKETS[usize::from(self.random.chance(20))];
        (bucket, *self.random.pick::<&'static str>(&KEYS))
    }

    /// Returns a new body content.
    fn content(&mut self) -> Content {
        self.content_of(self.world.plan.bodies)
    }

    fn content_of(&mut self, bodies: Bodies) -> Content {
        let len = bodies.pick(&mut self.random);
        Content { id: self.world.model.borrow_mut().number(), len }
    }

    /// Returns the number and the time of the next operation.
    fn number(&self) -> (u64, u64) {
        let mut model = self.world.model.borrow_mut();
        let id = model.number();
        (id, model.time(id))
    }

    /// Returns the time of an operation, by the clock at that moment.
    fn time(&self, id: u64) -> u64 {
        self.world.model.borrow().time(id)
    }

    fn condition(&mut self, bucket: &'static str, key: &'static str) -> Condition {
        if !self.world.plan.conditions {
            return Condition::None;
        }
        match self.random.below(100) {
            0..=79 => Condition::None,
            80..=89 => Condition::IfAbsent,
            _ => {
                let mut model = self.world.model.borrow_mut();
                let legal = model.key(bucket, key).legal(false);
                // Empty for a moment when concurrent deletions have hidden every value.
                let version = if legal.is_empty() { None } else { *self.random.pick(&legal) };
                let version = version.unwrap_or(1);
                let found = model.versions.get(&version);
                let etag = ExpectedEtag::Exactly(etag(version, found.map_or(0, |version| version.parts)));
                let size = found.map(Version::size);
                Condition::IfMatch(match self.random.below(10) {
                    0 => Expected::default(),
                    1 => Expected { or_absent: true, ..Expected::default() },
                    2 => Expected { etag: ExpectedEtag::Unknown, ..Expected::default() },
                    // The ETag determines the size.
                    3 => Expected { etag, size, or_absent: true, ..Expected::default() },
                    _ => Expected { etag, size, ..Expected::default() },
                })
            }
        }
    }

    fn since(&self) -> Since {
        // The node does this every second, which is longer than an operation takes here.
        self.log.store().expect_space();
        Since { tick: self.world.clock.tick(), counters: self.world.medium.counters() }
    }

    fn now(&self) -> u64 {
        self.world.clock.tick()
    }

    fn say(&self, what: impl FnOnce() -> String) {
        self.world.say(|| format!("client {}: {}", self.name, what()));
    }

    /// Waits for an answer, or abandons the request after a while.
    async fn patiently<T>(&mut self, request: impl Future<Output = T>) -> Option<T> {
        if !self.random.chance(self.impatience) {
            return Some(request.await);
        }
        let patience = self.random.below(self.world.plan.faults.slowness * 4 + 2);
        let patience = pin!(self.world.clock.sleep(patience));
        match select(pin!(request), patience).await {
            Either::Left((answer, _)) => Some(answer),
            Either::Right(_) => None,
        }
    }

    /// Checks an acknowledgement: it must not come from a disk that failed before the request, or
    /// on its behalf.
    fn acknowledged(&self, since: &Since) {
        let failed = self.world.medium.counters().failed_at;
        assert!(failed.is_none_or(|at| at > since.tick), "acknowledged after a write or a sync had failed");
        // Without others, each change belongs to the request in flight.
        let plan = &self.world.plan;
        let is_alone = plan.clients == 1 && !plan.maintained && plan.impatience == 0;
        assert!(failed.is_none() || !is_alone, "acknowledged although a write or a sync of the request has failed");
    }

    /// Returns the answer to a write, and the judgement of its error, unless there is no answer, or the
    /// outcome is unknown.
    fn known<T>(&self, answer: Option<Result<T, Error>>, since: &Since) -> Option<(Result<T, Error>, Option<Answer>)> {
        let answer = answer?;
        let judged = answer.as_ref().err().and_then(|error| self.judge(error, since));
        (judged != Some(Answer::Unknown)).then_some((answer, judged))
    }

    /// Judges an error that any write may have; returns `None` for all others.
    fn judge(&self, error: &Error, since: &Since) -> Option<Answer> {
        match error {
            Error::Full => {
                assert!(
                    self.world.may_be_full(&self.log, since),
                    "full, but there is space: {:?}",
                    self.log.store().stats()
                );
                Some(Answer::Refused)
            }
            Error::InDoubt => {
                let before = since.counters.writes_full;
                assert!(self.world.medium.counters().writes_full > before, "in doubt, but no write was without space");
                Some(Answer::Unknown)
            }
            Error::Io(_) | Error::Poisoned => {
                assert!(self.world.medium.counters().failed > 0, "{error}, but no write has failed");
                Some(Answer::Unknown)
            }
            _ => None,
        }
    }

    fn usage(&self) -> keyhole_log::Usage {
        self.log.store().usage()
    }

    /// Judges an error of a read.
    fn judge_read(&self, error: &Error, since: &Since, what: &str) {
        let failed = self.world.medium.counters().reads_failed > since.counters.reads_failed;
        // A read that fails every time is damage.
        assert!(matches!(error, Error::Io(_) | Error::Damaged(_)) && failed, "{what}: {error}");
    }

    /// Requests complete cleaning or a checkpoint.
    async fn maintain(&mut self) {
        let compacts = self.random.chance(40);
        self.request(compacts).await;
    }

    /// Requests complete cleaning if it `compacts`, otherwise a checkpoint.
    async fn request(&mut self, compacts: bool) {
        let since = self.since();
        let log = self.log.clone();
        let request = async move { if compacts { log.compact().await.map(|_| ()) } else { log.checkpoint().await } };
        let Some(answer) = self.patiently(request).await else { return };
        self.say(|| format!("compact {compacts}, or checkpoint: {answer:?}"));
        match answer {
            Ok(()) => self.acknowledged(&since),
            Err(Error::Closed) => {
                let ended = self.world.medium.counters().failed > 0;
                assert!(!self.world.plan.maintained || ended, "the maintenance has ended");
            }
            // Cleaning reads, and must be requested again if a read fails.
            Err(Error::Io(_)) if self.world.medium.counters().reads_failed > since.counters.reads_failed => {}
            Err(error) => assert!(self.judge(&error, &since).is_some(), "a checkpoint: {error}"),
        }
    }

    async fn flush(&mut self) {
        let since = self.since();
        let log = self.log.clone();
        let Some(answer) = self.patiently(log.flush()).await else { return };
        self.say(|| format!("flush: {answer:?}"));
        match answer {
            Ok(()) => {
                self.acknowledged(&since);
                self.world.model.borrow_mut().flushed(since.tick, self.now());
            }
            Err(error) => assert!(self.judge(&error, &since).is_some(), "flush: {error}"),
        }
    }
}

/// Returns the name of an operation for failure messages.
fn name(what: u64) -> &'static str {
    match what {
        0..=33 => "a put",
        34..=47 => "a get",
        48..=60 => "a deletion",
        61..=66 => "a copy or new tags",
        67 => "a listing",
        68..=70 => "an eviction",
        71..=91 => "an operation on uploads",
        92..=95 => "an operation on buckets",
        96..=97 => "a flush, checkpoint or compaction",
        98 => "new settings",
        99 => "an expiry",
        _ => "a read of a held object",
    }
}

/// Returns whether a condition holds for the current value of a name.
fn holds(condition: Condition, value: Option<u64>) -> bool {
    match condition {
        Condition::None => true,
        Condition::IfAbsent => value.is_none(),
        Condition::IfMatch(Expected { etag, or_absent, .. }) => match (value, etag) {
            (None, _) => or_absent,
            (Some(_), ExpectedEtag::Any) => true,
            (Some(value), ExpectedEtag::Exactly(etag)) => value == number(&etag.digest),
            (Some(_), ExpectedEtag::Unknown) => false,
        },
        Condition::IfSame(_) => unreachable!("the model has no sequence numbers: only the log itself asks for this"),
    }
}
