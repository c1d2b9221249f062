//! Every limit of the log, with the arithmetic that justifies it.
//!
//! All lengths are bytes unless the name says otherwise.

/// Whether limits that no format depends on are small.
const SMALL: bool = cfg!(feature = "small-limits");

/// Unit of alignment of everything that is written: batches, blocks, headers.
pub const PAGE: usize = 4096;

/// Body bytes in a full block.
pub const BLOCK_DATA: usize = 1 << 20;

/// Length of a block's footer.
pub const FOOTER_LEN: usize = PAGE;

/// Length of a [`Disk::Buf`](crate::Disk::Buf): a full block and its footer, contiguous.
pub const BUFFER_LEN: usize = BLOCK_DATA + FOOTER_LEN;

/// Length of a buffer that a block with so many bytes of data can be written from: with what they are padded to, and the footer.
pub const fn buffer_len(data_len: usize) -> usize {
    data_len.next_multiple_of(PAGE) + FOOTER_LEN
}

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

/// Bytes of two records that are read at once: that of a body which it holds, and that of its object.
pub const READ_TOGETHER_MAX: u32 = (2 * INLINE_MAX - 2 * PAGE) as u32;

/// Blocks of one body whose writes may be under way at once. Four writes of 1 MiB saturate the devices measured.
pub const BLOCKS_IN_FLIGHT: usize = 4;

/// Blocks of one body: 8 GiB, above S3's 5 GiB for one upload or part.
pub const BLOCKS_MAX: usize = 8192;

/// Runs of one body: the blocks of a part of 5 GiB, each cut into three by segments of 512 KiB, are 15,360; 400 KB of record,
/// which fits into the shortest segment together with the longest record of an object of one part.
pub const RUNS_MAX: usize = 20_000;

/// At the end of a segment a block is cut in two unless less than one in so many bytes of the segment is left there. At 64 it is
/// cut in segments that are shorter than usual only.
pub const SPLIT_WASTE: u64 = 64;

/// Opaque bytes kept with a body (56 for a sealed body).
pub const PREFIX_MAX: usize = 64;

/// Opaque bytes kept with an object or an upload (a sealed head is at most 16,455).
pub const HEAD_MAX: usize = 17 * 1024;

/// Opaque bytes kept with a part.
pub const INFO_MAX: usize = 1024;

/// Opaque bytes kept with the settings of a bucket.
pub const POLICY_MAX: usize = 4 * 1024;

/// Opaque bytes kept with the settings of a bucket, of when its objects go by themselves: 300 rules of S3 of some 100 bytes. They
/// are read for each [`EXPIRE_BATCH`] objects, and bound what is compared with a key of each of them.
pub const LIFECYCLE_MAX: usize = 32 * 1024;

/// Opaque labels kept with an object or an upload, in the clear beside the head: ten tags of S3 have at most 384 characters
/// each, of up to four bytes, and a few bytes for their lengths.
pub const LABELS_MAX: usize = 16 * 1024;

/// Opaque bytes kept of the parts of an object: 42 for each of 10,000 (a SHA-256 in the clear), or 85 for each of 5,000 (a
/// sealed CRC-32). It is what is left of the longest record.
pub const INFOS_MAX: usize = 416 * 1024;

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

/// Shortest segment, a power of two: 126 of them are in 64 MiB, of which some 15 are kept back. A header, the longest records of
/// a body and of an object of it alone, the longest record of a checkpoint, and the batch that ends the segment must fit.
pub const SEGMENT_LEN_MIN: u64 = 512 << 10;

/// Longest segment. Offsets within a segment are 32 bits on disk.
pub const SEGMENT_LEN_MAX: u64 = 1 << 30;

/// Longest batch in segments of this length: it goes between the header and the batch that ends the segment.
pub const fn batch_max(segment_len: u64) -> usize {
    let room = segment_len as usize - 2 * PAGE;
    if room < BATCH_MAX { room } else { BATCH_MAX }
}

/// Segments that a store needs for itself, beside those for each worker: with less there may be no room to clean in, and what was
/// deleted would not be space again.
pub const SEGMENTS_FIXED: u64 = 10;

/// Segments for each worker: of records, of blocks, for deletions, and one to fill.
pub const SEGMENTS_PER_WORKER: u64 = 4;

/// The least capacity of a store with segments of this length and so many workers.
pub const fn capacity_min(segment_len: u64, workers: usize) -> u64 {
    SEGMENTS_START + (SEGMENTS_FIXED + SEGMENTS_PER_WORKER * workers as u64) * segment_len
}

