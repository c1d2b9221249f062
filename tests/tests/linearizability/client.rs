//! Clients that change and read the same keys, and record the outcomes.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use keyhole_tests::data::{bytes, md5};
use keyhole_tests::http::element;
use keyhole_tests::linearizability::Call;
use keyhole_tests::sigv4::Signer;
use keyhole_tests::{CustomerKey, Request, Response};

use crate::model::{Condition, Listed, Operation, Token};

/// Lengths of bodies: inline, in a block, at the limit of a block, and above.
const LENS: [usize; 6] = [8, 1000, 40_000, 65_536, 70_000, 1_100_000];

/// Versions of a key that clients keep, about.
const VERSIONS: usize = 6;

/// Pause before a request is sent again.
const PAUSE: Duration = Duration::from_millis(20);

/// Percentage of operations that a deliberate defect affects.
const DEFECTIVE: u8 = 20;

/// A deliberate defect between the clients and the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Defect {
    /// Reads return the first content of a key that was ever read.
    StaleReads,
    /// Writes are acknowledged and not sent.
    LostUpdates,
}

/// A key that several clients use.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) name: String,
    pub(crate) is_sealed: bool,
    pub(crate) is_versioned: bool,
}

impl Key {
    fn request(&self, method: &str) -> Request {
        let bucket = if self.is_versioned { "versions" } else { "bucket" };
        Request::new(method, &format!("/{bucket}/{}", self.name))
    }
}

/// The operations of a key, in the order of their returns at each client.
pub(crate) type Calls = Vec<(Key, Call<Operation>)>;

/// The shared state of the clients of a history.
pub(crate) struct History {
    pub(crate) defect: Option<Defect>,
    customer_key: CustomerKey,
    begun: Instant,
    tokens: AtomicU64,
    known: Mutex<Known>,
}

/// ETags and version ids that replies have shown.
#[derive(Default)]
struct Known {
    etags: HashMap<String, Token>,
    /// Version ids of contents and markers.
    ids: HashMap<Token, String>,
    /// The first content that was read of each key.
    first_read: HashMap<Key, Token>,
    /// Contents and markers with ids, by key.
    versions: HashMap<Key, Vec<Token>>,
}

impl History {
    pub(crate) fn new(defect: Option<Defect>) -> Self {
        History {
            defect,
            customer_key: CustomerKey::random(),
            begun: Instant::now(),
            tokens: AtomicU64::new(1),
            known: Mutex::default(),
        }
    }

    /// Returns the time of the history in ns.
    pub(crate) fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_nanos()).expect("a short history")
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn token(&self) -> Token {
        self.tokens.fetch_add(1, Ordering::Relaxed)
    }
}

/// Returns the content of a token, which begins with it.
fn content(token: Token) -> Vec<u8> {
    let len = LENS[(token % LENS.len() as u64) as usize];
    [&token.to_le_bytes()[..], &bytes(token, len - 8)].concat()
}

/// Returns the token of a content.
fn token_of(body: &[u8]) -> Token {
    let token = Token::from_le_bytes(body[..8].try_into().expect("a content has 8 bytes"));
    assert!(content(token) == body, "a body of {} bytes is not a content", body.len());
    token
}

/// A client, from a start of the node to its end.
pub(crate) struct Client<'h> {
    pub(crate) history: &'h History,
    pub(crate) to: SocketAddr,
    pub(crate) signer: Signer,
    pub(crate) keys: &'h [Key],
    /// The node may be gone.
    pub(crate) is_ending: &'h AtomicBool,
    pub(crate) random: Rng,
    pub(crate) calls: Calls,
}

