//! Ends of META segments: the change to the next segment, and the sealing of a torn batch.

use super::begin::BegunSegment;
use super::context::{Context, Torn};
use crate::disk::Disk;
use crate::error::Error;
use crate::limits::PAGE;
use crate::open::{OpenMeta, WriterEnd};
use crate::segments::Purpose;
use crate::wire::payload::kind;
use crate::wire::record::DurableHint;
use crate::wire::segment;

impl<D: Disk> Context<D> {
    /// Ends the open segment, if any, and begins another. `None`: the store is full,
    /// and nothing has changed.
    pub(super) async fn roll(&self, meta: &mut Option<OpenMeta>, deletions: bool) -> Result<Option<()>, Error> {
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
                let mut state = self.store.lock();
                state.settle(self.worker, old);
                state.ends[self.worker].ended = Some(DurableHint { segment: old.number, until });
                state.close_segment(old.number, self.maintains);
            }
            None if !self.maintains => self.store.lock().segments.without_meta -= 1,
            None => {}
        }
        let BegunSegment { number, generation, start, at, end, crc } = begun;
        {
            let segment = &mut self.store.lock().segments.table[number as usize];
            segment.written = PAGE as u32;
            segment.settled = PAGE as u32;
            segment.prev = crc;
        }
        *meta = Some(OpenMeta { number, generation, start, end, at, prev: crc, reserve: deletions && !self.maintains });
        Ok(Some(()))
    }

    /// Overwrites the start of a torn batch durably, which invalidates whatever is left of the
    /// batch. Returns `false` if there is no space for that either.
    ///
    /// A worker's segment ends there, and the batch may go to a segment that is allocated. The
    /// maintenance goes on behind a mark: if it ended a segment after each failure, checkpoints
    /// could not free them fast enough.
    pub(super) async fn seal(&self, meta: &mut OpenMeta, torn: Torn) -> Result<bool, Error> {
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
}
