//! Rebuilding of a superblock with two unusable copies, from segment headers and checkpoint end
//! records. Used only by `keyhole check`. See `FORMAT.md`, "Rebuilding, and check".

use std::collections::BTreeMap;

use futures_util::stream::{self, StreamExt};

use super::base;
use super::window::Window;
use crate::disk::{Disk, is_unreadable, read_again};
use crate::error::{Damage, Error};
use crate::index::Location;
use crate::limits::{
    CAPACITY_MAX, CHECKPOINTS_KEPT, HEADERS_IN_FLIGHT, PAGE, RECORD_MAX, SEGMENT_LEN, SEGMENT_LEN_MAX, SEGMENT_LEN_MIN,
    SEGMENTS_MAX, SEGMENTS_START, SUPERBLOCK_AT,
};
use crate::wire::payload::RecordPayload;
use crate::wire::record::{self, HEADER_LEN};
use crate::wire::segment::{Header, Kind};
use crate::wire::superblock::{Superblock, VERSION};
use crate::wire::{StoreId, align_up};

/// Reported for a rebuilt superblock with a checkpoint.
const FROM_CHECKPOINT: &str = "both superblocks (rebuilt from segment headers and the newest checkpoint; the capacity is the \
                               file's length: set another with `--capacity`)";

/// Reported for a rebuilt superblock without a usable checkpoint.
const FROM_RECORDS: &str = "both superblocks (rebuilt from segment headers, without a checkpoint: objects deleted long ago may \
                            come back; the capacity is the file's length: set another with `--capacity`)";

/// Returns whether damage is that of two superblocks that have been rebuilt.
pub(crate) fn is_rebuilt(damage: &Damage) -> bool {
    damage.what == FROM_CHECKPOINT || damage.what == FROM_RECORDS
}

/// A segment header, and its position in units of the shortest segment length.
struct FoundHeader {
    position: u64,
    store: StoreId,
    header: Header,
}

/// The end record of a checkpoint.
#[derive(Debug, Clone, Copy)]
struct FoundEnd {
    until: u64,
    seq: u64,
    at: Location,
    /// Whether a later record proves that the checkpoint was synced.
    proven: bool,
}

/// Rebuilds the superblock and returns it with its damage report. `None`: no
/// segment header was found.
pub(super) async fn superblock<D: Disk>(disk: &D) -> Result<Option<(Superblock, Damage)>, Error> {
    let file_len = disk.len().await?;
    let found = headers(disk, file_len).await?;
    // Segments are begun in order, so leftovers of an earlier use of the medium follow all segments
    // of this store.
    let Some(store) = found.first().map(|first| first.store) else { return Ok(None) };
    let segment_len = segment_len(&found, &store, file_len);
    let segments = file_len.saturating_sub(SEGMENTS_START).div_ceil(segment_len).clamp(2, SEGMENTS_MAX);
    let capacity = (SEGMENTS_START + segments * segment_len).min(CAPACITY_MAX);
    // A file is whole segments long unless an allocation was interrupted; a
    // device may end anywhere.
    let capacity = if segments > 2 { capacity.min(file_len) } else { capacity };
    let version = VERSION;
    let epoch = 1;
    let created_ms = 0;
    let checkpoints = [0; CHECKPOINTS_KEPT];
    let mut superblock = Superblock { version, store, epoch, segment_len, capacity, created_ms, checkpoints };
    let ours = found.iter().filter(|found| found.store == store && found.is_at(segment_len));
    let ours: BTreeMap<u32, Header> = ours.map(|found| (found.header.number, found.header.clone())).collect();
    superblock.checkpoints = checkpoints_of(disk, &superblock, &ours, file_len).await?;
    let what = if superblock.checkpoints[0] == 0 { FROM_RECORDS } else { FROM_CHECKPOINT };
    Ok(Some((superblock, Damage::mendable(what, SUPERBLOCK_AT[0]))))
}

impl FoundHeader {
    /// Returns whether the header is at the start of its segment for this segment length.
    fn is_at(&self, segment_len: u64) -> bool {
        u64::from(self.header.number) * segment_len == self.position * SEGMENT_LEN_MIN
    }

