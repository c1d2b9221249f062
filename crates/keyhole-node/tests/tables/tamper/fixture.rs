//! The store that is tampered with, and its objects.

use keyhole_core::aead::Portable;
use keyhole_core::body::{Bodies, MultipartEtag};
use keyhole_core::chunked::message_len;
use keyhole_core::head::{Head, HeadId, HeadKind, open_head_of, seal_head};
use keyhole_core::limits::SEALED_HEAD_MAX;
use keyhole_log::limits::PARTS_MAX;
use keyhole_log::{CompleteUpload, Condition, Etag, Part};
use keyhole_tests::data::bytes;
use keyhole_tests::http::object;
use keyhole_tests::{CustomerKey, Request};

use crate::support::{BUCKET, MemoryNode, NOW_MS, keyed};

const SEGMENT_LEN: u64 = 512 << 10;
const SEGMENTS: u64 = 64;

/// The bytes of the object that is never tampered with.
pub(super) const CONTROL: &[u8] = b"control";

/// The lengths of the parts of objects in parts: the first ends within a chunk, the second has
/// blocks.
pub(super) const PARTS: [usize; 3] = [40_000, 70_000, 100];

/// The customer key of all sealed objects.
pub(super) const KEY: CustomerKey = CustomerKey([1; 32]);

/// A second customer key.
pub(super) const OTHER_KEY: CustomerKey = CustomerKey([2; 32]);

/// An object as it was stored.
#[derive(Clone)]
pub(super) struct Stored {
    pub(super) key: &'static str,
    pub(super) data: Vec<u8>,
    /// The lengths of its parts; a single one of an object that was not uploaded in parts.
    pub(super) parts: Vec<usize>,
    pub(super) is_sealed: bool,
}

impl Stored {
    fn new(key: &'static str, seed: u64, parts: &[usize]) -> Self {
        Stored { key, data: bytes(seed, parts.iter().sum()), parts: parts.to_vec(), is_sealed: true }
    }

    /// Returns a request for the object, with its key.
    pub(super) fn request(&self, method: &str) -> Request {
        if self.is_sealed { keyed(method, self.key, &KEY) } else { object(method, self.key) }
    }
}

/// How an upload is completed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Completed {
    WithKey,
    WithoutKey,
    /// Without the key, with the head that earlier releases wrote for an upload.
    ByEarlierRelease,
}

/// Creates an empty store.
pub(super) fn node() -> MemoryNode {
    MemoryNode::with_segments(SEGMENT_LEN, SEGMENTS)
}

/// A store with an object of each kind.
pub(super) fn store() -> (MemoryNode, Vec<Stored>) {
    let node = node();
    let plain = |key, seed, len| Stored { is_sealed: false, ..Stored::new(key, seed, &[len]) };
    let stored = vec![
        Stored::new("single", 1, &[1000]),
        Stored::new("blocks", 2, &[200_000]),
        Stored::new("whole-chunks", 3, &[32_768]),
        Stored::new("empty", 4, &[0]),
        Stored::new("bound", 5, &PARTS),
        Stored::new("unbound", 6, &PARTS),
        Stored::new("earlier", 7, &PARTS),
        Stored { key: "copied", ..Stored::new("single", 1, &[1000]) },
        Stored::new("rekeyed", 8, &[1000]),
        plain("plain", 9, 1000),
        plain("plain-blocks", 10, 100_000),
    ];
    for object in &stored {
        match object.key {
            "bound" => put_parts(&node, object, Completed::WithKey),
            "unbound" => put_parts(&node, object, Completed::WithoutKey),
            "earlier" => put_parts(&node, object, Completed::ByEarlierRelease),
            "copied" => {
                let copy = object.request("PUT").header("x-amz-copy-source", "/bucket/single");
                node.send(&copy.headers(KEY.copy_source_headers())).expect(200);
            }
            "rekeyed" => {
                node.send(&keyed("PUT", object.key, &OTHER_KEY).body(object.data.clone())).expect(200);
                let copy = object.request("PUT").header("x-amz-copy-source", "/bucket/rekeyed");
                node.send(&copy.headers(OTHER_KEY.copy_source_headers())).expect(200);
            }
            _ => {
                node.send(&object.request("PUT").header("x-amz-meta-name", "value").body(object.data.clone()))
                    .expect(200);
            }
        }
    }
    node.send(&object("PUT", "control").body(CONTROL)).expect(200);
    (node, stored)
}

/// Stores an object in short parts, which the node would refuse to complete.
pub(super) fn put_parts(node: &MemoryNode, object: &Stored, completed: Completed) {
    let upload = begin(node, object);
    complete(node, object.key, &upload, completed);
}

/// Creates an upload and its parts, and returns its id.
pub(super) fn begin(node: &MemoryNode, object: &Stored) -> String {
    let id = node.create_upload(object.request("POST"));
    let mut rest = &object.data[..];
    for (number, len) in (1..).zip(&object.parts) {
        let (part, behind) = rest.split_at(*len);
        put_part(node, object, &id, number, part);
        rest = behind;
    }
    id
}

/// Stores a part of an upload.
pub(super) fn put_part(node: &MemoryNode, object: &Stored, id: &str, number: u32, data: &[u8]) {
    let put = object.request("PUT").query("partNumber", &number.to_string()).query("uploadId", id);
    node.send(&put.body(data)).expect(200);
}

/// Completes an upload of a sealed object, whatever the lengths of its parts.
pub(super) fn complete(node: &MemoryNode, key: &'static str, id: &str, completed: Completed) {
    let id: [u8; 16] = hex::decode(id).unwrap().try_into().unwrap();
    let log = node.log.clone();
    node.run(async move {
        let upload = log.upload(BUCKET, key, &id).unwrap().unwrap();
        let parts: Vec<Part> = log.parts(&upload, 0, PARTS_MAX).unwrap().into_iter().map(|part| part.part).collect();
        let mut digest = MultipartEtag::new();
        parts.iter().for_each(|part| digest.update(&part.etag));
        let head = log.upload_head(&upload).await.unwrap();
        let etag = Etag { digest: digest.finish(), parts: parts.len() as u16 };
        let complete = CompleteUpload {
            upload,
            head: head_of(head.head, key, &parts, completed),
            size: parts.iter().map(|part| part.size).sum(),
            parts,
            tags: Vec::new(),
            part_checksums: Vec::new(),
            bound: completed == Completed::WithKey,
            etag,
            time_ms: NOW_MS,
            condition: Condition::None,
        };
        log.complete_upload(complete).await.unwrap();
    });
}

/// Returns the head of the object that an upload becomes.
fn head_of(mut upload: Vec<u8>, key: &str, parts: &[Part], completed: Completed) -> Vec<u8> {
    if completed == Completed::WithoutKey {
        return upload;
    }
    let customer_key = keyhole_core::CustomerKey::new(KEY.0);
    let id = HeadId { kind: HeadKind::Upload, bucket: BUCKET, key };
    let head = open_head_of(&Portable, &customer_key, &id, &mut upload).unwrap();
    let mut bodies = Bodies::new();
    for part in parts {
        bodies.push(part.number.into(), message_len(part.size).unwrap(), &part.salt).unwrap();
    }
    let manifest = if completed == Completed::WithKey { bodies.manifest() } else { None };
    let mut sealed = vec![0; SEALED_HEAD_MAX];
    let head = Head { manifest, ..head };
    let len = seal_head(&Portable, &customer_key, &[9; 24], BUCKET, key, &head, &mut sealed).unwrap();
    sealed.truncate(len);
    sealed
}
