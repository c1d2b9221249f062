//! The costs of encryption and disk alone, measured by loops that do only the same work on the same
//! bytes. ([`super::bare`] measures the network.)

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use keyhole_core::body;
use keyhole_core::chunked::{Opener, Sealer};
use keyhole_core::head::{Head, open_head, seal_head};
use keyhole_core::limits::{CHUNK_LEN, KEY_LEN, PREFIX_LEN, SALT_LEN, SEALED_HEAD_MAX, TAG_LEN};
use keyhole_core::{CustomerKey, DataKey};
use memmap2::{Advice, MmapMut};
use rustix::fs::OFlags;
use rustix::io::ReadWriteFlags;
use rustix::time::{ClockId, clock_gettime};

use super::accelerated::Accelerated;
use super::bytes::AlignedBytes;
use super::scenario::{CHUNKS, SMALL, size_name};
use crate::{Error, Result};

const MIB: usize = 1 << 20;
const GIB: f64 = (1u64 << 30) as f64;

/// Bytes that the node writes per MiB of an object: a block and its footer.
const BLOCK_LEN: usize = MIB + 4096;

/// Bytes that the node writes per small object besides its data: its sealed head and the record
/// around them.
const RECORD_OVERHEAD: usize = 512;

/// Bytes that the node writes per object of 4 KiB.
const RECORD_LEN: usize = SMALL + RECORD_OVERHEAD;

/// Alignment of direct I/O.
const PAGE: usize = 4096;

/// Maximum size of a batched write.
const BATCH_MAX: usize = MIB;

/// Threads that write blocks.
const WRITERS: usize = 4;

/// Size of the file, which is divided between the writers.
const FILE_LEN: u64 = 512 << 20;

/// Size of a huge page.
const HUGE: usize = 2 << 20;

const KEY: [u8; KEY_LEN] = [7; KEY_LEN];
const SALT: [u8; SALT_LEN] = [5; SALT_LEN];
const BUCKET: &str = "bucket";
const NAME: &str = "small/1234";

/// A load on one core or disk.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Floor {
    /// AES-256-GCM of chunks of 16 KiB in place, sealed, on all cores at once. Per GiB.
    Seal,
    /// AES-256-GCM of chunks of 16 KiB in place, opened, on all cores at once. Per GiB.
    Open,
    /// An object of 4 KiB: the keys of object head and body derived, both sealed. Per object.
    SealObject,
    /// An object of 4 KiB, opened. Per object.
    OpenObject,
    /// An object of 64 KiB, sealed like one of 4 KiB. Per object.
    SealChunks,
    /// An object of 64 KiB, opened. Per object.
    OpenChunks,
    /// Batches of records of 64 KiB objects from 16 clients, one durable write each. Per record.
    WriteChunks,
    /// Blocks of 1 MiB with O_DIRECT, four at a time, each made durable. Per GiB.
    WriteMib,
    /// Blocks of 1 MiB with O_DIRECT, made durable once per 64 blocks. Per GiB.
    WriteLarge,
    /// Batches of records of 4 KiB objects, one durable write each. Per record.
    Commit {
        /// Number of writing threads.
        threads: usize,
        /// Records per write.
        batch: usize,
    },
    /// Pieces of this length at random offsets from the page cache, on all cores at once. Per read
    /// or per GiB.
    ReadCached(usize),
    /// Pieces of this length at random offsets from the disk with O_DIRECT, on all cores at once. Per
    /// read or per GiB.
    ReadDirect(usize),
}

impl Floor {
    /// Returns the durable writes for this many waiting clients, half of them on each of two
    /// threads.
    pub(super) fn commit(clients: usize) -> Self {
        let threads = clients.min(2);
        Floor::Commit { threads, batch: (clients / threads).min(BATCH_MAX / RECORD_LEN) }
    }

    /// Returns whether costs are per GiB; otherwise they are per object.
    pub(super) fn is_by_gib(self) -> bool {
        match self {
            Floor::SealObject | Floor::OpenObject | Floor::SealChunks | Floor::OpenChunks => false,
            Floor::Commit { .. } | Floor::WriteChunks => false,
            Floor::ReadCached(len) | Floor::ReadDirect(len) => len >= MIB,
            Floor::Seal | Floor::Open | Floor::WriteMib | Floor::WriteLarge => true,
        }
    }

