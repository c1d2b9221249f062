//! Bodies: block geometry, and the writer of a body.

use std::collections::VecDeque;
use std::fmt;

use futures_channel::oneshot;

use crate::Log;
use crate::disk::Disk;
use crate::error::Error;
use crate::index::Effect;
use crate::limits::{
    BLOCK_DATA, BLOCKS_IN_FLIGHT, BLOCKS_MAX, BUFFER_LEN, CHUNK_LEN, CHUNK_TAGS_MAX, CHUNKS_MAX, FOOTER_LEN,
    INLINE_MAX, PREFIX_MAX, RUNS_MAX, SPLIT_WASTE,
};
use crate::store::SegmentPin;
use crate::types::BodyId;
use crate::wire;
use crate::wire::block::{self, BlockIdentity};
use crate::wire::payload::{BodyRecord, Bytes, RecordPayload, Run};
use crate::writer::{BlockWrite, Job, PlacedBlock};

/// Returns the number of logical blocks of a body of this length. An empty
/// body has one empty block.
pub(crate) const fn block_count(len: u64) -> u64 {
    let count = len.div_ceil(BLOCK_DATA as u64);
    if count == 0 { 1 } else { count }
}

/// Returns the bytes in logical block `index` of a body of this length; 0 past its end.
pub(crate) fn block_len(len: u64, index: u64) -> usize {
    len.saturating_sub(index.saturating_mul(BLOCK_DATA as u64)).min(BLOCK_DATA as u64) as usize
}

/// Returns the bytes on disk of the blocks that hold `len` bytes of a body from `start` on,
/// including footers. Blocks end at multiples of [`BLOCK_DATA`] in the body.
pub(crate) fn stored_bytes(start: u64, len: u64) -> u64 {
    if len == 0 {
        return 0;
    }
    let front = len.min(BLOCK_DATA as u64 - start % BLOCK_DATA as u64);
    let rest = len - front;
    let (full, tail) = (rest / BLOCK_DATA as u64, rest % BLOCK_DATA as u64);
    let tail = if tail == 0 { 0 } else { block::stored_len(tail as usize) };
    block::stored_len(front as usize) as u64 + full * BUFFER_LEN as u64 + tail as u64
}

/// Iterates over the runs of a body, each with its start offset in the body.
pub(crate) fn with_starts(runs: &[Run]) -> impl Iterator<Item = (u64, &Run)> {
    runs.iter().scan(0, |next, run| {
        let start = *next;
        *next += u64::from(run.len);
        Some((start, run))
    })
}

/// Returns the bytes on disk of a run's blocks, including footers. The run
/// begins at `start` in its body.
pub(crate) fn run_bytes(start: u64, run: &Run) -> u64 {
    stored_bytes(start, run.len.into())
}

/// Iterates over the blocks of a run that begins at `start` in its body, without those that end at
/// or before the block of `from`.
pub(crate) fn run_blocks(
    body: BodyId,
    start: u64,
    run: &Run,
    from: u64,
) -> impl Iterator<Item = BlockIdentity> + use<> {
    let Run { offset, generation, len } = *run;
    let end = start + u64::from(len);
    let skipped = (from / BLOCK_DATA as u64 * BLOCK_DATA as u64).clamp(start, end);
    let mut at = (skipped, offset + stored_bytes(start, skipped - start));
    std::iter::from_fn(move || {
        let (start, offset) = at;
        let block_len = (end - start).min(BLOCK_DATA as u64 - start % BLOCK_DATA as u64) as usize;
        if block_len == 0 {
            return None;
        }
        at = (start + block_len as u64, offset + block::stored_len(block_len) as u64);
        let index = u32::try_from(start / BLOCK_DATA as u64).ok()?;
        Some(BlockIdentity { generation, offset, body: body.0, index, data_len: block_len as u32 })
    })
}

/// Iterates over all blocks of a body, in order.
pub(crate) fn blocks(body: BodyId, runs: &[Run]) -> impl Iterator<Item = BlockIdentity> {
    with_starts(runs).flat_map(move |(start, run)| run_blocks(body, start, run, 0))
}

