//! Tags of buckets, listings of buckets, and versions of buckets that have none.

use keyhole_node::Right;
use keyhole_tests::http::object;
use keyhole_tests::{CustomerKey, Request};

use crate::support::{MemoryNode, assert_error};

fn tagging(method: &str) -> Request {
    Request::new(method, "/bucket").query("tagging", "")
}

fn tag(key: &str, value: &str) -> String {
    format!("<Tag><Key>{key}</Key><Value>{value}</Value></Tag>")
}

fn tag_set(tags: &str) -> String {
    format!("<Tagging><TagSet>{tags}</TagSet></Tagging>")
}

fn create(path: &str, content: &str) -> Request {
    Request::new("PUT", path).body(format!("<CreateBucketConfiguration>{content}</CreateBucketConfiguration>"))
}

#[test]
fn bucket_tags_are_set_returned_and_deleted() {
    let node = MemoryNode::new();
    assert_error(&node.send(&tagging("GET")), 404, "NoSuchTagSet");
    node.send(&tagging("DELETE")).expect(204);
    let fifty: String = (0..50).map(|n| tag(&format!("key {n}"), "value")).collect();
    for tags in [tag("team", "x"), fifty.clone(), tag("a", "") + &tag("é", "ü/=@")] {
        node.send(&tagging("PUT").body(tag_set(&tags))).expect(204);
        let got = node.send(&tagging("GET")).expect(200).text();
        assert!(got.contains(&format!("<TagSet>{tags}</TagSet>")), "{got}");
    }
    // A refused request changes nothing.
    let kept = node.send(&tagging("GET")).expect(200).text();
    for (tags, code) in [
        (fifty + &tag("one", "more"), "BadRequest"),
        (tag("a", "1").repeat(2), "InvalidTag"),
        (tag("aws:a", "1"), "InvalidTag"),
        ("<Tag><Key>a</Key></Tag>".to_owned(), "MalformedXML"),
        ("<Label/>".to_owned(), "MalformedXML"),
    ] {
        assert_error(&node.send(&tagging("PUT").body(tag_set(&tags))), 400, code);
    }
    assert_eq!(node.send(&tagging("GET")).expect(200).text(), kept);
    // Other settings and the tags do not touch each other.
    let encryption = Request::new("DELETE", "/bucket").query("encryption", "");
    node.send(&encryption).expect(204);
    assert_eq!(node.send(&tagging("GET")).expect(200).text(), kept);
    node.send(&tagging("PUT").body(tag_set(""))).expect(204);
    assert_error(&node.send(&tagging("GET")), 404, "NoSuchTagSet");
    node.send(&tagging("PUT").body(tag_set(&tag("a", "1")))).expect(204);
    node.send(&tagging("DELETE")).expect(204);
    assert_error(&node.send(&tagging("GET")), 404, "NoSuchTagSet");
    // Objects have tags of their own.
    node.send(&object("PUT", "o").body("x")).expect(200);
    assert!(!node.send(&object("GET", "o").query("tagging", "")).expect(200).text().contains("<Tag>"));
    for (method, body) in [("GET", String::new()), ("PUT", tag_set("")), ("DELETE", String::new())] {
        let absent = Request::new(method, "/absent").query("tagging", "").body(body);
        assert_error(&node.send(&absent), 404, "NoSuchBucket");
    }
}

#[test]
fn bucket_is_created_with_its_tags() {
    let node = MemoryNode::new();
    let tags_of = |name: &str| node.send(&Request::new("GET", &format!("/{name}")).query("tagging", ""));
    let content = format!("<LocationConstraint>us-east-1</LocationConstraint><Tags>{}</Tags>", tag("team", "x"));
    node.send(&create("/tagged", &content)).expect(200);
    assert!(tags_of("tagged").expect(200).text().contains(&tag("team", "x")));
    // A retry succeeds, and a creation without tags leaves them alone.
    node.send(&create("/tagged", &content)).expect(200);
    node.make_bucket("tagged");
    assert!(tags_of("tagged").expect(200).text().contains(&tag("team", "x")));
    // Tags that the existing bucket does not have are not dropped silently.
    for tags in [tag("team", "y"), tag("team", "x") + &tag("a", "1")] {
        let again = create("/tagged", &format!("<Tags>{tags}</Tags>"));
        assert_error(&node.send(&again), 409, "BucketAlreadyOwnedByYou");
    }
    assert_error(&node.send(&create("/bucket", &content)), 409, "BucketAlreadyOwnedByYou");
    // Nothing is created if the document is refused.
    for (content, status, code) in [
        (format!("<Tags>{}</Tags>", tag("a", "1").repeat(2)), 400, "InvalidTag"),
        (format!("<TagSet>{}</TagSet>", tag("a", "1")), 400, "MalformedXML"),
        ("<ObjectOwnership>BucketOwnerEnforced</ObjectOwnership>".to_owned(), 400, "MalformedXML"),
        ("<LocationConstraint>eu-1</LocationConstraint>".to_owned(), 400, "InvalidLocationConstraint"),
        ("<Bucket><Type>Directory</Type></Bucket>".to_owned(), 501, "NotImplemented"),
        ("<Location><Name>a</Name></Location>".to_owned(), 501, "NotImplemented"),
    ] {
        assert_error(&node.send(&create("/refused", &content)), status, code);
        assert_error(&node.send(&Request::new("HEAD", "/refused")), 404, "NoSuchBucket");
    }
    // The tags go with the bucket.
    node.send(&Request::new("DELETE", "/tagged")).expect(204);
    node.make_bucket("tagged");
    assert_error(&tags_of("tagged"), 404, "NoSuchTagSet");
}