/// Where the first segment begins. Ahead of it are the two superblocks.
pub const SEGMENTS_START: u64 = 1 << 20;

/// Offsets of the two superblocks: far apart, so that one damaged region does not take both.
pub const SUPERBLOCK_AT: [u64; 2] = [0, 512 << 10];

/// Segments of a file: their headers are all read at start.
pub const SEGMENTS_MAX: u64 = 1 << 24;

/// Reads of segment headers in flight: a hard disk and a flash device serve so many in the best order, or at once. Each has a
/// buffer of a page.
pub const HEADERS_IN_FLIGHT: usize = 32;

/// Items in one record of a checkpoint, about: it is full when it has this many bytes. They are taken from the index under the
/// lock, so this bounds how long the lock is held: some 3,000 objects, half a millisecond.
pub const CHECKPOINT_RECORD: usize = if SMALL { 1024 } else { 256 * 1024 };

/// [`CHECKPOINT_RECORD`] for segments of this length: an eighth of one at most, so that not much is left unused at its end.
pub const fn checkpoint_record(segment_len: u64) -> usize {
    let most = segment_len as usize / 8;
    if most < CHECKPOINT_RECORD { most } else { CHECKPOINT_RECORD }
}

/// Records of a checkpoint in segments of this length.
pub const fn checkpoint_records_max(segment_len: u64) -> usize {
    let most = (batch_max(segment_len) - 2 * WORKERS_MAX * 8 - 200) / 8;
    if most < CHECKPOINT_RECORDS_MAX { most } else { CHECKPOINT_RECORDS_MAX }
}

/// Records of a checkpoint: their locations must fit into the one that ends it. 27 GiB of items.
pub const CHECKPOINT_RECORDS_MAX: usize = 110_000;

/// Checkpoints that are kept: if the newest one cannot be read, the one before it can.
pub const CHECKPOINTS_KEPT: usize = 2;

/// Objects, or uploads, that are looked at under the lock at a time for whether their time is over, and deleted together.
pub const EXPIRE_BATCH: usize = if SMALL { 4 } else { 1000 };

/// Bytes of records after which there is a new checkpoint: four times as many as the last one took, so that checkpoints are at
/// most a fifth of what is written, but within these bounds, so that they are worth it, and that opening after a crash reads no
/// more than so many bytes of records: a second or two.
pub const CHECKPOINT_AFTER_MIN: u64 = if SMALL { 256 << 10 } else { 256 << 20 };
/// See [`CHECKPOINT_AFTER_MIN`].
pub const CHECKPOINT_AFTER_MAX: u64 = if SMALL { 1 << 20 } else { 1 << 30 };

/// Bytes of records that recovery reads at a time when it looks for the end of a segment: one segment after the other.
pub const SCAN_READ: usize = 512 << 10;

/// Bytes of records that recovery reads at a time, of each segment that it replays.
pub const REPLAY_READ: usize = 128 << 10;

/// Bytes of records that recovery remembers as one stretch: so far apart are the places where it can begin to read them again.
pub const REPLAY_SPAN: u64 = 1 << 20;

/// Bytes of memory that the index takes for so many bytes of a checkpoint: an object and its body have 120 bytes, a twentieth of
/// that to spare, and the key in the one, and 80 bytes and the key in the other.
pub const INDEX_OF_CHECKPOINT: (u64, u64) = (3, 2);

/// Segments that the cleaner keeps to spare, so that who needs one need not wait for it.
pub const CLEAN_AHEAD: u64 = 2;

/// One of so many segments is kept for those that were cleaned and wait to be freed, so that it does not take more cleaning to
/// do without them: where 80 of 100 bytes are live, one segment in a hundred more or less is a tenth of a byte moved for each
/// that is written.
pub const CLEAN_RESERVE: u64 = 20;

/// What is live must leave one of so many segments free beside what is reserved. It is filled with what is dead, and makes
/// segments emptier when they are cleaned: where 80 of 100 bytes are live it saves a fifth of what would be moved.
pub const CLEAN_SLACK: u64 = 20;

/// In small stores [`CLEAN_RESERVE`] and [`CLEAN_SLACK`] give way, for others' fixed reserves are much of one: of `n` segments
/// `n / 8 - 13`, but at least 3, where that is less. 126 segments of 512 KiB, of 64 MiB, keep 3 in place of 6: 6 in a hundred of
/// the capacity more for objects.
pub const CLEAN_SMALL_SHARE: u64 = 8;
/// See [`CLEAN_SMALL_SHARE`].
pub const CLEAN_SMALL_LESS: u64 = 13;
/// See [`CLEAN_SMALL_SHARE`].
pub const CLEAN_SMALL_MIN: u64 = 3;

