//! Writing a body, block by block.

use std::collections::VecDeque;
use std::fmt;

use futures_channel::oneshot;

use crate::Log;
use crate::disk::Disk;
use crate::error::Error;
use crate::index::Effect;
use crate::limits::{
    BLOCK_DATA, BLOCKS_IN_FLIGHT, BLOCKS_MAX, BUFFER_LEN, CHUNK_LEN, CHUNKS_MAX, INLINE_MAX, PREFIX_MAX, TAGS_MAX,
};
use crate::shared::SegmentPin;
use crate::types::BodyId;
use crate::wire::payload::{BodyRecord, Bytes, Payload, Run};
use crate::wire::{self, block};
use crate::writer::{Block, Job, Placed};

/// Blocks of a body of this length; an empty body has one, which is empty.
pub(crate) const fn block_count(len: u64) -> u64 {
    let count = len.div_ceil(BLOCK_DATA as u64);
    if count == 0 { 1 } else { count }
}

/// Bytes in block `index` of a body of this length; 0 past its end.
pub(crate) fn block_len(len: u64, index: u64) -> usize {
    len.saturating_sub(index.saturating_mul(BLOCK_DATA as u64)).min(BLOCK_DATA as u64) as usize
}

/// Bytes of a run's blocks on disk, footers included. All blocks but the last of the body are full.
pub(crate) fn run_bytes(run: &Run, body_len: u64, last: bool) -> u64 {
    let full = u64::from(run.blocks) * BUFFER_LEN as u64;
    if !last {
        return full;
    }
    let last_block = block_len(body_len, block_count(body_len) - 1);
    full - (BUFFER_LEN - block::stored_len(last_block)) as u64
}

/// A body whose bytes are written, but which no record names yet. It becomes part of an object or of an upload;
/// dropped, it is given up.
pub struct NewBody {
    id: BodyId,
    len: u64,
    record: Vec<u8>,
    runs: Vec<Run>,
    /// Keep the segments of its blocks until a record names them.
    pins: Vec<SegmentPin>,
}

/// What becomes of a body when it is named: its record, and what keeps its blocks until then.
pub(crate) struct NamedBody {
    pub(crate) payload: Vec<u8>,
    pub(crate) effect: Effect,
    pub(crate) pins: Vec<SegmentPin>,
}

impl NewBody {
    /// Its identity.
    pub fn id(&self) -> BodyId {
        self.id
    }

    /// Its bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) fn into_record(self) -> NamedBody {
        let NewBody { id, len, record, runs, pins } = self;
        NamedBody { payload: record, effect: Effect::Body { id, placed: 0, len, runs }, pins }
    }
}

impl fmt::Debug for NewBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewBody").field("id", &self.id).field("len", &self.len).finish_non_exhaustive()
    }
}

/// The last block of a body: a buffer, how many bytes of it, at most [`BLOCK_DATA`], and their tags.
pub type LastBlock<'a, Buf> = (Buf, usize, &'a [[u8; 16]]);

/// Writes one body. Full blocks are [`push`](Self::push)ed in order, then [`finish`](Self::finish) takes the rest.
/// Dropped, it gives the body up; blocks on their way are still written.
pub struct BodyWriter<D: Disk> {
    log: Log<D>,
    /// Given out with the first block, so that what leaves no trace on the disk uses up no number.
    id: Option<BodyId>,
    blocks: u32,
    len: u64,
    /// Checksums of chunks of the block at hand.
    crcs: Vec<u32>,
    in_flight: VecDeque<oneshot::Receiver<Result<Placed, Error>>>,
    runs: Vec<Run>,
    /// One for each segment that its blocks are in.
    pins: Vec<SegmentPin>,
}

impl<D: Disk> BodyWriter<D> {
    pub(crate) fn new(log: Log<D>) -> Self {
        BodyWriter {
            log,
            id: None,
            blocks: 0,
            len: 0,
            crcs: Vec::new(),
            in_flight: VecDeque::new(),
            runs: Vec::new(),
            pins: Vec::new(),
        }
    }

    /// Computes the checksum of the next chunk of the block at hand, which does not change any more. That is done when the block is
    /// written, unless it was done here: while the chunk is still in the processor's cache it costs next to nothing.
    ///
    /// # Panics
    /// If it is not a full chunk, or the block has no more of them.
    pub fn checksum(&mut self, chunk: &[u8]) {
        assert!(chunk.len() == CHUNK_LEN && self.crcs.len() < CHUNKS_MAX, "a full chunk of a block");
        self.crcs.push(wire::crc(&[chunk]));
    }

    /// Writes a full block: the first [`BLOCK_DATA`] bytes of `buf`, with a tag for each chunk or none. Waits only while
    /// [`BLOCKS_IN_FLIGHT`] blocks of this body are on their way. An error may be one of an earlier block.
    ///
    /// # Errors
    /// `TooLarge` over [`BLOCKS_MAX`] blocks; `Full`, `Io`, `Poisoned`, `Closed`.
    pub async fn push(&mut self, buf: D::Buf, tags: &[[u8; 16]]) -> Result<(), Error> {
        assert!(tags.is_empty() || tags.len() == CHUNKS_MAX, "a full block has a tag for each chunk");
        self.send(buf, BLOCK_DATA, tags).await
    }

