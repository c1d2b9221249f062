//! The bookkeeping of admission: the holders of memory, the waiting requests, and their order.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::{Claim, Pool, Share};
use crate::limits::{
    BLOCK_PAGES, OLDEST_EVERY, PATIENCE_MS, PATIENCE_OVER_SHARE_MS, RATE_CONTESTED, RATE_FAIR_MAX, RATE_OVER_SHARE_MAX,
    READ_RESERVE, RELIEF_STEP_MS,
};
use crate::link::{Client, Link, Mark};

/// The requests that hold memory, and those that wait for it.
pub(super) struct Queue {
    share: Share,
    used: Used,
    /// By identity, and so in order of their arrival.
    holders: BTreeMap<u64, Holder>,
    /// In order of arrival.
    waiters: Vec<Waiter>,
    /// Pages that each client holds.
    held: HashMap<Client, Used>,
    next_id: u64,
    grants: u64,
}

/// Pages in use of each pool.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
struct Used {
    short: usize,
    writes: usize,
    reads: usize,
}

/// A request that holds memory.
struct Holder {
    claim: Claim,
    client: Client,
    link: Rc<Link>,
    since: Mark,
}

/// A request that waits for memory.
struct Waiter {
    id: u64,
    claim: Claim,
    client: Client,
    link: Rc<Link>,
    granted: oneshot::Sender<()>,
    has_right_of_way: bool,
}

impl Used {
    fn of(&mut self, pool: Pool) -> &mut usize {
        match pool {
            Pool::Short => &mut self.short,
            Pool::LongWrites => &mut self.writes,
            Pool::LongReads => &mut self.reads,
        }
    }

    /// Returns the pages of the pool, those of the other direction included.
    fn of_memory(&self, pool: Pool) -> usize {
        match pool {
            Pool::Short => self.short,
            Pool::LongWrites | Pool::LongReads => self.writes + self.reads,
        }
    }
}

impl Queue {
    pub(super) fn new(share: Share) -> Self {
        Queue {
            share,
            used: Used::default(),
            holders: BTreeMap::new(),
            waiters: Vec::new(),
            held: HashMap::new(),
            next_id: 0,
            grants: 0,
        }
    }

    pub(super) fn used_long(&self) -> usize {
        self.used.writes + self.used.reads
    }

    pub(super) fn used_short(&self) -> usize {
        self.used.short
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiters.len()
    }

    /// Returns whether less than half of a pool is free.
    pub(super) fn is_scarce(&self, pool: Pool) -> bool {
        self.room(pool) < self.capacity(pool) / 2
    }

    /// Returns whether a client may hold a whole block for a read that a piece would do for:
    /// `1 / READ_RESERVE` of the memory stays free, no request waits for it, and the client keeps to
    /// its fair share.
    pub(super) fn has_spare(&self, claim: Claim, client: Client) -> bool {
        let pool = claim.pool;
        claim.pages + self.capacity(pool) / READ_RESERVE <= self.room(pool)
            && self.waiters.iter().all(|waiter| waiter.claim.pool == Pool::Short)
            && claim.pages.saturating_add(self.held_by(client, pool)) <= self.fair_share(pool)
    }

    fn capacity(&self, pool: Pool) -> usize {
        match pool {
            Pool::Short => self.share.pages,
            Pool::LongWrites | Pool::LongReads => self.share.blocks * BLOCK_PAGES,
        }
    }

    /// Returns the free pages of a pool. One block is left to the other direction.
    fn room(&self, pool: Pool) -> usize {
        let free = self.capacity(pool).saturating_sub(self.used.of_memory(pool));
        let own = match pool {
            Pool::Short => return free,
            Pool::LongWrites => self.used.writes,
            Pool::LongReads => self.used.reads,
        };
        free.min((self.capacity(pool) - BLOCK_PAGES).saturating_sub(own))
    }

