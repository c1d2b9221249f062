//! `keyhole export`: copies objects and buckets out of a store.

mod archive;
mod directory;
mod sink;

use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use super::operate::{describe, print};
use super::transfer::{Pace, count, is_dash, objects, summary};
use super::{CommandError, Result};
use crate::cli::transfer::ExportOptions;
use crate::store::StoreLocation;
use crate::transfer::manifest::{End, VERSION};
use crate::transfer::protocol::{ExportAnswer, ExportMessage};
use crate::transfer::{Channel, Direction, TransferError};

use archive::Archive;
use directory::Directory;
use sink::{FileBytes, Sink};

/// The structure of `--json`.
#[derive(Serialize, Default)]
struct ExportFigures {
    #[serde(flatten)]
    end: End,
    /// Objects that already existed.
    unchanged: u64,
    /// Multipart uploads in progress, which are not exported.
    uploads: u64,
}

pub(crate) fn run(options: &ExportOptions) -> Result<()> {
    let location = StoreLocation::find(&options.target.data, options.target.state.as_deref())?;
    let to_stdout = is_dash(&options.to);
    if to_stdout && io::stdout().is_terminal() {
        let refusal = "refusing to write an export to a terminal: give a DIR, or redirect to a pipe or file";
        return Err(CommandError::Usage(refusal.to_owned()));
    }
    let mut sink: Box<dyn Sink> = if to_stdout {
        Box::new(Archive::new(io::BufWriter::with_capacity(1 << 20, io::stdout())))
    } else {
        Box::new(Directory::open(&options.to, &options.bounds.scope())?)
    };
    let mut channel = Channel::open(&location, Direction::Export(options.bounds.scope()))?;
    let mut pace = Pace::new("exporting", options.bounds.rate);
    let exported = receive(&mut channel, &mut *sink, &mut pace);
    drop(pace);
    let closed = channel.close();
    let figures = exported?;
    closed?;
    report(&figures, options.json, to_stdout)
}

/// Receives everything in scope.
fn receive(channel: &mut Channel, sink: &mut dyn Sink, pace: &mut Pace) -> Result<ExportFigures> {
    let lost = TransferError::lost;
    let mut figures = ExportFigures::default();
    let mut buf = Vec::new();
    loop {
        match channel.message::<ExportMessage>().map_err(lost)? {
            ExportMessage::Store { version, .. } if version > VERSION => {
                return Err(TransferError::UnexpectedReply.into());
            }
            ExportMessage::Store { id, version } => sink.begin(&id, version)?,
            ExportMessage::Bucket(bucket) => {
                figures.end.buckets += 1;
                sink.bucket(&bucket)?;
            }
            ExportMessage::Object(entry) => {
                let length = entry.length;
                let name = entry.name();
                pace.at(&name);
                let is_there = sink.has(&entry)?;
                channel.send(&if is_there { ExportAnswer::Skip } else { ExportAnswer::Send }).map_err(lost)?;
                if is_there {
                    figures.unchanged += 1;
                } else {
                    buf.clear();
                    let mut bytes = FileBytes::new(channel, pace, &mut buf, length);
                    if let Some(what) = sink.object(*entry, &mut bytes)? {
                        pace.say(&format!("left out: {name}: {what}"));
                        figures.end.damaged += 1;
                        continue;
                    }
                }
                figures.end.objects += 1;
                figures.end.bytes += length;
            }
            ExportMessage::Marker(marker) => {
                figures.end.markers += 1;
                sink.marker(&marker)?;
            }
            ExportMessage::Damaged(damage) => {
                pace.say(&format!("left out: {}", describe(&damage)));
                figures.end.damaged += 1;
            }
            ExportMessage::End { uploads } => {
                figures.uploads = uploads;
                sink.end(&figures.end)?;
                return Ok(figures);
            }
            ExportMessage::Failed { message } => return Err(CommandError::Other(message)),
        }
    }
}

fn report(figures: &ExportFigures, json: bool, to_stdout: bool) -> Result<()> {
    let End { buckets, objects: exported, bytes, damaged, markers } = figures.end;
    let uploads = figures.uploads;
    let mut words = format!("{} of {} exported", objects(exported, bytes), count(buckets, "bucket", "buckets"));
    let besides = [
        (markers, count(markers, "delete marker", "delete markers")),
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
        _ => Err(CommandError::Damaged("damage was found: `keyhole scrub` and `keyhole check` list it".to_owned())),
    }
}
