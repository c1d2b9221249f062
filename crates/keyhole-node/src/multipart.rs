//! Multipart uploads.
//!
//! The head of an upload is written when the upload is created, sealed under the customer key and
//! the final names. It holds the data key of all parts, so a part under another customer key fails
//! to open the head.

use keyhole_core::CustomerKey;
use keyhole_core::DataKey;
use keyhole_core::aead::Engine;
use keyhole_core::body::{self, MultipartEtag, PART_INFO_MAX};
use keyhole_core::head::{ChecksumAlgorithm, ChecksumType, Checksums};
use keyhole_log::limits::PARTS_MAX;
use keyhole_log::{
    CompleteUpload, Condition, CreateUpload, Disk, Etag, Part, PartInfo, PutPart, UploadHead, UploadRef,
};
use keyhole_s3::body::{BodyDecoder, Digester, Wanted};
use keyhole_s3::checksum::{self, ObjectChecksums};
use keyhole_s3::http::Response;
use keyhole_s3::ops::{self, Completion, CopySource, DeclaredChecksum};
use keyhole_s3::xml::CompletedPart;
use keyhole_s3::{ErrorCode, sse, xml};

use crate::attributes::PartChecksums;
use crate::download::{Copied, Reader};
use crate::failure::Result;
use crate::heads::{ObjectHead, manifest, part_key_failure};
use crate::io::{Env, Stream};
use crate::limits::{OBJECT_MAX, PART_MIN, PUT_MAX};
use crate::node::{Node, Request};
use crate::object::{quoted, with_checksums, with_sse, write_condition};
use crate::request::{Connection, Receiver};
use crate::upload::{Sealing, Stored};

/// An upload id.
pub(crate) type UploadId = [u8; 16];

/// An open upload that can receive a part.
struct Open {
    upload: UploadRef,
    customer_key: Option<CustomerKey>,
    data_key: Option<DataKey>,
}

impl<D: Disk, E: Engine, V: Env> Node<D, E, V> {
    /// Handles CreateMultipartUpload.
    pub(crate) async fn create_upload(&self, request: &Request<'_>) -> Result<Response> {
        let (bucket, key) = request.object()?;
        let policy = self.policy(bucket)?;
        let customer_key = self.key_for_write(request, bucket, &policy)?;
        let metadata = ops::metadata(request.head)?;
        let declared = ops::declared_checksum(request.head)?;
        let tags = ops::tags(request.head)?.to_bytes();
        self.require_bucket(bucket)?;
        // Completion checks this again; checking here reports it before the parts are sent.
        self.guard(request, (bucket, key), &policy, customer_key.as_ref(), customer_key.is_some(), Condition::None)
            .await?;
        let data_key = customer_key.is_some().then(|| self.data_key());
        let head = ObjectHead { data_key, metadata, declared, ..ObjectHead::default() };
        let id: UploadId = self.env.random_array();
        let time_ms = self.env.now_ms();
        self.log
            .create_upload(CreateUpload {
                bucket: bucket.to_owned(),
                key: key.to_owned(),
                id,
                head: self.write_head(&head, customer_key.as_ref(), bucket, key)?,
                tags,
                sealed: customer_key.is_some(),
                time_ms,
                declared: declared.map(|(algorithm, kind)| (algorithm as u8, kind as u8)),
            })
            .await?;
        let document = xml::initiate_upload(bucket, key, &id);
        let mut response = with_sse(Response::xml(200, document), customer_key.as_ref());
        response = self.with_abortion(response, bucket, key, time_ms);
        if let Some((algorithm, kind)) = declared {
            response = response
                .header("x-amz-checksum-algorithm", checksum::algorithm_name(algorithm))
                .header("x-amz-checksum-type", checksum::type_name(kind));
        }
        Ok(response)
    }

    /// Locates the upload of a part and opens its head with the request's key. An upload with a
    /// customer key takes only parts with that key, and one without takes only parts without.
    async fn open_upload(&self, request: &Request<'_>, id: &UploadId) -> Result<Open> {
        let (bucket, key) = request.object()?;
        let customer_key = self.key_for_write(request, bucket, &self.policy(bucket)?)?;
        let upload = self.log.upload(bucket, key, id)?.ok_or(ErrorCode::NoSuchUpload)?;
        if upload.sealed != customer_key.is_some() {
            return Err(sse::part_mismatch().into());
        }
        let data_key = match &customer_key {
            None => None,
            Some(customer_key) => self.upload_head(&upload, Some(customer_key)).await?.data_key,
        };
        Ok(Open { upload, customer_key, data_key })
    }

