//! `keyhole bench`: measures this machine's encryption throughput, and its limits.
//!
//! All subjects are measured in turns within one run, and the median of the turns is shown: on a
//! shared machine, figures of different runs are not comparable.

mod bytes;
mod plot;
mod report;

use std::rc::Rc;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use aes_gcm::aead::AeadInOut;
use aes_gcm::{Aes256Gcm, KeyInit};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::cipher::{AES_256, EncryptingKey, EncryptionContext, UnboundCipherKey};
use keyhole_core::aead::{Aead, Engine};
use keyhole_core::chunked::{Opener, Sealer};
use keyhole_core::limits::{CHUNK_LEN, KEY_LEN, NONCE_LEN, SALT_LEN, TAG_LEN};

use self::bytes::AlignedBytes;
use self::report::{BenchFigure, BenchReport, Machine, Operation, Subject};
use super::{CommandError, Result};
use crate::cli::bench::{BenchOptions, TURN_MS};
use crate::engine::AnyEngine;

/// Limit of a piece's length.
const SIZE_MAX: u64 = 64 << 20;

const KEY: [u8; KEY_LEN] = [7; KEY_LEN];
const NONCE: [u8; NONCE_LEN] = [9; NONCE_LEN];
const CONTEXT: &[u8] = b"bench";

pub(crate) fn run(options: &BenchOptions) -> Result<()> {
    let sizes: Vec<usize> = options.sizes.iter().map(|size| size.as_u64()).map(check_size).collect::<Result<_>>()?;
    let machine = Machine::here();
    let mut cores = vec![1];
    if machine.cores > 1 && !options.one_core {
        cores.push(machine.cores);
    }
    let turns = options.time / TURN_MS;
    let mut figures = Vec::new();
    for &cores in &cores {
        for operation in [Operation::Seal, Operation::Open] {
            for &size in &sizes {
                figures.extend(measure_all(operation, size, cores, turns));
            }
        }
    }
    let report = BenchReport { machine, figures };
    if let Some(path) = &options.svg {
        svg::save(path, &plot::draw(&report))
            .map_err(|error| CommandError::io(format_args!("cannot write {}", path.display()), error))?;
    }
    if options.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        report.print(&cores, &sizes);
    }
    Ok(())
}

fn check_size(size: u64) -> Result<usize> {
    let size = Some(size).filter(|size| (1..=SIZE_MAX).contains(size)).and_then(|size| usize::try_from(size).ok());
    size.ok_or_else(|| CommandError::Usage(format!("a size is between 1 and {SIZE_MAX} bytes")))
}

/// Measures all subjects in turns; returns one figure for each.
fn measure_all(operation: Operation, size: usize, cores: usize, turns: u64) -> Vec<BenchFigure> {
    let mut samples = vec![Vec::new(); Subject::ALL.len()];
    for _ in 0..turns {
        for (subject, samples) in Subject::ALL.into_iter().zip(&mut samples) {
            samples.push(measure(subject, operation, size, cores));
        }
    }
    let median = |mut samples: Vec<f64>| {
        samples.sort_by(f64::total_cmp);
        samples[samples.len() / 2]
    };
    let figure = |(subject, samples)| BenchFigure { subject, operation, size, cores, gb_per_s: median(samples) };
    Subject::ALL.into_iter().zip(samples).map(figure).collect()
}

/// Measures one turn in bytes per nanosecond (GB/s), for all cores together.
fn measure(subject: Subject, operation: Operation, size: usize, cores: usize) -> f64 {
    let barrier = Barrier::new(cores);
    let one = || {
        let mut work = work(subject, operation, size);
        work();
        barrier.wait();
        let begun = Instant::now();
        let mut done = 0;
        loop {
            // Read the clock about every 64 KiB.
            for _ in 0..(65_536 / size).max(1) {
                work();
                done += size;
            }
            let elapsed = begun.elapsed();
            if elapsed >= Duration::from_millis(TURN_MS) {
                return done as f64 / elapsed.as_nanos() as f64;
            }
        }
    };
    thread::scope(|scope| {
        let others: Vec<_> = (1..cores).map(|_| scope.spawn(one)).collect();
        one() + others.into_iter().map(|thread| thread.join().expect("a measuring thread")).sum::<f64>()
    })
}

/// Returns the work on `size` bytes. In counter mode, encrypting twice restores the plaintext, so
/// opening alternates between two ciphertexts in place and copies nothing that is not counted.
fn work(subject: Subject, operation: Operation, size: usize) -> Box<dyn FnMut()> {
    match subject {
        Subject::Accelerated => chunks(AnyEngine::Accelerated, operation, size),
        Subject::Portable => chunks(AnyEngine::Portable, operation, size),
        Subject::AcceleratedMessage => messages(AnyEngine::Accelerated, operation, size),
        Subject::PortableMessage => messages(AnyEngine::Portable, operation, size),
        Subject::AwsLcGcm => {
            let key = Rc::new(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &KEY).expect("a key of AES-256")));
            let open = Rc::clone(&key);
            in_one_call(
                operation,
                size,
                move |data| {
                    let nonce = Nonce::assume_unique_for_key(NONCE);
                    let tag = key.seal_in_place_separate_tag(nonce, Aad::empty(), data).expect("within GCM's limit");
                    tag.as_ref().try_into().expect("GCM's tag has 16 bytes")
                },
                move |data, tag| {
                    let nonce = Nonce::assume_unique_for_key(NONCE);
                    open.open_in_place_separate_tag(nonce, Aad::empty(), tag, data).is_ok()
                },
            )
        }
        Subject::AesGcmCrate => {
            let key = Aes256Gcm::new(&KEY.into());
            let open = key.clone();
            in_one_call(
                operation,
                size,
                move |data| {
                    key.encrypt_inout_detached(&NONCE.into(), b"", data.into()).expect("within GCM's limit").into()
                },
                move |data, tag| open.decrypt_inout_detached(&NONCE.into(), b"", data.into(), &(*tag).into()).is_ok(),
            )
        }
        Subject::AwsLcCtr => {
            let key = UnboundCipherKey::new(&AES_256, &KEY).and_then(EncryptingKey::ctr).expect("a key of AES-256");
            let mut data = AlignedBytes::new(size);
            Box::new(move || {
                let context = EncryptionContext::Iv128((&[3; 16]).into());
                key.less_safe_encrypt(&mut data, context).expect("any length");
            })
        }
        Subject::Memcpy => {
            let from = AlignedBytes::new(size);
            let mut to = AlignedBytes::new(size);
            Box::new(move || std::hint::black_box(&mut *to).copy_from_slice(std::hint::black_box(&*from)))
        }
    }
}

