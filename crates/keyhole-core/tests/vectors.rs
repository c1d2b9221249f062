//! The vectors of the format, made with an independent implementation: every intermediate, and every one damaged.

use keyhole_core::aead::Portable;
use keyhole_core::chunked::{Opener, Sealer, message_len, plaintext_len};
use keyhole_core::head::{
    ChecksumAlgorithm, ChecksumType, Checksums, Head, OpenError, UserMetadata, open_head, seal_head,
};
use keyhole_core::limits::{CHUNK_LEN, PREFIX_LEN, SEALED_HEAD_MAX, TAG_LEN};
use keyhole_core::{CustomerKey, NotAuthentic, key_id};
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

fn bytes<const N: usize>(hex: &str) -> [u8; N] {
    hex::decode(hex).unwrap().try_into().unwrap()
}

#[derive(Deserialize)]
struct Chunked {
    cases: Vec<ChunkedCase>,
}

#[derive(Deserialize)]
struct ChunkedCase {
    name: String,
    input_key: String,
    salt: String,
    context: String,
    plaintext_length: usize,
    commitment: String,
    message_length: usize,
    message_sha256: String,
    last_tag: String,
    message: Option<String>,
}

impl ChunkedCase {
    fn plaintext(&self) -> Vec<u8> {
        (0..self.plaintext_length).map(|i| (7 * i + 13 * (i >> 8) + 5) as u8).collect()
    }

    fn seal(&self) -> Vec<u8> {
        let context = hex::decode(&self.context).unwrap();
        // The context in two pieces: where it is cut makes no difference.
        let (a, b) = context.split_at(context.len() / 2);
        let mut sealer = Sealer::new(&Portable, &bytes(&self.input_key), &bytes(&self.salt), &[a, b]);
        let mut message = sealer.prefix().to_vec();
        let mut plaintext = self.plaintext();
        for chunk in plaintext.chunks_mut(CHUNK_LEN) {
            let tag = sealer.seal_next(chunk);
            message.extend_from_slice(chunk);
            message.extend_from_slice(&tag);
        }
        if !sealer.is_finished() {
            message.extend_from_slice(&sealer.seal_next(&mut []));
        }
        message
    }

    fn open(&self, message: &[u8]) -> Result<Vec<u8>, NotAuthentic> {
        plaintext_len(message.len() as u64).ok_or(NotAuthentic)?;
        let context = hex::decode(&self.context).unwrap();
        let prefix = message[..PREFIX_LEN].try_into().unwrap();
        let mut opener = Opener::new(&Portable, &bytes(&self.input_key), prefix, &[&context])?;
        let mut plaintext = Vec::new();
        for (index, sealed) in message[PREFIX_LEN..].chunks(CHUNK_LEN + TAG_LEN).enumerate() {
            let (chunk, tag) = sealed.split_last_chunk::<TAG_LEN>().unwrap();
            let mut chunk = chunk.to_vec();
            opener.open_at(index as u64, &mut chunk, tag).inspect_err(|_| {
                assert!(chunk.iter().all(|byte| *byte == 0), "a damaged chunk is wiped");
            })?;
            plaintext.extend_from_slice(&chunk);
        }
        Ok(plaintext)
    }
}

fn chunked() -> Vec<ChunkedCase> {
    serde_json::from_str::<Chunked>(include_str!("vectors/chunked.json")).unwrap().cases
}

#[test]
fn messages_are_those_of_the_vectors() {
    for case in chunked() {
        let message = case.seal();
        assert_eq!(message.len(), case.message_length, "{}", case.name);
        assert_eq!(message_len(case.plaintext_length as u64), Some(message.len() as u64), "{}", case.name);
        assert_eq!(hex::encode(&message[24..PREFIX_LEN]), case.commitment, "{}", case.name);
        assert_eq!(hex::encode(&message[message.len() - TAG_LEN..]), case.last_tag, "{}", case.name);
        assert_eq!(hex::encode(Sha256::digest(&message)), case.message_sha256, "{}", case.name);
        if let Some(expected) = &case.message {
            assert_eq!(&hex::encode(&message), expected, "{}", case.name);
        }
        assert_eq!(case.open(&message).unwrap(), case.plaintext(), "{}", case.name);
    }
}

