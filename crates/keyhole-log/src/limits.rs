//! Every limit of the log, with the arithmetic that justifies it.
//!
//! All lengths are bytes unless the name says otherwise.

/// Unit of alignment of everything that is written: batches, blocks, headers.
pub const PAGE: usize = 4096;

/// Body bytes in a full block.
pub const BLOCK_DATA: usize = 1 << 20;

/// Length of a block's footer.
pub const FOOTER_LEN: usize = PAGE;

/// Length of a [`Disk::Buf`](crate::Disk::Buf): a full block and its footer, contiguous.
pub const BUFFER_LEN: usize = BLOCK_DATA + FOOTER_LEN;

/// Granule of the CRCs in a footer, and the chunk that one tag belongs to.
pub const CHUNK_LEN: usize = 16 * 1024;

/// Chunks in a full block.
pub const CHUNKS_MAX: usize = BLOCK_DATA / CHUNK_LEN;

/// Length of a tag.
pub const TAG_LEN: usize = 16;

/// Tags of a block: one for each chunk, and one for the empty chunk that ends a body of a whole number of chunks.
pub const TAGS_MAX: usize = CHUNKS_MAX + 1;

/// Bodies up to this length are stored inside their record: one append instead of two.
/// Four chunks; a batch of [`BUFFER_LEN`] still holds fifteen of them.
pub const INLINE_MAX: usize = 4 * CHUNK_LEN;

/// Blocks of one body whose writes may be under way at once. Four writes of 1 MiB saturate the devices measured.
pub const BLOCKS_IN_FLIGHT: usize = 4;

/// Blocks of one body: 8 GiB, above S3's 5 GiB for one upload or part.
pub const BLOCKS_MAX: usize = 8192;

/// Opaque bytes kept with a body (56 for a sealed body).
pub const PREFIX_MAX: usize = 64;

/// Opaque bytes kept with an object or an upload (a sealed head is at most 16,455).
pub const HEAD_MAX: usize = 17 * 1024;

/// Opaque bytes kept with a part.
pub const INFO_MAX: usize = 1024;

/// Length of an object's key (S3 allows 1,024).
pub const KEY_MAX: usize = 1024;

/// Length of a bucket's name (S3 allows 63).
pub const BUCKET_MAX: usize = 63;

/// Parts of one object, and the highest part number.
pub const PARTS_MAX: usize = 10_000;

/// A whole record, header included. With the page that it begins in and the page that it ends in, it is read into one buffer.
pub const RECORD_MAX: usize = BUFFER_LEN - 2 * PAGE;

/// Records on the way to the disk in one write.
pub const BATCH_MAX: usize = BUFFER_LEN;

/// Segment length unless the format says otherwise.
pub const SEGMENT_LEN: u64 = 64 << 20;

/// Shortest segment: a header, the largest batch or block, and the batch that ends it must fit, and it is a power of two.
pub const SEGMENT_LEN_MIN: u64 = 2 << 20;

/// Longest segment. Offsets within a segment are 32 bits on disk.
pub const SEGMENT_LEN_MAX: u64 = 1 << 30;

/// Where the first segment begins. Ahead of it are the two superblocks.
pub const SEGMENTS_START: u64 = 1 << 20;

/// Offsets of the two superblocks: far apart, so that one damaged region does not take both.
pub const SUPERBLOCK_AT: [u64; 2] = [0, 512 << 10];

/// Segments of a file: their headers are all read at start.
pub const SEGMENTS_MAX: u64 = 1 << 24;

/// Worker threads that share one log.
pub const WORKERS_MAX: usize = 256;

/// What recovery adds to the highest number that it has seen before any is given out again. Numbers that left no trace
/// (bodies given up before their record) would have to be this many in a row to be repeated. 2^24 recoveries fit.
pub const NUMBER_JUMP: u64 = 1 << 40;

/// Entries of one page of a listing, objects and common prefixes together.
pub const LIST_MAX: usize = 1000;

const _: () = {
    assert!(SEGMENT_LEN_MIN as usize >= PAGE + BUFFER_LEN + PAGE);
    assert!(SEGMENT_LEN_MIN.is_power_of_two() && SEGMENT_LEN_MAX.is_power_of_two());
    assert!(SEGMENT_LEN_MAX <= u32::MAX as u64);
    assert!(SUPERBLOCK_AT[1] + PAGE as u64 <= SEGMENTS_START);
    assert!(PARTS_MAX <= u16::MAX as usize);
};
