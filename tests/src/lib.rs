//! Whole-system tests: the house rules here, the real binary with real clients beside it.
