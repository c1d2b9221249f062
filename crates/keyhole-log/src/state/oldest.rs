//! The search for the oldest versions and uploads, which ring mode drops.

use std::collections::BinaryHeap;

use super::State;
use crate::limits::EXPIRE_BATCH;

/// A version to delete unless it is replaced first, or an upload with its identity.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Due {
    pub(crate) seq: u64,
    pub(crate) bucket: String,
    pub(crate) key: String,
    pub(crate) upload: Option<[u8; 16]>,
    pub(crate) sealed: bool,
}

/// Position of the search for the oldest objects and uploads.
#[derive(Default)]
pub(crate) struct OldestCursor {
    bucket: u64,
    /// Uploads of a bucket follow its objects.
    at: OldestStage,
}

enum OldestStage {
    Objects(String),
    Uploads(u64),
}

impl Default for OldestStage {
    fn default() -> Self {
        OldestStage::Objects(String::new())
    }
}

/// A heap of the oldest objects and uploads found so far, the youngest on top:
/// sequence number, bytes, name.
#[derive(Default)]
pub(crate) struct Oldest {
    pub(crate) heap: BinaryHeap<(u64, u64, Due)>,
    bytes: u64,
}

impl Oldest {
    /// Adds a candidate, and drops those that are not needed to reach `wanted` bytes.
    fn take(&mut self, seq: u64, bytes: u64, due: impl FnOnce() -> Due, wanted: u64) {
        if self.bytes >= wanted && self.heap.peek().is_some_and(|(youngest, ..)| *youngest < seq) {
            return;
        }
        self.heap.push((seq, bytes, due()));
        self.bytes += bytes;
        while let Some((_, youngest, _)) = self.heap.peek()
            && self.bytes - youngest >= wanted
        {
            self.bytes -= youngest;
            self.heap.pop();
        }
    }
}

impl State {
    /// Visits the next objects or uploads from `cursor` and returns the position to continue from.
    pub(crate) fn oldest(&self, cursor: OldestCursor, wanted: u64, oldest: &mut Oldest) -> Option<OldestCursor> {
        let (bucket, home) = self.index.next_bucket(cursor.bucket)?;
        let at = if bucket == cursor.bucket { cursor.at } else { OldestStage::default() };
        match at {
            OldestStage::Objects(key) => {
                let mut seen = 0;
                for name in home.names_from(key.as_bytes()) {
                    if seen >= EXPIRE_BATCH {
                        return Some(OldestCursor { bucket, at: OldestStage::Objects(name.key.to_owned()) });
                    }
                    for entry in name.oldest_first() {
                        seen += 1;
                        // Without its marker, an older version would become current.
                        let is_needed = entry.is_marker() && !name.is_single();
                        if is_needed || home.lock_of(entry.seq).keeps(self.index.lock_clock_ms, false) {
                            continue;
                        }
                        let seq = entry.seq;
                        let sealed = entry.sealed();
                        let due = || {
                            let bucket = home.name().to_owned();
                            Due { seq, bucket, key: name.key.to_owned(), upload: None, sealed }
                        };
                        // The bytes of an evicted version are gone already.
                        let size = if home.is_evicted(seq) { 0 } else { entry.size };
                        oldest.take(seq, u64::from(entry.at.len()) + size, due, wanted);
                    }
                }
                Some(OldestCursor { bucket, at: OldestStage::Uploads(0) })
            }
            OldestStage::Uploads(first) => {
                for (seen, (seq, upload, newest, bytes)) in home.abandoned_from(first).enumerate() {
                    if seen == EXPIRE_BATCH {
                        return Some(OldestCursor { bucket, at: OldestStage::Uploads(seq) });
                    }
                    let due = || {
                        let bucket = home.name().to_owned();
                        let key = upload.key().to_owned();
                        Due { seq: newest, bucket, key, upload: Some(upload.id()), sealed: upload.is_sealed() }
                    };
                    oldest.take(newest, bytes, due, wanted);
                }
                Some(OldestCursor { bucket: bucket + 1, at: OldestStage::default() })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn oldest_objects_are_collected_up_to_wanted_bytes() {
        let mut oldest = Oldest::default();
        for seq in [9, 3, 7, 1, 8, 2, 6, 5, 4] {
            oldest.take(
                seq,
                10,
                || Due { seq, bucket: String::new(), key: String::new(), upload: None, sealed: false },
                25,
            );
        }
        let mut seqs: Vec<u64> = oldest.heap.into_iter().map(|(seq, ..)| seq).collect();
        seqs.sort_unstable();
        assert_eq!(seqs, [1, 2, 3]);
    }
}