    /// Returns the name for the report.
    pub(super) fn name(self) -> String {
        match self {
            Floor::Seal => "encryption: chunks of 16 KiB sealed in place".to_owned(),
            Floor::Open => "encryption: chunks of 16 KiB opened in place".to_owned(),
            Floor::SealObject => "encryption: 4 KiB object sealed, with key derivation".to_owned(),
            Floor::OpenObject => "encryption: 4 KiB object opened, with key derivation".to_owned(),
            Floor::SealChunks => "encryption: 64 KiB object sealed, with key derivation".to_owned(),
            Floor::OpenChunks => "encryption: 64 KiB object opened, with key derivation".to_owned(),
            Floor::WriteChunks => "disk: 64 KiB records, 8 per durable write, 2 threads".to_owned(),
            Floor::WriteMib => "disk: 1 MiB direct writes, 4 in flight, each durable".to_owned(),
            Floor::WriteLarge => "disk: 1 MiB direct writes, one sync per 64".to_owned(),
            Floor::Commit { threads, batch } => {
                let plural = if threads == 1 { "" } else { "s" };
                format!("disk: 4 KiB records, {batch} per durable write, {threads} thread{plural}")
            }
            Floor::ReadCached(len) => format!("disk: {} read from the page cache", size_name(len)),
            Floor::ReadDirect(len) => format!("disk: {} direct read", size_name(len)),
        }
    }
}

/// The cost of a floor.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cost {
    /// Seconds of CPU time per unit.
    pub(super) cpu: f64,
    /// Units per second, over all threads.
    pub(super) rate: f64,
}

/// The file for disk measurements, fully written in advance.
pub(super) struct Disk {
    path: PathBuf,
}

impl Disk {
    /// Creates the file in a directory.
    pub(super) fn new(directory: &Path) -> Result<Self> {
        let disk = Disk { path: directory.join("floor") };
        let file = File::create_new(&disk.path).map_err(|error| disk.failed(error))?;
        let bytes = vec![1; MIB];
        (0..FILE_LEN / MIB as u64)
            .try_for_each(|block| file.write_all_at(&bytes, block * MIB as u64))
            .and_then(|()| file.sync_all())
            .map_err(|error| disk.failed(error))?;
        Ok(disk)
    }

    fn failed(&self, error: io::Error) -> Error {
        Error::of(self.path.display(), error)
    }

    fn open(&self) -> Result<File> {
        OpenOptions::new().read(true).write(true).open(&self.path).map_err(|error| self.failed(error))
    }

    fn open_direct(&self) -> Result<File> {
        let direct = OFlags::DIRECT.bits() as i32;
        let file = OpenOptions::new().read(true).write(true).custom_flags(direct).open(&self.path);
        file.map_err(|error| Error::of(format_args!("cannot open {} with O_DIRECT", self.path.display()), error))
    }

    /// Opens the file and loads all of it into the page cache.
    fn open_cached(&self) -> Result<File> {
        let file = self.open()?;
        let mut bytes = vec![0; MIB];
        (0..FILE_LEN / MIB as u64)
            .try_for_each(|block| file.read_exact_at(&mut bytes, block * MIB as u64))
            .map_err(|error| self.failed(error))?;
        Ok(file)
    }

