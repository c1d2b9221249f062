//! The versions of names beside their current objects.
//!
//! A name whose only version is an object is not in here, so that it costs nothing more than its
//! entry among the objects. [`Bucket`](super::Bucket) keeps the two in step.

use super::entry::ObjectEntry;
use crate::key_map::KeyMap;
use crate::limits::VERSIONS_FEW;
use crate::sorted::SortedMap;

/// Versions of one name, ordered by sequence number. There is at least one.
#[derive(Debug)]
pub(super) enum Versions {
    One(ObjectEntry),
    Few(Vec<ObjectEntry>),
    /// Insertion and removal move few entries, however many there are.
    Many(Box<SortedMap<u64, ObjectEntry>>),
}

// A name with one noncurrent version takes no more than an object.
const _: () = assert!(size_of::<Versions>() == size_of::<ObjectEntry>());

impl Versions {
    #[cfg(test)]
    fn len(&self) -> usize {
        match self {
            Versions::One(_) => 1,
            Versions::Few(few) => few.len(),
            Versions::Many(many) => many.len(),
        }
    }

    fn insert(&mut self, entry: ObjectEntry) {
        match self {
            Versions::One(one) => {
                let mut few = Vec::with_capacity(2);
                few.push(std::mem::replace(one, entry));
                let Versions::One(entry) = std::mem::replace(self, Versions::Few(few)) else { return };
                self.insert(entry);
            }
            Versions::Few(few) if few.len() < VERSIONS_FEW => {
                if few.len() == few.capacity() {
                    few.reserve_exact((few.len() / 8).max(1));
                }
                few.insert(few.partition_point(|other| other.seq < entry.seq), entry);
            }
            Versions::Few(few) => {
                let mut many = SortedMap::default();
                for entry in few.drain(..).chain([entry]) {
                    many.insert(entry.seq, entry);
                }
                *self = Versions::Many(Box::new(many));
            }
            Versions::Many(many) => {
                many.insert(entry.seq, entry);
            }
        }
    }

    /// Removes a version, unless it is the only one.
    fn remove(&mut self, seq: u64) -> Option<ObjectEntry> {
        let removed = match self {
            Versions::One(_) => None,
            Versions::Few(few) => few.binary_search_by_key(&seq, |entry| entry.seq).ok().map(|at| few.remove(at)),
            Versions::Many(many) => many.remove(&seq),
        };
        match self {
            Versions::Few(few) if few.len() == 1 => {
                if let Some(one) = few.pop() {
                    *self = Versions::One(one);
                }
            }
            // Not at once, so that a name around the limit does not change back and forth.
            Versions::Many(many) if many.len() < VERSIONS_FEW.div_ceil(2) => {
                let few: Vec<ObjectEntry> = many.iter().map(|(_, entry)| entry.clone()).collect();
                *self = Versions::Few(few);
                if let Versions::Few(few) = self
                    && few.len() == 1
                    && let Some(one) = few.pop()
                {
                    *self = Versions::One(one);
                }
            }
            _ => {}
        }
        removed
    }

    pub(super) fn get(&self, seq: u64) -> Option<&ObjectEntry> {
        match self {
            Versions::One(one) => (one.seq == seq).then_some(one),
            Versions::Few(few) => few.binary_search_by_key(&seq, |entry| entry.seq).ok().map(|at| &few[at]),
            Versions::Many(many) => many.get(&seq),
        }
    }

    fn get_mut(&mut self, seq: u64) -> Option<&mut ObjectEntry> {
        match self {
            Versions::One(one) => (one.seq == seq).then_some(one),
            Versions::Few(few) => few.binary_search_by_key(&seq, |entry| entry.seq).ok().map(|at| &mut few[at]),
            Versions::Many(many) => many.get_mut(&seq),
        }
    }

    pub(super) fn newest(&self) -> &ObjectEntry {
        let newest = match self {
            Versions::One(one) => Some(one),
            Versions::Few(few) => few.last(),
            Versions::Many(many) => many.last(),
        };
        newest.expect("a name in the history has a version")
    }

