//! Targets of the device mapper, and marks in a log of writes.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use keyhole_tests::device::run;
use rustix::ioctl::{Opcode, Updater, ioctl, opcode};

/// Longest mark, including the command: enough for a number.
const MESSAGE_MAX: usize = 64;

/// The guest has no udev, for which `dmsetup` would wait.
const NO_UDEV: &str = "--noudevsync";

/// `struct dm_ioctl` (`linux/dm-ioctl.h`), followed by a `struct dm_target_msg` and its text.
#[repr(C)]
struct TargetMessage {
    version: [u32; 3],
    data_size: u32,
    data_start: u32,
    target_count: u32,
    open_count: i32,
    flags: u32,
    event_nr: u32,
    padding: u32,
    device: u64,
    name: [u8; 128],
    uuid: [u8; 129],
    data: [u8; 7],
    sector: u64,
    text: [u8; MESSAGE_MAX],
}

/// Bytes of `struct dm_ioctl`.
const HEADER_LEN: usize = 312;

/// `DM_TARGET_MSG`.
const TARGET_MESSAGE: Opcode = opcode::read_write::<[u8; HEADER_LEN]>(0xfd, 14);

/// A target, removed on drop.
pub(crate) struct Target {
    name: &'static str,
    path: PathBuf,
    is_removed: bool,
}

/// Returns the device node that the kernel created for a target.
fn find(name: &str) -> io::Result<Option<PathBuf>> {
    for device in fs::read_dir("/sys/block")? {
        let device = device?;
        if fs::read_to_string(device.path().join("dm/name")).is_ok_and(|found| found.trim() == name) {
            return Ok(Some(Path::new("/dev").join(device.file_name())));
        }
    }
    Ok(None)
}

impl Target {
    /// Creates a target with a table of one line.
    pub(crate) fn new(name: &'static str, table: &str) -> Result<Self, String> {
        run("dmsetup", ["create", name, NO_UDEV, "--table", table])?;
        let path = find(name).map_err(|error| format!("/sys/block: {error}"))?;
        Ok(Target { name, path: path.ok_or_else(|| format!("target {name}: no device"))?, is_removed: false })
    }

    /// Returns the path of the device.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the target.
    pub(crate) fn remove(mut self) -> Result<(), String> {
        run("dmsetup", ["remove", NO_UDEV, self.name]).map(|_| self.is_removed = true)
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if !self.is_removed
            && let Err(error) = run("dmsetup", ["remove", NO_UDEV, self.name])
        {
            eprintln!("{error}");
        }
    }
}

/// Adds marks to a log of writes.
pub(crate) struct Marker {
    control: File,
    name: &'static str,
}

impl Marker {
    /// Creates a marker of a `log-writes` target.
    pub(crate) fn new(target: &Target) -> io::Result<Self> {
        let control = OpenOptions::new().read(true).write(true).open("/dev/mapper/control")?;
        Ok(Marker { control, name: target.name })
    }

    /// Adds a mark behind everything that is durable.
    pub(crate) fn mark(&self, number: u64) {
        let mut message = TargetMessage {
            version: [4, 0, 0],
            data_size: size_of::<TargetMessage>() as u32,
            data_start: HEADER_LEN as u32,
            target_count: 0,
            open_count: 0,
            flags: 0,
            event_nr: 0,
            padding: 0,
            device: 0,
            name: [0; 128],
            uuid: [0; 129],
            data: [0; 7],
            sector: 0,
            text: [0; MESSAGE_MAX],
        };
        message.name[..self.name.len()].copy_from_slice(self.name.as_bytes());
        let text = format!("mark {number}");
        message.text[..text.len()].copy_from_slice(text.as_bytes());
        // SAFETY: the opcode takes a `dm_ioctl` with `data_size` bytes in all, and the kernel writes within it.
        let result = unsafe { ioctl(&self.control, Updater::<TARGET_MESSAGE, TargetMessage>::new(&mut message)) };
        result.expect("a mark in the log");
    }
}
