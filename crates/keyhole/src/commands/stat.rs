//! `keyhole stat`: shows the use of space in a store, and the writes to it.

use comfy_table::{CellAlignment, Table, TableComponent};
use serde::Serialize;

use super::Result;
use super::operate::{ask, print, size, unexpected};
use crate::cli::store::StatOptions;
use crate::control::{Reply, Request, Segment};
use crate::status::StoreFigures;

/// The structure of `--json`.
#[derive(Serialize)]
struct StatJson<'a> {
    #[serde(flatten)]
    stat: &'a StoreFigures,
    #[serde(skip_serializing_if = "Option::is_none")]
    segments: Option<&'a [Segment]>,
}

pub(crate) fn run(options: &StatOptions) -> Result<()> {
    let mut segments = Vec::new();
    let reply = ask(&options.target, Request::Stat { segments: options.segments }, |reply| {
        if let Reply::Segments { segments: mut some } = reply {
            segments.append(&mut some);
        }
    });
    let Reply::Stat(stat) = reply? else { return Err(unexpected()) };
    if options.json {
        let json = StatJson { stat: &stat, segments: options.segments.then_some(&segments) };
        let text = serde_json::to_string_pretty(&json)?;
        print(&format!("{text}\n"));
        return Ok(());
    }
    let mut tables = vec![totals(&stat), written(&stat), batches(&stat)];
    if options.segments {
        tables.push(table_of_segments(&segments));
    }
    tables.iter().for_each(|table| print(&format!("{table}\n\n")));
    Ok(())
}

/// Returns a table whose first `names` columns are names and the others figures.
pub(super) fn table(header: &[&str], names: usize) -> Table {
    let mut table = Table::new();
    table.load_preset(comfy_table::presets::UTF8_HORIZONTAL_ONLY);
    table.remove_style(TableComponent::HorizontalLines).remove_style(TableComponent::MiddleIntersections);
    table.set_header(header);
    table.column_iter_mut().skip(names).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    table
}

/// Formats a share in percent.
fn share(part: u64, whole: u64) -> String {
    if whole == 0 { "-".to_owned() } else { format!("{:.1} %", 100.0 * part as f64 / whole as f64) }
}

fn totals(stat: &StoreFigures) -> Table {
    let mut table = table(&["store", "", ""], 1);
    let used = stat.live + stat.dead;
    let mut bytes = |name: &str, bytes: u64, part: String| {
        table.add_row([name, &size(bytes), &part]);
    };
    bytes("capacity", stat.capacity, String::new());
    bytes("allocated", stat.allocated, share(stat.allocated, stat.capacity));
    bytes("live, and its share of written", stat.live, share(stat.live, used));
    bytes("dead, to be reclaimed", stat.dead, share(stat.dead, used));
    bytes("index memory", stat.index, String::new());
    bytes("plaintext of noncurrent versions", stat.noncurrent_bytes, String::new());
    bytes("plaintext of evicted versions", stat.evicted_bytes, format!("{} versions", stat.evicted));
    bytes("plaintext of locked versions", stat.locked_bytes, String::new());
    let counts = [
        ("buckets", stat.buckets),
        ("objects", stat.objects),
        ("noncurrent versions", stat.noncurrent),
        ("delete markers", stat.markers),
        ("uploads", stat.uploads),
        ("bodies", stat.bodies),
    ];
    for (name, count) in counts {
        table.add_row([name, &count.to_string(), ""]);
    }
    table
}

fn written(stat: &StoreFigures) -> Table {
    let written = &stat.written;
    let cleaner = &stat.cleaner;
    let mut table = table(&["written since start", "", ""], 1);
    let amplification = written.amplification.map_or_else(|| "-".to_owned(), |factor| format!("{factor:.2} times"));
    let rows = [
        ("for requests", written.appended, String::new()),
        ("total, and write amplification", written.total, amplification),
        ("records", written.records, share(written.records, written.total)),
        ("blocks", written.blocks, share(written.blocks, written.total)),
        ("moved by the cleaner", written.moved, share(written.moved, written.total)),
        ("checkpoints", written.checkpoints, share(written.checkpoints, written.total)),
        ("other", written.other, share(written.other, written.total)),
    ];
    for (name, bytes, part) in rows {
        table.add_row([name, &size(bytes), &part]);
    }
    for (name, count) in [
        ("segments cleaned", cleaner.segments_cleaned),
        ("segments freed", cleaner.segments_freed),
        ("checkpoints written", cleaner.checkpoints),
    ] {
        table.add_row([name, &count.to_string(), ""]);
    }
    table
}

fn batches(stat: &StoreFigures) -> Table {
    let mut table = table(&["commits per batch", "batches", ""], 1);
    let all = stat.batches.iter().sum();
    let mut least = 1;
    for (count, power) in stat.batches.iter().zip(0..) {
        let most = 1u64 << power;
        let name = if least < most { format!("{least} to {most}") } else { most.to_string() };
        table.add_row([name, count.to_string(), share(*count, all)]);
        least = most + 1;
    }
    table
}

fn table_of_segments(segments: &[Segment]) -> Table {
    let mut table = table(&["segment", "kind", "state", "generation", "written", "live", ""], 3);
    for segment in segments {
        table.add_row([
            segment.number.to_string(),
            segment.kind.clone(),
            segment.state.clone(),
            segment.generation.to_string(),
            size(segment.written),
            size(segment.live),
            share(segment.live, segment.written),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_store_has_no_ratios() {
        let capacity = 1 << 30;
        let allocated = 1 << 20;
        let batches_seen = vec![0; 10];
        let stat = StoreFigures { capacity, allocated, batches: batches_seen, ..StoreFigures::default() };
        let text = totals(&stat).to_string();
        assert!(text.contains("1.0 GiB") && text.contains("0.1 %") && text.contains('-'), "{text}");
        assert!(written(&stat).to_string().contains("write amplification"));
        let text = batches(&stat).to_string();
        assert!(text.contains("3 to 4") && text.contains("257 to 512"), "{text}");
        let json = serde_json::to_value(StatJson { stat: &stat, segments: None }).unwrap();
        assert_eq!((&json["capacity"], json.get("segments")), (&(1 << 30).into(), None));
    }
}
