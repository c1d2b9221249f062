//! Clients that change objects, and the states of each key that they acknowledge.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use fastrand::Rng;
use keyhole_tests::data::bytes;
use keyhole_tests::{CustomerKey, Node, Request};

use crate::mapper::Marker;

/// The operations of the clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Workload {
    /// Small objects, from four clients.
    Small,
    /// Large bodies that overwrite each other until the store cleans, from two clients.
    Large,
    /// Versions and delete markers that are deleted, with checkpoints, from two clients.
    Versions,
}

/// The sizes of a workload.
struct Sizes {
    clients: usize,
    keys: usize,
    /// Operations of each client in a phase; the node is restarted between phases, with a checkpoint.
    operations: usize,
    phases: usize,
    /// Exclusive limit of the length of a body.
    len: usize,
}

impl Workload {
    pub(crate) const ALL: [(&str, Workload); 3] =
        [("small", Workload::Small), ("large", Workload::Large), ("versions", Workload::Versions)];

    fn sizes(self) -> Sizes {
        match self {
            Workload::Small => Sizes { clients: 4, keys: 6, operations: 60, phases: 1, len: 20_000 },
            Workload::Large => Sizes { clients: 2, keys: 4, operations: 40, phases: 1, len: 4 << 20 },
            Workload::Versions => Sizes { clients: 2, keys: 3, operations: 30, phases: 3, len: 90_000 },
        }
    }
}

/// The bucket of all keys.
pub(crate) const BUCKET: &str = "lab";

/// The number of the mark after which the bucket exists.
pub(crate) const READY: u64 = 0;

/// A version of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    Marker,
    Content { seed: u64, len: usize },
}

impl Version {
    /// Returns the length of the content. `None`: a delete marker.
    pub(crate) fn len(&self) -> Option<usize> {
        match *self {
            Version::Marker => None,
            Version::Content { len, .. } => Some(len),
        }
    }
}

/// The states of a key, in their order.
#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) name: String,
    is_sealed: bool,
    /// The versions after each operation, newest first, and the mark that acknowledged it.
    pub(crate) states: Vec<(Vec<Version>, u64)>,
    /// The ids of the current versions, in the same order.
    ids: Vec<String>,
}

impl Key {
    fn new(client: usize, index: usize) -> Self {
        let name = format!("c{client}-{index}");
        Key { name, is_sealed: index.is_multiple_of(2), states: vec![(Vec::new(), READY)], ids: Vec::new() }
    }

    fn versions(&self) -> &[Version] {
        self.states.last().map_or(&[], |(versions, _)| versions)
    }

    /// Returns a request about this key.
    pub(crate) fn request(&self, method: &str) -> Request {
        Request::new(method, &format!("/{BUCKET}/{}", self.name))
    }

    /// Returns the headers of the customer key, if the objects of this key are sealed.
    pub(crate) fn headers(&self) -> Vec<(String, String)> {
        let seed = self.name.bytes().fold(7, |seed: u64, byte| seed * 31 + u64::from(byte));
        let key = CustomerKey(bytes(seed, 32).try_into().expect("32 bytes"));
        if self.is_sealed { key.headers().to_vec() } else { Vec::new() }
    }

    /// Returns the states that a power failure may leave when these marks were in the log: the last
    /// acknowledged one, and that of the operation that was in flight.
    pub(crate) fn legal(&self, is_marked: impl Fn(u64) -> bool) -> &[(Vec<Version>, u64)] {
        let last = self.states.iter().rposition(|(_, mark)| is_marked(*mark)).unwrap_or(0);
        &self.states[last..self.states.len().min(last + 2)]
    }
}

/// What the clients share.
struct Shared<'s> {
    node: &'s Node,
    marker: &'s Marker,
    marks: &'s AtomicU64,
}

/// A client with keys of its own, whose requests are sequential.
struct Client {
    random: Rng,
    keys: Vec<Key>,
    is_versioned: bool,
    len: usize,
}

impl Client {
    fn operate(&mut self, shared: &Shared<'_>) {
        let count = self.keys.len();
        let key = &mut self.keys[self.random.usize(..count)];
        let versions = key.versions().to_vec();
        let chosen = self.random.u8(..10);
        if self.is_versioned && chosen < 3 && !versions.is_empty() {
            let at = self.random.usize(..versions.len());
            let request = key.request("DELETE").query("versionId", &key.ids[at]);
            shared.node.send(&request).expect(204);
            key.ids.remove(at);
            let mut left = versions;
            left.remove(at);
            key.states.push((left, 0));
        } else if chosen < if self.is_versioned { 5 } else { 2 } {
            let reply = shared.node.send(&key.request("DELETE")).expect(204);
            if self.is_versioned {
                key.ids.insert(0, reply.header("x-amz-version-id").expect("a delete marker has an id").to_owned());
                key.states.push(([&[Version::Marker][..], &versions].concat(), 0));
            } else {
                key.states.push((Vec::new(), 0));
            }
        } else {
            let seed = self.random.u64(..);
            let len = self.random.usize(..self.len);
            let request = key.request("PUT").headers(key.headers()).payload("UNSIGNED-PAYLOAD");
            let reply = shared.node.send(&request.body(bytes(seed, len))).expect(200);
            let version = Version::Content { seed, len };
            if self.is_versioned {
                key.ids.insert(0, reply.header("x-amz-version-id").expect("a version has an id").to_owned());
                key.states.push(([&[version][..], &versions].concat(), 0));
            } else {
                key.states.push((vec![version], 0));
            }
        }
        // The reply has arrived: from this mark on, no power failure may undo the operation.
        let mark = shared.marks.fetch_add(1, Ordering::Relaxed);
        if let Some((_, last)) = key.states.last_mut() {
            *last = mark;
        }
        shared.marker.mark(mark);
    }
}

/// Runs a workload, which starts and stops the node, and returns the states of all keys.
pub(crate) fn run(workload: Workload, seed: u64, marker: &Marker, mut node: Node) -> Vec<Key> {
    let sizes = workload.sizes();
    let is_versioned = workload == Workload::Versions;
    node.make_bucket(BUCKET);
    if is_versioned {
        let enabled = "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>";
        let request = Request::new("PUT", &format!("/{BUCKET}")).query("versioning", "");
        node.send(&request.body(enabled)).expect(200);
    }
    marker.mark(READY);
    let marks = AtomicU64::new(READY + 1);
    let mut random = Rng::with_seed(seed);
    let mut clients: Vec<Client> = (0..sizes.clients)
        .map(|client| {
            let keys = (0..sizes.keys).map(|index| Key::new(client, index)).collect();
            Client { random: random.fork(), keys, is_versioned, len: sizes.len }
        })
        .collect();
    for phase in 0..sizes.phases {
        if phase > 0 {
            node.stop();
            node.start();
        }
        let shared = Shared { node: &node, marker, marks: &marks };
        thread::scope(|scope| {
            for client in &mut clients {
                let shared = &shared;
                scope.spawn(move || (0..sizes.operations).for_each(|_| client.operate(shared)));
            }
        });
    }
    node.stop();
    clients.into_iter().flat_map(|client| client.keys).collect()
}
