//! Resource usage of the process, as the system reports it.

use std::fs;

use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// Resource usage of the process. Unknown figures are 0.
#[derive(Serialize, Deserialize, Clone, Copy, Default, PartialEq, Debug)]
pub(crate) struct ProcessStatus {
    /// Resident memory in bytes.
    pub(crate) resident: u64,
    /// Peak of the resident memory in bytes.
    pub(crate) resident_peak: u64,
    /// Open file descriptors.
    pub(crate) open_fds: u64,
    /// Limit of open file descriptors.
    pub(crate) max_fds: u64,
    /// CPU time in seconds.
    pub(crate) cpu_s: f64,
}

impl ProcessStatus {
    pub(crate) fn read() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        ProcessStatus {
            resident: kib(&status, "VmRSS:") * 1024,
            resident_peak: kib(&status, "VmHWM:") * 1024,
            // One descriptor is that of the directory itself.
            open_fds: fs::read_dir("/proc/self/fd").map_or(0, |fds| fds.count().saturating_sub(1)) as u64,
            max_fds: getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX),
            cpu_s: cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9,
        }
    }
}

/// Returns the figure of a line such as `VmRSS:  1234 kB`.
fn kib(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.trim().trim_end_matches("kB").trim_end().parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn process_status_is_read() {
        assert_eq!(kib("Name:\tx\nVmHWM:\t    2 kB\nVmRSS:\t 123456 kB\n", "VmRSS:"), 123_456);
        assert_eq!(kib("VmRSS:\n", "VmRSS:"), 0);
        let now = ProcessStatus::read();
        assert!(now.resident > 1 << 20 && now.resident_peak >= now.resident, "{now:?}");
        assert!(now.open_fds >= 3 && now.max_fds > now.open_fds && now.cpu_s > 0.0, "{now:?}");
    }
}
