//! A bucket in one of the states of versioning, whose object has versions.

use keyhole_tests::data::{base64, md5};
use keyhole_tests::form::Form;
use keyhole_tests::http::object;
use keyhole_tests::{CustomerKey, Request, Response};

use crate::support::{MemoryNode, completion, first_part};

/// The states of a bucket, as they are set; the first one never was.
pub(super) const STATES: [Option<&str>; 3] = [None, Some("Enabled"), Some("Suspended")];

/// The content of the objects.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Plain,
    /// Sealed, each version with a customer key of its own.
    Sealed,
}

pub(super) const KINDS: [Kind; 2] = [Kind::Plain, Kind::Sealed];

/// A way to store version `n` of the object `o`.
pub(super) type Write<'w> = Box<dyn Fn(u8) -> Response + 'w>;

/// An entry of a listing of versions.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) id: String,
    pub(super) is_marker: bool,
    pub(super) is_latest: bool,
}

/// A node with a bucket in a state of versioning.
pub(super) struct World {
    pub(super) node: MemoryNode,
    pub(super) kind: Kind,
}

impl World {
    /// Creates a node whose bucket is in this state.
    pub(super) fn new(state: Option<&str>, kind: Kind) -> Self {
        let world = World { node: MemoryNode::new(), kind };
        if let Some(state) = state {
            world.set(state);
        }
        world
    }

    /// Sets the state of the bucket.
    pub(super) fn set(&self, state: &str) {
        self.node.send(&set_state(state)).expect(200);
    }

    /// Creates the bucket `locked` with object lock.
    pub(super) fn with_lock(kind: Kind) -> Self {
        let world = World::new(None, kind);
        let create = Request::new("PUT", "/locked").header("x-amz-bucket-object-lock-enabled", "true");
        world.node.send(&create).expect(200);
        world
    }

    /// Returns the key of a version, if objects are sealed.
    pub(super) fn key(&self, n: u8) -> Option<CustomerKey> {
        (self.kind == Kind::Sealed).then_some(CustomerKey([n; 32]))
    }

    /// Adds the key of version `n` to a request.
    pub(super) fn keyed(&self, request: Request, n: u8) -> Request {
        request.headers(self.key(n).iter().flat_map(CustomerKey::headers))
    }

    /// Adds the key of version `n` as that of a copy's source to a request.
    pub(super) fn source_keyed(&self, request: Request, n: u8) -> Request {
        request.headers(self.key(n).iter().flat_map(CustomerKey::copy_source_headers))
    }

    /// Stores version `n` of the object `o`.
    pub(super) fn put(&self, n: u8) -> Response {
        self.node.send(&self.keyed(object("PUT", "o"), n).body(content(n))).expect(200)
    }

    /// Stores version `n` of the object `o`. Returns its id, which the response must have.
    #[track_caller]
    pub(super) fn put_version(&self, n: u8) -> String {
        self.put(n).header("x-amz-version-id").expect("a version id").to_owned()
    }

    /// Stores version `n` of the object `o` in each way that there is.
    pub(super) fn each_write(&self) -> Vec<(&'static str, Write<'_>)> {
        let form = |n: u8| {
            let fields = self.key(n).into_iter().flat_map(|key| key.headers());
            self.node.send_form(Form::new("o", content(n)).fields(fields))
        };
        let copy = |n: u8| {
            let source = self.keyed(object("PUT", "source"), n).body(content(n));
            self.node.send(&source).expect(200);
            let copy = object("PUT", "o").header("x-amz-copy-source", "bucket/source");
            self.node.send(&self.source_keyed(self.keyed(copy, n), n))
        };
        vec![
            ("PUT", Box::new(|n| self.put(n))),
            ("POST", Box::new(form)),
            ("copy", Box::new(copy)),
            ("completion", Box::new(|n| self.complete(n))),
        ]
    }

    /// Stores version `n` of the object `o` as an upload of one part.
    fn complete(&self, n: u8) -> Response {
        let id = self.node.create_upload(self.keyed(object("POST", "o"), n));
        let part = first_part(self.keyed(object("PUT", "o"), n), &id).body(content(n));
        let etag = self.node.send(&part).expect(200).header("etag").expect("an ETag").to_owned();
        self.node.send(&self.keyed(completion("o", &id, &etag), n))
    }

    /// Checks that a read returns version `n` and no other.
    #[track_caller]
    pub(super) fn assert_reads(&self, request: &Request, n: u8) -> Response {
        let response = self.node.send(&self.keyed(request.clone(), n)).expect(200);
        assert_eq!(response.body, content(n), "{}", request.target());
        if self.kind == Kind::Sealed {
            assert_eq!(self.node.send(&self.keyed(request.clone(), n + 100)).status, 403, "another key");
        }
        response
    }

    /// Deletes the object `o`, or a version of it.
    pub(super) fn delete(&self, version: Option<&str>) -> Response {
        self.node.send(&named(object("DELETE", "o"), version))
    }

    /// Sends a DeleteObjects with these entries.
    pub(super) fn delete_objects(&self, entries: &str) -> Response {
        self.node.send(&delete_objects("bucket", entries)).expect(200)
    }

    /// Lists the versions in the bucket.
    pub(super) fn versions(&self) -> Vec<Entry> {
        entries(&self.node.send(&Request::new("GET", "/bucket").query("versions", "")).expect(200).text())
    }

    /// Returns the ids of the versions of the object `o`, newest first; delete markers in parentheses.
    pub(super) fn ids(&self) -> Vec<String> {
        let of_object = self.versions().into_iter().filter(|entry| entry.key == "o");
        of_object.map(|entry| if entry.is_marker { format!("({})", entry.id) } else { entry.id }).collect()
    }
}

/// Returns the content of version `n`.
pub(super) fn content(n: u8) -> Vec<u8> {
    format!("content {n}").into_bytes()
}

/// Adds a version to a request.
pub(super) fn named(request: Request, version: Option<&str>) -> Request {
    match version {
        Some(id) => request.query("versionId", id),
        None => request,
    }
}

/// Returns a request with a document and its digest.
pub(super) fn with_document(request: Request, document: &str) -> Request {
    request.header("content-md5", base64(&md5(document.as_bytes()))).body(document)
}

/// Returns the request that sets the state of the bucket.
pub(super) fn set_state(state: &str) -> Request {
    let document = format!("<VersioningConfiguration><Status>{state}</Status></VersioningConfiguration>");
    with_document(Request::new("PUT", "/bucket").query("versioning", ""), &document)
}

/// Returns a DeleteObjects with these entries.
pub(super) fn delete_objects(bucket: &str, entries: &str) -> Request {
    let document = format!("<Delete>{entries}</Delete>");
    with_document(Request::new("POST", &format!("/{bucket}")).query("delete", ""), &document)
}

/// Parses the versions and delete markers of a listing, in order.
pub(super) fn entries(listing: &str) -> Vec<Entry> {
    let text = |item: &str, name: &str| {
        let value = item.split(&format!("<{name}>")).nth(1).and_then(|rest| rest.split("</").next());
        value.expect("an element").to_owned()
    };
    let listing = listing.replace("<DeleteMarker>", "<Version>(");
    let items = listing.split("<Version>").skip(1);
    let entry = |item: &str| Entry {
        key: text(item, "Key"),
        id: text(item, "VersionId"),
        is_marker: item.starts_with('('),
        is_latest: text(item, "IsLatest") == "true",
    };
    items.map(entry).collect()
}

/// Returns whether a text is the id of a version other than `null`.
pub(super) fn is_id(id: &str) -> bool {
    id.len() == 32 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}
