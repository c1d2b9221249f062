//! Listings: keys in the binary order of UTF-8, grouped at a delimiter.

use super::bucket::Bucket;
use super::entry::ObjectEntry;
use super::versions::Name;
use crate::limits::LIST_MAX;
use crate::types::{ListObjects, ListUploads, Listed, ListedUpload, Listing, UploadListing};
use crate::version::{VersionId, VersionIds};
use crate::version_list::{ListVersions, ListedVersion, VersionListing};

/// The filter of both kinds of listing.
struct Filter<'a> {
    prefix: &'a str,
    delimiter: Option<&'a str>,
    limit: usize,
}

/// A position in a listing: before all entries with at least this key and number.
#[derive(Clone)]
struct ListPosition {
    key: Vec<u8>,
    number: u64,
}

enum Rolled<T> {
    Item(T),
    Prefix(String),
}

impl<'a> Filter<'a> {
    fn new(prefix: &'a str, delimiter: Option<&'a str>, limit: usize) -> Self {
        Filter { prefix, delimiter: delimiter.filter(|delimiter| !delimiter.is_empty()), limit: limit.min(LIST_MAX) }
    }

    /// Returns the common prefix that groups a key.
    fn common<'k>(&self, key: &'k str) -> Option<&'k str> {
        let delimiter = self.delimiter?;
        let rest = key.strip_prefix(self.prefix)?;
        let at = rest.find(delimiter)?;
        Some(&key[..self.prefix.len() + at + delimiter.len()])
    }

    /// Returns the position after `after`: after everything under a common
    /// prefix, else after the key.
    fn start(&self, after: Option<&str>) -> ListPosition {
        let after = match after {
            None => ListPosition { key: Vec::new(), number: 0 },
            Some(after) if self.common(after) == Some(after) => past(after),
            Some(after) => next_key(after),
        };
        let prefix = self.prefix.as_bytes();
        if after.key.as_slice() < prefix { ListPosition { key: prefix.to_vec(), number: 0 } } else { after }
    }

    /// Collects entries from `start` on. `next` returns the first item at or after a position: its
    /// key, the item, and the position after it.
    fn collect<'k, T>(
        &self,
        start: ListPosition,
        next: impl Fn(&ListPosition) -> Option<(&'k str, T, ListPosition)>,
    ) -> (Vec<Rolled<T>>, bool) {
        let mut entries = Vec::new();
        let mut place = start;
        if self.limit == 0 {
            return (entries, false);
        }
        while let Some((key, item, after)) = next(&place).filter(|(key, ..)| key.starts_with(self.prefix)) {
            if entries.len() == self.limit {
                return (entries, true);
            }
            match self.common(key) {
                Some(common) => {
                    entries.push(Rolled::Prefix(common.to_owned()));
                    place = past(common);
                }
                None => {
                    entries.push(Rolled::Item(item));
                    place = after;
                }
            }
        }
        (entries, false)
    }
}

/// Returns the number of the position after a version: newer versions come first.
fn after_version(seq: u64) -> u64 {
    (!seq).saturating_add(1)
}

/// Returns the position after all entries of a key.
fn next_key(key: &str) -> ListPosition {
    let mut key = key.as_bytes().to_vec();
    key.push(0);
    ListPosition { key, number: 0 }
}

/// Returns the position after every key with `prefix`, which is not empty. UTF-8 has no byte 0xff,
/// so there is a successor.
fn past(prefix: &str) -> ListPosition {
    let mut key = prefix.as_bytes().to_vec();
    if let Some(last) = key.last_mut() {
        *last += 1;
    }
    ListPosition { key, number: 0 }
}

impl Bucket {
    pub(crate) fn list(&self, list: &ListObjects) -> Listing {
        let filter = Filter::new(&list.prefix, list.delimiter.as_deref(), list.limit);
        let (entries, truncated) = filter.collect(filter.start(list.after.as_deref()), |place| {
            let (key, entry) = self.objects.from(place.key.as_slice()).next()?;
            Some((key, (key, entry), next_key(key)))
        });
        let entries = entries.into_iter().map(|entry| match entry {
            Rolled::Prefix(prefix) => Listed::Prefix(prefix),
            Rolled::Item((key, entry)) => Listed::Object {
                key: key.to_owned(),
                size: entry.size,
                time_ms: entry.time_ms(),
                etag: entry.etag(),
                sealed: entry.sealed(),
            },
        });
        Listing { entries: entries.collect(), truncated }
    }

