//! Lives many lives: `keyhole-sim [--lives N] [--threads N] [--from SEED]`. `KEYHOLE_SEED` repeats one, and prints what happens.

use std::process::ExitCode;

use keyhole_sim::Setup;

const LIVES: u64 = 300;

fn main() -> ExitCode {
    if let Some(seed) = std::env::var("KEYHOLE_SEED").ok().and_then(|seed| seed.parse().ok()) {
        return match keyhole_sim::life(seed, Setup { trace: true, ..Setup::default() }) {
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
    let arguments: Vec<String> = std::env::args().collect();
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
    let summary = keyhole_sim::lives(&seeds, threads as usize);
    println!("{summary}");
    let never = summary.never();
    if !never.is_empty() {
        println!("no crash in {}: these lives show too little", never.join(", "));
    }
    if summary.failures.is_empty() && never.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
