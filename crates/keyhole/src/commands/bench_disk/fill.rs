//! A store that is filled, half emptied and refilled; and one with random overwrites.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Instant;

use keyhole_log::{Condition, Durability, Error};
use keyhole_node::Services;

use super::super::{CommandError, Result};
use super::directory::ScratchDirectory;
use super::node;
use super::report::{DiskReport, Limit};
use super::rig::{self, BUCKET, Engine, StoreKind, failed, in_parallel};
use crate::env::System;

const LEN: usize = 64 << 10;
const AT_ONCE: usize = 16;
const ROUNDS: usize = 10;
/// The live part of the unreserved space during overwrites, and the total of writes in multiples of
/// the capacity.
const LIVE: f64 = 0.8;
const OVERWRITTEN: u64 = 4;

pub(super) fn run(directory: &ScratchDirectory, capacity: u64, report: &mut DiskReport) -> Result<()> {
    let kind = StoreKind { capacity, durability: Durability::Always };
    let begun = Instant::now();
    let (fits, amplification, segments) = rig::with_engine(&directory.path("fill"), kind, rounds)?;
    report.add("filled, half deleted, filled again: segments", segments as f64, "", None);
    for (round, fit) in fits.iter().enumerate() {
        report.add(
            format!("filled, half deleted, filled again: objects that fit, round {}", round + 1),
            *fit,
            "",
            None,
        );
    }
    let least = fits.iter().copied().fold(f64::INFINITY, f64::min) / fits[0];
    let limit = Some(Limit::AtLeast(0.97));
    report.add("filled, half deleted, filled again: the least over the first", least, "", limit);
    report.add("filled, half deleted, filled again: write amplification", amplification, "times", None);
    report.add("filled, half deleted, filled again: all of it", begun.elapsed().as_secs_f64(), "s", None);
    let refused = node::refusals(&directory.path("fill"), LEN)?;
    report.add("a full node refuses with 507: others", refused as f64, "", Some(Limit::AtMost(0.0)));
    directory.remove("fill")?;

    let begun = Instant::now();
    let (live, amplification, parts) = rig::with_engine(&directory.path("overwrite"), kind, overwrite)?;
    report.add("random overwriting: live of what is not reserved", live, "", Some(Limit::AtLeast(0.79)));
    report.add("random overwriting: write amplification", amplification, "times", Some(Limit::AtMost(3.0)));
    for (what, part) in ["moved", "checkpoints", "other"].into_iter().zip(parts) {
        report.add(format!("random overwriting: of that {what}"), part, "times", None);
    }
    report.add("random overwriting: all of it", begun.elapsed().as_secs_f64(), "s", None);
    directory.remove("overwrite")
}

fn key(number: usize) -> String {
    format!("object-{number:09}")
}

/// Stores new objects until the store is full. Any other error is a failure.
async fn fill(log: &Engine, first: usize, stored: &Rc<RefCell<Vec<usize>>>) -> Result<()> {
    let log = log.clone();
    let stored = stored.clone();
    let put = move |index: usize| {
        let log = log.clone();
        let stored = stored.clone();
        async move {
            match rig::put(&log, key(first + index), LEN).await {
                Ok(()) => {
                    stored.borrow_mut().push(first + index);
                    Ok(true)
                }
                Err(Error::Full) => Ok(false),
                Err(error) => Err(failed(&error)),
            }
        }
    };
    in_parallel(AT_ONCE, usize::MAX, put).await.map(drop)
}

/// Returns the objects that fit in each round, the write amplification, and the segments.
async fn rounds(log: &Engine) -> Result<(Vec<f64>, f64, usize)> {
    let stored = Rc::new(RefCell::new(Vec::new()));
    let mut fits = Vec::new();
    let mut first = 0;
    for _ in 0..ROUNDS {
        fill(log, first, &stored).await?;
        first = stored.borrow().iter().max().map_or(0, |last| last + 1 + AT_ONCE);
        let count = stored.borrow().len();
        fits.push(count as f64);
        if fits.len() == ROUNDS {
            break;
        }
        shuffle(&mut stored.borrow_mut());
        let gone = stored.borrow_mut().split_off(count / 2);
        let log = log.clone();
        let gone = Rc::new(gone);
        let count = count - count / 2;
        let delete = move |index: usize| {
            let log = log.clone();
            let gone = gone.clone();
            async move {
                let deleted = log.delete_object(BUCKET, &key(gone[index]), System.now_ms(), Condition::None).await;
                deleted.map_err(|error| failed(&error))
            }
        };
        in_parallel(AT_ONCE, count, delete).await?;
    }
    let stats = log.store().stats();
    Ok((fits, stats.written.amplification().unwrap_or(f64::NAN), stats.segments.len()))
}

/// Returns the live part, the write amplification over the second half, and its components.
async fn overwrite(log: &Engine) -> Result<(f64, f64, [f64; 3])> {
    let share = |log: &Engine| {
        let usage = log.store().usage();
        usage.live as f64 / (usage.capacity - usage.reserved) as f64
    };
    // Checkpoints count as live data: use as many names as fit in practice.
    let own = log.clone();
    let put = move |index: usize| {
        let log = own.clone();
        async move {
            if share(&log) >= LIVE {
                return Ok(false);
            }
            rig::put(&log, key(index), LEN).await.map(|()| true).map_err(|error| failed(&error))
        }
    };
    let names = in_parallel(AT_ONCE, usize::MAX, put).await?;
    if names == 0 {
        return Err(CommandError::Other("the store is too small for a single object".to_owned()));
    }
    let count = (OVERWRITTEN * log.store().usage().capacity) as usize / LEN;
    let random = Rc::new(Cell::new(0x9e37_79b9_7f4a_7c15));
    let overwrite = async |count: usize| {
        let log = log.clone();
        let random = random.clone();
        let put = move |_| {
            let log = log.clone();
            let name = below(&random, names);
            async move { rig::put(&log, key(name), LEN).await.map(|()| true).map_err(|error| failed(&error)) }
        };
        in_parallel(AT_ONCE, count, put).await
    };
    overwrite(count / 2).await?;
    let before = log.store().stats().written;
    let live = share(log);
    overwrite(count / 2).await?;
    let after = log.store().stats().written;
    let first = (after.records + after.blocks - before.records - before.blocks) as f64;
    let parts = [after.moved - before.moved, after.checkpoints - before.checkpoints, after.other - before.other];
    let amplification = (after.total() - before.total()) as f64 / first;
    Ok((live.min(share(log)), amplification, parts.map(|bytes| bytes as f64 / first)))
}

/// Returns the next random number below `n` (splitmix64); the sequence is the same in every run.
fn below(state: &Cell<u64>, n: usize) -> usize {
    state.set(state.get().wrapping_add(0x9e37_79b9_7f4a_7c15));
    let mut z = state.get();
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) % n as u64) as usize
}

fn shuffle(numbers: &mut [usize]) {
    let random = Cell::new(numbers.len() as u64);
    for last in (1..numbers.len()).rev() {
        numbers.swap(last, below(&random, last + 1));
    }
}
