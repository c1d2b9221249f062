//! What encryption alone and the disk alone take, by bare programs: loops that do the same work to the same bytes, and nothing
//! else. (What the network alone takes is [`super::bare`]'s.)

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
use super::buffer::Buffer;
use super::scenario::SMALL;
use crate::{Error, Result};

const MIB: usize = 1 << 20;
const GIB: f64 = (1u64 << 30) as f64;

/// What the node writes for a MiB of an object: a block and its footer.
const BLOCK_LEN: usize = MIB + 4096;

/// What the node writes for an object of 4 KiB: the object, its sealed head, and what the log adds.
const RECORD_LEN: usize = SMALL + 512;

/// What is written and read with O_DIRECT begins and ends here.
const PAGE: usize = 4096;

/// The most that is written at once.
const BATCH_MAX: usize = MIB;

/// Threads that write blocks.
const WRITERS: usize = 4;

/// The file that is written and read. Each writer has its part of it.
const FILE_LEN: u64 = 512 << 20;

/// Bytes for which the system gives memory in one piece, if it is told to.
const HUGE: usize = 2 << 20;

const KEY: [u8; KEY_LEN] = [7; KEY_LEN];
const SALT: [u8; SALT_LEN] = [5; SALT_LEN];
const BUCKET: &str = "bucket";
const NAME: &str = "small/1234";

/// What one core or one disk is asked for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Floor {
    /// AES-256-GCM of chunks of 16 KiB in place, sealed, on all cores at once. By GiB.
    Seal,
    /// The same, opened.
    Open,
    /// The two on one core, while the others have nothing to do: two cores may be one with two threads.
    SealAlone,
    /// See [`SealAlone`](Floor::SealAlone).
    OpenAlone,
    /// An object of 4 KiB: the keys of head and body derived, both sealed. By object.
    SealObject,
    /// The same, opened.
    OpenObject,
    /// Blocks of 1 MiB with O_DIRECT, four at a time, each made durable. By GiB.
    WriteMib,
    /// The same, made durable once for 64 blocks.
    WriteLarge,
    /// Records of 4 KiB objects, so many in one durable write, by so many threads. By record.
    Commit {
        /// Threads that write.
        threads: usize,
        /// Records of each write.
        batch: usize,
    },
    /// 4 KiB at random places out of the page cache, on all cores at once. By read.
    ReadSmall,
    /// 1 MiB the same way. By GiB.
    ReadMib,
    /// 1 MiB from the disk, with O_DIRECT, one at a time. By GiB.
    ReadDirect,
}

impl Floor {
    /// Durable writes as so many waiting clients make them: half of them are served by each of two threads.
    pub(super) fn commit(clients: usize) -> Self {
        let threads = clients.min(2);
        Floor::Commit { threads, batch: (clients / threads).min(BATCH_MAX / RECORD_LEN) }
    }

    /// Whether what is counted are GiB; otherwise it is objects.
    pub(super) fn is_by_gib(self) -> bool {
        !matches!(self, Floor::SealObject | Floor::OpenObject | Floor::Commit { .. } | Floor::ReadSmall)
    }

    /// What it is, for people.
    pub(super) fn name(self) -> String {
        match self {
            Floor::Seal => "encryption: chunks of 16 KiB sealed in place".to_owned(),
            Floor::Open => "encryption: chunks of 16 KiB opened in place".to_owned(),
            Floor::SealAlone => "encryption: the same sealed, on one core alone".to_owned(),
            Floor::OpenAlone => "encryption: the same opened, on one core alone".to_owned(),
            Floor::SealObject => "encryption: a 4 KiB object sealed, its keys derived".to_owned(),
            Floor::OpenObject => "encryption: a 4 KiB object opened, its keys derived".to_owned(),
            Floor::WriteMib => "disk: blocks of 1 MiB written directly, 4 at a time, each made durable".to_owned(),
            Floor::WriteLarge => "disk: the same, made durable once for 64 of them".to_owned(),
            Floor::Commit { threads, batch } => {
                let plural = if threads == 1 { "" } else { "s" };
                format!("disk: 4 KiB records, {batch} in each durable write, {threads} thread{plural}")
            }
            Floor::ReadSmall => "disk: 4 KiB read out of the page cache".to_owned(),
            Floor::ReadMib => "disk: 1 MiB read out of the page cache".to_owned(),
            Floor::ReadDirect => "disk: 1 MiB read directly".to_owned(),
        }
    }
}

