//! Geometry of bodies: lengths and locations of blocks, derived from the length of a body and its
//! runs.

use crate::limits::{BLOCK_DATA, BUFFER_LEN, CHUNK_LEN, FOOTER_LEN, SPLIT_WASTE};
use crate::types::BodyId;
use crate::wire::block::{self, BlockIdentity};
use crate::wire::payload::Run;

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
    let full = rest / BLOCK_DATA as u64;
    let tail = rest % BLOCK_DATA as u64;
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