    /// Returns the newest version with a lower number.
    pub(super) fn below(&self, seq: u64) -> Option<&ObjectEntry> {
        match self {
            Versions::One(one) => (one.seq < seq).then_some(one),
            Versions::Few(few) => few[..few.partition_point(|entry| entry.seq < seq)].last(),
            Versions::Many(many) => many.before(&seq),
        }
    }

    /// Returns the oldest version with a higher number.
    pub(super) fn above(&self, seq: u64) -> Option<&ObjectEntry> {
        match self {
            Versions::One(one) => (one.seq > seq).then_some(one),
            Versions::Few(few) => few[few.partition_point(|entry| entry.seq <= seq)..].first(),
            Versions::Many(many) => many.from(&(seq.saturating_add(1))).next().map(|(_, entry)| entry),
        }
    }

    /// Iterates over the versions with numbers from `seq` on, oldest first.
    pub(super) fn from(&self, seq: u64) -> impl Iterator<Item = &ObjectEntry> {
        let (few, many) = match self {
            Versions::One(one) => (std::slice::from_ref(one), None),
            Versions::Few(few) => (&few[..], None),
            Versions::Many(many) => (&[][..], Some(many)),
        };
        let few = &few[few.partition_point(|entry| entry.seq < seq)..];
        few.iter().chain(many.into_iter().flat_map(move |many| many.from(&seq).map(|(_, entry)| entry)))
    }

    /// Iterates over the versions, oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = &ObjectEntry> {
        let (few, many) = match self {
            Versions::One(one) => (std::slice::from_ref(one), None),
            Versions::Few(few) => (&few[..], None),
            Versions::Many(many) => (&[][..], Some(many)),
        };
        few.iter().chain(many.into_iter().flat_map(|many| many.iter().map(|(_, entry)| entry)))
    }

    fn allocated(&self) -> usize {
        match self {
            Versions::One(_) => 0,
            Versions::Few(few) => few.capacity() * size_of::<ObjectEntry>(),
            Versions::Many(many) => size_of::<SortedMap<u64, ObjectEntry>>() + many.allocated(),
        }
    }
}

/// The versions of a bucket's names, except for current objects.
#[derive(Debug, Default)]
pub(super) struct History {
    names: KeyMap<Versions>,
    /// Number of versions that are objects, and of markers.
    pub(super) objects: u64,
    pub(super) markers: u64,
    /// Plaintext bytes.
    pub(super) bytes: u64,
}

impl History {
    pub(super) fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    pub(super) fn get(&self, key: &str) -> Option<&Versions> {
        if self.names.is_empty() { None } else { self.names.get(key.as_bytes()) }
    }

    pub(super) fn get_mut(&mut self, key: &str, seq: u64) -> Option<&mut ObjectEntry> {
        self.names.get_mut(key.as_bytes())?.get_mut(seq)
    }

    pub(super) fn newest(&self, key: &str) -> Option<&ObjectEntry> {
        self.get(key).map(Versions::newest)
    }

    /// Adds a version that the name does not have.
    pub(super) fn add(&mut self, key: &str, entry: ObjectEntry) {
        if entry.is_marker() {
            self.markers += 1;
        } else {
            self.objects += 1;
            self.bytes = self.bytes.wrapping_add(entry.size);
        }
        match self.names.find(key.as_bytes()) {
            Ok(place) => self.names.at_mut(place).insert(entry),
            Err(place) => self.names.insert_at(place, key, Versions::One(entry)),
        }
    }

    pub(super) fn remove(&mut self, key: &str, seq: u64) -> Option<ObjectEntry> {
        let place = self.names.find(key.as_bytes()).ok()?;
        let versions = self.names.at_mut(place);
        let removed = match versions {
            Versions::One(one) if one.seq == seq => match self.names.remove_at(place) {
                Versions::One(one) => one,
                Versions::Few(_) | Versions::Many(_) => unreachable!("the name has one version"),
            },
            versions => versions.remove(seq)?,
        };
        if removed.is_marker() {
            self.markers -= 1;
        } else {
            self.objects -= 1;
            self.bytes = self.bytes.wrapping_sub(removed.size);
        }
        Some(removed)
    }

