//! Plans of writes: everything that a write is decided by, before its body is received.
//!
//! [`Node::plan_write`] checks a request and makes the plan, [`Node::ingest`] stores the body, and
//! [`Node::commit`] ends the write.

use keyhole_core::sse_c::SseCTarget;
use keyhole_core::{CustomerKey, DataKey};
use keyhole_log::{BucketLock, Condition, Expected, ExpectedEtag, Lock, UploadRef};
use keyhole_s3::body::Wanted;
use keyhole_s3::ops::{self, DigestedBody, Metadata, Required, Tags, WriteCondition};
use keyhole_s3::{Error, ErrorCode, sse};

use crate::failure::Result;
use crate::guard::{BucketRules, Guarded, GuardedWrite};
use crate::ingest::Sealing;
use crate::node::Node;
use crate::platform::Platform;
use crate::policy::Policy;
use crate::request::{ObjectName, Request};

/// An upload id.
pub(crate) type UploadId = [u8; 16];

/// The kinds of write, which differ in what they take from the request.
pub(crate) enum WriteKind {
    /// PutObject.
    Put,
    /// PostObject, whose tags are a field of the form.
    Form(Tags),
    /// CopyObject: tags are those of the source unless the request replaces them, and the guard is
    /// asked after the source was found.
    Copy,
    /// CreateMultipartUpload, whose completion has the condition.
    Upload,
    /// PutObject of a sealed object file, which has its own metadata and no key.
    SealedFile,
}

/// The place that a body is stored at.
pub(crate) enum WriteTarget {
    /// An object of its own.
    Object,
    /// A part of an upload.
    Part {
        /// The upload.
        upload: UploadRef,
        /// The part number.
        number: u16,
    },
}

/// A checked write.
pub(crate) struct WritePlan<'r> {
    pub(crate) name: ObjectName<'r>,
    pub(crate) target: WriteTarget,
    pub(crate) policy: Policy,
    pub(crate) customer_key: Option<Box<CustomerKey>>,
    /// Present exactly if there is a customer key.
    pub(crate) data_key: Option<Box<DataKey>>,
    pub(crate) metadata: Metadata,
    /// The encoded tags.
    pub(crate) tags: Vec<u8>,
    /// The object lock of the bucket.
    pub(crate) bucket_lock: Option<BucketLock>,
    /// The lock that the request asks for.
    pub(crate) lock: Lock,
    pub(crate) guarded: Guarded,
}

impl WritePlan<'_> {
    /// Returns whether the body is sealed by the node.
    pub(crate) fn is_sealed(&self) -> bool {
        self.customer_key.is_some()
    }

    /// Returns the keys to seal the body with, if it is sealed.
    pub(crate) fn sealing(&self) -> Option<Sealing<'_>> {
        let part_number = match self.target {
            WriteTarget::Object => 0,
            WriteTarget::Part { number, .. } => u32::from(number),
        };
        self.data_key.as_deref().map(|data_key| Sealing { data_key, part_number })
    }

    /// Returns the digests that the ETag needs.
    pub(crate) fn wanted(&self) -> Wanted {
        Wanted::for_etag(self.is_sealed())
    }
}

