//! Selection of the segments that the cleaner frees.

use super::State;
use crate::limits::{BODIES_AT_A_TIME, CLEAN_LIVE_MAX, PAGE};
use crate::sabotage::{self, Sabotage};
use crate::segments::Use;
use crate::types::BodyId;
use crate::wire::segment::Kind;

/// The value of [`CLEAN_LIVE_MAX`] in ring mode, where the oldest objects can be dropped instead.
const RING_LIVE_MAX: u64 = 50;

/// Returns the approximate bytes of records moved in one commit, less in short segments. Commits
/// are not split, so up to this much and one record may be wasted at the end of a segment.
pub(crate) const fn move_commit(segment_len: u64) -> usize {
    let most = segment_len as usize / 24;
    if most < 64 * 1024 { most } else { 64 * 1024 }
}

/// Returns the maximum waste at the end of a META segment, except for unusually long records.
const fn move_unused(segment_len: u64) -> u64 {
    3 * move_commit(segment_len) as u64
}

/// A segment from before the opening that is filled less than this, in percent, is always worth
/// cleaning: it was ended early.
const UNDERFILLED: u64 = 60;

/// A segment that could be cleaned.
pub(crate) struct Candidate {
    pub(crate) number: u32,
    pub(crate) kind: Kind,
    pub(crate) live: u64,
    /// Bytes gained by cleaning it.
    pub(crate) dead: u64,
    pub(crate) worth: f64,
}

impl State {
    /// Condemns the closed segments without live data.
    pub(crate) fn condemn_dead(&mut self) {
        for number in 0..self.segments.table.len() as u32 {
            let segment = &self.segments.table[number as usize];
            let closed = matches!(segment.used, Use::Closed(_));
            if closed && segment.pins == 0 && self.index.live.of(number) == 0 {
                self.segments.condemn(number);
                self.ends.iter_mut().for_each(|end| end.forget(number));
            }
        }
        if sabotage::is(Sabotage::DropTombstoneEarly) {
            self.segments.free_condemned(u64::MAX);
        }
    }

    /// Returns the segments worth cleaning, except the `skipped` ones, with the best ratio of gain
    /// to cost first.
    pub(crate) fn candidates(&self, opened: u64, skipped: impl Fn(u32) -> bool) -> Vec<Candidate> {
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
    pub(crate) fn fits(&self, kind: Kind, live: u64) -> bool {
        let segments = &self.segments;
        let room =
            segments.free().saturating_sub(segments.reserve.deletions) * (segments.len - move_unused(segments.len));
        // Bodies need a segment of their own.
        let beside = if kind == Kind::Body { segments.len } else { 0 };
        room >= live + beside + self.checkpoints_len()
    }

    /// Returns whether the candidates that fit gain more than the checkpoints that free them take.
    pub(crate) fn is_gain(&self, candidates: &[Candidate], most: usize) -> bool {
        let mut moved = 0;
        let mut gained = self.segments.condemned() * self.segments.len;
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
    pub(crate) fn bodies_in(&self, segment: u32, from: BodyId) -> (Vec<BodyId>, Option<BodyId>) {
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
