//! Replays the fuzz corpora.

#[path = "../fuzz/src/replay.rs"]
mod replay;
#[allow(unreachable_pub, dead_code)]
#[path = "../fuzz/src/lib.rs"]
mod targets;

use replay::replay;

#[test]
fn headers_corpus_passes() {
    replay("headers", targets::headers);
}

#[test]
fn object_head_corpus_passes() {
    replay("head", targets::head);
}

#[test]
fn chunked_corpus_passes() {
    replay("chunked", targets::chunked);
}

#[test]
fn sealed_file_corpus_passes() {
    replay("sealed_file", targets::sealed_file);
}
