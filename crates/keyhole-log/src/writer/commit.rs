//! Group commit: takes a batch of records from the queue to the disk and into the index.

use std::rc::Rc;

use futures_channel::oneshot;

use super::batch::Batch;
use super::context::{Context, Torn, WRITE_ATTEMPTS};
use super::job::Commit;
use crate::disk::Disk;
use crate::draft::{Draft, Payload};
use crate::error::Error;
use crate::index::{Effect, Location};
use crate::open::OpenMeta;
use crate::sabotage::{self, Sabotage};
use crate::store::Durability;
use crate::wire::payload::kind;

/// The treatment of a torn batch.
struct Sealing {
    /// Kind of the record written over its start.
    kind: u8,
    /// Number of segments that the batch is tried in.
    attempts: u32,
}

impl Sealing {
    /// The segment ends, and the batch goes to another.
    const WORKER: Sealing = Sealing { kind: kind::SEGMENT_END, attempts: WRITE_ATTEMPTS };
    /// The segment goes on behind a mark, and the batch is refused.
    const MAINTENANCE: Sealing = Sealing { kind: kind::MARK, attempts: 1 };
}

impl<D: Disk> Context<D> {
    /// Makes room for the batch. Fails the commits that do not fit and removes them from the batch.
    async fn make_room(&self, meta: &mut Option<OpenMeta>, batch: &mut Batch) -> Result<(), Error> {
        if let Some(meta) = meta.as_mut().filter(|meta| meta.reserve) {
            let deletions = batch.commits.iter().all(|commit| commit.deletes);
            // Deletions do not wait: they may use the reserve.
            let has_spare = if deletions { self.store.lock().has_spare() } else { self.gets_spare().await? };
            if has_spare {
                meta.reserve = false;
            } else {
                self.shed(batch, |commit| commit.deletes);
            }
        }
        let mut reserve = false;
        while !batch.commits.is_empty() && meta.as_ref().is_none_or(|meta| meta.room() < batch.space()) {
            let deletions = batch.commits.iter().all(|commit| commit.deletes);
            let of_reserve = deletions && (reserve || !self.store.lock().has_spare());
            if self.roll(meta, of_reserve).await?.is_none() {
                self.shed(batch, |commit| commit.deletes && !of_reserve);
                // Another worker may have taken the spare segment.
                reserve = true;
            }
        }
        Ok(())
    }

    /// Fails the commits that are not to be kept, because the store is full.
    fn shed(&self, batch: &mut Batch, keep: impl Fn(&Commit) -> bool) {
        for commit in batch.commits.extract_if(.., |commit| !keep(commit)) {
            self.refuse(commit, &Error::Full);
        }
    }

    /// Fails a commit that has not been written.
    pub(crate) fn refuse(&self, commit: Commit, error: &Error) {
        commit.refuse(&self.store, error);
    }

    /// Writes the records of a batch. Fails those without room and removes them from the batch.
    async fn write_records(
        &self,
        meta: &mut Option<OpenMeta>,
        batch: &mut Batch,
        at_once: bool,
    ) -> Result<(Vec<Location>, bool), Error> {
        if let Some(meta) = meta
            && let Some(torn) = self.torn.take()
            && !self.seal(meta, torn).await?
        {
            self.shed(batch, |_| false);
            return Ok((Vec::new(), false));
        }
        match self.require_version(batch.commits.iter().flat_map(|commit| &commit.drafts)).await {
            Err(Error::Full) => {
                let version = self.store.lock().superblock.version;
                self.shed(batch, |commit| commit.drafts.iter().all(|draft| draft.format_version() <= version));
            }
            result => result?,
        }
        let sealing = if self.maintains { Sealing::MAINTENANCE } else { Sealing::WORKER };
        for _ in 0..sealing.attempts {
            self.make_room(meta, batch).await?;
            let drafts: Vec<&Draft> = batch.commits.iter().flat_map(|commit| &commit.drafts).collect();
            let Some(meta) = meta.as_mut().filter(|_| !drafts.is_empty() && !self.is_torn()) else { break };
            let filled = if at_once { self.fill_ahead(meta, batch.space()).await } else { Ok(()) };
            let result = match filled {
                Ok(()) => self.append(meta, &drafts, at_once).await,
                Err(error) => Err(error),
            };
            match result {
                Err(Error::Full) => {}
                result => return result,
            }
            let own = self.housekeeping(sealing.kind);
            if !self.seal(meta, Torn { own, refused: Vec::new() }).await? {
                self.hold_back(batch);
                break;
            }
        }
        self.shed(batch, |_| false);
        Ok((Vec::new(), false))
    }

