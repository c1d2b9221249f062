//! A pool of buffers: filling a megabyte takes longer than most operations.

use std::cell::RefCell;
use std::rc::Rc;

use keyhole_log::limits::BUFFER_LEN;

/// Initial content of a buffer. It is not zero, to expose code that relies on zeroed memory.
const FRESH: u8 = 0xa5;

/// Free buffers of one life. The pool is not shared, so that stale content follows from the seed.
#[derive(Default)]
pub(super) struct Pool(RefCell<Vec<Vec<u8>>>);

impl Pool {
    pub(super) fn take(self: &Rc<Self>) -> Buffer {
        let bytes = self.0.borrow_mut().pop().unwrap_or_else(|| vec![FRESH; BUFFER_LEN]);
        Buffer { bytes, pool: Rc::clone(self) }
    }
}

/// A buffer of a simulated disk. It holds stale bytes of its previous user.
pub struct Buffer {
    bytes: Vec<u8>,
    pool: Rc<Pool>,
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl AsMut<[u8]> for Buffer {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.pool.0.borrow_mut().push(std::mem::take(&mut self.bytes));
    }
}
