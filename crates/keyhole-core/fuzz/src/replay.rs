//! Replays a fuzz corpus of the crate that includes this file.

/// Passes each input of a corpus to its target, and every truncation of up to 300 bytes.
pub(crate) fn replay(name: &str, target: fn(&[u8])) {
    let directory = format!("{}/fuzz/corpus/{name}", env!("CARGO_MANIFEST_DIR"));
    let mut count = 0;
    for entry in std::fs::read_dir(&directory).expect("a corpus") {
        let path = entry.expect("an entry").path();
        println!("{}", path.display());
        let data = std::fs::read(&path).expect("an input");
        target(&data);
        (0..data.len().min(300)).for_each(|len| target(&data[..len]));
        count += 1;
    }
    assert!(count > 0, "{directory} is empty");
}
