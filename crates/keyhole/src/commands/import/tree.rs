//! Reading of an export that is a file tree.

use std::collections::HashSet;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest;

use super::handler::{BUFFER_LEN, Handler, Verdict, check_end, copy, other_version};
use super::order::LineOrder;
use crate::commands::{CommandError, Result};
use crate::transfer::entry::{Digest, ObjectEntry, Sha256, finish};
use crate::transfer::manifest::{End, Export, Failed, FileDigest, Line, Lines, ManifestItem};
use crate::transfer::tree::{Tree, manifests};

/// A file tree.
pub(super) struct TreeReader<'h> {
    path: PathBuf,
    tree: Tree,
    handler: &'h mut dyn Handler,
    /// Names of buckets and objects that a later run has already handled.
    seen: HashSet<Digest>,
    /// The current name with versions, and whether its versions are handled.
    name: Option<(String, String, bool)>,
    order: LineOrder,
    totals: End,
}

impl<'h> TreeReader<'h> {
    pub(super) fn new(path: PathBuf, tree: Tree, handler: &'h mut dyn Handler) -> Self {
        let order = LineOrder::default();
        TreeReader { path, tree, handler, seen: HashSet::new(), name: None, order, totals: End::default() }
    }

    pub(super) fn read(mut self) -> Result<()> {
        let failed = |path: &Path, error| CommandError::io(format_args!("cannot read {}", path.display()), error);
        let found = manifests(&self.tree).map_err(|error| failed(&self.path, error))?;
        // Without a complete manifest, use the journals of the runs, latest first.
        let is_whole = !found.pieces.is_empty();
        let names = if is_whole { found.pieces } else { found.journals.into_iter().rev().collect() };
        if names.is_empty() {
            return Err(CommandError::Malformed(format!("no export in {}", self.path.display())));
        }
        let mut held = None;
        for name in names {
            let path = self.path.join(&name);
            let failed = |error| failed(&path, error);
            let file = self.tree.open_file(&name).map_err(failed)?;
            let mut lines = Lines::new(BufReader::with_capacity(BUFFER_LEN, file));
            if !is_whole {
                self.order = LineOrder::default();
                self.name = None;
            }
            loop {
                match lines.next().map_err(failed)? {
                    ManifestItem::Line(line) => self.line(line, &mut held, is_whole)?,
                    ManifestItem::Bad(what) => self.handler.damaged(&format!("{name}: {what}")),
                    ManifestItem::Torn if is_whole => {
                        self.handler.damaged(&format!("{name}: the last line is truncated"));
                        break;
                    }
                    ManifestItem::Torn | ManifestItem::End => break,
                }
            }
        }
        self.missing_digest(held);
        Ok(())
    }

    fn line(&mut self, line: Line, held: &mut Option<ObjectEntry>, is_whole: bool) -> Result<()> {
        match line {
            Line::Export(Export { version }) => {
                if let Some(expected) = self.order.export(version) {
                    other_version(self.handler, version, expected);
                }
                Ok(())
            }
            Line::Bucket(bucket) => {
                self.totals.buckets += 1;
                self.order.bucket(&bucket);
                if is_whole || self.is_new(&[&bucket.bucket]) { self.handler.bucket(bucket) } else { Ok(()) }
            }
            Line::Object(entry) => {
                self.totals.objects += 1;
                let before = held.take();
                self.missing_digest(before);
                if let Err(what) = self.order.object(&entry) {
                    self.handler.damaged(&format!("{}: {what}", entry.name()));
                    return Ok(());
                }
                let is_versioned = entry.version.is_some();
                match entry.sha256 {
                    _ if !is_whole && !self.is_new_object(&entry.bucket, &entry.key, is_versioned) => Ok(()),
                    Some(sha256) => self.object(&entry, sha256),
                    None => {
                        *held = Some(*entry);
                        Ok(())
                    }
                }
            }
            Line::Marker(entry) => {
                self.totals.markers += 1;
                let before = held.take();
                self.missing_digest(before);
                if let Err(what) = self.order.marker(&entry) {
                    self.handler.damaged(&format!("{}: {what}", entry.name()));
                    return Ok(());
                }
                if !is_whole && !self.is_new_object(&entry.bucket, &entry.key, true) {
                    return Ok(());
                }
                self.handler.marker(entry)
            }
            Line::Digest(FileDigest { file, sha256 }) => match held.take_if(|entry| entry.file == file) {
                Some(entry) => self.object(&entry, sha256),
                None => Ok(()),
            },
            Line::Failed(Failed { file, .. }) => {
                // The end line counts it as left out.
                if held.take_if(|entry| entry.file == file).is_some() {
                    self.totals.objects -= 1;
                }
                Ok(())
            }
            Line::End(end) => {
                check_end(&end, &self.totals, self.handler);
                Ok(())
            }
        }
    }

