//! Appending of batches to the open META segment.

use super::context::Context;
use crate::disk::Disk;
use crate::draft::{Draft, Payload};
use crate::error::Error;
use crate::index::{Effect, Location};
use crate::open::{OpenMeta, WriterEnd};
use crate::sabotage::{self, Sabotage};
use crate::wire::pages;
use crate::wire::payload::kind;
use crate::wire::record::{self, FIRST, LAST, MOVED};

impl<D: Disk> Context<D> {
    /// Writes records as one batch. Returns their locations, and whether they are
    /// durable: if `wanted`, and if the write itself can make them so. Their watermark is
    /// what was durable before.
    pub(super) async fn append(
        &self,
        meta: &mut OpenMeta,
        drafts: &[&Draft],
        wanted: bool,
    ) -> Result<(Vec<Location>, bool), Error> {
        let turn = self.turn.replace(self.turn.get().wrapping_add(1));
        let (watermark, end, hint) = {
            let mut state = self.store.lock();
            let watermark = state.numbers.watermark();
            state.ends[self.worker].in_flight = watermark;
            (watermark, state.ends[self.worker], state.durable_hint(self.worker, turn))
        };
        let durable = end.durable_in(meta.number);
        // A durable write covers only its own bytes: neither earlier bytes of its segment, without
        // which recovery would not find it, nor blocks.
        let stands_alone = u64::from(durable) == meta.at - meta.start && !drafts.iter().any(|draft| draft.has_blocks());
        let at_once = wanted && (stands_alone || sabotage::is(Sabotage::TrustWrites));
        // Another writer might never state the durable end of the previous segment.
        let hint = end.ended.unwrap_or(hint);
        let prev = meta.prev;
        let mut buf = self.spare.take().unwrap_or_else(|| self.disk.buffer());
        let mut at = 0;
        let mut places = Vec::with_capacity(drafts.len());
        for (i, draft) in drafts.iter().enumerate() {
            let border = if i == 0 { FIRST } else { 0 } | if i + 1 == drafts.len() { LAST } else { 0 };
            let header = record::Header {
                kind: draft.kind,
                flags: border | if draft.moved() { MOVED } else { 0 },
                generation: meta.generation,
                offset: meta.at + at as u64,
                seq: draft.seq,
                watermark,
                prev: meta.prev,
                durable,
                hint,
            };
            let len = record::HEADER_LEN + draft.payload.len();
            let next = at + record::space(draft.payload.len());
            meta.prev = header.emit_pieces(&self.store.id, draft.payload.pieces(), D::slice(&mut buf, at..next));
            D::slice(&mut buf, at + len..next).fill(0);
            places.push(Location::new(header.offset, len as u32));
            at = next;
        }
        let len = pages(at);
        D::slice(&mut buf, at..len).fill(0);
        self.dirty.set(true);
        let (result, buf) = if at_once && !sabotage::is(Sabotage::SkipSync) {
            self.disk.write_durable(meta.at, buf, 0..len).await
        } else {
            self.disk.write(meta.at, buf, 0..len).await
        };
        self.spare.set(Some(buf));
        if let Err(error) = self.full_or_poison(result, meta.at) {
            // For the segment, nothing has been appended.
            meta.prev = prev;
            self.store.lock().ends[self.worker].in_flight = u64::MAX;
            return Err(error);
        }
        meta.at += len as u64;
        self.appended(meta, drafts, len, at, at_once);
        Ok((places, at_once))
    }

    /// Records the appended bytes.
    fn appended(&self, meta: &OpenMeta, drafts: &[&Draft], len: usize, records: usize, is_durable: bool) {
        let mut state = self.store.lock();
        let seqs = drafts.iter().map(|draft| draft.seq);
        state.counters.syncs.durable_writes += u64::from(is_durable);
        if is_durable {
            state.numbers.durable(seqs);
        } else {
            state.numbers.written(seqs);
        }
        let end = state.ends[self.worker];
        let written = (meta.at - meta.start) as u32;
        let durable = if is_durable { written } else { end.durable_in(meta.number) };
        state.ends[self.worker] = WriterEnd { segment: meta.number, written, durable, ended: None, ..end };
        state.segments.table[meta.number as usize].written = written;
        for (i, draft) in drafts.iter().enumerate() {
            let padding = if i == 0 { len - records } else { 0 };
            let bytes = (record::space(draft.payload.len()) + padding) as u64;
            state.count_record(draft, bytes);
        }
    }

    /// Creates a record of the log itself, without payload.
    pub(super) fn housekeeping(&self, kind: u8) -> Draft {
        let seq = self.store.lock().numbers.record();
        Draft { seq, kind, payload: Payload::default(), effect: Effect::Nothing }
    }

    /// Writes a record of the log itself as one batch. It does not affect the index.
    async fn append_own(&self, meta: &mut OpenMeta, kind: u8) -> Result<(), Error> {
        let draft = self.housekeeping(kind);
        self.append(meta, &[&draft], false).await?;
        self.store.lock().numbers.settled(draft.seq);
        Ok(())
    }
}

/// Makes everything durable and writes a mark that proves it, so that the next recovery need not
/// verify the tail.
pub(super) async fn close<D: Disk>(context: &Context<D>, meta: Option<OpenMeta>) {
    if !context.dirty.get() {
        return;
    }
    // A failure poisons the log; recovery then proceeds as after a crash.
    if context.sync().await.is_err() {
        return;
    }
    if let Some(mut meta) = meta
        && !meta.is_sealed()
        && !context.is_torn()
        && context.append_own(&mut meta, kind::MARK).await.is_ok()
    {
        let _ = context.sync().await;
    }
}
