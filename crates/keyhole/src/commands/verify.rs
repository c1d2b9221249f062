//! `keyhole verify`: verifies an export without a store and without a key.

use keyhole_core::body::{BindingError, Bodies};
use keyhole_core::file::{BodyEntry, Decoded, ENTRY_LEN, FileError, Layout, Preface};
use keyhole_core::limits::SALT_LEN;
use serde::Serialize;
use thiserror::Error;

use super::import::source::{self, Handler, Verdict};
use super::operate::print;
use super::transfer::{Pace, count, objects, summary};
use super::{CommandError, Result};
use crate::cli::transfer::VerifyOptions;
use crate::transfer::EntryError;
use crate::transfer::entry::{BucketEntry, FileName, ObjectEntry};
use crate::transfer::manifest::End;
use crate::transfer::versions::MarkerEntry;

/// The structure of `--json`.
#[derive(Serialize, Default)]
struct VerifyFigures {
    buckets: u64,
    /// Valid objects, and bytes of their files.
    objects: u64,
    bytes: u64,
    /// Valid delete markers.
    markers: u64,
    /// Objects or manifest lines that are damaged or missing.
    damaged: u64,
    /// Damaged objects that the export does not contain.
    left_out: u64,
    /// Whether the export is complete.
    complete: bool,
}

pub(crate) fn run(options: &VerifyOptions) -> Result<()> {
    let source = source::open(&options.from)?;
    let pace = Pace::new("verifying", options.rate);
    let mut verifier = Verifier { pace, sealed: None, figures: VerifyFigures::default() };
    source.read(&mut verifier)?;
    let Verifier { pace, figures, .. } = verifier;
    drop(pace);
    let VerifyFigures { damaged, left_out, complete, .. } = figures;
    let markers = match figures.markers {
        0 => String::new(),
        markers => format!(" and {}", count(markers, "delete marker", "delete markers")),
    };
    let words = format!("{}{markers} verified, {damaged} damaged", objects(figures.objects, figures.bytes));
    print(&summary(options.json, &figures, &words)?);
    match (damaged, complete, left_out) {
        (0, true, 0) => Ok(()),
        (0, true, _) => Err(CommandError::Malformed(format!(
            "the export lacks {left_out} objects, which were damaged in the exported store"
        ))),
        (0, false, _) => Err(CommandError::Malformed("the export is incomplete (interrupted or truncated)".to_owned())),
        _ => Err(CommandError::Malformed("the export is damaged".to_owned())),
    }
}

struct Verifier {
    pace: Pace,
    /// The check of the current sealed object file.
    sealed: Option<SealedCheck>,
    figures: VerifyFigures,
}

impl Handler for Verifier {
    fn bucket(&mut self, bucket: BucketEntry) -> Result<()> {
        self.figures.buckets += 1;
        if let Err(what) = bucket.settings() {
            self.damaged(&format!("bucket {}: {what}", bucket.bucket.escape_debug()));
        }
        Ok(())
    }

    fn marker(&mut self, entry: MarkerEntry) -> Result<()> {
        match entry.check() {
            Ok(()) => self.figures.markers += 1,
            Err(what) => self.damaged(&format!("{}: {what}", entry.name())),
        }
        Ok(())
    }

    fn wants(&mut self, entry: &ObjectEntry) -> Result<bool> {
        self.pace.at(&entry.name());
        self.sealed = entry.sealed.then(SealedCheck::default);
        Ok(true)
    }

    fn data(&mut self, bytes: &[u8]) -> Result<()> {
        self.pace.add(bytes.len());
        if let Some(sealed) = &mut self.sealed {
            sealed.update(bytes);
        }
        Ok(())
    }

    fn done(&mut self, entry: &ObjectEntry, verdict: Verdict) -> Result<()> {
        let what = match verdict {
            Verdict::Damaged(what) => Some(what),
            Verdict::Whole => {
                let sealed = self.sealed.take().map_or(Ok(()), |sealed| sealed.finish(entry));
                entry
                    .description()
                    .map(drop)
                    .map_err(ObjectError::Entry)
                    .and(sealed)
                    .err()
                    .map(|error| error.to_string())
            }
        };
        match what {
            Some(what) => self.damaged(&format!("{}: {what}", entry.name())),
            None => {
                self.figures.objects += 1;
                self.figures.bytes += entry.length;
            }
        }
        Ok(())
    }

    fn damaged(&mut self, what: &str) {
        self.pace.say(&format!("damaged: {what}"));
        self.figures.damaged += 1;
    }

    fn is_in_scope(&self, _entry: &ObjectEntry) -> bool {
        true
    }

    fn end(&mut self, end: &End) {
        self.figures.complete = true;
        self.figures.left_out = end.damaged;
    }
}

