//! Eight lanes of AVX-512VL: its rotation and its ternary logic take one instruction each.

use std::arch::x86_64::{_mm256_rol_epi32, _mm256_ternarylogic_epi32};

use super::avx2::{LANES, V, add, load, settle, splat, store, words};
use crate::steps::{Block, SINES, define_compress};

define_compress!(#[target_feature(enable = "avx2,avx512f,avx512vl")]);

#[target_feature(enable = "avx2,avx512f,avx512vl")]
#[inline]
fn rotate<const LEFT: i32>(vector: V) -> V {
    _mm256_rol_epi32::<LEFT>(vector)
}

#[target_feature(enable = "avx2,avx512f,avx512vl")]
#[inline]
fn f(sum: V, b: V, c: V, d: V) -> V {
    add(settle(sum), _mm256_ternarylogic_epi32::<0xca>(b, c, d))
}

#[target_feature(enable = "avx2,avx512f,avx512vl")]
#[inline]
fn g(sum: V, b: V, c: V, d: V) -> V {
    add(settle(sum), _mm256_ternarylogic_epi32::<0xe4>(b, c, d))
}

#[target_feature(enable = "avx2,avx512f,avx512vl")]
#[inline]
fn h(sum: V, b: V, c: V, d: V) -> V {
    add(settle(sum), _mm256_ternarylogic_epi32::<0x96>(b, c, d))
}

#[target_feature(enable = "avx2,avx512f,avx512vl")]
#[inline]
fn i(sum: V, b: V, c: V, d: V) -> V {
    add(settle(sum), _mm256_ternarylogic_epi32::<0x39>(b, c, d))
}
