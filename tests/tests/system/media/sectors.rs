//! One unreadable sector in each structure of the object file: the node starts and serves
//! everything else, and every command continues and names the lost objects.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::PathBuf;
use std::process::Command;

use fastrand::Rng;
use keyhole_tests::data::fresh_seed;
use keyhole_tests::faulty::FaultyFs;
use keyhole_tests::http::object;
use keyhole_tests::node::binary;
use keyhole_tests::object_file::{FILE, Layout, Object, PAGE, SEGMENTS_START, SUPERBLOCKS, SegmentKind, page_of};
use keyhole_tests::{Launch, Node};
use serde_json::Value;

use super::{Objects, assert_put_works, code, copy_data, data_in, faulty, launch, listed, put, text, unreadable};
use crate::operate::{exits_with, json};

const CAPACITY: &str = "64MiB";

/// Number of random sectors in a run.
const RANDOM_SECTORS: usize = 20;

/// A store after a kill, with its known content.
struct StoreTemplate {
    home: tempfile::TempDir,
    objects: Objects,
    layout: Layout,
    /// Segments in the output of `stat`.
    segments: Vec<Value>,
}

fn template_launch() -> Launch {
    launch().capacity(Some(CAPACITY))
}

impl StoreTemplate {
    /// Creates a store with every structure: closed, open and blank segments of both kinds, and
    /// objects from before and after the newest checkpoint.
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let mut node = template_launch().start_in(&data_in(home.path()));
        node.make_bucket("bucket");
        let mut objects = Objects::new();
        let mut gone = Objects::new();
        for n in 0..4 {
            put(&node, &mut gone, &format!("gone/{n}"), 1_500_000);
        }
        for n in 0..40 {
            put(&node, &mut objects, &format!("inline/{n:02}"), 60_000);
        }
        for n in 0..12 {
            put(&node, &mut objects, &format!("tiny/{n:02}"), 300);
        }
        for n in 0..4 {
            put(&node, &mut objects, &format!("long/{n}"), 1_500_000);
        }
        for key in gone.keys() {
            node.send(&object("DELETE", key)).expect(204);
        }
        let data = node.data().to_owned();
        for _ in 0..3 {
            exits_with(0, &["compact", text(&data)]);
        }
        for n in 0..6 {
            put(&node, &mut objects, &format!("late/{n}"), 300);
        }
        put(&node, &mut objects, "late/long", 1_500_000);
        put(&node, &mut objects, "late/last", 300);
        let stat = json(&["stat", text(&data), "--json", "--segments"]);
        node.kill();
        let layout = Layout::read(&data.join(FILE));
        for (key, body) in &objects {
            let object = layout.objects().remove(key).unwrap_or_else(|| panic!("{key} has no record"));
            let data: u64 = object.blocks.iter().map(|block| block.data.end - block.data.start).sum();
            assert!(
                object.bodies.len() == 1 && (body.len() < 64 << 10 || data >= body.len() as u64),
                "{key}: {object:?}"
            );
        }
        StoreTemplate { home, objects, layout, segments: stat["segments"].as_array().unwrap().clone() }
    }

    /// Copies it to a faulty file system.
    fn copy(&self, faulty: &FaultyFs) -> PathBuf {
        let behind = data_in(&faulty.backing());
        let _ = std::fs::remove_dir_all(&behind);
        copy_data(&data_in(self.home.path()), &behind);
        data_in(&faulty.point())
    }

    /// Returns the header of a segment of this kind and state.
    fn header(&self, kind: &str, state: &str) -> Range<u64> {
        let found = self.segments.iter().filter(|segment| segment["kind"] == kind && segment["state"] == state);
        let numbers: Vec<u64> = found.map(|segment| segment["number"].as_u64().unwrap()).collect();
        let number = *numbers.first().unwrap_or_else(|| panic!("no {state} {kind} segment in {:?}", self.segments));
        page_of(SEGMENTS_START + number * self.layout.segment_len())
    }

    fn object(&self, key: &str) -> Object {
        self.layout.objects()[key].clone()
    }

    /// Returns the objects lost with a bad range: those that can be named, and those whose names
    /// are in the range itself.
    fn losses(&self, bad: &Range<u64>) -> Losses {
        let touches = |bytes: &Range<u64>| bytes.start < bad.end && bad.start < bytes.end;
        let mut losses = Losses::default();
        for (key, object) in self.layout.objects() {
            if !self.objects.contains_key(&key) {
                continue;
            }
            let records = || object.bodies.iter().chain([&object.record]);
            let mut blocks = object.blocks.iter();
            if !records().any(|record| touches(&record.bytes))
                && !blocks.any(|block| touches(&block.data) || touches(&block.footer))
            {
                continue;
            }
            // After the checkpoint, a name is stored only in its record.
            let name = object.record.bytes.start..object.record.bytes.start + 200;
            let is_nameless = !self.layout.is_in_checkpoint(&object.record) && touches(&name);
            if is_nameless {
                losses.nameless.insert(key)
            } else {
                losses.named.insert(key)
            };
        }
        losses
    }
}

