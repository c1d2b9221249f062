//! Tests of admission with a stream whose progress is set by the test.

use std::cell::Cell;
use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::pin::{Pin, pin};

use futures_util::FutureExt;
use keyhole_log::limits::BUFFER_LEN;
use keyhole_s3::ErrorCode;
use tokio::time::Instant;

use super::*;
use crate::failure::Failure;
use crate::host::{Host, Services};
use crate::limits::{OLDEST_EVERY, PATIENCE_MS, RATE_FAIR_MAX, READ_RESERVE};
use crate::link::Client;
use crate::platform::Stream;

const SHORT: u64 = INLINE_MAX as u64;

struct Timer;

impl Services for Timer {
    fn now_ms(&self) -> u64 {
        0
    }

    fn instant(&self) -> std::time::Instant {
        Instant::now().into()
    }

    fn sleep(&self, time: Duration) -> Pin<Box<dyn Future<Output = ()>>> {
        Box::pin(tokio::time::sleep(time))
    }

    fn random(&self, _bytes: &mut [u8]) {
        unreachable!("admission uses no random bytes")
    }
}

/// A stream that moves as many bytes as the test says.
#[derive(Default)]
struct Slow {
    moved: Cell<u64>,
    unsent: Cell<u64>,
    interrupted: Cell<bool>,
}

impl Stream for Slow {
    type Buf = Vec<u8>;

    async fn read_block(&self, _: Vec<u8>, _: Range<usize>) -> (io::Result<usize>, Vec<u8>) {
        pending().await
    }

    async fn write_block(&self, _: Vec<u8>, _: Range<usize>) -> (io::Result<()>, Vec<u8>) {
        pending().await
    }

    async fn read_bytes(&self, _: Vec<u8>) -> (io::Result<usize>, Vec<u8>) {
        pending().await
    }

    async fn write_bytes(&self, _: Vec<u8>) -> (io::Result<()>, Vec<u8>) {
        pending().await
    }

    fn peer(&self) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], 1))
    }

    fn is_secure(&self) -> bool {
        false
    }

    fn interrupt(&self) {
        self.interrupted.set(true);
    }

    fn transferred(&self) -> u64 {
        self.moved.get()
    }

    fn unsent(&self) -> u64 {
        self.unsent.get()
    }

    async fn close(&self) {}

    fn abort(&self) {}
}

/// Returns a link of a client, and its stream.
fn slow_link(client: &str) -> (Rc<Link>, Rc<Slow>) {
    let stream = Rc::new(Slow::default());
    let link = Link::new(&stream, Host::new(Timer));
    link.client.set(Client::of(Some(client), stream.peer().ip()));
    (link, stream)
}

fn link(client: &str) -> Rc<Link> {
    slow_link(client).0
}

fn block(body_len: u64) -> BlockClaim {
    BlockClaim { block_len: BLOCK_DATA, body_len, is_copy: false }
}

fn now<T>(admitted: impl Future<Output = Result<T>>) -> Option<Result<T>> {
    admitted.now_or_never()
}

/// Takes blocks for a client as long as there are some.
fn take_all<'a>(admission: &'a Admission, link: &Rc<Link>) -> Vec<Admitted<'a>> {
    std::iter::from_fn(|| admission.try_block(block(1 << 30), link)).collect()
}

#[tokio::test]
async fn reads_of_whole_blocks_leave_memory_to_pieces() {
    for share in [Share::MIN, Share::MAX] {
        let admission = Admission::new(share);
        let of = link("a");
        let long = async || admission.read(1 << 30, STRIDE, &of).await.ok().unwrap();
        let first = long().await;
        let blocks: Vec<_> = std::iter::from_fn(|| first.block()).collect();
        let capacity = share.blocks * BLOCK_PAGES;
        let used = blocks.len() * BLOCK_PAGES + STRIDE / PAGE;
        // A block is left to writes.
        let room = capacity - BLOCK_PAGES - used;
        assert!(room >= capacity / READ_RESERVE && room - BLOCK_PAGES < capacity / READ_RESERVE, "{share:?}: {room}");
        let pieces: Vec<_> =
            std::iter::from_fn(|| now(admission.read(1 << 30, STRIDE, &of)).map(|read| read.ok().unwrap())).collect();
        assert_eq!(pieces.len(), room / (STRIDE / PAGE), "others need not wait");
        drop((blocks, pieces));
        // A short body has no use for a block.
        let short = admission.read(SHORT, STRIDE, &of).await.ok().unwrap();
        assert!(first.block().is_some() && short.block().is_none());
    }
}

