//! Detection of an object file or device that is no longer where it was opened.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::medium::Medium;

/// The path, and the identity of the file that was opened there.
#[derive(Clone, Debug)]
pub(crate) struct Presence {
    path: PathBuf,
    /// Device and inode; the device number of a block device.
    opened: (u64, u64),
}

impl Presence {
    pub(crate) fn new(path: &Path, medium: &Medium) -> io::Result<Self> {
        Ok(Presence { path: path.to_owned(), opened: number(&medium.as_file().metadata()?) })
    }

    /// Returns why the path no longer leads to the open file, if so. May block on the disk.
    pub(crate) fn absence(&self) -> Option<String> {
        let path = self.path.display();
        match fs::metadata(&self.path) {
            Ok(metadata) if number(&metadata) == self.opened => None,
            Ok(_) => Some(format!("{path} is not the open file, but another file")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Some(format!("{path} is gone")),
            Err(error) => Some(format!("cannot inspect {path}: {error}")),
        }
    }
}

fn number(metadata: &Metadata) -> (u64, u64) {
    if metadata.file_type().is_block_device() { (u64::MAX, metadata.rdev()) } else { (metadata.dev(), metadata.ino()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removed_and_replaced_files_are_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let medium = Medium::file(fs::File::create(&path).unwrap());
        let presence = Presence::new(&path, &medium).unwrap();
        assert_eq!(presence.absence(), None);
        fs::rename(&path, directory.path().join("elsewhere")).unwrap();
        assert!(presence.absence().is_some_and(|why| why.contains("is gone")));
        fs::write(&path, "another").unwrap();
        assert!(presence.absence().is_some_and(|why| why.contains("another file")));
        fs::rename(directory.path().join("elsewhere"), &path).unwrap();
        assert_eq!(presence.absence(), None);
    }
}
