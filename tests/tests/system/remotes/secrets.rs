//! Secrets on the way to a remote: on the wire, in the service, and in the memory of the node.

use std::io::ErrorKind;
use std::thread;
use std::time::Duration;

use keyhole_tests::data::encodings;
use keyhole_tests::scan::{Needle, occurrences};
use keyhole_tests::{CustomerKey, Recorder, Request};
use memchr::memmem;

use super::{Remote, launch, verify, wait_until_shipped};

const PATTERN: &[u8; 48] = b"plaintext of sealed objects, found nowhere else.";
const PLAIN: &[u8; 48] = b"plaintext that the service may read, as allowed.";
const METADATA: &str = "a-value-of-user-metadata-that-is-secret";

/// Pauses in which the node ends its work on requests.
const PAUSES: usize = 20;
const PAUSE: Duration = Duration::from_millis(50);

/// Returns the encodings of a secret that the bytes contain.
fn found_in(bytes: &[u8], secret: &[u8]) -> Vec<String> {
    let all = encodings(secret).into_iter();
    all.filter(|(_, encoded)| memmem::find(bytes, encoded).is_some()).map(|(encoding, _)| encoding).collect()
}

#[test]
fn secrets_are_absent_from_wire_and_memory() {
    // Small, since its files are searched.
    let service = launch().capacity(Some("64MiB")).start();
    service.make_bucket("bucket");
    let recorder = Recorder::start(service.address());
    let remote = Remote::new(&recorder.endpoint());
    let node = launch().start();
    remote.add(&node, &["--plaintext", "allow"]);
    ["data", "history"].iter().for_each(|bucket| node.make_bucket(bucket));
    crate::transfer::versions::set_versioning(&node, "history", "Enabled");
    let keys = [CustomerKey::random(), CustomerKey::random()];
    for (bucket, key) in ["data", "history"].into_iter().zip(&keys) {
        for repeats in [1, 300, 20_000, 115_000] {
            let put = Request::new("PUT", &format!("/{bucket}/{repeats}")).header("x-amz-meta-secret", METADATA);
            let put = put.header("content-type", "application/secret-type").headers(key.headers());
            node.send(&put.body(PATTERN.repeat(repeats))).expect(200);
        }
        node.send(&Request::new("PUT", &format!("/{bucket}/plain")).body(PLAIN)).expect(200);
        let get = Request::new("GET", &format!("/{bucket}/300")).headers(key.headers());
        assert_eq!(node.send(&get).expect(200).header("x-amz-meta-secret"), Some(METADATA));
    }
    wait_until_shipped(&node);
    verify(&node, 0);
    let other = launch().start();
    remote.restore(other.data(), 0, &[]);

    let recorded = recorder.recorded();
    assert!(recorded.len() > 2 * 135_000 * PATTERN.len(), "all objects are recorded");
    for secret in [&PATTERN[..], METADATA.as_bytes(), b"application/secret-type", &keys[0].0, &keys[1].0] {
        assert_eq!(found_in(&recorded, secret), [""; 0]);
        assert_eq!(service.occurrences_of(secret), [""; 0], "in the service");
    }
    // Validates the search.
    assert_eq!(found_in(&recorded, PLAIN), ["raw"]);

    let mut needles = Needle::plaintext(PATTERN);
    needles.extend(keys.iter().flat_map(|key| Needle::key("a key", &key.0)));
    for node in [&node, &other, &service] {
        let mut found = Vec::new();
        for _ in 0..PAUSES {
            match occurrences(node.pid(), &needles) {
                Ok(places) => found = places,
                // The node is not dumpable, so only root may look.
                Err(error) if error.kind() == ErrorKind::PermissionDenied => return,
                Err(error) => panic!("{error}"),
            }
            if found.is_empty() {
                break;
            }
            thread::sleep(PAUSE);
        }
        assert_eq!(found, [""; 0], "in the memory of process {}", node.pid());
    }
}