#[tokio::test]
async fn reads_of_whole_blocks_keep_to_fair_share() {
    let admission = Admission::new(Share::MAX);
    let links = ["a", "b", "c"].map(link);
    let mut reads = Vec::new();
    for of in &links {
        reads.push(admission.read(1 << 30, STRIDE, of).await.ok().unwrap());
    }
    let blocks: Vec<_> = std::iter::from_fn(|| reads[0].block()).collect();
    let fair = Share::MAX.blocks * BLOCK_PAGES / links.len();
    let held = blocks.len() * BLOCK_PAGES + STRIDE / PAGE;
    assert!(held <= fair && held + BLOCK_PAGES > fair, "{held} of {fair}");
    assert!(reads[1].block().is_some());
}

#[tokio::test]
async fn reads_of_whole_blocks_leave_memory_to_waiting_request() {
    let admission = Admission::new(Share::MIN);
    let of = link("a");
    let read = admission.read(1 << 30, STRIDE, &of).await.ok().unwrap();
    let _write = admission.try_block(block(1 << 30), &of).unwrap();
    let mut waiting = Box::pin(admission.document(1 << 30, 1 << 31, &of));
    assert!(now(&mut waiting).is_none(), "more than what is free");
    assert!(read.block().is_none());
    drop(waiting);
    assert!(read.block().is_some());
}

#[tokio::test]
async fn writes_leave_a_block_to_reads_and_reads_to_writes() {
    for share in [Share::MIN, Share::MAX] {
        let admission = Admission::new(share);
        let of = link("a");
        let writes = take_all(&admission, &of);
        assert_eq!(writes.len(), share.blocks - 1);
        let reads: Vec<_> =
            std::iter::from_fn(|| now(admission.read(1 << 30, STRIDE, &of)).map(|read| read.ok().unwrap())).collect();
        assert_eq!(reads.len(), BLOCK_PAGES / (STRIDE / PAGE));
        assert!(now(admission.record(SHORT, &of)).is_some(), "short bodies have their own memory");
        drop(writes);
        let more: Vec<_> =
            std::iter::from_fn(|| now(admission.read(1 << 30, STRIDE, &of)).map(|read| read.ok().unwrap())).collect();
        assert_eq!(reads.len() + more.len(), (share.blocks - 1) * BLOCK_PAGES / (STRIDE / PAGE));
        assert!(admission.try_block(block(1 << 30), &of).is_some());
    }
}

#[tokio::test]
async fn short_bodies_are_bounded_by_their_bytes() {
    let admission = Admission::new(Share::MAX);
    let of = link("a");
    let held: Vec<_> = std::iter::from_fn(|| now(admission.record(SHORT, &of))).collect();
    assert_eq!(held.len(), PAGES_PER_WORKER / (1 + INLINE_MAX / PAGE));
    drop(held);
    let held: Vec<_> = std::iter::from_fn(|| now(admission.record(0, &of))).collect();
    assert_eq!(held.len(), PAGES_PER_WORKER);
    assert_eq!(admission.gauge().read(), Load { blocks: 0, pages: PAGES_PER_WORKER, waiters: 0 });
}

#[tokio::test]
async fn smallest_share_admits_every_request() {
    let admission = Admission::new(Share::MIN);
    let of = link("a");
    let long = 1 << 40;
    assert!(admission.try_block(block(long), &of).is_some());
    assert!(admission.try_block(BlockClaim { is_copy: true, ..block(long) }, &of).is_some());
    assert!(now(admission.read(long, STRIDE, &of)).is_some() && now(admission.read(long, BUFFER_LEN, &of)).is_some());
    assert!(now(admission.record(SHORT, &of)).is_some() && now(admission.listing(&of)).is_some());
    assert!(now(admission.form(keyhole_s3::limits::FORM_FIELDS_MAX, &of)).is_some());
    for len in [0, SHORT, crate::limits::COMPLETE_DOCUMENT_MAX, crate::limits::DELETE_DOCUMENT_MAX] {
        assert!(now(admission.document(len, 2 * len as usize, &of)).is_some(), "{len}");
    }
}

#[tokio::test]
async fn split_memory_is_released_in_parts() {
    let admission = Admission::new(Share::MIN);
    let of = link("a");
    let claim = |pages| ObjectClaim { pages, len: 1, is_write: false };
    let room = (Share::MIN.blocks - 1) * BLOCK_PAGES;
    assert!(now(admission.object(claim(room + 1), &of)).is_none(), "a block is left to writes");
    let Some(Ok(mut object)) = now(admission.object(claim(room), &of)) else { panic!("there is room") };
    let piece = object.split(BLOCK_PAGES);
    assert_eq!(admission.gauge().read().blocks, Share::MIN.blocks - 1);
    assert!(now(admission.object(claim(1), &of)).is_none(), "both parts are held");
    drop(object);
    assert_eq!(admission.gauge().read().blocks, 1);
    assert!(now(admission.object(claim(room - BLOCK_PAGES), &of)).is_some());
    assert!(now(admission.object(claim(room - BLOCK_PAGES + 1), &of)).is_none());
    drop(piece);
    assert_eq!(admission.gauge().read(), Load::default());
}

