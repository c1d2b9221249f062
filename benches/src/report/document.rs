//! The page of the report: tables, explanations and plots.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use bytesize::ByteSize;
use svg::Document;

use super::figures::{Figure, Figures, Unit};
use super::machine::Machine;
use super::plot::{self, Bar, Colour, Heading, Line};
use super::scenario::{
    CONNECTIONS, LARGE, MIB, SMALL, Sample, Scenario, Server, USUAL, floors, operation_name, size_name,
};
use crate::work::Operation;
use crate::{Error, Result};

/// Marks the beginning of the hand-written remarks.
const REMARKS_BEGIN: &str = "<!-- From here on to the end: REMARKS.md. -->\n";

/// Fraction of the cores used by other processes from which a warning is printed.
const OTHERS_MAX: f64 = 0.05;

/// The subject of the report, apart from its figures.
pub(super) struct Subject<'s> {
    pub(super) machine: &'s Machine,
    pub(super) nginx_version: &'s str,
    pub(super) turns: usize,
    pub(super) seconds: f64,
    /// Whether this is a short run, whose figures are unreliable.
    pub(super) is_quick: bool,
}

/// Formats a Markdown table. Every column but the first is right-aligned.
fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let escaped = |cell: &str| cell.replace('|', "\\|");
    let mut text = format!("| {} |\n|---|", header.join(" | "));
    text.push_str(&"---:|".repeat(header.len().saturating_sub(1)));
    text.push('\n');
    for row in rows {
        let cells: Vec<String> = row.iter().map(|cell| escaped(cell)).collect();
        text.push_str(&format!("| {} |\n", cells.join(" | ")));
    }
    text.push('\n');
    text
}

/// Formats an optional value.
fn optional(value: Option<f64>, unit: Unit) -> String {
    value.map_or_else(String::new, |value| unit.number(value))
}

fn percent(share: f64) -> String {
    if share.is_finite() { format!("{:.0} %", share * 100.0) } else { "–".to_owned() }
}

/// Formats the page. `remarks` is the hand-written text about the figures.
pub(super) fn page(subject: &Subject<'_>, figures: &Figures<'_>, remarks: &str) -> String {
    let parts = [
        introduction(subject, figures),
        verdicts(figures),
        cpu(figures),
        throughput(figures),
        sizes(figures),
        growth(figures),
        floor_table(figures),
        disturbances(figures, subject.machine.cores),
    ];
    let mut text: String = parts.concat();
    text.push_str(REMARKS_BEGIN);
    text.push_str(remarks);
    text
}

/// Replaces the remarks of an existing page.
///
/// # Errors
/// The page was not written by this program.
pub(super) fn with_remarks(page: &str, remarks: &str) -> Result<String> {
    let (before, _) = page
        .split_once(REMARKS_BEGIN)
        .ok_or_else(|| Error::new("the results have no place for remarks; run keyhole-report to make them"))?;
    Ok(format!("{before}{REMARKS_BEGIN}{remarks}"))
}

fn introduction(subject: &Subject<'_>, figures: &Figures<'_>) -> String {
    let Machine { processor, cores, memory, kernel, file_system } = subject.machine;
    let mut text = "# End-to-end costs of Keyhole\n\n\
        Written by `benches/run`. [REMARKS.md](REMARKS.md), repeated at the end of this page, explains the figures.\n\n"
        .to_owned();
    if subject.is_quick {
        text.push_str("**Quick run: a functional check. Its figures mean little.**\n\n");
    }
    let _ = write!(
        text,
        "{processor}, {cores} cores; {} of memory; {kernel}; {file_system}; nginx {}. HTTP on loopback, SSE-C, \
         `UNSIGNED-PAYLOAD`, durable PUTs, {USUAL} connections unless stated otherwise. The cores are shared with the load \
         generator, which compares every received byte. All servers were measured in turns: {} of {} s per figure, whose median \
         is shown.\n\n",
        ByteSize(*memory).display().iec(),
        subject.nginx_version,
        subject.turns,
        subject.seconds,
    );
    let counts = figures.counts;
    let _ = write!(
        text,
        "The store has {} objects of 4 KiB unless stated otherwise, {} of 1 MiB and {} of 64 MiB; requests are spread over all \
         of them. CPU time covers all threads of the server, user and kernel. nginx is the reference: it serves files with \
         `sendfile` and accepts PUTs by DAV, without encryption, signatures or durability; over TLS it encrypts once.\n\n\
         Floors are measured in the same turns by programs with a single task. *Network*: a server that reads requests and \
         responds from memory. *Encryption*: AES-256-GCM of 16 KiB chunks with the node's engine, twice over TLS; for 4 KiB \
         including key derivation. *Disk*: reads from the page cache; direct, durable writes. Encryption and reads run on all \
         cores at once, as in a loaded server, where two cores may be two threads of one.\n\n",
        Unit::PerSecond.number(counts.small as f64),
        counts.mib,
        counts.large,
    );
    text
}

