//! Expiration: S3 lifecycle rules, and the maximum age set by the operator.

use keyhole_log::limits::LIFECYCLE_MAX;
use keyhole_log::{BucketSettings, Disk, Expired, Log, NoncurrentVersion};
use keyhole_s3::ops::Lifecycle;
use keyhole_s3::{Error, ErrorCode, time, xml};

use crate::failure::Result;
use crate::host::Host;
use crate::http::{Connection, Response};
use crate::limits::CLOCK_STEP_MAX_MS;
use crate::node::Node;
use crate::platform::Platform;
use crate::request::Request;

/// The event of an object that is deleted because it has expired.
pub const EXPIRATION: &str = "Expiration";

/// The event of a noncurrent version that is deleted because it has expired.
pub const VERSION_EXPIRATION: &str = "VersionExpiration";

/// The event of a delete marker that is removed because it is the only version of its name.
pub const MARKER_EXPIRATION: &str = "MarkerExpiration";

/// The event of an upload that is aborted because it has expired.
pub const UPLOAD_EXPIRATION: &str = "UploadExpiration";

/// The result of an expiration pass.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Pass {
    /// Nothing was deleted: the clock is well behind the time of a stored object, so one of the two
    /// is wrong.
    Behind {
        /// The time of that object, in ms since 1970.
        stored_ms: u64,
        /// The bucket of that object.
        bucket: String,
    },
    /// The pass is complete.
    Done {
        /// Number of expired objects. With versioning, each now has a delete marker.
        objects: u64,
        /// Number of deleted noncurrent versions.
        noncurrent: u64,
        /// Number of removed delete markers.
        markers: u64,
        /// Number of aborted uploads.
        uploads: u64,
    },
}

/// Deletes the objects and aborts the uploads that are due under their bucket's settings. Rules
/// that cannot be decoded, because a later version wrote them, delete nothing. Calls `gone` for each
/// object and upload, with the name of the event.
///
/// # Errors
/// The errors of any write. Deletions up to then are final.
pub async fn expire<D: Disk>(
    log: &Log<D>,
    host: &Host,
    gone: impl Fn(&'static str, &Expired<'_>),
) -> std::result::Result<Pass, keyhole_log::Error> {
    let newest = log.newest(|settings| settings.expire_ms.is_some() || !settings.lifecycle.is_empty()).await;
    // Read the clock after the search, because objects are stored meanwhile.
    let now_ms = host.now_ms();
    if let Some((stored_ms, bucket)) = newest
        && is_behind(now_ms, stored_ms)
    {
        return Ok(Pass::Behind { stored_ms, bucket });
    }
    let of_object = |expired: &Expired<'_>| gone(EXPIRATION, expired);
    let objects = log.expire_reporting(now_ms, |settings| is_object_due(settings, now_ms), of_object).await?;
    let of_version = |expired: &Expired<'_>| gone(VERSION_EXPIRATION, expired);
    let is_due = |settings: &BucketSettings| is_noncurrent_due(settings, now_ms);
    let noncurrent = log.expire_noncurrent_reporting(now_ms, is_due, of_version).await?;
    // After the noncurrent versions, so that a marker that becomes the only version goes in the same pass.
    let of_marker = |expired: &Expired<'_>| gone(MARKER_EXPIRATION, expired);
    let markers = log.expire_markers_reporting(now_ms, |settings| is_marker_due(settings, now_ms), of_marker).await?;
    let of_upload = |expired: &Expired<'_>| gone(UPLOAD_EXPIRATION, expired);
    let uploads = log.abort_reporting(now_ms, |settings| is_upload_due(settings, now_ms), of_upload).await?;
    Ok(Pass::Done { objects, noncurrent, markers, uploads })
}

/// Returns the newest time of a stored object or upload, and its bucket, if the clock is well
/// behind it. Skips the search if [`Stats::newest_ms`](keyhole_log::Stats::newest_ms) already
/// excludes it.
pub async fn clock_behind<D: Disk>(log: &Log<D>, host: &Host) -> Option<(u64, String)> {
    if !is_behind(host.now_ms(), log.store().newest_ms()) {
        return None;
    }
    log.newest(|_| true).await.filter(|(stored_ms, _)| is_behind(host.now_ms(), *stored_ms))
}

fn is_behind(now_ms: u64, newest_ms: u64) -> bool {
    now_ms.saturating_add(CLOCK_STEP_MAX_MS) < newest_ms
}