#[tokio::test]
async fn listing_is_corrected_to_its_length() {
    let admission = Admission::new(Share::MIN);
    let of = link("a");
    let Some(Ok(mut listing)) = now(admission.listing(&of)) else { panic!("there is room") };
    assert_eq!(admission.gauge().read().blocks, 1);
    // More than there is, because it exists already: nothing else is admitted meanwhile.
    listing.set_len(Share::MIN.blocks * BUFFER_LEN + 1);
    assert_eq!(admission.gauge().read().blocks, Share::MIN.blocks);
    assert!(admission.try_block(block(1), &of).is_none());
    listing.set_len(0);
    assert_eq!(admission.gauge().read().blocks, 0);
    assert_eq!(take_all(&admission, &of).len(), Share::MIN.blocks - 1);
}

#[tokio::test(start_paused = true)]
async fn wait_for_memory_times_out() {
    let admission = Admission::new(Share::MIN);
    let begun = Instant::now();
    let held = take_all(&admission, &link("a"));
    let waited = admission.block(block(1 << 30), &link("b")).await;
    assert_eq!(begun.elapsed().as_secs(), WAIT_MAX_S);
    let Err(Failure::Reply(error)) = waited else { panic!("there is no room") };
    assert_eq!(error.code, ErrorCode::SlowDown);
    assert_eq!(admission.gauge().read().waiters, 0);
    // A request that is admitted in time succeeds.
    let release = async {
        tokio::time::sleep(Duration::from_millis(WAIT_MAX_S * 1000 - 1)).await;
        drop(held);
    };
    let of = link("b");
    let (admitted, ()) = tokio::join!(admission.block(block(1 << 30), &of), release);
    assert!(admitted.is_ok());
}

#[tokio::test]
async fn requests_beyond_waiters_limit_are_refused() {
    let admission = Admission::new(Share::MIN);
    let gauge = admission.gauge();
    let of = link("a");
    let _held = take_all(&admission, &of);
    let mut waiting: Vec<_> = (0..WAITERS_PER_WORKER).map(|_| Box::pin(admission.block(block(1), &of))).collect();
    assert!(waiting.iter_mut().all(|waiting| waiting.now_or_never().is_none()));
    assert!(matches!(now(admission.block(block(1), &of)), Some(Err(_))));
    assert_eq!(gauge.read().waiters, WAITERS_PER_WORKER);
    waiting.pop();
    assert_eq!(gauge.read().waiters, WAITERS_PER_WORKER - 1);
    assert!(now(admission.block(block(1), &of)).is_none(), "one waits no longer");
    assert!(now(admission.record(1, &of)).is_some(), "short bodies do not wait for long ones");
}

#[tokio::test]
async fn longest_request_of_client_that_waits_most_is_shed() {
    let admission = Admission::new(Share::MIN);
    let (many, one) = (link("many"), link("one"));
    let _held = take_all(&admission, &many);
    assert!(!admission.shed(), "no request waits");
    let mut single = Box::pin(admission.block(block(1 << 40), &one));
    let mut short = Box::pin(admission.block(block(1), &many));
    let mut long = Box::pin(admission.block(block(1 << 30), &many));
    assert!([&mut single, &mut short, &mut long].into_iter().all(|waiting| now(waiting.as_mut()).is_none()));
    assert!(admission.shed());
    assert!(matches!(now(long.as_mut()), Some(Err(_))));
    assert!(now(single.as_mut()).is_none() && now(short.as_mut()).is_none());
    assert_eq!(admission.gauge().read().waiters, 2);
}

#[tokio::test]
async fn free_memory_goes_to_client_that_holds_least() {
    let admission = Admission::new(Share::MIN);
    let (greedy, modest) = (link("greedy"), link("modest"));
    let mut held = take_all(&admission, &greedy);
    let mut first = Box::pin(admission.block(block(1 << 20), &greedy));
    let mut second = Box::pin(admission.block(block(1 << 30), &modest));
    assert!(now(first.as_mut()).is_none() && now(second.as_mut()).is_none());
    // The first grant goes to the oldest, as every fourth does.
    held.pop();
    let Some(Ok(oldest)) = now(first.as_mut()) else { panic!("it is the first") };
    let mut third = Box::pin(admission.block(block(1 << 20), &greedy));
    assert!(now(third.as_mut()).is_none());
    drop(oldest);
    let second = now(second.as_mut());
    assert!(second.is_some(), "its client holds nothing");
    assert!(now(third.as_mut()).is_none());
}

