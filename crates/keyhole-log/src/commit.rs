//! Group commit: takes a batch of records from the queue to the disk and into the index.

use crate::draft::Draft;
use std::cell::Cell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use futures_channel::oneshot;

use crate::begin::BegunSegment;
use crate::disk::{Disk, is_full};
use crate::error::{Error, FailedWrite};
use crate::index::{Effect, Location};
use crate::limits::{PAGE, batch_max};
use crate::open::{OpenMeta, WriterEnd};
use crate::pin::SegmentPin;
use crate::sabotage::{self, Sabotage};
use crate::segments::Purpose;
use crate::store::{Durability, Store};
use crate::types::BodyId;
use crate::wire::payload::kind;
use crate::wire::record::{self, DurableHint, FIRST, LAST, MOVED};
use crate::wire::{pages, segment};

/// The records of one request, written contiguously in one batch.
#[derive(Debug)]
pub(crate) struct Commit {
    pub(crate) drafts: Vec<Draft>,
    /// Bodies pinned until the commit is decided.
    pub(crate) pinned: Vec<BodyId>,
    /// Segments pinned until the commit is decided: they hold blocks that no record names yet. Must
    /// not be dropped under the lock.
    pub(crate) holds: Vec<SegmentPin>,
    /// Whether the commit only frees space, and may use the reserve for deletions.
    pub(crate) deletes: bool,
    /// Whether the commit may be answered before it is durable. Used by the cleaner, which syncs
    /// before it relies on its writes.
    pub(crate) relaxed: bool,
    pub(crate) done: oneshot::Sender<Result<(), Error>>,
}

impl Commit {
    pub(crate) fn space(&self) -> usize {
        self.drafts.iter().map(|draft| record::space(draft.payload.len())).sum()
    }
}

/// Segments tried in turn while writes fail for lack of space: for a batch, and for the
/// header of a new segment.
pub(crate) const WRITE_ATTEMPTS: u32 = 2;

/// The commits of one write.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    commits: Vec<Commit>,
    pub(crate) flushes: Vec<oneshot::Sender<Result<(), Error>>>,
}

impl Batch {
    /// Takes as many commits as fit into `room`, or, if the first does not, as many
    /// as fit into a new segment.
    pub(crate) fn take(queue: &mut VecDeque<Commit>, room: usize, segment_len: u64) -> Self {
        let first = queue.front().map_or(0, Commit::space);
        let most = batch_max(segment_len);
        let limit = if pages(first) <= room { room.min(most) } else { most };
        let (mut batch, mut space) = (Batch::default(), 0);
        while let Some(commit) = queue.pop_front() {
            space += commit.space();
            if pages(space) > limit {
                queue.push_front(commit);
                break;
            }
            batch.commits.push(commit);
        }
        batch
    }

    fn space(&self) -> usize {
        pages(self.commits.iter().map(Commit::space).sum())
    }
}

/// A torn batch: its write failed for lack of space and may be partly on disk. A record of the log
/// itself is written over its start.
struct Torn {
    /// The record: it ends the segment. For the maintenance it is a mark, and the segment goes on.
    own: Draft,
    /// Commits answered as in doubt. If the machine crashes before the end record is durable, they
    /// may come back. Until then nothing may be acknowledged that does not depend on them.
    refused: Vec<Commit>,
}

/// Disk access of a writer.
pub(crate) struct Context<D: Disk> {
    pub(crate) store: Arc<Store>,
    pub(crate) disk: Rc<D>,
    worker: usize,
    /// Whether this is the maintenance's writer: of checkpoints and of records the cleaner moves.
    pub(crate) maintains: bool,
    /// Number of batches: selects the worker whose durable end the next batch states.
    turn: Cell<usize>,
    /// Whether anything was written after the last record that proves durability.
    dirty: Cell<bool>,
    /// The segment ended when the open one began. The next batch has the durable hint for it.
    ended: Cell<Option<DurableHint>>,
    /// The buffer of the last batch, reused for the next. It holds a copy of what is on disk and is
    /// wiped when the writer ends: wiping it per batch would cost as much as filling it.
    spare: Cell<Option<D::Buf>>,
    /// The torn batch, if any: the open segment must be ended there before any other write.
    torn: Cell<Option<Torn>>,
}

impl<D: Disk> Context<D> {
    pub(crate) fn new(store: Arc<Store>, disk: Rc<D>, worker: usize, maintains: bool) -> Self {
        let (turn, dirty, ended, spare) = (Cell::new(0), Cell::new(false), Cell::new(None), Cell::new(None));
        let torn = Cell::new(None);
        Context { store, disk, worker, maintains, turn, dirty, ended, spare, torn }
    }

