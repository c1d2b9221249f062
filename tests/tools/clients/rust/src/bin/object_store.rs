//! Flows of object_store, as used by data tools: a store has one customer key for all objects, or
//! none.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderName, HeaderValue, Method};
use http_body_util::BodyExt;
use keyhole_clients::{Flows, Http, Key, PART_LEN, SMALL_LEN, ok, unsupported};
use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey, Checksum, S3CopyIfNotExists};
use object_store::client::{
    CryptoProvider, DigestAlgorithm, DigestContext, HmacContext, HttpClient, HttpConnector, HttpError, HttpErrorKind,
    HttpRequest, HttpResponse, HttpResponseBody, HttpService, Signer, SigningAlgorithm,
};
use object_store::list::{PaginatedListOptions, PaginatedListStore};
use object_store::path::Path;
use object_store::signer::{SignedUrlOptions, Signer as _};
use object_store::{
    Attribute, Attributes, ClientOptions, Error, GetOptions, ObjectStore, ObjectStoreExt, PutMode, PutOptions,
    RetryConfig, TagSet, UpdateVersion, WriteMultipart,
};
use sha2::{Digest, Sha256};

/// Adapter of the shared HTTP client to object_store.
#[derive(Debug)]
struct Connector(Http);

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(Service(self.0.clone())))
    }
}

#[derive(Debug)]
struct Service(Http);

#[async_trait]
impl HttpService for Service {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let failed = |error| HttpError::new_boxed(HttpErrorKind::Request, error);
        let reply = self.0.send(request).await.map_err(failed)?;
        let whole = |error| HttpError::new(HttpErrorKind::Interrupted, error);
        Ok(reply.map(|body| HttpResponseBody::new(body.map_err(whole))))
    }
}

/// SHA-256 without a C library.
#[derive(Debug)]
struct Crypto;

impl CryptoProvider for Crypto {
    fn digest(&self, _: DigestAlgorithm) -> object_store::Result<Box<dyn DigestContext>> {
        Ok(Box::new(RunningDigest(Sha256::new(), Vec::new())))
    }

    fn hmac(&self, _: DigestAlgorithm, secret: &[u8]) -> object_store::Result<Box<dyn HmacContext>> {
        let hmac = Hmac::<Sha256>::new_from_slice(secret).expect("keys of any length");
        Ok(Box::new(RunningDigest(hmac, Vec::new())))
    }

    fn sign(&self, _: SigningAlgorithm, _: &[u8]) -> object_store::Result<Box<dyn Signer>> {
        unreachable!("S3 does not use RSA")
    }
}

/// A running digest and its result.
struct RunningDigest<S>(S, Vec<u8>);

impl DigestContext for RunningDigest<Sha256> {
    fn update(&mut self, data: &[u8]) {
        Digest::update(&mut self.0, data);
    }

    fn finish(&mut self) -> object_store::Result<&[u8]> {
        self.1 = self.0.clone().finalize().to_vec();
        Ok(&self.1)
    }
}

impl HmacContext for RunningDigest<Hmac<Sha256>> {
    fn update(&mut self, data: &[u8]) {
        Mac::update(&mut self.0, data);
    }

    fn finish(&mut self) -> object_store::Result<&[u8]> {
        self.1 = self.0.clone().finalize().into_bytes().to_vec();
        Ok(&self.1)
    }
}

struct Stores {
    flows: Flows,
    plain: AmazonS3,
    sealed: AmazonS3,
    other: AmazonS3,
}

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(run(&Stores::new()));
}

async fn run(stores: &Stores) {
    stores.make_bucket().await;
    unsupported("buckets", "");
    stores.objects().await;
    ok("objects", "");
    stores.multipart().await;
    ok("multipart upload", "");
    stores.sse_c().await;
    ok("SSE-C objects", "");
    ok("wrong SSE-C key", stores.wrong_key().await);
    stores.sse_c_multipart().await;
    ok("SSE-C multipart upload", "");
    stores.ranges().await;
    ok("range", "");
    stores.copy().await;
    ok("copy", "");
    stores.copy_with_another_key().await;
    ok("copy with another SSE-C key", "through the client");
    stores.pages().await;
    ok("list in pages", "");
    stores.delete_many().await;
    ok("delete many", "");
    stores.presigned().await;
    ok("presigned URL", "");
    stores.tags().await;
    ok("tags", "at upload");
    stores.checksums().await;
    ok("checksums", "SHA256, CRC64NVME; not in parts with a customer key");
    unsupported("sync", "");
}

async fn body(store: &AmazonS3, key: &Path) -> Bytes {
    store.get(key).await.unwrap().bytes().await.unwrap()
}

/// Returns the error of a failure.
fn refused<T>(result: object_store::Result<T>) -> Error {
    result.err().expect("an error")
}

