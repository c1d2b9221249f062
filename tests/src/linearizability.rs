//! A checker of histories of concurrent operations.
//!
//! A history is linearizable if each operation can be assigned an instant between its call and its return
//! such that the operations, in the order of these instants, have the observed outcomes one after the other
//! (Herlihy and Wing, "Linearizability: a correctness condition for concurrent objects", 1990). The checker
//! follows the history in time and keeps every state that the object can be in, together with the open
//! operations that have had their effect, as in Lowe, "Testing for linearizability", 2017 (just-in-time
//! linearization). Its time is linear in the length of a history, and exponential in the number of
//! operations that are open at once.

use std::collections::HashSet;
use std::hash::Hash;

/// Operations of an object that may be open at once.
pub const OPEN_MAX: usize = 12;

/// Configurations that are followed at once. Beyond it, the rest of a history is not checked: the outcomes so
/// far leave too many orders open.
pub const CONFIGURATIONS_MAX: usize = 5_000;

/// An object without concurrency.
pub trait Specification {
    /// The state of the object.
    type State: Clone + Eq + Hash;
    /// An operation and its observed outcome.
    type Operation;

    /// Returns the possible states after an operation: none if it cannot have this outcome in this state.
    fn apply(state: &Self::State, call: &Call<Self::Operation>) -> Vec<Self::State>;
}

/// An operation of a history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call<O> {
    /// The operation and its outcome.
    pub operation: O,
    /// Time of the call, on the clock of the history.
    pub begun: u64,
    /// Time of the return. For an operation without a reply: the time after which it can have no effect.
    pub ended: u64,
    /// Whether it had its effect. Otherwise it may have had none.
    pub is_certain: bool,
}

/// A configuration: a state, and the open operations that have had their effect, by their slots.
type Configuration<S> = (<S as Specification>::State, u16);

/// Checks a history that begins in this state. Returns the number of calls that were checked: all of them,
/// unless there are more than [`CONFIGURATIONS_MAX`] configurations.
///
/// # Errors
/// The index of the first call whose return no linearization explains.
///
/// # Panics
/// If more than [`OPEN_MAX`] operations are open at once.
pub fn check<S: Specification>(initial: S::State, calls: &[Call<S::Operation>]) -> Result<usize, usize> {
    let mut configurations = HashSet::from([(initial, 0)]);
    let mut slots: [Option<usize>; OPEN_MAX] = [None; OPEN_MAX];
    let mut checked = 0;
    for (_, is_return, index) in events(calls) {
        let call = &calls[index];
        if !is_return {
            let slot = slots.iter().position(Option::is_none).expect("at most OPEN_MAX open operations");
            slots[slot] = Some(index);
            continue;
        }
        let slot = slots.iter().position(|open| *open == Some(index)).expect("a return follows its call");
        if !extend::<S>(&mut configurations, &slots, calls) {
            break;
        }
        let bit = 1 << slot;
        configurations = configurations
            .into_iter()
            .filter(|(_, done)| done & bit != 0 || !call.is_certain)
            .map(|(state, done)| (state, done & !bit))
            .collect();
        slots[slot] = None;
        if configurations.is_empty() {
            return Err(index);
        }
        checked += 1;
    }
    Ok(checked)
}

/// Returns calls and returns in the order of time: time, whether it is a return, and the index of the call.
/// A call at the time of a return overlaps with it.
fn events<O>(calls: &[Call<O>]) -> Vec<(u64, bool, usize)> {
    let both = |(index, call): (usize, &Call<O>)| [(call.begun, false, index), (call.ended, true, index)];
    let mut events: Vec<(u64, bool, usize)> = calls.iter().enumerate().flat_map(both).collect();
    events.sort_unstable();
    events
}