/// Returns how many bytes of a block are cut off to fill the last `room` bytes of a segment.
/// `None`: the room does not justify a second footer and a second read.
pub(crate) fn split_at(room: u64, segment_len: u64) -> Option<usize> {
    let worth = (segment_len / SPLIT_WASTE).max(CHUNK_LEN as u64);
    let data = room.checked_sub(FOOTER_LEN as u64).filter(|data| *data >= worth)? as usize;
    Some(data / CHUNK_LEN * CHUNK_LEN)
}

/// A body whose bytes are written but not yet named by a record. Using it in an object or a part
/// names it; dropping it discards the body.
pub struct NewBody {
    id: BodyId,
    len: u64,
    record: Vec<u8>,
    runs: Vec<Run>,
    /// Pin the segments of its blocks until a record names them.
    pins: Vec<SegmentPin>,
}

/// The record of a body, and the pins that keep its blocks until the record is durable.
pub(crate) struct NamedBody {
    pub(crate) payload: Vec<u8>,
    pub(crate) effect: Effect,
    pub(crate) pins: Vec<SegmentPin>,
}

impl NewBody {
    /// Returns its identity.
    pub fn id(&self) -> BodyId {
        self.id
    }

    /// Returns its length in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Returns whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) fn into_record(self) -> NamedBody {
        let NewBody { id, len, record, runs, pins } = self;
        NamedBody { payload: record, effect: Effect::Body { id, relocation: 0, len, runs }, pins }
    }
}

impl fmt::Debug for NewBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewBody").field("id", &self.id).field("len", &self.len).finish_non_exhaustive()
    }
}

/// The last block of a body: a buffer, the number of its bytes used (at most
/// [`BLOCK_DATA`]), and their tags.
pub type LastBlock<'a, Buf> = (Buf, usize, &'a [[u8; 16]]);

/// Writes one body. [`push`](Self::push) takes the full blocks in order, then
/// [`finish`](Self::finish) takes the rest. Dropping it discards the body; in-flight blocks are
/// still written.
pub struct BodyWriter<D: Disk> {
    log: Log<D>,
    /// Allocated with the first block, so that a body without a trace on disk uses up no number.
    id: Option<BodyId>,
    blocks: u32,
    len: u64,
    /// Bytes of the body whose locations are known.
    located: u64,
    /// Checksums of chunks of the current block.
    crcs: Vec<u32>,
    in_flight: VecDeque<oneshot::Receiver<Result<Vec<PlacedBlock>, Error>>>,
    runs: Vec<Run>,
    /// One per segment that its blocks are in.
    pins: Vec<SegmentPin>,
}

impl<D: Disk> BodyWriter<D> {
    pub(crate) fn new(log: Log<D>) -> Self {
        BodyWriter {
            log,
            id: None,
            blocks: 0,
            len: 0,
            located: 0,
            crcs: Vec::new(),
            in_flight: VecDeque::new(),
            runs: Vec::new(),
            pins: Vec::new(),
        }
    }

    /// Computes the checksum of the next chunk of the current block, which must not change
    /// afterwards. Optional: writing the block computes missing checksums. Here it costs next to
    /// nothing while the chunk is still in the processor's cache.
    ///
    /// # Panics
    /// Panics if the chunk is not full, or if the block has no more chunks.
    pub fn checksum(&mut self, chunk: &[u8]) {
        assert!(
            chunk.len() == CHUNK_LEN && self.crcs.len() < CHUNKS_MAX,
            "a checksum is computed of a full chunk within the block"
        );
        self.crcs.push(wire::crc(&[chunk]));
    }

    /// Writes a full block: the first [`BLOCK_DATA`] bytes of `buf`, with a tag for each chunk or
    /// none. Waits only while [`BLOCKS_IN_FLIGHT`] blocks of this body are in flight. May return
    /// the error of an earlier block.
    ///
    /// # Errors
    /// `TooLarge` over [`BLOCKS_MAX`] blocks; `Full`, `Io`, `Poisoned`, `Closed`.
    pub async fn push(&mut self, buf: D::Buf, tags: &[[u8; 16]]) -> Result<(), Error> {
        assert!(tags.is_empty() || tags.len() == CHUNKS_MAX, "a full block has a tag for each chunk");
        self.send(buf, BLOCK_DATA, tags).await
    }