fn verdicts(figures: &Figures<'_>) -> String {
    let all = figures.all();
    let missed: Vec<&Figure> = all.iter().filter(|figure| figure.holds() != Some(true)).collect();
    let mut text = match missed.len() {
        0 => format!("All {} limits are met.\n\n", all.len()),
        count => format!("{count} of {} limits are missed:\n\n", all.len()),
    };
    for figure in &missed {
        let _ = writeln!(text, "- {figure}");
    }
    if !missed.is_empty() {
        text.push('\n');
    }
    text
}

/// Returns the leading cells, which all tables of figures share.
fn beginning(figure: &Figure) -> Vec<String> {
    let what = match figure.unit.name() {
        "" => figure.what.clone(),
        unit => format!("{}, {unit}", figure.what),
    };
    let limit = figure.limit_text();
    let limit = limit.strip_suffix(figure.unit.name()).unwrap_or(&limit).trim_end().to_owned();
    vec![what, limit, format!("**{}**", figure.unit.number(figure.ours)), figure.verdict()]
}

fn cpu(figures: &Figures<'_>) -> String {
    let all = figures.cpu_figures();
    let rows = all.iter().map(|figure| {
        let unit = figure.unit;
        let floors = &figure.floors;
        let mut row = beginning(figure);
        row.extend([floors.network, floors.encryption, floors.disk].map(|floor| optional(floor, unit)));
        row.push(optional(floors.together, unit));
        row.push(optional(floors.together.map(|floor| figure.ours - floor), unit));
        row.push(figure.kernel_share.map_or_else(String::new, percent));
        row.push(optional(figure.nginx, unit));
        row
    });
    let header = [
        "CPU time of the server",
        "limit",
        "Keyhole",
        "",
        "network",
        "encryption",
        "disk",
        "floor",
        "the rest",
        "in the kernel",
        "nginx",
    ];
    let mut text = "## 1. CPU time of the server\n\n".to_owned();
    text.push_str(&table(&header, &rows.collect::<Vec<_>>()));
    text.push_str("*Floor* is the sum of network, encryption and disk. *In the kernel* is the kernel's share of Keyhole's CPU time.\n\n");
    for figure in &all {
        text.push_str(&sentence(figure));
    }
    text.push_str(
        "\n![CPU time of a GiB, by parts](plots/cost.svg)\n\n![CPU time of a small operation, by parts](plots/cost-small.svg)\n\n",
    );
    text
}

/// Describes the parts of a figure's time.
fn sentence(figure: &Figure) -> String {
    let Figure { what, unit, ours, floors, .. } = figure;
    let (Some(network), Some(encryption), Some(disk), Some(floor)) =
        (floors.network, floors.encryption, floors.disk, floors.together)
    else {
        return String::new();
    };
    let parts = [("the network", network), ("encryption", encryption), ("the disk", disk)];
    let parts = parts.map(|(name, part)| format!("{name} {}", percent(part / ours)));
    let rest = ours - floor;
    let of_rest = if rest > 0.0 {
        format!("the rest is {}, {}", unit.text(rest), percent(rest / ours))
    } else {
        "there is no rest".to_owned()
    };
    format!(
        "- {what}: {}. The floors account for {} ({}); {of_rest}.\n",
        unit.text(*ours),
        percent(floor / ours),
        parts.join(", ")
    )
}

