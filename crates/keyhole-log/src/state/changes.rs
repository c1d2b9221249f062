//! The search for changes after a number.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use super::State;
use crate::changes::{Change, Changed, Changes};
use crate::index::ObjectEntry;
use crate::limits::CHANGES_BATCH;
use crate::version::VersionIds;

/// Position of the search: a bucket, and the first key and version in it to examine; without them, the
/// bucket itself.
#[derive(Debug, Default)]
pub(crate) struct ChangeCursor {
    bucket: u64,
    version: Option<(String, u64)>,
}

/// A change, ordered by its number. No two changes have the same.
struct ByNumber(Change);

impl Ord for ByNumber {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.number.cmp(&other.0.number)
    }
}

impl PartialOrd for ByNumber {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for ByNumber {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for ByNumber {}

/// The changes with the lowest numbers found so far, the highest on top, and the totals of all.
pub(crate) struct ChangeCollector {
    after: u64,
    limit: usize,
    /// Versions visited per lock acquisition.
    batch: usize,
    lowest: BinaryHeap<ByNumber>,
    /// The result, without the changes.
    totals: Changes,
}

impl ChangeCollector {
    /// Collects at most `limit` changes with numbers above `after` and up to `settled`.
    pub(crate) fn new(after: u64, settled: u64, limit: usize) -> Self {
        let totals = Changes { settled, ..Changes::default() };
        ChangeCollector { after, limit, batch: CHANGES_BATCH, lowest: BinaryHeap::new(), totals }
    }

    fn is_in_range(&self, number: u64) -> bool {
        self.after < number && number <= self.totals.settled
    }

    fn count(&mut self, entry: &ObjectEntry) {
        self.totals.versions += 1;
        self.totals.bytes += entry.size;
        let time_ms = entry.time_ms();
        self.totals.oldest_ms = Some(self.totals.oldest_ms.map_or(time_ms, |oldest| oldest.min(time_ms)));
    }

    /// Adds a change. `change` is called only if it is among the lowest so far.
    fn add(&mut self, number: u64, change: impl FnOnce() -> Change) {
        if self.lowest.len() < self.limit {
            self.lowest.push(ByNumber(change()));
            return;
        }
        self.totals.has_more = true;
        if let Some(mut highest) = self.lowest.peek_mut()
            && highest.0.number > number
        {
            *highest = ByNumber(change());
        }
    }

