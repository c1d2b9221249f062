//! Import of transferred objects.

use std::io;
use std::marker::PhantomData;
use std::ops::Range;

use keyhole_core::body::{self, MultipartEtag};
use keyhole_core::file::BodyEntry;
use keyhole_log::limits::{BLOCK_DATA, PART_CHECKSUMS_MAX, PARTS_MAX, buffer_len};
use keyhole_log::{
    CompleteUpload, Condition, Content, CreateUpload, Disk, Etag, Lock, Log, NewBody, Part, PutObject, PutPart,
    UploadRef, VersionId,
};

use super::{Description, PartDescription};
use crate::failure::{Failure, Result};
use crate::ingest::Stored;
use crate::part_checksums::encode_part_checksums;
use crate::plan::UploadId;
use crate::sealed_file::{Front, malformed, receive, receive_message, skip};
use crate::source::BodySource;

/// The source of a file's bytes.
#[allow(async_fn_in_trait)]
pub trait ImportSource {
    /// Fills `to`, completely unless the file ends. Returns the number of bytes filled.
    async fn fill(&mut self, to: &mut [u8]) -> io::Result<usize>;
}

/// Error importing an object.
#[derive(Debug)]
pub enum ImportError {
    /// The object does not match its description, or the log refuses it or is full.
    Refused(String),
    /// The source failed.
    Gone(io::Error),
}

impl From<Failure> for ImportError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Reply(error) => ImportError::Refused(error.message.to_string()),
            Failure::Fault(_, cause) => ImportError::Refused(cause.to_string()),
            Failure::Connection(error) => ImportError::Gone(error),
        }
    }
}

impl From<keyhole_log::Error> for ImportError {
    fn from(error: keyhole_log::Error) -> Self {
        ImportError::Refused(error.to_string())
    }
}

/// An object whose bytes are stored, but which is not visible yet.
pub struct Import {
    what: What,
    /// The version that it becomes, and its lock; `None` for an object as a client stores it.
    version: Option<(VersionId, Lock)>,
}

enum What {
    Whole(Box<PutObject>),
    Parts(Box<CompleteUpload>),
}

/// A file with `remaining` bytes still to come.
struct File<'i, D, I> {
    incoming: &'i mut I,
    remaining: u64,
    disk: PhantomData<D>,
}

impl<D: Disk, I: ImportSource> BodySource<D::Buf> for File<'_, D, I> {
    fn remaining(&self) -> u64 {
        self.remaining
    }

    async fn fill(&mut self, mut buf: D::Buf, at: Range<usize>) -> (Result<usize>, D::Buf) {
        let len = at.len().min(usize::try_from(self.remaining).unwrap_or(usize::MAX));
        let filled = self.incoming.fill(D::slice(&mut buf, at.start..at.start + len)).await;
        if let Ok(filled) = &filled {
            self.remaining -= *filled as u64;
        }
        (filled.map_err(Failure::from), buf)
    }
}

impl Import {
    /// Receives the file of an object, of `file_len` bytes, and stores its bodies.
    /// [`commit`](Self::commit) makes the object visible, if `condition` still holds. Until then a
    /// multipart object is an upload, with the given `id` and start time `now_ms`; a leftover
    /// upload with the same id is aborted first.
    ///
    /// # Errors
    /// [`ImportError`]; nothing remains of the object.
    pub async fn receive<D: Disk>(
        log: &Log<D>,
        description: &Description,
        (id, now_ms): (UploadId, u64),
        condition: Condition,
        file_len: u64,
        incoming: &mut impl ImportSource,
    ) -> std::result::Result<Import, ImportError> {
        description.check().map_err(ImportError::Refused)?;
        let mut file = File::<D, _> { incoming, remaining: file_len, disk: PhantomData };
        let taker = Importer { log, description, condition, id, now_ms };
        let received = match description.sealed {
            true => taker.sealed(&mut file).await?,
            false if file_len != description.size => {
                return Err(ImportError::Refused("the file is not as long as its object".to_owned()));
            }
            false => taker.plain(&mut file).await?,
        };
        Ok(Import { what: received, version: description.version.map(|version| (version, description.lock)) })
    }

