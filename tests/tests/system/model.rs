//! Random operations checked against a model, across restarts.

use std::collections::BTreeMap;

use keyhole_tests::data::{base64, bytes, fresh_seed, md5};
use keyhole_tests::http::object;
use keyhole_tests::{CustomerKey, Launch, Node, Request, Response};

/// A few names, so that operations collide; some are prefixes of others.
const NAMES: [&str; 9] = ["a", "a/1", "a/2", "a/2/x", "b", "b/c/d", "b/c/e", "z z+~", "\u{e9}t\u{e9}/\u{1f511}"];
const TURNS: usize = 500;

/// An object that the model expects.
#[derive(Clone)]
struct Object {
    /// Index of the key that it is sealed with.
    key: Option<usize>,
    body: Vec<u8>,
    etag: String,
}

/// An upload in progress.
struct Upload {
    name: &'static str,
    id: String,
    key: Option<usize>,
    /// Number, body and ETag of each part.
    parts: BTreeMap<usize, (Vec<u8>, String)>,
}

/// The condition of a write.
enum Condition {
    None,
    /// `If-None-Match: *`
    Absent,
    /// `If-Match` with the current ETag or another.
    Match(String),
}

/// A node and the state that the model expects of it.
struct ModelRun {
    node: Node,
    random: fastrand::Rng,
    keys: [CustomerKey; 2],
    objects: BTreeMap<&'static str, Object>,
    uploads: Vec<Upload>,
    context: String,
}

/// Returns the texts between two others.
fn between(text: &str, open: &str, close: &str) -> Vec<String> {
    let pieces = text.split(open).skip(1);
    pieces.map(|piece| piece.split(close).next().unwrap().to_owned()).collect()
}

