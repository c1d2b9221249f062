//! The first keys of a node's children, shortened for searches.

use std::ops::Range;

/// The first keys of the children of a node: their common prefix once, and of each key the 16 bytes
/// behind it. A search follows a pointer only where these are equal.
#[derive(Debug, Default)]
pub(super) struct Separators {
    prefix: Vec<u8>,
    heads: Vec<u128>,
}

/// Returns the length of the common prefix of two keys.
pub(super) fn common_len(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// Returns the first bytes of a key, padded with zeros.
pub(super) fn first_bytes<const LEN: usize>(key: &[u8]) -> [u8; LEN] {
    key.first_chunk().copied().unwrap_or_else(|| {
        let mut bytes = [0; LEN];
        bytes[..key.len()].copy_from_slice(key);
        bytes
    })
}

/// Returns the first bytes of a key as a number of the same order. Keys with equal numbers can
/// differ.
fn head(key: &[u8]) -> u128 {
    u128::from_be_bytes(first_bytes(key))
}

impl Separators {
    /// Builds the separators of these keys, which are in order.
    pub(super) fn of<'a>(keys: impl DoubleEndedIterator<Item = &'a str> + ExactSizeIterator + Clone) -> Self {
        let first = keys.clone().next().unwrap_or_default().as_bytes();
        let last = keys.clone().next_back().unwrap_or_default().as_bytes();
        let common = common_len(first, last);
        let heads = keys.map(|key| head(&key.as_bytes()[common..])).collect();
        Separators { prefix: first[..common].to_vec(), heads }
    }

    /// Returns the children whose separators cannot be told from `key`. The first keys of those
    /// before the range are lower, and of those behind it higher.
    pub(super) fn equal(&self, key: &[u8]) -> Range<usize> {
        let Some(rest) = key.strip_prefix(self.prefix.as_slice()) else {
            let at = if *key < *self.prefix { 0 } else { self.heads.len() };
            return at..at;
        };
        let head = head(rest);
        let start = self.heads.partition_point(|&other| other < head);
        let count = self.heads[start..].iter().take_while(|&&other| other == head).count();
        start..start + count
    }

    /// Inserts a child with this first key. Returns `false`, without inserting it, if the key lacks
    /// the common prefix.
    pub(super) fn insert(&mut self, at: usize, first: &str) -> bool {
        let Some(rest) = self.rest(first) else { return false };
        self.heads.insert(at, head(rest));
        true
    }

    /// Replaces the first key of a child. Returns `false`, without replacing it, if the key lacks the
    /// common prefix.
    pub(super) fn replace(&mut self, at: usize, first: &str) -> bool {
        let Some(rest) = self.rest(first) else { return false };
        self.heads[at] = head(rest);
        true
    }

    pub(super) fn remove(&mut self, at: usize) {
        self.heads.remove(at);
    }

    fn rest<'a>(&self, key: &'a str) -> Option<&'a [u8]> {
        key.as_bytes().strip_prefix(self.prefix.as_slice())
    }

    /// Returns the bytes allocated.
    pub(super) fn allocated(&self) -> usize {
        self.prefix.capacity() + self.heads.capacity() * size_of::<u128>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn head_orders_keys_that_differ_in_it() {
        let keys = ["", "\0", "a", "a\0", "a\0b", "ab", "abcdefghijklmnop", "abcdefghijklmnopq", "b", "ä"];
        for (low, high) in keys.iter().zip(&keys[1..]) {
            assert!(head(low.as_bytes()) <= head(high.as_bytes()), "{low:?} {high:?}");
        }
        assert_eq!(head(b"a"), head(b"a\0"));
        assert_eq!(head(b"abcdefghijklmnop"), head(b"abcdefghijklmnopq"));
    }

    #[test]
    fn key_without_the_prefix_is_before_or_behind_all() {
        let keys = ["photos/a", "photos/b", "photos/c"];
        let separators = Separators::of(keys.into_iter());
        for (key, equal) in [("", 0..0), ("photos", 0..0), ("photoa/x", 0..0), ("photoz", 3..3), ("q", 3..3)] {
            assert_eq!(separators.equal(key.as_bytes()), equal, "{key}");
        }
        for (key, equal) in [("photos/", 0..0), ("photos/b", 1..2), ("photos/bb", 2..2), ("photos/d", 3..3)] {
            assert_eq!(separators.equal(key.as_bytes()), equal, "{key}");
        }
    }
}