    /// Opens the head of an upload with the request's key, which must be the key that the upload
    /// was created with.
    pub(crate) async fn upload_head(
        &self,
        upload: &UploadRef,
        customer_key: Option<&CustomerKey>,
    ) -> Result<ObjectHead> {
        let head = self.log.upload_head(upload).await?.head;
        self.read_head(&head, customer_key, &upload.bucket, &upload.key).map_err(part_key_failure)
    }

    /// Handles UploadPart.
    pub(crate) async fn upload_part<S: Stream<Buf = D::Buf>>(
        &self,
        connection: &mut Connection<S>,
        request: Request<'_>,
        id: &UploadId,
        number: u16,
    ) -> Result<Response> {
        let open = self.open_upload(&request, id).await?;
        let wanted = Wanted::for_etag(open.data_key.is_some());
        let mut decoder = BodyDecoder::new(request.head, request.payload.clone(), wanted, PUT_MAX)?;
        decoder.compute(ops::checksum_of_part(declared(&open.upload), decoder.checksum_algorithm())?);
        let mut receiver = Receiver::new(connection, decoder);
        let admitted = self.admit_upload(&mut receiver, request.head).await?;
        let stored = self.store(&mut receiver, open.sealing(number)).await?;
        let _held = admitted.written();
        let digests = receiver.finish().await?;
        let (etag, _) = self.put_part(&open, number, stored, digests.md5, &digests.checksums).await?;
        let response = with_sse(Response::new(200), open.customer_key.as_ref()).header("ETag", quoted(&etag));
        Ok(with_checksums(response, &digests.checksums))
    }

    /// Handles UploadPartCopy: re-encrypts the bytes under the upload's data key.
    pub(crate) async fn upload_part_copy(
        &self,
        request: &Request<'_>,
        id: &UploadId,
        number: u16,
        source: &CopySource,
        range: Option<(u64, u64)>,
    ) -> Result<Response> {
        let open = self.open_upload(request, id).await?;
        let found = self.find_source(request, source).await?;
        let range = match range {
            None => 0..found.object.size,
            Some((first, last)) if first <= last && last < found.object.size => first..last + 1,
            Some(_) => return Err(ErrorCode::InvalidRange.into()),
        };
        if range.end - range.start > PUT_MAX {
            return Err(ErrorCode::EntityTooLarge.into());
        }
        let _admitted = self.admission.copy(range.end - range.start).await?;
        let reader = Reader::new(self, &found.object.parts, found.head.data_key, range);
        let wanted = Wanted::for_etag(open.data_key.is_some());
        // A client cannot declare the checksum of a copied range.
        let algorithm = declared(&open.upload).map(|(algorithm, _)| algorithm);
        let mut payload = Copied::new(reader, Digester::undeclared(wanted, algorithm));
        let stored = self.store(&mut payload, open.sealing(number)).await?;
        let digests = payload.finish()?;
        let (etag, time_ms) = self.put_part(&open, number, stored, digests.md5, &digests.checksums).await?;
        let document = xml::copy_part_result(&etag.to_string(), time_ms, &digests.checksums);
        Ok(with_sse(Response::xml(200, document), open.customer_key.as_ref()))
    }

    /// Commits a body as a part. Returns the part's ETag and time.
    async fn put_part(
        &self,
        open: &Open,
        number: u16,
        stored: Stored,
        md5: Option<[u8; 16]>,
        checksums: &Checksums,
    ) -> Result<(Etag, u64)> {
        let etag = match &open.data_key {
            Some(_) => body::etag(&stored.salt),
            None => md5.ok_or(ErrorCode::InternalError)?,
        };
        let time_ms = self.env.now_ms();
        self.log
            .put_part(PutPart {
                upload: open.upload.clone(),
                number,
                salt: stored.salt,
                etag,
                size: stored.size,
                time_ms,
                checksums: self.part_info(open, number, &stored, checksums)?,
                content: stored.content,
            })
            .await?;
        Ok((Etag { digest: etag, parts: 0 }, time_ms))
    }

    /// Encodes the checksums of a part, sealed under the data key if the upload is sealed; empty if
    /// there are no checksums.
    fn part_info(&self, open: &Open, number: u16, stored: &Stored, checksums: &Checksums) -> Result<Vec<u8>> {
        if checksums.is_empty() {
            return Ok(Vec::new());
        }
        let Some(data_key) = &open.data_key else {
            let head = ObjectHead { checksums: *checksums, ..ObjectHead::default() };
            return self.write_head(&head, None, "", "");
        };
        let salt = self.env.random_array();
        let mut info = vec![0; PART_INFO_MAX];
        let len =
            body::seal_part_info(&self.engine, data_key, &salt, u32::from(number), &stored.salt, checksums, &mut info)?;
        info.truncate(len);
        Ok(info)
    }

