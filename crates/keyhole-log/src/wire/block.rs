//! The footer of a block.
//!
//! A block is its data, zeros up to the next page, and this footer, in one contiguous write. The
//! data comes first, so that it can be received and encrypted in the buffer it is written from.

use std::ops::Range;

use super::{StoreId, array, crc, is_zero, pages, put, u16_at, u32_at, u64_at};
use crate::limits::{BLOCK_DATA, CHUNK_LEN, CHUNK_TAGS_MAX, CHUNKS_MAX, FOOTER_LEN, TAG_LEN, buffer_len};
use crate::sabotage::{self, Sabotage};

const MAGIC: [u8; 4] = *b"khB1";

mod field {
    use super::{CHUNK_TAGS_MAX, CHUNKS_MAX, FOOTER_LEN, TAG_LEN};
    use std::ops::Range;
    pub(super) const MAGIC: Range<usize> = 0..4;
    pub(super) const CRC: Range<usize> = 4..8;
    pub(super) const STORE: Range<usize> = 8..24;
    pub(super) const GENERATION: Range<usize> = 24..32;
    pub(super) const OFFSET: Range<usize> = 32..40;
    pub(super) const BODY: Range<usize> = 40..48;
    pub(super) const INDEX: Range<usize> = 48..52;
    pub(super) const DATA_LEN: Range<usize> = 52..56;
    pub(super) const TAG_COUNT: Range<usize> = 56..58;
    pub(super) const RESERVED: Range<usize> = 58..64;
    pub(super) const CRCS: Range<usize> = 64..64 + 4 * CHUNKS_MAX;
    pub(super) const TAGS: Range<usize> = CRCS.end..CRCS.end + TAG_LEN * CHUNK_TAGS_MAX;
    pub(super) const REST: Range<usize> = TAGS.end..FOOTER_LEN;
    const _: () = assert!(TAGS.end <= FOOTER_LEN);
}

/// BlockIdentity and location of a block, which its footer must repeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BlockIdentity {
    pub(crate) generation: u64,
    /// Offset of the block in the file.
    pub(crate) offset: u64,
    pub(crate) body: u64,
    pub(crate) index: u32,
    pub(crate) data_len: u32,
}

impl BlockIdentity {
    /// Returns the offset of the footer within the block.
    pub(crate) const fn padded(&self) -> usize {
        pages(self.data_len as usize)
    }
}

/// Returns the length of a block on disk.
pub(crate) const fn stored_len(data_len: usize) -> usize {
    buffer_len(data_len)
}

/// A footer whose checksum and identity have been verified.
#[derive(Debug, Clone)]
pub(crate) struct Footer {
    data_len: usize,
    crcs: Vec<u32>,
    tags: Vec<[u8; TAG_LEN]>,
}

/// Completes a block whose data is at the front of `block`: pads it and writes the footer. `crcs`
/// are the known checksums of its first granules. Returns the length of the block.
pub(crate) fn emit(
    id: &BlockIdentity,
    store: &StoreId,
    tags: &[[u8; TAG_LEN]],
    crcs: &[u32],
    block: &mut [u8],
) -> usize {
    let data_len = id.data_len as usize;
    assert!(
        data_len <= BLOCK_DATA && tags.len() <= CHUNK_TAGS_MAX,
        "a block is at most BLOCK_DATA bytes and CHUNK_TAGS_MAX tags long"
    );
    let padded = id.padded();
    block[data_len..padded].fill(0);
    let (data, footer) = block[..padded + FOOTER_LEN].split_at_mut(padded);
    footer.fill(0);
    put(footer, field::MAGIC, &MAGIC);
    put(footer, field::STORE, store);
    put(footer, field::GENERATION, &id.generation.to_le_bytes());
    put(footer, field::OFFSET, &id.offset.to_le_bytes());
    put(footer, field::BODY, &id.body.to_le_bytes());
    put(footer, field::INDEX, &id.index.to_le_bytes());
    put(footer, field::DATA_LEN, &id.data_len.to_le_bytes());
    put(footer, field::TAG_COUNT, &(tags.len() as u16).to_le_bytes());
    let granules = data.chunks(CHUNK_LEN);
    debug_assert!(
        granules.clone().zip(crcs).all(|(granule, known)| crc(&[granule]) == *known),
        "the bytes of a block have changed since its checksums were computed"
    );
    let known = crcs.iter().copied().map(Some).chain(std::iter::repeat(None));
    for ((place, granule), known) in footer[field::CRCS].chunks_exact_mut(4).zip(granules).zip(known) {
        place.copy_from_slice(&known.unwrap_or_else(|| crc(&[granule])).to_le_bytes());
    }
    for (place, tag) in footer[field::TAGS].chunks_exact_mut(TAG_LEN).zip(tags) {
        place.copy_from_slice(tag);
    }
    let crc = crc(&[&footer[field::CRC.end..]]);
    put(footer, field::CRC, &crc.to_le_bytes());
    padded + FOOTER_LEN
}

