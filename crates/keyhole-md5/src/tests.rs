//! The digests of RFC 1321, and those of the crate `md-5` for random messages.

use fastrand::Rng;
use md5::Digest;

use crate::kernel::Kernel;
use crate::{Md5, available, update_all, update_with};

/// The test suite of RFC 1321, section A.5.
const VECTORS: [(&str, &str); 7] = [
    ("", "d41d8cd98f00b204e9800998ecf8427e"),
    ("a", "0cc175b9c0f1b6a831c399e269772661"),
    ("abc", "900150983cd24fb0d6963f7d28e17f72"),
    ("message digest", "f96b697d7cb7938d525a2f31aaf161d0"),
    ("abcdefghijklmnopqrstuvwxyz", "c3fcd3d76192e4007dfb496cca67e13b"),
    ("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789", "d174ab98d277d9f5a5611c2c9f419d9f"),
    (
        "12345678901234567890123456789012345678901234567890123456789012345678901234567890",
        "57edf4a22be3c955ac49da2e2107b67a",
    ),
];

/// Every set of kernels of this machine, and each kernel alone.
fn kernel_sets() -> Vec<&'static [Kernel]> {
    let sets: Vec<_> = available().collect();
    let single = sets.iter().flat_map(|set| set.chunks(1));
    sets.iter().copied().chain(single).chain([&[][..]]).collect()
}

#[test]
fn digests_of_rfc_1321_are_returned() {
    for (message, expected) in VECTORS {
        let mut md5 = Md5::new();
        md5.update(message.as_bytes());
        assert_eq!(hex::encode(md5.finish()), expected, "{message:?}");
    }
    let mut digests: Vec<Md5> = VECTORS.iter().map(|_| Md5::new()).collect();
    let mut jobs: Vec<_> = digests.iter_mut().zip(VECTORS.map(|(message, _)| message.as_bytes())).collect();
    update_all(&mut jobs);
    for (md5, (message, expected)) in digests.into_iter().zip(VECTORS) {
        assert_eq!(hex::encode(md5.finish()), expected, "{message:?}");
    }
}

#[test]
fn messages_of_all_lengths_around_a_block_have_right_digests() {
    let bytes: Vec<u8> = (0..200).collect();
    for len in 0..bytes.len() {
        let mut md5 = Md5::new();
        md5.update(&bytes[..len / 3]);
        md5.update(&bytes[len / 3..len]);
        assert_eq!(md5.finish()[..], md5::Md5::digest(&bytes[..len])[..], "{len}");
    }
}

#[test]
fn random_messages_and_cuts_have_right_digests_in_all_lanes() {
    for set in kernel_sets() {
        for lanes in 1..=20 {
            let seed = fastrand::u64(..);
            println!("seed {seed}");
            check_random(set, lanes, &mut Rng::with_seed(seed));
        }
    }
}

/// Computes the digests of `count` messages in several updates.
fn check_random(kernels: &[Kernel], count: usize, rng: &mut Rng) {
    let messages: Vec<Vec<u8>> = (0..count)
        .map(|_| {
            let len_max = [1, 100, 1000, 10_000][rng.usize(..4)];
            let len = rng.usize(..len_max);
            std::iter::repeat_with(|| rng.u8(..)).take(len).collect()
        })
        .collect();
    let mut digests: Vec<Md5> = messages.iter().map(|_| Md5::new()).collect();
    let mut rests: Vec<&[u8]> = messages.iter().map(|message| &message[..]).collect();
    while rests.iter().any(|rest| !rest.is_empty()) {
        let cuts = rests.iter_mut().map(|rest| {
            let (piece, behind) = rest.split_at(rng.usize(..=rest.len().min(4000)));
            *rest = behind;
            piece
        });
        update_with(kernels, &mut digests.iter_mut().zip(cuts).collect::<Vec<_>>());
    }
    for (md5, message) in digests.into_iter().zip(&messages) {
        assert_eq!(md5.finish()[..], md5::Md5::digest(message)[..], "{count} messages, {} bytes", message.len());
    }
}
