//! CopyObject: shares the bodies if source and destination are both sealed or both plaintext,
//! otherwise streams the bytes.

use std::rc::Rc;

use keyhole_core::head::{ChecksumAlgorithm, ChecksumType, Checksums};
use keyhole_core::sse_c::SseCTarget;
use keyhole_log::{Content, Disk, Etag, Object};
use keyhole_s3::body::Digester;
use keyhole_s3::checksum::{Hasher, ObjectChecksums};
use keyhole_s3::ops::{self, CopySource, Decision, Directive};
use keyhole_s3::{Error, ErrorCode, xml};

use crate::attributes::object_checksums;
use crate::body_memory::BodyMemory;
use crate::commit::{Committed, CommittedVersion, NewObject};
use crate::egress::{CopiedBody, Reader};
use crate::failure::{Failure, Result};
use crate::http::Response;
use crate::ingest::Ingested;
use crate::limits::{COPY_MAX, STRIDE};
use crate::link::Link;
use crate::node::Node;
use crate::object::OpenedObject;
use crate::object_head::ObjectHead;
use crate::object_memory::{ObjectMemory, ObjectUse};
use crate::plan::{WriteKind, WritePlan};
use crate::platform::Platform;
use crate::request::{ObjectName, Request};
use crate::response_headers::sse_c_headers;
use crate::source::{Piece, PieceSource};
use crate::versions::{object_version, version_header};

impl<P: Platform> Node<P> {
    /// Handles CopyObject.
    pub(crate) async fn copy_object(&self, request: &Request<'_>, source: &CopySource) -> Result<Response<'_, P>> {
        let name = request.name()?;
        let mut plan = self.plan_write(request, name, WriteKind::Copy).await?;
        // The guard reads the object that is overwritten while the source is held.
        let beside = if plan.policy.forbids_rekeying { self.record_len_max(name, None) } else { 0 };
        let opened = self.open_source(request, source, beside).await?;
        apply_directives(request, source, &mut plan, &opened)?;
        self.guard_plan(request, &mut plan, opened.memory.beside()).await?;
        let size = opened.object.size;
        let binding = opened.binding;
        let source_version = source_version(&opened.object);
        let algorithm = ops::copy_checksum(request.head)?;
        // Only the remote has the bytes of an evicted object, under another name.
        let copied = if plan.is_sealed() == opened.object.sealed && !opened.object.is_evicted {
            self.copy_shared(&mut plan, opened, algorithm, request.account.link()).await?
        } else {
            self.copy_streamed(&mut plan, opened, source, algorithm, request.account.link()).await?
        };
        let Copied { etag, version: CommittedVersion { time_ms, stored }, .. } = copied;
        let checksums = ObjectChecksums { checksums: &copied.checksums, kind: copied.kind, parts: etag.parts };
        let response = Response::xml(200, xml::copy_object_result(&etag.to_string(), time_ms, &checksums));
        let response = self.with_expiration(response, name.bucket, name.key, size, time_ms);
        let response = response.headers(version_header(stored)).headers(source_version);
        Ok(response.headers(sse_c_headers(plan.customer_key.as_deref())).headers(binding.header()))
    }

    /// Locates the source of a copy and checks the copy's conditions.
    /// `beside` is the length of the record of another object that is read while the source is held.
    pub(crate) async fn open_source(
        &self,
        request: &Request<'_>,
        source: &CopySource,
        beside: usize,
    ) -> Result<OpenedObject<'_>> {
        let name = ObjectName { bucket: &source.bucket, key: &source.key };
        let object_use = ObjectUse::Copy { beside };
        let opened = self.open(request, name, source.version, SseCTarget::CopySource, object_use).await;
        let opened = opened.map_err(|failure| match failure {
            Failure::Reply(error) if error.code == ErrorCode::MethodNotAllowed => {
                let message =
                    "The source of a copy request may not specifically refer to a delete marker by version id.";
                Error::new(ErrorCode::InvalidRequest).with_message(message).into()
            }
            other => other,
        })?;
        let etag = opened.object.etag.to_string();
        match ops::copy_conditions(request.head).decide(Some((&etag, opened.object.time_ms))) {
            Decision::Proceed => Ok(opened),
            _ => Err(ErrorCode::PreconditionFailed.into()),
        }
    }

    /// Copies by sharing bodies: only a head is written, at a cost independent of the size unless a
    /// checksum must be computed. Parts and ETag stay the same.
    async fn copy_shared(
        &self,
        plan: &mut WritePlan<'_>,
        opened: OpenedObject<'_>,
        algorithm: Option<ChecksumAlgorithm>,
        link: &Rc<Link>,
    ) -> Result<Copied> {
        let OpenedObject { mut object, mut head, memory, .. } = opened;
        if let Some(algorithm) = algorithm {
            self.replace_checksums(&mut object, &mut head, algorithm, link, &memory).await?;
        }
        head.metadata = std::mem::take(&mut plan.metadata);
        let encoded = self.write_head(&head, plan.customer_key.as_deref(), plan.name.bucket, plan.name.key)?;
        let etag = object.etag;
        let kind = object_checksums(&object, &head).kind;
        let size = object.size;
        let is_sealed = object.sealed;
        let content = Content::Shared(object);
        let version = self.commit_object(plan, NewObject { content, head: encoded, etag, size, is_sealed }).await?;
        Ok(Copied { etag, version, checksums: head.checksums, kind })
    }

