//! The page of the report: tables and explanations.

use std::ffi::OsStr;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use bytesize::ByteSize;
use svg::Document;

use super::figures::{Figure, Figures, Unit};
use super::machine::Machine;
use super::results::Sample;
use super::scenario::{
    CHUNKS, DOWNLOADS, FEW, LARGE, LIMITED, MANY, MIB, Memory, Population, SIZES, SMALL, Scenario, Server, USUAL,
    floors, operation_name, size_name,
};
use crate::work::Operation;
use crate::{Error, Result};

/// Marks the beginning of the hand-written remarks.
const REMARKS_BEGIN: &str = "<!-- From here on to the end: REMARKS.md. -->\n";

/// Fraction of the cores used by other processes from which a warning is printed.
const OTHERS_MAX: f64 = 0.05;

/// The versions of the servers that Keyhole is compared with.
#[derive(Clone, Debug)]
pub(super) struct Versions {
    pub(super) nginx: String,
    pub(super) seaweedfs: Option<String>,
}

/// The subject of the report, apart from its figures.
pub(super) struct Subject<'s> {
    pub(super) machine: &'s Machine,
    pub(super) versions: &'s Versions,
    /// How memory is limited.
    pub(super) limited_by: &'s str,
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

fn percent(share: f64) -> String {
    if share.is_finite() { format!("{:.0} %", share * 100.0) } else { "–".to_owned() }
}

