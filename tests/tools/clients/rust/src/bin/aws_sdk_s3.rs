//! Flows of aws-sdk-s3, the AWS SDK for Rust.

use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::operation::get_object::builders::GetObjectFluentBuilder;
use aws_sdk_s3::operation::head_object::HeadObjectOutput;
use aws_sdk_s3::presigning::{PresignedRequest, PresigningConfig};
use aws_sdk_s3::primitives::{ByteStream, SdkBody};
use aws_sdk_s3::types::{
    ChecksumAlgorithm, ChecksumMode, ChecksumType, CompletedMultipartUpload, CompletedPart, Delete, ObjectAttributes,
    ObjectIdentifier, Tag, Tagging,
};
use aws_smithy_runtime_api::client::http::{HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use bytes::Bytes;
use keyhole_clients::{Flows, Http, KEY_HEADERS, PART_LEN, SMALL_LEN, ok, unsupported};

/// Adds the customer key to a request.
macro_rules! sealed {
    ($request:expr, $key:expr) => {
        $request.sse_customer_algorithm("AES256").sse_customer_key($key.text()).sse_customer_key_md5($key.digest())
    };
}

/// Adds the source's customer key to a copy request.
macro_rules! of_sealed {
    ($request:expr, $key:expr) => {
        $request
            .copy_source_sse_customer_algorithm("AES256")
            .copy_source_sse_customer_key($key.text())
            .copy_source_sse_customer_key_md5($key.digest())
    };
}

/// Adapter of the shared HTTP client to the SDK.
#[derive(Debug)]
struct Connector(Http);

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let http = self.0.clone();
        HttpConnectorFuture::new(async move {
            let request = request.try_into_http1x().expect("an HTTP request");
            let reply = http.send(request).await.map_err(ConnectorError::io)?;
            Ok(HttpResponse::try_from(reply.map(SdkBody::from_body_1_x)).expect("an HTTP reply"))
        })
    }
}

struct Sdk {
    s3: Client,
    flows: Flows,
}

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(run(&Sdk::new()));
}

async fn run(sdk: &Sdk) {
    sdk.buckets().await;
    ok("buckets", "");
    sdk.objects().await;
    ok("objects", "");
    sdk.multipart().await;
    ok("multipart upload", "");
    sdk.sse_c().await;
    ok("SSE-C objects", "");
    ok("wrong SSE-C key", &sdk.wrong_key().await);
    sdk.sse_c_multipart().await;
    ok("SSE-C multipart upload", "");
    sdk.ranges().await;
    ok("range", "");
    sdk.copy().await;
    ok("copy", "");
    sdk.copy_with_another_key().await;
    ok("copy with another SSE-C key", "");
    sdk.pages().await;
    ok("list in pages", "");
    sdk.delete_many().await;
    ok("delete many", "");
    sdk.presigned().await;
    ok("presigned URL", "");
    sdk.tags().await;
    ok("tags", "");
    ok("checksums", &sdk.checksums().await);
    unsupported("sync", "");
}

/// Returns the error code of a failure, or the status without a code.
fn refusal<T, E: ProvideErrorMetadata>(result: Result<T, SdkError<E>>) -> String {
    let error = result.err().expect("an error");
    match error.code() {
        Some(code) => code.to_owned(),
        None => error.raw_response().expect("a reply").status().to_string(),
    }
}

/// Splits the contents into parts.
fn parts(contents: &Bytes) -> Vec<Bytes> {
    (0..contents.len()).step_by(PART_LEN).map(|at| contents.slice(at..contents.len().min(at + PART_LEN))).collect()
}

impl Sdk {
    fn new() -> Self {
        let flows = Flows::from_env();
        let connector = SharedHttpConnector::new(Connector(flows.http.clone()));
        let config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .credentials_provider(Credentials::new(&flows.access_key, &flows.secret_key, None, None, "flows"))
            .endpoint_url(&flows.endpoint)
            .force_path_style(true)
            .http_client(http_client_fn(move |_, _| connector.clone()))
            .region(Region::new(flows.region.clone()))
            .retry_config(RetryConfig::disabled());
        Self { s3: Client::from_conf(config.build()), flows }
    }

    fn get(&self, key: &str) -> GetObjectFluentBuilder {
        self.s3.get_object().bucket(&self.flows.bucket).key(key)
    }

    fn source(&self, key: &str) -> String {
        format!("{}/{}", self.flows.bucket, key.replace(' ', "%20"))
    }

