//! The possible values of one name under concurrent writes, any of which may stay unanswered.
//!
//! A write takes effect between its beginning and its answer. Of two writes the later one wins if
//! it began after the answer to the other; otherwise either may win. An unanswered write may take
//! effect at any time, or never.

/// The operation of the initial value.
const FIRST: u64 = u64::MAX;

/// One write of a register.
#[derive(Debug, Clone)]
struct Write<V> {
    op: u64,
    value: V,
    began: u64,
    /// Time by which it had certainly taken effect, if it ever does.
    ended: Option<u64>,
    /// Whether it took effect.
    done: bool,
    /// Whether it survives every crash.
    durable: bool,
    /// Time by which a newer write had certainly taken effect: operations that began earlier may
    /// have seen this one.
    hidden: Option<u64>,
    /// Whether a newer write is durable, so that this one stays invisible even after a crash.
    gone: bool,
}

impl<V> Write<V> {
    /// Returns whether a process may have seen it at some time since.
    fn is_visible(&self, since: u64) -> bool {
        self.hidden.is_none_or(|hidden| hidden >= since)
    }

    /// Returns whether it may be the value after a crash.
    fn survives(&self, power: bool) -> bool {
        !self.gone && (power || self.hidden.is_none())
    }
}

/// The possible values of a name.
#[derive(Debug, Clone)]
pub struct Register<V> {
    writes: Vec<Write<V>>,
    /// Unanswered writes.
    open: Vec<u64>,
    /// Time of the last answer.
    last_end: u64,
}

impl<V: Clone + PartialEq + std::fmt::Debug> Register<V> {
    /// Creates a register with a durable value.
    pub fn new(value: V) -> Self {
        let write =
            Write { op: FIRST, value, began: 0, ended: Some(0), done: true, durable: true, hidden: None, gone: false };
        Register { writes: vec![write], open: Vec::new(), last_end: 0 }
    }

    /// Begins write `op`.
    pub fn begin(&mut self, op: u64, value: V, now: u64) {
        let write =
            Write { op, value, began: now, ended: None, done: false, durable: false, hidden: None, gone: false };
        self.writes.push(write);
        self.open.push(op);
    }

    /// Acknowledges a write, if it exists.
    pub fn acknowledge(&mut self, op: u64, now: u64, durable: bool) {
        self.answered(op, now);
        if let Some(write) = self.writes.iter_mut().find(|write| write.op == op) {
            write.ended = write.ended.or(Some(now));
            write.done = true;
            write.durable = write.durable || durable;
            self.supersede(now);
        }
    }

    /// Ends a refused write, which has no effect.
    pub fn refuse(&mut self, op: u64, now: u64) {
        self.answered(op, now);
        self.writes.retain(|write| write.op != op);
    }

    /// Ends a refused write: without effect if `for_good`; otherwise it may have been written and
    /// reappear after a crash ([`shadow`](Self::shadow)).
    pub fn refuse_or_shadow(&mut self, op: u64, now: u64, for_good: bool) {
        if for_good { self.refuse(op, now) } else { self.shadow(op, now) }
    }

    /// Ends a write whose answer left its effect open.
    pub fn settle(&mut self, op: u64, now: u64) {
        self.answered(op, now);
        for write in self.writes.iter_mut().filter(|write| write.op == op) {
            write.ended = write.ended.or(Some(now));
        }
    }

    /// Returns the values that it may have had at some time since.
    pub fn values(&self, since: u64) -> impl Iterator<Item = &V> {
        self.writes.iter().filter(move |write| write.is_visible(since)).map(|write| &write.value)
    }

    /// Returns whether a write that had taken effect by then and that satisfies `of` began after
    /// the end of all writes that do not, except `but`.
    pub fn is_newer(&self, since: u64, but: u64, of: impl Fn(&V) -> bool) -> bool {
        let others = self.writes.iter().filter(|write| write.op != but && write.is_visible(since) && !of(&write.value));
        let ended = others.map(|write| write.ended.unwrap_or(u64::MAX)).max().unwrap_or(0);
        let had_ended = |write: &Write<V>| write.done && write.ended.is_some_and(|at| at < since);
        self.writes.iter().any(|write| had_ended(write) && write.began > ended && of(&write.value))
    }

    /// Returns the current write's beginning and value, if they are certain.
    pub fn latest(&self) -> Option<(u64, &V)> {
        let mut there = self.writes.iter().filter(|write| write.survives(false));
        let latest = there.next()?;
        (there.next().is_none() && latest.done).then_some((latest.began, &latest.value))
    }

    /// Returns the time by which the last write had certainly ended.
    pub fn last_end(&self) -> u64 {
        self.last_end
    }

