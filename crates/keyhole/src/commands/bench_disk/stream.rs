//! One large body: the engine, and bare writes of the same bytes from registered buffers.

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};

use keyhole_log::limits::{BLOCK_DATA, SEGMENT_LEN};
use keyhole_log::{Condition, Durability};

use super::super::{CommandError, Result};
use super::directory::ScratchDirectory;
use super::report::{DiskReport, Limit, median};
use super::rig::{self, BUCKET, Engine, StoreKind, failed};
use crate::uring::{BareFile, Fixed};

const LEN: usize = 64 << 20;
const CAPACITY: u64 = 16 << 30;
/// Bodies per turn.
const TURN: usize = 4;

pub(super) fn run(directory: &ScratchDirectory, turns: u64, report: &mut DiskReport) -> Result<()> {
    let kind = StoreKind { capacity: CAPACITY, durability: Durability::Always };
    let file = |name: &str, flags: i32| {
        let file =
            File::options().read(true).write(true).create_new(true).custom_flags(flags).open(directory.path(name));
        file.map_err(|error| CommandError::io("cannot make a file", error))
    };
    let cached = file("bare", 0)?;
    let direct = file("direct", libc::O_DIRECT).ok();
    let mut rates = [[const { Vec::new() }; 3], [const { Vec::new() }; 3]];
    let mut ratios = [Vec::new(), Vec::new()];
    let mut fresh = 0;
    rig::with_engine(&directory.path("stream"), kind, async |log| {
        let write_failed = |error| CommandError::io("cannot write", error);
        let mut bare = BareFile::new(cached, SEGMENT_LEN);
        let mut direct = direct.map(|file| BareFile::new(file, SEGMENT_LEN));
        let fixed =
            Fixed::register().map_err(|error| CommandError::io("cannot register buffers (ulimit -l)", error))?;
        engine(log, "first").await?;
        // First into growing files, then over blocks that were written before.
        for (again, (rates, ratios)) in [false, true].into_iter().zip(rates.iter_mut().zip(&mut ratios)) {
            if again {
                clear(log).await?;
                // The lowest blank segments are used first: those of the reserve, allocated but
                // never written. Each body is deleted before the next one, so the same few segments
                // are rewritten from here on.
                for i in 0..TURN {
                    engine(log, &format!("again-{i}")).await?;
                    clear(log).await?;
                }
                fresh = fresh_segments(log);
            }
            for turn in 0..turns {
                let mut took = Duration::ZERO;
                for i in 0..TURN {
                    let begun = Instant::now();
                    engine(log, &format!("{i}-{turn}")).await?;
                    took += begun.elapsed();
                    if again {
                        clear(log).await?;
                    }
                }
                let our = rate(took);
                let their = stream(&fixed, &mut bare, again).await.map_err(write_failed)?;
                rates[0].push(our);
                rates[1].push(their);
                ratios.push(our / their);
                if let Some(direct) = &mut direct {
                    rates[2].push(stream(&fixed, direct, again).await.map_err(write_failed)?);
                }
            }
        }
        fresh = fresh_segments(log) - fresh;
        fixed.unregister().map_err(|error| CommandError::io("cannot unregister buffers", error))
    })?;
    directory.remove("stream")?;
    for name in ["bare", "direct"] {
        let _ = std::fs::remove_file(directory.path(name));
    }
    for ((rates, ratios), of) in rates.into_iter().zip(ratios).zip(["a growing file", "blocks written before"]) {
        add_rates(report, of, rates, ratios);
    }
    // If this is not zero, the engine did not write over blocks that were written before.
    report.add("64 MiB into blocks written before: segments allocated or given back", fresh as f64, "", None);
    Ok(())
}

/// Adds the rates of engine, bare writes and bare direct writes, and the ratios of the first two.
fn add_rates(report: &mut DiskReport, of: &str, rates: [Vec<f64>; 3], ratios: Vec<f64>) {
    let [ours, theirs, direct] = rates;
    report.add(format!("64 MiB into {of}: the engine"), median(ours), "MiB/s", None);
    report.add(format!("64 MiB into {of}: bare write_fixed"), median(theirs), "MiB/s", None);
    report.add(format!("64 MiB into {of}: the same with O_DIRECT"), median(direct), "MiB/s", None);
    let limit = Some(Limit::AtLeast(0.9));
    report.add(format!("64 MiB into {of}: the engine over bare write_fixed"), median(ratios), "", limit);
}

/// Returns the count of segments added to the file or returned to the file system.
fn fresh_segments(log: &Engine) -> u64 {
    let stats = log.store().stats();
    stats.segments.len() as u64 + stats.cleaner.segments_discarded
}

fn rate(took: Duration) -> f64 {
    (TURN * LEN) as f64 / f64::from(1 << 20) / took.as_secs_f64()
}

/// Runs one turn of bare writes; with `again`, each body overwrites the previous one.
async fn stream(fixed: &Fixed, to: &mut BareFile, again: bool) -> io::Result<f64> {
    let begun = Instant::now();
    for _ in 0..TURN {
        if again {
            to.rewind();
        }
        fixed.stream(to, LEN / BLOCK_DATA).await?;
    }
    Ok(rate(begun.elapsed()))
}

async fn engine(log: &Engine, key: &str) -> Result<()> {
    rig::put(log, key.to_owned(), LEN).await.map_err(|error| failed(&error))
}

/// Makes all segments blank while they stay allocated.
async fn clear(log: &Engine) -> Result<()> {
    let list = keyhole_log::ListObjects { limit: 1000, ..Default::default() };
    let listing = log.list_objects(BUCKET, &list).map_err(|error| failed(&error))?;
    for entry in listing.entries {
        let keyhole_log::Listed::Object { key, .. } = entry else { continue };
        let gone = log.delete_object(BUCKET, &key, 0, Condition::None).await;
        gone.map_err(|error| failed(&error))?;
    }
    for _ in 0..2 {
        log.checkpoint().await.map_err(|error| failed(&error))?;
    }
    Ok(())
}
