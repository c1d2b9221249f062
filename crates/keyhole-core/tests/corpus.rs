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