impl ModelRun {
    fn name(&mut self) -> &'static str {
        NAMES[self.random.usize(..NAMES.len())]
    }

    fn key(&mut self) -> Option<usize> {
        [None, Some(0), Some(1)][self.random.usize(..3)]
    }

    fn body(&mut self) -> Vec<u8> {
        let len = [0, 1, 1000, 65_536, 70_000, 1_200_000][self.random.usize(..6)];
        bytes(self.random.u64(..), len)
    }

    fn headers(&self, key: Option<usize>) -> Vec<(String, String)> {
        key.map_or(Vec::new(), |key| self.keys[key].headers().to_vec())
    }

    fn send(&self, request: &Request) -> Response {
        self.node.send(request)
    }

    fn expect(&self, reply: &Response, status: u16) {
        assert_eq!(reply.status, status, "{}: {}", self.context, reply.text());
    }

    /// Chooses a condition for a write of a name, with the status if it is not met.
    fn condition(&mut self, name: &str) -> (Condition, Option<u16>) {
        let there = self.objects.get(name).map(|object| object.etag.clone());
        let other = "\"0123456789abcdef0123456789abcdef\"".to_owned();
        match (self.random.u8(..8), there) {
            (0, there) => (Condition::Absent, there.map(|_| 412)),
            (1, Some(etag)) => (Condition::Match(etag), None),
            (2, there) => (Condition::Match(other), Some(if there.is_some() { 412 } else { 404 })),
            _ => (Condition::None, None),
        }
    }

    fn with(request: Request, condition: &Condition) -> Request {
        match condition {
            Condition::None => request,
            Condition::Absent => request.header("if-none-match", "*"),
            Condition::Match(etag) => request.header("if-match", etag),
        }
    }

    fn put(&mut self) {
        let name = self.name();
        let key = self.key();
        let body = self.body();
        let (condition, refused) = self.condition(name);
        let request = object("PUT", name).headers(self.headers(key)).body(body.clone());
        let reply = self.send(&ModelRun::with(request, &condition));
        self.expect(&reply, refused.unwrap_or(200));
        if refused.is_none() {
            let etag = reply.header("etag").unwrap().to_owned();
            if key.is_none() {
                assert_eq!(etag, format!("\"{}\"", hex::encode(md5(&body))), "{}", self.context);
            }
            self.objects.insert(name, Object { key, body, etag });
        }
    }

    fn get(&mut self) {
        let name = self.name();
        let key = self.key();
        // Use the right key in most cases.
        let there = self.objects.get(name).cloned();
        let key = match &there {
            Some(object) if self.random.u8(..4) > 0 => object.key,
            _ => key,
        };
        let method = if self.random.u8(..4) == 0 { "HEAD" } else { "GET" };
        let mut request = object(method, name).headers(self.headers(key));
        let Some(there) = there else {
            let reply = self.send(&request);
            return self.expect(&reply, 404);
        };
        if key != there.key {
            let reply = self.send(&request);
            return self.expect(&reply, if there.key.is_some() && key.is_some() { 403 } else { 400 });
        }
        let mut status = 200;
        let mut expected = &there.body[..];
        let len = there.body.len();
        match self.random.u8(..6) {
            0 if len > 0 => {
                let first = self.random.usize(..len);
                let last = self.random.usize(first..len + 10);
                request = request.header("range", format!("bytes={first}-{last}"));
                (status, expected) = (206, &there.body[first..=last.min(len - 1)]);
            }
            1 => {
                request = request.header("range", format!("bytes={len}-"));
                (status, expected) = (416, &[]);
            }
            2 => {
                request = request.header("if-none-match", &there.etag);
                (status, expected) = (304, &[]);
            }
            3 => {
                request = request.header("if-match", "\"00000000000000000000000000000000\"");
                (status, expected) = (412, &[]);
            }
            _ => {}
        }
        let reply = self.send(&request);
        self.expect(&reply, status);
        if method == "HEAD" || status > 300 {
            assert!(method == "GET" || reply.body.is_empty(), "{}", self.context);
            return;
        }
        assert!(reply.body == expected, "{}: wrong body", self.context);
        assert_eq!(reply.header("etag"), Some(&there.etag[..]), "{}", self.context);
    }

    fn copy(&mut self) {
        let from = self.name();
        let to = self.name();
        let key = self.key();
        let (condition, refused) = self.condition(to);
        let Some(source) = self.objects.get(from).cloned() else {
            let reply = self.send(&object("PUT", to).header("x-amz-copy-source", "/bucket/never"));
            return self.expect(&reply, 404);
        };
        if from == to && key == source.key {
            // The copy would change nothing.
            return;
        }
        let mut request = object("PUT", to).headers(self.headers(key));
        let encoded = keyhole_tests::sigv4::encode_path(&format!("/bucket/{from}"));
        request = request.header("x-amz-copy-source", encoded);
        if let Some(key) = source.key {
            request = request.headers(self.keys[key].copy_source_headers());
        }
        let reply = self.send(&ModelRun::with(request, &condition));
        self.expect(&reply, refused.unwrap_or(200));
        if refused.is_none() {
            let etag = reply.element("ETag").unwrap();
            self.objects.insert(to, Object { key, body: source.body, etag });
        }
    }

    fn delete(&mut self) {
        let name = self.name();
        let reply = self.send(&object("DELETE", name));
        self.expect(&reply, 204);
        self.objects.remove(name);
    }

    fn delete_many(&mut self) {
        let names = [self.name(), self.name(), self.name()];
        let keys: String = names.iter().map(|name| format!("<Object><Key>{name}</Key></Object>")).collect();
        let document = format!("<Delete>{keys}</Delete>");
        let digest = base64(&md5(document.as_bytes()));
        let request = Request::new("POST", "/bucket").query("delete", "").header("content-md5", digest).body(document);
        let reply = self.send(&request);
        self.expect(&reply, 200);
        assert!(!reply.text().contains("<Error>"), "{}: {}", self.context, reply.text());
        names.iter().for_each(|name| drop(self.objects.remove(name)));
    }

    fn create_upload(&mut self) {
        let name = self.name();
        let key = self.key();
        let reply = self.send(&object("POST", name).query("uploads", "").headers(self.headers(key)));
        self.expect(&reply, 200);
        let id = reply.element("UploadId").unwrap();
        self.uploads.push(Upload { name, id, key, parts: BTreeMap::new() });
    }

    fn upload_part(&mut self) {
        if self.uploads.is_empty() {
            return self.create_upload();
        }
        let at = self.random.usize(..self.uploads.len());
        let number = self.random.usize(1..4);
        // The minimum size of a part other than the last.
        let body = if self.random.bool() { bytes(self.random.u64(..), 5 << 20) } else { self.body() };
        let key = if self.random.u8(..5) == 0 { self.key() } else { self.uploads[at].key };
        let request = object("PUT", self.uploads[at].name)
            .query("partNumber", &number.to_string())
            .query("uploadId", &self.uploads[at].id)
            .headers(self.headers(key))
            .body(body.clone());
        let reply = self.send(&request);
        if key != self.uploads[at].key {
            return self.expect(&reply, 400);
        }
        self.expect(&reply, 200);
        let etag = reply.header("etag").unwrap().to_owned();
        self.uploads[at].parts.insert(number, (body, etag));
    }

    fn end_upload(&mut self) {
        if self.uploads.is_empty() {
            return self.create_upload();
        }
        let at = self.random.usize(..self.uploads.len());
        let name = self.uploads[at].name;
        let key = self.uploads[at].key;
        let id = self.uploads[at].id.clone();
        if self.random.u8(..4) == 0 {
            let reply = self.send(&object("DELETE", name).query("uploadId", &id));
            self.expect(&reply, 204);
            drop(self.uploads.remove(at));
            return;
        }
        let (condition, refused) = self.condition(name);
        let parts = &self.uploads[at].parts;
        let named: String = parts
            .iter()
            .map(|(number, (_, etag))| format!("<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>"))
            .collect();
        let last = parts.keys().last().copied().unwrap_or(0);
        let too_small = parts.iter().any(|(number, (body, _))| *number != last && body.len() < 5 << 20);
        // Errors of the request take precedence over those of the object, which is looked up first
        // nevertheless.
        let refused = match (parts.is_empty(), too_small) {
            (false, false) => refused,
            _ => Some(400),
        };
        let document = format!("<CompleteMultipartUpload>{named}</CompleteMultipartUpload>");
        let request = object("POST", name).query("uploadId", &id).headers(self.headers(key)).body(document);
        let reply = self.send(&ModelRun::with(request, &condition));
        if let Some(status) = refused {
            let is_condition = matches!(reply.status, 404 | 412);
            assert!(reply.status == status || is_condition, "{}: {}", self.context, reply.text());
            return;
        }
        self.expect(&reply, 200);
        let etag = reply.element("ETag").unwrap();
        let body = self.uploads.remove(at).parts.into_values().flat_map(|(body, _)| body).collect();
        self.objects.insert(name, Object { key, body, etag });
    }

    fn list(&mut self) {
        let prefix = ["", "a", "a/", "b/c/", "\u{e9}", "never"][self.random.usize(..6)];
        let delimiter = ["", "/", "c"][self.random.usize(..3)];
        let most = self.random.usize(1..6);
        let mut expected = Vec::new();
        for name in self.objects.keys().filter(|name| name.starts_with(prefix)) {
            let rest = &name[prefix.len()..];
            let entry = match rest.find(delimiter) {
                Some(at) if !delimiter.is_empty() => format!("{prefix}{}", &rest[..at + delimiter.len()]),
                _ => (*name).to_owned(),
            };
            if expected.last() != Some(&entry) {
                expected.push(entry);
            }
        }
        let mut listed = Vec::new();
        let mut token = None::<String>;
        loop {
            let mut request = Request::new("GET", "/bucket").query("list-type", "2").query("prefix", prefix);
            request = request.query("delimiter", delimiter).query("max-keys", &most.to_string());
            if let Some(token) = &token {
                request = request.query("continuation-token", token);
            }
            let reply = self.send(&request);
            self.expect(&reply, 200);
            let text = reply.text();
            let mut page = between(&text, "<Contents><Key>", "</Key>");
            page.extend(between(&text, "<CommonPrefixes><Prefix>", "</Prefix>"));
            page.sort();
            assert_eq!(reply.element("KeyCount"), Some(page.len().to_string()), "{}: {text}", self.context);
            assert!(page.len() <= most, "{}: {text}", self.context);
            listed.extend(page);
            token = reply.element("NextContinuationToken");
            assert_eq!(reply.element("IsTruncated"), Some(token.is_some().to_string()), "{}: {text}", self.context);
            if token.is_none() {
                break;
            }
        }
        assert_eq!(listed, expected, "{}: prefix {prefix}, delimiter {delimiter}, {most} at most", self.context);
    }

    /// Restarts the node, after an orderly shutdown or a kill.
    fn restart(&mut self) {
        if self.random.bool() {
            assert!(self.node.stop().success(), "{}", self.context);
        } else {
            self.node.kill();
        }
        self.node.start();
    }

    /// Compares everything with the model.
    fn check(&mut self) {
        for (name, there) in &self.objects {
            let reply = self.send(&object("GET", name).headers(self.headers(there.key)));
            self.expect(&reply, 200);
            assert!(reply.body == there.body, "{}: {name} has a wrong body", self.context);
        }
        let listed = self.send(&Request::new("GET", "/bucket")).text();
        assert_eq!(listed.matches("<Key>").count(), self.objects.len(), "{}", self.context);
        let uploads = self.send(&Request::new("GET", "/bucket").query("uploads", "")).text();
        assert_eq!(uploads.matches("<Upload>").count(), self.uploads.len(), "{}", self.context);
    }
}

