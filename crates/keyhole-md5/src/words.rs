//! One message in general registers. No processor feature is needed.

use std::arch::asm;

use crate::steps::{Block, SINES, define_compress};

type V = u32;
const LANES: usize = 1;

define_compress!();

fn load(words: &[u32; LANES]) -> V {
    words[0]
}

fn store(word: V) -> [u32; LANES] {
    [word]
}

fn splat(word: u32) -> V {
    word
}

fn add(a: V, b: V) -> V {
    a.wrapping_add(b)
}

fn rotate<const LEFT: i32>(word: V) -> V {
    word.rotate_left(LEFT.cast_unsigned())
}

fn settle(mut sum: V) -> V {
    // SAFETY: the assembly is a comment.
    unsafe { asm!("/* {:e} */", inout(reg) sum, options(pure, nomem, nostack, preserves_flags)) };
    sum
}

fn f(sum: V, b: V, c: V, d: V) -> V {
    add(settle(sum), d ^ (b & (c ^ d)))
}

fn g(sum: V, b: V, c: V, d: V) -> V {
    // The operands of the round function have no bit in common: it is a sum, of which a part is known
    // before `b`.
    add(settle(add(sum, c & !d)), b & d)
}

fn h(sum: V, b: V, c: V, d: V) -> V {
    add(settle(sum), b ^ (c ^ d))
}

fn i(sum: V, b: V, c: V, d: V) -> V {
    add(settle(sum), c ^ (b | !d))
}

fn words(lanes: &[&Block; LANES], quarter: usize) -> [V; 4] {
    let words = lanes[0].as_chunks::<4>().0;
    std::array::from_fn(|word| u32::from_le_bytes(words[4 * quarter + word]))
}
