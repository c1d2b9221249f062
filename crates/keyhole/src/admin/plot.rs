//! Plots of the history as SVG paths: lines that end at the right edge and share one time axis.

use std::fmt::Write;

/// Size of a plot in its own units; the page scales it.
pub(super) const WIDTH: f64 = 240.0;
pub(super) const HEIGHT: f64 = 64.0;

/// Margin at the top, so that the highest point is not cut off.
const MARGIN: f64 = 2.0;

/// One line.
pub(super) struct PlotLine {
    /// A class of the style sheet.
    pub(super) class: &'static str,
    /// The line.
    pub(super) path: String,
    /// The area below the line; empty if it has gaps or no area is requested.
    pub(super) area: String,
}

pub(super) struct Plot {
    /// A description for screen readers.
    pub(super) label: String,
    /// The value at the top.
    pub(super) top: String,
    /// The start of the time axis.
    pub(super) from: &'static str,
    pub(super) lines: Vec<PlotLine>,
    /// Whether there are no values yet.
    pub(super) empty: bool,
}

/// Values, oldest first; `None` is a gap.
pub(super) struct Series {
    pub(super) class: &'static str,
    pub(super) values: Vec<Option<f64>>,
}

/// Draws the series over at most `slots` values. `say` formats a value; `least` is the minimum of
/// the value at the top.
pub(super) fn draw(
    what: &str,
    from: &'static str,
    slots: usize,
    all: &[Series],
    least: f64,
    say: impl Fn(f64) -> String,
) -> Plot {
    let values = || all.iter().flat_map(|series| series.values.iter().copied().flatten());
    let most = values().fold(0.0, f64::max);
    let top = nice(most.max(least));
    let lines = all.iter().enumerate().map(|(at, series)| line(series, slots, top, at == 0)).collect();
    let label = match values().next() {
        None => format!("{what}, from {from} until now: nothing yet"),
        Some(_) => format!("{what}, from {from} until now: at most {}", say(most)),
    };
    Plot { label, top: say(top), from, lines, empty: values().next().is_none() }
}

/// Returns the smallest round number that is not below the value.
fn nice(value: f64) -> f64 {
    let unit = 10f64.powf(value.log10().floor());
    let steps = [1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0];
    steps.iter().map(|step| step * unit).find(|round| *round >= value).unwrap_or(10.0 * unit)
}

fn line(series: &Series, slots: usize, top: f64, with_area: bool) -> PlotLine {
    let step = WIDTH / (slots.max(2) - 1) as f64;
    let mut path = String::new();
    let mut pieces = 0;
    let mut first = None;
    let mut last = 0.0;
    let mut is_drawing = false;
    let len = series.values.len();
    for (at, value) in series.values.iter().enumerate() {
        let Some(value) = value else {
            is_drawing = false;
            continue;
        };
        let x = WIDTH - (len - 1 - at) as f64 * step;
        let y = HEIGHT - (value / top).clamp(0.0, 1.0) * (HEIGHT - MARGIN);
        // An isolated point is drawn as a dot.
        let _ = if is_drawing { write!(path, "L{x:.1} {y:.1}") } else { write!(path, "M{x:.1} {y:.1}h.01") };
        pieces += usize::from(!is_drawing);
        is_drawing = true;
        first.get_or_insert(x);
        last = x;
    }
    let area = match (first, pieces) {
        (Some(first), 1) if with_area => format!("{path}L{last:.1} {HEIGHT}L{first:.1} {HEIGHT}Z"),
        _ => String::new(),
    };
    PlotLine { class: series.class, path, area }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tops_are_round() {
        for (value, top) in [(1.0, 1.0), (1.01, 1.5), (7.0, 8.0), (8.1, 10.0), (0.03, 0.03), (0.000_21, 0.0003)] {
            assert!((nice(value) / top - 1.0).abs() < 1e-9, "{value}: {}", nice(value));
        }
        assert!(nice(123_456_789.0) >= 123_456_789.0);
    }

    #[test]
    fn lines_end_at_the_right_and_have_gaps() {
        let series = |values: &[Option<f64>]| Series { class: "a", values: values.to_vec() };
        let whole = line(&series(&[Some(0.0), Some(5.0), Some(10.0)]), 5, 10.0, true);
        assert_eq!(whole.path, "M120.0 64.0h.01L180.0 33.0L240.0 2.0");
        assert_eq!(whole.area, "M120.0 64.0h.01L180.0 33.0L240.0 2.0L240.0 64L120.0 64Z");
        let gaps = line(&series(&[Some(10.0), None, Some(20.0)]), 3, 10.0, true);
        assert_eq!((&gaps.path[..], &gaps.area[..]), ("M0.0 2.0h.01M240.0 2.0h.01", ""), "and stay inside");
        let none = line(&series(&[]), 3, 10.0, true);
        assert!(none.path.is_empty() && none.area.is_empty());
    }

    #[test]
    fn plot_label_has_maximum() {
        let say = |value: f64| format!("{value} /s");
        let plot =
            |values: Vec<Option<f64>>| draw("Requests", "2 min ago", 9, &[Series { class: "a", values }], 1.0, say);
        let full = plot(vec![Some(3.0), Some(7.0)]);
        assert_eq!((&full.top[..], full.empty), ("8 /s", false));
        assert_eq!(full.label, "Requests, from 2 min ago until now: at most 7 /s");
        let empty = plot(vec![None]);
        assert!(empty.empty && empty.label.ends_with("nothing yet"));
        assert_eq!(plot(vec![Some(0.0)]).top, "1 /s");
    }
}
