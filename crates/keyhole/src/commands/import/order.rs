//! The rules that lines about versions obey together.

use std::collections::HashSet;

use crate::transfer::EntryError;
use crate::transfer::entry::{BucketEntry, ObjectEntry};
use crate::transfer::versions::{MarkerEntry, Version};

/// Checks lines about versions against the lines before them.
#[derive(Default)]
pub(super) struct LineOrder {
    /// The version of the export.
    version: Option<u32>,
    /// The current bucket.
    bucket: Option<BucketEntry>,
    /// Its last key, and the ids of the versions of that key.
    key: Option<String>,
    ids: HashSet<Version>,
}

impl LineOrder {
    /// Checks the first line of a piece. Returns the version of the export if it is another one.
    pub(super) fn export(&mut self, version: u32) -> Option<u32> {
        let expected = *self.version.get_or_insert(version);
        (expected != version).then_some(expected)
    }

    /// Turns to a bucket.
    pub(super) fn bucket(&mut self, bucket: &BucketEntry) {
        *self = LineOrder { version: self.version, bucket: Some(bucket.clone()), ..LineOrder::default() };
    }

    /// Checks an object.
    ///
    /// # Errors
    /// The rule that it breaks.
    pub(super) fn object(&mut self, entry: &ObjectEntry) -> Result<(), EntryError> {
        self.line(&entry.bucket, &entry.key, entry.version, entry.lock.is_some())
    }

    /// Checks a delete marker.
    ///
    /// # Errors
    /// The rule that it breaks.
    pub(super) fn marker(&mut self, entry: &MarkerEntry) -> Result<(), EntryError> {
        self.line(&entry.bucket, &entry.key, Some(entry.version), false)
    }

    fn line(&mut self, bucket: &str, key: &str, version: Option<Version>, has_lock: bool) -> Result<(), EntryError> {
        // The line of its bucket may be damaged.
        let Some(home) = self.bucket.as_ref().filter(|home| home.bucket == bucket) else { return Ok(()) };
        let version = match (home.versioning, version) {
            (None, None) => return Ok(()),
            (None, Some(_)) => return Err(EntryError::NotVersioned),
            (Some(_), None) => return Err(EntryError::VersionMissing),
            (Some(_), Some(version)) => version,
        };
        if has_lock && home.object_lock.is_none() {
            return Err(EntryError::NotLockable);
        }
        match self.key.as_deref() {
            Some(last) if key < last => return Err(EntryError::Order),
            Some(last) if key == last => {}
            _ => {
                self.key = Some(key.to_owned());
                self.ids.clear();
            }
        }
        if self.ids.insert(version) { Ok(()) } else { Err(EntryError::Duplicate) }
    }
}

#[cfg(test)]
mod tests {
    use keyhole_log::{BucketLock, BucketSettings, VersionId, Versioning};

    use super::*;

    fn order(versioning: Versioning, lock: Option<BucketLock>) -> LineOrder {
        let settings = BucketSettings { versioning, lock, ..BucketSettings::default() };
        let mut order = LineOrder::default();
        order.bucket(&BucketEntry::new("bucket".to_owned(), 1, &settings));
        order
    }

    fn id(number: u8) -> Option<Version> {
        Some(Version(if number == 0 { VersionId::Null } else { VersionId::Id([number; 16]) }))
    }

    #[test]
    fn versions_need_a_bucket_that_can_hold_them() {
        let mut plain = order(Versioning::Off, None);
        assert_eq!(plain.line("bucket", "k", None, false), Ok(()));
        assert_eq!(plain.line("bucket", "a", None, false), Ok(()), "as in version 1");
        assert_eq!(plain.line("bucket", "k", id(0), false), Err(EntryError::NotVersioned));
        assert_eq!(plain.line("other", "k", id(0), true), Ok(()), "its bucket is unknown");
        let mut versioned = order(Versioning::Suspended, None);
        assert_eq!(versioned.line("bucket", "k", None, false), Err(EntryError::VersionMissing));
        assert_eq!(versioned.line("bucket", "k", id(1), true), Err(EntryError::NotLockable));
        let mut locked = order(Versioning::Enabled, Some(BucketLock::default()));
        assert_eq!(locked.line("bucket", "k", id(1), true), Ok(()));
    }

    #[test]
    fn versions_of_a_key_are_distinct_and_consecutive() {
        let mut order = order(Versioning::Enabled, None);
        for (key, number, result) in [
            ("k", 1, Ok(())),
            ("k", 0, Ok(())),
            ("k", 1, Err(EntryError::Duplicate)),
            ("k", 0, Err(EntryError::Duplicate)),
            ("k/a", 1, Ok(())),
            ("k", 2, Err(EntryError::Order)),
            ("j", 3, Err(EntryError::Order)),
            ("k/a", 2, Ok(())),
        ] {
            assert_eq!(order.line("bucket", key, id(number), false), result, "{key} {number}");
        }
    }

    #[test]
    fn pieces_have_one_version() {
        let mut order = LineOrder::default();
        assert_eq!([2, 2, 1].map(|version| order.export(version)), [None, None, Some(2)]);
    }
}
