//! Reading of an export in one pass, from a file tree or a stream.

use std::collections::{HashSet, VecDeque};
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest;
use tar::EntryType;

use crate::commands::transfer::is_dash;
use crate::commands::{CommandError, Result};
use crate::transfer::entry::{BucketEntry, Digest, FileName, ObjectEntry, Sha256, finish};
use crate::transfer::manifest::{End, Failed, FileDigest, Line, Lines, ManifestItem, is_piece};
use crate::transfer::tree::{Tree, manifests};

/// Bytes read at a time.
const BUFFER_LEN: usize = 1 << 20;

/// Limit of files that a stream's manifest may describe in advance.
const AHEAD_MAX: usize = 4096;

/// Limit of an extended header of a stream in bytes: times and owners of one file.
const EXTENDED_MAX: u64 = 64 << 10;

/// The consumer of an export.
pub(crate) trait Handler {
    /// Handles a bucket, whose objects follow.
    fn bucket(&mut self, bucket: BucketEntry) -> Result<()>;
    /// Returns whether the bytes of an object are wanted. If so, they follow, and then
    /// [`done`](Self::done).
    fn wants(&mut self, entry: &ObjectEntry) -> Result<bool>;
    fn data(&mut self, bytes: &[u8]) -> Result<()>;
    /// Handles the verdict on the bytes of an object.
    fn done(&mut self, entry: &ObjectEntry, verdict: Verdict) -> Result<()>;
    /// Reports other damaged or missing content.
    fn damaged(&mut self, what: &str);
    /// Returns whether a missing object matters.
    fn is_in_scope(&self, entry: &ObjectEntry) -> bool;
    /// Handles the end of a complete export.
    fn end(&mut self, end: &End);
}

/// The verdict on the bytes of a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// The bytes are those that were exported.
    Whole,
    Damaged(String),
}

/// An export.
pub(crate) enum ExportSource {
    Directory(PathBuf),
    Stream(Box<dyn Read>),
}

/// Opens a directory, or standard input.
pub(crate) fn open(from: &Path) -> Result<ExportSource> {
    if is_dash(from) {
        return Ok(ExportSource::Stream(Box::new(io::stdin())));
    }
    let there = std::fs::metadata(from);
    let there = there.map_err(|error| CommandError::io(format_args!("cannot read {}", from.display()), error))?;
    if there.is_dir() {
        return Ok(ExportSource::Directory(from.to_owned()));
    }
    let name = from.display();
    Err(CommandError::Usage(format!("{name} is not a directory; read a stream from standard input: `- < {name}`")))
}

impl ExportSource {
    /// Reads the whole export.
    pub(crate) fn read(self, handler: &mut dyn Handler) -> Result<()> {
        match self {
            ExportSource::Directory(path) => {
                let tree = Tree::open(&path);
                let tree =
                    tree.map_err(|error| CommandError::io(format_args!("cannot read {}", path.display()), error))?;
                TreeReader { path, tree, handler, seen: HashSet::new(), totals: End::default() }.read()
            }
            ExportSource::Stream(input) => Stream::new(handler).read(input),
        }
    }
}

/// Compares the totals at the end of a manifest with those that were read.
fn check_end(end: &End, totals: &End, handler: &mut dyn Handler) {
    handler.end(end);
    if (end.buckets, end.objects) != (totals.buckets, totals.objects) {
        handler.damaged(&format!(
            "the manifest declares {} objects in {} buckets, but lists {} in {}",
            end.objects, end.buckets, totals.objects, totals.buckets
        ));
    }
}

/// A file tree.
struct TreeReader<'h> {
    path: PathBuf,
    tree: Tree,
    handler: &'h mut dyn Handler,
    /// Names of buckets and objects that a later run has already handled.
    seen: HashSet<Digest>,
    totals: End,
}

