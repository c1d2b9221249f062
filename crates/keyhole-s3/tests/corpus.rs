//! Replays the fuzz corpora.

#[allow(unreachable_pub, dead_code)]
#[path = "../fuzz/src/lib.rs"]
mod targets;

fn replay(name: &str, target: fn(&[u8])) {
    let directory = format!("{}/fuzz/corpus/{name}", env!("CARGO_MANIFEST_DIR"));
    let mut count = 0;
    for entry in std::fs::read_dir(&directory).unwrap() {
        let path = entry.unwrap().path();
        println!("{}", path.display());
        let data = std::fs::read(&path).unwrap();
        target(&data);
        // Also replay every truncation of up to 300 bytes.
        (0..data.len().min(300)).for_each(|len| target(&data[..len]));
        count += 1;
    }
    assert!(count > 0, "{directory} is empty");
}

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
fn xml_lifecycle_corpus_passes() {
    replay("xml_lifecycle", targets::xml_lifecycle);
}
