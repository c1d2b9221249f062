//! Objects that go by themselves: because their time is over, or to make room.

use std::collections::BinaryHeap;

use super::Log;
use crate::disk::Disk;
use crate::error::Error;
use crate::limits::EXPIRE_BATCH;
use crate::shared::State;
use crate::types::Condition;

/// An object that is to go, unless it is another one by then.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Due {
    seq: u64,
    bucket: String,
    key: String,
}

impl<D: Disk> Log<D> {
    /// Deletes the objects whose time is over: those stored longer ago than [`expire_ms`](crate::BucketSettings::expire_ms) of
    /// their bucket. An object stored after `now_ms`, by a clock that was ahead, stays. The result is how many went.
    ///
    /// # Errors
    /// Those of every write. What was deleted until then is deleted.
    pub async fn expire(&self, now_ms: u64) -> Result<u64, Error> {
        let mut expired = 0;
        let buckets: Vec<String> = self.buckets().into_iter().map(|bucket| bucket.name).collect();
        for bucket in buckets {
            let mut from = String::new();
            while let Some((due, next)) = self.due(&bucket, &from, now_ms) {
                expired += self.drop_all(due, now_ms).await?;
                from = next;
            }
        }
        Ok(expired)
    }

    /// Those of the next keys of a bucket that are due, and where to go on; `None` at the end.
    fn due(&self, bucket: &str, from: &str, now_ms: u64) -> Option<(Vec<Due>, String)> {
        let state = self.shared().lock();
        let (_, home) = state.index.bucket(bucket)?;
        let expire_ms = home.settings().expire_ms?;
        let (mut due, mut seen) = (Vec::new(), 0);
        for (key, entry) in home.objects_from(from) {
            if seen == EXPIRE_BATCH {
                return Some((due, key.to_owned()));
            }
            seen += 1;
            if entry.time_ms().saturating_add(expire_ms) <= now_ms {
                due.push(Due { seq: entry.seq, bucket: bucket.to_owned(), key: key.to_owned() });
            }
        }
        // After the last key there is nothing; a name that sorts behind it ends the search next time.
        (seen > 0).then(|| (due, format!("{}\0", home.last_key().unwrap_or_default())))
    }

    /// Deletes objects, all at once so that they share commits; how many went.
    async fn drop_all(&self, due: Vec<Due>, now_ms: u64) -> Result<u64, Error> {
        let deletions = due
            .iter()
            .map(|Due { seq, bucket, key }| self.delete_object_of(bucket, key, now_ms, Condition::None, Some(*seq)));
        let mut dropped = 0;
        for outcome in futures_util::future::join_all(deletions).await {
            match outcome {
                Ok(there) => dropped += u64::from(there),
                // The bucket went, or somebody is at this name right now: it is not ours to delete any more.
                Err(Error::NoSuchBucket | Error::Conflict) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(dropped)
    }

    /// Drops the oldest objects, until they had `bytes` together. How many went; 0: there is nothing to drop.
    pub(crate) async fn drop_oldest(&self, bytes: u64) -> Result<u64, Error> {
        let mut oldest = Oldest::default();
        let mut from = Some((0, String::new()));
        while let Some((bucket, key)) = from {
            from = self.shared().lock().oldest(bucket, &key, bytes, &mut oldest);
        }
        let mut dropped = 0;
        let mut due = oldest.heap.into_iter().map(|(_, _, due)| due).peekable();
        while due.peek().is_some() {
            dropped += self.drop_all(due.by_ref().take(EXPIRE_BATCH).collect(), 0).await?;
        }
        Ok(dropped)
    }
}

/// The oldest objects found so far, the youngest of them on top: sequence number, bytes, name.
#[derive(Default)]
struct Oldest {
    heap: BinaryHeap<(u64, u64, Due)>,
    bytes: u64,
}

impl Oldest {
    /// Takes one more; those that are not needed for so many bytes go.
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
    /// Looks at the next objects from this key of this bucket on; where to go on.
    fn oldest(&self, bucket: u64, key: &str, wanted: u64, oldest: &mut Oldest) -> Option<(u64, String)> {
        let (id, home) = self.index.next_bucket(bucket)?;
        let key = if id == bucket { key } else { "" };
        for (seen, (key, entry)) in home.objects_from(key).enumerate() {
            if seen == EXPIRE_BATCH {
                return Some((id, key.to_owned()));
            }
            let due = || Due { seq: entry.seq, bucket: home.name().to_owned(), key: key.to_owned() };
            oldest.take(entry.seq, u64::from(entry.at.len()) + entry.size, due, wanted);
        }
        Some((id + 1, String::new()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_are_as_many_as_are_needed() {
        let mut oldest = Oldest::default();
        for seq in [9, 3, 7, 1, 8, 2, 6, 5, 4] {
            oldest.take(seq, 10, || Due { seq, bucket: String::new(), key: String::new() }, 25);
        }
        let mut seqs: Vec<u64> = oldest.heap.into_iter().map(|(seq, ..)| seq).collect();
        seqs.sort_unstable();
        assert_eq!(seqs, [1, 2, 3]);
    }
}