    /// Ends the body with its last block, if any: the first bytes of the buffer, at most
    /// [`BLOCK_DATA`], and their tags. A body of whole chunks may have one tag more than it has
    /// chunks. Waits until all blocks are written. A body of at most [`INLINE_MAX`] bytes is not
    /// written here, but with its record. `prefix` is stored with the body.
    ///
    /// # Errors
    /// Those of [`push`](Self::push); `TooLarge` for a prefix over [`PREFIX_MAX`].
    pub async fn finish(mut self, last: Option<LastBlock<'_, D::Buf>>, prefix: &[u8]) -> Result<NewBody, Error> {
        if prefix.len() > PREFIX_MAX {
            return Err(Error::TooLarge("the prefix of a body"));
        }
        self.log.store().check_poison()?;
        match last {
            Some((buf, len, tags)) if self.blocks == 0 && len <= INLINE_MAX => {
                assert!(tags.len() <= CHUNK_TAGS_MAX, "a block has at most one tag more than chunks");
                Ok(self.inline(&buf.as_ref()[..len], tags, prefix))
            }
            None if self.blocks == 0 => Ok(self.inline(&[], &[], prefix)),
            Some((buf, len, tags)) => {
                assert!(
                    len <= BLOCK_DATA && tags.len() <= CHUNK_TAGS_MAX,
                    "a block is at most BLOCK_DATA bytes and CHUNK_TAGS_MAX tags long"
                );
                assert!(
                    len > 0 || tags.is_empty(),
                    "the tag of an empty last chunk is passed with the preceding full block"
                );
                if len > 0 {
                    self.send(buf, len, tags).await?;
                }
                self.seal(prefix).await
            }
            None => self.seal(prefix).await,
        }
    }

    fn inline(&mut self, data: &[u8], tags: &[[u8; 16]], prefix: &[u8]) -> NewBody {
        let (id, len) = (self.id(), data.len() as u64);
        let bytes = Bytes::Inline { tags, data };
        let record = RecordPayload::Body(BodyRecord { id, relocation: 0, len, prefix, bytes }).encode();
        NewBody { id, len, record, runs: Vec::new(), pins: Vec::new() }
    }

    async fn seal(mut self, prefix: &[u8]) -> Result<NewBody, Error> {
        while !self.in_flight.is_empty() {
            self.settle_oldest().await?;
        }
        let (id, len) = (self.id(), self.len);
        let placed: u64 = self.runs.iter().map(|run| u64::from(run.len)).sum();
        assert_eq!(placed, self.len, "every byte of a body has a location");
        if self.runs.len() > RUNS_MAX {
            return Err(Error::TooLarge("a body in segments of this length"));
        }
        let (runs, pins) = (std::mem::take(&mut self.runs), std::mem::take(&mut self.pins));
        let bytes = Bytes::Blocks(runs.clone());
        let record = RecordPayload::Body(BodyRecord { id, relocation: 0, len, prefix, bytes }).encode();
        Ok(NewBody { id, len, record, runs, pins })
    }

    fn id(&mut self) -> BodyId {
        *self.id.get_or_insert_with(|| self.log.store().lock().numbers.body())
    }

    async fn send(&mut self, buf: D::Buf, len: usize, tags: &[[u8; 16]]) -> Result<(), Error> {
        if self.blocks as usize == BLOCKS_MAX {
            return Err(Error::TooLarge("a body"));
        }
        while self.in_flight.len() >= BLOCKS_IN_FLIGHT {
            self.settle_oldest().await?;
        }
        self.log.store().check_poison()?;
        let (done, placed) = oneshot::channel();
        let (body, tags) = (self.id(), tags.to_vec());
        let crcs = std::mem::take(&mut self.crcs);
        let (index, data_len, ahead) = (self.blocks, len as u32, Vec::new());
        let block = BlockWrite { buf, body, index, data_len, tags, crcs, ahead, done };
        self.log.submit(Job::Block(block)).map_err(|_| Error::Closed)?;
        self.in_flight.push_back(placed);
        self.blocks += 1;
        self.len += len as u64;
        Ok(())
    }