    /// Iterates over the names from a key on, in order.
    pub(super) fn from<'a>(&'a self, key: &[u8]) -> impl Iterator<Item = (&'a str, &'a Versions)> + use<'a> {
        self.names.from(key)
    }

    pub(super) fn allocated(&self) -> usize {
        self.names.allocated() + self.names.iter().map(|(_, versions)| versions.allocated()).sum::<usize>()
    }

    /// Returns the number of versions of a name.
    #[cfg(test)]
    fn count(&self, key: &str) -> usize {
        self.get(key).map_or(0, Versions::len)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::index::entry::{Bodies, Stamp};
    use crate::index::location::Location;

    fn entry(seq: u64, is_marker: bool) -> ObjectEntry {
        let bodies = if is_marker { Bodies::Marker } else { Bodies::from_vec(Vec::new()) };
        let stamp = Stamp::new(seq, 0, false);
        ObjectEntry { at: Location::LOST, seq, size: seq, stamp, digest: [0; 16], bodies }
    }

    /// Compares random operations on few and on many versions with the standard map.
    #[test]
    fn history_behaves_as_a_map_of_maps() {
        let mut random = fastrand::Rng::with_seed(3);
        for numbers in [3, 20, 2000] {
            let mut history = History::default();
            let mut model = BTreeMap::<u64, bool>::new();
            for step in 0..8000u64 {
                let seq = 1 + random.u64(..numbers);
                let grows = step / 2000 % 2 == 0;
                if random.u64(..10) < if grows { 7 } else { 2 } {
                    model.entry(seq).or_insert_with(|| {
                        let is_marker = seq.is_multiple_of(3);
                        history.add("k", entry(seq, is_marker));
                        is_marker
                    });
                } else {
                    let removed = history.remove("k", seq).map(|entry| entry.is_marker());
                    assert_eq!(removed, model.remove(&seq));
                }
                let seq = random.u64(..numbers + 2);
                let versions = history.get("k");
                let number = |entry: Option<&ObjectEntry>| entry.map(|entry| entry.seq);
                assert_eq!(
                    number(versions.and_then(|v| v.below(seq))),
                    model.range(..seq).next_back().map(|(&s, _)| s)
                );
                assert_eq!(number(versions.and_then(|v| v.above(seq))), model.range(seq + 1..).next().map(|(&s, _)| s));
                let from = versions.into_iter().flat_map(|v| v.from(seq)).map(|entry| entry.seq);
                assert!(from.eq(model.range(seq..).map(|(&s, _)| s)));
                assert_eq!(number(versions.and_then(|v| v.get(seq))), model.get_key_value(&seq).map(|(&s, _)| s));
                assert_eq!(number(history.newest("k")), model.last_key_value().map(|(&s, _)| s));
                assert_eq!(history.count("k"), model.len());
                if step % 500 == 0 {
                    assert!(history.get("k").into_iter().flat_map(Versions::iter).map(|e| &e.seq).eq(model.keys()));
                    assert_eq!(history.markers, model.values().filter(|is_marker| **is_marker).count() as u64);
                    assert_eq!(history.objects + history.markers, model.len() as u64);
                    let bytes: u64 = model.iter().filter(|(_, is_marker)| !**is_marker).map(|(seq, _)| seq).sum();
                    assert_eq!(history.bytes, bytes);
                }
            }
        }
    }

    #[test]
    fn noncurrent_version_takes_no_more_than_an_object() {
        let mut objects = KeyMap::default();
        let mut history = History::default();
        let mut long = History::default();
        for n in 0..20_000u64 {
            let key = format!("photos/{n:09}");
            objects.insert(&key, entry(n, false));
            history.add(&key, entry(n, false));
            long.add(&key[..key.len() - 1], entry(n, false));
        }
        assert!(history.allocated() <= objects.allocated());
        assert!(long.allocated() <= objects.allocated(), "{} {}", long.allocated(), objects.allocated());
    }
}
