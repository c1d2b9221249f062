//! The segment cleaner: moves live data out of mostly dead segments.
//!
//! It moves ciphertext unchanged, without a key. A moved record keeps its sequence number; a body
//! whose blocks are moved gets a record with their new locations. Until the segment is freed both
//! copies are valid.

use std::rc::Rc;

use futures_channel::oneshot;
use futures_util::stream::{FuturesUnordered, StreamExt};

use super::Maintenance;
use super::aside::Unread;
use crate::body::add_block;
use crate::commit::Draft;
use crate::disk::Disk;
use crate::error::{Damage, Error, UNREADABLE};
use crate::geometry::{run_blocks, with_starts};
use crate::index::{Effect, Location};
use crate::limits::{BODIES_AT_A_TIME, CHUNKS_MAX, CLEAN_LIVE_MAX, PAGE, RUNS_MAX};
use crate::log::{CommitRequest, Located, read_record, read_verified};
use crate::pin::SegmentPin;
use crate::recover::Window;
use crate::sabotage::{self, Sabotage};
use crate::segments::Use;
use crate::store::State;
use crate::types::BodyId;
use crate::wire::align_up;
use crate::wire::block::BlockIdentity;
use crate::wire::payload::{BodyRecord, Bytes, RecordPayload, Run};
use crate::wire::record::{self, HEADER_LEN, LAST};
use crate::wire::segment::Kind;
use crate::writer::{BlockWrite, Job, PlacedBlock};

/// The value of [`CLEAN_LIVE_MAX`] in ring mode, where the oldest objects can be dropped instead.
const RING_LIVE_MAX: u64 = 50;

/// Returns the approximate bytes of records moved in one commit, less in short segments. Commits
/// are not split, so up to this much and one record may be wasted at the end of a segment.
const fn move_commit(segment_len: u64) -> usize {
    let most = segment_len as usize / 24;
    if most < 64 * 1024 { most } else { 64 * 1024 }
}

/// Returns the maximum waste at the end of a META segment, except for unusually long records.
const fn move_unused(segment_len: u64) -> u64 {
    3 * move_commit(segment_len) as u64
}

/// Commits in flight. They share batches.
const MOVES_IN_FLIGHT: usize = 16;

/// A segment from before the opening that is filled less than this, in percent, is always worth
/// cleaning: it was ended early.
const UNDERFILLED: u64 = 60;

/// A segment that could be cleaned.
struct Candidate {
    number: u32,
    kind: Kind,
    live: u64,
    /// Bytes gained by cleaning it.
    dead: u64,
    worth: f64,
}

/// A body as described by its record.
struct FoundBody {
    seq: u64,
    len: u64,
    prefix: Vec<u8>,
    runs: Vec<Run>,
}

/// Bodies whose blocks have been moved, but not yet recorded.
#[derive(Default)]
struct MovedBodies {
    drafts: Vec<Draft>,
    /// Bytes that their records take.
    space: usize,
    /// Pins of the segments that the blocks are in now.
    pins: Vec<SegmentPin>,
}

/// Adds a pin unless the segment is already pinned.
fn add_pin(pins: &mut Vec<SegmentPin>, pin: SegmentPin) {
    if pins.iter().all(|other| other.number() != pin.number()) {
        pins.push(pin);
    }
}

impl<D: Disk> Maintenance<D> {
    /// Cleans the segments with the highest gain, at most one batch, or until `enough`. Returns how
    /// many can be freed now.
    pub(super) async fn clean(&mut self, enough: impl Fn(&State) -> bool) -> Result<usize, Error> {
        self.set_cleaning(true);
        let result = self.clean_some(enough).await;
        self.set_cleaning(false);
        result
    }

    async fn clean_some(&mut self, enough: impl Fn(&State) -> bool) -> Result<usize, Error> {
        let mut cleaned = 0;
        loop {
            let candidate = {
                let mut state = self.store.lock();
                state.condemn_dead();
                if state.segments.has_spare() {
                    state.wake_space();
                }
                let most = state.segments.batch();
                if cleaned >= most || enough(&state) {
                    break;
                }
                let skipped = |number| self.unmovable.contains(&number) || self.damaged.contains(&number);
                let mut candidates = state.candidates(self.opened, skipped);
                // A batch must gain more than its checkpoints take, or it would use up
                // the reserve for nothing.
                if cleaned == 0 && !state.is_gain(&candidates, most) {
                    candidates.clear();
                }
                candidates.into_iter().next().filter(|best| state.fits(best.kind, best.live))
            };
            let Some(Candidate { number, kind, .. }) = candidate else { break };
            let unread = match kind {
                Kind::Meta => self.clean_records(number).await?,
                Kind::Body => self.clean_blocks(number).await?,
            };
            let is_left = {
                let mut state = self.store.lock();
                let is_left = state.index.live.of(number) > 0;
                if !is_left {
                    state.condemn_dead();
                    state.counters.cleaner.segments_cleaned += 1;
                    cleaned += 1;
                }
                is_left
            };
            match unread.is_empty() {
                // A request has it pinned at the moment.
                true if is_left => drop(self.unmovable.insert(number)),
                false if is_left => self.put_aside(number, unread).await,
                _ => {}
            }
        }
        Ok(cleaned)
    }

