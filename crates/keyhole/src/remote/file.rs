//! The file of remotes: JSON, private to its owner.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::config::RemoteConfig;
use super::error::RemoteError;
use super::limits::{FILE_MAX, REMOTES_MAX};
use crate::error::FileError;
use crate::regular;

/// Names in the state directory: the file, and the lock that is held while it changes.
const FILE: &str = "remotes.json";
const LOCK: &str = "remotes.lock";

/// The structure of the file.
#[derive(Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Contents {
    remotes: Vec<RemoteConfig>,
}

/// The file in a state directory.
#[derive(Debug)]
pub(crate) struct RemotesFile {
    path: PathBuf,
}

impl RemotesFile {
    pub(crate) fn in_state(state: &Path) -> Self {
        RemotesFile { path: state.join(FILE) }
    }

    /// Reads all remotes. A missing file has zero remotes.
    pub(crate) fn read(&self) -> Result<Vec<RemoteConfig>, RemoteError> {
        let failed = |error| FileError::new("cannot read", &self.path, error);
        let path = || self.path.clone();
        match fs::metadata(&self.path) {
            Ok(metadata) if metadata.len() > FILE_MAX => {
                return Err(RemoteError::FileTooLong { path: path(), max: FILE_MAX });
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(error).into()),
        }
        let bytes = regular::read(&self.path, FILE_MAX).map_err(failed)?;
        let contents: Contents =
            serde_json::from_slice(&bytes).map_err(|source| RemoteError::InvalidFile { path: path(), source })?;
        check_all(&contents.remotes).map_err(|error| RemoteError::InFile { path: path(), source: Box::new(error) })?;
        Ok(contents.remotes)
    }

    /// Checks whether a remote can be added.
    pub(crate) fn check_with(&self, remote: &RemoteConfig) -> Result<(), RemoteError> {
        let mut remotes = self.read()?;
        remotes.push(remote.clone());
        check_all(&remotes)
    }

    /// Changes the remotes under the lock. A crash leaves either the old or the new file.
    pub(crate) fn change<T, E: From<RemoteError>>(
        &self,
        change: impl FnOnce(&mut Vec<RemoteConfig>) -> Result<T, E>,
    ) -> Result<T, E> {
        let failed = |error| RemoteError::from(FileError::new("cannot write", &self.path, error));
        let lock = self.path.with_file_name(LOCK);
        let mut options = OpenOptions::new();
        let lock = regular::open_with(options.write(true).create(true).truncate(false).mode(0o600), &lock);
        let lock = lock.map_err(failed)?;
        lock.lock().map_err(failed)?;
        let mut remotes = self.read()?;
        let result = change(&mut remotes)?;
        check_all(&remotes)?;
        let mut text = serde_json::to_vec_pretty(&Contents { remotes }).map_err(|error| failed(error.into()))?;
        text.push(b'\n');
        if text.len() as u64 > FILE_MAX {
            return Err(RemoteError::FileTooLong { path: self.path.clone(), max: FILE_MAX }.into());
        }
        regular::replace(&self.path, &text).map_err(failed)?;
        Ok(result)
    }
}

