//! Bucket policies on customer keys.

use keyhole_core::CustomerKey;
use keyhole_core::aead::Engine;
use keyhole_core::key_id;
use keyhole_core::sse_c::SseCTarget;
use keyhole_log::{Condition, Disk, Object};
use keyhole_s3::{Error, ErrorCode, sse};

use crate::failure::{Failure, Result};
use crate::io::Env;
use crate::node::{Node, Request};
use crate::settings::OwnPolicy;

/// Whether a bucket accepts objects under customer keys.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum SseC {
    /// Accepts customer keys.
    #[default]
    Allow = 0,
    /// Requires customer keys.
    Require = 1,
    /// Rejects customer keys.
    Forbid = 2,
}

/// The policy of a bucket.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Policy {
    /// Whether customer keys are allowed.
    pub sse_c: SseC,
    /// The ids ([`key_id`]) of the only customer keys accepted, at most
    /// [`PINS_MAX`](crate::limits::PINS_MAX); empty accepts any key.
    pub pins: Vec<[u8; 16]>,
    /// Whether overwriting an object under another customer key requires the old key too.
    pub forbids_rekeying: bool,
    /// Whether unsigned requests may get objects (SSE-C objects still need their key).
    pub anonymous_read: bool,
}

impl Policy {
    /// Checks whether a request may store an object or part with or without a key, before the key
    /// is examined.
    ///
    /// # Errors
    /// `AccessDenied`.
    pub(crate) fn check_kind(&self, brings_key: bool) -> std::result::Result<(), Error> {
        match (self.sse_c, brings_key) {
            (SseC::Forbid, true) => Err(denied("The bucket has blocked uploads with customer-provided keys (SSE-C).")),
            (SseC::Require, false) => {
                Err(denied("The bucket requires customer-provided keys (SSE-C), and the request has none."))
            }
            _ => Ok(()),
        }
    }

    /// Checks the completion of a sealed upload, since the policy may have changed since the upload
    /// was begun. Without the key, the pins cannot be checked: the completion then passes only if
    /// the bucket's settings have not changed since (`set_since`).
    ///
    /// # Errors
    /// `AccessDenied`.
    pub(crate) fn check_completion(
        &self,
        key: Option<&CustomerKey>,
        set_since: bool,
        bucket: &str,
    ) -> std::result::Result<(), Error> {
        match key {
            Some(key) => self.check_key(key, bucket),
            None if self.pins.is_empty() || !set_since => Ok(()),
            None => Err(denied(
                "The bucket pins customer keys, and its settings were changed since the upload was begun. Bring the key of \
                the upload in the headers of its completion, too.",
            )),
        }
    }

    fn check_key(&self, key: &CustomerKey, bucket: &str) -> std::result::Result<(), Error> {
        if self.pins.is_empty() || self.pins.contains(&key_id(key, bucket)) {
            return Ok(());
        }
        Err(denied("The bucket accepts other customer-provided keys than the one of the request."))
    }
}

fn denied(message: &'static str) -> Error {
    Error::new(ErrorCode::AccessDenied).with_message(message)
}

/// The result of the rekeying guard: the condition of the write, and its origin.
pub(crate) struct Guarded {
    /// The request's own condition, or that the object is still the one that was checked.
    pub(crate) condition: Condition,
    /// Whether the condition is the guard's own.
    own: bool,
}

impl Guarded {
    /// Maps a failed write. If the guard's own condition failed, a concurrent write won, and the
    /// client may retry.
    pub(crate) fn explain(&self, error: keyhole_log::Error) -> Failure {
        use keyhole_log::Error as Log;
        match error {
            Log::ConditionFailed | Log::NoSuchKey if self.own => ErrorCode::ConditionalRequestConflict.into(),
            error => error.into(),
        }
    }
}

impl<D: Disk, E: Engine, V: Env> Node<D, E, V> {
    /// Returns the policy of a bucket. A missing bucket allows everything, as the operation fails
    /// anyway.
    pub(crate) fn policy(&self, bucket: &str) -> Result<Policy> {
        match self.log.bucket_settings(bucket) {
            Some((settings, _)) => Ok(OwnPolicy::of(&settings)?.over(&self.config.defaults.of(bucket))),
            None => Ok(Policy::default()),
        }
    }

