//! CORS: the rules of a bucket, preflight requests, and the headers of other responses.

use keyhole_tests::form::Form;
use keyhole_tests::http::object;
use keyhole_tests::{Request, Response};

use crate::support::{MemoryNode, NOW_MS, assert_error};

const VARY: &str = "Origin, Access-Control-Request-Headers, Access-Control-Request-Method";
const APP: &str = "https://app.example";

const RULES: &str = "<CORSConfiguration>\
    <CORSRule><ID>app</ID><AllowedHeader>content-type</AllowedHeader><AllowedHeader>x-amz-*</AllowedHeader>\
    <AllowedMethod>PUT</AllowedMethod><AllowedMethod>GET</AllowedMethod><AllowedMethod>POST</AllowedMethod>\
    <AllowedOrigin>https://app.example</AllowedOrigin><AllowedOrigin>https://*.test</AllowedOrigin>\
    <ExposeHeader>ETag</ExposeHeader><MaxAgeSeconds>600</MaxAgeSeconds></CORSRule>\
    <CORSRule><AllowedMethod>HEAD</AllowedMethod><AllowedOrigin>*</AllowedOrigin></CORSRule>\
    </CORSConfiguration>";

fn cors(method: &str) -> Request {
    Request::new(method, "/bucket").query("cors", "")
}

fn with_rules() -> MemoryNode {
    let node = MemoryNode::new();
    node.send(&cors("PUT").body(RULES)).expect(200);
    node
}

fn preflight(path: &str, origin: &str, method: &str) -> Request {
    Request::new("OPTIONS", path).header("origin", origin).header("access-control-request-method", method)
}

/// Returns the CORS headers of a response, without their common prefix.
fn allowed(response: &Response) -> Vec<String> {
    let names = ["allow-origin", "allow-credentials", "allow-methods", "allow-headers", "expose-headers", "max-age"];
    let value = |name: &&str| Some(format!("{name}: {}", response.header(&format!("access-control-{name}"))?));
    names.iter().filter_map(value).collect()
}

#[track_caller]
fn assert_forbidden(response: &Response, words: &str, kind: &str) {
    assert_error(response, 403, "AccessForbidden");
    let message = response.element("Message").unwrap();
    assert!(message.starts_with("CORSResponse: ") && message.contains(words), "{message}");
    assert_eq!(response.element("ResourceType").as_deref(), Some(kind));
    assert_eq!(allowed(response), [""; 0]);
}

#[test]
fn rules_are_set_returned_and_deleted() {
    let node = MemoryNode::new();
    assert_error(&node.send(&cors("GET")), 404, "NoSuchCORSConfiguration");
    node.send(&cors("DELETE")).expect(204);
    node.send(&cors("PUT").body(RULES)).expect(200);
    let got = node.send(&cors("GET")).expect(200);
    assert!(got.text().ends_with(&RULES["<CORSConfiguration>".len()..]), "{}", got.text());
    assert_eq!(node.last_event(), (200, Some("GetBucketCors")));
    // A refused document changes nothing; a valid one replaces all rules.
    assert_error(&node.send(&cors("PUT").body("<CORSConfiguration/>")), 400, "MalformedXML");
    let unknown = RULES.replace("<ID>app</ID>", "<Id>app</Id>");
    assert_error(&node.send(&cors("PUT").body(unknown)), 400, "MalformedXML");
    assert!(node.send(&cors("GET")).expect(200).text().contains("<ID>app</ID>"));
    let one = "<CORSConfiguration><CORSRule><AllowedMethod>GET</AllowedMethod><AllowedOrigin>*</AllowedOrigin></CORSRule></CORSConfiguration>";
    node.send(&cors("PUT").body(one)).expect(200);
    assert_eq!(node.send(&cors("GET")).expect(200).text().matches("<CORSRule>").count(), 1);
    node.send(&cors("DELETE")).expect(204);
    assert_error(&node.send(&cors("GET")), 404, "NoSuchCORSConfiguration");
    for method in ["GET", "PUT", "DELETE"] {
        let absent = Request::new(method, "/absent").query("cors", "").body(if method == "PUT" { RULES } else { "" });
        assert_error(&node.send(&absent), 404, "NoSuchBucket");
    }
}

#[test]
fn longest_document_is_taken_and_a_longer_one_refused() {
    let node = MemoryNode::new();
    let document = |len: usize| RULES.to_owned() + &" ".repeat(len - RULES.len());
    node.send(&cors("PUT").body(document(64 << 10))).expect(200);
    assert_error(&node.send(&cors("PUT").body(document((64 << 10) + 1))), 400, "EntityTooLarge");
}

#[test]
fn preflight_is_answered_without_credentials() {
    let node = with_rules();
    let expected = [
        "allow-origin: https://app.example",
        "allow-credentials: true",
        "allow-methods: PUT, GET, POST",
        "allow-headers: content-type, x-amz-date",
        "expose-headers: ETag",
        "max-age: 600",
    ];
    let headers = ("access-control-request-headers", "Content-Type,X-Amz-Date");
    // The object need not exist; a presigned URL and parameters of all kinds make no difference.
    for (name, value) in [("x", ""), ("X-Amz-Signature", "0"), ("uploadId", "no"), ("partNumber", "1"), ("acl", "")] {
        let request = preflight("/bucket/dir/k", APP, "PUT").header(headers.0, headers.1).query(name, value);
        let response = node.send_unsigned(&request).expect(200);
        assert_eq!(allowed(&response), expected, "{name}");
        assert_eq!((response.header("vary"), response.body.len()), (Some(VARY), 0));
        assert_eq!(node.last_event(), (200, Some("Preflight")));
    }
    let response = node.send_unsigned(&preflight("/bucket", "https://a.test", "POST")).expect(200);
    assert_eq!(allowed(&response)[0], "allow-origin: https://a.test");
    let response = node.send_unsigned(&preflight("/bucket/k", "null", "HEAD")).expect(200);
    assert_eq!(allowed(&response), ["allow-origin: *", "allow-methods: HEAD"]);
    // Through a host name of the bucket.
    let host = preflight("/dir/k", APP, "GET").header("host", "bucket.s3.example");
    node.send_unsigned(&host).expect(200);
}

