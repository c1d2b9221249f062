//! Replays the fuzz corpora.

#[path = "../../keyhole-core/fuzz/src/replay.rs"]
mod replay;
#[allow(unreachable_pub, dead_code)]
#[path = "../fuzz/src/lib.rs"]
mod targets;

use replay::replay;

#[test]
fn names_corpus_passes() {
    replay("names", targets::names);
}

#[test]
fn fields_corpus_passes() {
    replay("fields", targets::fields);
}