    /// Records a write that was refused after it had been written, because its target was missing.
    /// It takes effect if a crash undoes the write that removed the target; no process has seen it.
    pub fn shadow(&mut self, op: u64, now: u64) {
        self.answered(op, now);
        for write in self.writes.iter_mut().filter(|write| write.op == op) {
            write.ended = Some(now);
            write.hidden = Some(0);
        }
    }

    fn answered(&mut self, op: u64, now: u64) {
        if let Some(at) = self.open.iter().position(|open| *open == op) {
            self.open.swap_remove(at);
            self.last_end = now;
        }
    }

    /// Hides the writes that a newer one makes impossible.
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

    /// Returns whether the value may have satisfied `of` at some time since, as the process sees
    /// it.
    pub fn may_be(&self, since: u64, of: impl Fn(&V) -> bool) -> bool {
        self.writes.iter().any(|write| write.is_visible(since) && of(&write.value))
    }

    /// Returns whether another write than `but` was in flight at some time since.
    pub fn is_busy(&self, since: u64, but: u64) -> bool {
        self.last_end >= since || self.open.iter().any(|open| *open != but)
    }

    /// Records the observation that the value satisfied `of` at some time since `since`, made by
    /// write `but`. Returns false if that is impossible.
    pub fn observe(&mut self, since: u64, now: u64, durable: bool, but: u64, of: impl Fn(&V) -> bool) -> bool {
        let fits = |write: &Write<V>| write.is_visible(since) && write.op != but && of(&write.value);
        let found = self.writes.iter().filter(|write| fits(write)).count();
        if found == 1
            && let Some(write) = self.writes.iter_mut().find(|write| fits(write))
        {
            // A visible value is durable, unless syncs are deferred.
            write.ended = write.ended.or(Some(now));
            write.done = true;
            write.durable = write.durable || durable;
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

    /// Makes everything durable that was acknowledged before `began`.
    pub fn flushed(&mut self, began: u64, now: u64) {
        for write in self.writes.iter_mut().filter(|write| write.done && write.ended.is_some_and(|at| at < began)) {
            write.durable = true;
        }
        self.supersede(now);
    }

    /// Records that all writes have ended: those that have shown no effect so far never
    /// will.
    pub fn quiesce(&mut self, now: u64) {
        for write in &mut self.writes {
            write.ended = write.ended.or(Some(now));
        }
        self.open.clear();
        self.last_end = now;
    }

    /// Returns whether the value that satisfies `of` may be the one after a crash; `power`: power
    /// has failed.
    pub fn may_survive(&self, power: bool, of: impl Fn(&V) -> bool) -> bool {
        self.writes.iter().any(|write| write.survives(power) && of(&write.value))
    }

    /// Returns the operations that would leave this value.
    pub fn causes(&self, power: bool, of: impl Fn(&V) -> bool) -> Vec<u64> {
        let causes = self.writes.iter().filter(|write| write.survives(power) && of(&write.value));
        causes.map(|write| write.op).collect()
    }

    /// Returns the legal values after a crash, to be printed.
    pub fn legal(&self, power: bool) -> Vec<V> {
        self.writes.iter().filter(|write| write.survives(power)).map(|write| write.value.clone()).collect()
    }
}

impl<V: Clone + PartialEq + std::fmt::Debug + Default> Register<V> {
    /// Records that a ring dropped the value at some time before `now`. Power failure can undo that.
    pub fn drop_undurably(&mut self, op: u64, now: u64) {
        self.begin(op, V::default(), now);
        self.acknowledge(op, now, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_before_acknowledged_write_is_refused() {
        let mut register = Register::new(0);
        register.begin(1, 10, 1);
        assert!(register.may_be(1, |v| *v == 0) && register.may_be(1, |v| *v == 10));
        register.acknowledge(1, 2, true);
        assert_eq!(register.legal(true), [10]);
        // Of two concurrent writes either may win.
        register.begin(2, 20, 3);
        register.begin(3, 30, 4);
        register.acknowledge(2, 5, true);
        register.acknowledge(3, 6, true);
        assert_eq!(register.legal(true), [20, 30]);
        // A read after both answers settles the order.
        assert!(register.observe(7, 8, true, 0, |v| *v == 20));
        assert_eq!(register.legal(true), [20]);
        assert!(!register.observe(9, 9, true, 0, |v| *v == 30));
        // An unanswered write may take effect at any time.
        register.begin(4, 40, 9);
        register.begin(5, 50, 10);
        register.acknowledge(5, 11, true);
        assert_eq!(register.legal(true), [40, 50]);
        register.refuse(4, 12);
        assert_eq!(register.legal(true), [50]);
        assert!(register.is_busy(12, 0) && !register.is_busy(13, 0));
    }

    #[test]
    fn unflushed_write_may_be_undone() {
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
