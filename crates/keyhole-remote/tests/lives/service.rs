//! A simulated S3 service with the faults that real ones have.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::rc::Rc;

use keyhole_remote::{Content, Download, Fields, Head, Listed, Listing, Service, ServiceError};
use keyhole_sim::executor::Clock;
use keyhole_sim::random::Random;

/// Names per page of a listing: few, so that a listing has many.
const PAGE: usize = 5;

/// Longest delay of a request in virtual ms.
const DELAY_MAX_MS: u64 = 50;

/// Longest time for which a read shows an earlier state, in virtual ms.
pub(crate) const STALE_MAX_MS: u64 = 20_000;

/// An hour in virtual ms.
const HOUR_MS: u64 = 3_600_000;

/// Keys with this part are refused.
pub(crate) const REFUSED: &str = "refused";

/// The state of the service, which outlives the processes of the store.
pub(crate) struct Bucket {
    pub(crate) objects: BTreeMap<String, (Fields, Vec<u8>)>,
    pub(crate) random: Random,
    /// Percentage of requests that fail.
    pub(crate) failing: u64,
    /// End of the current outage in virtual ms.
    outage_until: u64,
    /// Percentage of changes that reads do not show at once.
    stale: u64,
    /// Objects as they were before such a change, and the time until which reads show them.
    earlier: BTreeMap<String, (u64, Option<Stored>)>,
    /// Number of outages, of replies that were lost, and of reads that were stale.
    pub(crate) outages: u64,
    pub(crate) lost: u64,
    pub(crate) stale_reads: u64,
}

/// Metadata and bytes of an object.
type Stored = (Fields, Vec<u8>);

impl Bucket {
    pub(crate) fn new(mut random: Random) -> Self {
        let failing = *random.pick(&[0, 0, 5, 20, 60]);
        let stale = *random.pick(&[0, 0, 10, 50]);
        Bucket {
            objects: BTreeMap::new(),
            random,
            failing,
            outage_until: 0,
            stale,
            earlier: BTreeMap::new(),
            outages: 0,
            lost: 0,
            stale_reads: 0,
        }
    }

    /// Stores or deletes an object.
    fn change(&mut self, name: &str, stored: Option<Stored>, now: u64) {
        let before = match stored {
            Some(stored) => self.objects.insert(name.to_owned(), stored),
            None => self.objects.remove(name),
        };
        let stale = self.stale;
        if self.random.chance(stale) {
            let until = now + self.random.below(STALE_MAX_MS);
            self.earlier.insert(name.to_owned(), (until, before));
        } else {
            self.earlier.remove(name);
        }
    }

    /// Returns an object as a read shows it.
    fn shown(&mut self, name: &str, now: u64) -> Option<Stored> {
        // Another server may answer each read.
        let is_behind = self.random.chance(50);
        match self.earlier.get(name) {
            Some((until, earlier)) if is_behind && now < *until => {
                self.stale_reads += 1;
                earlier.clone()
            }
            _ => self.objects.get(name).cloned(),
        }
    }
}

/// A client's view of the service.
#[derive(Clone)]
pub(crate) struct SimService {
    pub(crate) bucket: Rc<RefCell<Bucket>>,
    pub(crate) clock: Rc<Clock>,
}

/// The fate of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Works,
    /// It has no effect.
    Fails,
    /// It takes effect, and its reply is lost.
    IsLost,
}

fn unavailable() -> ServiceError {
    ServiceError::Unavailable("simulated".to_owned())
}

impl SimService {
    async fn fate(&self) -> Fate {
        let delay = self.bucket.borrow_mut().random.below(DELAY_MAX_MS);
        self.clock.sleep(delay).await;
        let now = self.clock.now();
        let mut bucket = self.bucket.borrow_mut();
        if now < bucket.outage_until {
            return Fate::Fails;
        }
        let failing = bucket.failing;
        if !bucket.random.chance(failing) {
            return Fate::Works;
        }
        if bucket.random.chance(3) {
            let hours = 1 + bucket.random.below(24);
            bucket.outage_until = now + hours * HOUR_MS;
            bucket.outages += 1;
            return Fate::Fails;
        }
        if bucket.random.chance(50) {
            bucket.lost += 1;
            return Fate::IsLost;
        }
        Fate::Fails
    }

    /// Lets this percentage of requests fail.
    pub(crate) fn fail(&self, percent: u64) {
        self.bucket.borrow_mut().failing = percent;
    }

    /// Ends the faults.
    pub(crate) fn heal(&self) {
        let mut bucket = self.bucket.borrow_mut();
        bucket.failing = 0;
        bucket.outage_until = 0;
    }
}

