//! Object lock: the configuration of buckets, and the retention and legal holds of versions.
//!
//! The log enforces locks, by the lock clock. This module checks what S3 refuses before that: locks in
//! a bucket without object lock, bodies without a digest, and callers without the right.
//!
//! Unlike S3, GetObjectLegalHold reports `OFF` also for a version whose hold was never set.

use keyhole_log::{BucketLock, BucketSettings, Lock, UploadRef, VersionId, Versioning};
use keyhole_s3::ops::{self, DigestedBody, RequestedLock};
use keyhole_s3::{Error, ErrorCode, xml};

use crate::access::Right;
use crate::failure::Result;
use crate::http::{Connection, Response};
use crate::node::{Document, Node};
use crate::object_memory::FoundObject;
use crate::platform::Platform;
use crate::request::{ObjectName, Request};
use crate::versions::{log_version, object_version};

fn log_mode(mode: ops::RetentionMode) -> keyhole_log::RetentionMode {
    match mode {
        ops::RetentionMode::Governance => keyhole_log::RetentionMode::Governance,
        ops::RetentionMode::Compliance => keyhole_log::RetentionMode::Compliance,
    }
}

fn s3_mode(mode: keyhole_log::RetentionMode) -> ops::RetentionMode {
    match mode {
        keyhole_log::RetentionMode::Governance => ops::RetentionMode::Governance,
        keyhole_log::RetentionMode::Compliance => ops::RetentionMode::Compliance,
    }
}

fn log_retention(retention: ops::Retention) -> keyhole_log::Retention {
    keyhole_log::Retention { mode: log_mode(retention.mode), until_ms: retention.until_ms }
}

fn s3_retention(retention: keyhole_log::Retention) -> ops::Retention {
    ops::Retention { mode: s3_mode(retention.mode), until_ms: retention.until_ms }
}

fn log_default(default: ops::DefaultRetention) -> keyhole_log::DefaultRetention {
    let period = match default.period {
        ops::RetentionPeriod::Days(days) => keyhole_log::RetentionPeriod::Days(days),
        ops::RetentionPeriod::Years(years) => keyhole_log::RetentionPeriod::Years(years),
    };
    keyhole_log::DefaultRetention { mode: log_mode(default.mode), period }
}

fn s3_default(default: keyhole_log::DefaultRetention) -> ops::DefaultRetention {
    let period = match default.period {
        keyhole_log::RetentionPeriod::Days(days) => ops::RetentionPeriod::Days(days),
        keyhole_log::RetentionPeriod::Years(years) => ops::RetentionPeriod::Years(years),
    };
    ops::DefaultRetention { mode: s3_mode(default.mode), period }
}

/// Returns the response headers of a version's lock.
pub(crate) fn lock_headers(lock: &Lock) -> impl Iterator<Item = (&'static str, String)> + use<> {
    ops::lock_headers(lock.retention.map(s3_retention), lock.hold)
}

impl<P: Platform> Node<P> {
    /// Returns the object lock of a bucket.
    fn bucket_lock(&self, bucket: &str) -> Result<Option<BucketLock>> {
        Ok(self.log.bucket_versioning(bucket).ok_or(ErrorCode::NoSuchBucket)?.1)
    }

    /// Returns the object lock of the bucket of a request about a lock.
    fn require_bucket_lock(&self, bucket: &str) -> Result<BucketLock> {
        Ok(self.bucket_lock(bucket)?.ok_or_else(ops::missing_lock_configuration)?)
    }

    /// Checks the lock that a request asks for the version that it stores, and returns it. `body`: the
    /// body of the request, which needs a digest if the version gets a lock; `None` without one.
    pub(crate) fn plan_lock(
        &self,
        request: &Request<'_>,
        name: ObjectName<'_>,
        bucket_lock: Option<BucketLock>,
        body: Option<DigestedBody>,
    ) -> Result<Lock> {
        // The lock clock is behind a mutex, and needed only if the request has a date.
        let requested = ops::requested_lock(request.head, || self.log.store().lock_clock_ms())?;
        let default = match (requested.is_absent(), bucket_lock) {
            (true, None) => return Ok(Lock::default()),
            (false, None) => return Err(ops::missing_lock_configuration().into()),
            (_, Some(lock)) => lock.default,
        };
        if !requested.is_absent() {
            request.caller.require(Right::Lock, name.bucket, name.key)?;
        }
        if let Some(body) = body
            && (!requested.is_absent() || default.is_some())
        {
            ops::require_digest(request.head, body)?;
        }
        let RequestedLock { retention, legal_hold } = requested;
        Ok(Lock { retention: retention.map(log_retention), hold: legal_hold == Some(true) })
    }

    /// Requires the digest of a part if its object gets a lock.
    pub(crate) async fn require_part_digest(
        &self,
        request: &Request<'_>,
        bucket_lock: Option<BucketLock>,
        upload: &UploadRef,
    ) -> Result<()> {
        let Some(lock) = bucket_lock else { return Ok(()) };
        if lock.default.is_some() || !self.log.upload_head(upload).await?.lock.is_none() {
            ops::require_digest(request.head, DigestedBody::Part)?;
        }
        Ok(())
    }

