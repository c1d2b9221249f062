//! Self-tests and measurements common to all boards, and one sealed object file that must be
//! identical on all of them.
#![no_std]

#[cfg(feature = "board")]
pub mod board;
#[cfg(feature = "board")]
pub mod stack;
mod vectors;

use keyhole_app::reading::{self, Simulated};
use keyhole_app::{OpenFileError, Package, PackageError, open};
use keyhole_core::aead::{Aead, Engine};
use keyhole_core::chunked::Sealer;
use keyhole_core::file::SEAL_OVERHEAD;
use keyhole_core::limits::{CHUNK_LEN, KEY_LEN, PREFIX_LEN, TAG_LEN};
use keyhole_core::{CustomerKey, NotAuthentic, suite};
use sha2::{Digest, Sha256};

/// Size of the work buffer of the checks.
pub const SCRATCH_LEN: usize = CHUNK_LEN;

/// Length of the reading that is sealed for comparison and measurement.
pub const READING_LEN: usize = 4096;

/// Size of a buffer for its sealed object file.
pub const SEALED_MAX: usize = READING_LEN + BUCKET.len() + KEY.len() + SEAL_OVERHEAD;

/// The bucket that the reading is sealed for.
pub const BUCKET: &str = "edge";
/// The key name that the reading is sealed for.
pub const KEY: &str = "readings/2026-01-02";

/// The customer key, for tests only.
pub const CUSTOMER_KEY: [u8; KEY_LEN] = *b"for tests only, never an object.";

/// A deterministic replacement for random bytes, only for reproducible output.
pub struct Seeded(pub u64);

impl Seeded {
    /// Fills `out` with the next bytes (SplitMix64).
    pub fn fill(&mut self, out: &mut [u8]) {
        for piece in out.chunks_mut(8) {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = self.0;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            piece.copy_from_slice(&(mixed ^ (mixed >> 31)).to_le_bytes()[..piece.len()]);
        }
    }
}

/// Fills a package with a reading of [`READING_LEN`] bytes: samples, and dots in place of an
/// incomplete line.
pub fn sample(room: &mut [u8]) {
    let len = reading::take(&mut Simulated::new(1_767_322_800), usize::MAX, room);
    room[len..].fill(b'.');
}

/// Takes and seals a reading, and returns the file.
///
/// # Errors
/// Errors of [`Package`].
pub fn seal_sample<'b, E: Engine>(engine: &E, buffer: &'b mut [u8; SEALED_MAX]) -> Result<&'b [u8], PackageError> {
    let mut package = Package::new(buffer, BUCKET, KEY)?;
    let room = package.room();
    let len = room.len().min(READING_LEN);
    sample(&mut room[..len]);
    seal_package(engine, package)
}

/// Seals a reading and returns the file.
///
/// # Errors
/// Errors of [`Package`].
#[inline(never)]
pub fn seal_package<'b, E: Engine>(engine: &E, package: Package<'b>) -> Result<&'b [u8], PackageError> {
    package.seal(engine, &CustomerKey::new(CUSTOMER_KEY), seeded(), READING_LEN)
}

fn seeded() -> impl FnMut(&mut [u8]) {
    let mut seeded = Seeded(1);
    move |out| seeded.fill(out)
}

/// Opens a file of [`seal_sample`] and returns the length of the reading.
///
/// # Errors
/// Errors of [`open`].
#[inline(never)]
pub fn open_sample<E: Engine>(engine: &E, file: &mut [u8]) -> Result<usize, OpenFileError> {
    open(engine, &CustomerKey::new(CUSTOMER_KEY), BUCKET, KEY, file).map(|place| place.len())
}

/// Seals a bare chunked message of one chunk.
#[inline(never)]
pub fn seal_message<E: Engine>(engine: &E, chunk: &mut [u8]) -> ([u8; PREFIX_LEN], [u8; TAG_LEN]) {
    let mut sealer = Sealer::new(engine, &CUSTOMER_KEY, &[1; 24], &[b"measured"]);
    (sealer.prefix(), sealer.seal_next(chunk))
}

/// An engine whose counter mode does nothing, to measure the cost that remains when a peripheral
/// does AES. Its output is invalid.
pub struct Free;

/// See [`Free`].
pub struct FreeAead;

impl Engine for Free {
    type Aead = FreeAead;

    fn aead(&self, _key: &[u8; KEY_LEN]) -> FreeAead {
        FreeAead
    }
}

impl Aead for FreeAead {
    #[inline(never)]
    fn xor_key_stream(&mut self, counter: &[u8; 16], data: &mut [u8]) {
        core::hint::black_box((counter, data));
    }
}

/// Runs all checks on an engine.
///
/// # Errors
/// The name of the failed check.
pub fn run<E: Engine>(engine: &E, scratch: &mut [u8; SCRATCH_LEN]) -> Result<(), &'static str> {
    suite::run(engine, scratch).map_err(|failure| failure.check)?;
    for message in &vectors::MESSAGES {
        check_message(engine, message, scratch)?;
    }
    for file in &vectors::FILES {
        check_file(engine, file, scratch)?;
    }
    let parts = &vectors::PARTS;
    let copy = copied(parts.bytes, scratch);
    let refused = open(engine, &CustomerKey::new(hex(parts.customer_key)), vectors::BUCKET, parts.key, copy);
    expect(refused == Err(OpenFileError::TooLong), "an object in parts is not refused")
}