impl TreeReader<'_> {
    fn read(mut self) -> Result<()> {
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
            Line::Export(_) => Ok(()),
            Line::Bucket(bucket) => {
                self.totals.buckets += 1;
                if is_whole || self.is_new(&[&bucket.bucket]) { self.handler.bucket(bucket) } else { Ok(()) }
            }
            Line::Object(entry) => {
                self.totals.objects += 1;
                let before = held.take();
                self.missing_digest(before);
                match entry.sha256 {
                    _ if !is_whole && !self.is_new(&[&entry.bucket, &entry.key]) => Ok(()),
                    Some(sha256) => self.object(&entry, sha256),
                    None => {
                        *held = Some(*entry);
                        Ok(())
                    }
                }
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

/// Passes the bytes of a file on; returns their count and digest. The inner error is the file's.
fn copy(file: &mut impl Read, entry: &ObjectEntry, handler: &mut dyn Handler) -> Result<io::Result<(u64, Sha256)>> {
    let mut hash = digest::Context::new(&digest::SHA256);
    let mut len = 0;
    let mut buf = vec![0; BUFFER_LEN.min((entry.length as usize).saturating_add(1))];
    loop {
        let read = match file.read(&mut buf) {
            Ok(0) => return Ok(Ok((len, Sha256(finish(hash))))),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Ok(Err(error)),
        };
        len += read as u64;
        if len > entry.length {
            return Ok(Ok((len, Sha256(finish(hash)))));
        }
        hash.update(&buf[..read]);
        handler.data(&buf[..read])?;
    }
}

/// Returns the path of a regular file in a stream, in its normal form; `None` for entries that
/// archivers add and that change nothing.
///
/// # Errors
/// The reason why no export has such an entry.
fn entry_path(file: &mut tar::Entry<'_, impl Read>) -> std::result::Result<Option<String>, &'static str> {
    match file.header().entry_type() {
        EntryType::Regular | EntryType::Continuous => {}
        EntryType::Directory => return Ok(None),
        EntryType::XHeader | EntryType::XGlobalHeader => return extended_header(file).map(|()| None),
        EntryType::Symlink => return Err("a symbolic link, which no export has"),
        EntryType::Link => return Err("a hard link, which no export has"),
        EntryType::Char | EntryType::Block | EntryType::Fifo => return Err("a device or a FIFO, which no export has"),
        _ => return Err("an entry of a kind that no export has"),
    }
    let path = file.path_bytes();
    let path = std::str::from_utf8(&path).map_err(|_| "its name is not UTF-8")?;
    normal_path(path).map(Some)
}

/// Returns a relative path without empty components and `.`.
///
/// # Errors
/// The path is absolute or leads upwards.
fn normal_path(path: &str) -> std::result::Result<String, &'static str> {
    if path.starts_with('/') {
        return Err("an absolute path, which no export has");
    }
    let names: Vec<&str> = path.split('/').filter(|name| !["", "."].contains(name)).collect();
    if names.contains(&"..") { Err("a path with `..`, which no export has") } else { Ok(names.join("/")) }
}

/// Accepts an extended header that changes neither the name nor the length of the next entry.
fn extended_header(file: &mut impl Read) -> std::result::Result<(), &'static str> {
    let mut text = Vec::new();
    let read = file.take(EXTENDED_MAX + 1).read_to_end(&mut text);
    if read.is_err() || text.len() as u64 > EXTENDED_MAX {
        return Err("an extended header that is too long");
    }
    let sets = |name: &[u8]| text.windows(name.len()).any(|window| window == name);
    if [&b" path="[..], b" size=", b" linkpath=", b" GNU.sparse."].into_iter().any(sets) {
        return Err("an extended header with a name or a length: unpack the stream and import the directory");
    }
    Ok(())
}

/// The line of a manifest about a file that was read before.
enum ExpectedBytes {
    Sha256(Sha256),
    /// The file could not be exported.
    Failed(String),
}

/// A tar stream.
struct Stream<'h> {
    handler: &'h mut dyn Handler,
    /// Objects whose files are expected.
    ahead: VecDeque<ObjectEntry>,
    /// An object whose bytes were read, with their digest, to be compared with a later line; `None`
    /// if they were not wanted.
    held: Option<(ObjectEntry, Option<Sha256>)>,
    totals: End,
}

impl<'h> Stream<'h> {
    fn new(handler: &'h mut dyn Handler) -> Self {
        Stream { handler, ahead: VecDeque::new(), held: None, totals: End::default() }
    }

