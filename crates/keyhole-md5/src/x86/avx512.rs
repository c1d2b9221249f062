//! Sixteen lanes of AVX-512.

use std::arch::asm;
use std::arch::x86_64::{
    __m128i, __m512i, _mm_loadu_si128, _mm512_add_epi32, _mm512_castsi128_si512, _mm512_inserti32x4,
    _mm512_loadu_si512, _mm512_rol_epi32, _mm512_set1_epi32, _mm512_storeu_si512, _mm512_ternarylogic_epi32,
    _mm512_unpackhi_epi32, _mm512_unpackhi_epi64, _mm512_unpacklo_epi32, _mm512_unpacklo_epi64,
};

use crate::steps::{Block, SINES, define_compress};

type V = __m512i;
const LANES: usize = 16;

define_compress!(#[target_feature(enable = "avx512f")]);

#[target_feature(enable = "avx512f")]
#[inline]
fn load(words: &[u32; LANES]) -> V {
    // SAFETY: the array has 64 bytes; the load needs no alignment.
    unsafe { _mm512_loadu_si512(words.as_ptr().cast()) }
}

#[target_feature(enable = "avx512f")]
#[inline]
fn store(vector: V) -> [u32; LANES] {
    let mut words = [0; LANES];
    // SAFETY: the array has 64 bytes; the store needs no alignment.
    unsafe { _mm512_storeu_si512(words.as_mut_ptr().cast(), vector) };
    words
}

#[target_feature(enable = "avx512f")]
#[inline]
fn splat(word: u32) -> V {
    _mm512_set1_epi32(word.cast_signed())
}

#[target_feature(enable = "avx512f")]
#[inline]
fn add(a: V, b: V) -> V {
    _mm512_add_epi32(a, b)
}

#[target_feature(enable = "avx512f")]
#[inline]
fn rotate<const LEFT: i32>(vector: V) -> V {
    _mm512_rol_epi32::<LEFT>(vector)
}

#[target_feature(enable = "avx512f")]
#[inline]
fn settle(mut sum: V) -> V {
    // SAFETY: the assembly is a comment.
    unsafe { asm!("/* {} */", inout(zmm_reg) sum, options(pure, nomem, nostack, preserves_flags)) };
    sum
}

#[target_feature(enable = "avx512f")]
#[inline]
fn f(sum: V, b: V, c: V, d: V) -> V {
    add(settle(sum), _mm512_ternarylogic_epi32::<0xca>(b, c, d))
}

#[target_feature(enable = "avx512f")]
#[inline]
fn g(sum: V, b: V, c: V, d: V) -> V {
    add(settle(sum), _mm512_ternarylogic_epi32::<0xe4>(b, c, d))
}

#[target_feature(enable = "avx512f")]
#[inline]
fn h(sum: V, b: V, c: V, d: V) -> V {
    add(settle(sum), _mm512_ternarylogic_epi32::<0x96>(b, c, d))
}

#[target_feature(enable = "avx512f")]
#[inline]
fn i(sum: V, b: V, c: V, d: V) -> V {
    add(settle(sum), _mm512_ternarylogic_epi32::<0x39>(b, c, d))
}

#[target_feature(enable = "avx512f")]
#[inline]
fn quarter_of(block: &Block, quarter: usize) -> __m128i {
    let bytes = &block.as_chunks::<16>().0[quarter];
    // SAFETY: the array has 16 bytes; the load needs no alignment.
    unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
}

#[target_feature(enable = "avx512f")]
#[inline]
fn words(lanes: &[&Block; LANES], quarter: usize) -> [V; 4] {
    let mut rows = [splat(0); 4];
    for lane in 0..4 {
        let row = _mm512_castsi128_si512(quarter_of(lanes[lane], quarter));
        let row = _mm512_inserti32x4::<1>(row, quarter_of(lanes[lane + 4], quarter));
        let row = _mm512_inserti32x4::<2>(row, quarter_of(lanes[lane + 8], quarter));
        rows[lane] = _mm512_inserti32x4::<3>(row, quarter_of(lanes[lane + 12], quarter));
    }
    let first = [_mm512_unpacklo_epi32(rows[0], rows[1]), _mm512_unpacklo_epi32(rows[2], rows[3])];
    let last = [_mm512_unpackhi_epi32(rows[0], rows[1]), _mm512_unpackhi_epi32(rows[2], rows[3])];
    [
        _mm512_unpacklo_epi64(first[0], first[1]),
        _mm512_unpackhi_epi64(first[0], first[1]),
        _mm512_unpacklo_epi64(last[0], last[1]),
        _mm512_unpackhi_epi64(last[0], last[1]),
    ]
}
