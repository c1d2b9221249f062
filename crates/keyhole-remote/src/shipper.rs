//! The loop that keeps a remote up to date.
//!
//! There is no queue. The changes to ship follow from the index: every change with a number above
//! the watermark, which is saved only after the service has confirmed all changes up to it. A crash
//! repeats work and skips none. Repeated work is harmless: a name has one content, and the loop first
//! asks for the metadata of objects that it may have stored before.
//!
//! The watermark is the number of a durable record. Numbers that an opening of the store has used for
//! nothing durable are assigned again by a later one.
//!
//! Removed versions are reported by the store while it runs. After a restart, the names in the remote
//! are compared with the store once instead.

use std::cell::{Cell, RefCell};
use std::collections::{HashSet, VecDeque};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use keyhole_log::{Change, Changed, Changes, Disk, Log, Removed, VersionId};

use crate::env::Env;
use crate::failure::{Failure, ItemFailure};
use crate::fields::{Kind, ObjectFields};
use crate::limits::{
    BACKOFF_MAX_MS, BACKOFF_MIN_MS, COMPARE_AGAIN_MS, EXCEPTIONS_MAX, IDLE_POLL_MS, IN_FLIGHT_MAX, IN_FLIGHT_MEMORY,
    PASS_PAUSE_FACTOR, RETRY_EXCEPTIONS_MS, RETRY_NEW_EXCEPTION_MS, ROUND_CHANGES, SAVE_EVERY, SETTLE_POLL_MS,
};
use crate::names::{Names, ROOT};
use crate::pace::Pace;
use crate::progress::{Exception, Phase, Progress, Report};
use crate::sabotage::{self, Sabotage};
use crate::service::Service;
use crate::ship::{Bytes, Shipped};

/// The settings of a shipper.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Length of the remote's prefix in bytes.
    pub prefix_len: usize,
    /// Whether objects stay in the remote when they are deleted in the store.
    pub keep_deleted: bool,
    /// Whether plaintext objects are shipped.
    pub ships_plaintext: bool,
    /// When versions that the remote has are evicted from the store. `None`: never.
    pub evicts: Option<Eviction>,
    /// Limit of the bytes sent per second.
    pub rate: Option<u64>,
    /// Whether to take over a remote of another store.
    pub takes_over: bool,
}

/// When versions are evicted from the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Eviction {
    /// Share of the capacity in use above which versions are evicted, in percent.
    pub above_percent: u64,
    /// Share of the capacity in use that evictions aim at, in percent.
    pub down_to_percent: u64,
}

/// Keeps a remote up to date.
pub struct Shipper<D: Disk, S, E> {
    pub(crate) log: Log<D>,
    pub(crate) service: S,
    pub(crate) env: E,
    pub(crate) options: Options,
    pub(crate) names: Names,
    pub(crate) pace: Pace,
    pub(crate) report: RefCell<Report>,
    progress: RefCell<Progress>,
    /// Every change up to this number has been shipped: at least the watermark.
    examined: Cell<u64>,
    /// Removals to ship.
    removals: VecDeque<Removed>,
    /// Whether the remote is known to belong to this store.
    is_ours: bool,
    /// Whether the names in the remote were compared with the store since the last lost removal.
    pub(crate) is_compared: bool,
    /// Time of the second comparison.
    compare_again_ms: Option<u64>,
    /// Changes up to this number may be in the remote already.
    pub(crate) probe_through: u64,
    /// The highest number of a change that may have been sent.
    attempted: Cell<u64>,
    /// Time of the next attempt at the exceptions.
    retry_exceptions_ms: Cell<u64>,
}

impl<D: Disk, S: Service, E: Env> Shipper<D, S, E> {
    /// Creates a shipper that continues with `progress`.
    pub fn new(log: Log<D>, service: S, env: E, options: Options, progress: Progress) -> Self {
        let store = log.store();
        // A power failure may have lost confirmed changes, whose numbers are assigned again.
        let confirmed = progress.confirmed.min(store.recovered_through());
        let probe_through = store.settled();
        let report = Report { exceptions: progress.exceptions.clone(), ..Report::default() };
        Shipper {
            names: Names::new(options.prefix_len),
            pace: Pace::new(options.rate),
            report: RefCell::new(report),
            progress: RefCell::new(Progress { confirmed, ..progress }),
            examined: Cell::new(confirmed),
            removals: VecDeque::new(),
            is_ours: false,
            is_compared: options.keep_deleted || sabotage::is(Sabotage::SkipComparison),
            compare_again_ms: None,
            probe_through,
            attempted: Cell::new(probe_through),
            retry_exceptions_ms: Cell::new(0),
            log: log.past_cache(),
            service,
            env,
            options,
        }
    }