    /// Takes memory, unless others wait for it. Returns the identity of the holder.
    pub(super) fn take(&mut self, claim: Claim, link: &Rc<Link>) -> Option<u64> {
        if claim.pages > self.room(claim.pool) || self.waiters.iter().any(|waiter| waiter.claim.pool == claim.pool) {
            return None;
        }
        let id = self.id();
        self.hold(id, claim, link.client.get(), link.clone());
        Some(id)
    }

    /// Enqueues a request. Returns its identity.
    pub(super) fn wait(&mut self, claim: Claim, link: &Rc<Link>, granted: oneshot::Sender<()>) -> u64 {
        let id = self.id();
        let client = link.client.get();
        self.waiters.push(Waiter { id, claim, client, link: link.clone(), granted, has_right_of_way: false });
        id
    }

    fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn hold(&mut self, id: u64, claim: Claim, client: Client, link: Rc<Link>) {
        *self.used.of(claim.pool) += claim.pages;
        *self.held.entry(client).or_default().of(claim.pool) += claim.pages;
        let since = link.mark();
        self.holders.insert(id, Holder { claim, client, link, since });
    }

    /// Changes the pages of a holder.
    pub(super) fn resize(&mut self, id: u64, pages: usize) {
        let Some(mut holder) = self.holders.remove(&id) else { return };
        self.release(&holder);
        holder.claim.pages = pages;
        self.hold(id, holder.claim, holder.client, holder.link);
    }

    /// Moves the pages of `claim` from a holder to a new one of the same request. Returns its
    /// identity.
    pub(super) fn split(&mut self, id: u64, claim: Claim) -> u64 {
        let new = self.id();
        if let Some(holder) = self.holders.get_mut(&id) {
            holder.claim.pages -= claim.pages;
            let split = Holder { claim, client: holder.client, link: holder.link.clone(), since: holder.since };
            self.holders.insert(new, split);
        }
        new
    }

    /// Removes a request, whether it holds memory or waits.
    pub(super) fn leave(&mut self, id: u64) {
        match self.holders.remove(&id) {
            Some(holder) => self.release(&holder),
            None => self.waiters.retain(|waiter| waiter.id != id),
        }
    }

    fn release(&mut self, holder: &Holder) {
        let Holder { claim, client, .. } = holder;
        *self.used.of(claim.pool) -= claim.pages;
        if let Some(held) = self.held.get_mut(client) {
            *held.of(claim.pool) -= claim.pages;
            if *held == Used::default() {
                self.held.remove(client);
            }
        }
    }

    /// Removes the waiting request that has the least claim to wait: of the client with the most
    /// waiting requests the longest, and of those the newest. Returns whether there was one.
    pub(super) fn shed(&mut self) -> bool {
        let mut waiting: HashMap<Client, usize> = HashMap::new();
        for waiter in &self.waiters {
            *waiting.entry(waiter.client).or_default() += 1;
        }
        let rank = |waiter: &Waiter| (waiting.get(&waiter.client).copied(), waiter.claim.len, waiter.id);
        let worst = self.waiters.iter().enumerate().max_by_key(|(_, waiter)| rank(waiter)).map(|(at, _)| at);
        worst.map(|at| self.waiters.remove(at)).is_some()
    }

    /// Lets a waiting request precede all others of its pool.
    pub(super) fn set_right_of_way(&mut self, id: u64) {
        if let Some(waiter) = self.waiters.iter_mut().find(|waiter| waiter.id == id) {
            waiter.has_right_of_way = true;
        }
    }

    /// Grants memory to the next waiting request, if there is enough. The caller informs it.
    pub(super) fn grant_next(&mut self) -> Option<oneshot::Sender<()>> {
        let pools = [Pool::Short, Pool::LongWrites, Pool::LongReads];
        let at = pools.into_iter().find_map(|pool| self.next(pool))?;
        let Waiter { id, claim, client, link, granted, .. } = self.waiters.remove(at);
        self.grants += 1;
        self.hold(id, claim, client, link);
        Some(granted)
    }