fn throughput(figures: &Figures<'_>) -> String {
    let rows = figures.throughput_figures().into_iter().map(|figure| {
        let unit = figure.unit;
        let floors = &figure.floors;
        let mut row = beginning(&figure);
        row.extend([floors.network, floors.encryption, floors.disk].map(|floor| optional(floor, unit)));
        row.push(optional(floors.together, unit));
        row.push(optional(figure.nginx, unit));
        row
    });
    let header =
        ["throughput and latency", "limit", "Keyhole", "", "network", "encryption", "disk", "together", "nginx"];
    let mut text = "## 2. Throughput and latency\n\n".to_owned();
    text.push_str(&table(&header, &rows.collect::<Vec<_>>()));
    text.push_str(
        "*Network*, *encryption* and *disk* are the figures of each alone. *Together* is their sum for latencies; for \
         throughput it is the rate at which the generator's measured cost and the floors fill the cores, or the disk's rate if \
         that is lower.\n\n",
    );
    let rows = [Operation::Get, Operation::Put].into_iter().flat_map(|operation| {
        [MIB, LARGE].map(|size| {
            let of = |server| figures.counts.scenario(server, operation, size, USUAL);
            let scenario = of(Server::Keyhole);
            let median = |figure: fn(&Sample) -> f64| figures.results.median(scenario, figure);
            let cores = [
                median(|sample| sample.server_cores),
                median(|sample| sample.own_cores),
                median(|sample| sample.other_cores),
                median(|sample| sample.idle_cores),
            ];
            let mut row = vec![format!("{} {}", operation_name(operation), size_name(size))];
            row.extend(
                [Server::Keyhole, Server::Nginx, Server::Bare]
                    .map(|server| Unit::GibPerSecond.number(gib_per_s(figures, of(server)))),
            );
            row.extend(cores.map(|cores| Unit::Ratio.number(cores)));
            row
        })
    });
    let header = ["GiB/s", "Keyhole", "nginx", "network alone", "cores: node", "generator", "others", "idle"];
    text.push_str(&table(&header, &rows.collect::<Vec<_>>()));
    text.push_str("![Throughput](plots/throughput.svg)\n\n");
    text
}

fn gib_per_s(figures: &Figures<'_>, scenario: Scenario) -> f64 {
    figures.results.median(scenario, |sample| sample.bytes_per_s) / (1u64 << 30) as f64
}

fn sizes(figures: &Figures<'_>) -> String {
    let rows = figures.size_figures().into_iter().map(|figure| {
        let mut row = beginning(&figure);
        row.push(optional(figure.nginx, figure.unit));
        row
    });
    let mut text = "## 3. Memory and program size\n\n".to_owned();
    text.push_str(&table(&["bytes", "limit", "Keyhole", "", "nginx"], &rows.collect::<Vec<_>>()));
    text.push_str("The figures of nginx cover all of its processes, and its program without modules.\n\n");
    text
}