    /// Writes the front of a buffer. A failure poisons the log, since the state of the range is
    /// unknown from then on. Lack of space is `Full` instead: the range may be partly written, and
    /// its former contents must not be relied on.
    pub(crate) async fn write(&self, offset: u64, buf: D::Buf, len: usize) -> Result<(), Error> {
        self.dirty.set(true);
        let (result, _) = self.disk.write(offset, buf, 0..len).await;
        self.full_or_poison(result, offset)
    }

    /// Maps a failed write at `offset` to `Full` if space is lacking. Any other
    /// failure poisons the log.
    pub(crate) fn full_or_poison(&self, result: std::io::Result<()>, offset: u64) -> Result<(), Error> {
        match result {
            Err(error) if is_full(&error) => {
                self.store.lock().segments.write_failed();
                Err(Error::Full)
            }
            result => self.poison_on(result, "a write", Some(offset)),
        }
    }

    pub(crate) fn poison_on(
        &self,
        result: std::io::Result<()>,
        what: &'static str,
        at: Option<u64>,
    ) -> Result<(), Error> {
        result.map_err(|error| {
            self.store.poison(FailedWrite::new(what, at, &error));
            error.into()
        })
    }

    /// Makes durable what all workers have written so far.
    pub(crate) async fn sync(&self) -> Result<(), Error> {
        let noted = (!sabotage::is(Sabotage::NoteLate)).then(|| self.store.lock().begin_sync());
        let result = if sabotage::is(Sabotage::SkipSync) { Ok(()) } else { self.disk.sync().await };
        self.poison_on(result, "a sync", None)?;
        // A sync that overlaps a failed write proves nothing about that write.
        self.store.check_poison()?;
        let mut state = self.store.lock();
        state.counters.syncs.syncs += 1;
        let syncing = noted.unwrap_or_else(|| state.begin_sync());
        state.end_sync(&syncing);
        Ok(())
    }

    /// Writes records as one batch. Returns their locations, and whether they are
    /// durable: if `wanted`, and if the write itself can make them so. Their watermark is
    /// what was durable before.
    async fn append(
        &self,
        meta: &mut OpenMeta,
        drafts: &[&Draft],
        wanted: bool,
    ) -> Result<(Vec<Location>, bool), Error> {
        let turn = self.turn.replace(self.turn.get().wrapping_add(1));
        let (watermark, end, hint) = {
            let mut state = self.store.lock();
            let watermark = state.numbers.watermark();
            state.ends[self.worker].in_flight = watermark;
            (watermark, state.ends[self.worker], state.durable_hint(self.worker, turn))
        };
        let durable = end.durable_in(meta.number);
        // A durable write covers only its own bytes: neither earlier bytes of its segment, without
        // which recovery would not find it, nor blocks.
        let stands_alone = u64::from(durable) == meta.at - meta.start && !drafts.iter().any(|draft| draft.has_blocks());
        let at_once = wanted && (stands_alone || sabotage::is(Sabotage::TrustWrites));
        // Another writer might never state the durable end of the previous segment.
        let (ended, prev) = (self.ended.take(), meta.prev);
        let hint = ended.unwrap_or(hint);
        let mut buf = self.spare.take().unwrap_or_else(|| self.disk.buffer());
        let (mut at, mut places) = (0, Vec::with_capacity(drafts.len()));
        for (i, draft) in drafts.iter().enumerate() {
            let border = if i == 0 { FIRST } else { 0 } | if i + 1 == drafts.len() { LAST } else { 0 };
            let header = record::Header {
                kind: draft.kind,
                flags: border | if draft.moved() { MOVED } else { 0 },
                generation: meta.generation,
                offset: meta.at + at as u64,
                seq: draft.seq,
                watermark,
                prev: meta.prev,
                durable,
                hint,
            };
            let (len, next) = (record::HEADER_LEN + draft.payload.len(), at + record::space(draft.payload.len()));
            meta.prev = header.emit(&self.store.id, &draft.payload, D::slice(&mut buf, at..next));
            D::slice(&mut buf, at + len..next).fill(0);
            places.push(Location::new(header.offset, len as u32));
            at = next;
        }
        let len = pages(at);
        D::slice(&mut buf, at..len).fill(0);
        self.dirty.set(true);
        let (result, buf) = match at_once && !sabotage::is(Sabotage::SkipSync) {
            true => self.disk.write_durable(meta.at, buf, 0..len).await,
            false => self.disk.write(meta.at, buf, 0..len).await,
        };
        self.spare.set(Some(buf));
        if let Err(error) = self.full_or_poison(result, meta.at) {
            // For the segment, nothing has been appended.
            self.ended.set(ended);
            meta.prev = prev;
            self.store.lock().ends[self.worker].in_flight = u64::MAX;
            return Err(error);
        }
        meta.at += len as u64;
        self.appended(meta, drafts, len, at, at_once);
        Ok((places, at_once))
    }

