//! Clients that put, overwrite, delete and read, and remember what they were told.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use fastrand::Rng;
use keyhole_tests::data::bytes;
use keyhole_tests::sigv4::Signer;
use keyhole_tests::{CustomerKey, Node, Request, Response};

/// Names that each client writes again and again.
const NAMES: usize = 10;

/// The least length of a part that is not the last (S3).
const PART_LEN: usize = 5 << 20;

/// What a request is charged besides its body: about what it takes in the log.
const REQUEST_COST: u64 = 8 << 10;

/// How far a crash is, as the clients see it: each becomes true at its time and stays so.
#[derive(Default)]
pub(crate) struct Stage {
    /// Requests may fail.
    pub(crate) crashing: AtomicBool,
    /// The power is being cut: what is acknowledged now is in doubt. A cut is not a single moment in the kernel as it is on
    /// a real machine: an fdatasync that is under way may succeed although the journal is gone before its data is there
    /// (ext4 drops the error of the conversion of unwritten extents; plain pwrite and fdatasync show it).
    pub(crate) cutting: AtomicBool,
    /// The power is cut: nothing that is sent now can be made durable.
    pub(crate) cut: AtomicBool,
    /// There is nobody to ask.
    pub(crate) gone: AtomicBool,
}

fn is(stage: &AtomicBool) -> bool {
    stage.load(Ordering::SeqCst)
}

/// A node under load.
pub(crate) struct Target {
    pub(crate) to: SocketAddr,
    pub(crate) signer: Signer,
    pub(crate) stage: Stage,
    /// The bytes that clients have sent.
    pub(crate) work: AtomicU64,
}

impl Target {
    pub(crate) fn new(node: &Node) -> Self {
        let (stage, work) = Default::default();
        Target { to: node.address(), signer: node.signer().clone(), stage, work }
    }

    /// The reply of one of these statuses; none where the crash took it, and whatever was asked for is in doubt. Before
    /// the crash there are no other replies.
    fn ask(&self, request: Request, body: Vec<u8>, statuses: &[u16]) -> Option<Response> {
        self.work.fetch_add(REQUEST_COST + body.len() as u64, Ordering::Relaxed);
        let was_cut = is(&self.stage.cut);
        let stores = !body.is_empty();
        let reply = request.body(body).signed(self.to, &self.signer).try_send_unsigned(self.to);
        let is_whole = |reply: &Response| statuses.contains(&reply.status) && reply.is_complete;
        let is_good = reply.as_ref().is_ok_and(is_whole);
        assert!(!(is_good && stores && was_cut), "{reply:?} to what was sent after the power was cut");
        assert!(is_good || is(&self.stage.crashing), "{reply:?} before the crash");
        reply.ok().filter(|_| is_good && !is(&self.stage.cutting))
    }
}

/// One object that a client makes. Everything about it follows from this.
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

    /// The headers that put it or get it: every sealed object has a key of its own.
    fn headers(self) -> Vec<(String, String)> {
        let key = bytes(!self.seed, 32).try_into().expect("32 bytes");
        if self.is_sealed { CustomerKey(key).headers().to_vec() } else { Vec::new() }
    }
}

/// A name, with the object that it is known to have, and the one that it will have if a request that nobody answered was
/// carried out.
struct Name {
    name: String,
    settled: Option<Object>,
    in_doubt: Option<Option<Object>>,
}

/// A multipart upload that is not complete, with the ETags of the parts that were acknowledged.
struct Upload {
    name: usize,
    id: String,
    object: Object,
    etags: Vec<String>,
}

/// One client, with names that nobody else writes.
pub(crate) struct Client {
    bucket: String,
    random: Rng,
    names: Vec<Name>,
    uploads: Vec<Upload>,
    pub(crate) acknowledged: u64,
    /// Carried out without an acknowledgement.
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
        while !is(&target.stage.gone) {
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

    /// An object of up to some MiB, with lengths about the borders of the log's blocks and of what it keeps in records.
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

    /// Asks for a change of a name: either it is acknowledged, or it is in doubt.
    fn change(&mut self, target: &Target, request: Request, body: Vec<u8>, name: usize, to: Option<Object>) {
        let name = &mut self.names[name];
        name.in_doubt = Some(to);
        if target.ask(request, body, &[200, 204]).is_some() {
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
        let Some(reply) = target.ask(self.request("GET", name).headers(headers), Vec::new(), &[200, 404]) else {
            return;
        };
        let found = (reply.status == 200).then_some(&reply.body);
        assert!(found == object.map(Object::contents).as_ref(), "{}: {object:?}", self.names[name].name);
    }

    /// A multipart upload, of one part mostly. Some are left open until after the crash.
    fn upload(&mut self, target: &Target, name: usize) {
        let mut object = Object { len: self.random.usize(1..400_000), ..self.new_object() };
        if self.random.u8(..8) == 0 {
            object.len += PART_LEN;
        }
        let create = self.request("POST", name).query("uploads", "").headers(object.headers());
        let Some(reply) = target.ask(create, Vec::new(), &[200]) else { return };
        let id = reply.element("UploadId").expect("an upload has an id");
        let mut upload = Upload { name, id, object, etags: Vec::new() };
        let is_whole = self.parts(&mut upload, |request, body| target.ask(request, body, &[200]));
        if is_whole && self.random.u8(..4) > 0 {
            let (request, body) = self.complete(&upload);
            self.change(target, request, body, name, Some(object));
        } else {
            self.uploads.push(upload);
        }
    }

    /// Uploads the parts that were not acknowledged; whether all are now.
    fn parts(&self, upload: &mut Upload, ask: impl Fn(Request, Vec<u8>) -> Option<Response>) -> bool {
        let contents = upload.object.contents();
        for (index, part) in contents.chunks(PART_LEN).enumerate().skip(upload.etags.len()) {
            let request = self.request("PUT", upload.name).headers(upload.object.headers());
            let request = request.query("partNumber", &(index + 1).to_string()).query("uploadId", &upload.id);
            let Some(reply) = ask(request, part.to_vec()) else { return false };
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

    /// Whether a name has this object, whole, or none.
    fn holds(&self, node: &Node, name: usize, object: Option<Object>) -> Result<(), String> {
        let headers = object.map(Object::headers).unwrap_or_default();
        let reply = node.send(&self.request("GET", name).headers(headers));
        let is_so = match object {
            Some(object) => reply.status == 200 && reply.is_complete && reply.body == object.contents(),
            None => reply.status == 404,
        };
        let found = || {
            let code = reply.element("Code").unwrap_or_default();
            format!("not {object:?}: {} {code} with {} bytes", reply.status, reply.body.len())
        };
        if is_so { Ok(()) } else { Err(found()) }
    }

    /// After a crash: what was acknowledged and is not there, or not whole. What was in doubt is settled.
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
            && self.holds(node, index, object).is_ok()
        {
            self.unanswered += 1;
            self.names[index].settled = object;
            return Ok(());
        }
        let name = &self.names[index];
        self.holds(node, index, name.settled).map_err(|error| format!("{}: {error}", name.name))
    }

    /// Completes an upload with the parts that were acknowledged before the crash, and those that were not.
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

    /// The names that have objects.
    pub(crate) fn existing(&self) -> BTreeSet<String> {
        self.names.iter().filter(|name| name.settled.is_some()).map(|name| name.name.clone()).collect()
    }
}
