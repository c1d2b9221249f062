//! A cache of the unbound objects whose parts end where they should.

use std::cell::RefCell;
use std::collections::VecDeque;

use crate::limits::CHECKED_ENDS_MAX;

/// The manifests of unbound objects whose parts have been found to end where they should. A part's
/// salt is unique, so a manifest stands for the parts' lengths.
#[derive(Default)]
pub(crate) struct CheckedEnds(RefCell<VecDeque<[u8; 32]>>);

impl CheckedEnds {
    pub(crate) fn contains(&self, manifest: &[u8; 32]) -> bool {
        self.0.borrow().contains(manifest)
    }

    pub(crate) fn insert(&self, manifest: [u8; 32]) {
        let mut checked = self.0.borrow_mut();
        if checked.len() == CHECKED_ENDS_MAX {
            checked.pop_front();
        }
        checked.push_back(manifest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checked_ends_are_bounded() {
        let checked = CheckedEnds::default();
        let manifest = |n: usize| {
            let mut manifest = [0; 32];
            manifest[..8].copy_from_slice(&n.to_le_bytes());
            manifest
        };
        (0..CHECKED_ENDS_MAX).for_each(|n| checked.insert(manifest(n)));
        assert!((0..CHECKED_ENDS_MAX).all(|n| checked.contains(&manifest(n))));
        checked.insert(manifest(CHECKED_ENDS_MAX));
        assert!(!checked.contains(&manifest(0)) && checked.contains(&manifest(1)));
        assert!(checked.contains(&manifest(CHECKED_ENDS_MAX)));
    }
}