    /// Decodes the checksums from a part info.
    pub(crate) fn read_part_info(&self, info: &[u8], part: &Part, data_key: Option<&DataKey>) -> Result<Checksums> {
        if info.is_empty() {
            return Ok(Checksums::default());
        }
        Ok(match data_key {
            None => self.read_head(info, None, "", "")?.checksums,
            Some(data_key) => {
                let (number, mut info) = (u32::from(part.number), info.to_vec());
                body::open_part_info(&self.engine, data_key, number, &part.salt, &mut info)?
            }
        })
    }

    /// Handles CompleteMultipartUpload.
    pub(crate) async fn complete_upload<S: Stream<Buf = D::Buf>>(
        &self,
        connection: &mut Connection<S>,
        request: Request<'_>,
        id: &UploadId,
    ) -> Result<Response> {
        let (bucket, key) = request.object()?;
        let customer_key = sse::for_write(request.head, request.secure)?;
        request.account.uses(customer_key.as_ref(), bucket);
        let (condition, completion) = (write_condition(&request)?, Completion::new(request.head)?);
        let document = self.document(connection, &request).await?;
        let completed = xml::parse_complete(&document)?;
        let upload = self.log.upload(bucket, key, id)?.ok_or(ErrorCode::NoSuchUpload)?;
        let policy = self.policy(bucket)?;
        policy.check_kind(upload.sealed)?;
        if upload.sealed {
            policy.check_completion(customer_key.as_ref(), self.log.is_set_since(&upload), bucket)?;
        }
        let guard =
            self.guard(&request, (bucket, key), &policy, customer_key.as_ref(), upload.sealed, condition).await?;
        let chosen = choose(&completed, self.log.parts(&upload, 0, PARTS_MAX)?)?;
        let size = whole(chosen.iter().map(|part| part.size))?;
        let mut etag = MultipartEtag::new();
        chosen.iter().for_each(|part| etag.update(&part.etag));
        let etag = Etag { digest: etag.finish(), parts: chosen.len() as u16 };

        let UploadHead { head: stored, tags } = self.log.upload_head(&upload).await?;
        let parts: Vec<_> = chosen.iter().map(|info| info.part.clone()).collect();
        // With the key, the head is rewritten with a manifest of the parts and must have it from
        // then on.
        let bound = upload.sealed && customer_key.is_some();
        let mut kind = ChecksumType::FullObject;
        let (head, checksums, part_checksums) = match (upload.sealed, &customer_key) {
            (true, None) if upload.declared.is_some() => return Err(sse::key_required().into()),
            // Completion without the key, which S3 allows: the head stays as it was sealed at
            // creation.
            (true, None) => {
                completion.check(size, etag.parts, None, &Checksums::default())?;
                (stored, Checksums::default(), Vec::new())
            }
            (false, Some(_)) => return Err(sse::part_mismatch().into()),
            (sealed, _) => {
                let mut head = self.read_head(&stored, customer_key.as_ref(), bucket, key).map_err(part_key_failure)?;
                let part_checksums;
                ops::all_checksums(head.declared, &completed)?;
                let wanted = completion.wanted(head.declared);
                (head.checksums, part_checksums) = self.object_checksums(&completed, &chosen, &head, wanted).await?;
                completion.check(size, etag.parts, head.declared, &head.checksums)?;
                head.manifest = if sealed { Some(manifest(&parts)?) } else { None };
                kind = head.declared.map_or(kind, |(_, kind)| kind);
                (self.write_head(&head, customer_key.as_ref(), bucket, key)?, head.checksums, part_checksums)
            }
        };
        let time_ms = self.env.now_ms();
        let condition = guard.condition;
        let complete =
            CompleteUpload { upload, parts, head, tags, part_checksums, bound, etag, size, time_ms, condition };
        self.log.complete_upload(complete).await.map_err(|error| guard.explain(error))?;
        let checksums = ObjectChecksums { checksums: &checksums, kind, parts: etag.parts };
        let response = Response::xml(200, xml::complete_result(bucket, key, &etag.to_string(), &checksums));
        Ok(self.with_expiration(response, bucket, key, time_ms))
    }