fn growth(figures: &Figures<'_>) -> String {
    let mut text = "## 4. Cost per operation as load grows\n\n".to_owned();
    let rows: Vec<Vec<String>> = figures.growth_figures().iter().map(beginning).collect();
    text.push_str(&table(&["4 KiB", "limit", "Keyhole", ""], &rows));
    let number =
        |unit: Unit, scenario, figure: fn(&Sample) -> f64| unit.number(figures.results.median(scenario, figure));
    let mut rows = Vec::new();
    for operation in [Operation::Get, Operation::Put] {
        for connections in CONNECTIONS {
            let of = |server| figures.counts.scenario(server, operation, SMALL, connections);
            let ours = of(Server::Keyhole);
            let floors = figures.cpu_floors(ours);
            rows.push(vec![
                format!("{}, {connections}", operation_name(operation)),
                format!("**{}**", number(Unit::Microseconds, ours, |sample| sample.cpu_per_operation)),
                optional(floors.network, Unit::Microseconds),
                optional(floors.together, Unit::Microseconds),
                number(Unit::Microseconds, of(Server::Nginx), |sample| sample.cpu_per_operation),
                number(Unit::PerSecond, ours, |sample| sample.operations_per_s),
                number(Unit::PerSecond, of(Server::Nginx), |sample| sample.operations_per_s),
                number(Unit::Microseconds, ours, |sample| sample.p50),
                number(Unit::Microseconds, ours, |sample| sample.p99),
            ]);
        }
    }
    let header = ["connections", "CPU, us", "network", "floor", "nginx", "operations/s", "nginx", "p50, us", "p99, us"];
    text.push_str(&table(&header, &rows));
    let mut rows = Vec::new();
    for operation in [Operation::Get, Operation::Put] {
        for &objects in &figures.counts.growing {
            let usual = figures.counts.scenario(Server::Keyhole, operation, SMALL, USUAL);
            let ours = Scenario { objects, ..usual };
            rows.push(vec![
                format!("{}, {}", operation_name(operation), Unit::PerSecond.number(objects as f64)),
                format!("**{}**", number(Unit::Microseconds, ours, |sample| sample.cpu_per_operation)),
                optional(figures.cpu_floors(usual).together, Unit::Microseconds),
                number(Unit::PerSecond, ours, |sample| sample.operations_per_s),
                number(Unit::Microseconds, ours, |sample| sample.p50),
                number(Unit::Microseconds, ours, |sample| sample.p99),
            ]);
        }
    }
    text.push_str(&table(&["objects", "CPU, us", "floor", "operations/s", "p50, us", "p99, us"], &rows));
    text.push_str("![CPU time by connections](plots/connections.svg)\n\n![CPU time by objects](plots/objects.svg)\n\n");
    text
}

fn floor_table(figures: &Figures<'_>) -> String {
    let rows = floors().into_iter().map(|floor| {
        let cpu = figures.results.floor(floor, |cost| cost.cpu);
        let rate = figures.results.floor(floor, |cost| cost.rate);
        let cpu_unit = if floor.is_by_gib() { Unit::SecondsPerGib } else { Unit::Microseconds };
        let rate_unit = if floor.is_by_gib() { Unit::GibPerSecond } else { Unit::PerSecond };
        vec![floor.name(), cpu_unit.text(cpu), rate_unit.text(rate)]
    });
    let mut rows: Vec<Vec<String>> = rows.collect();
    for operation in [Operation::Get, Operation::Put] {
        for (size, connections) in [(SMALL, USUAL), (MIB, USUAL), (LARGE, USUAL)] {
            let scenario = figures.counts.scenario(Server::Bare, operation, size, connections);
            let unit = if size == SMALL { Unit::Microseconds } else { Unit::SecondsPerGib };
            let rate = match size {
                SMALL => Unit::PerSecond.text(figures.results.median(scenario, |sample| sample.operations_per_s)),
                _ => Unit::GibPerSecond.text(gib_per_s(figures, scenario)),
            };
            let what = format!("network: {} {}", operation_name(operation), size_name(size));
            rows.push(vec![what, unit.text(figures.cpu(scenario)), rate]);
        }
    }
    let text = table(&["bare programs", "CPU", "throughput"], &rows);
    format!("## 5. Floors\n\n{text}")
}

/// Describes other load on the machine, and requests answered with SlowDown.
fn disturbances(figures: &Figures<'_>, cores: usize) -> String {
    let mut others: Vec<(f64, String)> = Vec::new();
    let mut slow_down = 0;
    for (scenario, sample) in figures.results.samples().filter(|(scenario, _)| scenario.server.is_keyhole()) {
        slow_down += sample.slow_down;
        if sample.other_cores > OTHERS_MAX * cores as f64 {
            others.push((sample.other_cores, scenario.to_string()));
        }
    }
    let mut text = String::new();
    others.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    if let Some((most, scenario)) = others.first() {
        let _ = write!(
            text,
            "In {} of the turns, processes other than the node and the generator used more than {} of the cores (kernel threads \
             included); at most {most:.2} cores ({scenario}).\n\n",
            others.len(),
            percent(OTHERS_MAX),
        );
    }
    if slow_down > 0 {
        let _ = write!(text, "{slow_down} requests received 503 SlowDown.\n\n");
    }
    text
}

