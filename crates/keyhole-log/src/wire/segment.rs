//! The header of a segment.

use super::{StoreId, array, crc, is_zero, put, u32_at, u64_at};
use crate::limits::PAGE;

const MAGIC: [u8; 8] = *b"keyhseg\n";

mod field {
    use std::ops::Range;
    pub(super) const MAGIC: Range<usize> = 0..8;
    pub(super) const KIND: Range<usize> = 8..12;
    pub(super) const CRC: Range<usize> = 12..16;
    pub(super) const STORE: Range<usize> = 16..32;
    pub(super) const GENERATION: Range<usize> = 32..40;
    pub(super) const NUMBER: Range<usize> = 40..48;
    pub(super) const RESERVED: Range<usize> = 48..super::PAGE;
}

/// The contents of a segment. Records are kept apart from data, because
/// recovery reads only records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Records.
    Meta,
    /// Blocks of bodies.
    Body,
}

/// The first page of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: Kind,
    /// Taken from the store's counter when the segment is begun, so unique to
    /// each use of each segment.
    pub(crate) generation: u64,
    pub(crate) number: u32,
}

impl Header {
    /// Writes the page and returns its checksum, which the first record of the segment repeats.
    pub(crate) fn emit(&self, store: &StoreId, page: &mut [u8]) -> u32 {
        page.fill(0);
        put(page, field::MAGIC, &MAGIC);
        let kind: u32 = match self.kind {
            Kind::Meta => 1,
            Kind::Body => 2,
        };
        put(page, field::KIND, &kind.to_le_bytes());
        put(page, field::STORE, store);
        put(page, field::GENERATION, &self.generation.to_le_bytes());
        put(page, field::NUMBER, &u64::from(self.number).to_le_bytes());
        let crc = checksum(page);
        put(page, field::CRC, &crc.to_le_bytes());
        crc
    }

    /// Parses the header of segment `number` of this store, and returns it with its checksum.
    pub(crate) fn parse(page: &[u8], store: &StoreId, number: u32) -> Option<(Self, u32)> {
        let (found, header, crc) = Header::identify(page)?;
        (found == *store && header.number == number).then_some((header, crc))
    }

    /// Parses the header of any segment of any store, and returns the store, the
    /// header and its checksum.
    pub(crate) fn identify(page: &[u8]) -> Option<(StoreId, Self, u32)> {
        if page[field::MAGIC] != MAGIC {
            return None;
        }
        let crc = u32_at(page, field::CRC);
        let sound = checksum(page) == crc && is_zero(&page[field::RESERVED]);
        let number = u32::try_from(u64_at(page, field::NUMBER)).ok()?;
        let kind = match u32_at(page, field::KIND) {
            1 => Kind::Meta,
            2 => Kind::Body,
            _ => return None,
        };
        let store = array(page, field::STORE);
        sound.then(|| (store, Header { kind, generation: u64_at(page, field::GENERATION), number }, crc))
    }
}

fn checksum(page: &[u8]) -> u32 {
    crc(&[&page[..field::CRC.start], &page[field::CRC.end..]])
}

/// Makes the checksum of a page right.
#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn repair_checksum(page: &mut [u8]) {
    let crc = checksum(page);
    put(page, field::CRC, &crc.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segment_header_round_trips_and_rejects_other_identity_and_flipped_bytes() {
        let header = Header { kind: Kind::Body, generation: 9, number: 4 };
        let mut page = vec![1; PAGE];
        let crc = header.emit(&[5; 16], &mut page);
        assert_eq!(Header::parse(&page, &[5; 16], 4), Some((header, crc)));
        assert_eq!(Header::parse(&page, &[6; 16], 4), None);
        assert_eq!(Header::parse(&page, &[5; 16], 5), None);
        assert_eq!(
            Header::identify(&page),
            Some(([5; 16], Header { kind: Kind::Body, generation: 9, number: 4 }, crc))
        );
        for at in 0..PAGE {
            page[at] ^= 0x80;
            assert_eq!(Header::parse(&page, &[5; 16], 4), None, "byte {at}");
            page[at] ^= 0x80;
        }
    }
}
