//! The directory of the benchmark's files.

use std::fs;
use std::path::{Path, PathBuf};

use super::super::{CommandError, Result};

/// The directory of all files, removed on drop.
pub(super) struct ScratchDirectory(tempfile::TempDir);

impl ScratchDirectory {
    pub(super) fn new(within: &Path) -> Result<Self> {
        let made = tempfile::Builder::new().prefix("keyhole-bench-").tempdir_in(within);
        let made =
            made.map_err(|error| CommandError::io(format!("cannot make a directory in {}", within.display()), error))?;
        Ok(ScratchDirectory(made))
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Frees the space of a store before the next one is created.
    pub(super) fn remove(&self, name: &str) -> Result<()> {
        let path = self.path(name);
        fs::remove_dir_all(&path).map_err(|error| CommandError::io(format!("cannot remove {}", path.display()), error))
    }
}
