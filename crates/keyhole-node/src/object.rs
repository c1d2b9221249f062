//! PutObject, GetObject, HeadObject, DeleteObject and DeleteObjects.

use std::ops::Range;

use keyhole_core::aead::Engine;
use keyhole_core::head::Checksums;
use keyhole_core::sse_c::SseCTarget;
use keyhole_core::{CustomerKey, DataKey, body};
use keyhole_log::{Body, Condition, Content, Disk, Etag, Object, PutObject};
use keyhole_s3::body::{BodyDecoder, Wanted};
use keyhole_s3::http::Response;
use keyhole_s3::ops::{self, Decision, ReadOptions, WriteCondition};
use keyhole_s3::{Error, ErrorCode, sse, time, xml};

use crate::access::Right;
use crate::attributes::object_checksums;
use crate::download::{Reader, Source};
use crate::failure::{Failure, Result};
use crate::heads::ObjectHead;
use crate::io::{Env, Stream};
use crate::limits::PUT_MAX;
use crate::node::{Node, Outcome, Request};
use crate::policy::Guarded;
use crate::request::{Connection, Receiver};
use crate::tagging::tags_of;
use crate::upload::{Sealing, Stored};

/// An object that the request has located and opened.
pub(crate) struct Found {
    pub(crate) object: Object,
    /// The body of a single-body object, if it was read together with the record.
    pub(crate) body: Option<Body>,
    pub(crate) head: ObjectHead,
    pub(crate) customer_key: Option<CustomerKey>,
}

/// A stored body and the metadata to commit it with.
pub(crate) struct NewObject {
    pub(crate) stored: Stored,
    pub(crate) head: ObjectHead,
    /// The encoded tags.
    pub(crate) tags: Vec<u8>,
    /// The MD5 of a plaintext body, which is its ETag.
    pub(crate) md5: Option<[u8; 16]>,
    pub(crate) guard: Guarded,
}

impl<D: Disk, E: Engine, V: Env> Node<D, E, V> {
    /// Handles PutObject.
    pub(crate) async fn put_object<S: Stream<Buf = D::Buf>>(
        &self,
        connection: &mut Connection<S>,
        request: Request<'_>,
    ) -> Result<Response> {
        let (bucket, key) = request.object()?;
        let policy = self.policy(bucket)?;
        let customer_key = self.key_for_write(&request, bucket, &policy)?;
        let metadata = ops::metadata(request.head)?;
        let tags = ops::tags(request.head)?.to_bytes();
        self.require_bucket(bucket)?;
        let condition = write_condition(&request)?;
        let guard = self
            .guard(&request, (bucket, key), &policy, customer_key.as_ref(), customer_key.is_some(), condition)
            .await?;
        let wanted = Wanted::for_etag(customer_key.is_some());
        let decoder = BodyDecoder::new(request.head, request.payload.clone(), wanted, PUT_MAX)?;
        let mut receiver = Receiver::new(connection, decoder);
        let admitted = self.admit_upload(&mut receiver, request.head).await?;

        let data_key = customer_key.is_some().then(|| self.data_key());
        let sealing = data_key.as_ref().map(|data_key| Sealing { data_key, part_number: 0 });
        let stored = self.store(&mut receiver, sealing).await?;
        let _held = admitted.written();
        let digests = receiver.finish().await?;
        let head = ObjectHead {
            plaintext_length: data_key.is_some().then_some(stored.size),
            data_key,
            metadata,
            checksums: digests.checksums,
            ..ObjectHead::default()
        };
        let new = NewObject { stored, head, tags, md5: digests.md5, guard };
        let (etag, time_ms) = self.put(bucket, key, new, customer_key.as_ref()).await?;
        let response = with_sse(Response::new(200), customer_key.as_ref()).header("ETag", quoted(&etag));
        let response = self.with_expiration(response, bucket, key, time_ms);
        Ok(with_checksums(response, &digests.checksums))
    }

