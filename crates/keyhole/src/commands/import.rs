//! `keyhole import`: copies an export into a store.

mod handler;
mod order;
pub(super) mod source;
mod stream;
mod tree;

use std::collections::HashMap;
use std::io;

use serde::Serialize;

use super::operate::print;
use super::transfer::{Pace, count, objects, summary};
use super::{CommandError, Result};
use crate::cli::Target;
use crate::cli::transfer::{ImportManner, ImportOptions};
use crate::control::Scope;
use crate::store::StoreLocation;
use crate::transfer::entry::{BucketEntry, ObjectEntry};
use crate::transfer::manifest::End;
use crate::transfer::protocol::{DATA_MAX, Existing, FileEnd, ImportOffer, ImportOutcome};
use crate::transfer::settings::{SettingsChoice, left_out};
use crate::transfer::versions::MarkerEntry;
use crate::transfer::{Channel, Direction, TransferError};

use source::{Handler, Verdict};

/// The structure of `--json`.
#[derive(Serialize, Default, Debug)]
struct ImportFigures {
    /// Stored objects, and bytes of their files.
    stored: u64,
    bytes: u64,
    /// Stored delete markers.
    markers: u64,
    /// Objects and delete markers that already existed.
    equal: u64,
    /// Objects in conflict with existing ones, which stay.
    kept: u64,
    /// Buckets in conflict with existing settings, which stay.
    buckets_kept: u64,
    /// Buckets without those of their settings that need `--settings all`.
    buckets_narrowed: u64,
    /// Objects and buckets that the store has refused.
    refused: u64,
    /// Objects or manifest lines that are damaged or missing in the export.
    damaged: u64,
    /// Damaged objects that the export does not contain.
    left_out: u64,
    /// Whether the export is complete.
    complete: bool,
}

/// An import into a store.
pub(super) struct ImportTask<'o> {
    pub(super) target: &'o Target,
    pub(super) manner: &'o ImportManner,
    pub(super) scope: Scope,
    /// Limit of the bytes per second.
    pub(super) rate: Option<u64>,
    /// The source, for messages.
    pub(super) what: &'static str,
}

pub(crate) fn run(options: &ImportOptions) -> Result<()> {
    let source = source::open(&options.from)?;
    let task = ImportTask {
        target: &options.target,
        manner: &options.manner,
        scope: options.bounds.scope(),
        rate: options.bounds.rate,
        what: "the export",
    };
    import(&task, |handler| source.read(handler))
}

/// Imports everything that `read` passes on.
pub(super) fn import(task: &ImportTask<'_>, read: impl FnOnce(&mut dyn Handler) -> Result<()>) -> Result<()> {
    let location = StoreLocation::find(&task.target.data, task.target.state.as_deref())?;
    let channel = Channel::open(&location, Direction::Import)?;
    let mut importer = Importer {
        channel,
        existing: task.manner.existing,
        settings: task.manner.settings.unwrap_or_default(),
        scope: task.scope.clone(),
        pace: Pace::new("importing", task.rate),
        bucket: None,
        unversioned: None,
        number: 0,
        storing: HashMap::new(),
        figures: ImportFigures::default(),
    };
    let read = read(&mut importer).and_then(|()| importer.finish());
    let Importer { channel, figures, pace, .. } = importer;
    drop(pace);
    let closed = channel.close();
    read?;
    closed?;
    report(&figures, task)
}

/// Offers the content of an export to the store.
struct Importer {
    channel: Channel,
    existing: Existing,
    settings: SettingsChoice,
    scope: Scope,
    pace: Pace,
    /// The current bucket, and whether its settings are to be set.
    bucket: Option<(BucketEntry, bool)>,
    /// A bucket that cannot have the versions of the export.
    unversioned: Option<String>,
    /// The number of the last offered object or delete marker.
    number: u64,
    /// Objects sent without an outcome so far: their names and bytes; markers have no bytes.
    storing: HashMap<u64, (String, Option<u64>)>,
    figures: ImportFigures,
}

impl Importer {
    fn lost(error: io::Error) -> CommandError {
        TransferError::lost(error).into()
    }

