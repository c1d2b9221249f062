//! The node's end of a transfer into the store.

use std::collections::HashSet;
use std::io;

use keyhole_log::{BucketSettings, Condition, Disk, Error, ListObjects, Log, Versioning};
use keyhole_node::Services;
use keyhole_node::transfer::{Description, Import, ImportError, ImportSource};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::entry::{BucketEntry, ObjectEntry};
use super::history::{self, History, Offered};
use super::peer::Peer;
use super::protocol::{Existing, FileEnd, FrameKind, ImportOffer, ImportOutcome, STORING_MAX, out_of_turn};
use super::settings::{SettingsChoice, before_objects};
use super::versions::MarkerEntry;
use crate::control::{CHANGE_AGAIN, CHANGE_PATIENCE};
use crate::env::System;

/// The result of storing an object.
struct Outcome {
    number: u64,
    result: Result<(), Error>,
}

/// The objects that are being stored.
struct Storing<'p> {
    peer: &'p Peer,
    tasks: JoinSet<Outcome>,
    /// The versions of the name that was offered last.
    history: History,
}

impl Storing<'_> {
    /// Reports the outcome of one object.
    async fn report(&mut self, outcome: Result<Outcome, tokio::task::JoinError>) -> io::Result<()> {
        let Outcome { number, result } = outcome.map_err(io::Error::other)?;
        self.history.end(number, result.is_ok());
        let taken = match result {
            Ok(()) => ImportOutcome::Stored { number },
            Err(Error::ConditionFailed | Error::NoSuchKey | Error::Conflict) => {
                ImportOutcome::NotStored { number, message: "the key was written concurrently".to_owned() }
            }
            Err(error) => ImportOutcome::NotStored { number, message: error.to_string() },
        };
        self.peer.send(&taken).await
    }

    /// Waits for all objects and reports their outcomes.
    async fn settle(&mut self) -> io::Result<()> {
        while let Some(outcome) = self.tasks.join_next().await {
            self.report(outcome).await?;
        }
        Ok(())
    }

    /// Turns to a name, once all its earlier versions are stored.
    async fn turn_to(&mut self, bucket: &str, key: &str) -> io::Result<()> {
        while self.history.turn_to(bucket, key).is_some() {
            let Some(outcome) = self.tasks.join_next().await else { return Ok(()) };
            self.report(outcome).await?;
        }
        Ok(())
    }
}

/// Receives offers until the end of the import.
pub(crate) async fn receive<D: Disk>(log: &Log<D>, peer: &Peer) -> io::Result<()> {
    let mut storing = Storing { peer, tasks: JoinSet::new(), history: History::default() };
    // The buckets that this import has made.
    let mut made = HashSet::new();
    loop {
        let is_full = storing.tasks.len() >= STORING_MAX;
        tokio::select! {
            biased;
            Some(outcome) = storing.tasks.join_next() => {
                storing.report(outcome).await?;
                continue;
            }
            readable = peer.readable(), if !is_full => readable?,
        }
        match peer.message::<ImportOffer>().await? {
            ImportOffer::Bucket { bucket, is_last, existing, settings } => {
                // Pending objects first: the bucket's settings, such as a quota, could reject them.
                storing.settle().await?;
                let step = SettingsStep { is_last, existing, settings };
                peer.send(&receive_bucket(log, &bucket, step, &mut made).await).await?;
            }
            ImportOffer::Object { entry, number, existing } => {
                receive_object(log, &entry, number, existing, &mut storing).await?;
            }
            ImportOffer::Marker { entry, number, existing } => {
                receive_marker(log, entry, number, existing, &mut storing).await?;
            }
            ImportOffer::End {} => break,
        }
    }
    storing.settle().await?;
    peer.send(&ImportOutcome::End {}).await
}

/// How the settings of a bucket are restored.
#[derive(Clone, Copy)]
struct SettingsStep {
    /// The bucket's objects exist.
    is_last: bool,
    existing: Existing,
    settings: SettingsChoice,
}