    fn read(mut self, input: Box<dyn Read>) -> Result<()> {
        let mut archive = tar::Archive::new(BufReader::with_capacity(BUFFER_LEN, input));
        let entries = archive.entries().map_err(|error| CommandError::io("cannot read standard input", error))?;
        // Raw: the library would read long names and extended headers of any length into memory.
        let entries = entries.raw(true);
        let mut is_first = true;
        for file in entries {
            let mut file = match file {
                Ok(file) => file,
                Err(error) => {
                    if is_first {
                        return Err(CommandError::Malformed(format!("standard input is not an export: {error}")));
                    }
                    self.handler.damaged(&format!("truncated stream, or not a tar stream: {error}"));
                    break;
                }
            };
            is_first = false;
            let path = match entry_path(&mut file) {
                Ok(Some(path)) => path,
                Ok(None) => continue,
                Err(what) => {
                    let shown = String::from_utf8_lossy(&file.path_bytes()).into_owned();
                    self.handler.damaged(&format!("{}: {what}", shown.escape_debug()));
                    continue;
                }
            };
            if is_piece(&path) {
                self.manifest(&mut file, &path)?;
            } else {
                self.file(&mut file, &path)?;
            }
        }
        self.settle(None)?;
        while let Some(entry) = self.ahead.pop_front() {
            self.missing(&entry);
        }
        if is_first {
            return Err(CommandError::Malformed("standard input is not an export: it is empty".to_owned()));
        }
        Ok(())
    }

    fn manifest(&mut self, file: &mut impl Read, path: &str) -> Result<()> {
        let mut lines = Lines::new(BufReader::new(file));
        loop {
            match lines.next() {
                Ok(ManifestItem::Line(line)) => self.line(line)?,
                Ok(ManifestItem::Bad(what)) => self.handler.damaged(&format!("{path}: {what}")),
                Ok(ManifestItem::Torn) => {
                    self.handler.damaged(&format!("{path}: the last line is truncated"));
                    return Ok(());
                }
                Ok(ManifestItem::End) => return Ok(()),
                Err(error) => {
                    self.handler.damaged(&format!("{path}: {error}"));
                    return Ok(());
                }
            }
        }
    }

    fn line(&mut self, line: Line) -> Result<()> {
        match line {
            Line::Export(_) => {}
            Line::Bucket(bucket) => {
                self.totals.buckets += 1;
                self.settle(None)?;
                self.handler.bucket(bucket)?;
            }
            Line::Object(entry) => {
                self.totals.objects += 1;
                if self.ahead.len() >= AHEAD_MAX {
                    return Err(CommandError::Malformed(format!(
                        "the manifest lists more than {AHEAD_MAX} files ahead of their data: unpack the stream and \
                         import the directory"
                    )));
                }
                self.ahead.push_back(*entry);
            }
            Line::Digest(FileDigest { file, sha256 }) if self.is_held(file) => {
                self.settle(Some(ExpectedBytes::Sha256(sha256)))?;
            }
            Line::Failed(Failed { file, what }) if self.is_held(file) => {
                self.totals.objects -= 1;
                self.settle(Some(ExpectedBytes::Failed(what)))?;
            }
            Line::Digest(_) | Line::Failed(_) => {}
            Line::End(end) => {
                self.settle(None)?;
                check_end(&end, &self.totals, self.handler);
            }
        }
        Ok(())
    }

    fn is_held(&self, file: FileName) -> bool {
        self.held.as_ref().is_some_and(|(entry, _)| entry.file == file)
    }

    /// Completes the object whose bytes were read, with its expected digest or its error.
    fn settle(&mut self, expected: Option<ExpectedBytes>) -> Result<()> {
        let Some((entry, found)) = self.held.take() else { return Ok(()) };
        let Some(found) = found else { return Ok(()) };
        let verdict = match expected {
            Some(ExpectedBytes::Sha256(sha256)) if sha256 == found => Verdict::Whole,
            Some(ExpectedBytes::Sha256(_)) => Verdict::Damaged(format!("{} has another SHA-256", entry.file)),
            Some(ExpectedBytes::Failed(what)) => Verdict::Damaged(format!("could not be exported: {what}")),
            None => Verdict::Damaged("the manifest lacks the digest of the file".to_owned()),
        };
        self.handler.done(&entry, verdict)
    }

    fn missing(&mut self, entry: &ObjectEntry) {
        if self.handler.is_in_scope(entry) {
            self.handler.damaged(&format!("{}: {} is missing", entry.name(), entry.file));
        }
    }

