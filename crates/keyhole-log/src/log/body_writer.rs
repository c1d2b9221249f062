//! The writer of a body.

use std::collections::VecDeque;

use futures_channel::oneshot;

use super::Log;
use crate::body::{NewBody, add_block};
use crate::disk::Disk;
use crate::draft::Payload;
use crate::error::Error;
use crate::limits::{
    BLOCK_DATA, BLOCKS_IN_FLIGHT, BLOCKS_MAX, CHUNK_LEN, CHUNK_TAGS_MAX, CHUNKS_MAX, INLINE_MAX, PREFIX_MAX, RUNS_MAX,
};
use crate::pin::SegmentPin;
use crate::types::BodyId;
use crate::wire;
use crate::wire::payload::{BodyRecord, Bytes, RecordPayload, Run};
use crate::writer::{BlockWrite, Job, PlacedBlock};

impl<D: Disk> Log<D> {
    /// Starts a body.
    pub fn body_writer(&self) -> BodyWriter<D> {
        BodyWriter::new(self.clone())
    }
}

/// Length in bytes from which an inline body stays in its buffer until its record is written. A
/// shorter one is copied, since a buffer takes up more memory.
const KEPT_MIN: usize = CHUNK_LEN;

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
                Ok(self.inline(Some((buf, len)), tags, prefix))
            }
            None if self.blocks == 0 => Ok(self.inline(None, &[], prefix)),
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

    fn inline(&mut self, last: Option<(D::Buf, usize)>, tags: &[[u8; 16]], prefix: &[u8]) -> NewBody {
        let id = self.id();
        let data = last.as_ref().map_or(&[][..], |(buf, len)| &buf.as_ref()[..*len]);
        let len = data.len() as u64;
        let is_kept = data.len() >= KEPT_MIN;
        // The bytes of a body end its record.
        let bytes = Bytes::Inline { tags, data: if is_kept { &[] } else { data } };
        let front = RecordPayload::Body(BodyRecord { id, relocation: 0, len, prefix, bytes }).encode();
        let record = match last {
            Some((buf, len)) if is_kept => Payload::with_body(front, buf, len),
            _ => Payload::from(front),
        };
        NewBody { id, len, record, runs: Vec::new(), pins: Vec::new() }
    }

    async fn seal(mut self, prefix: &[u8]) -> Result<NewBody, Error> {
        self.settle_all().await?;
        let id = self.id();
        let len = self.len;
        let placed: u64 = self.runs.iter().map(|run| u64::from(run.len)).sum();
        assert_eq!(placed, self.len, "every byte of a body has a location");
        if self.runs.len() > RUNS_MAX {
            return Err(Error::TooLarge("a body in segments of this length"));
        }
        let runs = std::mem::take(&mut self.runs);
        let pins = std::mem::take(&mut self.pins);
        let bytes = Bytes::Blocks(runs.clone());
        let record = RecordPayload::Body(BodyRecord { id, relocation: 0, len, prefix, bytes }).encode().into();
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
        let body = self.id();
        let tags = tags.to_vec();
        let crcs = std::mem::take(&mut self.crcs);
        let index = self.blocks;
        let data_len = len as u32;
        let ahead = Vec::new();
        let block = BlockWrite { buf, body, index, data_len, tags, crcs, ahead, done };
        self.log.submit(Job::Block(block)).map_err(|_| Error::Closed)?;
        self.in_flight.push_back(placed);
        self.blocks += 1;
        self.len += len as u64;
        Ok(())
    }

    /// Returns whether no block has been passed to it yet.
    pub fn is_empty(&self) -> bool {
        self.blocks == 0
    }

    /// Takes note of the blocks that are written. Returns the number of those that are not: their
    /// buffers are still in use.
    ///
    /// # Errors
    /// Those of [`push`](Self::push).
    pub fn settle_written(&mut self) -> Result<usize, Error> {
        while let Some(oldest) = self.in_flight.front_mut() {
            let Some(placed) = oldest.try_recv().map_err(|_| Error::Closed)? else { break };
            self.in_flight.pop_front();
            self.locate(placed?);
        }
        Ok(self.in_flight.len())
    }

    /// Waits until all blocks passed to it are written.
    ///
    /// # Errors
    /// Those of [`push`](Self::push).
    pub async fn settle_all(&mut self) -> Result<(), Error> {
        while !self.in_flight.is_empty() {
            self.settle_oldest().await?;
        }
        Ok(())
    }

    /// Waits for the oldest in-flight block. Locations are recorded in order.
    async fn settle_oldest(&mut self) -> Result<(), Error> {
        let Some(placed) = self.in_flight.front_mut() else { return Ok(()) };
        let placed = placed.await;
        // Removed only now, so that it is still there if this future is dropped while waiting.
        self.in_flight.pop_front();
        self.locate(placed.map_err(|_| Error::Closed)??);
        Ok(())
    }

    /// Records the locations of the oldest in-flight block.
    fn locate(&mut self, placed: Vec<PlacedBlock>) {
        for placed in placed {
            add_block(&mut self.runs, self.located, &placed);
            self.located += u64::from(placed.len);
            if self.pins.iter().all(|other| other.number() != placed.pin.number()) {
                self.pins.push(placed.pin);
            }
        }
    }
}
