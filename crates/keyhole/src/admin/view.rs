//! The elements of the status page.

use super::plot::Plot;
use crate::status::format::{count, duration_or_dash, size};

/// A displayed value and the exact value.
pub(super) struct Datum {
    pub(super) text: String,
    pub(super) value: String,
}

/// Current values and their history.
pub(super) struct Figure {
    pub(super) title: &'static str,
    pub(super) keys: Vec<Key>,
    pub(super) notes: Vec<Note>,
    pub(super) plots: [Plot; 2],
}

/// The current value of a plotted line.
pub(super) struct Key {
    pub(super) class: &'static str,
    pub(super) name: &'static str,
    pub(super) number: String,
    pub(super) unit: &'static str,
}

pub(super) struct Note {
    pub(super) name: &'static str,
    pub(super) datum: Datum,
}

pub(super) struct Table {
    pub(super) title: &'static str,
    /// Needs a wide place.
    pub(super) wide: bool,
    pub(super) head: Vec<&'static str>,
    pub(super) rows: Vec<Row>,
    /// The text that replaces absent rows.
    pub(super) none: &'static str,
    pub(super) note: String,
}

/// A name and its figures.
pub(super) struct Row {
    pub(super) name: String,
    pub(super) cells: Vec<Datum>,
}

impl Datum {
    pub(super) fn new(text: impl Into<String>, value: impl ToString) -> Self {
        Datum { text: text.into(), value: value.to_string() }
    }

    pub(super) fn count(number: u64) -> Self {
        Datum::new(count(number), number)
    }

    pub(super) fn size(bytes: u64) -> Self {
        Datum::new(size(bytes), bytes)
    }

    /// Returns the placeholder of an absent value.
    pub(super) fn dash() -> Self {
        Datum::new("–", "")
    }

    pub(super) fn seconds(seconds: Option<f64>) -> Self {
        Datum::new(duration_or_dash(seconds), seconds.map(|seconds| seconds.to_string()).unwrap_or_default())
    }
}

impl Row {
    pub(super) fn new(name: impl Into<String>, cells: impl IntoIterator<Item = Datum>) -> Self {
        Row { name: name.into(), cells: cells.into_iter().collect() }
    }
}
