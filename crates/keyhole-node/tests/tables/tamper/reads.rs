//! All reads of an object, and the check of their responses after its store was tampered with.

use std::io::Write;
use std::ops::Range;

use keyhole_log::ScrubCursor;
use keyhole_node::transfer::Export;
use keyhole_tests::data::md5;
use keyhole_tests::http::{object, read_reply};
use keyhole_tests::{Request, Response};

use super::fixture::{CONTROL, KEY, Stored};
use crate::support::{BUCKET, End, MemoryNode, address, keyed};

/// Sends a request, and a second one for another object over the same connection. Returns the
/// response to the first, which is whole.
///
/// # Errors
/// The node aborted the connection.
///
/// # Panics
/// If the second response is not that to the second request.
pub(super) fn exchange(node: &MemoryNode, request: &Request) -> Result<Response, End> {
    let mut connection = node.connect();
    let method = if request.keep_alive_head(address()).starts_with("HEAD") { "HEAD" } else { "GET" };
    let signed = node.signed(&node.signer(), request);
    let mut receive = |request: &Request, method: &str| {
        let head = request.keep_alive_head(address());
        connection.write_all(head.as_bytes()).unwrap();
        let mut body = Vec::new();
        let response = read_reply(&mut connection, method, |bytes| body.extend_from_slice(bytes));
        response.map(|response| Response { body, ..response })
    };
    let first = receive(&signed, method).expect("a response, at least its head");
    if !first.is_complete {
        assert_eq!(connection.shut_down(), End::Aborted, "a body that ends early aborts the connection");
        return Err(End::Aborted);
    }
    let control = node.signed(&node.signer(), &object("GET", "control"));
    let second = receive(&control, "GET").expect("the response to the next request");
    // The store may have lost the object, but nothing else may come.
    assert!(second.status != 200 || second.body == CONTROL, "{second:?}");
    assert!(second.is_complete && [200, 400, 404, 500].contains(&second.status), "{second:?}");
    Ok(first)
}

/// Reads that returned other bytes than were stored, with a success status and a whole body.
pub(super) type Deviations = Vec<String>;

/// Reads an object in every way and returns the deviations.
pub(super) fn deviations(node: &MemoryNode, stored: &Stored) -> Deviations {
    let mut found = Deviations::new();
    let len = stored.data.len();
    let mut note = |what: &str, is_right: bool| {
        if !is_right {
            found.push(what.to_owned());
        }
    };
    note("whole", reads(node, stored, stored.request("GET"), 0..len));
    for range in ranges(stored) {
        let header = format!("bytes={}-{}", range.start, range.end - 1);
        note(&header, reads(node, stored, stored.request("GET").header("range", &header), range.clone()));
    }
    if len >= 50 {
        note("suffix", reads(node, stored, stored.request("GET").header("range", "bytes=-50"), len - 50..len));
    }
    let mut start = 0;
    for (number, part) in (1..).zip(&stored.parts) {
        let get = stored.request("GET").query("partNumber", &u32::to_string(&number));
        note(&format!("part {number}"), reads(node, stored, get, start..start + part));
        start += part;
    }
    if let Ok(head) = exchange(node, &stored.request("HEAD"))
        && head.status == 200
    {
        note("HEAD", head.header("content-length") == Some(&len.to_string()));
    }
    let attributes = stored.request("GET").query("attributes", "").header("x-amz-object-attributes", "ObjectSize");
    if let Ok(response) = exchange(node, &attributes)
        && response.status == 200
    {
        note("attributes", response.element("ObjectSize") == Some(len.to_string()));
    }
    copies(node, stored, &mut note);
    export(node, stored, &mut note);
    found
}

/// Returns ranges within chunks, across chunks, and across parts.
fn ranges(stored: &Stored) -> Vec<Range<usize>> {
    let mut ranges = Vec::new();
    let len = stored.data.len();
    if len >= 100 {
        ranges.extend([10..90, len / 2..len / 2 + 10]);
    }
    if stored.parts.len() > 1 {
        let first = stored.parts[0];
        ranges.extend([first - 10..first + 10, first + 20_000..first + 20_100, len - 60..len - 40]);
    }
    ranges
}

