//! Many lives on several threads.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::life::{Setup, Tally, life};

/// A failed life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Its seed.
    pub seed: u64,
    /// A description of the failure.
    pub what: String,
}

/// The result of many lives.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    /// Totals of the lives without failures.
    pub tally: Tally,
    /// The failed lives.
    pub failures: Vec<Failure>,
    /// Elapsed time.
    pub time: Duration,
}

/// Runs the lives of these seeds, one per thread at a time. After `failures_max` failures no new
/// life is started. Failures are printed as they occur, with the command that repeats them.
pub fn lives(seeds: &[u64], threads: usize, setup: Setup, failures_max: usize) -> Summary {
    let next = AtomicUsize::new(0);
    let summary = Mutex::new(Summary::default());
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                while let Some(&seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let result = life(seed, setup);
                    let mut summary = summary.lock().expect("no thread panics while it holds the summary");
                    match result {
                        Ok(tally) => summary.tally += tally,
                        Err(what) => {
                            println!("life {seed} failed: {what}\n    repeat it with KEYHOLE_SEED={seed}");
                            summary.failures.push(Failure { seed, what });
                            if summary.failures.len() >= failures_max {
                                return;
                            }
                        }
                    }
                }
            });
        }
    });
    let mut summary = summary.into_inner().expect("no thread panics while it holds the summary");
    summary.time = begun.elapsed();
    summary
}

/// Number of lives after which crashes of every kind must have occurred.
const EVERY_KIND_AFTER: u64 = 1000;

impl Summary {
    /// Returns the kinds of crashes that have not occurred although there were enough lives.
    pub fn never(&self) -> Vec<&'static str> {
        let Tally { lives, in_commit, in_checkpoint, in_cleaning, in_recovery, .. } = self.tally;
        let counts = [
            ("a commit", in_commit),
            ("a checkpoint", in_checkpoint),
            ("cleaning", in_cleaning),
            ("recovery", in_recovery),
        ];
        let never = counts.into_iter().filter(|(_, count)| *count == 0 && lives >= EVERY_KIND_AFTER);
        never.map(|(what, _)| what).collect()
    }
}

/// Returns the failure of the first of these seeds that fails.
pub fn caught(seeds: impl IntoIterator<Item = u64>, setup: Setup) -> Option<Failure> {
    seeds.into_iter().find_map(|seed| life(seed, setup).err().map(|what| Failure { seed, what }))
}

/// Returns the seeds of a run: half of them fixed, half from the clock. The first of the latter is
/// printed.
pub fn seeds(lives: u64) -> Vec<u64> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    // Keep seeds short enough to read aloud.
    let fresh = now.map_or(1, |now| now.as_nanos() as u64) % 1_000_000_000 * 1_000_000;
    let fixed = lives / 2;
    println!("{lives} lives: seeds 1 to {fixed}, and {} from {fresh} on", lives - fixed);
    (1..=fixed).chain(fresh..fresh + (lives - fixed)).collect()
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Tally { lives, operations, events, openings, crashes, in_recovery, in_commit, .. } = self.tally;
        let Tally { in_checkpoint, in_cleaning, failures, orderly, damaged, rebuilt, .. } = self.tally;
        let Tally { checkpoints, cleaned, freed, discarded, .. } = self.tally;
        let time = self.time.as_secs_f64();
        writeln!(
            f,
            "{lives} lives in {time:.1} s ({:.1} a second), {} failed",
            lives as f64 / time,
            self.failures.len()
        )?;
        writeln!(f, "{operations} operations, {events} events of disks, {openings} openings")?;
        writeln!(
            f,
            "{crashes} crashes: {in_commit} in a commit, {in_checkpoint} in a checkpoint, {in_cleaning} while cleaning, \
             {in_recovery} in recovery"
        )?;
        writeln!(
            f,
            "{checkpoints} checkpoints; {cleaned} segments cleaned, {freed} used again, the space of {discarded} given back"
        )?;
        writeln!(f, "{failures} processes ended by a disk that failed, {orderly} in order")?;
        write!(f, "{damaged} media damaged, {rebuilt} of them opened without a checkpoint")
    }
}
