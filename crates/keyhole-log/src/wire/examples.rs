//! Test of the example checksums in FORMAT.md, section 2.

use super::payload::{NamedVersion, RecordPayload};
use super::{block, record, segment, superblock};
use crate::limits::{BUFFER_LEN, PAGE};
use crate::version::{Lock, Retention, RetentionMode};

const FORMAT: &str = include_str!("../../FORMAT.md");

/// Checks the row of a structure in the table.
fn check(structure: &str, crc: u32) {
    let line = FORMAT.lines().find(|line| line.starts_with(&format!("| {structure} |")) && line.contains("`0x"));
    let line = line.unwrap_or_else(|| panic!("there is no example of a {structure}"));
    assert!(line.contains(&format!("`{crc:#010x}`")), "{crc:#010x}: {line}");
}

#[test]
fn superblock_example_matches_format_page() {
    let segment_len = 1 << 26;
    let capacity = 1 << 40;
    let created_ms = 1_700_000_000_000;
    let checkpoints = [1 << 40, 1 << 39];
    let mut page = vec![0; PAGE];
    let version = superblock::VERSION_PLAIN;
    let store = [7; 16];
    let epoch = 3;
    superblock::Superblock { version, store, epoch, segment_len, capacity, created_ms, checkpoints }.emit(&mut page);
    check("superblock", super::u32_at(&page, 12..16));
}

#[test]
fn segment_header_example_matches_format_page() {
    let header = segment::Header { kind: segment::Kind::Body, generation: 9, number: 4 };
    check("segment header", header.emit(&[5; 16], &mut vec![0; PAGE]));
}

#[test]
fn record_example_matches_format_page() {
    let header = record::Header {
        kind: 4,
        flags: record::FIRST,
        generation: 77,
        offset: 1 << 33,
        seq: 1234,
        watermark: 1200,
        prev: 0xdead_beef,
        durable: 8192,
        hint: record::DurableHint { segment: 3, until: 4096 },
    };
    check("record", header.emit(&[1; 16], b"payload", &mut [0; 100]));
}

/// Returns the checksum of a record alone in its batch.
fn emit_alone(payload: &RecordPayload<'_>, seq: u64) -> u32 {
    let header = record::Header {
        kind: payload.kind(),
        flags: record::FIRST | record::LAST,
        generation: 77,
        offset: 1 << 33,
        seq,
        watermark: 1299,
        prev: 0xdead_beef,
        durable: 8192,
        hint: record::DurableHint { segment: 3, until: 4096 },
    };
    header.emit(&[1; 16], &payload.encode(), &mut [0; 200])
}

#[test]
fn lock_record_example_matches_format_page() {
    let retention = Some(Retention { mode: RetentionMode::Compliance, until_ms: 1_800_000_000_000 });
    let lock = Lock { retention, hold: true };
    let of = NamedVersion { bucket: 7, version: 1234, key: "a/b" };
    let payload = RecordPayload::VersionLock { of, time_ms: 1_700_000_000_000, lock };
    check("lock record", emit_alone(&payload, 1300));
}

#[test]
fn eviction_record_example_matches_format_page() {
    let of = NamedVersion { bucket: 7, version: 1234, key: "a/b" };
    let payload = RecordPayload::VersionEvicted { of, time_ms: 1_700_000_000_000 };
    check("eviction record", emit_alone(&payload, 1301));
}

#[test]
fn footer_example_matches_format_page() {
    let id = block::BlockIdentity { generation: 5, offset: 1 << 21, body: 42, index: 3, data_len: 100_000 };
    let mut buf = vec![0; BUFFER_LEN];
    for (i, byte) in buf[..100_000].iter_mut().enumerate() {
        *byte = (i % 251) as u8;
    }
    let tags: Vec<[u8; 16]> = (1..=7).map(|i| [i; 16]).collect();
    let len = block::emit(&id, &[9; 16], &tags, &[], &mut buf);
    check("footer", super::u32_at(&buf, len - PAGE + 4..len - PAGE + 8));
}
