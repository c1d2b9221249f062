//! The thread that ships to all remotes: a shipper for each remote, with its own handle of the store
//! and its own HTTP connections. Workers are not involved.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;

use keyhole_log::Store;
use keyhole_node::Services;
use keyhole_remote::{Eviction, Options, Phase, Report, Shipper};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, LocalSet, spawn_local};

use super::client::S3Client;
use super::config::{Mode, Plaintext, RemoteConfig};
use super::feed::Feed;
use super::progress_file::ProgressFile;
use super::reads::{self, ReadClients, ReadRequest};
use super::reports::Reports;
use super::surroundings::{StoreRequest, Surroundings};
use crate::env::System;
use crate::error::SystemError;
use crate::medium::Medium;
use crate::platform::AnyDisk;
use crate::store;

/// Interval at which a remote that cannot be set up is tried again.
const SETUP_AGAIN_MS: u64 = 60_000;

/// The nice value of the thread: about a tenth of a processor for which the workers compete. With the
/// value of the workers, their requests wait for up to 4 ms behind it.
const NICENESS: i32 = 10;

/// When versions are evicted in mode tier.
const EVICTION: Eviction = Eviction { above_percent: 70, down_to_percent: 60 };

/// The parts of the thread.
pub(crate) struct ShippingSetup {
    pub(crate) store: Arc<Store>,
    pub(crate) medium: Medium,
    /// The state directory.
    pub(crate) state: PathBuf,
    pub(crate) configs: watch::Receiver<Arc<Vec<RemoteConfig>>>,
    pub(crate) reports: Arc<Reports>,
    /// The worker that writes to the store.
    pub(crate) worker: mpsc::Sender<StoreRequest>,
    /// Whether writes are durable when they are acknowledged.
    pub(crate) is_durable: bool,
    /// The workers' reads of evicted objects.
    pub(crate) reads: mpsc::Receiver<ReadRequest>,
    /// Becomes true when the node is to shut down.
    pub(crate) stop: watch::Receiver<bool>,
}

/// Starts the thread.
///
/// # Errors
/// The thread or its runtime cannot be started.
pub(crate) fn start(setup: ShippingSetup) -> Result<thread::JoinHandle<()>, SystemError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| SystemError::new("cannot start a runtime", error))?;
    let run = move || {
        lower_priority();
        LocalSet::new().block_on(&runtime, ship(setup));
    };
    thread::Builder::new().name("remotes".to_owned()).spawn(run).map_err(SystemError::thread)
}

/// Lowers the priority of this thread and of those that it starts.
fn lower_priority() {
    // On Linux, 0 is the calling thread.
    let lowered = rustix::process::setpriority_process(None, NICENESS);
    if let Err(error) = lowered {
        tracing::warn!(%error, "cannot lower the priority of shipping: allow the system call setpriority");
    }
}

/// Ships until the node shuts down.
async fn ship(mut setup: ShippingSetup) {
    let disk = match store::stepping_disk(&setup.medium) {
        Ok(disk) => Rc::new(disk),
        Err(error) => return tracing::error!(%error, "cannot ship to remotes"),
    };
    let mut stop = setup.stop.clone();
    let mut shippers = Shippers { feed: Feed::new(setup.store.clone()), disk, running: BTreeMap::new() };
    let mut read_clients = ReadClients::default();
    'configured: loop {
        let configs = setup.configs.borrow_and_update().clone();
        shippers.apply(&configs, &setup).await;
        loop {
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => break 'configured,
                changed = setup.configs.changed() => {
                    if changed.is_err() {
                        break 'configured;
                    }
                    continue 'configured;
                }
                Some(request) = setup.reads.recv() => {
                    let clients = read_clients.of(request.object(), &configs);
                    spawn_local(reads::serve(request, clients, setup.store.store_id()));
                }
            }
        }
    }
    shippers.apply(&[], &setup).await;
}