    /// Records what was appended.
    fn appended(&self, meta: &OpenMeta, drafts: &[&Draft], len: usize, records: usize, is_durable: bool) {
        let mut state = self.store.lock();
        let seqs = drafts.iter().map(|draft| draft.seq);
        state.counters.syncs.durable_writes += u64::from(is_durable);
        match is_durable {
            true => state.numbers.durable(seqs),
            false => state.numbers.written(seqs),
        }
        let end = state.ends[self.worker];
        let written = (meta.at - meta.start) as u32;
        let durable = if is_durable { written } else { end.durable_in(meta.number) };
        state.ends[self.worker] = WriterEnd { segment: meta.number, written, durable, ..end };
        state.segments.table[meta.number as usize].written = written;
        for (i, draft) in drafts.iter().enumerate() {
            let padding = if i == 0 { len - records } else { 0 };
            let bytes = (record::space(draft.payload.len()) + padding) as u64;
            state.count_record(draft, bytes);
        }
    }

    /// Creates a record of the log itself, without payload.
    fn housekeeping(&self, kind: u8) -> Draft {
        let seq = self.store.lock().numbers.record();
        Draft { seq, kind, payload: Vec::new(), effect: Effect::Nothing }
    }

    /// Writes a record of the log itself as one batch. It does not affect the index.
    async fn append_own(&self, meta: &mut OpenMeta, kind: u8) -> Result<(), Error> {
        let draft = self.housekeeping(kind);
        self.append(meta, &[&draft], false).await?;
        self.store.lock().numbers.settled(draft.seq);
        Ok(())
    }

    /// Ends the open segment, if any, and begins another. `None`: the store is full,
    /// and nothing has changed.
    async fn roll(&self, meta: &mut Option<OpenMeta>, deletions: bool) -> Result<Option<()>, Error> {
        let purpose = match (self.maintains, deletions) {
            (true, _) => Purpose::Clean(segment::Kind::Meta),
            (false, true) => Purpose::Deletions,
            (false, false) => Purpose::Meta { first: meta.is_none() },
        };
        // The end record of the torn segment must come before any other write.
        if self.is_torn() {
            return Ok(None);
        }
        let Some(begun) = self.begin(segment::Kind::Meta, purpose).await? else { return Ok(None) };
        match meta {
            Some(old) if old.is_sealed() => {}
            Some(old) => {
                let end = self.housekeeping(kind::SEGMENT_END);
                match self.append(old, &[&end], false).await {
                    Ok(_) => self.store.lock().numbers.settled(end.seq),
                    Err(Error::Full) => {
                        self.store.lock().segments.abandon(begun.number, true);
                        self.torn.set(Some(Torn { own: end, refused: Vec::new() }));
                        return Ok(None);
                    }
                    Err(error) => return Err(error),
                }
                // The whole segment must be durable before the next one claims it. One
                // sync per segment is cheap, and a log that is never flushed has no
                // other proof of durability.
                self.sync().await?;
                let until = (old.at - old.start) as u32;
                self.ended.set(Some(DurableHint { segment: old.number, until }));
                let mut state = self.store.lock();
                state.settle(self.worker, old);
                state.close_segment(old.number, self.maintains);
            }
            None if !self.maintains => self.store.lock().segments.without_meta -= 1,
            None => {}
        }
        let BegunSegment { number, generation, start, at, end, crc } = begun;
        {
            let segment = &mut self.store.lock().segments.table[number as usize];
            (segment.written, segment.settled, segment.prev) = (PAGE as u32, PAGE as u32, crc);
        }
        *meta = Some(OpenMeta { number, generation, start, end, at, prev: crc, reserve: deletions && !self.maintains });
        Ok(Some(()))
    }