    /// Returns the customer key of a write, if the bucket's policy accepts it.
    pub(crate) fn key_for_write(
        &self,
        request: &Request<'_>,
        bucket: &str,
        policy: &Policy,
    ) -> Result<Option<CustomerKey>> {
        let Request { head, secure, .. } = *request;
        policy.check_kind(sse::has_sse_c_headers(head, SseCTarget::Object))?;
        let key = sse::for_write(head, secure)?;
        request.account.uses(key.as_ref(), bucket);
        match &key {
            Some(key) => policy.check_key(key, bucket)?,
            None => sse::refuse_stray_copy_source_key(head, secure)?,
        }
        Ok(key)
    }

    /// Rejects a sealed transfer if the policy needs the key to decide.
    pub(crate) fn check_sealed_transfer(&self, policy: &Policy) -> Result<()> {
        policy.check_kind(true)?;
        if !policy.pins.is_empty() || policy.forbids_rekeying {
            let message = "The bucket pins customer keys or guards overwriting, which cannot be checked of a sealed object \
                without its key.";
            return Err(denied(message).into());
        }
        Ok(())
    }

    /// Checks whether an object may be stored under this name (bucket and key). Overwriting
    /// requires the existing object's key, as the request's key or as the key of a copy source.
    /// `key` is `None` for plaintext objects and if the key is not known.
    pub(crate) async fn guard(
        &self,
        request: &Request<'_>,
        (bucket, name): (&str, &str),
        policy: &Policy,
        key: Option<&CustomerKey>,
        sealed: bool,
        condition: Condition,
    ) -> Result<Guarded> {
        let asked = Guarded { condition, own: false };
        if !policy.forbids_rekeying || !sealed {
            return Ok(asked);
        }
        let Some(object) = self.log.object(bucket, name).await? else {
            return match condition {
                Condition::None => Ok(Guarded { condition: Condition::IfAbsent, own: true }),
                Condition::IfAbsent => Ok(asked),
                Condition::IfMatch(_) | Condition::IfSame(_) => Err(ErrorCode::NoSuchKey.into()),
            };
        };
        // The object checked must be the one that is overwritten.
        match condition {
            Condition::IfAbsent => return Ok(asked),
            Condition::IfMatch(etag) if etag != object.etag => return Err(ErrorCode::PreconditionFailed.into()),
            _ => {}
        }
        let old = sse::for_read(request.head, SseCTarget::CopySource, request.secure)?;
        let old = if old.is_absent() { None } else { old.key_for(true)? };
        let opens = |key: &CustomerKey| self.opens(&object, key, bucket, name);
        if !object.sealed || !key.into_iter().chain(&old).any(opens) {
            return Err(denied(
                "The bucket forbids to overwrite an object with one under another customer-provided key. Bring the key of the \
                old one in the headers of a copy's source, too, or delete it first.",
            )
            .into());
        }
        // Not by ETag: a copy onto itself with another key keeps the ETag.
        Ok(Guarded { condition: Condition::IfSame(object.seq), own: true })
    }

    fn opens(&self, object: &Object, key: &CustomerKey, bucket: &str, name: &str) -> bool {
        self.read_head(&object.head, Some(key), bucket, name).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_pinned_by_bucket() {
        let (key, other) = (CustomerKey::new([1; 32]), CustomerKey::new([2; 32]));
        let policy = Policy { pins: vec![key_id(&key, "b")], ..Policy::default() };
        assert!(policy.check_key(&key, "b").is_ok());
        assert!(policy.check_key(&other, "b").is_err() && policy.check_key(&key, "c").is_err());
        assert!(Policy::default().check_key(&other, "b").is_ok());
        let of = |sse_c, brings_key| Policy { sse_c, ..Policy::default() }.check_kind(brings_key).is_ok();
        assert!(of(SseC::Allow, true) && of(SseC::Allow, false) && of(SseC::Require, true) && of(SseC::Forbid, false));
        assert!(!of(SseC::Require, false) && !of(SseC::Forbid, true));
    }
}