/// Of the bytes of the segments that are neither reserved nor slack, how many may be live, in hundredths: segments cannot be
/// filled to the last byte.
pub const LIVE_MAX: u64 = 99;

/// Segments that are cleaned between two checkpoints; in a large store half of those that may wait to be freed, so that the
/// checkpoints, which are as large as the index, are worth it.
pub const CLEAN_BATCH: usize = 8;

/// Segments that are cleaned without a gain before it is given up as no use: at [`CLEAN_LIVE_MAX`] twenty gain one.
pub const CLEAN_IN_VAIN_MAX: usize = 24;

/// Checkpoints in a row that only wait for segments to be freed: two of them free all that there are.
pub const CLEAN_IDLE_MAX: u32 = 3;

/// Of the bytes of a segment, how many may be live, in hundredths, for cleaning it to be worth it. Beyond that the store is
/// full: to gain one segment more than twenty would have to be moved.
pub const CLEAN_LIVE_MAX: u64 = 95;

/// Bytes of a segment for records that are written in advance, at a time: a long write, and one change of the file system's metadata
/// for so many batches of two pages.
pub const FILL_STEP: usize = BLOCK_DATA;

/// Batches up to this length are worth writing in advance for: of those that are longer the change of metadata is a small part.
pub const FILL_BATCH_MAX: usize = 64 * 1024;

/// Requests that are refused while the file system is full before one of them asks it again: where each did, refusals would take
/// all of a core. A caller that has a clock lets them ask sooner, by [`Shared::expect_space`](crate::Shared::expect_space).
pub const SPACE_ASK_AFTER: u32 = if SMALL { 2 } else { 256 };

/// Bodies that are looked at under the lock at a time for whether they are in a segment that is cleaned.
pub(crate) const BODIES_AT_A_TIME: usize = if SMALL { 3 } else { 4096 };

/// Entries of a leaf of the index's maps at most. An insertion moves as many.
pub(crate) const LEAF_MAX: usize = if SMALL { 4 } else { 128 };

/// Longest file: locations in the index have 47 bits for an offset in units of 8 bytes.
pub const CAPACITY_MAX: u64 = 1 << 50;

/// Worker threads that share one log.
pub const WORKERS_MAX: usize = 256;

/// What recovery adds to the highest number that it has seen before any is given out again. Numbers that left no trace
/// (bodies given up before their record) would have to be this many in a row to be repeated. 2^24 recoveries fit.
pub const NUMBER_JUMP: u64 = 1 << 40;

/// Attempts to read a range before it counts as unreadable. Drives repeat a read themselves, and report an error only then; what
/// passes is rather an error of the bus or of a path. Two attempts would do for that, but an error that passes once in 300 reads
/// (the simulation has that many) must not be taken for damage once in 10^7 reads: four are needed.
pub const READ_ATTEMPTS: usize = 4;

/// Unreadable pages of a segment that are read [`READ_ATTEMPTS`] times at recovery. Of those behind them each is read once more by
/// itself: a hard disk takes seconds for each attempt, and a mebibyte has 256 pages.
pub const REREAD_PAGES_MAX: usize = 16;

/// Damaged objects that are kept until somebody asks what the maintenance has found: some 100 KiB with keys of usual length.
pub const FINDINGS_MAX: usize = 1000;

/// Entries of one page of a listing, objects and common prefixes together.
pub const LIST_MAX: usize = 1000;

const _: () = {
    assert!(CHECKPOINT_RECORDS_MAX * 8 + 2 * WORKERS_MAX * 8 + 96 <= RECORD_MAX);
    assert!(batch_max(2 << 20) == BATCH_MAX && checkpoint_record(2 << 20) == CHECKPOINT_RECORD);
    assert!(checkpoint_records_max(2 << 20) == CHECKPOINT_RECORDS_MAX);
    assert!(SEGMENT_LEN_MIN.is_power_of_two() && SEGMENT_LEN_MAX.is_power_of_two());
    assert!(SEGMENT_LEN_MAX <= u32::MAX as u64);
    assert!(SUPERBLOCK_AT[1] + PAGE as u64 <= SEGMENTS_START);
    assert!(PARTS_MAX <= u16::MAX as usize);
    assert!(SEGMENT_LEN / SPLIT_WASTE >= BLOCK_DATA as u64);
};
