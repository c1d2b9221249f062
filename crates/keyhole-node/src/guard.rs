//! The bucket's policy applied to writes: customer keys, and the rekeying guard.

use keyhole_core::CustomerKey;
use keyhole_core::sse_c::SseCTarget;
use keyhole_log::{BucketLock, Condition, Expected, Object};
use keyhole_s3::ErrorCode;

use crate::failure::{Failure, Result};
use crate::node::Node;
use crate::object_memory::{FoundObject, ObjectUse};
use crate::platform::Platform;
use crate::policy::{Policy, denied};
use crate::request::{ObjectName, Request};
use crate::settings::OwnPolicy;

/// The rules of a bucket for writes.
#[derive(Default)]
pub(crate) struct BucketRules {
    pub(crate) policy: Policy,
    /// The object lock.
    pub(crate) lock: Option<BucketLock>,
}

/// The result of the rekeying guard: the condition of the write, and its origin.
#[derive(Clone, Copy)]
pub(crate) struct Guarded {
    /// The request's own condition, or that the object is still the one that was checked.
    pub(crate) condition: Condition,
    /// Whether the condition is the guard's own.
    is_guard: bool,
}

/// A write that the rekeying guard decides on.
#[derive(Clone, Copy)]
pub(crate) struct GuardedWrite<'k> {
    /// `None` for plaintext objects and if the key is not known.
    pub(crate) key: Option<&'k CustomerKey>,
    pub(crate) is_sealed: bool,
    pub(crate) condition: Condition,
    /// The longest record for which a request that must not wait has reserved memory. `None`: the
    /// request may wait.
    pub(crate) len_max: Option<usize>,
}

impl Guarded {
    /// Returns a condition of the request alone.
    pub(crate) fn unguarded(condition: Condition) -> Self {
        Guarded { condition, is_guard: false }
    }

    fn by_guard(condition: Condition) -> Self {
        Guarded { condition, is_guard: true }
    }

    /// Maps a failed write. If the guard's own condition failed, a concurrent write won, and the
    /// client may retry.
    pub(crate) fn explain(&self, error: keyhole_log::Error) -> Failure {
        use keyhole_log::Error as Log;
        match error {
            Log::ConditionFailed | Log::NoSuchKey if self.is_guard => ErrorCode::ConditionalRequestConflict.into(),
            error => error.into(),
        }
    }
}

impl<P: Platform> Node<P> {
    /// Returns the policy of a bucket. A missing bucket allows everything, as the operation fails
    /// anyway.
    pub(crate) fn policy(&self, bucket: &str) -> Result<Policy> {
        Ok(self.rules_if_exists(bucket)?.unwrap_or_default().policy)
    }

    /// Returns the rules of a bucket for writes, if the bucket exists.
    pub(crate) fn rules_if_exists(&self, bucket: &str) -> Result<Option<BucketRules>> {
        let Some((settings, _)) = self.log.bucket_settings(bucket) else { return Ok(None) };
        let policy = OwnPolicy::of(&settings)?.over(&self.config.defaults.of(bucket));
        Ok(Some(BucketRules { policy, lock: settings.lock }))
    }

    /// Returns the customer key of a write, if the bucket's policy accepts it.
    pub(crate) fn key_for_write(
        &self,
        request: &Request<'_>,
        bucket: &str,
        policy: &Policy,
    ) -> Result<Option<Box<CustomerKey>>> {
        let sse_c = request.sse_c();
        policy.check_kind(sse_c.has_headers(SseCTarget::Object))?;
        let key = sse_c.write_key()?;
        request.account.record_key(key.as_deref(), bucket);
        match &key {
            Some(key) => policy.check_key(key, bucket)?,
            // The guard takes it as the key of the object that is overwritten.
            None if policy.forbids_rekeying => {}
            None => sse_c.refuse_stray_copy_source_key()?,
        }
        Ok(key)
    }

    /// Checks whether an object may be stored under this name. Replacing a sealed object requires
    /// its key, as the request's key or as the key of a copy source, whether the new object is
    /// sealed or not. Sealing over a plaintext object is refused.
    pub(crate) async fn guard(
        &self,
        request: &Request<'_>,
        name: ObjectName<'_>,
        policy: &Policy,
        write: GuardedWrite<'_>,
    ) -> Result<Guarded> {
        let GuardedWrite { key, is_sealed, condition, len_max } = write;
        let unguarded = Guarded::unguarded(condition);
        if !policy.forbids_rekeying {
            return Ok(unguarded);
        }
        let (found, _memory) = match len_max {
            Some(len_max) => (self.find_object_within(name, len_max).await?, None),
            None => match self.find_object(request, name, ObjectUse::Describe).await? {
                Some(FoundObject { object, memory, .. }) => (Some(object), Some(memory)),
                None => (None, None),
            },
        };
        if !is_sealed && !found.as_ref().is_some_and(|object| object.sealed) {
            request.sse_c().refuse_stray_copy_source_key()?;
        }
        let Some(object) = found else {
            return match condition {
                Condition::None => Ok(Guarded::by_guard(Condition::IfAbsent)),
                Condition::IfAbsent => Ok(unguarded),
                Condition::IfMatch(Expected { or_absent: true, .. }) => Ok(Guarded::by_guard(Condition::IfAbsent)),
                Condition::IfMatch(_) | Condition::IfSame(_) => Err(ErrorCode::NoSuchKey.into()),
            };
        };
        // The object checked must be the one that is overwritten.
        match condition {
            Condition::IfAbsent => return Ok(unguarded),
            Condition::IfMatch(expected) if !expected.admits(object.etag, object.size, object.time_ms) => {
                return Err(ErrorCode::PreconditionFailed.into());
            }
            _ => {}
        }
        let is_plain_over_plain = !is_sealed && !object.sealed;
        if !is_plain_over_plain && !self.has_key_of(&object, request, name, key)? {
            return Err(denied(
                "The bucket forbids to overwrite an object with one under another customer-provided key, or with one that \
                has none. Bring the key of the old one in the headers of a copy's source, too, or delete it first.",
            )
            .into());
        }
        // Not by ETag: a copy onto itself with another key keeps the ETag.
        Ok(Guarded::by_guard(Condition::IfSame(object.seq)))
    }

    /// Returns whether the request has the key of a sealed object.
    fn has_key_of(
        &self,
        object: &Object,
        request: &Request<'_>,
        name: ObjectName<'_>,
        key: Option<&CustomerKey>,
    ) -> Result<bool> {
        let old = request.sse_c().read_headers(SseCTarget::CopySource)?;
        let old = if old.is_absent() { None } else { old.key_for(true)? };
        Ok(object.sealed && key.into_iter().chain(old.as_deref()).any(|key| self.opens(object, key, name)))
    }

    fn opens(&self, object: &Object, key: &CustomerKey, name: ObjectName<'_>) -> bool {
        self.read_head(&object.head, Some(key), name.bucket, name.key).is_ok()
    }
}
