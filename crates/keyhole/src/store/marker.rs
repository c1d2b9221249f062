//! The marker: a file that names the store, so that a missing object file (deleted, or on an
//! unmounted disk) is not mistaken for a first start.
//!
//! It is in the data directory, and in a separate state directory if there is one; for a device, in
//! the state directory. A new object file gets its final name before its marker is written. A crash
//! in between leaves an object file without a marker. The next start then writes it, as it does for
//! stores that predate markers.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::error::{StoreError, StoreMismatch};
use super::location::StoreLocation;
use super::options::{Make, ONLY_LOOKS, StoreOptions};
use super::plain::{block_on, plain_disk};
use crate::error::FileError;
use crate::medium::Medium;
use crate::regular;

/// The name of the file.
const FILE: &str = "store.toml";

/// Limit of the file's length: it has two short lines.
const LEN_MAX: u64 = 4096;

/// The content of the file.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
#[serde(deny_unknown_fields)]
struct Marker {
    /// The store's identity in hexadecimal digits.
    store: String,
    /// The creation time of the store.
    created: Timestamp,
}

/// Returns the paths of a store's markers.
fn paths(location: &StoreLocation) -> Vec<PathBuf> {
    let data = (!location.is_device).then(|| location.data.join(FILE));
    let state = (location.is_device || location.state != location.data).then(|| location.state.join(FILE));
    data.into_iter().chain(state).collect()
}

/// Refuses to start without an object file if a marker names one.
pub(super) fn refuse_missing(location: &StoreLocation) -> Result<(), StoreError> {
    for path in paths(location) {
        if let Some(Marker { store, created }) = read(&path)? {
            return Err(StoreError::ObjectFileMissing { object: location.medium(), marker: path, store, created });
        }
    }
    Ok(())
}

/// Refuses an object file that its markers do not name, and writes missing markers. A read-only
/// command only warns.
pub(super) fn check(
    location: &StoreLocation,
    medium: &Medium,
    is_read_only: bool,
    options: &StoreOptions,
) -> Result<(), StoreError> {
    // Opening reports why the store cannot be identified.
    let Ok(identity) = block_on(keyhole_log::identity(&plain_disk(medium)?))? else { return Ok(()) };
    let found = Marker {
        store: hex::encode(identity.store_id),
        created: Timestamp::from_millisecond(i64::try_from(identity.created_ms).unwrap_or(0)).unwrap_or_default(),
    };
    for path in paths(location) {
        let marker = if options.make == Make::Format { None } else { read(&path)? };
        match marker {
            Some(marker) if marker.store == found.store => {}
            Some(marker) => {
                let mismatch = StoreMismatch {
                    object: location.medium(),
                    is: found.store.clone(),
                    created: found.created,
                    marker: path,
                    expected: marker.store,
                    then: marker.created,
                };
                if options.read_only != Some(ONLY_LOOKS) {
                    return Err(StoreError::OtherStore(Box::new(mismatch)));
                }
                eprintln!("keyhole: {mismatch}");
            }
            // A command without a node creates no state directory.
            None if is_read_only || path.parent().is_none_or(|parent| !parent.exists()) => {}
            None => write(&path, &found).map_err(|error| FileError::new("cannot write", &path, error))?,
        }
    }
    Ok(())
}