/// Formats the page. `remarks` is the hand-written text about the figures.
pub(super) fn page(subject: &Subject<'_>, figures: &Figures<'_>, remarks: &str) -> String {
    let parts = [
        introduction(subject, figures),
        limits(figures),
        costs(figures),
        speeds(figures),
        sizes(figures),
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
    let seaweedfs =
        subject.versions.seaweedfs.as_ref().map_or_else(String::new, |version| format!(", SeaweedFS {version}"));
    let _ = write!(
        text,
        "{processor}, {cores} cores; {} of memory; {kernel}; {file_system}; nginx {}{seaweedfs}. HTTP on loopback, SSE-C, \
         `UNSIGNED-PAYLOAD`, durable PUTs; {USUAL} connections, {FEW} for objects of 64 MiB, unless stated otherwise. The cores \
         are shared with the load generator, which compares every received byte. All servers were measured in turns: {} of {} s \
         per figure, whose median is shown.\n\n",
        ByteSize(*memory).display().iec(),
        subject.versions.nginx,
        subject.turns,
        subject.seconds,
    );
    let counts = figures.counts;
    let stored = ByteSize(counts.stored as u64).display().iec();
    let _ = write!(
        text,
        "*Cold*: each of {} objects of 4 KiB, or of {stored} of larger ones, is read once after a restart of the node, with \
         nothing of the store in the page cache. *Hot*: {} of objects (10,000 of 4 KiB) are read again and again, in a limited \
         memory a quarter of it (one object of 64 MiB). Memory is limited by {}.\n\n\
         nginx serves files with `sendfile` and accepts PUTs by DAV, without encryption, signatures or durability; over TLS it \
         encrypts once. SeaweedFS gets the same requests as Keyhole and does not sync its writes. CPU time covers all threads of \
         a server, user and kernel. Floors are measured in the same turns by bare programs: a network server that responds from \
         memory; AES-256-GCM with the node's engine, twice over TLS; reads from the page cache (hot) or direct (cold); direct, \
         durable writes.\n\n",
        Unit::PerSecond.number(counts.small as f64),
        ByteSize(counts.hot as u64).display().iec(),
        subject.limited_by,
    );
    text
}

fn limits(figures: &Figures<'_>) -> String {
    let all = figures.all();
    let missed = all.iter().filter(|figure| !figure.holds()).count();
    let mut text = format!("## 1. Limits\n\n{missed} of {} limits are missed.\n\n", all.len());
    let row = |figure: &Figure| {
        let compared = figure.compared.filter(|(_, one, other)| one.is_finite() && other.is_finite());
        let compared = compared.map_or_else(String::new, |(unit, one, other)| {
            format!("{} / {} {}", unit.number(one), unit.number(other), unit.name())
        });
        let verdict = figure.verdict();
        let verdict = if figure.holds() { verdict } else { format!("**{verdict}**") };
        let name = format!("`{}`", figure.promise.name);
        let value = format!("**{}**", figure.unit.text(figure.value));
        vec![name, figure.promise.measure.describe(), figure.limit_text(), value, verdict, compared]
    };
    let rows: Vec<Vec<String>> = all.iter().map(row).collect();
    text.push_str(&table(&["limit", "figure", "", "measured", "", "compared"], &rows));
    text
}

/// Returns the loads whose costs are shown, in the order of the tables.
fn loads() -> Vec<Scenario> {
    let mut all = Vec::new();
    for size in SIZES {
        all.extend([Scenario::get(size).cold(), Scenario::get(size)]);
        for memory in LIMITED {
            all.push(Scenario::get(size).cold().within(memory));
            all.extend((size > SMALL).then(|| Scenario::get(size).within(memory)));
        }
    }
    all.extend(SIZES.map(Scenario::put));
    for load in [Scenario::get(SMALL), Scenario::put(SMALL)] {
        all.extend([load.over(MANY), load.of(Population::Least), load.of(Population::Most)]);
    }
    all.extend([Scenario::get(MIB), Scenario::put(MIB)].map(|load| load.on(Server::KeyholeTls)));
    all.push(Scenario::put(MIB).plain().over(8));
    all
}

fn costs(figures: &Figures<'_>) -> String {
    let row = |load: Scenario| {
        let unit = Figures::unit(load);
        let floors = figures.floors(load);
        let cpu = figures.cpu(load);
        let other = |server: Server| {
            let measured = figures.cpu(load.on(server));
            if measured.is_finite() { unit.number(measured) } else { String::new() }
        };
        let nginx = if load.server.is_tls() { Server::NginxTls } else { Server::Nginx };
        let name = if load.server.is_tls() { format!("{} over TLS", load.load()) } else { load.load() };
        let mut row = vec![format!("{name}, {}", unit.name()), format!("**{}**", unit.number(cpu))];
        let parts = [floors.network, floors.encryption, floors.disk, floors.sum()];
        // The floors of plain objects are others: without encryption, with checksums.
        row.extend(parts.map(|part| if load.is_plain { String::new() } else { unit.number(part) }));
        row.push(if load.is_plain { String::new() } else { Unit::Ratio.number(cpu / floors.sum()) });
        row.extend([Server::Packaged, Server::Baseline, nginx, Server::SeaweedFs].map(other));
        row
    };
    let header = [
        "CPU time",
        "Keyhole",
        "network",
        "encryption",
        "disk",
        "floors",
        "ratio",
        "packaged",
        "baseline",
        "nginx",
        "SeaweedFS",
    ];
    let rows: Vec<Vec<String>> = loads().into_iter().map(row).collect();
    format!(
        "## 2. CPU time of the server\n\n{}*Floors* is the sum of network, encryption and disk, *ratio* that of Keyhole to it.\n\n\
         ![CPU time of a GiB, by parts](plots/cost.svg)\n\n![CPU time of a small operation, by parts](plots/cost-small.svg)\n\n\
         ![CPU time by objects](plots/objects.svg)\n\n",
        table(&header, &rows)
    )
}

fn speeds(figures: &Figures<'_>) -> String {
    let median = |scenario, figure: fn(&Sample) -> f64| figures.results.median(scenario, figure);
    let row = |load: Scenario| {
        let unit = if load.is_by_operation() { Unit::PerSecond } else { Unit::GibPerSecond };
        let rate = |server| {
            let scenario = load.on(server);
            let rate = if load.is_by_operation() {
                median(scenario, |sample| sample.operations_per_s)
            } else {
                figures.gib_per_s(scenario)
            };
            if rate.is_finite() { unit.number(rate) } else { String::new() }
        };
        let name = if load.server.is_tls() { format!("{} over TLS", load.load()) } else { load.load() };
        let nginx = if load.server.is_tls() { Server::NginxTls } else { Server::Nginx };
        let mut row = vec![format!("{name}, {}", unit.name()), format!("**{}**", rate(load.server))];
        row.extend([Server::Baseline, nginx, Server::SeaweedFs].map(rate));
        row.extend([Unit::Milliseconds.number(median(load, |sample| sample.p50))]);
        row.push(Unit::Milliseconds.number(median(load, |sample| sample.p99)));
        row.push(Unit::Milliseconds.number(median(load.on(Server::Baseline), |sample| sample.p99)));
        row.push(percent(median(load, |sample| sample.kernel_share)));
        row
    };
    let mut all = loads();
    all.push(Scenario::get(SMALL).beside(DOWNLOADS));
    let header = [
        "throughput",
        "Keyhole",
        "baseline",
        "nginx",
        "SeaweedFS",
        "p50, ms",
        "p99, ms",
        "baseline p99",
        "in the kernel",
    ];
    let rows: Vec<Vec<String>> = all.into_iter().map(row).collect();
    format!(
        "## 3. Throughput and latency\n\n{}*In the kernel* is the kernel's share of Keyhole's CPU time.\n\n\
         ![Throughput](plots/throughput.svg)\n\n",
        table(&header, &rows)
    )
}

fn sizes(figures: &Figures<'_>) -> String {
    let sizes = figures.sizes;
    let mib = |bytes: u64| Unit::Mib.text(bytes as f64);
    let mut text = format!(
        "The index of {} objects takes {}. Peak resident memory of nginx: {}",
        Unit::PerSecond.number(figures.counts.most as f64),
        mib(sizes.index_most),
        mib(sizes.nginx)
    );
    if let Some(bytes) = sizes.seaweed_fs {
        let _ = write!(text, "; of SeaweedFS: {}", mib(bytes));
    }
    text.push_str(".\n\n");
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
        for size in [SMALL, CHUNKS, MIB, LARGE] {
            let load = if operation == Operation::Get { Scenario::get(size) } else { Scenario::put(size) };
            let scenario = load.on(Server::Bare);
            let rate = if load.is_by_operation() {
                Unit::PerSecond.text(figures.results.median(scenario, |sample| sample.operations_per_s))
            } else {
                Unit::GibPerSecond.text(figures.gib_per_s(scenario))
            };
            let what = format!("network: {} {}", operation_name(operation), size_name(size));
            rows.push(vec![what, Figures::unit(load).text(figures.cpu(scenario)), rate]);
        }
    }
    let text = table(&["bare programs", "CPU", "throughput"], &rows);
    format!("## 4. Floors\n\n{text}")
}

