//! Measures what shipping to a remote costs the requests of clients. `keyhole-shipping --help`;
//! `benches/run` builds and runs it.

use std::env;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use bytesize::ByteSize;
use clap::Parser;
use keyhole_benches::report::{ShippingOptions, measure_shipping};
use keyhole_benches::{Error, Result};

/// Measures gets and puts of 4 KiB without and with a backlog that is shipped at full speed, in
/// turns. The service discards what it receives. Missed limits do not change the exit status.
#[derive(Parser, Debug)]
#[command(name = "keyhole-shipping", version)]
struct Options {
    /// The program to measure, built with --release. Default: the one in the directory of this
    /// program.
    #[arg(long, value_name = "FILE")]
    keyhole: Option<PathBuf>,
    /// Where to create the temporary directory of the node's data, with 1.3 times the backlog free. Default:
    /// the directory of this program.
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
    /// Bytes that wait to be shipped.
    #[arg(long, default_value = "10GiB")]
    backlog: ByteSize,
    /// Duration of each measurement.
    #[arg(long, default_value_t = 3.0, value_name = "S")]
    seconds: f64,
}

impl Options {
    fn measure(self) -> Result<()> {
        let program = env::current_exe()?;
        let beside = program.parent().unwrap_or(Path::new("."));
        let time = Duration::try_from_secs_f64(self.seconds).ok().filter(|_| (0.5..=60.0).contains(&self.seconds));
        measure_shipping(&ShippingOptions {
            keyhole: self.keyhole.unwrap_or_else(|| beside.join("keyhole")),
            directory: self.directory.unwrap_or_else(|| beside.to_owned()),
            backlog: self.backlog.as_u64(),
            time: time.ok_or_else(|| Error::new(format!("invalid --seconds {}: expected 0.5 to 60", self.seconds)))?,
        })
    }
}

fn main() -> ExitCode {
    match Options::parse().measure() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("keyhole-shipping: {error}");
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