    async fn body(&self, request: GetObjectFluentBuilder) -> Bytes {
        request.send().await.unwrap().body.collect().await.unwrap().into_bytes()
    }

    /// Uploads an object in parts, with the SDK's default checksums.
    async fn upload(&self, key: &str, is_sealed: bool, algorithm: Option<ChecksumAlgorithm>) -> HeadObjectOutput {
        let (bucket, sse) = (&self.flows.bucket, &self.flows.key);
        let mut create = self.s3.create_multipart_upload().bucket(bucket).key(key).content_type("text/plain");
        create = create.set_checksum_algorithm(algorithm.clone());
        create = if is_sealed { sealed!(create, sse) } else { create };
        let id = create.send().await.unwrap().upload_id.unwrap();
        let mut done = CompletedMultipartUpload::builder();
        for (number, contents) in (1..).zip(parts(&self.flows.large)) {
            let mut part = self.s3.upload_part().bucket(bucket).key(key).upload_id(&id).part_number(number);
            part = part.set_checksum_algorithm(algorithm.clone());
            part = if is_sealed { sealed!(part, sse) } else { part };
            let part = part.body(contents.into()).send().await.unwrap();
            let completed = CompletedPart::builder().part_number(number).set_e_tag(part.e_tag);
            let completed = completed
                .set_checksum_crc32(part.checksum_crc32)
                .set_checksum_crc32_c(part.checksum_crc32_c)
                .set_checksum_crc64_nvme(part.checksum_crc64_nvme)
                .set_checksum_sha1(part.checksum_sha1)
                .set_checksum_sha256(part.checksum_sha256);
            done = done.parts(completed.build());
        }
        let mut complete = self.s3.complete_multipart_upload().bucket(bucket).key(key).upload_id(id);
        complete = if is_sealed { sealed!(complete, sse) } else { complete };
        complete.multipart_upload(done.build()).send().await.unwrap();
        let head = self.s3.head_object().bucket(bucket).key(key).checksum_mode(ChecksumMode::Enabled);
        let head = if is_sealed { sealed!(head, sse) } else { head };
        head.send().await.unwrap()
    }

    async fn buckets(&self) {
        let (s3, bucket) = (&self.s3, &self.flows.bucket);
        let gone = format!("{bucket}-gone");
        s3.create_bucket().bucket(bucket).send().await.unwrap();
        s3.head_bucket().bucket(bucket).send().await.unwrap();
        s3.create_bucket().bucket(&gone).send().await.unwrap();
        let listed = s3.list_buckets().send().await.unwrap();
        let names: Vec<&str> = listed.buckets().iter().filter_map(|bucket| bucket.name()).collect();
        assert!(names.contains(&&bucket[..]) && names.contains(&&gone[..]), "{names:?}");
        s3.delete_bucket().bucket(&gone).send().await.unwrap();
        assert_eq!(refusal(s3.head_bucket().bucket(&gone).send().await), "NotFound");
        let location = s3.get_bucket_location().bucket(bucket).send().await.unwrap().location_constraint;
        assert_eq!(location.unwrap().as_str(), "");
    }

    async fn objects(&self) {
        let (s3, bucket, small) = (&self.s3, &self.flows.bucket, &self.flows.small);
        let key = "a plain/öbject";
        let put = s3.put_object().bucket(bucket).key(key).content_type("text/plain").metadata("colour", "blue");
        let put = put.body(small.clone().into()).send().await.unwrap();
        let head = s3.head_object().bucket(bucket).key(key).send().await.unwrap();
        assert_eq!((head.content_length, head.content_type()), (Some(SMALL_LEN as i64), Some("text/plain")));
        assert_eq!(head.metadata().unwrap()["colour"], "blue");
        assert_eq!(self.body(self.get(key)).await, small);
        assert_eq!(refusal(self.get(key).if_match("\"0\"").send().await), "PreconditionFailed");
        let again = || s3.put_object().bucket(bucket).key(key).body(small.clone().into());
        assert_eq!(refusal(again().if_none_match("*").send().await), "PreconditionFailed");
        again().set_if_match(put.e_tag).send().await.unwrap();
        s3.delete_object().bucket(bucket).key(key).send().await.unwrap();
        assert_eq!(refusal(self.get(key).send().await), "NoSuchKey");
    }

    async fn multipart(&self) {
        let head = self.upload("parts", false, None).await;
        assert!(head.e_tag().unwrap().ends_with("-3\""));
        assert_eq!(self.body(self.get("parts")).await, self.flows.large);
    }