/// Adds every configuration that open operations can lead to. Returns whether they are within the limit.
fn extend<S: Specification>(
    configurations: &mut HashSet<Configuration<S>>,
    slots: &[Option<usize>],
    calls: &[Call<S::Operation>],
) -> bool {
    let mut left: Vec<Configuration<S>> = configurations.iter().cloned().collect();
    while let Some((state, done)) = left.pop() {
        if configurations.len() > CONFIGURATIONS_MAX {
            return false;
        }
        for (slot, open) in slots.iter().enumerate() {
            let bit = 1 << slot;
            let Some(index) = open.filter(|_| done & bit == 0) else { continue };
            for next in S::apply(&state, &calls[index]) {
                let next = (next, done | bit);
                if configurations.insert(next.clone()) {
                    left.push(next);
                }
            }
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A register that is 0 at first.
    struct Register;

    #[derive(Debug, Clone)]
    enum Operation {
        Write(u8),
        Read(u8),
        /// Compare and swap, and whether it succeeded.
        Swap(u8, u8, bool),
    }

    use Operation::{Read, Swap, Write};

    impl Specification for Register {
        type State = u8;
        type Operation = Operation;

        fn apply(state: &u8, call: &Call<Operation>) -> Vec<u8> {
            let next = match call.operation {
                Write(value) => Some(value),
                Read(value) => (*state == value).then_some(value),
                Swap(from, to, true) => (*state == from).then_some(to),
                Swap(from, _, false) => (*state != from).then_some(*state),
            };
            next.into_iter().collect()
        }
    }

    fn call(begun: u64, ended: u64, operation: Operation) -> Call<Operation> {
        Call { operation, begun, ended, is_certain: true }
    }

    fn lost(begun: u64, ended: u64, operation: Operation) -> Call<Operation> {
        Call { is_certain: false, ..call(begun, ended, operation) }
    }

    fn result(calls: &[Call<Operation>]) -> Result<usize, usize> {
        check::<Register>(0, calls)
    }

    #[test]
    fn linearizable_histories_are_accepted() {
        for history in [
            vec![],
            vec![call(0, 1, Write(1)), call(2, 3, Read(1))],
            // A read beside a write may see either value.
            vec![call(0, 9, Write(1)), call(1, 2, Read(0)), call(3, 4, Read(1))],
            vec![call(0, 5, Write(1)), call(5, 6, Read(0))],
            // The order of the returns is not that of the effects.
            vec![call(0, 9, Write(1)), call(1, 8, Write(2)), call(10, 11, Read(1))],
            vec![call(0, 9, Write(1)), call(1, 8, Write(2)), call(10, 11, Read(2))],
            vec![call(0, 9, Swap(0, 1, true)), call(0, 9, Swap(0, 2, false)), call(10, 11, Read(1))],
            // A write without a reply happens late, or never.
            vec![lost(0, 9, Write(1)), call(1, 2, Read(0)), call(3, 4, Read(1))],
            vec![lost(0, 9, Write(1)), call(10, 11, Read(0))],
            vec![lost(0, 9, Write(1)), call(10, 11, Read(1))],
        ] {
            assert_eq!(result(&history), Ok(history.len()), "{history:?}");
        }
    }

    #[test]
    fn other_histories_are_rejected() {
        for (history, index) in [
            (vec![call(0, 1, Read(1))], 0),
            // A stale read.
            (vec![call(0, 1, Write(1)), call(2, 3, Read(0))], 1),
            // Two reads that see two writes in different orders.
            (vec![call(0, 9, Write(1)), call(1, 2, Read(1)), call(3, 4, Read(0))], 2),
            (
                vec![
                    call(0, 9, Write(1)),
                    call(0, 9, Write(2)),
                    call(1, 2, Read(1)),
                    call(3, 4, Read(2)),
                    call(5, 6, Read(1)),
                ],
                4,
            ),
            // A lost update: both saw the same value, and both wrote.
            (vec![call(0, 9, Swap(0, 1, true)), call(0, 9, Swap(0, 2, true))], 1),
            // A write without a reply has no effect after its end, and no two effects.
            (vec![lost(0, 2, Write(1)), call(3, 4, Read(0)), call(5, 6, Read(1))], 2),
            (vec![lost(0, 9, Write(1)), call(1, 2, Read(1)), call(3, 4, Read(0))], 2),
            (vec![lost(0, 9, Write(1)), call(1, 2, Read(1)), call(3, 4, Write(2)), call(5, 6, Read(1))], 3),
        ] {
            assert_eq!(result(&history), Err(index), "{history:?}");
        }
    }

    #[test]
    fn as_many_operations_as_the_limit_can_be_open() {
        let calls: Vec<_> = (0..OPEN_MAX as u64).map(|at| call(at, 1000, Read(0))).collect();
        assert_eq!(result(&calls), Ok(OPEN_MAX));
    }

    /// A list to which operations append: each order leads to a state of its own.
    struct List;

    impl Specification for List {
        type State = Vec<u8>;
        type Operation = u8;

        fn apply(state: &Vec<u8>, call: &Call<u8>) -> Vec<Vec<u8>> {
            vec![[&state[..], &[call.operation]].concat()]
        }
    }

    #[test]
    fn history_with_too_many_orders_is_checked_in_part() {
        let appends = |count: u8| -> Vec<Call<u8>> {
            let append = |value| Call { operation: value, begun: 0, ended: 1, is_certain: true };
            (0..count).map(append).collect()
        };
        // n! orders, and those of the subsets.
        assert_eq!(check::<List>(Vec::new(), &appends(6)), Ok(6));
        assert_eq!(check::<List>(Vec::new(), &appends(9)), Ok(0));
    }

    #[test]
    #[should_panic(expected = "at most OPEN_MAX open operations")]
    fn more_open_operations_than_the_limit_panic() {
        let calls: Vec<_> = (0..=OPEN_MAX as u64).map(|at| call(at, 1000, Read(0))).collect();
        let _ = result(&calls);
    }
}
