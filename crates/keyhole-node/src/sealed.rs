//! Sealed transfer: uploads of client-sealed objects and downloads of sealed objects, without a
//! key.
//!
//! The representation is the sealed object file (`FORMAT.md` of `keyhole-core`, part 5). Uploads
//! are checked as far as possible without the key: names, structure, order, lengths. The first read
//! with the key checks the rest.

use std::ops::Range;
use std::rc::Rc;

use keyhole_core::body::{self, MultipartEtag};
use keyhole_core::file::{BodyEntry, MEDIA_TYPE};
use keyhole_log::limits::{BUFFER_LEN, INLINE_MAX, PAGE, PARTS_MAX};
use keyhole_log::{CompleteUpload, Content, CreateUpload, Etag, Object, Part, PutPart, UploadRef};
use keyhole_s3::body::Wanted;
use keyhole_s3::ops::{self, SEALED_HEADER};
use keyhole_s3::{Error, ErrorCode};

use crate::admission::{Admitted, ObjectClaim};
use crate::body_memory::BodyMemory;
use crate::commit::{CommittedVersion, NewObject};
use crate::failure::Result;
use crate::http::{Connection, Receiver, Response};
use crate::ingest::Stored;
use crate::limits::{BLOCK_PAGES, PUT_MAX, RECORD_FREE, SEALED_PART_LEN};
use crate::link::Link;
use crate::node::Node;
use crate::object_lock::lock_headers;
use crate::object_memory::{FoundObject, ObjectUse};
use crate::plan::{UploadId, WriteKind, WritePlan, refuse_read_key};
use crate::platform::Platform;
use crate::request::{ObjectName, Request};
use crate::response_headers::{quoted, range_response, unmodified};
use crate::sealed_file::{Front, FrontStart, SealedFile, receive_message, skip};
use crate::versions::{object_version, version_header};