impl<P: Platform> Node<P> {
    /// Checks the write of an object and plans it.
    pub(crate) async fn plan_write<'r>(
        &self,
        request: &Request<'_>,
        name: ObjectName<'r>,
        kind: WriteKind,
    ) -> Result<WritePlan<'r>> {
        let found = self.rules_if_exists(name.bucket)?;
        let has_bucket = found.is_some();
        let BucketRules { policy, lock: bucket_lock } = found.unwrap_or_default();
        let customer_key = match kind {
            WriteKind::SealedFile => refuse_key(request, &policy)?,
            _ => self.key_for_write(request, name.bucket, &policy)?,
        };
        let metadata = match kind {
            WriteKind::SealedFile => ops::refuse_metadata(request.head).map(|()| Metadata::default())?,
            _ => ops::metadata(request.head)?,
        };
        let is_guarded = matches!(kind, WriteKind::Put | WriteKind::Form(_) | WriteKind::Upload);
        let has_condition = !matches!(kind, WriteKind::Upload);
        // A copy and the creation of an upload have no body.
        let has_body = matches!(kind, WriteKind::Put | WriteKind::Form(_) | WriteKind::SealedFile);
        let digested = has_body.then_some(DigestedBody::Object);
        let tags = match kind {
            WriteKind::Form(tags) => tags,
            WriteKind::Copy => Tags::default(),
            WriteKind::Put | WriteKind::Upload | WriteKind::SealedFile => ops::tags(request.head)?,
        };
        if !has_bucket {
            return Err(ErrorCode::NoSuchBucket.into());
        }
        let lock = self.plan_lock(request, name, bucket_lock, digested)?;
        let condition = if has_condition { write_condition(request)? } else { Condition::None };
        let data_key = customer_key.is_some().then(|| self.data_key());
        let mut plan = WritePlan {
            name,
            target: WriteTarget::Object,
            policy,
            customer_key,
            data_key,
            metadata,
            tags: tags.to_bytes(),
            bucket_lock,
            lock,
            guarded: Guarded::unguarded(condition),
        };
        if is_guarded {
            self.guard_plan(request, &mut plan, None).await?;
        }
        Ok(plan)
    }

    /// Applies the rekeying guard to a plan. `len_max` is the longest record for which a request that
    /// must not wait has reserved memory.
    pub(crate) async fn guard_plan(
        &self,
        request: &Request<'_>,
        plan: &mut WritePlan<'_>,
        len_max: Option<usize>,
    ) -> Result<()> {
        let WritePlan { name, policy, customer_key, guarded, .. } = plan;
        let key = customer_key.as_deref();
        let write = GuardedWrite { key, is_sealed: key.is_some(), condition: guarded.condition, len_max };
        *guarded = self.guard(request, *name, policy, write).await?;
        Ok(())
    }

    /// Plans the write of a part: locates its upload and opens the upload's head with the request's
    /// key. An upload with a customer key takes only parts with that key, and one without takes
    /// only parts without.
    pub(crate) async fn plan_part<'r>(
        &self,
        request: &Request<'r>,
        id: &UploadId,
        number: u16,
    ) -> Result<WritePlan<'r>> {
        let name = request.name()?;
        let BucketRules { policy, lock: bucket_lock } = self.rules_if_exists(name.bucket)?.unwrap_or_default();
        let customer_key = self.key_for_write(request, name.bucket, &policy)?;
        if customer_key.is_none() {
            request.sse_c().refuse_stray_copy_source_key()?;
        }
        let upload = self.log.upload(name.bucket, name.key, id)?.ok_or(ErrorCode::NoSuchUpload)?;
        if upload.sealed != customer_key.is_some() {
            return Err(sse::part_mismatch().into());
        }
        let data_key = match &customer_key {
            None => None,
            Some(customer_key) => self.upload_head(&upload, Some(customer_key)).await?.data_key,
        };
        Ok(WritePlan {
            name,
            target: WriteTarget::Part { upload, number },
            policy,
            customer_key,
            data_key,
            metadata: Metadata::default(),
            tags: Vec::new(),
            bucket_lock,
            lock: Lock::default(),
            guarded: Guarded::unguarded(Condition::None),
        })
    }
}

/// Refuses a customer key beside a sealed object file.
fn refuse_key(request: &Request<'_>, policy: &Policy) -> Result<Option<Box<CustomerKey>>> {
    policy.check_sealed_transfer()?;
    if request.sse_c().write_key()?.is_some() {
        return Err(key_beside_sealed_file().into());
    }
    request.sse_c().refuse_stray_copy_source_key()?;
    Ok(None)
}

/// Refuses a customer key on a read of a sealed object file.
pub(crate) fn refuse_read_key(request: &Request<'_>) -> Result<()> {
    if request.sse_c().read_headers(SseCTarget::Object)?.is_absent() {
        Ok(())
    } else {
        Err(key_beside_sealed_file().into())
    }
}

fn key_beside_sealed_file() -> Error {
    let message =
        "A sealed transfer is without the key: send x-keyhole-sealed or the headers of a customer key, not both.";
    Error::new(ErrorCode::InvalidRequest).with_message(message)
}

/// Parses the write condition of a request.
pub(crate) fn write_condition(request: &Request<'_>) -> Result<Condition> {
    Ok(log_condition(&ops::write_condition(request.head)?))
}

/// Returns the condition in the terms of the log, which decides it when it commits the write.
pub(crate) fn log_condition(condition: &WriteCondition) -> Condition {
    match condition {
        WriteCondition::None => Condition::None,
        WriteCondition::IfAbsent => Condition::IfAbsent,
        WriteCondition::IfMatch(required) => match_condition(required),
    }
}

/// Returns the condition that an object has the required properties. A name without an object fails
/// it only if the condition has an ETag, as on S3.
pub(crate) fn match_condition(required: &Required) -> Condition {
    if required.is_empty() {
        return Condition::None;
    }
    let etag = match required.etag.as_deref() {
        None | Some("*") => ExpectedEtag::Any,
        Some(etag) => etag.parse().map_or(ExpectedEtag::Unknown, ExpectedEtag::Exactly),
    };
    let Required { size, time_ms, .. } = *required;
    Condition::IfMatch(Expected { etag, size, time_ms, or_absent: required.etag.is_none() })
}
