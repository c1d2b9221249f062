//! Object lock: the configuration of buckets, retention in both modes, legal holds, and the rights that
//! they require.

use keyhole_node::Right;
use keyhole_tests::data::{base64, md5};
use keyhole_tests::form::Form;
use keyhole_tests::http::object;
use keyhole_tests::{Request, Response};

use super::fixture::{KINDS, Kind, World, content, delete_objects, entries, named, set_state, with_document};
use crate::support::{MemoryNode, NOW_MS, assert_error, first_part};

const MODE: &str = "x-amz-object-lock-mode";
const UNTIL: &str = "x-amz-object-lock-retain-until-date";
const HOLD: &str = "x-amz-object-lock-legal-hold";
const BYPASS: &str = "x-amz-bypass-governance-retention";
const PROTECTED: &str = "Access Denied because object protected by object lock.";

/// A day, and two days after the time of the node.
const DAY: &str = "2026-01-02T00:00:00.000Z";
const TWO_DAYS: &str = "2026-01-03T00:00:00.000Z";
const DAY_MS: u64 = 24 * 60 * 60 * 1000;

fn on_object(method: &str) -> Request {
    Request::new(method, "/locked/o")
}

/// Returns the upload of version `n` with its digest.
pub(super) fn put(world: &World, n: u8) -> Request {
    let body = content(n);
    let put = on_object("PUT").header("content-md5", base64(&md5(&body)));
    world.keyed(put, n).body(body)
}

/// Stores version `n` with headers. Returns its id.
#[track_caller]
fn stored(world: &World, n: u8, headers: &[(&str, &str)]) -> String {
    let put = put(world, n).headers(headers.iter().copied());
    world.node.send(&put).expect(200).header("x-amz-version-id").expect("an id").to_owned()
}

fn retention(mode: &str, until: &str) -> String {
    format!("<Retention><Mode>{mode}</Mode><RetainUntilDate>{until}</RetainUntilDate></Retention>")
}

fn put_retention(version: Option<&str>, document: &str) -> Request {
    with_document(named(on_object("PUT").query("retention", ""), version), document)
}

fn put_hold(version: Option<&str>, status: &str) -> Request {
    let document = format!("<LegalHold><Status>{status}</Status></LegalHold>");
    with_document(named(on_object("PUT").query("legal-hold", ""), version), &document)
}

fn configuration(rule: &str) -> Request {
    let document = format!(
        "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled>{rule}</ObjectLockConfiguration>"
    );
    with_document(Request::new("PUT", "/locked").query("object-lock", ""), &document)
}

fn default_retention(mode: &str, period: &str) -> Request {
    configuration(&format!("<Rule><DefaultRetention><Mode>{mode}</Mode>{period}</DefaultRetention></Rule>"))
}

#[track_caller]
fn assert_protected(response: &Response) {
    assert_error(response, 403, "AccessDenied");
    assert_eq!(response.element("Message").as_deref(), Some(PROTECTED));
}

/// Asserts that version `n` is there and readable.
#[track_caller]
fn assert_kept(world: &World, id: &str, n: u8) {
    world.assert_reads(&on_object("GET").query("versionId", id), n);
}

#[test]
fn bucket_gets_object_lock_at_creation_or_later_for_good() {
    let world = World::with_lock(Kind::Plain);
    let send = |request: Request| world.node.send(&request);
    let get = |bucket: &str| send(Request::new("GET", bucket).query("object-lock", ""));
    let state = |bucket: &str| send(Request::new("GET", bucket).query("versioning", "")).element("Status");
    assert_eq!(state("/locked").as_deref(), Some("Enabled"));
    let got = get("/locked").expect(200);
    assert_eq!((got.element("ObjectLockEnabled").as_deref(), got.element("Rule")), (Some("Enabled"), None));
    let suspend = send(set_state("Suspended").with_path("/locked"));
    assert_error(&suspend, 409, "InvalidBucketState");
    assert!(suspend.text().contains("An Object Lock configuration is present on this bucket"));
    send(set_state("Enabled").with_path("/locked")).expect(200);
    // The default retention comes and goes; the lock stays.
    for (period, element, value) in [("<Days>30</Days>", "Days", "30"), ("<Years>7</Years>", "Years", "7")] {
        send(default_retention("COMPLIANCE", period)).expect(200);
        let got = get("/locked").expect(200);
        assert_eq!(
            (got.element("Mode").as_deref(), got.element(element).as_deref()),
            (Some("COMPLIANCE"), Some(value))
        );
    }
    send(configuration("")).expect(200);
    assert_eq!(get("/locked").expect(200).element("Rule"), None);
    // Another bucket, in each state.
    assert_error(&get("/bucket"), 404, "ObjectLockConfigurationNotFoundError");
    assert_error(&get("/missing"), 404, "NoSuchBucket");
    for state in [None, Some("Suspended")] {
        state.into_iter().for_each(|state| world.set(state));
        let response = send(configuration("").with_path("/bucket"));
        assert_error(&response, 409, "InvalidBucketState");
        assert!(response.text().contains("Versioning must be 'Enabled' on the bucket"), "{}", response.text());
    }
    world.set("Enabled");
    send(configuration("").with_path("/bucket")).expect(200);
    get("/bucket").expect(200);
    let again = Request::new("PUT", "/locked").header("x-amz-bucket-object-lock-enabled", "true");
    send(again.clone()).expect(200);
    send(Request::new("PUT", "/plain")).expect(200);
    assert_error(&send(again.with_path("/plain")), 409, "BucketAlreadyOwnedByYou");
}

