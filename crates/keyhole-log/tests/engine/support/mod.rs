//! The simulated disk, set up for the engine's tests, and a store on it.

pub(crate) mod store;

use std::sync::Arc;

use keyhole_log::limits::SEGMENTS_START;
use keyhole_sim::disk::{Crash, Faults, Medium, Survival};
use keyhole_sim::random::Random;

/// Error number of an I/O error.
pub(crate) const EIO: i32 = 5;

/// Power fails, and all unsynced writes are lost.
pub(crate) const LOST: Crash = Crash::Power(Survival::Nothing);

/// Power fails, and each unsynced write survives or not.
pub(crate) const SOME: Crash = Crash::Power(Survival::Writes);

/// Power fails, and each sector of each unsynced write survives or not.
pub(crate) const TORN: Crash = Crash::Power(Survival::Parts);

pub(crate) const CRASHES: [Crash; 4] = [Crash::Process, LOST, SOME, TORN];

/// Creates a medium without faults, whose file system has space and reports its extents.
pub(crate) fn new_medium(seed: u64) -> Arc<Medium> {
    let faults = Faults { heals: false, holes: true, extents: true, ..Faults::none() };
    Medium::new(Random::new(seed), faults)
}

/// Returns the 64-bit number at an offset of an image.
pub(crate) fn word(image: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(image[at..at + 8].try_into().unwrap())
}

/// Returns the offset of these bytes in the contents that reads see.
pub(crate) fn find(medium: &Medium, bytes: &[u8]) -> Option<u64> {
    medium.content().windows(bytes.len()).position(|window| window == bytes).map(|at| at as u64)
}

/// Removes the space of all segments that were never begun, as a sparse copy of the file does.
pub(crate) fn drop_unused_space(medium: &Medium, segment_len: u64) {
    let content = medium.content();
    for start in (SEGMENTS_START..content.len() as u64).step_by(segment_len as usize) {
        if !content[start as usize..].starts_with(b"keyhseg\n") {
            medium.punch(start, segment_len);
        }
    }
}
