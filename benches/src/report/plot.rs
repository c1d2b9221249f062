//! Plots: lines over a logarithmic axis, and stacked bars.

use svg::Document;
use svg::node::element::{Circle, Group, Line as Stroke, Polyline, Rectangle, Style, Text};

const WIDTH: f64 = 960.0;
const MARGIN: f64 = 24.0;
/// Top of the plot area, below title, note and legend.
const TOP: f64 = 126.0;

/// Plot area of lines.
const LINES_LEFT: f64 = 84.0;
const LINES_RIGHT: f64 = WIDTH - 36.0;
const LINES_HEIGHT: f64 = 340.0;

/// Left end and maximum length of bars.
const BARS_LEFT: f64 = 270.0;
const BARS_LEN: f64 = WIDTH - BARS_LEFT - 110.0;
const BAR: f64 = 20.0;
const BAR_GAP: f64 = 6.0;
/// Gap between groups of bars.
const GROUP_GAP: f64 = 18.0;

const STYLE: &str = "
  text { font: 13px system-ui, sans-serif; fill: #24292f; }
  .title { font-size: 20px; font-weight: 600; }
  .note { fill: #57606a; font-size: 12px; }
  .tick { fill: #57606a; font-size: 12px; font-variant-numeric: tabular-nums; }
  .value { font-size: 12px; font-variant-numeric: tabular-nums; }
  .ground { fill: #ffffff; }
  .grid { stroke: #d8dee4; stroke-width: 1; }
  .axis { stroke: #57606a; stroke-width: 1; }
  .limit { stroke: #24292f; stroke-width: 2.5; }
  polyline { fill: none; stroke-width: 2.5; }
";

/// The meaning of a line or of a part of a bar. It has the same colour in all plots.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Colour {
    /// Keyhole, or its GET.
    Ours,
    /// PUT by Keyhole.
    OursToo,
    /// nginx, or its GET.
    Theirs,
    /// PUT by nginx.
    TheirsToo,
    Network,
    Encryption,
    Disk,
    /// The remainder beyond the floors.
    Rest,
}

impl Colour {
    fn hex(self) -> &'static str {
        match self {
            Colour::Ours => "#0969da",
            Colour::OursToo => "#8250df",
            Colour::Theirs => "#6e7781",
            Colour::TheirsToo => "#afb8c1",
            Colour::Network => "#2da44e",
            Colour::Encryption => "#bf8700",
            Colour::Disk => "#1b7c83",
            Colour::Rest => "#cf222e",
        }
    }
}

/// A line through points.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) name: String,
    pub(super) colour: Colour,
    /// Points in order along the axis. Values that are not finite are omitted.
    pub(super) points: Vec<(f64, f64)>,
}

/// A stacked bar.
#[derive(Clone, Debug)]
pub(super) struct Bar {
    pub(super) name: String,
    pub(super) parts: Vec<(Colour, f64)>,
    /// Label after the bar.
    pub(super) text: String,
    /// Limit, drawn as a mark across the bar.
    pub(super) limit: Option<f64>,
}

/// Text above a plot.
#[derive(Clone, Copy, Debug)]
pub(super) struct Heading<'h> {
    pub(super) title: &'h str,
    pub(super) note: &'h str,
}

/// Returns about five round numbers from 0 to at least the maximum.
fn ticks(most: f64) -> Vec<f64> {
    let most = if most.is_finite() && most > 0.0 { most } else { 1.0 };
    let magnitude = 10f64.powf((most / 5.0).log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|step| step * magnitude);
    let step = steps.into_iter().find(|step| most / step <= 6.0).unwrap_or(steps[3]);
    let count = (most / step - 1e-9).ceil() as usize;
    (0..=count).map(|tick| tick as f64 * step).collect()
}

/// Formats a tick with as few digits as distinguish it from its neighbours.
fn tick_text(tick: f64, step: f64) -> String {
    let places = (-step.log10().floor()).clamp(0.0, 6.0) as usize;
    format!("{tick:.places$}")
}

fn text(x: f64, y: f64, class: &str, content: impl Into<String>) -> Text {
    Text::new(content).set("x", round(x)).set("y", round(y)).set("class", class)
}

fn round(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

fn stroke(class: &str, from: (f64, f64), to: (f64, f64)) -> Stroke {
    let stroke = Stroke::new().set("class", class).set("x1", round(from.0)).set("y1", round(from.1));
    stroke.set("x2", round(to.0)).set("y2", round(to.1))
}

fn begin(heading: Heading<'_>, height: f64) -> Document {
    Document::new()
        .set("viewBox", (0, 0, WIDTH, height))
        .set("role", "img")
        .add(Style::new(STYLE))
        .add(Rectangle::new().set("class", "ground").set("width", "100%").set("height", "100%"))
        .add(text(MARGIN, 36.0, "title", heading.title))
        .add(text(MARGIN, 58.0, "note", heading.note))
}

/// Draws a coloured square for each entry, with its label.
fn legend<'n>(entries: impl Iterator<Item = (Colour, &'n str)>) -> Group {
    let mut legend = Group::new();
    let mut x = MARGIN;
    for (colour, name) in entries {
        let square = Rectangle::new().set("x", round(x)).set("y", 75).set("width", 12).set("height", 12).set("rx", 2);
        legend = legend.add(square.set("fill", colour.hex())).add(text(x + 18.0, 86.0, "", name));
        x += 42.0 + 7.2 * name.chars().count() as f64;
    }
    legend
}

/// Draws lines over a logarithmic axis from its first to its last tick; the other axis begins at 0.
pub(super) fn lines(
    heading: Heading<'_>,
    x_name: &str,
    y_name: &str,
    x_ticks: &[(f64, String)],
    lines: &[Line],
) -> Document {
    let bottom = TOP + LINES_HEIGHT;
    let values = lines.iter().flat_map(|line| &line.points).map(|(_, y)| *y).filter(|y| y.is_finite());
    let y_ticks = ticks(values.fold(0.0, f64::max));
    let step = y_ticks.get(1).copied().unwrap_or(1.0);
    let y_max = y_ticks.last().copied().unwrap_or(1.0);
    let (first, last) = match (x_ticks.first(), x_ticks.last()) {
        (Some(first), Some(last)) if last.0 > first.0 => (first.0, last.0),
        (Some(first), _) => (first.0, first.0 * 10.0),
        _ => (1.0, 10.0),
    };
    // A margin on both sides keeps points off the axes.
    let left = LINES_LEFT + 24.0;
    let right = LINES_RIGHT - 24.0;
    let x_at = |x: f64| left + (x / first).ln() / (last / first).ln() * (right - left);
    let y_at = |y: f64| bottom - y / y_max * LINES_HEIGHT;
    let mut document = begin(heading, bottom + 64.0)
        .add(legend(lines.iter().map(|line| (line.colour, &line.name[..]))))
        .add(text(MARGIN, TOP - 8.0, "note", y_name))
        .add(text((LINES_LEFT + LINES_RIGHT) / 2.0, bottom + 46.0, "note", x_name).set("text-anchor", "middle"));
    for &tick in &y_ticks {
        let y = y_at(tick);
        document = document
            .add(stroke(if tick == 0.0 { "axis" } else { "grid" }, (LINES_LEFT, y), (LINES_RIGHT, y)))
            .add(text(LINES_LEFT - 8.0, y + 4.0, "tick", tick_text(tick, step)).set("text-anchor", "end"));
    }
    for (tick, name) in x_ticks {
        let x = x_at(*tick);
        document = document
            .add(stroke("axis", (x, bottom), (x, bottom + 5.0)))
            .add(text(x, bottom + 22.0, "tick", &name[..]).set("text-anchor", "middle"));
    }
    for line in lines {
        let points = line.points.iter().filter(|(_, y)| y.is_finite()).map(|(x, y)| (x_at(*x), y_at(*y)));
        let points: Vec<(f64, f64)> = points.map(|(x, y)| (round(x), round(y))).collect();
        let path: Vec<String> = points.iter().map(|(x, y)| format!("{x},{y}")).collect();
        document = document.add(Polyline::new().set("points", path.join(" ")).set("stroke", line.colour.hex()));
        for (x, y) in points {
            document = document.add(Circle::new().set("cx", x).set("cy", y).set("r", 4).set("fill", line.colour.hex()));
        }
    }
    document
}

/// Draws groups of bars over an axis that begins at 0.
pub(super) fn bars(heading: Heading<'_>, x_name: &str, colours: &[(Colour, &str)], groups: &[Vec<Bar>]) -> Document {
    let of = |bar: &Bar| {
        let parts = bar.parts.iter().map(|(_, value)| value.max(0.0)).filter(|value| value.is_finite());
        parts.sum::<f64>().max(bar.limit.unwrap_or(0.0))
    };
    let x_ticks = ticks(groups.iter().flatten().map(of).fold(0.0, f64::max));
    let step = x_ticks.get(1).copied().unwrap_or(1.0);
    let x_max = x_ticks.last().copied().unwrap_or(1.0);
    let of_group = |group: &Vec<Bar>| group.len() as f64 * (BAR + BAR_GAP) + GROUP_GAP;
    let bottom = TOP + groups.iter().map(of_group).sum::<f64>();
    let x_at = |x: f64| BARS_LEFT + x / x_max * BARS_LEN;
    let mut document = begin(heading, bottom + 60.0)
        .add(legend(colours.iter().copied()))
        .add(text(BARS_LEFT + BARS_LEN / 2.0, bottom + 42.0, "note", x_name).set("text-anchor", "middle"));
    for &tick in &x_ticks {
        let x = x_at(tick);
        document = document
            .add(stroke(if tick == 0.0 { "axis" } else { "grid" }, (x, TOP - 6.0), (x, bottom)))
            .add(text(x, bottom + 18.0, "tick", tick_text(tick, step)).set("text-anchor", "middle"));
    }
    let mut y = TOP + GROUP_GAP / 2.0;
    for group in groups {
        for bar in group {
            document = document.add(text(BARS_LEFT - 10.0, y + 15.0, "", &bar.name[..]).set("text-anchor", "end"));
            let mut at = 0.0;
            for (colour, value) in bar.parts.iter().filter(|(_, value)| value.is_finite() && *value > 0.0) {
                let part = Rectangle::new().set("x", round(x_at(at))).set("y", round(y)).set("height", BAR);
                let width = round(value / x_max * BARS_LEN);
                document = document.add(part.set("width", width).set("fill", colour.hex()));
                at += value;
            }
            if let Some(limit) = bar.limit {
                let x = x_at(limit);
                document = document.add(stroke("limit", (x, y - 3.0), (x, y + BAR + 3.0)));
                // Keep the text off the mark.
                if (x_at(at)..x_at(at) + 60.0).contains(&x) {
                    at = limit;
                }
            }
            document = document.add(text(x_at(at) + 8.0, y + 15.0, "value", &bar.text[..]));
            y += BAR + BAR_GAP;
        }
        y += GROUP_GAP;
    }
    document
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADING: Heading<'_> = Heading { title: "a title", note: "a note" };

    #[test]
    fn ticks_are_round_and_reach_the_highest_value() {
        assert_eq!(ticks(5.0), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
        assert_eq!(ticks(50.0).last(), Some(&50.0));
        assert_eq!(ticks(50.1).last(), Some(&60.0));
        for most in [0.001, 0.3, 7.0, 19.9, 123.0, 99_999.0] {
            let ticks = ticks(most);
            assert!((4..=8).contains(&ticks.len()) && ticks.last() >= Some(&most), "{most}: {ticks:?}");
        }
        assert_eq!(ticks(0.0).last(), Some(&1.0));
        assert_eq!(ticks(f64::NAN).last(), Some(&1.0));
    }

    #[test]
    fn tick_labels_are_distinct() {
        assert_eq!([tick_text(0.2, 0.2), tick_text(0.05, 0.05), tick_text(20.0, 10.0)], ["0.2", "0.05", "20"]);
    }

    #[test]
    fn lines_omit_unmeasured_points() {
        let line = Line {
            name: "GET".to_owned(),
            colour: Colour::Ours,
            points: vec![(1.0, 10.0), (4.0, f64::NAN), (16.0, 20.0)],
        };
        let ticks = [(1.0, "1".to_owned()), (16.0, "16".to_owned())];
        let text = lines(HEADING, "connections", "us", &ticks, &[line]).to_string();
        assert_eq!(text.matches("<circle").count(), 2);
        assert!(!text.contains("NaN") && text.contains("connections") && text.contains("a note"), "{text}");
    }

    #[test]
    fn bar_segments_are_adjacent() {
        let bar = Bar {
            name: "GET".to_owned(),
            parts: vec![(Colour::Network, 0.2), (Colour::Disk, f64::NAN), (Colour::Rest, 0.3)],
            text: "0.5 s".to_owned(),
            limit: Some(0.45),
        };
        let text = bars(HEADING, "s/GiB", &[(Colour::Network, "network")], &[vec![bar]]).to_string();
        let of = |colour: Colour| text.matches(colour.hex()).count();
        // The network also appears in the legend.
        assert_eq!((of(Colour::Network), of(Colour::Disk), of(Colour::Rest)), (2, 0, 1));
        assert!(!text.contains("NaN") && text.contains("0.5 s") && text.contains("class=\"limit\""), "{text}");
    }

    #[test]
    fn plot_without_measurements_renders() {
        let text = lines(HEADING, "x", "y", &[], &[]).to_string() + &bars(HEADING, "x", &[], &[]).to_string();
        assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
    }
}