/// Restores a bucket: first everything but its quota, which the objects may exceed, and the quota
/// once they exist. Rules of expiry could add delete markers between versions, so they come last,
/// too. Adds the bucket to `made` if it did not exist.
async fn receive_bucket<D: Disk>(
    log: &Log<D>,
    bucket: &BucketEntry,
    step: SettingsStep,
    made: &mut HashSet<String>,
) -> ImportOutcome {
    let refused = |message: String| ImportOutcome::Refused { message };
    if keyhole_s3::ops::check_bucket(&bucket.bucket).is_err() {
        return refused("invalid bucket name".to_owned());
    }
    let full = match bucket.settings() {
        Ok(settings) => settings,
        Err(error) => return refused(error.to_string()),
    };
    let begun = Instant::now();
    loop {
        let result = async {
            if full.lock.is_some() {
                log.start_lock_clock(System.now_ms()).await?;
            }
            if log.create_bucket(&bucket.bucket, bucket.created_ms).await? {
                made.insert(bucket.bucket.clone());
            }
            let origin = if made.contains(&bucket.bucket) {
                Origin::ThisImport
            } else if log.bucket(&bucket.bucket).is_some_and(|there| there.time_ms == bucket.created_ms) {
                if is_empty(log, &bucket.bucket) { Origin::SameTimeEmpty } else { Origin::SameTime }
            } else {
                Origin::Other
            };
            let change = |settings: &mut BucketSettings| settle(settings, &full, origin, step);
            log.change_bucket(&bucket.bucket, System.now_ms(), change).await
        };
        match result.await {
            Ok(()) | Err(Unchanged::Equal) if is_narrowed(log, bucket, &full, step) => {
                return ImportOutcome::Narrowed {};
            }
            Ok(()) => return ImportOutcome::Wanted {},
            Err(Unchanged::Equal) => return ImportOutcome::Equal {},
            Err(Unchanged::Other) if lacks_versioning(log, &bucket.bucket, &full) => {
                return ImportOutcome::Unversioned {};
            }
            Err(Unchanged::Other) => return ImportOutcome::Other {},
            Err(Unchanged::Log(Error::Conflict)) if begun.elapsed() < CHANGE_PATIENCE => sleep(CHANGE_AGAIN).await,
            Err(Unchanged::Log(error)) => return refused(error.to_string()),
        }
    }
}

fn is_empty<D: Disk>(log: &Log<D>, bucket: &str) -> bool {
    let first = ListObjects { limit: 1, ..ListObjects::default() };
    log.list_objects(bucket, &first).is_ok_and(|listing| listing.entries.is_empty())
}

/// Returns whether the versions of a bucket with the settings `full` cannot be stored in this bucket.
fn lacks_versioning<D: Disk>(log: &Log<D>, bucket: &str, full: &BucketSettings) -> bool {
    let Some((versioning, lock)) = log.bucket_versioning(bucket) else { return false };
    let lacks = full.versioning != Versioning::Off && versioning == Versioning::Off;
    lacks || (full.lock.is_some() && lock.is_none())
}

/// Returns whether the bucket lacks settings of the export that need consent.
fn is_narrowed<D: Disk>(log: &Log<D>, bucket: &BucketEntry, full: &BucketSettings, step: SettingsStep) -> bool {
    let settings = log.bucket_settings(&bucket.bucket).map(|(settings, _)| settings);
    step.settings == SettingsChoice::Safe && settings.as_ref() != Some(full)
}

/// The maker of a bucket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Origin {
    ThisImport,
    /// Possibly an earlier run of this import: the bucket has the creation time of the exported one.
    SameTime,
    /// The same, and the bucket has no objects: the earlier run may have ended before the settings.
    SameTimeEmpty,
    Other,
}

/// The reason why settings are not changed.
#[derive(Debug)]
enum Unchanged {
    /// They are as wanted.
    Equal,
    /// Others are set.
    Other,
    Log(Error),
}

impl From<Error> for Unchanged {
    fn from(error: Error) -> Self {
        Unchanged::Log(error)
    }
}

/// Applies the settings `full` of an export, as far as `step` says, unless the bucket is another's
/// with other settings.
fn settle(
    settings: &mut BucketSettings,
    full: &BucketSettings,
    origin: Origin,
    step: SettingsStep,
) -> Result<(), Unchanged> {
    let wanted = step.settings.wanted(full, settings);
    let is_all = step.is_last || step.settings == SettingsChoice::Safe;
    let next = if is_all { wanted.clone() } else { before_objects(&wanted) };
    if *settings == next {
        return Err(Unchanged::Equal);
    }
    // An interrupted import leaves a bucket that lacks only the last settings. A complete one may be
    // over its quota and still lack objects.
    let unbounded = before_objects(full);
    let is_ours = match origin {
        Origin::ThisImport => true,
        Origin::SameTimeEmpty if *settings == BucketSettings::default() => true,
        Origin::SameTime | Origin::SameTimeEmpty => *settings == unbounded || settings == full,
        Origin::Other => false,
    };
    if !is_ours && *settings == wanted {
        return Err(Unchanged::Equal);
    }
    if !is_ours && step.existing != Existing::Replace {
        return Err(Unchanged::Other);
    }
    settings.clone_from(&next);
    Ok(())
}

