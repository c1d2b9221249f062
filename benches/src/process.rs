//! What a process of this machine uses, by `/proc` (proc(5)).

use std::fs;
use std::io;
use std::time::Duration;

/// CPU time and memory of a process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    /// In user mode and in the kernel, of all threads that there are now.
    pub(crate) cpu: Duration,
    /// Bytes resident now.
    pub(crate) resident: u64,
    /// The most bytes that were resident.
    pub(crate) resident_peak: u64,
}

impl Usage {
    /// Of this process now.
    ///
    /// # Errors
    /// That there is no such process, or that it may not be looked at.
    pub(crate) fn of(pid: u32) -> io::Result<Self> {
        let mut nanoseconds = 0;
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            // The first number is the time on a CPU. One that has ended meanwhile counts for nothing.
            let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) else { continue };
            nanoseconds += text.split(' ').next().and_then(|time| time.parse::<u64>().ok()).unwrap_or(0);
        }
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let bytes = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let number = line.and_then(|line| line.trim_start_matches(':').trim().strip_suffix(" kB")?.parse().ok());
            number.map_or(0, |kib: u64| kib << 10)
        };
        let cpu = Duration::from_nanos(nanoseconds);
        Ok(Usage { cpu, resident: bytes("VmRSS"), resident_peak: bytes("VmHWM") })
    }

    /// The same with the CPU time since an earlier one.
    pub(crate) fn since(self, before: &Usage) -> Usage {
        Usage { cpu: self.cpu.saturating_sub(before.cpu), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_this_process() {
        let before = Usage::of(std::process::id()).unwrap();
        assert!(before.resident > 0 && before.resident_peak >= before.resident);
        let mut sum = 0u64;
        while Usage::of(std::process::id()).unwrap().since(&before).cpu < Duration::from_millis(5) {
            sum = std::hint::black_box(sum + 1);
        }
        assert!(Usage::of(u32::MAX).is_err());
    }
}
