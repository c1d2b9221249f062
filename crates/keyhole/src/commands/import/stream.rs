//! Reading of an export that is a tar stream.

use std::collections::VecDeque;
use std::io::{BufReader, Read};

use tar::EntryType;

use super::handler::{BUFFER_LEN, Handler, Verdict, check_end, copy, other_version};
use super::order::LineOrder;
use crate::commands::{CommandError, Result};
use crate::transfer::entry::{FileName, ObjectEntry, Sha256};
use crate::transfer::manifest::{End, Export, Failed, FileDigest, Line, Lines, ManifestItem, is_piece};
use crate::transfer::versions::MarkerEntry;

/// Limit of files and delete markers that a stream's manifest may describe in advance.
const AHEAD_MAX: usize = 4096;

/// Limit of an extended header of a stream in bytes: times and owners of one file.
const EXTENDED_MAX: u64 = 64 << 10;

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

/// An item that a manifest has described ahead.
enum Ahead {
    /// An object whose file is expected.
    Object(Box<ObjectEntry>),
    /// A delete marker, to be handled after the objects before it.
    Marker(MarkerEntry),
}

/// A tar stream.
pub(super) struct Stream<'h> {
    handler: &'h mut dyn Handler,
    ahead: VecDeque<Ahead>,
    order: LineOrder,
    /// An object whose bytes were read, with their digest, to be compared with a later line; `None`
    /// if they were not wanted.
    held: Option<(ObjectEntry, Option<Sha256>)>,
    totals: End,
}

impl<'h> Stream<'h> {
    pub(super) fn new(handler: &'h mut dyn Handler) -> Self {
        let order = LineOrder::default();
        Stream { handler, ahead: VecDeque::new(), order, held: None, totals: End::default() }
    }