struct Shippers {
    feed: Rc<Feed>,
    disk: Rc<AnyDisk>,
    running: BTreeMap<String, (RemoteConfig, JoinHandle<()>)>,
}

impl Shippers {
    /// Stops the shippers of remotes that are gone or changed, and starts those that are new.
    async fn apply(&mut self, configs: &[RemoteConfig], setup: &ShippingSetup) {
        // One that fails may have new credentials.
        let failing: Vec<String> = setup.reports.failing();
        let stays = |name: &str, config: &RemoteConfig| {
            let is_same = configs.iter().any(|new| new == config && !new.paused);
            is_same && !failing.iter().any(|failing| failing == name)
        };
        let (stay, end): (BTreeMap<_, _>, BTreeMap<_, _>) =
            std::mem::take(&mut self.running).into_iter().partition(|(name, (config, _))| stays(name, config));
        self.running = stay;
        for (name, (_, task)) in end {
            task.abort();
            let _ = task.await; // The task was cancelled.
            self.feed.remove(&name);
            tracing::info!(remote = name, "stopped shipping");
        }
        let is_configured = |name: &str| configs.iter().any(|config| config.name == name);
        for (name, _) in setup.reports.all().into_iter().filter(|(name, _)| !is_configured(name)) {
            setup.reports.remove(&name);
            let is_shutdown = *setup.stop.borrow();
            if !is_shutdown && let Err(error) = ProgressFile::remove(&setup.state, &name) {
                tracing::warn!(remote = name, %error, "cannot remove the progress of a remote");
            }
        }
        let tiers = configs.iter().filter(|config| config.mode == Mode::Tier && !config.paused);
        setup.reports.set_tiers(tiers.map(|config| config.name.clone()).collect());
        for config in configs {
            if config.paused {
                setup.reports.set_paused(&config.name);
            } else if !self.running.contains_key(&config.name) {
                self.feed.add(&config.name);
                tracing::info!(remote = config.name, "ships objects");
                let task = spawn_local(run(self.shipping(config, setup)));
                self.running.insert(config.name.clone(), (config.clone(), task));
            }
        }
    }

    fn shipping(&self, config: &RemoteConfig, setup: &ShippingSetup) -> Shipping {
        let progress = ProgressFile::in_state(&setup.state, config, setup.store.store_id());
        let surroundings = Surroundings {
            config: config.clone(),
            feed: self.feed.clone(),
            progress,
            reports: setup.reports.clone(),
            failure: RefCell::default(),
            worker: setup.worker.clone(),
            is_durable: setup.is_durable,
        };
        Shipping { surroundings, store: setup.store.clone(), disk: self.disk.clone() }
    }
}

/// The parts of one shipper.
struct Shipping {
    surroundings: Surroundings,
    store: Arc<Store>,
    disk: Rc<AnyDisk>,
}

/// Connects to the service and ships. Files that the client needs may be missing or invalid; they are
/// read again from time to time.
async fn run(shipping: Shipping) {
    let Shipping { surroundings, store, disk } = shipping;
    let config = surroundings.config.clone();
    let client = loop {
        match S3Client::new(&config) {
            Ok(client) => break client,
            Err(error) => {
                let retry_ms = System.now_ms() + SETUP_AGAIN_MS;
                let phase = Phase::Failing { why: error.to_string(), retry_ms };
                keyhole_remote::Env::report(&surroundings, &Report { phase, ..Report::default() });
                tokio::time::sleep(std::time::Duration::from_millis(SETUP_AGAIN_MS)).await;
            }
        }
    };
    let options = Options {
        prefix_len: config.prefix.len(),
        keep_deleted: config.keep_deleted,
        evicts: (config.mode == Mode::Tier).then_some(EVICTION),
        ships_plaintext: config.plaintext == Plaintext::Allow,
        rate: config.rate,
        takes_over: config.take_over,
    };
    let progress = surroundings.progress.read();
    let log = keyhole_log::reader(store, disk);
    Shipper::new(log, client, surroundings, options, progress).run().await;
}
