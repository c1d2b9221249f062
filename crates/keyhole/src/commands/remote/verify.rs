//! `keyhole remote verify`: compares a remote with the store.

use std::collections::{HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use keyhole_log::VersionId;
use keyhole_remote::{
    Download, EntryPlace, FetchError, Names, ObjectFields, RemoteName, Service, ServiceError, entry_name, parse_name,
    read_whole,
};
use serde::Serialize;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use crate::commands::operate::{describe, print};
use crate::commands::transfer::{Pace, count, summary};
use crate::commands::{CommandError, Result};
use crate::control::Scope;
use crate::remote::{Plaintext, RemoteConfig, S3Client};
use crate::store::StoreLocation;
use crate::transfer::channel::Piece;
use crate::transfer::entry::ObjectEntry;
use crate::transfer::manifest::{LINE_MAX, Line};
use crate::transfer::protocol::{ExportAnswer, ExportMessage};
use crate::transfer::versions::{MarkerEntry, Version};
use crate::transfer::{Channel, Direction, TransferError};

/// Requests in flight.
const IN_FLIGHT_MAX: usize = 16;

/// Reported differences. Further ones are counted.
const SHOWN_MAX: u64 = 1000;

/// The structure of `--json`.
#[derive(Serialize, Default)]
struct Figures {
    /// Objects, versions and delete markers that are equal in the store and the remote.
    equal: u64,
    /// Those that the remote lacks.
    missing: u64,
    /// Those that are different in the remote.
    different: u64,
    /// Objects that this store has put into the remote and does not have.
    unexpected: u64,
    /// Objects that are damaged in the store.
    damaged: u64,
}

/// What the remote must have.
struct Expected {
    name: String,
    line: Vec<u8>,
    len: u64,
}

/// The result of one comparison.
enum Compared {
    Equal,
    Missing(String),
    Different(String, &'static str),
}

pub(super) struct Verifier<'c> {
    pub(super) runtime: Runtime,
    pub(super) client: S3Client,
    pub(super) config: &'c RemoteConfig,
    /// Whether to compare the bytes of all objects.
    pub(super) reads_content: bool,
}

impl Verifier<'_> {
    pub(super) fn run(self, location: &StoreLocation, json: bool) -> Result<()> {
        let mut channel = Channel::open(location, Direction::Export(Scope::default()))?;
        let pace = Pace::new("verifying", None);
        let mut comparing = Comparing {
            runtime: self.runtime,
            client: Arc::new(self.client),
            names: Names::new(self.config.prefix.len()),
            config: self.config,
            running: VecDeque::new(),
            known: HashSet::new(),
            pace,
            figures: Figures::default(),
        };
        let compared = comparing.store(&mut channel, self.reads_content);
        let closed = channel.close();
        let id = compared?;
        closed?;
        comparing.unexpected(id)?;
        let Comparing { figures, pace, .. } = comparing;
        drop(pace);
        let Figures { equal, missing, different, unexpected, damaged } = figures;
        let mut words = format!("{} equal", count(equal, "object", "objects"));
        for (number, what) in
            [(missing, "missing"), (different, "different"), (unexpected, "unexpected"), (damaged, "damaged here")]
        {
            if number > 0 {
                words = format!("{words}; {number} {what}");
            }
        }
        print(&summary(json, &figures, &words)?);
        match missing + different + unexpected {
            0 => Ok(()),
            _ => Err(CommandError::Malformed(
                "the remote differs from the store; what `keyhole remote status` shows as owed is not in it yet"
                    .to_owned(),
            )),
        }
    }
}

struct Comparing<'c> {
    runtime: Runtime,
    client: Arc<S3Client>,
    names: Names,
    config: &'c RemoteConfig,
    running: VecDeque<JoinHandle<std::result::Result<Compared, ServiceError>>>,
    /// Hashes of the names that the store has: names take more memory.
    known: HashSet<u64>,
    pace: Pace,
    figures: Figures,
}

fn hash(name: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish()
}

fn failed(error: ServiceError) -> CommandError {
    CommandError::Other(format!("the remote has failed: {error}"))
}

