//! Multipart uploads.
//!
//! The head of an upload is written when the upload is created, sealed under the customer key and
//! the final names. It holds the data key of all parts, so a part under another customer key fails
//! to open the head.

use std::hash::{DefaultHasher, Hash, Hasher};

use keyhole_core::CustomerKey;
use keyhole_core::body::MultipartEtag;
use keyhole_core::head::{ChecksumType, Checksums, HeadKind};
use keyhole_log::limits::{PAGE, PARTS_MAX};
use keyhole_log::{CompleteUpload, Condition, CreateUpload, Etag, Part, PartInfo, UploadHead, UploadRef};
use keyhole_s3::body::Digester;
use keyhole_s3::checksum::{self, ObjectChecksums, PartsHasher};
use keyhole_s3::ops::{self, Completion, CopySource, DeclaredChecksum};
use keyhole_s3::xml::CompletedPart;
use keyhole_s3::{Error, ErrorCode, sse, xml};

use crate::binding::{self, Binding};
use crate::bodies::manifest;
use crate::body_memory::BodyMemory;
use crate::copy::source_version;
use crate::egress::{CopiedBody, Reader};
use crate::failure::{Failure, Result};
use crate::guard::GuardedWrite;
use crate::http::{Connection, Response};
use crate::ingest::Ingested;
use crate::limits::{
    COMPLETE_TRIES, COMPLETED_PART_LEN, COMPLETED_PART_MIN, COMPLETION_PART_LEN, OBJECT_MAX, PART_MIN, PUT_MAX,
};
use crate::node::Node;
use crate::object_head::{ObjectHead, part_key_failure};
use crate::object_memory::pages_beside;
use crate::part_checksums::PartChecksums;
use crate::plan::{UploadId, WriteKind, WriteTarget, write_condition};
use crate::platform::Platform;
use crate::request::{ObjectName, Request};
use crate::response_headers::sse_c_headers;
use crate::versions::version_header;

/// The object that a completed upload becomes: its encoded head, and the checksums.
struct Assembled {
    head: Vec<u8>,
    checksums: Checksums,
    kind: ChecksumType,
    part_checksums: Vec<u8>,
}

impl<P: Platform> Node<P> {
    /// Handles CreateMultipartUpload.
    pub(crate) async fn create_upload(&self, request: &Request<'_>) -> Result<Response<'_, P>> {
        let name = request.name()?;
        // Completion asks the guard again; asking here reports it before the parts are sent.
        let mut plan = self.plan_write(request, name, WriteKind::Upload).await?;
        let declared = ops::declared_checksum(request.head)?;
        let metadata = std::mem::take(&mut plan.metadata);
        let kind = HeadKind::Upload;
        let head = ObjectHead { kind, data_key: plan.data_key.take(), metadata, declared, ..ObjectHead::default() };
        let customer_key = plan.customer_key.as_deref();
        let id: UploadId = self.host.random_array();
        let time_ms = self.host.now_ms();
        let create = CreateUpload {
            bucket: name.bucket.to_owned(),
            key: name.key.to_owned(),
            id,
            head: self.write_head(&head, customer_key, name.bucket, name.key)?,
            tags: plan.tags,
            sealed: customer_key.is_some(),
            time_ms,
            declared: declared.map(|(algorithm, kind)| (algorithm as u8, kind as u8)),
        };
        self.log.create_locked_upload(create, plan.lock).await?;
        let response = Response::xml(200, xml::initiate_upload(name.bucket, name.key, &id));
        let response = self.with_abortion(response, name.bucket, name.key, time_ms);
        let declared = declared.into_iter().flat_map(|(algorithm, kind)| {
            let algorithm = ("x-amz-checksum-algorithm", checksum::algorithm_name(algorithm));
            [algorithm, ("x-amz-checksum-type", checksum::type_name(kind))]
        });
        Ok(response.headers(sse_c_headers(customer_key)).headers(declared))
    }

    /// Opens the head of an upload with the request's key, which must be the key that the upload
    /// was created with.
    pub(crate) async fn upload_head(
        &self,
        upload: &UploadRef,
        customer_key: Option<&CustomerKey>,
    ) -> Result<ObjectHead> {
        let head = self.log.upload_head(upload).await?.head;
        let head = self.read_head(&head, customer_key, &upload.bucket, &upload.key).map_err(part_key_failure)?;
        binding::check_upload(&head)?;
        Ok(head)
    }

    /// Handles UploadPart.
    pub(crate) async fn upload_part(
        &self,
        connection: &mut Connection<P::Stream>,
        request: &Request<'_>,
        id: &UploadId,
        number: u16,
    ) -> Result<Response<'_, P>> {
        let mut plan = self.plan_part(request, id, number).await?;
        if let WriteTarget::Part { upload, .. } = &plan.target {
            self.require_part_digest(request, plan.bucket_lock, upload).await?;
        }
        let mut decoder = request.decoder(plan.wanted(), PUT_MAX)?;
        decoder.compute(ops::checksum_of_part(declared(&plan.target), decoder.checksum_algorithm())?);
        let body = self.receive(connection, decoder, plan.sealing()).await?;
        let committed = self.commit(&mut plan, body).await?;
        Ok(committed.describe(Response::new(200), plan.customer_key.as_deref()))
    }