    /// Compares the part checksums named by the client with the stored ones. Computes the object's
    /// checksum from them if wanted, and collects the part part_checksums to store.
    async fn object_checksums(
        &self,
        completed: &[CompletedPart],
        chosen: &[PartInfo],
        head: &ObjectHead,
        wanted: DeclaredChecksum,
    ) -> Result<(Checksums, Vec<u8>)> {
        let mut digests = Vec::with_capacity(chosen.len());
        let mut kept = PartChecksums::new(head.declared);
        for (named, part) in completed.iter().zip(chosen) {
            let info = self.log.part_checksums(part).await?;
            let stored = self.read_part_info(&info, &part.part, head.data_key.as_ref())?;
            kept.push(&info);
            for (algorithm, digest) in named.checksums.iter() {
                if stored.get(algorithm).is_some_and(|stored| stored != digest) {
                    return Err(ErrorCode::InvalidPart.into());
                }
            }
            digests.push((stored, part.size));
        }
        let mut checksums = Checksums::default();
        if let Some((algorithm, kind)) = wanted
            && let Some(digest) = object_digest(algorithm, kind, &digests)
        {
            checksums.set(algorithm, &digest)?;
        }
        Ok((checksums, kept.finish()))
    }

    /// Handles AbortMultipartUpload.
    pub(crate) async fn abort_upload(&self, request: &Request<'_>, id: &UploadId) -> Result<Response> {
        let (bucket, key) = request.object()?;
        self.log.abort_upload(bucket, key, id, self.env.now_ms()).await?;
        Ok(Response::new(204))
    }
}

impl Open {
    fn sealing(&self, number: u16) -> Option<Sealing<'_>> {
        let data_key = self.data_key.as_ref()?;
        Some(Sealing { data_key, part_number: u32::from(number) })
    }
}

/// Returns the total size of parts of these sizes.
fn whole(parts: impl Iterator<Item = u64>) -> Result<u64> {
    let size = parts.fold(0u64, u64::saturating_add);
    if size > OBJECT_MAX { Err(ErrorCode::EntityTooLarge.into()) } else { Ok(size) }
}

/// Returns the checksum that an upload declared.
fn declared(upload: &UploadRef) -> DeclaredChecksum {
    let (number, kind) = upload.declared?;
    let algorithm = checksum::ALGORITHMS.into_iter().find(|algorithm| *algorithm as u8 == number)?;
    Some((algorithm, checksum::TYPES.into_iter().find(|it| *it as u8 == kind)?))
}

/// Selects the uploaded parts that the client names.
fn choose(completed: &[CompletedPart], uploaded: Vec<PartInfo>) -> Result<Vec<PartInfo>> {
    if completed.is_empty() {
        return Err(ErrorCode::MalformedXML.into());
    }
    if completed.windows(2).any(|pair| pair[0].number >= pair[1].number) {
        return Err(ErrorCode::InvalidPartOrder.into());
    }
    let mut uploaded = uploaded.into_iter().peekable();
    let mut chosen = Vec::with_capacity(completed.len());
    for named in completed {
        while uploaded.next_if(|part| part.number < named.number).is_some() {}
        let part = uploaded.next_if(|part| part.number == named.number).ok_or(ErrorCode::InvalidPart)?;
        if named.etag.trim_matches('"') != (Etag { digest: part.etag, parts: 0 }).to_string() {
            return Err(ErrorCode::InvalidPart.into());
        }
        chosen.push(part);
    }
    let (_, but_last) = chosen.split_last().ok_or(ErrorCode::MalformedXML)?;
    if but_last.iter().any(|part| part.size < PART_MIN) {
        return Err(ErrorCode::EntityTooSmall.into());
    }
    Ok(chosen)
}

/// Computes the digest of an object from those of its parts; `None` if a part lacks one.
fn object_digest(algorithm: ChecksumAlgorithm, kind: ChecksumType, parts: &[(Checksums, u64)]) -> Option<Vec<u8>> {
    let digests: Option<Vec<(&[u8], u64)>> =
        parts.iter().map(|(checksums, size)| Some((checksums.get(algorithm)?, *size))).collect();
    match kind {
        ChecksumType::Composite => Some(checksum::composite(algorithm, digests?.iter().map(|(digest, _)| *digest))),
        ChecksumType::FullObject => checksum::combine(algorithm, &digests?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_in_parts_has_five_tib_at_most() {
        const COUNT: u64 = 10_000;
        let each = OBJECT_MAX / COUNT;
        let last = |last: u64| (1..COUNT).map(move |_| each).chain([last]);
        let left = OBJECT_MAX - each * (COUNT - 1);
        assert!(each <= PUT_MAX && left <= PUT_MAX);
        assert!(whole(last(left)).is_ok_and(|size| size == OBJECT_MAX));
        assert!(whole(last(left + 1)).is_err());
        assert!(whole((0..COUNT).map(|_| PUT_MAX)).is_err() && whole([u64::MAX; 2].into_iter()).is_err());
        assert!(whole([].into_iter()).is_ok_and(|size| size == 0));
    }
}
