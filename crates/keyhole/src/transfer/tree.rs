//! The location of the manifest in an export that is a file tree.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::manifest::{MANIFEST, is_piece};

/// The suffix of a journal: the lines that an unfinished run has completed.
const JOURNAL: &str = ".partial";

/// The files of the manifest, each kind in order.
pub(crate) struct Manifests {
    /// The pieces of the manifest.
    pub(crate) pieces: Vec<PathBuf>,
    /// The journals of unfinished runs.
    pub(crate) journals: Vec<PathBuf>,
}

/// Returns the name of a run's journal, relative to the top of an export.
pub(crate) fn journal(number: u64) -> String {
    format!("{MANIFEST}/{number:08}{JOURNAL}")
}

/// Returns the number of the run that this is the journal of, if it is one.
pub(crate) fn is_journal(path: &Path) -> Option<u64> {
    let digits = path.file_name()?.to_str()?.strip_suffix(JOURNAL)?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

/// Finds the files of the manifest.
pub(crate) fn manifests(top: &Path) -> io::Result<Manifests> {
    let mut found = Manifests { pieces: Vec::new(), journals: Vec::new() };
    let entries = match fs::read_dir(top.join(MANIFEST)) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if is_piece(&format!("{MANIFEST}/{name}")) {
            found.pieces.push(path);
        } else if is_journal(&path).is_some() {
            found.journals.push(path);
        }
    }
    // Numbers beyond eight digits have longer names.
    let by_number = |path: &PathBuf| (path.as_os_str().len(), path.clone());
    found.pieces.sort_by_key(by_number);
    found.journals.sort_by_key(by_number);
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transfer::manifest::piece;

    #[test]
    fn pieces_and_journals_are_found_in_order() {
        let top = tempfile::tempdir().unwrap();
        assert!(manifests(top.path()).unwrap().pieces.is_empty(), "there is none");
        fs::create_dir(top.path().join(MANIFEST)).unwrap();
        let pieces = [piece(1), piece(2), piece(10), piece(99_999_999), piece(100_000_000)];
        let journals = [journal(1), journal(12)];
        for name in pieces.iter().chain(&journals).chain([&"manifest/notes.txt".to_owned()]) {
            fs::write(top.path().join(name), "").unwrap();
        }
        let found = manifests(top.path()).unwrap();
        assert!(found.pieces.iter().eq(pieces.iter().map(|name| top.path().join(name)).collect::<Vec<_>>().iter()));
        assert_eq!(found.journals.iter().map(|path| is_journal(path)).collect::<Vec<_>>(), [Some(1), Some(12)]);
    }
}