    /// Answers the commits whose records may be on disk. Their names stay reserved and their blocks
    /// pinned until that is decided.
    fn hold_back(&self, batch: &mut Batch) {
        let Some(mut torn) = self.torn.take() else { return };
        // A record that the cleaner moves says the same at either location.
        let error = if self.maintains { Error::Full } else { Error::InDoubt };
        for mut commit in batch.commits.drain(..) {
            let done = std::mem::replace(&mut commit.done, oneshot::channel().0);
            let _ = done.send(Err(error.clone())); // The receiver is gone if the request was dropped.
            torn.refused.push(commit);
        }
        if !torn.refused.is_empty() {
            self.store.set_in_doubt(true);
        }
        self.torn.set(Some(torn));
    }

    async fn write_batch(&self, meta: &mut Option<OpenMeta>, batch: &mut Batch) -> Result<Vec<Location>, Error> {
        self.store.check_poison()?;
        let early = sabotage::is(Sabotage::AcknowledgeEarly) && self.turn.get().is_multiple_of(2);
        let at_once =
            self.store.durability == Durability::Always && batch.commits.iter().any(|commit| !commit.relaxed) && !early;
        if batch.commits.iter().any(|commit| commit.syncs_before) {
            self.sync().await?;
        }
        let (places, is_durable) = self.write_records(meta, batch, at_once).await?;
        self.store.lock().counters.batches.count(batch.commits.len());
        let at_once = at_once && !batch.commits.is_empty();
        if !batch.flushes.is_empty() || (at_once && !is_durable) {
            self.sync().await?;
        }
        // Another worker's failed write may mean that this worker's bytes are not durable.
        self.store.check_poison()?;
        Ok(places)
    }
}

/// Writes a batch, syncs it under [`Durability::Always`], applies it to the index, and wakes its
/// waiters.
pub(crate) async fn commit<D: Disk>(
    context: Rc<Context<D>>,
    mut meta: Option<OpenMeta>,
    mut batch: Batch,
) -> Option<OpenMeta> {
    context.store.begin_commit();
    match context.write_batch(&mut meta, &mut batch).await {
        Ok(places) => {
            apply(&context, batch.commits, places, meta.as_ref());
            for flush in batch.flushes {
                let _ = flush.send(Ok(())); // The receiver is gone if the request was dropped.
            }
        }
        Err(error) => {
            for commit in batch.commits {
                context.refuse(commit, &error);
            }
            for flush in batch.flushes {
                let _ = flush.send(Err(error.clone()));
            }
        }
    }
    context.store.end_commit();
    meta
}

fn apply<D: Disk>(context: &Context<D>, mut commits: Vec<Commit>, places: Vec<Location>, meta: Option<&OpenMeta>) {
    // Freed before the lock is taken.
    commits.iter_mut().flat_map(|commit| &mut commit.drafts).for_each(|draft| draft.payload = Payload::default());
    let mut places = places.into_iter();
    let mut answers = Vec::with_capacity(commits.len());
    let mut state = context.store.lock();
    for commit in commits {
        let mut result = Ok(());
        let mut new_body = None;
        for (draft, at) in commit.drafts.into_iter().zip(&mut places) {
            if let Effect::Body { id, .. } = draft.effect {
                new_body = Some(id);
            }
            result = result.and(state.apply(draft.seq, at, &draft.effect));
        }
        // A newer write of the name may already have made the body garbage.
        if let Some(id) = new_body {
            state.index.collect(id);
        }
        state.index.unpin(&commit.pinned);
        answers.push((commit.done, result, commit.holds));
    }
    if let Some(meta) = meta.filter(|meta| !meta.is_sealed()) {
        state.settle(context.worker, meta);
    }
    state.wake_maintenance_if_due();
    drop(state);
    for (done, result, holds) in answers {
        drop(holds);
        let _ = done.send(result); // The receiver is gone if the request was dropped.
    }
}
