//! One successful request of each operation.

use keyhole_tests::Request;
use keyhole_tests::data::{base64, md5};
use keyhole_tests::form::Form;

use crate::support::{MemoryNode, NOW_MS, State};

/// Buckets with an object, an upload and settings; one without anything, and one that is missing.
pub(crate) struct World<'n> {
    node: &'n MemoryNode,
    pub(crate) bucket: String,
    upload_id: String,
    etag: String,
}

/// The outcome of a request, comparable between worlds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Outcome {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    body: String,
    content: Vec<String>,
}

/// The text that stands for the bucket in outcomes.
const BUCKET: &str = "{bucket}";

impl<'n> World<'n> {
    /// Creates the buckets for an operation; `number` tells worlds of one node apart.
    pub(crate) fn new(node: &'n MemoryNode, number: usize, operation: &str) -> Self {
        let bucket = format!("world-{number:05}");
        let send = |request: Request| node.send(&request).expect(200);
        let create = Request::new("PUT", &format!("/{bucket}"));
        let has_lock = LOCK_OPERATIONS.contains(&operation);
        send(if has_lock { create.header("x-amz-bucket-object-lock-enabled", "true") } else { create });
        node.make_bucket(&format!("{bucket}-empty"));
        let object = |name: &str| Request::new("PUT", &format!("/{bucket}/{name}"));
        for (name, body) in [("plain é", "body"), ("dir/source", "source")] {
            let request = object(name).header("x-amz-tagging", "a=1").header("x-amz-meta-a", "1").body(body);
            let checksum = base64(&crc32fast::hash(body.as_bytes()).to_be_bytes());
            send(request.header("content-type", "text/plain").header("x-amz-checksum-crc32", checksum));
        }
        let upload = Request::new("POST", &format!("/{bucket}/upload")).query("uploads", "");
        let upload_id = send(upload).element("UploadId").expect("an id");
        let part = object("upload").query("partNumber", "1").query("uploadId", &upload_id).body("part");
        let etag = send(part).header("etag").expect("an ETag").to_owned();
        send(Request::new("PUT", &format!("/{bucket}")).query("lifecycle", "").body(LIFECYCLE));
        let world = World { node, bucket, upload_id, etag };
        // Settings and objects for this operation alone.
        let put = match operation {
            "GetObjectAttributes" => {
                world.make_parts();
                return world;
            }
            "GetBucketEncryption" => "PutBucketEncryption",
            "GetBucketCors" => "PutBucketCors",
            "GetBucketTagging" => "PutBucketTagging",
            "GetObjectRetention" => "PutObjectRetention",
            "GetObjectLegalHold" => "PutObjectLegalHold",
            _ => return world,
        };
        assert!(node.send(&world.request(put)).status < 300, "{put}");
        world
    }

    /// Creates an object in one part with a checksum.
    fn make_parts(&self) {
        let send = |request: Request| self.node.send(&request).expect(200);
        let checksum = base64(&crc32fast::hash(b"part").to_be_bytes());
        let create = self.on_object("POST", "parts").query("uploads", "").header("x-amz-checksum-algorithm", "CRC32");
        let id = send(create).element("UploadId").expect("an id");
        let part = self.on_object("PUT", "parts").query("partNumber", "1").query("uploadId", &id);
        let etag = send(part.header("x-amz-checksum-crc32", &checksum).body("part")).header("etag").unwrap().to_owned();
        let part = format!("<PartNumber>1</PartNumber><ETag>{etag}</ETag><ChecksumCRC32>{checksum}</ChecksumCRC32>");
        let document = format!("<CompleteMultipartUpload><Part>{part}</Part></CompleteMultipartUpload>");
        send(self.on_object("POST", "parts").query("uploadId", &id).body(document));
    }

    fn on_bucket(&self, method: &str) -> Request {
        Request::new(method, &format!("/{}", self.bucket))
    }

    fn on_object(&self, method: &str, key: &str) -> Request {
        Request::new(method, &format!("/{}/{key}", self.bucket))
    }

    fn on_upload(&self, method: &str) -> Request {
        self.on_object(method, "upload").query("uploadId", &self.upload_id)
    }

    /// Returns the document of an operation, if it takes one.
    pub(crate) fn document(&self, operation: &str) -> Option<String> {
        Some(match operation {
            "CreateBucket" => "<CreateBucketConfiguration></CreateBucketConfiguration>".to_owned(),
            "PutBucketEncryption" => ENCRYPTION.to_owned(),
            "PutBucketLifecycleConfiguration" => LIFECYCLE.to_owned(),
            "DeleteObjects" => "<Delete><Object><Key>plain é</Key></Object></Delete>".to_owned(),
            "PutBucketCors" => CORS.to_owned(),
            "PutObjectTagging" | "PutBucketTagging" => TAGGING.to_owned(),
            "PutBucketVersioning" => VERSIONING.to_owned(),
            "PutObjectLockConfiguration" => LOCK.to_owned(),
            "PutObjectRetention" => RETENTION.to_owned(),
            "PutObjectLegalHold" => LEGAL_HOLD.to_owned(),
            "CompleteMultipartUpload" => {
                let part = format!("<Part><PartNumber>1</PartNumber><ETag>{}</ETag></Part>", self.etag);
                format!("<CompleteMultipartUpload>{part}</CompleteMultipartUpload>")
            }
            _ => return None,
        })
    }

