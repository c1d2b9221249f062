//! Files of an export that is a file tree, and the location of its manifest.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, mkdirat, openat, renameat, statat, unlinkat};
use rustix::io::Errno;

use super::manifest::{MANIFEST, is_piece};
use crate::regular;

/// The suffix of a journal: the lines that an unfinished run has completed.
const JOURNAL: &str = ".partial";

/// The top of an export, whose files are opened without following symbolic links: an export may
/// come from elsewhere, and others may be able to write to its directory.
pub(crate) struct Tree {
    top: OwnedFd,
}

/// A directory below the top, and the name of a file in it.
struct Place<'n> {
    directory: Option<OwnedFd>,
    name: &'n str,
}

impl Tree {
    /// Opens a directory. Its own path may have symbolic links.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Tree { top: rustix::fs::open(path, flags, Mode::empty())? })
    }

    pub(crate) fn top(&self) -> BorrowedFd<'_> {
        self.top.as_fd()
    }

    /// Opens a regular file for reading.
    pub(crate) fn open_file(&self, name: &str) -> io::Result<File> {
        self.file(name, OFlags::RDONLY, Mode::empty())
    }

    /// Creates a regular file that is private to its owner, or empties it.
    pub(crate) fn create_file(&self, name: &str) -> io::Result<File> {
        self.file(name, OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC, Mode::RUSR | Mode::WUSR)
    }

    /// Creates a directory that is private to its owner, if it is missing.
    pub(crate) fn make_directory(&self, name: &str) -> io::Result<()> {
        let place = self.place(name)?;
        match mkdirat(self.directory(&place), place.name, Mode::RWXU) {
            Ok(()) => Ok(()),
            // Fails unless it is a directory.
            Err(Errno::EXIST) => self.step(self.directory(&place), place.name).map(drop),
            Err(error) => Err(error.into()),
        }
    }

    /// Renames a file.
    pub(crate) fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let from = self.place(from)?;
        let to = self.place(to)?;
        Ok(renameat(self.directory(&from), from.name, self.directory(&to), to.name)?)
    }

    /// Removes a file.
    pub(crate) fn remove(&self, name: &str) -> io::Result<()> {
        let place = self.place(name)?;
        Ok(unlinkat(self.directory(&place), place.name, AtFlags::empty())?)
    }

    /// Returns the length of a regular file; `None` if there is none.
    pub(crate) fn file_len(&self, name: &str) -> Option<u64> {
        let place = self.place(name).ok()?;
        let found = statat(self.directory(&place), place.name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        let is_file = FileType::from_raw_mode(found.st_mode).is_file();
        is_file.then(|| u64::try_from(found.st_size).unwrap_or(0))
    }

    /// Returns the names of the files in a directory; none if it is missing.
    pub(crate) fn names_in(&self, directory: &str) -> io::Result<Vec<String>> {
        let place = self.place(directory)?;
        let opened = match self.step(self.directory(&place), place.name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            opened => opened?,
        };
        let mut names = Vec::new();
        for entry in Dir::read_from(opened)? {
            // No name of an export has other bytes.
            if let Ok(name) = entry?.file_name().to_str() {
                names.push(name.to_owned());
            }
        }
        names.retain(|name| name != "." && name != "..");
        Ok(names)
    }

    fn file(&self, name: &str, flags: OFlags, mode: Mode) -> io::Result<File> {
        let place = self.place(name)?;
        let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        match openat(self.directory(&place), place.name, flags, mode) {
            Ok(file) => regular::check(file.into()),
            Err(Errno::LOOP) => Err(is_link()),
            Err(error) => Err(error.into()),
        }
    }

    /// Opens the directory that contains a file, one name at a time.
    fn place<'n>(&self, name: &'n str) -> io::Result<Place<'n>> {
        let (directories, name) = name.rsplit_once('/').unwrap_or(("", name));
        let mut directory = None;
        for name in directories.split('/').filter(|name| !name.is_empty()) {
            let above = directory.as_ref().map_or(self.top(), AsFd::as_fd);
            directory = Some(self.step(above, name)?);
        }
        Ok(Place { directory, name })
    }

    fn directory<'p>(&'p self, place: &'p Place<'_>) -> BorrowedFd<'p> {
        place.directory.as_ref().map_or(self.top(), AsFd::as_fd)
    }

    fn step(&self, directory: BorrowedFd<'_>, name: &str) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat(directory, name, flags, Mode::empty()).map_err(|error| {
            let is_link_there = || {
                let found = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW);
                found.is_ok_and(|found| FileType::from_raw_mode(found.st_mode).is_symlink())
            };
            if matches!(error, Errno::LOOP | Errno::NOTDIR) && is_link_there() { is_link() } else { error.into() }
        })
    }
}

