//! GetObjectAttributes, and the part checksums stored for it.
//!
//! Part checksums are stored for objects with a composite checksum: the part part_checksums, concatenated,
//! each preceded by its length in 2 bytes, little-endian. In a sealed object each checksums is sealed
//! under the data key and bound to its part, so that it stays valid in copies.

use std::ops::Range;

use keyhole_core::aead::Engine;
use keyhole_core::head::{ChecksumAlgorithm, ChecksumType, Checksums};
use keyhole_core::sse_c::SseCTarget;
use keyhole_log::limits::PART_CHECKSUMS_MAX;
use keyhole_log::{Disk, Object};
use keyhole_s3::checksum::ObjectChecksums;
use keyhole_s3::http::Response;
use keyhole_s3::ops::AttributesQuery;
use keyhole_s3::{time, xml};

use crate::failure::{Result, damaged};
use crate::heads::ObjectHead;
use crate::io::Env;
use crate::node::{Node, Request};

/// Returns the checksums of an object and their type.
pub(crate) fn object_checksums<'c>(object: &Object, head: &'c ObjectHead) -> ObjectChecksums<'c> {
    let kind = match head.declared {
        Some((_, kind)) if object.etag.parts > 0 => kind,
        _ => ChecksumType::FullObject,
    };
    ObjectChecksums { checksums: &head.checksums, kind, parts: object.etag.parts }
}

/// Collects the part part_checksums of an object.
pub(crate) struct PartChecksums {
    bytes: Vec<u8>,
    wanted: bool,
}

impl PartChecksums {
    /// Creates the collection for an upload with this declared checksum.
    pub(crate) fn new(declared: Option<(ChecksumAlgorithm, ChecksumType)>) -> Self {
        PartChecksums { bytes: Vec::new(), wanted: matches!(declared, Some((_, ChecksumType::Composite))) }
    }

    /// Adds the checksums of the next part.
    pub(crate) fn push(&mut self, checksums: &[u8]) {
        // If the part_checksums exceed the log's limit, the object is stored without part checksums.
        self.wanted &= self.bytes.len() + 2 + checksums.len() <= PART_CHECKSUMS_MAX;
        if self.wanted {
            self.bytes.extend_from_slice(&(checksums.len() as u16).to_le_bytes());
            self.bytes.extend_from_slice(checksums);
        }
    }

    /// Returns the encoded part_checksums, or nothing if they are not stored.
    pub(crate) fn finish(self) -> Vec<u8> {
        if self.wanted { self.bytes } else { Vec::new() }
    }
}

/// Iterates over the part_checksums encoded by [`PartChecksums`].
pub(crate) fn part_checksums(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (len, rest) = bytes.split_first_chunk()?;
        let (checksums, rest) = rest.split_at_checked(u16::from_le_bytes(*len).into())?;
        bytes = rest;
        Some(checksums)
    })
}

impl<D: Disk, E: Engine, V: Env> Node<D, E, V> {
    /// Handles GetObjectAttributes. The SSE-C rules are those of GetObject, but the response has no
    /// SSE-C headers.
    pub(crate) async fn object_attributes(&self, request: &Request<'_>, query: &AttributesQuery) -> Result<Response> {
        let (bucket, key) = request.object()?;
        let found = self.find(request, bucket, key, SseCTarget::Object).await?;
        let (object, head) = (&found.object, &found.head);
        let etag = object.etag.to_string();
        let parts = match query.parts && object.etag.parts > 0 {
            true => Some(xml::ObjectParts { count: object.etag.parts, page: self.parts_page(object, head, query)? }),
            false => None,
        };
        let attributes = xml::Attributes {
            etag: query.etag.then_some(&etag),
            checksums: query.checksum.then(|| object_checksums(object, head)),
            parts,
            storage_class: query.storage_class.then_some("STANDARD"),
            size: query.size.then_some(object.size),
        };
        let response = Response::xml(200, xml::object_attributes(&attributes));
        Ok(response.header("Last-Modified", time::http_date(object.time_ms)))
    }

    /// Returns the requested page of parts, or `None` if the parts have no checksums.
    fn parts_page(
        &self,
        object: &Object,
        head: &ObjectHead,
        query: &AttributesQuery,
    ) -> Result<Option<xml::PartsPage>> {
        if object.part_checksums.is_empty() {
            return Ok(None);
        }
        let first = usize::from(query.marker).min(object.parts.len());
        let wanted = first..object.parts.len().min(first + query.max_parts);
        let truncated = wanted.end < object.parts.len();
        let checksums = self.kept_checksums(object, head, wanted.clone())?;
        // Numbered from 1 without gaps, as in a GET with `partNumber`.
        let parts = wanted.clone().zip(&object.parts[wanted]).zip(checksums);
        let parts = parts.map(|((index, part), checksums)| ((index + 1) as u16, part.size, checksums)).collect();
        Ok(Some(xml::PartsPage { marker: query.marker, max: query.max_parts, truncated, parts }))
    }

    /// Returns the stored checksums of some parts of an object; empty if there are none.
    pub(crate) fn kept_checksums(
        &self,
        object: &Object,
        head: &ObjectHead,
        wanted: Range<usize>,
    ) -> Result<Vec<Checksums>> {
        if object.part_checksums.is_empty() {
            return Ok(Vec::new());
        }
        let mut part_checksums = part_checksums(&object.part_checksums).skip(wanted.start);
        let checksums = object.parts[wanted].iter().map(|part| {
            let checksums =
                part_checksums.next().ok_or_else(|| damaged("an object lacks what is kept of its parts"))?;
            self.read_part_info(checksums, part, head.data_key.as_ref())
        });
        checksums.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn infos_are_kept_as_long_as_there_is_room() {
        let declared = |kind| Some((ChecksumAlgorithm::Crc32, kind));
        let gather = |declared, len: usize, count: usize| {
            let mut kept = PartChecksums::new(declared);
            (0..count).for_each(|i| kept.push(&vec![i as u8; len]));
            kept.finish()
        };
        let kept = gather(declared(ChecksumType::Composite), 3, 5);
        assert_eq!(part_checksums(&kept).collect::<Vec<_>>(), [[0; 3], [1; 3], [2; 3], [3; 3], [4; 3]]);
        assert!(gather(declared(ChecksumType::FullObject), 3, 5).is_empty() && gather(None, 3, 5).is_empty());
        let full = PART_CHECKSUMS_MAX / 100;
        assert_eq!(gather(declared(ChecksumType::Composite), 98, full).len(), full * 100);
        assert!(gather(declared(ChecksumType::Composite), 98, full + 1).is_empty());
        // A head with only a SHA-256 has 40 bytes.
        assert!(!gather(declared(ChecksumType::Composite), 40, 10_000).is_empty());
    }
}