/// Checks every remote, and the remotes against each other.
fn check_all(remotes: &[RemoteConfig]) -> Result<(), RemoteError> {
    if remotes.len() > REMOTES_MAX {
        return Err(RemoteError::TooMany { count: remotes.len(), max: REMOTES_MAX });
    }
    for (at, remote) in remotes.iter().enumerate() {
        remote.check().map_err(|source| RemoteError::Invalid { name: remote.name.clone(), source })?;
        for earlier in &remotes[..at] {
            if earlier.name == remote.name {
                return Err(RemoteError::Duplicate(remote.name.clone()));
            }
            if earlier.overlaps(remote) {
                let one = earlier.name.clone();
                return Err(RemoteError::Overlap { one, other: remote.name.clone(), bucket: remote.bucket.clone() });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::super::config::tests::config;
    use super::super::error::ConfigError;
    use super::super::limits::SOURCES_MAX;
    use super::super::source::Source;
    use super::*;

    fn file() -> (tempfile::TempDir, RemotesFile) {
        let state = tempfile::tempdir().unwrap();
        let file = RemotesFile::in_state(state.path());
        (state, file)
    }

    fn add(file: &RemotesFile, remote: RemoteConfig) -> Result<(), RemoteError> {
        file.change(|remotes| {
            remotes.push(remote);
            Ok(())
        })
    }

    fn in_bucket(at: usize) -> RemoteConfig {
        RemoteConfig { bucket: format!("bucket-{at}"), ..config(&format!("r{at}")) }
    }

    #[test]
    fn remotes_are_stored_in_private_file() {
        let (_state, file) = file();
        assert_eq!(file.read().unwrap(), [], "a missing file");
        add(&file, config("a")).unwrap();
        assert_eq!(file.read().unwrap(), [config("a")]);
        assert_eq!(fs::metadata(&file.path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn count_of_remotes_is_bounded() {
        let (_state, file) = file();
        (0..REMOTES_MAX).for_each(|at| add(&file, in_bucket(at)).unwrap());
        let error = add(&file, in_bucket(REMOTES_MAX)).unwrap_err();
        assert!(matches!(error, RemoteError::TooMany { count, .. } if count == REMOTES_MAX + 1), "{error}");
        assert_eq!(file.read().unwrap().len(), REMOTES_MAX, "the file is not changed");
    }

    #[test]
    fn largest_set_of_remotes_fits_file() {
        let (_state, file) = file();
        let pattern = format!("{}/{}", "b".repeat(63), "\\".repeat(1024));
        let source = Source::new(vec![pattern.parse().unwrap(); SOURCES_MAX]);
        let full = |at| RemoteConfig { source: source.clone(), prefix: "\\".repeat(256), ..in_bucket(at) };
        (0..REMOTES_MAX).for_each(|at| add(&file, full(at)).unwrap());
        assert_eq!(file.read().unwrap().len(), REMOTES_MAX);
    }

    #[test]
    fn conflicting_remotes_are_rejected() {
        let (_state, file) = file();
        add(&file, RemoteConfig { prefix: "a".to_owned(), ..config("one") }).unwrap();
        let error = add(&file, RemoteConfig { prefix: "b".to_owned(), ..config("one") }).unwrap_err();
        assert!(matches!(error, RemoteError::Duplicate(_)), "{error}");
        let error = add(&file, RemoteConfig { prefix: "a/b".to_owned(), ..config("two") }).unwrap_err();
        assert!(matches!(error, RemoteError::Overlap { .. }), "{error}");
        let error = add(&file, RemoteConfig { rate: Some(0), ..config("two") }).unwrap_err();
        assert!(matches!(error, RemoteError::Invalid { source: ConfigError::Rate, .. }), "{error}");
        add(&file, RemoteConfig { prefix: "b".to_owned(), ..config("two") }).unwrap();
    }

    #[test]
    fn invalid_file_is_rejected() {
        let (_state, file) = file();
        add(&file, config("a")).unwrap();
        let text = fs::read_to_string(&file.path).unwrap();
        for bad in
            ["", "{}", "[]", &text[..text.len() / 2], &text.replace("backup", "B"), &text.replace("rem", "later")]
        {
            fs::write(&file.path, bad).unwrap();
            assert!(file.read().is_err(), "{bad}");
        }
        fs::write(&file.path, vec![b' '; FILE_MAX as usize + 1]).unwrap();
        assert!(matches!(file.read().unwrap_err(), RemoteError::FileTooLong { .. }));
        fs::write(&file.path, text.clone() + &" ".repeat(FILE_MAX as usize - text.len())).unwrap();
        assert_eq!(file.read().unwrap(), [config("a")]);
    }
}
