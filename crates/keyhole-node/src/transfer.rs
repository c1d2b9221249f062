//! Transfer of objects between nodes, and to and from backups, complete and without any key.
//!
//! A sealed object is transferred as its sealed object file, including the sealed part checksums. A
//! plaintext object is transferred as its bytes and a [`Description`]. An imported object keeps its
//! time, ETag, parts and head.

mod export;
mod import;

use keyhole_core::body::MultipartEtag;
use keyhole_core::head::Head;
use keyhole_log::limits::{PART_CHECKSUM_MAX, PART_CHECKSUMS_MAX, PARTS_MAX};
use keyhole_log::{Etag, Lock, Object, VersionId, Versioning};
use keyhole_s3::ops::{self, Tags};

use crate::limits::{OBJECT_MAX, PUT_MAX};
use crate::part_checksums::part_checksums;
use crate::sealed_file::is_damaged;

pub use crate::sealed_file::ReadError;
pub use export::Export;
pub use import::{Import, ImportError, ImportSource};

/// Everything about an object except its bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Description {
    /// The bucket.
    pub bucket: String,
    /// The key.
    pub key: String,
    /// Whether the object is sealed. The sealed object file then has the head and the parts.
    pub sealed: bool,
    /// Whether a sealed head must list the parts.
    pub bound: bool,
    /// Length of the plaintext.
    pub size: u64,
    /// Time of the write, in ms since 1970.
    pub time_ms: u64,
    /// The ETag.
    pub etag: Etag,
    /// The tags.
    pub tags: Tags,
    /// The version, in a bucket with versioning.
    pub version: Option<VersionId>,
    /// The retention and legal hold.
    pub lock: Lock,
    /// The encoded head of a plaintext object.
    pub head: Vec<u8>,
    /// The parts of a plaintext object; a single one with number 0 if it is from a single PUT.
    pub parts: Vec<PartDescription>,
}

/// A part of a plaintext object.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PartDescription {
    /// The part number.
    pub number: u16,
    /// Length in bytes.
    pub size: u64,
    /// The ETag.
    pub etag: [u8; 16],
    /// The encoded part checksums; present for all parts of an object or for none.
    pub checksums: Option<Vec<u8>>,
}

impl Description {
    /// Describes a stored object.
    ///
    /// # Errors
    /// `Damaged`.
    pub fn of(bucket: &str, key: &str, object: &Object) -> Result<Self, ReadError> {
        let tags = Tags::from_bytes(&object.tags).ok_or_else(|| is_damaged("the tags of an object are invalid"))?;
        let (mut head, mut parts) = (Vec::new(), Vec::new());
        if !object.sealed {
            head.clone_from(&object.head);
            let mut part_checksums = part_checksums(&object.part_checksums);
            for part in &object.parts {
                let checksums = match object.part_checksums.is_empty() {
                    true => None,
                    false => {
                        let checksums = part_checksums
                            .next()
                            .ok_or_else(|| is_damaged("an object lacks the checksums of a part"))?;
                        Some(checksums.to_vec())
                    }
                };
                parts.push(PartDescription { number: part.number, size: part.size, etag: part.etag, checksums });
            }
        }
        Ok(Description {
            bucket: bucket.to_owned(),
            key: key.to_owned(),
            sealed: object.sealed,
            bound: object.bound,
            size: object.size,
            time_ms: object.time_ms,
            etag: object.etag,
            tags,
            version: (object.versioning != Versioning::Off).then_some(object.version),
            lock: object.lock,
            head,
            parts,
        })
    }

    /// Checks that an object can be as described, as far as possible without its bytes.
    ///
    /// # Errors
    /// A message saying which field is invalid.
    pub fn check(&self) -> Result<(), String> {
        ops::check_bucket(&self.bucket).map_err(|_| "invalid bucket name".to_owned())?;
        if self.key.is_empty() || ops::check_key(&self.key).is_err() {
            return Err("the key is empty or too long".to_owned());
        }
        if self.version.is_none() && !self.lock.is_none() {
            return Err("only a version has a retention or a legal hold".to_owned());
        }
        if self.size > OBJECT_MAX || usize::from(self.etag.parts) > PARTS_MAX {
            return Err("too long, or too many parts".to_owned());
        }
        match self.sealed {
            true if self.head.is_empty() && self.parts.is_empty() => Ok(()),
            true => Err("a sealed object has its description in its file".to_owned()),
            false if self.bound => Err("a plaintext object binds no parts".to_owned()),
            false => self.check_head().and_then(|()| self.check_parts()),
        }
    }

    fn check_head(&self) -> Result<(), String> {
        let head = Head::decode(&self.head).map_err(|error| format!("its head: {error}"))?;
        let is_plain = head.data_key.is_none() && head.plaintext_length.is_none() && head.manifest.is_none();
        if is_plain { Ok(()) } else { Err("its head is that of a sealed object".to_owned()) }
    }

