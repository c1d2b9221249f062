//! An export as a file tree, which can be interrupted at any time and resumed.
//!
//! A file is written under a temporary name. Once a batch is durable, its files are renamed, and
//! only then does the run's journal list them. Existing data is unchanged until the run is
//! complete: then the journal replaces the manifest, and files that it does not list are removed.

use std::collections::{HashMap, HashSet};
use std::fs::{self, DirBuilder, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::sink::{FileBytes, FileFailure, Sink};
use crate::commands::{CommandError, Result};
use crate::control::Scope;
use crate::transfer::entry::{BucketEntry, FileName, OBJECTS, ObjectEntry, Sha256};
use crate::transfer::manifest::{End, Line, Lines, MANIFEST, ManifestItem, VERSION, VERSION_PLAIN, piece};
use crate::transfer::tree::{Tree, is_journal, journal, manifests};
use crate::transfer::versions::MarkerEntry;

/// The name of the state file, which identifies the directory's export.
const STATE: &str = "keyhole-export.json";

/// Limit of its length in bytes. A longer one cannot be parsed.
const STATE_MAX: u64 = 64 << 10;

/// The suffix of an incomplete file's name.
const NEW: &str = "new";

/// Limits of a batch, in files, bytes and time: an interrupted run loses at most this much finished
/// work, in addition to the work in progress.
const BATCH_MAX: usize = 256;
const BATCH_BYTES_MAX: u64 = 64 << 20;
const BATCH_PERIOD: Duration = Duration::from_secs(1);

/// The content of the state file. A directory holds one export. The version is the highest that a run
/// has written.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
struct ExportState {
    version: u32,
    store: String,
    #[serde(flatten)]
    scope: Scope,
}

pub(super) struct Directory {
    path: PathBuf,
    tree: Tree,
    scope: Scope,
    /// The version of this run.
    version: u32,
    /// The state files that exclude other runs: that of earlier runs, and this run's if it has
    /// raised the version.
    locks: Vec<File>,
    /// Files completed by earlier runs.
    known: HashMap<FileName, (Sha256, u64)>,
    /// Files of this run.
    named: HashSet<FileName>,
    /// Existing directories.
    made: HashSet<String>,
    /// This run's journal.
    journal: Option<(String, BufWriter<File>)>,
    /// Lines of the journal that wait for the files of the batch.
    lines: Vec<u8>,
    /// The files of the batch: temporary and final paths.
    batch: Vec<(String, String)>,
    batch_bytes: u64,
    flushed: Instant,
}

/// The reason why a directory cannot hold this export.
#[derive(Error, Debug)]
enum ClaimError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("another export is writing to it")]
    InUse,
    #[error("it has an export of version {0}, but this program writes versions 1 to {version}", version = VERSION)]
    Version(u32),
    #[error("it has an export of another store")]
    OtherStore,
    #[error("it has an export of another --bucket or --prefix")]
    OtherScope,
    #[error("its {} cannot be read", STATE)]
    Unreadable,
}

impl Directory {
    /// Creates the directory if it is missing; refuses one with other content.
    pub(super) fn open(path: &Path, scope: &Scope) -> Result<Self> {
        let failed = |error| CommandError::io(format_args!("cannot use {}", path.display()), error);
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
        let tree = Tree::open(path).map_err(failed)?;
        let mut has_others = false;
        for entry in fs::read_dir(path).map_err(failed)? {
            // A first run that was killed may have left its state file under the temporary name alone.
            has_others |= entry.map_err(failed)?.file_name() != *new_state();
        }
        if has_others && tree.file_len(STATE).is_none() {
            return Err(CommandError::Other(format!(
                "{} has files that are not from an export; give another directory",
                path.display()
            )));
        }
        Ok(Directory {
            path: path.to_owned(),
            tree,
            scope: scope.clone(),
            version: VERSION_PLAIN,
            locks: Vec::new(),
            known: HashMap::new(),
            named: HashSet::new(),
            made: HashSet::new(),
            journal: None,
            lines: Vec::new(),
            batch: Vec::new(),
            batch_bytes: 0,
            flushed: Instant::now(),
        })
    }

    fn failed(&self, error: io::Error) -> CommandError {
        CommandError::io(format_args!("cannot write to {}", self.path.display()), error)
    }

