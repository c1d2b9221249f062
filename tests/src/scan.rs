//! Searches the memory of a process for secrets.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;

/// Bytes read from the process at a time.
const STEP: usize = 1 << 20;

/// Bytes of a fragment: shorter ones could occur by chance.
const FRAGMENT_LEN: usize = 16;

/// A text to search for.
pub struct Needle {
    /// What it is.
    pub name: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

impl Needle {
    /// Returns the whole of a plaintext.
    pub fn plaintext(bytes: &[u8]) -> Vec<Needle> {
        vec![Needle { name: "plaintext".to_owned(), bytes: bytes.to_vec() }]
    }

    /// Returns the first and last fragments of a key, in every encoding that a request or a program
    /// could have it in.
    pub fn key(name: &str, key: &[u8; 32]) -> Vec<Needle> {
        let mut needles = Vec::new();
        for (encoding, bytes) in crate::data::encodings(key) {
            for (place, fragment) in [("start", &bytes[..FRAGMENT_LEN]), ("end", &bytes[bytes.len() - FRAGMENT_LEN..])]
            {
                needles.push(Needle { name: format!("{place} of {name}, {encoding}"), bytes: fragment.to_vec() });
            }
        }
        needles
    }
}

/// Returns the places in the writable memory of a process that have one of the needles: heap,
/// stacks, rings and all other mappings.
///
/// # Errors
/// If the memory cannot be read: the process is that of another user, or not dumpable and this one
/// is not root's.
pub fn occurrences(pid: u32, needles: &[Needle]) -> io::Result<Vec<String>> {
    let memory = File::open(format!("/proc/{pid}/mem"))?;
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let mut found = Vec::new();
    let longest = needles.iter().map(|needle| needle.bytes.len()).max().unwrap_or(0);
    let mut buf = vec![0; STEP + longest];
    for line in maps.lines() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [range, rights, ..] = fields[..] else { continue };
        if !rights.contains('w') {
            continue;
        }
        let place = fields.get(5).copied().unwrap_or("anonymous");
        let (start, end) = range.split_once('-').expect("a range");
        let parse = |text: &str| u64::from_str_radix(text, 16).expect("an address");
        let end = parse(end);
        let mut at = parse(start);
        while at < end {
            let len = (end - at).min(buf.len() as u64) as usize;
            // A mapping may have gone since it was listed.
            let Ok(len) = memory.read_at(&mut buf[..len], at) else { break };
            if len == 0 {
                break;
            }
            for needle in needles {
                if let Some(offset) = memchr::memmem::find(&buf[..len], &needle.bytes) {
                    found.push(format!("{} at {:x} ({place})", needle.name, at + offset as u64));
                }
            }
            at += len.min(STEP) as u64;
        }
    }
    Ok(found)
}