    /// Waits for the oldest in-flight block. Locations are recorded in order.
    async fn settle_oldest(&mut self) -> Result<(), Error> {
        let Some(placed) = self.in_flight.front_mut() else { return Ok(()) };
        let placed = placed.await;
        // Removed only now, so that it is still there if this future is dropped while waiting.
        self.in_flight.pop_front();
        for placed in placed.map_err(|_| Error::Closed)?? {
            add_block(&mut self.runs, self.located, &placed);
            self.located += u64::from(placed.len);
            if self.pins.iter().all(|other| other.number() != placed.pin.number()) {
                self.pins.push(placed.pin);
            }
        }
        Ok(())
    }
}

/// Adds the next block of a body, which begins at `start` in the body, to its runs.
pub(crate) fn add_block(runs: &mut Vec<Run>, start: u64, placed: &PlacedBlock) {
    // Within a run, blocks end at each multiple of `BLOCK_DATA` and nowhere else.
    let first = runs.last().filter(|_| start.is_multiple_of(BLOCK_DATA as u64)).map(|run| start - u64::from(run.len));
    match (runs.last_mut(), first) {
        (Some(run), Some(first))
            if run.generation == placed.generation && run.offset + run_bytes(first, run) == placed.offset =>
        {
            run.len += placed.len;
        }
        _ => runs.push(Run { offset: placed.offset, generation: placed.generation, len: placed.len }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const B: u64 = BLOCK_DATA as u64;

    #[test]
    fn body_length_determines_block_count_and_stored_bytes() {
        for (len, count, last, stored) in [
            (0, 1, 0, 0),
            (1, 1, 1, 8192),
            (B, 1, BLOCK_DATA, B + 4096),
            (B + 1, 2, 1, B + 4096 + 8192),
            (3 * B - 1, 3, BLOCK_DATA - 1, 3 * (B + 4096)),
        ] {
            assert_eq!(block_count(len), count, "{len}");
            assert_eq!(block_len(len, count - 1), last, "{len}");
            assert_eq!(block_len(len, count), 0, "{len}");
            assert_eq!(stored_bytes(0, len), stored, "{len}");
        }
        // From 16 KiB before the end of a block: those, a full block, and one byte.
        assert_eq!(stored_bytes(B - 16384, 16384 + B + 1), 16384 + 4096 + B + 4096 + 8192);
    }

    #[test]
    fn split_body_has_blocks_that_end_at_runs_and_block_multiples() {
        let runs = [
            Run { offset: 1 << 20, generation: 1, len: 16384 },
            Run { offset: 1 << 22, generation: 2, len: (2 * B - 16384) as u32 },
            Run { offset: 1 << 24, generation: 3, len: 5 },
        ];
        let found: Vec<_> =
            blocks(BodyId(9), &runs).map(|id| (id.offset, id.generation, id.index, id.data_len)).collect();
        let second = (1 << 22) + B - 16384 + 4096;
        let expected = [
            (1 << 20, 1, 0, 16384),
            (1 << 22, 2, 0, BLOCK_DATA as u32 - 16384),
            (second, 2, 1, BLOCK_DATA as u32),
            (1 << 24, 3, 2, 5),
        ];
        assert_eq!(found, expected);
        let from = |at| run_blocks(BodyId(9), 16384, &runs[1], at).map(|id| id.offset).collect::<Vec<_>>();
        assert_eq!((from(16384), from(B), from(2 * B)), (vec![1 << 22, second], vec![second], vec![]));
    }

    #[test]
    fn split_with_little_room_is_refused() {
        let least = CHUNK_LEN as u64 + 4096;
        assert_eq!((split_at(least - 1, 1 << 19), split_at(least, 1 << 19)), (None, Some(CHUNK_LEN)));
        assert_eq!(split_at(5 * CHUNK_LEN as u64, 1 << 19), Some(4 * CHUNK_LEN));
        assert_eq!((split_at(0, 1 << 19), split_at((128 << 10) + 4095, 8 << 20)), (None, None));
        assert_eq!(split_at((128 << 10) + 4096, 8 << 20), Some(128 << 10));
        // Segments of the default length never cut a block: there is always room for a whole one.
        assert_eq!(split_at(BUFFER_LEN as u64 - 1, crate::limits::SEGMENT_LEN), None);
    }
}
