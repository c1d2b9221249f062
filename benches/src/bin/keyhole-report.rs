//! Measures Keyhole end to end and compares it with its limits, nginx, SeaweedFS, and the costs of
//! network, encryption and disk alone; writes a page with plots. `keyhole-report --help`; `benches/run`
//! builds and runs it.

use std::env;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use keyhole_benches::report::{self, BARE_COMMAND};
use keyhole_benches::{Error, Result};

/// Measures Keyhole end to end and writes a page with plots. Missed limits do not change the exit
/// status.
#[derive(Parser, Debug)]
#[command(name = "keyhole-report", version)]
struct Options {
    /// The program to measure, built with --release. Default: the one in the directory of this
    /// program.
    #[arg(long, value_name = "FILE")]
    keyhole: Option<PathBuf>,
    /// The program with profile-guided optimisation, as built by packaging/package --pgo. Without it, its
    /// limits are reported as not measured.
    #[arg(long, value_name = "FILE")]
    packaged: Option<PathBuf>,
    /// An earlier program to compare with in the same turns. Without it, the limits relative to it
    /// are reported as not measured.
    #[arg(long, value_name = "FILE")]
    baseline: Option<PathBuf>,
    /// The program `weed` of SeaweedFS. Without it, SeaweedFS is not measured.
    #[arg(long, value_name = "FILE")]
    seaweedfs: Option<PathBuf>,
    /// Where to create the temporary directory for all data: on the disk to measure, with 34 GiB
    /// free. Default: the directory of this program.
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
    /// The page to write; plots are written to the same directory. Default: benches/RESULTS.md, or
    /// with --quick quick/RESULTS.md in the directory.
    #[arg(long, value_name = "FILE")]
    results: Option<PathBuf>,
    /// Number of turns, of which the medians are reported. Default: 3, or with --quick 1.
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=100))]
    turns: Option<u8>,
    /// Duration of each measurement in a turn. Default: 2, or with --quick 0.3.
    #[arg(long, value_name = "S")]
    seconds: Option<f64>,
    /// Run for a minute or two on small stores, as a functional check: the figures mean little.
    #[arg(long)]
    quick: bool,
    /// Also record a flame graph of each scenario into this directory; needs perf.
    #[arg(long, value_name = "DIR")]
    flame: Option<PathBuf>,
    /// Measure nothing, and only insert the current REMARKS.md into the page.
    #[arg(long)]
    remarks: bool,
}

impl Options {
    fn report(self) -> Result<report::Options> {
        let program = env::current_exe()?;
        let beside = program.parent().unwrap_or(Path::new("."));
        let directory = self.directory.unwrap_or_else(|| beside.to_owned());
        let benches = Path::new(env!("CARGO_MANIFEST_DIR"));
        let results = if self.quick { directory.join("quick/RESULTS.md") } else { benches.join("RESULTS.md") };
        let seconds = self.seconds.unwrap_or(if self.quick { 0.3 } else { 2.0 });
        let time = Duration::try_from_secs_f64(seconds).ok().filter(|_| (0.05..=60.0).contains(&seconds));
        Ok(report::Options {
            keyhole: self.keyhole.unwrap_or_else(|| beside.join("keyhole")),
            packaged: self.packaged,
            baseline: self.baseline,
            seaweedfs: self.seaweedfs,
            results: self.results.unwrap_or(results),
            remarks: benches.join("REMARKS.md"),
            turns: self.turns.unwrap_or(if self.quick { 1 } else { 3 }).into(),
            time: time.ok_or_else(|| Error::new(format!("invalid --seconds {seconds}: expected 0.05 to 60")))?,
            is_quick: self.quick,
            flame: self.flame,
            directory,
        })
    }
}

/// Runs a bare server, if this process is to be one.
fn bare() -> Option<Result<usize>> {
    let mut arguments = env::args().skip(1);
    if arguments.next()? != BARE_COMMAND {
        return None;
    }
    let len = arguments.next().and_then(|len| len.parse().ok());
    Some(len.ok_or_else(|| Error::new("missing length of the bare server's objects")))
}

fn main() -> ExitCode {
    let result = match bare() {
        Some(reply_len) => reply_len.and_then(report::serve_bare),
        None => {
            let options = Options::parse();
            let only_remarks = options.remarks;
            options
                .report()
                .and_then(|options| if only_remarks { report::renew_remarks(&options) } else { report::run(&options) })
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("keyhole-report: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_line_is_consistent() {
        use clap::CommandFactory;
        Options::command().debug_assert();
    }
}
