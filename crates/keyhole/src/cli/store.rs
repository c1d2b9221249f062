//! The arguments of the commands that query or repair a store.

use std::path::PathBuf;

use clap::Args;

use super::target::Target;
use super::values::parse_rate;

#[derive(Args, Debug)]
pub(crate) struct CheckOptions {
    /// The data directory or block device. No node may serve it.
    pub(crate) data: PathBuf,
    /// The state directory, if the node was given --state.
    #[arg(long, value_name = "DIR")]
    pub(crate) state: Option<PathBuf>,
    /// Repair the store as far as possible. Without it, nothing is written.
    #[arg(long)]
    pub(crate) repair: bool,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct ScrubOptions {
    #[command(flatten)]
    pub(crate) target: Target,
    /// Limit of the bytes read per second, such as 50MB/s.
    #[arg(long, value_name = "SIZE/s", default_value = "50MB/s", value_parser = parse_rate)]
    pub(crate) rate: u64,
}

#[derive(Args, Debug)]
pub(crate) struct StatOptions {
    #[command(flatten)]
    pub(crate) target: Target,
    /// Print one JSON object, with all lengths in bytes.
    #[arg(long)]
    pub(crate) json: bool,
    /// Also show every segment.
    #[arg(long)]
    pub(crate) segments: bool,
}

#[derive(Args, Debug)]
pub(crate) struct StatusOptions {
    #[command(flatten)]
    pub(crate) target: Target,
    /// Print one JSON object, the same as /status.json of the admin listener; with --watch, one per
    /// line.
    #[arg(long)]
    pub(crate) json: bool,
    /// Repeat after this many seconds, until interrupted.
    #[arg(long, value_name = "SECS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) watch: Option<u64>,
}
