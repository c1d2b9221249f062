//! The figures of `keyhole bench-disk` and their table.

use std::fmt;

use comfy_table::{CellAlignment, Table};
use serde::Serialize;

/// The acceptable range of a figure.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Limit {
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
pub(super) struct DiskFigure {
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
pub(super) struct DiskReport {
    figures: Vec<DiskFigure>,
}

impl DiskReport {
    pub(super) fn add(&mut self, what: impl Into<String>, value: f64, unit: &'static str, limit: Option<Limit>) {
        let figure = DiskFigure { what: what.into(), value, unit, limit, holds: limit.map(|limit| limit.holds(value)) };
        eprintln!("{}: {} {unit}", figure.what, figure.text());
        self.figures.push(figure);
    }

    pub(super) fn table(&self) -> Table {
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

impl DiskFigure {
    fn text(&self) -> String {
        match self.value {
            value if value >= 100.0 => format!("{value:.0}"),
            value => format!("{value:.2}"),
        }
    }
}

/// Returns the median; of an even count, the lower of the two.
pub(super) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) / 2).copied().unwrap_or(f64::NAN)
}

/// Returns the 99th percentile.
pub(super) fn percentile_99(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get((values.len() * 99).div_ceil(100).saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn report_judges_figures_by_limits() {
        assert!(Limit::AtMost(2.0).holds(2.0) && !Limit::AtMost(2.0).holds(2.1));
        assert!(Limit::AtLeast(0.9).holds(0.9) && !Limit::AtLeast(0.9).holds(0.8));
        assert!(!Limit::AtLeast(0.9).holds(f64::NAN), "what was not measured does not hold");
        assert_eq!((median(vec![3.0, 1.0, 2.0]), median(vec![4.0, 1.0])), (2.0, 1.0));
        let hundred: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!((percentile_99(hundred), percentile_99(vec![7.0])), (99.0, 7.0));
        let mut report = DiskReport::default();
        report.add("a", 1.0, "s", Some(Limit::AtMost(2.0)));
        report.add("b", 3.0, "s", Some(Limit::AtMost(2.0)));
        let table = report.table().to_string();
        assert!(table.contains("holds") && table.contains("MISSED") && table.contains("at most 2"), "{table}");
    }
}