/// A crash right after the first lock must not let another clock decide about it.
#[test]
fn lock_clock_is_durable_before_the_first_bucket_with_object_lock() {
    let clock = |node: &MemoryNode| node.log.store().lock_clock_ms();
    let restarted = |world: &World| clock(&MemoryNode::open(&world.node.content()).expect("a store"));
    let world = World::new(None, Kind::Plain);
    let configure = || world.node.send(&configuration("").with_path("/bucket"));
    // Refused: nothing changes.
    assert_error(&configure(), 409, "InvalidBucketState");
    let exists = Request::new("PUT", "/bucket").header("x-amz-bucket-object-lock-enabled", "true");
    assert_error(&world.node.send(&exists), 409, "BucketAlreadyOwnedByYou");
    assert_eq!((clock(&world.node), restarted(&world)), (0, 0));
    world.set("Enabled");
    configure().expect(200);
    assert_eq!((clock(&world.node), restarted(&world)), (NOW_MS, NOW_MS));

    let world = World::with_lock(Kind::Plain);
    assert_eq!((clock(&world.node), restarted(&world)), (NOW_MS, NOW_MS));
}

#[test]
fn each_write_can_lock_its_version() {
    for kind in KINDS {
        let world = World::with_lock(kind);
        let node = &world.node;
        let lock = [(MODE, "GOVERNANCE"), (UNTIL, DAY), (HOLD, "ON")];
        let put_id = stored(&world, 1, &lock);
        let form = Form::new("o", content(2)).field("content-md5", &base64(&md5(&content(2))));
        let mut form = form.fields(lock.map(|(name, value)| (name.to_owned(), value.to_owned())));
        form.conditions[0] = "{\"bucket\": \"locked\"}".to_owned();
        let form = form.fields(world.key(2).into_iter().flat_map(|key| key.headers()));
        let request = form.signed(&node.signer(), NOW_MS as i64).request().with_path("/locked");
        let form_id = node.send_unsigned(&request).expect(204).header("x-amz-version-id").expect("an id").to_owned();
        let copy =
            on_object("PUT").header("x-amz-copy-source", "locked/o").header("x-amz-metadata-directive", "REPLACE");
        let copy = world.keyed(copy, 3).headers(lock);
        let copy = node.send(&world.source_keyed(copy, 2)).expect(200);
        let copy_id = copy.header("x-amz-version-id").expect("an id").to_owned();
        let id = node.create_upload(world.keyed(on_object("POST"), 4).headers(lock));
        let part = first_part(world.keyed(on_object("PUT"), 4), &id).body(content(4));
        let unlocked = node.send(&part);
        assert_error(&unlocked, 400, "InvalidRequest");
        assert!(unlocked.text().contains("required for Put Part requests with Object Lock"), "{}", unlocked.text());
        let part = part.header("content-md5", base64(&md5(&content(4))));
        let etag = node.send(&part).expect(200).header("etag").expect("an ETag").to_owned();
        let complete = crate::support::completion("o", &id, &etag).with_path("/locked/o");
        let completed = node.send(&world.keyed(complete, 4)).expect(200);
        let completed_id = completed.header("x-amz-version-id").expect("an id").to_owned();
        for (id, n) in [(&put_id, 1), (&form_id, 2), (&copy_id, 3), (&completed_id, 4)] {
            let head = node.send(&world.keyed(on_object("HEAD").query("versionId", id), n)).expect(200);
            for (name, value) in lock {
                assert_eq!(head.header(name), Some(value), "{kind:?} {n} {name}");
            }
            assert_protected(&node.send(&on_object("DELETE").query("versionId", id)));
        }
    }
}

