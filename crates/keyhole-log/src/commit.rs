//! Group commit: one batch of records, from the queue to the disk to the index.

use std::cell::Cell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use futures_channel::oneshot;

use crate::begin::Begun;
use crate::disk::{Disk, is_full};
use crate::error::{Error, FailedWrite};
use crate::index::{Effect, Location};
use crate::limits::{PAGE, batch_max};
use crate::sabotage::{self, Sabotage};
use crate::segments::Purpose;
use crate::shared::{End, OpenMeta, SegmentPin, Shared, State, Sync};
use crate::types::BodyId;
use crate::wire::payload::kind;
use crate::wire::record::{self, Durable, FIRST, LAST, MOVED};
use crate::wire::{pages, segment};

/// A record to be written.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(crate) seq: u64,
    pub(crate) kind: u8,
    pub(crate) payload: Vec<u8>,
    pub(crate) effect: Effect,
}

/// The records of one request. They are written next to each other, in one batch.
#[derive(Debug)]
pub(crate) struct Commit {
    pub(crate) drafts: Vec<Draft>,
    /// Bodies that are pinned until this is decided.
    pub(crate) pinned: Vec<BodyId>,
    /// Segments that are pinned until this is decided: with blocks that no record names yet. Never dropped under the lock.
    pub(crate) holds: Vec<SegmentPin>,
    /// Whether this only takes away: it may use what is reserved for that.
    pub(crate) deletes: bool,
    /// It need not be durable when it is answered: of the cleaner, which makes it durable before it counts on it.
    pub(crate) relaxed: bool,
    pub(crate) done: oneshot::Sender<Result<(), Error>>,
}

impl Draft {
    fn moved(&self) -> bool {
        matches!(self.effect, Effect::Moved(_))
    }

    /// It names blocks, which are to be durable when it is acknowledged.
    fn has_blocks(&self) -> bool {
        match &self.effect {
            Effect::Body { runs, .. } => !runs.is_empty(),
            // What it refers to the cleaner has written.
            Effect::Moved(_) => true,
            _ => false,
        }
    }
}

impl Commit {
    pub(crate) fn space(&self) -> usize {
        self.drafts.iter().map(|draft| record::space(draft.payload.len())).sum()
    }
}

/// Segments that are tried in turn while writes fail for want of space: for a batch, and for the header of a new segment.
pub(crate) const WRITE_ATTEMPTS: u32 = 2;

/// What goes to the disk together.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    commits: Vec<Commit>,
    pub(crate) flushes: Vec<oneshot::Sender<Result<(), Error>>>,
}

impl Batch {
    /// Takes as many as fit into `room`; if not even one does, as many as fit into a fresh segment.
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

impl OpenMeta {
    /// It has been ended before its time, as a batch could not be written whole.
    fn is_sealed(&self) -> bool {
        self.at == self.end
    }

    /// Bytes for batches. A page is kept for the record that ends the segment.
    pub(crate) fn room(&self) -> usize {
        usize::try_from(self.end - self.at).unwrap_or(usize::MAX).saturating_sub(PAGE)
    }
}

/// A batch that may be there in part, as its write failed for want of space. A record of the log's own goes where it begins.
struct Torn {
    /// It ends the segment; that of the maintenance is gone on with behind a mark.
    own: Draft,
    /// They have been answered as in doubt. If the power fails ahead of the end record they may come back: until it is there nothing may be
    /// acknowledged that does not go with them.
    refused: Vec<Commit>,
}

/// A writer's access to its disk.
pub(crate) struct Context<D: Disk> {
    pub(crate) shared: Arc<Shared>,
    pub(crate) disk: Rc<D>,
    worker: usize,
    /// It writes what the cleaner moves, and checkpoints.
    pub(crate) maintains: bool,
    /// Counts batches, so that each bears witness for another worker.
    turn: Cell<usize>,
    /// Whether something was written after the last record that proves what is durable.
    dirty: Cell<bool>,
    /// The segment that was ended when the open one was begun, for the next batch to bear witness for.
    ended: Cell<Option<Durable>>,
    /// The buffer of the last batch, for the next one. It holds what is on the disk, and is wiped when the writer ends: to do so
    /// after each batch would cost as much as to fill it.
    spare: Cell<Option<D::Buf>>,
    /// Where the open segment has to be ended before anything else is written.
    torn: Cell<Option<Torn>>,
}

impl<D: Disk> Context<D> {
    pub(crate) fn new(shared: Arc<Shared>, disk: Rc<D>, worker: usize, maintains: bool) -> Self {
        let (turn, dirty, ended, spare) = (Cell::new(0), Cell::new(false), Cell::new(None), Cell::new(None));
        let torn = Cell::new(None);
        Context { shared, disk, worker, maintains, turn, dirty, ended, spare, torn }
    }

