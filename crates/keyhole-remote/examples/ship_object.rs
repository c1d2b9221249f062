//! Ships an object of a store to a service in memory.
//!
//! ```sh
//! cargo run -p keyhole-remote --example ship_object
//! ```
//!
//! The store is on the simulated disk of `keyhole-sim`, whose clock is virtual. The binary `keyhole` has
//! a service for S3 over HTTPS, and ships sealed objects as they are.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::pin::pin;
use std::rc::Rc;

use futures_util::future::{Either, select};
use keyhole_log::limits::SEGMENT_LEN_MIN;
use keyhole_log::{
    BucketInfo, BucketSettings, Condition, Content as Body, Disk, Etag, Format, Log, OpenOptions, PutObject, Removals,
    VersionInfo, create, open, worker,
};
use keyhole_node::transfer::Description;
use keyhole_remote::limits::REMOVALS_MAX;
use keyhole_remote::{
    Content, Download, Env, Fields, Head, Listed, Listing, Options, Progress, Report, Service, ServiceError, Shipper,
};
use keyhole_sim::disk::{Faults, Medium, SimDisk};
use keyhole_sim::executor::{Clock, Executor};
use keyhole_sim::random::Random;

/// Objects and their metadata by name.
type Objects = BTreeMap<String, (Fields, Vec<u8>)>;

/// A bucket of a service.
#[derive(Clone, Default)]
struct MemoryService(Rc<RefCell<Objects>>);

/// The bytes of an object.
struct Whole(Option<Vec<u8>>);

impl Download for Whole {
    async fn next(&mut self) -> Result<Option<Vec<u8>>, ServiceError> {
        Ok(self.0.take())
    }
}

impl Service for MemoryService {
    type Download = Whole;

    fn memory_of(&self, len: u64) -> u64 {
        len
    }

    async fn put(&self, name: &str, fields: &Fields, mut content: impl Content) -> Result<(), ServiceError> {
        let mut bytes = Vec::new();
        while let Some(more) = content.next().await? {
            bytes.extend(more);
        }
        self.0.borrow_mut().insert(name.to_owned(), (fields.clone(), bytes));
        Ok(())
    }

    async fn head(&self, name: &str) -> Result<Option<Head>, ServiceError> {
        let head = |(fields, bytes): &(Fields, Vec<u8>)| Head { len: bytes.len() as u64, fields: fields.clone() };
        Ok(self.0.borrow().get(name).map(head))
    }

    async fn get(&self, name: &str, range: Option<Range<u64>>) -> Result<Option<(Head, Whole)>, ServiceError> {
        let Some(head) = self.head(name).await? else { return Ok(None) };
        let range = range.unwrap_or(0..head.len);
        let bytes = self.0.borrow()[name].1[range.start as usize..range.end as usize].to_vec();
        Ok(Some((head, Whole(Some(bytes)))))
    }

    async fn delete(&self, name: &str) -> Result<(), ServiceError> {
        self.0.borrow_mut().remove(name);
        Ok(())
    }

    async fn directories(&self) -> Result<BTreeSet<String>, ServiceError> {
        let objects = self.0.borrow();
        Ok(objects.keys().filter_map(|name| Some(name.split_once('/')?.0.to_owned())).collect())
    }

    async fn list(&self, prefix: &str, _token: Option<&str>) -> Result<Listing, ServiceError> {
        let objects = self.0.borrow();
        let listed = objects.iter().filter(|(name, _)| name.starts_with(prefix));
        let objects = listed.map(|(name, (_, bytes))| Listed { name: name.clone(), len: bytes.len() as u64 }).collect();
        Ok(Listing { objects, next: None })
    }
}

/// Surroundings with a virtual clock, which select every bucket.
struct Surroundings {
    clock: Rc<Clock>,
    log: Log<SimDisk>,
    saved: Rc<RefCell<Progress>>,
}

impl Env for Surroundings {
    fn now_ms(&self) -> u64 {
        self.clock.now()
    }

    async fn sleep(&self, ms: u64) {
        self.clock.sleep(ms).await;
    }

    fn random(&self) -> u64 {
        4
    }

    fn closed_for_ms(&self) -> u64 {
        0
    }