    /// Returns a request of an operation that succeeds.
    pub(crate) fn request(&self, operation: &str) -> Request {
        self.request_with(operation, self.document(operation))
    }

    /// Returns a request of an operation with this document.
    pub(crate) fn request_with(&self, operation: &str, document: Option<String>) -> Request {
        let source = format!("{}/dir/source", self.bucket);
        let request = match operation {
            "ListBuckets" => Request::new("GET", "/"),
            "CreateBucket" => Request::new("PUT", &format!("/{}-new", self.bucket)),
            "DeleteBucket" => Request::new("DELETE", &format!("/{}-empty", self.bucket)),
            "HeadBucket" => self.on_bucket("HEAD"),
            "GetBucketLocation" => self.on_bucket("GET").query("location", ""),
            "GetBucketVersioning" => self.on_bucket("GET").query("versioning", ""),
            "PutBucketVersioning" => self.on_bucket("PUT").query("versioning", ""),
            "GetObjectLockConfiguration" => self.on_bucket("GET").query("object-lock", ""),
            "PutObjectLockConfiguration" => self.on_bucket("PUT").query("object-lock", ""),
            "GetObjectRetention" => self.on_object("GET", "plain é").query("retention", ""),
            "PutObjectRetention" => self.on_object("PUT", "plain é").query("retention", ""),
            "GetObjectLegalHold" => self.on_object("GET", "plain é").query("legal-hold", ""),
            "PutObjectLegalHold" => self.on_object("PUT", "plain é").query("legal-hold", ""),
            "GetBucketAcl" => self.on_bucket("GET").query("acl", ""),
            "PutBucketEncryption" => self.on_bucket("PUT").query("encryption", ""),
            "GetBucketEncryption" => self.on_bucket("GET").query("encryption", ""),
            "PutBucketCors" => self.on_bucket("PUT").query("cors", ""),
            "GetBucketCors" => self.on_bucket("GET").query("cors", ""),
            "DeleteBucketCors" => self.on_bucket("DELETE").query("cors", ""),
            "PutBucketTagging" => self.on_bucket("PUT").query("tagging", ""),
            "GetBucketTagging" => self.on_bucket("GET").query("tagging", ""),
            "DeleteBucketTagging" => self.on_bucket("DELETE").query("tagging", ""),
            "ListObjectVersions" => self.on_bucket("GET").query("versions", ""),
            "DeleteBucketEncryption" => self.on_bucket("DELETE").query("encryption", ""),
            "PutBucketLifecycleConfiguration" => self.on_bucket("PUT").query("lifecycle", ""),
            "GetBucketLifecycleConfiguration" => self.on_bucket("GET").query("lifecycle", ""),
            "DeleteBucketLifecycle" => self.on_bucket("DELETE").query("lifecycle", ""),
            "ListObjects" => self.on_bucket("GET"),
            "ListObjectsV2" => self.on_bucket("GET").query("list-type", "2"),
            "ListMultipartUploads" => self.on_bucket("GET").query("uploads", ""),
            "DeleteObjects" => self.on_bucket("POST").query("delete", ""),
            "PutObject" => self.on_object("PUT", "new").body("new"),
            "CopyObject" => self.on_object("PUT", "copy").header("x-amz-copy-source", source),
            "GetObject" => self.on_object("GET", "plain é"),
            "HeadObject" => self.on_object("HEAD", "plain é"),
            "DeleteObject" => self.on_object("DELETE", "plain é"),
            "GetObjectTagging" => self.on_object("GET", "plain é").query("tagging", ""),
            "PutObjectTagging" => self.on_object("PUT", "plain é").query("tagging", ""),
            "DeleteObjectTagging" => self.on_object("DELETE", "plain é").query("tagging", ""),
            "GetObjectAcl" => self.on_object("GET", "plain é").query("acl", ""),
            "GetObjectAttributes" => {
                let request = self.on_object("GET", "parts").query("attributes", "");
                request.header("x-amz-object-attributes", "ObjectParts")
            }
            "CreateMultipartUpload" => self.on_object("POST", "large").query("uploads", ""),
            "UploadPart" => self.on_upload("PUT").query("partNumber", "2").body("part"),
            "UploadPartCopy" => self.on_upload("PUT").query("partNumber", "2").header("x-amz-copy-source", source),
            "CompleteMultipartUpload" => self.on_upload("POST"),
            "AbortMultipartUpload" => self.on_upload("DELETE"),
            "ListParts" => self.on_upload("GET"),
            other => panic!("no request of {other}"),
        };
        match document {
            Some(document) if LOCK_OPERATIONS.contains(&operation) => {
                request.header("content-md5", base64(&md5(document.as_bytes()))).body(document)
            }
            Some(document) => request.body(document),
            None => request,
        }
    }

