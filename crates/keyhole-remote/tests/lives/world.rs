//! The parts of a life that survive a crash of the process, and the shipper's view of them.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use keyhole_log::{BucketInfo, BucketSettings, Durability, Error, Log, Removals, VersionInfo};
use keyhole_node::transfer::Description;
use keyhole_remote::{Env, Eviction, Names, ObjectFields, Options, Progress, Report};
use keyhole_sim::disk::{Faults, Medium, SimDisk};
use keyhole_sim::executor::Clock;
use keyhole_sim::random::Random;

use crate::descriptions::{Described, Descriptions};
use crate::operations::read_evicted;
use crate::reads::SimReads;
use crate::service::{Bucket, SimService};

const STORE_ID: [u8; 16] = [7; 16];

/// The identity of the store that is restored.
const OTHER_STORE_ID: [u8; 16] = [8; 16];

/// The parts that survive a crash of the process.
pub(crate) struct World {
    pub(crate) clock: Rc<Clock>,
    pub(crate) store_id: [u8; 16],
    pub(crate) medium: Arc<Medium>,
    pub(crate) service: SimService,
    pub(crate) progress: RefCell<Progress>,
    pub(crate) random: RefCell<Random>,
    pub(crate) report: RefCell<Report>,
    /// The files of sealed objects, by the digest of their ETag.
    pub(crate) files: RefCell<BTreeMap<[u8; 16], Vec<u8>>>,
    pub(crate) descriptions: Rc<Descriptions>,
    /// Versions evicted.
    pub(crate) evicted: Cell<u64>,
    /// Evicted objects read during faults, and those that could not be.
    pub(crate) read: Cell<u64>,
    pub(crate) unread: Cell<u64>,
    /// Whether faults have ended.
    pub(crate) is_healed: Cell<bool>,
    /// Removals that the store remembers.
    pub(crate) removals: usize,
    pub(crate) durability: Durability,
    pub(crate) options: Options,
}

impl World {
    pub(crate) fn new(seed: u64) -> World {
        let mut random = Random::new(seed);
        let clock = Rc::new(Clock::default());
        let faults = Faults { slowness: *random.pick(&[0, 1, 10]), ..Faults::none() };
        let medium = Medium::new(random.fork(), faults);
        let bucket = Rc::new(RefCell::new(Bucket::new(random.fork())));
        let eviction = Eviction { above_percent: 0, down_to_percent: 0 };
        let evicts = random.chance(60).then_some(eviction);
        World {
            store_id: STORE_ID,
            service: SimService { bucket, clock: Rc::clone(&clock) },
            progress: RefCell::default(),
            report: RefCell::default(),
            files: RefCell::default(),
            descriptions: Rc::default(),
            evicted: Cell::default(),
            read: Cell::default(),
            unread: Cell::default(),
            is_healed: Cell::default(),
            removals: *random.pick(&[1, 4, 1000]),
            durability: *random.pick(&[Durability::Always, Durability::Deferred]),
            options: Options { ships_plaintext: true, evicts, ..Options::default() },
            random: RefCell::new(random),
            clock,
            medium,
        }
    }

    /// Returns a world with the same service and an empty disk.
    pub(crate) fn with_empty_disk(&self) -> World {
        let mut random = self.random.borrow_mut().fork();
        World {
            store_id: OTHER_STORE_ID,
            service: self.service.clone(),
            progress: RefCell::default(),
            report: RefCell::default(),
            files: RefCell::default(),
            descriptions: Rc::clone(&self.descriptions),
            evicted: Cell::default(),
            read: Cell::default(),
            unread: Cell::default(),
            is_healed: Cell::default(),
            removals: self.removals,
            durability: *random.pick(&[Durability::Always, Durability::Deferred]),
            options: self.options.clone(),
            medium: Medium::new(random.fork(), Faults::none()),
            random: RefCell::new(random),
            clock: Rc::clone(&self.clock),
        }
    }