/// Objects lost with a bad range.
#[derive(Clone, Default, Debug)]
struct Losses {
    named: BTreeSet<String>,
    nameless: BTreeSet<String>,
}

/// Runs a command and returns its exit code and all its output.
fn run(arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(binary()).args(arguments).output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

/// The expected report of a command.
struct ExpectedReport<'a> {
    case: &'a str,
    losses: &'a Losses,
    /// Whether a command that finds damage must report it even if no object is lost.
    must_be_found: bool,
}

impl ExpectedReport<'_> {
    /// Checks that the command ended with a suitable code and named every lost object.
    fn assert(&self, command: &str, (code, message): &(Option<i32>, String)) {
        let case = self.case;
        let is_lost = !self.losses.named.is_empty();
        let codes: &[i32] = match (is_lost, self.must_be_found) {
            (true, _) | (false, true) => &[4],
            (false, false) => &[0, 4],
        };
        assert!(code.is_some_and(|code| codes.contains(&code)), "{case}: {command} ended with {code:?}: {message}");
        for key in &self.losses.named {
            assert!(message.contains(&format!("bucket/{key}")), "{case}: {command} does not name {key}: {message}");
        }
    }
}

/// Tests one bad range in a copy of the store; `must_be_found` if some command must read it.
fn check(case: &str, template: &StoreTemplate, faulty: &FaultyFs, bad: Range<u64>, must_be_found: bool, io: &str) {
    let is_sound = bad.is_empty();
    check_guarantees(case, template, faulty, bad, must_be_found, io);
    assert!(is_sound || faulty.injected().reads > 0, "{case}: the bad range was never read");
    faulty.heal();
}

/// Checks the guarantees for any bad range.
fn check_guarantees(
    case: &str,
    template: &StoreTemplate,
    faulty: &FaultyFs,
    bad: Range<u64>,
    must_be_found: bool,
    io: &str,
) {
    let data = template.copy(faulty);
    let losses = template.losses(&bad);
    faulty.heal();
    faulty.fail_reads(FILE, bad.clone());
    let report = ExpectedReport { case, losses: &losses, must_be_found };
    report.assert("check", &run(&["check", text(&data)]));
    let (code, message) = run(&["stat", text(&data)]);
    assert_eq!(code, Some(0), "{case}: stat: {message}");
    export(&report, template, faulty, &data);

    // Commands may have repaired the sector: give the node the same fault.
    let data = template.copy(faulty);
    faulty.heal();
    faulty.fail_reads(FILE, bad);
    let mut node = template_launch().arg(format!("--io={io}")).start_in(&data);
    serve(&report, template, &node);
    let found = ExpectedReport { must_be_found: false, ..report };
    found.assert("scrub", &run(&["scrub", text(&data)]));
    assert_put_works(&node);
    node.kill();

    // Lost objects stay listed after a restart.
    node.start();
    serve(&found, template, &node);
    for key in losses.named.iter().chain(&losses.nameless) {
        node.send(&object("DELETE", key)).expect(204);
        assert_eq!(node.send(&object("GET", key)).status, 404, "{case}: {key} is deleted");
        node.send(&object("PUT", key).body(template.objects[key].clone())).expect(200);
    }
    assert_eq!(unreadable(&node, &template.objects), [].into(), "{case}: lost objects were stored again");
    assert!(node.stop().success());
}