#[test]
fn lock_headers_are_checked_before_the_object_is_stored() {
    let world = World::with_lock(Kind::Plain);
    let lock = [(MODE, "GOVERNANCE"), (UNTIL, DAY)];
    let with = |headers: &[(&str, &str)]| world.node.send(&put(&world, 1).headers(headers.iter().copied()));
    for (headers, words) in [
        (&[(MODE, "GOVERNANCE")][..], "must both be supplied"),
        (&[(UNTIL, DAY)], "must both be supplied"),
        (&[(MODE, "NONE"), (UNTIL, DAY)], "Unknown wormMode directive."),
        (&[(MODE, "COMPLIANCE"), (UNTIL, "soon")], "ISO 8601"),
        (&[(MODE, "COMPLIANCE"), (UNTIL, "2026-01-01T00:00:00Z")], "The retain until date must be in the future!"),
        (&[(HOLD, "yes")], "Legal Hold must be either of 'ON' or 'OFF'"),
    ] {
        let response = with(headers);
        assert_error(&response, 400, "InvalidArgument");
        assert!(response.text().contains(words), "{headers:?}: {}", response.text());
    }
    // Without a digest, and in a bucket without object lock.
    let bare = on_object("PUT").headers(lock).body("x");
    let response = world.node.send(&bare);
    assert_error(&response, 400, "InvalidRequest");
    assert!(response.text().contains("required for Put Object requests with Object Lock parameters"));
    let checksum = bare.header("x-amz-checksum-crc32", base64(&crc32fast::hash(b"x").to_be_bytes()));
    world.node.send(&checksum).expect(200);
    let elsewhere = put(&world, 1).headers(lock).with_path("/bucket/o");
    let response = world.node.send(&elsewhere);
    assert_error(&response, 400, "InvalidRequest");
    assert_eq!(response.element("Message").as_deref(), Some("Bucket is missing Object Lock Configuration"));
    assert!(world.versions().is_empty());
}

#[test]
fn default_retention_applies_to_versions_without_one() {
    for kind in KINDS {
        let world = World::with_lock(kind);
        world.node.send(&default_retention("COMPLIANCE", "<Days>1</Days>")).expect(200);
        let response = world.node.send(&world.keyed(on_object("PUT"), 1).body(content(1)));
        assert_error(&response, 400, "InvalidRequest");
        let by_default = stored(&world, 1, &[]);
        let own = stored(&world, 2, &[(MODE, "GOVERNANCE"), (UNTIL, TWO_DAYS)]);
        let held = stored(&world, 3, &[(HOLD, "ON")]);
        for (id, n, mode, until, hold) in [
            (&by_default, 1, "COMPLIANCE", DAY, None),
            (&own, 2, "GOVERNANCE", TWO_DAYS, None),
            (&held, 3, "COMPLIANCE", DAY, Some("ON")),
        ] {
            let head = world.node.send(&world.keyed(on_object("HEAD").query("versionId", id), n)).expect(200);
            assert_eq!((head.header(MODE), head.header(UNTIL), head.header(HOLD)), (Some(mode), Some(until), hold));
        }
    }
}

#[test]
fn compliance_is_only_extended_and_ends_with_the_lock_clock() {
    for kind in KINDS {
        let world = World::with_lock(kind);
        let send = |request: Request| world.node.send(&request);
        let id = stored(&world, 1, &[(MODE, "COMPLIANCE"), (UNTIL, DAY)]);
        let shorter = "2026-01-01T12:00:00Z";
        for bypass in [false, true] {
            let with = |request: Request| if bypass { request.header(BYPASS, "true") } else { request };
            for document in [
                retention("COMPLIANCE", shorter),
                retention("GOVERNANCE", TWO_DAYS),
                "<Retention></Retention>".to_owned(),
            ] {
                assert_protected(&send(with(put_retention(Some(&id), &document))));
            }
            assert_protected(&send(with(on_object("DELETE").query("versionId", &id))));
            let entry = format!("<Object><Key>o</Key><VersionId>{id}</VersionId></Object>");
            let response = send(with(delete_objects("locked", &entry))).expect(200).text();
            assert!(response.contains(PROTECTED) && response.contains("<Code>AccessDenied</Code>"), "{response}");
            assert_kept(&world, &id, 1);
        }
        // A marker on top, and later versions.
        send(on_object("DELETE")).expect(204);
        assert_kept(&world, &id, 1);
        stored(&world, 2, &[]);
        send(put_retention(Some(&id), &retention("COMPLIANCE", DAY))).expect(200);
        send(put_retention(Some(&id), &retention("COMPLIANCE", TWO_DAYS))).expect(200);
        let get = send(named(on_object("GET").query("retention", ""), Some(&id))).expect(200);
        assert_eq!(
            (get.element("Mode"), get.element("RetainUntilDate")),
            (Some("COMPLIANCE".into()), Some(TWO_DAYS.into()))
        );
        assert_error(&send(Request::new("DELETE", "/locked")), 409, "BucketNotEmpty");
        let store = world.node.log.store().clone();
        store.advance_lock_clock(NOW_MS + 2 * DAY_MS - 1);
        assert_protected(&send(on_object("DELETE").query("versionId", &id)));
        store.advance_lock_clock(NOW_MS + 2 * DAY_MS);
        send(on_object("DELETE").query("versionId", &id)).expect(204);
    }
}

