//! Access keys as the operator manages them: changes take effect immediately. The table of rights is
//! in `crates/keyhole-node/tests/tables/access.rs`.

use std::time::{Duration, Instant};

use keyhole_tests::command::{Directory, expect_failure, expect_success};
use keyhole_tests::data::{base64, md5};
use keyhole_tests::http::object;
use keyhole_tests::sigv4::Signer;
use keyhole_tests::{Launch, Node, Request, Response};

/// Creates an access key with these grants.
fn add(node: &Node, options: &[&str]) -> Signer {
    let data = node.data().to_str().unwrap();
    signer(&expect_success(&[&["access", "add", data, "--json"], options].concat(), b""))
}

/// Returns the signer for a credential printed as JSON.
fn signer(shown: &[u8]) -> Signer {
    let shown: serde_json::Value = serde_json::from_slice(shown).unwrap();
    let text = |name: &str| shown[name].as_str().unwrap().to_owned();
    Signer { access_key: text("access_key"), secret_key: text("secret_key"), region: "us-east-1".to_owned() }
}

/// Adds an access key with these grants.
pub(crate) fn with_grants(node: &Node, grants: &[&str]) -> Signer {
    add(node, &grants.iter().flat_map(|grant| ["--grant", grant]).collect::<Vec<_>>())
}

fn code(reply: &Response) -> (u16, String) {
    (reply.status, reply.element("Code").unwrap_or_default())
}

#[track_caller]
fn assert_denied(reply: &Response) {
    assert_eq!(reply.status, 403, "{}", reply.text());
    if !reply.body.is_empty() {
        assert_eq!(reply.element("Code").as_deref(), Some("AccessDenied"), "{}", reply.text());
    }
}

/// Each entry of a multi-object deletion is authorised separately; absence is revealed only to
/// clients with the list right.
#[test]
fn keys_outside_grants_are_neither_deleted_nor_revealed() {
    let node = Node::with_bucket();
    for key in ["in/a", "out/a"] {
        node.send(&object("PUT", key).body("x")).expect(200);
    }
    let some = with_grants(&node, &["bucket/in/:delete,read"]);
    let document = "<Delete><Object><Key>in/a</Key></Object><Object><Key>out/a</Key></Object></Delete>";
    let md5 = base64(&md5(document.as_bytes()));
    let delete = Request::new("POST", "/bucket").query("delete", "").header("content-md5", md5).body(document);
    let reply = delete.send(node.address(), &some).expect(200).text();
    assert!(reply.contains("<Deleted><Key>in/a</Key>") && reply.contains("<Code>AccessDenied</Code>"), "{reply}");
    node.send(&object("GET", "out/a")).expect(200);
    assert_denied(&object("GET", "in/none").send(node.address(), &some));
    assert_denied(&object("HEAD", "in/none").send(node.address(), &some));
    let lister = with_grants(&node, &["bucket:list,read"]);
    assert_eq!(code(&object("GET", "in/none").send(node.address(), &lister)), (404, "NoSuchKey".to_owned()));
}