    /// Makes the object visible; durable on return. If the description names a version, the object
    /// becomes that version, the newest one of its name.
    ///
    /// # Errors
    /// The errors of the log; nothing remains of the object.
    pub async fn commit<D: Disk>(self, log: &Log<D>) -> std::result::Result<(), keyhole_log::Error> {
        match self.what {
            What::Whole(put) => match self.version {
                Some((version, lock)) => log.import_version(*put, version, lock).await,
                None => log.put_object(*put).await,
            },
            What::Parts(complete) => {
                let upload = complete.upload.clone();
                let result = match self.version {
                    Some((version, lock)) => log.import_upload(*complete, version, lock).await,
                    None => log.complete_upload(*complete).await,
                };
                if result.is_err() {
                    let _ = log.abort_upload(&upload.bucket, &upload.key, &upload.id, upload.time_ms).await;
                }
                result
            }
        }
    }

    /// Discards the object.
    pub async fn give_up<D: Disk>(self, log: &Log<D>) {
        if let What::Parts(complete) = self.what {
            let UploadRef { bucket, key, id, time_ms, .. } = &complete.upload;
            let _ = log.abort_upload(bucket, key, id, *time_ms).await;
        }
    }
}

struct Importer<'t, D: Disk> {
    log: &'t Log<D>,
    description: &'t Description,
    condition: Condition,
    id: UploadId,
    /// Start time of the upload. An upload started at the object's own time could already be due
    /// for abortion.
    now_ms: u64,
}

