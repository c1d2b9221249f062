//! A recount of live bytes, to verify the counters.

use super::Index;
use super::location::Live;

/// A segment whose live byte counter is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LiveMismatch {
    /// Number of the segment.
    pub segment: u32,
    /// Live bytes according to the counter.
    pub kept: u64,
    /// Live bytes according to the recount.
    pub counted: u64,
}

impl Index {
    /// Counts the live bytes of each segment from the references in the index.
    pub(crate) fn recount(&self) -> Vec<LiveMismatch> {
        let mut live = Live::new(self.live.segment_len());
        for bucket in self.buckets.values() {
            live.add(bucket.at);
            bucket.settings.iter().for_each(|settings| live.add(settings.at));
            bucket.names_from(b"").flat_map(|name| name.oldest_first()).for_each(|entry| live.add(entry.at));
            bucket.attributes.places().for_each(|at| live.add(at));
            for (_, upload) in bucket.uploads.iter() {
                live.add(upload.at);
                upload.parts.iter().for_each(|part| live.add(part.at));
            }
        }
        for (_, body) in self.bodies.iter() {
            live.add(body.at);
            live.add_shares(&body.shares);
        }
        let own_holds: u64 = self.buckets.values().map(|bucket| bucket.attributes.count_own_holds()).sum();
        debug_assert_eq!(self.totals.own_holds, own_holds, "legal holds in records of their versions");
        debug_assert_eq!((self.totals.evicted, self.totals.evicted_bytes), self.count_evicted(), "evicted versions");
        let checkpoints = self.checkpoints.iter().flat_map(|checkpoint| &checkpoint.records);
        checkpoints.chain(&self.building).for_each(|&at| live.add(at));
        let numbers = 0..self.live.segment_count().max(live.segment_count());
        let all =
            numbers.map(|segment| LiveMismatch { segment, kept: self.live.of(segment), counted: live.of(segment) });
        all.filter(|mismatch| mismatch.kept != mismatch.counted).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::location::{Location, Share, Shares};
    use crate::limits::{PAGE, SEGMENTS_START};
    use crate::types::BodyId;

    #[test]
    fn recount_reports_leaked_live_bytes() {
        let mut index = Index { live: Live::new(1 << 20), ..Index::default() };
        let shares = Shares::from_vec(vec![Share { segment: 3, pages: 2 }]);
        index.add_body(BodyId(1), Location::new(SEGMENTS_START, 64), shares.clone());
        assert_eq!(index.recount(), []);
        index.live.add_shares(&shares);
        let counted = 2 * PAGE as u64;
        let kept = 4 * PAGE as u64;
        assert_eq!(index.recount(), [LiveMismatch { segment: 3, kept, counted }]);
    }
}
