//! Bare programs on a ring, as a baseline for the engine. They write the same bytes in the same
//! pattern and nothing else: no index, no checksums, no recovery.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;

use keyhole_log::limits::{BLOCKS_IN_FLIGHT, BUFFER_LEN, PAGE};
use tokio::sync::{Notify, oneshot};
use tokio::task::spawn_local;
use tokio_uring::buf::BoundedBuf;
use tokio_uring::buf::fixed::FixedBufRegistry;
use tokio_uring::fs::File;

use super::disk::write_once;
use crate::buffer::{Buffer, Pool};
use crate::medium::Medium;

/// Records that wait to be written, each with its client's channel.
type Queue = (RefCell<Vec<(Vec<u8>, oneshot::Sender<()>)>>, Notify);

/// A file that is written sequentially.
pub(crate) struct BareFile {
    file: Rc<File>,
    /// The handle for direct I/O.
    direct: Option<Rc<std::fs::File>>,
    at: u64,
    allocated: u64,
    /// Bytes that the file grows by at a time.
    step: u64,
}

impl BareFile {
    pub(crate) fn new(file: std::fs::File, step: u64) -> Self {
        let medium = Medium::file(file);
        let direct = medium.direct().map(Rc::new);
        BareFile { file: Rc::new(File::from_std(medium.into_file())), direct, at: 0, allocated: 0, step }
    }

    /// Returns the offset of the next write of this length, after extending the file as the engine
    /// does.
    async fn place(&mut self, len: u64) -> io::Result<u64> {
        while self.at + len > self.allocated {
            self.file.fallocate(self.allocated, self.step, 0).await?;
            self.allocated += self.step;
        }
        let at = self.at;
        self.at += len;
        Ok(at)
    }

    /// Rewinds to the beginning, so that later writes overwrite existing data.
    pub(crate) fn rewind(&mut self) {
        self.at = 0;
    }

    /// Runs `clients` that submit records of this length until there were `commits`. While one
    /// batch is written and made durable, the next one is collected. The writer is one task among
    /// the clients', as in the engine.
    pub(crate) async fn commits(self, clients: usize, commits: usize, record: usize) -> io::Result<Self> {
        let queue = Rc::new((RefCell::new(Vec::new()), Notify::new()));
        let left = Rc::new(Cell::new(commits));
        for _ in 0..clients {
            let queue = queue.clone();
            let left = left.clone();
            spawn_local(async move {
                let bytes = vec![7; record];
                while let Some(less) = left.get().checked_sub(1) {
                    left.set(less);
                    let (done, durable) = oneshot::channel();
                    queue.0.borrow_mut().push((bytes.clone(), done));
                    queue.1.notify_one();
                    if durable.await.is_err() {
                        return;
                    }
                }
            });
        }
        spawn_local(self.commit(queue, commits, record)).await.map_err(io::Error::other)?
    }

    /// Writes as the engine writes a batch: with `O_DIRECT` and durable by itself, if the file
    /// system allows it.
    async fn write_durable(&self, buf: Buffer, len: usize, at: u64) -> io::Result<Buffer> {
        if let Some(direct) = &self.direct {
            let (result, buf) = write_once(direct, at, buf, &(0..len), libc::RWF_DSYNC).await;
            return match result? {
                written if written == len => Ok(buf),
                written => Err(io::Error::other(format!("{written} of {len} bytes were written"))),
            };
        }
        let (result, slice) = self.file.write_all_at(buf.slice(..len), at).await;
        result?;
        self.file.sync_data().await?;
        Ok(slice.into_inner())
    }

    async fn commit(mut self, queue: Rc<Queue>, commits: usize, record: usize) -> io::Result<Self> {
        let mut buf = Pool::default().take();
        let mut written = 0;
        while written < commits {
            let batch: Vec<(Vec<u8>, oneshot::Sender<()>)> = {
                let mut waiting = queue.0.borrow_mut();
                let most = waiting.len().min(BUFFER_LEN / record);
                waiting.drain(..most).collect()
            };
            if batch.is_empty() {
                queue.1.notified().await;
                continue;
            }
            for (i, (bytes, _)) in batch.iter().enumerate() {
                buf.as_mut()[i * record..(i + 1) * record].copy_from_slice(bytes);
            }
            let len = (batch.len() * record).next_multiple_of(PAGE);
            let at = self.place(len as u64).await?;
            buf = self.write_durable(buf, len, at).await?;
            written += batch.len();
            for (_, done) in batch {
                let _ = done.send(());
            }
            // Let the clients that were just answered submit first.
            tokio::task::yield_now().await;
        }
        Ok(self)
    }
}

/// Registered buffers of a block's length, as many as the engine has in flight for one body.
pub(crate) struct Fixed(Rc<FixedBufRegistry<Buffer>>);

impl Fixed {
    pub(crate) fn register() -> io::Result<Self> {
        let pool = Pool::default();
        let registry = FixedBufRegistry::new((0..BLOCKS_IN_FLIGHT).map(|_| pool.take()));
        registry.register()?;
        Ok(Fixed(Rc::new(registry)))
    }

    pub(crate) fn unregister(self) -> io::Result<()> {
        self.0.unregister()
    }

    /// Streams `blocks` blocks with their footers through the buffers, then makes them and one page
    /// more durable.
    pub(crate) async fn stream(&self, to: &mut BareFile, blocks: usize) -> io::Result<()> {
        let mut writes = Vec::with_capacity(BLOCKS_IN_FLIGHT);
        let mut places = Vec::with_capacity(blocks);
        for _ in 0..blocks {
            places.push(to.place(BUFFER_LEN as u64).await?);
        }
        let places = Rc::new(RefCell::new(places.into_iter()));
        for index in 0..BLOCKS_IN_FLIGHT {
            let file = to.file.clone();
            let places = places.clone();
            let registry = self.0.clone();
            writes.push(spawn_local(async move {
                loop {
                    let Some(at) = places.borrow_mut().next() else { return io::Result::Ok(()) };
                    let buf = registry.check_out(index).expect("its write has ended");
                    let (result, buf) = file.write_fixed_all_at(buf, at).await;
                    drop(buf);
                    result?;
                }
            }));
        }
        for write in writes {
            write.await.map_err(io::Error::other)??;
        }
        let at = to.place(PAGE as u64).await?;
        let (result, _) = to.file.write_all_at(Pool::default().take().slice(..PAGE), at).await;
        result?;
        to.file.sync_data().await
    }
}