    /// Makes room for the batch. Fails the commits that do not fit and removes them from the batch.
    async fn make_room(&self, meta: &mut Option<OpenMeta>, batch: &mut Batch) -> Result<(), Error> {
        if let Some(meta) = meta.as_mut().filter(|meta| meta.reserve) {
            let deletions = batch.commits.iter().all(|commit| commit.deletes);
            // Deletions do not wait: they may use the reserve.
            let has_spare = if deletions { self.store.lock().has_spare() } else { self.gets_spare().await? };
            if has_spare {
                meta.reserve = false;
            } else {
                self.shed(batch, |commit| commit.deletes);
            }
        }
        let mut reserve = false;
        while !batch.commits.is_empty() && meta.as_ref().is_none_or(|meta| meta.room() < batch.space()) {
            let deletions = batch.commits.iter().all(|commit| commit.deletes);
            let of_reserve = deletions && (reserve || !self.store.lock().has_spare());
            if self.roll(meta, of_reserve).await?.is_none() {
                self.shed(batch, |commit| commit.deletes && !of_reserve);
                // Another worker may have taken the spare segment.
                reserve = true;
            }
        }
        Ok(())
    }

    /// Fails the commits that are not to be kept, because the store is full.
    fn shed(&self, batch: &mut Batch, keep: impl Fn(&Commit) -> bool) {
        for commit in batch.commits.extract_if(.., |commit| !keep(commit)) {
            self.refuse(commit, &Error::Full);
        }
    }

    /// Fails a commit that has not been written.
    pub(crate) fn refuse(&self, commit: Commit, error: &Error) {
        refuse(&self.store, commit, error);
    }

    /// Overwrites the start of a torn batch durably, which invalidates whatever is left of the
    /// batch. Returns `false` if there is no space for that either.
    ///
    /// A worker's segment ends there, and the batch may go to a segment that is allocated. The
    /// maintenance goes on behind a mark: if it ended a segment after each failure, checkpoints
    /// could not free them fast enough.
    async fn seal(&self, meta: &mut OpenMeta, torn: Torn) -> Result<bool, Error> {
        match self.append(meta, &[&torn.own], true).await {
            Ok((_, true)) => {}
            Ok((_, false)) => self.sync().await?,
            Err(Error::Full) => {
                self.torn.set(Some(torn));
                return Ok(false);
            }
            Err(error) => return Err(error),
        }
        {
            let mut state = self.store.lock();
            state.numbers.settled(torn.own.seq);
            if torn.own.kind == kind::SEGMENT_END {
                meta.end = meta.at;
            }
            state.settle(self.worker, meta);
            if meta.is_sealed() {
                state.close_segment(meta.number, self.maintains);
                // The segment may be freed from now on: no durable hint names it.
                state.ends[self.worker] = WriterEnd::NONE;
            }
        }
        if !torn.refused.is_empty() {
            self.store.set_in_doubt(false);
        }
        for commit in torn.refused {
            self.refuse(commit, &Error::Full);
        }
        Ok(true)
    }

    /// Writes the records of a batch. Fails those without room and removes them from the batch.
    async fn write_records(
        &self,
        meta: &mut Option<OpenMeta>,
        batch: &mut Batch,
        at_once: bool,
    ) -> Result<(Vec<Location>, bool), Error> {
        if let Some(meta) = meta
            && let Some(torn) = self.torn.take()
            && !self.seal(meta, torn).await?
        {
            self.shed(batch, |_| false);
            return Ok((Vec::new(), false));
        }
        for _ in 0..WRITE_ATTEMPTS {
            self.make_room(meta, batch).await?;
            let drafts: Vec<&Draft> = batch.commits.iter().flat_map(|commit| &commit.drafts).collect();
            let Some(meta) = meta.as_mut().filter(|_| !drafts.is_empty() && !self.is_torn()) else { break };
            let filled = if at_once { self.fill_ahead(meta, batch.space()).await } else { Ok(()) };
            let result = match filled {
                Ok(()) => self.append(meta, &drafts, at_once).await,
                Err(error) => Err(error),
            };
            match result {
                Err(Error::Full) => {}
                result => return result,
            }
            let own = self.housekeeping(if self.maintains { kind::MARK } else { kind::SEGMENT_END });
            if !self.seal(meta, Torn { own, refused: Vec::new() }).await? {
                self.hold_back(batch);
                break;
            }
            if self.maintains {
                break;
            }
        }
        self.shed(batch, |_| false);
        Ok((Vec::new(), false))
    }

