//! The status page, rendered completely by the node, so that it works without JavaScript. Its
//! script only replaces it with a newer one.
//!
//! This module selects the content; `templates/` defines its form. Every figure has its exact value
//! in a `data` element.

use askama::Template;

use super::figures::figures;
use super::tables::tables;
use super::view::{Datum, Figure, Table};
use crate::status::format::{moment, share, size, span};
use crate::status::{LATELY, Monitor, Samples, Severity, Status, StoreStatus};

pub(super) const STYLE: &str = include_str!("../../templates/status.css");
pub(super) const SCRIPT: &str = include_str!("../../templates/status.js");
pub(super) const ICON: &str = include_str!("../../templates/icon.svg");

/// Renders the current page.
pub(super) fn render(monitor: &Monitor) -> askama::Result<String> {
    Page::new(&monitor.status(), &monitor.samples()).render()
}

#[derive(Template)]
#[template(path = "status.html")]
struct Page {
    state: OverallState,
    version: String,
    facts: String,
    uptime: Datum,
    now: String,
    conditions: Vec<Shown>,
    figures: Vec<Figure>,
    space: Option<Space>,
    tables: Vec<Table>,
}

/// The node's overall state.
struct OverallState {
    class: &'static str,
    text: &'static str,
}

struct Shown {
    class: &'static str,
    text: String,
}

/// The bar that shows the use of space.
struct Space {
    label: String,
    parts: Vec<SpacePart>,
}

struct SpacePart {
    class: &'static str,
    name: &'static str,
    /// Start and length in thousandths of the whole.
    x: f64,
    width: f64,
    datum: Datum,
    share: String,
}

impl Page {
    fn new(status: &Status, samples: &Samples) -> Self {
        let node = &status.node;
        Page {
            state: state(status),
            version: node.version.clone(),
            facts: format!("{} · AES-256-GCM {} · sync {}", node.io, node.engine, node.sync),
            uptime: Datum::new(span(status.uptime_s), status.uptime_s.floor()),
            now: moment(status.clock.now_ms),
            conditions: status.conditions.iter().map(shown).collect(),
            figures: figures(status, samples),
            space: status.store.as_ref().map(space),
            tables: tables(status),
        }
    }
}

/// Returns the most important condition as the overall state.
fn state(status: &Status) -> OverallState {
    const STATES: [(&str, &str, &str); 12] = [
        ("starting", "note", "Starting"),
        ("draining", "note", "Shutting down"),
        ("store-absent", "fault", "Object file missing"),
        ("poisoned", "fault", "Refuses writes"),
        ("read-only", "warning", "Read-only"),
        ("worker-stuck", "fault", "Stuck"),
        ("full", "fault", "Full"),
        ("damage", "fault", "Damaged"),
        ("clock-behind", "warning", "Clock behind"),
        ("lock-clock", "warning", "Clock ahead"),
        ("remote-failing", "warning", "Remote failing"),
        ("remote-incomplete", "warning", "Remote incomplete"),
    ];
    let is_so = |name: &str| status.conditions.iter().any(|condition| condition.name == name);
    let found = STATES.iter().find(|(name, ..)| is_so(name));
    let (class, text) = found.map_or(("good", "Serving"), |(_, class, text)| (*class, *text));
    OverallState { class, text }
}

fn shown(condition: &crate::status::Condition) -> Shown {
    let class = match condition.severity {
        Severity::Note => "note",
        Severity::Warning => "warning",
        Severity::Fault => "fault",
    };
    Shown { class, text: condition.text.clone() }
}

fn space(store: &StoreStatus) -> Space {
    let free = store.figures.capacity.saturating_sub(store.figures.live + store.figures.dead + store.reserved);
    let all = [
        ("live", "live", store.figures.live),
        ("dead", "dead, to be cleaned", store.figures.dead),
        ("free", "free", free),
        ("reserved", "reserved", store.reserved),
    ];
    // Reserved space may be in use while the store is full.
    let whole = all.iter().map(|(.., bytes)| bytes).sum::<u64>().max(1);
    let mut x = 0.0;
    let parts = all.into_iter().map(|(class, name, bytes)| {
        let width = 1000.0 * bytes as f64 / whole as f64;
        let part = SpacePart { class, name, x, width, datum: Datum::size(bytes), share: share(bytes, whole) };
        x += width;
        part
    });
    let parts: Vec<SpacePart> = parts.collect();
    let label = format!("{} of {} live", size(store.figures.live), size(store.figures.capacity));
    Space { label, parts }
}

const _: () = assert!(LATELY == 10, "the page names this period");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::{Sample, sample_status};

    fn html(status: &Status) -> String {
        let sample = Sample { span_s: 1.0, requests: 5, received: 1_000_000, p50_s: Some(0.001), ..Sample::default() };
        Page::new(status, &Samples { seconds: vec![sample; 3], minutes: vec![sample] }).render().unwrap()
    }

    #[test]
    fn figures_have_their_exact_values() {
        let text = html(&sample_status());
        for part in [
            "<data value=\"9007199254741000\">9,007,199,254,741,000</data>",
            "<data value=\"18446744073709551615\">16.0 EiB</data>",
            "<data value=\"123456\">120.6 KiB</data>",
            "there are 9 more",
            "Full",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn foreign_text_is_escaped() {
        let mut status = sample_status();
        status.buckets[0].bucket = "<script>alert(1)</script>".to_owned();
        status.node.version = "\"><i>".to_owned();
        status.requests.operations[0].operation = "a&b".to_owned();
        let text = html(&status);
        assert!(!text.contains("<script>alert") && !text.contains("<i>") && !text.contains("a&b"), "{text}");
        assert!(text.contains("&#60;script&#62;alert(1)") && text.contains("&#60;Delete&#62;"));
    }

    /// Complies with the page's content security policy: no inline style or script, and no foreign
    /// resources.
    #[test]
    fn page_refers_to_own_files_only() {
        let text = html(&sample_status());
        assert!(
            !text.contains("style=") && !text.contains("<style") && !text.contains("onclick") && !text.contains("://")
        );
        assert_eq!(
            (text.matches("<script").count(), text.matches("<script src=\"/status.js\" defer>").count()),
            (1, 1)
        );
        for file in [STYLE, SCRIPT] {
            assert!(!file.contains("://") && !file.contains("@import") && !file.contains("url("));
        }
    }

    #[test]
    fn every_state_has_a_name() {
        let mut status = sample_status();
        for (name, text) in [
            ("starting", "Starting"),
            ("draining", "Shutting down"),
            ("store-absent", "Object file missing"),
            ("poisoned", "Refuses writes"),
            ("read-only", "Read-only"),
            ("worker-stuck", "Stuck"),
            ("full", "Full"),
            ("damage", "Damaged"),
            ("clock-behind", "Clock behind"),
            ("lock-clock", "Clock ahead"),
            ("remote-failing", "Remote failing"),
            ("remote-incomplete", "Remote incomplete"),
        ] {
            let mut condition = status.conditions[0].clone();
            condition.name = name.to_owned();
            status.conditions = vec![condition];
            assert_eq!(state(&status).text, text);
        }
        status.conditions.clear();
        assert_eq!((state(&status).class, state(&status).text), ("good", "Serving"));
    }

    #[test]
    fn idle_node_has_page() {
        let monitor = Monitor::new(crate::status::NodeFacts { workers: 1, ..crate::status::NodeFacts::default() });
        let text = Page::new(&monitor.status(), &Samples::default()).render().unwrap();
        assert!(text.contains("Starting") && text.contains("No requests yet."));
        assert!(render(&monitor).unwrap().contains("Starting"));
    }
}