#[test]
fn governance_is_bypassed_with_header_and_right() {
    for kind in KINDS {
        let world = World::with_lock(kind);
        let rest = [Right::Read, Right::Write, Right::List, Right::Delete, Right::DeleteVersion, Right::Lock];
        let client = world.node.add_grants("client", &[("locked", "", &rest)]);
        let id = stored(&world, 1, &[(MODE, "GOVERNANCE"), (UNTIL, DAY)]);
        let delete = on_object("DELETE").query("versionId", &id);
        let shorter = put_retention(Some(&id), &retention("GOVERNANCE", "2026-01-01T12:00:00Z"));
        let stricter = put_retention(Some(&id), &retention("COMPLIANCE", DAY));
        let off = put_retention(Some(&id), "<Retention/>");
        for request in [&delete, &shorter, &off, &stricter] {
            assert_protected(&world.node.send(request));
            assert_protected(&world.node.send(&request.clone().header(BYPASS, "false")));
            // The header without the right.
            assert_protected(&world.node.send_as(&client, &request.clone().header(BYPASS, "true")));
            assert_kept(&world, &id, 1);
        }
        world.node.send_as(&client, &put_retention(Some(&id), &retention("GOVERNANCE", TWO_DAYS))).expect(200);
        world.node.send(&shorter.clone().header(BYPASS, "true")).expect(200);
        world.node.send(&off.clone().header(BYPASS, "true")).expect(200);
        let get = named(on_object("GET").query("retention", ""), Some(&id));
        assert_error(&world.node.send(&get), 404, "NoSuchObjectLockConfiguration");
        world.node.send(&put_retention(Some(&id), &retention("GOVERNANCE", DAY))).expect(200);
        world.node.send(&stricter.clone().header(BYPASS, "true")).expect(200);
        assert_protected(&world.node.send(&delete.clone().header(BYPASS, "true")));
        let other = stored(&world, 2, &[(MODE, "GOVERNANCE"), (UNTIL, DAY)]);
        let entry = format!("<Object><Key>o</Key><VersionId>{other}</VersionId></Object>");
        let refused = world.node.send(&delete_objects("locked", &entry)).expect(200);
        assert!(refused.text().contains(PROTECTED));
        let deleted = world.node.send(&delete_objects("locked", &entry).header(BYPASS, "true")).expect(200);
        assert!(deleted.text().contains("<Deleted>"), "{}", deleted.text());
    }
}

#[test]
fn legal_hold_keeps_a_version_until_it_is_off() {
    for kind in KINDS {
        let world = World::with_lock(kind);
        let send = |request: Request| world.node.send(&request);
        let id = stored(&world, 1, &[]);
        let state = || send(named(on_object("GET").query("legal-hold", ""), Some(&id))).expect(200).element("Status");
        send(put_hold(Some(&id), "ON")).expect(200);
        assert_eq!(state().as_deref(), Some("ON"));
        let delete = on_object("DELETE").query("versionId", &id);
        assert_protected(&send(delete.clone()));
        assert_protected(&send(delete.clone().header(BYPASS, "true")));
        world.node.log.store().advance_lock_clock(NOW_MS + 1000 * DAY_MS);
        assert_protected(&send(delete.clone()));
        assert_kept(&world, &id, 1);
        let head = send(world.keyed(on_object("HEAD"), 1)).expect(200);
        assert_eq!(head.header(HOLD), Some("ON"));
        send(put_hold(None, "OFF")).expect(200);
        assert_eq!(state().as_deref(), Some("OFF"));
        send(delete).expect(204);
        assert!(entries(&send(Request::new("GET", "/locked").query("versions", "")).text()).is_empty());
    }
}