    /// Claims the directory for this run: an existing export must have the same store and scope.
    fn claim(&mut self, store: &str) -> std::result::Result<(), ClaimError> {
        let state = ExportState { version: self.version, store: store.to_owned(), scope: self.scope.clone() };
        if self.tree.file_len(STATE).is_none() {
            let (_, new) = self.write_state(&state)?;
            self.tree.rename(&new, STATE)?;
        }
        let file = self.tree.open_file(STATE)?;
        lock(&file)?;
        let mut text = String::new();
        (&file).take(STATE_MAX).read_to_string(&mut text)?;
        self.locks.push(file);
        let Ok(found) = serde_json::from_str::<ExportState>(&text) else { return Err(ClaimError::Unreadable) };
        if !(VERSION_PLAIN..=VERSION).contains(&found.version) {
            return Err(ClaimError::Version(found.version));
        }
        if found.store != state.store {
            return Err(ClaimError::OtherStore);
        }
        if found.scope != state.scope {
            return Err(ClaimError::OtherScope);
        }
        if found.version < state.version {
            // Older programs must not write to it from now on. The new file is locked before it has
            // its name, so that it never admits another run.
            let (file, new) = self.write_state(&state)?;
            lock(&file)?;
            self.tree.rename(&new, STATE)?;
            self.sync()?;
            self.locks.push(file);
        }
        Ok(())
    }

    /// Writes a state file under a temporary name, and returns it and the name.
    fn write_state(&self, state: &ExportState) -> io::Result<(File, String)> {
        let new = new_state();
        let mut file = self.tree.create_file(&new)?;
        file.write_all(&serde_json::to_vec(state).map_err(io::Error::from)?)?;
        file.sync_all()?;
        Ok((file, new))
    }

    /// Loads the results of earlier runs. Files with unreadable lines are exported again.
    fn recall(&mut self) -> io::Result<()> {
        let found = manifests(&self.tree)?;
        for path in found.pieces.iter().chain(&found.journals) {
            let mut lines = Lines::new(BufReader::new(self.tree.open_file(path)?));
            loop {
                match lines.next()? {
                    ManifestItem::Line(Line::Object(entry)) => {
                        if let Some(sha256) = entry.sha256 {
                            self.known.insert(entry.file, (sha256, entry.length));
                        }
                    }
                    ManifestItem::Line(_) | ManifestItem::Bad(_) => {}
                    ManifestItem::Torn | ManifestItem::End => break,
                }
            }
        }
        let number = found.journals.last().and_then(|path| is_journal(path)).unwrap_or(0) + 1;
        self.tree.make_directory(MANIFEST)?;
        self.tree.make_directory(OBJECTS)?;
        let name = journal(number);
        let mut file = BufWriter::new(self.tree.create_file(&name)?);
        file.write_all(&Line::first(self.version).encode())?;
        self.journal = Some((name, file));
        Ok(())
    }

    /// Makes the files of the batch durable, renames them, and lists them in the journal.
    fn flush(&mut self) -> io::Result<()> {
        if !self.batch.is_empty() {
            self.sync()?;
            for (new, name) in self.batch.drain(..) {
                self.tree.rename(&new, &name)?;
            }
            self.batch_bytes = 0;
        }
        if let Some((_, journal)) = &mut self.journal {
            journal.write_all(&self.lines)?;
            journal.flush()?;
        }
        self.lines.clear();
        self.flushed = Instant::now();
        Ok(())
    }

