//! Beginning segments: a segment, its space, and what is written into it in advance.

use futures_channel::oneshot;

use crate::commit::{Context, WRITE_ATTEMPTS};
use crate::disk::{Disk, is_full};
use crate::error::Error;
use crate::limits::{FILL_BATCH_MAX, FILL_STEP, PAGE};
use crate::segments::{Ask, Purpose, Step};
use crate::shared::{OpenMeta, State};
use crate::wire::segment;

/// A segment that has just been begun.
pub(crate) struct Begun {
    pub(crate) number: u32,
    pub(crate) generation: u64,
    pub(crate) start: u64,
    /// Where its first batch or block goes.
    pub(crate) at: u64,
    pub(crate) end: u64,
    /// Checksum of its header.
    pub(crate) crc: u32,
}

impl<D: Disk> Context<D> {
    /// What `attempt` gets, as soon as it gets anything: where there is no segment the cleaner may be able to make one. `None`: it is
    /// not, or what `grows` the store is not to be had.
    async fn when_there_is_space<T>(&self, grows: bool, mut attempt: impl FnMut(&mut State) -> Option<T>) -> Option<T> {
        loop {
            let waiting = {
                let mut state = self.shared.lock();
                if grows && state.is_full() {
                    return None;
                }
                if let Some(found) = attempt(&mut state) {
                    return Some(found);
                }
                if self.maintains || self.shared.poisoned() {
                    return None;
                }
                state.wait_for_withdrawn().or_else(|| state.wait_for_space())?
            };
            // Where nobody answers the cleaner has ended: then there is nothing to wait for next time.
            let _ = waiting.await;
        }
    }

    /// A segment, as soon as there is one.
    async fn take(&self, purpose: Purpose) -> Option<u32> {
        let take = |state: &mut State| {
            let generation = state.numbers.generation();
            let number = state.segments.take(purpose, generation)?;
            state.wake_maintenance_if_short();
            Some(number)
        };
        self.when_there_is_space(purpose.grows(), take).await
    }

    /// Begins a segment; `None`: the store is full, or the file system is.
    pub(crate) async fn begin(&self, kind: segment::Kind, purpose: Purpose) -> Result<Option<Begun>, Error> {
        let mut attempts = 0;
        loop {
            let Some(number) = self.take(purpose).await else {
                // Then nobody knows how full it is.
                self.shared.check_poison()?;
                if self.ask_again().await? {
                    continue;
                }
                return Ok(None);
            };
            let is_allocated = self.shared.lock().segments.table[number as usize].allocated;
            // Where the file system is full, another one may have its space.
            if !is_allocated && !self.allocate(number).await? {
                continue;
            }
            let begun = match (self.write_header(kind, number).await, kind) {
                (Ok(begun), segment::Kind::Meta) => self.fill_beginning(number).await.map(|()| begun),
                (begun, _) => begun,
            };
            match begun {
                Err(Error::Full) => {
                    self.shared.lock().segments.abandon(number, false);
                    // Where an allocation guarantees nothing all others may fail as well.
                    attempts += 1;
                    if attempts == WRITE_ATTEMPTS {
                        return Ok(None);
                    }
                }
                result => return result.map(Some),
            }
        }
    }

    async fn write_header(&self, kind: segment::Kind, number: u32) -> Result<Begun, Error> {
        let (generation, start, len) = {
            let mut state = self.shared.lock();
            let (start, len) = (state.segments.start(number), state.segments.len);
            let segment = &mut state.segments.table[number as usize];
            segment.allocated = true;
            (segment.generation, start, len)
        };
        let mut buf = self.disk.buffer();
        let header = segment::Header { kind, generation, number };
        let crc = header.emit(&self.shared.store, D::part(&mut buf, 0..PAGE));
        self.write(start, buf, PAGE).await?;
        let mut state = self.shared.lock();
        state.counters.written.other += PAGE as u64;
        // One for records may still be given back: it is in use when its writer goes there.
        if kind == segment::Kind::Body {
            state.segments.table[number as usize].written = PAGE as u32;
        }
        Ok(Begun { number, generation, start, at: start + PAGE as u64, end: start + len, crc })
    }