    pub(crate) fn below(&self, n: u64) -> u64 {
        self.random.borrow_mut().below(n)
    }

    pub(crate) fn chance(&self, percent: u64) -> bool {
        self.random.borrow_mut().chance(percent)
    }
}

/// The shipper's surroundings.
pub(crate) struct SimEnv {
    pub(crate) world: Rc<World>,
    pub(crate) log: Log<SimDisk>,
    pub(crate) reads: Arc<SimReads>,
}

impl SimEnv {
    /// Fails unless the remote has the version that is to be evicted.
    fn check_remote(&self, bucket: &str, key: &str, number: u64) {
        let Ok(Some(info)) = self.log.version_numbered(bucket, key, number) else { return };
        let name = Names::new(0).stored_version(bucket, key, info.version);
        let remote = self.world.service.bucket.borrow();
        let (fields, bytes) =
            remote.objects.get(&name).unwrap_or_else(|| panic!("{name} is evicted and not in the remote"));
        let is_it = ObjectFields::decode(fields).is_some_and(|fields| fields.number == number);
        assert!(
            is_it && self.world.files.borrow()[&info.etag.digest] == *bytes,
            "{name} is evicted, the remote has another"
        );
    }
}

impl Env for SimEnv {
    fn now_ms(&self) -> u64 {
        1 + self.world.clock.now()
    }

    async fn sleep(&self, ms: u64) {
        self.world.clock.sleep(ms).await;
    }

    fn random(&self) -> u64 {
        self.world.random.borrow_mut().number()
    }

    fn closed_for_ms(&self) -> u64 {
        0
    }

    fn has_bucket(&self, _: &str) -> bool {
        true
    }

    fn has_key(&self, _: &str, _: &str) -> bool {
        true
    }

    fn take_removals(&self) -> Removals {
        self.log.store().take_removals()
    }

    async fn flush(&self) -> Result<(), String> {
        self.log.flush().await.map_err(|error| error.to_string())
    }

    async fn evict(&self, bucket: &str, key: &str, number: u64) -> Result<bool, String> {
        self.check_remote(bucket, key, number);
        match self.log.evict(bucket, key, number, self.now_ms()).await {
            Ok(is_evicted) => {
                self.world.evicted.update(|count| count + u64::from(is_evicted));
                if is_evicted {
                    // Other servers of the service may show an earlier object.
                    let read = read_evicted(&self.world, &self.log, &self.reads, bucket, key).await;
                    read.map_err(|error| error.to_string())?;
                }
                Ok(is_evicted)
            }
            Err(Error::Conflict | Error::NoSuchBucket) => Ok(false),
            Err(error) => Err(error.to_string()),
        }
    }

    async fn save(&self, progress: &Progress) -> Result<(), String> {
        let delay = self.world.below(10);
        self.world.clock.sleep(delay).await;
        if self.world.chance(10) && !self.world.is_healed.get() {
            return Err("simulated".to_owned());
        }
        *self.world.progress.borrow_mut() = progress.clone();
        Ok(())
    }

    fn report(&self, report: &Report) {
        *self.world.report.borrow_mut() = report.clone();
    }

    fn describe(&self, description: &Description, _head: &[u8], file_len: u64) -> Result<Vec<u8>, String> {
        let described = Described::Object(description.clone(), file_len);
        Ok(self.world.descriptions.encode(described))
    }

    fn describe_marker(&self, bucket: &str, marker: &VersionInfo) -> Vec<u8> {
        let VersionInfo { key, version, time_ms, .. } = marker.clone();
        self.world.descriptions.encode(Described::Marker { bucket: bucket.to_owned(), key, version, time_ms })
    }

    fn describe_bucket(&self, bucket: &BucketInfo, settings: &BucketSettings) -> Vec<u8> {
        self.world.descriptions.encode(Described::Bucket { created_ms: bucket.time_ms, settings: settings.clone() })
    }
}
