//! The uploads of a bucket, indexed by number, by key and by their public identity.
//!
//! An abandoned upload may stay for days, so it is kept small: an entry in each of three dense
//! maps, the key once, and its parts in one allocation.

use std::sync::Arc;

use super::location::Location;
use super::quota_charge;
use crate::limits::PART_ATTEMPTS_MAX;
use crate::sorted::SortedMap;
use crate::types::{Part, PartInfo, UploadIdentity};

/// An attempt at a part of an upload.
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

/// Parts of an upload, ordered by number and then by sequence number. The last attempt at a number
/// is the current one; earlier ones with other ETags stay usable, at most [`PART_ATTEMPTS_MAX`] in
/// all.
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
    /// Iterates over the current attempts at the parts after number `after`, in order. `of` holds
    /// the identities of the bucket and of this upload.
    pub(crate) fn parts(&self, of: UploadIdentity, after: u16) -> impl Iterator<Item = PartInfo> {
        let attempts = after.checked_add(1).map(|next| self.parts.from(next));
        let mut attempts = attempts.into_iter().flatten().peekable();
        let current = std::iter::from_fn(move || {
            let mut entry = attempts.next()?;
            while let Some(newer) = attempts.next_if(|next| next.part.number == entry.part.number) {
                entry = newer;
            }
            Some(entry)
        });
        current.map(move |entry| entry.info(of))
    }

    /// Iterates over all kept attempts, ordered by number and then by age, with their locations.
    pub(crate) fn attempts(&self, of: UploadIdentity) -> impl Iterator<Item = (Location, PartInfo)> {
        self.parts.iter().map(move |entry| (entry.at, entry.info(of)))
    }

    /// Returns the location of this attempt at part `number`, if it is kept.
    pub(crate) fn part_at(&self, number: u16, seq: u64) -> Option<Location> {
        self.parts.get(number, seq).map(|entry| entry.at)
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

    pub(crate) fn is_sealed(&self) -> bool {
        self.sealed
    }

    /// Returns the bytes that the attempt that an attempt with this ETag would replace counts towards
    /// the quota.
    pub(crate) fn replaced_charge(&self, number: u16, etag: &[u8; 16]) -> Option<u64> {
        let attempts = self.parts.attempts(number);
        let same = attempts.iter().find(|entry| entry.part.etag == *etag);
        let replaced = same.or_else(|| attempts.first().filter(|_| attempts.len() == PART_ATTEMPTS_MAX));
        replaced.map(|entry| quota_charge(entry.part.size, entry.at))
    }

    /// Returns whether this is a kept attempt at its number.
    pub(super) fn has(&self, part: &Part) -> bool {
        self.parts.attempts(part.number).iter().any(|entry| entry.part == *part)
    }
}

impl PartEntry {
    fn info(&self, of: UploadIdentity) -> PartInfo {
        PartInfo {
            number: self.part.number,
            size: self.part.size,
            etag: self.part.etag,
            time_ms: self.time_ms,
            part: self.part.clone(),
            of,
            seq: self.seq,
        }
    }
}

impl Parts {
    fn find(&self, number: u16, seq: u64) -> Result<usize, usize> {
        // Parts usually arrive in order.
        match self.0.last() {
            Some(last) if (last.part.number, last.seq) < (number, seq) => Err(self.0.len()),
            _ => self.0.binary_search_by_key(&(number, seq), |entry| (entry.part.number, entry.seq)),
        }
    }

    /// Returns the kept attempts at a number, oldest first.
    fn attempts(&self, number: u16) -> &[PartEntry] {
        let start = self.find(number, 0).unwrap_or_else(|at| at);
        let len = self.0[start..].iter().take_while(|entry| entry.part.number == number).count();
        &self.0[start..start + len]
    }

    pub(super) fn get(&self, number: u16, seq: u64) -> Option<&PartEntry> {
        self.find(number, seq).ok().map(|at| &self.0[at])
    }

    pub(super) fn get_mut(&mut self, number: u16, seq: u64) -> Option<&mut PartEntry> {
        self.find(number, seq).ok().map(|at| &mut self.0[at])
    }