    /// Moves the live records of a segment, and returns what could not be read.
    async fn clean_records(&self, number: u32) -> Result<Unread, Error> {
        let (start, end, generation) = {
            let state = self.store.lock();
            let segment = state.segments.table[number as usize];
            (state.segments.start(number), state.segments.written(number), segment.generation)
        };
        let disk = Rc::clone(&self.context.disk);
        let mut window = Window::new(disk.as_ref(), end, end);
        let (mut at, mut unread) = (start + PAGE as u64, Unread::default());
        let (mut drafts, mut space) = (Vec::new(), 0);
        let mut moves = FuturesUnordered::new();
        while at < end {
            let bytes = window.bytes(at, HEADER_LEN).await?;
            let claim = (bytes.len() == HEADER_LEN).then(|| record::claim(bytes, &self.store.id, at)).flatten();
            let bytes = window.bytes(at, claim.map_or(0, |claim| claim.len as usize)).await?;
            let found = record::verify(bytes, &self.store.id, at);
            let Some(found) = found.filter(|found| found.header.generation == generation) else {
                // The rest of its batch is not searched: if it holds live records, the segment
                // stays as it is.
                let what = window.unreadable(at..at + 1).map_or("a record that does not verify", |_| UNREADABLE);
                unread.record.get_or_insert_with(|| Damage::new(what, at));
                at = align_up(at + 1, PAGE as u64);
                continue;
            };
            if let Some(draft) = self.draft_if_live(&found, at) {
                space += record::space(draft.payload.len());
                drafts.push(draft);
            }
            let next = align_up(at + u64::from(found.len), record::ALIGN);
            at = if found.header.flags & LAST != 0 { align_up(next, PAGE as u64) } else { next };
            if space >= move_commit(self.store.segment_len) {
                space = 0;
                moves.push(self.move_records(std::mem::take(&mut drafts), Vec::new()));
                if moves.len() >= MOVES_IN_FLIGHT {
                    moves.next().await.unwrap_or(Ok(()))?;
                }
            }
        }
        if !drafts.is_empty() {
            moves.push(self.move_records(drafts, Vec::new()));
        }
        while let Some(moved) = moves.next().await {
            moved?;
        }
        Ok(unread)
    }

    fn draft_if_live(&self, found: &record::Record<'_>, at: u64) -> Option<Draft> {
        let (kind, seq) = (found.header.kind, found.header.seq);
        let effect = Effect::of(&RecordPayload::parse(kind, found.payload)?);
        let live = self.store.lock().index.location(seq, &effect) == Some(Location::new(at, found.len));
        live.then(|| Draft { seq, kind, payload: found.payload.to_vec(), effect: Effect::Moved(Box::new(effect)) })
    }

    /// Moves records, which are collected until they fill a commit. At most one of them is long.
    fn move_records(
        &self,
        drafts: Vec<Draft>,
        holds: Vec<SegmentPin>,
    ) -> impl Future<Output = Result<(), Error>> + use<D> {
        self.log.write(CommitRequest { drafts, holds, relaxed: true, ..CommitRequest::default() })
    }

    /// Moves the live blocks of a segment, and returns what could not be read.
    async fn clean_blocks(&self, number: u32) -> Result<Unread, Error> {
        let (mut from, mut unread) = (BodyId(0), Unread::default());
        // The records of many bodies share a batch; a batch of its own would take a page each.
        let mut moved = MovedBodies::default();
        loop {
            let (bodies, next) = self.store.lock().bodies_in(number, from);
            for body in bodies {
                match self.move_body(body, number, &mut moved).await {
                    Ok(()) => {}
                    Err(Error::Damaged(damage)) => drop(unread.bodies.insert(body, *damage)),
                    Err(error) => return Err(error),
                }
                if moved.space >= move_commit(self.store.segment_len) {
                    self.end_moves(&mut moved).await?;
                }
            }
            match next {
                Some(next) => from = next,
                None => break,
            }
        }
        self.end_moves(&mut moved).await?;
        Ok(unread)
    }

