//! Replays the fuzz corpora.

#[path = "../../keyhole-core/fuzz/src/replay.rs"]
mod replay;
#[allow(unreachable_pub, dead_code)]
#[path = "../fuzz/src/lib.rs"]
mod targets;

use replay::replay;

#[test]
fn request_head_corpus_passes() {
    replay("request_head", targets::request_head);
}

#[test]
fn unsigned_head_corpus_passes() {
    replay("unsigned_head", targets::unsigned_head);
}

#[test]
fn signature_corpus_passes() {
    replay("signature", targets::signature);
}

#[test]
fn query_corpus_passes() {
    replay("query", targets::query);
}

#[test]
fn body_corpus_passes() {
    replay("body", targets::body);
}

#[test]
fn form_corpus_passes() {
    replay("form", targets::form);
}

#[test]
fn policy_corpus_passes() {
    replay("policy", targets::policy);
}

#[test]
fn xml_delete_corpus_passes() {
    replay("xml_delete", targets::xml_delete);
}

#[test]
fn xml_complete_corpus_passes() {
    replay("xml_complete", targets::xml_complete);
}

#[test]
fn xml_tagging_corpus_passes() {
    replay("xml_tagging", targets::xml_tagging);
}

#[test]
fn xml_bucket_corpus_passes() {
    replay("xml_bucket", targets::xml_bucket);
}

#[test]
fn xml_versions_corpus_passes() {
    replay("xml_versions", targets::xml_versions);
}

#[test]
fn xml_lifecycle_corpus_passes() {
    replay("xml_lifecycle", targets::xml_lifecycle);
}
