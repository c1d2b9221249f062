//! Uploads of contents, in one request or in parts.

use std::thread;
use std::time::Duration;

use hyper::body::Bytes;
use keyhole_remote::{Content, ContentError, ServiceError};
use object_store::aws::AmazonS3;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{Attributes, MultipartId, ObjectStore, PutMultipartOptions, PutOptions, PutPayload};

use super::failure;
use super::limits::{PART_LEN, PART_LEN_MAX, PARTS_MAX};

/// Limit of the bytes that a content returns at once, which may be held in addition to a part.
const CHUNK_MAX: u64 = 1 << 20;

/// Memory of an upload in addition to its content: buffers of the connection and of TLS.
const OVERHEAD: u64 = 256 << 10;

/// Granularity of part lengths.
const PART_STEP: u64 = 1 << 20;

/// Timeout of the request that discards the parts of a failed upload.
const ABORT_TIMEOUT: Duration = Duration::from_secs(10);

/// Returns the memory in bytes that an upload of this length holds at most.
pub(crate) fn memory_of(len: u64) -> u64 {
    match part_len_of(len) {
        _ if len <= PART_LEN => len + OVERHEAD,
        Ok(part) => part + CHUNK_MAX + OVERHEAD,
        Err(_) => OVERHEAD,
    }
}

/// Returns the length of all parts except the last.
fn part_len_of(len: u64) -> Result<u64, ServiceError> {
    let part = len.div_ceil(PARTS_MAX).next_multiple_of(PART_STEP).max(PART_LEN);
    if part <= PART_LEN_MAX {
        return Ok(part);
    }
    let max = PARTS_MAX * PART_LEN_MAX;
    Err(ContentError(format!("object of {len} bytes is too long for an upload: the limit is {max} bytes")).into())
}

/// Cuts a content into parts.
struct Parts<C> {
    content: C,
    /// Bytes that belong to the next part.
    rest: Bytes,
    /// Bytes of parts so far.
    done: u64,
}

impl<C: Content> Parts<C> {
    fn new(content: C) -> Self {
        Parts { content, rest: Bytes::new(), done: 0 }
    }

    /// Returns the next part, of exactly this length.
    async fn next(&mut self, len: u64) -> Result<PutPayload, ServiceError> {
        let mut part = Vec::new();
        let mut left = len;
        while left > 0 {
            if self.rest.is_empty() {
                match self.content.next().await? {
                    Some(chunk) => self.rest = chunk.into(),
                    None => return Err(self.wrong_len("ended early").into()),
                }
                // The chunk was checked and copied.
                thread::yield_now();
            }
            let some = self.rest.split_to(self.rest.len().min(usize::try_from(left).unwrap_or(usize::MAX)));
            left -= some.len() as u64;
            part.push(some);
        }
        self.done += len;
        Ok(part.into_iter().filter(|some| !some.is_empty()).collect())
    }

    /// Checks that the content has no more bytes.
    async fn finish(mut self) -> Result<(), ServiceError> {
        while self.rest.is_empty() {
            match self.content.next().await? {
                Some(chunk) => self.rest = chunk.into(),
                None => return Ok(()),
            }
        }
        Err(self.wrong_len("did not end").into())
    }

    fn wrong_len(&self, what: &str) -> ContentError {
        ContentError(format!("object {what}: expected {} bytes", self.content.total_len()))
    }
}

/// Uploads a content. The service checks the SHA-256 of each request.
pub(super) async fn upload(
    store: &AmazonS3,
    path: &Path,
    attributes: Attributes,
    content: impl Content,
) -> Result<(), ServiceError> {
    let len = content.total_len();
    let part_len = part_len_of(len)?;
    let mut parts = Parts::new(content);
    if len <= PART_LEN {
        let whole = parts.next(len).await?;
        parts.finish().await?;
        let options = PutOptions { attributes, ..PutOptions::default() };
        let put = store.put_opts(path, whole, options).await;
        return put.map(drop).map_err(|error| failure::of_store(&error));
    }
    let options = PutMultipartOptions { attributes, ..PutMultipartOptions::default() };
    let id = store.create_multipart_opts(path, options).await.map_err(|error| failure::of_store(&error))?;
    let result = upload_parts(store, path, &id, part_len, parts).await;
    if result.is_err() {
        abort(store, path, &id).await;
    }
    result
}

async fn upload_parts(
    store: &AmazonS3,
    path: &Path,
    id: &MultipartId,
    part_len: u64,
    mut parts: Parts<impl Content>,
) -> Result<(), ServiceError> {
    let len = parts.content.total_len();
    let mut ids: Vec<PartId> = Vec::new();
    while parts.done < len {
        let part = parts.next(part_len.min(len - parts.done)).await?;
        let sent = store.put_part(path, id, ids.len(), part).await;
        ids.push(sent.map_err(|error| failure::of_store(&error))?);
    }
    parts.finish().await?;
    let completed = store.complete_multipart(path, id, ids).await;
    completed.map(drop).map_err(|error| failure::of_store(&error))
}

/// Discards the parts of a failed upload.
async fn abort(store: &AmazonS3, path: &Path, id: &MultipartId) {
    let aborted = tokio::time::timeout(ABORT_TIMEOUT, store.abort_multipart(path, id)).await;
    if !matches!(aborted, Ok(Ok(()))) {
        tracing::warn!(upload = %id, "a failed upload was not aborted: its parts stay until the service discards them");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn parts_grow_with_length_up_to_limit() {
        for (len, part) in [
            (PART_LEN + 1, PART_LEN),
            (PARTS_MAX * PART_LEN, PART_LEN),
            (PARTS_MAX * PART_LEN + 1, 6 * MIB),
            (PARTS_MAX * 6 * MIB, 6 * MIB),
            (PARTS_MAX * PART_LEN_MAX, PART_LEN_MAX),
        ] {
            assert_eq!(part_len_of(len), Ok(part), "{len}");
            assert!(len.div_ceil(part) <= PARTS_MAX);
        }
        for len in [PARTS_MAX * PART_LEN_MAX + 1, u64::MAX - PARTS_MAX * MIB, u64::MAX] {
            let error = part_len_of(len).unwrap_err();
            assert!(matches!(error, ServiceError::Content(_)) && error.to_string().contains("the limit is"), "{error}");
        }
    }

    #[test]
    fn memory_is_bounded_by_part() {
        assert_eq!(memory_of(0), OVERHEAD);
        assert_eq!(memory_of(PART_LEN), PART_LEN + OVERHEAD);
        assert_eq!(memory_of(PART_LEN + 1), PART_LEN + CHUNK_MAX + OVERHEAD);
        assert!(memory_of(PARTS_MAX * PART_LEN_MAX) < 14 * MIB);
    }
}
