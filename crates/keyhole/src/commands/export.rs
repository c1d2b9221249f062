//! `keyhole export`: copies objects and buckets out of a store.

mod archive;
mod directory;

use std::io::{self, IsTerminal, Write};

use aws_lc_rs::digest;
use serde::Serialize;

use super::operate::{describe, print};
use super::transfer::{Pace, count, is_dash, objects, summary};
use super::{Failure, Result};
use crate::cli::transfer::ExportOptions;
use crate::store::Place;
use crate::transfer::channel::Piece;
use crate::transfer::entry::{Bucket, Entry, Sha256, finish};
use crate::transfer::manifest::End;
use crate::transfer::session::{Answer, FileEnd, Given};
use crate::transfer::{Channel, Way};

use archive::Archive;
use directory::Directory;

/// The destination of an export.
trait Sink {
    /// Begins an export from this store. Called first.
    fn begin(&mut self, store: &str) -> Result<()>;
    fn bucket(&mut self, bucket: &Bucket) -> Result<()>;
    /// Returns whether the file of this object already exists.
    fn has(&mut self, entry: &Entry) -> Result<bool>;
    /// Writes an object, reading `bytes` to their end. Returns the error of the bytes, if any; the
    /// object is then left out.
    fn object(&mut self, entry: Entry, bytes: &mut Bytes<'_>) -> Result<Option<String>>;
    /// Completes the export.
    fn end(&mut self, end: &End) -> Result<()>;
}

/// The bytes of a file, as they arrive.
struct Bytes<'b> {
    channel: &'b mut Channel,
    pace: &'b mut Pace,
    buf: &'b mut Vec<u8>,
    hash: digest::Context,
    left: u64,
    /// The outcome of the bytes, once known.
    failed: Option<Option<String>>,
}

impl Bytes<'_> {
    /// Receives the next bytes into [`buf`](Self::buf); returns `false` at the end.
    fn advance(&mut self) -> Result<bool> {
        if self.failed.is_some() {
            return Ok(false);
        }
        match self.channel.piece(self.buf).map_err(|error| Failure::Other(Channel::lost(&error)))? {
            Piece::Data(len) => {
                let too_long = || Failure::Other("the store sent more than the object has".to_owned());
                self.left = self.left.checked_sub(len as u64).ok_or_else(too_long)?;
                self.hash.update(self.buf);
                self.pace.add(len);
                Ok(true)
            }
            Piece::End(end) => {
                self.failed = Some(match end {
                    FileEnd::Failed { what } => Some(what),
                    FileEnd::Whole if self.left > 0 => Some("the store sent less than the object has".to_owned()),
                    FileEnd::Whole => None,
                });
                Ok(false)
            }
        }
    }

    /// Returns the digest of the complete bytes, or their error.
    fn digest(&self) -> std::result::Result<Sha256, String> {
        match &self.failed {
            Some(None) => Ok(Sha256(finish(self.hash.clone()))),
            Some(Some(what)) => Err(what.clone()),
            None => Err("the object was not read to its end".to_owned()),
        }
    }
}

/// The structure of `--json`.
#[derive(Serialize, Default)]
struct Figures {
    #[serde(flatten)]
    end: End,
    /// Objects that already existed.
    unchanged: u64,
    /// Multipart uploads in progress, which are not exported.
    uploads: u64,
}

pub(crate) fn run(options: &ExportOptions) -> Result<()> {
    let place = Place::find(&options.target.data, options.target.state.as_deref())?;
    let to_stdout = is_dash(&options.to);
    let mut sink: Box<dyn Sink> = match to_stdout {
        true if io::stdout().is_terminal() => {
            return Err(Failure::Usage(
                "refusing to write an export to a terminal: give a DIR, or redirect to a pipe or file".to_owned(),
            ));
        }
        true => Box::new(Archive::new(io::BufWriter::with_capacity(1 << 20, io::stdout()))),
        false => Box::new(Directory::open(&options.to, &options.bounds.scope())?),
    };
    let mut channel = Channel::open(&place, Way::Give(options.bounds.scope()))?;
    let mut pace = Pace::new("exporting", options.bounds.rate);
    let exported = receive(&mut channel, &mut *sink, &mut pace);
    drop(pace);
    let closed = channel.close();
    let figures = exported?;
    closed?;
    report(&figures, options.json, to_stdout)
}

/// Receives everything in scope.
fn receive(channel: &mut Channel, sink: &mut dyn Sink, pace: &mut Pace) -> Result<Figures> {
    let lost = |error: io::Error| Failure::Other(Channel::lost(&error));
    let (mut figures, mut buf) = (Figures::default(), Vec::new());
    loop {
        match channel.message::<Given>().map_err(lost)? {
            Given::Store { id } => sink.begin(&id)?,
            Given::Bucket(bucket) => {
                figures.end.buckets += 1;
                sink.bucket(&bucket)?;
            }
            Given::Object(entry) => {
                let (length, name) = (entry.length, entry.name());
                pace.at(&name);
                let is_there = sink.has(&entry)?;
                channel.send(&if is_there { Answer::Skip } else { Answer::Send }).map_err(lost)?;
                if is_there {
                    figures.unchanged += 1;
                } else {
                    buf.clear();
                    let (hash, failed) = (digest::Context::new(&digest::SHA256), None);
                    let mut bytes = Bytes { channel, pace, buf: &mut buf, hash, left: length, failed };
                    if let Some(what) = sink.object(*entry, &mut bytes)? {
                        pace.say(&format!("left out: {name}: {what}"));
                        figures.end.damaged += 1;
                        continue;
                    }
                }
                figures.end.objects += 1;
                figures.end.bytes += length;
            }
            Given::Damaged(damage) => {
                pace.say(&format!("left out: {}", describe(&damage)));
                figures.end.damaged += 1;
            }
            Given::End { uploads } => {
                figures.uploads = uploads;
                sink.end(&figures.end)?;
                return Ok(figures);
            }
            Given::Failed { message } => return Err(Failure::Other(message)),
        }
    }
}

fn report(figures: &Figures, json: bool, to_stdout: bool) -> Result<()> {
    let End { buckets, objects: exported, bytes, damaged } = figures.end;
    let uploads = figures.uploads;
    let mut words = format!("{} of {} exported", objects(exported, bytes), count(buckets, "bucket", "buckets"));
    let besides = [
        (figures.unchanged, format!("{} of them unchanged", figures.unchanged)),
        (uploads, format!("{} in progress left out", count(uploads, "upload", "uploads"))),
        (damaged, format!("{damaged} damaged and left out")),
    ];
    besides.iter().filter(|(number, _)| *number > 0).for_each(|(_, text)| words = format!("{words}; {text}"));
    let text = summary(json, figures, &words)?;
    if to_stdout {
        let _ = io::stderr().write_all(text.as_bytes());
    } else {
        print(&text);
    }
    match damaged {
        0 => Ok(()),
        _ => Err(Failure::Damaged("damage was found: `keyhole scrub` and `keyhole check` list it".to_owned())),
    }
}
