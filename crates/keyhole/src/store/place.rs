//! The location of a store: a data directory with the object file or a block device, and its state
//! directory.

use std::env;
use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

/// The object file's name in a data directory.
const FILE: &str = "objects.keyhole";

/// The control socket's name in the state directory.
const SOCKET: &str = "control.sock";

/// Default parent of the state directory of devices, unless the environment sets another.
const STATE_DEFAULT: &str = "/var/lib";

/// The location of a store, as named by the operator.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    /// The data directory, or the device.
    pub(crate) data: PathBuf,
    /// The directory of the credential and the control socket: the data directory, unless that is a
    /// device or another one was given.
    pub(crate) state: PathBuf,
    pub(crate) is_device: bool,
}

impl Place {
    /// Determines the type of `data`, following symbolic links. A missing path will be a directory.
    pub(crate) fn find(data: &Path, state: Option<&Path>) -> Result<Self, String> {
        let is_device = match fs::metadata(data) {
            Ok(metadata) => metadata.file_type().is_block_device(),
            // Never create a directory under `/dev` because of a typing error.
            Err(error) if data.starts_with("/dev") => return Err(format!("cannot use {}: {error}", data.display())),
            Err(_) => false,
        };
        let state = match state {
            Some(state) => state.to_owned(),
            None if is_device => state_of_device(data, env::var_os("XDG_STATE_HOME").map(PathBuf::from))?,
            None => data.to_owned(),
        };
        Ok(Place { data: data.to_owned(), state, is_device })
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
fn state_of_device(device: &Path, home: Option<PathBuf>) -> Result<PathBuf, String> {
    let name = device.file_name().ok_or_else(|| format!("{} has no name: give --state DIR", device.display()))?;
    let home = home.filter(|home| home.is_absolute()).unwrap_or_else(|| PathBuf::from(STATE_DEFAULT));
    Ok(home.join("keyhole").join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_its_own_state() {
        let data = tempfile::tempdir().unwrap();
        for path in [data.path().to_owned(), data.path().join("not/yet")] {
            let place = Place::find(&path, None).unwrap();
            assert_eq!(place, Place { data: path.clone(), state: path.clone(), is_device: false });
            assert_eq!((place.medium(), place.socket()), (path.join(FILE), path.join(SOCKET)));
            assert_eq!(Place::find(&path, Some(Path::new("/s"))).unwrap().state, Path::new("/s"));
        }
        assert!(Place::find(Path::new("/dev/no-such-device"), None).is_err());
    }

    #[test]
    fn the_state_of_a_device_goes_by_the_name_it_was_given() {
        let state = |device: &str, home: Option<&str>| state_of_device(Path::new(device), home.map(PathBuf::from));
        assert_eq!(state("/dev/sdb", None), Ok(PathBuf::from("/var/lib/keyhole/sdb")));
        assert_eq!(state("/dev/disk/by-id/nvme-A", Some("/s")), Ok(PathBuf::from("/s/keyhole/nvme-A")));
        assert_eq!(state("/dev/sdb", Some("relative")), Ok(PathBuf::from("/var/lib/keyhole/sdb")));
        assert!(state("/", None).is_err());
    }
}
