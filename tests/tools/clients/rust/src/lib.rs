//! Common parts of the Rust client flows, like `flows.py`: the node and the data from the
//! environment, a line per feature, and the HTTP client of both programs.

use std::env;
use std::fs::File;
use std::io::Read;
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use md5::{Digest, Md5};

pub const PART_LEN: usize = 5 << 20;
pub const LARGE_LEN: usize = 12 << 20;
pub const SMALL_LEN: usize = 100_000;

/// Names of the SSE-C headers.
pub const KEY_HEADERS: [&str; 3] = [
    "x-amz-server-side-encryption-customer-algorithm",
    "x-amz-server-side-encryption-customer-key",
    "x-amz-server-side-encryption-customer-key-md5",
];

pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// A customer key.
pub struct Key([u8; 32]);

impl Key {
    /// Returns the key as base64.
    pub fn text(&self) -> String {
        BASE64_STANDARD.encode(self.0)
    }

    /// Returns its MD5 as base64.
    pub fn digest(&self) -> String {
        BASE64_STANDARD.encode(Md5::digest(self.0))
    }

    /// Returns the three SSE-C headers.
    pub fn headers(&self) -> Vec<(&'static str, String)> {
        KEY_HEADERS.into_iter().zip(["AES256".to_owned(), self.text(), self.digest()]).collect()
    }
}

/// The node and the test data.
pub struct Flows {
    pub endpoint: String,
    pub access_key: String,
    pub secret_key: String,
    pub region: String,
    /// The client's own bucket, not created yet.
    pub bucket: String,
    /// A bucket with `many_count` objects below `many/`, more than fit in a page, and one
    /// elsewhere.
    pub many: String,
    pub many_count: usize,
    pub key: Key,
    pub other_key: Key,
    pub small: Bytes,
    pub large: Bytes,
    pub http: Http,
}

impl Flows {
    pub fn from_env() -> Self {
        let variable = |name| env::var(name).unwrap_or_else(|_| panic!("{name} is not set"));
        let key = || Key(random(32).try_into().unwrap());
        Self {
            endpoint: variable("ENDPOINT"),
            access_key: variable("AWS_ACCESS_KEY_ID"),
            secret_key: variable("AWS_SECRET_ACCESS_KEY"),
            region: variable("AWS_DEFAULT_REGION"),
            bucket: variable("BUCKET"),
            many: variable("MANY"),
            many_count: variable("MANY_COUNT").parse().unwrap(),
            key: key(),
            other_key: key(),
            small: random(SMALL_LEN).into(),
            large: random(LARGE_LEN).into(),
            http: Http::new(),
        }
    }
}

fn random(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes)).unwrap();
    bytes
}

/// Reports that a feature works, with an optional note.
pub fn ok(feature: &str, note: &str) {
    tell("ok", feature, note);
}

/// Reports that the client does not support a feature.
pub fn unsupported(feature: &str, note: &str) {
    tell("unsupported", feature, note);
}

fn tell(outcome: &str, feature: &str, note: &str) {
    let separator = if note.is_empty() { "" } else { ": " };
    println!("{outcome} {feature}{separator}{note}");
}

/// HTTP without TLS, which records the headers of the last request.
#[derive(Clone, Debug)]
pub struct Http {
    client: Client<HttpConnector, UnsyncBoxBody<Bytes, Error>>,
    last: Arc<Mutex<HeaderMap>>,
}

impl Http {
    #[expect(clippy::new_without_default, reason = "a client, not a value with a default")]
    pub fn new() -> Self {
        let client = Client::builder(TokioExecutor::new()).build_http();
        Self { client, last: Arc::default() }
    }

    pub async fn send<B>(&self, request: Request<B>) -> Result<Response<Incoming>, Error>
    where
        B: Body<Data = Bytes, Error: Into<Error>> + Send + 'static,
    {
        self.last.lock().unwrap().clone_from(request.headers());
        let request = request.map(|body| body.map_err(Into::into).boxed_unsync());
        Ok(self.client.request(request).await?)
    }

    /// Returns a header of the last request.
    pub fn last(&self, name: &str) -> Option<String> {
        self.last.lock().unwrap().get(name).map(|value| value.to_str().unwrap().to_owned())
    }

    /// Sends a request without credentials and returns status and body.
    pub async fn fetch<N: AsRef<str>, V: AsRef<str>>(
        &self,
        method: &str,
        url: &str,
        headers: impl IntoIterator<Item = (N, V)>,
        body: Bytes,
    ) -> (u16, Bytes) {
        let mut request = Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(name.as_ref(), value.as_ref());
        }
        let reply = self.send(request.body(Full::new(body)).unwrap()).await.unwrap();
        (reply.status().as_u16(), reply.into_body().collect().await.unwrap().to_bytes())
    }
}