/// Returns the plots by name.
pub(super) fn plots(subject: &Subject<'_>, figures: &Figures<'_>) -> Vec<(&'static str, Document)> {
    let note = format!(
        "{}, {} cores shared with the generator; medians of turns: {}",
        subject.machine.processor, subject.machine.cores, subject.turns
    );
    vec![
        ("cost", cost_plot(figures, &note, Unit::SecondsPerGib, "CPU time of the server for a GiB, s")),
        (
            "cost-small",
            cost_plot(figures, &note, Unit::Microseconds, "CPU time of the server for a 4 KiB operation, us"),
        ),
        ("throughput", throughput_plot(figures, &note)),
        ("connections", connections_plot(figures, &note)),
        ("objects", objects_plot(figures, &note)),
    ]
}

fn cost_plot(figures: &Figures<'_>, note: &str, unit: Unit, title: &str) -> Document {
    let scale = if unit == Unit::Microseconds { 1e6 } else { 1.0 };
    let groups = figures.cpu_figures().into_iter().filter(|figure| figure.unit == unit).map(|figure| {
        let floors = &figure.floors;
        let part = |value: Option<f64>| value.unwrap_or(0.0) * scale;
        let rest = figure.ours - floors.together.unwrap_or(0.0);
        let ours = vec![
            (Colour::Network, part(floors.network)),
            (Colour::Encryption, part(floors.encryption)),
            (Colour::Disk, part(floors.disk)),
            (Colour::Rest, part(Some(rest))),
        ];
        let theirs = figure.nginx.unwrap_or(f64::NAN);
        let limit = figure.limit.map(|limit| limit.value() * scale);
        vec![
            Bar { name: figure.what.clone(), parts: ours, text: unit.number(figure.ours), limit },
            Bar {
                name: "nginx".to_owned(),
                parts: vec![(Colour::Theirs, theirs * scale)],
                text: unit.number(theirs),
                limit: None,
            },
        ]
    });
    let colours = [
        (Colour::Network, "network alone"),
        (Colour::Encryption, "encryption alone"),
        (Colour::Disk, "disk alone"),
        (Colour::Rest, "the rest of Keyhole"),
        (Colour::Theirs, "nginx"),
    ];
    let groups: Vec<Vec<Bar>> = groups.collect();
    plot::bars(Heading { title, note }, &format!("CPU time, {}; the mark is the limit", unit.name()), &colours, &groups)
}

fn throughput_plot(figures: &Figures<'_>, note: &str) -> Document {
    let mut groups = Vec::new();
    for operation in [Operation::Get, Operation::Put] {
        for size in [MIB, LARGE] {
            let name = format!("{} {}", operation_name(operation), size_name(size));
            let servers = [
                (Server::Keyhole, Colour::Ours, name),
                (Server::Nginx, Colour::Theirs, String::new()),
                (Server::Bare, Colour::Network, String::new()),
            ];
            let bar = |(server, colour, name)| {
                let value = gib_per_s(figures, figures.counts.scenario(server, operation, size, USUAL));
                Bar { name, parts: vec![(colour, value)], text: Unit::GibPerSecond.number(value), limit: None }
            };
            groups.push(servers.into_iter().map(bar).collect());
        }
    }
    let colours = [(Colour::Ours, "Keyhole"), (Colour::Theirs, "nginx"), (Colour::Network, "network alone")];
    let heading = Heading { title: "Throughput, 16 connections", note };
    plot::bars(heading, "GiB/s", &colours, &groups)
}

/// Returns the lines for the CPU time of small operations.
fn cpu_line(
    figures: &Figures<'_>,
    name: &str,
    colour: Colour,
    scenarios: impl Iterator<Item = (f64, Scenario)>,
) -> Line {
    let points = scenarios.map(|(x, scenario)| (x, figures.cpu(scenario) * 1e6)).collect();
    Line { name: name.to_owned(), colour, points }
}

