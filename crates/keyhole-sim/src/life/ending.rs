//! The end of a life: an orderly shutdown, and damage.

use std::rc::Rc;
use std::sync::Arc;

use keyhole_log::{Error, OpenOptions, Recovery, Store, open, worker};

use super::Life;
use crate::disk::{Crash, Faults, Survival};
use crate::executor::Executor;
use crate::work::{Client, audit_damaged};

type Opened = Result<(Arc<Store>, Recovery), Error>;

impl Life {
    /// Opens the store, shuts it down and opens it again: the content must not change.
    pub(super) fn last(&mut self) -> Result<(), String> {
        self.world.medium.set_faults(Faults::none());
        self.world.medium.end_wear();
        self.ending = true;
        for _ in 0..2 {
            let session = self.open()?;
            self.end(session)?;
        }
        if self.world.plan.emptied {
            self.emptied()?;
        }
        if self.world.plan.damage { self.damaged() } else { Ok(()) }
    }

    /// Deletes everything: the store must then have as much space as a new one.
    fn emptied(&mut self) -> Result<(), String> {
        let mut session = self.open()?;
        if !self.world.has_room_to_clean() {
            return self.end(session);
        }
        let client = Client::new(0, session.logs[0].clone(), &self.world, self.random.fork());
        let done = self.alone(&mut session.executor, "filling again", client.empty_and_fill());
        match done {
            Ok(_) => self.end(session),
            Err(error) => {
                session.forget();
                Err(error)
            }
        }
    }

    fn open_damaged(&mut self, rebuild: bool) -> Result<(Executor, Option<Opened>), String> {
        let disk = self.world.disk();
        let options = self.world.plan.opening().options(self.world.plan.ring, self.random.number() as u32);
        let options = OpenOptions { rebuild, ..options };
        let mut executor = self.executor();
        let opened = self.alone(&mut executor, "open", async move { open(&disk, options).await })?;
        Ok((executor, opened))
    }

    /// Damages the medium: the file must still open, and open again.
    fn damaged(&mut self) -> Result<(), String> {
        self.world.medium.crash(Crash::Power(Survival::Nothing));
        if self.world.medium.is_spoiled() {
            return Ok(());
        }
        self.world.medium.mend();
        let mut affected = self.world.medium.damage(self.world.plan.segment_len);
        self.world.say(|| format!("damage: {affected:?}"));
        self.tally.damaged += 1;
        let mut opened = self.open_damaged(false)?;
        if affected.rebuild
            && let Some(Err(Error::Damaged(damage))) = &opened.1
        {
            // Without a readable checkpoint the caller has to ask for a rebuild.
            if !damage.what.starts_with("every checkpoint") {
                return Err(format!("open: {damage}; {affected:?}"));
            }
            self.world.say(|| format!("open: {damage}"));
            self.tally.rebuilt += 1;
            affected.rebuilt = true;
            opened = self.open_damaged(true)?;
        }
        let (mut executor, opened) = opened;
        let (store, recovery) = match opened {
            Some(Ok(opened)) => opened,
            other => return Err(format!("open, after {affected:?}: {other:?}")),
        };
        self.world.say(|| format!("open: {recovery:?}"));
        let disk = Rc::new(self.world.disk());
        let (log, _writer) = worker(store, disk);
        let task = audit_damaged(log, Rc::clone(&self.world), affected, recovery);
        let looked = self.alone(&mut executor, "audit of what is damaged", task);
        if looked.is_err() {
            executor.forget();
            return looked.map(|_| ());
        }
        executor.kill()
    }
}