fn is_object_due(settings: &BucketSettings, now_ms: u64) -> Option<impl Fn(&str, u64, u64) -> bool + use<>> {
    let (expire_ms, lifecycle) = (settings.expire_ms, rules(settings));
    (expire_ms.is_some() || !lifecycle.is_empty()).then_some(move |key: &str, stored_ms: u64, size: u64| {
        expire_ms.is_some_and(|expire_ms| stored_ms.saturating_add(expire_ms) <= now_ms)
            || lifecycle.expiration(key, size, stored_ms).is_some_and(|due| due.at_ms <= now_ms)
    })
}

fn is_noncurrent_due(
    settings: &BucketSettings,
    now_ms: u64,
) -> Option<impl Fn(&NoncurrentVersion<'_>) -> bool + use<>> {
    let lifecycle = rules(settings);
    (!lifecycle.is_empty()).then_some(move |version: &NoncurrentVersion<'_>| {
        let size = if version.is_marker { 0 } else { version.size };
        let due = lifecycle.noncurrent_expiration(version.key, size, version.since_ms, version.newer);
        due.is_some_and(|due| due.at_ms <= now_ms)
    })
}

fn is_marker_due(settings: &BucketSettings, now_ms: u64) -> Option<impl Fn(&str, u64) -> bool + use<>> {
    let lifecycle = rules(settings);
    (!lifecycle.is_empty()).then_some(move |key: &str, stored_ms: u64| {
        lifecycle.marker_expiration(key, stored_ms).is_some_and(|due| due.at_ms <= now_ms)
    })
}

fn is_upload_due(settings: &BucketSettings, now_ms: u64) -> Option<impl Fn(&str, u64) -> bool + use<>> {
    let lifecycle = rules(settings);
    (!lifecycle.is_empty()).then_some(move |key: &str, created_ms: u64| {
        lifecycle.abortion(key, created_ms).is_some_and(|due| due.at_ms <= now_ms)
    })
}

/// Decodes a bucket's rules; undecodable ones are ignored.
fn rules(settings: &BucketSettings) -> Lifecycle {
    Lifecycle::from_bytes(&settings.lifecycle).unwrap_or_default()
}

/// Returns the number of S3 rules of a bucket, or `None` if they cannot be decoded and have no
/// effect.
pub fn rule_count(settings: &BucketSettings) -> Option<usize> {
    Lifecycle::from_bytes(&settings.lifecycle).map(|lifecycle| lifecycle.rules.len())
}

impl<P: Platform> Node<P> {
    /// Handles PutBucketLifecycleConfiguration: replaces the bucket's rules.
    pub(crate) async fn put_bucket_lifecycle(
        &self,
        connection: &mut Connection<P::Stream>,
        request: &Request<'_>,
    ) -> Result<Response<'_, P>> {
        let (bucket, document) = self.bucket_document(connection, request).await?;
        let lifecycle = xml::parse_lifecycle(&document)?.to_bytes();
        if lifecycle.len() > LIFECYCLE_MAX {
            let message = format!(
                "The rules take {} bytes, and a bucket has room for {LIFECYCLE_MAX}. Use fewer rules, or shorter ids and \
                prefixes.",
                lifecycle.len()
            );
            return Err(Error::new(ErrorCode::InvalidRequest).with_message(message).into());
        }
        self.set_lifecycle(bucket, &lifecycle).await?;
        Ok(Response::new(200))
    }

    /// Handles GetBucketLifecycleConfiguration.
    pub(crate) fn bucket_lifecycle(&self, request: &Request<'_>) -> Result<Response<'_, P>> {
        let (settings, _) = self.log.bucket_settings(request.bucket()?).ok_or(ErrorCode::NoSuchBucket)?;
        match Lifecycle::from_bytes(&settings.lifecycle) {
            None => {
                let message = "The bucket has lifecycle rules that this version of the node cannot read, and that do nothing \
                    meanwhile. Set them again.";
                Err(Error::new(ErrorCode::NotImplemented).with_message(message).into())
            }
            Some(lifecycle) if lifecycle.is_empty() => Err(ErrorCode::NoSuchLifecycleConfiguration.into()),
            Some(lifecycle) => Ok(Response::xml(200, xml::lifecycle(&lifecycle))),
        }
    }

    /// Handles DeleteBucketLifecycle: 204 whether there are rules or not.
    pub(crate) async fn delete_bucket_lifecycle(&self, request: &Request<'_>) -> Result<Response<'_, P>> {
        self.set_lifecycle(request.bucket()?, &[]).await?;
        Ok(Response::new(204))
    }

    async fn set_lifecycle(&self, bucket: &str, lifecycle: &[u8]) -> Result<()> {
        let change = |settings: &mut BucketSettings| {
            settings.lifecycle = lifecycle.into();
            Ok(())
        };
        self.change_bucket(bucket, change).await
    }

    /// Adds the time at which the object expires and the rule's id, if a rule applies.
    pub(crate) fn with_expiration<'n>(
        &self,
        response: Response<'n, P>,
        bucket: &str,
        key: &str,
        size: u64,
        stored_ms: u64,
    ) -> Response<'n, P> {
        let Some(lifecycle) = self.lifecycle(bucket) else { return response };
        match lifecycle.expiration(key, size, stored_ms) {
            Some(due) => response.header("x-amz-expiration", due.to_string()),
            None => response,
        }
    }

    /// Adds the time at which an uncompleted upload is aborted and the rule's id, if a rule
    /// applies.
    pub(crate) fn with_abortion<'n>(
        &self,
        response: Response<'n, P>,
        bucket: &str,
        key: &str,
        created_ms: u64,
    ) -> Response<'n, P> {
        let Some(lifecycle) = self.lifecycle(bucket) else { return response };
        match lifecycle.abortion(key, created_ms) {
            Some(due) => response
                .header("x-amz-abort-date", time::http_date(due.at_ms))
                .header("x-amz-abort-rule-id", due.encoded_rule()),
            None => response,
        }
    }

    fn lifecycle(&self, bucket: &str) -> Option<Lifecycle> {
        let bytes = self.log.bucket_lifecycle(bucket)?;
        Lifecycle::from_bytes(&bytes)
    }
}