    /// Writes the front of a buffer. A failure poisons the log: whether the bytes are there is unknown from then on. But want of
    /// space is `Full`: some of the bytes may be there, and nothing may rely on those that were there before.
    pub(crate) async fn write(&self, offset: u64, buf: D::Buf, len: usize) -> Result<(), Error> {
        self.dirty.set(true);
        let (result, _) = self.disk.write(offset, buf, 0..len).await;
        self.full_or_poison(result, offset)
    }

    /// Turns a failed write at `offset` into `Full` if space is missing, and poisons the log otherwise.
    pub(crate) fn full_or_poison(&self, result: std::io::Result<()>, offset: u64) -> Result<(), Error> {
        match result {
            Err(error) if is_full(&error) => {
                self.shared.lock().segments.write_failed();
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
            self.shared.poison(FailedWrite::new(what, at, &error));
            error.into()
        })
    }

    /// Makes durable what every worker has written so far.
    pub(crate) async fn sync(&self) -> Result<(), Error> {
        let noted = (!sabotage::is(Sabotage::NoteLate)).then(|| self.shared.lock().begin_sync());
        let result = if sabotage::is(Sabotage::SkipSync) { Ok(()) } else { self.disk.sync().await };
        self.poison_on(result, "a sync", None)?;
        // A sync that overlaps a failed write proves nothing about it.
        self.shared.check_poison()?;
        let mut state = self.shared.lock();
        state.counters.syncs.syncs += 1;
        let syncing = noted.unwrap_or_else(|| state.begin_sync());
        state.end_sync(&syncing);
        Ok(())
    }