    /// Syncs the whole file system once, instead of each file.
    fn sync(&self) -> io::Result<()> {
        // SAFETY: the call takes only a descriptor, which is open as long as the tree.
        match unsafe { libc::syncfs(self.tree.top().as_raw_fd()) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    fn line(&mut self, line: &Line) {
        self.lines.extend_from_slice(&line.encode());
    }

    /// Writes the bytes of a file under a temporary name; returns their digest or their error.
    fn write(
        &mut self,
        entry: &ObjectEntry,
        bytes: &mut FileBytes<'_>,
    ) -> Result<std::result::Result<Sha256, FileFailure>> {
        let name = entry.file.to_string();
        let new = format!("{name}.{NEW}");
        let directory = entry.file.directory();
        if !self.made.contains(&directory) {
            self.tree.make_directory(&directory).map_err(|error| self.failed(error))?;
            self.made.insert(directory);
        }
        let mut file = self.tree.create_file(&new).map_err(|error| self.failed(error))?;
        while bytes.advance()? {
            file.write_all(bytes.buf).map_err(|error| self.failed(error))?;
        }
        let digest = bytes.digest();
        if digest.is_ok() {
            // For human readers; an import uses the manifest.
            let _ = file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_millis(entry.modified_ms));
            self.batch.push((new, name));
            self.batch_bytes += entry.length;
        } else {
            self.tree.remove(&new).map_err(|error| self.failed(error))?;
        }
        Ok(digest)
    }

    /// Flushes lines that have no files in the batch.
    fn flush_if_long(&mut self) -> Result<()> {
        let is_long = self.lines.len() > 1 << 20;
        if is_long { self.flush().map_err(|error| self.failed(error)) } else { Ok(()) }
    }

    /// Replaces the manifest with the journal, and removes unlisted files.
    fn conclude(&mut self) -> io::Result<()> {
        self.flush()?;
        let Some((name, file)) = self.journal.take() else { return Ok(()) };
        drop(file.into_inner()?);
        self.sync()?;
        let old = manifests(&self.tree)?;
        let manifest = piece(1);
        self.tree.rename(&name, &manifest)?;
        self.sync()?;
        let mut gone = old.pieces.iter().chain(&old.journals).filter(|old| **old != name && **old != manifest);
        gone.try_for_each(|old| self.tree.remove(old))?;
        for directory in self.tree.names_in(OBJECTS)? {
            let directory = format!("{OBJECTS}/{directory}");
            // Neither a directory, which others may have put there, nor one behind a link.
            let Ok(names) = self.tree.names_in(&directory) else { continue };
            for name in names {
                let name = format!("{directory}/{name}");
                if self.is_stale(&name) {
                    self.tree.remove(&name)?;
                }
            }
        }
        Ok(())
    }

    /// Returns whether this is an export's file that is not listed. Foreign files stay.
    fn is_stale(&self, name: &str) -> bool {
        let without = name.strip_suffix(NEW).and_then(|name| name.strip_suffix('.'));
        match (without.map(FileName::parse), FileName::parse(name)) {
            (Some(Some(_)), _) => true,
            (_, Some(file)) => !self.named.contains(&file),
            _ => false,
        }
    }
}

/// Returns the temporary name of the state file.
fn new_state() -> String {
    format!("{STATE}.{NEW}")
}

/// Locks a state file.
fn lock(file: &File) -> std::result::Result<(), ClaimError> {
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(fs::TryLockError::WouldBlock) => Err(ClaimError::InUse),
        Err(fs::TryLockError::Error(error)) => Err(error.into()),
    }
}

impl Sink for Directory {
    fn begin(&mut self, store: &str, version: u32) -> Result<()> {
        self.version = version;
        self.claim(store).map_err(|error| match error {
            ClaimError::Io(error) => self.failed(error),
            why => {
                CommandError::Other(format!("cannot export to {}: {why}; give another directory", self.path.display()))
            }
        })?;
        self.recall().map_err(|error| self.failed(error))
    }

    fn bucket(&mut self, bucket: &BucketEntry) -> Result<()> {
        self.line(&Line::Bucket(bucket.clone()));
        Ok(())
    }

    fn marker(&mut self, marker: &MarkerEntry) -> Result<()> {
        self.line(&Line::Marker(marker.clone()));
        self.flush_if_long()
    }

    fn has(&mut self, entry: &ObjectEntry) -> Result<bool> {
        let Some((sha256, length)) = self.known.get(&entry.file) else { return Ok(false) };
        if *length != entry.length || self.tree.file_len(&entry.file.to_string()) != Some(*length) {
            return Ok(false);
        }
        self.named.insert(entry.file);
        self.line(&Line::Object(Box::new(ObjectEntry { sha256: Some(*sha256), ..entry.clone() })));
        self.flush_if_long()?;
        Ok(true)
    }

    fn object(&mut self, mut entry: ObjectEntry, bytes: &mut FileBytes<'_>) -> Result<Option<String>> {
        match self.write(&entry, bytes)? {
            Ok(sha256) => entry.sha256 = Some(sha256),
            Err(FileFailure(what)) => return Ok(Some(what)),
        }
        self.named.insert(entry.file);
        self.line(&Line::Object(Box::new(entry)));
        let is_due = self.flushed.elapsed() >= BATCH_PERIOD;
        if self.batch.len() >= BATCH_MAX || self.batch_bytes >= BATCH_BYTES_MAX || is_due {
            self.flush().map_err(|error| self.failed(error))?;
        }
        Ok(None)
    }

    fn end(&mut self, end: &End) -> Result<()> {
        self.line(&Line::End(*end));
        self.conclude().map_err(|error| self.failed(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directory_of_a_run_that_was_killed_at_its_start_is_accepted() {
        let top = tempfile::tempdir().unwrap();
        fs::write(top.path().join(new_state()), "{").unwrap();
        let mut directory = Directory::open(top.path(), &Scope::default()).unwrap();
        directory.claim("store").unwrap();
        assert!(directory.tree.file_len(&new_state()).is_none() && directory.tree.file_len(STATE).is_some());
        for other in ["file", "keyhole-export.json.new.new"] {
            let top = tempfile::tempdir().unwrap();
            for name in [&new_state(), other] {
                fs::write(top.path().join(name), "").unwrap();
            }
            assert!(Directory::open(top.path(), &Scope::default()).is_err(), "{other}");
        }
    }
}
