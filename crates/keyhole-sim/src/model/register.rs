//! What one name may hold, when several write it at once and any of them may never be answered.
//!
//! A write is somewhere between its beginning and its answer. Of two writes the later one holds if it began after the other had
//! been answered; otherwise it may be either. A write without an answer may take effect at any time, or never.

/// The operation that a value is from which was there at first.
const FIRST: u64 = u64::MAX;

/// One write of a register.
#[derive(Debug, Clone)]
struct Write<V> {
    op: u64,
    value: V,
    began: u64,
    /// When it was certain to have taken effect, if it ever does.
    ended: Option<u64>,
    /// It did take effect.
    done: bool,
    /// A crash does not undo it.
    durable: bool,
    /// When a newer one was certain to have taken effect: who began ahead of that may have seen this.
    hidden: Option<u64>,
    /// A newer one is durable: this will not be seen even after a crash.
    gone: bool,
}

impl<V> Write<V> {
    /// Whether a process may have seen it at some time since.
    fn is_visible(&self, since: u64) -> bool {
        self.hidden.is_none_or(|hidden| hidden >= since)
    }

    /// Whether it may be what a crash leaves.
    fn survives(&self, power: bool) -> bool {
        !self.gone && (power || self.hidden.is_none())
    }
}

/// What a name may hold.
#[derive(Debug, Clone)]
pub struct Register<V> {
    writes: Vec<Write<V>>,
    /// Writes that were begun and not answered.
    open: Vec<u64>,
    /// When one was last answered.
    last_end: u64,
}

impl<V: Clone + PartialEq + std::fmt::Debug> Register<V> {
    /// Holds a value that no crash undoes.
    pub fn new(value: V) -> Self {
        let write =
            Write { op: FIRST, value, began: 0, ended: Some(0), done: true, durable: true, hidden: None, gone: false };
        Register { writes: vec![write], open: Vec::new(), last_end: 0 }
    }

    /// A write begins. `op` names it.
    pub fn begin(&mut self, op: u64, value: V, now: u64) {
        let write =
            Write { op, value, began: now, ended: None, done: false, durable: false, hidden: None, gone: false };
        self.writes.push(write);
        self.open.push(op);
    }

    /// A write was acknowledged. Does nothing if there is none of this name.
    pub fn acknowledge(&mut self, op: u64, now: u64, durable: bool) {
        self.answered(op, now);
        if let Some(write) = self.writes.iter_mut().find(|write| write.op == op) {
            write.ended = write.ended.or(Some(now));
            (write.done, write.durable) = (true, write.durable || durable);
            self.supersede(now);
        }
    }

    /// A write was refused, and has no effect.
    pub fn refuse(&mut self, op: u64, now: u64) {
        self.answered(op, now);
        self.writes.retain(|write| write.op != op);
    }

    /// A write was refused: `for_good`, or it may have been written and be there after a crash ([`shadow`](Self::shadow)).
    pub fn refuse_or_shadow(&mut self, op: u64, now: u64, for_good: bool) {
        if for_good { self.refuse(op, now) } else { self.shadow(op, now) }
    }

    /// A write was answered, and whether it took effect was not said.
    pub fn settle(&mut self, op: u64, now: u64) {
        self.answered(op, now);
        for write in self.writes.iter_mut().filter(|write| write.op == op) {
            write.ended = write.ended.or(Some(now));
        }
    }

    /// The values that it may have had at some time since.
    pub fn values(&self, since: u64) -> impl Iterator<Item = &V> {
        self.writes.iter().filter(move |write| write.is_visible(since)).map(|write| &write.value)
    }

    /// Whether a write that had taken effect by then, and of which this is true, began after all of which it is not had ended, but
    /// for one.
    pub fn is_newer(&self, since: u64, but: u64, of: impl Fn(&V) -> bool) -> bool {
        let others = self.writes.iter().filter(|write| write.op != but && write.is_visible(since) && !of(&write.value));
        let ended = others.map(|write| write.ended.unwrap_or(u64::MAX)).max().unwrap_or(0);
        let had_ended = |write: &Write<V>| write.done && write.ended.is_some_and(|at| at < since);
        self.writes.iter().any(|write| had_ended(write) && write.began > ended && of(&write.value))
    }

    /// When the write that it has now began, if there is no doubt about it.
    pub fn latest(&self) -> Option<(u64, &V)> {
        let mut there = self.writes.iter().filter(|write| write.survives(false));
        let latest = there.next()?;
        (there.next().is_none() && latest.done).then_some((latest.began, &latest.value))
    }

    /// When its last write was certain to have ended.
    pub fn last_end(&self) -> u64 {
        self.last_end
    }

    /// A write was refused after it had been written, for want of what it was for. If a crash undoes what was in its way, it is
    /// there; no process has seen it.
    pub fn shadow(&mut self, op: u64, now: u64) {
        self.answered(op, now);
        for write in self.writes.iter_mut().filter(|write| write.op == op) {
            (write.ended, write.hidden) = (Some(now), Some(0));
        }
    }

    fn answered(&mut self, op: u64, now: u64) {
        if let Some(at) = self.open.iter().position(|open| *open == op) {
            self.open.swap_remove(at);
            self.last_end = now;
        }
    }

