//! Object tags: in headers, in documents, in copies; tags of SSE-C objects need no key.

use keyhole_tests::http::object;
use keyhole_tests::{CustomerKey, Node, Request, Response};

fn tagging(method: &str, key: &str) -> Request {
    object(method, key).query("tagging", "")
}

fn document(tags: &[(&str, &str)]) -> String {
    let tags = tags.iter().map(|(key, value)| format!("<Tag><Key>{key}</Key><Value>{value}</Value></Tag>"));
    format!("<Tagging><TagSet>{}</TagSet></Tagging>", tags.collect::<String>())
}

/// Returns the tags of an object as `k=v`, and checks the count in reads.
#[track_caller]
fn tags(node: &Node, key: &str, customer_key: Option<&CustomerKey>) -> Vec<String> {
    let text = node.send(&tagging("GET", key)).expect(200).text();
    let value = |text: &str, name: &str| {
        text.split(&format!("<{name}>")).nth(1).unwrap().split(&format!("</{name}>")).next().unwrap().to_owned()
    };
    let tags: Vec<_> =
        text.split("<Tag>").skip(1).map(|tag| format!("{}={}", value(tag, "Key"), value(tag, "Value"))).collect();
    let headers = customer_key.map(|key| key.headers().to_vec()).unwrap_or_default();
    for method in ["GET", "HEAD"] {
        let read = node.send(&object(method, key).headers(headers.clone())).expect(200);
        let count = read.header("x-amz-tagging-count").map(str::to_owned);
        assert_eq!(count, (!tags.is_empty()).then(|| tags.len().to_string()), "{method}");
    }
    tags
}

#[track_caller]
fn assert_error(reply: &Response, status: u16, code: &str) {
    assert_eq!((reply.status, reply.element("Code").as_deref()), (status, Some(code)), "{}", reply.text());
}

#[test]
fn tags_are_put_read_and_deleted() {
    let mut node = Node::with_bucket();
    let key = CustomerKey::random();
    for (name, customer_key) in [("plain", None), ("sealed", Some(&key))] {
        let headers = customer_key.map(|key| key.headers().to_vec()).unwrap_or_default();
        let put = object("PUT", name).headers(headers.clone()).body(vec![7; 200_000]);
        let tagged = put.clone().header("x-amz-tagging", "project=key+hole&%C3%A9=%2F");
        node.send(&tagged).expect(200);
        assert_eq!(tags(&node, name, customer_key), ["project=key hole", "é=/"]);
        let before = node.send(&object("HEAD", name).headers(headers.clone())).expect(200);

        node.send(&tagging("PUT", name).body(document(&[("a", "1"), ("b", "")]))).expect(200);
        assert_eq!(tags(&node, name, customer_key), ["a=1", "b="]);
        let after = node.send(&object("GET", name).headers(headers.clone())).expect(200);
        for header in ["etag", "last-modified", "content-length"] {
            assert_eq!(after.header(header), before.header(header), "{header}");
        }
        assert!(after.body == [7; 200_000]);

        node.send(&tagging("DELETE", name)).expect(204);
        assert!(tags(&node, name, customer_key).is_empty());
        node.send(&tagging("DELETE", name)).expect(204);
        // A new object has its own tags.
        node.send(&tagging("PUT", name).body(document(&[("a", "1")]))).expect(200);
        node.send(&put).expect(200);
        assert!(tags(&node, name, customer_key).is_empty());
        node.send(&tagging("PUT", name).body(document(&[("kept", "1")]))).expect(200);
    }
    node.kill();
    node.start();
    assert_eq!(tags(&node, "plain", None), ["kept=1"]);
    assert_eq!(tags(&node, "sealed", Some(&key)), ["kept=1"]);
}