/// Reads a marker; `None` if there is none or its disk does not respond.
fn read(path: &Path) -> Result<Option<Marker>, StoreError> {
    let invalid = |why: String| StoreError::InvalidMarker { path: path.to_owned(), why };
    match fs::metadata(path) {
        Err(error) if is_missing(&error) => return Ok(None),
        Ok(metadata) if metadata.len() > LEN_MAX => {
            return Err(invalid(format!("it has more than {LEN_MAX} bytes")));
        }
        _ => {}
    }
    match regular::read_to_string(path, LEN_MAX) {
        Ok(text) => toml::from_str(&text).map(Some).map_err(|error| invalid(error.message().to_owned())),
        Err(error) if matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput) => {
            Err(invalid(error.to_string()))
        }
        Err(error) => {
            tracing::warn!(%error, "cannot read {}: skipping the check of the store's identity", path.display());
            Ok(None)
        }
    }
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Writes a marker atomically and durably.
fn write(path: &Path, marker: &Marker) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let text = toml::to_string(marker).map_err(io::Error::other)?;
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    writeln!(file, "# Names the store that belongs here. keyhole refuses to start with another one, or without it.")?;
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::open;

    fn options() -> StoreOptions {
        StoreOptions { make: Make::File, capacity: Some(64 << 20), ..StoreOptions::default() }
    }

    fn place(data: &Path) -> StoreLocation {
        StoreLocation::find(data, None).unwrap()
    }

    fn refusal(place: &StoreLocation, options: &StoreOptions) -> String {
        match open(place, options) {
            Ok(_) => panic!("it is opened"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn new_store_gets_marker() {
        let data = tempfile::tempdir().unwrap();
        let store = open(&place(data.path()), &options()).unwrap();
        let marker = read(&data.path().join(FILE)).unwrap().unwrap();
        assert_eq!(marker.store, hex::encode(store.store.store_id()));
        assert!(marker.created <= Timestamp::now());
    }

    #[test]
    fn unmarked_store_gets_marker_except_from_reader() {
        let data = tempfile::tempdir().unwrap();
        let place = place(data.path());
        let marker = data.path().join(FILE);
        drop(open(&place, &options()).unwrap());
        fs::remove_file(&marker).unwrap();
        let looking = StoreOptions { make: Make::Never, read_only: Some(ONLY_LOOKS), ..options() };
        drop(open(&place, &looking).unwrap());
        assert!(!marker.exists());
        drop(open(&place, &options()).unwrap());
        assert!(marker.exists());
    }

    #[test]
    fn missing_object_file_is_refused_until_marker_is_removed() {
        let data = tempfile::tempdir().unwrap();
        let place = place(data.path());
        drop(open(&place, &options()).unwrap());
        let id = read(&data.path().join(FILE)).unwrap().unwrap().store;
        fs::remove_file(place.medium()).unwrap();
        for options in [options(), StoreOptions { make: Make::Never, ..options() }] {
            let error = refusal(&place, &options);
            assert!(error.contains(&id) && error.contains("mount the disk") && error.contains("remove"), "{error}");
            assert!(!place.medium().exists());
        }
        fs::remove_file(data.path().join(FILE)).unwrap();
        drop(open(&place, &options()).unwrap());
    }

    #[test]
    fn object_file_of_another_store_is_refused() {
        let one = tempfile::tempdir().unwrap();
        let other = tempfile::tempdir().unwrap();
        drop(open(&place(one.path()), &options()).unwrap());
        drop(open(&place(other.path()), &options()).unwrap());
        fs::copy(place(other.path()).medium(), place(one.path()).medium()).unwrap();
        let error = refusal(&place(one.path()), &options());
        assert!(error.contains("names store") && error.contains("right disk"), "{error}");
        // The content can still be inspected.
        let looking = StoreOptions { make: Make::Never, read_only: Some(ONLY_LOOKS), ..options() };
        drop(open(&place(one.path()), &looking).unwrap());
    }

    #[test]
    fn state_elsewhere_has_marker_too() {
        let home = tempfile::tempdir().unwrap();
        let data = home.path().join("mount/data");
        let state = home.path().join("state");
        let place = StoreLocation::find(&data, Some(&state)).unwrap();
        drop(open(&place, &options()).unwrap());
        // The data disk is not mounted.
        fs::remove_dir_all(home.path().join("mount")).unwrap();
        let error = refusal(&place, &options());
        assert!(error.contains("is missing") && !data.exists(), "{error}");
    }

    #[test]
    fn invalid_marker_is_refused() {
        let data = tempfile::tempdir().unwrap();
        let place = place(data.path());
        drop(open(&place, &options()).unwrap());
        for text in ["store = 7".to_owned(), "#".repeat(LEN_MAX as usize + 1)] {
            fs::write(data.path().join(FILE), text).unwrap();
            let error = refusal(&place, &options());
            assert!(error.contains("remove it"), "{error}");
        }
    }
}
