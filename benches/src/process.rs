//! Resource usage of local processes and of the machine, from `/proc` (proc(5)).

use std::fs;
use std::io;
use std::ops::AddAssign;
use std::path::Path;
use std::time::Duration;

/// CPU time and memory of one or several processes.
#[derive(Clone, Copy, Default, Debug)]
pub struct Usage {
    /// User and kernel time of all current threads, with nanosecond resolution.
    pub cpu: Duration,
    /// Clock ticks in user mode of all current and ended threads: less exact, but split by mode.
    pub user_ticks: u64,
    /// Clock ticks in kernel mode.
    pub kernel_ticks: u64,
    /// Resident bytes.
    pub resident: u64,
    /// Peak resident bytes.
    pub resident_peak: u64,
}

impl AddAssign for Usage {
    fn add_assign(&mut self, other: Usage) {
        self.cpu += other.cpu;
        self.user_ticks += other.user_ticks;
        self.kernel_ticks += other.kernel_ticks;
        self.resident += other.resident;
        self.resident_peak += other.resident_peak;
    }
}

impl Usage {
    /// Returns the usage of a process.
    ///
    /// # Errors
    /// The process does not exist, or access is denied.
    pub fn of(pid: u32) -> io::Result<Self> {
        let mut nanoseconds = 0;
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            nanoseconds += time_on_cpu(&task?.path());
        }
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let (user_ticks, kernel_ticks) = ticks(&stat).unwrap_or((0, 0));
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let bytes = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let number = line.and_then(|line| line.trim_start_matches(':').trim().strip_suffix(" kB")?.parse().ok());
            number.map_or(0, |kib: u64| kib << 10)
        };
        Ok(Usage {
            cpu: Duration::from_nanos(nanoseconds),
            user_ticks,
            kernel_ticks,
            resident: bytes("VmRSS"),
            resident_peak: bytes("VmHWM"),
        })
    }

    /// Returns the total usage of several processes.
    ///
    /// # Errors
    /// Like [`of`](Self::of), for any of them.
    pub fn of_all(pids: &[u32]) -> io::Result<Self> {
        let mut all = Usage::default();
        for pid in pids {
            all += Usage::of(*pid)?;
        }
        Ok(all)
    }

    /// Returns the usage with the CPU time since an earlier one. If threads have ended meanwhile,
    /// the ticks are used.
    pub fn since(self, before: &Usage) -> Usage {
        let user_ticks = self.user_ticks.saturating_sub(before.user_ticks);
        let kernel_ticks = self.kernel_ticks.saturating_sub(before.kernel_ticks);
        // Each of the two may be one tick too high.
        let ticks = time((user_ticks + kernel_ticks).saturating_sub(2), rustix::param::clock_ticks_per_second());
        let cpu = self.cpu.saturating_sub(before.cpu).max(ticks);
        Usage { cpu, user_ticks, kernel_ticks, ..self }
    }

    /// Returns the fraction of the CPU time spent in the kernel, from 0 to 1.
    pub fn kernel_share(&self) -> f64 {
        let all = self.user_ticks + self.kernel_ticks;
        if all > 0 { self.kernel_ticks as f64 / all as f64 } else { 0.0 }
    }
}

/// Returns the CPU time of the threads of a process that have this name.
///
/// # Errors
/// The process does not exist, or access is denied.
pub fn cpu_of_threads(pid: u32, name: &str) -> io::Result<Duration> {
    let mut nanoseconds = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let path = task?.path();
        let is_named = fs::read_to_string(path.join("comm")).is_ok_and(|comm| comm.trim_end() == name);
        if is_named {
            nanoseconds += time_on_cpu(&path);
        }
    }
    Ok(Duration::from_nanos(nanoseconds))
}

/// Returns the time of a thread on a CPU in ns, the first number of `schedstat`. It is 0 for a thread that
/// has ended meanwhile.
fn time_on_cpu(task: &Path) -> u64 {
    let text = fs::read_to_string(task.join("schedstat")).unwrap_or_default();
    text.split(' ').next().and_then(|time| time.parse().ok()).unwrap_or(0)
}