    /// Sends an offer and returns the reply. Records outcomes of other objects that arrive
    /// meanwhile.
    fn offer(&mut self, offer: &ImportOffer) -> Result<ImportOutcome> {
        self.channel.send(offer).map_err(Self::lost)?;
        loop {
            match self.channel.message::<ImportOutcome>().map_err(Self::lost)? {
                ImportOutcome::Stored { number } => match self.storing.remove(&number) {
                    Some((_, Some(bytes))) => {
                        self.figures.stored += 1;
                        self.figures.bytes += bytes;
                    }
                    Some((_, None)) => self.figures.markers += 1,
                    None => {}
                },
                ImportOutcome::NotStored { number, message } => {
                    // The damage of its file was already reported.
                    if let Some((name, _)) = self.storing.remove(&number) {
                        self.refused(&name, &message);
                    }
                }
                taken => return Ok(taken),
            }
        }
    }

    fn refused(&mut self, name: &str, message: &str) {
        self.pace.say(&format!("not stored: {name}: {message}"));
        self.figures.refused += 1;
    }

    /// Applies the final settings of the current bucket, once its objects exist.
    fn end_bucket(&mut self) -> Result<()> {
        let Some((bucket, is_ours)) = self.bucket.take() else { return Ok(()) };
        if is_ours {
            let name = bucket.bucket.clone();
            let Importer { existing, settings, .. } = *self;
            match self.offer(&ImportOffer::Bucket { bucket, is_last: true, existing, settings })? {
                ImportOutcome::Wanted {} | ImportOutcome::Equal {} | ImportOutcome::Narrowed {} => {}
                ImportOutcome::Refused { message } => self.refused(&format!("bucket {name}"), &message),
                _ => self.bucket_stays(&name),
            }
        }
        Ok(())
    }

    fn bucket_stays(&mut self, name: &str) {
        self.figures.buckets_kept += 1;
        if self.existing == Existing::Fail {
            self.pace.say(&format!("kept: bucket {name} has different settings"));
        }
    }

    fn bucket_is_narrowed(&mut self, bucket: &BucketEntry) {
        let left_out = bucket.settings().map(|settings| left_out(&settings)).unwrap_or_default();
        if !left_out.is_empty() {
            self.figures.buckets_narrowed += 1;
            self.pace.say(&format!("not applied: settings of bucket {}: {}", bucket.bucket, left_out.join(", ")));
        }
    }

    /// Reports a bucket whose versions cannot be imported, before they are counted.
    fn bucket_is_unversioned(&mut self, bucket: &BucketEntry) {
        let name = &bucket.bucket;
        let what = if bucket.object_lock.is_some() { "versioning with object lock" } else { "versioning" };
        self.pace.say(&format!(
            "not imported: the versions in bucket {name}, which exists and lacks {what}; enable it, or set --existing \
             replace"
        ));
        self.figures.buckets_kept += 1;
        self.unversioned = Some(name.clone());
    }

    /// Counts a version that is not offered, because its bucket cannot have it.
    fn is_unversioned(&mut self, bucket: &str) -> bool {
        let is_it = self.unversioned.as_deref() == Some(bucket);
        self.figures.refused += u64::from(is_it);
        is_it
    }

    /// Counts an object or a marker that is not stored, by the reply to its offer.
    fn stays(&mut self, name: &str, outcome: ImportOutcome) {
        let why = match outcome {
            ImportOutcome::Equal {} => {
                self.figures.equal += 1;
                return;
            }
            ImportOutcome::Refused { message } => return self.refused(name, &message),
            ImportOutcome::Behind {} => ": the store has newer versions of the key",
            _ => " exists with different contents",
        };
        self.figures.kept += 1;
        if self.existing == Existing::Fail {
            self.pace.say(&format!("kept: {name}{why}"));
        }
    }

    fn finish(&mut self) -> Result<()> {
        self.end_bucket()?;
        match self.offer(&ImportOffer::End {})? {
            ImportOutcome::End {} => Ok(()),
            _ => Err(super::operate::unexpected()),
        }
    }
}

impl Handler for Importer {
    fn bucket(&mut self, bucket: BucketEntry) -> Result<()> {
        self.end_bucket()?;
        if !self.scope.has_bucket(&bucket.bucket) {
            return Ok(());
        }
        let Importer { existing, settings, .. } = *self;
        let offer = ImportOffer::Bucket { bucket: bucket.clone(), is_last: false, existing, settings };
        let is_ours = match self.offer(&offer)? {
            ImportOutcome::Wanted {} | ImportOutcome::Equal {} => true,
            ImportOutcome::Narrowed {} => {
                self.bucket_is_narrowed(&bucket);
                true
            }
            ImportOutcome::Refused { message } => {
                self.refused(&format!("bucket {}", bucket.bucket.escape_debug()), &message);
                false
            }
            ImportOutcome::Unversioned {} => {
                self.bucket_is_unversioned(&bucket);
                false
            }
            _ => {
                self.bucket_stays(&bucket.bucket);
                false
            }
        };
        self.bucket = Some((bucket, is_ours));
        Ok(())
    }

