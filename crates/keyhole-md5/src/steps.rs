//! The steps of MD5, generic over the vector that holds one word of several messages.

/// The length of a block in bytes.
pub(crate) const BLOCK_LEN: usize = 64;

/// A block of MD5.
pub(crate) type Block = [u8; BLOCK_LEN];

/// Additive constants (RFC 1321, section 3.4): the integer parts of 2^32 times the sines of 1 to 64.
#[rustfmt::skip]
pub(crate) const SINES: [u32; 64] = [
    0xd76a_a478, 0xe8c7_b756, 0x2420_70db, 0xc1bd_ceee, 0xf57c_0faf, 0x4787_c62a, 0xa830_4613, 0xfd46_9501,
    0x6980_98d8, 0x8b44_f7af, 0xffff_5bb1, 0x895c_d7be, 0x6b90_1122, 0xfd98_7193, 0xa679_438e, 0x49b4_0821,
    0xf61e_2562, 0xc040_b340, 0x265e_5a51, 0xe9b6_c7aa, 0xd62f_105d, 0x0244_1453, 0xd8a1_e681, 0xe7d3_fbc8,
    0x21e1_cde6, 0xc337_07d6, 0xf4d5_0d87, 0x455a_14ed, 0xa9e3_e905, 0xfcef_a3f8, 0x676f_02d9, 0x8d2a_4c8a,
    0xfffa_3942, 0x8771_f681, 0x6d9d_6122, 0xfde5_380c, 0xa4be_ea44, 0x4bde_cfa9, 0xf6bb_4b60, 0xbebf_bc70,
    0x289b_7ec6, 0xeaa1_27fa, 0xd4ef_3085, 0x0488_1d05, 0xd9d4_d039, 0xe6db_99e5, 0x1fa2_7cf8, 0xc4ac_5665,
    0xf429_2244, 0x432a_ff97, 0xab94_23a7, 0xfc93_a039, 0x655b_59c3, 0x8f0c_cc92, 0xffef_f47d, 0x8584_5dd1,
    0x6fa8_7e4f, 0xfe2c_e6e0, 0xa301_4314, 0x4e08_11a1, 0xf753_7e82, 0xbd3a_f235, 0x2ad7_d2bb, 0xeb86_d391,
];

/// Defines `compress`: the compression function on `SETS` vectors of `LANES` messages each. The steps
/// of the sets alternate, so that the instructions of one fill the latencies of the others.
///
/// The module around it defines the vector `V`, `LANES`, `load`, `store`, `splat`, `add`, `rotate`,
/// `words`, which transposes a quarter of each lane's block to four vectors of message words, and `f`,
/// `g`, `h` and `i`, which add the result of a round function to a sum. They settle the sum before:
/// otherwise the compiler adds its parts behind the round function, which lengthens the chain of steps
/// by up to a half.
macro_rules! define_compress {
    ($(#[$attribute:meta])*) => {
        /// Advances each state by the blocks of its lane. All lanes have the same number of blocks.
        $(#[$attribute])*
        pub(crate) fn compress<const SETS: usize>(states: &mut [[u32; 4]], blocks: &[&[Block]]) {
            let (states, _) = states.as_chunks_mut::<LANES>();
            let (blocks, _) = blocks.as_chunks::<LANES>();
            let mut state = [[splat(0); 4]; SETS];
            for at in 0..SETS {
                for word in 0..4 {
                    state[at][word] = load(&states[at].map(|state| state[word]));
                }
            }
            let mut message = [[splat(0); 16]; SETS];
            for block in 0..blocks[0][0].len() {
                for at in 0..SETS {
                    let lanes = blocks[at].map(|blocks| &blocks[block]);
                    for quarter in 0..4 {
                        let words = words(&lanes, quarter);
                        message[at][4 * quarter..4 * quarter + 4].copy_from_slice(&words);
                    }
                }
                let mut a = state.map(|state| state[0]);
                let mut b = state.map(|state| state[1]);
                let mut c = state.map(|state| state[2]);
                let mut d = state.map(|state| state[3]);
                macro_rules! step {
                    ($function:ident, $a:ident, $b:ident, $c:ident, $d:ident, $word:expr, $left:literal, $number:expr) => {
                        for at in 0..SETS {
                            let sum = add(add($a[at], splat(SINES[$number])), message[at][$word]);
                            let sum = $function(sum, $b[at], $c[at], $d[at]);
                            $a[at] = add($b[at], rotate::<$left>(sum));
                        }
                    };
                }
                // Step `number` of a round uses the word `first + number * stride` of the block.
                macro_rules! four {
                    ($function:ident, $from:literal, $first:literal, $stride:literal, $s:literal, $t:literal, $u:literal, $v:literal) => {
                        step!($function, a, b, c, d, ($first + $from * $stride) % 16, $s, $from);
                        step!($function, d, a, b, c, ($first + ($from + 1) * $stride) % 16, $t, $from + 1);
                        step!($function, c, d, a, b, ($first + ($from + 2) * $stride) % 16, $u, $from + 2);
                        step!($function, b, c, d, a, ($first + ($from + 3) * $stride) % 16, $v, $from + 3);
                    };
                }
                four!(f, 0, 0, 1, 7, 12, 17, 22);
                four!(f, 4, 0, 1, 7, 12, 17, 22);
                four!(f, 8, 0, 1, 7, 12, 17, 22);
                four!(f, 12, 0, 1, 7, 12, 17, 22);
                four!(g, 16, 1, 5, 5, 9, 14, 20);
                four!(g, 20, 1, 5, 5, 9, 14, 20);
                four!(g, 24, 1, 5, 5, 9, 14, 20);
                four!(g, 28, 1, 5, 5, 9, 14, 20);
                four!(h, 32, 5, 3, 4, 11, 16, 23);
                four!(h, 36, 5, 3, 4, 11, 16, 23);
                four!(h, 40, 5, 3, 4, 11, 16, 23);
                four!(h, 44, 5, 3, 4, 11, 16, 23);
                four!(i, 48, 0, 7, 6, 10, 15, 21);
                four!(i, 52, 0, 7, 6, 10, 15, 21);
                four!(i, 56, 0, 7, 6, 10, 15, 21);
                four!(i, 60, 0, 7, 6, 10, 15, 21);
                for at in 0..SETS {
                    state[at][0] = add(state[at][0], a[at]);
                    state[at][1] = add(state[at][1], b[at]);
                    state[at][2] = add(state[at][2], c[at]);
                    state[at][3] = add(state[at][3], d[at]);
                }
            }
            for at in 0..SETS {
                for word in 0..4 {
                    let lanes = store(state[at][word]);
                    states[at].iter_mut().zip(lanes).for_each(|(state, lane)| state[word] = lane);
                }
            }
        }
    };
}
pub(crate) use define_compress;
