//! Reading of a remote as an export: buckets, and of each the objects, versions and delete markers.

use keyhole_log::VersionId;
use keyhole_remote::limits::DESCRIPTION_MAX;
use keyhole_remote::{Consumer, Download, Kind, Names, ObjectBytes, RemoteObject, ServiceError, read_contents};
use md5::{Digest, Md5};
use tokio::runtime::Runtime;

use crate::commands::import::source::{Handler, Verdict};
use crate::commands::{CommandError, Result};
use crate::control::Scope;
use crate::remote::{S3Client, S3Download};
use crate::transfer::entry::ObjectEntry;
use crate::transfer::manifest::{End, LINE_MAX, Line};
use crate::transfer::versions::{MarkerEntry, Version};

/// Every line that the shipper stores can be read again.
const _: () = assert!(LINE_MAX <= DESCRIPTION_MAX);

/// A remote that is read.
pub(super) struct RemoteSource {
    runtime: Runtime,
    client: S3Client,
    names: Names,
}

impl RemoteSource {
    pub(super) fn new(runtime: Runtime, client: S3Client, prefix_len: usize) -> Self {
        RemoteSource { runtime, client, names: Names::new(prefix_len) }
    }

    /// Reads everything in scope.
    pub(super) fn read(&self, scope: &Scope, handler: &mut dyn Handler) -> Result<()> {
        let mut reading = Reading { names: self.names, scope, handler, is_versioned: false };
        let read = self.runtime.block_on(read_contents(&self.client, self.names, &mut reading));
        let totals = End { buckets: read.map_err(|Failed(error)| error)?, ..End::default() };
        if let Some(wanted) = &scope.bucket
            && totals.buckets == 0
        {
            return Err(CommandError::Other(format!("the remote has no bucket {wanted}")));
        }
        handler.end(&totals);
        Ok(())
    }
}

/// The failure that ended the reading.
struct Failed(CommandError);

impl From<CommandError> for Failed {
    fn from(error: CommandError) -> Self {
        Failed(error)
    }
}

impl From<ServiceError> for Failed {
    fn from(error: ServiceError) -> Self {
        Failed(CommandError::Other(format!("the remote has failed: {error}; run the command again to continue")))
    }
}

/// Passes what a remote has to a consumer of exports.
struct Reading<'s> {
    names: Names,
    scope: &'s Scope,
    handler: &'s mut dyn Handler,
    /// Whether the current bucket has versions.
    is_versioned: bool,
}

impl Consumer<S3Client> for Reading<'_> {
    type Error = Failed;

    fn has_bucket(&self, bucket: &str) -> bool {
        self.scope.has_bucket(bucket)
    }

    fn has_key(&self, bucket: &str, key: &str) -> bool {
        self.scope.has(bucket, key)
    }

    async fn bucket(
        &mut self,
        bucket: &str,
        name: &str,
        description: &[u8],
    ) -> std::result::Result<Option<bool>, Failed> {
        match decode(description) {
            Ok(Line::Bucket(entry)) if entry.bucket == bucket => {
                self.is_versioned = entry.versioning.is_some();
                self.handler.bucket(entry)?;
                return Ok(Some(self.is_versioned));
            }
            Ok(Line::Bucket(_)) => self.damaged(name, "it describes another bucket"),
            Ok(_) => self.damaged(name, "it does not describe a bucket"),
            Err(why) => self.damaged(name, &why),
        }
        Ok(None)
    }

    async fn object(&mut self, object: RemoteObject<'_, S3Client>) -> std::result::Result<(), Failed> {
        let name = &object.name;
        match (decode(&object.description), object.kind) {
            (Ok(Line::Marker(marker)), Kind::Marker) => {
                if *name != self.marker_name(&marker) {
                    self.damaged(name, "it describes another object");
                    return Ok(());
                }
                Ok(self.handler.marker(marker)?)
            }
            (Ok(Line::Object(mut entry)), Kind::Object) => {
                if self.is_versioned {
                    entry.name_null_version();
                }
                if *name != self.object_name(&entry) {
                    self.damaged(name, "it describes another object");
                } else if entry.length != object.len {
                    self.damaged(name, &format!("it has {} bytes instead of {}", object.len, entry.length));
                } else if self.handler.wants(&entry)? {
                    return self.receive(object, &entry).await;
                }
                Ok(())
            }
            (Ok(_), _) => {
                self.damaged(name, "its description is not of an object");
                Ok(())
            }
            (Err(why), _) => {
                self.damaged(name, &why);
                Ok(())
            }
        }
    }

    fn damaged(&mut self, name: &str, why: &str) {
        self.handler.damaged(&format!("{name}: {why}"));
    }
}

