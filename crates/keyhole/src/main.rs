//! The `keyhole` command: an S3 storage node for edge appliances, centred on SSE-C.
//!
//! What the node does is in the crates below; this one has what touches the machine: rings and sockets, buffers, the
//! clock, files, signals, the command line. tokio-uring is named in [`uring`] alone.

mod buffer;
mod cli;
mod credentials;
mod engine;
mod env;
mod epoll;
mod process;
mod serve;
mod store;
mod uring;
mod worker;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    let result = match cli.command {
        cli::Command::Serve(options) => serve::serve(options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("keyhole: {message}");
            ExitCode::FAILURE
        }
    }
}
