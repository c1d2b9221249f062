//! Ends writes: commits a stored body as an object or as a part.

use keyhole_core::body::{self, PART_INFO_MAX};
use keyhole_core::head::Checksums;
use keyhole_core::{CustomerKey, DataKey};
use keyhole_log::{Content, Etag, Part, PutObject, PutPart, StoredVersion, UploadRef};
use keyhole_s3::ErrorCode;

use crate::failure::Result;
use crate::http::Response;
use crate::ingest::{Ingested, Stored};
use crate::node::Node;
use crate::object_head::ObjectHead;
use crate::plan::{WritePlan, WriteTarget};
use crate::platform::Platform;
use crate::response_headers::{checksum_headers, quoted, sse_c_headers};
use crate::versions::version_header;

/// An object to commit, with its encoded head.
pub(crate) struct NewObject {
    pub(crate) content: Content,
    pub(crate) head: Vec<u8>,
    pub(crate) etag: Etag,
    pub(crate) size: u64,
    pub(crate) is_sealed: bool,
}

/// A committed object or part.
pub(crate) struct Committed {
    pub(crate) etag: Etag,
    /// Length of the plaintext.
    pub(crate) size: u64,
    pub(crate) time_ms: u64,
    pub(crate) checksums: Checksums,
    /// The version; `None` for a part.
    pub(crate) version: Option<StoredVersion>,
}

/// The time and the version of a committed object.
#[derive(Clone, Copy)]
pub(crate) struct CommittedVersion {
    pub(crate) time_ms: u64,
    pub(crate) stored: StoredVersion,
}

impl<P: Platform> Node<P> {
    /// Commits a stored body as the plan says. Durable on return.
    pub(crate) async fn commit(&self, plan: &mut WritePlan<'_>, body: Ingested<'_>) -> Result<Committed> {
        let Ingested { stored, digests, admitted: _admitted } = body;
        let checksums = digests.checksums;
        let digest =
            if plan.is_sealed() { body::etag(&stored.salt) } else { digests.md5.ok_or(ErrorCode::InternalError)? };
        let etag = Etag { digest, parts: 0 };
        let size = stored.size;
        let (time_ms, version) = match &plan.target {
            WriteTarget::Part { upload, number } => {
                let part = NewPart { upload, number: *number, etag: digest };
                (self.commit_part(part, plan.data_key.as_deref(), stored, &checksums).await?, None)
            }
            WriteTarget::Object => {
                let CommittedVersion { time_ms, stored } = self.commit_body(plan, stored, etag, checksums).await?;
                (time_ms, Some(stored))
            }
        };
        Ok(Committed { etag, size, time_ms, checksums, version })
    }

    /// Commits a single body as an object.
    async fn commit_body(
        &self,
        plan: &mut WritePlan<'_>,
        stored: Stored,
        etag: Etag,
        checksums: Checksums,
    ) -> Result<CommittedVersion> {
        let head = ObjectHead {
            plaintext_length: plan.is_sealed().then_some(stored.size),
            data_key: plan.data_key.take(),
            metadata: std::mem::take(&mut plan.metadata),
            checksums,
            ..ObjectHead::default()
        };
        let head = self.write_head(&head, plan.customer_key.as_deref(), plan.name.bucket, plan.name.key)?;
        let content = Content::New(stored.content, stored.salt);
        let is_sealed = plan.is_sealed();
        self.commit_object(plan, NewObject { content, head, etag, size: stored.size, is_sealed }).await
    }

    /// Commits an object.
    pub(crate) async fn commit_object(&self, plan: &mut WritePlan<'_>, object: NewObject) -> Result<CommittedVersion> {
        let NewObject { content, head, etag, size, is_sealed } = object;
        let WritePlan { name, tags, guarded, lock, .. } = plan;
        let tags = std::mem::take(tags);
        let time_ms = self.host.now_ms();
        let put = PutObject {
            bucket: name.bucket.to_owned(),
            key: name.key.to_owned(),
            size,
            content,
            head,
            tags,
            sealed: is_sealed,
            etag,
            time_ms,
            condition: guarded.condition,
        };
        let stored = self.log.put_version(put, *lock).await.map_err(|error| guarded.explain(error))?;
        Ok(CommittedVersion { time_ms, stored })
    }

    /// Commits a body as a part. Returns the part's time.
    async fn commit_part(
        &self,
        part: NewPart<'_>,
        data_key: Option<&DataKey>,
        stored: Stored,
        checksums: &Checksums,
    ) -> Result<u64> {
        let NewPart { upload, number, etag } = part;
        let checksums = self.encode_part_checksums(data_key, number, &stored, checksums)?;
        let Stored { content, salt, size } = stored;
        let time_ms = self.host.now_ms();
        let upload = upload.clone();
        self.log.put_part(PutPart { upload, number, salt, etag, size, time_ms, checksums, content }).await?;
        Ok(time_ms)
    }

    /// Encodes the checksums of a part, sealed under the data key if the upload is sealed; empty if
    /// there are no checksums.
    fn encode_part_checksums(
        &self,
        data_key: Option<&DataKey>,
        number: u16,
        stored: &Stored,
        checksums: &Checksums,
    ) -> Result<Vec<u8>> {
        if checksums.is_empty() {
            return Ok(Vec::new());
        }
        let Some(data_key) = data_key else {
            let head = ObjectHead { checksums: *checksums, ..ObjectHead::default() };
            return self.write_head(&head, None, "", "");
        };
        let salt = self.host.random_array();
        let number = u32::from(number);
        let mut info = vec![0; PART_INFO_MAX];
        let len = body::seal_part_info(&self.engine, data_key, &salt, number, &stored.salt, checksums, &mut info)?;
        info.truncate(len);
        Ok(info)
    }

    /// Decodes the stored checksums of a part.
    pub(crate) fn decode_part_checksums(
        &self,
        stored: &[u8],
        part: &Part,
        data_key: Option<&DataKey>,
    ) -> Result<Checksums> {
        if stored.is_empty() {
            return Ok(Checksums::default());
        }
        let Some(data_key) = data_key else { return Ok(self.read_head(stored, None, "", "")?.checksums) };
        let number = u32::from(part.number);
        let mut info = stored.to_vec();
        Ok(body::open_part_info(&self.engine, data_key, number, &part.salt, &mut info)?)
    }
}

/// The identity of a part to commit.
struct NewPart<'u> {
    upload: &'u UploadRef,
    number: u16,
    etag: [u8; 16],
}

impl Committed {
    /// Adds the header fields of a write: ETag, checksums, version, and those of the customer key.
    pub(crate) fn describe<'n, P: Platform>(
        &self,
        response: Response<'n, P>,
        customer_key: Option<&CustomerKey>,
    ) -> Response<'n, P> {
        self.describe_stored(response.header("ETag", quoted(&self.etag)), customer_key)
    }

    /// Adds these header fields except for the ETag.
    pub(crate) fn describe_stored<'n, P: Platform>(
        &self,
        response: Response<'n, P>,
        customer_key: Option<&CustomerKey>,
    ) -> Response<'n, P> {
        let response = response.headers(sse_c_headers(customer_key)).headers(checksum_headers(&self.checksums));
        response.headers(self.version.and_then(version_header))
    }
}
