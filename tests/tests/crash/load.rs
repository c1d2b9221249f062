//! Clients that put, overwrite, delete and read, and record the acknowledgements.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use fastrand::Rng;
use keyhole_tests::data::bytes;
use keyhole_tests::sigv4::Signer;
use keyhole_tests::{CustomerKey, Node, Request, Response};

/// Number of names that each client rewrites.
const NAMES: usize = 10;

/// Minimum length of a part other than the last (S3).
const PART_LEN: usize = 5 << 20;

/// Estimated space of a request in the log, in addition to its body.
const REQUEST_COST: u64 = 8 << 10;

/// Progress of a crash, shared with the clients: each flag is set once.
#[derive(Default)]
pub(crate) struct CrashProgress {
    /// Requests may fail.
    pub(crate) crashing: AtomicBool,
    /// The power is being cut: acknowledgements are in doubt. The simulated cut is not atomic: an
    /// fdatasync in flight may succeed although its data are lost, because ext4 drops the error of
    /// the conversion of unwritten extents.
    pub(crate) cutting: AtomicBool,
    /// The power is cut: later requests cannot become durable.
    pub(crate) cut: AtomicBool,
    /// The node is gone.
    pub(crate) gone: AtomicBool,
}

fn is_set(flag: &AtomicBool) -> bool {
    flag.load(Ordering::SeqCst)
}

/// A node under load.
pub(crate) struct Target {
    pub(crate) to: SocketAddr,
    pub(crate) signer: Signer,
    pub(crate) progress: CrashProgress,
    /// Bytes sent by the clients.
    pub(crate) work: AtomicU64,
}

impl Target {
    pub(crate) fn new(node: &Node) -> Self {
        let (progress, work) = Default::default();
        Target { to: node.address(), signer: node.signer().clone(), progress, work }
    }

    /// Sends a request and returns the reply, which must have one of these statuses until the crash
    /// begins. Returns `None` if the crash prevented it, and the outcome is in doubt.
    fn send(&self, request: Request, body: Vec<u8>, statuses: &[u16]) -> Option<Response> {
        self.work.fetch_add(REQUEST_COST + body.len() as u64, Ordering::Relaxed);
        let was_cut = is_set(&self.progress.cut);
        let stores = !body.is_empty();
        let reply = request.body(body).signed(self.to, &self.signer).try_send_unsigned(self.to);
        let is_whole = |reply: &Response| statuses.contains(&reply.status) && reply.is_complete;
        let is_good = reply.as_ref().is_ok_and(is_whole);
        assert!(!(is_good && stores && was_cut), "{reply:?} to a write sent after the power was cut");
        assert!(is_good || is_set(&self.progress.crashing), "{reply:?} before the crash");
        reply.ok().filter(|_| is_good && !is_set(&self.progress.cutting))
    }
}

/// An object of a client; the seed determines its content and its key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Object {
    seed: u64,
    len: usize,
    is_sealed: bool,
}

impl Object {
    fn contents(self) -> Vec<u8> {
        bytes(self.seed, self.len)
    }

    /// Returns the headers to put or get it: every sealed object has its own key.
    fn headers(self) -> Vec<(String, String)> {
        let key = bytes(!self.seed, 32).try_into().expect("32 bytes");
        if self.is_sealed { CustomerKey(key).headers().to_vec() } else { Vec::new() }
    }
}

/// A name with its known object, and the one it has if an unanswered request was carried out.
struct Name {
    name: String,
    settled: Option<Object>,
    in_doubt: Option<Option<Object>>,
}

/// An incomplete multipart upload, with the ETags of the acknowledged parts.
struct Upload {
    name: usize,
    id: String,
    object: Object,
    etags: Vec<String>,
}

/// A client with exclusive names.
pub(crate) struct Client {
    bucket: String,
    random: Rng,
    names: Vec<Name>,
    uploads: Vec<Upload>,
    pub(crate) acknowledged: u64,
    /// Requests that were carried out without an acknowledgement.
    pub(crate) unanswered: u64,
}

