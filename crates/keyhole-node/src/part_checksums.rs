//! The part checksums of an object, as the log stores them.
//!
//! They are stored for objects with a composite checksum: those of each part, preceded by their
//! length in 2 bytes, little-endian. In a sealed object those of each part are sealed under the data
//! key and bound to the part, so that they stay valid in copies.

use keyhole_core::head::{ChecksumAlgorithm, ChecksumType};
use keyhole_log::limits::PART_CHECKSUMS_MAX;

/// Collects the part checksums of an object.
pub(crate) struct PartChecksums {
    bytes: Vec<u8>,
    wanted: bool,
}

impl PartChecksums {
    /// Creates the collection for an upload with this declared checksum.
    pub(crate) fn new(declared: Option<(ChecksumAlgorithm, ChecksumType)>) -> Self {
        PartChecksums { bytes: Vec::new(), wanted: matches!(declared, Some((_, ChecksumType::Composite))) }
    }

    /// Adds the checksums of the next part.
    pub(crate) fn push(&mut self, checksums: &[u8]) {
        // If they exceed the log's limit, the object is stored without part checksums.
        self.wanted &= self.bytes.len() + 2 + checksums.len() <= PART_CHECKSUMS_MAX;
        if self.wanted {
            encode_next(checksums, &mut self.bytes);
        }
    }

    /// Returns the encoded checksums, or nothing if they are not stored.
    pub(crate) fn finish(self) -> Vec<u8> {
        if self.wanted { self.bytes } else { Vec::new() }
    }
}

/// Iterates over the checksums encoded by [`PartChecksums`].
pub(crate) fn part_checksums(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (len, rest) = bytes.split_first_chunk()?;
        let (checksums, rest) = rest.split_at_checked(u16::from_le_bytes(*len).into())?;
        bytes = rest;
        Some(checksums)
    })
}

/// Encodes the checksums of all parts of an object.
pub(crate) fn encode_part_checksums<'p>(parts: impl Iterator<Item = &'p [u8]>) -> Vec<u8> {
    let mut bytes = Vec::new();
    parts.for_each(|checksums| encode_next(checksums, &mut bytes));
    bytes
}

fn encode_next(checksums: &[u8], bytes: &mut Vec<u8>) {
    bytes.extend_from_slice(&(checksums.len() as u16).to_le_bytes());
    bytes.extend_from_slice(checksums);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn part_checksums_are_kept_within_the_limit() {
        let declared = |kind| Some((ChecksumAlgorithm::Crc32, kind));
        let gather = |declared, len: usize, count: usize| {
            let mut kept = PartChecksums::new(declared);
            (0..count).for_each(|i| kept.push(&vec![i as u8; len]));
            kept.finish()
        };
        let kept = gather(declared(ChecksumType::Composite), 3, 5);
        assert_eq!(part_checksums(&kept).collect::<Vec<_>>(), [[0; 3], [1; 3], [2; 3], [3; 3], [4; 3]]);
        assert!(gather(declared(ChecksumType::FullObject), 3, 5).is_empty() && gather(None, 3, 5).is_empty());
        let full = PART_CHECKSUMS_MAX / 100;
        assert_eq!(gather(declared(ChecksumType::Composite), 98, full).len(), full * 100);
        assert!(gather(declared(ChecksumType::Composite), 98, full + 1).is_empty());
        // A head with only a SHA-256 has 40 bytes.
        assert!(!gather(declared(ChecksumType::Composite), 40, 10_000).is_empty());
    }
}