    /// Ships until the future is dropped.
    pub async fn run(mut self) {
        let mut failures = 0;
        loop {
            let closed_ms = self.env.closed_for_ms();
            if closed_ms > 0 {
                self.enter(Phase::Waiting);
                self.env.sleep(closed_ms).await;
                continue;
            }
            match self.round().await {
                Ok(true) => {
                    failures = 0;
                    self.enter(Phase::Idle);
                    self.await_change().await;
                    // Another store may have taken the remote over.
                    self.is_ours = false;
                }
                Ok(false) => failures = 0,
                Err(failure) => {
                    // The bucket may be another one after an error.
                    self.is_ours = false;
                    failures += 1;
                    let delay_ms = self.backoff_ms(failures);
                    self.report.borrow_mut().failures += 1;
                    let retry_ms = self.env.now_ms() + delay_ms;
                    self.enter(Phase::Failing { why: failure.to_string(), retry_ms });
                    self.env.sleep(delay_ms).await;
                }
            }
        }
    }

    /// Ships one round of changes. Returns whether the remote is up to date.
    ///
    /// # Errors
    /// The service or the store has failed. The confirmed changes are saved.
    pub async fn round(&mut self) -> Result<bool, Failure> {
        self.own().await?;
        // A removal is reported once it is durable.
        self.env.flush().await.map_err(Failure::Store)?;
        self.collect_removals();
        self.compare_if_due().await?;
        self.retry_exceptions().await?;
        let examined = self.examined.get();
        let begun_ms = self.env.now_ms();
        let changes = self.find_changes(examined).await;
        let pass_ms = self.env.now_ms().saturating_sub(begun_ms);
        self.await_stable(&changes).await?;
        self.ship_removals().await?;
        let is_last = !changes.has_more;
        if changes.found.is_empty() && is_last {
            self.examined.set(examined.max(changes.settled));
            self.evict().await?;
            return Ok(self.removals.is_empty());
        }
        self.enter(Phase::Shipping);
        let is_whole = self.ship_all(&changes.found).await?;
        if is_whole && is_last {
            self.examined.set(examined.max(changes.settled));
            self.report.borrow_mut().oldest_ms = None;
        }
        self.save().await;
        self.evict().await?;
        self.enter(Phase::Shipping);
        self.env.sleep(pass_ms * PASS_PAUSE_FACTOR).await;
        Ok(false)
    }

    /// Compares the remote with the store after a start and after a lost removal, and once more when the
    /// service shows everything that was stored before.
    async fn compare_if_due(&mut self) -> Result<(), Failure> {
        if self.is_compared && !self.is_second_comparison_due() {
            return Ok(());
        }
        self.enter(Phase::Comparing);
        self.compare().await?;
        self.compare_again_ms =
            (!self.is_compared && !sabotage::is(Sabotage::CompareOnce)).then(|| self.env.now_ms() + COMPARE_AGAIN_MS);
        self.is_compared = true;
        Ok(())
    }

    fn is_second_comparison_due(&self) -> bool {
        self.compare_again_ms.is_some_and(|time_ms| self.env.now_ms() >= time_ms)
    }

    /// Finds the first changes after this number that concern the remote.
    async fn find_changes(&self, examined: u64) -> Changes {
        let has_key = |bucket: &str, key: &str| self.env.has_key(bucket, key);
        let has_bucket = |bucket: &str| self.env.has_bucket(bucket);
        self.log.changes(examined, ROUND_CHANGES, has_key, has_bucket).await
    }