    async fn sse_c(&self) {
        let Flows { bucket, key, small, .. } = &self.flows;
        let put = self.s3.put_object().bucket(bucket).key("sealed").body(small.clone().into());
        let put = sealed!(put, key).send().await.unwrap();
        assert_eq!(put.sse_customer_algorithm(), Some("AES256"));
        assert_eq!(put.sse_customer_key_md5(), Some(&key.digest()[..]));
        let head = sealed!(self.s3.head_object().bucket(bucket).key("sealed"), key).send().await.unwrap();
        assert_eq!(head.content_length, Some(SMALL_LEN as i64));
        assert_eq!(self.body(sealed!(self.get("sealed"), key)).await, small);
        assert_eq!(refusal(self.get("sealed").send().await), "InvalidRequest");
    }

    async fn wrong_key(&self) -> String {
        let Flows { bucket, other_key, .. } = &self.flows;
        let head = self.s3.head_object().bucket(bucket).key("sealed");
        assert_eq!(refusal(sealed!(head, other_key).send().await), "403");
        refusal(sealed!(self.get("sealed"), other_key).send().await)
    }

    async fn sse_c_multipart(&self) {
        let Flows { bucket, key, other_key, small, large, .. } = &self.flows;
        let name = "sealed parts";
        self.upload(name, true, None).await;
        assert_eq!(self.body(sealed!(self.get(name), key)).await, large);
        let part = self.s3.head_object().bucket(bucket).key(name).part_number(2);
        let part = sealed!(part, key).send().await.unwrap();
        assert_eq!((part.content_length, part.parts_count), (Some(PART_LEN as i64), Some(3)));
        // A part with another key, the list of parts, and an aborted upload.
        let create = sealed!(self.s3.create_multipart_upload().bucket(bucket).key("aborted"), key);
        let id = create.send().await.unwrap().upload_id.unwrap();
        let part = || {
            let part = self.s3.upload_part().bucket(bucket).key("aborted").upload_id(&id).part_number(1);
            part.body(small.clone().into())
        };
        assert_eq!(refusal(sealed!(part(), other_key).send().await), "InvalidRequest");
        sealed!(part(), key).send().await.unwrap();
        let list = self.s3.list_parts().bucket(bucket).key("aborted").upload_id(&id);
        let listed = sealed!(list, key).send().await.unwrap();
        let sizes: Vec<Option<i64>> = listed.parts().iter().map(|part| part.size).collect();
        assert_eq!(sizes, [Some(SMALL_LEN as i64)]);
        let uploads = self.s3.list_multipart_uploads().bucket(bucket);
        assert_eq!(uploads.clone().send().await.unwrap().uploads().len(), 1);
        self.s3.abort_multipart_upload().bucket(bucket).key("aborted").upload_id(id).send().await.unwrap();
        assert_eq!(uploads.send().await.unwrap().uploads().len(), 0);
    }

    async fn ranges(&self) {
        let Flows { key, large, .. } = &self.flows;
        let get = |range| sealed!(self.get("sealed parts").range(range), key);
        assert_eq!(self.body(get("bytes=5242000-5243999")).await, large[5_242_000..5_244_000]);
        assert_eq!(self.body(get("bytes=-7")).await, large[large.len() - 7..]);
        let beyond = self.get("sealed").range("bytes=100000-");
        assert_eq!(refusal(sealed!(beyond, key).send().await), "InvalidRange");
    }

    async fn copy(&self) {
        let copy = self.s3.copy_object().bucket(&self.flows.bucket).key("parts copied");
        copy.copy_source(self.source("parts")).send().await.unwrap();
        assert_eq!(self.body(self.get("parts copied")).await, self.flows.large);
    }

    async fn copy_with_another_key(&self) {
        let Flows { bucket, key, other_key, small, large, .. } = &self.flows;
        for (name, contents) in [("sealed", small), ("sealed parts", large)] {
            let copy = self.s3.copy_object().bucket(bucket).key("copied").copy_source(self.source(name));
            sealed!(of_sealed!(copy, key), other_key).send().await.unwrap();
            assert_eq!(self.body(sealed!(self.get("copied"), other_key)).await, contents);
            assert_eq!(refusal(sealed!(self.get("copied"), key).send().await), "AccessDenied");
        }
        // In parts.
        let create = sealed!(self.s3.create_multipart_upload().bucket(bucket).key("copied"), other_key);
        let id = create.send().await.unwrap().upload_id.unwrap();
        let mut done = CompletedMultipartUpload::builder();
        for (number, first) in (1..).zip((0..large.len()).step_by(PART_LEN)) {
            let range = format!("bytes={first}-{}", large.len().min(first + PART_LEN) - 1);
            let copy = self.s3.upload_part_copy().bucket(bucket).key("copied").upload_id(&id).part_number(number);
            let copy = copy.copy_source(self.source("sealed parts")).copy_source_range(range);
            let copied = sealed!(of_sealed!(copy, key), other_key).send().await.unwrap().copy_part_result.unwrap();
            done = done.parts(CompletedPart::builder().part_number(number).set_e_tag(copied.e_tag).build());
        }
        let complete = self.s3.complete_multipart_upload().bucket(bucket).key("copied").upload_id(id);
        complete.multipart_upload(done.build()).send().await.unwrap();
        assert_eq!(self.body(sealed!(self.get("copied"), other_key)).await, large);
    }