/// Checks that everything else is exported.
fn export(report: &ExpectedReport<'_>, template: &StoreTemplate, faulty: &FaultyFs, data: &std::path::Path) {
    let case = report.case;
    let target = faulty.home().join("export");
    let _ = std::fs::remove_dir_all(&target);
    let (code, message) = run(&["export", text(data), text(&target), "--json"]);
    let codes: &[i32] = match (report.losses.named.is_empty(), report.losses.nameless.is_empty()) {
        (false, _) => &[4],
        (true, false) => &[0, 4],
        (true, true) => &[0],
    };
    assert!(code.is_some_and(|code| codes.contains(&code)), "{case}: export ended with {code:?}: {message}");
    for key in &report.losses.named {
        assert!(message.contains(key), "{case}: export does not name {key}: {message}");
    }
    let (code, message) = run(&["verify", text(&target), "--json"]);
    assert!(matches!(code, Some(0 | 3)), "{case}: verify: {message}");
    let json = message.find('{').zip(message.rfind('}')).map(|(start, end)| &message[start..=end]).unwrap_or_default();
    let figures: Value = serde_json::from_str(json).unwrap_or_else(|error| panic!("{case}: {error}: {message}"));
    let whole = template.objects.len() - report.losses.named.len() - report.losses.nameless.len();
    let exported = figures["objects"].as_u64().unwrap_or(0);
    assert!(exported >= whole as u64, "{case}: {exported} of {whole} objects were exported: {message}");
}

/// Checks that everything else is served; a lost object has its own error and stays listed.
fn serve(report: &ExpectedReport<'_>, template: &StoreTemplate, node: &Node) {
    let case = report.case;
    let losses = report.losses;
    let listed = listed(node);
    let failed = unreadable(node, &template.objects);
    for (key, (status, code)) in &failed {
        if losses.nameless.contains(key) {
            continue;
        }
        assert!(losses.named.contains(key), "{case}: {key} is intact but got {status} {code}");
        // A long body may have started before the fault occurred.
        let is_own = (*status >= 500 && code == code::DAMAGED) || code == "cut";
        assert!(is_own, "{case}: {key}: {status} {code}");
    }
    for key in template.objects.keys().filter(|key| !losses.nameless.contains(*key)) {
        assert!(listed.contains(key), "{case}: {key} is not listed");
    }
    for key in &losses.named {
        assert!(failed.contains_key(key), "{case}: {key} is unreadable but was served");
    }
}

/// Creates a template and a faulty file system, or reports that the test is skipped and returns
/// `None`.
fn setup(test: &str) -> Option<(StoreTemplate, FaultyFs)> {
    let faulty = faulty(test)?;
    Some((StoreTemplate::new(), faulty))
}

/// Validates the tests below: their steps succeed on a healthy medium.
#[test]
fn store_without_bad_sector_is_intact() {
    let Some((template, faulty)) = setup("no bad sector") else { return };
    for io in ["uring", "epoll"] {
        check("no bad sector", &template, &faulty, 0..0, false, io);
    }
}

#[test]
fn bad_sector_in_superblock_copy_loses_no_object() {
    let Some((template, faulty)) = setup("a bad superblock copy") else { return };
    for (copy, at) in SUPERBLOCKS.into_iter().enumerate() {
        check(&format!("superblock copy {copy}"), &template, &faulty, page_of(at), true, "uring");
    }
}

#[test]
fn bad_sector_in_segment_header_loses_no_object() {
    let Some((template, faulty)) = setup("a bad segment header") else { return };
    for (kind, state) in [("meta", "closed"), ("meta", "open"), ("body", "closed"), ("body", "open")] {
        let bad = template.header(kind, state);
        check(&format!("header of {state} {kind} segment"), &template, &faulty, bad, true, "uring");
    }
}