    /// Writes records as one batch; the result is where they are, and whether they are durable: where that is wanted, and the write
    /// itself can make them so. The watermark in them is what is durable now, before.
    async fn append(
        &self,
        meta: &mut OpenMeta,
        drafts: &[&Draft],
        wanted: bool,
    ) -> Result<(Vec<Location>, bool), Error> {
        let turn = self.turn.replace(self.turn.get().wrapping_add(1));
        let (watermark, end, witness) = {
            let mut state = self.shared.lock();
            let watermark = state.numbers.watermark();
            state.ends[self.worker].in_flight = watermark;
            (watermark, state.ends[self.worker], state.witness(self.worker, turn))
        };
        let durable = end.durable_in(meta.number);
        // A write makes its own bytes durable, and no others: neither those ahead of it in its segment, without which nobody
        // would find it, nor blocks.
        let stands_alone = u64::from(durable) == meta.at - meta.start && !drafts.iter().any(|draft| draft.has_blocks());
        let at_once = wanted && (stands_alone || sabotage::is(Sabotage::TrustWrites));
        // Of the segment ahead nobody else may say how far it went.
        let (ended, prev) = (self.ended.take(), meta.prev);
        let witness = ended.unwrap_or(witness);
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
                witness,
            };
            let (len, next) = (record::HEADER_LEN + draft.payload.len(), at + record::space(draft.payload.len()));
            meta.prev = header.emit(&self.shared.store, &draft.payload, D::part(&mut buf, at..next));
            D::part(&mut buf, at + len..next).fill(0);
            places.push(Location::new(header.offset, len as u32));
            at = next;
        }
        let len = pages(at);
        D::part(&mut buf, at..len).fill(0);
        self.dirty.set(true);
        let (result, buf) = match at_once && !sabotage::is(Sabotage::SkipSync) {
            true => self.disk.write_durable(meta.at, buf, 0..len).await,
            false => self.disk.write(meta.at, buf, 0..len).await,
        };
        self.spare.set(Some(buf));
        if let Err(error) = self.full_or_poison(result, meta.at) {
            // As far as the segment goes nothing has been appended.
            self.ended.set(ended);
            meta.prev = prev;
            self.shared.lock().ends[self.worker].in_flight = u64::MAX;
            return Err(error);
        }
        meta.at += len as u64;
        self.appended(meta, drafts, len, at, at_once);
        Ok((places, at_once))
    }

    /// Notes what has been written.
    fn appended(&self, meta: &OpenMeta, drafts: &[&Draft], len: usize, records: usize, is_durable: bool) {
        let mut state = self.shared.lock();
        let seqs = drafts.iter().map(|draft| draft.seq);
        state.counters.syncs.durable_writes += u64::from(is_durable);
        match is_durable {
            true => state.numbers.durable(seqs),
            false => state.numbers.written(seqs),
        }
        let end = state.ends[self.worker];
        let written = (meta.at - meta.start) as u32;
        let durable = if is_durable { written } else { end.durable_in(meta.number) };
        state.ends[self.worker] = End { segment: meta.number, written, durable, ..end };
        state.segments.table[meta.number as usize].written = written;
        for (i, draft) in drafts.iter().enumerate() {
            let padding = if i == 0 { len - records } else { 0 };
            let bytes = (record::space(draft.payload.len()) + padding) as u64;
            state.count_record(draft, bytes);
        }
    }

    /// A record of the log's own, without payload.
    fn housekeeping(&self, kind: u8) -> Draft {
        let seq = self.shared.lock().numbers.record();
        Draft { seq, kind, payload: Vec::new(), effect: Effect::Nothing }
    }

    /// Writes a record of the log's own, in a batch by itself. It has no effect in the index.
    async fn append_own(&self, meta: &mut OpenMeta, kind: u8) -> Result<(), Error> {
        let draft = self.housekeeping(kind);
        self.append(meta, &[&draft], false).await?;
        self.shared.lock().numbers.settled(draft.seq);
        Ok(())
    }

    /// Ends the open segment, if any, and begins another one; `None`: the store is full, and nothing has changed.
    async fn roll(&self, meta: &mut Option<OpenMeta>, deletions: bool) -> Result<Option<()>, Error> {
        let purpose = match (self.maintains, deletions) {
            (true, _) => Purpose::Clean(segment::Kind::Meta),
            (false, true) => Purpose::Deletions,
            (false, false) => Purpose::Meta { first: meta.is_none() },
        };
        // Ahead of the end record of the old segment there is nothing to be written anywhere.
        if self.is_torn() {
            return Ok(None);
        }
        let Some(begun) = self.begin(segment::Kind::Meta, purpose).await? else { return Ok(None) };
        match meta {
            Some(old) if old.is_sealed() => {}
            Some(old) => {
                let end = self.housekeeping(kind::SEGMENT_END);
                match self.append(old, &[&end], false).await {
                    Ok(_) => self.shared.lock().numbers.settled(end.seq),
                    Err(Error::Full) => {
                        self.shared.lock().segments.abandon(begun.number, true);
                        self.torn.set(Some(Torn { own: end, refused: Vec::new() }));
                        return Ok(None);
                    }
                    Err(error) => return Err(error),
                }
                // All of it is to be durable before the next segment says so. That is cheap, as it happens once a segment,
                // and without it a log that is never flushed would never know anything to be durable.
                self.sync().await?;
                let until = (old.at - old.start) as u32;
                self.ended.set(Some(Durable { segment: old.number, until }));
                let mut state = self.shared.lock();
                state.settle(self.worker, old);
                state.close_segment(old.number, self.maintains);
            }
            None if !self.maintains => self.shared.lock().segments.without_meta -= 1,
            None => {}
        }
        let Begun { number, generation, start, at, end, crc } = begun;
        {
            let segment = &mut self.shared.lock().segments.table[number as usize];
            (segment.written, segment.settled, segment.prev) = (PAGE as u32, PAGE as u32, crc);
        }
        *meta = Some(OpenMeta { number, generation, start, end, at, prev: crc, reserve: deletions && !self.maintains });
        Ok(Some(()))
    }

    /// Sees to it that there is room for the batch. What there is no room for fails, and leaves the batch.
    async fn make_room(&self, meta: &mut Option<OpenMeta>, batch: &mut Batch) -> Result<(), Error> {
        if let Some(meta) = meta.as_mut().filter(|meta| meta.reserve) {
            let deletions = batch.commits.iter().all(|commit| commit.deletes);
            // Deletions do not wait: they may go on as it is.
            let has_spare = if deletions { self.shared.lock().has_spare() } else { self.gets_spare().await? };
            if has_spare {
                meta.reserve = false;
            } else {
                self.shed(batch, |commit| commit.deletes);
            }
        }
        let mut reserve = false;
        while !batch.commits.is_empty() && meta.as_ref().is_none_or(|meta| meta.room() < batch.space()) {
            let deletions = batch.commits.iter().all(|commit| commit.deletes);
            let of_reserve = deletions && (reserve || !self.shared.lock().has_spare());
            if self.roll(meta, of_reserve).await?.is_none() {
                self.shed(batch, |commit| commit.deletes && !of_reserve);
                // Somebody else may have taken what there was.
                reserve = true;
            }
        }
        Ok(())
    }

    /// Fails what is not to be kept, as the store is full.
    fn shed(&self, batch: &mut Batch, keep: impl Fn(&Commit) -> bool) {
        for commit in batch.commits.extract_if(.., |commit| !keep(commit)) {
            self.refuse(commit, &Error::Full);
        }
    }

    /// Fails a commit that has not been written.
    pub(crate) fn refuse(&self, commit: Commit, error: &Error) {
        refuse(&self.shared, commit, error);
    }

    /// Writes over the beginning of a batch that failed for want of space, and makes that durable: then nothing of the batch counts,
    /// whatever of it is there. `false`: there is no space for that either.
    ///
    /// Where the segment ends there the batch may go to one whose space is there. The maintenance goes on behind a mark: segments
    /// that it ended after each failure would be too many for the checkpoints that free them.
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
            let mut state = self.shared.lock();
            state.numbers.settled(torn.own.seq);
            if torn.own.kind == kind::SEGMENT_END {
                meta.end = meta.at;
            }
            state.settle(self.worker, meta);
            if meta.is_sealed() {
                state.close_segment(meta.number, self.maintains);
                // From now on the segment may be freed: nobody bears witness for it.
                state.ends[self.worker] = End::NONE;
            }
        }
        if !torn.refused.is_empty() {
            self.shared.set_in_doubt(false);
        }
        for commit in torn.refused {
            self.refuse(commit, &Error::Full);
        }
        Ok(true)
    }

    /// Writes the records of a batch; where there is no room for some, these fail and leave the batch.
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

    /// Is sent to when there may be space for what could not be written.
    pub(crate) fn expected_space(&self) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        self.shared.lock().in_doubt.push(sender);
        receiver
    }

    /// Whether the open segment has to be ended before anything else is written.
    pub(crate) fn is_torn(&self) -> bool {
        let torn = self.torn.take();
        let is_torn = torn.is_some();
        self.torn.set(torn);
        is_torn
    }

    /// Answers those whose records may be there, and keeps their names reserved and their blocks until that is decided.
    fn hold_back(&self, batch: &mut Batch) {
        let Some(mut torn) = self.torn.take() else { return };
        // What the cleaner moves is the same wherever it is.
        let error = if self.maintains { Error::Full } else { Error::InDoubt };
        for mut commit in batch.commits.drain(..) {
            let done = std::mem::replace(&mut commit.done, oneshot::channel().0);
            let _ = done.send(Err(error.clone())); // Nobody waits: the request was given up.
            torn.refused.push(commit);
        }
        if !torn.refused.is_empty() {
            self.shared.set_in_doubt(true);
        }
        self.torn.set(Some(torn));
    }

    async fn write_batch(&self, meta: &mut Option<OpenMeta>, batch: &mut Batch) -> Result<Vec<Location>, Error> {
        self.shared.check_poison()?;
        let early = sabotage::is(Sabotage::AcknowledgeEarly) && self.turn.get().is_multiple_of(2);
        let at_once = self.shared.sync == Sync::Always && batch.commits.iter().any(|commit| !commit.relaxed) && !early;
        let (places, is_durable) = self.write_records(meta, batch, at_once).await?;
        self.shared.lock().counters.batches.count(batch.commits.len());
        let at_once = at_once && !batch.commits.is_empty();
        if !batch.flushes.is_empty() || (at_once && !is_durable) {
            self.sync().await?;
        }
        // Another worker's failure may mean that what this one wrote is not there either.
        self.shared.check_poison()?;
        Ok(places)
    }
}

