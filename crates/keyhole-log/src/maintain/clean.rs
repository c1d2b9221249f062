//! The segment cleaner: moves live data out of mostly dead segments.
//!
//! It moves ciphertext unchanged, without a key. A moved record keeps its sequence number; a body
//! whose blocks are moved gets a record with their new locations. Until the segment is freed both
//! copies are valid.

use std::rc::Rc;

use futures_channel::oneshot;
use futures_util::stream::{FuturesUnordered, StreamExt};

use super::Maintenance;
use crate::body::add_block;
use crate::disk::{Access, Disk};
use crate::draft::Draft;
use crate::error::{Damage, Error, UNREADABLE};
use crate::geometry::{run_blocks, with_starts};
use crate::index::{Effect, Location};
use crate::limits::{CHUNKS_MAX, PAGE, RUNS_MAX};
use crate::log::CommitRequest;
use crate::pin::SegmentPin;
use crate::read::{Located, read_record, read_verified};
use crate::recover::Window;
use crate::state::{Candidate, State, UnreadData, move_commit};
use crate::types::BodyId;
use crate::wire::align_up;
use crate::wire::block::BlockIdentity;
use crate::wire::payload::{BodyRecord, Bytes, RecordPayload, Run};
use crate::wire::record::{self, HEADER_LEN, LAST};
use crate::wire::segment::Kind;
use crate::writer::{BlockWrite, Job, PlacedBlock};

/// Commits in flight. They share batches.
const MOVES_IN_FLIGHT: usize = 16;

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
            if is_left && unread.is_empty() {
                // A request has it pinned at the moment.
                self.unmovable.insert(number);
            } else if is_left {
                self.put_aside(number, unread).await;
            }
        }
        Ok(cleaned)
    }

    /// Moves the live records of a segment, and returns the unreadable ones.
    async fn clean_records(&self, number: u32) -> Result<UnreadData, Error> {
        let (start, end, generation) = {
            let state = self.store.lock();
            let segment = state.segments.table[number as usize];
            (state.segments.start(number), state.segments.written(number), segment.generation)
        };
        let disk = Rc::clone(&self.context.disk);
        let mut window = Window::new(disk.as_ref(), end, end).direct();
        let mut at = start + PAGE as u64;
        let mut unread = UnreadData::default();
        let mut drafts = Vec::new();
        let mut space = 0;
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
        let kind = found.header.kind;
        let seq = found.header.seq;
        let effect = Effect::of(&RecordPayload::parse(kind, found.payload)?);
        let live = self.store.lock().index.location(seq, &effect) == Some(Location::new(at, found.len));
        live.then(|| Draft {
            seq,
            kind,
            payload: found.payload.to_vec().into(),
            effect: Effect::Moved(Box::new(effect)),
        })
    }

    /// Moves records, which are collected until they fill a commit. At most one of them is long.
    fn move_records(
        &self,
        drafts: Vec<Draft>,
        holds: Vec<SegmentPin>,
    ) -> impl Future<Output = Result<(), Error>> + use<D> {
        self.log.write(CommitRequest { drafts, holds, relaxed: true, ..CommitRequest::default() })
    }

    /// Moves the live blocks of a segment, and returns the unreadable ones.
    async fn clean_blocks(&self, number: u32) -> Result<UnreadData, Error> {
        let mut from = BodyId(0);
        let mut unread = UnreadData::default();
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
            let Some(at) = state.index.body(id).filter(|at| at.is_in_file()) else { return Ok(()) };
            Located::new(&self.store, &mut state, at)
        };
        let found = self.read_body(id, &located).await?;
        let mut runs = Vec::new();
        let mut pins = Vec::<SegmentPin>::new();
        let mut at = 0;
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
        let draft = Draft { seq, kind: payload.kind(), payload: payload.encode().into(), effect };
        moved.space += record::space(draft.payload.len());
        moved.drafts.push(draft);
        for pin in pins {
            add_pin(&mut moved.pins, pin);
        }
        Ok(())
    }

    async fn read_body(&self, id: BodyId, located: &Located) -> Result<FoundBody, Error> {
        let disk = self.context.disk.as_ref();
        let store = &self.store.id;
        let found = read_record(disk, Access::Direct, store, located.at, located.generation, |record| {
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
        let crcs = Vec::new();
        let ahead = Vec::new();
        let block = BlockWrite { buf, body: BodyId(body), index, data_len, tags, crcs, ahead, done };
        self.log.submit(Job::Block(block)).map_err(|_| Error::Closed)?;
        placed.await.map_err(|_| Error::Closed)?
    }
}
