//! Loop devices and file systems on them, for the duration of a test. They need root.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::ioctl::{Opcode, Setter, ioctl, opcode};
use tempfile::TempDir;

/// Timeout until files of a killed process are closed: the kernel completes its I/O first.
const UNMOUNT_TIMEOUT: Duration = Duration::from_secs(30);

/// `FS_IOC_SHUTDOWN` (`EXT4_IOC_SHUTDOWN`): `_IOR('X', 125, __u32)`, although the number is an
/// input.
const SHUTDOWN: Opcode = opcode::read::<u32>(b'X', 125);

/// `EXT4_GOING_FLAGS_NOLOGFLUSH`: flushes neither data nor the journal.
const WITHOUT_LOG_FLUSH: u32 = 2;

/// Runs a program to its end and returns its output, or the reason of its failure.
pub fn run<A: AsRef<OsStr>>(program: &str, arguments: impl IntoIterator<Item = A>) -> Result<String, String> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        Err(format!("{program}: {}: {}", output.status, text(&output.stderr)))
    }
}

/// Reports a skipped test and the reason, bypassing the output capture of the test runner.
pub fn skipped(test: &str, reason: &str) {
    let _ = writeln!(io::stderr(), "skipped: {test}: {reason}");
}

/// A file as a block device, detached on drop.
pub struct LoopDevice {
    path: PathBuf,
}

impl LoopDevice {
    /// Attaches a file, or returns the reason why the system refuses it.
    pub fn attach(file: &Path) -> Result<Self, String> {
        let arguments = ["--find".as_ref(), "--show".as_ref(), file.as_os_str()];
        run("losetup", arguments).map(|path| LoopDevice { path: path.into() })
    }

    /// Returns the path of the device.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        // A device still open is detached when it is closed.
        if let Err(error) = run("losetup", ["--detach".as_ref(), self.path.as_os_str()]) {
            eprintln!("cannot detach {}: {error}", self.path.display());
        }
    }
}

/// Creates a sparse file of this length in a directory.
pub(crate) fn sparse(directory: &Path, len: u64) -> PathBuf {
    let path = directory.join("image");
    File::create(&path).and_then(|file| file.set_len(len)).expect("a sparse file");
    path
}

/// An empty block device and its backing file.
pub struct EmptyDevice {
    device: LoopDevice,
    home: TempDir,
}

impl EmptyDevice {
    /// Creates a device of this length, or returns the reason why the system refuses it.
    pub fn new(len: u64) -> Result<Self, String> {
        let home = tempfile::tempdir().expect("a temporary directory");
        let device = LoopDevice::attach(&sparse(home.path(), len))?;
        Ok(EmptyDevice { device, home })
    }

    /// Returns a directory for files that belong to the device but are stored elsewhere.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// Returns the path of the device.
    pub fn path(&self) -> &Path {
        self.device.path()
    }

    /// Creates an ext4 file system on it.
    pub fn make_ext4(&self) -> Result<(), String> {
        make_ext4(self.path())
    }
}

fn make_ext4(path: &Path) -> Result<(), String> {
    run("mkfs.ext4", ["-q".as_ref(), "-F".as_ref(), path.as_os_str()]).map(drop)
}

/// An ext4 file system in a file, with a simulated power switch. Processes that use it must have
/// exited before it is dropped.
pub struct Volume {
    /// The mounted device.
    device: Option<LoopDevice>,
    home: TempDir,
}

impl Volume {
    /// Creates and mounts a file system, or returns the reason why the system refuses it.
    pub fn new(len: u64) -> Result<Self, String> {
        let home = tempfile::Builder::new().prefix("keyhole-volume-").tempdir().expect("a temporary directory");
        make_ext4(&sparse(home.path(), len))?;
        let mut volume = Volume { device: None, home };
        std::fs::create_dir(volume.point()).expect("a directory");
        volume.mount()?;
        Ok(volume)
    }

    /// Returns the mount point.
    pub fn point(&self) -> PathBuf {
        self.home.path().join("mount")
    }

    fn mount(&mut self) -> Result<(), String> {
        let device = LoopDevice::attach(&self.home.path().join("image"))?;
        run("mount", ["-t".as_ref(), "ext4".as_ref(), device.path().as_os_str(), self.point().as_os_str()])?;
        self.device = Some(device);
        Ok(())
    }

    /// Unmounts it as soon as it is no longer busy.
    fn unmount(&mut self) -> Result<(), String> {
        let begun = Instant::now();
        while let Err(error) = run("umount", [self.point()]) {
            if begun.elapsed() > UNMOUNT_TIMEOUT {
                return Err(error);
            }
            thread::sleep(Duration::from_millis(5));
        }
        self.device = None;
        Ok(())
    }

    fn open(&self) -> File {
        File::open(self.point()).expect("the volume is mounted")
    }

    /// Makes its content durable.
    pub fn sync(&self) {
        rustix::fs::syncfs(self.open()).expect("the volume can be synced");
    }

    /// Stops the file system immediately, as a power failure does: data in memory never reach the
    /// device.
    pub fn cut_power(&self) {
        // SAFETY: the kernel reads one u32 from the argument and writes nothing to it.
        let result = unsafe { ioctl(self.open(), Setter::<SHUTDOWN, u32>::new(WITHOUT_LOG_FLUSH)) };
        result.expect("the file system can be shut down");
    }

    /// Mounts it again from a new device without cached content: the journal is replayed. Processes
    /// that used it must have been killed.
    pub fn restore_power(&mut self) {
        self.unmount().expect("the volume is idle");
        self.mount().expect("the journal is replayed");
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        if self.device.is_none() {
            return;
        }
        if let Err(error) = self.unmount() {
            eprintln!("{error}");
            let _ = run("umount", ["--lazy".as_ref(), self.point().as_os_str()]);
        }
    }
}
