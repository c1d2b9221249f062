//! The arguments of `keyhole config`.

use clap::{Args, Subcommand};

use super::serve::ServeOptions;

#[derive(Subcommand, Debug)]
pub(crate) enum ConfigCommand {
    /// Check the configuration and its files without starting a node.
    #[command(after_help = "Exit codes: 0 valid; 1 a node would not start with it; 2 invalid configuration.")]
    Check(ConfigCheckOptions),
    /// Show every effective option and its source, as a configuration file.
    Show(ConfigShowOptions),
}

#[derive(Args, Debug)]
pub(crate) struct ConfigCheckOptions {
    #[command(flatten)]
    pub(crate) serve: ServeOptions,
}

#[derive(Args, Debug)]
pub(crate) struct ConfigShowOptions {
    #[command(flatten)]
    pub(crate) serve: ServeOptions,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}
