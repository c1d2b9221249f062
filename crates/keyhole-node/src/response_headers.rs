//! Header fields of responses about objects.

use std::ops::Range;

use keyhole_core::CustomerKey;
use keyhole_core::head::Checksums;
use keyhole_log::{Etag, Object};
use keyhole_s3::ops::{self, Decision};
use keyhole_s3::{ErrorCode, sse, time};

use crate::failure::Result;
use crate::http::Response;
use crate::platform::Platform;
use crate::request::Request;
use crate::versions::object_version;

/// Formats an ETag with the quotes that headers and documents have.
pub(crate) fn quoted(etag: &Etag) -> String {
    format!("\"{etag}\"")
}

/// Returns the SSE-C response headers: the algorithm and the MD5 of the key.
pub(crate) fn sse_c_headers(customer_key: Option<&CustomerKey>) -> impl Iterator<Item = (&'static str, String)> {
    customer_key.map(sse::response_headers).into_iter().flatten()
}

/// Returns the headers of checksums.
pub(crate) fn checksum_headers(checksums: &Checksums) -> impl Iterator<Item = (&'static str, String)> {
    ops::checksum_headers(checksums)
}

/// Returns the 304 or the error if the request's conditions exclude sending the object.
pub(crate) fn unmodified<'n, P: Platform>(request: &Request<'_>, object: &Object) -> Result<Option<Response<'n, P>>> {
    let conditions = ops::conditions(request.head);
    if conditions.is_empty() {
        return Ok(None);
    }
    let etag = object.etag.to_string();
    match conditions.decide(Some((&etag, object.time_ms))) {
        Decision::Proceed => Ok(None),
        Decision::NotModified => {
            let response = Response::new(304).header("ETag", quoted(&object.etag));
            let response = response.headers(object_version(object));
            Ok(Some(response.header("Last-Modified", time::http_date(object.time_ms))))
        }
        Decision::PreconditionFailed => Err(ErrorCode::PreconditionFailed.into()),
    }
}

/// Builds the response to a read of an object or of a `range` of it; `size` is the length of the
/// whole representation.
pub(crate) fn range_response<'n, P: Platform>(
    object: &Object,
    size: u64,
    range: Option<&Range<u64>>,
) -> Response<'n, P> {
    let response = Response::new(if range.is_some() { 206 } else { 200 })
        .header("ETag", quoted(&object.etag))
        .header("Last-Modified", time::http_date(object.time_ms))
        .header("Accept-Ranges", "bytes");
    match range {
        // The only part of an empty object is an empty range, which `Content-Range` cannot express.
        Some(range) if !range.is_empty() => {
            response.header("Content-Range", format!("bytes {}-{}/{size}", range.start, range.end - 1))
        }
        _ => response,
    }
}