/// Describes other load on the machine, and requests answered with SlowDown.
fn disturbances(figures: &Figures<'_>, cores: usize) -> String {
    let mut others: Vec<(f64, String)> = Vec::new();
    let mut slow_down = 0;
    let ours =
        |scenario: &Scenario| scenario.server.is_keyhole() && scenario.memory == Memory::Full && scenario.beside == 0;
    for (scenario, sample) in figures.results.samples().filter(|(scenario, _)| ours(scenario)) {
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

/// Writes the page and its plots.
pub(super) fn write(page: &str, plots: &[(&str, Document)], to: &Path) -> Result<()> {
    let failed = |path: &Path, error: std::io::Error| Error::of(format_args!("cannot write {}", path.display()), error);
    let directory = to.parent().unwrap_or(Path::new(".")).join("plots");
    fs::create_dir_all(&directory).map_err(|error| failed(&directory, error))?;
    // Plots that an earlier version of this program wrote are no longer in the page.
    for entry in fs::read_dir(&directory).map_err(|error| failed(&directory, error))? {
        let path = entry.map_err(|error| failed(&directory, error))?.path();
        let is_plot = path.extension().is_some_and(|extension| extension == "svg");
        if is_plot && plots.iter().all(|(name, _)| path.file_stem() != Some(OsStr::new(name))) {
            fs::remove_file(&path).map_err(|error| failed(&path, error))?;
        }
    }
    for (name, document) in plots {
        let path = directory.join(name).with_extension("svg");
        svg::save(&path, document).map_err(|error| failed(&path, error))?;
    }
    fs::write(to, page).map_err(|error| failed(to, error))
}

#[cfg(test)]
mod tests {
    use super::super::figures::Sizes;
    use super::super::plots::plots;
    use super::super::results::Results;
    use super::super::scenario::Counts;
    use super::*;

    #[test]
    fn tables_have_as_many_cells_as_columns() {
        let text = table(&["a", "b"], &[vec!["1|2".to_owned(), "3".to_owned()]]);
        assert_eq!(text, "| a | b |\n|---|---:|\n| 1\\|2 | 3 |\n\n");
    }

    #[test]
    fn plots_of_earlier_versions_are_removed() {
        let home = tempfile::tempdir_in(keyhole_tests::target_dir()).unwrap();
        let plots = home.path().join("plots");
        fs::create_dir(&plots).unwrap();
        for name in ["old.svg", "new.svg", "note.txt"] {
            fs::write(plots.join(name), "").unwrap();
        }
        write("page", &[("new", Document::new())], &home.path().join("RESULTS.md")).unwrap();
        let is_there = |name: &str| plots.join(name).exists();
        assert!(!is_there("old.svg") && is_there("new.svg") && is_there("note.txt"));
        assert!(fs::read_to_string(plots.join("new.svg")).unwrap().contains("<svg"));
    }

    #[test]
    fn page_without_figures_renders() {
        let counts = Counts { stored: 1 << 30, small: 10, least: 1, most: 10, hot: 1 << 20 };
        let results = Results::default();
        let figures = Figures { results: &results, counts: &counts, sizes: Sizes::default() };
        let machine = Machine {
            processor: "a processor".to_owned(),
            cores: 2,
            memory: 1 << 30,
            kernel: "Linux".to_owned(),
            file_system: "ext4".to_owned(),
        };
        let versions = Versions { nginx: "1".to_owned(), seaweedfs: None };
        let subject = Subject {
            machine: &machine,
            versions: &versions,
            limited_by: "a group",
            turns: 3,
            seconds: 1.0,
            is_quick: false,
        };
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
