//! The attacks that part 7 of the format of sealed objects lists as possible. Each test is one entry
//! of the list there, or the limit of one.

use keyhole_core::aead::Portable;
use keyhole_core::body::{MultipartEtag, context};
use keyhole_core::chunked::Sealer;
use keyhole_core::head::{Head, open_head};
use keyhole_tests::data::{base64, bytes};
use keyhole_tests::http::object;
use keyhole_tests::object_file::tamper::{PART, RecordOf, Tamper, UPLOAD, head_range, part_range, replace_head};
use keyhole_tests::{Request, Response};

use super::fixture::{self, Completed, KEY, OTHER_KEY, PARTS, Stored};
use super::reads::{exchange, exported, scrubbed};
use crate::support::{BUCKET, MemoryNode, assert_error, completion, first_part, keyed};

const BOUND: u8 = 4;
const SEALED: u8 = 1;

fn in_parts(key: &'static str) -> Stored {
    Stored { key, data: bytes(5, PARTS.iter().sum()), parts: PARTS.to_vec(), is_sealed: true }
}

fn get(node: &MemoryNode, request: &Request) -> Response {
    exchange(node, request).expect("a whole response")
}

fn open(content: &[u8]) -> MemoryNode {
    MemoryNode::open(content).expect("a store")
}

/// Returns the sealed object file of an object, read without its key.
fn sealed_file(node: &MemoryNode, key: &str) -> Vec<u8> {
    get(node, &object("GET", key).header("x-keyhole-sealed", "1")).expect(200).body
}

/// Returns the request for an object of which all must be authenticated.
fn bound_only(request: Request) -> Request {
    request.header("x-keyhole-binding", "required")
}

/// Makes number, size and ETag of an object's record those of these parts.
fn set_parts(payload: &mut Vec<u8>, parts: &[Vec<u8>]) {
    let count = usize::from(u16::from_le_bytes([payload[54], payload[55]]));
    let all = part_range(payload, 0).start..part_range(payload, count).start;
    payload.splice(all, parts.concat());
    let mut etag = MultipartEtag::new();
    parts.iter().for_each(|part| etag.update(part[42..58].try_into().unwrap()));
    let size: u64 = parts.iter().map(|part| u64::from_le_bytes(part[10..18].try_into().unwrap())).sum();
    payload[16..24].copy_from_slice(&size.to_le_bytes());
    payload[32..48].copy_from_slice(&etag.finish());
    payload[48..50].copy_from_slice(&(parts.len() as u16).to_le_bytes());
    payload[54..56].copy_from_slice(&(parts.len() as u16).to_le_bytes());
}

fn parts_of(payload: &[u8]) -> Vec<Vec<u8>> {
    let count = usize::from(u16::from_le_bytes([payload[54], payload[55]]));
    (0..count).map(|part| payload[part_range(payload, part)].to_vec()).collect()
}

/// Roll-back: an older head with its bodies, under the same name and key.
#[test]
fn older_object_of_the_name_is_served() {
    let node = fixture::node();
    let put = |data: &str| node.send(&keyed("PUT", "single", &KEY).body(data)).expect(200);
    let old = put("the old bytes").header("etag").unwrap().to_owned();
    put("the new bytes");
    let tamper = Tamper::new(node.content());
    let payloads = tamper.payloads_of_objects("single");
    let node = open(&tamper.with_payload("single", RecordOf::Object, &payloads[0]));
    let response = get(&node, &bound_only(keyed("GET", "single", &KEY))).expect(200);
    assert_eq!((response.text().as_str(), response.header("etag")), ("the old bytes", Some(&old[..])));
}

/// Roll-back over a change of the key: re-keying does not revoke.
#[test]
fn rekeyed_object_is_served_under_its_old_key() {
    let node = fixture::node();
    node.send(&keyed("PUT", "rekeyed", &OTHER_KEY).body("bytes")).expect(200);
    let copy = keyed("PUT", "rekeyed", &KEY).header("x-amz-copy-source", "/bucket/rekeyed");
    node.send(&copy.headers(OTHER_KEY.copy_source_headers())).expect(200);
    assert_error(&node.send(&keyed("GET", "rekeyed", &OTHER_KEY)), 403, "AccessDenied");
    let tamper = Tamper::new(node.content());
    let payloads = tamper.payloads_of_objects("rekeyed");
    let node = open(&tamper.with_payload("rekeyed", RecordOf::Object, &payloads[0]));
    assert_eq!(get(&node, &keyed("GET", "rekeyed", &OTHER_KEY)).expect(200).text(), "bytes");
    assert_error(&get(&node, &keyed("GET", "rekeyed", &KEY)), 403, "AccessDenied");
}