#[test]
fn bad_sector_in_header_of_blank_segment_loses_no_object() {
    let Some((template, faulty)) = setup("a bad header of a blank segment") else { return };
    check("header of blank segment", &template, &faulty, template.header("blank", "blank"), false, "epoll");
}

#[test]
fn bad_sector_in_record_loses_only_that_object() {
    let Some((template, faulty)) = setup("a bad record") else { return };
    for key in ["inline/03", "tiny/05", "late/2"] {
        let record = template.object(key).record.bytes;
        check(&format!("record of {key}"), &template, &faulty, page_of(record.start), true, "uring");
    }
    let body = template.object("inline/11").bodies[0].bytes.clone();
    check("middle of an inline body", &template, &faulty, page_of((body.start + body.end) / 2), true, "epoll");
}

#[test]
fn bad_sector_in_body_block_loses_only_that_object() {
    let Some((template, faulty)) = setup("a bad block") else { return };
    let first = |key: &str| template.object(key).blocks[0].clone();
    for (key, io) in [("long/1", "uring"), ("late/long", "epoll")] {
        let block = first(key);
        let middle = page_of((block.data.start + block.data.end) / 2);
        check(&format!("block of {key}"), &template, &faulty, middle, true, io);
    }
    check("footer", &template, &faulty, first("long/2").footer, true, "uring");
}

#[test]
fn bad_sector_in_newest_checkpoint_loses_no_object() {
    let Some((template, faulty)) = setup("a bad checkpoint") else { return };
    let end = template.layout.checkpoint(0).expect("a checkpoint").bytes;
    check("checkpoint end", &template, &faulty, page_of(end.start), true, "uring");
    let items = template.layout.checkpoint_items().expect("a checkpoint").bytes;
    check("checkpoint items", &template, &faulty, page_of(items.start), true, "uring");
}

/// Each structure of the store in turn: every superblock copy, segment header, record, block and
/// footer.
#[test]
#[ignore = "hundreds of stores; tests/run --long runs it"]
fn bad_sector_in_every_structure_loses_only_its_objects() {
    let Some((template, faulty)) = setup("every structure") else { return };
    let pages = template.layout.pages_of_structures();
    println!("{} pages of {}", pages.len(), template.layout.written_pages().len());
    for (at, io) in pages.into_iter().zip(["uring", "epoll"].into_iter().cycle()) {
        check_guarantees(&format!("page at {at}"), &template, &faulty, at..at + PAGE, false, io);
    }
}

/// The engine's own test covers every sector of a small store; this is a sample with the whole
/// program.
#[test]
fn random_bad_sectors_lose_only_their_objects() {
    let Some((template, faulty)) = setup("random bad sectors") else { return };
    let seed = std::env::var("KEYHOLE_MEDIA_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(fresh_seed);
    println!("KEYHOLE_MEDIA_SEED={seed}");
    let mut random = Rng::with_seed(seed);
    let pages = template.layout.written_pages();
    let segments = &template.layout.segments;
    assert!(segments.iter().any(|segment| segment.kind == SegmentKind::Blocks));
    for _ in 0..RANDOM_SECTORS {
        let at = pages[random.usize(..pages.len())];
        check_random(&format!("sector at {at} (seed {seed})"), &template, &faulty, at..at + PAGE, &mut random);
    }
}

/// Checks the guarantees for a random sector.
fn check_random(case: &str, template: &StoreTemplate, faulty: &FaultyFs, bad: Range<u64>, random: &mut Rng) {
    let data = template.copy(faulty);
    faulty.heal();
    faulty.fail_reads(FILE, bad.clone());
    let losses = template.losses(&bad);
    let report = ExpectedReport { case, losses: &losses, must_be_found: false };
    report.assert("check", &run(&["check", text(&data)]));
    faulty.fail_reads(FILE, bad);
    let io = if random.bool() { "uring" } else { "epoll" };
    let mut node = template_launch().arg(format!("--io={io}")).start_in(&data);
    serve(&report, template, &node);
    assert_put_works(&node);
    node.kill();
}
