//! The plot of `keyhole bench`: a bar for each subject, sealing next to opening, on one core and on
//! all. The machine's limits, which have no seal and open, are below.

use svg::Document;
use svg::node::element::path::Data;
use svg::node::element::{Group, Path, Rectangle, Style, Text};

use super::report::{BenchReport, Operation, Subject};

const WIDTH: f64 = 960.0;
/// Start and maximum width of the bars in each of the two panels.
const LABELS: f64 = 240.0;
const PANEL: f64 = (WIDTH - LABELS) / 2.0;
const BAR_MAX: f64 = PANEL - 70.0;
const TOP: f64 = 120.0;
const ROW: f64 = 46.0;
const BAR: f64 = 14.0;
/// The distance between authenticated subjects and the limits.
const GAP: f64 = 34.0;

/// Readable on light and dark backgrounds.
const STYLE: &str = "
  text { font: 13px system-ui, sans-serif; fill: #24292f; }
  .title { font-size: 20px; font-weight: 600; }
  .note { fill: #57606a; font-size: 12px; }
  .head { font-weight: 600; }
  .value { font-size: 11px; font-variant-numeric: tabular-nums; }
  .ground { fill: #ffffff; }
  .break { stroke: #ffffff; stroke-width: 3; fill: none; }
  .ours { fill: #0969da; } .ours.all { fill: #8cc4ff; }
  .theirs { fill: #6e7781; } .theirs.all { fill: #c2c8ce; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; }
    .note { fill: #9198a1; }
    .ground { fill: #0d1117; }
    .break { stroke: #0d1117; }
    .ours.all { fill: #1f4f8a; }
    .theirs.all { fill: #3d444d; }
  }
";

/// Returns whether a subject does not authenticate, so that sealing and opening are the same.
fn is_limit(subject: Subject) -> bool {
    matches!(subject, Subject::AwsLcCtr | Subject::Memcpy)
}

/// Plots the figures of the length nearest to a chunk, 16 KiB.
pub(super) fn draw(report: &BenchReport) -> Document {
    let chunk = keyhole_core::limits::CHUNK_LEN;
    let size = report.figures.iter().map(|figure| figure.size).min_by_key(|size| size.abs_diff(chunk)).unwrap_or(chunk);
    let mut cores: Vec<usize> = report.figures.iter().map(|figure| figure.cores).collect();
    cores.sort_unstable();
    cores.dedup();
    // Copying would dwarf everything else: its bar is cut off, its figure is not.
    let of_size = report.figures.iter().filter(|figure| figure.size == size && figure.subject != Subject::Memcpy);
    let scale = of_size.map(|figure| figure.gb_per_s).fold(1.0, f64::max) * 1.1;
    let (limits, sealing): (Vec<_>, Vec<_>) = Subject::ALL.into_iter().partition(|subject| is_limit(*subject));
    let limits_top = TOP + ROW * sealing.len() as f64 + GAP;
    let height = limits_top + ROW * limits.len() as f64 + 76.0;

    let machine = &report.machine;
    let note = format!("{}, {} cores; {}", machine.processor, machine.cores, machine.instructions.join(", "));
    let size_text = bytesize::ByteSize(size as u64).display().iec().to_string();
    let mut document = Document::new()
        .set("viewBox", (0, 0, WIDTH, height))
        .set("role", "img")
        .add(Style::new(STYLE))
        .add(Rectangle::new().set("class", "ground").set("width", "100%").set("height", "100%"))
        .add(text(24.0, 38.0, "title", format!("Encryption throughput at {size_text}, GB/s")))
        .add(text(24.0, 62.0, "note", note))
        .add(text(LABELS, TOP - 20.0, "head", "seal"))
        .add(text(LABELS + PANEL, TOP - 20.0, "head", "open"))
        .add(text(LABELS, limits_top - 14.0, "head", "without authentication"))
        .add(legend(&cores, height - 52.0))
        .add(broken(24.0, height - 38.0, Rectangle::new().set("class", "theirs").set("width", 26)))
        .add(text(56.0, height - 26.0, "note", "a bar that is cut: its figure would take more than there is room for"));
    let row = |subject: Subject, y: f64, operation: Operation, x: f64| {
        let bars = cores.iter().enumerate().filter_map(|(i, &count)| {
            let figure = report.figure(subject, operation, size, count)?;
            Some(bar(x, y + (BAR + 2.0) * i as f64, figure, scale, &class(subject, i > 0)))
        });
        bars.fold(Group::new(), Group::add)
    };
    for (i, subject) in sealing.into_iter().enumerate() {
        let y = TOP + ROW * i as f64;
        document = document.add(label(subject, y)).add(row(subject, y, Operation::Seal, LABELS)).add(row(
            subject,
            y,
            Operation::Open,
            LABELS + PANEL,
        ));
    }
    for (i, subject) in limits.into_iter().enumerate() {
        let y = limits_top + ROW * i as f64;
        document = document.add(label(subject, y)).add(row(subject, y, Operation::Seal, LABELS));
    }
    document
}

fn class(subject: Subject, is_all_cores: bool) -> String {
    use Subject::{Accelerated, AcceleratedMessage, Portable, PortableMessage};
    let whose = match subject {
        Accelerated | Portable | AcceleratedMessage | PortableMessage => "ours",
        _ => "theirs",
    };
    if is_all_cores { format!("{whose} all") } else { whose.to_owned() }
}

fn text(x: f64, y: f64, class: &str, content: impl Into<String>) -> Text {
    Text::new(content).set("x", x).set("y", y).set("class", class)
}

fn label(subject: Subject, y: f64) -> Text {
    text(LABELS - 12.0, y + 18.0, "", subject.to_string()).set("text-anchor", "end")
}

fn bar(x: f64, y: f64, figure: f64, scale: f64, class: &str) -> Group {
    let width = (figure / scale).min(1.0) * BAR_MAX;
    let bar = Rectangle::new().set("class", class).set("width", format!("{width:.1}"));
    let bar = if figure > scale { broken(x, y, bar) } else { placed(x, y, bar) };
    bar.add(text(x + width + 6.0, y + 11.0, "value", format!("{figure:.2}")))
}

fn placed(x: f64, y: f64, bar: Rectangle) -> Group {
    Group::new().add(bar.set("x", x).set("y", y).set("rx", 2).set("height", BAR))
}

/// Draws a cut-off bar: with a slanted gap near its start.
fn broken(x: f64, y: f64, bar: Rectangle) -> Group {
    let slash = |at: f64| Data::new().move_to((at, y + BAR + 1.0)).line_to((at + 6.0, y - 1.0));
    let mark = |at: f64| Path::new().set("class", "break").set("d", slash(at));
    placed(x, y, bar).add(mark(x + 8.0)).add(mark(x + 14.0))
}

/// Draws the legend: the subject and core count of each colour.
fn legend(cores: &[usize], y: f64) -> Group {
    let mut legend = Group::new();
    let mut x = 24.0;
    for (subject, whose) in [(Subject::Accelerated, "Keyhole"), (Subject::AwsLcGcm, "what it is measured by")] {
        for (i, count) in cores.iter().enumerate() {
            let square = Rectangle::new().set("class", class(subject, i > 0)).set("x", x).set("y", y - 11.0);
            let plural = if *count == 1 { "" } else { "s" };
            let label = format!("{whose}, {count} core{plural}");
            legend = legend.add(square.set("width", 12).set("height", 12)).add(text(x + 18.0, y, "", &label[..]));
            x += 40.0 + 7.0 * label.len() as f64;
        }
    }
    legend
}
