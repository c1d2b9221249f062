//! The choices of the changes that survive a power failure.

use crate::disk::Survivors;

/// Maximum number of unsynced changes of which every subset survives. Beyond it the number of cases
/// would double with each change: then none, all, each alone, and all but each survive.
const EVERY_SUBSET_MAX: usize = 6;

/// Returns the choices for a number of unsynced changes: whole ones, and each change in half among
/// the others.
pub(super) fn all(changes: usize) -> Vec<Survivors> {
    let everything = (1 << changes) - 1;
    let whole = |whole| Survivors { whole, ..Survivors::default() };
    let each = || (0..changes).map(|change| 1 << change);
    let mut choices: Vec<Survivors> = if changes <= EVERY_SUBSET_MAX {
        (0..=everything).map(whole).collect()
    } else {
        let alone = each().map(whole);
        let others = each().map(|change: u64| whole(everything & !change));
        [whole(0), whole(everything)].into_iter().chain(alone).chain(others).collect()
    };
    for change in each() {
        let others = whole(everything & !change);
        choices.push(Survivors { beginnings: change, ..others });
        choices.push(Survivors { ends: change, ..others });
    }
    choices
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_are_distinct_and_bounded() {
        let count = |changes| {
            let choices = all(changes);
            let is_repeated = |(at, choice)| choices[..at].contains(choice);
            assert!(!choices.iter().enumerate().any(is_repeated), "{changes} changes: {choices:?}");
            choices.len()
        };
        assert_eq!([0, 1, 2, 6].map(count), [1, 2 + 2, 4 + 4, 64 + 12]);
        assert_eq!(count(7), 2 + 7 + 7 + 14);
    }
}