impl Comparing<'_> {
    /// Compares everything in the store with the remote. Returns the identity of the store.
    fn store(&mut self, channel: &mut Channel, reads_content: bool) -> Result<[u8; 16]> {
        let lost = TransferError::lost;
        let mut store = [0; 16];
        let mut buf = Vec::new();
        loop {
            match channel.message::<ExportMessage>().map_err(lost)? {
                ExportMessage::Store { id, .. } => {
                    hex::decode_to_slice(&id, &mut store).map_err(|_| TransferError::UnexpectedReply)?;
                }
                ExportMessage::Bucket(bucket) => {
                    if self.config.has_bucket(&bucket.bucket) {
                        let name = self.names.bucket(&bucket.bucket);
                        let line = Line::Bucket(bucket).encode();
                        self.known.insert(hash(&name));
                        self.compare_bucket(name, line)?;
                    }
                }
                ExportMessage::Object(entry) => {
                    let entry = *entry;
                    let expected = self.object(&entry);
                    let reads = reads_content && expected.is_some();
                    channel.send(&if reads { ExportAnswer::Send } else { ExportAnswer::Skip }).map_err(lost)?;
                    match expected {
                        Some(expected) if reads => self.compare_content(channel, &mut buf, expected)?,
                        Some(expected) => self.compare(expected)?,
                        None => {}
                    }
                }
                ExportMessage::Marker(marker) => {
                    if self.config.has_key(&marker.bucket, &marker.key) {
                        let expected = self.marker(marker);
                        self.compare(expected)?;
                    }
                }
                ExportMessage::Damaged(damage) => {
                    self.pace.say(&format!("damaged in the store: {}", describe(&damage)));
                    self.figures.damaged += 1;
                }
                ExportMessage::End { .. } => break,
                ExportMessage::Failed { message } => return Err(CommandError::Other(message)),
            }
        }
        while !self.running.is_empty() {
            self.settle()?;
        }
        Ok(store)
    }

    /// Returns what the remote must have of an object; `None`: it is not shipped.
    fn object(&mut self, entry: &ObjectEntry) -> Option<Expected> {
        let is_shipped = entry.sealed || self.config.plaintext == Plaintext::Allow;
        if !is_shipped || !self.config.has_key(&entry.bucket, &entry.key) {
            return None;
        }
        let version = entry.version.map(|Version(id)| id).filter(|id| *id != VersionId::Null);
        let name = self.names.object(&entry.bucket, &entry.key, version);
        self.known.insert(hash(&name));
        Some(Expected { name, line: Line::Object(Box::new(entry.clone())).encode(), len: entry.length })
    }

    fn marker(&mut self, marker: MarkerEntry) -> Expected {
        let name = self.names.object(&marker.bucket, &marker.key, Some(marker.version.0));
        self.known.insert(hash(&name));
        Expected { name, line: Line::Marker(marker).encode(), len: 0 }
    }

    /// Compares the metadata of an object, while others are in flight.
    fn compare(&mut self, expected: Expected) -> Result<()> {
        if self.running.len() == IN_FLIGHT_MAX {
            self.settle()?;
        }
        let client = self.client.clone();
        self.running.push_back(self.runtime.spawn(async move { compared(&client, expected).await }));
        Ok(())
    }

    fn settle(&mut self) -> Result<()> {
        let Some(task) = self.running.pop_front() else { return Ok(()) };
        let compared = self.runtime.block_on(task).map_err(|error| CommandError::Other(error.to_string()))?;
        self.note(compared.map_err(failed)?);
        Ok(())
    }

    fn note(&mut self, compared: Compared) {
        let shown = self.figures.missing + self.figures.different < SHOWN_MAX;
        match compared {
            Compared::Equal => self.figures.equal += 1,
            Compared::Missing(name) => {
                if shown {
                    self.pace.say(&format!("missing: {}", name.escape_debug()));
                }
                self.figures.missing += 1;
            }
            Compared::Different(name, what) => {
                if shown {
                    self.pace.say(&format!("different: {}: {what}", name.escape_debug()));
                }
                self.figures.different += 1;
            }
        }
    }

    fn compare_bucket(&mut self, name: String, line: Vec<u8>) -> Result<()> {
        let client = self.client.clone();
        let found = self.runtime.block_on(async { read_line(&client, &name).await }).map_err(failed)?;
        self.note(match found {
            None => Compared::Missing(name),
            Some(found) if found == line => Compared::Equal,
            Some(_) => Compared::Different(name, "its settings differ"),
        });
        Ok(())
    }

    /// Compares the metadata and the bytes of an object, whose bytes follow on the channel.
    fn compare_content(&mut self, channel: &mut Channel, buf: &mut Vec<u8>, expected: Expected) -> Result<()> {
        let client = self.client.clone();
        let name = expected.name.clone();
        let mut compared = self.runtime.block_on(compared(&client, expected)).map_err(failed)?;
        let mut download = match compared {
            Compared::Equal => self.runtime.block_on(client.get(&name, None)).map_err(failed)?.map(|(_, found)| found),
            _ => None,
        };
        let mut ahead = Vec::new();
        let mut is_equal = true;
        while let Piece::Data(len) = channel.piece(buf).map_err(TransferError::lost)? {
            self.pace.add(len);
            let Some(download) = &mut download else { continue };
            while ahead.len() < len {
                match self.runtime.block_on(download.next()).map_err(failed)? {
                    Some(more) => ahead.extend(more),
                    None => break,
                }
            }
            is_equal &= ahead.get(..len) == Some(&buf[..len]);
            ahead.drain(..len.min(ahead.len()));
        }
        if let Some(download) = &mut download {
            // The remote may have more.
            is_equal &= ahead.is_empty() && self.runtime.block_on(download.next()).map_err(failed)?.is_none();
        }
        if matches!(compared, Compared::Equal) && (!is_equal || download.is_none()) {
            compared = Compared::Different(name, "its bytes differ");
        }
        self.note(compared);
        Ok(())
    }

    /// Finds objects of this store in the remote that the store does not have, unless they are kept.
    fn unexpected(&mut self, store: [u8; 16]) -> Result<()> {
        if self.config.keep_deleted {
            return Ok(());
        }
        let mut token: Option<String> = None;
        loop {
            let page = self.runtime.block_on(self.client.list("", token.as_deref())).map_err(failed)?;
            for listed in page.objects {
                let owner = listed.name.replacen("/.entries/", "/", 1);
                let is_known = self.known.contains(&hash(&listed.name)) || self.known.contains(&hash(&owner));
                let is_in_scope = parse_name(&listed.name).is_some_and(|name| self.is_in_scope(&name));
                if is_known || !is_in_scope {
                    continue;
                }
                let head = self.runtime.block_on(self.client.head(&listed.name)).map_err(failed)?;
                let fields = head.and_then(|head| ObjectFields::decode(&head.fields));
                if fields.is_some_and(|fields| fields.store == store) {
                    self.pace.say(&format!("unexpected: {}", listed.name.escape_debug()));
                    self.figures.unexpected += 1;
                }
            }
            token = page.next;
            if token.is_none() {
                return Ok(());
            }
        }
    }
}

