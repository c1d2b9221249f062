//! The superblock, which identifies the file. Stored in two copies.

use super::{StoreId, array, crc, is_zero, put, u32_at, u64_at};
use crate::limits::{CHECKPOINTS_KEPT, PAGE};

/// "keyhlog" and a line feed, which text-mode transfers would change.
pub(crate) const MAGIC: [u8; 8] = *b"keyhlog\n";

/// Version of the whole format.
pub(crate) const VERSION: u32 = 5;

/// Version of a store that has versions of objects, and no evicted ones.
pub(crate) const VERSION_VERSIONED: u32 = 4;

/// Version of a store that has no versions of objects: of a new one, and the lowest that is written.
pub(crate) const VERSION_PLAIN: u32 = 3;

/// Oldest readable version. Opening such a store for writing upgrades it to [`VERSION_PLAIN`].
pub(crate) const VERSION_MIN: u32 = 2;

mod field {
    use std::ops::Range;
    // Magic, version and checksum are at these offsets in every version, so that
    // each can refuse the others.
    pub(super) const MAGIC: Range<usize> = 0..8;
    pub(super) const VERSION: Range<usize> = 8..12;
    pub(super) const CRC: Range<usize> = 12..16;
    pub(super) const STORE: Range<usize> = 16..32;
    pub(super) const EPOCH: Range<usize> = 32..40;
    pub(super) const SEGMENT_LEN: Range<usize> = 40..48;
    pub(super) const CAPACITY: Range<usize> = 48..56;
    pub(super) const CREATED_MS: Range<usize> = 56..64;
    /// End records of the newest checkpoint and of the one before it.
    pub(super) const CHECKPOINTS: Range<usize> = 64..80;
    pub(super) const RESERVED: Range<usize> = 80..super::PAGE;
}

/// One copy of the superblock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Superblock {
    /// Format version, from [`VERSION_MIN`] to [`VERSION`].
    pub(crate) version: u32,
    pub(crate) store: StoreId,
    /// Incremented with each change: of two valid copies the higher one is current.
    pub(crate) epoch: u64,
    pub(crate) segment_len: u64,
    pub(crate) capacity: u64,
    pub(crate) created_ms: u64,
    /// Raw locations of the end records of the newest checkpoint and of the one before it; 0 if
    /// there is none.
    pub(crate) checkpoints: [u64; CHECKPOINTS_KEPT],
}

/// The defect of a page that is not a readable superblock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Invalid {
    /// Not a superblock. `empty`: every byte is zero.
    Foreign { empty: bool },
    /// Another version. `sound`: its checksum is right.
    Version { found: u32, sound: bool },
    /// A supported version with a wrong checksum.
    Damaged,
}

impl Superblock {
    pub(crate) fn emit(&self, page: &mut [u8]) {
        page.fill(0);
        put(page, field::MAGIC, &MAGIC);
        put(page, field::VERSION, &self.version.to_le_bytes());
        put(page, field::STORE, &self.store);
        put(page, field::EPOCH, &self.epoch.to_le_bytes());
        put(page, field::SEGMENT_LEN, &self.segment_len.to_le_bytes());
        put(page, field::CAPACITY, &self.capacity.to_le_bytes());
        put(page, field::CREATED_MS, &self.created_ms.to_le_bytes());
        for (place, checkpoint) in page[field::CHECKPOINTS].chunks_exact_mut(8).zip(self.checkpoints) {
            place.copy_from_slice(&checkpoint.to_le_bytes());
        }
        let crc = checksum(page);
        put(page, field::CRC, &crc.to_le_bytes());
    }

    /// Parses one page.
    pub(crate) fn parse(page: &[u8]) -> Result<Self, Invalid> {
        if page[field::MAGIC] != MAGIC {
            return Err(Invalid::Foreign { empty: is_zero(page) });
        }
        let sound = checksum(page) == u32_at(page, field::CRC);
        let found = u32_at(page, field::VERSION);
        if !(VERSION_MIN..=VERSION).contains(&found) {
            return Err(Invalid::Version { found, sound });
        }
        if !sound || !is_zero(&page[field::RESERVED]) {
            return Err(Invalid::Damaged);
        }
        Ok(Superblock {
            version: found,
            store: array(page, field::STORE),
            epoch: u64_at(page, field::EPOCH),
            segment_len: u64_at(page, field::SEGMENT_LEN),
            capacity: u64_at(page, field::CAPACITY),
            created_ms: u64_at(page, field::CREATED_MS),
            checkpoints: [0, 8].map(|at| u64_at(&page[field::CHECKPOINTS], at..at + 8)),
        })
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

    fn sample() -> Superblock {
        let segment_len = 64 << 20;
        let capacity = 1 << 40;
        let created_ms = 1_700_000_000_000;
        let checkpoints = [1 << 40, 1 << 39];
        Superblock { version: VERSION, store: [7; 16], epoch: 3, segment_len, capacity, created_ms, checkpoints }
    }

    #[test]
    fn superblock_round_trips_and_rejects_flipped_bytes() {
        let mut page = vec![0xaa; PAGE];
        sample().emit(&mut page);
        assert_eq!(Superblock::parse(&page), Ok(sample()));
        for at in 0..PAGE {
            page[at] ^= 1;
            assert!(Superblock::parse(&page).is_err(), "byte {at}");
            page[at] ^= 1;
        }
    }

    #[test]
    fn superblock_of_foreign_file_or_other_version_is_rejected() {
        assert_eq!(Superblock::parse(&[0; PAGE]), Err(Invalid::Foreign { empty: true }));
        assert_eq!(Superblock::parse(&[1; PAGE]), Err(Invalid::Foreign { empty: false }));
        let mut page = vec![0; PAGE];
        sample().emit(&mut page);
        put(&mut page, field::VERSION, &7u32.to_le_bytes());
        assert_eq!(Superblock::parse(&page), Err(Invalid::Version { found: 7, sound: false }));
        let crc = checksum(&page);
        put(&mut page, field::CRC, &crc.to_le_bytes());
        assert_eq!(Superblock::parse(&page), Err(Invalid::Version { found: 7, sound: true }));
        for version in [VERSION_MIN, VERSION_PLAIN, VERSION_VERSIONED, VERSION] {
            let superblock = Superblock { version, ..sample() };
            superblock.emit(&mut page);
            assert_eq!(Superblock::parse(&page), Ok(superblock));
        }
        for version in [VERSION_MIN - 1, VERSION + 1] {
            Superblock { version, ..sample() }.emit(&mut page);
            assert_eq!(Superblock::parse(&page), Err(Invalid::Version { found: version, sound: true }));
        }
    }
}
