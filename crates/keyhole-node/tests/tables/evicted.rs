//! Objects whose bytes only a remote has.

use keyhole_core::limits::CHUNK_LEN;
use keyhole_node::transfer::Export;
use keyhole_tests::data::bytes;
use keyhole_tests::http::object;
use keyhole_tests::{CustomerKey, Request, Response};

use crate::support::{BUCKET, End, MemoryNode, NOW_MS, assert_error, keyed};

/// Moves the bytes of an object to the remote, and returns its sealed object file.
fn evict(node: &MemoryNode, key: &str) -> Vec<u8> {
    let log = node.log.clone();
    let name = key.to_owned();
    let file = node.run(async move {
        let object = log.object(BUCKET, &name).await.unwrap().unwrap();
        let mut export = Export::new(&log, BUCKET, &name, &object).unwrap();
        let mut file = Vec::new();
        while let Some((buf, at)) = export.next().await.unwrap() {
            file.extend(&buf.as_ref()[at]);
        }
        let number = object.seq;
        drop((export, object));
        assert!(log.evict(BUCKET, &name, number, NOW_MS).await.unwrap());
        file
    });
    node.remote.update(|remote| remote.files.insert((BUCKET.to_owned(), key.to_owned()), file.clone()));
    file
}

/// Stores an object in parts of these sizes, and returns its content. `is_bound`: its completion has
/// the key.
fn put_parts(node: &MemoryNode, name: &str, key: &CustomerKey, sizes: &[usize], is_bound: bool) -> Vec<u8> {
    let id = node.create_upload(keyed("POST", name, key));
    let mut content = Vec::new();
    let mut document = String::new();
    for (number, size) in (1..).zip(sizes) {
        let body = bytes(number, *size);
        let part = keyed("PUT", name, key).query("partNumber", &number.to_string()).query("uploadId", &id);
        let etag = node.send(&part.body(body.clone())).expect(200).header("etag").unwrap().to_owned();
        document += &format!("<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>");
        content.extend(body);
    }
    let complete = if is_bound { keyed("POST", name, key) } else { object("POST", name) };
    let document = format!("<CompleteMultipartUpload>{document}</CompleteMultipartUpload>");
    node.send(&complete.query("uploadId", &id).body(document)).expect(200);
    content
}

fn range(request: &Request, start: usize, end: usize) -> Request {
    request.clone().header("range", format!("bytes={start}-{}", end - 1))
}

/// Reads the whole object and ranges at the borders of chunks and parts.
#[track_caller]
fn check_reads(node: &MemoryNode, get: &Request, content: &[u8], borders: &[usize]) {
    assert_eq!(node.send(get).expect(200).body, content);
    for border in borders {
        for (start, end) in [(border.saturating_sub(1), border + 1), (*border, border + 1), (0, *border)] {
            let end = end.min(content.len());
            if start < end {
                let response = node.send(&range(get, start, end)).expect(206);
                assert!(response.body == content[start..end], "{start} to {end}");
            }
        }
    }
}

#[test]
fn evicted_object_reads_like_a_stored_one() {
    let node = MemoryNode::new();
    let key = CustomerKey::random();
    for len in [70_000, 5 * CHUNK_LEN, 7 * CHUNK_LEN - 1, 7 * CHUNK_LEN, 7 * CHUNK_LEN + 1, 1 << 20, (1 << 20) + 1] {
        let content = bytes(len as u64, len);
        node.send(&keyed("PUT", "o", &key).body(content.clone())).expect(200);
        evict(&node, "o");
        let borders = [1, CHUNK_LEN, 4 * CHUNK_LEN, 5 * CHUNK_LEN, 7 * CHUNK_LEN, len / 2, len];
        check_reads(&node, &keyed("GET", "o", &key), &content, &borders);
    }
}

#[test]
fn evicted_object_in_parts_reads_like_a_stored_one() {
    let node = MemoryNode::new();
    let key = CustomerKey::random();
    for is_bound in [true, false] {
        let sizes = [5 << 20, 6 << 20, 100_000];
        let content = put_parts(&node, "o", &key, &sizes, is_bound);
        evict(&node, "o");
        check_reads(&node, &keyed("GET", "o", &key), &content, &[5 << 20, 11 << 20, content.len()]);
        let second = node.send(&keyed("GET", "o", &key).query("partNumber", "2")).expect(206);
        assert!(second.body == content[5 << 20..11 << 20]);
    }
}

