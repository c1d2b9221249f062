//! Many concurrent durable commits of 4 KiB: the engine, and a bare program that writes the same
//! pattern.

use std::fs::File;
use std::time::Instant;

use keyhole_log::Durability;

use super::super::{CommandError, Result};
use super::directory::ScratchDirectory;
use super::report::{DiskReport, Limit, median};
use super::rig::{self, Engine, StoreKind, failed, in_parallel};
use crate::uring::BareFile;

const LEN: usize = 4096;
const AT_ONCE: usize = 64;
/// Commits per turn.
const TURN: usize = 40_000;
/// Names that are overwritten repeatedly.
const NAMES: usize = 20_000;
const CAPACITY: u64 = 8 << 30;
const SEGMENT: u64 = keyhole_log::limits::SEGMENT_LEN;

pub(super) fn run(directory: &ScratchDirectory, turns: u64, report: &mut DiskReport) -> Result<()> {
    let kind = StoreKind { capacity: CAPACITY, durability: Durability::Always };
    let file = File::options().read(true).write(true).create_new(true).open(directory.path("bare"));
    let file = file.map_err(|error| CommandError::io("cannot make a file", error))?;
    let mut ours = Vec::new();
    let mut theirs = Vec::new();
    let mut ratios = Vec::new();
    let (record, batch) = rig::with_engine(&directory.path("commits"), kind, async |log| {
        let mut bare = BareFile::new(file, SEGMENT);
        // The first turn, which does not count, determines the length of records and of batches.
        let before = log.store().stats();
        engine(log).await?;
        let after = log.store().stats();
        let batches: u64 = after.batches.0.iter().sum::<u64>() - before.batches.0.iter().sum::<u64>();
        let written = after.written.records - before.written.records;
        // A batch has half a page of padding on average.
        let record = (written - batches * 2048) as usize / TURN;
        let write_failed = |error| CommandError::io("cannot write", error);
        bare = bare.commits(AT_ONCE, TURN, record).await.map_err(write_failed)?;
        for _ in 0..turns {
            let begun = Instant::now();
            engine(log).await?;
            let our = TURN as f64 / begun.elapsed().as_secs_f64();
            let begun = Instant::now();
            bare = bare.commits(AT_ONCE, TURN, record).await.map_err(write_failed)?;
            let their = TURN as f64 / begun.elapsed().as_secs_f64();
            ours.push(our);
            theirs.push(their);
            ratios.push(our / their);
        }
        Ok((record, TURN as f64 / batches as f64))
    })?;
    directory.remove("commits")?;
    std::fs::remove_file(directory.path("bare")).map_err(|error| CommandError::io("cannot remove a file", error))?;
    report.add("durable 4 KiB objects, 64 at a time: bytes of records of each", record as f64, "B", None);
    report.add("durable 4 KiB objects: commits that share a batch", batch, "", None);
    report.add("durable 4 KiB objects: the engine", median(ours), "1/s", None);
    report.add("durable 4 KiB objects: a bare program", median(theirs), "1/s", None);
    let limit = Some(Limit::AtLeast(0.8));
    report.add("durable 4 KiB objects: the engine over the bare program", median(ratios), "", limit);
    Ok(())
}

/// Runs one turn of the engine.
async fn engine(log: &Engine) -> Result<()> {
    let own = log.clone();
    let put = move |index: usize| {
        let log = own.clone();
        async move {
            let put = rig::put(&log, format!("object-{:07}", index % NAMES), LEN).await;
            put.map(|()| true).map_err(|error| failed(&error))
        }
    };
    in_parallel(AT_ONCE, TURN, put).await.map(drop)
}
