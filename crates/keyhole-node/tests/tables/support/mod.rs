//! A node in memory, and connections to it.

mod connection;
mod host;
mod remote;
mod state;
mod stream;

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use keyhole_core::aead::Portable;
use keyhole_log::limits::SEGMENTS_START;
use keyhole_log::{CheckOptions, CheckReport, Format, Log, OpenOptions, Store, create, maintenance, open, worker};
use keyhole_node::{
    AccessKey, AccessTable, Config, Exchange, Fault, FaultKind, Grant, Host, Node, Observer, OwnPolicy, Pass, Platform,
    PolicyDefaults, Right, SealedObject, Share, TrustedProxies,
};
use keyhole_s3::ErrorCode;
use keyhole_s3::auth::SecretKey;
use keyhole_s3::ops::HostNames;
use keyhole_sim::disk::{Faults, Medium, SimDisk};
use keyhole_sim::executor::{Clock, Executor, Stop};
use keyhole_sim::random::Random;
use keyhole_tests::form::Form;
use keyhole_tests::sigv4::Signer;
use keyhole_tests::{CustomerKey, Request, Response};

pub(crate) use connection::Connection;
use host::FixedHost;
use remote::MemoryRemote;
pub(crate) use state::State;
pub(crate) use stream::End;
use stream::{MemoryStream, Pipe};

/// The time of the node's clock and of all requests: 2026-01-01T00:00:00Z.
pub(crate) const NOW_MS: u64 = 1_767_225_600_000;

const SEGMENT_LEN: u64 = 16 << 20;
const SEGMENTS: u64 = 24;

/// The bucket that every node has.
pub(crate) const BUCKET: &str = "bucket";

/// The platform of the tests.
pub(crate) struct Memory;

impl Platform for Memory {
    type Disk = SimDisk;
    type Engine = Portable;
    type Stream = MemoryStream;
}

/// The status and the operation of a request.
type Event = (u16, Option<&'static str>);

/// The part of a request's event that the audit log is made of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct AuditEvent {
    pub(crate) operation: Option<&'static str>,
    pub(crate) key: Option<String>,
    pub(crate) is_sealed: bool,
    pub(crate) is_unauthenticated: bool,
    pub(crate) sealed_objects: Vec<SealedObject>,
    pub(crate) status: u16,
    pub(crate) error: Option<ErrorCode>,
}

/// Collects the outcome of each request.
#[derive(Clone, Default)]
struct Events(Arc<Mutex<Collected>>);

#[derive(Default)]
struct Collected {
    requests: Vec<Event>,
    audit: Vec<AuditEvent>,
    faults: Vec<(FaultKind, Option<String>)>,
}

impl Observer for Events {
    fn finished(&self, exchange: &Exchange<'_>) {
        let mut collected = self.0.lock().unwrap();
        collected.requests.push((exchange.status, exchange.operation));
        collected.audit.push(AuditEvent {
            operation: exchange.operation.or(exchange.claimed_operation),
            key: exchange.key.map(str::to_owned),
            is_sealed: exchange.sse_c,
            is_unauthenticated: exchange.is_unauthenticated,
            sealed_objects: exchange.sealed_objects.to_vec(),
            status: exchange.status,
            error: exchange.error,
        });
    }

    fn fault(&self, fault: &Fault<'_>) {
        self.0.lock().unwrap().faults.push((fault.kind, fault.key.map(str::to_owned)));
    }
}

/// A node with one bucket and an administrator's access key.
pub(crate) struct MemoryNode {
    executor: RefCell<Executor>,
    node: Rc<Node<Memory>>,
    pub(crate) log: Log<SimDisk>,
    /// The remote that has the bytes of evicted objects.
    pub(crate) remote: Arc<MemoryRemote>,
    config: Arc<Config>,
    events: Events,
    keys: RefCell<Vec<(String, Vec<Grant>)>>,
    /// Whether new connections admit customer keys.
    is_secure: Cell<bool>,
    medium: Arc<Medium>,
}

/// A machine without a node: a clock, tasks, and a medium.
struct Machine {
    executor: Executor,
    clock: Rc<Clock>,
    random: Random,
    medium: Arc<Medium>,
    disk: Rc<SimDisk>,
}

impl Machine {
    /// Creates a machine whose medium has this content.
    fn new(content: &[u8]) -> Self {
        let clock = Rc::new(Clock::default());
        let mut random = Random::new(1);
        let medium = Medium::new(random.fork(), Faults::none());
        if !content.is_empty() {
            medium.set_content(content);
        }
        let disk = Rc::new(SimDisk::new(&medium, &clock));
        let executor = Executor::new(clock.clone(), random.fork());
        Machine { executor, clock, random, medium, disk }
    }

    fn run<T: 'static>(&mut self, future: impl Future<Output = T> + 'static) -> T {
        let result = self.executor.spawn(future);
        assert_eq!(self.executor.run(|| false, || result.borrow().is_some()), Stop::Done);
        let value = result.borrow_mut().take();
        value.expect("a result")
    }
}

