//! What the commands that move objects have in common.

use std::io::{self, IsTerminal};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::operate::{parse_rate, size};
use super::{Failure, Result};
use crate::control::Scope;

/// What is meant by standard input and output.
pub(super) fn is_dash(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// Which objects a command is about, and how fast it may be.
#[derive(Args, Debug)]
pub(crate) struct Bounds {
    /// This bucket alone.
    #[arg(long, value_name = "NAME")]
    pub(super) bucket: Option<String>,
    /// Objects whose keys begin so alone.
    #[arg(long, value_name = "PREFIX", default_value = "", hide_default_value = true)]
    pub(super) prefix: String,
    /// Bytes that are moved in a second at most, as in 50MB/s. Default: as many as can be.
    #[arg(long, value_name = "SIZE/s", value_parser = parse_rate)]
    pub(super) rate: Option<u64>,
}

impl Bounds {
    pub(super) fn scope(&self) -> Scope {
        Scope { bucket: self.bucket.clone(), prefix: self.prefix.clone() }
    }
}

/// Counts bytes: shows them where somebody watches, and keeps them to a rate.
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

    /// So many bytes more. Waits, if they were too many for the time.
    pub(super) fn add(&mut self, bytes: usize) {
        self.bar.inc(bytes as u64);
        self.bytes += bytes as u64;
        if let Some(rate) = self.rate {
            let due = Duration::from_secs_f64(self.bytes as f64 / rate as f64);
            thread::sleep(due.saturating_sub(self.begun.elapsed()));
        }
    }

    /// Where it is.
    pub(super) fn at(&self, name: &str) {
        if !self.bar.is_hidden() {
            self.bar.set_message(name.to_owned());
        }
    }

    /// Says something on standard error.
    pub(super) fn say(&self, text: &str) {
        self.bar.suspend(|| eprintln!("keyhole: {text}"));
    }
}

impl Drop for Pace {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// A number of things, in words.
pub(super) fn count(number: u64, one: &str, many: &str) -> String {
    if number == 1 { format!("1 {one}") } else { format!("{number} {many}") }
}

/// Objects and their bytes, in words.
pub(super) fn objects(number: u64, bytes: u64) -> String {
    format!("{} ({})", count(number, "object", "objects"), size(bytes))
}

/// What a command says at its end: in words, or as JSON.
pub(super) fn summary(json: bool, figures: &impl Serialize, words: &str) -> Result<String> {
    match json {
        true => {
            let text = serde_json::to_string_pretty(figures).map_err(|error| Failure::Other(error.to_string()))?;
            Ok(format!("{text}\n"))
        }
        false => Ok(format!("{words}\n")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_kept() {
        let mut pace = Pace::new("moving", Some(1 << 20));
        (0..5).for_each(|_| pace.add(20 << 10));
        assert!(pace.begun.elapsed() >= Duration::from_millis(95), "a tenth of a MiB takes a tenth of a second");
    }

    #[test]
    fn numbers_in_words() {
        assert_eq!(count(1, "upload", "uploads"), "1 upload");
        assert_eq!(objects(2, 3 << 20), "2 objects (3.0 MiB)");
    }
}
