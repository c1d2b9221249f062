//! Parts of the in-memory disks that both the tests of the engine and those of threads use.

use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll};

use keyhole_log::limits::{BUFFER_LEN, PAGE};

/// Yields once.
pub(crate) struct Turn(bool);

impl Turn {
    pub(crate) fn once() -> Self {
        Turn(false)
    }
}

impl Future for Turn {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.0 {
            return Poll::Ready(());
        }
        self.0 = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// A buffer. Its content is not zero, to expose code that relies on zeros.
pub(crate) struct Buf(Vec<u8>);

impl Buf {
    pub(crate) fn new(len: usize) -> Self {
        Buf(vec![0xa5; len])
    }
}

impl AsRef<[u8]> for Buf {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl AsMut<[u8]> for Buf {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

/// Checks that a range is whole pages of the disk and of a buffer.
pub(crate) fn check_alignment(offset: u64, at: &Range<usize>) {
    assert!(
        offset.is_multiple_of(PAGE as u64) && at.start.is_multiple_of(PAGE) && at.end.is_multiple_of(PAGE),
        "{offset} {at:?}"
    );
    assert!(!at.is_empty() && at.end <= BUFFER_LEN, "{at:?}");
}
