//! The store that a command uses.

use std::path::PathBuf;

use clap::Args;

/// The store that a command uses.
#[derive(Args, Debug)]
pub(crate) struct Target {
    /// The data directory or block device. If a node serves it, the node executes the command.
    pub(crate) data: PathBuf,

    /// The directory of the control socket, if the node was given --state.
    #[arg(long, value_name = "DIR")]
    pub(crate) state: Option<PathBuf>,
}
