//! The system's clocks, timer and random generator.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use keyhole_node::Services;
use tokio::sync::Notify;
use zeroize::Zeroize;

/// The system's clocks, timer and random generator.
#[derive(Clone, Copy)]
pub(crate) struct System;

impl Services for System {
    fn now_ms(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    fn instant(&self) -> Instant {
        Instant::now()
    }

    fn sleep(&self, time: Duration) -> Pin<Box<dyn Future<Output = ()>>> {
        Box::pin(tokio::time::sleep(time))
    }

    fn random(&self, bytes: &mut [u8]) {
        random(bytes);
    }
}

impl System {
    /// Returns `N` random bytes.
    pub(crate) fn random_array<const N: usize>(self) -> [u8; N] {
        let mut bytes = [0; N];
        random(&mut bytes);
        bytes
    }
}

/// The services of a worker: those of the system, and one wipe of the stack for all requests that end
/// before its thread waits.
#[derive(Clone, Default)]
pub(crate) struct WorkerSystem {
    /// A request has ended that may have left keys on the stack.
    is_stack_dirty: Rc<Notify>,
}

impl WorkerSystem {
    /// Wipes the stack each time that requests have ended, without end. To be polled as a task of its
    /// own: its frames begin where those of the connections' tasks do.
    pub(crate) async fn keep_stack_clean(self) {
        loop {
            self.is_stack_dirty.notified().await;
            keyhole_node::wipe_stack();
        }
    }
}

impl Services for WorkerSystem {
    fn now_ms(&self) -> u64 {
        System.now_ms()
    }

    fn instant(&self) -> Instant {
        System.instant()
    }

    fn sleep(&self, time: Duration) -> Pin<Box<dyn Future<Output = ()>>> {
        System.sleep(time)
    }

    fn turn(&self) -> Pin<Box<dyn Future<Output = ()>>> {
        // Polls for events before the task runs again. A second yield, for the completions of a ring,
        // brings no more bodies together.
        Box::pin(tokio::task::yield_now())
    }

    fn random(&self, bytes: &mut [u8]) {
        random(bytes);
    }

    fn wipe_stack(&self) {
        self.is_stack_dirty.notify_one();
    }
}

/// Random bytes generated at a time: a call for each salt and each data key would be a considerable
/// part of the cost of a small object.
const AHEAD: usize = 512;

/// Random bytes in reserve. Used bytes are wiped.
struct Ahead {
    bytes: [u8; AHEAD],
    used: usize,
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.bytes.as_mut_slice().zeroize();
    }
}

thread_local! {
    static GENERATED: RefCell<Ahead> = const { RefCell::new(Ahead { bytes: [0; AHEAD], used: AHEAD }) };
}

/// Fills `bytes` from AWS-LC's generator, which is seeded by the kernel.
pub(crate) fn random(bytes: &mut [u8]) {
    if bytes.len() > AHEAD {
        return generate(bytes);
    }
    GENERATED.with_borrow_mut(|ahead| {
        if AHEAD - ahead.used < bytes.len() {
            generate(&mut ahead.bytes);
            ahead.used = 0;
        }
        let taken = &mut ahead.bytes[ahead.used..][..bytes.len()];
        bytes.copy_from_slice(taken);
        taken.zeroize();
        ahead.used += bytes.len();
    });
}

fn generate(bytes: &mut [u8]) {
    // Keys and salts depend on it: the process cannot continue without randomness.
    aws_lc_rs::rand::fill(bytes).expect("a generator that gives random bytes");
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn random_bytes_are_not_reused() {
        let mut seen = HashSet::new();
        for round in 0..2000 {
            let mut bytes = [0; 32];
            random(&mut bytes[..8 + round % 25]);
            assert!(seen.insert(bytes[..8].to_vec()));
        }
        let mut long = [0; 2 * AHEAD];
        random(&mut long);
        assert!(long.chunks(8).all(|piece| seen.insert(piece.to_vec())));
        GENERATED.with_borrow(|ahead| assert!(ahead.bytes[..ahead.used].iter().all(|byte| *byte == 0)));
    }
}
