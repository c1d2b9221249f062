//! The description of the machine.

use std::fs;
use std::path::Path;
use std::thread;

use super::memory::meminfo;
use crate::{Error, Result};

/// The machine, and the disk of a directory.
#[derive(Clone, Debug)]
pub(super) struct Machine {
    pub(super) processor: String,
    pub(super) cores: usize,
    /// Bytes of memory.
    pub(super) memory: u64,
    pub(super) kernel: String,
    /// The type of the file system under the directory.
    pub(super) file_system: String,
}

impl Machine {
    pub(super) fn here(directory: &Path) -> Result<Self> {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let cpuinfo = read("/proc/cpuinfo");
        let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let directory = directory.canonicalize().map_err(|error| Error::of(directory.display(), error))?;
        let mounts = read("/proc/self/mountinfo");
        let release = rustix::system::uname().release().to_string_lossy().into_owned();
        Ok(Machine {
            processor: model.map_or(std::env::consts::ARCH, |(_, name)| name.trim()).to_owned(),
            cores: thread::available_parallelism().map_or(1, usize::from),
            memory: meminfo("MemTotal:").unwrap_or(0),
            kernel: format!("Linux {release}"),
            file_system: file_system(&mounts, &directory).unwrap_or("unknown").to_owned(),
        })
    }
}

/// Returns the type of the file system of a path, from `/proc/self/mountinfo`: the deepest mount
/// above it, and the last of several at one place.
fn file_system<'m>(mounts: &'m str, path: &Path) -> Option<&'m str> {
    let above = mounts.lines().filter_map(|line| {
        let (mount, file_system) = line.split_once(" - ")?;
        // Spaces in paths are encoded in octal.
        let point = mount.split(' ').nth(4)?.replace("\\040", " ");
        path.starts_with(&point).then(|| (point.len(), file_system.split(' ').next().unwrap_or_default()))
    });
    above.max_by_key(|(len, _)| *len).map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deepest_mount_is_selected() {
        let mounts = "1 0 8:1 / / rw - ext4 /dev/a rw\n\
                      2 1 8:2 / /data rw shared:1 - xfs /dev/b rw\n\
                      3 1 0:9 / /data\\040here rw - tmpfs none rw\n\
                      4 1 0:9 / /data rw - btrfs /dev/c rw\n";
        assert_eq!(file_system(mounts, Path::new("/home")), Some("ext4"));
        assert_eq!(file_system(mounts, Path::new("/data/a")), Some("btrfs"), "the mount on top");
        assert_eq!(file_system(mounts, Path::new("/data here/a")), Some("tmpfs"));
        assert_eq!(file_system(mounts, Path::new("/database")), Some("ext4"));
        assert_eq!(file_system("", Path::new("/")), None);
    }

    #[test]
    fn machine_has_processor_and_memory() {
        let machine = Machine::here(Path::new("/")).unwrap();
        assert!(machine.memory > 1 << 20 && machine.cores > 0 && machine.kernel.starts_with("Linux "), "{machine:?}");
    }
}
