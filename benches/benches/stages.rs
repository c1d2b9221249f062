//! Each stage of a small request alone, on one core: parsing the request head, its signature and
//! its customer key, sealing and opening, checksums, ETags, and the response head. `keyhole-report`
//! measures all of them end to end.

// The engine is a module of the binary, which has no library.
#[path = "../../crates/keyhole/src/engine/accelerated.rs"]
mod accelerated;
#[path = "../../crates/keyhole/src/commands/bench/bytes.rs"]
mod bytes;

use std::hint::black_box;

use accelerated::Accelerated;
use bytes::AlignedBytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use keyhole_core::body;
use keyhole_core::chunked::{Opener, Sealer};
use keyhole_core::head::{ChecksumAlgorithm, Head, open_head, seal_head};
use keyhole_core::limits::{CHUNK_LEN, KEY_LEN, PREFIX_LEN, SALT_LEN, SEALED_HEAD_MAX, TAG_LEN};
use keyhole_core::sse_c::SseCTarget;
use keyhole_core::{CustomerKey, DataKey};
use keyhole_md5::{Md5, update_all};
use keyhole_s3::auth::{Credentials, SecretKey, SigningKeys, authenticate};
use keyhole_s3::checksum::Hasher;
use keyhole_s3::http::{Persistence, RequestHead, Response, parse_head};
use keyhole_s3::ops::{HostNames, route};
use keyhole_s3::sse::{self, RequestSseC};
use keyhole_tests::sigv4::{Signer, amz_date, signed_headers};

/// Bytes of a small object.
const SMALL: usize = 4096;

const REGION: &str = "us-east-1";
const BUCKET: &str = "bucket";
const NAME: &str = "small/1234";
const KEY: [u8; KEY_LEN] = [7; KEY_LEN];
const SALT: [u8; SALT_LEN] = [5; SALT_LEN];
/// The current time of all requests, in ms since 1970.
const NOW_MS: u64 = 1_700_000_000_000;

/// A credential store with a single access key.
struct One {
    access_key: String,
    secret: SecretKey,
}

impl Credentials for One {
    fn secret(&self, access_key: &str) -> Option<&SecretKey> {
        (access_key == self.access_key).then_some(&self.secret)
    }
}

/// Builds a signed request with a customer key, like those of `keyhole-load`.
fn request(method: &str, signer: &Signer) -> Vec<u8> {
    const UNSIGNED: &str = "UNSIGNED-PAYLOAD";
    let path = format!("/{BUCKET}/{NAME}");
    let date = amz_date(NOW_MS as i64);
    let mut headers = vec![
        ("host".to_owned(), "127.0.0.1:9000".to_owned()),
        ("x-amz-content-sha256".to_owned(), UNSIGNED.to_owned()),
        ("x-amz-date".to_owned(), date.clone()),
    ];
    headers.extend(keyhole_tests::CustomerKey(KEY).headers());
    let signature = signer.signature(method, &path, "", &headers, UNSIGNED, &date);
    let credential = signer.credential(&date);
    let signed = signed_headers(&headers);
    let fields: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!(
        "{method} {path} HTTP/1.1\r\n{fields}content-length: 0\r\nauthorization: AWS4-HMAC-SHA256 \
         Credential={credential}, SignedHeaders={signed}, Signature={signature}\r\n\r\n"
    )
    .into_bytes()
}

fn parsed(bytes: &[u8]) -> RequestHead {
    parse_head(bytes).expect("a valid head").expect("a whole head").0
}

fn requests(c: &mut Criterion) {
    let signer = Signer {
        access_key: "an-access-key".to_owned(),
        secret_key: "a-secret-key-of-no-account".to_owned(),
        region: REGION.to_owned(),
    };
    let credentials = One { access_key: signer.access_key.clone(), secret: SecretKey::new(signer.secret_key.clone()) };
    let get = request("GET", &signer);
    let put = request("PUT", &signer);
    let get_head = parsed(&get);
    let put_head = parsed(&put);
    let names = HostNames::new(Vec::new());
    let keys = SigningKeys::default();

    let mut group = c.benchmark_group("request");
    group.bench_function("head parsed", |b| b.iter(|| parsed(black_box(&get))));
    group.bench_function("signature verified", |b| {
        b.iter(|| authenticate(black_box(&get_head), &credentials, &keys, REGION, NOW_MS).expect("it is signed"));
    });
    group.bench_function("operation found", |b| {
        b.iter(|| route(black_box(&get_head), &names).expect("an operation"));
    });
    group.bench_function("customer key of a write", |b| {
        b.iter(|| RequestSseC::parse(black_box(&put_head), true).write_key().expect("a valid key").expect("a key"));
    });
    group.bench_function("customer key of a read", |b| {
        b.iter(|| {
            let request = RequestSseC::parse(black_box(&get_head), true);
            let headers = request.read_headers(SseCTarget::Object).expect("valid headers");
            headers.key_for(true).expect("a valid key").expect("a key")
        });
    });
    group.finish();
}

fn replies(c: &mut Criterion) {
    let key = CustomerKey::new(KEY);
    c.bench_function("reply/head of a GET", |b| {
        b.iter(|| {
            let mut response = Response::new(200)
                .header("ETag", "\"0123456789abcdef0123456789abcdef\"")
                .header("Last-Modified", keyhole_s3::time::http_date(black_box(NOW_MS)))
                .header("Accept-Ranges", "bytes")
                .header("Content-Type", "application/octet-stream");
            for (name, value) in sse::response_headers(&key) {
                response = response.header(name, value);
            }
            response.head_bytes(Some(SMALL as u64), "0123456789ABCDEF", NOW_MS, Persistence::Implied)
        });
    });
}

