//! CopyObject: shares the bodies if source and destination are both sealed or both plaintext,
//! otherwise streams the bytes.

use keyhole_core::head::{ChecksumType, Checksums};
use keyhole_core::sse_c::SseCTarget;
use keyhole_log::{Content, Etag};
use keyhole_s3::body::Digester;
use keyhole_s3::ops::{self, CopySource, Decision, Directive};
use keyhole_s3::{Error, ErrorCode, xml};

use crate::attributes::object_checksums;
use crate::commit::NewObject;
use crate::egress::{CopiedBody, Reader};
use crate::failure::Result;
use crate::http::Response;
use crate::ingest::Ingested;
use crate::limits::COPY_MAX;
use crate::node::Node;
use crate::object::OpenedObject;
use crate::plan::{WriteKind, WritePlan};
use crate::platform::Platform;
use crate::request::{ObjectName, Request};
use crate::response_headers::sse_c_headers;

impl<P: Platform> Node<P> {
    /// Handles CopyObject.
    pub(crate) async fn copy_object(&self, request: &Request<'_>, source: &CopySource) -> Result<Response<'_, P>> {
        let name = request.name()?;
        let mut plan = self.plan_write(request, name, WriteKind::Copy).await?;
        let opened = self.open_source(request, source).await?;
        apply_directives(request, source, &mut plan, &opened)?;
        self.guard_plan(request, &mut plan).await?;
        let (etag, time_ms) = if plan.is_sealed() == opened.object.sealed {
            self.copy_shared(&mut plan, opened).await?
        } else {
            self.copy_streamed(&mut plan, opened).await?
        };
        let response = Response::xml(200, xml::copy_object_result(&etag.to_string(), time_ms));
        let response = self.with_expiration(response, name.bucket, name.key, time_ms);
        Ok(response.headers(sse_c_headers(plan.customer_key.as_ref())))
    }

    /// Locates the source of a copy and checks the copy's conditions.
    pub(crate) async fn open_source(&self, request: &Request<'_>, source: &CopySource) -> Result<OpenedObject> {
        let name = ObjectName { bucket: &source.bucket, key: &source.key };
        let opened = self.open(request, name, SseCTarget::CopySource).await?;
        let etag = opened.object.etag.to_string();
        match ops::copy_conditions(request.head).decide(Some((&etag, opened.object.time_ms))) {
            Decision::Proceed => Ok(opened),
            _ => Err(ErrorCode::PreconditionFailed.into()),
        }
    }

    /// Copies by sharing bodies: only a head is written, at a cost independent of the size. Parts
    /// and ETag stay the same.
    async fn copy_shared(&self, plan: &mut WritePlan<'_>, opened: OpenedObject) -> Result<(Etag, u64)> {
        let OpenedObject { object, mut head, .. } = opened;
        head.metadata = std::mem::take(&mut plan.metadata);
        let head = self.write_head(&head, plan.customer_key.as_ref(), plan.name.bucket, plan.name.key)?;
        let etag = object.etag;
        let size = object.size;
        let is_sealed = object.sealed;
        let content = Content::Shared(object);
        let time_ms = self.commit_object(plan, NewObject { content, head, etag, size, is_sealed }).await?;
        Ok((etag, time_ms))
    }

    /// Copies between plaintext and sealed: reads the bytes and writes them as a new body.
    async fn copy_streamed(&self, plan: &mut WritePlan<'_>, opened: OpenedObject) -> Result<(Etag, u64)> {
        let OpenedObject { object, mut head, .. } = opened;
        let _admitted = self.admission.copy(object.size, &self.host).await?;
        let reader = Reader::new(self, &object.parts, head.data_key.take(), 0..object.size);
        let mut body = CopiedBody::new(reader, Digester::undeclared(plan.wanted(), None));
        let stored = self.ingest(&mut body, plan.sealing()).await?;
        let mut digests = body.finish()?;
        // A composite checksum does not apply to an object without parts.
        digests.checksums = match object_checksums(&object, &head).kind {
            ChecksumType::FullObject => head.checksums,
            ChecksumType::Composite => Checksums::default(),
        };
        let committed = self.commit(plan, Ingested { stored, digests, admitted: None }).await?;
        Ok((committed.etag, committed.time_ms))
    }
}

/// Applies what the request says of metadata and tags to the plan, and refuses a copy that would
/// change nothing.
fn apply_directives(
    request: &Request<'_>,
    source: &CopySource,
    plan: &mut WritePlan<'_>,
    opened: &OpenedObject,
) -> Result<()> {
    let directive = ops::metadata_directive(request.head)?;
    let tags = ops::copied_tags(request.head)?;
    if opened.object.size > COPY_MAX {
        let message = "The source is longer than 5 GiB; copy it in parts with UploadPartCopy.";
        return Err(Error::new(ErrorCode::InvalidRequest).with_message(message).into());
    }
    let is_same_name = plan.name == ObjectName { bucket: &source.bucket, key: &source.key };
    let has_no_key = plan.customer_key.is_none() && opened.customer_key.is_none();
    if is_same_name && directive == Directive::Copy && tags.is_none() && has_no_key {
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
