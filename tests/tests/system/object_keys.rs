//! Keys of any UTF-8, up to 1,024 bytes.

use keyhole_tests::data::{base64, md5};
use keyhole_tests::sigv4::encode;
use keyhole_tests::{CustomerKey, Node, Request};

fn keys() -> Vec<String> {
    let mut keys: Vec<String> = [
        "a//b/",
        "./..",
        "../a",
        "a b+c%20%2F?x=1&y#z",
        "<&>\"'",
        "\u{1}\t\n\r\u{7f}",
        "é\u{301}",
        "日本語/😀",
        "\u{ffff}",
        "a\\b",
        "*~'()!,;:@$",
        "uploads?",
        "\u{feff}bom",
        "k\u{a0}",
    ]
    .map(str::to_owned)
    .to_vec();
    keys.extend(["k".repeat(1024), "é".repeat(512), "😀".repeat(256)]);
    keys.sort();
    keys
}

#[test]
fn keys_of_any_utf8_are_stored_listed_and_deleted() {
    let node = Node::new();
    let key = CustomerKey::random();
    node.make_bucket("names");
    let request = |method: &str, name: &str| Request::new(method, &format!("/names/{name}"));
    let keys = keys();
    for name in &keys {
        for headers in [Vec::new(), key.headers().to_vec()] {
            let body = name.clone().into_bytes();
            node.send(&request("PUT", name).headers(headers.clone()).body(body.clone())).expect(200);
            assert!(node.send(&request("GET", name).headers(headers.clone())).expect(200).body == body, "{name:?}");
            node.send(&request("HEAD", name).headers(headers)).expect(200);
        }
        node.send(&request("POST", name).query("uploads", "")).expect(200);
    }
    for len in [1025, 1026] {
        let long = node.send(&request("PUT", &"é".repeat(len / 2 + 1)).body("x"));
        assert_eq!((long.status, long.element("Code").as_deref()), (400, Some("KeyTooLongError")));
    }
    // With encoding-type=url all keys are printable; slashes are not encoded.
    let expected: Vec<String> = keys.iter().map(|name| encode(name).replace("%2F", "/").replace("%2A", "*")).collect();
    for query in [&[][..], &[("list-type", "2")], &[("uploads", "")]] {
        let mut list = Request::new("GET", "/names").query("encoding-type", "url");
        for (name, value) in query {
            list = list.query(name, value);
        }
        let reply = node.send(&list).expect(200);
        assert_eq!(reply.element("EncodingType").as_deref(), Some("url"));
        let text = reply.text();
        let listed: Vec<&str> = text.split("<Key>").skip(1).map(|rest| rest.split("</Key>").next().unwrap()).collect();
        assert_eq!(listed, expected, "{query:?}");
    }
    let page =
        Request::new("GET", "/names").query("encoding-type", "url").query("prefix", "a b+").query("delimiter", "?");
    let page = node.send(&page).expect(200);
    assert_eq!(page.element("Delimiter").as_deref(), Some("%3F"));
    assert!(page.text().contains("<CommonPrefixes><Prefix>a%20b%2Bc%2520%252F%3F</Prefix>"), "{}", page.text());

    // Delete all keys with one document that writes each character as a numeric reference.
    let names: String = keys
        .iter()
        .map(|name| name.chars().map(|c| format!("&#{};", u32::from(c))).collect::<String>())
        .map(|name| format!("<Object><Key>{name}</Key></Object>"))
        .collect();
    let document = format!("<Delete><Quiet>true</Quiet>{names}</Delete>");
    let delete = Request::new("POST", "/names").query("delete", "");
    let delete = delete.header("content-md5", base64(&md5(document.as_bytes()))).body(document);
    let reply = node.send(&delete).expect(200).text();
    assert!(!reply.contains("<Error>"), "{reply}");
    let rest = node.send(&Request::new("GET", "/names").query("list-type", "2")).expect(200);
    assert_eq!(rest.element("KeyCount").as_deref(), Some("0"));
}

#[test]
fn response_header_overrides_are_applied() {
    let node = Node::new();
    let key = CustomerKey::random();
    node.make_bucket("names");
    let object = |method: &str| Request::new(method, "/names/o");
    for headers in [Vec::new(), key.headers().to_vec()] {
        node.send(&object("PUT").headers(headers.clone()).header("content-type", "a/b").body("x")).expect(200);
        for method in ["GET", "HEAD"] {
            let mut request = object(method).headers(headers.clone());
            let wanted = [
                ("content-type", "text/plain; charset=utf-8"),
                ("content-language", "mi, en"),
                ("expires", "Wed, 21 Oct 2099 07:28:00 GMT"),
                ("cache-control", "no-cache"),
                ("content-disposition", "attachment; filename=\"a b.txt\""),
                ("content-encoding", "gzip"),
            ];
            for (name, value) in wanted {
                request = request.query(&format!("response-{name}"), value);
            }
            let reply = node.send(&request).expect(200);
            for (name, value) in wanted {
                assert_eq!(reply.header(name), Some(value), "{method} {name}");
            }
        }
        let split = object("GET").headers(headers.clone()).query("response-content-type", "a\r\nb: c");
        let split = node.send(&split);
        assert_eq!((split.status, split.element("Code").as_deref()), (400, Some("InvalidArgument")));
    }
}
