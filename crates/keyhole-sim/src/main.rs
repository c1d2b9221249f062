//! Runs many lives: `keyhole-sim [--lives N] [--threads N] [--from SEED] [--failures N] [--focus
//! NAME]`. It ends early after N failures. `KEYHOLE_SEED` repeats one life and prints its events.

use std::process::ExitCode;

use keyhole_sim::disk::FileSystem;
use keyhole_sim::{Focus, Setup};

const LIVES: u64 = 300;

/// Failures after which no new life is started.
const FAILURES_MAX: u64 = 10;

/// Focuses by name.
const FOCUSES: [(&str, Focus); 10] = [
    ("damage", Focus::Damage),
    ("cleaning", Focus::Cleaning),
    ("reuse", Focus::Reuse),
    ("bad-sectors", Focus::BadSectors),
    ("unwritable", Focus::Unwritable),
    ("ext4", Focus::Space(FileSystem::Ext4)),
    ("xfs", Focus::Space(FileSystem::Xfs)),
    ("btrfs", Focus::Space(FileSystem::Btrfs)),
    ("no-extents", Focus::Space(FileSystem::NoExtents)),
    ("versions", Focus::Versions),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let mut setup = Setup::default();
    if let Some(at) = arguments.iter().position(|argument| argument == "--focus") {
        let wanted = arguments.get(at + 1).map_or("", String::as_str);
        let Some((_, focus)) = FOCUSES.iter().find(|(name, _)| *name == wanted) else {
            let names = FOCUSES.map(|(name, _)| name).join(", ");
            eprintln!("unknown focus `{wanted}`: expected one of {names}");
            return ExitCode::FAILURE;
        };
        setup.focus = Some(*focus);
    }
    if let Some(seed) = std::env::var("KEYHOLE_SEED").ok().and_then(|seed| seed.parse().ok()) {
        return match keyhole_sim::life(seed, Setup { trace: true, ..setup }) {
            Ok(tally) => {
                println!("{tally:?}");
                ExitCode::SUCCESS
            }
            Err(what) => {
                println!("life {seed} failed: {what}");
                ExitCode::FAILURE
            }
        };
    }
    let option = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1)?.parse::<u64>().ok()
    };
    let wanted = std::env::var("KEYHOLE_LIVES").ok().and_then(|lives| lives.parse().ok());
    let count = option("--lives").or(wanted).unwrap_or(LIVES);
    let processors = std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
    let threads = option("--threads").unwrap_or(processors);
    let seeds = match option("--from") {
        Some(first) => (first..first + count).collect(),
        None => keyhole_sim::seeds(count),
    };
    let failures_max = option("--failures").unwrap_or(FAILURES_MAX);
    let summary = keyhole_sim::lives(&seeds, threads as usize, setup, failures_max as usize);
    println!("{summary}");
    let never = summary.never();
    if !never.is_empty() {
        println!("no crash in {}: these lives show too little", never.join(", "));
    }
    if summary.failures.is_empty() && never.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
