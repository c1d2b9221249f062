//! Creates a store on a disk in memory, stores an object, and reads it back after reopening.
//!
//! ```sh
//! cargo run -p keyhole-log --example put_and_get
//! ```

use std::cell::RefCell;
use std::io;
use std::ops::Range;
use std::rc::Rc;

use futures_executor::LocalPool;
use futures_util::task::LocalSpawnExt;
use keyhole_log::limits::{BUFFER_LEN, SEGMENT_LEN_MIN};
use keyhole_log::{Condition, Content, Disk, Etag, Format, Log, OpenOptions, PutObject, create, open, worker};

/// A file in memory. A real disk aligns its buffers and makes writes durable in `sync`.
#[derive(Clone, Default)]
struct Memory(Rc<RefCell<Vec<u8>>>);

impl Disk for Memory {
    type Buf = Vec<u8>;

    fn buffer(&self) -> Vec<u8> {
        vec![0; BUFFER_LEN]
    }

    async fn read(&self, offset: u64, mut buf: Vec<u8>, at: Range<usize>) -> (io::Result<()>, Vec<u8>) {
        let file = self.0.borrow();
        let start = offset as usize;
        let result = match file.get(start..start + at.len()) {
            Some(bytes) => {
                buf[at].copy_from_slice(bytes);
                Ok(())
            }
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        };
        (result, buf)
    }

    async fn write(&self, offset: u64, buf: Vec<u8>, at: Range<usize>) -> (io::Result<()>, Vec<u8>) {
        let mut file = self.0.borrow_mut();
        let start = offset as usize;
        let end = start + at.len();
        if file.len() < end {
            file.resize(end, 0);
        }
        file[start..end].copy_from_slice(&buf[at]);
        (Ok(()), buf)
    }

    async fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    async fn len(&self) -> io::Result<u64> {
        Ok(self.0.borrow().len() as u64)
    }

    async fn discard(&self, _offset: u64, _len: u64) -> io::Result<()> {
        Ok(())
    }

    async fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        let mut file = self.0.borrow_mut();
        let end = (offset + len) as usize;
        if file.len() < end {
            file.resize(end, 0);
        }
        Ok(())
    }
}

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    let disk = Memory::default();
    let format = Format { store_id: [1; 16], capacity: 64 << 20, segment_len: SEGMENT_LEN_MIN, created_ms: 1 };
    LocalPool::new().run_until(create(&disk, &format))?;

    with_log(&disk, async |log| put(&log, b"temperature 21.5").await)?;
    // Opening recovers what was acknowledged.
    let bytes = with_log(&disk, async |log| get(&log).await)?;
    println!("read back: {}", String::from_utf8_lossy(&bytes));
    assert_eq!(bytes, b"temperature 21.5");
    Ok(())
}

/// Opens the store, runs `work` on its only worker, and shuts down in order.
fn with_log<T>(disk: &Memory, work: impl AsyncFnOnce(Log<Memory>) -> Result<T>) -> Result<T> {
    let mut pool = LocalPool::new();
    let (store, recovery) = pool.run_until(open(disk, OpenOptions::default()))?;
    println!("opened with {} objects", recovery.objects);
    let (log, writer) = worker(store, Rc::new(disk.clone()));
    pool.spawner().spawn_local(writer.run())?;
    let result = pool.run_until(work(log));
    // The writer ends once every handle is dropped.
    pool.run();
    result
}

async fn put(log: &Log<Memory>, bytes: &[u8]) -> Result<()> {
    log.create_bucket("edge", 1).await?;
    let mut buf = log.disk().buffer();
    buf[..bytes.len()].copy_from_slice(bytes);
    let body = log.body_writer().finish(Some((buf, bytes.len(), &[])), &[]).await?;
    log.put_object(PutObject {
        bucket: "edge".to_owned(),
        key: "reading".to_owned(),
        content: Content::New(body, [0; 24]),
        head: Vec::new(),
        tags: Vec::new(),
        sealed: false,
        etag: Etag { digest: [2; 16], parts: 0 },
        size: bytes.len() as u64,
        time_ms: 2,
        condition: Condition::None,
    })
    .await?;
    Ok(())
}

async fn get(log: &Log<Memory>) -> Result<Vec<u8>> {
    let object = log.object("edge", "reading").await?.ok_or("no such object")?;
    let body = log.body(&object.parts[0]).await?;
    let (read, mut buf) = log.read_block(&body, 0, 0..1, log.disk().buffer()).await;
    read?;
    buf.truncate(body.block_len(0));
    Ok(buf)
}