impl<P: Platform> Node<P> {
    /// Handles PutObject of a sealed object file.
    pub(crate) async fn put_sealed(
        &self,
        connection: &mut Connection<P::Stream>,
        request: &Request<'_>,
    ) -> Result<Response<'_, P>> {
        let name = request.name()?;
        let mut plan = self.plan_write(request, name, WriteKind::SealedFile).await?;
        let mut receiver = Receiver::new(connection, request.decoder(Wanted::None, PUT_MAX)?);
        let file_len = receiver.len();
        let front_memory = self.admission.record(INLINE_MAX as u64, &receiver.link()).await?;
        let start = FrontStart::receive(&self.log, &mut receiver, name.bucket, name.key).await?;
        let mut held = self.parts_memory(start.bodies, file_len, &receiver.link()).await?;
        let kept = held.as_mut().map(|held| held.split(BLOCK_PAGES));
        let mut memory = BodyMemory::keeping(&self.admission, receiver.link(), kept);
        let front = start.receive_entries(&self.log, &mut receiver, file_len).await?;
        drop(front_memory);
        // Part checksums, which a complete object does not need.
        skip(&self.log, &mut receiver, front.infos_len).await?;
        let size = front.size;
        let (etag, version) = match front.entries[..] {
            [BodyEntry { part_number: 0, message_len, .. }] => {
                let stored = receive_message(&self.log, &mut receiver, Some(&mut memory), message_len).await?;
                receiver.finish().await?;
                let etag = Etag { digest: body::etag(&stored.salt), parts: 0 };
                let content = Content::New(stored.content, stored.salt);
                let object = NewObject { content, head: front.sealed_head, etag, size: stored.size, is_sealed: true };
                (etag, self.commit_object(&mut plan, object).await?)
            }
            _ => self.put_sealed_parts(receiver, &mut memory, plan, front).await?,
        };
        let CommittedVersion { time_ms, stored } = version;
        let response = Response::new(200).header("ETag", quoted(&etag)).header(SEALED_HEADER, "1");
        let response = response.headers(version_header(stored));
        Ok(self.with_expiration(response, name.bucket, name.key, size, time_ms))
    }

    /// Reserves memory for the list of so many bodies of a file, for the record that it becomes, and
    /// for one block: a request that has it waits for no more. `None` for a few bodies, which the
    /// memory of a connection covers.
    async fn parts_memory(&self, bodies: usize, file_len: u64, link: &Rc<Link>) -> Result<Option<Admitted<'_>>> {
        let list = bodies * SEALED_PART_LEN;
        if list <= RECORD_FREE {
            return Ok(None);
        }
        let pages = list.div_ceil(PAGE) + BLOCK_PAGES;
        Ok(Some(self.admission.object(ObjectClaim { pages, len: file_len, is_write: true }, link).await?))
    }

    /// Stores a multipart object as an upload of its own: part by part, then completed at once.
    async fn put_sealed_parts(
        &self,
        receiver: Receiver<'_, P::Stream>,
        memory: &mut BodyMemory<'_>,
        plan: WritePlan<'_>,
        front: Front,
    ) -> Result<(Etag, CommittedVersion)> {
        let bucket = plan.name.bucket;
        let key = plan.name.key;
        let id: UploadId = self.host.random_array();
        self.log
            .create_upload(CreateUpload {
                bucket: bucket.to_owned(),
                key: key.to_owned(),
                id,
                head: front.sealed_head.clone(),
                tags: plan.tags.clone(),
                sealed: true,
                time_ms: self.host.now_ms(),
                declared: None,
            })
            .await?;
        let outcome = self.receive_parts(receiver, memory, &plan, &id, front).await;
        if outcome.is_err() {
            // If this fails too, an uncompleted upload remains, and is listed as such.
            let _ = self.log.abort_upload(bucket, key, &id, self.host.now_ms()).await;
        }
        outcome
    }

    async fn receive_parts(
        &self,
        mut receiver: Receiver<'_, P::Stream>,
        memory: &mut BodyMemory<'_>,
        plan: &WritePlan<'_>,
        id: &UploadId,
        front: Front,
    ) -> Result<(Etag, CommittedVersion)> {
        let upload = self.log.upload(plan.name.bucket, plan.name.key, id)?.ok_or(ErrorCode::NoSuchUpload)?;
        let mut digest = MultipartEtag::new();
        for entry in &front.entries {
            let stored = receive_message(&self.log, &mut receiver, Some(memory), entry.message_len).await?;
            digest.update(&body::etag(&stored.salt));
            self.put_sealed_part(&upload, entry.part_number as u16, stored).await?;
        }
        receiver.finish().await?;
        let parts: Vec<Part> = self.log.parts(&upload, 0, PARTS_MAX)?.into_iter().map(|part| part.part).collect();
        let etag = Etag { digest: digest.finish(), parts: parts.len() as u16 };
        let time_ms = self.host.now_ms();
        let complete = CompleteUpload {
            upload,
            size: parts.iter().map(|part| part.size).sum(),
            parts,
            head: front.sealed_head,
            tags: plan.tags.clone(),
            part_checksums: Vec::new(),
            bound: true,
            etag,
            time_ms,
            condition: plan.guarded.condition,
        };
        let stored = self.log.complete_version(complete, plan.lock).await?;
        Ok((etag, CommittedVersion { time_ms, stored }))
    }

    async fn put_sealed_part(&self, upload: &UploadRef, number: u16, stored: Stored) -> Result<()> {
        let Stored { content, salt, size } = stored;
        let part = PutPart {
            upload: upload.clone(),
            number,
            salt,
            etag: body::etag(&salt),
            size,
            time_ms: self.host.now_ms(),
            checksums: Vec::new(),
            content,
        };
        Ok(self.log.put_part(part).await?)
    }

    /// Locates a sealed object for a read without a key.
    async fn find_sealed(&self, request: &Request<'_>) -> Result<FoundObject<'_>> {
        let options = ops::read_options(request.head)?;
        if options.part_number.is_some() || options.overrides.iter().any(Option::is_some) {
            let message = "A sealed transfer is of the whole sealed object file, under headers of its own.";
            return Err(Error::new(ErrorCode::InvalidRequest).with_message(message).into());
        }
        refuse_read_key(request)?;
        let found = self.find_version(request, request.name()?, request.version(), ObjectUse::SendSealed).await?;
        if !found.object.sealed {
            let message = "The object is not sealed. Get it without x-keyhole-sealed.";
            return Err(Error::new(ErrorCode::InvalidRequest).with_message(message).into());
        }
        Ok(found)
    }

    /// Handles GetObject of a sealed object file.
    pub(crate) async fn get_sealed(&self, request: &Request<'_>) -> Result<Response<'_, P>> {
        let FoundObject { object, mut memory, .. } = self.find_sealed(request).await?;
        if let Some(response) = unmodified(request, &object)? {
            return Ok(response);
        }
        let (bucket, key) = request.object()?;
        let evicted = self.evicted_file(ObjectName { bucket, key }, &object, object.size)?;
        let mut file = SealedFile::new(&self.log, bucket, key, &object, false)?.with_evicted(evicted);
        let range = ops::range(request.head, file.len, &object.etag, object.time_ms)?;
        let response = sealed_response(&object, file.len, range.as_ref());
        let response = self.with_expiration(response, bucket, key, object.size, object.time_ms);
        file.wanted = range.unwrap_or(0..file.len);
        drop(object);
        memory.shrink_to_sending();
        let admitted = match memory.take_spare() {
            Some(spare) => spare,
            None => {
                let len = file.wanted.end - file.wanted.start;
                self.admission.read(len, BUFFER_LEN, request.account.link()).await?
            }
        };
        file.begin().await?;
        Ok(response.sealed_file(file, admitted, memory))
    }

    /// Handles HeadObject of a sealed object file.
    pub(crate) async fn head_sealed(&self, request: &Request<'_>) -> Result<Response<'_, P>> {
        let FoundObject { object, memory: _memory, .. } = self.find_sealed(request).await?;
        if let Some(response) = unmodified(request, &object)? {
            return Ok(response);
        }
        let (bucket, key) = request.object()?;
        let len = SealedFile::new(&self.log, bucket, key, &object, false)?.len;
        let range = ops::range(request.head, len, &object.etag, object.time_ms)?;
        let bytes = range.as_ref().map_or(len, |range| range.end - range.start);
        let response = sealed_response(&object, len, range.as_ref()).content_length(bytes);
        Ok(self.with_expiration(response, bucket, key, object.size, object.time_ms))
    }
}

fn sealed_response<'n, P: Platform>(object: &Object, len: u64, range: Option<&Range<u64>>) -> Response<'n, P> {
    let response = range_response(object, len, range).header("Content-Type", MEDIA_TYPE).header(SEALED_HEADER, "1");
    response.headers(object_version(object)).headers(lock_headers(&object.lock))
}
