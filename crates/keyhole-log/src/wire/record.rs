//! The header of a record.
//!
//! Records are written in *batches*, one write each. A batch begins on a page, its records are
//! aligned to 8 bytes, and the rest of its last page is zero. Its first and last record are
//! flagged, so that a batch counts only as a whole.

use super::{StoreId, align_up, array, crc, put, u16_at, u32_at, u64_at};
use crate::limits::RECORD_MAX;
use crate::sabotage::{self, Sabotage};

const MAGIC: [u8; 4] = *b"khR1";

/// Alignment of a record in its batch.
pub(crate) const ALIGN: u64 = 8;

/// Length of the header of a record.
pub(crate) const HEADER_LEN: usize = 80;

/// Flag of the first record of a batch.
pub(crate) const FIRST: u8 = 1;
/// Flag of the last record of a batch.
pub(crate) const LAST: u8 = 2;
/// Flag of a record moved by the cleaner: its sequence number does not give the time of this write.
pub(crate) const MOVED: u8 = 4;

mod field {
    use std::ops::Range;
    pub(super) const MAGIC: Range<usize> = 0..4;
    pub(super) const CRC: Range<usize> = 4..8;
    pub(super) const LEN: Range<usize> = 8..12;
    pub(super) const KIND: usize = 12;
    pub(super) const FLAGS: usize = 13;
    pub(super) const CHECK: Range<usize> = 14..16;
    pub(super) const STORE: Range<usize> = 16..32;
    pub(super) const GENERATION: Range<usize> = 32..40;
    pub(super) const OFFSET: Range<usize> = 40..48;
    pub(super) const SEQ: Range<usize> = 48..56;
    pub(super) const WATERMARK: Range<usize> = 56..64;
    pub(super) const PREV: Range<usize> = 64..68;
    pub(super) const DURABLE: Range<usize> = 68..72;
    pub(super) const HINT_SEGMENT: Range<usize> = 72..76;
    pub(super) const HINT_UNTIL: Range<usize> = 76..80;
    const _: () = assert!(HINT_UNTIL.end == super::HEADER_LEN);
}

/// A durability statement about a segment: it is durable below this offset within it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct DurableHint {
    pub(crate) segment: u32,
    pub(crate) until: u32,
}

/// The header that precedes the payload of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) generation: u64,
    /// Offset of this record in the file.
    pub(crate) offset: u64,
    pub(crate) seq: u64,
    /// Every record with a number up to this was durable when this one was written, or does not
    /// exist.
    pub(crate) watermark: u64,
    /// Checksum of the previous record in the segment; for the first, of the segment's header.
    pub(crate) prev: u32,
    /// Offset below which this record's segment was durable when it was written.
    pub(crate) durable: u32,
    /// Durable hint: the same statement about a segment of another worker; `until` 0 if unknown.
    pub(crate) hint: DurableHint,
}

/// A record whose checksum and identity have been verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record<'a> {
    pub(crate) header: Header,
    pub(crate) crc: u32,
    /// Length of header and payload, without alignment padding.
    pub(crate) len: u32,
    pub(crate) payload: &'a [u8],
}

/// Unverified contents of a record header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) len: u32,
    pub(crate) seq: u64,
    pub(crate) generation: u64,
    pub(crate) prev: u32,
    pub(crate) moved: bool,
    /// Whether the header's check holds, so that its fields were written together. After a write
    /// torn within the header, part of it is from the record before.
    pub(crate) whole: bool,
}

/// Returns the space of a record in its batch, including alignment.
pub(crate) const fn space(payload_len: usize) -> usize {
    align_up((HEADER_LEN + payload_len) as u64, ALIGN) as usize
}

impl Header {
    /// Writes the record to the front of `out`, which is longer. Returns its checksum.
    pub(crate) fn emit(&self, store: &StoreId, payload: &[u8], out: &mut [u8]) -> u32 {
        self.emit_pieces(store, [payload, &[]], out)
    }

