//! The source of an export: a file tree or a stream, which is read in one pass.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

pub(crate) use super::handler::{Handler, Verdict};
use super::stream::Stream;
use super::tree::TreeReader;
use crate::commands::transfer::is_dash;
use crate::commands::{CommandError, Result};
use crate::transfer::tree::Tree;

/// An export.
pub(crate) enum ExportSource {
    Directory(PathBuf),
    Stream(Box<dyn Read>),
}

/// Opens a directory, or standard input.
pub(crate) fn open(from: &Path) -> Result<ExportSource> {
    if is_dash(from) {
        return Ok(ExportSource::Stream(Box::new(io::stdin())));
    }
    let there = std::fs::metadata(from);
    let there = there.map_err(|error| CommandError::io(format_args!("cannot read {}", from.display()), error))?;
    if there.is_dir() {
        return Ok(ExportSource::Directory(from.to_owned()));
    }
    let name = from.display();
    Err(CommandError::Usage(format!("{name} is not a directory; read a stream from standard input: `- < {name}`")))
}

impl ExportSource {
    /// Reads the whole export.
    pub(crate) fn read(self, handler: &mut dyn Handler) -> Result<()> {
        match self {
            ExportSource::Directory(path) => {
                let tree = Tree::open(&path);
                let tree =
                    tree.map_err(|error| CommandError::io(format_args!("cannot read {}", path.display()), error))?;
                TreeReader::new(path, tree, handler).read()
            }
            ExportSource::Stream(input) => Stream::new(handler).read(input),
        }
    }
}