    /// Returns whether no later run has the object. The versions of a key are of one run, since the
    /// order of those of several is unknown.
    fn is_new_object(&mut self, bucket: &str, key: &str, is_versioned: bool) -> bool {
        if let Some((last_bucket, last_key, is_new)) = &self.name
            && is_versioned
            && last_bucket == bucket
            && last_key == key
        {
            return *is_new;
        }
        let is_new = self.is_new(&[bucket, key]);
        self.name = is_versioned.then(|| (bucket.to_owned(), key.to_owned(), is_new));
        is_new
    }

    fn is_new(&mut self, names: &[&str]) -> bool {
        let mut hash = digest::Context::new(&digest::SHA256);
        names.iter().for_each(|name| hash.update(&[name.as_bytes(), b"\0"].concat()));
        self.seen.insert(finish(hash))
    }

    fn missing_digest(&mut self, held: Option<ObjectEntry>) {
        if let Some(entry) = held.filter(|entry| self.handler.is_in_scope(entry)) {
            self.handler.damaged(&format!("{}: the manifest lacks its digest", entry.name()));
        }
    }

    fn object(&mut self, entry: &ObjectEntry, sha256: Sha256) -> Result<()> {
        if !self.handler.is_in_scope(entry) {
            return Ok(());
        }
        let mut file = match self.tree.open_file(&entry.file.to_string()) {
            Ok(file) => file,
            Err(error) => {
                self.handler.damaged(&format!("{}: {}: {error}", entry.name(), entry.file));
                return Ok(());
            }
        };
        if !self.handler.wants(entry)? {
            return Ok(());
        }
        let verdict = match copy(&mut file, entry, self.handler)? {
            Ok((len, found)) if len == entry.length && found == sha256 => Verdict::Whole,
            Ok((len, _)) if len < entry.length => Verdict::Damaged(format!("{} is truncated", entry.file)),
            Ok((len, _)) if len > entry.length => Verdict::Damaged(format!("{} is too long", entry.file)),
            Ok(_) => Verdict::Damaged(format!("{} has another SHA-256", entry.file)),
            Err(error) => Verdict::Damaged(format!("{}: {error}", entry.file)),
        };
        self.handler.done(entry, verdict)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::handler::tests::Recorder;
    use super::*;
    use crate::transfer::manifest::MANIFEST;
    use crate::transfer::tree::journal;

    /// The versions of a key are of one run, the latest that has the key.
    #[test]
    fn versions_of_a_key_are_read_from_one_journal() {
        let top = tempfile::tempdir().unwrap();
        fs::create_dir(top.path().join(MANIFEST)).unwrap();
        let write = |run: u64, version: u32, names: &str| {
            let bucket = r#"{"bucket":"b","created_ms":1,"versioning":"Enabled"}"#;
            let mut lines = vec![Line::first(version), Line::Bucket(serde_json::from_str(bucket).unwrap())];
            for name in names.split_terminator(' ') {
                let (key, number) = name.split_at(1);
                let version = number.repeat(32);
                let entry = format!(r#"{{"bucket":"b","key":"{key}","version":"{version}","modified_ms":1}}"#);
                lines.push(Line::Marker(serde_json::from_str(&entry).unwrap()));
            }
            fs::write(top.path().join(journal(run)), lines.iter().flat_map(Line::encode).collect::<Vec<_>>()).unwrap();
        };
        write(1, 2, "a1 a2 a3 k1 k2 z1 z2");
        write(2, 2, "a1 a3 k1");
        let tree = Tree::open(top.path()).unwrap();
        let mut handler = Recorder::default();
        TreeReader::new(top.path().to_owned(), tree, &mut handler).read().unwrap();
        assert_eq!(handler.names.join(" "), "a1 a3 k1 z1 z2");
        assert!(handler.damages.is_empty(), "{:?}", handler.damages);
    }
}
