//! Eight lanes of AVX2.

use std::arch::asm;
use std::arch::x86_64::{
    __m128i, __m256i, _mm_cvtsi32_si128, _mm_loadu_si128, _mm256_add_epi32, _mm256_and_si256, _mm256_andnot_si256,
    _mm256_castsi128_si256, _mm256_inserti128_si256, _mm256_loadu_si256, _mm256_or_si256, _mm256_set1_epi32,
    _mm256_sll_epi32, _mm256_srl_epi32, _mm256_storeu_si256, _mm256_unpackhi_epi32, _mm256_unpackhi_epi64,
    _mm256_unpacklo_epi32, _mm256_unpacklo_epi64, _mm256_xor_si256,
};

use crate::steps::{Block, SINES, define_compress};

pub(super) type V = __m256i;
pub(super) const LANES: usize = 8;

define_compress!(#[target_feature(enable = "avx2")]);

#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn load(words: &[u32; LANES]) -> V {
    // SAFETY: the array has 32 bytes; the load needs no alignment.
    unsafe { _mm256_loadu_si256(words.as_ptr().cast()) }
}

#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn store(vector: V) -> [u32; LANES] {
    let mut words = [0; LANES];
    // SAFETY: the array has 32 bytes; the store needs no alignment.
    unsafe { _mm256_storeu_si256(words.as_mut_ptr().cast(), vector) };
    words
}

#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn splat(word: u32) -> V {
    _mm256_set1_epi32(word.cast_signed())
}

#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn add(a: V, b: V) -> V {
    _mm256_add_epi32(a, b)
}

#[target_feature(enable = "avx2")]
#[inline]
fn rotate<const LEFT: i32>(vector: V) -> V {
    let left = _mm256_sll_epi32(vector, _mm_cvtsi32_si128(LEFT));
    _mm256_or_si256(left, _mm256_srl_epi32(vector, _mm_cvtsi32_si128(32 - LEFT)))
}

#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn settle(mut sum: V) -> V {
    // SAFETY: the assembly is a comment.
    unsafe { asm!("/* {} */", inout(ymm_reg) sum, options(pure, nomem, nostack, preserves_flags)) };
    sum
}

#[target_feature(enable = "avx2")]
#[inline]
fn f(sum: V, b: V, c: V, d: V) -> V {
    add(settle(sum), _mm256_xor_si256(d, _mm256_and_si256(b, _mm256_xor_si256(c, d))))
}

#[target_feature(enable = "avx2")]
#[inline]
fn g(sum: V, b: V, c: V, d: V) -> V {
    add(settle(sum), _mm256_or_si256(_mm256_andnot_si256(d, c), _mm256_and_si256(d, b)))
}

#[target_feature(enable = "avx2")]
#[inline]
fn h(sum: V, b: V, c: V, d: V) -> V {
    add(settle(sum), _mm256_xor_si256(b, _mm256_xor_si256(c, d)))
}

#[target_feature(enable = "avx2")]
#[inline]
fn i(sum: V, b: V, c: V, d: V) -> V {
    add(settle(sum), _mm256_xor_si256(c, _mm256_or_si256(b, _mm256_xor_si256(d, splat(u32::MAX)))))
}

#[target_feature(enable = "avx2")]
#[inline]
fn quarter_of(block: &Block, quarter: usize) -> __m128i {
    let bytes = &block.as_chunks::<16>().0[quarter];
    // SAFETY: the array has 16 bytes; the load needs no alignment.
    unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
}

#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn words(lanes: &[&Block; LANES], quarter: usize) -> [V; 4] {
    let mut rows = [splat(0); 4];
    for lane in 0..4 {
        let low = _mm256_castsi128_si256(quarter_of(lanes[lane], quarter));
        rows[lane] = _mm256_inserti128_si256::<1>(low, quarter_of(lanes[lane + 4], quarter));
    }
    let first = [_mm256_unpacklo_epi32(rows[0], rows[1]), _mm256_unpacklo_epi32(rows[2], rows[3])];
    let last = [_mm256_unpackhi_epi32(rows[0], rows[1]), _mm256_unpackhi_epi32(rows[2], rows[3])];
    [
        _mm256_unpacklo_epi64(first[0], first[1]),
        _mm256_unpackhi_epi64(first[0], first[1]),
        _mm256_unpacklo_epi64(last[0], last[1]),
        _mm256_unpackhi_epi64(last[0], last[1]),
    ]
}
