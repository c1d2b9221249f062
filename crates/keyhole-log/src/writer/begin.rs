//! Beginning of segments: selection, allocation, and filling ahead.

use super::context::{Context, WRITE_ATTEMPTS};
use crate::disk::{Disk, is_full};
use crate::error::Error;
use crate::limits::{FILL_BATCH_MAX, FILL_STEP, PAGE};
use crate::open::OpenMeta;
use crate::segments::{Ask, Purpose, Step};
use crate::state::State;
use crate::wire::segment;

/// A segment that has just been begun.
pub(crate) struct BegunSegment {
    pub(crate) number: u32,
    pub(crate) generation: u64,
    pub(crate) start: u64,
    /// Offset of its first batch or block.
    pub(crate) at: u64,
    pub(crate) end: u64,
    /// Checksum of its header.
    pub(crate) crc: u32,
}

impl<D: Disk> Context<D> {
    /// Retries `attempt` until it succeeds. Waits for withdrawn segments, and, unless this is the
    /// maintenance's writer, for the cleaner to free segments. `None`: there is nothing to wait
    /// for, or the attempt `grows` the store and the store is full.
    async fn when_there_is_space<T>(&self, grows: bool, mut attempt: impl FnMut(&mut State) -> Option<T>) -> Option<T> {
        loop {
            let waiting = {
                let mut state = self.store.lock();
                if grows && state.is_full() {
                    return None;
                }
                if let Some(found) = attempt(&mut state) {
                    return Some(found);
                }
                if self.store.poisoned() {
                    return None;
                }
                // A withdrawn segment waits for the disk alone, so the maintenance can wait too.
                match state.wait_for_withdrawn() {
                    Some(waiting) => waiting,
                    None if self.maintains => return None,
                    None => state.wait_for_space()?,
                }
            };
            // A dropped sender means that the cleaner has ended; the next
            // round does not wait for it.
            let _ = waiting.await;
        }
    }

    /// Takes a segment, waiting until there is one.
    async fn take(&self, purpose: Purpose) -> Option<u32> {
        let take = |state: &mut State| {
            let generation = state.numbers.generation();
            let number = state.segments.take(purpose, generation)?;
            state.wake_maintenance_if_short();
            Some(number)
        };
        self.when_there_is_space(purpose.grows(), take).await
    }

    /// Begins a segment. `None`: the store or the file system is full.
    pub(crate) async fn begin(&self, kind: segment::Kind, purpose: Purpose) -> Result<Option<BegunSegment>, Error> {
        let mut attempts = 0;
        loop {
            let Some(number) = self.take(purpose).await else {
                // After a failure the fill level is unknown.
                self.store.check_poison()?;
                if self.ask_again().await? {
                    continue;
                }
                return Ok(None);
            };
            let is_allocated = self.store.lock().segments.table[number as usize].allocated;
            // If the file system is full, another segment may already be allocated.
            if !is_allocated && !self.allocate(number).await? {
                continue;
            }
            let begun = match (self.write_header(kind, number).await, kind) {
                (Ok(begun), segment::Kind::Meta) => self.fill_beginning(number).await.map(|()| begun),
                (begun, _) => begun,
            };
            match begun {
                Err(Error::Full) => {
                    self.store.lock().segments.abandon(number, false);
                    // Where allocation guarantees nothing, the other segments may fail as well.
                    attempts += 1;
                    if attempts == WRITE_ATTEMPTS {
                        return Ok(None);
                    }
                }
                result => return result.map(Some),
            }
        }
    }

    async fn write_header(&self, kind: segment::Kind, number: u32) -> Result<BegunSegment, Error> {
        let (generation, start, len) = {
            let mut state = self.store.lock();
            let start = state.segments.start(number);
            let len = state.segments.len;
            let segment = &mut state.segments.table[number as usize];
            segment.allocated = true;
            (segment.generation, start, len)
        };
        let mut buf = self.disk.buffer_with_len(PAGE);
        let header = segment::Header { kind, generation, number };
        let crc = header.emit(&self.store.id, D::slice(&mut buf, 0..PAGE));
        self.write(start, buf, PAGE).await?;
        let mut state = self.store.lock();
        state.counters.written.other += PAGE as u64;
        // A META segment may still be given back: it is in use once its writer enters it.
        if kind == segment::Kind::Body {
            state.segments.table[number as usize].written = PAGE as u32;
        }
        Ok(BegunSegment { number, generation, start, at: start + PAGE as u64, end: start + len, crc })
    }