#[cfg(test)]
mod tests {
    use keyhole_s3::ops::{Expiration, Rule};

    use super::*;

    const DAY_MS: u64 = 24 * 60 * 60 * 1000;

    #[test]
    fn clock_behind_by_more_than_the_step_is_detected() {
        assert!(!is_behind(0, 0) && !is_behind(1, 0) && !is_behind(5, 5 + CLOCK_STEP_MAX_MS));
        assert!(is_behind(5, 6 + CLOCK_STEP_MAX_MS) && !is_behind(u64::MAX, u64::MAX));
    }

    #[test]
    fn objects_and_uploads_become_due_by_rules_and_age() {
        let rule = |prefix: &str, expiration, abort_days| Rule {
            id: "r".to_owned(),
            enabled: true,
            prefix: Some(prefix.to_owned()),
            expiration,
            abort_days,
            ..Rule::default()
        };
        let rules = vec![
            rule("a/", Some(Expiration::Days(1)), None),
            rule("b/", Some(Expiration::Date(5 * DAY_MS)), None),
            rule("c/", None, Some(2)),
            Rule { larger_than: Some(9), ..rule("d/", Some(Expiration::Days(1)), None) },
        ];
        let lifecycle: std::sync::Arc<[u8]> = Lifecycle { rules }.to_bytes().into();
        let settings = BucketSettings { lifecycle, ..BucketSettings::default() };
        let object = |now_ms: u64, key: &str| is_object_due(&settings, now_ms).unwrap()(key, 1, 9);
        let upload = |now_ms: u64, key: &str| is_upload_due(&settings, now_ms).unwrap()(key, 1);
        for (key, at_ms) in [("a/x", 2 * DAY_MS), ("b/x", 5 * DAY_MS)] {
            assert!(!object(at_ms - 1, key) && object(at_ms, key) && !upload(u64::MAX, key), "{key}");
        }
        assert!(!upload(3 * DAY_MS - 1, "c/x") && upload(3 * DAY_MS, "c/x") && !object(u64::MAX, "c/x"));
        assert!(!object(u64::MAX, "a") && !object(u64::MAX, "x/a/") && !object(u64::MAX, "d/x"));
        assert!(is_object_due(&settings, u64::MAX).unwrap()("d/x", 1, 10));

        // The operator's maximum age, together with rules and alone.
        let both = BucketSettings { expire_ms: Some(7), ..settings.clone() };
        let due = is_object_due(&both, 8).unwrap();
        assert!(due("x", 1, 9) && !due("x", 2, 9) && !due("a/x", 2, 9));
        let alone = BucketSettings { expire_ms: Some(7), ..BucketSettings::default() };
        assert!(is_object_due(&alone, 8).unwrap()("x", 1, 9) && is_upload_due(&alone, 8).is_none());
        let none = BucketSettings::default();
        assert!(is_object_due(&none, 8).is_none() && is_upload_due(&none, 8).is_none());
        // Rules written by a later version have no effect.
        let later = BucketSettings { lifecycle: vec![2, 0].into(), ..BucketSettings::default() };
        assert!(is_object_due(&later, u64::MAX).is_none() && is_upload_due(&later, u64::MAX).is_none());
        assert_eq!((rule_count(&later), rule_count(&settings), rule_count(&none)), (None, Some(4), Some(0)));
    }
}
