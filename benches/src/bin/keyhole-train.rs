//! Trains an instrumented build of the node for profile-guided optimisation:
//! `KEYHOLE_BIN=FILE keyhole-train`, which `crates/keyhole/packaging/package --pgo` runs.
//!
//! Starts the node on loopback with a small store in a temporary directory, sends a mix of requests
//! over each combination of HTTP and HTTPS, with and without customer keys, and ends the node with
//! SIGTERM, so that it writes its profile. The mix is that of an S3 node in general, not that of the
//! benchmarks. The number of requests is fixed, which makes the profiles of equal programs similar,
//! and each step has a time limit.

use std::env;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use keyhole_benches::wire::Connector;
use keyhole_benches::work::{self, Objects, Operation, Run, Store};
use keyhole_benches::{Error, Result};
use keyhole_tests::data::{base64, bytes, md5};
use keyhole_tests::sigv4::Signer;
use keyhole_tests::{Certificate, CustomerKey, Node, Request, Response, tls};
use rustls::ClientConfig;

const BUCKET: &str = "training";
const CAPACITY: &str = "2GiB";

/// Maximum duration of one step of a load; most take less than a second.
const STEP_MAX: Duration = Duration::from_secs(3);

/// Clients of the operations that are not part of a load.
const CLIENTS: usize = 4;

/// Length of the parts of an upload but the last: the minimum of S3.
const PART_LEN: usize = 5 << 20;

/// A configuration of the node, and its share of the requests.
struct Setup {
    io: &'static str,
    engine: &'static str,
    /// Divisor of the numbers of requests.
    divisor: usize,
}

/// The portable engine gets a small share: its loops over each byte run so often that all other code
/// would look cold beside them.
const SETUPS: [Setup; 3] = [
    Setup { io: "auto", engine: "auto", divisor: 1 },
    Setup { io: "epoll", engine: "auto", divisor: 2 },
    Setup { io: "auto", engine: "portable", divisor: 20 },
];

/// A load with objects of one size.
struct Load {
    size: usize,
    objects: usize,
    connections: usize,
}

/// Most requests are small: code that runs once a request is to look hot beside loops over bytes.
const LOADS: [Load; 5] = [
    Load { size: 4 << 10, objects: 20_000, connections: 16 },
    Load { size: 4 << 10, objects: 10_000, connections: 64 },
    Load { size: 64 << 10, objects: 2400, connections: 16 },
    Load { size: 1 << 20, objects: 120, connections: 16 },
    Load { size: 64 << 20, objects: 2, connections: 2 },
];

/// Rounds of the other operations by each client.
const ROUNDS: usize = 60;

/// Rounds between two multipart uploads of a client.
const ROUNDS_PER_UPLOAD: usize = 20;

/// The node as reached through one listener, with or without a customer key.
struct Target<'t> {
    address: SocketAddr,
    endpoint: String,
    signer: &'t Signer,
    certificate: &'t Certificate,
    /// The client's TLS configuration; `None` for HTTP.
    tls: Option<Arc<ClientConfig>>,
    key: Option<&'t CustomerKey>,
}

impl Target<'_> {
    /// Puts all objects of a load twice and gets them twice, as far as the time suffices.
    fn load(&self, load: &Load, divisor: usize) -> Result<()> {
        let connector = Arc::new(Connector::new(&self.endpoint, Some(&self.certificate.authority_path()))?);
        let store = Store {
            connector,
            signer: Some(self.signer.clone()),
            bucket: BUCKET.to_owned(),
            key_headers: self.key.map(work::key_headers).unwrap_or_default(),
        };
        let count = (load.objects / divisor).max(1);
        // All targets overwrite the same objects, to keep the store small.
        let prefix = format!("{}-{}/", load.size, load.connections);
        let objects = Objects { prefix, count, size: load.size };
        let connections = load.connections.min(count);
        store.make_bucket()?;
        // Gets need all objects, also if the time limit cuts the puts off.
        store.fill(&objects, 0..count, connections)?;
        for operation in [Operation::Put, Operation::Get, Operation::Get] {
            let run = Run {
                operation,
                connections,
                sample: count,
                warmup: Duration::ZERO,
                time: STEP_MAX,
                once: true,
                checked: true,
                servers: Vec::new(),
            };
            store.run(&objects, &run)?;
        }
        Ok(())
    }

    fn name(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let kind = if self.key.is_some() { "sse-c" } else { "plain" };
        format!("{scheme}-{kind}")
    }

    /// Runs the clients of all other operations.
    fn operate(&self, divisor: usize) -> Result<()> {
        let until = Instant::now() + STEP_MAX;
        thread::scope(|scope| {
            let operate = |client: usize| {
                let prefix = format!("{}/client-{client}", self.name());
                let mut client = Client { target: self, prefix, connection: None };
                for round in 0..(ROUNDS / divisor).max(1) {
                    if Instant::now() > until {
                        break;
                    }
                    client.round(round)?;
                }
                Ok(())
            };
            let clients: Vec<_> = (0..CLIENTS).map(|client| scope.spawn(move || operate(client))).collect();
            let panicked = || Err(Error::new("a thread has panicked"));
            clients.into_iter().try_for_each(|client| client.join().unwrap_or_else(|_| panicked()))
        })
    }
}