    /// Prepares a blank segment for records: allocates it, or fills part of it. Otherwise the first
    /// writes of its batches would be slow.
    pub(crate) async fn prepare(&self, step: Step) -> Result<(), Error> {
        let (number, from) = match step {
            Step::Allocate(number) => {
                if self.allocate(number).await? {
                    self.provided(number);
                }
                return Ok(());
            }
            Step::Fill { number, from } => (number, from),
        };
        let until = match self.fill(number, from).await {
            Ok(until) => until,
            Err(error) => {
                let mut state = self.store.lock();
                state.segments.not_filled(number);
                state.wake_space();
                drop(state);
                return if matches!(error, Error::Full) { Ok(()) } else { Err(error) };
            }
        };
        let is_ready = {
            let mut state = self.store.lock();
            state.segments.filled(number, until);
            state.wake_space();
            u64::from(until) == state.segments.len
        };
        if is_ready {
            // Includes the file system metadata, so that no batch has to wait for it.
            self.sync().await?;
        }
        Ok(())
    }

    /// Writes zeros into a segment from an offset in it, and returns where they end.
    async fn fill(&self, number: u32, from: u32) -> Result<u32, Error> {
        let (start, len) = {
            let state = self.store.lock();
            (state.segments.start(number), state.segments.len)
        };
        let step = (len - u64::from(from)).min(FILL_STEP as u64) as usize;
        let mut buf = self.disk.buffer();
        D::slice(&mut buf, 0..step).fill(0);
        D::mark_ciphertext(&mut buf);
        self.write(start + u64::from(from), buf, step).await?;
        self.store.lock().counters.written.other += step as u64;
        Ok(from + step as u32)
    }

    /// Fills the start of a segment, so that its first batches overwrite written space.
    async fn fill_beginning(&self, number: u32) -> Result<(), Error> {
        let is_due = {
            let state = self.store.lock();
            state.segments.fills() && state.segments.table[number as usize].filled <= PAGE as u32
        };
        if is_due {
            let filled = self.fill(number, PAGE as u32).await?;
            self.store.lock().segments.table[number as usize].filled = filled;
        }
        Ok(())
    }

    /// Fills ahead of a short batch, so that it and the record that ends the segment overwrite
    /// written space.
    pub(crate) async fn fill_ahead(&self, meta: &OpenMeta, batch: usize) -> Result<(), Error> {
        let at = (meta.at - meta.start) as u32;
        let until = at + (batch + PAGE) as u32;
        loop {
            let filled = {
                let mut state = self.store.lock();
                let fills = state.segments.fills() && batch <= FILL_BATCH_MAX;
                let segment = &mut state.segments.table[meta.number as usize];
                segment.filled = segment.filled.max(at);
                if !fills || segment.filled >= until {
                    return Ok(());
                }
                segment.filled
            };
            let filled = self.fill(meta.number, filled).await?;
            self.store.lock().segments.table[meta.number as usize].filled = filled;
        }
    }

    /// Returns whether there is a spare META segment, or the cleaner or the
    /// file system can provide one.
    pub(crate) async fn gets_spare(&self) -> Result<bool, Error> {
        if self.when_there_is_space(true, |state| state.has_spare().then_some(())).await.is_some() {
            return Ok(true);
        }
        // After a failure the fill level is unknown.
        self.store.check_poison()?;
        Ok(self.ask_again().await? && self.store.lock().has_spare())
    }

    /// Probes a file system that was full, if a probe is due. Returns whether it has space again.
    async fn ask_again(&self) -> Result<bool, Error> {
        let asked = self.store.lock().segments.ask_again();
        let number = match asked {
            Ask::NotYet => return Ok(false),
            Ask::AllThere => return Ok(true),
            Ask::About(number) => number,
        };
        if !self.allocate(number).await? {
            return Ok(false);
        }
        self.provided(number);
        // The reserve is restored first.
        self.allocate_reserve().await?;
        Ok(true)
    }

    /// Allocates the space of a taken or withdrawn segment. `false`: the file system is full, and
    /// the segment is blank again.
    async fn allocate(&self, number: u32) -> Result<bool, Error> {
        let (start, len) = {
            let state = self.store.lock();
            (state.segments.start(number), state.segments.len)
        };
        let result = self.disk.allocate(start, len).await;
        let Err(error) = result else { return Ok(true) };
        {
            let mut state = self.store.lock();
            state.segments.denied(number);
            state.wake_space();
        }
        if is_full(&error) {
            Ok(false)
        } else {
            self.poison_on(Err(error), "an allocation", Some(start)).map(|()| false)
        }
    }

    /// Allocates the reserved segments, so that deletions and cleaning work while the file system
    /// is full. Does nothing if it is full already.
    pub(crate) async fn allocate_reserve(&self) -> Result<(), Error> {
        loop {
            let Some(number) = self.store.lock().segments.next_reserve() else { return Ok(()) };
            if !self.allocate(number).await? {
                return Ok(());
            }
            self.provided(number);
        }
    }

    fn provided(&self, number: u32) {
        let mut state = self.store.lock();
        state.segments.provided(number);
        state.wake_space();
    }
}
