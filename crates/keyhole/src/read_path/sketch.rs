//! A count-min sketch of recent accesses, of fixed size.
//!
//! Four rows of 4-bit counters; the least of a key's four counters is its estimated frequency. All
//! counters are halved once per window of accesses, so that old accesses are forgotten.

/// Counters in each row, a power of two.
const WIDTH: usize = 1 << 16;

/// Rows, each indexed with other bits of a key's hash.
const ROWS: usize = 4;

/// Highest value of a counter.
const COUNT_MAX: u8 = 15;

/// Longest window: a row has four counters for each access of it, so that few keys collide in all
/// rows.
pub(super) const WINDOW_MAX: u32 = WIDTH as u32 / 4;

/// Estimates how often keys were accessed recently. It takes 128 KiB.
pub(super) struct Sketch {
    /// Two counters in each byte.
    rows: Box<[[u8; WIDTH / 2]; ROWS]>,
    /// Accesses between two halvings.
    window: u32,
    /// Accesses since the last halving.
    accesses: u32,
}

impl Sketch {
    /// Returns a sketch that forgets a single access after at most `window` others.
    pub(super) fn new(window: u32) -> Self {
        Sketch { rows: Box::new([[0; WIDTH / 2]; ROWS]), window: window.clamp(1, WINDOW_MAX), accesses: 0 }
    }

    /// Counts an access. Returns the estimated number of earlier ones.
    pub(super) fn touch(&mut self, key: u64) -> u8 {
        if self.accesses == self.window {
            self.accesses = 0;
            self.halve();
        }
        self.accesses += 1;
        let hash = mix(key);
        let places: [usize; ROWS] = std::array::from_fn(|row| (hash >> (16 * row)) as usize % WIDTH);
        let count = |row: usize| (self.rows[row][places[row] / 2] >> shift(places[row])) & COUNT_MAX;
        let least = (0..ROWS).map(count).min().unwrap_or(0);
        if least < COUNT_MAX {
            for (row, &place) in places.iter().enumerate() {
                let byte = &mut self.rows[row][place / 2];
                // Only the least counters grow: the others count other keys as well.
                if (*byte >> shift(place)) & COUNT_MAX == least {
                    *byte += 1 << shift(place);
                }
            }
        }
        least
    }

    fn halve(&mut self) {
        for byte in self.rows.iter_mut().flatten() {
            *byte = (*byte >> 1) & 0x77;
        }
    }
}

/// Returns the position of a counter within its byte.
fn shift(place: usize) -> u32 {
    place as u32 % 2 * 4
}

/// The finaliser of SplitMix64: every bit of the result depends on every bit of the key.
fn mix(key: u64) -> u64 {
    let mut hash = key.wrapping_add(0x9e37_79b9_7f4a_7c15);
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accesses_are_counted_up_to_maximum() {
        let mut sketch = Sketch::new(WINDOW_MAX);
        let counts: Vec<u8> = (0..20).map(|_| sketch.touch(7)).collect();
        let expected: Vec<u8> = (0..20).map(|count| count.min(COUNT_MAX)).collect();
        assert_eq!(counts, expected);
        assert_eq!((sketch.touch(8), sketch.touch(8)), (0, 1));
    }

    #[test]
    fn counts_are_halved_after_window() {
        let mut sketch = Sketch::new(10);
        for _ in 0..9 {
            sketch.touch(1);
        }
        assert_eq!(sketch.touch(2), 0, "the last access of the window");
        assert_eq!(sketch.touch(1), 4);
        assert_eq!(sketch.touch(2), 0, "one access is forgotten");
    }

    #[test]
    fn few_new_keys_appear_known_in_full_window() {
        let mut sketch = Sketch::new(WINDOW_MAX);
        // As offsets of blocks with a footer.
        let known = (0..2 * u64::from(WINDOW_MAX)).filter(|key| sketch.touch(key * 257) > 0).count();
        assert!(known < WINDOW_MAX as usize / 100, "{known}");
    }
}