/// A stream to the node.
trait Stream: Read + Write {}

impl<S: Read + Write> Stream for S {}

/// A client that sends one request after another over a connection.
struct Client<'c> {
    target: &'c Target<'c>,
    prefix: String,
    connection: Option<Box<dyn Stream>>,
}

impl Client<'_> {
    fn connect(&self) -> Result<Box<dyn Stream>> {
        let address = self.target.address;
        if let Some(tls) = &self.target.tls {
            return Ok(Box::new(tls::connect(address, tls)?));
        }
        let tcp = TcpStream::connect(address)?;
        tcp.set_nodelay(true)?;
        Ok(Box::new(tcp))
    }

    /// Signs and sends a request, and returns the response if it has the expected status.
    fn send(&mut self, request: Request, status: u16) -> Result<Response> {
        let address = self.target.address;
        self.send_as_is(&request.signed(address, self.target.signer), status)
    }

    fn send_as_is(&mut self, request: &Request, status: u16) -> Result<Response> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.connect()?,
        };
        let response = request.exchange(&mut connection, &request.keep_alive_head(self.target.address))?;
        if response.header("connection") != Some("close") {
            self.connection = Some(connection);
        }
        if response.status != status {
            let what = format!("unexpected response {} to {} {}", response.status, request.method(), request.target());
            return Err(Error::of(what, response.text()));
        }
        Ok(response)
    }

    /// Builds a request for an object, with the customer key if there is one.
    fn object(&self, method: &str, name: &str) -> Request {
        let request = Request::new(method, &format!("/{BUCKET}/{}/{name}", self.prefix));
        match self.target.key {
            Some(key) => request.headers(key.headers()),
            None => request,
        }
    }

    /// Sends each operation at least once.
    fn round(&mut self, round: usize) -> Result<()> {
        for (name, len) in [("small", 1000), ("page", 4 << 10), ("chunks", 100_000), ("blocks", 1_500_000)] {
            let body = bytes(round as u64, len);
            let name = &format!("{name}-{round}");
            let put = self.object("PUT", name).header("content-type", "text/plain").header("x-amz-meta-round", "1");
            // Signed payloads, with a hash of the body.
            let etag = self.send(put.body(body.clone()), 200)?.header("etag").unwrap_or_default().to_owned();
            self.send(self.object("HEAD", name), 200)?;
            let got = self.send(self.object("GET", name), 200)?;
            if got.body != body {
                return Err(Error::of(name, "the response body differs from the object"));
            }
            self.ranges(name, len)?;
            self.send(self.object("GET", name).header("if-none-match", &etag), 304)?;
            let copy = Request::new("PUT", &format!("/{BUCKET}/{}/copy", self.prefix));
            let copy = copy.header("x-amz-copy-source", format!("/{BUCKET}/{}/{name}", self.prefix));
            let copy = match self.target.key {
                Some(key) => copy.headers(key.headers()).headers(key.copy_source_headers()),
                None => copy,
            };
            self.send(copy, 200)?;
        }
        self.put_in_chunks(round)?;
        self.presigned(round)?;
        self.list()?;
        if round.is_multiple_of(ROUNDS_PER_UPLOAD) {
            self.upload(round)?;
        }
        self.delete(round)
    }

    fn ranges(&mut self, name: &str, len: usize) -> Result<()> {
        let middle = len / 2;
        for range in ["bytes=0-99".to_owned(), format!("bytes={middle}-"), "bytes=-500".to_owned()] {
            self.send(self.object("GET", name).header("range", range), 206)?;
        }
        self.send(self.object("GET", name).header("range", format!("bytes={len}-")), 416)?;
        Ok(())
    }

    /// Puts an object in the encoding of the current SDKs.
    fn put_in_chunks(&mut self, round: usize) -> Result<()> {
        let data = bytes(round as u64, 70_000);
        let mut body = Vec::new();
        for chunk in data.chunks(64 << 10) {
            body.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            body.extend_from_slice(chunk);
            body.extend_from_slice(b"\r\n");
        }
        let checksum = base64(&crc32fast::hash(&data).to_be_bytes());
        body.extend_from_slice(format!("0\r\nx-amz-checksum-crc32:{checksum}\r\n\r\n").as_bytes());
        let put = self.object("PUT", "streamed").payload("STREAMING-UNSIGNED-PAYLOAD-TRAILER");
        let put = put.header("content-encoding", "aws-chunked").header("x-amz-trailer", "x-amz-checksum-crc32");
        self.send(put.header("x-amz-decoded-content-length", data.len().to_string()).body(body), 200)?;
        Ok(())
    }

    /// Puts and gets an object with presigned URLs, whose payloads are unsigned.
    fn presigned(&mut self, round: usize) -> Result<()> {
        let address = self.target.address;
        let put = self.object("PUT", "presigned").body(bytes(round as u64, 20_000));
        self.send_as_is(&put.presigned(address, self.target.signer, 60), 200)?;
        let get = self.object("GET", "presigned");
        self.send_as_is(&get.presigned(address, self.target.signer, 60), 200)?;
        Ok(())
    }

    fn list(&mut self) -> Result<()> {
        let list = Request::new("GET", &format!("/{BUCKET}"));
        let pages = list.clone().query("list-type", "2").query("max-keys", "100");
        let page = self.send(pages.clone(), 200)?;
        let token = page.element("NextContinuationToken").unwrap_or_default();
        self.send(pages.query("continuation-token", &token), 200)?;
        let below = list.clone().query("list-type", "2").query("prefix", &format!("{}/", self.prefix));
        self.send(below, 200)?;
        self.send(list.query("delimiter", "/"), 200)?;
        self.send(Request::new("GET", "/"), 200)?;
        Ok(())
    }

    fn upload(&mut self, round: usize) -> Result<()> {
        let name = &format!("upload-{round}");
        let created = self.send(self.object("POST", name).query("uploads", ""), 200)?;
        let id = created.element("UploadId").unwrap_or_default();
        let mut parts = String::new();
        for (number, len) in [(1, PART_LEN), (2, PART_LEN), (3, 100_000)] {
            let part = self.object("PUT", name).query("partNumber", &number.to_string()).query("uploadId", &id);
            let stored = self.send(part.payload("UNSIGNED-PAYLOAD").body(bytes(number, len)), 200)?;
            let etag = stored.header("etag").unwrap_or_default();
            parts += &format!("<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>");
        }
        self.send(self.object("GET", name).query("uploadId", &id), 200)?;
        let body = format!("<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>");
        self.send(self.object("POST", name).query("uploadId", &id).body(body), 200)?;
        self.send(self.object("GET", name), 200)?;
        self.send(self.object("GET", name).header("range", format!("bytes={}-", PART_LEN - 1000)), 206)?;
        self.send(self.object("DELETE", name), 204)?;
        Ok(())
    }

    /// Deletes the objects of a round, one alone and the others together.
    fn delete(&mut self, round: usize) -> Result<()> {
        self.send(self.object("DELETE", &format!("small-{round}")), 204)?;
        self.send(self.object("GET", &format!("small-{round}")), 404)?;
        let names = ["page", "chunks", "blocks"].map(|name| format!("{}/{name}-{round}", self.prefix));
        let keys = names.map(|name| format!("<Object><Key>{name}</Key></Object>")).concat();
        let body = format!("<Delete><Quiet>true</Quiet>{keys}</Delete>");
        let delete = Request::new("POST", &format!("/{BUCKET}")).query("delete", "");
        self.send(delete.header("content-md5", base64(&md5(body.as_bytes()))).body(body), 200)?;
        Ok(())
    }
}

