//! `keyhole bench-disk`: measures the object file on the disk of a directory.
//!
//! It measures the production disk access and engine, including maintenance. All files are in a
//! temporary directory. Compared subjects are measured in turns within one run: on a shared
//! machine, figures of different runs are not comparable.

mod commits;
mod fill;
mod node;
mod rig;
mod startup;
mod stream;

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use comfy_table::{CellAlignment, Table};
use serde::Serialize;

use super::{Failure, Result};
use crate::cli::bench::BenchDiskOptions;

/// The acceptable range of a figure.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum Limit {
    AtMost(f64),
    AtLeast(f64),
}

impl Limit {
    fn holds(self, value: f64) -> bool {
        match self {
            Limit::AtMost(limit) => value <= limit,
            Limit::AtLeast(limit) => value >= limit,
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Limit::AtMost(limit) => write!(f, "at most {limit}"),
            Limit::AtLeast(limit) => write!(f, "at least {limit}"),
        }
    }
}

/// One figure.
#[derive(Clone, PartialEq, Debug, Serialize)]
struct Figure {
    what: String,
    value: f64,
    unit: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<Limit>,
    #[serde(skip_serializing_if = "Option::is_none")]
    holds: Option<bool>,
}

/// The figures so far. Each is printed to standard error as it arrives.
#[derive(Default, Serialize)]
struct Report {
    figures: Vec<Figure>,
}

impl Report {
    fn add(&mut self, what: impl Into<String>, value: f64, unit: &'static str, limit: Option<Limit>) {
        let figure = Figure { what: what.into(), value, unit, limit, holds: limit.map(|limit| limit.holds(value)) };
        eprintln!("{}: {} {unit}", figure.what, figure.text());
        self.figures.push(figure);
    }

    fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_preset(comfy_table::presets::UTF8_HORIZONTAL_ONLY);
        table.set_header(["", "figure", "", "limit", ""]);
        for figure in &self.figures {
            let limit = figure.limit.map_or_else(String::new, |limit| limit.to_string());
            let verdict = match figure.holds {
                Some(true) => "holds",
                Some(false) => "MISSED",
                None => "",
            };
            table.add_row([&figure.what, &figure.text(), figure.unit, &limit, verdict]);
        }
        if let Some(column) = table.column_mut(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table
    }
}

impl Figure {
    fn text(&self) -> String {
        match self.value {
            value if value >= 100.0 => format!("{value:.0}"),
            value => format!("{value:.2}"),
        }
    }
}

/// Returns the median; of an even count, the lower of the two.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) / 2).copied().unwrap_or(f64::NAN)
}

/// Returns the 99th percentile.
fn percentile_99(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get((values.len() * 99).div_ceil(100).saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

pub(crate) fn run(options: &BenchDiskOptions) -> Result<()> {
    if let Some(what) = &options.populate {
        return startup::populate(&options.directory, what);
    }
    let directory = Directory::new(&options.directory)?;
    let (mut report, all) = (Report::default(), options.all);
    if options.commits || all {
        commits::run(&directory, options.turns, &mut report)?;
    }
    if options.stream || all {
        stream::run(&directory, options.turns, &mut report)?;
    }
    if options.startup || all {
        startup::run(&directory, options.objects, options.large, &mut report)?;
    }
    if options.fill || all {
        fill::run(&directory, options.size, &mut report)?;
    }
    let text = match options.json {
        true => serde_json::to_string_pretty(&report).map_err(|error| Failure::Other(error.to_string()))?,
        false => report.table().to_string(),
    };
    super::operate::print(&format!("{text}\n"));
    Ok(())
}

/// The directory of all files, removed on drop.
struct Directory(tempfile::TempDir);

impl Directory {
    fn new(within: &Path) -> Result<Self> {
        let made = tempfile::Builder::new().prefix("keyhole-bench-").tempdir_in(within);
        let made =
            made.map_err(|error| Failure::io(format!("cannot make a directory in {}", within.display()), error))?;
        Ok(Directory(made))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Frees the space of a store before the next one is created.
    fn remove(&self, name: &str) -> Result<()> {
        let path = self.path(name);
        fs::remove_dir_all(&path).map_err(|error| Failure::io(format!("cannot remove {}", path.display()), error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_and_medians() {
        assert!(Limit::AtMost(2.0).holds(2.0) && !Limit::AtMost(2.0).holds(2.1));
        assert!(Limit::AtLeast(0.9).holds(0.9) && !Limit::AtLeast(0.9).holds(0.8));
        assert!(!Limit::AtLeast(0.9).holds(f64::NAN), "what was not measured does not hold");
        assert_eq!((median(vec![3.0, 1.0, 2.0]), median(vec![4.0, 1.0])), (2.0, 1.0));
        let hundred: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!((percentile_99(hundred), percentile_99(vec![7.0])), (99.0, 7.0));
        let mut report = Report::default();
        report.add("a", 1.0, "s", Some(Limit::AtMost(2.0)));
        report.add("b", 3.0, "s", Some(Limit::AtMost(2.0)));
        let table = report.table().to_string();
        assert!(table.contains("holds") && table.contains("MISSED") && table.contains("at most 2"), "{table}");
    }
}
