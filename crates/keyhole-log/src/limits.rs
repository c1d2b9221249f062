//! The limits of the log, with the arithmetic behind them.
//!
//! Lengths are in bytes unless the name says otherwise.

/// Whether limits that do not affect the format are small.
const SMALL: bool = cfg!(feature = "small-limits");

/// Alignment of everything that is written: batches, blocks, headers.
pub const PAGE: usize = 4096;

/// Body bytes in a full block.
pub const BLOCK_DATA: usize = 1 << 20;

/// Length of a block's footer.
pub const FOOTER_LEN: usize = PAGE;

/// Length of a [`Disk::Buf`](crate::Disk::Buf): a full block and its footer, contiguous.
pub const BUFFER_LEN: usize = BLOCK_DATA + FOOTER_LEN;

/// Returns the length of a buffer for a block with `data_len` bytes of data:
/// data, padding and footer.
pub const fn buffer_len(data_len: usize) -> usize {
    data_len.next_multiple_of(PAGE) + FOOTER_LEN
}

/// Granule of the CRCs in a footer, and the chunk that one tag covers.
pub const CHUNK_LEN: usize = 16 * 1024;

/// Chunks in a full block.
pub const CHUNKS_MAX: usize = BLOCK_DATA / CHUNK_LEN;

/// Length of a tag.
pub const TAG_LEN: usize = 16;

/// Maximum tags of a block: one per chunk, and one for the empty chunk that ends a body of a whole
/// number of chunks.
pub const CHUNK_TAGS_MAX: usize = CHUNKS_MAX + 1;

/// Longest body stored inline in its record: one append instead of two. It is four chunks; a batch
/// of [`BUFFER_LEN`] still holds fifteen of them.
pub const INLINE_MAX: usize = 4 * CHUNK_LEN;

/// Maximum length of two records read with one read: an inline body's record and its object's.
pub const READ_TOGETHER_MAX: u32 = (2 * INLINE_MAX - 2 * PAGE) as u32;

/// Block writes of one body in flight. Four writes of 1 MiB saturate the devices measured.
pub const BLOCKS_IN_FLIGHT: usize = 4;

/// Maximum blocks of one body: 8 GiB, above S3's 5 GiB for one upload or part.
pub const BLOCKS_MAX: usize = 8192;

/// Maximum runs of one body. The blocks of a 5 GiB part, each cut into three by segments of 512
/// KiB, are 15,360 runs: 400 KB of record. That fits into the shortest segment together with the
/// longest record of an object of one part.
pub const RUNS_MAX: usize = 20_000;

/// A block is cut at the end of a segment only if at least `1 / SPLIT_WASTE` of the segment is left
/// there. At 64, blocks are cut only in segments shorter than the default.
pub const SPLIT_WASTE: u64 = 64;

/// Maximum opaque prefix of a body (56 bytes for a sealed body).
pub const PREFIX_MAX: usize = 64;

/// Maximum object head of an object or an upload, opaque to the log. A sealed one has at most
/// 16,455 bytes.
pub const HEAD_MAX: usize = 17 * 1024;

/// Maximum opaque checksums of a part.
pub const PART_CHECKSUM_MAX: usize = 1024;

/// Maximum opaque policy of a bucket.
pub const POLICY_MAX: usize = 4 * 1024;

/// Maximum opaque lifecycle of a bucket: 300 S3 rules of about 100 bytes. It is read for every
/// [`EXPIRE_BATCH`] objects, and bounds the comparisons per key.
pub const LIFECYCLE_MAX: usize = 32 * 1024;

/// Maximum opaque CORS rules of a bucket: S3's limit of their document, which is longer than any
/// sensible encoding of it.
pub const CORS_MAX: usize = 64 * 1024;

/// Maximum opaque tags of a bucket. Fifty S3 tags have at most 384 characters each, of up to four
/// bytes, plus their length fields.
pub const BUCKET_TAGS_MAX: usize = 76 * 1024;

/// Maximum period of a default retention in days, as S3 has it.
pub const RETENTION_DAYS_MAX: u32 = 36_500;

/// Maximum period of a default retention in years, as S3 has it.
pub const RETENTION_YEARS_MAX: u32 = 100;

