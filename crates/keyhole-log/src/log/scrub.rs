//! Online verification of stored versions, one version per step.

use super::Log;
use super::objects::Wanted;
use crate::disk::Disk;
use crate::error::{Damage, Error};
use crate::limits::CHUNKS_MAX;
use crate::object::{FoundVersion, Object};
use crate::read::Located;
use crate::version_list::VersionInfo;
use crate::wire::payload::RecordPayload;

/// Position of a scrub. The default starts a new one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ScrubCursor {
    bucket: String,
    /// The version that was verified last, by key and sequence number.
    version: Option<(String, u64)>,
}

/// Result of one step of a scrub.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ScrubStep {
    /// The position to continue from; `None` at the end.
    pub next: Option<ScrubCursor>,
    /// Approximate bytes read and verified: the plaintext length of the object, 0 if it is evicted.
    pub bytes: u64,
    /// The damage found.
    pub findings: Vec<Damage>,
}

impl<D: Disk> Log<D> {
    /// Verifies the next version: its record and all of its bodies, and that their lengths agree. No
    /// key is needed.
    ///
    /// # Errors
    /// `Io`. Damage is not an error; it is returned in [`ScrubStep::findings`].
    pub async fn scrub(&self, cursor: ScrubCursor) -> Result<ScrubStep, Error> {
        let Some((bucket, VersionInfo { key, size, seq, .. })) = self.version_after(cursor) else {
            return Ok(ScrubStep::default());
        };
        let mut step = ScrubStep { bytes: size, ..ScrubStep::default() };
        let log = self.past_cache();
        match log.find_version(&bucket, &key, Wanted::Number(seq), false, usize::MAX).await {
            Ok(FoundVersion::Object(object, _)) if object.is_evicted => step.bytes = 0,
            Ok(FoundVersion::Object(object, _)) => log.scrub_object(&object, &mut step.findings).await?,
            // The version or its bucket has been deleted in the meantime.
            Ok(FoundVersion::Absent | FoundVersion::Long { .. }) | Err(Error::NoSuchBucket) => {}
            Ok(FoundVersion::Marker(_)) => step.findings.extend(log.damage_of_marker(&bucket, &key, seq).await?),
            Err(Error::Damaged(damage)) => step.findings.push(*damage),
            Err(error) => return Err(error),
        }
        step.findings = step.findings.into_iter().map(|damage| damage.of(Some(&bucket), Some(&key))).collect();
        step.next = Some(ScrubCursor { bucket, version: Some((key, seq)) });
        Ok(step)
    }

    fn version_after(&self, cursor: ScrubCursor) -> Option<(String, VersionInfo)> {
        let mut after = cursor.version;
        for bucket in self.buckets().into_iter().filter(|bucket| bucket.name >= cursor.bucket) {
            let after = after.take().filter(|_| bucket.name == cursor.bucket);
            let after = after.as_ref().map(|(key, seq)| (&**key, *seq));
            let Ok(versions) = self.versions_in_order(&bucket.name, after, 1) else { continue };
            if let Some(version) = versions.into_iter().next() {
                return Some((bucket.name, version));
            }
        }
        None
    }

    /// Verifies the record of a delete marker.
    async fn damage_of_marker(&self, bucket: &str, key: &str, seq: u64) -> Result<Option<Damage>, Error> {
        let located = {
            let mut state = self.store().lock();
            let entry = state.index.bucket(bucket).and_then(|(_, home)| home.version(key, seq));
            let Some(at) = entry.map(|entry| entry.at) else { return Ok(None) };
            Located::new(self.store(), &mut state, at)
        };
        let read = self.record(located, seq, |payload| matches!(payload, RecordPayload::MarkerPut(_)).then_some(()));
        match read.await {
            Ok(()) => Ok(None),
            Err(Error::Damaged(damage)) => Ok(Some(*damage)),
            Err(error) => Err(error),
        }
    }

    /// Verifies every block by itself: a damaged one says nothing about the others.
    async fn scrub_object(&self, object: &Object, findings: &mut Vec<Damage>) -> Result<(), Error> {
        for part in &object.parts {
            let body = match self.body(part).await {
                Ok(body) => body,
                // Since it was looked up.
                Err(Error::Evicted) => return Ok(()),
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