    /// Waits until the deletions are durable that may have hidden a version from the pass, and reports
    /// the changes as owed.
    async fn await_stable(&self, changes: &Changes) -> Result<(), Failure> {
        self.await_settled(changes.stable_at).await?;
        let mut report = self.report.borrow_mut();
        report.owed = changes.versions;
        report.owed_bytes = changes.bytes;
        report.oldest_ms = changes.oldest_ms;
        Ok(())
    }

    /// Waits until the index as it is now is durable. A power failure can undo a deletion before, and the
    /// version is not shipped again then: its number is below the watermark.
    pub(crate) async fn await_durable_index(&self) -> Result<(), Failure> {
        self.await_settled(self.log.store().stable_at()).await
    }

    async fn await_settled(&self, number: u64) -> Result<(), Failure> {
        while self.log.store().settled() < number {
            self.env.flush().await.map_err(Failure::Store)?;
            self.env.sleep(SETTLE_POLL_MS).await;
        }
        Ok(())
    }

    /// Returns the number up to which the remote has confirmed every change.
    pub fn confirmed(&self) -> u64 {
        self.progress.borrow().confirmed
    }

    /// Returns the buckets and keys of the exceptions.
    pub(crate) fn exception_names(&self) -> HashSet<(String, String)> {
        let progress = self.progress.borrow();
        progress.exceptions.iter().map(|exception| (exception.bucket.clone(), exception.key.clone())).collect()
    }

    pub(crate) fn enter(&self, phase: Phase) {
        let mut report = self.report.borrow_mut();
        report.phase = phase;
        self.env.report(&report);
    }

    /// Returns the delay before the next attempt: exponential, with jitter of a half.
    fn backoff_ms(&self, failures: u32) -> u64 {
        let whole = BACKOFF_MIN_MS.saturating_mul(1 << failures.saturating_sub(1).min(20)).min(BACKOFF_MAX_MS);
        whole / 2 + self.env.random() % (whole / 2 + 1)
    }

    /// Waits for a change that may concern the remote.
    async fn await_change(&mut self) {
        let settled = self.examined.get();
        loop {
            self.env.sleep(IDLE_POLL_MS).await;
            self.collect_removals();
            // Unsynced writes settle only once they are durable.
            let is_flushed = self.env.flush().await.is_ok();
            let is_retry_due =
                !self.progress.borrow().exceptions.is_empty() && self.env.now_ms() >= self.retry_exceptions_ms.get();
            let has_new = self.log.store().settled() > settled;
            let is_comparison_due = !self.is_compared || self.is_second_comparison_due();
            if !is_flushed || has_new || is_retry_due || !self.removals.is_empty() || is_comparison_due {
                return;
            }
        }
    }

    /// Checks that the remote belongs to this store, or makes it so.
    async fn own(&mut self) -> Result<(), Failure> {
        if self.is_ours {
            return Ok(());
        }
        let store = self.log.store().store_id();
        match self.service.head(ROOT).await? {
            Some(head) => match ObjectFields::decode(&head.fields) {
                Some(fields) if fields.store == store => {}
                _ if self.options.takes_over => self.begin(store).await?,
                Some(fields) => return Err(Failure::OtherStore(hex::encode(fields.store))),
                None => return Err(Failure::UnknownFormat),
            },
            None => self.begin(store).await?,
        }
        self.is_ours = true;
        Ok(())
    }

    /// Makes the remote one of this store. Objects that were confirmed before are lost, for example with
    /// the bucket: they are owed again.
    async fn begin(&mut self, store: [u8; 16]) -> Result<(), Failure> {
        if self.examined.get() > 0 {
            self.probe_through = self.probe_through.max(self.attempted.get());
            self.examined.set(0);
            self.progress.borrow_mut().confirmed = 0;
            let progress = self.progress.borrow().clone();
            // A crash after the next request must not continue with the progress so far.
            self.env.save(&progress).await.map_err(Failure::Store)?;
        }
        self.put_root(store).await
    }

    async fn put_root(&self, store: [u8; 16]) -> Result<(), Failure> {
        let text = format!("A remote of the Keyhole store {}.\n", hex::encode(store));
        let fields = ObjectFields::plain(store, Kind::Root, 0).encode(None);
        Ok(self.service.put(ROOT, &fields, Bytes::new(text.into_bytes())).await?)
    }