/// Maximum opaque tags of an object or an upload, stored in the clear beside the object head. Ten
/// S3 tags have at most 384 characters each, of up to four bytes, plus their length fields.
pub const OBJECT_TAGS_MAX: usize = 16 * 1024;

/// Maximum opaque part checksums of an object's parts: 42 bytes for each of 10,000 (a SHA-256 in
/// the clear), or 85 for each of 5,000 (a sealed CRC-32). This is the remainder of the longest record.
pub const PART_CHECKSUMS_MAX: usize = 416 * 1024;

/// Minimum bytes that an object, a part or an upload counts towards a quota beside its body: about
/// what it takes in records and in the index. A longer record counts as it is.
pub const QUOTA_SHARE: u64 = 1024;

/// Approximate bytes that a new name takes in the index beside its key: the entries of an object and
/// of its body, the fingerprint of the key, and slack.
pub const INDEX_PER_NAME: u64 = 160;

/// A full index is measured again once it has lost one in this many of its names.
pub const INDEX_REMEASURE: u64 = 4096;

/// Maximum length of an object key (S3 allows 1,024).
pub const KEY_MAX: usize = 1024;

/// Maximum length of a bucket name (S3 allows 63).
pub const BUCKET_MAX: usize = 63;

/// Maximum parts of one object, and the highest part number.
pub const PARTS_MAX: usize = 10_000;

/// Maximum attempts at one part of an upload that are kept until it ends, the current one included. A
/// client may have sent a part again before its first try was stored, so that the attempt it knows
/// is not the last one; each retry of an SDK (three by default) adds one.
pub const PART_ATTEMPTS_MAX: usize = 4;

/// Maximum length of a record, including its header. With the pages it begins and ends in, it fits
/// into one buffer.
pub const RECORD_MAX: usize = BUFFER_LEN - 2 * PAGE;

/// Maximum bytes of records in one write.
pub const BATCH_MAX: usize = BUFFER_LEN;

/// Default segment length.
pub const SEGMENT_LEN: u64 = 64 << 20;

/// Shortest segment length, a power of two: 64 MiB hold 126 of them; some 15 are reserved.
/// A segment must fit its header, the longest records of a body and its object, the longest record
/// of a checkpoint, and the batch that ends it.
pub const SEGMENT_LEN_MIN: u64 = 512 << 10;

/// Longest segment length. Offsets within a segment are 32 bits on disk.
pub const SEGMENT_LEN_MAX: u64 = 1 << 30;

/// Returns the longest batch in segments of this length: it must fit between the header and the
/// batch that ends the segment.
pub const fn batch_max(segment_len: u64) -> usize {
    let room = segment_len as usize - 2 * PAGE;
    if room < BATCH_MAX { room } else { BATCH_MAX }
}

/// Segments that a store needs for itself, in addition to those of the workers. With fewer, the
/// cleaner may have no room to work and deleted space would not be reclaimed.
pub const SEGMENTS_FIXED: u64 = 10;

/// Segments of each worker: one of records, one of blocks, one for deletions, and one to fill.
pub const SEGMENTS_PER_WORKER: u64 = 4;

/// Returns the minimum capacity of a store with this segment length and number of workers.
pub const fn capacity_min(segment_len: u64, workers: usize) -> u64 {
    SEGMENTS_START + (SEGMENTS_FIXED + SEGMENTS_PER_WORKER * workers as u64) * segment_len
}

/// Offset of the first segment. The two superblocks precede it.
pub const SEGMENTS_START: u64 = 1 << 20;

/// Offsets of the two superblocks: far apart, so that one damaged region does not destroy both.
pub const SUPERBLOCK_AT: [u64; 2] = [0, 512 << 10];

/// Maximum segments of a file. Recovery reads all of their headers.
pub const SEGMENTS_MAX: u64 = 1 << 24;

/// Segment header reads in flight, each with a buffer of one page. A hard disk serves this many in
/// the best order; a flash device serves them in parallel.
pub const HEADERS_IN_FLIGHT: usize = 32;

