//! The production engine and disk access, and objects to store.

use std::cell::{Cell, RefCell};
use std::fs;
use std::path::Path;
use std::rc::Rc;

use keyhole_log::limits::BLOCK_DATA;
use keyhole_log::{Condition, Content, Disk, Durability, Error, Etag, Log, PutObject};
use keyhole_node::Services;
use tokio::task::spawn_local;

use super::super::{CommandError, Result};
use crate::background::{self, Finished};
use crate::buffer::Pools;
use crate::env::System;
use crate::platform::{AnyDisk, Interface};
use crate::store::{self, Make, StoreLocation, StoreOptions};
use crate::uring;

pub(super) const BUCKET: &str = "bench";

/// Overhead of an SSE-C object: the prefix of its body, its sealed object head, the tag of its
/// chunk.
const PREFIX: usize = 56;
const HEAD: usize = 300;

pub(super) type Engine = Log<AnyDisk>;

/// The options of a measured store.
#[derive(Clone, Copy)]
pub(super) struct StoreKind {
    pub(super) capacity: u64,
    pub(super) durability: Durability,
}

/// Opens or creates a store and runs `work`: one worker and the maintenance on one ring, as in a
/// node with one thread.
pub(super) fn with_engine<T>(path: &Path, kind: StoreKind, work: impl AsyncFnOnce(&Engine) -> Result<T>) -> Result<T> {
    // A store below /dev, where /dev/shm is, must already have its directory.
    fs::create_dir_all(path).map_err(|error| CommandError::io(path.display(), error))?;
    let location = StoreLocation::find(path, None)?;
    let options = StoreOptions {
        make: Make::File,
        capacity: Some(kind.capacity),
        durability: kind.durability,
        ..StoreOptions::default()
    };
    let store = store::open(&location, &options)?;
    let measured = uring::block_on(async {
        let medium =
            store.medium.try_clone().map_err(|error| CommandError::io("cannot share the object file", error))?;
        let disk = AnyDisk::new(Interface::Uring, medium, Pools::default());
        let disk = disk.map_err(|error| CommandError::io("cannot use the ring", error))?;
        let work = async |log: &Engine| match log.create_bucket(BUCKET, System.now_ms()).await {
            Ok(_) => work(log).await,
            Err(error) => Err(failed(&error)),
        };
        let Finished { result, is_checkpointed } = background::with_log(store.store.clone(), disk, work).await;
        if !is_checkpointed {
            return Err(CommandError::Other("the maintenance does not end".to_owned()));
        }
        result
    });
    measured.map_err(|error| CommandError::io("the system refuses io_uring, which is what is measured", error))?
}

pub(super) fn failed(error: &Error) -> CommandError {
    CommandError::Other(format!("the engine fails: {error}"))
}

/// Stores an object of this length.
pub(super) async fn put(log: &Engine, key: String, len: usize) -> std::result::Result<(), Error> {
    let mut body = log.body_writer();
    let mut left = len;
    while left > BLOCK_DATA {
        body.push(log.disk().buffer(), &[]).await?;
        left -= BLOCK_DATA;
    }
    let body = body.finish(Some((log.disk().buffer(), left, &[[9; 16]])), &[8; PREFIX]).await?;
    let put = PutObject {
        bucket: BUCKET.to_owned(),
        key,
        content: Content::New(body, [5; 24]),
        head: vec![6; HEAD],
        tags: Vec::new(),
        sealed: true,
        etag: Etag { digest: [4; 16], parts: 0 },
        size: len as u64,
        time_ms: System.now_ms(),
        condition: Condition::None,
    };
    log.put_object(put).await
}

/// Runs `step` for 0, 1, 2, ... below `end`, `at_once` at a time, until one returns `false` or
/// fails. Returns the count of completed steps.
pub(super) async fn in_parallel<F>(at_once: usize, end: usize, step: impl Fn(usize) -> F + 'static) -> Result<usize>
where
    F: Future<Output = Result<bool>> + 'static,
{
    let next = Rc::new(Cell::new(0));
    let done = Rc::new(Cell::new(0));
    let stop = Rc::new(Cell::new(false));
    let step = Rc::new(step);
    let failure = Rc::new(RefCell::new(None));
    let run = || {
        let next = next.clone();
        let done = done.clone();
        let stop = stop.clone();
        let step = step.clone();
        let failure = failure.clone();
        spawn_local(async move {
            while !stop.get() && next.get() < end {
                let index = next.replace(next.get() + 1);
                match step(index).await {
                    Ok(true) => done.set(done.get() + 1),
                    Ok(false) => stop.set(true),
                    Err(error) => {
                        stop.set(true);
                        failure.replace(Some(error));
                    }
                }
            }
        })
    };
    let tasks: Vec<_> = (0..at_once).map(|_| run()).collect();
    for task in tasks {
        task.await.map_err(|error| CommandError::Other(error.to_string()))?;
    }
    match failure.take() {
        Some(error) => Err(error),
        None => Ok(done.get()),
    }
}