    /// Inserts an attempt. Returns the attempt that is dropped for it: the same record at another
    /// location, the older of two with one ETag, or the oldest of too many. That may be the
    /// inserted one: the result does not depend on the order of insertions.
    pub(super) fn insert(&mut self, entry: PartEntry) -> Option<PartEntry> {
        let number = entry.part.number;
        let at = match self.find(number, entry.seq) {
            Ok(at) => return Some(std::mem::replace(&mut self.0[at], entry)),
            Err(at) => at,
        };
        let start = self.find(number, 0).unwrap_or_else(|at| at);
        let attempts = self.attempts(number);
        let count = attempts.len();
        if let Some(same) = attempts.iter().position(|other| other.part.etag == entry.part.etag) {
            let same = start + same;
            if self.0[same].seq > entry.seq {
                return Some(entry);
            }
            let dropped = self.0.remove(same);
            self.0.insert(at - 1, entry);
            return Some(dropped);
        }
        if count == PART_ATTEMPTS_MAX {
            if at == start {
                return Some(entry);
            }
            let dropped = self.0.remove(start);
            self.0.insert(at - 1, entry);
            return Some(dropped);
        }
        if self.0.len() == self.0.capacity() {
            // Most long-lived uploads have few parts.
            self.0.reserve_exact((self.0.len() / 8).max(1));
        }
        self.0.insert(at, entry);
        None
    }

    /// Iterates over the parts at or above `number`, in order.
    pub(super) fn from(&self, number: u16) -> impl Iterator<Item = &PartEntry> {
        self.0[self.0.partition_point(|entry| entry.part.number < number)..].iter()
    }

    /// Iterates over the attempts after this one, in order.
    pub(super) fn after(&self, number: u16, seq: u64) -> impl Iterator<Item = &PartEntry> {
        self.0[self.find(number, seq).map_or_else(|at| at, |at| at + 1)..].iter()
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

    fn entry(number: u16, seq: u64, etag: u8) -> PartEntry {
        let part = Part { number, body: BodyId(seq), size: 1, salt: [0; 24], etag: [etag; 16] };
        PartEntry { at: Location::LOST, seq, time_ms: 1, part }
    }

    #[test]
    fn parts_inserted_out_of_order_are_sorted() {
        let mut parts = Parts::default();
        for (number, seq) in [(3, 1), (1, 2), (10_000, 3), (2, 4)] {
            assert!(parts.insert(entry(number, seq, 0)).is_none());
        }
        assert_eq!(parts.insert(entry(1, 5, 0)).map(|old| old.seq), Some(2));
        let numbers = |from| parts.from(from).map(|entry| entry.part.number).collect::<Vec<_>>();
        assert_eq!((numbers(0), numbers(3)), (vec![1, 2, 3, 10_000], vec![3, 10_000]));
        assert_eq!((parts.get(1, 5).map(|entry| entry.seq), parts.get(1, 2).is_none()), (Some(5), true));
        assert_eq!(parts.after(1, 5).next().map(|entry| entry.seq), Some(4));
    }

    #[test]
    fn attempts_are_kept_up_to_the_limit_in_any_order() {
        // Sequence number and ETag of attempts at one number.
        let written = [(1, 1), (2, 2), (3, 1), (4, 3), (5, 4), (6, 5), (7, 4), (8, 6)];
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..200 {
            let mut upload = upload("k", 1);
            let mut order = written;
            random.shuffle(&mut order);
            for (seq, etag) in order {
                upload.parts.insert(entry(2, seq, etag));
                assert!(upload.parts.attempts(2).len() <= PART_ATTEMPTS_MAX);
            }
            upload.parts.insert(entry(1, 9, 1));
            upload.parts.insert(entry(3, 10, 1));
            let kept: Vec<_> = upload.parts.attempts(2).iter().map(|entry| entry.seq).collect();
            assert_eq!(kept, [4, 6, 7, 8], "{order:?}");
            let of = UploadIdentity { bucket: 1, upload: 1 };
            assert_eq!(upload.parts(of, 0).map(|info| info.seq).collect::<Vec<_>>(), [9, 8, 10]);
            assert_eq!(upload.parts(of, 1).map(|info| info.seq).collect::<Vec<_>>(), [8, 10]);
            assert_eq!(upload.attempts(of).count(), 6);
            // One with a known ETag replaces that attempt, another one the oldest.
            assert!(upload.replaced_charge(2, &[9; 16]).is_some() && upload.replaced_charge(1, &[9; 16]).is_none());
            assert!(upload.replaced_charge(1, &[1; 16]).is_some());
        }
    }
}