/// What it takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cost {
    /// Seconds of CPU time for one of what is counted.
    pub(super) cpu: f64,
    /// So many a second, by all threads together.
    pub(super) rate: f64,
    /// Seconds from one to the next of one thread.
    pub(super) latency: f64,
}

/// Where the floors of the disk are measured: a file that has been written before.
pub(super) struct Disk {
    path: PathBuf,
}

impl Disk {
    /// Makes the file in a directory.
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
        file.map_err(|error| {
            Error::of(format_args!("{}: it cannot be opened with O_DIRECT", self.path.display()), error)
        })
    }

    /// With all of it in the page cache.
    fn open_cached(&self) -> Result<File> {
        let file = self.open()?;
        let mut bytes = vec![0; MIB];
        (0..FILE_LEN / MIB as u64)
            .try_for_each(|block| file.read_exact_at(&mut bytes, block * MIB as u64))
            .map_err(|error| self.failed(error))?;
        Ok(file)
    }

    /// Measures a floor for a time, on a machine with so many cores.
    pub(super) fn measure(&self, floor: Floor, cores: usize, time: Duration) -> Result<Cost> {
        let encryption = |cost: io::Result<Cost>| cost.map_err(|error| Error::of(floor.name(), error));
        match floor {
            Floor::Seal => encryption(parallel(cores, time, |_, until| Ok(seal(until)))),
            Floor::Open => encryption(parallel(cores, time, |_, until| open(until))),
            Floor::SealAlone => encryption(parallel(1, time, |_, until| Ok(seal(until)))),
            Floor::OpenAlone => encryption(parallel(1, time, |_, until| open(until))),
            Floor::SealObject => encryption(parallel(cores, time, |_, until| seal_object(until))),
            Floor::OpenObject => encryption(parallel(cores, time, |_, until| open_object(until))),
            Floor::WriteMib => self.write(time, 1),
            Floor::WriteLarge => self.write(time, 64),
            Floor::Commit { threads, batch } => self.commit(time, threads, batch),
            Floor::ReadSmall => self.read(self.open_cached()?, cores, time, SMALL),
            Floor::ReadMib => self.read(self.open_cached()?, cores, time, MIB),
            Floor::ReadDirect => {
                // What is in the page cache would be read from there even so.
                let file = self.open()?;
                file.sync_all().map_err(|error| self.failed(error))?;
                rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).map_err(io::Error::from)?;
                self.read(self.open_direct()?, 1, time, MIB)
            }
        }
    }

    /// Blocks by several writers, each in its part of the file; each makes its own durable after so many of them.
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

    /// Batches of records, each one durable write.
    fn commit(&self, time: Duration, threads: usize, batch: usize) -> Result<Cost> {
        let file = self.open_direct()?;
        let len = (batch * RECORD_LEN).next_multiple_of(PAGE);
        let part = FILE_LEN / threads as u64;
        let in_part = part / len as u64;
        parallel(threads, time, |thread, until| {
            let mut memory = huge(len)?;
            memory.fill(thread as u8);
            for written in 1u64.. {
                let at = part * thread as u64 + written % in_part * len as u64;
                let count = rustix::io::pwritev2(&file, &[IoSlice::new(&memory[..len])], at, ReadWriteFlags::DSYNC)?;
                if count != len {
                    return Err(io::Error::other("a write was cut short"));
                }
                if Instant::now() >= until {
                    return Ok((written * batch as u64) as f64);
                }
            }
            unreachable!("there is always another one")
        })
        .map_err(|error| self.failed(error))
    }

    /// Pieces of one length at random places, one after the other by each thread.
    fn read(&self, file: File, threads: usize, time: Duration, len: usize) -> Result<Cost> {
        let pieces = FILE_LEN / len as u64;
        let by = if len == SMALL { 1.0 } else { len as f64 / GIB };
        parallel(threads, time, |thread, until| {
            let mut memory = huge(len)?;
            let (mut random, mut count) = (fastrand::Rng::with_seed(thread as u64), 0u64);
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

/// Memory that begins at a page, in pages as large as the system has.
fn huge(len: usize) -> io::Result<MmapMut> {
    let memory = MmapMut::map_anon(len.next_multiple_of(HUGE))?;
    // Where it has none the figures are a little worse, and right.
    let _ = memory.advise(Advice::HugePage);
    Ok(memory)
}

/// CPU time of this process so far.
fn cpu() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// What threads do until their time is over, which is how much each of them says.
fn parallel(
    threads: usize,
    time: Duration,
    work: impl Fn(usize, Instant) -> io::Result<f64> + Sync,
) -> io::Result<Cost> {
    let (begun, cpu_before) = (Instant::now(), cpu());
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
    Ok(Cost { cpu: (cpu() - cpu_before) / done, rate, latency: threads as f64 / rate })
}

/// Does something again and again until it is time; how much was done.
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
    let (mut sealer, mut data) = (sealer(), Buffer::new(MIB));
    repeat(until, MIB as f64 / GIB, || {
        for chunk in data.chunks_mut(CHUNK_LEN) {
            std::hint::black_box(sealer.seal_next(chunk));
        }
    })
}

/// What has to be so, as it was made here.
fn opened(is_so: bool) -> io::Result<()> {
    if is_so { Ok(()) } else { Err(io::Error::other("what was sealed here does not open")) }
}

fn open(until: Instant) -> io::Result<f64> {
    let mut data = Buffer::new(MIB);
    // In counter mode sealing twice gives the plaintext back: what is opened takes turns between two ciphertexts, and nothing
    // is copied.
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

fn seal_object(until: Instant) -> io::Result<f64> {
    let (mut data, mut sealed) = (Buffer::new(SMALL), vec![0; SEALED_HEAD_MAX]);
    let mut all = true;
    let done = repeat(until, 1.0, || all &= seal_once(&mut data, &mut sealed).is_some());
    opened(all).map(|()| done)
}

/// An object whose body was sealed in place.
struct Sealed {
    head_len: usize,
    prefix: [u8; PREFIX_LEN],
    tag: [u8; TAG_LEN],
}

/// Seals an object: its body in place, its head into `head`.
fn seal_once(data: &mut [u8], head: &mut [u8]) -> Option<Sealed> {
    let (customer_key, data_key) = (CustomerKey::new(KEY), DataKey::new([9; KEY_LEN]));
    let plain =
        Head { data_key: Some(data_key.expose()), plaintext_length: Some(data.len() as u64), ..Head::default() };
    let head_len = seal_head(&Accelerated, &customer_key, &SALT, BUCKET, NAME, &plain, head).ok()?;
    let mut sealer = Sealer::new(&Accelerated, data_key.expose(), &SALT, &[&body::context(0)]);
    let tag = sealer.seal_next(data);
    Some(Sealed { head_len, prefix: sealer.prefix(), tag })
}

fn open_object(until: Instant) -> io::Result<f64> {
    let (mut data, mut head) = (Buffer::new(SMALL), vec![0; SEALED_HEAD_MAX]);
    let sealed = seal_once(&mut data, &mut head).ok_or_else(|| io::Error::other("a head is not sealed"))?;
    let (ciphertext, sealed_head) = (data.to_vec(), head[..sealed.head_len].to_vec());
    let mut head = sealed_head.clone();
    let mut all = true;
    let done = repeat(until, 1.0, || {
        data.copy_from_slice(&ciphertext);
        head.copy_from_slice(&sealed_head);
        let key = CustomerKey::new(KEY);
        let data_key = open_head(&Accelerated, &key, BUCKET, NAME, &mut head).ok().and_then(|head| head.data_key);
        let context = body::context(0);
        let opener = data_key.and_then(|key| Opener::new(&Accelerated, key, &sealed.prefix, &[&context]).ok());
        all &= opener.is_some_and(|mut opener| opener.open_at(0, &mut data, &sealed.tag).is_ok());
    });
    opened(all).map(|()| done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_floor_is_measured() {
        let directory = tempfile::tempdir_in(keyhole_tests::target_dir()).unwrap();
        let disk = Disk::new(directory.path()).unwrap();
        let commits = [1, 4, 16, 64, 256].map(Floor::commit);
        let others = [
            Floor::Seal,
            Floor::Open,
            Floor::SealAlone,
            Floor::OpenAlone,
            Floor::SealObject,
            Floor::OpenObject,
            Floor::WriteMib,
            Floor::WriteLarge,
            Floor::ReadSmall,
            Floor::ReadMib,
            Floor::ReadDirect,
        ];
        for floor in commits.into_iter().chain(others) {
            let cost = disk.measure(floor, 2, Duration::from_millis(5)).unwrap();
            assert!(cost.cpu > 0.0 && cost.rate > 0.0 && cost.latency.is_finite(), "{}: {cost:?}", floor.name());
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