    /// Returns a receiver that is notified when there may be space again.
    pub(crate) fn expected_space(&self) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        self.store.lock().torn.push(sender);
        receiver
    }

    /// Returns whether the open segment must be ended before any other write.
    pub(crate) fn is_torn(&self) -> bool {
        let torn = self.torn.take();
        let is_torn = torn.is_some();
        self.torn.set(torn);
        is_torn
    }

    /// Answers the commits whose records may be on disk. Their names stay reserved and their blocks
    /// pinned until that is decided.
    fn hold_back(&self, batch: &mut Batch) {
        let Some(mut torn) = self.torn.take() else { return };
        // A record that the cleaner moves says the same at either location.
        let error = if self.maintains { Error::Full } else { Error::InDoubt };
        for mut commit in batch.commits.drain(..) {
            let done = std::mem::replace(&mut commit.done, oneshot::channel().0);
            let _ = done.send(Err(error.clone())); // The receiver is gone if the request was dropped.
            torn.refused.push(commit);
        }
        if !torn.refused.is_empty() {
            self.store.set_in_doubt(true);
        }
        self.torn.set(Some(torn));
    }

    async fn write_batch(&self, meta: &mut Option<OpenMeta>, batch: &mut Batch) -> Result<Vec<Location>, Error> {
        self.store.check_poison()?;
        let early = sabotage::is(Sabotage::AcknowledgeEarly) && self.turn.get().is_multiple_of(2);
        let at_once =
            self.store.durability == Durability::Always && batch.commits.iter().any(|commit| !commit.relaxed) && !early;
        let (places, is_durable) = self.write_records(meta, batch, at_once).await?;
        self.store.lock().counters.batches.count(batch.commits.len());
        let at_once = at_once && !batch.commits.is_empty();
        if !batch.flushes.is_empty() || (at_once && !is_durable) {
            self.sync().await?;
        }
        // Another worker's failed write may mean that this worker's bytes are not durable.
        self.store.check_poison()?;
        Ok(places)
    }
}

/// Fails a commit that will not be written, and releases its reservations.
pub(crate) fn refuse(store: &Store, commit: Commit, error: &Error) {
    let mut state = store.lock();
    for draft in &commit.drafts {
        state.index.release(draft.seq, &draft.effect);
        // After a failed write the state of the disk is unknown: the watermark stays below it.
        if !store.poisoned() && !draft.moved() {
            state.numbers.give_up(draft.seq);
            state.numbers.settled(draft.seq);
        }
    }
    state.index.unpin(&commit.pinned);
    drop(state);
    let _ = commit.done.send(Err(error.clone())); // The receiver is gone if the request was dropped.
}

/// Writes a batch, syncs it under [`Durability::Always`], applies it to the index, and wakes its waiters.
pub(crate) async fn commit<D: Disk>(
    context: Rc<Context<D>>,
    mut meta: Option<OpenMeta>,
    mut batch: Batch,
) -> Option<OpenMeta> {
    context.store.begin_commit();
    match context.write_batch(&mut meta, &mut batch).await {
        Ok(places) => {
            apply(&context, batch.commits, places, meta.as_ref());
            for flush in batch.flushes {
                let _ = flush.send(Ok(())); // The receiver is gone if the request was dropped.
            }
        }
        Err(error) => {
            for commit in batch.commits {
                context.refuse(commit, &error);
            }
            for flush in batch.flushes {
                let _ = flush.send(Err(error.clone()));
            }
        }
    }
    context.store.end_commit();
    meta
}

fn apply<D: Disk>(context: &Context<D>, commits: Vec<Commit>, places: Vec<Location>, meta: Option<&OpenMeta>) {
    let mut places = places.into_iter();
    let mut answers = Vec::with_capacity(commits.len());
    let mut state = context.store.lock();
    for commit in commits {
        let mut result = Ok(());
        let mut new_body = None;
        for (draft, at) in commit.drafts.into_iter().zip(&mut places) {
            if let Effect::Body { id, .. } = draft.effect {
                new_body = Some(id);
            }
            result = result.and(state.apply(draft.seq, at, &draft.effect));
        }
        // A newer write of the name may already have made the body garbage.
        if let Some(id) = new_body {
            state.index.collect(id);
        }
        state.index.unpin(&commit.pinned);
        answers.push((commit.done, result, commit.holds));
    }
    if let Some(meta) = meta.filter(|meta| !meta.is_sealed()) {
        state.settle(context.worker, meta);
    }
    state.wake_maintenance_if_due();
    drop(state);
    for (done, result, holds) in answers {
        drop(holds);
        let _ = done.send(result); // The receiver is gone if the request was dropped.
    }
}

/// Makes everything durable and writes a mark that proves it, so that the next recovery need not
/// verify the tail.
pub(crate) async fn close<D: Disk>(context: &Context<D>, meta: Option<OpenMeta>) {
    if !context.dirty.get() {
        return;
    }
    // A failure poisons the log; recovery then proceeds as after a crash.
    if context.sync().await.is_err() {
        return;
    }
    if let Some(mut meta) = meta
        && !meta.is_sealed()
        && !context.is_torn()
        && context.append_own(&mut meta, kind::MARK).await.is_ok()
    {
        let _ = context.sync().await;
    }
}
