//! The sealed object file of an evicted object in a remote, read mostly in order.

use std::ops::Range;

use keyhole_core::limits::{PREFIX_LEN, SALT_LEN, TAG_LEN};
use keyhole_log::Part;
use keyhole_s3::{Error, ErrorCode};

use crate::evicted::{EvictedBytes, EvictedError, EvictedObject, EvictedObjects};
use crate::failure::{Failure, Result, damaged};
use crate::limits::RETRY_AFTER_S;
use crate::message::{SEALED_CHUNK, detach_tags};

/// Bytes of a stream that are skipped rather than requested again.
const SKIP_MAX: u64 = 64 << 10;

/// Chunks that are read at once: with their tags, they fit into a buffer of
/// [`STRIDE`](crate::limits::STRIDE) bytes.
pub(crate) const CHUNKS_AT_ONCE: usize = 7;

const _: () = assert!(CHUNKS_AT_ONCE * SEALED_CHUNK + TAG_LEN <= crate::limits::STRIDE);

/// The file of an evicted object, read mostly in order.
pub(crate) struct EvictedFile<'n> {
    objects: &'n dyn EvictedObjects,
    object: EvictedObject,
    /// The ranges of the file that the messages of the bodies take.
    messages: Vec<Range<u64>>,
    /// The numbers of the parts.
    numbers: Vec<u16>,
    stream: Option<Box<dyn EvictedBytes>>,
    /// Offset of the next byte of the stream, and its end.
    position: u64,
    end: u64,
    /// Received bytes; those from `used` on begin at `position`.
    held: Vec<u8>,
    used: usize,
    /// Offset up to which the file is wanted.
    wanted_end: u64,
    /// Returns whether the store still has the version. Its file may be another one otherwise.
    is_stored: Box<dyn Fn() -> bool + 'n>,
}

impl<'n> EvictedFile<'n> {
    /// Prepares the file of an object, whose bodies have messages in these ranges, for reading up to
    /// `wanted_end`.
    pub(crate) fn new(
        objects: &'n dyn EvictedObjects,
        object: EvictedObject,
        messages: Vec<Range<u64>>,
        numbers: Vec<u16>,
        wanted_end: u64,
        is_stored: Box<dyn Fn() -> bool + 'n>,
    ) -> Self {
        EvictedFile {
            objects,
            object,
            messages,
            numbers,
            stream: None,
            position: 0,
            end: 0,
            held: Vec::new(),
            used: 0,
            wanted_end,
            is_stored,
        }
    }

    /// Reads and checks the prefix of a body, whose chunks from `first` on are read next.
    pub(crate) async fn prefix(&mut self, index: usize, part: &Part, first: u64) -> Result<[u8; PREFIX_LEN]> {
        let message = self.message(index)?;
        let mut prefix = [0; PREFIX_LEN];
        let wanted_end = self.wanted_end;
        if first * SEALED_CHUNK as u64 > SKIP_MAX {
            // A stream of everything wanted would be closed early.
            self.stream = None;
            self.wanted_end = message.start + PREFIX_LEN as u64;
        }
        self.read(message.start, &mut prefix).await?;
        self.wanted_end = wanted_end;
        if prefix[..SALT_LEN] != part.salt {
            return Err(self.altered("has a body with another salt than its record"));
        }
        Ok(prefix)
    }

    /// Returns the index of a part of the object.
    pub(crate) fn index_of(&self, part: &Part) -> Result<usize> {
        // The parts ascend by their numbers.
        let index = self.numbers.binary_search(&part.number);
        index.map_err(|_| damaged("an object lacks a part"))
    }

    /// Reads chunks of a body into `buf`, and returns the length of their ciphertext, which is then
    /// contiguous, and their tags.
    pub(crate) async fn chunks(
        &mut self,
        index: usize,
        chunks: Range<u64>,
        buf: &mut [u8],
    ) -> Result<(usize, Vec<[u8; TAG_LEN]>)> {
        let message = self.message(index)?;
        let at = |chunk: u64| (message.start + PREFIX_LEN as u64 + chunk * SEALED_CHUNK as u64).min(message.end);
        let range = at(chunks.start)..at(chunks.end);
        let bytes = &mut buf[..(range.end - range.start) as usize];
        self.read(range.start, bytes).await?;
        let mut tags = Vec::with_capacity(CHUNKS_AT_ONCE + 1);
        let len = detach_tags(bytes, &mut tags);
        Ok((len, tags))
    }