    /// Takes the removals that the store reports.
    fn collect_removals(&mut self) {
        let removals = self.env.take_removals();
        if self.options.keep_deleted {
            return;
        }
        if !removals.is_complete && !sabotage::is(Sabotage::IgnoreOverflow) {
            self.removals.clear();
            self.is_compared = false;
        }
        // A `null` version may have replaced one that was sent.
        let is_sent = |removed: &Removed| {
            let has_own_name = removed.key.is_some() && removed.version != VersionId::Null;
            !has_own_name || removed.number <= self.attempted.get()
        };
        self.removals.extend(removals.removed.into_iter().filter(is_sent));
        if sabotage::is(Sabotage::ForgetDeletion) {
            self.removals.pop_front();
        }
    }

    async fn ship_removals(&mut self) -> Result<(), Failure> {
        while let Some(removed) = self.removals.front() {
            self.ship_removal(removed).await?;
            self.removals.pop_front();
        }
        Ok(())
    }

    /// Ships changes in the order of their numbers, several at a time, but those of one name one after
    /// the other. Returns whether all are confirmed.
    async fn ship_all(&self, changes: &[Change]) -> Result<bool, Failure> {
        let mut batch = Batch::new(changes);
        let mut running = FuturesUnordered::new();
        let mut unsaved = 0;
        let mut failure = None;
        loop {
            while failure.is_none()
                && let Some((index, weight)) = self.begin_next(&mut batch)
            {
                running.push(async move { (index, weight, self.ship(&changes[index], self.probe_through).await) });
            }
            if sabotage::is(Sabotage::ConfirmBeforeReply)
                && let Some(last) = batch.next.checked_sub(1)
            {
                self.confirm(changes[last].number);
            }
            let Some((index, weight, result)) = running.next().await else { break };
            batch.end(index, weight);
            if let Err(whole) = self.settle(&changes[index], result) {
                failure.get_or_insert(whole);
                continue;
            }
            unsaved += batch.mark_done(index);
            if let Some(last) = batch.confirmed.checked_sub(1) {
                self.confirm(changes[last].number);
            }
            if unsaved >= SAVE_EVERY {
                unsaved = 0;
                self.save().await;
            }
        }
        match failure {
            Some(failure) => {
                self.save().await;
                Err(failure)
            }
            None => Ok(batch.confirmed == changes.len()),
        }
    }

