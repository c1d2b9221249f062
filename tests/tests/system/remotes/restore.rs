//! Rebuilding a store from a second node, over TLS.

use keyhole_tests::command::{expect_success, run};
use keyhole_tests::data::fresh_seed;
use keyhole_tests::tls::Certificate;
use keyhole_tests::{CustomerKey, Node, Request};

use super::{Remote, launch, names_in, text, verify, wait_until_shipped};
use crate::transfer::versions::{self, document, in_days, set_versioning};
use crate::transfer::{
    assert_same, assert_same_stream, fill, kill_after, spawn, stopped_node, stream, verify_and_observe,
};

/// A node with TLS as the service.
struct TlsService {
    node: Node,
    remote: Remote,
    _certificate: Certificate,
}

impl TlsService {
    fn start() -> Self {
        let certificate = Certificate::new();
        let node = certificate.launch("127.0.0.1:0").start();
        node.make_bucket("bucket");
        let mut remote = Remote::new(&format!("https://{}", node.tls_address()));
        remote.ca = Some(text(&certificate.authority_path()).to_owned());
        TlsService { node, remote, _certificate: certificate }
    }
}

fn tagging(path: &str, value: &str) -> Request {
    let body = format!("<Tagging><TagSet><Tag><Key>k</Key><Value>{value}</Value></Tag></TagSet></Tagging>");
    Request::new("PUT", path).query("tagging", "").body(body)
}

/// Changes settings, tags and locks of what was shipped, and deletes objects and versions of it.
fn change_shipped(node: &Node) {
    // The latest version.
    let id_of = |path: &str| {
        let (bucket, key) = path[1..].split_once('/').unwrap();
        let list = Request::new("GET", &format!("/{bucket}")).query("versions", "").query("prefix", key);
        node.send(&list).expect(200).element("VersionId").expect("a version id")
    };
    expect_success(&["bucket", "set", text(node.data()), "first", "--quota", "7GiB", "--expire-days", "500"], b"");
    expect_success(&["bucket", "set", text(node.data()), "void", "--sse-c", "require"], b"");
    node.send(&tagging("/first/plain/65536", "plain")).expect(200);
    node.send(&tagging("/first/sealed/65536", "sealed")).expect(200);
    node.send(&Request::new("DELETE", "/first/sealed/1").query("tagging", "")).expect(204);
    for path in ["/first/plain/0", "/first/sealed/3000000", "/first/sealed/described", "/second/parts/plain"] {
        node.send(&Request::new("DELETE", path)).expect(204);
    }
    let until = in_days(60);
    let longer = format!("<Retention><Mode>COMPLIANCE</Mode><RetainUntilDate>{until}</RetainUntilDate></Retention>");
    let locked = id_of("/vault/default");
    let retention = document("PUT", "/vault/default", &longer).query("retention", "").query("versionId", &locked);
    node.send(&retention).expect(200);
    let held = id_of("/vault/held");
    let off = document("PUT", "/vault/held", "<LegalHold><Status>OFF</Status></LegalHold>");
    node.send(&off.query("legal-hold", "").query("versionId", &held)).expect(200);
    // A delete marker goes, and the version below it becomes the latest.
    let marker = id_of("/history/gone");
    node.send(&Request::new("DELETE", "/history/gone").query("versionId", &marker)).expect(204);
    let version = id_of("/history/o");
    node.send(&Request::new("DELETE", "/history/o").query("versionId", &version)).expect(204);
    set_versioning(node, "paused", "Enabled");
    // Its objects become `null` versions.
    set_versioning(node, "second", "Enabled");
    node.send(&Request::new("PUT", "/second/parts/plain-composite").body("a version")).expect(200);
    node.make_bucket("short-lived");
}

#[test]
fn store_with_every_kind_of_object_is_rebuilt_over_tls() {
    let TlsService { node: service, remote, _certificate } = TlsService::start();
    let mut node = launch().start();
    remote.add(&node, &["--plaintext", "allow"]);
    fill(&node);
    versions::fill(&node);
    wait_until_shipped(&node);
    let (first, _) = verify(&node, 0);
    change_shipped(&node);
    wait_until_shipped(&node);
    node.send(&Request::new("DELETE", "/short-lived")).expect(204);
    wait_until_shipped(&node);
    let (changed, _) = verify(&node, 0);
    assert_eq!(first["equal"].as_u64().unwrap() - 5, changed["equal"].as_u64().unwrap(), "{first} {changed}");
    assert!(!names_in(&service, &remote).iter().any(|name| name.starts_with("short-lived")));

    // Into a running node, and into the store of one that is stopped.
    let running = launch().start();
    let stopped = stopped_node();
    for other in [&running, &stopped] {
        remote.restore(other.data(), 0, &[]);
        assert_same_stream(&node, other);
        let (again, _) = remote.restore(other.data(), 0, &[]);
        assert_eq!((&again["stored"], &again["bytes"]), (&0.into(), &0.into()), "{again}");
    }
    // A restart compares the remote with the store, and sends nothing again.
    node.kill();
    node.start();
    let status = wait_until_shipped(&node);
    assert_eq!((&status["shipped"], &status["deleted"]), (&0.into(), &0.into()), "{status}");
    verify(&node, 0);
}

