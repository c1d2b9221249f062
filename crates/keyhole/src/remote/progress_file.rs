//! The file with the progress of a remote.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use keyhole_remote::Progress;
use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

use super::config::{Plaintext, RemoteConfig};
use super::source::Source;

/// The file of one remote in the state directory.
#[derive(Clone)]
pub(super) struct ProgressFile {
    directory: PathBuf,
    path: PathBuf,
    scope: Scope,
}

/// What the progress is of. With another scope, objects below the watermark may be missing.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
#[serde(deny_unknown_fields)]
struct Scope {
    /// Identity of the store, in hex.
    store: String,
    url: String,
    bucket: String,
    prefix: String,
    source: Source,
    plaintext: Plaintext,
}

/// The structure of the file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Contents {
    scope: Scope,
    progress: Progress,
}

impl ProgressFile {
    /// Returns the file of the progress of this store to a remote.
    pub(super) fn in_state(state: &Path, config: &RemoteConfig, store: [u8; 16]) -> Self {
        let RemoteConfig { name, url, bucket, prefix, source, plaintext, .. } = config.clone();
        let scope = Scope { store: hex::encode(store), url, bucket, prefix, source, plaintext };
        ProgressFile { directory: state.to_owned(), path: path_of(state, &name), scope }
    }

    /// Removes the file of a remote, if it exists.
    pub(super) fn remove(state: &Path, remote: &str) -> io::Result<()> {
        match fs::remove_file(path_of(state, remote)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Reads the progress. Without a readable file, everything is compared with the remote again.
    pub(super) fn read(&self) -> Progress {
        let read = fs::read(&self.path).and_then(|bytes| Ok(serde_json::from_slice::<Contents>(&bytes)?));
        match read {
            Ok(contents) if contents.scope == self.scope => contents.progress,
            Ok(_) => Progress::default(),
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    let path = self.path.display();
                    tracing::warn!(%path, %error, "cannot read the progress of a remote: comparing everything again");
                }
                Progress::default()
            }
        }
    }

    /// Replaces the progress durably.
    pub(super) fn write(&self, progress: &Progress) -> io::Result<()> {
        let mut new = NamedTempFile::new_in(&self.directory)?;
        let contents = Contents { scope: self.scope.clone(), progress: progress.clone() };
        new.write_all(&serde_json::to_vec(&contents)?)?;
        new.as_file().sync_data()?;
        new.persist(&self.path)?;
        File::open(&self.directory)?.sync_all()
    }
}

fn path_of(state: &Path, remote: &str) -> PathBuf {
    state.join(format!("remote-{remote}.json"))
}

#[cfg(test)]
mod tests {
    use keyhole_remote::Exception;

    use super::super::config::tests::config;
    use super::*;

    #[test]
    fn progress_survives_and_damage_starts_again() {
        let state = tempfile::tempdir().unwrap();
        let file = ProgressFile::in_state(state.path(), &config("box"), [1; 16]);
        assert_eq!(file.read(), Progress::default());
        let text = |text: &str| text.to_owned();
        let exception = Exception { bucket: text("b"), key: text("k\n"), version: text("null"), why: text("too long") };
        let progress = Progress { confirmed: u64::MAX, exceptions: vec![exception] };
        file.write(&progress).unwrap();
        assert_eq!(file.read(), progress);
        fs::write(&file.path, b"{\"confirmed\":").unwrap();
        assert_eq!(file.read(), Progress::default());
        ProgressFile::remove(state.path(), "box").unwrap();
        ProgressFile::remove(state.path(), "box").unwrap();
        assert_eq!(fs::read_dir(state.path()).unwrap().count(), 0);
    }

    #[test]
    fn progress_of_another_scope_is_not_used() {
        let state = tempfile::tempdir().unwrap();
        let base = config("box");
        let progress = Progress { confirmed: 5, ..Progress::default() };
        let read = |config: &RemoteConfig, store| ProgressFile::in_state(state.path(), config, store).read().confirmed;
        ProgressFile::in_state(state.path(), &base, [1; 16]).write(&progress).unwrap();
        assert_eq!(read(&base, [1; 16]), 5);
        let same = RemoteConfig { rate: Some(1), region: "other".to_owned(), keep_deleted: true, ..base.clone() };
        assert_eq!(read(&same, [1; 16]), 5, "none of these changes what the remote must have");
        assert_eq!(read(&base, [2; 16]), 0);
        let source = Source::new(vec!["films".parse().unwrap()]);
        for other in [
            RemoteConfig { name: "other".to_owned(), ..base.clone() },
            RemoteConfig { url: "https://other.example".to_owned(), ..base.clone() },
            RemoteConfig { bucket: "other".to_owned(), ..base.clone() },
            RemoteConfig { prefix: "other".to_owned(), ..base.clone() },
            RemoteConfig { plaintext: Plaintext::Allow, ..base.clone() },
            RemoteConfig { source, ..base },
        ] {
            assert_eq!(read(&other, [1; 16]), 0, "{other:?}");
        }
    }
}