/// Settings take the right of other settings: the bucket's administrator changes them, a caller with
/// the list right sees them.
#[test]
fn settings_follow_the_rights_of_settings() {
    let node = MemoryNode::new();
    let cors = "<CORSConfiguration><CORSRule><AllowedMethod>GET</AllowedMethod><AllowedOrigin>*</AllowedOrigin></CORSRule></CORSConfiguration>";
    let documents = [("cors", cors.to_owned(), 200), ("tagging", tag_set(&tag("a", "1")), 204)];
    let request = |method: &str, name: &str, body: &str| Request::new(method, "/bucket").query(name, "").body(body);
    let admin = node.add_grants("admin", &[("bucket", "", &[Right::Admin])]);
    let some = [Right::Read, Right::Write, Right::List, Right::Delete, Right::ReadSealed, Right::WriteSealed];
    for (name, document, status) in &documents {
        for right in some {
            let signer = node.add_grants(right.name(), &[("bucket", "", &[right])]);
            assert_error(&node.send_as(&signer, &request("PUT", name, document)), 403, "AccessDenied");
            assert_error(&node.send_as(&signer, &request("DELETE", name, "")), 403, "AccessDenied");
            let got = node.send_as(&signer, &request("GET", name, "")).status;
            assert_eq!(got, if right == Right::List { 404 } else { 403 }, "{name} {right:?}");
        }
        let of_prefix = node.add_grants("prefix", &[("bucket", "in/", &[Right::Admin])]);
        assert_error(&node.send_as(&of_prefix, &request("PUT", name, document)), 403, "AccessDenied");
        assert_error(&node.send_unsigned(&request("GET", name, "")), 403, "AccessDenied");
        node.send_as(&admin, &request("PUT", name, document)).expect(*status);
        node.send_as(&admin, &request("GET", name, "")).expect(200);
        node.send_as(&admin, &request("DELETE", name, "")).expect(204);
    }
    let lister = node.add_grants("lister", &[("bucket", "in/", &[Right::List])]);
    let versions = |prefix: &str| Request::new("GET", "/bucket").query("versions", "").query("prefix", prefix);
    node.send_as(&lister, &versions("in/")).expect(200);
    assert_error(&node.send_as(&lister, &versions("")), 403, "AccessDenied");
    assert_error(&node.send_unsigned(&versions("in/")), 403, "AccessDenied");
}

