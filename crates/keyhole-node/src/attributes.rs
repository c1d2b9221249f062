//! GetObjectAttributes.

use std::ops::Range;

use keyhole_core::head::{ChecksumType, Checksums};
use keyhole_core::sse_c::SseCTarget;
use keyhole_log::Object;
use keyhole_s3::checksum::ObjectChecksums;
use keyhole_s3::ops::AttributesQuery;
use keyhole_s3::{time, xml};

use crate::failure::{Result, damaged};
use crate::http::Response;
use crate::node::Node;
use crate::object_head::ObjectHead;
use crate::object_memory::ObjectUse;
use crate::part_checksums::part_checksums;
use crate::platform::Platform;
use crate::request::Request;
use crate::versions::object_version;

/// Returns the checksums of an object and their type.
pub(crate) fn object_checksums<'c>(object: &Object, head: &'c ObjectHead) -> ObjectChecksums<'c> {
    let kind = match head.declared {
        Some((_, kind)) if object.etag.parts > 0 => kind,
        _ => ChecksumType::FullObject,
    };
    ObjectChecksums { checksums: &head.checksums, kind, parts: object.etag.parts }
}

impl<P: Platform> Node<P> {
    /// Handles GetObjectAttributes. The SSE-C rules are those of GetObject, but the response has no
    /// SSE-C headers.
    pub(crate) async fn object_attributes(
        &self,
        request: &Request<'_>,
        query: &AttributesQuery,
    ) -> Result<Response<'_, P>> {
        let name = request.name()?;
        let opened = self.open(request, name, request.version(), SseCTarget::Object, ObjectUse::ListParts).await;
        let mut opened = opened?;
        // Without memory of its own, an object has too few parts for a long list.
        let list_memory = opened.memory.take_spare();
        let object = &opened.object;
        let head = &opened.head;
        let etag = object.etag.to_string();
        let parts = if query.parts && object.etag.parts > 0 {
            Some(xml::ObjectParts { count: object.etag.parts, page: self.parts_page(object, head, query)? })
        } else {
            None
        };
        let attributes = xml::Attributes {
            etag: query.etag.then_some(&etag),
            checksums: query.checksum.then(|| object_checksums(object, head)),
            parts,
            storage_class: query.storage_class.then_some("STANDARD"),
            size: query.size.then_some(object.size),
        };
        let response = Response::xml(200, xml::object_attributes(&attributes)).headers(object_version(object));
        let response = response.header("Last-Modified", time::http_date(object.time_ms));
        let response = response.headers(opened.binding.header());
        Ok(match list_memory {
            Some(memory) => response.with_memory(memory),
            None => response,
        })
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
        let checksums = self.kept_checksums(object, head, wanted.clone());
        // Numbered from 1 without gaps, as in a GET with `partNumber`.
        let parts = wanted.clone().zip(&object.parts[wanted]).zip(checksums);
        let parts = parts.map(|((index, part), checksums)| Ok(((index + 1) as u16, part.size, checksums?)));
        let parts = parts.collect::<Result<_>>()?;
        Ok(Some(xml::PartsPage { marker: query.marker, max: query.max_parts, truncated, parts }))
    }

    /// Decodes the stored checksums of some parts of an object; none if there are none.
    pub(crate) fn kept_checksums(
        &self,
        object: &Object,
        head: &ObjectHead,
        wanted: Range<usize>,
    ) -> impl Iterator<Item = Result<Checksums>> {
        let mut part_checksums = part_checksums(&object.part_checksums).skip(wanted.start);
        let wanted = if object.part_checksums.is_empty() { 0..0 } else { wanted };
        object.parts[wanted].iter().map(move |part| {
            let checksums = part_checksums.next().ok_or_else(|| damaged("an object lacks the checksums of a part"))?;
            self.decode_part_checksums(checksums, part, head.data_key.as_deref())
        })
    }
}