    async fn pages(&self) {
        let Flows { many, many_count, .. } = &self.flows;
        let mut pages = self.s3.list_objects_v2().bucket(many).prefix("many/").into_paginator().send();
        let (mut page_count, mut keys) = (0, Vec::new());
        while let Some(page) = pages.next().await {
            page_count += 1;
            keys.extend(page.unwrap().contents.unwrap().into_iter().map(|object| object.key.unwrap()));
        }
        assert!(page_count > 1 && keys.len() == *many_count && keys.is_sorted_by(|a, b| a < b));
        let rolled = self.s3.list_objects_v2().bucket(many).delimiter("/").send().await.unwrap();
        let prefixes: Vec<_> = rolled.common_prefixes().iter().filter_map(|prefix| prefix.prefix()).collect();
        assert_eq!(prefixes, ["many/"]);
    }

    async fn delete_many(&self) {
        let many = &self.flows.many;
        let list = || self.s3.list_objects_v2().bucket(many);
        loop {
            let page = list().prefix("many/").send().await.unwrap();
            let keys = page.contents().iter().map(|object| object.key().unwrap());
            let objects: Vec<_> = keys.map(|key| ObjectIdentifier::builder().key(key).build().unwrap()).collect();
            if objects.is_empty() {
                break;
            }
            let delete = Delete::builder().set_objects(Some(objects)).quiet(true).build().unwrap();
            let deleted = self.s3.delete_objects().bucket(many).delete(delete).send().await.unwrap();
            assert_eq!(deleted.errors().len(), 0);
        }
        let left = list().send().await.unwrap();
        assert_eq!(left.contents().iter().filter_map(|object| object.key()).collect::<Vec<_>>(), ["one"]);
    }

    async fn presigned(&self) {
        let Flows { bucket, key, small, http, .. } = &self.flows;
        let minute = || PresigningConfig::expires_in(Duration::from_secs(60)).unwrap();
        let send = async |request: &PresignedRequest, body: Bytes| {
            http.fetch(request.method(), request.uri(), request.headers(), body).await
        };
        let put = self.s3.put_object().bucket(bucket).key("presigned").presigned(minute()).await.unwrap();
        assert_eq!(send(&put, small.clone()).await.0, 200);
        let get = self.get("presigned").presigned(minute()).await.unwrap();
        assert_eq!(send(&get, Bytes::new()).await, (200, small.clone()));
        let get = sealed!(self.get("sealed"), key).presigned(minute()).await.unwrap();
        assert!(!get.uri().contains(&key.text()) && KEY_HEADERS.iter().all(|name| get.uri().contains(name)));
        assert_eq!(send(&get, Bytes::new()).await, (200, small.clone()));
        let without: [(&str, &str); 0] = [];
        assert_eq!(http.fetch("GET", get.uri(), without, Bytes::new()).await.0, 403);
    }

    async fn tags(&self) {
        let Flows { bucket, key, small, .. } = &self.flows;
        let name = "sealed tagged";
        let put = self.s3.put_object().bucket(bucket).key(name).tagging("a=1&b=2").body(small.clone().into());
        sealed!(put, key).send().await.unwrap();
        let tag = |key, value| Tag::builder().key(key).value(value).build().unwrap();
        let get = self.s3.get_object_tagging().bucket(bucket).key(name);
        assert_eq!(get.clone().send().await.unwrap().tag_set, [tag("a", "1"), tag("b", "2")]);
        let tagging = Tagging::builder().tag_set(tag("c", "3")).build().unwrap();
        self.s3.put_object_tagging().bucket(bucket).key(name).tagging(tagging).send().await.unwrap();
        let head = sealed!(self.s3.head_object().bucket(bucket).key(name), key).send().await.unwrap();
        assert_eq!(head.tag_count, Some(1));
        self.s3.delete_object_tagging().bucket(bucket).key(name).send().await.unwrap();
        assert_eq!(get.send().await.unwrap().tag_set, []);
    }