fn connections_plot(figures: &Figures<'_>, note: &str) -> Document {
    let line = |name: &str, colour, server, operation| {
        let of = |connections| (connections as f64, figures.counts.scenario(server, operation, SMALL, connections));
        cpu_line(figures, name, colour, CONNECTIONS.into_iter().map(of))
    };
    let lines = [
        line("Keyhole GET", Colour::Ours, Server::Keyhole, Operation::Get),
        line("Keyhole durable PUT", Colour::OursToo, Server::Keyhole, Operation::Put),
        line("nginx GET", Colour::Theirs, Server::Nginx, Operation::Get),
        line("nginx PUT", Colour::TheirsToo, Server::Nginx, Operation::Put),
        line("network alone, GET", Colour::Network, Server::Bare, Operation::Get),
    ];
    let ticks = CONNECTIONS.map(|connections| (connections as f64, connections.to_string()));
    let heading = Heading { title: "CPU time of a 4 KiB operation, by connections", note };
    plot::lines(heading, "connections", "us of the server's CPU time", &ticks, &lines)
}

fn objects_plot(figures: &Figures<'_>, note: &str) -> Document {
    let line = |name: &str, colour, operation| {
        let usual = figures.counts.scenario(Server::Keyhole, operation, SMALL, USUAL);
        let of = |objects: &usize| (*objects as f64, Scenario { objects: *objects, ..usual });
        cpu_line(figures, name, colour, figures.counts.growing.iter().map(of))
    };
    let lines = [
        line("Keyhole GET", Colour::Ours, Operation::Get),
        line("Keyhole durable PUT", Colour::OursToo, Operation::Put),
    ];
    let counts = figures.counts.growing.iter();
    let ticks: Vec<(f64, String)> =
        counts.map(|objects| (*objects as f64, Unit::PerSecond.number(*objects as f64))).collect();
    let heading = Heading { title: "CPU time of a 4 KiB operation, by objects in the store", note };
    plot::lines(heading, "objects", "us of the server's CPU time", &ticks, &lines)
}

/// Writes the page and its plots.
pub(super) fn write(page: &str, plots: &[(&str, Document)], to: &Path) -> Result<()> {
    let failed = |path: &Path, error: std::io::Error| Error::of(format_args!("cannot write {}", path.display()), error);
    let directory = to.parent().unwrap_or(Path::new(".")).join("plots");
    fs::create_dir_all(&directory).map_err(|error| failed(&directory, error))?;
    for (name, document) in plots {
        let path = directory.join(name).with_extension("svg");
        svg::save(&path, document).map_err(|error| failed(&path, error))?;
    }
    fs::write(to, page).map_err(|error| failed(to, error))
}

#[cfg(test)]
mod tests {
    use super::super::figures::Sizes;
    use super::super::scenario::{Counts, Results};
    use super::*;

    #[test]
    fn tables_have_as_many_cells_as_columns() {
        let text = table(&["a", "b"], &[vec!["1|2".to_owned(), "3".to_owned()]]);
        assert_eq!(text, "| a | b |\n|---|---:|\n| 1\\|2 | 3 |\n\n");
    }

    #[test]
    fn page_without_figures_renders() {
        let counts = Counts { small: 10, growing: vec![1, 10], mib: 1, large: 1 };
        let results = Results::default();
        let sizes = Sizes::of_next_to_nothing();
        let figures = Figures { results: &results, counts: &counts, sizes, cores: 2 };
        let machine = Machine {
            processor: "a processor".to_owned(),
            cores: 2,
            memory: 1 << 30,
            kernel: "Linux".to_owned(),
            file_system: "ext4".to_owned(),
        };
        let subject = Subject { machine: &machine, nginx_version: "1", turns: 3, seconds: 1.0, is_quick: false };
        let text = page(&subject, &figures, "Remarks by hand.\n");
        assert!(text.contains("a processor, 2 cores; 1.0 GiB of memory") && !text.contains("NaN"), "{text}");
        for line in text.lines().filter(|line| line.starts_with("|---")) {
            let columns = line.matches('|').count();
            let table = text.lines().skip_while(|other| *other != line).take_while(|line| line.starts_with('|'));
            table.for_each(|row| assert_eq!(row.matches('|').count(), columns, "{row}"));
        }
        let edited = with_remarks(&text, "New remarks.\n").unwrap();
        assert!(edited.ends_with("New remarks.\n") && !edited.contains("Remarks by hand."));
        assert!(with_remarks("another page", "").is_err());
        let names: Vec<&str> = plots(&subject, &figures).into_iter().map(|(name, _)| name).collect();
        names.iter().for_each(|name| assert!(text.contains(&format!("plots/{name}.svg")), "{name}"));
    }
}
