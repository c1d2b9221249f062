//! `keyhole check`: verifies and repairs a store that no node serves.

use std::ops::Range;

use keyhole_log::{CheckOptions as LogOptions, CheckReport, Verdict};
use serde::Serialize;

use super::operate::{describe, print, size};
use super::{CommandError, Result};
use crate::cli::store::CheckOptions;
use crate::control::{self, DamageReply};
use crate::env::System;
use crate::store::{self, StoreError, StoreLocation, StoreOptions};

/// The structure of `--json`. All lengths are in bytes.
#[derive(Serialize)]
struct CheckJson {
    /// Whether no damage remains.
    sound: bool,
    findings: Vec<FindingJson>,
    repaired: u64,
    buckets: u64,
    objects: u64,
    uploads: u64,
    bodies: u64,
    records: u64,
    blocks: u64,
    verified: u64,
    free: Vec<Range<u64>>,
    tails: Vec<Range<u64>>,
}

#[derive(Serialize)]
struct FindingJson {
    #[serde(flatten)]
    damage: DamageReply,
    /// `repairable` or `lost`.
    verdict: &'static str,
}

pub(crate) fn run(options: &CheckOptions) -> Result<()> {
    let location = StoreLocation::find(&options.data, options.state.as_deref())?;
    if control::is_served(&location.socket()) {
        let data = location.data.display();
        return Err(CommandError::Other(format!(
            "{data} is in use by a node: stop it before a check, or run `keyhole scrub {data}` while it serves"
        )));
    }
    let read_only = (!options.repair).then_some(store::ONLY_LOOKS);
    let held = store::hold(&location, &StoreOptions { read_only, ..StoreOptions::default() })?;
    let disk = store::plain_disk(&held.medium)?;
    let log_options = LogOptions { repair: options.repair, nonce: u32::from_ne_bytes(System.random_array()) };
    let report = store::block_on(keyhole_log::check(std::rc::Rc::new(disk), log_options))?
        .map_err(|error| StoreError::Log { path: location.medium(), error })?;
    let found = report.findings.len() as u64;
    let remaining = if options.repair { found.saturating_sub(report.repaired) } else { found };
    if options.json {
        let text = serde_json::to_string_pretty(&json(&report, remaining))?;
        print(&format!("{text}\n"));
    } else {
        print(&text(&report));
    }
    if remaining == 0 {
        return Ok(());
    }
    let data = location.data.display();
    let can_be = report.findings.iter().filter(|f| f.verdict == Verdict::Repairable);
    Err(CommandError::Damaged(match (options.repair, can_be.count()) {
        (false, 1..) => format!("damaged in {found} places; `keyhole check --repair {data}` repairs what it can"),
        _ => format!(
            "damaged in {remaining} places that cannot be repaired: restore the objects from a backup, or delete them"
        ),
    }))
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Repairable => "repairable",
        Verdict::Lost => "lost",
    }
}

fn json(report: &CheckReport, remaining: u64) -> CheckJson {
    let finding = |finding: &keyhole_log::Finding| FindingJson {
        damage: DamageReply::from(&finding.damage),
        verdict: word(finding.verdict),
    };
    CheckJson {
        sound: remaining == 0,
        findings: report.findings.iter().map(finding).collect(),
        repaired: report.repaired,
        buckets: report.buckets,
        objects: report.objects,
        uploads: report.uploads,
        bodies: report.bodies,
        records: report.records,
        blocks: report.blocks,
        verified: report.verified,
        free: report.free.clone(),
        tails: report.tails.clone(),
    }
}

fn text(report: &CheckReport) -> String {
    let mut text = String::new();
    for finding in &report.findings {
        text += &format!("{}: {}\n", word(finding.verdict), describe(&DamageReply::from(&finding.damage)));
    }
    let CheckReport { buckets, objects, uploads, bodies, records, blocks, verified, repaired, .. } = report;
    text += &format!("{buckets} buckets, {objects} objects, {uploads} uploads, {bodies} bodies\n");
    text += &format!("{records} records and {blocks} blocks read, {} verified\n", size(*verified));
    let length = |ranges: &[Range<u64>]| size(ranges.iter().map(|range| range.end.saturating_sub(range.start)).sum());
    let free = &report.free;
    let tails = &report.tails;
    text += &format!("free: {} in {} ranges\n", length(free), free.len());
    text += &format!("unacknowledged at ends of segments: {} in {} ranges\n", length(tails), tails.len());
    text += &format!("damaged: {} places, {repaired} repaired\n", report.findings.len());
    text
}