    fn has_bucket(&self, _bucket: &str) -> bool {
        true
    }

    fn has_key(&self, _bucket: &str, _key: &str) -> bool {
        true
    }

    fn take_removals(&self) -> Removals {
        self.log.store().take_removals()
    }

    async fn flush(&self) -> Result<(), String> {
        self.log.flush().await.map_err(|error| error.to_string())
    }

    async fn evict(&self, _: &str, _: &str, _: u64) -> Result<bool, String> {
        Ok(false)
    }

    async fn save(&self, progress: &Progress) -> Result<(), String> {
        self.saved.replace(progress.clone());
        Ok(())
    }

    fn report(&self, report: &Report) {
        println!("{:?}: {} owed, {} shipped", report.phase, report.owed, report.shipped);
    }

    // The node describes objects with the lines of an export's manifest.
    fn describe(&self, description: &Description, _head: &[u8], file_len: u64) -> Result<Vec<u8>, String> {
        Ok(format!("{} of {file_len} bytes", description.key).into_bytes())
    }

    fn describe_marker(&self, _bucket: &str, marker: &VersionInfo) -> Vec<u8> {
        marker.key.clone().into_bytes()
    }

    fn describe_bucket(&self, bucket: &BucketInfo, _settings: &BucketSettings) -> Vec<u8> {
        bucket.name.clone().into_bytes()
    }
}

type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

fn main() -> Result<()> {
    let clock = Rc::new(Clock::default());
    let mut executor = Executor::new(Rc::clone(&clock), Random::new(1));
    let service = MemoryService::default();
    let shipped = executor.spawn(ship(clock, service.clone()));
    executor.run(|| false, || shipped.borrow().is_some());
    let confirmed = shipped.borrow_mut().take().ok_or("the shipper has stopped")??;
    println!("the remote has all changes up to {confirmed}:");
    for (name, (fields, bytes)) in service.0.borrow().iter() {
        println!("  {name}: {} bytes, {} fields", bytes.len(), fields.len());
    }
    assert_eq!(service.0.borrow()["edge/reading"].1, b"temperature 21.5");
    executor.kill()?;
    Ok(())
}

/// Creates a store with an object, and ships it.
async fn ship(clock: Rc<Clock>, service: MemoryService) -> Result<u64> {
    let disk = SimDisk::new(&Medium::new(Random::new(2), Faults::none()), &clock);
    let format = Format { store_id: [1; 16], capacity: 64 << 20, segment_len: SEGMENT_LEN_MIN, created_ms: 1 };
    create(&disk, &format).await?;
    let (store, _) = open(&disk, OpenOptions::default()).await?;
    store.track_removals(REMOVALS_MAX);
    let (log, writer) = worker(store, Rc::new(disk));
    let env = Surroundings { clock, log: log.clone(), saved: Rc::default() };
    let saved = env.saved.borrow().clone();
    let options = Options { ships_plaintext: true, ..Options::default() };
    let mut shipper = Shipper::new(log.clone(), service, env, options, saved);
    let work = async {
        put(&log, b"temperature 21.5").await?;
        while !shipper.round().await? {}
        Ok(shipper.confirmed())
    };
    // The writer runs beside the work.
    match select(pin!(work), pin!(writer.run())).await {
        Either::Left((result, _)) => result,
        Either::Right(_) => Err("the writer has stopped".into()),
    }
}

async fn put(log: &Log<SimDisk>, bytes: &[u8]) -> Result<()> {
    log.create_bucket("edge", 1).await?;
    let mut buf = log.disk().buffer();
    buf.as_mut()[..bytes.len()].copy_from_slice(bytes);
    let body = log.body_writer().finish(Some((buf, bytes.len(), &[])), &[]).await?;
    log.put_object(PutObject {
        bucket: "edge".to_owned(),
        key: "reading".to_owned(),
        content: Body::New(body, [0; 24]),
        head: Vec::new(),
        tags: Vec::new(),
        sealed: false,
        etag: Etag { digest: [2; 16], parts: 0 },
        size: bytes.len() as u64,
        time_ms: 2,
        condition: Condition::None,
    })
    .await?;
    Ok(())
}