/// Runs the whole mix on a node, which is ended afterwards.
fn train(setup: &Setup, certificate: &Certificate, key: &CustomerKey, data: &Path) -> Result<()> {
    let Setup { io, engine, divisor } = setup;
    let launch = certificate.launch("127.0.0.1:0").capacity(Some(CAPACITY));
    let launch = launch.arg("--io").arg(io).arg("--engine").arg(engine).arg("--log").arg("warn");
    let mut node: Node = launch.start_in(data);
    let tls = certificate.client(rustls::DEFAULT_VERSIONS, &[]);
    let begun = Instant::now();
    for tls in [None, Some(&tls)] {
        for key in [Some(key), None] {
            let address = if tls.is_some() { node.tls_address() } else { node.address() };
            let scheme = if tls.is_some() { "https" } else { "http" };
            let target = Target {
                address,
                endpoint: format!("{scheme}://{address}"),
                signer: node.signer(),
                certificate,
                tls: tls.cloned(),
                key,
            };
            LOADS.iter().try_for_each(|load| target.load(load, *divisor))?;
            target.operate(*divisor)?;
        }
    }
    let status = node.stop();
    if !status.success() {
        return Err(Error::of("node exited", status));
    }
    eprintln!("trained with --io {io} --engine {engine} in {:.1} s", begun.elapsed().as_secs_f64());
    Ok(())
}

fn train_all() -> Result<()> {
    if env::args_os().len() > 1 || env::var_os("KEYHOLE_BIN").is_none() {
        return Err(Error::new("usage: KEYHOLE_BIN=INSTRUMENTED_NODE LLVM_PROFILE_FILE=PATTERN keyhole-train"));
    }
    let home = tempfile::Builder::new().prefix("keyhole-train-").tempdir()?;
    let certificate = Certificate::new();
    let key = CustomerKey::random();
    // All nodes serve the same store, so that the later ones also recover it.
    SETUPS.iter().try_for_each(|setup| train(setup, &certificate, &key, &home.path().join("data")))
}

fn main() -> ExitCode {
    match train_all() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("keyhole-train: {error}");
            ExitCode::FAILURE
        }
    }
}
