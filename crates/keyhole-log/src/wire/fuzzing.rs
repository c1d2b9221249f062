//! Fuzz targets for all that is parsed from an object file. Each makes the checksums of its input
//! right, as they would hide the parsers otherwise.

#[cfg(test)]
#[path = "../../../keyhole-core/fuzz/src/replay.rs"]
mod replay;

use super::block::{self, BlockIdentity, Footer};
use super::checkpoint::CheckpointItems;
use super::payload::RecordPayload;
use super::record::{self, HEADER_LEN};
use super::{segment, superblock};
use crate::limits::{BLOCK_DATA, BUFFER_LEN, PAGE, RECORD_MAX};

const STORE: [u8; 16] = [7; 16];
const OFFSET: u64 = 1 << 21;

/// Parses the payload of a record: the first byte of the input is its kind. What is accepted must
/// survive encoding and parsing.
pub fn record(data: &[u8]) {
    let Some((&kind, bytes)) = data.split_first() else { return };
    let Some(payload) = RecordPayload::parse(kind, bytes) else { return };
    let encoded = payload.encode();
    assert_eq!(RecordPayload::parse(payload.kind(), &encoded).as_ref(), Some(&payload));
    if let RecordPayload::CheckpointItems(record) = &payload {
        checkpoint_items(record.items);
    }
}

/// Parses the items of a checkpoint. Every accepted item must survive encoding and parsing.
pub fn checkpoint_items(data: &[u8]) {
    let record = CheckpointItems { until: 1, index: 0, items: data };
    for item in record.items().flatten() {
        let mut encoded = Vec::new();
        item.encode(&mut encoded);
        let again = CheckpointItems { until: 1, index: 0, items: &encoded };
        assert!(again.items().eq([Some(item)]));
    }
}

/// Verifies a record with an arbitrary header and payload, and parses it.
pub fn record_header(data: &[u8]) {
    let Some((fields, payload)) = data.split_at_checked(48) else { return };
    let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| fields[at + i]));
    let half = |at: usize| word(at) as u32;
    let header = record::Header {
        kind: fields[0],
        flags: fields[1],
        generation: word(2),
        offset: OFFSET,
        seq: word(10),
        watermark: word(18),
        prev: half(26),
        durable: half(30),
        hint: record::DurableHint { segment: half(34), until: half(38) },
    };
    let payload = &payload[..payload.len().min(RECORD_MAX - HEADER_LEN)];
    let mut bytes = vec![0; HEADER_LEN + payload.len()];
    header.emit(&STORE, payload, &mut bytes);
    let found = record::verify(&bytes, &STORE, OFFSET).expect("its own record");
    assert_eq!((&found.header, found.payload), (&header, payload));
    assert_eq!(record::verify(&bytes, &STORE, OFFSET + 8), None, "at another place");
    assert_eq!(record::verify(&bytes, &[8; 16], OFFSET), None, "of another store");
    assert_eq!(record::verify(&bytes[..bytes.len() - 1], &STORE, OFFSET), None, "cut");
    let place = usize::from(fields[46]) | usize::from(fields[47]) << 8;
    let place = place % bytes.len();
    bytes[place] ^= fields[45].max(1);
    assert_eq!(record::verify(&bytes, &STORE, OFFSET), None, "changed at {place}");
    record(&[&[header.kind], payload].concat());
}

/// Fills the front of a page.
fn page(data: &[u8]) -> Vec<u8> {
    let mut page = vec![0; PAGE];
    let len = data.len().min(PAGE);
    page[..len].copy_from_slice(&data[..len]);
    page
}

/// Parses the input as a superblock, and as one with a right checksum. An accepted one must be
/// written as it was read.
pub fn superblock(data: &[u8]) {
    let mut bytes = page(data);
    for is_repaired in [false, true] {
        if is_repaired {
            superblock::repair_checksum(&mut bytes);
        }
        if let Ok(found) = superblock::Superblock::parse(&bytes) {
            let mut again = vec![0; PAGE];
            found.emit(&mut again);
            assert_eq!(superblock::Superblock::parse(&again).as_ref(), Ok(&found));
        }
    }
}

/// Parses the input as the header of a segment, and as one with a right checksum.
pub fn segment_header(data: &[u8]) {
    let mut bytes = page(data);
    for is_repaired in [false, true] {
        if is_repaired {
            segment::repair_checksum(&mut bytes);
        }
        if let Some((store, header, crc)) = segment::Header::identify(&bytes) {
            assert_eq!(segment::Header::parse(&bytes, &store, header.number), Some((header.clone(), crc)));
            assert_eq!(segment::Header::parse(&bytes, &store, header.number.wrapping_add(1)), None);
            let mut again = vec![0; PAGE];
            assert_eq!((header.emit(&store, &mut again), again), (crc, bytes.clone()));
        }
    }
}

/// Writes a block of the input's bytes, which must verify, and parses arbitrary bytes as its
/// footer. The first five bytes of the input select tags and damage.
pub fn block(data: &[u8]) {
    let Some(([tags, at @ .., change], data)) = data.split_first_chunk::<5>() else { return };
    let data = &data[..data.len().min(BLOCK_DATA)];
    let id = BlockIdentity { generation: 5, offset: OFFSET, body: 42, index: 3, data_len: data.len() as u32 };
    let tags = vec![[9; 16]; usize::from(*tags).min(crate::limits::CHUNK_TAGS_MAX)];
    let mut bytes = vec![0; BUFFER_LEN];
    bytes[..data.len()].copy_from_slice(data);
    let len = block::emit(&id, &STORE, &tags, &[], &mut bytes);
    let chunks = 0..id.padded().div_ceil(crate::limits::CHUNK_LEN);
    let parse = |bytes: &[u8]| Footer::parse(&bytes[len - PAGE..len], &id, &STORE);
    let footer = parse(&bytes).expect("its own footer");
    assert!(footer.tags() == tags && footer.verify(&chunks, &bytes));
    let other = BlockIdentity { index: 4, ..id };
    assert!(Footer::parse(&bytes[len - PAGE..len], &other, &STORE).is_none());
    let place = at.iter().fold(0, |place, byte| place << 8 | usize::from(*byte)) % len;
    bytes[place] ^= (*change).max(1);
    let verifies = parse(&bytes).is_some_and(|footer| footer.verify(&chunks, &bytes));
    assert!(!verifies, "changed at {place} of {len}");
}

#[cfg(test)]
mod tests {
    use super::replay::replay;

    #[test]
    fn record_corpus_passes() {
        replay("record", super::record);
    }

    #[test]
    fn record_header_corpus_passes() {
        replay("record_header", super::record_header);
    }

    #[test]
    fn checkpoint_items_corpus_passes() {
        replay("checkpoint_items", super::checkpoint_items);
    }

    #[test]
    fn superblock_corpus_passes() {
        replay("superblock", super::superblock);
    }

    #[test]
    fn segment_header_corpus_passes() {
        replay("segment_header", super::segment_header);
    }

    #[test]
    fn block_corpus_passes() {
        replay("block", super::block);
    }
}