    /// Replaces the checksums of a copied object by one of the whole object. Reads the object's
    /// bytes unless the source has this checksum.
    async fn replace_checksums(
        &self,
        object: &mut Object,
        head: &mut ObjectHead,
        algorithm: ChecksumAlgorithm,
        link: &Rc<Link>,
        memory: &ObjectMemory<'_>,
    ) -> Result<()> {
        let known = match object_checksums(object, head).kind {
            ChecksumType::FullObject => head.checksums.get(algorithm).map(<[u8]>::to_vec),
            ChecksumType::Composite => None,
        };
        let digest = match known {
            Some(digest) => digest,
            None => self.digest(object, head, algorithm, link, memory).await?,
        };
        head.checksums = Checksums::default();
        head.checksums.set(algorithm, &digest)?;
        // The checksums of the parts belong to the composite one.
        head.declared = (object.etag.parts > 0).then_some((algorithm, ChecksumType::FullObject));
        object.part_checksums.clear();
        Ok(())
    }

    /// Computes the digest of an object's bytes. The head has its data key again on success.
    async fn digest(
        &self,
        object: &Object,
        head: &mut ObjectHead,
        algorithm: ChecksumAlgorithm,
        link: &Rc<Link>,
        memory: &ObjectMemory<'_>,
    ) -> Result<Vec<u8>> {
        let _admitted = match memory.is_reserved() {
            true => None,
            false => Some(self.admission.read(object.size, STRIDE, link).await?),
        };
        let mut reader = Reader::new(self, object, head.data_key.take(), 0..object.size);
        let mut hasher = Hasher::new(algorithm);
        loop {
            let buf = self.log.disk().buffer_with_len(reader.piece_len());
            // An empty object is read too, because its end must be authenticated.
            let Some(Piece { buf, at }) = reader.next(buf).await? else { break };
            hasher.update(&buf.as_ref()[at]);
            if reader.remaining() == 0 {
                break;
            }
        }
        head.data_key = reader.into_data_key();
        Ok(hasher.finish())
    }

    /// Copies between plaintext and sealed, or an evicted object: reads the bytes and writes them as a new body.
    async fn copy_streamed(
        &self,
        plan: &mut WritePlan<'_>,
        opened: OpenedObject<'_>,
        source: &CopySource,
        algorithm: Option<ChecksumAlgorithm>,
        link: &Rc<Link>,
    ) -> Result<Copied> {
        let OpenedObject { object, mut head, memory: mut held, .. } = opened;
        let mut memory = BodyMemory::of_copy(&self.admission, link.clone(), held.take_spare());
        let name = ObjectName { bucket: &source.bucket, key: &source.key };
        let evicted = self.evicted_file(name, &object, object.size)?;
        let reader = Reader::new(self, &object, head.data_key.take(), 0..object.size).with_evicted(evicted);
        let mut body = CopiedBody::new(reader, Digester::undeclared(plan.wanted(), algorithm));
        let stored = self.ingest(&mut body, &mut memory, plan.sealing()).await?;
        let mut digests = body.finish()?;
        if algorithm.is_none() {
            // A composite checksum does not apply to an object without parts.
            digests.checksums = match object_checksums(&object, &head).kind {
                ChecksumType::FullObject => head.checksums,
                ChecksumType::Composite => Checksums::default(),
            };
        }
        let committed = self.commit(plan, Ingested { stored, digests, admitted: memory.written() }).await?;
        let Committed { etag, time_ms, checksums, version, .. } = committed;
        let stored = version.ok_or(ErrorCode::InternalError)?;
        let version = CommittedVersion { time_ms, stored };
        Ok(Copied { etag, version, checksums, kind: ChecksumType::FullObject })
    }
}

/// The object that a copy made.
struct Copied {
    etag: Etag,
    version: CommittedVersion,
    checksums: Checksums,
    kind: ChecksumType,
}

/// Returns the header that names the version of a copy's source.
pub(crate) fn source_version(object: &Object) -> Option<(&'static str, String)> {
    object_version(object).map(|(_, id)| ("x-amz-copy-source-version-id", id))
}

/// Applies what the request says of metadata and tags to the plan, and refuses a copy that would
/// change nothing.
fn apply_directives(
    request: &Request<'_>,
    source: &CopySource,
    plan: &mut WritePlan<'_>,
    opened: &OpenedObject<'_>,
) -> Result<()> {
    let directive = ops::metadata_directive(request.head)?;
    let tags = ops::copied_tags(request.head)?;
    if opened.object.size > COPY_MAX {
        let message = "The source is longer than 5 GiB; copy it in parts with UploadPartCopy.";
        return Err(Error::new(ErrorCode::InvalidRequest).with_message(message).into());
    }
    let has_checksum = request.head.headers.get("x-amz-checksum-algorithm").is_some();
    // A copy of a named version restores it.
    let is_same_name = plan.name == ObjectName { bucket: &source.bucket, key: &source.key } && source.version.is_none();
    let has_no_key = plan.customer_key.is_none() && opened.customer_key.is_none();
    if is_same_name && directive == Directive::Copy && tags.is_none() && has_no_key && !has_checksum {
        let message = "This copy request is illegal because it is trying to copy an object to itself without \
            changing the object's metadata, storage class, website redirect location or encryption attributes.";
        return Err(Error::new(ErrorCode::InvalidRequest).with_message(message).into());
    }
    if directive == Directive::Copy {
        plan.metadata = opened.head.metadata.clone();
    }
    plan.tags = match tags {
        Some(tags) => tags.to_bytes(),
        None => opened.object.tags.clone(),
    };
    Ok(())
}
