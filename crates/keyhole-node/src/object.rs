//! PutObject, GetObject, HeadObject and GetObjectAcl.

use std::ops::Range;

use keyhole_core::CustomerKey;
use keyhole_core::sse_c::SseCTarget;
use keyhole_log::{Body, Object, Versioning};
use keyhole_s3::ops::{self, ReadOptions, VersionId};
use keyhole_s3::{Error, ErrorCode, xml};

use crate::attributes::object_checksums;
use crate::binding::Binding;
use crate::egress::Reader;
use crate::evicted_file::EvictedFile;
use crate::failure::Result;
use crate::http::{Connection, Response};
use crate::limits::{PUT_MAX, STRIDE};
use crate::node::Node;
use crate::object_head::ObjectHead;
use crate::object_lock::lock_headers;
use crate::object_memory::{FoundObject, ObjectMemory, ObjectUse};
use crate::plan::WriteKind;
use crate::platform::Platform;
use crate::request::{ObjectName, Request};
use crate::response_headers::{checksum_headers, range_response, sse_c_headers, unmodified};
use crate::sealed_file::evicted_file;
use crate::tagging::tags_of;
use crate::versions::object_version;

/// An object that the request has located and opened.
pub(crate) struct OpenedObject<'n> {
    pub(crate) object: Object,
    /// The body of a single-body object, if it was read together with the record.
    pub(crate) body: Option<Body>,
    pub(crate) head: ObjectHead,
    pub(crate) binding: Binding,
    pub(crate) customer_key: Option<Box<CustomerKey>>,
    pub(crate) memory: ObjectMemory<'n>,
}