    /// Writes a record like [`emit`](Self::emit), whose payload is in two pieces.
    pub(crate) fn emit_pieces(&self, store: &StoreId, [front, rest]: [&[u8]; 2], out: &mut [u8]) -> u32 {
        let len = HEADER_LEN + front.len() + rest.len();
        assert!(len <= RECORD_MAX, "a record is at most RECORD_MAX bytes long");
        let out = &mut out[..len];
        put(out, field::MAGIC, &MAGIC);
        put(out, field::LEN, &(len as u32).to_le_bytes());
        out[field::KIND] = self.kind;
        out[field::FLAGS] = self.flags;
        put(out, field::STORE, store);
        put(out, field::GENERATION, &self.generation.to_le_bytes());
        put(out, field::OFFSET, &self.offset.to_le_bytes());
        put(out, field::SEQ, &self.seq.to_le_bytes());
        put(out, field::WATERMARK, &self.watermark.to_le_bytes());
        put(out, field::PREV, &self.prev.to_le_bytes());
        put(out, field::DURABLE, &self.durable.to_le_bytes());
        put(out, field::HINT_SEGMENT, &self.hint.segment.to_le_bytes());
        put(out, field::HINT_UNTIL, &self.hint.until.to_le_bytes());
        let (at_front, at_rest) = out[HEADER_LEN..].split_at_mut(front.len());
        at_front.copy_from_slice(front);
        at_rest.copy_from_slice(rest);
        let check = check(out);
        put(out, field::CHECK, &check.to_le_bytes());
        let crc = crc(&[&out[field::CRC.end..]]);
        put(out, field::CRC, &crc.to_le_bytes());
        crc
    }
}

/// Computes the check of a header's claims. Never 0, which marks records of builds without it.
fn check(header: &[u8]) -> u16 {
    let claims = [&header[field::LEN.start..field::CHECK.start], &header[field::STORE.start..field::SEQ.end]];
    (crc(&[claims[0], claims[1], &header[field::PREV]]) as u16).max(1)
}

/// Returns whether a record may begin here. A cheap test for searching.
pub(crate) fn has_magic(bytes: &[u8]) -> bool {
    bytes.starts_with(&MAGIC)
}

/// Reads the claims of a header. `None`: it is not a record of this store at this offset. `bytes`
/// starts with the record and holds at least a header.
pub(crate) fn claim(bytes: &[u8], store: &StoreId, offset: u64) -> Option<Claim> {
    let len = u32_at(bytes, field::LEN);
    let ours = has_magic(bytes)
        && bytes[field::STORE] == store[..]
        && (u64_at(bytes, field::OFFSET) == offset || sabotage::is(Sabotage::IgnoreGeneration))
        && (HEADER_LEN..=RECORD_MAX).contains(&(len as usize));
    ours.then(|| Claim {
        len,
        seq: u64_at(bytes, field::SEQ),
        generation: u64_at(bytes, field::GENERATION),
        prev: u32_at(bytes, field::PREV),
        moved: bytes[field::FLAGS] & MOVED != 0,
        whole: u16_at(bytes, field::CHECK) == check(bytes),
    })
}

/// Returns kind and payload unverified, for damage reports only. `bytes` is as long as
/// the record claims to be.
pub(crate) fn suspect(bytes: &[u8]) -> Option<(u8, &[u8])> {
    Some((*bytes.get(field::KIND)?, bytes.get(HEADER_LEN..)?))
}

