//! Restore of a store from the service, with faults and crashes.

use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use keyhole_log::{Condition, Error, Log, VersionId, Versioning};
use keyhole_node::transfer::{Description, Import, ImportError, ImportSource};
use keyhole_remote::{Consumer, Download, Kind, Names, RemoteObject, ServiceError, read_contents};
use keyhole_sim::disk::SimDisk;

use crate::descriptions::Described;
use crate::end::{Contents, contents};
use crate::service::SimService;
use crate::session::{alone, make, start};
use crate::tally::{Tally, say};
use crate::world::World;

/// Runs of a restore that a crash ends.
const CRASHES_MAX: u64 = 4;

/// Runs that a fault of the service may end.
const FAULTY_RUNS: u64 = 3;

/// Percentages of requests that fail in such a run.
const FAILING: [u64; 3] = [0, 1, 10];

/// Restores a new store from the remote, and compares it with the contents of the first one.
///
/// # Errors
/// The first difference, or the event that stopped the life.
pub(crate) fn restore(first: &Rc<World>, expected: &Contents, tally: &mut Tally) -> Result<(), String> {
    let world = Rc::new(first.with_empty_disk());
    make(&world)?;
    for _ in 0..world.below(CRASHES_MAX) {
        let mut session = start(&world)?;
        world.service.fail(*world.random.borrow_mut().pick(&FAILING));
        world.medium.stop_after(Some(world.below(150)));
        let run = session.executor.spawn(restore_once(Rc::clone(&world), session.log.clone()));
        session.run_to_crash(&world, &run)?;
        tally.interrupted += 1;
    }
    let mut session = start(&world)?;
    for run in 0..=FAULTY_RUNS {
        world.service.heal();
        if run < FAULTY_RUNS {
            world.service.fail(*world.random.borrow_mut().pick(&FAILING));
        }
        let restored = alone(&mut session.executor, "restore", restore_once(Rc::clone(&world), session.log.clone()))?;
        match restored {
            Ok(()) => break,
            Err(Failed::Service(_)) if run < FAULTY_RUNS => tally.interrupted += 1,
            Err(error) => return Err(format!("restore: {error}")),
        }
    }
    let restored = contents(session.log.clone(), Arc::clone(&session.reads), Rc::clone(&world));
    let restored = alone(&mut session.executor, "read the restored store", restored)?;
    tally.restored += restored.len() as u64;
    compare(expected, &restored)?;
    session.executor.kill()
}

fn compare(expected: &Contents, restored: &Contents) -> Result<(), String> {
    for (name, held) in expected {
        let Some(found) = restored.get(name) else { return Err(format!("{name} is not restored")) };
        if found.about != held.about {
            return Err(format!("{name} is restored as {} instead of {}", found.about, held.about));
        }
        if found.bytes != held.bytes {
            return Err(format!("{name} is restored with other bytes"));
        }
    }
    match restored.keys().find(|name| !expected.contains_key(*name)) {
        Some(name) => Err(format!("{name} is restored and was not stored")),
        None => Ok(()),
    }
}

async fn restore_once(world: Rc<World>, log: Log<SimDisk>) -> Result<(), Failed> {
    let mut restoring = Restoring { world: &world, log, is_versioned: false };
    read_contents(&world.service, Names::new(0), &mut restoring).await.map(drop)
}

/// The reason why a restore has ended.
#[derive(thiserror::Error, Debug)]
enum Failed {
    #[error("the service: {0}")]
    Service(#[from] ServiceError),
    #[error("the store: {0}")]
    Store(#[from] Error),
    #[error("an import: {0}")]
    Import(String),
}

/// A store that is restored.
struct Restoring<'w> {
    world: &'w World,
    log: Log<SimDisk>,
    /// Whether the current bucket has versions.
    is_versioned: bool,
}

impl Consumer<SimService> for Restoring<'_> {
    type Error = Failed;

