//! The `keyhole` command: an S3 storage node for edge appliances, centred on SSE-C.
//!
//! The node's logic is in the library crates. This crate is everything that touches the machine:
//! rings and sockets, buffers, the clock, files, signals and the command line. Only [`uring`] names
//! tokio-uring.
//!
//! `keyhole serve` starts a node, `keyhole --help` lists all commands. The README has a quick start;
//! `docs/ARCHITECTURE.md` describes the threads, the crates, and the path of a request.

mod access;
mod admin;
mod audit;
mod background;
mod buffer;
mod cli;
mod commands;
mod config;
mod control;
mod engine;
mod env;
mod epoll;
mod error;
mod lock_clock;
mod medium;
mod memory;
mod metrics;
mod net;
mod observe;
mod platform;
mod process;
mod read_path;
mod regular;
mod reload;
mod remote;
mod serve;
mod service;
mod skip_sync;
mod status;
mod store;
mod transfer;
mod uring;
mod watchdog;
mod wiping;
mod worker;

use std::process::ExitCode;

use cli::Command;
use commands::CommandError;

/// Wipes freed memory, which may have held keys.
#[global_allocator]
static ALLOCATOR: wiping::WipingAllocator = wiping::WipingAllocator;

fn main() -> ExitCode {
    let (cli, sources) = config::parse();
    let result = match &cli.command {
        Command::Serve(options) => serve::serve(options, sources.warnings()).map_err(CommandError::from),
        Command::Config(command) => commands::config::run(command, &sources),
        Command::Status(options) => commands::status::run(options),
        Command::Key(command) => commands::key::run(command),
        Command::Seal(options) => commands::sealed::seal(options),
        Command::Open(options) => commands::sealed::open(options),
        Command::Inspect(options) => commands::sealed::inspect(options),
        Command::Chunked(command) => commands::chunked::run(command),
        Command::Bench(options) => commands::bench::run(options),
        Command::BenchDisk(options) => commands::bench_disk::run(options),
        Command::Stat(options) => commands::stat::run(options),
        Command::Compact(options) => commands::operate::compact(options),
        Command::Scrub(options) => commands::operate::scrub(options),
        Command::Check(options) => commands::check::run(options),
        Command::Access(command) => commands::access::run(command),
        Command::Bucket(command) => commands::bucket::run(command),
        Command::Clock(command) => commands::clock::run(command),
        Command::Remote(command) => commands::remote::run(command),
        Command::Tls(command) => commands::tls::run(command),
        Command::Export(options) => commands::export::run(options),
        Command::Import(options) => commands::import::run(options),
        Command::Verify(options) => commands::verify::run(options),
        Command::Completions { shell } => commands::generate::completions(*shell),
        Command::Man { directory } => commands::generate::man(directory),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("keyhole: {error}");
            error.exit_code()
        }
    }
}