#[test]
fn descriptions_do_not_need_the_remote() {
    let node = MemoryNode::new();
    let key = CustomerKey::random();
    put_parts(&node, "unbound", &key, &[5 << 20, 100_000], false);
    node.send(&keyed("PUT", "whole", &key).body(bytes(1, 100_000))).expect(200);
    for name in ["unbound", "whole"] {
        let before = node.send(&keyed("HEAD", name, &key)).expect(200);
        evict(&node, name);
        node.remote.update(|remote| remote.is_away = true);
        let after = node.send(&keyed("HEAD", name, &key)).expect(200);
        for header in ["content-length", "etag", "last-modified"] {
            assert_eq!(after.header(header), before.header(header), "{name}");
        }
        let listing = node.send(&Request::new("GET", "/bucket").query("list-type", "2")).expect(200).text();
        assert!(listing.contains(&format!("<Key>{name}</Key>")), "{listing}");
        // The wrong key is refused by the object head.
        assert_error(&node.send(&keyed("GET", name, &CustomerKey::random())), 403, "AccessDenied");
        node.remote.update(|remote| {
            assert_eq!(remote.opened, 0);
            remote.is_away = false;
        });
    }
    let tags = "<Tagging><TagSet><Tag><Key>a</Key><Value>b</Value></Tag></TagSet></Tagging>";
    node.send(&object("PUT", "whole").query("tagging", "").body(tags)).expect(200);
    assert!(node.send(&object("GET", "whole").query("tagging", "")).expect(200).text().contains("<Value>b</Value>"));
    assert_eq!(node.send(&keyed("GET", "whole", &key)).expect(200).body, bytes(1, 100_000));
    node.send(&object("DELETE", "whole")).expect(204);
    node.send(&keyed("GET", "whole", &key)).expect(404);
}

#[test]
fn remote_that_is_away_is_answered_with_slow_down() {
    let node = MemoryNode::new();
    let key = CustomerKey::random();
    node.send(&keyed("PUT", "o", &key).body(bytes(1, 300_000))).expect(200);
    evict(&node, "o");
    node.remote.update(|remote| remote.is_away = true);
    let sealed = object("GET", "o").header("x-keyhole-sealed", "1");
    for get in [keyed("GET", "o", &key), range(&keyed("GET", "o", &key), 200_000, 200_001), sealed] {
        let response = node.send(&get);
        assert_error(&response, 503, "SlowDown");
        assert!(response.header("retry-after").is_some());
    }
    node.remote.update(|remote| remote.is_away = false);
    node.send(&keyed("GET", "o", &key)).expect(200);
    // A stream that breaks ends the connection: the client cannot take the rest for the whole.
    let request = node.signed(&node.signer(), &keyed("GET", "o", &key));
    node.remote.update(|remote| remote.breaks_after = Some(250_000));
    assert!(try_send(&node, &request).is_none());
    // Before the first bytes are sent, there is still an answer.
    node.remote.update(|remote| remote.breaks_after = Some(10_000));
    assert_error(&try_send(&node, &request).unwrap(), 503, "SlowDown");
}

/// Sends a request; `None` if the connection was aborted before the response was complete.
fn try_send(node: &MemoryNode, request: &Request) -> Option<Response> {
    let mut connection = node.connect();
    let response = request.exchange(&mut connection, &request.head(crate::support::address())).ok()?;
    if response.is_complete {
        return Some(response);
    }
    assert_eq!(connection.shut_down(), End::Aborted);
    None
}