    /// Commits a single body as an object. Returns the object's ETag and time.
    pub(crate) async fn put(
        &self,
        bucket: &str,
        key: &str,
        new: NewObject,
        customer_key: Option<&CustomerKey>,
    ) -> Result<(Etag, u64)> {
        let NewObject { stored, head, tags, md5, guard } = new;
        let digest = match customer_key {
            Some(_) => body::etag(&stored.salt),
            None => md5.ok_or(ErrorCode::InternalError)?,
        };
        let etag = Etag { digest, parts: 0 };
        let head = self.write_head(&head, customer_key, bucket, key)?;
        let time_ms = self.env.now_ms();
        self.log
            .put_object(PutObject {
                bucket: bucket.to_owned(),
                key: key.to_owned(),
                size: stored.size,
                content: Content::New(stored.content, stored.salt),
                head,
                tags,
                sealed: customer_key.is_some(),
                etag,
                time_ms,
                condition: guard.condition,
            })
            .await
            .map_err(|error| guard.explain(error))?;
        Ok((etag, time_ms))
    }

    /// Locates an object and opens it for reading. A missing object is a 404 before the SSE-C
    /// headers are compared with it.
    pub(crate) async fn find(&self, request: &Request<'_>, bucket: &str, key: &str, role: SseCTarget) -> Result<Found> {
        let trio = sse::for_read(request.head, role, request.secure)?;
        let found = self.log.object_with_body(bucket, key).await?;
        let (object, body) = found.ok_or_else(|| request.no_such_key(bucket, key))?;
        let customer_key = trio.key_for(object.sealed)?;
        request.account.uses(customer_key.as_ref(), bucket);
        let head = self.open_object(&object, customer_key.as_ref(), bucket, key)?;
        Ok(Found { object, body, head, customer_key })
    }

    /// Handles GetObject and sends the response.
    pub(crate) async fn get_object<S: Stream<Buf = D::Buf>>(
        &self,
        connection: &mut Connection<S>,
        request: &Request<'_>,
    ) -> Result<Outcome> {
        let options = ops::read_options(request.head)?;
        let (bucket, key) = request.object()?;
        let found = self.find(request, bucket, key, SseCTarget::Object).await?;
        let (response, range) = match self.read_reply(request, &found, &options)? {
            ReadReply::Nothing(response) => return Ok(Outcome::Reply(response)),
            ReadReply::Bytes(response, range) => (response, range),
        };
        let _admitted = self.admission.download(range.end - range.start).await?;
        let Found { object, body, head: object_head, .. } = found;
        let mut reader = Reader::new(self, &object.parts, object_head.data_key, range).with_body(body);
        self.send_response(connection, request, response, &mut reader).await
    }

    /// Sends a response with the body from `source`.
    pub(crate) async fn send_response<S: Stream<Buf = D::Buf>>(
        &self,
        connection: &Connection<S>,
        request: &Request<'_>,
        response: Response,
        source: &mut impl Source<D::Buf>,
    ) -> Result<Outcome> {
        let keep_alive = request.head.keep_alive && connection.is_clean();
        let length = Some(source.remaining());
        let head = response.head_bytes(length, request.request_id, self.env.now_ms(), keep_alive);
        self.send(&connection.stream, head, source, request.account).await?;
        Ok(Outcome::Sent(response.status))
    }

    /// Handles HeadObject.
    pub(crate) async fn head_object(&self, request: &Request<'_>) -> Result<Response> {
        let options = ops::read_options(request.head)?;
        let (bucket, key) = request.object()?;
        let found = self.find(request, bucket, key, SseCTarget::Object).await?;
        Ok(match self.read_reply(request, &found, &options)? {
            ReadReply::Nothing(response) => response,
            ReadReply::Bytes(response, range) => response.content_length(range.end - range.start),
        })
    }