/// A part is left out of an object that was completed without the key. The response says that the
/// list of parts is not authenticated, and a request may refuse that.
#[test]
fn part_is_left_out_of_unbound_object_only() {
    for completed in [Completed::WithKey, Completed::WithoutKey, Completed::ByEarlierRelease] {
        let node = fixture::node();
        let stored = in_parts("parts");
        fixture::put_parts(&node, &stored, completed);
        let etag = get(&node, &stored.request("HEAD")).expect(200).header("etag").unwrap().to_owned();
        let tamper = Tamper::new(node.content());
        let mut payload = tamper.payload("parts", RecordOf::Object);
        let mut parts = parts_of(&payload);
        parts.remove(1);
        set_parts(&mut payload, &parts);
        let node = open(&tamper.with_payload("parts", RecordOf::Object, &payload));
        let response = get(&node, &stored.request("GET"));
        if completed == Completed::WithKey {
            assert_error(&response, 400, "InvalidRequest");
            continue;
        }
        let response = response.expect(200);
        let rest = [&stored.data[..PARTS[0]], &stored.data[PARTS[0] + PARTS[1]..]].concat();
        assert!(response.body == rest && response.header("etag") != Some(&etag[..]));
        assert_eq!(response.header("x-keyhole-binding"), Some("unbound"));
        assert_error(&get(&node, &bound_only(stored.request("GET"))), 412, "PreconditionFailed");
    }
}

/// A superseded attempt at a part comes back into an object that was completed without the key.
#[test]
fn superseded_attempt_returns_to_unbound_object_only() {
    for completed in [Completed::WithKey, Completed::WithoutKey] {
        let node = fixture::node();
        let stored = in_parts("parts");
        let upload = fixture::begin(&node, &stored);
        fixture::put_part(&node, &stored, &upload, 3, b"another attempt");
        fixture::complete(&node, "parts", &upload, completed);
        let tamper = Tamper::new(node.content());
        let attempts = tamper.records(PART).into_iter().map(|(_, payload)| payload[24..82].to_vec());
        let first = attempts.into_iter().find(|part| part[0] == 3).unwrap();
        let mut payload = tamper.payload("parts", RecordOf::Object);
        let mut parts = parts_of(&payload);
        parts[2] = first;
        set_parts(&mut payload, &parts);
        let node = open(&tamper.with_payload("parts", RecordOf::Object, &payload));
        let response = get(&node, &stored.request("GET"));
        if completed == Completed::WithKey {
            assert_error(&response, 400, "InvalidRequest");
        } else {
            assert!(response.header("x-keyhole-binding") == Some("unbound") && response.body == stored.data);
            assert_error(&get(&node, &bound_only(stored.request("GET"))), 412, "PreconditionFailed");
        }
    }
}

/// The head of the upload takes the place of the object's. The object is then reported as unbound.
/// If the upload declared a checksum, the object is refused.
#[test]
fn head_of_upload_unbinds_object_unless_checksum_was_declared() {
    let node = fixture::node();
    let stored = in_parts("parts");
    fixture::put_parts(&node, &stored, Completed::WithKey);
    let create = object("POST", "declared").headers(KEY.headers()).header("x-amz-checksum-algorithm", "CRC32");
    let id = node.create_upload(create);
    let declared = Stored { key: "declared", ..stored.clone() };
    let put = declared.request("PUT").query("partNumber", "1").query("uploadId", &id).body("bytes");
    node.send(&put.header("x-amz-checksum-crc32", base64(&crc32fast::hash(b"bytes").to_be_bytes()))).expect(200);
    fixture::complete(&node, "declared", &id, Completed::WithKey);
    get(&node, &bound_only(stored.request("GET"))).expect(200);
    get(&node, &bound_only(declared.request("GET"))).expect(200);
    let tamper = Tamper::new(node.content());
    let uploads = tamper.records(UPLOAD);
    let downgraded = |key: &str, upload: usize, flags: u8| {
        let mut payload = tamper.payload(key, RecordOf::Object);
        replace_head(&mut payload, false, &uploads[upload].1[head_range(&uploads[upload].1, true)]);
        payload[50] &= flags;
        open(&tamper.with_payload(key, RecordOf::Object, &payload))
    };
    let node = downgraded("parts", 0, !0);
    assert_error(&get(&node, &stored.request("GET")), 400, "InvalidRequest");
    let node = downgraded("parts", 0, !BOUND);
    let response = get(&node, &stored.request("GET")).expect(200);
    assert!(response.body == stored.data && response.header("x-keyhole-binding") == Some("unbound"));
    for method in ["GET", "HEAD"] {
        assert_error(&get(&node, &bound_only(stored.request(method))), 412, "PreconditionFailed");
    }
    let node = downgraded("declared", 1, !BOUND);
    assert_error(&get(&node, &declared.request("GET")), 400, "InvalidRequest");
}

