//! Shell completions and manual pages, generated from the command line's definition for packagers.

use std::fs;
use std::io;
use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;

use super::{CommandError, Result};
use crate::cli::Cli;

/// Prints the completion script of a shell.
pub(crate) fn completions(shell: Shell) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "keyhole", &mut script);
    // A reader that closes the pipe early does not want the rest.
    match io::Write::write_all(&mut io::stdout().lock(), &script) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(CommandError::io("standard output", error)),
        _ => Ok(()),
    }
}

/// Writes a manual page for each command that is not hidden.
pub(crate) fn man(directory: &Path) -> Result<()> {
    let failed = |error| CommandError::io(directory.display(), error);
    fs::create_dir_all(directory).map_err(failed)?;
    clap_mangen::generate_to(Cli::command(), directory).map_err(failed)
}
