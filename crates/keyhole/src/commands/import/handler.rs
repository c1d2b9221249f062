//! The consumer of an export, and steps that all of its readers share.

use std::io::{self, Read};

use aws_lc_rs::digest;

use crate::commands::Result;
use crate::transfer::entry::{BucketEntry, ObjectEntry, Sha256, finish};
use crate::transfer::manifest::End;
use crate::transfer::versions::MarkerEntry;

/// Bytes read at a time.
pub(super) const BUFFER_LEN: usize = 1 << 20;

/// The consumer of an export.
pub(crate) trait Handler {
    /// Handles a bucket, whose objects follow.
    fn bucket(&mut self, bucket: BucketEntry) -> Result<()>;
    /// Handles a delete marker, in its place among the versions of its key.
    fn marker(&mut self, entry: MarkerEntry) -> Result<()>;
    /// Returns whether the bytes of an object are wanted. If so, they follow, and then
    /// [`done`](Self::done).
    fn wants(&mut self, entry: &ObjectEntry) -> Result<bool>;
    fn data(&mut self, bytes: &[u8]) -> Result<()>;
    /// Handles the verdict on the bytes of an object.
    fn done(&mut self, entry: &ObjectEntry, verdict: Verdict) -> Result<()>;
    /// Reports other damaged or missing content.
    fn damaged(&mut self, what: &str);
    /// Returns whether a missing object matters.
    fn is_in_scope(&self, entry: &ObjectEntry) -> bool;
    /// Handles the end of a complete export.
    fn end(&mut self, end: &End);
}

/// The verdict on the bytes of a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// The bytes are those that were exported.
    Whole,
    Damaged(String),
}

/// Compares the totals at the end of a manifest with those that were read.
pub(super) fn check_end(end: &End, totals: &End, handler: &mut dyn Handler) {
    handler.end(end);
    if (end.buckets, end.objects) != (totals.buckets, totals.objects) {
        handler.damaged(&format!(
            "the manifest declares {} objects in {} buckets, but lists {} in {}",
            end.objects, end.buckets, totals.objects, totals.buckets
        ));
    }
    if end.markers != totals.markers {
        let (declared, listed) = (end.markers, totals.markers);
        handler.damaged(&format!("the manifest declares {declared} delete markers, but lists {listed}"));
    }
}

/// Reports a piece of the manifest with another version than the first one.
pub(super) fn other_version(handler: &mut dyn Handler, found: u32, expected: u32) {
    handler.damaged(&format!("a piece of the manifest is of version {found}, but the export of version {expected}"));
}

/// Passes the bytes of a file on; returns their count and digest. The inner error is the file's.
pub(super) fn copy(
    file: &mut impl Read,
    entry: &ObjectEntry,
    handler: &mut dyn Handler,
) -> Result<io::Result<(u64, Sha256)>> {
    let mut hash = digest::Context::new(&digest::SHA256);
    let mut len = 0;
    let mut buf = vec![0; BUFFER_LEN.min((entry.length as usize).saturating_add(1))];
    loop {
        let read = match file.read(&mut buf) {
            Ok(0) => return Ok(Ok((len, Sha256(finish(hash))))),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Ok(Err(error)),
        };
        len += read as u64;
        if len > entry.length {
            return Ok(Ok((len, Sha256(finish(hash)))));
        }
        hash.update(&buf[..read]);
        handler.data(&buf[..read])?;
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A consumer that wants no bytes, and records what it is given.
    #[derive(Default)]
    pub(crate) struct Recorder {
        /// Keys of objects and delete markers, in order; markers with the start of their version.
        pub(crate) names: Vec<String>,
        /// Reported damage.
        pub(crate) damages: Vec<String>,
    }

    impl Handler for Recorder {
        fn bucket(&mut self, _: BucketEntry) -> Result<()> {
            Ok(())
        }

        fn marker(&mut self, entry: MarkerEntry) -> Result<()> {
            self.names.push(format!("{}{}", entry.key, &String::from(entry.version)[..1]));
            Ok(())
        }

        fn wants(&mut self, entry: &ObjectEntry) -> Result<bool> {
            self.names.push(entry.key.clone());
            Ok(false)
        }

        fn data(&mut self, _: &[u8]) -> Result<()> {
            Ok(())
        }

        fn done(&mut self, _: &ObjectEntry, _: Verdict) -> Result<()> {
            Ok(())
        }

        fn damaged(&mut self, what: &str) {
            self.damages.push(what.to_owned());
        }

        fn is_in_scope(&self, _: &ObjectEntry) -> bool {
            true
        }

        fn end(&mut self, _: &End) {}
    }
}