    pub(crate) fn finish(self) -> Changes {
        let found = self.lowest.into_sorted_vec().into_iter().map(|ByNumber(change)| change).collect();
        Changes { found, ..self.totals }
    }
}

impl State {
    /// Visits the next versions from `cursor` and returns the position to continue from.
    pub(crate) fn changes(
        &self,
        cursor: ChangeCursor,
        ids: VersionIds,
        found: &mut ChangeCollector,
        concerns: &impl Fn(&str, &str) -> bool,
        concerns_bucket: &impl Fn(&str) -> bool,
    ) -> Option<ChangeCursor> {
        let mut next = cursor;
        let mut seen = 0;
        loop {
            let (id, home) = self.index.next_bucket(next.bucket)?;
            // All that a later bucket has is later.
            if id > found.totals.settled {
                return None;
            }
            // If the bucket has been deleted, this is another one, to be visited from its start.
            let first = next.version.filter(|_| id == next.bucket);
            if first.is_none() {
                seen += 1;
                let number = home.newest_record(id);
                if found.is_in_range(number) && concerns_bucket(home.name()) {
                    found.add(number, || Change { number, bucket: home.name().to_owned(), what: Changed::Bucket });
                }
            }
            let (first_key, first_seq) = first.as_ref().map_or(("", 0), |(key, seq)| (key.as_str(), *seq));
            for name in home.names_from(first_key.as_bytes()) {
                let from = if name.key == first_key { first_seq } else { 0 };
                // Oldest first: a version that becomes current or noncurrent keeps its place.
                for entry in name.oldest_first_from(from) {
                    if seen >= found.batch {
                        return Some(ChangeCursor { bucket: id, version: Some((name.key.to_owned(), entry.seq)) });
                    }
                    seen += 1;
                    let number = home.newest_record_of(entry.seq);
                    if !found.is_in_range(number) || !concerns(home.name(), name.key) {
                        continue;
                    }
                    found.count(entry);
                    let what = || Changed::Version(home.version_info(&name, entry, ids));
                    found.add(number, || Change { number, bucket: home.name().to_owned(), what: what() });
                }
            }
            next = ChangeCursor { bucket: id + 1, version: None };
            if seen >= found.batch {
                return Some(next);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use super::*;
    use crate::index::{Bodies, Effect, Key, Location, Put, PutMarker, VersionOf};
    use crate::limits::SEGMENTS_START;
    use crate::types::{BucketSettings, Etag};
    use crate::version::Lock;
    use crate::wire::payload::RecordedId;

    fn numbers(limit: usize, calls: &mut usize) -> (Vec<u64>, bool) {
        let mut found = ChangeCollector::new(2, 8, limit);
        for number in [9, 3, 7, 1, 8, 2, 6, 5, 4] {
            if found.is_in_range(number) {
                found.add(number, || {
                    *calls += 1;
                    Change { number, bucket: String::new(), what: Changed::Bucket }
                });
            }
        }
        let changes = found.finish();
        (changes.found.iter().map(|change| change.number).collect(), changes.has_more)
    }

    #[test]
    fn collector_keeps_the_lowest_numbers_of_its_range() {
        let mut calls = 0;
        assert_eq!(numbers(3, &mut calls), (vec![3, 4, 5], true));
        assert_eq!(calls, 6, "3, 7 and 8, and each that is lower than the highest");
        assert_eq!(numbers(6, &mut calls), (vec![3, 4, 5, 6, 7, 8], false));
        assert_eq!(numbers(5, &mut calls), (vec![3, 4, 5, 6, 7], true));
        calls = 0;
        assert_eq!(numbers(0, &mut calls), (vec![], true));
        assert_eq!(calls, 0);
    }

    /// A state that records are applied to.
    struct Applied {
        state: State,
        random: fastrand::Rng,
    }

    impl Applied {
        /// Applies a random record.
        fn step(&mut self) {
            let seq = self.state.numbers.next();
            let at = Location::new(SEGMENTS_START + seq % 64 * 4096, 64);
            let effect = self.effect();
            assert_eq!(self.state.numbers.record(), seq);
            self.state.numbers.durable([seq]);
            // Not with the state's `apply`, which would end a reservation.
            self.state.index.apply(seq, at, &effect).unwrap();
            self.state.numbers.settled(seq);
        }

        fn effect(&mut self) -> Effect {
            let random = &mut self.random;
            let name = ["a", "b"][random.usize(..2)];
            let index = &self.state.index;
            let Some((bucket, home)) = index.bucket(name) else {
                return Effect::CreateBucket { name: name.into(), time_ms: 0, tags: Arc::default() };
            };
            let key = Key(["k", "l", "m", "n"][random.usize(..4)].into());
            let id = if random.bool() { RecordedId::Null } else { RecordedId::Own };
            let versions: Vec<(Key, u64)> = home
                .names_from(b"")
                .flat_map(|name| name.oldest_first().map(move |entry| (Key(name.key.into()), entry.seq)))
                .collect();
            let version = random.choice(&versions);
            let of = |(key, version): &(Key, u64)| VersionOf { bucket, key: key.clone(), version: *version };
            match (random.u8(..24), version) {
                (0, None) => Effect::DeleteBucket { bucket },
                (1, _) => Effect::SetBucket { bucket, settings: BucketSettings::default() },
                (2..=4, Some(version)) => Effect::LockVersion { of: of(version), lock: Lock::default() },
                (5..=7, Some(version)) => Effect::TagVersion(of(version)),
                (8..=15, Some(version)) => Effect::DeleteVersion(of(version)),
                (16, Some(_)) => Effect::Delete { bucket, key },
                (17..=18, _) => Effect::Marker(PutMarker { bucket, key, time_ms: 0, id }),
                _ => Effect::Put(Put {
                    bucket,
                    key,
                    size: 1,
                    time_ms: 0,
                    etag: Etag { digest: [0; 16], parts: 0 },
                    sealed: false,
                    bodies: Bodies::from_vec(Vec::new()),
                    upload: None,
                    id,
                    lock: Lock::default(),
                }),
            }
        }

        /// Returns the numbers of all versions and buckets.
        fn all(&self) -> BTreeSet<u64> {
            let mut all = BTreeSet::new();
            let mut next = 0;
            while let Some((id, home)) = self.state.index.next_bucket(next) {
                next = id + 1;
                all.insert(home.newest_record(id));
                let versions = home.names_from(b"").flat_map(|name| name.oldest_first());
                all.extend(versions.map(|entry| home.newest_record_of(entry.seq)));
            }
            all
        }
    }

    /// Records are applied between the steps of a pass. Each change in the range that is there before and
    /// after the pass is found, unless it is beyond the limit.
    #[test]
    fn pass_misses_no_change_while_records_are_applied() {
        let ids = VersionIds::default();
        let mut applied = Applied { state: State::empty(), random: fastrand::Rng::with_seed(7) };
        applied.state.index.replayed();
        let mut most = 0;
        for _ in 0..3000 {
            for _ in 0..applied.random.usize(..6) {
                applied.step();
            }
            let settled = applied.state.numbers.settled_through();
            let before = applied.all();
            let after = applied.random.u64(settled.saturating_sub(60)..=settled);
            let limit = applied.random.usize(1..12);
            let batch = applied.random.usize(1..5);
            let mut found = ChangeCollector { batch, ..ChangeCollector::new(after, settled, limit) };
            let mut next = Some(ChangeCursor::default());
            while let Some(cursor) = next {
                next = applied.state.changes(cursor, ids, &mut found, &|_, _| true, &|_| true);
                for _ in 0..applied.random.usize(..3) {
                    applied.step();
                }
            }
            let at_end = applied.all();
            let changes = found.finish();
            let found: Vec<u64> = changes.found.iter().map(|change| change.number).collect();
            assert!(found.is_sorted_by(|a, b| a < b) && found.len() <= limit);
            assert!(found.iter().all(|number| before.contains(number)), "{found:?} of {before:?}");
            let end = if changes.has_more { found.last().copied().unwrap_or(after) } else { settled };
            let in_range = before.iter().filter(|&&number| after < number && number <= end);
            let mut lasting = in_range.filter(|number| at_end.contains(number));
            assert!(lasting.all(|number| found.contains(number)), "{found:?} of {before:?}");
            most = most.max(before.len());
        }
        assert!(most > 12, "{most}");
    }
}
