//! The plot of `keyhole bench`: a bar for each subject, sealing beside opening, one core and all of them.

use svg::Document;
use svg::node::element::{Group, Rectangle, Style, Text};

use super::bench::{Operation, Report, Subject};

const WIDTH: f64 = 960.0;
/// Where the bars begin and how wide one may be, in each of the two panels.
const LABELS: f64 = 240.0;
const PANEL: f64 = (WIDTH - LABELS) / 2.0;
const BAR_MAX: f64 = PANEL - 70.0;
const TOP: f64 = 120.0;
const ROW: f64 = 46.0;
const BAR: f64 = 14.0;

/// Readable in light and dark surroundings.
const STYLE: &str = "
  text { font: 13px system-ui, sans-serif; fill: #24292f; }
  .title { font-size: 20px; font-weight: 600; }
  .note { fill: #57606a; font-size: 12px; }
  .head { font-weight: 600; }
  .value { font-size: 11px; font-variant-numeric: tabular-nums; }
  .ground { fill: #ffffff; }
  .ours { fill: #0969da; } .ours.all { fill: #8cc4ff; }
  .theirs { fill: #6e7781; } .theirs.all { fill: #c2c8ce; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; }
    .note { fill: #9198a1; }
    .ground { fill: #0d1117; }
    .ours.all { fill: #1f4f8a; }
    .theirs.all { fill: #3d444d; }
  }
";

/// Draws the figures of the size nearest to a chunk, 16 KiB.
pub(super) fn draw(report: &Report) -> Document {
    let chunk = keyhole_core::limits::CHUNK_LEN;
    let size = report.figures.iter().map(|figure| figure.size).min_by_key(|size| size.abs_diff(chunk)).unwrap_or(chunk);
    let mut cores: Vec<usize> = report.figures.iter().map(|figure| figure.cores).collect();
    cores.sort_unstable();
    cores.dedup();
    // Copying is so much faster that all else would be a stub beside it: its bar is cut, its figure is not.
    let of_size = report.figures.iter().filter(|figure| figure.size == size && figure.subject != Subject::Memcpy);
    let scale = of_size.map(|figure| figure.gb_per_s).fold(1.0, f64::max) * 1.1;
    let height = TOP + ROW * Subject::ALL.len() as f64 + 50.0;

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
        .add(legend(&cores, height - 24.0));
    for (row, subject) in Subject::ALL.into_iter().enumerate() {
        let y = TOP + ROW * row as f64;
        document = document.add(text(LABELS - 12.0, y + 18.0, "", subject.to_string()).set("text-anchor", "end"));
        for (panel, operation) in [Operation::Seal, Operation::Open].into_iter().enumerate() {
            for (i, &count) in cores.iter().enumerate() {
                let Some(figure) = report.figure(subject, operation, size, count) else { continue };
                let (x, y) = (LABELS + PANEL * panel as f64, y + (BAR + 2.0) * i as f64);
                document = document.add(bar(x, y, figure, scale, class(subject, i > 0)));
            }
        }
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

fn bar(x: f64, y: f64, figure: f64, scale: f64, class: String) -> Group {
    let width = (figure / scale).min(1.0) * BAR_MAX;
    let bar = Rectangle::new().set("class", class).set("x", x).set("y", y).set("rx", 2).set("height", BAR);
    Group::new().add(bar.set("width", format!("{width:.1}"))).add(text(
        x + width + 6.0,
        y + 11.0,
        "value",
        format!("{figure:.2}"),
    ))
}

fn legend(cores: &[usize], y: f64) -> Group {
    let mut legend = Group::new();
    for (i, count) in cores.iter().enumerate() {
        let x = LABELS + 120.0 * i as f64;
        let class = class(Subject::Accelerated, i > 0);
        let square = Rectangle::new().set("class", class).set("x", x).set("y", y - 11.0).set("width", 12);
        let plural = if *count == 1 { "" } else { "s" };
        legend = legend.add(square.set("height", 12)).add(text(x + 18.0, y, "", format!("{count} core{plural}")));
    }
    legend
}