/// The head of an object does not become that of an upload, whose parts would get its data key.
#[test]
fn head_of_object_in_upload_is_refused() {
    let node = fixture::node();
    node.send(&keyed("PUT", "name", &KEY).body("bytes")).expect(200);
    let id = node.create_upload(object("POST", "name").headers(KEY.headers()));
    let tamper = Tamper::new(node.content());
    let (index, mut payload) = tamper.records(UPLOAD).remove(0);
    let of_object = tamper.payload("name", RecordOf::Object);
    replace_head(&mut payload, true, &of_object[head_range(&of_object, false)]);
    let node = open(&tamper.with_record(index, &payload));
    let put = keyed("PUT", "name", &KEY).query("partNumber", "1").query("uploadId", &id).body("part");
    assert_error(&node.send(&put), 400, "InvalidRequest");
}

/// All copies of an object share its data key. The holder of one copy's customer key can write the
/// bodies of the others, with access to the disk.
#[test]
fn holder_of_the_key_of_a_copy_forges_the_original() {
    let node = fixture::node();
    node.send(&keyed("PUT", "single", &KEY).body("original")).expect(200);
    let copy = keyed("PUT", "copied", &OTHER_KEY).header("x-amz-copy-source", "/bucket/single");
    node.send(&copy.headers(KEY.copy_source_headers())).expect(200);
    let tamper = Tamper::new(node.content());
    let payload = tamper.payload("copied", RecordOf::Object);
    let mut head = payload[head_range(&payload, false)].to_vec();
    let other_key = keyhole_core::CustomerKey::new(OTHER_KEY.0);
    let head = open_head(&Portable, &other_key, BUCKET, "copied", &mut head).unwrap();
    let mut body = tamper.payload("single", RecordOf::Body);
    let salt: [u8; 24] = body[32..56].try_into().unwrap();
    let mut sealer = Sealer::new(&Portable, head.data_key.unwrap(), &salt, &[&context(0)]);
    let mut forged = *b"forgery!";
    let tag = sealer.seal_next(&mut forged);
    body.truncate(88);
    body.extend(tag);
    body.extend(forged);
    let node = open(&tamper.with_payload("single", RecordOf::Body, &body));
    assert_eq!(get(&node, &keyed("GET", "single", &KEY)).expect(200).text(), "forgery!");
}

/// Heads are bound to names, not to a store: the object of another store under the same names and
/// the same customer key is served.
#[test]
fn object_of_another_store_is_served() {
    let [here, there] = ["stored here.", "stored there"].map(|data| {
        let node = fixture::node();
        // The random numbers of both nodes are the same.
        (0..data.len() % 2 + usize::from(data.ends_with("there"))).for_each(|n| {
            node.send(&keyed("PUT", &format!("other-{n}"), &KEY).body("other")).expect(200);
        });
        node.send(&keyed("PUT", "single", &KEY).body(data)).expect(200);
        Tamper::new(node.content())
    });
    let mut object_here = here.payload("single", RecordOf::Object);
    let object_there = there.payload("single", RecordOf::Object);
    replace_head(&mut object_here, false, &object_there[head_range(&object_there, false)]);
    object_here[32..48].copy_from_slice(&object_there[32..48]);
    let part = part_range(&object_here, 0);
    object_here[part.start + 18..part.end].copy_from_slice(&object_there[part.start + 18..part.end]);
    let mut body_here = here.payload("single", RecordOf::Body);
    body_here[32..].copy_from_slice(&there.payload("single", RecordOf::Body)[32..]);
    let content = here.with_payload("single", RecordOf::Object, &object_here);
    let content = Tamper::new(content).with_payload("single", RecordOf::Body, &body_here);
    let response = get(&open(&content), &bound_only(keyed("GET", "single", &KEY))).expect(200);
    assert_eq!(response.text(), "stored there");
}