impl Service for SimService {
    type Download = SimDownload;

    fn memory_of(&self, len: u64) -> u64 {
        len.min(1 << 20)
    }

    async fn put(&self, name: &str, fields: &Fields, mut content: impl Content) -> Result<(), ServiceError> {
        if name.contains(REFUSED) {
            let code = "KeyTooLongError".to_owned();
            return Err(ServiceError::Refused { code, message: "simulated".to_owned() });
        }
        let fate = self.fate().await;
        let mut bytes = Vec::new();
        while let Some(more) = content.next().await? {
            bytes.extend(more);
            let delay = self.bucket.borrow_mut().random.below(DELAY_MAX_MS);
            self.clock.sleep(delay).await;
        }
        assert_eq!(bytes.len() as u64, content.total_len(), "{name}");
        crate::tally::say(|| format!("{} PUT {name} {:?} {fate:?}", self.clock.now(), fields.get("keyhole-number")));
        if fate == Fate::Fails {
            return Err(unavailable());
        }
        self.bucket.borrow_mut().change(name, Some((fields.clone(), bytes)), self.clock.now());
        let delay = self.bucket.borrow_mut().random.below(DELAY_MAX_MS);
        self.clock.sleep(delay).await;
        if fate == Fate::IsLost { Err(unavailable()) } else { Ok(()) }
    }

    async fn head(&self, name: &str) -> Result<Option<Head>, ServiceError> {
        if self.fate().await != Fate::Works {
            return Err(unavailable());
        }
        let found = self.bucket.borrow_mut().shown(name, self.clock.now());
        Ok(found.map(|(fields, bytes)| Head { len: bytes.len() as u64, fields }))
    }

    async fn get(&self, name: &str, range: Option<Range<u64>>) -> Result<Option<(Head, SimDownload)>, ServiceError> {
        if self.fate().await != Fate::Works {
            return Err(unavailable());
        }
        let found = self.bucket.borrow_mut().shown(name, self.clock.now());
        Ok(found.map(|(fields, bytes)| {
            let len = bytes.len() as u64;
            let Range { start, end } = range.unwrap_or(0..len);
            let wanted = bytes[start.min(len) as usize..end.min(len) as usize].to_vec();
            (Head { len, fields }, SimDownload { service: self.clone(), left: wanted })
        }))
    }

    async fn delete(&self, name: &str) -> Result<(), ServiceError> {
        let fate = self.fate().await;
        crate::tally::say(|| format!("{} DELETE {name} {fate:?}", self.clock.now()));
        if fate == Fate::Fails {
            return Err(unavailable());
        }
        self.bucket.borrow_mut().change(name, None, self.clock.now());
        if fate == Fate::IsLost { Err(unavailable()) } else { Ok(()) }
    }

    async fn directories(&self) -> Result<BTreeSet<String>, ServiceError> {
        if self.fate().await != Fate::Works {
            return Err(unavailable());
        }
        let bucket = self.bucket.borrow();
        Ok(bucket.objects.keys().filter_map(|name| Some(name.split_once('/')?.0.to_owned())).collect())
    }

    async fn list(&self, prefix: &str, token: Option<&str>) -> Result<Listing, ServiceError> {
        if self.fate().await != Fate::Works {
            return Err(unavailable());
        }
        let now = self.clock.now();
        let mut bucket = self.bucket.borrow_mut();
        let is_listed = |name: &&String| name.starts_with(prefix) && token.is_none_or(|last| &name[..] > last);
        let names = bucket.objects.keys().chain(bucket.earlier.keys());
        let names: BTreeSet<String> = names.filter(is_listed).cloned().collect();
        let mut objects = names.into_iter().filter_map(|name| {
            let (_, bytes) = bucket.shown(&name, now)?;
            Some(Listed { name, len: bytes.len() as u64 })
        });
        let page: Vec<Listed> = objects.by_ref().take(PAGE).collect();
        let next = objects.next().and(page.last()).map(|last| last.name.clone());
        Ok(Listing { objects: page, next })
    }
}

/// The bytes of a remote object.
pub(crate) struct SimDownload {
    service: SimService,
    left: Vec<u8>,
}

impl Download for SimDownload {
    async fn next(&mut self) -> Result<Option<Vec<u8>>, ServiceError> {
        if self.left.is_empty() {
            return Ok(None);
        }
        if self.service.fate().await != Fate::Works {
            return Err(unavailable());
        }
        let len = 1 + self.service.bucket.borrow_mut().random.below(self.left.len() as u64) as usize;
        Ok(Some(self.left.drain(..len).collect()))
    }
}
