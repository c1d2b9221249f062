//! The memory available to this process: the machine's, or the limit of its control group if that
//! is lower.
//!
//! Each group of the hierarchy may have a limit, and all limits apply. Versions 1 and 2 may
//! coexist, and the process may see only its container's part of a hierarchy.

use std::fs;
use std::path::{Path, PathBuf};

/// Returns the bytes that the process may use.
pub(crate) fn available() -> u64 {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let groups = groups(&read("/proc/self/cgroup"), &read("/proc/self/mountinfo"));
    let machine = rustix::system::sysinfo();
    // The field has 32 bits on some machines.
    #[allow(clippy::useless_conversion)]
    let machine = u64::from(machine.totalram).saturating_mul(machine.mem_unit.into());
    limit(&groups, |path| fs::read_to_string(path).ok()).unwrap_or(u64::MAX).min(machine)
}

/// A control group of the process.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Group {
    /// The mount point of its hierarchy.
    mount: PathBuf,
    path: PathBuf,
    /// The files with its limits.
    files: &'static [&'static str],
}

/// The limit files of version 1.
const FILES_1: &[&str] = &["memory.limit_in_bytes"];

/// The limit files of version 2. Above `memory.high`, a process is throttled almost to a halt.
const FILES_2: &[&str] = &["memory.max", "memory.high"];

/// Returns the groups that limit memory, from the process's cgroup and mountinfo files (proc(5)).
fn groups(cgroup: &str, mountinfo: &str) -> Vec<Group> {
    let mounts: Vec<_> = mountinfo.lines().filter_map(Mount::parse).collect();
    let of = |line: &str| {
        let mut fields = line.splitn(3, ':').skip(1);
        let controllers = fields.next()?;
        let path = fields.next()?;
        let files = match controllers {
            "" => FILES_2,
            _ if controllers.split(',').any(|name| name == "memory") => FILES_1,
            _ => return None,
        };
        let mount = mounts.iter().find(|mount| mount.files == files)?;
        // The mount may be a part of the hierarchy that contains the process, unless it was moved
        // out of it.
        let below = Path::new(path).strip_prefix(&mount.root).unwrap_or(Path::new(""));
        Some(Group { mount: mount.at.clone(), path: mount.at.join(below), files })
    };
    cgroup.lines().filter_map(of).collect()
}

/// The mount of a hierarchy.
struct Mount {
    /// The group at its root.
    root: PathBuf,
    at: PathBuf,
    files: &'static [&'static str],
}

impl Mount {
    /// Parses a line such as `36 25 0:31 /root /at rw shared:7 - cgroup cgroup rw,memory`.
    fn parse(line: &str) -> Option<Self> {
        let (before, after) = line.split_once(" - ")?;
        let mut before = before.split(' ').skip(3);
        let root = before.next()?;
        let at = before.next()?;
        let mut after = after.split(' ');
        let files = match (after.next()?, after.nth(1)?) {
            ("cgroup2", _) => FILES_2,
            ("cgroup", options) if options.split(',').any(|option| option == "memory") => FILES_1,
            _ => return None,
        };
        Some(Mount { root: root.into(), at: at.into(), files })
    }
}

/// Returns the lowest limit of these groups and their ancestors.
fn limit(groups: &[Group], read: impl Fn(&Path) -> Option<String>) -> Option<u64> {
    let directories = |group: &Group| -> Vec<PathBuf> {
        let within = |directory: &&Path| directory.starts_with(&group.mount);
        group.path.ancestors().take_while(within).map(Path::to_owned).collect()
    };
    let of_group = |group: &Group| -> Option<u64> {
        let files = directories(group).into_iter().flat_map(|at| group.files.iter().map(move |file| at.join(file)));
        // `max` means no limit, and so does a value that no machine has.
        files.filter_map(|file| read(&file)?.trim().parse().ok()).min()
    };
    groups.iter().filter_map(of_group).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS_1: &str = "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n\
        32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n\
        35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory\n\
        41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";
    const MOUNTS_2: &str = "29 22 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";

    /// Returns the limit found with these file contents.
    fn found(cgroup: &str, mountinfo: &str, files: &[(&str, &str)]) -> Option<u64> {
        let read = |path: &Path| {
            let (_, text) = files.iter().find(|(name, _)| Path::new(name) == path)?;
            Some(format!("{text}\n"))
        };
        limit(&groups(cgroup, mountinfo), read)
    }

    #[test]
    fn version_1_limits_of_ancestors_apply() {
        let cgroup = "9:name=systemd:/\n4:memory:/a/b\n1:cpu,cpuacct:/x\n0::/\n";
        let at = "/sys/fs/cgroup/memory";
        let file = |directory: &str| format!("{at}{directory}/memory.limit_in_bytes");
        let none = "9223372036854771712";
        let files = |top, a, b| found(cgroup, MOUNTS_1, &[(&file(""), top), (&file("/a"), a), (&file("/a/b"), b)]);
        assert_eq!(files(none, none, "67108864"), Some(64 << 20));
        assert_eq!(files(none, "67108864", none), Some(64 << 20));
        assert_eq!(files(none, "67108864", "134217728"), Some(64 << 20), "the outer one is less");
        assert_eq!(files(none, none, none), Some(9_223_372_036_854_771_712), "more than any machine has");
        assert_eq!(found(cgroup, MOUNTS_1, &[(&file("/other"), "1")]), None);
    }

    #[test]
    fn version_2_limits_apply() {
        let files = |max, high| {
            let at = "/sys/fs/cgroup/system.slice/keyhole.service/";
            let name = format!("{at}memory.max");
            let slow = format!("{at}memory.high");
            found("0::/system.slice/keyhole.service\n", MOUNTS_2, &[(&name, max), (&slow, high)])
        };
        assert_eq!(files("max", "max"), None);
        assert_eq!(files("67108864", "max"), Some(64 << 20));
        assert_eq!(files("67108864", "33554432"), Some(32 << 20));
        let slice = "/sys/fs/cgroup/system.slice/memory.max";
        assert_eq!(found("0::/system.slice/x.service\n", MOUNTS_2, &[(slice, "5")]), Some(5));
    }

    #[test]
    fn limits_inside_container_apply() {
        // The container sees its own group as the top, under its own name or its name outside.
        let file = ("/sys/fs/cgroup/memory.max", "1000");
        assert_eq!(found("0::/\n", MOUNTS_2, &[file]), Some(1000));
        assert_eq!(found("0::/../elsewhere\n", &MOUNTS_2.replace(" / ", " /c "), &[file]), Some(1000));
        let mounts = "35 31 0:32 /docker/12ab /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n";
        let file = ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "2000");
        assert_eq!(found("4:memory:/docker/12ab\n", mounts, &[file]), Some(2000));
    }

    #[test]
    fn missing_files_mean_no_limit() {
        for (cgroup, mounts) in [("", ""), ("0::/x\n", ""), ("", MOUNTS_2), (":::\n1:\n\n", " - \n1 2 - cgroup\n")] {
            assert_eq!(found(cgroup, mounts, &[]), None);
        }
        assert!(available() > 1 << 20);
    }
}
