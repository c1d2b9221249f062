//! A disk shared by several threads: it parses the records written to the simulated disk and checks
//! them against the rules of FORMAT.md on watermarks.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::sync::Arc;

use keyhole_log::Disk;
use keyhole_sim::disk::{Buffer, Medium, SimDisk};
use shuttle::sync::{Mutex, MutexGuard};

use super::hold;

const MOVED: u8 = 4;
const OBJECT: u8 = 4;
const TOMBSTONE: u8 = 5;

/// The records that all disks of a store have written.
#[derive(Default)]
pub(crate) struct Records(Mutex<State>);

#[derive(Default)]
struct State {
    /// Numbers of records whose writes have completed, in order of completion.
    written: Vec<u64>,
    /// Numbers of records written or being written, but not durable.
    volatile: BTreeSet<u64>,
    /// Numbers of durable records.
    durable: BTreeSet<u64>,
    /// The highest watermark in a record so far.
    watermark: u64,
    /// The highest record number of each key, and whether that record stores an object.
    names: BTreeMap<String, (u64, bool)>,
}

impl Records {
    /// Returns whether the record of this number is durable.
    pub(crate) fn is_durable(&self, seq: u64) -> bool {
        self.0.lock().unwrap().durable.contains(&seq)
    }

    /// Returns the expected objects: for each name, the record with the highest number decides.
    pub(crate) fn objects(&self) -> BTreeMap<String, u64> {
        let names = self.0.lock().unwrap().names.clone();
        names.into_iter().filter(|(_, (_, there))| *there).map(|(name, (seq, _))| (name, seq)).collect()
    }
}

fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn half(bytes: &[u8], at: usize) -> usize {
    u16::from_le_bytes(bytes[at..at + 2].try_into().unwrap()).into()
}

impl State {
    /// Checks a batch about to be written, if it is one. Returns the numbers of its records.
    fn observe(&mut self, batch: &[u8]) -> Vec<u64> {
        let mut at = 0;
        let mut seqs = Vec::new();
        while batch[at..].starts_with(b"khR1") {
            let record = &batch[at..];
            let len = u32::from_le_bytes(record[8..12].try_into().unwrap()) as usize;
            let kind = record[12];
            let flags = record[13];
            let seq = word(record, 48);
            let watermark = word(record, 56);
            if let Some(&oldest) = self.volatile.first() {
                hold(watermark < oldest, || {
                    format!("the watermark {watermark} has passed {oldest}, which is not durable")
                });
            }
            self.watermark = self.watermark.max(watermark);
            if flags & MOVED == 0 {
                let known = self.watermark;
                hold(seq > known, || format!("record {seq} is written, and a watermark of {known} was said before"));
                seqs.push(seq);
                let payload = &record[80..len];
                let key = match kind {
                    OBJECT => Some((&payload[60..60 + half(payload, 52)], true)),
                    TOMBSTONE => Some((&payload[18..18 + half(payload, 16)], false)),
                    _ => None,
                };
                if let Some((key, there)) = key {
                    let name = self.names.entry(String::from_utf8(key.to_vec()).unwrap()).or_default();
                    *name = (*name).max((seq, there));
                }
            }
            at = (at + len).next_multiple_of(8);
            if at >= batch.len() {
                break;
            }
        }
        self.volatile.extend(&seqs);
        seqs
    }

    /// Notes that these records are durable.
    fn harden(&mut self, seqs: &[u64]) {
        for seq in seqs {
            self.volatile.remove(seq);
            self.durable.insert(*seq);
        }
    }
}

/// The disk of one thread, which reports the records that it writes.
pub(crate) struct ThreadDisk {
    disk: SimDisk,
    records: Arc<Records>,
}

impl ThreadDisk {
    pub(crate) fn new(medium: &Arc<Medium>, records: &Arc<Records>) -> Self {
        ThreadDisk { disk: SimDisk::in_turns(medium), records: Arc::clone(records) }
    }

    fn records(&self) -> MutexGuard<'_, State> {
        self.records.0.lock().unwrap()
    }
}

impl Disk for ThreadDisk {
    type Buf = Buffer;

    fn buffer(&self) -> Buffer {
        self.disk.buffer()
    }

    fn buffer_with_len(&self, len: usize) -> Buffer {
        self.disk.buffer_with_len(len)
    }

    async fn read(&self, offset: u64, buf: Buffer, at: Range<usize>) -> (io::Result<()>, Buffer) {
        self.disk.read(offset, buf, at).await
    }

    async fn write(&self, offset: u64, buf: Buffer, at: Range<usize>) -> (io::Result<()>, Buffer) {
        let seqs = self.records().observe(&buf.as_ref()[at.clone()]);
        let written = self.disk.write(offset, buf, at).await;
        self.records().written.extend(seqs);
        written
    }

    async fn write_durable(&self, offset: u64, buf: Buffer, at: Range<usize>) -> (io::Result<()>, Buffer) {
        let seqs = self.records().observe(&buf.as_ref()[at.clone()]);
        let written = self.disk.write_durable(offset, buf, at).await;
        self.records().harden(&seqs);
        written
    }

    async fn sync(&self) -> io::Result<()> {
        // Snapshots the completed writes: those that complete during the sync
        // may or may not be durable.
        let covered = self.records().written.clone();
        let synced = self.disk.sync().await;
        self.records().harden(&covered);
        synced
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
