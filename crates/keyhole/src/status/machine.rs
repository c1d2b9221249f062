//! What the process takes of the machine, as the system counts it.

use std::fs;

use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// Figures of the process. What the system does not say is 0.
#[derive(Serialize, Deserialize, Clone, Copy, Default, PartialEq, Debug)]
pub(crate) struct ProcessStatus {
    /// Bytes of memory that it has resident.
    pub(crate) resident: u64,
    /// The most that it has had.
    pub(crate) resident_peak: u64,
    /// File descriptors.
    pub(crate) open_fds: u64,
    /// How many it may have.
    pub(crate) max_fds: u64,
    /// Time of processors, in seconds.
    pub(crate) cpu_s: f64,
}

impl ProcessStatus {
    pub(crate) fn read() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        ProcessStatus {
            resident: kib(&status, "VmRSS:") * 1024,
            resident_peak: kib(&status, "VmHWM:") * 1024,
            // One of them is that of the directory itself.
            open_fds: fs::read_dir("/proc/self/fd").map_or(0, |fds| fds.count().saturating_sub(1)) as u64,
            max_fds: getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX),
            cpu_s: cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9,
        }
    }
}

/// The figure of a line such as `VmRSS:  1234 kB`.
fn kib(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.trim().trim_end_matches("kB").trim_end().parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_says() {
        assert_eq!(kib("Name:\tx\nVmHWM:\t    2 kB\nVmRSS:\t 123456 kB\n", "VmRSS:"), 123_456);
        assert_eq!(kib("VmRSS:\n", "VmRSS:"), 0);
        let now = ProcessStatus::read();
        assert!(now.resident > 1 << 20 && now.resident_peak >= now.resident, "{now:?}");
        assert!(now.open_fds >= 3 && now.max_fds > now.open_fds && now.cpu_s > 0.0, "{now:?}");
    }
}