impl Footer {
    /// Verifies one page as the footer of this block.
    pub(crate) fn parse(page: &[u8], id: &BlockIdentity, store: &StoreId) -> Option<Footer> {
        let tag_count = usize::from(u16_at(page, field::TAG_COUNT));
        let identified = u64_at(page, field::GENERATION) == id.generation
            && u64_at(page, field::OFFSET) == id.offset
            && u64_at(page, field::BODY) == id.body
            && u32_at(page, field::INDEX) == id.index;
        let sound = page[field::MAGIC] == MAGIC
            && (crc(&[&page[field::CRC.end..]]) == u32_at(page, field::CRC) || sabotage::is(Sabotage::IgnoreCrc))
            && page[field::STORE] == store[..]
            && (identified || sabotage::is(Sabotage::IgnoreGeneration))
            && u32_at(page, field::DATA_LEN) == id.data_len
            && tag_count <= CHUNK_TAGS_MAX
            && is_zero(&page[field::RESERVED])
            && is_zero(&page[field::REST]);
        if !sound {
            return None;
        }
        let granules = id.padded().div_ceil(CHUNK_LEN);
        let crcs = page[field::CRCS].chunks_exact(4).take(granules).map(|place| u32_at(place, 0..4)).collect();
        let tags =
            page[field::TAGS].chunks_exact(TAG_LEN).take(tag_count).map(|place| array(place, 0..TAG_LEN)).collect();
        Some(Footer { data_len: id.data_len as usize, crcs, tags })
    }

    pub(crate) fn tags(&self) -> &[[u8; TAG_LEN]] {
        &self.tags
    }

    /// Returns the range of the granules `chunks` in a block with `data_len` bytes of data, clamped
    /// to its padded data.
    pub(crate) fn span(data_len: usize, chunks: &Range<usize>) -> Range<usize> {
        let padded = pages(data_len);
        (chunks.start * CHUNK_LEN).min(padded)..(chunks.end * CHUNK_LEN).min(padded)
    }

    /// Verifies the granules `chunks` of a block that begins at the front of `block`.
    pub(crate) fn verify(&self, chunks: &Range<usize>, block: &[u8]) -> bool {
        self.verify_piece(chunks.start, &block[Footer::span(self.data_len, chunks)])
    }

    /// Verifies granules from `first` on, in `piece`, which includes padding.
    pub(crate) fn verify_piece(&self, first: usize, piece: &[u8]) -> bool {
        let mut granules = piece.chunks(CHUNK_LEN).zip(self.crcs.iter().skip(first));
        granules.all(|(granule, &expected)| crc(&[granule]) == expected || sabotage::is(Sabotage::IgnoreCrc))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(data_len: usize, tag_count: usize) {
        let id = BlockIdentity { generation: 5, offset: 1 << 21, body: 42, index: 3, data_len: data_len as u32 };
        let tags: Vec<[u8; 16]> = (0..tag_count).map(|i| [i as u8 + 1; 16]).collect();
        let mut block: Vec<u8> = (0..crate::limits::BUFFER_LEN).map(|i| (i % 251) as u8).collect();
        let len = emit(&id, &[9; 16], &tags, &[], &mut block);
        assert_eq!(len, stored_len(data_len));
        let all = 0..data_len.div_ceil(CHUNK_LEN);
        let padded = id.padded();
        let seen = |block: &[u8]| {
            Footer::parse(&block[id.padded()..][..FOOTER_LEN], &id, &[9; 16]).is_some_and(|f| f.verify(&all, block))
        };
        assert!(seen(&block));
        let footer = Footer::parse(&block[padded..][..FOOTER_LEN], &id, &[9; 16]).unwrap();
        assert_eq!(footer.tags(), tags);
        // Every byte of the block is covered, including padding and reserved bytes.
        for at in (0..len).step_by(509).chain(padded..len).chain([len - 1]) {
            block[at] ^= 4;
            assert!(!seen(&block), "byte {at} of {data_len}");
            block[at] ^= 4;
        }
        for other in [
            BlockIdentity { generation: 6, ..id },
            BlockIdentity { offset: 0, ..id },
            BlockIdentity { body: 41, ..id },
            BlockIdentity { index: 2, ..id },
        ] {
            assert!(Footer::parse(&block[padded..][..FOOTER_LEN], &other, &[9; 16]).is_none());
        }
    }

    #[test]
    fn block_of_any_length_covers_every_byte() {
        for (data_len, tags) in [(1, 0), (4096, 1), (CHUNK_LEN, 2), (CHUNK_LEN + 1, 2), (100_000, 7), (BLOCK_DATA, 65)]
        {
            check(data_len, tags);
        }
    }
}