async fn receive_object<D: Disk>(
    log: &Log<D>,
    entry: &ObjectEntry,
    number: u64,
    existing: Existing,
    storing: &mut Storing<'_>,
) -> io::Result<()> {
    let peer = storing.peer;
    let version = entry.version.map(|version| version.0);
    if version.is_some() {
        storing.turn_to(&entry.bucket, &entry.key).await?;
    }
    let (description, condition) = match decide(log, entry, existing, &mut storing.history).await {
        Ok(decided) => decided,
        Err(taken) => return peer.send(&taken).await,
    };
    peer.send(&ImportOutcome::Wanted {}).await?;
    let mut id = [0; 16];
    id.copy_from_slice(&entry.file.id[..16]);
    let mut frames = Frames { peer, left: 0, end: None };
    let received =
        Import::receive(log, &description, (id, System.now_ms()), condition, entry.length, &mut frames).await;
    let received = match received {
        Err(ImportError::Gone(error)) => return Err(error),
        received => received,
    };
    let end = frames.end().await;
    let is_damaged = matches!(end, Ok(FileEnd::Failed { .. }));
    match (received, end) {
        (Ok(received), Ok(FileEnd::Whole)) => {
            let log = log.clone();
            storing.tasks.spawn_local(async move { Outcome { number, result: received.commit(&log).await } });
            if let Some(version) = version {
                storing.history.begin(number, version);
            }
            Ok(())
        }
        (Ok(received), Ok(FileEnd::Failed { what })) => {
            received.give_up(log).await;
            peer.send(&ImportOutcome::NotStored { number, message: what }).await
        }
        (Ok(received), Err(error)) => {
            received.give_up(log).await;
            Err(error)
        }
        (Err(ImportError::Gone(error)), _) | (Err(_), Err(error)) => Err(error),
        // A wrong digest of the file is the more specific reason.
        (Err(ImportError::Refused(_)), Ok(FileEnd::Failed { what: message }))
        | (Err(ImportError::Refused(message)), Ok(FileEnd::Whole)) => {
            if version.is_some() && !is_damaged {
                storing.history.set_gap();
            }
            peer.send(&ImportOutcome::NotStored { number, message }).await
        }
    }
}

async fn receive_marker<D: Disk>(
    log: &Log<D>,
    entry: MarkerEntry,
    number: u64,
    existing: Existing,
    storing: &mut Storing<'_>,
) -> io::Result<()> {
    let peer = storing.peer;
    if let Err(error) = entry.check() {
        return peer.send(&ImportOutcome::Refused { message: error.to_string() }).await;
    }
    storing.turn_to(&entry.bucket, &entry.key).await?;
    let version = entry.version.0;
    if let Err(taken) = history::decide(log, Offered::Marker(&entry), version, existing, &mut storing.history).await {
        return peer.send(&taken).await;
    }
    peer.send(&ImportOutcome::Wanted {}).await?;
    let log = log.clone();
    let commit = async move {
        let MarkerEntry { bucket, key, modified_ms, .. } = &entry;
        Outcome { number, result: log.import_marker(bucket, key, version, *modified_ms).await }
    };
    storing.tasks.spawn_local(commit);
    storing.history.begin(number, version);
    Ok(())
}

/// Decides whether an object is wanted, and the condition of its commit.
async fn decide<D: Disk>(
    log: &Log<D>,
    entry: &ObjectEntry,
    existing: Existing,
    history: &mut History,
) -> Result<(Description, Condition), ImportOutcome> {
    let description = entry.description().map_err(|error| ImportOutcome::Refused { message: error.to_string() })?;
    if let Some(version) = description.version {
        let offered = Offered::Object(entry, &description);
        let condition = history::decide(log, offered, version, existing, history).await?;
        return Ok((description, condition));
    }
    let condition = match log.object(&entry.bucket, &entry.key).await {
        Ok(None) => Condition::IfAbsent,
        Ok(Some(object)) if history::has_contents(&object, entry) && history::has_tags(&object, entry) => {
            return Err(ImportOutcome::Equal {});
        }
        Ok(Some(object)) if existing == Existing::Replace => Condition::IfSame(object.seq),
        // Replacing unreadable objects may be the purpose of the import.
        Err(Error::Damaged(_)) if existing == Existing::Replace => Condition::None,
        Ok(Some(_)) | Err(Error::Damaged(_)) => return Err(ImportOutcome::Other {}),
        Err(error) => return Err(ImportOutcome::Refused { message: error.to_string() }),
    };
    Ok((description, condition))
}

/// The bytes of a file, from frames.
struct Frames<'p> {
    peer: &'p Peer,
    /// Unread bytes of the current frame.
    left: usize,
    /// The outcome of the bytes, once received.
    end: Option<FileEnd>,
}