    /// Measures a floor for this long on a machine with this many cores.
    pub(super) fn measure(&self, floor: Floor, cores: usize, time: Duration) -> Result<Cost> {
        let encryption = |cost: io::Result<Cost>| cost.map_err(|error| Error::of(floor.name(), error));
        match floor {
            Floor::Seal => encryption(parallel(cores, time, |_, until| Ok(seal(until)))),
            Floor::Open => encryption(parallel(cores, time, |_, until| open(until))),
            Floor::SealObject => encryption(parallel(cores, time, |_, until| seal_object(until, SMALL))),
            Floor::OpenObject => encryption(parallel(cores, time, |_, until| open_object(until, SMALL))),
            Floor::SealChunks => encryption(parallel(cores, time, |_, until| seal_object(until, CHUNKS))),
            Floor::OpenChunks => encryption(parallel(cores, time, |_, until| open_object(until, CHUNKS))),
            Floor::WriteChunks => self.commit(time, 2, 8, CHUNKS + RECORD_OVERHEAD),
            Floor::WriteMib => self.write(time, 1),
            Floor::WriteLarge => self.write(time, 64),
            Floor::Commit { threads, batch } => self.commit(time, threads, batch, RECORD_LEN),
            Floor::ReadCached(len) => self.read(self.open_cached()?, cores, time, len),
            Floor::ReadDirect(len) => {
                // Cached pages would be read from the page cache even with O_DIRECT.
                let file = self.open()?;
                file.sync_all().map_err(|error| self.failed(error))?;
                rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).map_err(io::Error::from)?;
                self.read(self.open_direct()?, cores, time, len)
            }
        }
    }

    /// Writes blocks from several threads, each to its section of the file, with a sync per
    /// `blocks` blocks.
    fn write(&self, time: Duration, blocks: usize) -> Result<Cost> {
        let file = self.open_direct()?;
        let part = FILE_LEN / WRITERS as u64;
        let in_part = part / BLOCK_LEN as u64;
        parallel(WRITERS, time, |writer, until| {
            let mut memory = huge(BLOCK_LEN)?;
            memory.fill(writer as u8);
            let mut written = 0u64;
            loop {
                for _ in 0..blocks {
                    let at = part * writer as u64 + written % in_part * BLOCK_LEN as u64;
                    file.write_all_at(&memory[..BLOCK_LEN], at)?;
                    written += 1;
                }
                file.sync_data()?;
                if Instant::now() >= until {
                    return Ok(written as f64 * MIB as f64 / GIB);
                }
            }
        })
        .map_err(|error| self.failed(error))
    }

    /// Writes batches of records of one length, each as one durable write.
    fn commit(&self, time: Duration, threads: usize, batch: usize, record_len: usize) -> Result<Cost> {
        let file = self.open_direct()?;
        let len = (batch * record_len).next_multiple_of(PAGE);
        let part = FILE_LEN / threads as u64;
        let in_part = part / len as u64;
        parallel(threads, time, |thread, until| {
            let mut memory = huge(len)?;
            memory.fill(thread as u8);
            for written in 1u64.. {
                let at = part * thread as u64 + written % in_part * len as u64;
                let count = rustix::io::pwritev2(&file, &[IoSlice::new(&memory[..len])], at, ReadWriteFlags::DSYNC)?;
                if count != len {
                    return Err(io::Error::other("short write"));
                }
                if Instant::now() >= until {
                    return Ok((written * batch as u64) as f64);
                }
            }
            unreachable!("the loop ends by time")
        })
        .map_err(|error| self.failed(error))
    }

    /// Reads pieces of one length at random offsets, sequentially on each thread.
    fn read(&self, file: File, threads: usize, time: Duration, len: usize) -> Result<Cost> {
        let pieces = FILE_LEN / len as u64;
        let by = if len < MIB { 1.0 } else { len as f64 / GIB };
        parallel(threads, time, |thread, until| {
            let mut memory = huge(len)?;
            let mut random = fastrand::Rng::with_seed(thread as u64);
            let mut count = 0u64;
            loop {
                for _ in 0..(MIB / len).min(64) {
                    file.read_exact_at(&mut memory[..len], random.u64(..pieces) * len as u64)?;
                    count += 1;
                }
                if Instant::now() >= until {
                    return Ok(count as f64 * by);
                }
            }
        })
        .map_err(|error| self.failed(error))
    }
}

/// Allocates page-aligned memory, in huge pages if available.
fn huge(len: usize) -> io::Result<MmapMut> {
    let memory = MmapMut::map_anon(len.next_multiple_of(HUGE))?;
    // Without huge pages the figures are slightly worse, but valid.
    let _ = memory.advise(Advice::HugePage);
    Ok(memory)
}

/// Returns the CPU time of this process so far.
fn cpu() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Runs work on all threads until the time is over; each returns the amount that it has done.
fn parallel(
    threads: usize,
    time: Duration,
    work: impl Fn(usize, Instant) -> io::Result<f64> + Sync,
) -> io::Result<Cost> {
    let begun = Instant::now();
    let cpu_before = cpu();
    let until = begun + time;
    let done = thread::scope(|scope| {
        let work = &work;
        let running: Vec<_> = (0..threads).map(|thread| scope.spawn(move || work(thread, until))).collect();
        let results = running
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| Err(io::Error::other("a thread has panicked"))));
        results.sum::<io::Result<f64>>()
    })?;
    let rate = done / begun.elapsed().as_secs_f64();
    Ok(Cost { cpu: (cpu() - cpu_before) / done, rate })
}

/// Repeats the work until the deadline and returns the amount done.
fn repeat(until: Instant, of_each: f64, mut work: impl FnMut()) -> f64 {
    let mut done = 0.0;
    loop {
        for _ in 0..16 {
            work();
            done += of_each;
        }
        if Instant::now() >= until {
            return done;
        }
    }
}

fn sealer() -> Sealer<super::accelerated::AcceleratedAead> {
    Sealer::new(&Accelerated, &KEY, &SALT, &[&body::context(0)])
}

fn seal(until: Instant) -> f64 {
    let mut sealer = sealer();
    let mut data = AlignedBytes::new(MIB);
    repeat(until, MIB as f64 / GIB, || {
        for chunk in data.chunks_mut(CHUNK_LEN) {
            std::hint::black_box(sealer.seal_next(chunk));
        }
    })
}

/// Turns a failed authentication of data sealed here into an error.
fn opened(is_so: bool) -> io::Result<()> {
    if is_so { Ok(()) } else { Err(io::Error::other("sealed data does not open")) }
}