    /// Reads bytes of the message of a body.
    pub(crate) async fn message_bytes(&mut self, index: usize, offset: u64, to: &mut [u8]) -> Result<()> {
        let message = self.message(index)?;
        if offset + to.len() as u64 > message.end - message.start {
            return Err(damaged("a body is not as long as its object says"));
        }
        self.read(message.start + offset, to).await
    }

    fn message(&self, index: usize) -> Result<Range<u64>> {
        self.messages.get(index).cloned().ok_or_else(|| damaged("an object lacks a part"))
    }

    fn altered(&self, what: &str) -> Failure {
        let EvictedObject { bucket, key, version, .. } = &self.object;
        let file = format!("the file of {bucket}/{} (version {version}) in the remote", key.escape_debug());
        self.failure(EvictedError::Altered(format!("{file} {what}")))
    }

    /// The remote may have lost or replaced the file because the version was removed during the request.
    fn failure(&self, error: EvictedError) -> Failure {
        match error {
            EvictedError::Altered(_) if !(self.is_stored)() => {
                let message = "The object was replaced or deleted while it was read. Repeat the request.";
                let error = Error::new(ErrorCode::SlowDown).with_message(message);
                Failure::Reply(error.with_header("Retry-After", RETRY_AFTER_S.to_string()))
            }
            error => error.into(),
        }
    }

    /// Opens the file at an offset, so that a failure is known before the response begins.
    pub(crate) async fn seek(&mut self, offset: u64) -> Result<()> {
        let is_near = self.stream.is_some() && offset >= self.position && offset - self.position <= SKIP_MAX;
        if !is_near {
            let end = self.wanted_end.max(offset);
            let opened = self.objects.open(self.object.clone(), offset..end).await;
            self.stream = Some(opened.map_err(|error| self.failure(error))?);
            self.position = offset;
            self.end = end;
            self.held.clear();
            self.used = 0;
        }
        while self.position < offset {
            let held = self.fill().await?;
            let skipped = held.min((offset - self.position) as usize);
            self.used += skipped;
            self.position += skipped as u64;
        }
        Ok(())
    }

    /// Receives bytes unless some are held. Returns their number.
    async fn fill(&mut self) -> Result<usize> {
        while self.used == self.held.len() {
            let Some(stream) = &mut self.stream else { break };
            let received = stream.next().await;
            match received.map_err(|error| self.failure(error))? {
                Some(bytes) => {
                    self.held = bytes;
                    self.used = 0;
                }
                None => return Err(self.altered("is too short")),
            }
        }
        Ok(self.held.len() - self.used)
    }

    /// Reads the bytes at an offset of the file.
    pub(crate) async fn read(&mut self, offset: u64, to: &mut [u8]) -> Result<()> {
        self.seek(offset).await?;
        let mut filled = 0;
        while filled < to.len() {
            if self.position == self.end {
                // Beyond what was foreseen.
                self.wanted_end = self.object.file_len;
                self.seek_again().await?;
            }
            let held = self.fill().await?;
            let len = held.min(to.len() - filled);
            to[filled..filled + len].copy_from_slice(&self.held[self.used..self.used + len]);
            filled += len;
            self.used += len;
            self.position += len as u64;
        }
        Ok(())
    }

    async fn seek_again(&mut self) -> Result<()> {
        self.stream = None;
        let position = self.position;
        if position >= self.object.file_len {
            return Err(self.altered("is too short"));
        }
        self.seek(position).await
    }
}

#[cfg(test)]
mod tests {
    use keyhole_log::VersionId;

    use super::*;
    use crate::evicted::EvictedFuture;

    /// A remote that has another file than the one that was shipped.
    struct Other;

    impl EvictedObjects for Other {
        fn open(&self, _: EvictedObject, _: Range<u64>) -> EvictedFuture<'static, Box<dyn EvictedBytes>> {
            Box::pin(async { Err(EvictedError::Altered("it is another version".to_owned())) })
        }
    }

    async fn failure(is_stored: bool) -> Failure {
        let object = EvictedObject {
            bucket: "bucket".to_owned(),
            key: "key".to_owned(),
            version: VersionId::Null,
            number: 1,
            file_len: 100,
        };
        let mut file =
            EvictedFile::new(&Other, object, vec![0..60, 60..100], vec![1, 2], 100, Box::new(move || is_stored));
        file.read(0, &mut [0; 10]).await.unwrap_err()
    }

    #[tokio::test]
    async fn file_of_a_removed_version_is_not_called_altered() {
        assert!(matches!(failure(true).await, Failure::Fault(..)));
        let Failure::Reply(error) = failure(false).await else { panic!("a fault") };
        assert_eq!(error.code, ErrorCode::SlowDown);
    }
}
