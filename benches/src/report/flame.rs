//! Flame graphs of a serving node, recorded with `perf record`.

use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use inferno::collapse::Collapse;
use inferno::collapse::perf::{Folder, Options as FoldOptions};
use inferno::flamegraph;

use super::scenario::Scenario;
use crate::{Error, Result};

/// Duration of a recording.
pub(super) const TIME: Duration = Duration::from_secs(2);

/// Samples per second and thread: a prime number, to avoid sampling in lockstep with periodic work.
const FREQUENCY: &str = "997";

/// Bytes of stack per sample: the program has no frame pointers, so stacks are unwound afterwards.
/// Its frames are large.
const STACK: &str = "dwarf,32768";

/// The output directory of flame graphs.
pub(super) struct Flames {
    directory: PathBuf,
}

impl Flames {
    /// Creates the output directory, if needed.
    ///
    /// # Errors
    /// `perf` is missing or must not observe other processes.
    pub(super) fn new(directory: &Path) -> Result<Self> {
        if Command::new("perf").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
            return Err(Error::new("perf not found: install linux-perf for --flame"));
        }
        fs::create_dir_all(directory).map_err(|error| Error::of(directory.display(), error))?;
        Ok(Flames { directory: directory.to_owned() })
    }

    /// Records a process that serves a scenario; `scratch` holds intermediate files.
    pub(super) fn record(&self, pid: u32, scenario: Scenario, scratch: &Path) -> Result<()> {
        let data = scratch.join("perf.data");
        let output = Command::new("perf")
            .args(["record", "-q", "-F", FREQUENCY, "--call-graph", STACK, "-p", &pid.to_string(), "-o"])
            .arg(&data)
            .args(["--", "sleep", &TIME.as_secs_f64().to_string()])
            .stdin(Stdio::null())
            .output()
            .map_err(|error| Error::of("perf record", error))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            let hint = "run as root, or set kernel.perf_event_paranoid to -1";
            return Err(Error::of(format_args!("perf record ({hint})"), said.trim()));
        }
        let script = Command::new("perf")
            .args(["script", "--no-inline", "-i"])
            .arg(&data)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .output()
            .map_err(|error| Error::of("perf script", error))?;
        let mut folded = Vec::new();
        let mut folder = Folder::from(FoldOptions::default());
        folder.collapse(&script.stdout[..], &mut folded).map_err(|error| Error::of("perf script", error))?;
        let folded = threads_together(&String::from_utf8_lossy(&folded));
        let path = self.directory.join(file_name(scenario));
        let failed = |error: &dyn std::fmt::Display| Error::of(path.display(), error);
        let file = BufWriter::new(File::create(&path).map_err(|error| failed(&error))?);
        let mut options = flamegraph::Options::default();
        options.title = scenario.to_string();
        flamegraph::from_lines(&mut options, folded.lines(), file).map_err(|error| failed(&error))?;
        fs::remove_file(&data).map_err(|error| Error::of(data.display(), error))
    }
}

/// Merges the threads whose names differ in a number only; each folded stack starts with the thread
/// name.
fn threads_together(folded: &str) -> String {
    let mut text = String::with_capacity(folded.len());
    for line in folded.lines() {
        let (thread, rest) = line.split_once(';').unwrap_or((line, ""));
        let name = thread.trim_end_matches(|c: char| c.is_ascii_digit());
        // A line without frames has the sample count in this place.
        text.push_str(if rest.is_empty() { thread } else { name.trim_end_matches('-') });
        if !rest.is_empty() {
            text.push(';');
            text.push_str(rest);
        }
        text.push('\n');
    }
    text
}

/// Returns the file name of a scenario.
fn file_name(scenario: Scenario) -> String {
    let words = format!("{}{}", if scenario.server.is_tls() { "TLS " } else { "" }, scenario.load());
    words.to_lowercase().replace([' ', ','], "-").replace("--", "-") + ".svg"
}

#[cfg(test)]
mod tests {
    use super::super::scenario::{SMALL, Server};
    use super::*;

    #[test]
    fn worker_threads_are_merged() {
        let folded = "worker-0;a;b 3\nworker-1;a;b 4\niou-wrk-77;c 1\nworker-0 5\n";
        assert_eq!(threads_together(folded), "worker;a;b 3\nworker;a;b 4\niou-wrk;c 1\nworker-0 5\n");
    }

    #[test]
    fn flame_graph_files_are_named_after_scenarios() {
        assert_eq!(file_name(Scenario::get(SMALL).over(64)), "get-4-kib-hot-64-connections.svg");
        let tls = Scenario::put(1 << 20).on(Server::KeyholeTls);
        assert_eq!(file_name(tls), "tls-put-1-mib.svg");
    }
}
