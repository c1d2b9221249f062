//! The portable engine: sealing and opening chunks and blocks.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use keyhole_core::aead::Portable;
use keyhole_core::chunked::{Opener, Sealer};
use keyhole_core::limits::{CHUNK_LEN, TAG_LEN};

/// Bytes of a block: what the node encrypts between receiving and writing.
const BLOCK_LEN: usize = 1 << 20;

fn seal(c: &mut Criterion) {
    let mut group = c.benchmark_group("portable");
    for len in [CHUNK_LEN, BLOCK_LEN] {
        group.throughput(Throughput::Bytes(len as u64));
        let mut sealer = Sealer::new(&Portable, &[7; 32], &[9; 24], &[b"bench"]);
        let mut data = vec![0; len];
        group.bench_function(format!("seal {} KiB", len / 1024), |b| {
            b.iter(|| {
                for chunk in data.chunks_mut(CHUNK_LEN) {
                    black_box(sealer.seal_next(chunk));
                }
            });
        });
        open(&mut group, len);
    }
    group.finish();
}

/// Opening works in place, so each turn starts from a copy of the ciphertext; the copy is cheap beside it.
fn open(group: &mut criterion::BenchmarkGroup<'_, criterion::measurement::WallTime>, len: usize) {
    let mut sealer = Sealer::new(&Portable, &[7; 32], &[9; 24], &[b"bench"]);
    let prefix = sealer.prefix();
    let mut sealed = vec![0; len];
    let tags: Vec<[u8; TAG_LEN]> = sealed.chunks_mut(CHUNK_LEN).map(|chunk| sealer.seal_next(chunk)).collect();
    let mut opener = Opener::new(&Portable, &[7; 32], &prefix, &[b"bench"]).expect("its own message opens");
    let mut data = sealed.clone();
    group.bench_function(format!("open {} KiB", len / 1024), |b| {
        b.iter(|| {
            data.copy_from_slice(&sealed);
            for (index, (chunk, tag)) in data.chunks_mut(CHUNK_LEN).zip(&tags).enumerate() {
                opener.open_at(index as u64, chunk, tag).expect("authentic");
            }
        });
    });
}

criterion_group!(benches, seal);
criterion_main!(benches);