impl Comparing<'_> {
    /// Returns whether the remote must have an object of this name only if the store has it. A remote keeps
    /// what no longer belongs to its source.
    fn is_in_scope(&self, name: &RemoteName) -> bool {
        match name {
            RemoteName::Bucket { bucket } => self.config.has_bucket(bucket),
            RemoteName::Object { bucket, key } | RemoteName::Version { bucket, key, .. } => {
                self.config.has_key(bucket, key)
            }
            // The key is in the metadata.
            RemoteName::Long { bucket, .. } => self.config.has_bucket(bucket),
            RemoteName::Entry(of) => self.is_in_scope(of),
        }
    }
}

async fn compared(client: &S3Client, expected: Expected) -> std::result::Result<Compared, ServiceError> {
    let Expected { name, line, len } = expected;
    let Some(head) = client.head(&name).await? else { return Ok(Compared::Missing(name)) };
    if head.len != len {
        return Ok(Compared::Different(name, "its length differs"));
    }
    let found = match ObjectFields::decode(&head.fields).and_then(|fields| fields.entry) {
        None => return Ok(Compared::Different(name, "no node has stored it")),
        Some(EntryPlace::Here(found)) => Some(found),
        Some(EntryPlace::Beside(_)) => read_line(client, &entry_name(&name)).await?,
    };
    if found.is_some_and(|found| is_same(&found, &line)) {
        Ok(Compared::Equal)
    } else {
        Ok(Compared::Different(name, "its description differs"))
    }
}

/// Returns whether a description in the remote is that of the store. One from before the bucket had
/// versions names no version.
fn is_same(found: &[u8], line: &[u8]) -> bool {
    found == line
        || found.strip_suffix(b"\n").is_some_and(|found| match Line::decode(found) {
            Ok(Line::Object(mut entry)) => {
                entry.name_null_version();
                Line::Object(entry).encode() == line
            }
            _ => false,
        })
}

/// Reads an object of at most the length of a line. `None`: it does not exist, or is longer.
async fn read_line(client: &S3Client, name: &str) -> std::result::Result<Option<Vec<u8>>, ServiceError> {
    match read_whole(client, name, LINE_MAX).await {
        Ok((_, line)) => Ok(Some(line)),
        Err(FetchError::Damaged(_)) => Ok(None),
        Err(FetchError::Service(error)) => Err(error),
    }
}