/// Parses the ticks in user and kernel mode in `/proc/PID/stat`. The program name in parentheses
/// may itself contain spaces and parentheses.
fn ticks(stat: &str) -> Option<(u64, u64)> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

fn time(ticks: u64, ticks_per_second: u64) -> Duration {
    Duration::from_secs_f64(ticks as f64 / ticks_per_second as f64)
}

/// Busy and idle time, summed over all cores of the machine.
#[derive(Clone, Copy, Default, PartialEq, Debug)]
pub struct Cores {
    /// Time at work, for any process.
    pub busy: Duration,
    /// Time idle or waiting for a disk.
    pub idle: Duration,
}

impl Cores {
    /// Returns the times since boot.
    ///
    /// # Errors
    /// The system does not report them.
    pub fn now() -> io::Result<Self> {
        let stat = fs::read_to_string("/proc/stat")?;
        Cores::parse(&stat, rustix::param::clock_ticks_per_second())
            .ok_or_else(|| io::Error::other("invalid /proc/stat: expected the times of all cores first"))
    }

    /// The fields are: cpu, user, nice, system, idle, iowait, irq, softirq, steal; later ones are
    /// included in these.
    fn parse(stat: &str, ticks_per_second: u64) -> Option<Self> {
        let line = stat.lines().next()?.strip_prefix("cpu ")?;
        let ticks: Vec<u64> = line.split_ascii_whitespace().map_while(|field| field.parse().ok()).take(8).collect();
        let &[user, nice, system, idle, waiting, irq, softirq, stolen] = &ticks[..] else { return None };
        let time = |ticks| time(ticks, ticks_per_second);
        Some(Cores { busy: time(user + nice + system + irq + softirq + stolen), idle: time(idle + waiting) })
    }

    /// Returns the times since an earlier measurement.
    pub fn since(self, before: &Cores) -> Cores {
        Cores { busy: self.busy.saturating_sub(before.busy), idle: self.idle.saturating_sub(before.idle) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_of_this_process_is_read() {
        let before = Usage::of(std::process::id()).unwrap();
        assert!(before.resident > 0 && before.resident_peak >= before.resident);
        let mut sum = 0u64;
        while Usage::of(std::process::id()).unwrap().since(&before).cpu < Duration::from_millis(5) {
            sum = std::hint::black_box(sum + 1);
        }
        assert!(Usage::of(u32::MAX).is_err());
        assert!(Usage::of_all(&[std::process::id(), u32::MAX]).is_err());
        let twice = Usage::of_all(&[std::process::id(); 2]).unwrap();
        assert!(twice.resident > before.resident && (0.0..=1.0).contains(&twice.kernel_share()));
    }

    #[test]
    fn ticks_include_ended_threads() {
        let second = rustix::param::clock_ticks_per_second();
        let usage = |seconds, user_ticks| Usage { cpu: Duration::from_secs(seconds), user_ticks, ..Usage::default() };
        let all_live = usage(5, 5 * second).since(&usage(2, 2 * second));
        assert_eq!(all_live.cpu, Duration::from_secs(3));
        let one_ended = usage(1, 5 * second + 2).since(&usage(2, 2 * second));
        assert_eq!(one_ended.cpu, Duration::from_secs(3));
    }

    #[test]
    fn ticks_are_parsed_after_the_name() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 107 0 0 0 12 34 0 0 20 0 1 0 9 2 3";
        assert_eq!(ticks(stat), Some((12, 34)));
        assert_eq!((ticks("7 (a"), ticks("7 (a) S 1")), (None, None));
    }

    #[test]
    fn usage_of_the_machine_is_read() {
        let stat = "cpu  100 10 50 700 40 5 5 30 9 9\ncpu0 1 2 3\n";
        let cores = Cores { busy: Duration::from_secs(2), idle: Duration::from_millis(7400) };
        assert_eq!(Cores::parse(stat, 100), Some(cores));
        assert_eq!((Cores::parse("", 100), Cores::parse("cpu  1 2 3\n", 100)), (None, None));
        assert!(Cores::now().unwrap().busy > Duration::ZERO);
    }
}
