//! Servers in little memory, and stores without cached data.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use keyhole_tests::cgroup::MemoryGroup;

use super::scenario::Memory;
use crate::{Error, Result};

/// Bytes that the thread reads at a time.
const STEP: usize = 1 << 20;

/// A limit on the memory of a server: a control group or, where the system refuses one, a page cache
/// that is kept full.
pub(super) enum Limit {
    Group(MemoryGroup),
    FullCache { _filler: Filler },
}

impl Limit {
    /// Creates the limit; `None` for full memory. `directory` is where a file is read from to keep
    /// the page cache full.
    pub(super) fn new(memory: Memory, directory: &Path) -> Result<Option<Self>> {
        let Memory::Mib(limit) = memory else { return Ok(None) };
        match MemoryGroup::new(limit << 20) {
            Ok(group) => Ok(Some(Limit::Group(group))),
            Err(reason) => {
                eprintln!("{reason}; keeping the page cache full instead");
                Ok(Some(Limit::FullCache { _filler: Filler::start(directory)? }))
            }
        }
    }

    /// Returns a command that runs a program under the limit, if there is one.
    pub(super) fn command(limit: Option<&Self>, program: &Path) -> Command {
        let Some(Limit::Group(group)) = limit else { return Command::new(program) };
        let prefix = group.command();
        let mut command = Command::new(&prefix[0]);
        command.args(&prefix[1..]).arg(program);
        command
    }

    /// Describes how this system limits memory.
    pub(super) fn name() -> &'static str {
        match MemoryGroup::new(64 << 20) {
            Ok(_) => "a memory control group",
            Err(_) => "a page cache that is kept full (no memory control group could be created)",
        }
    }
}

/// A thread that reads a file as large as the memory again and again. The file has no blocks, so that
/// this does not use the disk.
pub(super) struct Filler {
    path: PathBuf,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Filler {
    fn start(directory: &Path) -> Result<Self> {
        let path = directory.join("fills-the-page-cache");
        let failed = |error: io::Error| Error::of(path.display(), error);
        let file = File::create(&path).and_then(|_| File::options().read(true).write(true).open(&path));
        let file = file.map_err(failed)?;
        let len = meminfo("MemTotal:").ok_or_else(|| Error::new("/proc/meminfo has no MemTotal"))?;
        file.set_len(len).map_err(failed)?;
        fill(&file, len, || false).map_err(failed)?;
        let is_over = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&is_over);
        let thread = thread::spawn(move || {
            while !ends.load(Ordering::Relaxed) {
                fill(&file, len, || ends.load(Ordering::Relaxed))?;
            }
            Ok(())
        });
        Ok(Filler { path, is_over, thread: Some(thread) })
    }
}

impl Drop for Filler {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(Ok(Err(error))) = self.thread.take().map(JoinHandle::join) {
            eprintln!("{}: {error}", self.path.display());
        }
        let _ = fs::remove_file(&self.path);
    }
}

/// Reads a file once through the page cache.
fn fill(file: &File, len: u64, is_over: impl Fn() -> bool) -> io::Result<()> {
    let mut bytes = vec![0; STEP];
    for at in (0..len / STEP as u64).map(|step| step * STEP as u64) {
        if is_over() {
            break;
        }
        file.read_exact_at(&mut bytes, at)?;
    }
    Ok(())
}

/// Returns a value of `/proc/meminfo` in bytes.
pub(super) fn meminfo(name: &str) -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let kib = text.lines().find_map(|line| line.strip_prefix(name))?.trim().strip_suffix(" kB")?.parse::<u64>();
    kib.ok().map(|kib| kib << 10)
}

/// Removes all files below a directory from the page cache.
pub(super) fn evict(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            evict(&entry.path())?;
        } else if kind.is_file() {
            match File::open(entry.path()) {
                Ok(file) => {
                    file.sync_data()?;
                    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
                }
                // A server may remove its files at any time.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eviction_reaches_files_in_directories() {
        let home = tempfile::tempdir_in(keyhole_tests::target_dir()).unwrap();
        fs::create_dir(home.path().join("a")).unwrap();
        fs::write(home.path().join("a/b"), vec![1; 1 << 20]).unwrap();
        evict(home.path()).unwrap();
        assert!(evict(&home.path().join("missing")).is_err());
    }

    #[test]
    fn filled_cache_ends_early_and_removes_its_file() {
        let home = tempfile::tempdir_in(keyhole_tests::target_dir()).unwrap();
        let path = home.path().join("file");
        let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        file.set_len(4 << 20).unwrap();
        fill(&file, 4 << 20, || false).unwrap();
        assert!(fill(&file, 8 << 20, || false).is_err() && fill(&file, 8 << 20, || true).is_ok());
        let is_over = Arc::new(AtomicBool::new(false));
        drop(Filler { path: path.clone(), is_over, thread: Some(thread::spawn(|| Ok(()))) });
        assert!(!path.exists() && meminfo("MemTotal:") > Some(1 << 20));
    }
}