#[test]
fn altered_file_is_never_served() {
    let node = MemoryNode::new();
    let key = CustomerKey::random();
    node.send(&keyed("PUT", "o", &key).body(bytes(1, 300_000))).expect(200);
    let file = evict(&node, "o");
    let set = |file: Vec<u8>| {
        node.remote.update(|remote| remote.files.insert((BUCKET.to_owned(), "o".to_owned()), file));
    };
    let get = node.signed(&node.signer(), &keyed("GET", "o", &key));
    let message = file.len() - (56 + 300_000 + 19 * 16);
    // The salt, the commitment, the first chunk and its tag, the last chunk and its tag.
    let tag = message + 56 + CHUNK_LEN;
    for at in [message, message + 24, message + 56, tag, tag + 15, file.len() - 17, file.len() - 1] {
        let mut altered = file.clone();
        altered[at] ^= 1;
        set(altered);
        let response = try_send(&node, &get);
        assert!(response.is_none_or(|response| response.status >= 400), "byte {at}");
    }
    // Two chunks that change places.
    let mut swapped = file.clone();
    let (first, second) = swapped[message + 56..].split_at_mut(CHUNK_LEN + 16);
    first.swap_with_slice(&mut second[..CHUNK_LEN + 16]);
    set(swapped);
    assert!(try_send(&node, &get).is_none_or(|response| response.status >= 400));
    // Another length, and no file.
    set(file[1..].to_vec());
    assert!(node.send(&keyed("GET", "o", &key)).status >= 400);
    node.remote.update(|remote| remote.files.clear());
    assert!(node.send(&keyed("GET", "o", &key)).status >= 400);
    // An older version of the same length.
    node.send(&keyed("PUT", "o", &key).body(bytes(2, 300_000))).expect(200);
    evict(&node, "o");
    set(file);
    let response = node.send(&keyed("GET", "o", &key));
    assert_error(&response, 400, "InvalidRequest");
    assert!(response.text().contains("does not authenticate"), "{}", response.text());
}

#[test]
fn sealed_object_file_of_an_evicted_object_is_the_same() {
    let node = MemoryNode::new();
    let key = CustomerKey::random();
    put_parts(&node, "o", &key, &[5 << 20, 100_000], true);
    let get = object("GET", "o").header("x-keyhole-sealed", "1");
    let before = node.send(&get).expect(200).body;
    evict(&node, "o");
    assert!(node.send(&get).expect(200).body == before);
    for (start, end) in [(0, 10), (100, 200_000), (5 << 20, (5 << 20) + 70_000), (before.len() - 1, before.len())] {
        assert!(node.send(&range(&get, start, end)).expect(206).body == before[start..end], "{start} to {end}");
    }
    node.send(&object("PUT", "copy").header("x-keyhole-sealed", "1").body(before)).expect(400);
}

#[test]
fn copy_of_an_evicted_object_has_bytes_of_its_own() {
    let node = MemoryNode::new();
    let key = CustomerKey::random();
    let content = bytes(1, 200_000);
    node.send(&keyed("PUT", "o", &key).body(content.clone())).expect(200);
    evict(&node, "o");
    let source = |request: Request| request.header("x-amz-copy-source", "/bucket/o").headers(key.copy_source_headers());
    node.send(&source(keyed("PUT", "sealed", &key))).expect(200);
    node.send(&source(object("PUT", "plain"))).expect(200);
    let id = node.create_upload(keyed("POST", "parts", &key));
    let part = source(keyed("PUT", "parts", &key)).query("partNumber", "1").query("uploadId", &id);
    let etag = node.send(&part).expect(200).element("ETag").unwrap().replace("&quot;", "\"");
    node.send(&crate::support::completion("parts", &id, &etag)).expect(200);
    node.remote.update(|remote| remote.is_away = true);
    for get in [keyed("GET", "sealed", &key), object("GET", "plain"), keyed("GET", "parts", &key)] {
        assert!(node.send(&get).expect(200).body == content);
    }
}

#[test]
fn export_reads_an_evicted_object_from_the_remote() {
    let node = MemoryNode::new();
    let key = CustomerKey::random();
    node.send(&keyed("PUT", "o", &key).body(bytes(1, 300_000))).expect(200);
    let file = evict(&node, "o");
    let (log, remote) = (node.log.clone(), node.remote.clone());
    let exported = node.run(async move {
        let object = log.object(BUCKET, "o").await.unwrap().unwrap();
        let mut read = Vec::<u8>::new();
        let mut export = Export::with_evicted(&log, BUCKET, "o", &object, Some(&*remote)).unwrap();
        while let Some((buf, at)) = export.next().await.unwrap() {
            read.extend(&buf.as_ref()[at]);
        }
        let mut without = Export::new(&log, BUCKET, "o", &object).unwrap();
        assert!(without.next().await.is_ok_and(|piece| piece.is_some()), "the front");
        assert!(without.next().await.is_err());
        read
    });
    assert!(exported == file);
}