/// Verifies the record at the front of `bytes`, which holds all of it. Ignores what follows.
pub(crate) fn verify<'a>(bytes: &'a [u8], store: &StoreId, offset: u64) -> Option<Record<'a>> {
    if bytes.len() < HEADER_LEN {
        return None;
    }
    let claim = claim(bytes, store, offset)?;
    let bytes = bytes.get(..claim.len as usize)?;
    let crc = u32_at(bytes, field::CRC);
    let whole = claim.whole || u16_at(bytes, field::CHECK) == 0;
    let sound = whole && super::crc(&[&bytes[field::CRC.end..]]) == crc || sabotage::is(Sabotage::IgnoreCrc);
    if !sound {
        return None;
    }
    let header = Header {
        kind: bytes[field::KIND],
        flags: bytes[field::FLAGS],
        generation: claim.generation,
        offset,
        seq: claim.seq,
        watermark: u64_at(bytes, field::WATERMARK),
        prev: claim.prev,
        durable: u32_at(bytes, field::DURABLE),
        hint: DurableHint {
            segment: u32::from_le_bytes(array(bytes, field::HINT_SEGMENT)),
            until: u32_at(bytes, field::HINT_UNTIL),
        },
    };
    Some(Record { header, crc, len: claim.len, payload: &bytes[HEADER_LEN..] })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_torn_over_another_is_not_whole() {
        let old = Header {
            kind: 4,
            flags: FIRST | LAST,
            generation: 77,
            offset: 8192,
            seq: 0x0102_0304,
            watermark: 1200,
            prev: 9,
            durable: 4096,
            hint: DurableHint::default(),
        };
        let new = Header { kind: 5, seq: 0x0506_0708, watermark: 1300, prev: 10, ..old };
        let mut ahead = vec![0; 200];
        let mut behind = vec![0; 200];
        old.emit(&[1; 16], b"what was there", &mut ahead);
        new.emit(&[1; 16], b"payload", &mut behind);
        // All but one word of 8 bytes was written.
        for (word, claims) in [(0, false), (8, true), (32, false), (40, false), (48, true), (64, true)] {
            let mut torn = behind.clone();
            torn[word..word + 8].copy_from_slice(&ahead[word..word + 8]);
            let claim = claim(&torn, &[1; 16], 8192).unwrap();
            assert_eq!(claim.whole, !claims, "word at {word}");
        }
        assert!(claim(&behind, &[1; 16], 8192).unwrap().whole);
    }

    #[test]
    fn record_without_check_verifies_without_whole_claim() {
        let header = Header {
            kind: 4,
            flags: FIRST,
            generation: 77,
            offset: 8192,
            seq: 5,
            watermark: 4,
            prev: 9,
            durable: 4096,
            hint: DurableHint::default(),
        };
        let mut bytes = vec![0; 200];
        header.emit(&[1; 16], b"payload", &mut bytes);
        for (check, verifies) in [([0; 2], true), ([0xa5, 0x5a], false)] {
            put(&mut bytes, field::CHECK, &check);
            let crc = crc(&[&bytes[field::CRC.end..HEADER_LEN + 7]]);
            put(&mut bytes, field::CRC, &crc.to_le_bytes());
            assert_eq!(verify(&bytes, &[1; 16], 8192).is_some(), verifies, "{check:?}");
            assert!(!claim(&bytes, &[1; 16], 8192).unwrap().whole);
        }
    }

    #[test]
    fn record_round_trips_and_rejects_other_identity_and_flipped_bytes() {
        let header = Header {
            kind: 4,
            flags: FIRST,
            generation: 77,
            offset: 1 << 33,
            seq: 1234,
            watermark: 1200,
            prev: 0xdead_beef,
            durable: 8192,
            hint: DurableHint { segment: 3, until: 4096 },
        };
        let mut bytes = vec![0xff; 200];
        let crc = header.emit(&[1; 16], b"payload", &mut bytes);
        let mut in_pieces = vec![0xff; 200];
        assert_eq!(header.emit_pieces(&[1; 16], [b"pay", b"load"], &mut in_pieces), crc);
        assert_eq!(in_pieces, bytes);
        let record = verify(&bytes, &[1; 16], 1 << 33).unwrap();
        assert_eq!((record.header, record.crc, record.payload), (header, crc, &b"payload"[..]));
        assert_eq!(verify(&bytes, &[2; 16], 1 << 33), None, "another store");
        assert_eq!(verify(&bytes, &[1; 16], 1 << 32), None, "another place");
        for len in 0..HEADER_LEN + 7 {
            assert_eq!(verify(&bytes[..len], &[1; 16], 1 << 33), None, "cut to {len}");
        }
        for at in 0..HEADER_LEN + 7 {
            bytes[at] ^= 0x10;
            assert_eq!(verify(&bytes, &[1; 16], 1 << 33), None, "byte {at}");
            bytes[at] ^= 0x10;
        }
    }
}