    fn file(&mut self, file: &mut impl Read, path: &str) -> Result<()> {
        let Some(place) = self.ahead.iter().position(|entry| entry.file.to_string() == path) else {
            return Ok(());
        };
        self.settle(None)?;
        for _ in 0..place {
            if let Some(entry) = self.ahead.pop_front() {
                self.missing(&entry);
            }
        }
        let Some(entry) = self.ahead.pop_front() else { return Ok(()) };
        if !self.handler.is_in_scope(&entry) || !self.handler.wants(&entry)? {
            self.held = Some((entry, None));
            return Ok(());
        }
        let verdict = match copy(file, &entry, self.handler)? {
            Ok((len, found)) if len == entry.length => match entry.sha256 {
                Some(sha256) if sha256 == found => Verdict::Whole,
                Some(_) => Verdict::Damaged(format!("{} has another SHA-256", entry.file)),
                None => {
                    self.held = Some((entry, Some(found)));
                    return Ok(());
                }
            },
            Ok(_) => Verdict::Damaged(format!("{} has the wrong length", entry.file)),
            Err(error) => Verdict::Damaged(format!("{}: {error}", entry.file)),
        };
        self.handler.done(&entry, verdict)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Damages(Vec<String>);

    impl Handler for Damages {
        fn bucket(&mut self, _: BucketEntry) -> Result<()> {
            Ok(())
        }

        fn wants(&mut self, _: &ObjectEntry) -> Result<bool> {
            Ok(false)
        }

        fn data(&mut self, _: &[u8]) -> Result<()> {
            Ok(())
        }

        fn done(&mut self, _: &ObjectEntry, _: Verdict) -> Result<()> {
            Ok(())
        }

        fn damaged(&mut self, what: &str) {
            self.0.push(what.to_owned());
        }

        fn is_in_scope(&self, _: &ObjectEntry) -> bool {
            true
        }

        fn end(&mut self, _: &End) {}
    }

    /// Returns the damages of a stream with one entry of this kind and name.
    fn damages(kind: EntryType, name: &str, content: &[u8]) -> Vec<String> {
        let mut header = tar::Header::new_gnu();
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        header.set_cksum();
        let mut archive = tar::Builder::new(Vec::new());
        archive.append(&header, content).unwrap();
        let stream = archive.into_inner().unwrap();
        let mut handler = Damages::default();
        Stream::new(&mut handler).read(Box::new(io::Cursor::new(stream))).unwrap();
        handler.0
    }

    #[test]
    fn entries_that_no_export_has_are_refused() {
        for (kind, name, part) in [
            (EntryType::Symlink, "objects/ab", "symbolic link"),
            (EntryType::Link, "objects/ab", "hard link"),
            (EntryType::Char, "null", "device"),
            (EntryType::Block, "sda", "device"),
            (EntryType::Fifo, "pipe", "FIFO"),
            (EntryType::GNUSparse, "sparse", "kind"),
            (EntryType::GNULongName, "long", "kind"),
            (EntryType::Regular, "/etc/passwd", "absolute"),
            (EntryType::Regular, "objects/../../x", "`..`"),
            (EntryType::Regular, "..", "`..`"),
        ] {
            let found = damages(kind, name, b"");
            assert!(found.len() == 1 && found[0].contains(part) && found[0].contains(name), "{name}: {found:?}");
        }
        for (kind, name) in [(EntryType::Directory, "objects/"), (EntryType::Regular, "./objects//ab/./x")] {
            assert!(damages(kind, name, b"").is_empty(), "{name}");
        }
    }

    #[test]
    fn extended_headers_are_bounded() {
        let accepts = |content: &[u8]| damages(EntryType::XHeader, "pax", content).is_empty();
        assert!(accepts(b"30 mtime=1350244992.023960108\n"));
        assert!(!accepts(b"12 size=999\n") && !accepts(b"12 path=/etc\n"));
        assert!(accepts(&vec![b'x'; EXTENDED_MAX as usize]) && !accepts(&vec![b'x'; EXTENDED_MAX as usize + 1]));
    }

    #[test]
    fn paths_are_normalised() {
        for (path, normal) in [("./manifest/1", "manifest/1"), ("a//b", "a/b"), ("a/./b/", "a/b"), ("a", "a")] {
            assert_eq!(normal_path(path), Ok(normal.to_owned()));
        }
        assert!(normal_path("a/..").is_err() && normal_path("//a").is_err());
    }
}
