//! The clock and the generator of random bytes.

use std::time::{SystemTime, UNIX_EPOCH};

/// The system's own.
#[derive(Clone, Copy)]
pub(crate) struct System;

impl keyhole_node::Env for System {
    fn now_ms(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    fn random(&self, bytes: &mut [u8]) {
        random(bytes);
    }
}

/// Fills `bytes` from AWS-LC's generator, which the kernel's seeds: a system call for each salt and each data key would be a good
/// part of what a small object costs.
pub(crate) fn random(bytes: &mut [u8]) {
    // Keys and salts are made of this: there is nothing to go on with without it.
    aws_lc_rs::rand::fill(bytes).expect("a generator that gives random bytes");
}