/// AES-256-GCM of the whole piece in one call.
fn in_one_call(
    operation: Operation,
    size: usize,
    mut seal: impl FnMut(&mut [u8]) -> [u8; TAG_LEN] + 'static,
    mut open: impl FnMut(&mut [u8], &[u8; TAG_LEN]) -> bool + 'static,
) -> Box<dyn FnMut()> {
    let mut data = AlignedBytes::new(size);
    match operation {
        Operation::Seal => Box::new(move || {
            std::hint::black_box(seal(&mut data));
        }),
        Operation::Open => {
            let mut tags = [seal(&mut data), seal(&mut data)];
            Box::new(move || {
                tags.swap(0, 1);
                assert!(open(&mut data, &tags[0]), "it was sealed with this tag");
            })
        }
    }
}

fn nonce(index: usize) -> [u8; NONCE_LEN] {
    let mut nonce = NONCE;
    nonce[4..].copy_from_slice(&(index as u64).to_be_bytes());
    nonce
}

/// Chunk by chunk, under an established key.
fn chunks(engine: AnyEngine, operation: Operation, size: usize) -> Box<dyn FnMut()> {
    let mut aead = engine.aead(&KEY);
    let mut data = AlignedBytes::new(size);
    let mut seal = move |data: &mut [u8], tags: &mut Vec<[u8; TAG_LEN]>| {
        tags.clear();
        for (index, chunk) in data.chunks_mut(CHUNK_LEN).enumerate() {
            tags.push(aead.seal(&nonce(index), chunk));
        }
    };
    let mut tags = [Vec::new(), Vec::new()];
    tags.iter_mut().for_each(|tags| seal(&mut data, tags));
    match operation {
        Operation::Seal => Box::new(move || seal(&mut data, &mut tags[0])),
        Operation::Open => {
            let mut aead = engine.aead(&KEY);
            Box::new(move || {
                tags.swap(0, 1);
                for (index, (chunk, tag)) in data.chunks_mut(CHUNK_LEN).zip(&tags[0]).enumerate() {
                    aead.open(&nonce(index), chunk, tag).expect("it was sealed with this tag");
                }
            })
        }
    }
}

/// Whole messages: key derivation, commitment, all chunks, finish.
fn messages(engine: AnyEngine, operation: Operation, size: usize) -> Box<dyn FnMut()> {
    let salt = [5; SALT_LEN];
    let seal = move |data: &mut [u8], tags: &mut Vec<[u8; TAG_LEN]>| {
        tags.clear();
        let mut sealer = Sealer::new(&engine, &KEY, &salt, &[CONTEXT]);
        for chunk in data.chunks_mut(CHUNK_LEN) {
            tags.push(sealer.seal_next(chunk));
        }
        if !sealer.is_finished() {
            tags.push(sealer.seal_next(&mut []));
        }
        sealer.prefix()
    };
    let mut data = AlignedBytes::new(size);
    let mut tags = [Vec::new(), Vec::new()];
    let prefix = seal(&mut data, &mut tags[0]);
    seal(&mut data, &mut tags[1]);
    match operation {
        Operation::Seal => Box::new(move || {
            std::hint::black_box(seal(&mut data, &mut tags[0]));
        }),
        Operation::Open => Box::new(move || {
            tags.swap(0, 1);
            let mut opener = Opener::new(&engine, &KEY, &prefix, &[CONTEXT]).expect("its own commitment");
            let chunks = data.chunks_mut(CHUNK_LEN).chain(std::iter::once(&mut [][..]));
            for (index, (chunk, tag)) in (0..).zip(chunks.zip(&tags[0])) {
                opener.open_at(index, chunk, tag).expect("it was sealed with this tag");
            }
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_work_repeatedly() {
        for subject in Subject::ALL {
            for operation in [Operation::Seal, Operation::Open] {
                for size in [1, 4096, CHUNK_LEN, 3 * CHUNK_LEN + 5] {
                    let mut work = work(subject, operation, size);
                    (0..5).for_each(|_| work());
                }
            }
        }
    }

    #[test]
    fn piece_size_is_bounded() {
        assert!(check_size(1).is_ok() && check_size(SIZE_MAX).is_ok());
        assert!(check_size(0).is_err() && check_size(SIZE_MAX + 1).is_err());
    }
}