    /// Hides what a newer write makes impossible.
    fn supersede(&mut self, now: u64) {
        let latest = |of: fn(&Write<V>) -> bool, writes: &[Write<V>]| {
            writes.iter().filter(|write| of(write)).map(|write| write.began).max().unwrap_or(0)
        };
        let durable = latest(|write| write.durable, &self.writes);
        let done = latest(|write| write.done, &self.writes);
        for write in &mut self.writes {
            write.gone |= write.ended.is_some_and(|ended| ended < durable);
            if write.ended.is_some_and(|ended| ended < done) {
                write.hidden = write.hidden.or(Some(now));
            }
        }
    }

    /// Whether the value may have been one of these at some time since, as the process sees it.
    pub fn may_be(&self, since: u64, of: impl Fn(&V) -> bool) -> bool {
        self.writes.iter().any(|write| write.is_visible(since) && of(&write.value))
    }

    /// Whether another write than this was under way at some time since.
    pub fn is_busy(&self, since: u64, but: u64) -> bool {
        self.last_end >= since || self.open.iter().any(|open| *open != but)
    }

    /// At some time since `since` the value was one of these. False if that is impossible. `but`: the write that has seen it.
    pub fn observe(&mut self, since: u64, now: u64, durable: bool, but: u64, of: impl Fn(&V) -> bool) -> bool {
        let fits = |write: &Write<V>| write.is_visible(since) && write.op != but && of(&write.value);
        let found = self.writes.iter().filter(|write| fits(write)).count();
        if found == 1
            && let Some(write) = self.writes.iter_mut().find(|write| fits(write))
        {
            // What is seen is durable, but under `Sync::Deferred`.
            write.ended = write.ended.or(Some(now));
            (write.done, write.durable) = (true, write.durable || durable);
        }
        if found > 0 {
            let past = |write: &Write<V>| write.op != but && write.ended.is_some_and(|ended| ended < since);
            for write in self.writes.iter_mut().filter(|write| past(write) && !of(&write.value)) {
                write.hidden = write.hidden.or(Some(now));
                write.gone |= durable;
            }
            self.supersede(now);
        }
        found > 0
    }

    /// Everything that was acknowledged ahead of this is durable.
    pub fn flushed(&mut self, began: u64, now: u64) {
        for write in self.writes.iter_mut().filter(|write| write.done && write.ended.is_some_and(|at| at < began)) {
            write.durable = true;
        }
        self.supersede(now);
    }

    /// Nothing is under way any more: what has not been seen to take effect by now never will.
    pub fn quiesce(&mut self, now: u64) {
        for write in &mut self.writes {
            write.ended = write.ended.or(Some(now));
        }
        self.open.clear();
        self.last_end = now;
    }

    /// Whether a crash may leave the value that it is found to have. `power`: power has failed.
    pub fn may_survive(&self, power: bool, of: impl Fn(&V) -> bool) -> bool {
        self.writes.iter().any(|write| write.survives(power) && of(&write.value))
    }

    /// The operations that would leave this value.
    pub fn causes(&self, power: bool, of: impl Fn(&V) -> bool) -> Vec<u64> {
        let causes = self.writes.iter().filter(|write| write.survives(power) && of(&write.value));
        causes.map(|write| write.op).collect()
    }

    /// What is legal after a crash, to be printed.
    pub fn legal(&self, power: bool) -> Vec<V> {
        self.writes.iter().filter(|write| write.survives(power)).map(|write| write.value.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_acknowledged_first_is_gone() {
        let mut register = Register::new(0);
        register.begin(1, 10, 1);
        assert!(register.may_be(1, |v| *v == 0) && register.may_be(1, |v| *v == 10));
        register.acknowledge(1, 2, true);
        assert_eq!(register.legal(true), [10]);
        // Two at once: any of them.
        register.begin(2, 20, 3);
        register.begin(3, 30, 4);
        register.acknowledge(2, 5, true);
        register.acknowledge(3, 6, true);
        assert_eq!(register.legal(true), [20, 30]);
        // Who has seen one of them after both were answered knows.
        assert!(register.observe(7, 8, true, 0, |v| *v == 20));
        assert_eq!(register.legal(true), [20]);
        assert!(!register.observe(9, 9, true, 0, |v| *v == 30));
        // Without an answer it may come at any time.
        register.begin(4, 40, 9);
        register.begin(5, 50, 10);
        register.acknowledge(5, 11, true);
        assert_eq!(register.legal(true), [40, 50]);
        register.refuse(4, 12);
        assert_eq!(register.legal(true), [50]);
        assert!(register.is_busy(12, 0) && !register.is_busy(13, 0));
    }

    #[test]
    fn what_was_not_flushed_may_be_undone() {
        let mut register = Register::new(0);
        register.begin(1, 10, 1);
        register.acknowledge(1, 2, false);
        register.begin(2, 20, 3);
        register.acknowledge(2, 4, false);
        assert!(!register.may_be(5, |v| *v == 10));
        assert_eq!((register.legal(true), register.legal(false)), (vec![0, 10, 20], vec![20]));
        register.flushed(3, 5);
        assert_eq!(register.legal(true), [10, 20]);
        register.flushed(5, 6);
        assert_eq!(register.legal(true), [20]);
    }
}