fn expect(holds: bool, what: &'static str) -> Result<(), &'static str> {
    if holds { Ok(()) } else { Err(what) }
}

fn check_message<E: Engine>(engine: &E, case: &vectors::Message, scratch: &mut [u8]) -> Result<(), &'static str> {
    let mut context = [0; 64];
    let context = decode(case.context, &mut context);
    let mut sealer = Sealer::new(engine, &hex(case.input_key), &hex(case.salt), &[context]);
    let mut hash = Sha256::new();
    hash.update(sealer.prefix());
    let mut at = 0;
    while !sealer.is_finished() {
        let chunk = &mut scratch[..CHUNK_LEN.min(case.plaintext_len - at)];
        for byte in chunk.iter_mut() {
            *byte = (7 * at + 13 * (at >> 8) + 5) as u8;
            at += 1;
        }
        let tag = sealer.seal_next(chunk);
        hash.update(&*chunk);
        hash.update(tag);
    }
    expect(hash.finalize()[..] == hex::<32>(case.sha256), "a message is sealed to other bytes")
}

fn check_file<E: Engine>(engine: &E, case: &vectors::File, scratch: &mut [u8]) -> Result<(), &'static str> {
    let key = CustomerKey::new(hex(case.customer_key));
    let file = copied(case.bytes, scratch);
    let opened = open(engine, &key, vectors::BUCKET, case.key, file).map_err(|_| "a file does not open")?;
    expect(Sha256::digest(&file[opened])[..] == hex::<32>(case.sha256), "a file opens to other bytes")?;
    for at in (0..case.bytes.len()).step_by(7) {
        let file = copied(case.bytes, scratch);
        file[at] ^= 0x10;
        expect(open(engine, &key, vectors::BUCKET, case.key, file).is_err(), "a damaged file opens")?;
    }
    let file = copied(case.bytes, scratch);
    let other = open(engine, &CustomerKey::new([1; KEY_LEN]), vectors::BUCKET, case.key, file);
    let refused = matches!(other, Err(OpenFileError::Head(error)) if error == NotAuthentic.into());
    expect(refused, "a file opens with another key")
}

fn copied<'s>(bytes: &[u8], scratch: &'s mut [u8]) -> &'s mut [u8] {
    let copy = &mut scratch[..bytes.len()];
    copy.copy_from_slice(bytes);
    copy
}

fn hex<const N: usize>(text: &str) -> [u8; N] {
    let mut bytes = [0; N];
    decode(text, &mut bytes);
    bytes
}

/// Decodes a hex constant of this crate.
fn decode<'o>(text: &str, out: &'o mut [u8]) -> &'o [u8] {
    let digit = |digit: u8| if digit > b'9' { digit - b'a' + 10 } else { digit - b'0' };
    let out = &mut out[..text.len() / 2];
    for (byte, digits) in out.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = digit(digits[0]) << 4 | digit(digits[1]);
    }
    out
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::{fs, path::Path, vec::Vec};

    use keyhole_core::aead::Portable;

    use super::*;

    fn original(name: &str) -> Vec<u8> {
        let vectors = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../crates/keyhole-core/tests/vectors");
        fs::read(vectors.join(name)).unwrap()
    }

    #[test]
    fn vectors_match_those_of_the_core() {
        for (name, copy) in [
            ("hello.sealed", vectors::FILES[0].bytes),
            ("empty.sealed", vectors::FILES[1].bytes),
            ("multi-unbound.sealed", vectors::PARTS.bytes),
        ] {
            assert!(original(name) == copy, "{name}");
        }
        let files = original("files.json");
        let files = std::str::from_utf8(&files).unwrap();
        for file in vectors::FILES.iter().chain([&vectors::PARTS]) {
            assert!(files.contains(file.customer_key) && files.contains(file.sha256), "{}", file.key);
        }
        let messages = original("chunked.json");
        let messages = std::str::from_utf8(&messages).unwrap();
        for message in &vectors::MESSAGES {
            for text in [message.input_key, message.salt, message.context, message.sha256] {
                assert!(messages.contains(text));
            }
        }
    }

    #[test]
    fn checks_pass_on_the_host() {
        run(&Portable, &mut [0; SCRATCH_LEN]).unwrap();
    }

    /// Writes the host's file, which `firmware/build` compares with those of the boards.
    #[test]
    fn host_writes_its_sealed_file() {
        let mut buffer = [0; SEALED_MAX];
        let file = seal_sample(&Portable, &mut buffer).unwrap();
        if let Some(path) = std::env::var_os("KEYHOLE_SEALED_FILE") {
            fs::write(path, file).unwrap();
        }
        let mut copy = file.to_vec();
        assert_eq!(open_sample(&Portable, &mut copy), Ok(READING_LEN));
    }
}