/// Approximate bytes of items in one record of a checkpoint. They are taken from the index under
/// the lock, so this bounds the lock hold time: about 3,000 objects, half a millisecond.
pub const CHECKPOINT_RECORD: usize = if SMALL { 1024 } else { 256 * 1024 };

/// Returns [`CHECKPOINT_RECORD`] for segments of this length: at most an eighth of a segment, so
/// that little space is wasted at its end.
pub const fn checkpoint_record(segment_len: u64) -> usize {
    let most = segment_len as usize / 8;
    if most < CHECKPOINT_RECORD { most } else { CHECKPOINT_RECORD }
}

/// Returns the maximum number of records of a checkpoint in segments of this length.
pub const fn checkpoint_records_max(segment_len: u64) -> usize {
    let most = (batch_max(segment_len) - 2 * WORKERS_MAX * 8 - 200) / 8;
    if most < CHECKPOINT_RECORDS_MAX { most } else { CHECKPOINT_RECORDS_MAX }
}

/// Maximum records of a checkpoint, 27 GiB of items: the end record must hold their locations.
pub const CHECKPOINT_RECORDS_MAX: usize = 110_000;

/// Checkpoints kept. If the newest cannot be read, recovery starts from the one before it.
pub const CHECKPOINTS_KEPT: usize = 2;

/// Locks of versions added up per lock acquisition for the statistics.
pub const LOCKS_BATCH: usize = if SMALL { 3 } else { 10_000 };

/// Objects or uploads checked for expiry per lock acquisition, and deleted together.
pub const EXPIRE_BATCH: usize = if SMALL { 4 } else { 1000 };

/// Versions examined for [`changes`](crate::Log::changes) per lock acquisition: less than half a
/// millisecond.
pub const CHANGES_BATCH: usize = if SMALL { 3 } else { 4096 };

/// Bytes of records after which a checkpoint is due: four times the size of the last one, so that
/// checkpoints are at most a fifth of what is written. The lower bound makes a checkpoint worth its
/// cost; the upper bound limits replay after a crash to a second or two.
pub const CHECKPOINT_AFTER_MIN: u64 = if SMALL { 256 << 10 } else { 256 << 20 };
/// See [`CHECKPOINT_AFTER_MIN`].
pub const CHECKPOINT_AFTER_MAX: u64 = if SMALL { 1 << 20 } else { 1 << 30 };

/// Bytes per read when recovery looks for the tail of a segment. Segments are
/// scanned one after the other.
pub const SCAN_READ: usize = 512 << 10;

/// Bytes per read of each segment that recovery replays.
pub const REPLAY_READ: usize = 128 << 10;

/// Bytes of records between the positions at which recovery can resume reading a segment.
pub const REPLAY_SPAN: u64 = 1 << 20;

/// Ratio of index memory to checkpoint bytes, as a fraction. An object and its body take 116 bytes,
/// a twentieth of slack and the key in memory; in a checkpoint they take 80 bytes and the key.
pub const INDEX_OF_CHECKPOINT: (u64, u64) = (3, 2);

/// Blank segments that the cleaner keeps available, so that writers need not wait for one.
pub const CLEAN_AHEAD: u64 = 2;

/// `1 / CLEAN_RESERVE` of the segments is reserved for cleaned segments that wait to be freed, so
/// that they do not cost extra cleaning. At 80 % live bytes, one percent of the segments changes
/// the cleaner's writes by a tenth of a byte per byte written.
pub const CLEAN_RESERVE: u64 = 20;

/// `1 / CLEAN_SLACK` of the segments must stay free of live bytes, in addition to the reserve. This
/// slack fills with dead bytes, so segments are emptier when they are cleaned: at 80 % live bytes
/// it saves a fifth of the cleaner's writes.
pub const CLEAN_SLACK: u64 = 20;

/// In small stores [`CLEAN_RESERVE`] and [`CLEAN_SLACK`] shrink, because the fixed reserves
/// are a large share of such a store. With `n` segments each is at most `n / 8 - 13`, but at
/// least 3. The 126 segments of 512 KiB in 64 MiB keep 3 instead of 6, which frees 6 % of
/// the capacity for objects.
pub const CLEAN_SMALL_SHARE: u64 = 8;
/// See [`CLEAN_SMALL_SHARE`].
pub const CLEAN_SMALL_LESS: u64 = 13;
/// See [`CLEAN_SMALL_SHARE`].
pub const CLEAN_SMALL_MIN: u64 = 3;

