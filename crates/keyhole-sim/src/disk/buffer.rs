//! A pool of buffers: filling a megabyte takes longer than most operations.

use std::sync::{Arc, Mutex, PoisonError};

use keyhole_log::limits::{BUFFER_LEN, INLINE_MAX};

/// Initial content of a buffer. It is not zero, to expose code that relies on zeroed memory.
const FRESH: u8 = 0xa5;

/// Length of a short buffer, as in a real pool, so that tests can measure what requests hold.
const SHORT_LEN: usize = 2 * INLINE_MAX;

/// Free buffers of one life, short and long ones. The pool is not shared, so that stale content
/// follows from the seed.
#[derive(Default)]
pub(super) struct Pool(Mutex<[Vec<Vec<u8>>; 2]>);

impl Pool {
    /// Returns a buffer of exactly `len` bytes.
    pub(super) fn take(self: &Arc<Self>, len: usize) -> Buffer {
        let is_long = len > SHORT_LEN;
        let free = self.0.lock().unwrap_or_else(PoisonError::into_inner)[usize::from(is_long)].pop();
        let fresh = || vec![FRESH; if is_long { BUFFER_LEN } else { SHORT_LEN }];
        Buffer { bytes: free.unwrap_or_else(fresh), len, pool: Arc::clone(self) }
    }
}

/// A buffer of a simulated disk. It holds stale bytes of its previous user.
pub struct Buffer {
    bytes: Vec<u8>,
    len: usize,
    pool: Arc<Pool>,
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl AsMut<[u8]> for Buffer {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.len]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        let is_long = bytes.len() > SHORT_LEN;
        self.pool.0.lock().unwrap_or_else(PoisonError::into_inner)[usize::from(is_long)].push(bytes);
    }
}