    /// Builds the response to a GET or HEAD, and determines the bytes that it covers.
    fn read_reply(&self, request: &Request<'_>, found: &Found, options: &ReadOptions) -> Result<ReadReply> {
        let Found { object, head, customer_key, .. } = found;
        if let Some(response) = unmodified(request, object)? {
            return Ok(ReadReply::Nothing(response));
        }
        let part = options.part_number.map(|number| part_at(object, number)).transpose()?;
        let range = match &part {
            Some((_, range)) => Some(range.clone()),
            None => ops::range(request.head, object.size)?,
        };
        let mut response = range_reply(object, object.size, range.as_ref());
        let (bucket, key) = request.object()?;
        response = self.with_expiration(response, bucket, key, object.time_ms);
        response = with_sse(response, customer_key.as_ref());
        response = with_metadata(response, head, options);
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
                let checksums = self.kept_checksums(object, head, *index..index + 1)?;
                response = with_checksums(response, &checksums.into_iter().next().unwrap_or_default());
            }
            None if range.is_some() => {}
            None => {
                for (name, value) in object_checksums(object, head).headers() {
                    response = response.header(name, value);
                }
            }
        }
        Ok(ReadReply::Bytes(response, range.unwrap_or(0..object.size)))
    }

    /// Handles DeleteObject: 204 whether the object exists or not.
    pub(crate) async fn delete_object(&self, request: &Request<'_>) -> Result<Response> {
        let (bucket, key) = request.object()?;
        let condition = write_condition(request)?;
        self.log.delete_object(bucket, key, self.env.now_ms(), condition).await?;
        Ok(Response::new(204))
    }

    /// Handles DeleteObjects: up to 1,000 keys, with a result for each.
    pub(crate) async fn delete_objects<S: Stream<Buf = D::Buf>>(
        &self,
        connection: &mut Connection<S>,
        request: Request<'_>,
    ) -> Result<Response> {
        let bucket = request.bucket()?;
        self.require_bucket(bucket)?;
        let document = self.document(connection, &request).await?;
        let delete = xml::parse_delete(&document)?;
        let now_ms = self.env.now_ms();
        let deletions = delete.objects.iter().map(async |key| {
            request.caller.require(Right::Delete, bucket, key)?;
            Ok(self.log.delete_object(bucket, key, now_ms, Condition::None).await?)
        });
        // Concurrently, so that the deletions share commits.
        let outcomes = futures_util::future::join_all(deletions).await;
        let mut results = Vec::with_capacity(outcomes.len());
        for (key, outcome) in delete.objects.iter().zip(outcomes) {
            match outcome {
                Ok(_) => results.push(xml::Deleted { key, error: None }),
                Err(Failure::Reply(error)) => results.push(xml::Deleted { key, error: Some(error) }),
                Err(Failure::Fault(error, cause)) => {
                    tracing::error!(request_id = request.request_id, bucket, key = key.as_str(), "{cause}");
                    results.push(xml::Deleted { key, error: Some(error) });
                }
                Err(Failure::Connection(gone)) => return Err(gone.into()),
            }
        }
        Ok(Response::xml(200, xml::delete_result(&results, delete.quiet)))
    }

    /// Handles GetObjectAcl: the owner has FULL_CONTROL.
    pub(crate) async fn object_acl(&self, request: &Request<'_>) -> Result<Response> {
        self.require_object(request).await?;
        Ok(Response::xml(200, xml::acl()))
    }

    async fn require_object(&self, request: &Request<'_>) -> Result<()> {
        let (bucket, key) = request.object()?;
        match self.log.object(bucket, key).await? {
            Some(_) => Ok(()),
            None => Err(request.no_such_key(bucket, key).into()),
        }
    }

    pub(crate) fn require_bucket(&self, bucket: &str) -> Result<()> {
        match self.log.bucket(bucket) {
            Some(_) => Ok(()),
            None => Err(ErrorCode::NoSuchBucket.into()),
        }
    }

    /// Receives and verifies the XML document in a request's body.
    pub(crate) async fn document<S: Stream<Buf = D::Buf>>(
        &self,
        connection: &mut Connection<S>,
        request: &Request<'_>,
    ) -> Result<Vec<u8>> {
        let max = crate::limits::XML_BODY_MAX;
        let decoder = BodyDecoder::new(request.head, request.payload.clone(), Wanted::None, max)?;
        Receiver::new(connection, decoder).read_document().await
    }
}