fn is_link() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "a symbolic link, which is not followed in an export")
}

/// The files of the manifest, each kind in order, as paths from the top.
pub(crate) struct Manifests {
    /// The pieces of the manifest.
    pub(crate) pieces: Vec<String>,
    /// The journals of unfinished runs.
    pub(crate) journals: Vec<String>,
}

/// Returns the name of a run's journal, relative to the top of an export.
pub(crate) fn journal(number: u64) -> String {
    format!("{MANIFEST}/{number:08}{JOURNAL}")
}

/// Returns the number of the run that this is the journal of, if it is one.
pub(crate) fn is_journal(path: &str) -> Option<u64> {
    let digits = path.strip_prefix(MANIFEST)?.strip_prefix('/')?.strip_suffix(JOURNAL)?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

/// Finds the files of the manifest.
pub(crate) fn manifests(tree: &Tree) -> io::Result<Manifests> {
    let mut found = Manifests { pieces: Vec::new(), journals: Vec::new() };
    for name in tree.names_in(MANIFEST)? {
        let path = format!("{MANIFEST}/{name}");
        if is_piece(&path) {
            found.pieces.push(path);
        } else if is_journal(&path).is_some() {
            found.journals.push(path);
        }
    }
    // Numbers beyond eight digits have longer names.
    found.pieces.sort_by_key(|path| (path.len(), path.clone()));
    found.journals.sort_by_key(|path| (path.len(), path.clone()));
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::transfer::manifest::piece;

    #[test]
    fn pieces_and_journals_are_found_in_order() {
        let top = tempfile::tempdir().unwrap();
        let tree = Tree::open(top.path()).unwrap();
        assert!(manifests(&tree).unwrap().pieces.is_empty(), "there is none");
        fs::create_dir(top.path().join(MANIFEST)).unwrap();
        let pieces = [piece(1), piece(2), piece(10), piece(99_999_999), piece(100_000_000)];
        let journals = [journal(1), journal(12)];
        for name in pieces.iter().chain(&journals).chain([&"manifest/notes.txt".to_owned()]) {
            fs::write(top.path().join(name), "").unwrap();
        }
        let found = manifests(&tree).unwrap();
        assert_eq!(found.pieces, pieces);
        assert_eq!(found.journals.iter().map(|path| is_journal(path)).collect::<Vec<_>>(), [Some(1), Some(12)]);
    }

    #[test]
    fn symbolic_links_and_fifos_are_refused() {
        let home = tempfile::tempdir().unwrap();
        let outside = home.path().join("outside");
        let top = home.path().join("export");
        fs::create_dir_all(outside.join("ab")).unwrap();
        fs::create_dir_all(top.join("objects/cd")).unwrap();
        fs::write(outside.join("ab/file"), "outside").unwrap();
        fs::write(top.join("objects/cd/file"), "inside").unwrap();
        symlink(outside.join("ab"), top.join("objects/ab")).unwrap();
        symlink("../cd/file", top.join("objects/cd/link")).unwrap();
        symlink(&outside, top.join(MANIFEST)).unwrap();
        let kind = FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, top.join("objects/cd/fifo"), kind, 0o600.into(), 0).unwrap();
        // The path of the top itself may be a link.
        symlink(&top, home.path().join("here")).unwrap();
        let tree = Tree::open(&home.path().join("here")).unwrap();
        assert_eq!(io::read_to_string(tree.open_file("objects/cd/file").unwrap()).unwrap(), "inside");
        assert_eq!(tree.file_len("objects/cd/file"), Some(6));
        assert_eq!((tree.file_len("objects/cd/link"), tree.file_len("objects/ab/file")), (None, None));
        for (result, part) in [
            (tree.open_file("objects/ab/file").map(drop), "symbolic link"),
            (tree.open_file("objects/cd/link").map(drop), "symbolic link"),
            (tree.create_file("objects/ab/file").map(drop), "symbolic link"),
            (tree.create_file("objects/cd/link").map(drop), "symbolic link"),
            (tree.create_file("objects/ab/new").map(drop), "symbolic link"),
            (tree.make_directory("objects/ab"), "symbolic link"),
            (tree.remove("objects/ab/file"), "symbolic link"),
            (tree.rename("objects/cd/file", "objects/ab/file"), "symbolic link"),
            (tree.open_file("objects/cd/fifo").map(drop), "FIFO"),
            (tree.open_file("objects/cd").map(drop), "directory"),
            (manifests(&tree).map(drop), "symbolic link"),
        ] {
            let error = result.unwrap_err().to_string();
            assert!(error.contains(part), "{part} in {error}");
        }
        assert_eq!(fs::read(outside.join("ab/file")).unwrap(), b"outside");
    }
}