    /// Writes the records of the bodies whose blocks have been moved.
    async fn end_moves(&self, moved: &mut MovedBodies) -> Result<(), Error> {
        let MovedBodies { drafts, pins, .. } = std::mem::take(moved);
        if drafts.is_empty() { Ok(()) } else { self.move_records(drafts, pins).await }
    }

    /// Moves the blocks of a body that are in this segment.
    /// [`end_moves`](Self::end_moves) writes its record.
    async fn move_body(&self, id: BodyId, segment: u32, moved: &mut MovedBodies) -> Result<(), Error> {
        let located = {
            let mut state = self.store.lock();
            // The body may have been deleted in the meantime.
            let Some(at) = state.index.body(id).filter(|at| *at != Location::LOST) else { return Ok(()) };
            Located::new(&self.store, &mut state, at)
        };
        let found = self.read_body(id, &located).await?;
        let (mut runs, mut pins, mut at) = (Vec::new(), Vec::<SegmentPin>::new(), 0);
        for (start, run) in with_starts(&found.runs) {
            if self.store.lock().segments.number(run.offset) != Some(segment) {
                runs.push(*run);
                at += u64::from(run.len);
                continue;
            }
            for identity in run_blocks(id, start, run, 0) {
                for placed in self.move_block(&identity).await? {
                    add_block(&mut runs, at, &placed);
                    at += u64::from(placed.len);
                    add_pin(&mut pins, placed.pin);
                }
            }
        }
        if runs.len() > RUNS_MAX {
            // Its record has no room for more runs, so it stays in place.
            return Err(Damage::error("a body in more runs than a record holds", located.at.offset()));
        }
        let FoundBody { seq, len, prefix, .. } = found;
        let relocation = self.store.lock().numbers.relocation();
        let bytes = Bytes::Blocks(runs.clone());
        let payload = RecordPayload::Body(BodyRecord { id, relocation, len, prefix: &prefix, bytes });
        let effect = Effect::Moved(Box::new(Effect::Body { id, relocation, len, runs }));
        let draft = Draft { seq, kind: payload.kind(), payload: payload.encode(), effect };
        moved.space += record::space(draft.payload.len());
        moved.drafts.push(draft);
        for pin in pins {
            add_pin(&mut moved.pins, pin);
        }
        Ok(())
    }

    async fn read_body(&self, id: BodyId, located: &Located) -> Result<FoundBody, Error> {
        let (disk, store) = (self.context.disk.as_ref(), &self.store.id);
        let found = read_record(disk, store, located.at, located.generation, |record| {
            match RecordPayload::parse(record.header.kind, record.payload)? {
                RecordPayload::Body(BodyRecord { id: found, len, prefix, bytes: Bytes::Blocks(runs), .. })
                    if found == id =>
                {
                    Some(FoundBody { seq: record.header.seq, len, prefix: prefix.to_vec(), runs })
                }
                _ => None,
            }
        });
        found.await?.ok_or_else(|| Damage::error("a record with unexpected contents", located.at.offset()))
    }

    /// Moves a block, which may be cut into pieces.
    async fn move_block(&self, identity: &BlockIdentity) -> Result<Vec<PlacedBlock>, Error> {
        let disk = self.context.disk.as_ref();
        let whole = 0..CHUNKS_MAX;
        let (footer, buf) = read_verified(disk, &self.store.id, identity, &whole, disk.buffer()).await;
        let tags = footer?.tags().to_vec();
        let (done, placed) = oneshot::channel();
        let BlockIdentity { body, index, data_len, .. } = *identity;
        let (crcs, ahead) = (Vec::new(), Vec::new());
        let block = BlockWrite { buf, body: BodyId(body), index, data_len, tags, crcs, ahead, done };
        self.log.submit(Job::Block(block)).map_err(|_| Error::Closed)?;
        placed.await.map_err(|_| Error::Closed)?
    }
}

impl State {
    /// Condemns the closed segments without live data.
    pub(super) fn condemn_dead(&mut self) {
        for number in 0..self.segments.table.len() as u32 {
            let segment = &self.segments.table[number as usize];
            let closed = matches!(segment.used, Use::Closed(_));
            if closed && segment.pins == 0 && self.index.live.of(number) == 0 {
                self.segments.condemn(number);
            }
        }
        if sabotage::is(Sabotage::DropTombstoneEarly) {
            self.segments.free_condemned(u64::MAX);
        }
    }

