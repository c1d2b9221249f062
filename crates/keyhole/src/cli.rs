//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use clap::{Args, Parser, Subcommand, ValueEnum};
use keyhole_s3::ops::HostNames;

use crate::commands::bench::BenchOptions;
use crate::commands::bench_disk::BenchDiskOptions;
use crate::commands::bucket::BucketCommand;
use crate::commands::check::CheckOptions;
use crate::commands::chunked::ChunkedCommand;
use crate::commands::key::KeyCommand;
use crate::commands::operate::ScrubOptions;
use crate::commands::sealed::{InspectOptions, OpenOptions, SealOptions};
use crate::commands::stat::StatOptions;

/// An S3 storage node for edge appliances, centred on SSE-C: encryption with keys that clients bring along.
///
/// Exit codes: 0 done; 1 failed; 2 wrong usage; 3 the input does not authenticate or is malformed; 4 there is damage in the
/// store that remains (check, scrub).
#[derive(Parser, Debug)]
#[command(version, about, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Run the node.
    Serve(ServeOptions),
    /// Make and show customer keys.
    #[command(subcommand)]
    Key(KeyCommand),
    /// Seal a plaintext into a sealed object file.
    Seal(SealOptions),
    /// Open a sealed object file.
    Open(OpenOptions),
    /// Show what a sealed object file says without a key.
    Inspect(InspectOptions),
    /// Seal and open bare chunked messages.
    #[command(subcommand)]
    Chunked(ChunkedCommand),
    /// Measure the throughput of encryption on this machine.
    Bench(BenchOptions),
    /// Measure the object file on this disk.
    BenchDisk(BenchDiskOptions),
    /// Show how full a store is, and what was written into it.
    Stat(StatOptions),
    /// Give the space of what was deleted back now.
    Compact(Target),
    /// Verify every object of a store, no faster than a rate.
    #[command(after_help = "Exit codes: 0 sound; 4 there is damage; 1 failed; 2 wrong usage.")]
    Scrub(ScrubOptions),
    /// Verify a store that no node serves, and mend it.
    ///
    /// Every damaged object is named by bucket and key, and whether it can be mended or is lost.
    #[command(
        after_help = "Exit codes: 0 sound, or all was mended; 4 there is damage that remains; 1 failed, such as a store \
                            in use; 2 wrong usage."
    )]
    Check(CheckOptions),
    /// Show and change how much a bucket may hold, and how long.
    #[command(subcommand)]
    Bucket(BucketCommand),
    /// Print what completes this command line in a shell.
    #[command(hide = true)]
    Completions {
        /// Which shell.
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
    /// Write the manual pages.
    #[command(hide = true)]
    Man {
        /// Where to; the directory is made if it is missing.
        directory: PathBuf,
    },
}

/// The store that a command is about.
#[derive(Args, Debug)]
pub(crate) struct Target {
    /// The data directory or block device. A node that serves it is asked; otherwise the command works by itself.
    pub(crate) data: PathBuf,

    /// Where the control socket is, if the node was given --state.
    #[arg(long, value_name = "DIR")]
    pub(crate) state: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(crate) struct ServeOptions {
    /// The data directory, made if it is missing; or a block device.
    #[arg(long, value_name = "PATH", default_value = "./keyhole-data")]
    pub(crate) data: PathBuf,

    /// Make a new store on the device that --data names. Whatever is on the device is lost.
    #[arg(long)]
    pub(crate) format: bool,

    /// Where the credential and the control socket are. Default: the data directory; for a device keyhole/NAME in
    /// $XDG_STATE_HOME or in /var/lib, where NAME is what the device was called by.
    #[arg(long, value_name = "DIR")]
    pub(crate) state: Option<PathBuf>,

    /// The address and port to listen on.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9000")]
    pub(crate) listen: SocketAddr,

    /// The address and port to listen on for HTTPS, besides --listen; with --tls-cert and --tls-key.
    #[arg(long, value_name = "ADDR", requires_all = ["tls_cert", "tls_key"])]
    pub(crate) tls_listen: Option<SocketAddr>,

    /// The certificate for HTTPS, in PEM: the node's own first, then those that it was signed by.
    #[arg(long, value_name = "FILE", requires = "tls_listen")]
    pub(crate) tls_cert: Option<PathBuf>,

    /// The private key of the certificate, in PEM, not encrypted.
    #[arg(long, value_name = "FILE", requires = "tls_listen")]
    pub(crate) tls_key: Option<PathBuf>,

    /// Bounds the store, as in 10GiB or 500MB. Default: 80 % of the free space when the object file is created; all of a
    /// device.
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub(crate) capacity: Option<u64>,

    /// When a write is made durable. always: before it is acknowledged; nothing acknowledged is ever lost. interval:MS: that
    /// often; a power cut or a crash of the system loses what was acknowledged in the last MS milliseconds or a little more.
    /// never: when the system gets to it; the same loses what was acknowledged in the last half minute or so. The end of the
    /// process alone, even by SIGKILL, loses nothing in any mode, and every object stays whole or absent.
    #[arg(long, value_name = "always|interval:MS|never", default_value = "always", value_parser = parse_sync)]
    pub(crate) sync: SyncMode,

    /// When the store is full, drop the oldest objects to make room for new ones, in place of refusing these.
    #[arg(long)]
    pub(crate) ring: bool,

    /// The region that requests must be signed for.
    #[arg(long, value_name = "NAME", default_value = "us-east-1", value_parser = parse_region)]
    pub(crate) region: String,

    /// A name by which clients reach the node, such as s3.example.com: then bucket.NAME addresses a bucket, besides
    /// NAME/bucket. May be given several times.
    #[arg(long = "host-name", value_name = "NAME", value_parser = parse_host_name)]
    pub(crate) host_names: Vec<String>,

    /// How to do I/O: auto is uring, or epoll where the system refuses io_uring.
    #[arg(long, value_enum, default_value_t = IoMode::Auto)]
    pub(crate) io: IoMode,

    /// How to do AES-256-GCM: auto is accelerated, unless that fails its test on this machine.
    #[arg(long, value_enum, default_value_t = EngineChoice::Auto)]
    pub(crate) engine: EngineChoice,

    /// Threads that serve. Default: one for each core.
    #[arg(long, value_name = "N", value_parser = parse_threads)]
    pub(crate) threads: Option<usize>,

    /// When told to end (SIGTERM), how many seconds requests in flight may go on; no further ones are taken meanwhile.
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = parse_grace)]
    pub(crate) grace: Duration,

    /// What to log to standard error: error, warn, info, debug or trace.
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub(crate) log: tracing::level_filters::LevelFilter,
}

