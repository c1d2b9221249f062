//! Differences between a remote and its store, and the restore of a damaged remote.

use keyhole_tests::data::{bytes, md5};
use keyhole_tests::{CustomerKey, Node, Request};

use super::{Remote, launch, verify, wait_until_shipped};

/// Returns the path of a remote object in the service.
fn at(remote: &Remote, name: &str) -> String {
    format!("/{}/{}/{name}", remote.bucket, remote.prefix)
}

/// User metadata.
type Fields = Vec<(String, String)>;

fn get(service: &Node, remote: &Remote, name: &str) -> (Vec<u8>, Fields) {
    let found = service.send(&Request::new("GET", &at(remote, name))).expect(200);
    let fields = found.headers.into_iter().filter(|(field, _)| field.starts_with("x-amz-meta-"));
    (found.body, fields.collect())
}

/// Replaces a remote object.
fn put(service: &Node, remote: &Remote, name: &str, body: Vec<u8>, fields: Fields) {
    service.send(&Request::new("PUT", &at(remote, name)).headers(fields).body(body)).expect(200);
}

fn delete(service: &Node, remote: &Remote, name: &str) {
    service.send(&Request::new("DELETE", &at(remote, name))).expect(204);
}

/// A node whose objects are in a remote.
struct Shipped {
    service: Node,
    remote: Remote,
    node: Node,
    key: CustomerKey,
}

/// Plain and sealed objects of these lengths: `data/plain-LEN` and `data/sealed-LEN`.
const LENGTHS: [usize; 3] = [100, 20_000, 700_000];

fn body_of(name: &str) -> Vec<u8> {
    let len: usize = name.rsplit_once('-').unwrap().1.parse().unwrap();
    bytes(u64::from(md5(name.as_bytes())[0]), len)
}

fn names() -> impl Iterator<Item = String> {
    LENGTHS.into_iter().flat_map(|len| ["plain", "sealed"].map(|kind| format!("{kind}-{len}")))
}

impl Shipped {
    fn new() -> Self {
        let service = Node::with_bucket();
        let remote = Remote::new(&service.endpoint());
        let node = launch().start();
        let key = CustomerKey::random();
        node.make_bucket("data");
        for name in names() {
            let put = Request::new("PUT", &format!("/data/{name}"));
            let put = if name.starts_with("sealed") { put.headers(key.headers()) } else { put };
            node.send(&put.body(body_of(&name))).expect(200);
        }
        remote.add(&node, &["--plaintext", "allow"]);
        wait_until_shipped(&node);
        verify(&node, 0);
        Shipped { service, remote, node, key }
    }

    /// Returns the response of a node to a read of an object.
    fn read(&self, node: &Node, name: &str) -> (u16, Vec<u8>) {
        let get = Request::new("GET", &format!("/data/{name}"));
        let get = if name.starts_with("sealed") { get.headers(self.key.headers()) } else { get };
        let response = node.send(&get);
        (response.status, response.body)
    }
}

#[test]
fn differences_are_named() {
    let shipped = Shipped::new();
    let Shipped { service, remote, node, .. } = &shipped;
    let original = get(service, remote, "data/plain-20000");
    let altered = |change: &dyn Fn(&mut Vec<u8>, &mut Fields)| {
        let (mut body, mut fields) = original.clone();
        change(&mut body, &mut fields);
        put(service, remote, "data/plain-20000", body, fields);
        let (figures, stderr) = verify(node, 3);
        assert_eq!(figures["different"], 1, "{figures}");
        stderr
    };
    let stderr = altered(&|body, _| body[7] ^= 1);
    assert!(stderr.contains("different: data/plain-20000: its bytes differ"), "{stderr}");
    let stderr = altered(&|body, _| body.truncate(19_999));
    assert!(stderr.contains("different: data/plain-20000: its length differs"), "{stderr}");
    let stderr = altered(&|_, fields| fields.clear());
    assert!(stderr.contains("different: data/plain-20000: no node has stored it"), "{stderr}");
    let other = get(service, remote, "data/plain-100");
    let stderr = altered(&|_, fields| fields.clone_from(&other.1));
    assert!(stderr.contains("different: data/plain-20000: its description differs"), "{stderr}");
    put(service, remote, "data/plain-20000", original.0.clone(), original.1.clone());
    verify(node, 0);

    // Missing, unexpected, and objects of other programs.
    delete(service, remote, "data/sealed-100");
    put(service, remote, "data/leftover", other.0, other.1);
    put(service, remote, "data/of-another-program", vec![1], Vec::new());
    put(service, remote, "notes.txt", vec![1], Vec::new());
    put(service, remote, "data//notes/", vec![1], Vec::new());
    let (figures, stderr) = verify(node, 3);
    assert_eq!((&figures["missing"], &figures["unexpected"]), (&1.into(), &1.into()), "{figures}");
    assert!(stderr.contains("missing: data/sealed-100") && stderr.contains("unexpected: data/leftover"), "{stderr}");
    assert!(!stderr.contains("program") && !stderr.contains("notes"), "{stderr}");
}

#[test]
fn damaged_remote_restores_intact_objects_only() {
    let shipped = Shipped::new();
    let Shipped { service, remote, .. } = &shipped;
    // Sealed objects whose descriptions, or whose files, are those of each other.
    let (small, large) = (get(service, remote, "data/sealed-100"), get(service, remote, "data/sealed-20000"));
    let swapped = get(service, remote, "data/sealed-700000");
    let (mut altered, fields) = get(service, remote, "data/plain-20000");
    altered[19_000] ^= 0x40;
    put(service, remote, "data/plain-20000", altered, fields);
    put(service, remote, "data/sealed-700000", swapped.0[..600_000].to_vec(), swapped.1.clone());
    put(service, remote, "data/sealed-100", small.0, large.1);
    put(service, remote, "data/plain-100", bytes(1, 100), Vec::new());
    let other = launch().start();
    let (figures, stderr) = remote.restore(other.data(), 3, &[]);
    assert_eq!((&figures["stored"], &figures["damaged"]), (&2.into(), &4.into()), "{figures} {stderr}");
    for name in ["plain-20000", "sealed-700000", "sealed-100", "plain-100"] {
        assert!(stderr.contains(&format!("damaged: data/{name}")), "{name}: {stderr}");
    }
    for name in names() {
        let (status, body) = shipped.read(&other, &name);
        assert!(status == 404 || body == body_of(&name), "{name}: {status}");
    }

    // A sealed file of the right length in the place of another: it does not open.
    let name = "data/sealed-700000";
    let mut forged = swapped.0.clone();
    forged[400_000] ^= 1;
    put(service, remote, name, forged, swapped.1);
    let (_, stderr) = remote.restore(other.data(), 3, &[]);
    assert!(!stderr.contains(name), "the structure is intact: {stderr}");
    let read = Request::new("GET", "/data/sealed-700000").headers(shipped.key.headers());
    let address = other.address();
    let response = read.signed(address, other.signer()).try_send_unsigned(address);
    let is_served = response.is_ok_and(|response| response.is_complete && response.status == 200);
    assert!(!is_served, "altered bytes are not served");
}
