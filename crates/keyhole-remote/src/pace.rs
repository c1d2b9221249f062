//! Limit of the bytes sent per second.

use std::cell::Cell;

use crate::env::Env;

/// Spaces bytes evenly in time.
#[derive(Debug)]
pub(crate) struct Pace {
    /// Bytes per second; `None`: unlimited.
    rate: Option<u64>,
    /// Time at which the next bytes may be sent, in us since 1970.
    next_us: Cell<u64>,
}

impl Pace {
    pub(crate) fn new(rate: Option<u64>) -> Self {
        Pace { rate: rate.filter(|rate| *rate > 0), next_us: Cell::new(0) }
    }

    /// Waits until `len` more bytes may be sent.
    pub(crate) async fn admit(&self, env: &impl Env, len: usize) {
        let Some(rate) = self.rate else { return };
        let now_us = env.now_ms() * 1000;
        let begin_us = self.next_us.get().max(now_us);
        self.next_us.set(begin_us + (len as u64).saturating_mul(1_000_000) / rate);
        let wait_ms = (begin_us - now_us) / 1000;
        if wait_ms > 0 {
            env.sleep(wait_ms).await;
        }
    }
}