    /// Returns the segment length implied by position and number; unknown for the first segment.
    fn segment_len(&self) -> Option<u64> {
        let len = self.position * SEGMENT_LEN_MIN;
        let number = u64::from(self.header.number);
        let len = (number > 0 && len.is_multiple_of(number)).then(|| len / number)?;
        (len.is_power_of_two() && (SEGMENT_LEN_MIN..=SEGMENT_LEN_MAX).contains(&len)).then_some(len)
    }
}

/// Returns whether the first segment has a header, as in an object file with
/// overwritten superblocks.
pub(super) async fn begins<D: Disk>(disk: &D, file_len: u64) -> Result<bool, Error> {
    Ok(header(disk, file_len, 0).await?.is_some())
}

/// Reads every page at which a segment of any length can begin. Returns the headers that verify and
/// whose number agrees with their position, in order.
async fn headers<D: Disk>(disk: &D, file_len: u64) -> Result<Vec<FoundHeader>, Error> {
    let count = file_len.saturating_sub(SEGMENTS_START).div_ceil(SEGMENT_LEN_MIN);
    let reads = (0..count).map(|position| header(disk, file_len, position));
    let mut reads = stream::iter(reads).buffered(HEADERS_IN_FLIGHT);
    let mut found = Vec::new();
    while let Some(read) = reads.next().await {
        found.extend(read?);
    }
    Ok(found)
}