impl Client {
    pub(crate) fn new(bucket: &str, index: usize, random: Rng) -> Self {
        let names = (0..NAMES).map(|n| Name { name: format!("c{index}-{n}"), settled: None, in_doubt: None }).collect();
        let bucket = bucket.to_owned();
        Client { bucket, random, names, uploads: Vec::new(), acknowledged: 0, unanswered: 0 }
    }

    fn request(&self, method: &str, name: usize) -> Request {
        Request::new(method, &format!("/{}/{}", self.bucket, self.names[name].name))
    }

    /// Sends requests until the node is gone, or every name is in doubt.
    pub(crate) fn run(&mut self, target: &Target) {
        while !is_set(&target.progress.gone) {
            let certain: Vec<usize> = (0..NAMES).filter(|name| self.names[*name].in_doubt.is_none()).collect();
            let Some(&name) = self.random.choice(&certain) else { return };
            match self.random.u8(..16) {
                0..=1 => self.get(target, name),
                2..=3 => self.delete(target, name),
                4..=5 => self.upload(target, name),
                _ => self.put(target, name),
            }
        }
    }

    /// Returns a new object of up to a few MiB, often with a length near a limit of blocks or of
    /// inline bodies.
    fn new_object(&mut self) -> Object {
        let random = &mut self.random;
        let len = match random.u8(..8) {
            0 => 0,
            1 => random.usize(..512),
            2..=3 => random.usize(..40_000),
            4 => (64 << 10) - 20 + random.usize(..40),
            5 => random.usize(..300_000),
            6 => (1 << 20) - 20 + random.usize(..40),
            _ => random.usize(..3 << 20),
        };
        Object { seed: random.u64(..), len, is_sealed: random.u8(..3) > 0 }
    }

    /// Requests a change of a name, which is then acknowledged or in doubt.
    fn change(&mut self, target: &Target, request: Request, body: Vec<u8>, name: usize, to: Option<Object>) {
        let name = &mut self.names[name];
        name.in_doubt = Some(to);
        if target.send(request, body, &[200, 204]).is_some() {
            name.settled = to;
            name.in_doubt = None;
            self.acknowledged += 1;
        }
    }

    fn put(&mut self, target: &Target, name: usize) {
        let object = self.new_object();
        let request = self.request("PUT", name).headers(object.headers());
        self.change(target, request, object.contents(), name, Some(object));
    }

    fn delete(&mut self, target: &Target, name: usize) {
        self.change(target, self.request("DELETE", name), Vec::new(), name, None);
    }

    fn get(&mut self, target: &Target, name: usize) {
        let object = self.names[name].settled;
        let headers = object.map(Object::headers).unwrap_or_default();
        let Some(reply) = target.send(self.request("GET", name).headers(headers), Vec::new(), &[200, 404]) else {
            return;
        };
        let found = (reply.status == 200).then_some(&reply.body);
        assert!(found == object.map(Object::contents).as_ref(), "{}: {object:?}", self.names[name].name);
    }

    /// Runs a multipart upload, mostly of one part. Some uploads stay incomplete until after the
    /// crash.
    fn upload(&mut self, target: &Target, name: usize) {
        let mut object = Object { len: self.random.usize(1..400_000), ..self.new_object() };
        if self.random.u8(..8) == 0 {
            object.len += PART_LEN;
        }
        let create = self.request("POST", name).query("uploads", "").headers(object.headers());
        let Some(reply) = target.send(create, Vec::new(), &[200]) else { return };
        let id = reply.element("UploadId").expect("an upload has an id");
        let mut upload = Upload { name, id, object, etags: Vec::new() };
        let is_whole = self.parts(&mut upload, |request, body| target.send(request, body, &[200]));
        if is_whole && self.random.u8(..4) > 0 {
            let (request, body) = self.complete(&upload);
            self.change(target, request, body, name, Some(object));
        } else {
            self.uploads.push(upload);
        }
    }