fn open(until: Instant) -> io::Result<f64> {
    let mut data = AlignedBytes::new(MIB);
    // In counter mode, sealing twice restores the plaintext: opening alternates between two
    // ciphertexts, without copies.
    let mut tags: [Vec<[u8; TAG_LEN]>; 2] = Default::default();
    for tags in &mut tags {
        let mut sealer = sealer();
        tags.extend(data.chunks_mut(CHUNK_LEN).map(|chunk| sealer.seal_next(chunk)));
    }
    let opener = Opener::new(&Accelerated, &KEY, &sealer().prefix(), &[&body::context(0)]);
    let mut opener = opener.map_err(|_| io::Error::other("a prefix is not its own"))?;
    let mut all = true;
    let done = repeat(until, MIB as f64 / GIB, || {
        tags.swap(0, 1);
        for (index, (chunk, tag)) in (0..).zip(data.chunks_mut(CHUNK_LEN).zip(&tags[0])) {
            all &= opener.open_at(index, chunk, tag).is_ok();
        }
    });
    opened(all).map(|()| done)
}

fn seal_object(until: Instant, len: usize) -> io::Result<f64> {
    let mut data = AlignedBytes::new(len);
    let mut sealed = vec![0; SEALED_HEAD_MAX];
    let mut all = true;
    let done = repeat(until, 1.0, || all &= seal_once(&mut data, &mut sealed).is_some());
    opened(all).map(|()| done)
}

/// Chunks of the longest object that is sealed as a whole.
const CHUNKS_MAX: usize = CHUNKS / CHUNK_LEN;

/// An object whose body was sealed in place.
struct Sealed {
    head_len: usize,
    prefix: [u8; PREFIX_LEN],
    tags: [[u8; TAG_LEN]; CHUNKS_MAX],
}

/// Seals an object: its body in place, its object head into `head`.
fn seal_once(data: &mut [u8], head: &mut [u8]) -> Option<Sealed> {
    let customer_key = CustomerKey::new(KEY);
    let data_key = DataKey::new([9; KEY_LEN]);
    let plain =
        Head { data_key: Some(data_key.expose()), plaintext_length: Some(data.len() as u64), ..Head::default() };
    let head_len = seal_head(&Accelerated, &customer_key, &SALT, BUCKET, NAME, &plain, head).ok()?;
    let mut sealer = Sealer::new(&Accelerated, data_key.expose(), &SALT, &[&body::context(0)]);
    let mut tags = [[0; TAG_LEN]; CHUNKS_MAX];
    for (chunk, tag) in data.chunks_mut(CHUNK_LEN).zip(&mut tags) {
        *tag = sealer.seal_next(chunk);
    }
    Some(Sealed { head_len, prefix: sealer.prefix(), tags })
}

fn open_object(until: Instant, len: usize) -> io::Result<f64> {
    let mut data = AlignedBytes::new(len);
    let mut head = vec![0; SEALED_HEAD_MAX];
    let sealed = seal_once(&mut data, &mut head).ok_or_else(|| io::Error::other("a head is not sealed"))?;
    let ciphertext = data.to_vec();
    let sealed_head = head[..sealed.head_len].to_vec();
    let mut head = sealed_head.clone();
    let mut all = true;
    let done = repeat(until, 1.0, || {
        data.copy_from_slice(&ciphertext);
        head.copy_from_slice(&sealed_head);
        let key = CustomerKey::new(KEY);
        let data_key = open_head(&Accelerated, &key, BUCKET, NAME, &mut head).ok().and_then(|head| head.data_key);
        let context = body::context(0);
        let opener = data_key.and_then(|key| Opener::new(&Accelerated, key, &sealed.prefix, &[&context]).ok());
        let Some(mut opener) = opener else {
            all = false;
            return;
        };
        for (index, (chunk, tag)) in (0..).zip(data.chunks_mut(CHUNK_LEN).zip(&sealed.tags)) {
            all &= opener.open_at(index, chunk, tag).is_ok();
        }
    });
    opened(all).map(|()| done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floors_are_all_measured() {
        let directory = tempfile::tempdir_in(keyhole_tests::target_dir()).unwrap();
        let disk = Disk::new(directory.path()).unwrap();
        for floor in super::super::scenario::floors() {
            let cost = disk.measure(floor, 2, Duration::from_millis(5)).unwrap();
            assert!(cost.cpu > 0.0 && cost.rate > 0.0, "{}: {cost:?}", floor.name());
        }
    }

    #[test]
    fn waiting_clients_share_writes() {
        assert_eq!(Floor::commit(1), Floor::Commit { threads: 1, batch: 1 });
        assert_eq!(Floor::commit(16), Floor::Commit { threads: 2, batch: 8 });
        assert_eq!(Floor::commit(64), Floor::Commit { threads: 2, batch: 32 });
        assert_eq!(Floor::commit(1024), Floor::Commit { threads: 2, batch: 227 });
    }
}
