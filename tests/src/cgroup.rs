//! Control groups with a memory limit, version 1 or 2, for the duration of a test. They need root.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

/// A control group with a memory limit and without swap; removed on drop.
pub struct MemoryGroup {
    path: PathBuf,
    names: &'static Names,
}

/// File names of a cgroup version.
struct Names {
    /// Usual mount point of the hierarchy.
    at: &'static str,
    limit: &'static str,
    /// File of the swap limit, and its value unless it equals the memory limit.
    swap: (&'static str, Option<&'static str>),
    peak: &'static str,
    /// File with a line `oom_kill N`.
    events: &'static str,
}

const VERSION_1: Names = Names {
    at: "/sys/fs/cgroup/memory",
    limit: "memory.limit_in_bytes",
    // Limit of memory and swap together.
    swap: ("memory.memsw.limit_in_bytes", None),
    peak: "memory.max_usage_in_bytes",
    events: "memory.oom_control",
};

const VERSION_2: Names = Names {
    at: "/sys/fs/cgroup",
    limit: "memory.max",
    swap: ("memory.swap.max", Some("0")),
    peak: "memory.peak",
    events: "memory.events",
};

impl MemoryGroup {
    /// Creates a group, or returns the reason why the system refuses it.
    pub fn new(limit: u64) -> Result<Self, String> {
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let name = format!("keyhole-test-{}-{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let names = if Path::new(VERSION_1.at).is_dir() { &VERSION_1 } else { &VERSION_2 };
        let path = Path::new(names.at).join(name);
        fs::create_dir(&path).map_err(|error| format!("cannot create a control group: {error}"))?;
        let group = MemoryGroup { path, names };
        group.write(names.limit, &limit.to_string()).map_err(|error| format!("cannot limit memory: {error}"))?;
        let (swap, value) = names.swap;
        // Without swap accounting the file is missing: ignore the error.
        let _ = group.write(swap, value.unwrap_or(&limit.to_string()));
        Ok(group)
    }

    fn write(&self, file: &str, value: &str) -> io::Result<()> {
        // The kernel creates the files; a missing one must not be created here.
        let mut file = fs::OpenOptions::new().write(true).open(self.path.join(file))?;
        io::Write::write_all(&mut file, value.as_bytes())
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.path.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
    }

    /// Returns a command prefix that runs a program in the group.
    pub fn command(&self) -> [String; 4] {
        let enter = format!("echo $$ > '{}/cgroup.procs' && exec \"$0\" \"$@\"", self.path.display());
        ["/bin/sh".to_owned(), "-c".to_owned(), enter, "env".to_owned()]
    }

    /// Returns whether this process is in the group.
    pub fn contains(&self, pid: u32) -> bool {
        self.read("cgroup.procs").lines().any(|line| line == pid.to_string())
    }

    /// Returns the peak memory usage of its processes, page cache included.
    pub fn peak(&self) -> u64 {
        self.read(self.names.peak).trim().parse().expect("a number")
    }

    /// Returns the number of processes killed by the OOM killer.
    pub fn killed(&self) -> u64 {
        let events = self.read(self.names.events);
        let count = events.lines().find_map(|line| line.strip_prefix("oom_kill ")).expect("an oom_kill line");
        count.parse().expect("a number")
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        // A killed process stays in the group for a moment.
        for _ in 0..100 {
            if fs::remove_dir(&self.path).is_ok() {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
        eprintln!("cannot remove {}", self.path.display());
    }
}
