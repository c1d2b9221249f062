//! The names of S3's published model, and the page that lists those without effect.

use std::collections::BTreeSet;

const MODEL: &str = include_str!("s3-model.txt");
const PAGE: &str = include_str!("../../../../keyhole/docs/S3.md");

/// Returns the names of a kind that S3 defines for an operation.
pub(crate) fn names(operation: &str, kind: &str) -> Vec<&'static str> {
    let lines = MODEL.lines().filter(|line| !line.starts_with('#'));
    let found = lines
        .map(|line| line.split(' '))
        .find_map(|mut words| (words.next() == Some(operation) && words.next() == Some(kind)).then(|| words.collect()));
    found.unwrap_or_default()
}

/// Returns the names of a kind that S3 defines for any operation.
pub(crate) fn all_names(kind: &str) -> BTreeSet<&'static str> {
    let lines = MODEL.lines().filter(|line| !line.starts_with('#'));
    let of_kind = lines
        .map(|line| line.split(' ').skip(1))
        .filter_map(|mut words| if words.next() == Some(kind) { Some(words) } else { None });
    of_kind.flatten().collect()
}

/// A row of the page: a name that has no effect by design.
#[derive(Debug)]
pub(crate) struct Row {
    /// `header`, `parameter` or `field`.
    pub(crate) kind: &'static str,
    /// The name; ends with `*` for all that begin so.
    pub(crate) name: &'static str,
    /// The values without effect; empty for all.
    pub(crate) values: Vec<&'static str>,
    /// The operations.
    pub(crate) place: &'static str,
}

impl Row {
    /// Returns whether the row is about a name on an operation, whatever its value.
    pub(crate) fn covers(&self, kind: &str, name: &str, operation: &str) -> bool {
        self.values.is_empty() && self.kind == kind && self.is_of(name) && self.is_on(name, operation)
    }

    fn is_of(&self, name: &str) -> bool {
        match self.name.strip_suffix('*') {
            Some(prefix) => name.starts_with(prefix),
            None => self.name == name,
        }
    }

    /// Returns whether the row is about an operation.
    pub(crate) fn is_on(&self, name: &str, operation: &str) -> bool {
        match self.place {
            "everywhere" => true,
            "elsewhere" => !names(operation, self.kind).contains(&name),
            list => list.split(", ").any(|word| word == operation),
        }
    }
}

/// Returns the rows of the table in the page.
pub(crate) fn rows() -> Vec<Row> {
    let table = PAGE.split("<!-- names without effect -->").nth(1).expect("a table");
    let table = table.split("<!-- end -->").next().expect("its end");
    let mut rows = Vec::new();
    for line in table.lines().filter(|line| line.starts_with('|')).skip(2) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [kind, names, values, place, reason] = cells[..] else { panic!("{line}: five cells") };
        assert!(!reason.is_empty(), "{line}: a row has a reason");
        let list = |cell: &'static str| cell.split(", ").map(|word| word.trim_matches('`'));
        let values: Vec<&str> = list(values).filter(|value| *value != "any").collect();
        rows.extend(list(names).map(|name| Row { kind, name, values: values.clone(), place }));
    }
    rows
}