async fn upload(store: &AmazonS3, key: &Path, contents: &Bytes) -> object_store::Result<()> {
    let upload = store.put_multipart(key).await?;
    let mut upload = WriteMultipart::new_with_chunk_size(upload, PART_LEN);
    upload.put(contents.clone());
    assert!(upload.finish().await?.e_tag.unwrap().ends_with("-3\""));
    Ok(())
}

impl Stores {
    fn new() -> Self {
        let flows = Flows::from_env();
        let build = |bucket, key: Option<&Key>| Self::builder(&flows, bucket, key).build().unwrap();
        let bucket = &flows.bucket[..];
        Self {
            plain: build(bucket, None),
            sealed: build(bucket, Some(&flows.key)),
            other: build(bucket, Some(&flows.other_key)),
            flows,
        }
    }

    fn builder(flows: &Flows, bucket: &str, key: Option<&Key>) -> AmazonS3Builder {
        let builder = AmazonS3Builder::new()
            .with_endpoint(&flows.endpoint)
            .with_allow_http(true)
            .with_bucket_name(bucket)
            .with_region(&flows.region)
            .with_access_key_id(&flows.access_key)
            .with_secret_access_key(&flows.secret_key)
            .with_copy_if_not_exists(S3CopyIfNotExists::Multipart)
            .with_http_connector(Connector(flows.http.clone()))
            .with_crypto_provider(Arc::new(Crypto))
            .with_retry(RetryConfig { max_retries: 0, ..RetryConfig::default() });
        let Some(key) = key else { return builder };
        // Use settings, as most programs do.
        let set = |builder: AmazonS3Builder, name: &str, value: String| {
            builder.with_config(name.parse::<AmazonS3ConfigKey>().unwrap(), value)
        };
        let builder = set(builder, "aws_server_side_encryption", "sse-c".to_owned());
        set(builder, "aws_sse_customer_key_base64", key.text())
    }

    /// Creates a bucket with a signed request, since object_store has no call for it.
    async fn make_bucket(&self) {
        let minute = Duration::from_secs(60);
        let url = self.plain.signed_url(Method::PUT, &Path::default(), minute).await.unwrap();
        assert_eq!(self.fetch("PUT", url.as_str(), &[], Bytes::new()).await.0, 200);
    }

    async fn fetch(&self, method: &str, url: &str, headers: &[(&str, String)], body: Bytes) -> (u16, Bytes) {
        self.flows.http.fetch(method, url, headers.iter().map(|(name, value)| (name, value)), body).await
    }

    async fn objects(&self) {
        let (store, small) = (&self.plain, &self.flows.small);
        let key = Path::from("a plain/öbject");
        let colour = Attribute::Metadata("colour".into());
        let attributes = [(Attribute::ContentType, "text/plain"), (colour, "blue")];
        let attributes = Attributes::from_iter(attributes);
        let create = PutOptions { mode: PutMode::Create, attributes: attributes.clone(), ..PutOptions::default() };
        let put = store.put_opts(&key, small.clone().into(), create.clone()).await.unwrap();
        let head = store.get_opts(&key, GetOptions::new().with_head(true)).await.unwrap();
        assert_eq!((head.meta.size, &head.attributes), (SMALL_LEN as u64, &attributes));
        assert_eq!(body(store, &key).await, small);
        let absent = GetOptions::new().with_if_match(Some("\"0\""));
        assert!(matches!(refused(store.get_opts(&key, absent).await), Error::Precondition { .. }));
        // Conditional writes.
        let again = store.put_opts(&key, small.clone().into(), create).await;
        assert!(matches!(refused(again), Error::AlreadyExists { .. }));
        let update = |e_tag| PutMode::Update(UpdateVersion { e_tag, version: None });
        let of_another = store.put_opts(&key, small.clone().into(), update(Some("\"0\"".to_owned())).into()).await;
        assert!(matches!(refused(of_another), Error::Precondition { .. }));
        store.put_opts(&key, small.clone().into(), update(put.e_tag).into()).await.unwrap();
        store.delete(&key).await.unwrap();
        assert!(matches!(refused(store.get(&key).await), Error::NotFound { .. }));
    }

    async fn multipart(&self) {
        let key = Path::from("parts");
        upload(&self.plain, &key, &self.flows.large).await.unwrap();
        let mut pieces = self.plain.get(&key).await.unwrap().into_stream();
        let mut got = Vec::new();
        while let Some(piece) = pieces.next().await {
            got.extend_from_slice(&piece.unwrap());
        }
        assert!(got == self.flows.large);
    }

