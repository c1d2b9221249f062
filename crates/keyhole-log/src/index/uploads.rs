//! The uploads of a bucket, indexed by number, by key and by their public identity.
//!
//! An abandoned upload may stay for days, so it is kept small: an entry in each of three dense
//! maps, the key once, and its parts in one allocation.

use std::sync::Arc;

use super::location::Location;
use crate::sorted::SortedMap;
use crate::types::{Part, PartInfo, UploadIdentity};

/// A part of an upload.
#[derive(Debug)]
pub(super) struct PartEntry {
    pub(super) at: Location,
    pub(super) seq: u64,
    pub(super) time_ms: u64,
    pub(super) part: Part,
}

/// An upload.
#[derive(Debug)]
pub(crate) struct Upload {
    pub(crate) at: Location,
    pub(super) key: Arc<str>,
    pub(super) id: [u8; 16],
    pub(super) time_ms: u64,
    pub(super) sealed: bool,
    pub(super) declared: Option<(u8, u8)>,
    pub(super) parts: Parts,
    /// Whether its completion or abortion is in flight.
    pub(super) closing: bool,
}

/// Parts of an upload, ordered by number.
#[derive(Debug, Default)]
pub(super) struct Parts(Vec<PartEntry>);

/// Listing position of an upload: its key, then its number.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct ListedKey {
    key: Arc<str>,
    seq: u64,
}

/// The uploads of a bucket.
#[derive(Debug, Default)]
pub(super) struct Uploads {
    by_seq: SortedMap<u64, Upload>,
    by_key: SortedMap<ListedKey, ()>,
    by_id: SortedMap<[u8; 16], u64>,
}

impl Upload {
    /// Iterates over the parts after number `after`, in order. `of` holds the identities of the
    /// bucket and of this upload.
    pub(crate) fn parts(&self, of: UploadIdentity, after: u16) -> impl Iterator<Item = PartInfo> {
        let parts = after.checked_add(1).map(|next| self.parts.from(next));
        parts.into_iter().flatten().map(move |entry| PartInfo {
            number: entry.part.number,
            size: entry.part.size,
            etag: entry.part.etag,
            time_ms: entry.time_ms,
            part: entry.part.clone(),
            of,
            seq: entry.seq,
        })
    }

    /// Returns the current location of part `number`, if it still has this sequence number.
    pub(crate) fn part_at(&self, number: u16, seq: u64) -> Option<Location> {
        self.parts.get(number).filter(|entry| entry.seq == seq).map(|entry| entry.at)
    }

    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    pub(crate) fn time_ms(&self) -> u64 {
        self.time_ms
    }

    pub(crate) fn id(&self) -> [u8; 16] {
        self.id
    }

    /// Returns the plaintext bytes of the part with this number.
    pub(crate) fn part_size(&self, number: u16) -> Option<u64> {
        self.parts.get(number).map(|entry| entry.part.size)
    }

    /// Returns whether this is the current attempt at its number.
    pub(super) fn has(&self, part: &Part) -> bool {
        self.parts.get(part.number).is_some_and(|entry| entry.part == *part)
    }
}

impl Parts {
    fn find(&self, number: u16) -> Result<usize, usize> {
        // Parts usually arrive in order.
        match self.0.last() {
            Some(last) if last.part.number < number => Err(self.0.len()),
            _ => self.0.binary_search_by_key(&number, |entry| entry.part.number),
        }
    }

    pub(super) fn get(&self, number: u16) -> Option<&PartEntry> {
        self.find(number).ok().map(|at| &self.0[at])
    }

    pub(super) fn get_mut(&mut self, number: u16) -> Option<&mut PartEntry> {
        self.find(number).ok().map(|at| &mut self.0[at])
    }

    /// Inserts a part and returns the previous one of its number.
    pub(super) fn insert(&mut self, entry: PartEntry) -> Option<PartEntry> {
        match self.find(entry.part.number) {
            Ok(at) => Some(std::mem::replace(&mut self.0[at], entry)),
            Err(at) => {
                if self.0.len() == self.0.capacity() {
                    // Most long-lived uploads have few parts.
                    self.0.reserve_exact((self.0.len() / 8).max(1));
                }
                self.0.insert(at, entry);
                None
            }
        }
    }

    /// Iterates over the parts at or above `number`, in order.
    pub(super) fn from(&self, number: u16) -> impl Iterator<Item = &PartEntry> {
        self.0[self.0.partition_point(|entry| entry.part.number < number)..].iter()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &PartEntry> {
        self.0.iter()
    }

    fn allocated(&self) -> usize {
        self.0.capacity() * size_of::<PartEntry>()
    }
}

impl Uploads {
    pub(super) fn len(&self) -> usize {
        self.by_seq.len()
    }

    pub(super) fn get(&self, seq: u64) -> Option<&Upload> {
        self.by_seq.get(&seq)
    }

