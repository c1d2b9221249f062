//! Online verification of stored objects, one object per step.

use super::Log;
use crate::disk::Disk;
use crate::error::{Damage, Error};
use crate::limits::CHUNKS_MAX;
use crate::object::Object;
use crate::types::{ListObjects, Listed};

/// Position of a scrub. The default starts a new one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ScrubCursor {
    bucket: String,
    key: Option<String>,
}

/// Result of one step of a scrub.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ScrubStep {
    /// The position to continue from; `None` at the end.
    pub next: Option<ScrubCursor>,
    /// Approximate bytes read and verified: the plaintext length of the object.
    pub bytes: u64,
    /// The damage found.
    pub findings: Vec<Damage>,
}

impl<D: Disk> Log<D> {
    /// Verifies the next object: its record and all of its bodies, and that their lengths agree. No
    /// key is needed.
    ///
    /// # Errors
    /// `Io`. Damage is not an error; it is returned in [`ScrubStep::findings`].
    pub async fn scrub(&self, cursor: ScrubCursor) -> Result<ScrubStep, Error> {
        let Some((bucket, key, size)) = self.object_after(cursor) else { return Ok(ScrubStep::default()) };
        let mut step = ScrubStep { bytes: size, ..ScrubStep::default() };
        let log = self.past_cache();
        match log.object(&bucket, &key).await {
            Ok(Some(object)) => log.scrub_object(&object, &mut step.findings).await?,
            // The object or its bucket has been deleted in the meantime.
            Ok(None) | Err(Error::NoSuchBucket) => {}
            Err(Error::Damaged(damage)) => step.findings.push(*damage),
            Err(error) => return Err(error),
        }
        step.findings = step.findings.into_iter().map(|damage| damage.of(Some(&bucket), Some(&key))).collect();
        step.next = Some(ScrubCursor { bucket, key: Some(key) });
        Ok(step)
    }

    fn object_after(&self, cursor: ScrubCursor) -> Option<(String, String, u64)> {
        let mut after = cursor.key;
        for bucket in self.buckets().into_iter().filter(|bucket| bucket.name >= cursor.bucket) {
            let after = after.take().filter(|_| bucket.name == cursor.bucket);
            let list = ListObjects { after, limit: 1, ..ListObjects::default() };
            let Ok(listing) = self.list_objects(&bucket.name, &list) else { continue };
            if let Some(Listed::Object { key, size, .. }) = listing.entries.into_iter().next() {
                return Some((bucket.name, key, size));
            }
        }
        None
    }

    /// Verifies every block by itself: a damaged one says nothing about the others.
    async fn scrub_object(&self, object: &Object, findings: &mut Vec<Damage>) -> Result<(), Error> {
        for part in &object.parts {
            let body = match self.body(part).await {
                Ok(body) => body,
                Err(Error::Damaged(damage)) => {
                    findings.push(*damage);
                    continue;
                }
                Err(error) => return Err(error),
            };
            for index in 0..body.blocks() {
                match self.read_block(&body, index, 0..CHUNKS_MAX, self.disk().buffer()).await.0 {
                    Ok(_) => {}
                    Err(Error::Damaged(damage)) => findings.push(*damage),
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }
}
