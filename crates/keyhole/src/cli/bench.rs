//! The arguments of `keyhole bench` and `keyhole bench-disk`.

use std::path::PathBuf;

use clap::{ArgGroup, Args};

use super::values::parse_size;

#[derive(Args, Debug)]
pub(crate) struct BenchOptions {
    /// Lengths of the pieces that are encrypted, such as 4KiB,16KiB.
    #[arg(long, value_name = "SIZES", value_delimiter = ',', default_value = "4KiB,16KiB,64KiB,1MiB")]
    pub(crate) sizes: Vec<bytesize::ByteSize>,
    /// Duration of each measurement in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 200,
        value_parser = clap::value_parser!(u64).range(5 * TURN_MS..=60_000))]
    pub(crate) time: u64,
    /// Use only one core.
    #[arg(long)]
    pub(crate) one_core: bool,
    /// Print JSON instead of tables.
    #[arg(long)]
    pub(crate) json: bool,
    /// Also draw a plot into this SVG file.
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
}

/// Milliseconds per turn: short, so that disturbances affect all subjects alike.
pub(crate) const TURN_MS: u64 = 20;

#[derive(Args, Debug)]
#[command(group(ArgGroup::new("what").required(true).multiple(true)))]
pub(crate) struct BenchDiskOptions {
    /// A directory on the disk. The benchmark creates its files there and removes them.
    pub(crate) directory: PathBuf,
    /// Measure the start after a clean stop and after SIGKILL, the memory of the index, and
    /// listings.
    #[arg(long, group = "what")]
    pub(crate) startup: bool,
    /// Measure how space is reclaimed, and the cost of cleaning.
    #[arg(long, group = "what")]
    pub(crate) fill: bool,
    /// Measure durable commits of 4 KiB, compared with a bare program.
    #[arg(long, group = "what")]
    pub(crate) commits: bool,
    /// Measure a body of 64 MiB, compared with bare writes.
    #[arg(long, group = "what")]
    pub(crate) stream: bool,
    /// Measure all of these.
    #[arg(long, group = "what")]
    pub(crate) all: bool,
    /// Print JSON instead of the table.
    #[arg(long)]
    pub(crate) json: bool,
    /// Capacity of the stores for --fill.
    #[arg(long, value_name = "SIZE", default_value = "4GiB", value_parser = parse_size)]
    pub(crate) size: u64,
    /// Count of objects of 1 KiB for --startup.
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    pub(crate) objects: usize,
    /// Bytes in large objects for --startup.
    #[arg(long, value_name = "SIZE", default_value = "10GiB", value_parser = parse_size)]
    pub(crate) large: u64,
    /// Turns of each comparison.
    #[arg(long, value_name = "N", default_value_t = 7, value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub(crate) turns: u64,
    /// Fill the store in the directory with N objects of this length, report it, and wait to be
    /// killed.
    #[arg(long, hide = true, group = "what", value_name = "N:BYTES:CAPACITY")]
    pub(crate) populate: Option<String>,
}