    fn has_bucket(&self, _: &str) -> bool {
        true
    }

    fn has_key(&self, _: &str, _: &str) -> bool {
        true
    }

    async fn bucket(&mut self, bucket: &str, name: &str, description: &[u8]) -> Result<Option<bool>, Failed> {
        let Described::Bucket { created_ms, settings } = self.world.descriptions.decode(description) else {
            panic!("{name} does not describe a bucket");
        };
        self.log.create_bucket(bucket, created_ms).await?;
        self.is_versioned = settings.versioning != Versioning::Off;
        let change = |now: &mut _| {
            *now = settings;
            Ok(())
        };
        self.log.change_bucket::<Error>(bucket, created_ms, change).await?;
        Ok(Some(self.is_versioned))
    }

    async fn object(&mut self, object: RemoteObject<'_, SimService>) -> Result<(), Failed> {
        let name = object.name.clone();
        say(|| format!("{} restore {name}", self.world.clock.now()));
        match (self.world.descriptions.decode(&object.description), object.kind) {
            (Described::Marker { bucket, key, version, time_ms }, Kind::Marker) => {
                assert_eq!(Names::new(0).object(&bucket, &key, Some(version)), name);
                if self.log.version_info(&bucket, &key, Some(version))?.is_none() {
                    self.log.import_marker(&bucket, &key, version, time_ms).await?;
                }
                Ok(())
            }
            (Described::Object(mut description, file_len), Kind::Object) => {
                // The object may have been shipped before the bucket had versions.
                if self.is_versioned {
                    description.version.get_or_insert(VersionId::Null);
                }
                let version = description.version.unwrap_or(VersionId::Null);
                assert_eq!(Names::new(0).stored_version(&description.bucket, &description.key, version), name);
                assert_eq!(file_len, object.len, "{name}");
                if self.log.version_info(&description.bucket, &description.key, Some(version))?.is_none() {
                    self.import(&description, object).await?;
                }
                Ok(())
            }
            (described, kind) => panic!("{name} is a {kind:?} with the description {described:?}"),
        }
    }

    fn damaged(&mut self, name: &str, why: &str) {
        panic!("{name}: {why}");
    }
}

impl Restoring<'_> {
    async fn import(&self, description: &Description, mut object: RemoteObject<'_, SimService>) -> Result<(), Failed> {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&self.world.random.borrow_mut().number().to_le_bytes());
        let len = object.len;
        let download = object.open().await?.unwrap_or_else(|| panic!("{} is gone", object.name));
        let mut incoming = Incoming { download, received: VecDeque::new(), failure: None };
        let now_ms = self.world.clock.now();
        let received = Import::receive(&self.log, description, (id, now_ms), Condition::None, len, &mut incoming).await;
        match received {
            Ok(received) => Ok(received.commit(&self.log).await?),
            Err(ImportError::Gone(_)) if incoming.failure.is_some() => {
                Err(Failed::Service(incoming.failure.expect("it is set")))
            }
            Err(error) => Err(Failed::Import(format!("{error:?}"))),
        }
    }
}

/// The bytes of an object that arrive.
struct Incoming<T> {
    download: T,
    /// Bytes that were not asked for yet.
    received: VecDeque<u8>,
    failure: Option<ServiceError>,
}

impl<T: Download> ImportSource for Incoming<T> {
    async fn fill(&mut self, to: &mut [u8]) -> io::Result<usize> {
        while self.received.len() < to.len() {
            match self.download.next().await {
                Ok(Some(bytes)) => self.received.extend(bytes),
                Ok(None) => break,
                Err(error) => {
                    self.failure = Some(error);
                    return Err(io::ErrorKind::ConnectionReset.into());
                }
            }
        }
        let len = to.len().min(self.received.len());
        to[..len].iter_mut().zip(self.received.drain(..len)).for_each(|(to, byte)| *to = byte);
        Ok(len)
    }
}