impl State {
    fn count_record(&mut self, draft: &Draft, bytes: u64) {
        if !matches!(draft.kind, kind::CHUNK | kind::CHECKPOINT | kind::SEGMENT_END | kind::MARK) {
            self.maintenance.since_checkpoint += bytes;
        }
        let written = &mut self.counters.written;
        match (&draft.effect, draft.kind) {
            (Effect::Moved(_), _) => {
                written.moved += bytes;
                self.counters.cleaner.bytes_moved += bytes;
            }
            (_, kind::CHUNK | kind::CHECKPOINT) => written.checkpoints += bytes,
            (_, kind::SEGMENT_END | kind::MARK) => written.other += bytes,
            (effect, _) => {
                written.records += bytes;
                if let Effect::Body { len, runs, .. } = effect
                    && runs.is_empty()
                {
                    written.appended += len;
                }
            }
        }
    }

    /// All records of a segment so far have taken effect.
    fn settle(&mut self, worker: usize, meta: &OpenMeta) {
        self.ends[worker].in_flight = u64::MAX;
        let segment = &mut self.segments.table[meta.number as usize];
        (segment.settled, segment.prev) = ((meta.at - meta.start) as u32, meta.prev);
    }
}

/// Fails a commit that will not be written, and gives up what it had reserved.
pub(crate) fn refuse(shared: &Shared, commit: Commit, error: &Error) {
    let mut state = shared.lock();
    for draft in &commit.drafts {
        state.index.release(draft.seq, &draft.effect);
        // After a failed write nobody knows what is on the disk: the watermark stays below it.
        if !shared.poisoned() && !draft.moved() {
            state.numbers.give_up(draft.seq);
            state.numbers.settled(draft.seq);
        }
    }
    state.index.unpin(&commit.pinned);
    drop(state);
    let _ = commit.done.send(Err(error.clone())); // Nobody waits: the request was given up.
}