/// A plaintext object takes the place of a sealed one. A request with a key refuses it.
#[test]
fn plaintext_in_place_of_sealed_object_is_served_without_key_only() {
    let node = fixture::node();
    node.send(&keyed("PUT", "single", &KEY).body("bytes")).expect(200);
    let tamper = Tamper::new(node.content());
    let mut payload = tamper.payload("single", RecordOf::Object);
    payload[50] &= !SEALED;
    let mut head = [0; 64];
    let len = Head::default().encode(&mut head).unwrap();
    replace_head(&mut payload, false, &head[..len]);
    let node = open(&tamper.with_payload("single", RecordOf::Object, &payload));
    assert_ne!(get(&node, &object("GET", "single")).expect(200).text(), "bytes");
    assert_error(&get(&node, &keyed("GET", "single", &KEY)), 400, "InvalidRequest");
    assert_error(&get(&node, &bound_only(object("GET", "single"))), 412, "PreconditionFailed");
}

/// Times, tags and listings are not authenticated, and whole objects can be deleted.
#[test]
fn unauthenticated_metadata_and_names_change_unnoticed() {
    let node = fixture::node();
    node.send(&keyed("PUT", "single", &KEY).body("bytes")).expect(200);
    let tamper = Tamper::new(node.content());
    let time = tamper.field("single", "object time");
    let node = open(&tamper.with(&[(&time, &86_400_000u64.to_le_bytes())]));
    let response = get(&node, &keyed("GET", "single", &KEY)).expect(200);
    assert_eq!(response.header("last-modified"), Some("Fri, 02 Jan 1970 00:00:00 GMT"));
    let size = tamper.field("single", "object size");
    let node = open(&tamper.with(&[(&size, &77u64.to_le_bytes())]));
    let listed = node.send(&Request::new("GET", "/bucket").query("list-type", "2")).expect(200);
    assert_eq!(listed.element("Size").as_deref(), Some("77"));
    let key = tamper.field("single", "object key");
    let node = open(&tamper.with(&[(&key, b"hidden")]));
    assert_error(&get(&node, &keyed("GET", "single", &KEY)), 404, "NoSuchKey");
}

/// Returns the store with the second part shorter everywhere but in sealed heads: in its part's or
/// object's record, the body's record, the run, and the footer.
fn shortened(tamper: &Tamper) -> Vec<u8> {
    let fields = tamper.fields();
    let is_length = |name: &str| {
        ["part size", "object part size", "body length", "body run bytes", "footer data length"].contains(&name)
    };
    let total = PARTS.iter().sum::<usize>() as u64;
    let mut changes = Vec::new();
    for field in &fields {
        let number = match field.number() {
            Some(number) if number == PARTS[1] as u64 && is_length(&field.name) => number,
            Some(number) if number == total && field.name == "object size" => number,
            _ => continue,
        };
        changes.push((field, (number - CUT).to_le_bytes()[..field.value.len()].to_vec()));
    }
    let changes: Vec<_> = changes.iter().map(|(field, value)| (*field, &value[..])).collect();
    tamper.with(&changes)
}

/// Bytes cut from the second part, within its last page.
const CUT: u64 = 300;

/// The range of the first bytes of the third part, after the cut.
fn shifted(stored: &Stored) -> (Request, Vec<u8>) {
    let start = PARTS[0] + PARTS[1];
    let first = start - CUT as usize;
    let request = stored.request("GET").header("range", format!("bytes={first}-{}", first + 9));
    (request, stored.data[start..start + 10].to_vec())
}

/// The sizes of the parts of a completed object are authenticated: by its head, or by the last chunk
/// of each part.
#[test]
fn shortened_part_is_refused_in_ranges_elsewhere() {
    for completed in [Completed::WithKey, Completed::WithoutKey, Completed::ByEarlierRelease] {
        let node = fixture::node();
        let stored = in_parts("parts");
        fixture::put_parts(&node, &stored, completed);
        let (request, _) = shifted(&stored);
        get(&node, &request).expect(206);
        let node = open(&shortened(&Tamper::new(node.content())));
        assert_error(&get(&node, &request), 400, "InvalidRequest");
        assert_error(&get(&node, &stored.request("HEAD")), 400, "InvalidRequest");
    }
}

