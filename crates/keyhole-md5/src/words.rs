//! One lane in a general register: several sets alternate. No processor feature is needed.

use std::convert::identity;
use std::hint::black_box;

use crate::steps::{Block, SINES, define_compress};

type V = u32;
const LANES: usize = 1;

define_compress!(compress, black_box, identity);
define_compress!(compress_many, identity, black_box);

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

fn f(b: V, c: V, d: V) -> V {
    d ^ (b & (c ^ d))
}

fn g(b: V, c: V, d: V) -> V {
    // The operands have no bit in common; a sum lets the second be added before `b` is known.
    (b & d).wrapping_add(c & !d)
}

fn h(b: V, c: V, d: V) -> V {
    b ^ (c ^ d)
}

fn i(b: V, c: V, d: V) -> V {
    c ^ (b | !d)
}

fn words(lanes: &[&Block; LANES], quarter: usize) -> [V; 4] {
    let words = lanes[0].as_chunks::<4>().0;
    std::array::from_fn(|word| u32::from_le_bytes(words[4 * quarter + word]))
}