    pub(super) fn get_mut(&mut self, seq: u64) -> Option<&mut Upload> {
        self.by_seq.get_mut(&seq)
    }

    /// Returns the location of an upload's creation record.
    pub(super) fn place_mut(&mut self, seq: u64) -> Option<&mut Location> {
        self.get_mut(seq).map(|upload| &mut upload.at)
    }

    pub(super) fn seq_of_id(&self, id: &[u8; 16]) -> Option<u64> {
        self.by_id.get(id).copied()
    }

    /// Iterates over the uploads at or above `seq`, in order.
    pub(super) fn from(&self, seq: u64) -> impl Iterator<Item = (u64, &Upload)> {
        self.by_seq.from(&seq).map(|(&seq, upload)| (seq, upload))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &Upload)> {
        self.by_seq.iter().map(|(&seq, upload)| (seq, upload))
    }

    /// Returns the number of the first upload in listing order at or after this key and number.
    pub(super) fn listed_from(&self, key: &[u8], seq: u64) -> Option<u64> {
        let place = self.by_key.find_by(|listed| (listed.key.as_bytes(), listed.seq).cmp(&(key, seq)));
        self.by_key.iter_at(place.unwrap_or_else(|place| place)).next().map(|(listed, ())| listed.seq)
    }

    pub(super) fn insert(&mut self, seq: u64, upload: Upload) {
        self.by_key.insert(ListedKey { key: Arc::clone(&upload.key), seq }, ());
        self.by_id.insert(upload.id, seq);
        self.by_seq.insert(seq, upload);
    }

    pub(super) fn remove(&mut self, seq: u64) -> Option<Upload> {
        let upload = self.by_seq.remove(&seq)?;
        self.by_id.remove(&upload.id);
        self.by_key.remove(&ListedKey { key: Arc::clone(&upload.key), seq });
        Some(upload)
    }

    /// Returns the memory used by the uploads in bytes.
    pub(super) fn allocated(&self) -> usize {
        // A shared string has two counters before its bytes.
        let own = |(_, upload): (_, &Upload)| upload.key.len() + 2 * size_of::<usize>() + upload.parts.allocated();
        let maps = self.by_seq.allocated() + self.by_key.allocated() + self.by_id.allocated();
        maps + self.iter().map(own).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::BodyId;

    fn upload(key: &str, id: u8) -> Upload {
        let at = Location::LOST;
        let time_ms = 1;
        let declared = None;
        let parts = Parts::default();
        Upload { at, key: key.into(), id: [id; 16], time_ms, sealed: false, declared, parts, closing: false }
    }

    #[test]
    fn uploads_are_found_by_number_key_and_identity() {
        let mut uploads = Uploads::default();
        for (seq, key) in [(5, "b"), (6, "a"), (7, "b"), (9, "c")] {
            uploads.insert(seq, upload(key, seq as u8));
        }
        let listed = |uploads: &Uploads, key: &str, seq| uploads.listed_from(key.as_bytes(), seq);
        assert_eq!(listed(&uploads, "", 0), Some(6));
        assert_eq!(listed(&uploads, "b", 0), Some(5));
        assert_eq!(listed(&uploads, "b", 6), Some(7));
        assert_eq!(listed(&uploads, "b", 8), Some(9));
        assert_eq!(listed(&uploads, "c", 10), None);
        assert_eq!(uploads.seq_of_id(&[7; 16]), Some(7));
        assert!(uploads.from(6).map(|(seq, _)| seq).eq([6, 7, 9]));
        assert_eq!(uploads.remove(7).map(|upload| upload.id), Some([7; 16]));
        assert_eq!((uploads.len(), uploads.seq_of_id(&[7; 16]), listed(&uploads, "b", 6)), (3, None, Some(9)));
        assert!(uploads.remove(7).is_none());
    }

    #[test]
    fn parts_inserted_out_of_order_are_sorted() {
        let entry = |number, seq| {
            let part = Part { number, body: BodyId(seq), size: 1, salt: [0; 24], etag: [0; 16] };
            PartEntry { at: Location::LOST, seq, time_ms: 1, part }
        };
        let mut parts = Parts::default();
        for (number, seq) in [(3, 1), (1, 2), (10_000, 3), (2, 4)] {
            assert!(parts.insert(entry(number, seq)).is_none());
        }
        assert_eq!(parts.insert(entry(1, 5)).map(|old| old.seq), Some(2));
        let numbers = |from| parts.from(from).map(|entry| entry.part.number).collect::<Vec<_>>();
        assert_eq!((numbers(0), numbers(3)), (vec![1, 2, 3, 10_000], vec![3, 10_000]));
        assert_eq!((parts.get(1).map(|entry| entry.seq), parts.get(4).is_none()), (Some(5), true));
    }
}