    /// Handles UploadPartCopy: re-encrypts the bytes under the upload's data key.
    pub(crate) async fn upload_part_copy(
        &self,
        request: &Request<'_>,
        id: &UploadId,
        number: u16,
        source: &CopySource,
        range: Option<(u64, u64)>,
    ) -> Result<Response<'_, P>> {
        let mut plan = self.plan_part(request, id, number).await?;
        let mut opened = self.open_source(request, source, 0).await?;
        let range = match range {
            None => 0..opened.object.size,
            Some((first, last)) if first <= last && last < opened.object.size => first..last + 1,
            Some((first, last)) => {
                let size = opened.object.size;
                let message = format!("Range specified is not valid for source object of size: {size}");
                let value = format!("bytes={first}-{last}");
                return Err(Error::invalid_argument("x-amz-copy-source-range", value, message).into());
            }
        };
        if range.end - range.start > PUT_MAX {
            return Err(ErrorCode::EntityTooLarge.into());
        }
        let kept = opened.memory.take_spare();
        let mut memory = BodyMemory::of_copy(&self.admission, request.account.link().clone(), kept);
        let binding = opened.binding;
        let source_version = source_version(&opened.object);
        let name = ObjectName { bucket: &source.bucket, key: &source.key };
        let evicted = self.evicted_file(name, &opened.object, range.end)?;
        let reader = Reader::new(self, &opened.object, opened.head.data_key, range).with_evicted(evicted);
        // A client cannot declare the checksum of a copied range.
        let algorithm = declared(&plan.target).map(|(algorithm, _)| algorithm);
        let mut body = CopiedBody::new(reader, Digester::undeclared(plan.wanted(), algorithm));
        let stored = self.ingest(&mut body, &mut memory, plan.sealing()).await?;
        let digests = body.finish()?;
        let ingested = Ingested { stored, digests, admitted: memory.written() };
        let committed = self.commit(&mut plan, ingested).await?;
        let document = xml::copy_part_result(&committed.etag.to_string(), committed.time_ms, &committed.checksums);
        let response = Response::xml(200, document).headers(sse_c_headers(plan.customer_key.as_deref()));
        Ok(response.headers(source_version).headers(binding.header()))
    }

    /// Handles CompleteMultipartUpload. A repeated completion succeeds as long as the object is the
    /// one that the first completion made.
    pub(crate) async fn complete_upload(
        &self,
        connection: &mut Connection<P::Stream>,
        request: &Request<'_>,
        id: &UploadId,
    ) -> Result<Response<'_, P>> {
        let name = request.name()?;
        let customer_key = request.sse_c().write_key()?;
        let customer_key = customer_key.as_deref();
        request.account.record_key(customer_key, name.bucket);
        let condition = write_condition(request)?;
        let completion = Completion::new(request.head)?;
        // The guard and a repeated completion read the object of this name.
        let record_len = self.record_len_max(name, None);
        let needed = |len: usize| (2 * len).max(bytes_of_completion(len / COMPLETED_PART_MIN, record_len));
        let document = self.document_for(connection, request, needed).await?;
        let completed = xml::parse_complete(&document)?;
        let mut memory = document.into_memory();
        memory.set_len(bytes_of_completion(completed.len(), record_len));
        let wanted = WantedObject { customer_key, condition, completion, completed, record_len };
        let done = match self.log.upload(name.bucket, name.key, id)? {
            Some(upload) => self.complete_open(request, &upload, &wanted).await,
            None => Err(ErrorCode::NoSuchUpload.into()),
        };
        match done {
            // Another request may have completed it in the meantime.
            Err(Failure::Reply(error)) if error.code == ErrorCode::NoSuchUpload => {
                self.complete_again(request, id, &wanted).await
            }
            done => done,
        }
    }

    /// Completes an upload that has not ended. Starts again if a part that was sent again has
    /// replaced a chosen attempt in the meantime.
    async fn complete_open(
        &self,
        request: &Request<'_>,
        upload: &UploadRef,
        wanted: &WantedObject<'_>,
    ) -> Result<Response<'_, P>> {
        for _ in 1..COMPLETE_TRIES {
            let mut tried = None;
            match self.complete_once(request, upload.clone(), wanted, &mut tried).await {
                Err(Failure::Reply(error)) if error.code == ErrorCode::InvalidPart => {
                    if tried.is_none() || tried == Some(fingerprint(&self.choose_parts(upload, wanted)?)) {
                        return Err(error.into());
                    }
                }
                done => return done,
            }
        }
        self.complete_once(request, upload.clone(), wanted, &mut None).await
    }

    /// Selects the attempts at parts that a completion names.
    fn choose_parts(&self, upload: &UploadRef, wanted: &WantedObject<'_>) -> Result<Vec<PartInfo>> {
        self.log.select_attempts(upload, |attempts| choose(&wanted.completed, attempts))?
    }

    /// Completes an upload from the kept attempts at its parts. `tried` is set to the
    /// [`fingerprint`] of the chosen ones.
    async fn complete_once(
        &self,
        request: &Request<'_>,
        upload: UploadRef,
        wanted: &WantedObject<'_>,
        tried: &mut Option<u64>,
    ) -> Result<Response<'_, P>> {
        let name = request.name()?;
        let WantedObject { customer_key, condition, completion, completed, record_len } = wanted;
        let customer_key = *customer_key;
        let binding = Binding::of_completion(&upload, customer_key, ops::requires_binding(request.head)?)?;
        let policy = self.policy(name.bucket)?;
        policy.check_kind(upload.sealed)?;
        if upload.sealed {
            policy.check_completion(customer_key, self.log.is_set_since(&upload), name.bucket)?;
        }
        let (key, is_sealed, len_max) = (customer_key, upload.sealed, Some(*record_len));
        let write = GuardedWrite { key, is_sealed, condition: *condition, len_max };
        let guarded = self.guard(request, name, &policy, write).await?;
        let chosen = self.choose_parts(&upload, wanted)?;
        *tried = Some(fingerprint(&chosen));
        let size = total_size(chosen.iter().map(|part| part.size))?;
        let mut etag = MultipartEtag::new();
        chosen.iter().for_each(|part| etag.update(&part.etag));
        let etag = Etag { digest: etag.finish(), parts: chosen.len() as u16 };

        let UploadHead { head, tags, lock } = self.log.upload_head(&upload).await?;
        let object = Completing { completion, completed, chosen: &chosen, size, etag };
        let assembled = self.assemble(&upload, head, customer_key, &object).await?;
        let time_ms = self.host.now_ms();
        let complete = CompleteUpload {
            // With the key, the head lists the parts and must do so from then on.
            bound: binding == Binding::Bound,
            upload,
            parts: chosen.into_iter().map(|part| part.part).collect(),
            head: assembled.head,
            tags,
            part_checksums: assembled.part_checksums,
            etag,
            size,
            time_ms,
            condition: guarded.condition,
        };
        self.record_if_sealed(request.account, name, None);
        let stored = self.log.complete_version(complete, lock).await.map_err(|error| guarded.explain(error))?;
        let checksums = ObjectChecksums { checksums: &assembled.checksums, kind: assembled.kind, parts: etag.parts };
        let document = xml::complete_result(name.bucket, name.key, &etag.to_string(), &checksums);
        let response = self.with_expiration(Response::xml(200, document), name.bucket, name.key, size, time_ms);
        Ok(response.headers(version_header(stored)).headers(binding.header()))
    }

    /// Writes the head of the object that an upload becomes. `stored` is the upload's own head.
    async fn assemble(
        &self,
        upload: &UploadRef,
        stored: Vec<u8>,
        customer_key: Option<&CustomerKey>,
        object: &Completing<'_>,
    ) -> Result<Assembled> {
        let Completing { completion, completed, size, etag, .. } = object;
        match (upload.sealed, customer_key) {
            (true, None) if upload.declared.is_some() => return Err(sse::key_required().into()),
            // Completion without the key, which S3 allows: the head stays as it was sealed at
            // creation.
            (true, None) => {
                let checksums = Checksums::default();
                completion.check(*size, etag.parts, None, &checksums)?;
                let kind = ChecksumType::FullObject;
                return Ok(Assembled { head: stored, checksums, kind, part_checksums: Vec::new() });
            }
            (false, Some(_)) => return Err(sse::part_mismatch().into()),
            (true, Some(_)) | (false, None) => {}
        }
        let UploadRef { bucket, key, .. } = upload;
        let mut head = self.read_head(&stored, customer_key, bucket, key).map_err(part_key_failure)?;
        binding::check_upload(&head)?;
        head.kind = HeadKind::Object;
        ops::require_part_checksums(head.declared, completed)?;
        let wanted = completion.wanted(head.declared);
        let (checksums, part_checksums) = self.object_checksums(completed, object.chosen, &head, wanted).await?;
        completion.check(*size, etag.parts, head.declared, &checksums)?;
        head.checksums = checksums;
        head.manifest = if upload.sealed { Some(manifest(object.chosen.iter().map(|part| &part.part))?) } else { None };
        let kind = head.declared.map_or(ChecksumType::FullObject, |(_, kind)| kind);
        let head = self.write_head(&head, customer_key, bucket, key)?;
        Ok(Assembled { head, checksums, kind, part_checksums })
    }

    /// Compares the part checksums named by the client with the stored ones. Computes the object's
    /// checksum from them if wanted, and collects the part checksums to store.
    async fn object_checksums(
        &self,
        completed: &[CompletedPart],
        chosen: &[PartInfo],
        head: &ObjectHead,
        wanted: DeclaredChecksum,
    ) -> Result<(Checksums, Vec<u8>)> {
        let mut hasher = wanted.and_then(|(algorithm, kind)| PartsHasher::new(algorithm, kind));
        let mut kept = PartChecksums::new(head.declared);
        for (named, part) in completed.iter().zip(chosen) {
            let encoded = self.log.part_checksums(part).await?;
            let stored = self.decode_part_checksums(&encoded, &part.part, head.data_key.as_deref())?;
            kept.push(&encoded);
            for (algorithm, digest) in named.checksums.iter() {
                if stored.get(algorithm).is_some_and(|stored| stored != digest) {
                    return Err(ErrorCode::InvalidPart.into());
                }
            }
            // Without the digest of a part, the object has none.
            hasher = hasher.and_then(|mut hasher| {
                hasher.push(stored.get(hasher.algorithm())?, part.size);
                Some(hasher)
            });
        }
        let mut checksums = Checksums::default();
        if let Some(hasher) = hasher {
            checksums.set(hasher.algorithm(), &hasher.finish())?;
        }
        Ok((checksums, kept.finish()))
    }

    /// Handles AbortMultipartUpload.
    pub(crate) async fn abort_upload(&self, request: &Request<'_>, id: &UploadId) -> Result<Response<'_, P>> {
        let (bucket, key) = request.object()?;
        self.log.abort_upload(bucket, key, id, self.host.now_ms()).await?;
        Ok(Response::new(204))
    }
}