/// Seals an object head and returns its length.
fn sealed_head(data_key: &DataKey, out: &mut [u8]) -> usize {
    let head = Head { data_key: Some(data_key.expose()), plaintext_length: Some(SMALL as u64), ..Head::default() };
    seal_head(&Accelerated, &CustomerKey::new(KEY), &SALT, BUCKET, NAME, &head, out).expect("a head that fits")
}

/// Seals a body shorter than a chunk and returns the message prefix and the tag.
fn sealed_body(data_key: &DataKey, data: &mut [u8]) -> ([u8; PREFIX_LEN], [u8; TAG_LEN]) {
    let mut sealer = Sealer::new(&Accelerated, data_key.expose(), &SALT, &[&body::context(0)]);
    let tag = sealer.seal_next(data);
    (sealer.prefix(), tag)
}

fn objects(c: &mut Criterion) {
    let data_key = DataKey::new([9; KEY_LEN]);
    let mut out = vec![0; SEALED_HEAD_MAX];
    let len = sealed_head(&data_key, &mut out);
    let sealed = out[..len].to_vec();
    let open = |sealed: &mut [u8]| {
        let head = open_head(&Accelerated, &CustomerKey::new(KEY), BUCKET, NAME, sealed).expect("its own key");
        DataKey::new(*head.data_key.expect("a sealed head has a data key"))
    };

    let mut group = c.benchmark_group("head");
    group.bench_function("sealed", |b| b.iter(|| sealed_head(black_box(&data_key), &mut out)));
    let mut copy = sealed.clone();
    group.bench_function("opened", |b| {
        b.iter(|| {
            copy.copy_from_slice(&sealed);
            open(&mut copy)
        });
    });
    group.finish();

    let mut group = c.benchmark_group("object of 4 KiB");
    group.throughput(Throughput::Bytes(SMALL as u64));
    let mut data = AlignedBytes::new(SMALL);
    group.bench_function("sealed, head and body", |b| {
        b.iter(|| {
            let len = sealed_head(&data_key, &mut out);
            (len, sealed_body(&data_key, &mut data))
        });
    });
    let (prefix, tag) = sealed_body(&data_key, &mut data);
    let ciphertext = data.to_vec();
    group.bench_function("opened, head and body", |b| {
        b.iter(|| {
            copy.copy_from_slice(&sealed);
            data.copy_from_slice(&ciphertext);
            let key = open(&mut copy);
            let opener = Opener::new(&Accelerated, key.expose(), &prefix, &[&body::context(0)]);
            opener.expect("its own commitment").open_at(0, &mut data, &tag).expect("its own tag");
        });
    });
    group.finish();
}

fn chunks(c: &mut Criterion) {
    let mut group = c.benchmark_group("chunk of 16 KiB");
    group.throughput(Throughput::Bytes(CHUNK_LEN as u64));
    let mut data = AlignedBytes::new(CHUNK_LEN);
    let mut sealer = Sealer::new(&Accelerated, &KEY, &SALT, &[b"bench"]);
    let prefix = sealer.prefix();
    group.bench_function("sealed", |b| b.iter(|| black_box(sealer.seal_next(&mut data))));
    // In counter mode, sealing twice restores the plaintext: opening alternates between two
    // ciphertexts.
    let mut tags = [(); 2].map(|()| Sealer::new(&Accelerated, &KEY, &SALT, &[b"bench"]).seal_next(&mut data));
    let mut opener = Opener::new(&Accelerated, &KEY, &prefix, &[b"bench"]).expect("its own commitment");
    group.bench_function("opened", |b| {
        b.iter(|| {
            tags.swap(0, 1);
            opener.open_at(0, &mut data, &tags[0]).expect("it was sealed with this tag");
        });
    });
    for (name, algorithm) in [
        ("CRC-32", ChecksumAlgorithm::Crc32),
        ("CRC-32C", ChecksumAlgorithm::Crc32c),
        ("CRC-64/NVME", ChecksumAlgorithm::Crc64Nvme),
    ] {
        group.bench_function(name, |b| {
            b.iter(|| {
                let mut hasher = Hasher::new(algorithm);
                hasher.update(black_box(&data));
                hasher.finish()
            });
        });
    }
    group.bench_function("CRC-32 of the log", |b| b.iter(|| crc32fast::hash(black_box(&data))));
    group.finish();
}

/// The MD5s of plaintext bodies, by the number of bodies at once.
fn etags(c: &mut Criterion) {
    let mut group = c.benchmark_group("MD5 of a slice of each body");
    let slice = vec![7; 4 * CHUNK_LEN];
    for count in [1, 2, 3, 4, 8, 16] {
        group.throughput(Throughput::Bytes((count * slice.len()) as u64));
        let mut digests: Vec<Md5> = (0..count).map(|_| Md5::new()).collect();
        group.bench_function(format!("{count} bodies"), |b| {
            b.iter(|| update_all(&mut digests.iter_mut().map(|md5| (md5, &slice[..])).collect::<Vec<_>>()));
        });
    }
    group.finish();
}

criterion_group!(all, requests, replies, objects, chunks, etags);
criterion_main!(all);
