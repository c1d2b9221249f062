//! Cooperation with the other tasks of the thread.

use std::task::Poll;

/// Yields once, so that the other tasks of this thread run.
pub(crate) async fn yield_once() {
    let mut again = true;
    std::future::poll_fn(|cx| {
        if std::mem::take(&mut again) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(())
    })
    .await;
}