/// The sizes of the parts of an unfinished upload are not authenticated. Completion with the key
/// binds the wrong sizes: ranges are shifted, but no whole read succeeds.
#[test]
fn sizes_of_unfinished_upload_shift_ranges_of_its_object() {
    let node = fixture::node();
    let stored = in_parts("parts");
    let upload = fixture::begin(&node, &stored);
    let node = open(&shortened(&Tamper::new(node.content())));
    fixture::complete(&node, "parts", &upload, Completed::WithKey);
    let whole = exchange(&node, &stored.request("GET"));
    assert!(whole.is_err() || whole.is_ok_and(|response| response.status != 200));
    let (request, third_part) = shifted(&stored);
    assert_eq!(get(&node, &request).expect(206).body, third_part);
}

/// Completion without the key is reported in its response and in those of all reads, and refused if
/// the request demands a bound object.
#[test]
fn completion_without_key_is_reported_and_refused_on_request() {
    let node = fixture::node();
    let id = node.create_upload(object("POST", "parts").headers(KEY.headers()));
    let part = node.send(&first_part(keyed("PUT", "parts", &KEY), &id).body("bytes")).expect(200);
    let complete = || completion("parts", &id, part.header("etag").unwrap());
    assert_error(&node.send(&bound_only(complete())), 400, "InvalidArgument");
    let unbound = |response: Response| response.header("x-keyhole-binding") == Some("unbound");
    assert!(unbound(node.send(&complete()).expect(200)));
    let copy = || {
        let copy = keyed("PUT", "copied", &KEY).header("x-amz-copy-source", "/bucket/parts");
        copy.headers(KEY.copy_source_headers())
    };
    let attributes = || keyed("GET", "parts", &KEY).query("attributes", "").header("x-amz-object-attributes", "ETag");
    let get = || keyed("GET", "parts", &KEY);
    for request in [get(), keyed("HEAD", "parts", &KEY), get().header("range", "bytes=0-1"), attributes(), copy()] {
        assert_error(&node.send(&bound_only(request.clone())), 412, "PreconditionFailed");
        assert!(unbound(node.send(&request)));
    }
    // A copy is as unbound as its source, under its own name and any key.
    assert!(unbound(node.send(&keyed("GET", "copied", &KEY)).expect(200)));
    // Completed with the key, it is bound.
    let id = node.create_upload(object("POST", "bound").headers(KEY.headers()));
    let part = node.send(&first_part(keyed("PUT", "bound", &KEY), &id).body("bytes")).expect(200);
    let complete = completion("bound", &id, part.header("etag").unwrap()).headers(KEY.headers());
    assert!(!unbound(node.send(&bound_only(complete)).expect(200)));
    assert!(!unbound(node.send(&bound_only(keyed("GET", "bound", &KEY))).expect(200)));
    for request in [object("PUT", "other").body("bytes"), object("DELETE", "parts")] {
        assert_error(&node.send(&bound_only(request)), 400, "InvalidRequest");
    }
}

/// Sealed object files without the key: reads with `x-keyhole-sealed` and exports send changed bytes.
/// Opening the file finds the change.
#[test]
fn changed_body_is_exported_without_key_and_does_not_open() {
    let node = fixture::node();
    node.send(&keyed("PUT", "single", &KEY).body("the stored bytes")).expect(200);
    let stored = sealed_file(&node, "single");
    assert_eq!(exported(&node, "single").as_ref(), Some(&stored));
    let tamper = Tamper::new(node.content());
    let mut payload = tamper.payload("single", RecordOf::Body);
    // The data ends the record of a short body.
    *payload.last_mut().expect("a payload") ^= 1;
    let node = open(&tamper.with_payload("single", RecordOf::Body, &payload));
    assert_error(&node.send(&keyed("GET", "single", &KEY)), 400, "InvalidRequest");
    assert_eq!(scrubbed(&node), [""; 0], "the checksums are right");
    let changed = sealed_file(&node, "single");
    assert_eq!(exported(&node, "single").as_ref(), Some(&changed));
    assert_eq!(changed.len(), stored.len());
    assert_eq!(changed.iter().zip(&stored).filter(|(one, other)| one != other).count(), 1);

    // A file is opened by its reads with the key, wherever it is stored.
    let other = MemoryNode::new();
    for (file, status) in [(stored, 200), (changed, 400)] {
        other.send(&object("PUT", "single").header("x-keyhole-sealed", "1").body(file)).expect(200);
        assert_eq!(other.send(&keyed("GET", "single", &KEY)).status, status);
    }
}
