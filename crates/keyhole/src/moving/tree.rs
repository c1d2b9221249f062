//! Where the manifest is in an export that is a tree of files.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::manifest::{MANIFEST, is_piece};

/// How the name of a journal ends: what a run has finished that has not come to its end.
const JOURNAL: &str = ".partial";

/// What there is of the manifest, each in its order.
pub(crate) struct Manifests {
    /// The pieces of the whole manifest.
    pub(crate) pieces: Vec<PathBuf>,
    /// The journals of runs that did not come to their end.
    pub(crate) journals: Vec<PathBuf>,
}

/// The name of a run's journal, from the top of an export.
pub(crate) fn journal(number: u64) -> String {
    format!("{MANIFEST}/{number:08}{JOURNAL}")
}

/// The number of a run, if this is its journal.
pub(crate) fn is_journal(path: &Path) -> Option<u64> {
    let digits = path.file_name()?.to_str()?.strip_suffix(JOURNAL)?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

/// Looks for the manifest.
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
    // Beyond eight digits a number has more of them.
    let by_number = |path: &PathBuf| (path.as_os_str().len(), path.clone());
    found.pieces.sort_by_key(by_number);
    found.journals.sort_by_key(by_number);
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::moving::manifest::piece;

    #[test]
    fn pieces_and_journals_are_found_in_their_order() {
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