impl Client<'_> {
    /// Sends requests until the node ends.
    pub(crate) fn run(mut self) -> Calls {
        while !self.is_ending.load(Ordering::SeqCst) {
            let key = self.random.choice(self.keys).expect("keys").clone();
            match self.random.u8(..16) {
                0..=4 => self.put(&key),
                5 => self.complete(&key),
                6 | 7 => self.delete(&key),
                8 | 9 if key.is_versioned => self.delete_version(&key),
                10 if key.is_versioned => self.read_version(&key),
                11..=13 => self.list(&key),
                _ => self.read(&key),
            }
        }
        self.calls
    }

    fn chance(&mut self, percent: u8) -> bool {
        self.random.u8(..100) < percent
    }

    /// Sends a request, again after a 503, which has no effect. Returns the time of the call and the reply, or
    /// `None` if the node ended first.
    fn send(&self, request: Request) -> (u64, Option<Response>) {
        let begun = self.history.now();
        loop {
            let signed = request.clone().signed(self.to, &self.signer);
            let reply = signed.try_send_unsigned(self.to).ok().filter(|reply| reply.is_complete);
            let is_ending = self.is_ending.load(Ordering::SeqCst);
            assert!(reply.is_some() || is_ending, "no reply while the node runs");
            match reply {
                Some(reply) if reply.status == 503 && !is_ending => thread::sleep(PAUSE),
                reply => return (begun, reply.filter(|reply| reply.status < 500 || !is_ending)),
            }
        }
    }

    fn headers(&self, key: &Key) -> Vec<(String, String)> {
        if key.is_sealed { self.history.customer_key.headers().to_vec() } else { Vec::new() }
    }

    fn record(&mut self, key: &Key, begun: u64, operation: Operation) {
        let ended = self.history.now();
        self.calls.push((key.clone(), Call { operation, begun, ended, is_certain: true }));
    }

    /// Records a change without a reply: it may happen until the node is gone.
    fn record_in_doubt(&mut self, key: &Key, begun: u64, operation: Operation) {
        self.calls.push((key.clone(), Call { operation, begun, ended: u64::MAX, is_certain: false }));
    }

    /// Chooses a condition and its header. Writes of versions have none: the node decides a condition when it
    /// accepts the write, and a deletion of that version which it accepts later can become visible first.
    fn condition(&mut self, key: &Key) -> (Condition, Option<(&'static str, String)>) {
        match self.random.u8(..4) {
            _ if key.is_versioned => (Condition::None, None),
            0 => (Condition::Absent, Some(("if-none-match", "*".to_owned()))),
            1 => {
                // A content that was read or written last.
                let known = self.history.known();
                let Some((etag, token)) = known.etags.iter().max_by_key(|(_, token)| **token) else {
                    return (Condition::None, None);
                };
                (Condition::Match(*token), Some(("if-match", etag.clone())))
            }
            _ => (Condition::None, None),
        }
    }

    fn put(&mut self, key: &Key) {
        let token = self.history.token();
        let (condition, header) = self.condition(key);
        if self.history.defect == Some(Defect::LostUpdates) && condition == Condition::None && self.chance(DEFECTIVE) {
            let begun = self.history.now();
            return self.record(key, begun, Operation::Put(token, condition));
        }
        let body = content(token);
        if !key.is_sealed {
            self.history.known().etags.insert(format!("\"{}\"", hex::encode(md5(&body))), token);
        }
        let request = key.request("PUT").headers(self.headers(key)).headers(header).body(body);
        self.change(key, request, Operation::Put(token, condition), token, condition);
    }

    /// Completes an upload of one part.
    fn complete(&mut self, key: &Key) {
        let token = self.history.token();
        let (condition, header) = self.condition(key);
        let create = key.request("POST").query("uploads", "").headers(self.headers(key));
        let Some(id) = self.send(create).1.map(|reply| reply.expect(200).element("UploadId").expect("an id")) else {
            return;
        };
        let body = content(token);
        let digest = md5(&md5(&body));
        let part = key.request("PUT").query("partNumber", "1").query("uploadId", &id).headers(self.headers(key));
        let Some(part) = self.send(part.body(body)).1 else { return };
        let etag = part.expect(200).header("etag").expect("an ETag").to_owned();
        if !key.is_sealed {
            self.history.known().etags.insert(format!("\"{}-1\"", hex::encode(digest)), token);
        }
        let document = format!(
            "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>{etag}</ETag></Part></CompleteMultipartUpload>"
        );
        let request = key.request("POST").query("uploadId", &id).headers(header).body(document);
        self.change(key, request, Operation::Put(token, condition), token, condition);
    }

    /// Sends a change and records its outcome.
    fn change(&mut self, key: &Key, request: Request, operation: Operation, token: Token, condition: Condition) {
        let (begun, reply) = self.send(request);
        let Some(reply) = reply else { return self.record_in_doubt(key, begun, operation) };
        match (reply.status, condition) {
            (200 | 204, _) => {
                self.learn(key, &reply, token);
                self.record(key, begun, operation);
            }
            (412, _) => self.record(key, begun, Operation::Refused(condition)),
            (404, Condition::Match(_)) => self.record(key, begun, Operation::Missing),
            // Another change of the key was in progress: this one has no effect.
            (409, _) => {}
            _ => panic!("{operation:?} of {key:?}: {} {}", reply.status, reply.text()),
        }
    }

    /// Takes note of the ETag and the version id of a new content or marker.
    fn learn(&self, key: &Key, reply: &Response, token: Token) {
        let mut known = self.history.known();
        let etag = reply.header("etag").map(str::to_owned).or_else(|| reply.element("ETag"));
        if let Some(etag) = etag {
            known.etags.insert(etag, token);
        }
        if let Some(id) = reply.header("x-amz-version-id").filter(|_| key.is_versioned) {
            known.ids.insert(token, id.to_owned());
            known.versions.entry(key.clone()).or_default().push(token);
        }
    }

    fn delete(&mut self, key: &Key) {
        let token = self.history.token();
        self.change(key, key.request("DELETE"), Operation::Delete(token), token, Condition::None);
    }

    fn read(&mut self, key: &Key) {
        let (begun, reply) = self.send(key.request("GET").headers(self.headers(key)));
        let Some(reply) = reply else { return };
        let mut found = match reply.status {
            200 => Some(token_of(&reply.body)),
            404 => None,
            status => panic!("a read of {key:?}: {status} {}", reply.text()),
        };
        if let Some(token) = found {
            let etag = reply.header("etag").expect("an ETag").to_owned();
            let first = {
                let mut known = self.history.known();
                known.etags.insert(etag, token);
                *known.first_read.entry(key.clone()).or_insert(token)
            };
            if self.history.defect == Some(Defect::StaleReads) && self.chance(DEFECTIVE) {
                found = Some(first);
            }
        }
        self.record(key, begun, Operation::Read(found));
    }

    /// Chooses a version whose id is known.
    fn version(&mut self, key: &Key) -> Option<(Token, String)> {
        let known = self.history.known();
        let token = *self.random.choice(known.versions.get(key)?)?;
        Some((token, known.ids[&token].clone()))
    }

    fn delete_version(&mut self, key: &Key) {
        let count = self.history.known().versions.get(key).map_or(0, Vec::len);
        if count <= VERSIONS {
            return self.read_version(key);
        }
        let Some((token, id)) = self.version(key) else { return };
        let (begun, reply) = self.send(key.request("DELETE").query("versionId", &id));
        let operation = Operation::DeleteVersion(token);
        match reply {
            None => self.record_in_doubt(key, begun, operation),
            // Another change of the version was in progress.
            Some(reply) if reply.status == 409 => {}
            Some(reply) => {
                reply.expect(204);
                self.record(key, begun, operation);
                if let Some(versions) = self.history.known().versions.get_mut(key) {
                    versions.retain(|other| *other != token);
                }
            }
        }
    }

    fn read_version(&mut self, key: &Key) {
        let Some((token, id)) = self.version(key) else { return };
        let (begun, reply) = self.send(key.request("GET").query("versionId", &id).headers(self.headers(key)));
        let Some(reply) = reply else { return };
        let is_found = match reply.status {
            200 => {
                assert_eq!(token_of(&reply.body), token, "{key:?}, version {id}");
                true
            }
            // A delete marker.
            405 => true,
            404 => false,
            status => panic!("a read of version {id} of {key:?}: {status} {}", reply.text()),
        };
        self.record(key, begun, Operation::ReadVersion(token, is_found));
    }

    /// Lists the object, or the versions of the key.
    fn list(&mut self, key: &Key) {
        let bucket = if key.is_versioned { "/versions" } else { "/bucket" };
        let kind = if key.is_versioned { ("versions", "") } else { ("list-type", "2") };
        let (begun, reply) = self.send(Request::new("GET", bucket).query(kind.0, kind.1).query("prefix", &key.name));
        let Some(reply) = reply else { return };
        let ended = self.history.now();
        let text = reply.expect(200).text();
        let mut listed = Vec::new();
        for entry in text.split("<Key>").skip(1) {
            let id = element(entry, "VersionId");
            let token = match element(entry, "ETag") {
                None => {
                    let known = self.history.known();
                    let marker = known.ids.iter().find(|(_, known)| Some(*known) == id.as_ref());
                    listed.push(Listed::Marker(marker.map(|(token, _)| *token)));
                    continue;
                }
                Some(etag) => self.history.known().etags.get(&etag).copied(),
            };
            // The ETag of a sealed object is unknown if the reply to its write was lost.
            match token.or_else(|| self.token_of_version(key, id.as_deref())) {
                Some(token) => listed.push(Listed::Content(token)),
                None => return,
            }
        }
        let operation = if key.is_versioned {
            Operation::List(listed)
        } else {
            let content = |listed: &Listed| match listed {
                Listed::Content(token) => Some(*token),
                Listed::Marker(_) => None,
            };
            Operation::Read(listed.first().and_then(content))
        };
        self.calls.push((key.clone(), Call { operation, begun, ended, is_certain: true }));
    }

    /// Reads an object or a version, to learn its ETag. Returns its token, if it still exists.
    fn token_of_version(&self, key: &Key, id: Option<&str>) -> Option<Token> {
        let request = key.request("GET").headers(self.headers(key));
        let request = if let Some(id) = id { request.query("versionId", id) } else { request };
        let reply = self.send(request).1.filter(|reply| reply.status == 200)?;
        let token = token_of(&reply.body);
        self.history.known().etags.insert(reply.header("etag")?.to_owned(), token);
        // A write without versions may have replaced the listed object.
        id.map(|_| token)
    }
}