#[test]
fn preflight_that_no_rule_allows_is_forbidden() {
    let node = with_rules();
    for request in [
        preflight("/bucket/k", "https://other.example", "PUT"),
        preflight("/bucket/k", "http://app.example", "PUT"),
        preflight("/bucket/k", APP, "DELETE"),
        preflight("/bucket/k", APP, "PUT").header("access-control-request-headers", "content-type, authorization"),
        preflight("/bucket/k", "https://other.example", "HEAD").header("access-control-request-headers", "range"),
    ] {
        assert_forbidden(&node.send_unsigned(&request), "This CORS request is not allowed", "OBJECT");
    }
    let bucket = preflight("/bucket", APP, "DELETE");
    assert_forbidden(&node.send_unsigned(&bucket), "This CORS request is not allowed", "BUCKET");
    let without_origin = Request::new("OPTIONS", "/bucket/k").header("access-control-request-method", "PUT");
    assert_error(&node.send_unsigned(&without_origin), 400, "BadRequest");
    for method in ["", "PATCH", "put"] {
        assert_error(&node.send_unsigned(&preflight("/bucket/k", APP, method)), 400, "BadRequest");
    }
    // Signed or not makes no difference.
    assert_error(&node.send(&preflight("/bucket/k", APP, "DELETE")), 403, "AccessForbidden");
    node.send(&preflight("/bucket/k", APP, "PUT")).expect(200);
}

/// A client without credentials learns nothing about buckets that have no rules.
#[test]
fn preflight_does_not_reveal_a_bucket() {
    let node = MemoryNode::new();
    let message = |path: &str| {
        let response = node.send_unsigned(&preflight(path, APP, "GET"));
        assert_forbidden(&response, "CORS is not enabled for this bucket.", "BUCKET");
        let text = response.text();
        text[..text.find("<Resource>").unwrap()].to_owned()
    };
    let there = message("/bucket/k");
    for path in ["/bucket", "/absent", "/absent/k", "/UPPER/k", "/"] {
        assert_eq!(message(path), there, "{path}");
    }
}

#[test]
fn responses_to_allowed_origins_carry_cors_headers() {
    let node = with_rules();
    let expected = [
        "allow-origin: https://app.example",
        "allow-credentials: true",
        "allow-methods: PUT, GET, POST",
        "expose-headers: ETag",
        "max-age: 600",
    ];
    let from = |request: Request, origin: &str| request.header("origin", origin);
    let large = vec![7; 100_000];
    for (request, status) in [
        (object("PUT", "o").body("x"), 200),
        (object("PUT", "large").body(large), 200),
        (object("GET", "o"), 200),
        (object("GET", "large"), 200),
        (object("GET", "o").header("range", "bytes=0-0"), 206),
        (object("GET", "o").header("if-none-match", "*"), 304),
        (Request::new("GET", "/bucket"), 200),
        // Errors, also of requests that are refused before their operation is known.
        (object("GET", "none"), 404),
        (object("GET", "o").header("range", "bytes=9-"), 416),
        (object("PUT", "o").query("acl", ""), 501),
    ] {
        let response = node.send(&from(request.clone(), APP));
        assert_eq!(response.status, status, "{}", request.target());
        assert_eq!(allowed(&response), expected, "{}", request.target());
        assert_eq!(response.header("vary"), Some(VARY));
        // No rule for this origin: caches must still tell the two apart.
        let response = node.send(&from(request.clone(), "https://other.example"));
        assert_eq!((allowed(&response).len(), response.header("vary")), (0, Some(VARY)), "{}", request.target());
        let response = node.send(&request);
        assert_eq!((allowed(&response).len(), response.header("vary")), (0, None), "{}", request.target());
    }
    let unsigned = node.send_unsigned(&from(object("GET", "o"), APP));
    assert_error(&unsigned, 403, "AccessDenied");
    assert_eq!(allowed(&unsigned), expected);
    let head = node.send(&from(object("HEAD", "o"), "https://any.example")).expect(200);
    assert_eq!(allowed(&head), ["allow-origin: *", "allow-methods: HEAD"]);
    let deleted = node.send(&from(object("DELETE", "o"), APP)).expect(204);
    assert_eq!((allowed(&deleted).len(), deleted.header("vary")), (0, Some(VARY)));
    // Another bucket has no rules.
    node.make_bucket("other");
    let response = node.send(&from(Request::new("GET", "/other"), APP)).expect(200);
    assert_eq!((allowed(&response).len(), response.header("vary")), (0, None));
}

#[test]
fn form_from_a_browser_carries_cors_headers() {
    let node = with_rules();
    let form = Form::new("o", "x").signed(&node.signer(), NOW_MS as i64);
    let response = node.send_unsigned(&form.request().header("origin", APP)).expect(204);
    assert_eq!(allowed(&response)[0], "allow-origin: https://app.example");
    // Refused, since the form is not signed.
    let response = node.send_unsigned(&Form::new("o", "x").request().header("origin", APP)).expect(403);
    assert_eq!(allowed(&response)[0], "allow-origin: https://app.example");
}
