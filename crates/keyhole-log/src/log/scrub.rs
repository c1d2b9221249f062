//! Verifying what is stored, object by object, while everything else goes on.

use super::Log;
use crate::disk::Disk;
use crate::error::{Damage, Error};
use crate::limits::CHUNKS_MAX;
use crate::types::{ListObjects, Listed, Object};

/// How far a scrub has come. The default begins one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ScrubCursor {
    bucket: String,
    key: Option<String>,
}

/// What a step of a scrub has verified.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ScrubStep {
    /// Where to go on; `None` at the end.
    pub next: Option<ScrubCursor>,
    /// Bytes that were read and verified, about: the plaintext length of the object.
    pub bytes: u64,
    /// What does not verify.
    pub findings: Vec<Damage>,
}

impl<D: Disk> Log<D> {
    /// Verifies the next object: its record, and all of its bodies. No key is needed.
    ///
    /// # Errors
    /// `Io`. What does not verify is no error: it is in [`ScrubStep::findings`].
    pub async fn scrub(&self, cursor: ScrubCursor) -> Result<ScrubStep, Error> {
        let Some((bucket, key, size)) = self.object_after(cursor) else { return Ok(ScrubStep::default()) };
        let mut step = ScrubStep { bytes: size, ..ScrubStep::default() };
        match self.object(&bucket, &key).await {
            Ok(Some(object)) => self.scrub_object(&object, &mut step.findings).await?,
            // It has been deleted meanwhile, or its bucket has.
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

    /// Every block for itself: one that is damaged says nothing about the others.
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