    async fn sse_c(&self) {
        let key = Path::from("sealed");
        self.sealed.put(&key, self.flows.small.clone().into()).await.unwrap();
        assert_eq!(self.sealed.head(&key).await.unwrap().size, SMALL_LEN as u64);
        assert_eq!(body(&self.sealed, &key).await, self.flows.small);
        let without = refused(self.plain.get(&key).await);
        assert!(format!("{without:?}").contains("InvalidRequest"), "{without:?}");
        let create = PutMode::Create.into();
        let again = self.sealed.put_opts(&key, self.flows.small.clone().into(), create).await;
        assert!(matches!(refused(again), Error::AlreadyExists { .. }));
    }

    async fn wrong_key(&self) -> &'static str {
        let key = Path::from("sealed");
        assert!(matches!(refused(self.other.head(&key).await), Error::PermissionDenied { .. }));
        let error = refused(self.other.get(&key).await);
        assert!(format!("{error:?}").contains("AccessDenied"), "{error:?}");
        match error {
            Error::PermissionDenied { .. } => "PermissionDenied",
            other => panic!("{other:?}"),
        }
    }

    async fn sse_c_multipart(&self) {
        let key = Path::from("sealed parts");
        upload(&self.sealed, &key, &self.flows.large).await.unwrap();
        assert_eq!(body(&self.sealed, &key).await, self.flows.large);
        // An aborted upload.
        let key = Path::from("aborted");
        let mut upload = self.sealed.put_multipart(&key).await.unwrap();
        upload.put_part(self.flows.small.clone().into()).await.unwrap();
        upload.abort().await.unwrap();
        assert!(matches!(refused(self.sealed.head(&key).await), Error::NotFound { .. }));
    }

    async fn ranges(&self) {
        let (key, large) = (Path::from("sealed parts"), &self.flows.large);
        let range = 5_242_000..5_244_000;
        let one = self.sealed.get_range(&key, range.clone()).await.unwrap();
        assert_eq!(one, large[5_242_000..5_244_000]);
        let several = self.sealed.get_ranges(&key, &[0..7, range, 9_000_000..9_000_001]).await.unwrap();
        assert!(several[0] == large[..7] && several[1] == one && several[2] == large[9_000_000..9_000_001]);
        let last = GetOptions::new().with_range(Some(object_store::GetRange::Suffix(7)));
        let last = self.sealed.get_opts(&key, last).await.unwrap().bytes().await.unwrap();
        assert_eq!(last, large[large.len() - 7..]);
        let beyond = SMALL_LEN as u64..SMALL_LEN as u64 + 1;
        let refused = refused(self.sealed.get_range(&Path::from("sealed"), beyond).await);
        assert!(format!("{refused:?}").contains("InvalidRange"), "{refused:?}");
    }

    async fn copy(&self) {
        for (store, name, contents) in [
            (&self.plain, "parts", &self.flows.large),
            (&self.sealed, "sealed", &self.flows.small),
            (&self.sealed, "sealed parts", &self.flows.large),
        ] {
            let (copied, renamed) = (Path::from("copied"), Path::from("renamed"));
            store.copy(&Path::from(name), &copied).await.unwrap();
            store.rename(&copied, &renamed).await.unwrap();
            assert_eq!(body(store, &renamed).await, contents);
            assert!(matches!(refused(store.head(&copied).await), Error::NotFound { .. }));
        }
        // object_store implements a conditional copy as a one-part upload without the source's key.
        let (from, to) = (Path::from("parts"), Path::from("copied once"));
        self.plain.copy_if_not_exists(&from, &to).await.unwrap();
        assert_eq!(body(&self.plain, &to).await, self.flows.large);
        let again = self.plain.copy_if_not_exists(&from, &to).await;
        assert!(matches!(refused(again), Error::AlreadyExists { .. }));
        let without = refused(self.sealed.copy_if_not_exists(&Path::from("sealed"), &Path::from("copied once")).await);
        assert!(format!("{without:?}").contains("InvalidRequest"), "{without:?}");
    }

    async fn copy_with_another_key(&self) {
        let (from, to) = (Path::from("sealed parts"), Path::from("through the client"));
        let mut upload = WriteMultipart::new_with_chunk_size(self.other.put_multipart(&to).await.unwrap(), PART_LEN);
        let mut pieces = self.sealed.get(&from).await.unwrap().into_stream();
        while let Some(piece) = pieces.next().await {
            upload.wait_for_capacity(2).await.unwrap();
            upload.put(piece.unwrap());
        }
        upload.finish().await.unwrap();
        assert_eq!(body(&self.other, &to).await, self.flows.large);
        assert!(matches!(refused(self.sealed.get(&to).await), Error::PermissionDenied { .. }));
    }

    fn many(&self) -> AmazonS3 {
        Self::builder(&self.flows, &self.flows.many, None).build().unwrap()
    }

    async fn pages(&self) {
        let (many, prefix) = (self.many(), Path::from("many"));
        let listed: Vec<_> = many.list(Some(&prefix)).try_collect().await.unwrap();
        assert!(listed.len() == self.flows.many_count && listed.is_sorted_by(|a, b| a.location < b.location));
        let offset = &listed[self.flows.many_count - 8].location;
        assert_eq!(many.list_with_offset(Some(&prefix), offset).count().await, 7);
        let rolled = many.list_with_delimiter(None).await.unwrap();
        assert_eq!(rolled.common_prefixes, [prefix]);
        // Page by page.
        let (mut token, mut counts) = (None, Vec::new());
        loop {
            let options = PaginatedListOptions { max_keys: Some(500), page_token: token, ..Default::default() };
            let page = many.list_paginated(Some("many/"), options).await.unwrap();
            counts.push(page.result.objects.len());
            token = page.page_token;
            if token.is_none() {
                break;
            }
        }
        assert_eq!(counts, [500, 500, self.flows.many_count - 1000]);
    }

    async fn delete_many(&self) {
        let many = self.many();
        let keys = many.list(Some(&Path::from("many"))).map_ok(|object| object.location).boxed();
        let deleted: Vec<_> = many.delete_stream(keys).try_collect().await.unwrap();
        assert_eq!(deleted.len(), self.flows.many_count);
        let left: Vec<_> = many.list(None).map_ok(|object| object.location).try_collect().await.unwrap();
        assert_eq!(left, [Path::from("one")]);
    }

    async fn presigned(&self) {
        let (small, minute) = (&self.flows.small, Duration::from_secs(60));
        let key = Path::from("presigned");
        let put = self.plain.signed_url(Method::PUT, &key, minute).await.unwrap();
        assert_eq!(self.fetch("PUT", put.as_str(), &[], small.clone()).await.0, 200);
        let get = self.plain.signed_url(Method::GET, &key, minute).await.unwrap();
        assert_eq!(self.fetch("GET", get.as_str(), &[], Bytes::new()).await, (200, small.clone()));
        // SSE-C headers are signed if they are requested.
        let headers = self.flows.key.headers();
        let mut options = SignedUrlOptions::default();
        for (name, value) in &headers {
            let value = HeaderValue::from_str(value).unwrap();
            options = options.with_signed_header(HeaderName::from_static(name), value);
        }
        let get = self.sealed.signed_url_opts(Method::GET, &Path::from("sealed"), minute, &options).await.unwrap();
        assert!(!get.as_str().contains(&self.flows.key.text()));
        assert_eq!(self.fetch("GET", get.as_str(), &headers, Bytes::new()).await, (200, small.clone()));
        assert_eq!(self.fetch("GET", get.as_str(), &[], Bytes::new()).await.0, 403);
    }

    async fn tags(&self) {
        let key = Path::from("sealed tagged");
        let mut tags = TagSet::default();
        tags.push("a", "1");
        tags.push("b c", "2/3");
        self.sealed.put_opts(&key, self.flows.small.clone().into(), tags.into()).await.unwrap();
        // object_store can read tags only through a signed URL.
        let options = SignedUrlOptions::default().with_query([("tagging", "")]);
        let url = self.plain.signed_url_opts(Method::GET, &key, Duration::from_secs(60), &options).await.unwrap();
        let (status, document) = self.fetch("GET", url.as_str(), &[], Bytes::new()).await;
        let document = String::from_utf8(document.to_vec()).unwrap();
        assert_eq!(status, 200, "{document}");
        for tag in ["<Key>a</Key><Value>1</Value>", "<Key>b c</Key><Value>2/3</Value>"] {
            assert!(document.contains(tag), "{document}");
        }
    }

    async fn checksums(&self) {
        for (algorithm, header) in
            [(Checksum::SHA256, "x-amz-checksum-sha256"), (Checksum::CRC64NVME, "x-amz-checksum-crc64nvme")]
        {
            for key in [None, Some(&self.flows.key)] {
                let builder = Self::builder(&self.flows, &self.flows.bucket, key);
                let store = builder.with_checksum_algorithm(algorithm).build().unwrap();
                let summed = Path::from("summed");
                store.put(&summed, self.flows.small.clone().into()).await.unwrap();
                assert!(self.flows.http.last(header).is_some());
                assert_eq!(body(&store, &summed).await, self.flows.small);
                let uploaded = upload(&store, &summed, &self.flows.large).await;
                if key.is_none() {
                    uploaded.unwrap();
                    assert_eq!(body(&store, &summed).await, self.flows.large);
                } else {
                    // object_store completes uploads without the key that checksums require.
                    let error = format!("{:?}", refused(uploaded));
                    assert!(error.contains("must provide an appropriate secret key"), "{error}");
                }
            }
        }
    }
}
