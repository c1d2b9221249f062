//! Where a store is: a data directory with the object file in it, or a block device, and the directory of its state beside it.

use std::env;
use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

/// The object file's name in a data directory.
const FILE: &str = "objects.keyhole";

/// The name of the control socket in the state directory.
const SOCKET: &str = "control.sock";

/// Where the state of devices is, unless the environment says otherwise.
const STATE_DEFAULT: &str = "/var/lib";

/// Where a store is, as the operator named it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    /// The data directory, or the device.
    pub(crate) data: PathBuf,
    /// Where credential and control socket are: the data directory, unless it is a device or another one was given.
    pub(crate) state: PathBuf,
    pub(crate) is_device: bool,
}

impl Place {
    /// Finds out what `data` is; symbolic links are followed. What is not there yet will be a directory.
    pub(crate) fn find(data: &Path, state: Option<&Path>) -> Result<Self, String> {
        let is_device = match fs::metadata(data) {
            Ok(metadata) => metadata.file_type().is_block_device(),
            // No directory is made among the devices because of a slip.
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

    /// The object file, or the device.
    pub(crate) fn medium(&self) -> PathBuf {
        if self.is_device { self.data.clone() } else { self.data.join(FILE) }
    }

    /// The control socket of a node that serves this.
    pub(crate) fn socket(&self) -> PathBuf {
        self.state.join(SOCKET)
    }
}

/// Goes by the name that the device was called by, which stays where the kernel's own does not (`/dev/disk/by-id/...`).
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