#[test]
fn versions_of_a_bucket_without_versions_are_null() {
    let node = MemoryNode::new();
    let key = CustomerKey::random();
    let list = |query: &[(&str, &str)]| {
        query
            .iter()
            .fold(Request::new("GET", "/bucket").query("versions", ""), |list, (name, value)| list.query(name, value))
    };
    let empty = node.send(&list(&[])).expect(200).text();
    assert!(empty.contains("<IsTruncated>false</IsTruncated>") && !empty.contains("<Version>"), "{empty}");
    node.send(&object("PUT", "a").body("x")).expect(200);
    node.send(&object("PUT", "b/c&d").headers(key.headers()).body("sealed")).expect(200);
    node.send(&object("PUT", "b/e").body("")).expect(200);
    node.send(&object("PUT", "f").body("xyz")).expect(200);
    let all = node.send(&list(&[])).expect(200).text();
    assert_eq!(node.last_event(), (200, Some("ListObjectVersions")));
    assert_eq!(all.matches("<VersionId>null</VersionId><IsLatest>true</IsLatest>").count(), 4, "{all}");
    assert!(all.contains("<Key>b/c&amp;d</Key>") && all.contains("<Size>6</Size>") && all.contains("<Owner>"), "{all}");
    assert!(!all.contains("<DeleteMarker>"), "{all}");
    let etag = node.send(&object("HEAD", "f")).expect(200).header("etag").unwrap().replace('"', "&quot;");
    assert!(all.contains(&format!("<ETag>{etag}</ETag><Size>3</Size>")), "{all}");

    // Pages, by the markers of each.
    let mut seen = Vec::new();
    let mut marker = String::new();
    loop {
        let version = if marker.is_empty() { "" } else { "null" };
        let page = list(&[("max-keys", "1"), ("key-marker", &marker), ("version-id-marker", version)]);
        let page = node.send(&page).expect(200);
        seen.push(page.element("Key").unwrap().replace("&amp;", "&"));
        assert_eq!(page.text().matches("<Version>").count(), 1);
        if page.element("IsTruncated").unwrap() == "false" {
            break;
        }
        assert_eq!(page.element("NextVersionIdMarker").as_deref(), Some("null"));
        marker = page.element("NextKeyMarker").unwrap().replace("&amp;", "&");
    }
    assert_eq!(seen, ["a", "b/c&d", "b/e", "f"]);

    // Common prefixes, after which a page can start as well.
    let grouped = node.send(&list(&[("delimiter", "/"), ("max-keys", "2")])).expect(200);
    assert_eq!(grouped.element("NextKeyMarker").as_deref(), Some("b/"));
    assert_eq!(grouped.element("NextVersionIdMarker"), None);
    assert!(grouped.text().contains("<CommonPrefixes><Prefix>b/</Prefix></CommonPrefixes>"), "{}", grouped.text());
    let rest = node.send(&list(&[("delimiter", "/"), ("key-marker", "b/")])).expect(200);
    assert_eq!((rest.element("Key").as_deref(), rest.text().matches("<Version>").count()), (Some("f"), 1));
    let encoded = node.send(&list(&[("prefix", "b/c"), ("encoding-type", "url")])).expect(200);
    assert_eq!(encoded.element("Key").as_deref(), Some("b/c%26d"));
    assert_eq!(encoded.element("Prefix").as_deref(), Some("b/c"));
    for bad in [
        &[("version-id-marker", "null")][..],
        &[("key-marker", "a"), ("version-id-marker", "3/L4kqtJlcpXro")],
        &[("max-keys", "-1")],
        &[("encoding-type", "base64")],
    ] {
        assert_error(&node.send(&list(bad)), 400, "InvalidArgument");
    }
    assert_error(&node.send(&Request::new("GET", "/absent").query("versions", "")), 404, "NoSuchBucket");

    // A tool deletes the listed versions, and then the bucket.
    for key in seen {
        node.send(&object("DELETE", &key).query("versionId", "null")).expect(204);
    }
    node.send(&Request::new("DELETE", "/bucket")).expect(204);
}

#[test]
fn buckets_are_listed_in_pages() {
    let node = MemoryNode::new();
    for name in ["cam-1", "cam-2", "cam-3", "photos"] {
        node.make_bucket(name);
    }
    let list = |query: &[(&str, &str)]| {
        let list = query.iter().fold(Request::new("GET", "/"), |list, (name, value)| list.query(name, value));
        node.send(&list)
    };
    let names = |text: &str| {
        text.split("<Name>").skip(1).map(|rest| rest.split("</Name>").next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let all = list(&[]).expect(200).text();
    assert_eq!(names(&all), ["bucket", "cam-1", "cam-2", "cam-3", "photos"]);
    assert!(!all.contains("ContinuationToken") && !all.contains("Prefix") && !all.contains("BucketRegion"), "{all}");

    let page = list(&[("prefix", "cam-"), ("max-buckets", "2")]).expect(200);
    assert_eq!(names(&page.text()), ["cam-1", "cam-2"]);
    assert_eq!(page.element("Prefix").as_deref(), Some("cam-"));
    assert_eq!(page.text().matches("<BucketRegion>us-east-1</BucketRegion>").count(), 2);
    // A bucket that is deleted between two pages ends no listing.
    let token = page.element("ContinuationToken").unwrap();
    node.send(&Request::new("DELETE", "/cam-2")).expect(204);
    for max in ["1", "2", "10000", ""] {
        let last = list(&[("prefix", "cam-"), ("max-buckets", max), ("continuation-token", &token)]).expect(200);
        assert_eq!((names(&last.text()), last.element("ContinuationToken")), (vec!["cam-3".to_owned()], None), "{max}");
    }
    let exact = list(&[("max-buckets", "4")]).expect(200);
    assert_eq!((names(&exact.text()).len(), exact.element("ContinuationToken")), (4, None));
    assert_eq!(names(&list(&[("bucket-region", "us-east-1")]).expect(200).text()).len(), 4);
    assert_eq!(names(&list(&[("bucket-region", "eu-1")]).expect(200).text()).len(), 0);
    assert_eq!(names(&list(&[("prefix", "cam-9")]).expect(200).text()).len(), 0);
    for bad in [("max-buckets", "0"), ("max-buckets", "10001"), ("max-buckets", "x"), ("continuation-token", "?")] {
        assert_error(&list(&[bad]), 400, "InvalidArgument");
    }

    // A page has only buckets that the caller has a grant for.
    let some = node.add_grants("some", &[("cam-*", "", &[Right::Read])]);
    let page = node.send_as(&some, &Request::new("GET", "/").query("max-buckets", "1")).expect(200);
    assert_eq!(names(&page.text()), ["cam-1"]);
    let token = page.element("ContinuationToken").unwrap();
    let page = node.send_as(&some, &Request::new("GET", "/").query("continuation-token", &token)).expect(200);
    assert_eq!((names(&page.text()), page.element("ContinuationToken")), (vec!["cam-3".to_owned()], None));
}
