//! Recovery reads records twice. A record that verifies only the first time is damage.

use std::cell::{Cell, RefCell};
use std::io;
use std::ops::Range;
use std::rc::Rc;

use futures_executor::LocalPool;
use keyhole_log::limits::{PAGE, SEGMENTS_START};
use keyhole_log::{Disk, Error, Recovery, open};

use super::support::store::{Store, get, keys, options, put};
use super::support::{Buf, Crash, Medium, MemDisk};

/// A disk with a page that turns bad after its first read.
struct Fading {
    disk: MemDisk,
    page: u64,
    reads: Cell<usize>,
}

impl Disk for Fading {
    type Buf = Buf;

    fn buffer(&self) -> Buf {
        self.disk.buffer()
    }

    fn buffer_with_len(&self, len: usize) -> Buf {
        self.disk.buffer_with_len(len)
    }

    async fn read(&self, offset: u64, buf: Buf, at: Range<usize>) -> (io::Result<()>, Buf) {
        let first = at.start;
        let len = at.len() as u64;
        let (result, mut buf) = self.disk.read(offset, buf, at).await;
        if (offset..offset + len).contains(&self.page) {
            self.reads.set(self.reads.get() + 1);
            if self.reads.get() > 1 {
                let from = first + (self.page - offset) as usize;
                buf.as_mut()[from..from + PAGE].fill(0x3c);
            }
        }
        (result, buf)
    }

    async fn write(&self, offset: u64, buf: Buf, at: Range<usize>) -> (io::Result<()>, Buf) {
        self.disk.write(offset, buf, at).await
    }

    async fn sync(&self) -> io::Result<()> {
        self.disk.sync().await
    }

    async fn len(&self) -> io::Result<u64> {
        self.disk.len().await
    }

    async fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.disk.discard(offset, len).await
    }

    async fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        self.disk.allocate(offset, len).await
    }
}

/// Opens a store with a page that turns bad between the two reads.
fn open_fading(medium: &Rc<RefCell<Medium>>, page: u64) -> Result<Recovery, Error> {
    let disk = Fading { disk: MemDisk::new(medium), page, reads: Cell::new(0) };
    LocalPool::new().run_until(open(&disk, options(1))).map(|(_, recovery)| recovery)
}

#[test]
fn record_that_fails_second_reading_is_damage() {
    const OBJECTS: u64 = 6;
    // One page each for the segment header, the bucket and the objects; the last page is the mark
    // of the orderly shutdown.
    for page in 1..OBJECTS + 3 {
        let (medium, mut store) = Store::fresh(page, 1);
        let log = store.log();
        store.run(log.create_bucket("bucket", 1)).unwrap();
        for n in 0..OBJECTS {
            store.run(put(&log, &format!("key {n}"), n, 100)).unwrap();
        }
        drop(log);
        store.close();
        medium.borrow_mut().crash(Crash::Process);
        let recovery = open_fading(&medium, SEGMENTS_START + page * PAGE as u64).unwrap();
        let what: Vec<_> = recovery.damaged.iter().map(|damage| damage.what).collect();
        assert!(what.contains(&"a record that does not verify"), "page {page}: {what:?}");
        // Records after the bad page are still read, if the bucket exists.
        let expected = match page {
            1 => 0,
            page if page == OBJECTS + 2 => OBJECTS,
            _ => OBJECTS - 1,
        };
        assert_eq!(recovery.objects, expected, "page {page}");
        // The bytes on disk were intact, so the next recovery finds everything.
        medium.borrow_mut().crash(Crash::Process);
        let mut store = Store::open(&medium, 1);
        let log = store.log();
        assert_eq!(keys(&log).len() as u64, OBJECTS, "page {page}: {:?}", store.recovery.damaged);
        assert_eq!(store.run(get(&log, "key 3")), Some(3));
    }
}