#[test]
fn damaged_and_truncated_messages_are_refused() {
    let mut state = 0x5eed_u64;
    println!("seed {state}");
    for case in chunked() {
        let message = case.seal();
        for _ in 0..200 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let at = (state >> 20) as usize % message.len();
            let mut damaged = message.clone();
            damaged[at] ^= 1 << (state >> 60 & 7);
            assert_eq!(case.open(&damaged), Err(NotAuthentic), "{}: byte {at}", case.name);
        }
        let borders = (0..=message.len() / (CHUNK_LEN + TAG_LEN)).map(|n| PREFIX_LEN + n * (CHUNK_LEN + TAG_LEN));
        let cuts = (0..100).chain(borders.flat_map(|border| [border - 1, border, border + 1]));
        for cut in cuts.filter(|cut| *cut < message.len()) {
            assert_eq!(case.open(&message[..cut]), Err(NotAuthentic), "{}: cut at {cut}", case.name);
        }
    }
}

fn text<'v>(case: &'v Value, name: &str) -> &'v str {
    case[name].as_str().unwrap()
}

/// Runs `check` on each head vector with the head that its fields describe.
fn heads(check: impl Fn(&Value, &Head<'_>)) {
    let cases: Vec<Value> = serde_json::from_str(include_str!("vectors/head.json")).unwrap();
    assert!(!cases.is_empty());
    for case in &cases {
        let data_key = bytes(text(case, "data_key"));
        let user: Vec<(&str, &[u8])> = case["user_metadata"]
            .as_array()
            .unwrap()
            .iter()
            .map(|pair| (pair[0].as_str().unwrap(), pair[1].as_str().unwrap().as_bytes()))
            .collect();
        let mut checksums = Checksums::default();
        for (number, digest) in case["checksums"].as_object().unwrap() {
            let algorithm = ChecksumAlgorithm::ALL[number.parse::<usize>().unwrap() - 1];
            checksums.set(algorithm, &hex::decode(digest.as_str().unwrap()).unwrap()).unwrap();
        }
        let decoded = hex::decode(text(case, "head_cbor")).unwrap();
        // Manifest and declaration are given in the encoding alone.
        let from_bytes = Head::decode(&decoded).unwrap();
        let head = Head {
            data_key: Some(&data_key),
            plaintext_length: case["plaintext_length"].as_u64(),
            fields: std::array::from_fn(|i| case["headers"][(i + 3).to_string()].as_str().map(str::as_bytes)),
            user_metadata: UserMetadata::new(&user),
            checksums,
            manifest: from_bytes.manifest,
            declared: from_bytes.declared,
        };
        check(case, &head);
    }
}

#[test]
fn heads_are_those_of_the_vectors() {
    heads(|case, head| {
        let mut encoded = vec![0; 16 * 1024];
        let len = head.encode(&mut encoded).unwrap();
        assert_eq!(hex::encode(&encoded[..len]), text(case, "head_cbor"));

        let key = CustomerKey::new(bytes(text(case, "customer_key")));
        let (bucket, name) = (text(case, "bucket"), text(case, "key"));
        let mut sealed = vec![0; SEALED_HEAD_MAX];
        let len = seal_head(&Portable, &key, &bytes(text(case, "salt")), bucket, name, head, &mut sealed).unwrap();
        assert_eq!(hex::encode(&sealed[..len]), text(case, "sealed_head"));

        let open = |key: &CustomerKey, bucket: &str, name: &str, sealed: &[u8]| {
            let mut sealed = sealed.to_vec();
            open_head(&Portable, key, bucket, name, &mut sealed).map(|head| head.plaintext_length)
        };
        let sealed = &sealed[..len];
        assert_eq!(open(&key, bucket, name, sealed), Ok(head.plaintext_length));
        let refused = Err(OpenError::NotAuthentic);
        assert_eq!(open(&CustomerKey::new([1; 32]), bucket, name, sealed), refused);
        assert_eq!(open(&key, "other", name, sealed), refused);
        assert_eq!(open(&key, bucket, "other", sealed), refused);
        for cut in 0..sealed.len().min(100) {
            assert_eq!(open(&key, bucket, name, &sealed[..cut]), refused);
        }
        for at in (0..sealed.len()).step_by(sealed.len() / 60 + 1) {
            let mut damaged = sealed.to_vec();
            damaged[at] ^= 0x10;
            assert_eq!(open(&key, bucket, name, &damaged), refused, "byte {at}");
        }
    });
}

#[test]
fn heads_decode_to_what_they_were_made_from() {
    heads(|case, head| {
        let encoded = hex::decode(text(case, "head_cbor")).unwrap();
        let decoded = Head::decode(&encoded).unwrap();
        assert_eq!(decoded.data_key, head.data_key);
        assert_eq!(decoded.plaintext_length, head.plaintext_length);
        assert_eq!(decoded.fields, head.fields);
        assert!(decoded.user_metadata.iter().eq(head.user_metadata.iter()));
        assert_eq!(decoded.checksums, head.checksums);
        for cut in 0..encoded.len() {
            assert!(Head::decode(&encoded[..cut]).is_err(), "cut at {cut}");
        }
        let longer = [&encoded[..], &[0]].concat();
        assert!(Head::decode(&longer).is_err());
    });
}

#[test]
fn nothing_but_the_deterministic_encoding_is_a_head() {
    let good = "a30001021903e8034161";
    assert!(Head::decode(&hex::decode(good).unwrap()).is_ok());
    for (what, hex) in [
        ("no map", "8100"),
        ("no entry", "a0"),
        ("no version", "a1021903e8"),
        ("another version", "a10002"),
        ("a longer number", "a30001021a000003e8034161"),
        ("a longer map header", "b8030001021903e8034161"),
        ("keys out of order", "a30001034161021903e8"),
        ("a key twice", "a30001034161034162"),
        ("an unknown key", "a200010d01"),
        ("an indefinite map", "bf0001ff"),
        ("an indefinite string", "a20001035f4161ff"),
        ("a null", "a2000103f6"),
        ("a text for bytes", "a20001036161"),
        ("a short data key", "a200010141aa"),
        ("a control character", "a2000103410a"),
        ("empty metadata", "a200010980"),
        ("empty checksums", "a200010aa0"),
        ("an upper-case name", "a2000109818261414161"),
        ("names out of order", "a2000109828261624161826161 4161"),
        ("a name that is no token", "a20001098182612f4161"),
        ("a checksum of another length", "a200010aa10143000000"),
        ("an unknown checksum", "a200010aa10744000000ff"),
        ("an unknown checksum type", "a200010c820102"),
        ("a length beyond the input", "a20001035b7fffffffffffffff41"),
    ] {
        let bytes = hex::decode(hex.replace(' ', "")).unwrap();
        assert!(Head::decode(&bytes).is_err(), "{what}");
    }
    let declared = Head::decode(&hex::decode("a200010c820301").unwrap()).unwrap().declared;
    assert_eq!(declared, Some((ChecksumAlgorithm::Crc64Nvme, ChecksumType::Composite)));
}

#[test]
fn key_ids_are_those_of_the_vectors() {
    let cases: Vec<Value> = serde_json::from_str(include_str!("vectors/key-id.json")).unwrap();
    for case in &cases {
        let key = CustomerKey::new(bytes(text(case, "customer_key")));
        assert_eq!(hex::encode(key_id(&key, text(case, "bucket"))), text(case, "key_id"));
    }
}