impl Frames<'_> {
    /// Advances to the next bytes; returns whether there are any.
    async fn advance(&mut self) -> io::Result<bool> {
        while self.left == 0 {
            if self.end.is_some() {
                return Ok(false);
            }
            match self.peer.head().await? {
                (FrameKind::Data, len) => self.left = len,
                (FrameKind::End, len) => self.end = Some(self.peer.rest(len).await?),
                (FrameKind::Message, _) => return Err(out_of_turn()),
            }
        }
        Ok(true)
    }

    async fn take(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < to.len() && self.advance().await? {
            let len = self.left.min(to.len() - filled);
            self.peer.read(&mut to[filled..filled + len]).await?;
            filled += len;
            self.left -= len;
        }
        Ok(filled)
    }

    /// Discards unread bytes and returns the outcome.
    async fn end(&mut self) -> io::Result<FileEnd> {
        let mut rest = vec![0; 64 << 10];
        while self.advance().await? {
            let len = self.left.min(rest.len());
            self.peer.read(&mut rest[..len]).await?;
            self.left -= len;
        }
        self.end.take().ok_or_else(out_of_turn)
    }
}

impl ImportSource for Frames<'_> {
    async fn fill(&mut self, to: &mut [u8]) -> io::Result<usize> {
        self.take(to).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Existing; 3] = [Existing::Fail, Existing::Skip, Existing::Replace];

    fn set(
        there: &BucketSettings,
        full: &BucketSettings,
        origin: Origin,
        step: SettingsStep,
    ) -> Result<BucketSettings, Unchanged> {
        let mut settings = there.clone();
        settle(&mut settings, full, origin, step).map(|()| settings)
    }

    #[test]
    fn settings_of_own_bucket_are_applied_in_two_steps() {
        let full = BucketSettings { quota: Some(5), expire_ms: Some(7), ..BucketSettings::default() };
        let unbounded = BucketSettings { quota: None, ..full.clone() };
        let fresh = BucketSettings::default();
        for existing in ALL {
            let first = SettingsStep { is_last: false, existing, settings: SettingsChoice::All };
            let last = SettingsStep { is_last: true, ..first };
            for origin in [Origin::ThisImport, Origin::SameTimeEmpty] {
                assert_eq!(set(&fresh, &full, origin, first).unwrap(), unbounded);
            }
            for origin in [Origin::ThisImport, Origin::SameTime, Origin::SameTimeEmpty] {
                assert_eq!(set(&unbounded, &full, origin, last).unwrap(), full);
                assert_eq!(set(&full, &full, origin, first).unwrap(), unbounded);
                assert!(matches!(set(&unbounded, &full, origin, first), Err(Unchanged::Equal)));
                assert!(matches!(set(&full, &full, origin, last), Err(Unchanged::Equal)));
            }
            let safe = SettingsStep { settings: SettingsChoice::Safe, ..first };
            assert!(matches!(set(&fresh, &full, Origin::ThisImport, safe), Err(Unchanged::Equal)));
        }
    }

    #[test]
    fn settings_of_other_buckets_are_kept_unless_replaced() {
        let full = BucketSettings { quota: Some(5), expire_ms: Some(7), ..BucketSettings::default() };
        let unbounded = BucketSettings { quota: None, ..full.clone() };
        let other = BucketSettings { quota: Some(6), ..BucketSettings::default() };
        let fresh = BucketSettings::default();
        for (there, origin) in [
            (&fresh, Origin::Other),
            (&fresh, Origin::SameTime),
            (&unbounded, Origin::Other),
            (&other, Origin::Other),
            (&other, Origin::SameTime),
            (&other, Origin::SameTimeEmpty),
        ] {
            let step = |existing| SettingsStep { is_last: true, existing, settings: SettingsChoice::All };
            for existing in [Existing::Fail, Existing::Skip] {
                let kept = set(there, &full, origin, step(existing));
                assert!(matches!(kept, Err(Unchanged::Other)), "{there:?} {origin:?}");
            }
            assert_eq!(set(there, &full, origin, step(Existing::Replace)).unwrap(), full);
            // Without consent, not even a replacement opens or bounds a bucket.
            for existing in ALL {
                let safe = SettingsStep { settings: SettingsChoice::Safe, ..step(existing) };
                assert!(matches!(set(there, &full, origin, safe), Err(Unchanged::Equal)), "{there:?} {origin:?}");
            }
        }
        let first = SettingsStep { is_last: false, existing: Existing::Fail, settings: SettingsChoice::All };
        assert!(matches!(set(&full, &full, Origin::Other, first), Err(Unchanged::Equal)), "it keeps its quota");
    }
}