impl Reading<'_> {
    /// Returns the name that a delete marker must have.
    fn marker_name(&self, marker: &MarkerEntry) -> String {
        self.names.object(&marker.bucket, &marker.key, Some(marker.version.0))
    }

    /// Returns the name that an object must have.
    fn object_name(&self, entry: &ObjectEntry) -> String {
        let version = entry.version.map_or(VersionId::Null, |Version(id)| id);
        self.names.stored_version(&entry.bucket, &entry.key, version)
    }

    /// Passes on the bytes of an object, and the verdict on them.
    async fn receive(
        &mut self,
        mut object: RemoteObject<'_, S3Client>,
        entry: &ObjectEntry,
    ) -> std::result::Result<(), Failed> {
        let Some(bytes) = object.open().await? else {
            return Ok(self.handler.done(entry, Verdict::Damaged("it was deleted meanwhile".to_owned()))?);
        };
        let (verdict, failure) = self.pass(bytes, entry).await?;
        self.handler.done(entry, verdict)?;
        failure.map_or(Ok(()), |error| Err(error.into()))
    }

    async fn pass(
        &mut self,
        mut bytes: ObjectBytes<S3Download>,
        entry: &ObjectEntry,
    ) -> Result<(Verdict, Option<ServiceError>)> {
        let mut check = (!entry.sealed).then(|| PlainCheck::new(entry));
        let mut len = 0;
        loop {
            match bytes.next().await {
                Ok(Some(bytes)) => {
                    len += bytes.len() as u64;
                    if let Some(check) = &mut check {
                        check.update(&bytes);
                    }
                    self.handler.data(&bytes)?;
                }
                Ok(None) => break,
                Err(error) => return Ok((Verdict::Damaged(error.to_string()), Some(error))),
            }
        }
        let verdict = if len != entry.length {
            Verdict::Damaged(format!("{len} bytes instead of {}", entry.length))
        } else if check.is_some_and(|check| !check.finish()) {
            Verdict::Damaged("its content does not have its ETag".to_owned())
        } else {
            Verdict::Whole
        };
        Ok((verdict, None))
    }
}

fn decode(line: &[u8]) -> std::result::Result<Line, String> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    Line::decode(line).map_err(|error| error.to_string())
}

/// Compares the bytes of a plaintext object with the ETags of its parts.
struct PlainCheck {
    /// The remaining parts: bytes and ETag, the current one last.
    parts: Vec<(u64, String)>,
    md5: Md5,
    is_equal: bool,
}

impl PlainCheck {
    fn new(entry: &ObjectEntry) -> Self {
        let parts = entry.plain.iter().flat_map(|plain| &plain.parts);
        let mut parts: Vec<(u64, String)> = parts.map(|part| (part.size, part.etag.clone())).collect();
        if parts.is_empty() {
            parts.push((entry.size, entry.etag.clone()));
        }
        parts.reverse();
        PlainCheck { parts, md5: Md5::new(), is_equal: true }
    }

    fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            self.end_parts();
            let Some((left, _)) = self.parts.last_mut() else {
                self.is_equal = false;
                return;
            };
            let (of_part, rest) = bytes.split_at(bytes.len().min(*left as usize));
            self.md5.update(of_part);
            *left -= of_part.len() as u64;
            bytes = rest;
        }
    }

    /// Compares the parts that have no bytes left.
    fn end_parts(&mut self) {
        while let Some((_, etag)) = self.parts.pop_if(|(left, _)| *left == 0) {
            let digest = self.md5.finalize_reset();
            self.is_equal &= hex::encode(digest) == etag;
        }
    }

    /// Returns whether all parts have their ETags.
    fn finish(mut self) -> bool {
        self.end_parts();
        self.is_equal && self.parts.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(parts: &[&[u8]], pieces: &[&[u8]]) -> bool {
        let parts = parts.iter().rev().map(|part| (part.len() as u64, hex::encode(Md5::digest(part)))).collect();
        let mut check = PlainCheck { parts, md5: Md5::new(), is_equal: true };
        pieces.iter().for_each(|piece| check.update(piece));
        check.finish()
    }

    #[test]
    fn plaintext_is_compared_with_the_etags_of_its_parts() {
        assert!(check(&[b"abc", b"", b"de"], &[b"a", b"bcd", b"e"]));
        assert!(check(&[b""], &[]) && check(&[b"abc"], &[b"abc"]));
        assert!(!check(&[b"abc", b"de"], &[b"abcdX"]), "other content");
        assert!(!check(&[b"abc", b"de"], &[b"abcd"]), "too short");
        assert!(!check(&[b"abc"], &[b"abc", b"d"]), "too long");
        assert!(!check(&[b"abc", b"de"], &[b"abXde"]), "another first part");
    }
}