#[test]
fn tags_beyond_limits_are_rejected() {
    let node = Node::with_bucket();
    node.send(&object("PUT", "o").body("x")).expect(200);
    let put = |tags: &[(&str, &str)]| node.send(&tagging("PUT", "o").body(document(tags)));
    let names: Vec<String> = (0..11).map(|i| format!("key {i}")).collect();
    let many: Vec<(&str, &str)> = names.iter().map(|name| (&name[..], "v")).collect();
    put(&many[..10]).expect(200);
    assert_error(&put(&many), 400, "BadRequest");
    // Limits count characters, not bytes.
    let text = |c: &str, len: usize| c.repeat(len);
    put(&[(&text("é", 128), &text("𠀀", 256))]).expect(200);
    assert_error(&put(&[(&text("é", 129), "v")]), 400, "InvalidTag");
    assert_error(&put(&[("k", &text("v", 257))]), 400, "InvalidTag");
    assert_error(&put(&[("k", "1"), ("k", "2")]), 400, "InvalidTag");
    assert_error(&put(&[("k", "a?b")]), 400, "InvalidTag");
    assert_error(&put(&[("aws:k", "v")]), 400, "InvalidTag");
    assert_error(&node.send(&tagging("PUT", "o").body("<Tagging>")), 400, "MalformedXML");
    assert_eq!(tags(&node, "o", None).len(), 1);

    for method in ["GET", "DELETE"] {
        assert_error(&node.send(&tagging(method, "absent")), 404, "NoSuchKey");
    }
    assert_error(&node.send(&tagging("PUT", "absent").body(document(&[]))), 404, "NoSuchKey");
    assert_error(&node.send(&Request::new("GET", "/absent-bucket/k").query("tagging", "")), 404, "NoSuchBucket");
    let header = |value: &str| node.send(&object("PUT", "new").header("x-amz-tagging", value).body("x"));
    assert_error(&header("k=1&k=2"), 400, "InvalidTag");
    assert_error(&header("k=%ff"), 400, "InvalidArgument");
    assert_error(&header(&(0..11).map(|i| format!("k{i}=")).collect::<Vec<_>>().join("&")), 400, "BadRequest");
    node.send(&object("GET", "new")).expect(404);
}

#[test]
fn copies_and_uploads_carry_tags() {
    let node = Node::with_bucket();
    let key = CustomerKey::random();
    let other = CustomerKey::random();
    node.send(&object("PUT", "o").headers(key.headers()).header("x-amz-tagging", "a=1").body("x")).expect(200);
    let copy = |to: &str| {
        let copy = object("PUT", to).header("x-amz-copy-source", "/bucket/o").headers(key.copy_source_headers());
        copy.headers(other.headers())
    };
    node.send(&copy("kept")).expect(200);
    assert_eq!(tags(&node, "kept", Some(&other)), ["a=1"]);
    node.send(&copy("new").header("x-amz-tagging-directive", "REPLACE").header("x-amz-tagging", "b=2")).expect(200);
    assert_eq!(tags(&node, "new", Some(&other)), ["b=2"]);
    node.send(&copy("none").header("x-amz-tagging-directive", "REPLACE")).expect(200);
    assert!(tags(&node, "none", Some(&other)).is_empty());
    // Unsealed: the data are streamed, and the tags are copied.
    let opened = object("PUT", "opened").header("x-amz-copy-source", "/bucket/o").headers(key.copy_source_headers());
    node.send(&opened).expect(200);
    assert_eq!(tags(&node, "opened", None), ["a=1"]);
    assert_error(&node.send(&copy("x").header("x-amz-tagging-directive", "MOVE")), 400, "InvalidArgument");
    assert_error(&node.send(&copy("x").header("x-amz-tagging", "b=2")), 400, "InvalidArgument");
    // Onto itself, to change only the tags.
    let itself = object("PUT", "opened").header("x-amz-copy-source", "/bucket/opened");
    assert_error(&node.send(&itself), 400, "InvalidRequest");
    let itself = itself.header("x-amz-tagging-directive", "REPLACE").header("x-amz-tagging", "c=3");
    node.send(&itself).expect(200);
    assert_eq!(tags(&node, "opened", None), ["c=3"]);

    let create = object("POST", "parts").query("uploads", "").headers(key.headers()).header("x-amz-tagging", "d=4");
    let id = node.send(&create).expect(200).element("UploadId").unwrap();
    let part = object("PUT", "parts").query("partNumber", "1").query("uploadId", &id).headers(key.headers());
    let etag = node.send(&part.body("x")).expect(200).header("etag").unwrap().to_owned();
    let document = format!(
        "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>{etag}</ETag></Part></CompleteMultipartUpload>"
    );
    node.send(&object("POST", "parts").query("uploadId", &id).body(document)).expect(200);
    assert_eq!(tags(&node, "parts", Some(&key)), ["d=4"]);

    // A sealed object file has no tags: they are passed separately.
    let file = node.send(&object("GET", "kept").header("x-keyhole-sealed", "1")).expect(200).body;
    let put = object("PUT", "kept").header("x-keyhole-sealed", "1").header("x-amz-tagging", "e=5");
    node.send(&put.body(file)).expect(200);
    assert_eq!(tags(&node, "kept", Some(&other)), ["e=5"]);
}
