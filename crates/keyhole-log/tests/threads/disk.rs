//! An in-memory disk shared by several threads. It parses the records written to it and checks them
//! against the rules of FORMAT.md on watermarks.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::sync::Arc;

use keyhole_log::Disk;
use keyhole_log::limits::BUFFER_LEN;
use shuttle::rand::{Rng, thread_rng};
use shuttle::sync::Mutex;

use super::common::{Buf, Turn, check_alignment};
use super::hold;

/// Maximum turns per operation.
const TURNS_MAX: u32 = 3;

const MOVED: u8 = 4;
const OBJECT: u8 = 4;
const TOMBSTONE: u8 = 5;

/// The state shared by all disks of a store.
pub(crate) struct Medium(Mutex<State>);

struct State {
    bytes: Vec<u8>,
    len: usize,
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

impl Medium {
    pub(crate) fn new(capacity: usize) -> Arc<Self> {
        Arc::new(Medium(Mutex::new(State {
            bytes: vec![0; capacity],
            len: 0,
            written: Vec::new(),
            volatile: BTreeSet::new(),
            durable: BTreeSet::new(),
            watermark: 0,
            names: BTreeMap::new(),
        })))
    }

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
}

/// The disk of one thread.
pub(crate) struct ThreadDisk(pub(crate) Arc<Medium>);

async fn turns() {
    for _ in 0..thread_rng().gen_range(0..=TURNS_MAX) {
        Turn::once().await;
    }
}

impl Disk for ThreadDisk {
    type Buf = Buf;

    fn buffer(&self) -> Buf {
        Buf::new(BUFFER_LEN)
    }

    async fn read(&self, offset: u64, mut buf: Buf, at: Range<usize>) -> (io::Result<()>, Buf) {
        turns().await;
        let state = self.0.0.lock().unwrap();
        let from = offset as usize;
        if from + at.len() > state.len {
            return (Err(io::ErrorKind::UnexpectedEof.into()), buf);
        }
        buf.as_mut()[at.clone()].copy_from_slice(&state.bytes[from..from + at.len()]);
        (Ok(()), buf)
    }

    async fn write(&self, offset: u64, buf: Buf, at: Range<usize>) -> (io::Result<()>, Buf) {
        check_alignment(offset, &at);
        let seqs = self.0.0.lock().unwrap().observe(&buf.as_ref()[at.clone()]);
        turns().await;
        let mut state = self.0.0.lock().unwrap();
        let from = offset as usize;
        assert!(from + at.len() <= state.len, "a write into space that was not allocated");
        state.bytes[from..from + at.len()].copy_from_slice(&buf.as_ref()[at]);
        state.written.extend(seqs);
        drop(state);
        (Ok(()), buf)
    }

    async fn write_durable(&self, offset: u64, buf: Buf, at: Range<usize>) -> (io::Result<()>, Buf) {
        let seqs = self.0.0.lock().unwrap().observe(&buf.as_ref()[at.clone()]);
        let written = self.write(offset, buf, at).await;
        let state = &mut *self.0.0.lock().unwrap();
        for seq in seqs {
            state.volatile.remove(&seq);
            state.durable.insert(seq);
        }
        written
    }

    async fn sync(&self) -> io::Result<()> {
        // Snapshots the completed writes: those that complete during the sync
        // may or may not be durable.
        let covered = self.0.0.lock().unwrap().written.len();
        turns().await;
        let state = &mut *self.0.0.lock().unwrap();
        for seq in &state.written[..covered] {
            state.volatile.remove(seq);
            state.durable.insert(*seq);
        }
        Ok(())
    }

    async fn len(&self) -> io::Result<u64> {
        Ok(self.0.0.lock().unwrap().len as u64)
    }

    async fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        turns().await;
        self.0.0.lock().unwrap().bytes[offset as usize..][..len as usize].fill(0x5c);
        Ok(())
    }

    async fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        turns().await;
        let mut state = self.0.0.lock().unwrap();
        state.len = state.len.max((offset + len) as usize);
        Ok(())
    }
}