/// Verifies a medium with this content offline.
pub(crate) fn check(content: &[u8]) -> Result<CheckReport, keyhole_log::Error> {
    let mut machine = Machine::new(content);
    let disk = machine.disk.clone();
    machine.run(keyhole_log::check(disk, CheckOptions::default()))
}

impl MemoryNode {
    /// Starts a node on an empty medium and creates the bucket.
    pub(crate) fn new() -> Self {
        Self::with_segments(SEGMENT_LEN, SEGMENTS)
    }

    /// Starts a node on an empty medium of so many segments of this length, and creates the bucket.
    pub(crate) fn with_segments(segment_len: u64, segments: u64) -> Self {
        Self::with_store(segment_len, segments, true)
    }

    /// Starts a node whose buckets cannot have versioning, and creates the bucket.
    pub(crate) fn without_versions() -> Self {
        Self::with_store(SEGMENT_LEN, SEGMENTS, false)
    }

    fn with_store(segment_len: u64, segments: u64, has_versions: bool) -> Self {
        let mut machine = Machine::new(&[]);
        let disk = machine.disk.clone();
        let store = machine.run(async move {
            let capacity = SEGMENTS_START + segments * segment_len;
            let format = Format { store_id: [7; 16], capacity, segment_len, created_ms: NOW_MS };
            create(&*disk, &format).await.unwrap();
            open(&*disk, OpenOptions::default()).await.unwrap().0
        });
        let node = Self::start(machine, store, has_versions);
        node.make_bucket(BUCKET);
        node
    }

    /// Starts a node on a medium with this content.
    pub(crate) fn open(content: &[u8]) -> Result<Self, keyhole_log::Error> {
        let mut machine = Machine::new(content);
        let disk = machine.disk.clone();
        let store = machine.run(async move { open(&*disk, OpenOptions::default()).await })?.0;
        Ok(Self::start(machine, store, true))
    }

    /// Returns the content of the medium.
    pub(crate) fn content(&self) -> Vec<u8> {
        self.medium.content()
    }

    /// Starts a node with an administrator's access key.
    fn start(machine: Machine, store: Arc<Store>, has_versions: bool) -> Self {
        let Machine { mut executor, clock, mut random, medium, disk } = machine;
        let (log, writer) = worker(store.clone(), disk.clone());
        executor.spawn(writer.run());
        let (maintenance, writer) = maintenance(store, disk);
        executor.spawn(writer.run());
        executor.spawn(maintenance.run());
        let events = Events::default();
        let remote = Arc::new(MemoryRemote::default());
        let config = Arc::new(Config {
            region: "us-east-1".to_owned(),
            host_names: HostNames::new(["s3.example".to_owned()]),
            access: ArcSwap::from_pointee(AccessTable::default()),
            defaults: PolicyDefaults::default(),
            observer: Box::new(events.clone()),
            proxies: TrustedProxies::default(),
            share: Share::MIN,
            evicted: Some(remote.clone()),
            has_versions,
        });
        let host = Host::new(FixedHost::new(clock, random.fork()));
        let node = Node::new(config.clone(), log.clone(), Portable, host);
        let node = MemoryNode {
            executor: RefCell::new(executor),
            node,
            log,
            remote,
            config,
            events,
            keys: RefCell::default(),
            is_secure: Cell::new(true),
            medium,
        };
        node.add_key("ADMIN", vec![Grant::all()]);
        node
    }

    pub(crate) fn make_bucket(&self, name: &str) {
        self.send(&Request::new("PUT", &format!("/{name}"))).expect(200);
    }

    /// Returns the signer of the administrator's access key.
    pub(crate) fn signer(&self) -> Signer {
        signer("ADMIN")
    }

    /// Adds an access key with grants of these rights on `BUCKET/PREFIX` patterns.
    pub(crate) fn add_grants(&self, id: &str, grants: &[(&str, &str, &[Right])]) -> Signer {
        let grant = |(bucket, prefix, rights): &(&str, &str, &[Right])| Grant {
            bucket: (*bucket).to_owned(),
            prefix: (*prefix).to_owned(),
            rights: rights.iter().copied().collect(),
        };
        self.add_key(id, grants.iter().map(grant).collect());
        signer(id)
    }

    fn add_key(&self, id: &str, grants: Vec<Grant>) {
        self.keys.borrow_mut().push((id.to_owned(), grants));
        let keys = self.keys.borrow();
        let table = keys.iter().map(|(id, grants)| AccessKey {
            id: id.clone(),
            secret: SecretKey::new(secret(id)),
            grants: grants.clone(),
            expires_ms: None,
        });
        self.config.access.store(Arc::new(table.collect()));
    }

    /// Sets the bucket's own policy.
    pub(crate) fn set_policy(&self, policy: OwnPolicy) {
        let log = self.log.clone();
        self.run(async move {
            let change = |settings: &mut keyhole_log::BucketSettings| {
                settings.policy = policy.encode();
                Ok::<(), keyhole_log::Error>(())
            };
            log.change_bucket(BUCKET, NOW_MS, change).await.unwrap();
        });
    }