/// Maximum live share, in percent, of the segments that are neither reserve nor slack. Segments
/// cannot be filled to the last byte.
pub const LIVE_MAX: u64 = 99;

/// Segments cleaned between two checkpoints. A large store cleans half of those that may wait to be
/// freed, to amortise checkpoints, which are as large as the index.
pub const CLEAN_BATCH: usize = 8;

/// Segments cleaned without a gain before the cleaner gives up. At [`CLEAN_LIVE_MAX`], cleaning
/// twenty segments gains one.
pub const CLEAN_IN_VAIN_MAX: usize = 24;

/// Consecutive checkpoints that only wait for segments to be freed. Two of them free every
/// condemned segment.
pub const CLEAN_IDLE_MAX: u32 = 3;

/// Maximum live share of a segment, in percent, for which cleaning it pays. Above it the store is
/// full: gaining one segment would mean moving more than twenty.
pub const CLEAN_LIVE_MAX: u64 = 95;

/// Bytes of a META segment filled with zeros per step, ahead of its batches: one long write, and
/// one change of file system metadata for as many two-page batches as it holds.
pub const FILL_STEP: usize = BLOCK_DATA;

/// Longest batch for which filling ahead pays. In longer batches the metadata change is a small
/// part of the cost.
pub const FILL_BATCH_MAX: usize = 64 * 1024;

/// Requests refused while the file system is full before one of them probes it again. A probe per
/// request would take a full core. A caller that has a clock can trigger a probe sooner with
/// [`Store::expect_space`](crate::Store::expect_space).
pub const SPACE_ASK_AFTER: u32 = if SMALL { 2 } else { 256 };

/// Bodies checked, per lock acquisition, for whether they are in a segment that is being cleaned.
pub(crate) const BODIES_AT_A_TIME: usize = if SMALL { 3 } else { 4096 };

/// Maximum entries of a leaf of the index's maps. An insertion moves up to this many.
pub(crate) const LEAF_MAX: usize = if SMALL { 4 } else { 128 };

/// Maximum leaves of a node of the map of names. Their separators take 2 KiB.
pub(crate) const NODE_MAX: usize = if SMALL { 4 } else { 128 };

/// Versions of one name that are kept in one array. More are kept in a tree.
pub(crate) const VERSIONS_FEW: usize = if SMALL { 3 } else { 64 };

/// Maximum capacity of a file: locations in the index have 47 bits for an
/// offset in units of 8 bytes.
pub const CAPACITY_MAX: u64 = 1 << 50;

/// Maximum number of workers that share one log.
pub const WORKERS_MAX: usize = 256;

/// Minimum distance that recovery adds to the highest number it has seen before it allocates new ones.
/// Only this many consecutive numbers without a trace (bodies dropped before their record) could cause a
/// repetition. With the nonce, the counter lasts for 2^23 recoveries.
pub const NUMBER_JUMP: u64 = 1 << 40;

/// The distance by which one more in [`OpenOptions::nonce`](crate::OpenOptions::nonce) moves the numbers of
/// an opening: of all nonces, by up to [`NUMBER_JUMP`].
pub const NUMBER_NONCE_STEP: u64 = 1 << 8;

/// Attempts to read a range before it counts as unreadable. Drives retry internally before they
/// report an error, so transient errors come from a bus or path. Two attempts would cover those;
/// but in the simulation one read in 300 fails, and the rate of false damage must stay below one in
/// 10^7 reads, which takes four.
pub const READ_ATTEMPTS: usize = 4;

/// Unreadable pages of a segment that recovery reads [`READ_ATTEMPTS`] times. Each further page is
/// read once more by itself: a hard disk takes seconds per attempt, and a mebibyte has 256 pages.
pub const REREAD_PAGES_MAX: usize = 16;

/// Findings of the maintenance that are kept until they are collected: about 100 KiB
/// with keys of usual length.
pub const FINDINGS_MAX: usize = 1000;

/// Maximum entries of one page of a listing, objects and common prefixes together.
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
