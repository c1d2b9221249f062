//! File systems of each kind in files of a given size, mounted for the duration of a test. They
//! need root.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::device::{LoopDevice, run, sparse};

/// Timeout of an unmount: the kernel first completes the I/O of a killed process.
const UNMOUNT_TIMEOUT: Duration = Duration::from_secs(30);

/// Length of the filler's writes while there is space.
const LONGEST_WRITE: usize = 1 << 20;

/// Length of its last and shortest writes.
const SHORTEST_WRITE: usize = 512;

/// A kind of file system.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// ext4 as created by `mkfs.ext4`.
    Ext4,
    /// ext4 with block maps, as ext2 and ext3 have them: `fallocate` is not supported.
    Ext4WithoutExtents,
    /// XFS as created by `mkfs.xfs`.
    Xfs,
    /// btrfs: copy on write, so that an allocation does not guarantee a write.
    Btrfs,
    /// tmpfs, in memory.
    Tmpfs,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Kind; 5] = [Kind::Ext4, Kind::Ext4WithoutExtents, Kind::Xfs, Kind::Btrfs, Kind::Tmpfs];

    /// Returns the name, for messages.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Ext4 => "ext4",
            Kind::Ext4WithoutExtents => "ext4 without extents",
            Kind::Xfs => "XFS",
            Kind::Btrfs => "btrfs",
            Kind::Tmpfs => "tmpfs",
        }
    }

    /// Returns the type for `mount`.
    fn mount_type(self) -> &'static str {
        match self {
            Kind::Ext4 | Kind::Ext4WithoutExtents => "ext4",
            Kind::Xfs => "xfs",
            Kind::Btrfs => "btrfs",
            Kind::Tmpfs => "tmpfs",
        }
    }

    /// Returns the command that creates it, without the file argument; `None` for tmpfs.
    fn make(self) -> Option<(&'static str, &'static [&'static str])> {
        match self {
            Kind::Ext4 => Some(("mkfs.ext4", &["-q", "-F", "-m", "0"])),
            Kind::Ext4WithoutExtents => Some(("mkfs.ext4", &["-q", "-F", "-m", "0", "-O", "^extent,^64bit"])),
            Kind::Xfs => Some(("mkfs.xfs", &["-q", "-f"])),
            Kind::Btrfs => Some(("mkfs.btrfs", &["-q", "-f"])),
            Kind::Tmpfs => None,
        }
    }
}

/// A mounted file system, unmounted on drop. Processes that use it must have exited by then.
pub struct MountedFs {
    kind: Kind,
    len: u64,
    device: Option<LoopDevice>,
    is_mounted: bool,
    home: TempDir,
}

impl MountedFs {
    /// Creates and mounts a file system of this size, or returns the reason why the system refuses
    /// it. XFS needs 300 MiB.
    pub fn new(kind: Kind, len: u64) -> Result<Self, String> {
        let home = tempfile::Builder::new().prefix("keyhole-mounted-").tempdir().expect("a temporary directory");
        if let Some((program, arguments)) = kind.make() {
            let image = sparse(home.path(), len);
            run(program, arguments.iter().map(AsRef::as_ref).chain([image.as_os_str()]))?;
        }
        let mut mounted = MountedFs { kind, len, device: None, is_mounted: false, home };
        std::fs::create_dir(mounted.point()).expect("a directory");
        mounted.mount()?;
        Ok(mounted)
    }

    /// Returns the mount point.
    pub fn point(&self) -> PathBuf {
        self.home.path().join("mount")
    }

    /// Returns a directory outside the mount.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// Mounts it again after [`unmount`](Self::unmount).
    pub fn mount(&mut self) -> Result<(), String> {
        let kind = self.kind.mount_type();
        let point = self.point();
        if self.kind == Kind::Tmpfs {
            let size = format!("size={}", self.len);
            run("mount", ["-t", kind, "-o", &size, "none"].iter().map(AsRef::as_ref).chain([point.as_os_str()]))?;
        } else {
            let device = LoopDevice::attach(&self.home.path().join("image"))?;
            run("mount", ["-t".as_ref(), kind.as_ref(), device.path().as_os_str(), point.as_os_str()])?;
            self.device = Some(device);
        }
        self.is_mounted = true;
        Ok(())
    }

