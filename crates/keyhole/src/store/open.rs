//! Opening of a store: recovery of its content.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use keyhole_log::{IndexLimits, OpenOptions as LogOptions, Recovery, Store};

use super::error::StoreError;
use super::hold::hold;
use super::location::StoreLocation;
use super::options::{ASKED_READ_ONLY, ONLY_LOOKS, StoreOptions};
use super::plain::{block_on, counting_disk};
use super::presence::Presence;
use crate::env::System;
use crate::error::FileError;
use crate::medium::Medium;

/// An open store.
pub(crate) struct OpenedStore {
    pub(crate) store: Arc<Store>,
    /// All threads use clones of this open file description, so its lock outlasts the last I/O.
    pub(crate) medium: Medium,
    /// Count of durable items that recovery found unreadable.
    pub(crate) damaged: usize,
    /// Checks whether the object file is still in place.
    pub(crate) presence: Presence,
    /// The locked directories.
    _locks: Vec<File>,
}

/// Creates the store if it is missing and the options allow it, locks it, and recovers its content.
pub(crate) fn open(location: &StoreLocation, options: &StoreOptions) -> Result<OpenedStore, StoreError> {
    let held = hold(location, options)?;
    let path = location.medium();
    let disk = counting_disk(&held.medium, options.read.clone())?;
    let log_options = LogOptions {
        durability: options.durability,
        workers: options.workers,
        // A new file already has the given capacity.
        capacity: options.capacity.filter(|_| !held.created),
        ring: options.ring,
        // A ring makes room by dropping its oldest objects, which a full index cannot trigger.
        index_limits: IndexLimits {
            bytes: options.budget.filter(|_| !options.ring).map(|budget| budget.index()),
            objects: options.max_objects,
        },
        nonce: u32::from_ne_bytes(System.random_array()),
        rebuild: false,
        read_only: held.read_only.as_deref().map(Arc::from),
    };
    // Before loading: a node that is killed for lack of memory has logged the reason.
    let warned = match options.budget {
        Some(budget) => {
            let estimated = block_on(keyhole_log::estimate_index(&disk))?.unwrap_or_default().unwrap_or_default();
            budget.index_warning(estimated)
        }
        None => None,
    };
    if let Some(warning) = &warned {
        tracing::warn!("{warning}");
    }
    let (store, recovery) = block_on(keyhole_log::open(&disk, log_options))?
        .map_err(|error| StoreError::Log { path: path.clone(), error })?;
    release_memory();
    let exact = options.budget.and_then(|budget| budget.index_warning(store.stats().index_bytes));
    if let Some(warning) = exact.filter(|_| warned.is_none()) {
        tracing::warn!("{warning}");
    }
    log_recovery(&path, &recovery);
    let presence =
        Presence::new(&path, &held.medium).map_err(|error| FileError::new("cannot inspect", &path, error))?;

    Ok(OpenedStore { store, medium: held.medium, damaged: recovery.damaged.len(), presence, _locks: held.locks })
}

/// Logs the findings of recovery.
fn log_recovery(path: &Path, recovery: &Recovery) {
    if let Some(reason) = recovery.read_only.as_deref().filter(|reason| *reason != ONLY_LOOKS) {
        let way_out = if reason == ASKED_READ_ONLY {
            "start it without --read-only to write"
        } else {
            "repair the medium and restart, or export the store and import it into another one"
        };
        tracing::warn!(reason, "{} is read-only: writes are refused; {way_out}", path.display());
    }
    if recovery.mended {
        tracing::warn!("rewrote a damaged copy of the superblock");
    }
    if let Some(version) = recovery.upgraded_from {
        tracing::info!(version, "upgraded the store to the current format; older releases refuse it");
    }
    for damage in &recovery.damaged {
        tracing::error!("damaged: {damage}");
    }
    tracing::info!(
        records = recovery.records,
        objects = recovery.objects,
        uploads = recovery.uploads,
        cut_segments = recovery.cut,
        damaged = recovery.damaged.len(),
        "opened {}",
        path.display()
    );
}

/// Returns the memory freed by recovery to the system. Fragmentation would otherwise retain it.
fn release_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: `malloc_trim` may be called at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use super::super::options::Make;
    use super::*;

    fn options() -> StoreOptions {
        let make = Make::File;
        let capacity = Some(64 << 20);
        let patience = Duration::ZERO;
        StoreOptions { make, capacity, patience, ..StoreOptions::default() }
    }

    fn open_at(path: &Path, options: &StoreOptions) -> Result<OpenedStore, StoreError> {
        open(&StoreLocation::find(path, None).unwrap(), options)
    }

    #[test]
    fn open_creates_and_locks_store() {
        let data = tempfile::tempdir().unwrap();
        let path = data.path().join("deep/er");
        let store = open_at(&path, &options()).unwrap();
        let error = open_at(&path, &options()).err().unwrap().to_string();
        assert!(error.contains("in use by another"), "{error}");
        drop(store);
        open_at(&path, &options()).unwrap();
    }

    #[test]
    fn open_leaves_foreign_file_unchanged() {
        let data = tempfile::tempdir().unwrap();
        let path = data.path().join("objects.keyhole");
        fs::write(&path, b"my diary").unwrap();
        let error = open_at(data.path(), &options()).err().unwrap().to_string();
        assert!(error.contains("objects.keyhole"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"my diary");
    }

    #[test]
    fn missing_store_is_created_only_on_request() {
        let data = tempfile::tempdir().unwrap();
        let path = data.path().join("absent");
        let error = open_at(&path, &StoreOptions { make: Make::Never, ..options() }).err().unwrap().to_string();
        assert!(error.contains("no store") && error.contains("keyhole serve"), "{error}");
        let error = open_at(&path, &StoreOptions { make: Make::Format, ..options() }).err().unwrap().to_string();
        assert!(error.contains("block device"), "{error}");
        assert!(!path.exists());
    }

    #[test]
    fn separate_state_directory_is_locked() {
        let directory = tempfile::tempdir().unwrap();
        let at = |data: &str, state: &str| {
            StoreLocation::find(&directory.path().join(data), Some(&directory.path().join(state))).unwrap()
        };
        let store = open(&at("a", "state"), &options()).unwrap();
        drop(open(&at("b", "another"), &options()).unwrap());
        let error = open(&at("b", "state"), &options()).err().unwrap().to_string();
        assert!(error.contains("state") && error.contains("in use by another"), "{error}");
        drop(store);
        // The state names the store that it belongs to.
        let error = open(&at("b", "state"), &options()).err().unwrap().to_string();
        assert!(error.contains("state/store.toml"), "{error}");
        fs::remove_file(directory.path().join("state/store.toml")).unwrap();
        open(&at("b", "state"), &options()).unwrap();
    }
}
