//! Inode numbers of the faulty file system and their paths.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// Inode number of the root.
pub(super) const ROOT: u64 = 1;

/// A two-way map between inode numbers and paths relative to the root.
pub(super) struct Inodes {
    paths: HashMap<u64, PathBuf>,
    numbers: HashMap<PathBuf, u64>,
    next: u64,
}

impl Inodes {
    pub(super) fn new() -> Self {
        let root = PathBuf::new();
        Inodes { paths: [(ROOT, root.clone())].into(), numbers: [(root, ROOT)].into(), next: ROOT + 1 }
    }

    /// Returns the path of a number.
    pub(super) fn path(&self, number: u64) -> Option<&Path> {
        self.paths.get(&number).map(PathBuf::as_path)
    }

    /// Returns the path of a name in a directory.
    pub(super) fn child(&self, parent: u64, name: &OsStr) -> Option<PathBuf> {
        Some(self.path(parent)?.join(name))
    }

    /// Returns the number of a path, and assigns one if necessary.
    pub(super) fn number(&mut self, path: &Path) -> u64 {
        if let Some(number) = self.numbers.get(path) {
            return *number;
        }
        let number = self.next;
        self.next += 1;
        self.numbers.insert(path.to_owned(), number);
        self.paths.insert(number, path.to_owned());
        number
    }

    /// Removes the number of a deleted path and returns it. Open files keep the path for their
    /// messages.
    pub(super) fn remove(&mut self, path: &Path) -> Option<u64> {
        self.numbers.remove(path)
    }

    /// Renames a path and all paths below it. Returns the number that the target had.
    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> Option<u64> {
        let replaced = self.numbers.remove(to);
        let below: Vec<PathBuf> = self.numbers.keys().filter(|path| path.starts_with(from)).cloned().collect();
        for old in below {
            let rest = old.strip_prefix(from).expect("a path below `from`");
            let new = if rest.as_os_str().is_empty() { to.to_owned() } else { to.join(rest) };
            if let Some(number) = self.numbers.remove(&old) {
                self.numbers.insert(new.clone(), number);
                self.paths.insert(number, new);
            }
        }
        replaced
    }
}