    /// Returns the segments worth cleaning, except the `skipped` ones, with the best ratio of gain
    /// to cost first.
    fn candidates(&self, opened: u64, skipped: impl Fn(u32) -> bool) -> Vec<Candidate> {
        let segments = &self.segments;
        let checkpoints: Vec<u32> = {
            let records = self.index.checkpoints.iter().flat_map(|checkpoint| &checkpoint.records);
            let mut numbers: Vec<u32> = records.filter_map(|at| segments.number(at.offset())).collect();
            numbers.dedup();
            numbers.sort_unstable();
            numbers.dedup();
            numbers
        };
        // In ring mode, dropping old objects beats moving many of them. Space wasted at the end of
        // the destination is no gain; blocks are cut to fit instead.
        let live_max = if self.maintenance.ring { RING_LIVE_MAX } else { CLEAN_LIVE_MAX };
        let least = |kind| {
            let unused = if kind == Kind::Meta { move_unused(segments.len) } else { 0 };
            (segments.len * (100 - live_max) / 100).max(unused)
        };
        let candidates = (0..).zip(&segments.table).filter_map(|(number, segment)| {
            let Use::Closed(kind) = segment.used else { return None };
            let live = self.index.live.of(number);
            // The unused end of a segment is no gain, as it would be unused elsewhere too, unless
            // the segment was ended early.
            let underfilled = segment.generation < opened && live * 100 <= segments.len * UNDERFILLED;
            let end = if underfilled { segments.len } else { u64::from(segment.written) };
            let dead = end.saturating_sub(PAGE as u64 + live);
            // Records of a checkpoint cannot be moved. They die with newer checkpoints.
            let free = segment.pins == 0 && checkpoints.binary_search(&number).is_err() && !skipped(number);
            let worth = self.gain(live, segment.generation);
            (free && (dead >= least(kind) || underfilled)).then_some(Candidate { number, kind, live, dead, worth })
        });
        let mut candidates: Vec<Candidate> = candidates.collect();
        candidates.sort_by(|a, b| b.worth.total_cmp(&a.worth));
        candidates
    }

    /// Returns the bytes of the two checkpoints that free a cleaned segment,
    /// with a margin for growth.
    fn checkpoints_len(&self) -> u64 {
        2 * self.maintenance.checkpoint_len * 5 / 4
    }

    /// Returns whether there is room for the moved data and the checkpoints that follow. Without
    /// the checkpoints nothing would be freed.
    fn fits(&self, kind: Kind, live: u64) -> bool {
        let segments = &self.segments;
        let room =
            segments.free().saturating_sub(segments.reserve.deletions) * (segments.len - move_unused(segments.len));
        // Bodies need a segment of their own.
        let beside = if kind == Kind::Body { segments.len } else { 0 };
        room >= live + beside + self.checkpoints_len()
    }

    /// Returns whether the candidates that fit gain more than the checkpoints that free them take.
    fn is_gain(&self, candidates: &[Candidate], most: usize) -> bool {
        let (mut moved, mut gained) = (0, self.segments.condemned() * self.segments.len);
        for candidate in candidates.iter().take(most) {
            moved += candidate.live;
            if !self.fits(candidate.kind, moved) {
                break;
            }
            // Some space is wasted where records are moved to.
            let unused = if candidate.kind == Kind::Meta { move_commit(self.segments.len) as u64 } else { 0 };
            gained += candidate.dead.saturating_sub(unused);
        }
        gained > 2 * self.maintenance.checkpoint_len
    }

    /// Cost-benefit policy (Rosenblum and Ousterhout, "The design and implementation of a
    /// log-structured file system", section 3.5): the space gained and its expected age, over the
    /// cost of reading and writing. Age counts by its square root: under uniform overwrites it
    /// carries no information, and the emptiest segment is best.
    fn gain(&self, live: u64, generation: u64) -> f64 {
        let used = live as f64 / self.segments.len as f64;
        let age = (self.numbers.next() - generation) as f64;
        (1.0 - used) * age.sqrt() / (1.0 + used)
    }

    /// Returns bodies that have blocks in this segment, starting at `from`, and the body to
    /// continue from.
    fn bodies_in(&self, segment: u32, from: BodyId) -> (Vec<BodyId>, Option<BodyId>) {
        let mut found = Vec::new();
        for (seen, (id, body)) in self.index.bodies_from(from).enumerate() {
            if seen == BODIES_AT_A_TIME {
                return (found, Some(id));
            }
            if body.shares.as_slice().iter().any(|share| share.segment == segment) {
                found.push(id);
            }
        }
        (found, None)
    }
}