#[tokio::test]
async fn short_request_precedes_long_ones_of_its_client_and_none_starves() {
    let admission = Admission::new(Share::MIN);
    let of = link("a");
    let mut held = take_all(&admission, &of);
    let mut long = Box::pin(admission.block(block(1 << 40), &of));
    assert!(now(long.as_mut()).is_none());
    let mut short: Vec<_> = (0..OLDEST_EVERY + 1).map(|_| Box::pin(admission.block(block(1), &of))).collect();
    assert!(short.iter_mut().all(|short| now(short.as_mut()).is_none()));
    let mut granted = Vec::new();
    for turn in 0..=OLDEST_EVERY {
        held.pop();
        held.extend(short.iter_mut().filter_map(|short| (&mut *short).now_or_never()).map(|done| done.ok().unwrap()));
        granted.push(now(long.as_mut()).is_some());
        assert!(turn <= OLDEST_EVERY);
        if granted.last() == Some(&true) {
            break;
        }
    }
    assert!(granted.len() as u64 <= OLDEST_EVERY && granted.last() == Some(&true), "{granted:?}");
}

/// A holder of all memory, whose peer moves `rate` bytes per second, while another client waits.
/// Returns how long that waited, if it got memory within this time.
async fn waited_for(rate: u64, of_holder: &str) -> Option<Duration> {
    let admission = Admission::new(Share::MIN);
    let (slow, stream) = slow_link(of_holder);
    let held = Cell::new(Some(take_all(&admission, &slow)));
    let holding = async {
        let receiving = slow.waiting(async {
            while !stream.interrupted.get() {
                tokio::time::sleep(Duration::from_millis(10)).await;
                stream.moved.set(stream.moved.get() + rate / 100);
            }
        });
        receiving.await;
        held.take();
    };
    let begun = Instant::now();
    let of = link("waiting");
    let waiting = async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        admission.block(block(1 << 20), &of).await.is_ok()
    };
    let mut holding = pin!(holding.fuse());
    let mut waiting = pin!(waiting.fuse());
    let mut is_holding = true;
    let is_admitted = loop {
        tokio::select! {
            () = &mut holding, if is_holding => is_holding = false,
            admitted = &mut waiting => break admitted,
        }
    };
    is_admitted.then(|| begun.elapsed() - Duration::from_secs(2))
}

#[tokio::test(start_paused = true)]
async fn slow_holder_is_ended_when_another_request_waits() {
    // 300 bytes a second: at once.
    let waited = waited_for(300, "slow").await.expect("memory");
    assert!(waited < Duration::from_millis(RELIEF_STEP_MS), "{waited:?}");
    // It is the same for requests of one client.
    let waited = waited_for(300, "waiting").await.expect("memory");
    assert!(waited < Duration::from_millis(RELIEF_STEP_MS), "{waited:?}");
    // Faster than the first minimum rate: once that has risen.
    let waited = waited_for(RATE_FAIR_MAX / 2, "waiting").await.expect("memory");
    assert!((RELIEF_STEP_MS..5000).contains(&(waited.as_millis() as u64)), "{waited:?}");
    // Just fast enough, for a client that is alone: it is never ended.
    assert_eq!(waited_for(RATE_FAIR_MAX + 100, "waiting").await, None);
    // A client that holds everything has to be faster when another one waits.
    let waited = waited_for(RATE_FAIR_MAX + 100, "slow").await.expect("memory");
    assert!(waited < Duration::from_secs(2), "{waited:?}");
    assert_eq!(waited_for(crate::limits::RATE_OVER_SHARE_MAX * 2, "slow").await, None);
}

#[tokio::test(start_paused = true)]
async fn debt_counts_waiting_beyond_the_rate() {
    let (slow, stream) = slow_link("a");
    let mark = slow.mark();
    let mut waiting = Box::pin(slow.waiting(pending::<()>()));
    assert!((&mut waiting).now_or_never().is_none());
    tokio::time::advance(Duration::from_millis(PATIENCE_MS)).await;
    assert_eq!(slow.debt(&mark, 1000), Duration::from_millis(PATIENCE_MS));
    stream.moved.set(200);
    assert_eq!(slow.debt(&mark, 1000), Duration::from_millis(PATIENCE_MS - 200));
    // What the system still has to send does not count.
    stream.unsent.set(200);
    assert_eq!(slow.debt(&mark, 1000), Duration::from_millis(PATIENCE_MS));
    drop(waiting);
    let host_works = slow_link("b").0;
    let mark = host_works.mark();
    tokio::time::advance(Duration::from_secs(5)).await;
    assert_eq!(host_works.debt(&mark, 1), Duration::ZERO, "the node does not wait for the peer");
}