/// Reads the page at one position. `None`: not a header.
async fn header<D: Disk>(disk: &D, file_len: u64, position: u64) -> Result<Option<FoundHeader>, Error> {
    let offset = SEGMENTS_START + position * SEGMENT_LEN_MIN;
    if offset + PAGE as u64 > file_len {
        return Ok(None);
    }
    let (result, buf) = read_again(disk, offset, disk.buffer_with_len(PAGE), 0..PAGE).await;
    match result {
        Ok(()) => {}
        Err(error) if is_unreadable(&error) => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    let identified = Header::identify(&buf.as_ref()[..PAGE]);
    let found = identified.map(|(store, header, _)| FoundHeader { position, store, header });
    Ok(found.filter(|found| position == 0 && found.header.number == 0 || found.segment_len().is_some()))
}

/// Returns the segment length that most headers of the store agree on.
fn segment_len(found: &[FoundHeader], store: &StoreId, file_len: u64) -> u64 {
    let mut votes = BTreeMap::<u64, u64>::new();
    for len in found.iter().filter(|found| found.store == *store).filter_map(FoundHeader::segment_len) {
        *votes.entry(len).or_default() += 1;
    }
    if let Some((&len, _)) = votes.iter().max_by_key(|&(_, votes)| *votes) {
        return len;
    }
    // Only the first segment has a header. A file is whole segments long, and overestimating their
    // length loses nothing.
    let segments = file_len.saturating_sub(SEGMENTS_START);
    let whole = 1 << segments.trailing_zeros().min(62);
    if whole >= SEGMENT_LEN_MIN { whole.min(SEGMENT_LEN_MAX) } else { SEGMENT_LEN }
}

/// Returns the end locations of the newest usable checkpoint and of the one before it.
async fn checkpoints_of<D: Disk>(
    disk: &D,
    superblock: &Superblock,
    headers: &BTreeMap<u32, Header>,
    file_len: u64,
) -> Result<[u64; CHECKPOINTS_KEPT], Error> {
    let mut ends = ends(disk, superblock, headers, file_len).await?;
    // The superblock named the newest proven checkpoint, or an unproven newer one. Segments of all
    // but the two newest proven checkpoints may have been reused.
    ends.sort_by_key(|end| std::cmp::Reverse((end.proven, end.until)));
    let proven = ends.iter().filter(|end| end.proven).count();
    let kept = proven.min(CHECKPOINTS_KEPT);
    let mut sound = Vec::new();
    for end in ends[..kept].iter().chain(&ends[proven..]) {
        if sound.len() < CHECKPOINTS_KEPT && base::verifies(disk, superblock, headers, end.at).await? {
            sound.push(*end);
        }
    }
    let newest = sound.first().map_or(0, |end| end.at.raw());
    let before = sound.get(1).filter(|end| end.until < sound[0].until).map_or(0, |end| end.at.raw());
    Ok([newest, before])
}

/// Searches the META segments for checkpoint end records.
async fn ends<D: Disk>(
    disk: &D,
    superblock: &Superblock,
    headers: &BTreeMap<u32, Header>,
    file_len: u64,
) -> Result<Vec<FoundEnd>, Error> {
    let mut ends = Vec::new();
    let mut watermark = 0;
    for header in headers.values().filter(|header| header.kind == Kind::Meta) {
        let start = SEGMENTS_START + u64::from(header.number) * superblock.segment_len;
        let end = (start + superblock.segment_len).min(file_len);
        let mut window = Window::new(disk, file_len, end);
        let mut at = start + PAGE as u64;
        while at + HEADER_LEN as u64 <= end {
            let bytes = window.bytes(at, RECORD_MAX).await?;
            let found = if record::has_magic(bytes) { record::verify(bytes, &superblock.store, at) } else { None };
            let Some(record) = found.filter(|record| record.header.generation == header.generation) else {
                // Most of the searched bytes are payloads or zeros.
                let next = bytes.chunks_exact(8).skip(1).position(record::has_magic);
                at += next.map_or(bytes.len() as u64 / 8 * 8, |next| (next as u64 + 1) * 8);
                continue;
            };
            watermark = watermark.max(record.header.watermark);
            if let Some(RecordPayload::Checkpoint(checkpoint)) =
                RecordPayload::parse(record.header.kind, record.payload)
            {
                let until = checkpoint.until;
                let seq = record.header.seq;
                let at = Location::new(at, record.len);
                ends.push(FoundEnd { until, seq, at, proven: false });
            }
            at += align_up(u64::from(record.len), 8);
        }
    }
    prove(&mut ends, watermark);
    Ok(ends)
}

/// Marks checkpoints as synced: some record has a watermark at or above the end's number, or a
/// later checkpoint was begun.
fn prove(ends: &mut [FoundEnd], watermark: u64) {
    let newest = ends.iter().map(|end| end.until).max().unwrap_or(0);
    for end in ends {
        end.proven = end.seq <= watermark || end.until < newest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(position: u64, store: u8, number: u32) -> FoundHeader {
        FoundHeader { position, store: [store; 16], header: Header { kind: Kind::Meta, generation: 1, number } }
    }

    #[test]
    fn segment_length_is_derived_from_header_positions() {
        let mib = 1 << 20;
        // Positions are in units of the shortest segment length, 512 KiB.
        for (len, position, number) in [(2, 12, 3), (4, 24, 3), (64, 128, 1), (1024, 4096, 2)] {
            let first = found(0, 1, 0);
            let other = found(position, 1, number);
            assert_eq!((first.segment_len(), other.segment_len()), (None, Some(len * mib)));
            assert!(first.is_at(len * mib) && other.is_at(len * mib) && !other.is_at(2 * len * mib));
            assert_eq!(segment_len(&[first, other], &[1; 16], 0), len * mib);
        }
        // The implied length is invalid.
        for (position, number) in [(3, 2), (6, 2), (1, 2), (4096, 1)] {
            assert_eq!(found(position, 1, number).segment_len(), None, "{position} {number}");
        }
        // Leftovers of another store do not count.
        let mixed = [found(0, 1, 0), found(8, 1, 1), found(12, 2, 3), found(16, 2, 4)];
        assert_eq!(segment_len(&mixed, &[1; 16], 0), 4 * mib);
    }

    #[test]
    fn checkpoint_with_watermark_or_successor_is_proven() {
        let end = |until| FoundEnd { until, seq: until + 5, at: Location::LOST, proven: false };
        for (watermark, proven) in [(34, [true, true, false]), (35, [true; 3]), (0, [true, true, false])] {
            // In segment order, which differs from number order.
            let mut ends = [end(20), end(10), end(30)];
            prove(&mut ends, watermark);
            assert_eq!(ends.map(|end| end.proven), proven, "{watermark}");
        }
        prove(&mut [], 0);
    }

    #[test]
    fn first_segment_alone_has_length_from_file() {
        let kib = 1 << 10;
        let mib = 1 << 20;
        let whole = [(8 * mib, 8), (64 * mib, 64), (4096 * mib, 1024), (mib, 1), (3 * mib, 1), (6 * mib, 2)];
        // Below the minimum length: the default one.
        for (file_len, len) in whole.into_iter().chain([(256 * kib, 64), (768 * kib, 64)]) {
            let found = segment_len(&[found(0, 1, 0)], &[1; 16], SEGMENTS_START + file_len);
            assert_eq!(found, len * mib, "{file_len}");
        }
    }
}