/// Writes a batch, syncs if that is the mode, shows its effects in the index, and wakes everybody who waits for it.
pub(crate) async fn commit<D: Disk>(
    context: Rc<Context<D>>,
    mut meta: Option<OpenMeta>,
    mut batch: Batch,
) -> Option<OpenMeta> {
    context.shared.begin_commit();
    match context.write_batch(&mut meta, &mut batch).await {
        Ok(places) => {
            apply(&context, batch.commits, places, meta.as_ref());
            for flush in batch.flushes {
                let _ = flush.send(Ok(())); // Nobody waits: the request was given up.
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
    context.shared.end_commit();
    meta
}

fn apply<D: Disk>(context: &Context<D>, commits: Vec<Commit>, places: Vec<Location>, meta: Option<&OpenMeta>) {
    let mut places = places.into_iter();
    let mut answers = Vec::with_capacity(commits.len());
    let mut state = context.shared.lock();
    for commit in commits {
        let mut result = Ok(());
        let mut new_body = None;
        for (draft, at) in commit.drafts.into_iter().zip(&mut places) {
            if let Effect::Body { id, .. } = draft.effect {
                new_body = Some(id);
            }
            result = result.and(state.apply(draft.seq, at, &draft.effect));
        }
        // A newer write of the name may have made it useless already.
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
        let _ = done.send(result); // Nobody waits: the request was given up.
    }
}

/// Makes everything durable, and writes a mark that proves it, so that nothing has to be verified when the log is opened again.
pub(crate) async fn close<D: Disk>(context: &Context<D>, meta: Option<OpenMeta>) {
    if !context.dirty.get() {
        return;
    }
    // A failure poisons the log; recovery copes as after a crash.
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
