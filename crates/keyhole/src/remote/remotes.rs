//! The remotes of a running node.

use std::path::Path;
use std::sync::Arc;

use tokio::sync::watch;

use super::config::RemoteConfig;
use super::error::RemoteError;
use super::file::RemotesFile;

/// The remotes of a running node, which can be reloaded.
#[derive(Debug)]
pub(crate) struct Remotes {
    file: RemotesFile,
    configs: watch::Sender<Arc<Vec<RemoteConfig>>>,
}

impl Remotes {
    /// Loads the remotes in a state directory.
    pub(crate) fn load(state: &Path) -> Result<Self, RemoteError> {
        let file = RemotesFile::in_state(state);
        let configs = Arc::new(file.read()?);
        Ok(Remotes { file, configs: watch::Sender::new(configs) })
    }

    /// Reloads the file, notifies the receivers, and returns the count of remotes. On an error, the
    /// previous remotes stay in use. Receivers are also notified if nothing has changed, since the
    /// credentials may have.
    pub(crate) fn reload(&self) -> Result<usize, RemoteError> {
        let configs = Arc::new(self.file.read()?);
        let count = configs.len();
        self.configs.send_replace(configs);
        Ok(count)
    }

    /// Returns a receiver of the current and later remotes.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Arc<Vec<RemoteConfig>>> {
        self.configs.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::super::config::tests::config;
    use super::*;

    #[test]
    fn reload_notifies_of_valid_remotes() {
        let state = tempfile::tempdir().unwrap();
        let remotes = Remotes::load(state.path()).unwrap();
        let mut configs = remotes.subscribe();
        assert!(configs.borrow_and_update().is_empty());
        let file = RemotesFile::in_state(state.path());
        let added = file.change(|remotes| -> Result<(), RemoteError> {
            remotes.push(config("a"));
            Ok(())
        });
        added.unwrap();
        assert_eq!(remotes.reload().unwrap(), 1);
        assert!(configs.has_changed().unwrap());
        assert_eq!(**configs.borrow_and_update(), [config("a")]);

        std::fs::write(state.path().join("remotes.json"), "half of a f").unwrap();
        assert!(remotes.reload().is_err() && Remotes::load(state.path()).is_err());
        assert_eq!(**configs.borrow(), [config("a")], "the previous remotes stay in use");
    }
}