    /// Returns whether a request bypasses retention of mode governance: it asks for it, and may do so.
    pub(crate) fn bypasses_governance(&self, request: &Request<'_>, bucket: &str, key: &str) -> Result<bool> {
        let asks = ops::bypass_governance(request.head)?;
        if asks.is_some() && self.bucket_lock(bucket)?.is_none() {
            return Err(ops::bypass_without_lock().into());
        }
        Ok(asks == Some(true) && request.caller.may(Right::BypassGovernance, bucket, key))
    }

    /// Handles PutObjectLockConfiguration: enables object lock, for good, and sets the default
    /// retention.
    pub(crate) async fn put_object_lock(
        &self,
        connection: &mut Connection<P::Stream>,
        request: &Request<'_>,
    ) -> Result<Response<'_, P>> {
        self.require_versions()?;
        ops::require_digest(request.head, DigestedBody::Document)?;
        let (bucket, document) = self.bucket_document(connection, request).await?;
        let default = xml::parse_object_lock(&document)?.map(log_default);
        if self.versioning(bucket)? == Versioning::Enabled {
            self.log.start_lock_clock(self.host.now_ms()).await?;
        }
        self.change_bucket(bucket, |settings: &mut BucketSettings| {
            if settings.versioning != Versioning::Enabled {
                let message = "Versioning must be 'Enabled' on the bucket to apply a Object Lock configuration";
                return Err(Error::new(ErrorCode::InvalidBucketState).with_message(message).into());
            }
            settings.lock = Some(BucketLock { default });
            Ok(())
        })
        .await?;
        Ok(Response::new(200))
    }

    /// Handles GetObjectLockConfiguration.
    pub(crate) fn object_lock(&self, request: &Request<'_>) -> Result<Response<'_, P>> {
        let bucket = request.bucket()?;
        let lock = self.bucket_lock(bucket)?.ok_or_else(|| xml::no_object_lock(bucket))?;
        Ok(Response::xml(200, xml::object_lock(lock.default.map(s3_default))))
    }

    /// Receives the document of a request that changes the lock of a version.
    async fn lock_document(
        &self,
        connection: &mut Connection<P::Stream>,
        request: &Request<'_>,
    ) -> Result<Document<'_>> {
        ops::require_digest(request.head, DigestedBody::Document)?;
        let document = self.document(connection, request).await?;
        self.require_bucket_lock(request.bucket()?)?;
        Ok(document)
    }

    /// Answers a request that changes the lock of a version.
    async fn lock_changed(
        &self,
        request: &Request<'_>,
        changed: std::result::Result<VersionId, keyhole_log::Error>,
    ) -> Result<Response<'_, P>> {
        match changed {
            Ok(_) => Ok(Response::new(200)),
            Err(error) => Err(self.explain_version(request, error).await),
        }
    }

    /// Handles PutObjectRetention.
    pub(crate) async fn put_retention(
        &self,
        connection: &mut Connection<P::Stream>,
        request: &Request<'_>,
    ) -> Result<Response<'_, P>> {
        let (bucket, key) = request.object()?;
        let document = self.lock_document(connection, request).await?;
        let retention = xml::parse_retention(&document)?;
        if let Some(retention) = &retention {
            retention.check(self.log.store().lock_clock_ms())?;
        }
        let retention = retention.map(log_retention);
        let bypass = self.bypasses_governance(request, bucket, key)?;
        let version = request.version().map(log_version);
        let now_ms = self.host.now_ms();
        let changes_mode = |old: keyhole_log::Retention| {
            old.until_ms > self.log.store().lock_clock_ms() && retention.is_some_and(|new| new.mode != old.mode)
        };
        match self.log.lock_of(bucket, key, version) {
            // Stricter, and yet S3 asks for the bypass.
            Ok((_, Lock { retention: Some(old), .. })) if changes_mode(old) && !bypass => {
                return Err(ops::protected_by_lock().into());
            }
            _ => {}
        }
        let changed = self.log.set_retention(bucket, key, version, retention, bypass, now_ms).await;
        self.lock_changed(request, changed).await
    }

    /// Handles GetObjectRetention.
    pub(crate) async fn retention(&self, request: &Request<'_>) -> Result<Response<'_, P>> {
        self.require_bucket_lock(request.bucket()?)?;
        let FoundObject { object, memory: _memory, .. } = self.find_described(request).await?;
        let retention = object.lock.retention.ok_or(ErrorCode::NoSuchObjectLockConfiguration)?;
        let response = Response::xml(200, xml::retention(s3_retention(retention)));
        Ok(response.headers(object_version(&object)))
    }

    /// Handles PutObjectLegalHold.
    pub(crate) async fn put_legal_hold(
        &self,
        connection: &mut Connection<P::Stream>,
        request: &Request<'_>,
    ) -> Result<Response<'_, P>> {
        let (bucket, key) = request.object()?;
        let document = self.lock_document(connection, request).await?;
        let is_on = xml::parse_legal_hold(&document)?;
        let version = request.version().map(log_version);
        let changed = self.log.set_hold(bucket, key, version, is_on, self.host.now_ms()).await;
        self.lock_changed(request, changed).await
    }

    /// Handles GetObjectLegalHold.
    pub(crate) async fn legal_hold(&self, request: &Request<'_>) -> Result<Response<'_, P>> {
        self.require_bucket_lock(request.bucket()?)?;
        let FoundObject { object, memory: _memory, .. } = self.find_described(request).await?;
        Ok(Response::xml(200, xml::legal_hold(object.lock.hold)).headers(object_version(&object)))
    }
}