impl<P: Platform> Node<P> {
    /// Handles PutObject.
    pub(crate) async fn put_object(
        &self,
        connection: &mut Connection<P::Stream>,
        request: &Request<'_>,
    ) -> Result<Response<'_, P>> {
        let name = request.name()?;
        let mut plan = self.plan_write(request, name, WriteKind::Put).await?;
        let decoder = request.decoder(plan.wanted(), PUT_MAX)?;
        let body = self.receive(connection, decoder, plan.sealing()).await?;
        self.record_if_sealed(request.account, name, None);
        let committed = self.commit(&mut plan, body).await?;
        let response = committed.describe(Response::new(200), plan.customer_key.as_deref());
        Ok(self.with_expiration(response, name.bucket, name.key, committed.size, committed.time_ms))
    }

    /// Locates a version of an object, or its current one, and opens it for reading. A missing object
    /// is a 404 before the SSE-C headers are compared with it.
    pub(crate) async fn open(
        &self,
        request: &Request<'_>,
        name: ObjectName<'_>,
        version: Option<VersionId>,
        target: SseCTarget,
        object_use: ObjectUse,
    ) -> Result<OpenedObject<'_>> {
        let headers = request.sse_c().read_headers(target)?;
        let FoundObject { object, body, memory } = self.find_version(request, name, version, object_use).await?;
        let customer_key = headers.key_for(object.sealed)?;
        request.account.record_key(customer_key.as_deref(), name.bucket);
        let (head, binding) = self.open_object(&object, customer_key.as_deref(), name, request, &memory).await?;
        binding.require(ops::requires_binding(request.head)?)?;
        Ok(OpenedObject { object, body, head, binding, customer_key, memory })
    }

    /// Handles GetObject.
    pub(crate) async fn get_object(&self, request: &Request<'_>) -> Result<Response<'_, P>> {
        let options = ops::read_options(request.head)?;
        let opened =
            self.open(request, request.name()?, request.version(), SseCTarget::Object, ObjectUse::Send).await?;
        let (response, range) = match self.read_response(request, &opened, &options)? {
            ReadResponse::Unmodified(response) => return Ok(response),
            ReadResponse::Bytes(response, range) => (response, range),
        };
        let OpenedObject { object, body, head, mut memory, .. } = opened;
        let admitted = match memory.take_spare() {
            Some(spare) => spare,
            None => self.admission.read(range.end - range.start, STRIDE, request.account.link()).await?,
        };
        let evicted = self.evicted_file(request.name()?, &object, range.end)?;
        let mut reader = Reader::new(self, &object, head.data_key, range).with_body(body).with_evicted(evicted);
        reader.begin().await?;
        drop(object);
        memory.shrink_to_sending();
        Ok(response.object(reader, admitted, memory))
    }

    /// Returns the file of an evicted object, for reading up to this offset of its plaintext. `None`: the
    /// log has the bytes.
    pub(crate) fn evicted_file(
        &self,
        name: ObjectName<'_>,
        object: &Object,
        plaintext_end: u64,
    ) -> Result<Option<Box<EvictedFile<'_>>>> {
        if !object.is_evicted {
            return Ok(None);
        }
        let objects = self.config.evicted.as_deref();
        evicted_file(objects, &self.log, (name.bucket, name.key), object, plaintext_end).map(Some)
    }

    /// Handles HeadObject.
    pub(crate) async fn head_object(&self, request: &Request<'_>) -> Result<Response<'_, P>> {
        let options = ops::read_options(request.head)?;
        let opened =
            self.open(request, request.name()?, request.version(), SseCTarget::Object, ObjectUse::Send).await?;
        Ok(match self.read_response(request, &opened, &options)? {
            ReadResponse::Unmodified(response) => response,
            ReadResponse::Bytes(response, range) => response.content_length(range.end - range.start),
        })
    }

    /// Builds the response to a GET or HEAD, and determines the bytes that it covers.
    fn read_response(
        &self,
        request: &Request<'_>,
        opened: &OpenedObject<'_>,
        options: &ReadOptions,
    ) -> Result<ReadResponse<'_, P>> {
        let OpenedObject { object, head, binding, customer_key, .. } = opened;
        if let Some(response) = unmodified(request, object)? {
            // Without these a cache takes its copy for stale again at once (RFC 9110 §15.4.5).
            let response = response.headers(ops::caching_headers(&head.metadata, options));
            return Ok(ReadResponse::Unmodified(response));
        }
        let part = options.part_number.map(|number| part_at(object, number)).transpose()?;
        let range = match &part {
            Some((_, range)) => Some(range.clone()),
            None => ops::range(request.head, object.size, &object.etag, object.time_ms)?,
        };
        let (bucket, key) = request.object()?;
        let mut response = range_response(object, object.size, range.as_ref()).headers(binding.header());
        // Rules for noncurrent versions are not announced, as on S3.
        if request.version().is_none() || object.versioning == Versioning::Off {
            response = self.with_expiration(response, bucket, key, object.size, object.time_ms);
        }
        response = response.headers(object_version(object)).headers(lock_headers(&object.lock));
        response = response.headers(sse_c_headers(customer_key.as_deref()));
        response = response.headers(ops::metadata_headers(&head.metadata, options));
        if part.is_some() && object.etag.parts > 0 {
            response = response.header("x-amz-mp-parts-count", object.etag.parts.to_string());
        }
        let tags = tags_of(object)?.len();
        if tags > 0 {
            response = response.header("x-amz-tagging-count", tags.to_string());
        }
        match &part {
            _ if !options.checksum_mode => {}
            Some((index, _)) => {
                let checksums = self.kept_checksums(object, head, *index..index + 1).next().transpose()?;
                response = response.headers(checksum_headers(&checksums.unwrap_or_default()));
            }
            None if range.is_some() => {}
            None => response = response.headers(object_checksums(object, head).headers()),
        }
        Ok(ReadResponse::Bytes(response, range.unwrap_or(0..object.size)))
    }

    /// Handles GetObjectAcl: the owner has FULL_CONTROL.
    pub(crate) async fn object_acl(&self, request: &Request<'_>) -> Result<Response<'_, P>> {
        let found = self.find_version(request, request.name()?, request.version(), ObjectUse::Describe).await?;
        Ok(Response::xml(200, xml::acl()).headers(object_version(&found.object)))
    }
}

/// The response to a GET or HEAD.
enum ReadResponse<'n, P: Platform> {
    /// A response without bytes of the object.
    Unmodified(Response<'n, P>),
    /// A response with these bytes of the object.
    Bytes(Response<'n, P>, Range<u64>),
}

/// Returns the index and the byte range of a part. An object from a single PUT has one part, number
/// 1.
fn part_at(object: &Object, number: u16) -> Result<(usize, Range<u64>)> {
    let mut start = 0;
    for (index, part) in object.parts.iter().enumerate() {
        let this = if part.number == 0 { 1 } else { u16::try_from(index + 1).unwrap_or(u16::MAX) };
        if this == number {
            return Ok((index, start..start + part.size));
        }
        start += part.size;
    }
    Err(Error::new(ErrorCode::InvalidPartNumber).into())
}