#[test]
fn random_operations_match_model() {
    let seed = fresh_seed();
    println!("seed {seed}");
    let mut run = ModelRun {
        node: Launch::default().with_credential().arg("--threads=2").start(),
        random: fastrand::Rng::with_seed(seed),
        keys: [CustomerKey::random(), CustomerKey::random()],
        objects: BTreeMap::new(),
        uploads: Vec::new(),
        context: String::new(),
    };
    run.node.make_bucket("bucket");
    for turn in 0..TURNS {
        let operation = run.random.usize(..100);
        run.context = format!("seed {seed}, turn {turn}, operation {operation}");
        match operation {
            0..25 => run.put(),
            25..50 => run.get(),
            50..60 => run.copy(),
            60..68 => run.delete(),
            68..70 => run.delete_many(),
            70..74 => run.create_upload(),
            74..82 => run.upload_part(),
            82..87 => run.end_upload(),
            87..98 => run.list(),
            _ => run.restart(),
        }
    }
    run.restart();
    run.check();
}

#[test]
fn concurrent_if_none_match_writes_have_one_winner() {
    const RACERS: u8 = 32;
    let node = Launch::default().with_credential().arg("--threads=2").start();
    node.make_bucket("bucket");
    let key = CustomerKey::random();
    for (round, headers) in [Vec::new(), key.headers().to_vec()].into_iter().enumerate() {
        let name = format!("race-{round}");
        let put = |racer: u8| {
            let put = object("PUT", &name).header("if-none-match", "*").headers(headers.clone());
            node.send(&put.body(vec![racer; 100_000])).status
        };
        let statuses: Vec<u16> = std::thread::scope(|scope| {
            let racers: Vec<_> = (0..RACERS).map(|racer| scope.spawn(move || put(racer))).collect();
            racers.into_iter().map(|racer| racer.join().unwrap()).collect()
        });
        let won: Vec<usize> = (0..statuses.len()).filter(|racer| statuses[*racer] == 200).collect();
        assert_eq!(won.len(), 1, "{statuses:?}");
        assert!(statuses.iter().all(|status| matches!(status, 200 | 409 | 412)), "{statuses:?}");
        let got = node.send(&object("GET", &name).headers(headers.clone())).expect(200);
        assert!(got.body == vec![won[0] as u8; 100_000], "the object has the winner's bytes");
    }
}