/// The object that a CompleteMultipartUpload asks for.
pub(crate) struct WantedObject<'c> {
    pub(crate) customer_key: Option<&'c CustomerKey>,
    pub(crate) condition: Condition,
    pub(crate) completion: Completion,
    pub(crate) completed: Vec<CompletedPart>,
    /// Length of the record for which the request has memory: that of the object of this name when
    /// the request began.
    pub(crate) record_len: usize,
}

/// What a completion names, and the object that it adds up to.
struct Completing<'c> {
    completion: &'c Completion,
    completed: &'c [CompletedPart],
    chosen: &'c [PartInfo],
    size: u64,
    etag: Etag,
}

/// Returns the bytes of memory of a completion that names so many parts, beside a record of an
/// object of this length.
fn bytes_of_completion(parts: usize, record_len: usize) -> usize {
    let parts = parts.min(PARTS_MAX);
    let with_record = parts * COMPLETED_PART_LEN + pages_beside(record_len) * PAGE;
    with_record.max(parts * COMPLETION_PART_LEN)
}

/// Returns a number that differs if other attempts at parts are chosen.
fn fingerprint(chosen: &[PartInfo]) -> u64 {
    let mut hasher = DefaultHasher::new();
    chosen.iter().for_each(|part| part.part.body.hash(&mut hasher));
    hasher.finish()
}

