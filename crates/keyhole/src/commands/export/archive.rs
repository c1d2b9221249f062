//! An export as a tar stream, which can be processed in one pass.
//!
//! A piece of the manifest describes the files after it. Short files are collected, so that one
//! piece with their digests precedes many of them. A long file is streamed, and its digest is in
//! the next piece.

use std::io::{self, Read, Write};

use tar::{Builder, EntryType, Header};

use super::sink::{FileBytes, FileFailure, Sink};
use crate::commands::{CommandError, Result};
use crate::transfer::entry::{BucketEntry, ObjectEntry};
use crate::transfer::manifest::{End, Failed, FileDigest, Line, VERSION_PLAIN, piece};
use crate::transfer::versions::MarkerEntry;

/// Limit of a collected file's length in bytes.
const SHORT_MAX: u64 = 64 << 10;

/// Limits of collected files and delete markers, and of the bytes of the files.
const GATHERED_MAX: usize = 256;
const GATHERED_BYTES_MAX: usize = 1 << 20;

/// Writes the stream.
pub(super) struct Archive<W: Write> {
    builder: Builder<W>,
    /// The version of the export.
    version: u32,
    /// Pieces of the manifest written so far.
    pieces: u64,
    /// Lines of the next piece.
    lines: Vec<u8>,
    /// Files that follow the next piece.
    files: Vec<(ObjectEntry, Vec<u8>)>,
    gathered: usize,
    /// Delete markers in the next piece.
    markers: usize,
}

impl<W: Write> Archive<W> {
    pub(super) fn new(output: W) -> Self {
        Archive {
            builder: Builder::new(output),
            version: VERSION_PLAIN,
            pieces: 0,
            lines: Vec::new(),
            files: Vec::new(),
            gathered: 0,
            markers: 0,
        }
    }

    fn line(&mut self, line: &Line) {
        if self.lines.is_empty() {
            self.lines = Line::first(self.version).encode();
        }
        self.lines.extend_from_slice(&line.encode());
    }

    /// Writes the next piece and its files.
    fn flush(&mut self) -> Result<()> {
        if self.lines.is_empty() {
            return Ok(());
        }
        self.pieces += 1;
        let lines = std::mem::take(&mut self.lines);
        self.file(&piece(self.pieces), 0, lines.len() as u64, &lines[..])?;
        for (entry, bytes) in std::mem::take(&mut self.files) {
            self.file(&entry.file.to_string(), entry.modified_ms, entry.length, &bytes[..])?;
        }
        self.gathered = 0;
        self.markers = 0;
        Ok(())
    }

    /// Writes the next piece if it is long enough.
    fn flush_if_full(&mut self) -> Result<()> {
        let is_full = self.files.len() + self.markers >= GATHERED_MAX || self.gathered >= GATHERED_BYTES_MAX;
        if is_full { self.flush() } else { Ok(()) }
    }

    fn file(&mut self, path: &str, modified_ms: u64, len: u64, bytes: impl Read) -> Result<()> {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Regular);
        header.set_path(path).map_err(failed)?;
        header.set_size(len);
        header.set_mode(0o600);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(modified_ms / 1000);
        header.set_cksum();
        self.builder.append(&header, bytes).map_err(failed)
    }
}

fn failed(error: io::Error) -> CommandError {
    match error.kind() {
        io::ErrorKind::BrokenPipe => CommandError::Other("the reader of the export has closed the pipe".to_owned()),
        _ => CommandError::io("cannot write to standard output", error),
    }
}

impl<W: Write> Sink for Archive<W> {
    fn begin(&mut self, _store: &str, version: u32) -> Result<()> {
        self.version = version;
        Ok(())
    }

    fn bucket(&mut self, bucket: &BucketEntry) -> Result<()> {
        // Write the files of one bucket before the next bucket's line.
        if !self.files.is_empty() {
            self.flush()?;
        }
        self.line(&Line::Bucket(bucket.clone()));
        Ok(())
    }

    fn marker(&mut self, marker: &MarkerEntry) -> Result<()> {
        self.line(&Line::Marker(marker.clone()));
        self.markers += 1;
        self.flush_if_full()
    }

    fn has(&mut self, _entry: &ObjectEntry) -> Result<bool> {
        Ok(false)
    }

    fn object(&mut self, mut entry: ObjectEntry, bytes: &mut FileBytes<'_>) -> Result<Option<String>> {
        if entry.length > SHORT_MAX {
            self.line(&Line::Object(Box::new(entry.clone())));
            self.flush()?;
            let file = entry.file;
            let mut reader = Padded { bytes, at: 0, left: entry.length, failure: None };
            let written = self.file(&file.to_string(), entry.modified_ms, entry.length, &mut reader);
            if let Some(failure) = reader.failure {
                return Err(failure);
            }
            written?;
            // The frame after the last byte has the outcome.
            while bytes.advance()? {}
            return Ok(match bytes.digest() {
                Ok(sha256) => {
                    self.line(&Line::Digest(FileDigest { file, sha256 }));
                    None
                }
                Err(FileFailure(what)) => {
                    self.line(&Line::Failed(Failed { file, what: what.clone() }));
                    Some(what)
                }
            });
        }
        let mut content = Vec::with_capacity(entry.length as usize);
        while bytes.advance()? {
            content.extend_from_slice(bytes.buf);
        }
        match bytes.digest() {
            Ok(sha256) => entry.sha256 = Some(sha256),
            Err(FileFailure(what)) => return Ok(Some(what)),
        }
        self.line(&Line::Object(Box::new(entry.clone())));
        self.gathered += content.len();
        self.files.push((entry, content));
        self.flush_if_full()?;
        Ok(None)
    }

    fn end(&mut self, end: &End) -> Result<()> {
        self.line(&Line::End(*end));
        self.flush()?;
        self.builder.finish().and_then(|()| self.builder.get_mut().flush()).map_err(failed)
    }
}

/// The bytes of a file, padded with zeros if they end early: a file in the stream must have the
/// announced length.
struct Padded<'p, 'b> {
    bytes: &'p mut FileBytes<'b>,
    at: usize,
    left: u64,
    /// The failure that ends the export.
    failure: Option<CommandError>,
}

impl Read for Padded<'_, '_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let len = to.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if len == 0 {
            return Ok(0);
        }
        while self.at == self.bytes.buf.len() {
            match self.bytes.advance() {
                Ok(true) => self.at = 0,
                Ok(false) => {
                    to[..len].fill(0);
                    self.left -= len as u64;
                    return Ok(len);
                }
                Err(failure) => {
                    self.failure = Some(failure);
                    return Err(io::Error::other("the store sends no more data"));
                }
            }
        }
        let len = len.min(self.bytes.buf.len() - self.at);
        to[..len].copy_from_slice(&self.bytes.buf[self.at..self.at + len]);
        self.at += len;
        self.left -= len as u64;
        Ok(len)
    }
}
