//! Block devices made of files, and file systems on them, for as long as a test lasts. They need root.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::ioctl::{Opcode, Setter, ioctl, opcode};
use tempfile::TempDir;

/// How long what a killed process had open may stay busy: the kernel ends its I/O first.
const PATIENCE: Duration = Duration::from_secs(30);

/// `FS_IOC_SHUTDOWN` (`EXT4_IOC_SHUTDOWN`): `_IOR('X', 125, __u32)`, although the number goes in.
const SHUTDOWN: Opcode = opcode::read::<u32>(b'X', 125);

/// `EXT4_GOING_FLAGS_NOLOGFLUSH`: neither data nor the journal is flushed first.
const WITHOUT_LOG_FLUSH: u32 = 2;

/// Runs a program to its end; what it printed, or why it failed.
pub(crate) fn run<A: AsRef<OsStr>>(program: &str, arguments: impl IntoIterator<Item = A>) -> Result<String, String> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => Err(format!("{program}: {}: {}", output.status, text(&output.stderr))),
    }
}

/// Says that a test is skipped and why, past the capture of the test runner.
pub fn skipped(test: &str, why: &str) {
    let _ = writeln!(io::stderr(), "skipped: {test}: {why}");
}

/// A file as a block device, detached when dropped.
pub struct LoopDevice {
    path: PathBuf,
}

impl LoopDevice {
    /// Attaches a file, or says why the system refuses it.
    pub fn attach(file: &Path) -> Result<Self, String> {
        let arguments = ["--find".as_ref(), "--show".as_ref(), file.as_os_str()];
        run("losetup", arguments).map(|path| LoopDevice { path: path.into() })
    }

    /// The device.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        // One that is still open goes when it is closed.
        if let Err(error) = run("losetup", ["--detach".as_ref(), self.path.as_os_str()]) {
            eprintln!("{} stays: {error}", self.path.display());
        }
    }
}

/// A sparse file of this length in a directory.
pub(crate) fn sparse(directory: &Path, len: u64) -> PathBuf {
    let path = directory.join("image");
    File::create(&path).and_then(|file| file.set_len(len)).expect("a sparse file");
    path
}

/// An empty block device of a length, with the file behind it.
pub struct EmptyDevice {
    device: LoopDevice,
    home: TempDir,
}

impl EmptyDevice {
    /// Makes it, or says why the system refuses it.
    pub fn new(len: u64) -> Result<Self, String> {
        let home = tempfile::tempdir().expect("a temporary directory");
        let device = LoopDevice::attach(&sparse(home.path(), len))?;
        Ok(EmptyDevice { device, home })
    }

    /// A directory for what belongs to the device and is not on it.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// The device.
    pub fn path(&self) -> &Path {
        self.device.path()
    }

    /// Makes an ext4 file system on it.
    pub fn make_ext4(&self) -> Result<(), String> {
        make_ext4(self.path())
    }
}

fn make_ext4(path: &Path) -> Result<(), String> {
    run("mkfs.ext4", ["-q".as_ref(), "-F".as_ref(), path.as_os_str()]).map(drop)
}

/// An ext4 file system in a file, whose power can be cut. Whatever uses it has to end before it is dropped.
pub struct Volume {
    /// What it is mounted from, while it is.
    device: Option<LoopDevice>,
    home: TempDir,
}

impl Volume {
    /// Makes one and mounts it, or says why the system refuses it.
    pub fn new(len: u64) -> Result<Self, String> {
        let home = tempfile::Builder::new().prefix("keyhole-volume-").tempdir().expect("a temporary directory");
        make_ext4(&sparse(home.path(), len))?;
        let mut volume = Volume { device: None, home };
        std::fs::create_dir(volume.point()).expect("a directory");
        volume.mount()?;
        Ok(volume)
    }

    /// Where it is mounted.
    pub fn point(&self) -> PathBuf {
        self.home.path().join("mount")
    }

    fn mount(&mut self) -> Result<(), String> {
        let device = LoopDevice::attach(&self.home.path().join("image"))?;
        run("mount", ["-t".as_ref(), "ext4".as_ref(), device.path().as_os_str(), self.point().as_os_str()])?;
        self.device = Some(device);
        Ok(())
    }

    /// Unmounts it as soon as it is not busy any more.
    fn unmount(&mut self) -> Result<(), String> {
        let begun = Instant::now();
        while let Err(error) = run("umount", [self.point()]) {
            if begun.elapsed() > PATIENCE {
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

    /// Makes everything on it durable.
    pub fn sync(&self) {
        rustix::fs::syncfs(self.open()).expect("the volume takes it");
    }

    /// Stops the file system at once, as power loss does: what is in memory alone never reaches the device.
    pub fn cut_power(&self) {
        // SAFETY: the kernel reads one u32 from the argument and writes nothing to it.
        let result = unsafe { ioctl(self.open(), Setter::<SHUTDOWN, u32>::new(WITHOUT_LOG_FLUSH)) };
        result.expect("the file system can be shut down");
    }

    /// Mounts it again on a fresh device, which has nothing of the file system in memory: the journal is replayed. Whatever
    /// used it has to have been killed.
    pub fn restore_power(&mut self) {
        self.unmount().expect("nothing uses the volume");
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