    /// Makes a segment ready for records that is blank: takes its space, or writes a part of it. Its first write would otherwise be
    /// slow for the batches that go there.
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
                let mut state = self.shared.lock();
                state.segments.not_filled(number);
                state.wake_space();
                drop(state);
                return if matches!(error, Error::Full) { Ok(()) } else { Err(error) };
            }
        };
        let is_ready = {
            let mut state = self.shared.lock();
            state.segments.filled(number, until);
            state.wake_space();
            u64::from(until) == state.segments.len
        };
        if is_ready {
            // With the metadata of the file system, so that no batch has to wait for it.
            self.sync().await?;
        }
        Ok(())
    }

    /// Writes zeros into a segment, from an offset in it on; where they end.
    async fn fill(&self, number: u32, from: u32) -> Result<u32, Error> {
        let (start, len) = {
            let state = self.shared.lock();
            (state.segments.start(number), state.segments.len)
        };
        let step = (len - u64::from(from)).min(FILL_STEP as u64) as usize;
        let mut buf = self.disk.buffer();
        D::part(&mut buf, 0..step).fill(0);
        D::enciphered(&mut buf);
        self.write(start + u64::from(from), buf, step).await?;
        self.shared.lock().counters.written.other += step as u64;
        Ok(from + step as u32)
    }

    /// Sees to it that the first batches of a segment go where all has been written before.
    async fn fill_beginning(&self, number: u32) -> Result<(), Error> {
        let is_due = {
            let state = self.shared.lock();
            state.segments.fills() && state.segments.table[number as usize].filled <= PAGE as u32
        };
        if is_due {
            let filled = self.fill(number, PAGE as u32).await?;
            self.shared.lock().segments.table[number as usize].filled = filled;
        }
        Ok(())
    }

    /// Sees to it that a short batch goes where all has been written before, and that the record that ends the segment can.
    pub(crate) async fn fill_ahead(&self, meta: &OpenMeta, batch: usize) -> Result<(), Error> {
        let at = (meta.at - meta.start) as u32;
        let until = at + (batch + PAGE) as u32;
        loop {
            let filled = {
                let mut state = self.shared.lock();
                let fills = state.segments.fills() && batch <= FILL_BATCH_MAX;
                let segment = &mut state.segments.table[meta.number as usize];
                segment.filled = segment.filled.max(at);
                if !fills || segment.filled >= until {
                    return Ok(());
                }
                segment.filled
            };
            let filled = self.fill(meta.number, filled).await?;
            self.shared.lock().segments.table[meta.number as usize].filled = filled;
        }
    }

    /// Whether there is a segment for records of any kind, or the cleaner or the file system is able to make one.
    pub(crate) async fn gets_spare(&self) -> Result<bool, Error> {
        if self.when_there_is_space(true, |state| state.has_spare().then_some(())).await.is_some() {
            return Ok(true);
        }
        // Then nobody knows how full it is.
        self.shared.check_poison()?;
        Ok(self.ask_again().await? && self.shared.lock().has_spare())
    }

    /// Asks the file system for space if it had none, and may be asked again; whether it gave some.
    async fn ask_again(&self) -> Result<bool, Error> {
        let asked = self.shared.lock().segments.ask_again();
        let number = match asked {
            Ask::NotYet => return Ok(false),
            Ask::AllThere => return Ok(true),
            Ask::About(number) => number,
        };
        if !self.allocate(number).await? {
            return Ok(false);
        }
        self.provided(number);
        // What is reserved is to be made good first.
        self.allocate_reserve().await?;
        Ok(true)
    }

    /// Takes the space of a segment that was taken or withdrawn; `false`: the file system has none, and the segment is blank again.
    async fn allocate(&self, number: u32) -> Result<bool, Error> {
        let (start, len) = {
            let state = self.shared.lock();
            (state.segments.start(number), state.segments.len)
        };
        let result = self.disk.allocate(start, len).await;
        let Err(error) = result else { return Ok(true) };
        {
            let mut state = self.shared.lock();
            state.segments.denied(number);
            state.wake_space();
        }
        if is_full(&error) {
            Ok(false)
        } else {
            self.poison_on(Err(error), "an allocation", Some(start)).map(|()| false)
        }
    }

    /// Takes the space of the segments that are reserved, so that deletions and cleaning are possible when the file system is
    /// full. Where it is full already there is nothing to be done.
    pub(crate) async fn allocate_reserve(&self) -> Result<(), Error> {
        loop {
            let Some(number) = self.shared.lock().segments.next_reserve() else { return Ok(()) };
            if !self.allocate(number).await? {
                return Ok(());
            }
            self.provided(number);
        }
    }

    fn provided(&self, number: u32) {
        let mut state = self.shared.lock();
        state.segments.provided(number);
        state.wake_space();
    }
}

impl State {
    /// For a segment that somebody is making ready; `None`: there is none.
    fn wait_for_withdrawn(&mut self) -> Option<oneshot::Receiver<()>> {
        if !self.segments.has_withdrawn() {
            return None;
        }
        Some(self.wait_in_line())
    }

    /// For a segment, or for there to be none to be had; `None`: there is none to be had.
    fn wait_for_space(&mut self) -> Option<oneshot::Receiver<()>> {
        if !self.maintenance.running || self.maintenance.stuck {
            return None;
        }
        self.wake_maintenance();
        Some(self.wait_in_line())
    }

    fn wait_in_line(&mut self) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        self.maintenance.space.push(sender);
        receiver
    }
}
