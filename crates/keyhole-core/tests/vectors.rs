//! Runs the test vectors on the engines of this crate, and tests the parts of the format that need
//! no engine.

#[path = "vectors/checks.rs"]
mod checks;

use aes::Aes256;
use aes::cipher::{BlockCipherEncrypt, KeyInit};
use checks::{bytes, heads, text};
use keyhole_core::aead::{Aead, Engine, Portable, PortableAead, xor_key_stream_by_block};
use keyhole_core::head::{
    ChecksumAlgorithm, ChecksumType, Checksums, Head, HeadError, HeadId, HeadKind, OpenError, open_head_of,
    open_stored_head, seal_head_of,
};
use keyhole_core::limits::SEALED_HEAD_MAX;
use keyhole_core::{CustomerKey, key_id, suite};
use serde_json::Value;

#[test]
fn portable_engine_passes_the_vectors() {
    checks::all(&Portable);
}

/// A device that only provides counter mode.
struct CounterMode(PortableAead);

impl Aead for CounterMode {
    fn xor_key_stream(&mut self, counter: &[u8; 16], data: &mut [u8]) {
        self.0.xor_key_stream(counter, data);
    }
}

struct CounterModeEngine;

impl Engine for CounterModeEngine {
    type Aead = CounterMode;

    fn aead(&self, key: &[u8; 32]) -> CounterMode {
        CounterMode(Portable.aead(key))
    }
}

#[test]
fn counter_mode_device_passes_the_vectors() {
    checks::all(&CounterModeEngine);
}

/// A device that only encrypts blocks.
struct Blocks(Aes256);

impl Aead for Blocks {
    fn xor_key_stream(&mut self, counter: &[u8; 16], data: &mut [u8]) {
        xor_key_stream_by_block(counter, data, |block| self.0.encrypt_block(block.into()));
    }
}

struct BlockEngine;

impl Engine for BlockEngine {
    type Aead = Blocks;

    fn aead(&self, key: &[u8; 32]) -> Blocks {
        Blocks(Aes256::new(key.into()))
    }
}

#[test]
fn block_device_passes_the_vectors() {
    checks::all(&BlockEngine);
}

#[test]
fn engines_pass_the_suite() {
    let mut scratch = vec![0; suite::SCRATCH_LEN];
    suite::run(&Portable, &mut scratch).unwrap();
    suite::run(&CounterModeEngine, &mut scratch).unwrap();
    suite::run(&BlockEngine, &mut scratch).unwrap();
    suite::run(&BlockEngine, &mut scratch[..suite::SCRATCH_LEN_MIN]).unwrap();
}

#[test]
fn object_heads_decode_to_their_fields() {
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
fn non_canonical_object_heads_are_rejected() {
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
fn key_ids_match_the_vectors() {
    let cases: Vec<Value> = serde_json::from_str(include_str!("vectors/key-id.json")).unwrap();
    for case in &cases {
        let key = CustomerKey::new(bytes(text(case, "customer_key")));
        assert_eq!(hex::encode(key_id(&key, text(case, "bucket"))), text(case, "key_id"));
    }
}

#[test]
fn heads_of_objects_and_uploads_open_in_their_own_domain_only() {
    let customer_key = CustomerKey::new([1; 32]);
    let plain = Head { data_key: Some(&[2; 32]), ..Head::default() };
    let bound = Head { manifest: Some([3; 32]), ..plain };
    let id = |kind| HeadId { kind, bucket: "bucket", key: "key" };
    let seal = |kind, head: &Head<'_>| {
        let mut sealed = vec![0; SEALED_HEAD_MAX];
        let len = seal_head_of(&Portable, &customer_key, &[4; 24], &id(kind), head, &mut sealed)?;
        sealed.truncate(len);
        Ok::<_, HeadError>(sealed)
    };
    for (kind, other) in [(HeadKind::Object, HeadKind::Upload), (HeadKind::Upload, HeadKind::Object)] {
        let sealed = seal(kind, &plain).unwrap();
        assert!(open_head_of(&Portable, &customer_key, &id(kind), &mut sealed.clone()).is_ok());
        let mut refused = sealed.clone();
        let opened = open_head_of(&Portable, &customer_key, &id(other), &mut refused).map(|_| ());
        assert_eq!(opened, Err(OpenError::NotAuthentic));
        assert!(refused.iter().all(|byte| *byte == 0), "rejected input is wiped");
        let mut stored = sealed.clone();
        let (found, head) = open_stored_head(&Portable, &customer_key, "bucket", "key", &mut stored).unwrap();
        assert_eq!((found, head.data_key), (kind, plain.data_key));
        for (bucket, key, customer_key) in
            [("other", "key", [1; 32]), ("bucket", "other", [1; 32]), ("bucket", "key", [9; 32])]
        {
            let customer_key = CustomerKey::new(customer_key);
            let opened = open_stored_head(&Portable, &customer_key, bucket, key, &mut sealed.clone()).map(|_| ());
            assert_eq!(opened, Err(OpenError::NotAuthentic));
        }
    }
    // Only an object's head binds bodies.
    let mut checksums = Checksums::default();
    checksums.set(ChecksumAlgorithm::Crc32, &[0; 4]).unwrap();
    for head in [bound, Head { plaintext_length: Some(0), ..plain }, Head { checksums, ..plain }] {
        assert!(seal(HeadKind::Object, &head).is_ok());
        assert_eq!(seal(HeadKind::Upload, &head), Err(HeadError::Kind));
    }
    assert_eq!(seal(HeadKind::Upload, &Head::default()), Err(HeadError::DataKey));
}