#[test]
fn changed_access_key_takes_effect_immediately() {
    let node = Node::with_bucket();
    let data = node.data().to_str().unwrap();
    node.send(&object("PUT", "o").body("x")).expect(200);
    let reads = |signer: &Signer| code(&object("GET", "o").send(node.address(), signer));
    let first = add(&node, &["--grant", "bucket:read,list", "--note", "a camera"]);
    assert_eq!(reads(&first).0, 200);

    let rotated = signer(&expect_success(&["access", "rotate", data, &first.access_key, "--json"], b""));
    assert_eq!(reads(&rotated).0, 200);
    assert_eq!(reads(&first), (403, "InvalidAccessKeyId".to_owned()));

    // The old secret stays valid for a while, and then ends. However slow the machine is, the first
    // span is too long and the second too short to matter.
    let keep = |key: &Signer, span| {
        signer(&expect_success(&["access", "rotate", data, &key.access_key, "--json", "--keep", span], b""))
    };
    let kept = keep(&rotated, "1h");
    assert_eq!((reads(&kept).0, reads(&rotated).0), (200, 200));
    let begun = Instant::now();
    let last = keep(&kept, "1s");
    assert_eq!(reads(&last).0, 200);
    loop {
        let asked = begun.elapsed();
        let (status, code) = reads(&kept);
        if status == 403 {
            assert_eq!(code, "InvalidAccessKeyId");
            assert!(begun.elapsed() >= Duration::from_secs(1), "the old secret ended before its time");
            break;
        }
        // The end is rounded up to a whole second.
        assert!(asked < Duration::from_secs(20), "the old secret is still valid after its time");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(reads(&rotated).0, 200);

    let listed = String::from_utf8(expect_success(&["access", "list", data, "--json"], b"")).unwrap();
    for expected in [&last.access_key[..], "a camera", "bucket:read,list", "\"expired\": true"] {
        assert!(listed.contains(expected), "{expected} in {listed}");
    }
    let table = String::from_utf8(expect_success(&["access", "list", data], b"")).unwrap();
    for secret in [&first, &rotated, &kept, &last].map(|signer| &signer.secret_key) {
        assert!(!listed.contains(secret) && !table.contains(secret), "a listing shows a secret");
        assert!(!node.log().contains(secret));
    }

    expect_success(&["access", "revoke", data, &last.access_key], b"");
    assert_eq!(reads(&last), (403, "InvalidAccessKeyId".to_owned()));
    assert!(expect_failure(1, &["access", "revoke", data, &last.access_key], b"").1.contains("no access key"));
    assert_eq!(node.send(&object("GET", "o")).status, 200, "the credential of the environment stays valid");
}

#[test]
fn given_access_keys_survive_restart_and_invalid_file() {
    let mut node = Launch::default().start();
    node.make_bucket("bucket");
    let data = node.data().to_str().unwrap().to_owned();
    let admin = node.signer().access_key.clone();
    let refused = expect_failure(1, &["access", "revoke", &data, &admin], b"").1;
    assert!(refused.contains("last admin access key"), "{refused}");
    let file = ["--access-key", "GIVENKEY", "--secret-file", "-"];
    let given = [&["access", "add", &data, "--json", "--admin"], &file[..]].concat();
    let given = signer(&expect_success(&given, b"a secret that was given\n"));
    assert_eq!((&given.access_key[..], &given.secret_key[..]), ("GIVENKEY", "a secret that was given"));
    object("PUT", "o").body("x").send(node.address(), &given).expect(200);
    expect_success(&["access", "revoke", &data, &admin], b"");
    assert_eq!(code(&node.send(&object("GET", "o"))), (403, "InvalidAccessKeyId".to_owned()));
    let again = [&["access", "add", &data, "--admin"], &file[..]].concat();
    assert!(expect_failure(1, &again, b"another secret\n").1.contains("already"));

    // Without a node, and after a restart.
    assert!(node.stop().success());
    let reader = add(&node, &["--grant", "bucket:read"]);
    node.start();
    object("GET", "o").send(node.address(), &reader).expect(200);
    object("GET", "o").send(node.address(), &given).expect(200);
    assert_denied(&object("PUT", "o").body("y").send(node.address(), &reader));

    // An unreadable file leaves the valid keys in use.
    let path = node.data().join("credentials.toml");
    let good = std::fs::read(&path).unwrap();
    std::fs::write(&path, "[[key]]\nsecret_key = 'hunter2hunter2'\n").unwrap();
    let message = expect_failure(1, &["access", "add", &data, "--admin"], b"").1;
    assert!(message.contains("access_key") && !message.contains("hunter2"), "{message}");
    object("GET", "o").send(node.address(), &given).expect(200);
    std::fs::write(&path, good).unwrap();
    for (wrong, words) in [
        (&["--grant", "bucket"][..], "BUCKET"),
        (&["--grant", "bucket:everything"], "read-sealed"),
        (&[], "--grant"),
        (&["--admin", "--expires", "yesterday"], "2027-01-31"),
        (&["--admin", "--access-key", "x"], "--secret-file"),
    ] {
        let message = expect_failure(2, &[&["access", "add", &data], wrong].concat(), b"").1;
        assert!(message.contains(words), "{wrong:?}: {message}");
    }
    let nowhere = Directory::new();
    assert!(expect_failure(1, &["access", "list", &nowhere.path("none")], b"").1.contains("no store"));
}

#[test]
fn anonymous_reads_follow_bucket_setting() {
    let node = Node::with_bucket();
    let data = node.data().to_str().unwrap();
    node.send(&object("PUT", "plain").body("plain")).expect(200);
    let anonymous = |request: Request| request.send_unsigned(node.address());
    assert_denied(&anonymous(object("GET", "plain")));
    let shown = expect_success(&["bucket", "set", data, "bucket", "--anonymous-read", "allow"], b"");
    assert!(String::from_utf8(shown).unwrap().contains("anonymous-read: allow"));
    assert_eq!(anonymous(object("GET", "plain")).expect(200).text(), "plain");
    let chosen = object("GET", "plain").query("response-content-type", "text/html");
    assert_eq!(code(&anonymous(chosen)), (400, "InvalidRequest".to_owned()));
    assert_denied(&anonymous(object("PUT", "plain").body("x")));
    expect_success(&["bucket", "set", data, "bucket", "--anonymous-read", "forbid"], b"");
    assert_denied(&anonymous(object("GET", "plain")));
}