    fn check_parts(&self) -> Result<(), String> {
        let wrong = |what: &str| Err(what.to_owned());
        let size = self.parts.iter().fold(0u64, |size, part| size.saturating_add(part.size));
        if size != self.size || self.parts.iter().any(|part| part.size > PUT_MAX) {
            return wrong("the lengths of its parts do not add up to its length");
        }
        if let [PartDescription { number: 0, etag, checksums: None, .. }] = self.parts[..] {
            return if self.etag == (Etag { digest: etag, parts: 0 }) {
                Ok(())
            } else {
                wrong("its ETag is another one")
            };
        }
        let ascend = self.parts.windows(2).all(|pair| pair[0].number < pair[1].number);
        let within = |part: &PartDescription| (1..=PARTS_MAX).contains(&usize::from(part.number));
        if self.parts.is_empty() || !ascend || !self.parts.iter().all(within) {
            return wrong("the numbers of its parts do not ascend from 1");
        }
        let mut digest = MultipartEtag::new();
        self.parts.iter().for_each(|part| digest.update(&part.etag));
        if self.etag != (Etag { digest: digest.finish(), parts: self.parts.len() as u16 }) {
            return wrong("its ETag does not match its parts");
        }
        let kept: Vec<_> = self.parts.iter().filter_map(|part| part.checksums.as_ref()).collect();
        let len: usize = kept.iter().map(|checksums| 2 + checksums.len()).sum();
        let possible = |checksums: &Vec<u8>| {
            let checksums_only = |head: Head<'_>| Head { checksums: head.checksums, ..Head::default() };
            let mut again = vec![0; PART_CHECKSUM_MAX];
            let same = |head| checksums_only(head).encode(&mut again).is_ok_and(|len| again[..len] == checksums[..]);
            checksums.is_empty() || (checksums.len() <= PART_CHECKSUM_MAX && Head::decode(checksums).is_ok_and(same))
        };
        if ![0, self.parts.len()].contains(&kept.len()) || len > PART_CHECKSUMS_MAX || !kept.into_iter().all(possible) {
            return wrong("invalid description of its parts");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(size: u64) -> Description {
        let mut head = vec![0; 64];
        let len = Head::default().encode(&mut head).unwrap();
        head.truncate(len);
        let etag = Etag { digest: [7; 16], parts: 0 };
        Description {
            bucket: "bucket".to_owned(),
            key: "key".to_owned(),
            sealed: false,
            bound: false,
            size,
            time_ms: 1,
            etag,
            tags: Tags::default(),
            version: None,
            lock: Lock::default(),
            head,
            parts: vec![PartDescription { number: 0, size, etag: etag.digest, checksums: None }],
        }
    }

    fn in_parts(numbers: &[u16]) -> Description {
        let part =
            |number: &u16| PartDescription { number: *number, size: 5, etag: [*number as u8; 16], checksums: None };
        let parts: Vec<_> = numbers.iter().map(part).collect();
        let mut digest = MultipartEtag::new();
        parts.iter().for_each(|part| digest.update(&part.etag));
        let etag = Etag { digest: digest.finish(), parts: parts.len() as u16 };
        Description { etag, size: 5 * parts.len() as u64, parts, ..whole(0) }
    }

    #[test]
    fn possible_descriptions_are_accepted() {
        assert_eq!(whole(0).check(), Ok(()));
        assert_eq!(whole(PUT_MAX).check(), Ok(()));
        assert_eq!(in_parts(&[1]).check(), Ok(()));
        assert_eq!(in_parts(&[2, 4, 10_000]).check(), Ok(()));
        let sealed = Description { sealed: true, bound: true, head: Vec::new(), parts: Vec::new(), ..whole(3) };
        assert_eq!(sealed.check(), Ok(()));
        let locked = Lock { hold: true, ..Lock::default() };
        assert_eq!(Description { version: Some(VersionId::Null), lock: locked, ..whole(0) }.check(), Ok(()));
        let mut kept = in_parts(&[1, 2]);
        kept.parts.iter_mut().for_each(|part| part.checksums = Some(whole(0).head));
        assert_eq!(kept.check(), Ok(()));
    }

    #[test]
    fn impossible_descriptions_are_refused() {
        let mut lacks_one = in_parts(&[1, 2]);
        lacks_one.parts[0].checksums = Some(Vec::new());
        let mut has_more = in_parts(&[1]);
        has_more.parts[0].checksums = Some(vec![1; PART_CHECKSUM_MAX + 1]);
        let mut other = in_parts(&[1, 2]);
        other.parts[1].etag = [9; 16];
        let cases = [
            Description { bucket: "..".to_owned(), ..whole(1) },
            Description { bucket: "a/b".to_owned(), ..whole(1) },
            Description { key: String::new(), ..whole(1) },
            Description { key: "k".repeat(1025), ..whole(1) },
            Description { size: 2, ..whole(1) },
            Description { etag: Etag { digest: [8; 16], parts: 0 }, ..whole(1) },
            Description { head: b"no head".to_vec(), ..whole(1) },
            Description { bound: true, ..whole(1) },
            Description { lock: Lock { hold: true, ..Lock::default() }, ..whole(1) },
            Description { sealed: true, ..whole(1) },
            whole(PUT_MAX + 1),
            in_parts(&[]),
            in_parts(&[0, 1]),
            in_parts(&[2, 1]),
            in_parts(&[1, 1]),
            in_parts(&[10_001]),
            lacks_one,
            has_more,
            other,
        ];
        for case in cases {
            assert!(case.check().is_err(), "{case:?}");
        }
    }
}