/// Returns whether a request for these bytes is answered with them, or not with success.
fn reads(node: &MemoryNode, stored: &Stored, request: Request, range: Range<usize>) -> bool {
    let Ok(response) = exchange(node, &request) else { return true };
    ![200, 206].contains(&response.status) || response.body == stored.data[range]
}

/// Copies the object, shared, decrypted, and in part, and reads the copies.
fn copies(node: &MemoryNode, stored: &Stored, note: &mut impl FnMut(&str, bool)) {
    let source = |request: Request| {
        let request = request.header("x-amz-copy-source", format!("/bucket/{}", stored.key));
        if stored.is_sealed { request.headers(KEY.copy_source_headers()) } else { request }
    };
    for (what, target) in [("copy", object("PUT", "copy")), ("sealed copy", keyed("PUT", "sealed-copy", &KEY))] {
        let is_copied = exchange(node, &source(target)).is_ok_and(|response| response.status == 200);
        let get = if what == "copy" { object("GET", "copy") } else { keyed("GET", "sealed-copy", &KEY) };
        if is_copied && let Ok(response) = exchange(node, &get) {
            note(what, response.status != 200 || response.body == stored.data);
        }
    }
    if stored.data.is_empty() {
        return;
    }
    let created = exchange(node, &object("POST", "parts").query("uploads", ""));
    let Some(id) = created.ok().and_then(|created| created.element("UploadId")) else { return };
    let range = ranges(stored).pop().unwrap_or(0..1);
    let header = format!("bytes={}-{}", range.start, range.end - 1);
    let put = object("PUT", "parts").query("partNumber", "1").query("uploadId", &id);
    if let Ok(response) = exchange(node, &source(put).header("x-amz-copy-source-range", header))
        && response.status == 200
    {
        let etag = response.element("ETag").unwrap();
        note("part copy", etag.trim_matches('"') == hex::encode(md5(&stored.data[range])));
    }
}

/// Exports an object without its key. Returns the bytes if they are complete.
pub(super) fn exported(node: &MemoryNode, key: &'static str) -> Option<Vec<u8>> {
    let log = node.log.clone();
    node.run(async move {
        let object = log.object(BUCKET, key).await.ok()??;
        let mut export = Export::new(&log, BUCKET, key, &object).ok()?;
        let mut bytes = Vec::new();
        while let Some((buf, at)) = export.next().await.ok()? {
            bytes.extend_from_slice(&buf.as_ref()[at]);
        }
        (bytes.len() as u64 == export.file_len()).then_some(bytes)
    })
}

/// Exports the object without its key, and opens the export by storing it again.
fn export(node: &MemoryNode, stored: &Stored, note: &mut impl FnMut(&str, bool)) {
    let key = stored.key;
    let exported = exported(node, key);
    if !stored.is_sealed {
        return;
    }
    let get = object("GET", key).header("x-keyhole-sealed", "1");
    let sealed = exchange(node, &get).ok().filter(|response| response.status == 200).map(|response| response.body);
    for file in [exported, sealed].into_iter().flatten() {
        let put = object("PUT", key).header("x-keyhole-sealed", "1").body(file);
        if node.send(&put).status == 200 {
            note("sealed file", reads(node, stored, stored.request("GET"), 0..stored.data.len()));
        }
    }
}

/// Returns the keys of the objects that a scrub finds damaged.
pub(super) fn scrubbed(node: &MemoryNode) -> Vec<String> {
    let log = node.log.clone();
    node.run(async move {
        let mut found = Vec::new();
        let mut cursor = Some(ScrubCursor::default());
        while let Some(at) = cursor {
            let Ok(step) = log.scrub(at).await else { break };
            found.extend(step.findings.into_iter().filter_map(|damage| damage.key));
            cursor = step.next;
        }
        found
    })
}