/// Parses the write condition of a request.
pub(crate) fn write_condition(request: &Request<'_>) -> Result<Condition> {
    Ok(match ops::write_condition(request.head)? {
        WriteCondition::None => Condition::None,
        WriteCondition::IfAbsent => Condition::IfAbsent,
        // A malformed ETag matches no object.
        WriteCondition::IfMatch(etag) => Condition::IfMatch(etag.parse().map_err(|_| ErrorCode::PreconditionFailed)?),
    })
}

/// Returns the 304 or the error if the request's conditions exclude sending the object.
pub(crate) fn unmodified(request: &Request<'_>, object: &Object) -> Result<Option<Response>> {
    let conditions = ops::conditions(request.head);
    if conditions.is_empty() {
        return Ok(None);
    }
    let etag = object.etag.to_string();
    match conditions.decide(Some((&etag, object.time_ms))) {
        Decision::Proceed => Ok(None),
        Decision::NotModified => {
            let response = Response::new(304).header("ETag", quoted(&object.etag));
            Ok(Some(response.header("Last-Modified", time::http_date(object.time_ms))))
        }
        Decision::PreconditionFailed => Err(ErrorCode::PreconditionFailed.into()),
    }
}

/// Builds the response to a read of an object or of a `range` of it; `size` is the length of the
/// whole representation.
pub(crate) fn range_reply(object: &Object, size: u64, range: Option<&Range<u64>>) -> Response {
    let response = Response::new(if range.is_some() { 206 } else { 200 })
        .header("ETag", quoted(&object.etag))
        .header("Last-Modified", time::http_date(object.time_ms))
        .header("Accept-Ranges", "bytes");
    match range {
        // The only part of an empty object is an empty range, which `Content-Range` cannot express.
        Some(range) if !range.is_empty() => {
            response.header("Content-Range", format!("bytes {}-{}/{size}", range.start, range.end - 1))
        }
        _ => response,
    }
}

/// The response to a GET or HEAD.
enum ReadReply {
    /// A response without bytes of the object.
    Nothing(Response),
    /// A response with these bytes of the object.
    Bytes(Response, Range<u64>),
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

/// Formats an ETag with the quotes that headers and documents have.
pub(crate) fn quoted(etag: &Etag) -> String {
    format!("\"{etag}\"")
}

/// Adds the SSE-C response headers: the algorithm and the MD5 of the key.
pub(crate) fn with_sse(mut response: Response, customer_key: Option<&CustomerKey>) -> Response {
    for (name, value) in customer_key.map(sse::response_headers).into_iter().flatten() {
        response = response.header(name, value);
    }
    response
}

/// Adds the headers of the object's checksums.
pub(crate) fn with_checksums(mut response: Response, checksums: &Checksums) -> Response {
    for (name, value) in ops::checksum_headers(checksums) {
        response = response.header(name, value);
    }
    response
}

/// Adds the content headers and the user metadata, with the overrides that the request asked for.
fn with_metadata(mut response: Response, head: &ObjectHead, options: &ReadOptions) -> Response {
    for (name, value) in ops::metadata_headers(&head.metadata, options) {
        response = response.header(name, value);
    }
    response
}

/// Copies a data key, to keep it longer than its head.
pub(crate) fn copied(data_key: &DataKey) -> DataKey {
    DataKey::new(*data_key.expose())
}
