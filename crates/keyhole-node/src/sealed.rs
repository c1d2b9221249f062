//! Sealed transfer: uploads of client-sealed objects and downloads of sealed objects, without a
//! key.
//!
//! The representation is the sealed object file (`FORMAT.md` of `keyhole-core`, part 5). Uploads
//! are checked as far as possible without the key: names, structure, order, lengths. The first read
//! with the key checks the rest.

use std::ops::Range;

use keyhole_core::aead::Engine;
use keyhole_core::body::{self, MultipartEtag};
use keyhole_core::file::{BodyEntry, MEDIA_TYPE};
use keyhole_core::sse_c::SseCTarget;
use keyhole_log::limits::PARTS_MAX;
use keyhole_log::{CompleteUpload, Condition, Content, CreateUpload, Disk, Etag, Object, Part, PutObject, PutPart};
use keyhole_s3::body::{BodyDecoder, Wanted};
use keyhole_s3::http::Response;
use keyhole_s3::ops::{self, SEALED_HEADER};
use keyhole_s3::{Error, ErrorCode, sse};

use crate::failure::Result;
use crate::io::{Env, Stream};
use crate::limits::PUT_MAX;
use crate::multipart::UploadId;
use crate::node::{Node, Outcome, Request};
use crate::object::{quoted, range_reply, unmodified, write_condition};
use crate::request::{Connection, Receiver};
use crate::sealed_file::{Front, SealedFile, receive_message, skip};
use crate::upload::Stored;

impl<D: Disk, E: Engine, V: Env> Node<D, E, V> {
    /// Handles PutObject of a sealed object file.
    pub(crate) async fn put_sealed<S: Stream<Buf = D::Buf>>(
        &self,
        connection: &mut Connection<S>,
        request: Request<'_>,
    ) -> Result<Response> {
        let (bucket, key) = request.object()?;
        self.check_sealed_transfer(&self.policy(bucket)?)?;
        if sse::for_write(request.head, request.secure)?.is_some() {
            return Err(no_key().into());
        }
        sse::refuse_stray_copy_source_key(request.head, request.secure)?;
        ops::no_metadata(request.head)?;
        let tags = ops::tags(request.head)?.to_bytes();
        self.require_bucket(bucket)?;
        let condition = write_condition(&request)?;
        let decoder = BodyDecoder::new(request.head, request.payload.clone(), Wanted::None, PUT_MAX)?;
        let mut receiver = Receiver::new(connection, decoder);
        let _admitted = self.admit_upload(&mut receiver, request.head).await?;
        let file_len = receiver.len();
        let front = Front::receive(&self.log, &mut receiver, file_len, bucket, key).await?;
        // Part checksums, which a complete object does not need.
        skip(&self.log, &mut receiver, front.infos_len).await?;
        let (etag, time_ms) = match front.entries[..] {
            [BodyEntry { part_number: 0, message_len, .. }] => {
                let stored = receive_message(&self.log, &mut receiver, message_len).await?;
                receiver.finish().await?;
                let etag = Etag { digest: body::etag(&stored.salt), parts: 0 };
                let time_ms = self.env.now_ms();
                self.log
                    .put_object(PutObject {
                        bucket: bucket.to_owned(),
                        key: key.to_owned(),
                        content: Content::New(stored.content, stored.salt),
                        head: front.sealed_head,
                        tags,
                        sealed: true,
                        etag,
                        size: stored.size,
                        time_ms,
                        condition,
                    })
                    .await?;
                (etag, time_ms)
            }
            _ => self.put_sealed_parts(receiver, bucket, key, front, tags, condition).await?,
        };
        let response = Response::new(200).header("ETag", quoted(&etag)).header(SEALED_HEADER, "1");
        Ok(self.with_expiration(response, bucket, key, time_ms))
    }

    /// Stores a multipart object as an upload of its own: part by part, then completed at once.
    async fn put_sealed_parts<S: Stream<Buf = D::Buf>>(
        &self,
        receiver: Receiver<'_, S>,
        bucket: &str,
        key: &str,
        front: Front,
        tags: Vec<u8>,
        condition: Condition,
    ) -> Result<(Etag, u64)> {
        let Front { sealed_head: head, entries, .. } = front;
        let id: UploadId = self.env.random_array();
        self.log
            .create_upload(CreateUpload {
                bucket: bucket.to_owned(),
                key: key.to_owned(),
                id,
                head: head.clone(),
                tags,
                sealed: true,
                time_ms: self.env.now_ms(),
                declared: None,
            })
            .await?;
        let outcome = self.receive_parts(receiver, bucket, key, &id, head, &entries, condition).await;
        if outcome.is_err() {
            // If this fails too, an uncompleted upload remains, and is listed as such.
            let _ = self.log.abort_upload(bucket, key, &id, self.env.now_ms()).await;
        }
        outcome
    }

