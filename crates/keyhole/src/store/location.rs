//! The location of a store: a data directory with the object file or a block device, and its state
//! directory.

use std::env;
use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use super::error::StoreError;

/// The object file's name in a data directory.
const FILE: &str = "objects.keyhole";

/// The control socket's name in the state directory.
const SOCKET: &str = "control.sock";

/// Default parent of the state directory of devices, unless the environment sets another.
const STATE_DEFAULT: &str = "/var/lib";

/// The location of a store, as named by the operator.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct StoreLocation {
    /// The data directory, or the device.
    pub(crate) data: PathBuf,
    /// The directory of the credential and the control socket: the data directory, unless that is a
    /// device or another one was given.
    pub(crate) state: PathBuf,
    pub(crate) is_device: bool,
}

impl StoreLocation {
    /// Determines the type of `data`, following symbolic links. A missing path will be a directory.
    pub(crate) fn find(data: &Path, state: Option<&Path>) -> Result<Self, StoreError> {
        let is_device = match fs::metadata(data) {
            Ok(metadata) => metadata.file_type().is_block_device(),
            // Never create a directory under `/dev` because of a typing error.
            Err(source) if data.starts_with("/dev") => {
                return Err(StoreError::UnknownDevice { path: data.to_owned(), source });
            }
            Err(_) => false,
        };
        let state = match state {
            Some(state) => state.to_owned(),
            None if is_device => state_of_device(data, env::var_os("XDG_STATE_HOME").map(PathBuf::from))?,
            None => data.to_owned(),
        };
        Ok(StoreLocation { data: data.to_owned(), state, is_device })
    }

    /// Returns the object file or the device.
    pub(crate) fn medium(&self) -> PathBuf {
        if self.is_device { self.data.clone() } else { self.data.join(FILE) }
    }

    /// Returns the path of the node's control socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.state.join(SOCKET)
    }
}

/// Names the state after the given device name, which is stable, unlike the kernel's own
/// (`/dev/disk/by-id/...`).
fn state_of_device(device: &Path, home: Option<PathBuf>) -> Result<PathBuf, StoreError> {
    let name = device.file_name().ok_or_else(|| StoreError::Nameless(device.to_owned()))?;
    let home = home.filter(|home| home.is_absolute()).unwrap_or_else(|| PathBuf::from(STATE_DEFAULT));
    Ok(home.join("keyhole").join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_defaults_to_data_directory() {
        let data = tempfile::tempdir().unwrap();
        for path in [data.path().to_owned(), data.path().join("not/yet")] {
            let location = StoreLocation::find(&path, None).unwrap();
            assert_eq!(location, StoreLocation { data: path.clone(), state: path.clone(), is_device: false });
            assert_eq!((location.medium(), location.socket()), (path.join(FILE), path.join(SOCKET)));
            assert_eq!(StoreLocation::find(&path, Some(Path::new("/s"))).unwrap().state, Path::new("/s"));
        }
        let error = StoreLocation::find(Path::new("/dev/no-such-device"), None).unwrap_err().to_string();
        assert!(error.contains("block device or an existing directory"), "{error}");
    }

    #[test]
    fn device_state_is_named_after_given_path() {
        let state = |device: &str, home: Option<&str>| state_of_device(Path::new(device), home.map(PathBuf::from));
        assert_eq!(state("/dev/sdb", None).unwrap(), Path::new("/var/lib/keyhole/sdb"));
        assert_eq!(state("/dev/disk/by-id/nvme-A", Some("/s")).unwrap(), Path::new("/s/keyhole/nvme-A"));
        assert_eq!(state("/dev/sdb", Some("relative")).unwrap(), Path::new("/var/lib/keyhole/sdb"));
        assert!(state("/", None).is_err());
    }
}
