//! Shared parts of the commands `export`, `import` and `verify`.

use std::io::{self, IsTerminal};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::Result;
use super::operate::size;

/// Returns whether the path stands for standard input or output.
pub(super) fn is_dash(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// Shows the progress on a terminal, and limits the rate.
pub(super) struct Pace {
    bar: ProgressBar,
    rate: Option<u64>,
    begun: Instant,
    bytes: u64,
}

impl Pace {
    pub(super) fn new(what: &'static str, rate: Option<u64>) -> Self {
        let bar = if io::stderr().is_terminal() { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
        if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix}: {bytes}, {bytes_per_sec} {msg}") {
            bar.set_style(style);
        }
        bar.set_prefix(what);
        if !bar.is_hidden() {
            bar.enable_steady_tick(Duration::from_millis(200));
        }
        Pace { bar, rate, begun: Instant::now(), bytes: 0 }
    }

    /// Counts bytes, and waits if they exceed the rate.
    pub(super) fn add(&mut self, bytes: usize) {
        self.bar.inc(bytes as u64);
        self.bytes += bytes as u64;
        if let Some(rate) = self.rate {
            let due = Duration::from_secs_f64(self.bytes as f64 / rate as f64);
            thread::sleep(due.saturating_sub(self.begun.elapsed()));
        }
    }

    /// Shows the name of the current object.
    pub(super) fn at(&self, name: &str) {
        if !self.bar.is_hidden() {
            self.bar.set_message(name.to_owned());
        }
    }

    /// Prints a message to standard error.
    pub(super) fn say(&self, text: &str) {
        self.bar.suspend(|| eprintln!("keyhole: {text}"));
    }
}

impl Drop for Pace {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// Formats a count with its noun.
pub(super) fn count(number: u64, one: &str, many: &str) -> String {
    if number == 1 { format!("1 {one}") } else { format!("{number} {many}") }
}

/// Formats a count of objects and their bytes.
pub(super) fn objects(number: u64, bytes: u64) -> String {
    format!("{} ({})", count(number, "object", "objects"), size(bytes))
}

/// Returns the final summary of a command, in words or as JSON.
pub(super) fn summary(json: bool, figures: &impl Serialize, words: &str) -> Result<String> {
    if json {
        let text = serde_json::to_string_pretty(figures)?;
        Ok(format!("{text}\n"))
    } else {
        Ok(format!("{words}\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_is_limited() {
        let mut pace = Pace::new("moving", Some(1 << 20));
        (0..5).for_each(|_| pace.add(20 << 10));
        assert!(pace.begun.elapsed() >= Duration::from_millis(95), "a tenth of a MiB takes a tenth of a second");
    }

    #[test]
    fn counts_have_nouns() {
        assert_eq!(count(1, "upload", "uploads"), "1 upload");
        assert_eq!(objects(2, 3 << 20), "2 objects (3.0 MiB)");
    }
}
