//! CopyObject: shares the bodies if source and destination are both sealed or both plaintext,
//! otherwise streams the bytes.

use keyhole_core::CustomerKey;
use keyhole_core::aead::Engine;
use keyhole_core::head::{ChecksumType, Checksums};
use keyhole_core::sse_c::SseCTarget;
use keyhole_log::{Content, Disk, Etag, PutObject};
use keyhole_s3::body::{Digester, Wanted};
use keyhole_s3::http::Response;
use keyhole_s3::ops::{self, CopySource, Decision, Directive};
use keyhole_s3::{Error, ErrorCode, xml};

use crate::attributes::object_checksums;
use crate::download::{Copied, Reader};
use crate::failure::Result;
use crate::heads::ObjectHead;
use crate::io::Env;
use crate::limits::COPY_MAX;
use crate::node::{Node, Request};
use crate::object::{Found, NewObject, copied, with_sse, write_condition};
use crate::policy::Guarded;
use crate::upload::Sealing;

impl<D: Disk, E: Engine, V: Env> Node<D, E, V> {
    /// Handles CopyObject.
    pub(crate) async fn copy_object(&self, request: &Request<'_>, source: &CopySource) -> Result<Response> {
        let (bucket, key) = request.object()?;
        let policy = self.policy(bucket)?;
        let customer_key = self.key_for_write(request, bucket, &policy)?;
        let directive = ops::metadata_directive(request.head)?;
        let replacement = ops::metadata(request.head)?;
        let tags = ops::copied_tags(request.head)?;
        let condition = write_condition(request)?;
        self.require_bucket(bucket)?;
        let mut found = self.find_source(request, source).await?;
        if found.object.size > COPY_MAX {
            let message = "The source is longer than 5 GiB; copy it in parts with UploadPartCopy.";
            return Err(Error::new(ErrorCode::InvalidRequest).with_message(message).into());
        }
        let onto_itself = source.bucket == bucket && source.key == key;
        let same_key = customer_key.is_none() && found.customer_key.is_none();
        if onto_itself && directive == Directive::Copy && tags.is_none() && same_key {
            let message = "This copy request is illegal because it is trying to copy an object to itself without \
                changing the object's metadata, storage class, website redirect location or encryption attributes.";
            return Err(Error::new(ErrorCode::InvalidRequest).with_message(message).into());
        }
        if directive == Directive::Replace {
            found.head.metadata = replacement;
        }
        let guard = self
            .guard(request, (bucket, key), &policy, customer_key.as_ref(), customer_key.is_some(), condition)
            .await?;
        let tags = match tags {
            Some(tags) => tags.to_bytes(),
            None => found.object.tags.clone(),
        };
        let (etag, time_ms) = if customer_key.is_some() == found.object.sealed {
            self.copy_shared(bucket, key, found, tags, customer_key.as_ref(), &guard).await?
        } else {
            self.copy_streamed(bucket, key, found, tags, customer_key.as_ref(), guard).await?
        };
        let document = xml::copy_object_result(&etag.to_string(), time_ms);
        let response = self.with_expiration(Response::xml(200, document), bucket, key, time_ms);
        Ok(with_sse(response, customer_key.as_ref()))
    }

    /// Locates the source of a copy and checks the copy's conditions.
    pub(crate) async fn find_source(&self, request: &Request<'_>, source: &CopySource) -> Result<Found> {
        let found = self.find(request, &source.bucket, &source.key, SseCTarget::CopySource).await?;
        let etag = found.object.etag.to_string();
        match ops::copy_conditions(request.head).decide(Some((&etag, found.object.time_ms))) {
            Decision::Proceed => Ok(found),
            _ => Err(ErrorCode::PreconditionFailed.into()),
        }
    }

    /// Copies by sharing bodies: only a head is written, at a cost independent of the size. Parts
    /// and ETag stay the same.
    async fn copy_shared(
        &self,
        bucket: &str,
        key: &str,
        found: Found,
        tags: Vec<u8>,
        customer_key: Option<&CustomerKey>,
        guard: &Guarded,
    ) -> Result<(Etag, u64)> {
        let head = self.write_head(&found.head, customer_key, bucket, key)?;
        let (etag, time_ms) = (found.object.etag, self.env.now_ms());
        self.log
            .put_object(PutObject {
                bucket: bucket.to_owned(),
                key: key.to_owned(),
                size: found.object.size,
                sealed: found.object.sealed,
                content: Content::Shared(found.object),
                head,
                tags,
                etag,
                time_ms,
                condition: guard.condition,
            })
            .await
            .map_err(|error| guard.explain(error))?;
        Ok((etag, time_ms))
    }

    /// Copies between plaintext and sealed: reads the bytes and writes them as a new body.
    async fn copy_streamed(
        &self,
        bucket: &str,
        key: &str,
        found: Found,
        tags: Vec<u8>,
        customer_key: Option<&CustomerKey>,
        guard: Guarded,
    ) -> Result<(Etag, u64)> {
        let _admitted = self.admission.copy(found.object.size).await?;
        let data_key = customer_key.is_some().then(|| self.data_key());
        let source_key = found.head.data_key.as_ref().map(copied);
        let reader = Reader::new(self, &found.object.parts, source_key, 0..found.object.size);
        let wanted = Wanted::for_etag(data_key.is_some());
        let mut payload = Copied::new(reader, Digester::undeclared(wanted, None));
        let sealing = data_key.as_ref().map(|data_key| Sealing { data_key, part_number: 0 });
        let stored = self.store(&mut payload, sealing).await?;
        // A composite checksum does not apply to an object without parts.
        let checksums = match object_checksums(&found.object, &found.head).kind {
            ChecksumType::FullObject => found.head.checksums,
            ChecksumType::Composite => Checksums::default(),
        };
        let head = ObjectHead {
            plaintext_length: data_key.is_some().then_some(stored.size),
            data_key,
            metadata: found.head.metadata,
            checksums,
            ..ObjectHead::default()
        };
        let new = NewObject { stored, head, tags, md5: payload.finish()?.md5, guard };
        self.put(bucket, key, new, customer_key).await
    }
}