    /// Returns the position of the next request of a pool.
    fn next(&self, pool: Pool) -> Option<usize> {
        let room = self.room(pool);
        let mut of_pool = self.waiters.iter().enumerate().filter(|(_, waiter)| waiter.claim.pool == pool);
        let (oldest, first) = of_pool.clone().next()?;
        let fits = |waiter: &Waiter| waiter.claim.pages <= room;
        if first.has_right_of_way || self.grants.is_multiple_of(OLDEST_EVERY) && fits(first) {
            return fits(first).then_some(oldest);
        }
        let rank = |waiter: &Waiter| (self.held_by(waiter.client, pool), waiter.claim.len, waiter.id);
        of_pool.by_ref().filter(|(_, waiter)| fits(waiter)).min_by_key(|(_, waiter)| rank(waiter)).map(|(at, _)| at)
    }

    fn held_by(&self, client: Client, pool: Pool) -> usize {
        self.held.get(&client).map_or(0, |held| held.of_memory(pool))
    }

    /// Returns the requests to end so that one of this pool that has waited this long gets memory:
    /// as many as those that wait need, and only such as are below the minimum rate.
    pub(super) fn too_slow(&self, pool: Pool, waited: Duration) -> Vec<Rc<Link>> {
        let is_memory = |other: Pool| (other == Pool::Short) == (pool == Pool::Short);
        let wanted: usize =
            self.waiters.iter().filter(|waiter| waiter.claim.pool == pool).map(|waiter| waiter.claim.pages).sum();
        let holders = || self.holders.values().filter(|holder| is_memory(holder.claim.pool));
        let ending: usize =
            holders().filter(|holder| holder.link.is_interrupted()).map(|holder| holder.claim.pages).sum();
        let mut missing = wanted.saturating_sub(self.room(pool) + ending);
        if missing == 0 {
            return Vec::new();
        }
        let fair = self.fair_share(pool);
        let mut slow: Vec<_> = holders()
            .filter_map(|holder| {
                let held = self.held_by(holder.client, pool);
                let (rate_max, patience_ms) = match held > fair {
                    true => (RATE_OVER_SHARE_MAX, PATIENCE_OVER_SHARE_MS),
                    false => (RATE_FAIR_MAX, PATIENCE_MS),
                };
                let debt = holder.link.debt(&holder.since, minimum_rate(waited).min(rate_max));
                (debt > Duration::from_millis(patience_ms)).then_some((held, debt, holder))
            })
            .collect();
        slow.sort_by_key(|(held, debt, _)| std::cmp::Reverse((*held, *debt)));
        let mut ended: Vec<Rc<Link>> = Vec::new();
        for (.., holder) in slow {
            if missing == 0 {
                break;
            }
            missing = missing.saturating_sub(holder.claim.pages);
            if !ended.iter().any(|link| Rc::ptr_eq(link, &holder.link)) {
                ended.push(holder.link.clone());
            }
        }
        ended
    }

    /// Returns the pages that each client may hold while several contend for a pool.
    fn fair_share(&self, pool: Pool) -> usize {
        let holding = self.held.iter().filter(|(_, held)| held.of_memory(pool) > 0).map(|(client, _)| *client);
        let mut clients: Vec<Client> = holding.chain(self.waiters.iter().map(|waiter| waiter.client)).collect();
        clients.sort_unstable();
        clients.dedup();
        // A client that is alone does not wait for itself.
        if clients.len() < 2 { usize::MAX } else { self.capacity(pool) / clients.len() }
    }
}

/// Returns the rate in bytes per second that is expected of the holders of memory while a request
/// has waited this long.
fn minimum_rate(waited: Duration) -> u64 {
    let doublings = waited.as_millis() as u64 / RELIEF_STEP_MS;
    RATE_CONTESTED << doublings.min(20)
}
