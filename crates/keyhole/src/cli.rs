//! The definition of the command line: its types and the parsers of their values.

pub(crate) mod access;
pub(crate) mod bench;
pub(crate) mod bucket;
mod clock;
pub(crate) mod config;
pub(crate) mod remote;
pub(crate) mod sealed;
pub(crate) mod serve;
pub(crate) mod store;
mod target;
pub(crate) mod tls;
pub(crate) mod transfer;
pub(crate) mod values;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

pub(crate) use clock::ClockCommand;
pub(crate) use target::Target;

use access::AccessCommand;
use bench::{BenchDiskOptions, BenchOptions};
use bucket::BucketCommand;
use config::ConfigCommand;
use remote::RemoteCommand;
use sealed::{ChunkedCommand, InspectOptions, KeyCommand, OpenOptions, SealOptions};
use serve::ServeOptions;
use store::{CheckOptions, ScrubOptions, StatOptions, StatusOptions};
use tls::TlsCommand;
use transfer::{ExportOptions, ImportOptions, VerifyOptions};

/// An S3 storage node for edge appliances, centred on SSE-C: encryption with customer-provided
/// keys.
///
/// Exit codes: 0 success; 1 failure; 2 wrong usage; 3 the input does not authenticate or is
/// malformed; 4 damage remains in the store (check, scrub, export).
#[derive(Parser, Debug)]
#[command(version, about, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Run the node.
    ///
    /// Every option can also be set in the environment, as KEYHOLE_TLS_LISTEN (with commas between
    /// list items), or in the file that --config names, as tls-listen = "...". Precedence: command
    /// line, environment, configuration file.
    Serve(Box<ServeOptions>),
    /// Check and show the configuration of a node.
    #[command(subcommand)]
    Config(Box<ConfigCommand>),
    /// Show the status of a node: activity, resources and conditions that need attention.
    #[command(
        after_help = "Exit codes: 0 healthy; 1 unhealthy, or no node answers; 2 usage error; 4 damage was found."
    )]
    Status(StatusOptions),
    /// Create and show customer keys.
    #[command(subcommand)]
    Key(KeyCommand),
    /// Seal a plaintext into a sealed object file.
    Seal(SealOptions),
    /// Open a sealed object file.
    Open(OpenOptions),
    /// Show the content of a sealed object file that is visible without a key.
    Inspect(InspectOptions),
    /// Seal and open bare chunked messages.
    #[command(subcommand)]
    Chunked(ChunkedCommand),
    /// Measure the encryption throughput of this machine.
    Bench(BenchOptions),
    /// Measure the object file on this disk.
    BenchDisk(BenchDiskOptions),
    /// Show the use of space in a store, and the writes to it.
    Stat(StatOptions),
    /// Reclaim deleted space now.
    Compact(Target),
    /// Verify every object of a store, at a limited rate.
    #[command(after_help = "Exit codes: 0 sound; 1 failed; 2 usage error; 4 damage was found.")]
    Scrub(ScrubOptions),
    /// Verify and repair a store that no node serves.
    ///
    /// Lists every damaged object by bucket and key, and whether it is repairable or lost.
    #[command(
        after_help = "Exit codes: 0 sound, or completely repaired; 1 failed, for example because the store is in use; \
                            2 usage error; 4 damage remains."
    )]
    Check(CheckOptions),
    /// Create, list and remove the access keys that requests are signed with.
    ///
    /// A node that serves the store applies the change at once.
    #[command(subcommand)]
    Access(AccessCommand),
    /// Show and change the quota, expiry and policy of a bucket.
    #[command(subcommand)]
    Bucket(BucketCommand),
    /// Accept the wall clock for object lock.
    #[command(subcommand)]
    Clock(ClockCommand),
    /// Manage remotes: buckets in other S3 services that receive copies of the node's objects.
    /// Needs no customer key.
    ///
    /// A node that serves the store applies the change at once.
    #[command(subcommand)]
    Remote(Box<RemoteCommand>),
    /// Copy objects and buckets out of a store, for a backup or a move. Needs no key.
    ///
    /// Objects under customer keys are exported unchanged as sealed object files, other objects as
    /// their content. A manifest has everything else. If the same directory is given again, the
    /// export is resumed and brought up to date.
    #[command(
        after_help = "Exit codes: 0 complete; 1 failed, the files so far are valid; 2 usage error; 4 damaged objects \
                            were left out."
    )]
    Export(ExportOptions),
    /// Copy an export into a store. Needs no key.
    ///
    /// Every file is verified before its object appears. If the command is run again, it skips what
    /// already exists.
    #[command(
        after_help = "Exit codes: 0 complete; 1 failed, or an object or bucket was refused or differs; 2 usage error; \
                            3 the export is damaged or incomplete, the rest was imported."
    )]
    Import(ImportOptions),
    /// Verify every file of an export, without a store and without a key.
    #[command(after_help = "Exit codes: 0 sound and complete; 1 failed; 2 usage error; 3 damaged or incomplete.")]
    Verify(VerifyOptions),
    /// Create and show certificates for HTTPS.
    #[command(subcommand)]
    Tls(TlsCommand),
    /// Print the completion script of a shell.
    #[command(hide = true)]
    Completions {
        /// The shell.
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
    /// Write the manual pages.
    #[command(hide = true)]
    Man {
        /// The output directory, created if it is missing.
        directory: PathBuf,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