/// The reason why an exported object is damaged.
#[derive(Error, Debug)]
enum ObjectError {
    #[error(transparent)]
    Entry(EntryError),
    #[error("{file}: {why}")]
    File { file: FileName, why: FileError },
    #[error("{file}: {why}")]
    Body { file: FileName, why: BindingError },
    #[error("{0} is sealed for another bucket or key")]
    OtherName(FileName),
    #[error("{0} belongs to an object with another ETag")]
    OtherEtag(FileName),
}

/// The checks of a sealed object file that need no key, on its bytes as they arrive.
#[derive(Default)]
struct SealedCheck {
    /// The received bytes before the part infos.
    front: Vec<u8>,
    layout: Option<SealedFront>,
    /// Bytes received.
    at: u64,
    /// The received salts of the messages.
    salts: Vec<[u8; SALT_LEN]>,
    failed: Option<FileError>,
}

/// The decoded part of a file before the part infos.
struct SealedFront {
    bucket: String,
    key: String,
    bodies: Vec<BodyEntry>,
    /// The position of each message in the file.
    starts: Vec<u64>,
    file_len: u64,
    size: u64,
}

impl SealedCheck {
    fn update(&mut self, bytes: &[u8]) {
        if self.failed.is_none() && self.layout.is_none() {
            self.front.extend_from_slice(bytes);
            match SealedFront::read(&self.front) {
                Ok(None) => {}
                Ok(Some(front)) => {
                    self.salts = vec![[0; SALT_LEN]; front.bodies.len()];
                    self.layout = Some(front);
                    let all = std::mem::take(&mut self.front);
                    self.at = 0;
                    self.take_salts(&all);
                    self.at = all.len() as u64;
                }
                Err(error) => self.failed = Some(error),
            }
            return;
        }
        self.take_salts(bytes);
        self.at += bytes.len() as u64;
    }

    /// Extracts the salts from the bytes that begin at `self.at`.
    fn take_salts(&mut self, bytes: &[u8]) {
        let Some(front) = &self.layout else { return };
        let end = self.at + bytes.len() as u64;
        // The first message whose salt may overlap these bytes.
        let first = front.starts.partition_point(|start| start + SALT_LEN as u64 <= self.at);
        for (start, salt) in front.starts[first..].iter().zip(&mut self.salts[first..]) {
            if *start >= end {
                break;
            }
            let from = (*start).max(self.at);
            let to = (start + SALT_LEN as u64).min(end);
            let place = (from - start) as usize..(to - start) as usize;
            salt[place].copy_from_slice(&bytes[(from - self.at) as usize..(to - self.at) as usize]);
        }
    }

    /// Checks that this is the file of the object.
    fn finish(self, entry: &ObjectEntry) -> std::result::Result<(), ObjectError> {
        let file = entry.file;
        let invalid = |why| ObjectError::File { file, why };
        if let Some(why) = self.failed {
            return Err(invalid(why));
        }
        let front = self.layout.ok_or_else(|| invalid(FileError::Length))?;
        if (&front.bucket, &front.key) != (&entry.bucket, &entry.key) {
            return Err(ObjectError::OtherName(file));
        }
        if front.file_len != self.at || front.file_len != entry.length || front.size != entry.size {
            return Err(invalid(FileError::Length));
        }
        let mut bodies = Bodies::new();
        for (body, salt) in front.bodies.iter().zip(&self.salts) {
            let pushed = bodies.push(body.part_number, body.message_len, salt);
            pushed.map_err(|why| ObjectError::Body { file, why })?;
        }
        if bodies.etag().to_string() == entry.etag { Ok(()) } else { Err(ObjectError::OtherEtag(file)) }
    }
}

impl SealedFront {
    /// Decodes the beginning of a file; `None` if more bytes are needed.
    fn read(bytes: &[u8]) -> std::result::Result<Option<Self>, FileError> {
        let Decoded::Whole(preface, len) = Preface::decode(bytes)? else { return Ok(None) };
        let table_len = preface.bodies as usize * ENTRY_LEN;
        let Some(table) = bytes[len..].get(..table_len) else { return Ok(None) };
        let (entries, _) = table.as_chunks::<ENTRY_LEN>();
        let bodies: Vec<_> = entries.iter().map(BodyEntry::decode).collect();
        let mut layout = Layout::new(preface.bodies);
        bodies.iter().try_for_each(|body| layout.push(body))?;
        let totals = layout.finish()?;
        let mut at = (len + table_len) as u64 + totals.infos_len;
        let mut starts = Vec::with_capacity(bodies.len());
        for body in &bodies {
            starts.push(at);
            at += body.message_len;
        }
        let bucket = preface.bucket.to_owned();
        let key = preface.key.to_owned();
        Ok(Some(SealedFront {
            bucket,
            key,
            bodies,
            starts,
            file_len: totals.file_len(&preface),
            size: totals.plaintext_len,
        }))
    }
}