impl<D: Disk> Importer<'_, D> {
    async fn sealed(&self, file: &mut impl BodySource<D::Buf>) -> Result<What> {
        let (bucket, key) = (&self.description.bucket, &self.description.key);
        let front = Front::receive(self.log, file, file.remaining(), bucket, key).await?;
        if front.size != self.description.size {
            return Err(not_as_described("size"));
        }
        let part_checksums = self.part_checksums(file, &front).await?;
        if front.is_whole() {
            let stored = receive_message(self.log, file, None, front.entries[0].message_len).await?;
            let etag = Etag { digest: body::etag(&stored.salt), parts: 0 };
            return self.whole(stored, front.sealed_head, etag);
        }
        let upload = self.upload(&front.sealed_head, true).await?;
        let outcome = async {
            for BodyEntry { part_number, message_len, .. } in &front.entries {
                let stored = receive_message(self.log, file, None, *message_len).await?;
                let etag = body::etag(&stored.salt);
                self.part(&upload, *part_number as u16, stored, etag).await?;
            }
            self.parts(&upload, front.sealed_head, part_checksums)
        };
        self.or_abort(&upload, outcome.await).await
    }

    /// Receives the sealed part checksums, encoded as an object stores them.
    async fn part_checksums(&self, file: &mut impl BodySource<D::Buf>, front: &Front) -> Result<Vec<u8>> {
        if front.infos_len + 2 * front.entries.len() as u64 > PART_CHECKSUMS_MAX as u64 {
            skip(self.log, file, front.infos_len).await?;
            return Ok(Vec::new());
        }
        if front.infos_len == 0 {
            return Ok(Vec::new());
        }
        let mut bytes = Vec::new();
        receive(self.log, file, front.infos_len as usize, &mut bytes).await?;
        let mut rest = &bytes[..];
        Ok(encode_part_checksums(front.entries.iter().map(|entry| {
            let (checksums, behind) = rest.split_at(entry.info_len as usize);
            rest = behind;
            checksums
        })))
    }

    async fn plain(&self, file: &mut impl BodySource<D::Buf>) -> Result<What> {
        let Description { head, parts, .. } = self.description;
        if let [PartDescription { number: 0, size, etag, .. }] = parts[..] {
            let stored = self.store(file, size).await?;
            return self.whole(stored, head.clone(), Etag { digest: etag, parts: 0 });
        }
        let upload = self.upload(head, false).await?;
        let outcome = async {
            for PartDescription { number, size, etag, .. } in parts {
                let stored = self.store(file, *size).await?;
                self.part(&upload, *number, stored, *etag).await?;
            }
            let part_checksums = encode_part_checksums(parts.iter().filter_map(|part| part.checksums.as_deref()));
            self.parts(&upload, head.clone(), part_checksums)
        };
        self.or_abort(&upload, outcome.await).await
    }

    /// Stores `size` bytes unchanged.
    async fn store(&self, file: &mut impl BodySource<D::Buf>, size: u64) -> Result<Stored> {
        let mut writer = self.log.body_writer();
        let mut left = size;
        loop {
            let len = left.min(BLOCK_DATA as u64) as usize;
            let (filled, buf) = file.fill(self.log.disk().buffer_with_len(buffer_len(len)), 0..len).await;
            if filled? < len {
                return Err(malformed(keyhole_core::file::FileError::Length).into());
            }
            left -= len as u64;
            if left == 0 {
                let content: NewBody = writer.finish(Some((buf, len, &[])), &[]).await?;
                return Ok(Stored { content, salt: [0; 24], size });
            }
            writer.push(buf, &[]).await?;
        }
    }

    fn whole(&self, stored: Stored, head: Vec<u8>, etag: Etag) -> Result<What> {
        let Description { bucket, key, sealed, size, time_ms, tags, .. } = self.description;
        if etag != self.description.etag {
            return Err(not_as_described("ETag"));
        }
        Ok(What::Whole(Box::new(PutObject {
            bucket: bucket.clone(),
            key: key.clone(),
            content: Content::New(stored.content, stored.salt),
            head,
            tags: tags.to_bytes(),
            sealed: *sealed,
            etag,
            size: *size,
            time_ms: *time_ms,
            condition: self.condition,
        })))
    }

    async fn upload(&self, head: &[u8], sealed: bool) -> Result<UploadRef> {
        let Description { bucket, key, tags, .. } = self.description;
        if self.log.upload(bucket, key, &self.id)?.is_some() {
            self.log.abort_upload(bucket, key, &self.id, self.now_ms).await?;
        }
        let create = CreateUpload {
            bucket: bucket.clone(),
            key: key.clone(),
            id: self.id,
            head: head.to_vec(),
            tags: tags.to_bytes(),
            sealed,
            time_ms: self.now_ms,
            declared: None,
        };
        self.log.create_upload(create).await?;
        Ok(self.log.upload(bucket, key, &self.id)?.ok_or(keyhole_log::Error::NoSuchUpload)?)
    }

    async fn part(&self, upload: &UploadRef, number: u16, stored: Stored, etag: [u8; 16]) -> Result<()> {
        let Stored { content, salt, size } = stored;
        let (upload, time_ms, checksums) = (upload.clone(), self.description.time_ms, Vec::new());
        Ok(self.log.put_part(PutPart { upload, number, content, salt, etag, size, time_ms, checksums }).await?)
    }

    fn parts(&self, upload: &UploadRef, head: Vec<u8>, part_checksums: Vec<u8>) -> Result<What> {
        let Description { size, time_ms, tags, bound, .. } = self.description;
        let parts: Vec<Part> = self.log.parts(upload, 0, PARTS_MAX)?.into_iter().map(|part| part.part).collect();
        let mut digest = MultipartEtag::new();
        parts.iter().for_each(|part| digest.update(&part.etag));
        let etag = Etag { digest: digest.finish(), parts: parts.len() as u16 };
        if etag != self.description.etag {
            return Err(not_as_described("ETag"));
        }
        Ok(What::Parts(Box::new(CompleteUpload {
            upload: upload.clone(),
            parts,
            head,
            tags: tags.to_bytes(),
            part_checksums,
            bound: *bound,
            etag,
            size: *size,
            time_ms: *time_ms,
            condition: self.condition,
        })))
    }

    async fn or_abort(&self, upload: &UploadRef, outcome: Result<What>) -> Result<What> {
        if outcome.is_err() {
            let _ = self.log.abort_upload(&upload.bucket, &upload.key, &upload.id, upload.time_ms).await;
        }
        outcome
    }
}

fn not_as_described(what: &str) -> Failure {
    let message = format!("The file is of an object with another {what}.");
    keyhole_s3::Error::new(keyhole_s3::ErrorCode::InvalidRequest).with_message(message).into()
}
