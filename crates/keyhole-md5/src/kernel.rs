//! The compression of several messages at once.

use crate::steps::Block;

/// Advances each state by the blocks of its lane; the numbers of lanes and of blocks are equal.
type Compress = unsafe fn(&mut [[u32; 4]], &[&[Block]]);

/// The maximum number of lanes of a kernel.
const LANES_MAX: usize = 16;

/// A compression of several messages at once.
pub(crate) struct Kernel {
    lanes: usize,
    compress: Compress,
}

impl Kernel {
    pub(crate) const fn new(lanes: usize, compress: Compress) -> Self {
        assert!(lanes <= LANES_MAX);
        Kernel { lanes, compress }
    }

    /// Returns the maximum number of messages.
    pub(crate) fn lanes(&self) -> usize {
        self.lanes
    }

    /// Advances the first messages by the length of the shortest of them. Each has a block at least.
    pub(crate) fn advance(&self, lanes: &mut [Lane<'_>]) {
        let used = lanes.len().min(self.lanes);
        let lanes = &mut lanes[..used];
        let Some(count) = lanes.iter().map(|lane| lane.blocks.len()).min() else { return };
        let mut states = [[0; 4]; LANES_MAX];
        // Lanes without a message repeat the first one; their states are dropped.
        let mut blocks = [&lanes[0].blocks[..count]; LANES_MAX];
        for (at, lane) in lanes.iter_mut().enumerate() {
            states[at] = *lane.state;
            (blocks[at], lane.blocks) = lane.blocks.split_at(count);
        }
        // SAFETY: `available` returns a kernel only if the processor has its features.
        unsafe { (self.compress)(&mut states[..self.lanes], &blocks[..self.lanes]) };
        lanes.iter_mut().zip(states).for_each(|(lane, state)| *lane.state = state);
    }
}

/// A message with blocks to compress.
pub(crate) struct Lane<'j> {
    pub(crate) state: &'j mut [u32; 4],
    pub(crate) blocks: &'j [Block],
}