    /// Unmounts it as soon as it is no longer busy. Its content is kept, except on tmpfs.
    pub fn unmount(&mut self) -> Result<(), String> {
        let begun = Instant::now();
        while let Err(error) = run("umount", [self.point()]) {
            if begun.elapsed() > UNMOUNT_TIMEOUT {
                return Err(error);
            }
            thread::sleep(Duration::from_millis(10));
        }
        self.is_mounted = false;
        self.device = None;
        Ok(())
    }

    /// Remounts it read-only. None of its files may be open for writing.
    pub fn remount_read_only(&self) -> Result<(), String> {
        run("mount", ["-o".as_ref(), "remount,ro".as_ref(), self.point().as_os_str()]).map(drop)
    }

    /// Returns the number of free bytes.
    pub fn free(&self) -> u64 {
        let stat = rustix::fs::statvfs(self.point()).expect("a mounted file system");
        stat.f_bavail * stat.f_frsize
    }

    /// Fills it with a file until no sector can be written.
    pub fn fill(&self) -> FillerFile {
        let path = self.point().join("filler");
        let mut file = OpenOptions::new().create(true).append(true).open(&path).expect("a file");
        let mut len = LONGEST_WRITE;
        while len >= SHORTEST_WRITE {
            // Write-back can release an excess reservation: the file uses that space as well.
            let written = file.write_all(&vec![0x6e; len]).and_then(|()| flushed(&file, len));
            if written.is_err() {
                len /= 2;
            }
        }
        let _ = file.sync_all();
        FillerFile { path }
    }
}

/// Flushes short writes immediately, since their errors would otherwise be delayed.
fn flushed(file: &File, len: usize) -> io::Result<()> {
    if len < LONGEST_WRITE { file.sync_data() } else { Ok(()) }
}

impl Drop for MountedFs {
    fn drop(&mut self) {
        if !self.is_mounted {
            return;
        }
        if let Err(error) = self.unmount() {
            eprintln!("{error}");
            let _ = run("umount", ["--lazy".as_ref(), self.point().as_os_str()]);
        }
    }
}

/// The file of another program that fills a file system.
pub struct FillerFile {
    path: PathBuf,
}

impl FillerFile {
    /// Frees its space.
    pub fn remove(self) {
        std::fs::remove_file(&self.path).expect("the filler file");
        let directory = File::open(self.path.parent().expect("a directory")).expect("a directory");
        let _ = rustix::fs::syncfs(directory);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::skipped;

    #[test]
    fn file_system_of_each_kind_fills_and_empties() {
        for kind in Kind::ALL {
            let mut mounted = match MountedFs::new(kind, 320 << 20) {
                Ok(mounted) => mounted,
                Err(reason) => {
                    skipped(kind.name(), &reason);
                    continue;
                }
            };
            let before = mounted.free();
            assert!(before > 64 << 20, "{}: {before} B", kind.name());
            let filler = mounted.fill();
            // XFS counts some reserved pages as free.
            let more = std::fs::write(mounted.point().join("more"), vec![1; 128 << 10]);
            assert_eq!(more.unwrap_err().kind(), io::ErrorKind::StorageFull, "{}", kind.name());
            filler.remove();
            assert!(mounted.free() > 64 << 20, "{}: {} B", kind.name(), mounted.free());
            std::fs::write(mounted.point().join("file"), "kept").unwrap();
            mounted.remount_read_only().unwrap();
            assert!(std::fs::write(mounted.point().join("file"), "changed").is_err());
            if kind != Kind::Tmpfs {
                mounted.unmount().unwrap();
                mounted.mount().unwrap();
                assert_eq!(std::fs::read(mounted.point().join("file")).unwrap(), b"kept");
            }
        }
    }
}
