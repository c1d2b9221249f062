//! Lifecycle documents in the dialects of clients, and their effect on replies.

use keyhole_tests::Request;
use keyhole_tests::http::object;

use crate::support::{MemoryNode, assert_error};

fn lifecycle(method: &str) -> Request {
    Request::new(method, "/bucket").query("lifecycle", "")
}

fn put(rule: &str) -> Request {
    lifecycle("PUT").body(format!("<LifecycleConfiguration>{rule}</LifecycleConfiguration>"))
}

const DAY: &str = "<Status>Enabled</Status><Expiration><Days>1</Days></Expiration>";

#[test]
fn dialects_are_accepted_and_returned() {
    let node = MemoryNode::new();
    for filter in [
        "<Prefix>x/</Prefix>",
        "<Prefix></Prefix>",
        "<Filter></Filter>",
        "<Filter><Prefix></Prefix></Filter>",
        "<Filter><ObjectSizeLessThan>5</ObjectSizeLessThan></Filter>",
        "<Filter><And><Prefix>x</Prefix><ObjectSizeGreaterThan>1</ObjectSizeGreaterThan></And></Filter>",
    ] {
        for more in
            ["", "<NoncurrentVersionExpiration><NoncurrentDays>3</NoncurrentDays></NoncurrentVersionExpiration>"]
        {
            let rule = format!("<Rule><ID>a</ID>{filter}{DAY}{more}</Rule>");
            node.send(&put(&rule)).expect(200);
            let got = node.send(&lifecycle("GET")).expect(200).text();
            assert!(got.contains(&rule), "{rule}\n{got}");
        }
    }
    let marker = "<Expiration><Days>3</Days><ExpiredObjectDeleteMarker>false</ExpiredObjectDeleteMarker></Expiration>";
    for expiration in [marker, "<Expiration><Date>2037-01-01</Date></Expiration>"] {
        node.send(&put(&format!("<Rule><Prefix/><Status>Disabled</Status>{expiration}</Rule>"))).expect(200);
    }
    assert!(node.send(&lifecycle("GET")).expect(200).text().contains("<Date>2037-01-01T00:00:00.000Z</Date>"));
}

#[test]
fn unknown_and_unsupported_elements_change_nothing() {
    let node = MemoryNode::new();
    let kept = format!("<Rule><ID>kept</ID><Filter></Filter>{DAY}</Rule>");
    node.send(&put(&kept)).expect(200);
    for (rule, status, code) in [
        (format!("<Rule><Filter><Tag><Key>a</Key><Value>b</Value></Tag></Filter>{DAY}</Rule>"), 501, "NotImplemented"),
        (format!("<Rule><Filter><ObjectAge>1</ObjectAge></Filter>{DAY}</Rule>"), 400, "MalformedXML"),
        (format!("<Rule><Filter/>{DAY}<Priority>1</Priority></Rule>"), 400, "MalformedXML"),
        (format!("<Rule><Filter/>{DAY}</Rule><Rules/>"), 400, "MalformedXML"),
        (format!("<Rule>{DAY}</Rule>"), 400, "MalformedXML"),
        (
            format!(
                "<Rule><Filter/>{DAY}<Transition><Days>1</Days><StorageClass>GLACIER</StorageClass></Transition></Rule>"
            ),
            501,
            "NotImplemented",
        ),
    ] {
        assert_error(&node.send(&put(&rule)), status, code);
        assert!(node.send(&lifecycle("GET")).expect(200).text().contains(&kept), "{rule}");
    }
}

#[test]
fn rule_with_sizes_is_announced_for_objects_of_that_size() {
    let node = MemoryNode::new();
    let sizes = "<ObjectSizeGreaterThan>2</ObjectSizeGreaterThan><ObjectSizeLessThan>5</ObjectSizeLessThan>";
    node.send(&put(&format!("<Rule><ID>s</ID><Filter><And>{sizes}</And></Filter>{DAY}</Rule>"))).expect(200);
    for (body, expected) in [("xx", false), ("xxx", true), ("xxxx", true), ("xxxxx", false)] {
        let put = node.send(&object("PUT", "o").body(body)).expect(200);
        let get = node.send(&object("GET", "o")).expect(200);
        let copied = object("PUT", "copy").header("x-amz-copy-source", "bucket/o");
        let copy = node.send(&copied).expect(200);
        for response in [put, get, copy] {
            assert_eq!(response.header("x-amz-expiration").is_some(), expected, "{body}");
        }
    }
}