/// Returns the total size of parts of these sizes.
fn total_size(parts: impl Iterator<Item = u64>) -> Result<u64> {
    let size = parts.fold(0u64, u64::saturating_add);
    if size > OBJECT_MAX { Err(ErrorCode::EntityTooLarge.into()) } else { Ok(size) }
}

/// Returns the checksum that the upload of a part declared.
fn declared(target: &WriteTarget) -> DeclaredChecksum {
    let WriteTarget::Part { upload, .. } = target else { return None };
    let (number, kind) = upload.declared?;
    let algorithm = checksum::ALGORITHMS.into_iter().find(|algorithm| *algorithm as u8 == number)?;
    Some((algorithm, checksum::TYPES.into_iter().find(|it| *it as u8 == kind)?))
}

/// Selects the attempts at parts that the client names: the newest with that ETag.
fn choose(completed: &[CompletedPart], attempts: &mut dyn Iterator<Item = PartInfo>) -> Result<Vec<PartInfo>> {
    if completed.is_empty() {
        return Err(ErrorCode::MalformedXML.into());
    }
    if completed.windows(2).any(|pair| pair[0].number >= pair[1].number) {
        return Err(ErrorCode::InvalidPartOrder.into());
    }
    let mut attempts = attempts.peekable();
    let mut chosen = Vec::with_capacity(completed.len());
    for named in completed {
        while attempts.next_if(|part| part.number < named.number).is_some() {}
        let mut found = None;
        while let Some(part) = attempts.next_if(|part| part.number == named.number) {
            if names(named, &part.part) {
                found = Some(part);
            }
        }
        chosen.push(found.ok_or(ErrorCode::InvalidPart)?);
    }
    let (_, but_last) = chosen.split_last().ok_or(ErrorCode::MalformedXML)?;
    if but_last.iter().any(|part| part.size < PART_MIN) {
        return Err(ErrorCode::EntityTooSmall.into());
    }
    Ok(chosen)
}

/// Returns whether a part is the one that the client names.
pub(crate) fn names(named: &CompletedPart, part: &Part) -> bool {
    let mut etag = [0; 32];
    // Under the lock of the store, for each part: without an allocation.
    hex::encode_to_slice(part.etag, &mut etag).expect("two digits for each byte");
    named.number == part.number && named.etag.trim_matches('"').as_bytes() == etag
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn object_beyond_five_tib_is_refused() {
        const COUNT: u64 = 10_000;
        let each = OBJECT_MAX / COUNT;
        let last = |last: u64| (1..COUNT).map(move |_| each).chain([last]);
        let left = OBJECT_MAX - each * (COUNT - 1);
        assert!(each <= PUT_MAX && left <= PUT_MAX);
        assert!(total_size(last(left)).is_ok_and(|size| size == OBJECT_MAX));
        assert!(total_size(last(left + 1)).is_err());
        assert!(total_size((0..COUNT).map(|_| PUT_MAX)).is_err() && total_size([u64::MAX; 2].into_iter()).is_err());
        assert!(total_size([].into_iter()).is_ok_and(|size| size == 0));
    }
}
