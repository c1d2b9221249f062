//! The record of a body.

use super::super::Cursor;
use crate::limits::{BLOCK_DATA, BLOCKS_MAX, CAPACITY_MAX, CHUNK_LEN, CHUNK_TAGS_MAX, PAGE, RUNS_MAX, TAG_LEN};
use crate::types::BodyId;

const INLINE: u8 = 0;

/// Form of format version 2: runs of whole blocks, except the last block of the body.
const WHOLE_BLOCKS: u8 = 1;

const BLOCKS: u8 = 2;

/// Length of an encoded run.
pub(super) const RUN_LEN: usize = 8 + 8 + 4;

/// Contiguous blocks of a body in one segment. A block ends at each multiple of [`BLOCK_DATA`] in
/// the body and at the end of a run, so the lengths of runs determine those of blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    /// Offset of the first block in the file.
    pub(crate) offset: u64,
    /// Generation of the segment.
    pub(crate) generation: u64,
    /// Bytes of the body.
    pub(crate) len: u32,
}

/// Storage of a body's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Bytes<'a> {
    Inline { tags: &'a [[u8; TAG_LEN]], data: &'a [u8] },
    Blocks(Vec<Run>),
}

/// A body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BodyRecord<'a> {
    pub(crate) id: BodyId,
    /// Relocation sequence: 0, or the number of the move of its blocks. Of several records of a
    /// body the one with the highest counts.
    pub(crate) relocation: u64,
    pub(crate) len: u64,
    pub(crate) prefix: &'a [u8],
    pub(crate) bytes: Bytes<'a>,
}

impl<'a> BodyRecord<'a> {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let (form, count) = match &self.bytes {
            Bytes::Inline { tags, .. } => (INLINE, tags.len()),
            Bytes::Blocks(runs) => (BLOCKS, runs.len()),
        };
        out.extend_from_slice(&self.id.0.to_le_bytes());
        out.extend_from_slice(&self.len.to_le_bytes());
        out.extend_from_slice(&[form, self.prefix.len() as u8, 0, 0]);
        out.extend_from_slice(&(count as u32).to_le_bytes());
        out.extend_from_slice(&self.relocation.to_le_bytes());
        out.extend(self.prefix);
        match &self.bytes {
            Bytes::Inline { tags, data } => {
                out.extend(tags.as_flattened());
                out.extend(*data);
            }
            Bytes::Blocks(runs) => {
                for run in runs {
                    out.extend(run.offset.to_le_bytes());
                    out.extend(run.generation.to_le_bytes());
                    out.extend(run.len.to_le_bytes());
                }
            }
        }
    }

    pub(super) fn parse(c: &mut Cursor<'a>) -> Option<Self> {
        let id = BodyId(c.u64()?);
        let len = c.u64()?;
        let [form, prefix_len, 0, 0] = c.array()? else { return None };
        let count = c.u32()? as usize;
        let relocation = c.u64()?;
        let prefix = c.bytes(prefix_len.into())?;
        let bytes = match form {
            INLINE => {
                if count > CHUNK_TAGS_MAX {
                    return None;
                }
                let (tags, _) = c.bytes(count * TAG_LEN)?.as_chunks();
                Bytes::Inline { tags, data: c.bytes(usize::try_from(len).ok()?)? }
            }
            BLOCKS => Bytes::Blocks(parse_runs(c, count, len)?),
            WHOLE_BLOCKS => Bytes::Blocks(parse_whole_blocks(c, count, len)?),
            _ => return None,
        };
        Some(BodyRecord { id, relocation, len, prefix, bytes })
    }
}

/// Parses the offset of a run. Blocks begin on pages, within the largest file.
fn parse_offset(c: &mut Cursor<'_>) -> Option<u64> {
    c.u64().filter(|offset| offset.is_multiple_of(PAGE as u64) && *offset < CAPACITY_MAX)
}

/// Parses runs that total `len` bytes. Each run but the last must end with a whole chunk.
fn parse_runs(c: &mut Cursor<'_>, count: usize, len: u64) -> Option<Vec<Run>> {
    if count > RUNS_MAX {
        return None;
    }
    let mut left = len;
    let mut run = || {
        let run = Run { offset: parse_offset(c)?, generation: c.u64()?, len: c.u32()? };
        left = left.checked_sub(run.len.into())?;
        (run.len > 0 && (left == 0 || (len - left).is_multiple_of(CHUNK_LEN as u64))).then_some(run)
    };
    let runs = (0..count).map(|_| run()).collect::<Option<Vec<_>>>()?;
    (left == 0).then_some(runs)
}

/// Parses runs of format version 2, which have a number of blocks instead of bytes.
fn parse_whole_blocks(c: &mut Cursor<'_>, count: usize, len: u64) -> Option<Vec<Run>> {
    if count > BLOCKS_MAX {
        return None;
    }
    let mut left = len;
    let mut run = || {
        let offset = parse_offset(c)?;
        let generation = c.u64()?;
        let blocks = u64::from(c.u32()?);
        let run_len = left.min(blocks * BLOCK_DATA as u64);
        left -= run_len;
        // The last block of a body may be short, but not empty.
        let exact = blocks > 0 && run_len.div_ceil(BLOCK_DATA as u64) == blocks;
        exact.then_some(Run { offset, generation, len: u32::try_from(run_len).ok()? })
    };
    let runs = (0..count).map(|_| run()).collect::<Option<Vec<_>>>()?;
    (left == 0).then_some(runs)
}