/// The longest grace, in seconds: an hour.
const GRACE_MAX_S: u64 = 3600;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SyncMode {
    Always,
    Interval(Duration),
    Never,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum IoMode {
    Auto,
    Uring,
    Epoll,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum EngineChoice {
    Auto,
    Accelerated,
    Portable,
}

pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    text.parse::<ByteSize>()
        .map(|size| size.as_u64())
        .map_err(|_| "give a size such as 10GiB, 500MB or 1073741824".to_owned())
}

fn parse_sync(text: &str) -> Result<SyncMode, String> {
    let interval = || {
        let ms = text.strip_prefix("interval:")?.parse().ok().filter(|ms| *ms > 0)?;
        Some(SyncMode::Interval(Duration::from_millis(ms)))
    };
    match text {
        "always" => Ok(SyncMode::Always),
        "never" => Ok(SyncMode::Never),
        _ => interval().ok_or_else(|| "give always, never, or interval:MS with milliseconds above 0".to_owned()),
    }
}

fn parse_region(text: &str) -> Result<String, String> {
    let valid = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if valid { Ok(text.to_owned()) } else { Err("a region has letters, digits and hyphens".to_owned()) }
}

fn parse_host_name(text: &str) -> Result<String, String> {
    HostNames::check(text)?;
    Ok(text.to_owned())
}

fn parse_threads(text: &str) -> Result<usize, String> {
    let max = keyhole_log::limits::WORKERS_MAX;
    let threads = text.parse().ok().filter(|threads| (1..=max).contains(threads));
    threads.ok_or_else(|| format!("give a number from 1 to {max}"))
}

fn parse_grace(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|seconds| (1..=GRACE_MAX_S).contains(seconds));
    seconds.map(Duration::from_secs).ok_or_else(|| format!("give seconds from 1 to {GRACE_MAX_S}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn sizes() {
        assert_eq!(parse_size("10GiB"), Ok(10 << 30));
        assert_eq!(parse_size("500 MB"), Ok(500_000_000));
        assert_eq!(parse_size("123"), Ok(123));
        for bad in ["", "-1", "big", "1XB"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sync_modes() {
        assert_eq!(parse_sync("always"), Ok(SyncMode::Always));
        assert_eq!(parse_sync("interval:250"), Ok(SyncMode::Interval(Duration::from_millis(250))));
        for bad in ["", "interval", "interval:", "interval:0", "interval:-1", "sometimes"] {
            assert!(parse_sync(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn graces_have_bounds() {
        assert_eq!(parse_grace("1"), Ok(Duration::from_secs(1)));
        assert_eq!(parse_grace("3600"), Ok(Duration::from_secs(3600)));
        for bad in ["0", "3601", "-1", "10s", ""] {
            assert!(parse_grace(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn threads_have_bounds() {
        assert_eq!(parse_threads("1"), Ok(1));
        assert_eq!(parse_threads("256"), Ok(256));
        assert!(parse_threads("0").is_err() && parse_threads("257").is_err());
    }
}