    pub(crate) fn list_uploads(&self, list: &ListUploads) -> UploadListing {
        let filter = Filter::new(&list.prefix, list.delimiter.as_deref(), list.limit);
        let mut start = filter.start(list.after.as_ref().map(|(key, _)| key.as_str()));
        if let Some((key, Some(id))) = &list.after {
            // The position of an ended upload is unknown: its key is listed again.
            let number = self.upload_by_id(key, id).map_or(0, |(seq, _)| seq + 1);
            start = ListPosition { key: key.as_bytes().to_vec(), number };
        }
        let (entries, truncated) = filter.collect(start, |place| self.upload_at(place));
        let entries = entries.into_iter().map(|entry| match entry {
            Rolled::Prefix(prefix) => ListedUpload::Prefix(prefix),
            Rolled::Item(upload) => ListedUpload::Upload(upload),
        });
        UploadListing { entries: entries.collect(), truncated }
    }

    pub(crate) fn list_versions(&self, list: &ListVersions, ids: VersionIds) -> VersionListing {
        let filter = Filter::new(&list.prefix, list.delimiter.as_deref(), list.limit);
        let mut start = filter.start(list.after.as_ref().map(|(key, _)| key.as_str()));
        if let Some((key, Some(id))) = &list.after {
            // A deleted version still has its place, if its number is known.
            let number = match (self.version_by_id(key, *id, ids), id) {
                (Some(entry), _) => after_version(entry.seq),
                (None, VersionId::Id(id)) => ids.seq(id).map_or(0, after_version),
                (None, VersionId::Null) => 0,
            };
            if key.starts_with(&list.prefix) {
                start = ListPosition { key: key.as_bytes().to_vec(), number };
            }
        }
        let (entries, truncated) = filter.collect(start, |place| self.version_at(place));
        let next = entries.last().filter(|_| truncated).map(|last| match last {
            Rolled::Prefix(prefix) => (prefix.clone(), None),
            Rolled::Item((name, entry)) => (name.key.to_owned(), Some(VersionId::Id(ids.id(entry.seq)))),
        });
        let entries = entries.into_iter().map(|entry| match entry {
            Rolled::Prefix(prefix) => ListedVersion::Prefix(prefix),
            Rolled::Item((name, entry)) => ListedVersion::Version(self.version_info(&name, entry, ids)),
        });
        VersionListing { entries: entries.collect(), next }
    }

    /// Returns the first version at or after a position: of each key the newest first.
    fn version_at(&self, place: &ListPosition) -> Option<(&str, (Name<'_>, &ObjectEntry), ListPosition)> {
        let mut names = self.names_from(&place.key);
        let first = names.next()?;
        let (name, entry) = if place.number > 0 && first.key.as_bytes() == place.key {
            match first.below((!place.number).saturating_add(1)) {
                Some(entry) => (first, entry),
                None => names.next().map(|name| (name, name.newest()))?,
            }
        } else {
            (first, first.newest())
        };
        let key = name.key;
        let after = ListPosition { key: key.as_bytes().to_vec(), number: after_version(entry.seq) };
        Some((key, (name, entry), after))
    }

    fn upload_at(&self, place: &ListPosition) -> Option<(&str, crate::types::UploadRef, ListPosition)> {
        let seq = self.uploads.listed_from(&place.key, place.number)?;
        let upload = self.uploads.get(seq)?;
        let key = upload.key();
        let after = ListPosition { key: key.as_bytes().to_vec(), number: seq + 1 };
        Some((key, self.upload_ref(seq, upload), after))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_with_delimiter_has_common_prefix() {
        let filter = Filter::new("a", Some("//"), 10);
        assert_eq!(filter.common("ab//c//d"), Some("ab//"));
        assert_eq!(filter.common("a//"), Some("a//"));
        assert_eq!(filter.common("ab/c"), None);
        assert_eq!(filter.common("b//"), None);
        assert_eq!(Filter::new("", Some(""), 10).common("a/b"), None);
    }
}