    /// Begins the next change, if the limits and the window allow it. Returns its index and weight.
    fn begin_next<'c>(&self, batch: &mut Batch<'c>) -> Option<(usize, u64)> {
        let change = batch.changes.get(batch.next)?;
        let weight = self.weight(change);
        if !batch.has_room(change, weight) || self.env.closed_for_ms() > 0 {
            return None;
        }
        self.attempted.set(self.attempted.get().max(change.number));
        Some((batch.begin(change, weight), weight))
    }

    /// Takes note of the result of one change.
    ///
    /// # Errors
    /// The failure, if it concerns the whole remote.
    fn settle(&self, change: &Change, result: Result<Shipped, ItemFailure>) -> Result<(), Failure> {
        match result {
            Ok(shipped) => {
                self.count(change, shipped);
                Ok(())
            }
            Err(ItemFailure::Exception(why)) => self.except(change, why),
            Err(ItemFailure::Whole(_)) if sabotage::is(Sabotage::IgnoreFailure) => Ok(()),
            Err(ItemFailure::Whole(whole)) => Err(whole),
        }
    }

    fn weight(&self, change: &Change) -> u64 {
        match &change.what {
            Changed::Version(info) => self.service.memory_of(info.size),
            Changed::Bucket => 0,
        }
    }

    fn count(&self, change: &Change, shipped: Shipped) {
        let mut report = self.report.borrow_mut();
        if let Changed::Version(info) = &change.what {
            report.owed = report.owed.saturating_sub(1);
            report.owed_bytes = report.owed_bytes.saturating_sub(info.size);
        }
        if shipped != Shipped::Gone {
            report.confirmed_ms = Some(self.env.now_ms());
        }
        report.shipped += u64::from(shipped == Shipped::Stored);
        self.env.report(&report);
    }

    fn confirm(&self, number: u64) {
        let mut progress = self.progress.borrow_mut();
        progress.confirmed = progress.confirmed.max(number);
        self.examined.set(self.examined.get().max(number));
    }

    /// Records a version that the remote does not accept.
    fn except(&self, change: &Change, why: String) -> Result<(), Failure> {
        let Changed::Version(info) = &change.what else { return Err(Failure::Store(why)) };
        let mut progress = self.progress.borrow_mut();
        let exception =
            Exception { bucket: change.bucket.clone(), key: info.key.clone(), version: info.version.to_string(), why };
        progress.exceptions.retain(|other| !exception.is_same_version(other));
        if progress.exceptions.len() >= EXCEPTIONS_MAX {
            return Err(Failure::Exceptions(exception.why));
        }
        progress.exceptions.push(exception);
        self.report.borrow_mut().exceptions.clone_from(&progress.exceptions);
        let first_retry_ms = self.env.now_ms() + RETRY_NEW_EXCEPTION_MS;
        self.retry_exceptions_ms.set(self.retry_exceptions_ms.get().min(first_retry_ms));
        Ok(())
    }

    /// Tries the exceptions again, at the start and from time to time.
    async fn retry_exceptions(&mut self) -> Result<(), Failure> {
        let now_ms = self.env.now_ms();
        if now_ms < self.retry_exceptions_ms.get() {
            return Ok(());
        }
        let exceptions = self.progress.borrow().exceptions.clone();
        for exception in exceptions {
            match self.retry(&exception).await {
                Err(ItemFailure::Exception(_)) => {}
                Err(ItemFailure::Whole(failure)) => return Err(failure),
                Ok(()) => {
                    let mut progress = self.progress.borrow_mut();
                    progress.exceptions.retain(|other| *other != exception);
                    self.report.borrow_mut().exceptions.clone_from(&progress.exceptions);
                }
            }
        }
        self.retry_exceptions_ms.set(now_ms + RETRY_EXCEPTIONS_MS);
        Ok(())
    }

    async fn save(&self) {
        let progress = self.progress.borrow().clone();
        // The surroundings log a failure. After a crash, more is compared again.
        let _ = self.env.save(&progress).await;
    }
}

/// Changes that are shipped together.
struct Batch<'c> {
    changes: &'c [Change],
    /// Whether each of them is done.
    done: Vec<bool>,
    /// The number of changes from the first one on that are all done.
    confirmed: usize,
    /// The index of the first change that has not begun.
    next: usize,
    /// Names and weights of the changes in flight.
    busy: HashSet<(&'c str, Option<&'c str>)>,
    memory: u64,
}

impl<'c> Batch<'c> {
    fn new(changes: &'c [Change]) -> Self {
        let done = vec![false; changes.len()];
        Batch { changes, done, confirmed: 0, next: 0, busy: HashSet::new(), memory: 0 }
    }

    /// Returns whether a change fits beside those in flight. One fits alone, whatever its weight.
    fn has_room(&self, change: &Change, weight: u64) -> bool {
        let fits = self.busy.is_empty() || self.memory + weight <= IN_FLIGHT_MEMORY;
        fits && self.busy.len() < IN_FLIGHT_MAX && !self.busy.contains(&name_of(change))
    }

    /// Puts the next change in flight, and returns its index.
    fn begin(&mut self, change: &'c Change, weight: u64) -> usize {
        self.busy.insert(name_of(change));
        self.memory += weight;
        self.next += 1;
        self.next - 1
    }

    /// Takes a change out of flight.
    fn end(&mut self, index: usize, weight: u64) {
        self.busy.remove(&name_of(&self.changes[index]));
        self.memory -= weight;
    }

    /// Marks a change as done. Returns the number of changes that are confirmed by that.
    fn mark_done(&mut self, index: usize) -> usize {
        let before = self.confirmed;
        self.done[index] = true;
        while self.done.get(self.confirmed) == Some(&true) {
            self.confirmed += 1;
        }
        self.confirmed - before
    }
}

/// Returns the name that a change concerns.
fn name_of(change: &Change) -> (&str, Option<&str>) {
    match &change.what {
        Changed::Bucket => (&change.bucket, None),
        Changed::Version(info) => (&change.bucket, Some(&info.key)),
    }
}