    async fn checksums(&self) -> String {
        let Flows { bucket, key, small, large, http, .. } = &self.flows;
        let path = std::env::temp_dir().join("summed");
        std::fs::write(&path, small).unwrap();
        for is_sealed in [false, true] {
            let put = || {
                let put = self.s3.put_object().bucket(bucket).key("summed");
                if is_sealed { sealed!(put, key) } else { put }
            };
            let get = || {
                let get = self.get("summed").checksum_mode(ChecksumMode::Enabled);
                if is_sealed { sealed!(get, key) } else { get }
            };
            // By default: CRC32, in a header for data in memory, and in a trailer for streams.
            let done = put().body(small.clone().into()).send().await.unwrap();
            assert_eq!(http.last("x-amz-checksum-crc32"), done.checksum_crc32);
            assert!(done.checksum_crc32.is_some());
            let streamed = put().body(ByteStream::from_path(&path).await.unwrap()).send().await.unwrap();
            assert_eq!(http.last("x-amz-trailer").as_deref(), Some("x-amz-checksum-crc32"));
            assert_eq!(http.last("content-encoding").as_deref(), Some("aws-chunked"));
            assert_eq!(streamed.checksum_crc32, done.checksum_crc32);
            // Reading the body verifies it.
            let got = get().send().await.unwrap();
            assert_eq!(http.last("x-amz-checksum-mode").as_deref(), Some("ENABLED"));
            assert_eq!(got.checksum_crc32, done.checksum_crc32);
            assert_eq!(got.body.collect().await.unwrap().into_bytes(), small);
            for algorithm in [
                ChecksumAlgorithm::Crc32,
                ChecksumAlgorithm::Crc32C,
                ChecksumAlgorithm::Crc64Nvme,
                ChecksumAlgorithm::Sha1,
                ChecksumAlgorithm::Sha256,
            ] {
                let name = format!("x-amz-checksum-{}", algorithm.as_str().to_lowercase());
                let body = ByteStream::from_path(&path).await.unwrap();
                put().checksum_algorithm(algorithm.clone()).body(body).send().await.unwrap();
                assert_eq!(http.last("x-amz-trailer"), Some(name));
                let got = get().send().await.unwrap();
                let sums = [
                    (ChecksumAlgorithm::Crc32, got.checksum_crc32()),
                    (ChecksumAlgorithm::Crc32C, got.checksum_crc32_c()),
                    (ChecksumAlgorithm::Crc64Nvme, got.checksum_crc64_nvme()),
                    (ChecksumAlgorithm::Sha1, got.checksum_sha1()),
                    (ChecksumAlgorithm::Sha256, got.checksum_sha256()),
                ];
                for (other, sum) in sums {
                    assert_eq!(sum.is_some(), other == algorithm, "{algorithm}: {other}");
                }
                assert_eq!(got.body.collect().await.unwrap().into_bytes(), small);
            }
            for (algorithm, expected) in [
                (ChecksumAlgorithm::Crc64Nvme, ChecksumType::FullObject),
                (ChecksumAlgorithm::Sha256, ChecksumType::Composite),
            ] {
                let head = self.upload("summed parts", is_sealed, Some(algorithm.clone())).await;
                assert_eq!(head.checksum_type, Some(expected), "{algorithm}");
                let attributes = self.s3.get_object_attributes().bucket(bucket).key("summed parts");
                let attributes = attributes.object_attributes(ObjectAttributes::ObjectParts);
                let attributes = attributes.object_attributes(ObjectAttributes::ObjectSize);
                let attributes = if is_sealed { sealed!(attributes, key) } else { attributes };
                let attributes = attributes.send().await.unwrap();
                assert_eq!(attributes.object_size, Some(large.len() as i64));
                assert_eq!(attributes.object_parts().unwrap().total_parts_count, Some(3));
                let get = self.get("summed parts").checksum_mode(ChecksumMode::Enabled);
                assert_eq!(self.body(if is_sealed { sealed!(get, key) } else { get }).await, large);
            }
        }
        let wrong = self.s3.put_object().bucket(bucket).key("summed").body(small.clone().into());
        let wrong = wrong.checksum_sha256("A".repeat(43) + "=");
        refusal(sealed!(wrong, key).send().await) + " for a wrong one"
    }
}