#[test]
fn lock_operations_are_refused_with_the_reason() {
    let world = World::with_lock(Kind::Plain);
    let send = |request: Request| world.node.send(&request);
    stored(&world, 1, &[]);
    let marker = send(on_object("DELETE")).header("x-amz-version-id").expect("an id").to_owned();
    let past = retention("GOVERNANCE", "2025-12-31T00:00:00Z");
    let good = retention("GOVERNANCE", DAY);
    let get = |name: &str, version: &str| named(on_object("GET").query(name, ""), Some(version));
    let unknown = "00112233445566778899aabbccddeeff";
    for (request, status, code) in [
        (put_retention(Some(&marker), &good), 405, "MethodNotAllowed"),
        (put_retention(None, &good), 405, "MethodNotAllowed"),
        (put_hold(Some(&marker), "ON"), 405, "MethodNotAllowed"),
        (get("retention", &marker), 405, "MethodNotAllowed"),
        (get("legal-hold", &marker), 405, "MethodNotAllowed"),
        (put_retention(Some(unknown), &good), 404, "NoSuchVersion"),
        (put_hold(Some(unknown), "ON"), 404, "NoSuchVersion"),
        (get("retention", unknown), 404, "NoSuchVersion"),
        (put_retention(None, &good).with_path("/locked/none"), 404, "NoSuchKey"),
        (put_hold(None, "ON").with_path("/locked/none"), 404, "NoSuchKey"),
        (put_retention(None, &good).with_path("/bucket/o"), 400, "InvalidRequest"),
        (put_hold(None, "ON").with_path("/bucket/o"), 400, "InvalidRequest"),
        (get("retention", "null").with_path("/bucket/o"), 400, "InvalidRequest"),
        (get("legal-hold", "null").with_path("/bucket/o"), 400, "InvalidRequest"),
        (put_retention(None, &good).with_path("/missing/o"), 404, "NoSuchBucket"),
        (put_retention(None, &past), 400, "InvalidArgument"),
        (put_retention(None, &retention("governance", DAY)), 400, "MalformedXML"),
        (put_hold(None, "on"), 400, "MalformedXML"),
        (on_object("PUT").query("retention", "").body(good.clone()), 400, "InvalidRequest"),
        (on_object("PUT").query("legal-hold", "").body("<LegalHold/>"), 400, "InvalidRequest"),
        (default_retention("COMPLIANCE", "<Days>0</Days>"), 400, "InvalidArgument"),
        (default_retention("COMPLIANCE", ""), 400, "MalformedXML"),
        (Request::new("PUT", "/locked").query("object-lock", "").body("<A/>"), 400, "InvalidRequest"),
        (object("DELETE", "o").header(BYPASS, "true"), 400, "InvalidArgument"),
        (object("DELETE", "o").header(BYPASS, "false"), 400, "InvalidArgument"),
        (delete_objects("bucket", "<Object><Key>o</Key></Object>").header(BYPASS, "true"), 400, "InvalidArgument"),
        (on_object("DELETE").header(BYPASS, "maybe"), 400, "InvalidArgument"),
    ] {
        assert_error(&send(request), status, code);
    }
}

#[test]
fn locks_require_the_right_to_lock() {
    let world = World::with_lock(Kind::Plain);
    let writes = [Right::Read, Right::Write, Right::List, Right::Delete];
    let writer = world.node.add_grants("writer", &[("locked", "", &writes)]);
    let locker = world.node.add_grants("locker", &[("locked", "", &[Right::Write, Right::Lock])]);
    for (lock, request) in [
        (true, put(&world, 1).headers([(MODE, "GOVERNANCE"), (UNTIL, DAY)])),
        (true, put(&world, 1).header(HOLD, "OFF")),
        (true, on_object("POST").query("uploads", "").header(HOLD, "ON")),
        (false, put(&world, 1)),
        (true, put_retention(None, &retention("GOVERNANCE", DAY))),
        (true, put_hold(None, "OFF")),
    ] {
        world.node.send_as(&locker, &request).expect(200);
        let status = world.node.send_as(&writer, &request).status;
        assert_eq!(status, if lock { 403 } else { 200 }, "{}", request.target());
    }
    world.node.send_as(&writer, &on_object("GET").query("retention", "")).expect(200);
    for document in [configuration(""), set_state("Enabled").with_path("/locked")] {
        assert_error(&world.node.send_as(&locker, &document), 403, "AccessDenied");
    }
}