#[test]
fn part_of_remote_is_restored() {
    let TlsService { node: _service, remote, _certificate } = TlsService::start();
    let node = launch().start();
    fill(&node);
    versions::fill(&node);
    remote.add(&node, &["--plaintext", "allow"]);
    wait_until_shipped(&node);
    for scope in [&["--bucket", "history"][..], &["--bucket", "first", "--prefix", "sealed/"], &["--bucket", "void"]] {
        let other = launch().start();
        let only: Vec<String> = scope.iter().map(|word| word.replace("--", "--only-")).collect();
        remote.restore(other.data(), 0, &only.iter().map(|word| &word[..]).collect::<Vec<_>>());
        assert!(stream(node.data(), scope) == stream(other.data(), scope), "{scope:?}");
        assert!(stream(other.data(), scope) == stream(other.data(), &[]), "{scope:?}: nothing else");
    }
    let other = launch().start();
    let absent = run(&remote.restoring(other.data(), &["--only-bucket", "absent"]), b"");
    let stderr = String::from_utf8_lossy(&absent.stderr).into_owned();
    assert!(absent.status.code() == Some(1) && stderr.contains("no bucket absent"), "{stderr}");
}

#[test]
fn existing_objects_are_kept_or_replaced() {
    let TlsService { node: _service, remote, _certificate } = TlsService::start();
    let key = CustomerKey::random();
    let filled = |body: &str| {
        let node = launch().start();
        node.make_bucket("data");
        node.send(&Request::new("PUT", "/data/sealed").headers(key.headers()).body(body)).expect(200);
        node.send(&Request::new("PUT", "/data/plain").body(body)).expect(200);
        node
    };
    let node = filled("first");
    node.send(&Request::new("PUT", "/data/more").body("more")).expect(200);
    remote.add(&node, &["--plaintext", "allow"]);
    wait_until_shipped(&node);
    let other = filled("second");
    let read = |name: &str| {
        let get = Request::new("GET", &format!("/data/{name}"));
        let get = if name == "sealed" { get.headers(key.headers()) } else { get };
        other.send(&get).expect(200).text()
    };
    let (kept, stderr) = remote.restore(other.data(), 1, &[]);
    assert_eq!((&kept["stored"], &kept["kept"]), (&1.into(), &2.into()), "{kept}");
    assert!(stderr.contains("kept: data/sealed") && stderr.contains("--existing skip"), "{stderr}");
    remote.restore(other.data(), 0, &["--existing", "skip"]);
    assert_eq!([read("sealed"), read("plain"), read("more")], ["second", "second", "more"]);
    remote.restore(other.data(), 0, &["--existing", "replace"]);
    assert_eq!([read("sealed"), read("plain"), read("more")], ["first", "first", "more"]);
}

#[test]
fn killed_restore_resumes() {
    let TlsService { node: _service, remote, _certificate } = TlsService::start();
    let seed = fresh_seed();
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let node = launch().start();
    let filled = fill(&node);
    versions::fill(&node);
    let before = verify_and_observe(&node, &filled);
    remote.add(&node, &["--plaintext", "allow"]);
    wait_until_shipped(&node);
    for is_running in [true, false] {
        let mut other = if is_running { launch().start() } else { stopped_node() };
        let data = other.data().to_owned();
        let arguments = remote.restoring(&data, &["--settings", "all", "--rate", "50MB/s"]);
        let mut kills = 0;
        while !kill_after(spawn(&arguments), random.u64(50..500 + 200 * kills)) {
            kills += 1;
            assert!(kills < 50, "seed {seed}: no progress");
            if is_running && kills == 2 {
                other.kill();
                other.start();
            }
        }
        println!("{kills} restores were killed");
        // The node, or the store's lock, may still be busy with a killed command.
        let deadline = std::time::Instant::now() + super::PATIENCE;
        while !run(&arguments, b"").status.success() {
            assert!(std::time::Instant::now() < deadline, "seed {seed}: the restore does not end");
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        assert_same_stream(&node, &other);
        if !is_running {
            other.start();
        }
        assert_same(&before, &verify_and_observe(&other, &filled));
    }
}