    pub(super) fn read(mut self, input: Box<dyn Read>) -> Result<()> {
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
        self.skip(self.ahead.len())?;
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
            Line::Export(Export { version }) => {
                if let Some(expected) = self.order.export(version) {
                    other_version(self.handler, version, expected);
                }
            }
            Line::Bucket(bucket) => {
                self.totals.buckets += 1;
                self.settle(None)?;
                self.deliver_markers()?;
                self.order.bucket(&bucket);
                self.handler.bucket(bucket)?;
            }
            Line::Object(entry) => {
                self.totals.objects += 1;
                match self.order.object(&entry) {
                    Ok(()) => self.expect(Ahead::Object(entry))?,
                    Err(what) => self.handler.damaged(&format!("{}: {what}", entry.name())),
                }
            }
            Line::Marker(entry) => {
                self.totals.markers += 1;
                match self.order.marker(&entry) {
                    Ok(()) => self.expect(Ahead::Marker(entry))?,
                    Err(what) => self.handler.damaged(&format!("{}: {what}", entry.name())),
                }
                self.deliver_markers()?;
            }
            Line::Digest(FileDigest { file, sha256 }) if self.is_held(file) => {
                self.settle(Some(ExpectedBytes::Sha256(sha256)))?;
                self.deliver_markers()?;
            }
            Line::Failed(Failed { file, what }) if self.is_held(file) => {
                self.totals.objects -= 1;
                self.settle(Some(ExpectedBytes::Failed(what)))?;
                self.deliver_markers()?;
            }
            Line::Digest(_) | Line::Failed(_) => {}
            Line::End(end) => {
                self.settle(None)?;
                self.deliver_markers()?;
                check_end(&end, &self.totals, self.handler);
            }
        }
        Ok(())
    }

    fn expect(&mut self, item: Ahead) -> Result<()> {
        if self.ahead.len() >= AHEAD_MAX {
            return Err(CommandError::Malformed(format!(
                "the manifest lists more than {AHEAD_MAX} files ahead of their data: unpack the stream and import \
                 the directory"
            )));
        }
        self.ahead.push_back(item);
        Ok(())
    }

    /// Passes on the markers that no object precedes any more.
    fn deliver_markers(&mut self) -> Result<()> {
        while self.held.is_none() && matches!(self.ahead.front(), Some(Ahead::Marker(_))) {
            self.skip(1)?;
        }
        Ok(())
    }

    /// Handles the next items: objects lack their files, markers have none.
    fn skip(&mut self, count: usize) -> Result<()> {
        for item in self.ahead.drain(..count) {
            match item {
                Ahead::Object(entry) if self.handler.is_in_scope(&entry) => {
                    self.handler.damaged(&format!("{}: {} is missing", entry.name(), entry.file));
                }
                Ahead::Object(_) => {}
                Ahead::Marker(entry) => self.handler.marker(entry)?,
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

    fn file(&mut self, file: &mut impl Read, path: &str) -> Result<()> {
        let is_it = |item: &Ahead| matches!(item, Ahead::Object(entry) if entry.file.to_string() == path);
        let Some(place) = self.ahead.iter().position(is_it) else { return Ok(()) };
        self.settle(None)?;
        self.skip(place)?;
        let Some(Ahead::Object(entry)) = self.ahead.pop_front() else { return Ok(()) };
        self.object(file, *entry)?;
        self.deliver_markers()
    }

    fn object(&mut self, file: &mut impl Read, entry: ObjectEntry) -> Result<()> {
        if !self.handler.is_in_scope(&entry) || !self.handler.wants(&entry)? {
            // Its digest, if it follows, changes nothing.
            self.held = entry.sha256.is_none().then_some((entry, None));
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
    use std::io;

    use super::super::handler::tests::Recorder;
    use super::*;

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
        let mut handler = Recorder::default();
        Stream::new(&mut handler).read(Box::new(io::Cursor::new(stream))).unwrap();
        handler.damages
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

    fn object(key: &str, number: u8, sha256: Option<Sha256>) -> ObjectEntry {
        let id = [number; 32];
        let etag = "0".repeat(32);
        let text = format!(
            r#"{{"bucket":"b","key":"{key}","file":"{}","length":1,"sealed":false,"size":1,"modified_ms":1,"etag":"{etag}","plain":{{}}}}"#,
            FileName { id, sealed: false }
        );
        ObjectEntry { sha256, ..serde_json::from_str(&text).unwrap() }
    }

    fn marker(key: &str) -> Line {
        let text = format!(r#"{{"bucket":"b","key":"{key}","version":"null","modified_ms":1}}"#);
        Line::Marker(serde_json::from_str(&text).unwrap())
    }

    /// Reads a stream of these files: pieces of the manifest, and objects.
    fn read(files: &[(String, Vec<u8>)]) -> (Result<()>, Recorder) {
        let mut archive = tar::Builder::new(Vec::new());
        for (path, content) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_path(path).unwrap();
            header.set_cksum();
            archive.append(&header, &content[..]).unwrap();
        }
        let stream = archive.into_inner().unwrap();
        let mut handler = Recorder::default();
        let result = Stream::new(&mut handler).read(Box::new(io::Cursor::new(stream)));
        (result, handler)
    }

    fn piece(number: u64, lines: &[Line]) -> (String, Vec<u8>) {
        let lines = std::iter::once(&Line::first(2)).chain(lines).flat_map(Line::encode).collect();
        (crate::transfer::manifest::piece(number), lines)
    }

    #[test]
    fn markers_follow_the_files_described_before_them() {
        let sha256 = Sha256([0; 32]);
        let entries = [object("a", 1, Some(sha256)), object("c", 2, None), object("e", 3, Some(sha256))];
        let line = |at: usize| Line::Object(Box::new(entries[at].clone()));
        let file = |at: usize| (entries[at].file.to_string(), vec![1]);
        let digest = Line::Digest(FileDigest { file: entries[1].file, sha256 });
        let (result, handler) = read(&[
            piece(1, &[marker("_"), line(0), marker("b"), line(1)]),
            file(0),
            file(1),
            piece(2, &[digest, marker("d"), line(2), marker("f")]),
            file(2),
            piece(3, &[marker("g")]),
        ]);
        result.unwrap();
        assert_eq!((handler.names.join(" "), &handler.damages[..]), ("_n a bn c dn e fn gn".to_owned(), &[][..]));
        // Without its file, an object is reported, and the markers are delivered.
        let (result, handler) = read(&[piece(1, &[line(0), marker("b"), line(2), marker("f")])]);
        result.unwrap();
        assert_eq!((handler.names.join(" "), handler.damages.len()), ("bn fn".to_owned(), 2));
    }

    #[test]
    fn items_ahead_of_their_data_are_bounded() {
        let ahead = |markers: usize| {
            let lines = [vec![Line::Object(Box::new(object("a", 1, None)))], vec![marker("b"); markers]].concat();
            read(&[piece(1, &lines)])
        };
        let (result, handler) = ahead(AHEAD_MAX - 1);
        assert!(result.is_ok() && handler.names.len() == AHEAD_MAX - 1);
        let (result, _) = ahead(AHEAD_MAX);
        assert!(result.unwrap_err().to_string().contains("unpack the stream"));
        let (result, handler) = read(&[piece(1, &vec![marker("b"); 2 * AHEAD_MAX])]);
        assert!(result.is_ok() && handler.names.len() == 2 * AHEAD_MAX, "markers alone wait for nothing");
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
