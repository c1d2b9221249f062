//! A test that reads through the page cache and past it see every completed write.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::thread;

use keyhole_log::limits::{BUFFER_LEN, PAGE};
use keyhole_log::{Access, Disk};

use crate::buffer::{Buffer, Pools};
use crate::epoll::PlainDisk;
use crate::medium::Medium;
use crate::uring::{self, UringDisk};

/// Versions of the block that are written, each one byte repeated.
const VERSIONS: u64 = 200;

#[derive(Default)]
struct Progress {
    begun: AtomicU64,
    written: AtomicU64,
    reads: AtomicU64,
}

/// Overwrites the block with one version after the other, and lets readers finish as many reads.
async fn write_versions<D: Disk<Buf = Buffer>>(disk: &D, progress: &Progress) {
    for version in 1..=VERSIONS {
        let mut buf = disk.buffer();
        buf.slice_mut(0..BUFFER_LEN).fill(version as u8);
        progress.begun.store(version, SeqCst);
        disk.write(0, buf, 0..BUFFER_LEN).await.0.unwrap();
        progress.written.store(version, SeqCst);
        // On a busy machine the readers would otherwise see few of the versions.
        while progress.reads.load(SeqCst) < version {
            thread::yield_now();
        }
    }
}

/// Reads the block or a part of it, and checks every byte, until the last version is written.
/// Returns the count of reads.
async fn read_versions<D: Disk<Buf = Buffer>>(disk: &D, access: Option<Access>, progress: &Progress) -> usize {
    let ranges: [Range<usize>; 3] = [0..BUFFER_LEN, 5 * PAGE..21 * PAGE, 256 * PAGE..BUFFER_LEN];
    let mut count = 0;
    loop {
        let least = progress.written.load(SeqCst);
        let at = ranges[count % ranges.len()].clone();
        let offset = at.start as u64;
        let access = access.unwrap_or_else(|| disk.choose_access(0, offset..at.end as u64));
        let (result, buf) = match access {
            Access::Cached => disk.read(offset, disk.buffer(), at.clone()).await,
            Access::Direct => disk.read_direct(offset, disk.buffer(), at.clone()).await,
        };
        result.unwrap();
        let seen = least as u8..=progress.begun.load(SeqCst) as u8;
        let stale = buf.as_ref()[at.clone()].iter().position(|byte| !seen.contains(byte));
        assert_eq!(stale, None, "stale bytes: {access:?} of {at:?}, expected {seen:?}");
        count += 1;
        progress.reads.fetch_add(1, SeqCst);
        if least == VERSIONS {
            return count;
        }
    }
}

/// What one thread does with the block.
#[derive(Clone, Copy)]
enum Work {
    Write,
    /// Reads by one access, or as the disk chooses.
    Read(Option<Access>),
}

async fn perform<D: Disk<Buf = Buffer>>(disk: D, work: Work, progress: &Progress) {
    match work {
        Work::Write => write_versions(&disk, progress).await,
        Work::Read(access) => assert!(read_versions(&disk, access, progress).await > 0),
    }
}

/// Ends the other threads when one of them ends or panics.
struct EndsOthers<'a>(&'a Progress);

impl Drop for EndsOthers<'_> {
    fn drop(&mut self) {
        self.0.begun.store(VERSIONS, SeqCst);
        self.0.written.store(VERSIONS, SeqCst);
        self.0.reads.fetch_add(VERSIONS, SeqCst);
    }
}

/// Writes and reads one block in all ways at the same time, each on a thread with its own disk.
fn check(run: impl Fn(Medium, Work, &Progress) + Sync) {
    let medium = Medium::file(tempfile::tempfile().unwrap());
    medium.allocate(0, BUFFER_LEN as u64).unwrap();
    let progress = Progress::default();
    thread::scope(|scope| {
        for work in [Work::Write, Work::Read(Some(Access::Cached)), Work::Read(Some(Access::Direct)), Work::Read(None)]
        {
            let medium = medium.try_clone().unwrap();
            let run = &run;
            let progress = &progress;
            scope.spawn(move || {
                let _ends = EndsOthers(progress);
                run(medium, work, progress);
            });
        }
    });
    assert!(medium.read_path().counts().cached > 0);
}

#[test]
fn plain_reads_of_both_kinds_see_every_completed_write() {
    check(|medium, work, progress| {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(perform(PlainDisk::new(medium, Pools::default()), work, progress));
    });
}

#[test]
fn ring_reads_of_both_kinds_see_every_completed_write() {
    if uring::probe().is_err() {
        return;
    }
    check(|medium, work, progress| {
        let performed = async { perform(UringDisk::new(medium, Pools::default()).unwrap(), work, progress).await };
        uring::block_on(performed).unwrap();
    });
}