    /// Runs an expiration pass at this time.
    pub(crate) fn expire_at(&self, now_ms: u64) -> Pass {
        let log = self.log.clone();
        let host = Host::new(FixedHost::at(now_ms, Rc::default(), Random::new(1)));
        self.run(async move { keyhole_node::expire(&log, &host, |_, _| {}).await.expect("a pass") })
    }

    /// Sets whether new connections admit customer keys.
    pub(crate) fn set_secure(&self, is_secure: bool) {
        self.is_secure.set(is_secure);
    }

    /// Opens a connection.
    pub(crate) fn connect(&self) -> Connection<'_> {
        let pipe = Rc::new(Pipe::new(self.is_secure.get()));
        let node = self.node.clone();
        let stream = MemoryStream::new(pipe.clone());
        self.executor.borrow_mut().spawn(async move { node.serve(stream).await });
        Connection::new(self, pipe)
    }

    /// Runs the node until a condition holds. Panics if it never does.
    pub(crate) fn run_until(&self, done: impl Fn() -> bool) {
        let stop = self.executor.borrow_mut().run(|| false, done);
        assert_eq!(stop, Stop::Done, "the node waits for more bytes");
    }

    /// Runs the node until it waits for clients alone.
    pub(crate) fn run_until_blocked(&self) {
        assert_eq!(self.executor.borrow_mut().run(|| false, || false), Stop::Stalled);
    }

    pub(crate) fn run<T: 'static>(&self, future: impl Future<Output = T> + 'static) -> T {
        let result = self.executor.borrow_mut().spawn(future);
        self.run_until(|| result.borrow().is_some());
        let value = result.borrow_mut().take();
        value.expect("a result")
    }

    /// Sends a request, signed by the administrator.
    pub(crate) fn send(&self, request: &Request) -> Response {
        self.send_as(&self.signer(), request)
    }

    /// Sends a request signed with another access key.
    pub(crate) fn send_as(&self, signer: &Signer, request: &Request) -> Response {
        self.send_unsigned(&self.signed(signer, request))
    }

    /// Signs a request with the node's time.
    pub(crate) fn signed(&self, signer: &Signer, request: &Request) -> Request {
        request.clone().dated(NOW_MS as i64).signed(address(), signer)
    }

    /// Sends a request as it is, over a connection of its own.
    pub(crate) fn send_unsigned(&self, request: &Request) -> Response {
        let mut connection = self.connect();
        request.exchange(&mut connection, &request.head(address())).expect("a response")
    }

    /// Sends a signed form.
    pub(crate) fn send_form(&self, form: Form) -> Response {
        self.send_unsigned(&form.signed(&self.signer(), NOW_MS as i64).request())
    }

    /// Creates an upload and returns its id.
    pub(crate) fn create_upload(&self, request: Request) -> String {
        self.send(&request.query("uploads", "")).expect(200).element("UploadId").expect("an upload id")
    }

    /// Returns the status and the operation of the last request.
    pub(crate) fn last_event(&self) -> Event {
        *self.events.0.lock().unwrap().requests.last().expect("a request")
    }

    /// Returns the audit event of the last request.
    pub(crate) fn last_audit(&self) -> AuditEvent {
        self.events.0.lock().unwrap().audit.last().expect("a request").clone()
    }

    /// Returns the kind and the key of each fault so far.
    pub(crate) fn faults(&self) -> Vec<(FaultKind, Option<String>)> {
        self.events.0.lock().unwrap().faults.clone()
    }
}

/// Returns the address in the `Host` header of requests.
pub(crate) fn address() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 9000))
}

fn secret(id: &str) -> String {
    format!("the secret of {id}")
}

fn signer(id: &str) -> Signer {
    Signer { access_key: id.to_owned(), secret_key: secret(id), region: "us-east-1".to_owned() }
}

/// Returns a request for an object in [`BUCKET`] with a customer key.
pub(crate) fn keyed(method: &str, name: &str, key: &CustomerKey) -> Request {
    keyhole_tests::http::object(method, name).headers(key.headers())
}

/// Returns the request to complete an upload of one part.
pub(crate) fn completion(name: &str, id: &str, etag: &str) -> Request {
    let part = format!("<Part><PartNumber>1</PartNumber><ETag>{etag}</ETag></Part>");
    let document = format!("<CompleteMultipartUpload>{part}</CompleteMultipartUpload>");
    keyhole_tests::http::object("POST", name).query("uploadId", id).body(document)
}

/// Returns the request of part 1 of an upload.
pub(crate) fn first_part(request: Request, id: &str) -> Request {
    request.query("partNumber", "1").query("uploadId", id)
}

#[track_caller]
pub(crate) fn assert_error(response: &Response, status: u16, code: &str) {
    assert_eq!(response.status, status, "{}", response.text());
    if !response.body.is_empty() {
        assert_eq!(response.element("Code").as_deref(), Some(code), "{}", response.text());
    }
}

#[track_caller]
pub(crate) fn assert_denied(response: &Response, words: &str) {
    assert_error(response, 403, "AccessDenied");
    assert!(response.text().contains(words), "{}", response.text());
}