    /// Returns a form that succeeds.
    pub(crate) fn form(&self) -> Form {
        let mut form = Form::new("form", "file");
        form.conditions[0] = format!("{{\"bucket\": \"{}\"}}", self.bucket);
        form
    }

    /// Returns the signed request of a form.
    pub(crate) fn form_request(&self, form: Form) -> Request {
        let request = form.signed(&self.node.signer(), NOW_MS as i64).request();
        request.with_path(&format!("/{}", self.bucket))
    }

    /// Returns the content of the world's buckets.
    pub(crate) fn state(&self) -> State {
        self.node.state(|name| name.starts_with(&self.bucket))
    }

    /// Sends a request unchanged. Returns its outcome and the content of the world's buckets.
    pub(crate) fn exchange(&self, request: &Request) -> (Outcome, State) {
        let response = self.node.send_unsigned(request);
        let text = |text: &str| text.replace(&self.bucket, BUCKET).replace(&self.upload_id, "{upload}");
        let is_stable =
            |(name, _): &&(String, String)| !matches!(&name[..], "x-amz-request-id" | "x-amz-version-id" | "date");
        let headers = response.headers.iter().filter(is_stable).map(|(name, value)| (name.clone(), text(value)));
        let mut body = text(&response.text());
        for element in ["RequestId", "UploadId"] {
            if let Some(random) = response.element(element) {
                body = body.replace(&random, "{random}");
            }
        }
        let mut headers: Vec<(String, String)> = headers.collect();
        // ListBuckets shows the worlds of earlier requests.
        if body.contains("<ListAllMyBucketsResult") {
            body = body.split("<Bucket>").filter(|item| item.contains(BUCKET)).collect();
            headers.retain(|(name, _)| name != "content-length");
        }
        let state = self.state();
        let content = state.content.iter().map(|line| text(line)).collect();
        (Outcome { status: response.status, headers, body, content }, state)
    }
}

const LIFECYCLE: &str = "<LifecycleConfiguration><Rule><ID>a</ID><Filter><Prefix>old/</Prefix></Filter>\
    <Status>Enabled</Status><Expiration><Days>3</Days></Expiration></Rule></LifecycleConfiguration>";

const ENCRYPTION: &str = "<ServerSideEncryptionConfiguration><Rule><BlockedEncryptionTypes>\
    <EncryptionType>SSE-C</EncryptionType></BlockedEncryptionTypes></Rule></ServerSideEncryptionConfiguration>";

const CORS: &str = "<CORSConfiguration><CORSRule><AllowedMethod>GET</AllowedMethod>\
    <AllowedOrigin>*</AllowedOrigin></CORSRule></CORSConfiguration>";

const TAGGING: &str = "<Tagging><TagSet><Tag><Key>b</Key><Value>2</Value></Tag></TagSet></Tagging>";

const VERSIONING: &str = "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>";

const LOCK: &str = "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule><DefaultRetention>\
    <Mode>GOVERNANCE</Mode><Days>1</Days></DefaultRetention></Rule></ObjectLockConfiguration>";

const RETENTION: &str =
    "<Retention><Mode>GOVERNANCE</Mode><RetainUntilDate>2030-01-01T00:00:00Z</RetainUntilDate></Retention>";

const LEGAL_HOLD: &str = "<LegalHold><Status>ON</Status></LegalHold>";

/// The operations on locks: their bucket has object lock, and their documents have a digest.
const LOCK_OPERATIONS: [&str; 6] = [
    "GetObjectLockConfiguration",
    "PutObjectLockConfiguration",
    "GetObjectRetention",
    "PutObjectRetention",
    "GetObjectLegalHold",
    "PutObjectLegalHold",
];

/// Returns the names of the operations that the node routes, without PostObject, whose names are
/// the fields of a form.
pub(crate) fn operations() -> Vec<&'static str> {
    let source = include_str!("../../../../keyhole-s3/src/ops/route.rs");
    let names = source.split("pub fn name(&self)").nth(1).expect("the names of the operations");
    let names = names.split("/// Determines").next().expect("their end");
    let names = names.split("=> \"").skip(1).map(|rest| rest.split('"').next().expect("a name"));
    names.filter(|name| !matches!(*name, "PostObject" | "Preflight")).collect()
}
