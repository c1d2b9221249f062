//! Lives of a store with a remote: the real engine on a simulated disk, and a simulated S3 service that
//! fails, loses replies, shows earlier states and disappears for a day. The process is killed and the power
//! fails. Reads of evicted versions return the right bytes or fail. In the end the remote has each version
//! of the store once, and each evicted version can be read.
//!
//! `KEYHOLE_REMOTE_LIVES=n` sets the number of lives, `KEYHOLE_SEED=n` repeats one.

mod descriptions;
mod end;
mod life;
mod operations;
mod reads;
mod restore;
mod service;
mod session;
mod tally;
mod undone;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{SystemTime, UNIX_EPOCH};

use life::life;
use tally::Tally;
use undone::undone_deletion;

/// Lives of a run: one half with fixed seeds, the other with fresh ones.
const LIVES: u64 = 300;

/// Lives in which a defect must be detected.
#[cfg(feature = "sabotage")]
const SABOTAGED_LIVES: u64 = 3_000;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Runs a life; a panic fails it.
fn lived(seed: u64) -> Result<Tally, String> {
    catch_unwind(AssertUnwindSafe(|| life(seed))).unwrap_or_else(|_| Err("a panic".to_owned()))
}

#[test]
fn remote_has_each_version_once_in_the_end() {
    if let Some(seed) = number("KEYHOLE_SEED") {
        let tally = lived(seed).unwrap();
        println!("{tally:?}");
        return;
    }
    let lives = number("KEYHOLE_REMOTE_LIVES").unwrap_or(LIVES);
    let fresh = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() << 20;
    println!("seeds 1 to {} and {fresh} to {}", lives / 2, fresh + lives / 2);
    let mut sum = Tally::default();
    let mut failed = Vec::new();
    for seed in (1..=lives / 2).chain(fresh..fresh + lives / 2) {
        match lived(seed) {
            Ok(tally) => sum.add(tally),
            Err(what) => {
                println!("seed {seed}: {what}");
                failed.push(seed);
            }
        }
    }
    println!("{lives} lives: {} failed, {sum:?}", failed.len());
    assert!(failed.is_empty(), "{failed:?}");
    assert!(
        sum.crashes > 0
            && sum.versions > 0
            && sum.outages > 0
            && sum.lost > 0
            && sum.deleted > 0
            && sum.evicted > 0
            && sum.read > 0
            && sum.unread > 0
            && sum.stale_reads > 0
            && sum.restored > 0
            && sum.interrupted > 0,
        "{sum:?}"
    );
}

/// Seeds of the test of undone deletions.
const UNDONE: std::ops::RangeInclusive<u64> = 1..=100;

#[test]
fn undone_deletions_are_shipped() {
    let undone = UNDONE.filter(|seed| undone_deletion(*seed).unwrap_or_else(|why| panic!("seed {seed}: {why}")));
    assert!(undone.count() > 0);
}

#[cfg(feature = "sabotage")]
#[test]
fn confirmed_undone_deletions_are_detected() {
    keyhole_remote::sabotage(Some(keyhole_remote::Sabotage::ConfirmGone));
    let caught = UNDONE.into_iter().find(|seed| undone_deletion(*seed).is_err());
    keyhole_remote::sabotage(None);
    println!("ConfirmGone is caught by seed {caught:?}");
    assert!(caught.is_some());
}

#[cfg(feature = "sabotage")]
#[test]
fn sabotaged_shipper_is_detected() {
    use keyhole_remote::{Sabotage, sabotage};
    for defect in [
        Sabotage::ConfirmBeforeReply,
        Sabotage::ForgetDeletion,
        Sabotage::IgnoreFailure,
        Sabotage::SkipComparison,
        Sabotage::IgnoreOverflow,
        Sabotage::EvictUnconfirmed,
        Sabotage::CompareOnce,
        Sabotage::ReadAnyVersion,
        Sabotage::ReadInNameOrder,
    ] {
        sabotage(Some(defect));
        let caught = (1..=SABOTAGED_LIVES).find(|seed| lived(*seed).is_err());
        sabotage(None);
        println!("{defect:?} is caught by life {caught:?}");
        assert!(caught.is_some(), "{defect:?}");
    }
}
