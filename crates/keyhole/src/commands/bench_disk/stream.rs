//! One large body: the engine, and bare writes of the same bytes from registered buffers.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::time::Instant;

use keyhole_log::limits::{BLOCK_DATA, SEGMENT_LEN};
use keyhole_log::{Condition, Sync};

use super::super::{Failure, Result};
use super::rig::{self, BUCKET, Engine, Kind, failed};
use super::{Directory, Limit, Report, median};
use crate::uring::{BareFile, Fixed};

const LEN: usize = 64 << 20;
const CAPACITY: u64 = 16 << 30;
/// Bodies of one turn.
const TURN: usize = 4;

pub(super) fn run(directory: &Directory, turns: u64, report: &mut Report) -> Result<()> {
    let kind = Kind { capacity: CAPACITY, sync: Sync::Always };
    let file = |name: &str, flags: i32| {
        let file =
            File::options().read(true).write(true).create_new(true).custom_flags(flags).open(directory.path(name));
        file.map_err(|error| Failure::io("cannot make a file", error))
    };
    let (cached, direct) = (file("bare", 0)?, file("direct", libc::O_DIRECT).ok());
    let mut rates = [[const { Vec::new() }; 3], [const { Vec::new() }; 3]];
    let mut ratios = [Vec::new(), Vec::new()];
    rig::with_engine(&directory.path("stream"), kind, async |log| {
        let write_failed = |error| Failure::io("cannot write", error);
        let mut bare = BareFile::new(cached, SEGMENT_LEN);
        let mut direct = direct.map(|file| BareFile::new(file, SEGMENT_LEN));
        let fixed = Fixed::register().map_err(|error| Failure::io("cannot register buffers (ulimit -l)", error))?;
        engine(log, "first").await?;
        // First into files that grow, then over blocks that were written before.
        for (rates, ratios) in rates.iter_mut().zip(&mut ratios) {
            for _ in 0..turns {
                let begun = Instant::now();
                for i in 0..TURN {
                    engine(log, &format!("{i}-{}", ratios.len())).await?;
                }
                let our = rate(begun);
                let begun = Instant::now();
                for _ in 0..TURN {
                    fixed.stream(&mut bare, LEN / BLOCK_DATA).await.map_err(write_failed)?;
                }
                let their = rate(begun);
                rates[0].push(our);
                rates[1].push(their);
                ratios.push(our / their);
                if let Some(direct) = &mut direct {
                    let begun = Instant::now();
                    for _ in 0..TURN {
                        fixed.stream(direct, LEN / BLOCK_DATA).await.map_err(write_failed)?;
                    }
                    rates[2].push(rate(begun));
                }
            }
            clear(log).await?;
            bare.rewind();
            direct.iter_mut().for_each(BareFile::rewind);
        }
        fixed.unregister().map_err(|error| Failure::io("cannot unregister buffers", error))
    })?;
    directory.remove("stream")?;
    for name in ["bare", "direct"] {
        let _ = std::fs::remove_file(directory.path(name));
    }
    for ((rates, ratios), of) in rates.into_iter().zip(ratios).zip(["a growing file", "blocks written before"]) {
        let [ours, theirs, direct] = rates;
        report.add(format!("64 MiB into {of}: the engine"), median(ours), "MiB/s", None);
        report.add(format!("64 MiB into {of}: bare write_fixed"), median(theirs), "MiB/s", None);
        report.add(format!("64 MiB into {of}: the same with O_DIRECT"), median(direct), "MiB/s", None);
        let limit = Some(Limit::AtLeast(0.9));
        report.add(format!("64 MiB into {of}: the engine over bare write_fixed"), median(ratios), "", limit);
    }
    Ok(())
}

fn rate(begun: Instant) -> f64 {
    (TURN * LEN) as f64 / f64::from(1 << 20) / begun.elapsed().as_secs_f64()
}

async fn engine(log: &Engine, key: &str) -> Result<()> {
    rig::put(log, key.to_owned(), LEN).await.map_err(|error| failed(&error))
}

/// Makes all segments blank, which stay allocated.
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