    fn wants(&mut self, entry: &ObjectEntry) -> Result<bool> {
        if !self.scope.has(&entry.bucket, &entry.key) || self.is_unversioned(&entry.bucket) {
            return Ok(false);
        }
        let name = entry.name();
        self.pace.at(&name);
        self.number += 1;
        let entry = Box::new(entry.clone());
        let number = self.number;
        match self.offer(&ImportOffer::Object { entry, number, existing: self.existing })? {
            ImportOutcome::Wanted {} => Ok(true),
            outcome => {
                self.stays(&name, outcome);
                Ok(false)
            }
        }
    }

    fn marker(&mut self, entry: MarkerEntry) -> Result<()> {
        if !self.scope.has(&entry.bucket, &entry.key) || self.is_unversioned(&entry.bucket) {
            return Ok(());
        }
        let name = entry.name();
        self.number += 1;
        let number = self.number;
        // Its outcome may arrive with the reply to the next offer.
        match self.offer(&ImportOffer::Marker { entry, number, existing: self.existing })? {
            ImportOutcome::Wanted {} => drop(self.storing.insert(number, (name, None))),
            outcome => self.stays(&name, outcome),
        }
        Ok(())
    }

    fn data(&mut self, bytes: &[u8]) -> Result<()> {
        self.pace.add(bytes.len());
        bytes.chunks(DATA_MAX).try_for_each(|some| self.channel.data(some)).map_err(Self::lost)
    }

    fn done(&mut self, entry: &ObjectEntry, verdict: Verdict) -> Result<()> {
        let end = match verdict {
            Verdict::Whole => {
                self.storing.insert(self.number, (entry.name(), Some(entry.length)));
                FileEnd::Whole
            }
            Verdict::Damaged(what) => {
                self.damaged(&format!("{}: {what}", entry.name()));
                FileEnd::Failed { what }
            }
        };
        self.channel.end(&end).map_err(Self::lost)
    }

    fn damaged(&mut self, what: &str) {
        self.pace.say(&format!("damaged: {what}"));
        self.figures.damaged += 1;
    }

    fn is_in_scope(&self, entry: &ObjectEntry) -> bool {
        self.scope.has(&entry.bucket, &entry.key)
    }

    fn end(&mut self, end: &End) {
        self.figures.complete = true;
        self.figures.left_out = end.damaged;
    }
}

fn report(figures: &ImportFigures, task: &ImportTask<'_>) -> Result<()> {
    let what = task.what;
    let ImportFigures { stored, bytes, markers, equal, kept, buckets_kept, buckets_narrowed, .. } = *figures;
    let ImportFigures { refused, damaged, left_out, complete, .. } = *figures;
    let mut words = format!("{} imported", objects(stored, bytes));
    let besides = [
        (markers, count(markers, "delete marker", "delete markers")),
        (equal, format!("{equal} unchanged")),
        (kept, format!("{kept} kept")),
        (refused, format!("{refused} refused")),
        (damaged, format!("{damaged} damaged")),
    ];
    besides.iter().filter(|(number, _)| *number > 0).for_each(|(_, text)| words = format!("{words}; {text}"));
    print(&summary(task.manner.json, figures, &words)?);
    if damaged > 0 {
        return Err(CommandError::Malformed(format!("{what} is damaged: only its intact objects were imported")));
    }
    if !complete {
        let why = format!("{what} is incomplete (interrupted or truncated): the objects that it has were imported");
        return Err(CommandError::Malformed(why));
    }
    if left_out > 0 {
        let why = format!("{what} lacks {left_out} objects, which were damaged in the exported store");
        return Err(CommandError::Malformed(why));
    }
    let differs = task.manner.existing == Existing::Fail && kept + buckets_kept > 0;
    if refused > 0 || differs {
        let hint = if differs { "; set --existing skip to keep or replace to overwrite them" } else { "" };
        return Err(CommandError::Other(format!("some objects or buckets were not imported{hint}")));
    }
    if buckets_narrowed > 0 && task.manner.settings.is_none() {
        let why = "some settings of buckets were not applied, because they allow more, delete objects or bound the \
                   bucket; set --settings all to apply them, or safe to leave them out";
        return Err(CommandError::Other(why.to_owned()));
    }
    Ok(())
}