    /// Uploads the parts that were not acknowledged, and returns whether all are now.
    fn parts(&self, upload: &mut Upload, send: impl Fn(Request, Vec<u8>) -> Option<Response>) -> bool {
        let contents = upload.object.contents();
        for (index, part) in contents.chunks(PART_LEN).enumerate().skip(upload.etags.len()) {
            let request = self.request("PUT", upload.name).headers(upload.object.headers());
            let request = request.query("partNumber", &(index + 1).to_string()).query("uploadId", &upload.id);
            let Some(reply) = send(request, part.to_vec()) else { return false };
            upload.etags.push(reply.header("etag").expect("a part has an ETag").to_owned());
        }
        true
    }

    fn complete(&self, upload: &Upload) -> (Request, Vec<u8>) {
        let part = |(index, etag)| format!("<Part><PartNumber>{}</PartNumber><ETag>{etag}</ETag></Part>", index + 1);
        let parts: String = upload.etags.iter().enumerate().map(part).collect();
        let document = format!("<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>");
        (self.request("POST", upload.name).query("uploadId", &upload.id), document.into_bytes())
    }

    /// Checks that a name has exactly this object, or none.
    fn check_content(&self, node: &Node, name: usize, object: Option<Object>) -> Result<(), String> {
        let headers = object.map(Object::headers).unwrap_or_default();
        let reply = node.send(&self.request("GET", name).headers(headers));
        let is_expected = match object {
            Some(object) => reply.status == 200 && reply.is_complete && reply.body == object.contents(),
            None => reply.status == 404,
        };
        let found = || {
            let code = reply.element("Code").unwrap_or_default();
            format!("not {object:?}: {} {code} with {} bytes", reply.status, reply.body.len())
        };
        if is_expected { Ok(()) } else { Err(found()) }
    }

    /// Returns the acknowledged changes that a crash lost or damaged, and resolves the changes in
    /// doubt.
    pub(crate) fn check(&mut self, node: &Node) -> Vec<String> {
        let mut lost = Vec::new();
        for index in 0..NAMES {
            lost.extend(self.settle(node, index).err());
        }
        for mut upload in std::mem::take(&mut self.uploads) {
            lost.extend(self.finish(node, &mut upload).err());
        }
        lost
    }

    fn settle(&mut self, node: &Node, index: usize) -> Result<(), String> {
        if let Some(object) = self.names[index].in_doubt.take()
            && self.check_content(node, index, object).is_ok()
        {
            self.unanswered += 1;
            self.names[index].settled = object;
            return Ok(());
        }
        let name = &self.names[index];
        self.check_content(node, index, name.settled).map_err(|error| format!("{}: {error}", name.name))
    }

    /// Completes an upload with the parts from before and after the crash.
    fn finish(&mut self, node: &Node, upload: &mut Upload) -> Result<(), String> {
        let acknowledged = upload.etags.len();
        let name = &self.names[upload.name].name;
        let lost = |reply: &Response| format!("{name}: an upload with {acknowledged} parts: {}", reply.text());
        let listed = node.send(&self.request("GET", upload.name).query("uploadId", &upload.id));
        if listed.status != 200 {
            return Err(lost(&listed));
        }
        self.parts(upload, |request, body| Some(node.send(&request.body(body)).expect(200)));
        let (request, body) = self.complete(upload);
        let completed = node.send(&request.body(body));
        if completed.status != 200 {
            return Err(lost(&completed));
        }
        self.names[upload.name].settled = Some(upload.object);
        self.settle(node, upload.name)
    }

    /// Returns the names that have objects.
    pub(crate) fn existing(&self) -> BTreeSet<String> {
        self.names.iter().filter(|name| name.settled.is_some()).map(|name| name.name.clone()).collect()
    }
}