    #[allow(clippy::too_many_arguments)]
    async fn receive_parts<S: Stream<Buf = D::Buf>>(
        &self,
        mut receiver: Receiver<'_, S>,
        bucket: &str,
        key: &str,
        id: &UploadId,
        head: Vec<u8>,
        entries: &[BodyEntry],
        condition: Condition,
    ) -> Result<(Etag, u64)> {
        let upload = self.log.upload(bucket, key, id)?.ok_or(ErrorCode::NoSuchUpload)?;
        let mut digest = MultipartEtag::new();
        for entry in entries {
            let Stored { content, salt, size } = receive_message(&self.log, &mut receiver, entry.message_len).await?;
            let etag = body::etag(&salt);
            digest.update(&etag);
            let (number, time_ms) = (entry.part_number as u16, self.env.now_ms());
            let part =
                PutPart { upload: upload.clone(), number, salt, etag, size, time_ms, checksums: Vec::new(), content };
            self.log.put_part(part).await?;
        }
        receiver.finish().await?;
        let parts: Vec<Part> = self.log.parts(&upload, 0, PARTS_MAX)?.into_iter().map(|part| part.part).collect();
        let etag = Etag { digest: digest.finish(), parts: parts.len() as u16 };
        let (size, time_ms) = (parts.iter().map(|part| part.size).sum(), self.env.now_ms());
        let tags = self.log.upload_head(&upload).await?.tags;
        let (bound, part_checksums) = (true, Vec::new());
        let complete =
            CompleteUpload { upload, parts, head, tags, part_checksums, bound, etag, size, time_ms, condition };
        self.log.complete_upload(complete).await?;
        Ok((etag, time_ms))
    }

    /// Locates a sealed object for a read without a key. A response is returned along with it if
    /// the conditions exclude sending the object.
    async fn find_sealed(&self, request: &Request<'_>) -> Result<(Object, Option<Response>)> {
        let (bucket, key) = request.object()?;
        let options = ops::read_options(request.head)?;
        if options.part_number.is_some() || options.overrides.iter().any(Option::is_some) {
            let message = "A sealed transfer is of the whole sealed object file, under headers of its own.";
            return Err(Error::new(ErrorCode::InvalidRequest).with_message(message).into());
        }
        if !sse::for_read(request.head, SseCTarget::Object, request.secure)?.is_absent() {
            return Err(no_key().into());
        }
        let object = self.log.object(bucket, key).await?.ok_or_else(|| request.no_such_key(bucket, key))?;
        if !object.sealed {
            let message = "The object is not sealed. Get it without x-keyhole-sealed.";
            return Err(Error::new(ErrorCode::InvalidRequest).with_message(message).into());
        }
        let reply = unmodified(request, &object)?;
        Ok((object, reply))
    }

    /// Handles GetObject of a sealed object file and sends the response.
    pub(crate) async fn get_sealed<S: Stream<Buf = D::Buf>>(
        &self,
        connection: &mut Connection<S>,
        request: &Request<'_>,
    ) -> Result<Outcome> {
        let (object, reply) = self.find_sealed(request).await?;
        if let Some(reply) = reply {
            return Ok(Outcome::Reply(reply));
        }
        let (bucket, key) = request.object()?;
        let mut file = SealedFile::new(&self.log, bucket, key, &object, false)?;
        let range = ops::range(request.head, file.len)?;
        let response = sealed_reply(&object, file.len, range.as_ref());
        let response = self.with_expiration(response, bucket, key, object.time_ms);
        file.wanted = range.unwrap_or(0..file.len);
        let _admitted = self.admission.download_sealed(file.wanted.end - file.wanted.start).await?;
        self.send_response(connection, request, response, &mut file).await
    }

    /// Handles HeadObject of a sealed object file.
    pub(crate) async fn head_sealed(&self, request: &Request<'_>) -> Result<Response> {
        let (object, reply) = self.find_sealed(request).await?;
        if let Some(reply) = reply {
            return Ok(reply);
        }
        let (bucket, key) = request.object()?;
        let len = SealedFile::new(&self.log, bucket, key, &object, false)?.len;
        let range = ops::range(request.head, len)?;
        let bytes = range.as_ref().map_or(len, |range| range.end - range.start);
        let response = sealed_reply(&object, len, range.as_ref()).content_length(bytes);
        Ok(self.with_expiration(response, bucket, key, object.time_ms))
    }
}

fn sealed_reply(object: &Object, len: u64, range: Option<&Range<u64>>) -> Response {
    range_reply(object, len, range).header("Content-Type", MEDIA_TYPE).header(SEALED_HEADER, "1")
}

fn no_key() -> Error {
    let message =
        "A sealed transfer is without the key: send x-keyhole-sealed or the headers of a customer key, not both.";
    Error::new(ErrorCode::InvalidRequest).with_message(message)
}
