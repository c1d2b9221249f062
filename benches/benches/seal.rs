//! Both engines: sealing and opening chunks and blocks, compared with plain AES-256-GCM of AWS-LC
//! and RustCrypto.
//!
//! Criterion measures the subjects one after another, and a shared machine varies from minute to
//! minute: compare these figures with earlier ones of the same subject only. `keyhole bench`
//! compares engines, since it measures them in turns.

// The engine is a module of the binary, which has no library.
#[path = "../../crates/keyhole/src/engine/accelerated.rs"]
mod accelerated;
#[path = "../../crates/keyhole/src/commands/bench/bytes.rs"]
mod bytes;

use std::hint::black_box;

use accelerated::Accelerated;
use aes_gcm::aead::AeadInOut;
use aes_gcm::{Aes256Gcm, KeyInit};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use bytes::AlignedBytes;
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use keyhole_core::aead::{Engine, Portable};
use keyhole_core::chunked::{Opener, Sealer};
use keyhole_core::limits::{CHUNK_LEN, TAG_LEN};

/// Bytes of a block, the unit that the node encrypts between receiving and writing.
const BLOCK_LEN: usize = 1 << 20;

type Group<'a> = BenchmarkGroup<'a, WallTime>;

fn benches(c: &mut Criterion) {
    for len in [CHUNK_LEN, BLOCK_LEN] {
        let mut group = c.benchmark_group(format!("{} KiB", len / 1024));
        group.throughput(Throughput::Bytes(len as u64));
        engine(&mut group, "accelerated", &Accelerated, len);
        engine(&mut group, "portable", &Portable, len);
        references(&mut group, len);
        group.finish();
    }
}

fn engine<E: Engine>(group: &mut Group<'_>, name: &str, engine: &E, len: usize) {
    let mut sealer = Sealer::new(engine, &[7; 32], &[9; 24], &[b"bench"]);
    let prefix = sealer.prefix();
    let mut data = AlignedBytes::new(len);
    let mut opened = AlignedBytes::new(len);
    // In counter mode, sealing twice restores the plaintext: opening alternates between two
    // ciphertexts, without copies.
    let mut tags: [Vec<[u8; TAG_LEN]>; 2] = Default::default();
    for tags in &mut tags {
        let mut sealer = Sealer::new(engine, &[7; 32], &[9; 24], &[b"bench"]);
        tags.extend(opened.chunks_mut(CHUNK_LEN).map(|chunk| sealer.seal_next(chunk)));
    }
    let mut opener = Opener::new(engine, &[7; 32], &prefix, &[b"bench"]).expect("its own message opens");
    group.bench_function(format!("seal, {name}"), |b| {
        b.iter(|| {
            for chunk in data.chunks_mut(CHUNK_LEN) {
                black_box(sealer.seal_next(chunk));
            }
        });
    });
    group.bench_function(format!("open, {name}"), |b| {
        b.iter(|| {
            tags.swap(0, 1);
            for (index, (chunk, tag)) in (0..).zip(opened.chunks_mut(CHUNK_LEN).zip(&tags[0])) {
                opener.open_at(index, chunk, tag).expect("it was sealed with this tag");
            }
        });
    });
}

/// AES-256-GCM of two libraries, over all data in one call.
fn references(group: &mut Group<'_>, len: usize) {
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &[7; 32]).expect("a key"));
    let nonce = || Nonce::assume_unique_for_key([9; 12]);
    reference(
        group,
        "aws-lc-rs as it is",
        len,
        |data| {
            let tag = key.seal_in_place_separate_tag(nonce(), Aad::empty(), data).expect("within the limit");
            tag.as_ref().try_into().expect("GCM's tag has 16 bytes")
        },
        |data, tag| key.open_in_place_separate_tag(nonce(), Aad::empty(), tag, data).is_ok(),
    );
    let key = Aes256Gcm::new(&[7; 32].into());
    let nonce = [9; 12].into();
    reference(
        group,
        "aes-gcm",
        len,
        |data| key.encrypt_inout_detached(&nonce, b"", data.into()).expect("within the limit").into(),
        |data, tag| key.decrypt_inout_detached(&nonce, b"", data.into(), &(*tag).into()).is_ok(),
    );
}

fn reference(
    group: &mut Group<'_>,
    name: &str,
    len: usize,
    seal: impl Fn(&mut [u8]) -> [u8; TAG_LEN],
    open: impl Fn(&mut [u8], &[u8; TAG_LEN]) -> bool,
) {
    let mut data = AlignedBytes::new(len);
    group.bench_function(format!("seal, {name}"), |b| b.iter(|| black_box(seal(&mut data))));
    let mut tags = [seal(&mut data), seal(&mut data)];
    group.bench_function(format!("open, {name}"), |b| {
        b.iter(|| {
            tags.swap(0, 1);
            assert!(open(&mut data, &tags[0]), "it was sealed with this tag");
        });
    });
}

criterion_group!(all, benches);
criterion_main!(all);