    /// Ends the body with its last block, if there is one more: the first bytes of the buffer, at most [`BLOCK_DATA`], and
    /// their tags; a body of whole chunks may have one tag more than it has chunks. Waits until all blocks are written. A body
    /// of at most [`INLINE_MAX`] bytes is not written here, but with its record. `prefix` is kept with the body.
    ///
    /// # Errors
    /// As [`push`](Self::push); `TooLarge` for a prefix over [`PREFIX_MAX`].
    pub async fn finish(mut self, last: Option<LastBlock<'_, D::Buf>>, prefix: &[u8]) -> Result<NewBody, Error> {
        if prefix.len() > PREFIX_MAX {
            return Err(Error::TooLarge("the prefix of a body"));
        }
        self.log.shared().check_poison()?;
        match last {
            Some((buf, len, tags)) if self.blocks == 0 && len <= INLINE_MAX => {
                assert!(tags.len() <= TAGS_MAX, "a block has at most one tag more than chunks");
                Ok(self.inline(&buf.as_ref()[..len], tags, prefix))
            }
            None if self.blocks == 0 => Ok(self.inline(&[], &[], prefix)),
            Some((buf, len, tags)) => {
                assert!(len <= BLOCK_DATA && tags.len() <= TAGS_MAX, "a block within its limits");
                assert!(
                    len > 0 || tags.is_empty(),
                    "the tag of an empty last chunk belongs to the full block ahead of it"
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
        let record = Payload::Body(BodyRecord { id, placed: 0, len, prefix, bytes }).encode();
        NewBody { id, len, record, runs: Vec::new(), pins: Vec::new() }
    }

    async fn seal(mut self, prefix: &[u8]) -> Result<NewBody, Error> {
        while !self.in_flight.is_empty() {
            self.settle_oldest().await?;
        }
        let (id, len) = (self.id(), self.len);
        let placed: u32 = self.runs.iter().map(|run| run.blocks).sum();
        assert_eq!(placed, self.blocks, "every block of a body has its place");
        let (runs, pins) = (std::mem::take(&mut self.runs), std::mem::take(&mut self.pins));
        let bytes = Bytes::Blocks(runs.clone());
        let record = Payload::Body(BodyRecord { id, placed: 0, len, prefix, bytes }).encode();
        Ok(NewBody { id, len, record, runs, pins })
    }

    fn id(&mut self) -> BodyId {
        *self.id.get_or_insert_with(|| self.log.shared().lock().numbers.body())
    }

    async fn send(&mut self, buf: D::Buf, len: usize, tags: &[[u8; 16]]) -> Result<(), Error> {
        if self.blocks as usize == BLOCKS_MAX {
            return Err(Error::TooLarge("a body"));
        }
        while self.in_flight.len() >= BLOCKS_IN_FLIGHT {
            self.settle_oldest().await?;
        }
        self.log.shared().check_poison()?;
        let (done, placed) = oneshot::channel();
        let (body, tags) = (self.id(), tags.to_vec());
        let crcs = std::mem::take(&mut self.crcs);
        let block = Block { buf, body, index: self.blocks, data_len: len as u32, tags, crcs, done };
        self.log.submit(Job::Block(block)).map_err(|_| Error::Closed)?;
        self.in_flight.push_back(placed);
        self.blocks += 1;
        self.len += len as u64;
        Ok(())
    }

    /// Waits for the oldest block on its way; they are placed in order.
    async fn settle_oldest(&mut self) -> Result<(), Error> {
        let Some(placed) = self.in_flight.front_mut() else { return Ok(()) };
        let placed = placed.await;
        // Only now: who gives up waiting in between finds it still there.
        self.in_flight.pop_front();
        let Placed { offset, generation, pin } = placed.map_err(|_| Error::Closed)??;
        if self.pins.iter().all(|other| other.number() != pin.number()) {
            self.pins.push(pin);
        }
        add_block(&mut self.runs, offset, generation);
        Ok(())
    }
}

/// Adds the next block of a body to its runs.
pub(crate) fn add_block(runs: &mut Vec<Run>, offset: u64, generation: u64) {
    match runs.last_mut() {
        // All blocks but the last of the body are full.
        Some(run)
            if run.generation == generation && run.offset + u64::from(run.blocks) * BUFFER_LEN as u64 == offset =>
        {
            run.blocks += 1;
        }
        _ => runs.push(Run { offset, generation, blocks: 1 }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_blocks() {
        const B: u64 = BLOCK_DATA as u64;
        for (len, count, last, stored) in [
            (0, 1, 0, 4096),
            (1, 1, 1, 8192),
            (B, 1, BLOCK_DATA, B + 4096),
            (B + 1, 2, 1, B + 4096 + 8192),
            (3 * B - 1, 3, BLOCK_DATA - 1, 3 * (B + 4096)),
        ] {
            assert_eq!(block_count(len), count, "{len}");
            assert_eq!(block_len(len, count - 1), last, "{len}");
            assert_eq!(block_len(len, count), 0, "{len}");
            let run = Run { offset: 0, generation: 1, blocks: count as u32 };
            assert_eq!(run_bytes(&run, len, true), stored, "{len}");
        }
    }
}
