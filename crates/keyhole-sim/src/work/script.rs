//! Operations of a script: no choice in them is random.

use keyhole_log::{Condition, VersionId, Versioning};

use super::Client;
use crate::content::Content;
use crate::model::{BUCKETS, VERSIONED};

/// Buckets of scripts: one without versioning, and one with it.
const PLAIN: &str = BUCKETS[0];
const HISTORY: &str = VERSIONED[1];

/// An operation of a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Creates both buckets of scripts and enables versioning in the second one.
    CreateBuckets,
    /// Stores an object with a body of this length.
    Put(&'static str, u64),
    /// Reads an object.
    Get(&'static str),
    /// Deletes an object.
    Delete(&'static str),
    /// Stores a version with a body of this length.
    PutVersion(&'static str, u64),
    /// Deletes a versioned object without naming a version.
    DeleteToMarker(&'static str),
    /// Deletes the newest version or delete marker of a key; without one, it does nothing.
    DeleteNewest(&'static str),
    /// Suspends versioning.
    Suspend,
    /// Makes everything acknowledged durable.
    Flush,
    /// Requests a checkpoint.
    Checkpoint,
    /// Requests complete cleaning.
    Compact,
}

impl std::fmt::Display for Operation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Operation::CreateBuckets => write!(f, "create buckets"),
            Operation::Put(key, len) => write!(f, "put {key} ({len} bytes)"),
            Operation::Get(key) => write!(f, "get {key}"),
            Operation::Delete(key) => write!(f, "delete {key}"),
            Operation::PutVersion(key, len) => write!(f, "put version of {key} ({len} bytes)"),
            Operation::DeleteToMarker(key) => write!(f, "delete {key} to a marker"),
            Operation::DeleteNewest(key) => write!(f, "delete newest version of {key}"),
            Operation::Suspend => write!(f, "suspend versioning"),
            Operation::Flush => write!(f, "flush"),
            Operation::Checkpoint => write!(f, "checkpoint"),
            Operation::Compact => write!(f, "compact"),
        }
    }
}

impl Client {
    /// Performs operations in sequence and checks every answer.
    pub async fn perform(mut self, script: Vec<Operation>) {
        for operation in script {
            self.say(|| operation.to_string());
            self.perform_one(operation).await;
        }
    }

    async fn perform_one(&mut self, operation: Operation) {
        match operation {
            Operation::CreateBuckets => {
                self.create_bucket(PLAIN).await;
                self.create_versioned(HISTORY).await;
                self.set_versioning(Versioning::Enabled).await;
            }
            Operation::Put(key, len) => {
                let content = self.scripted(len);
                self.put_content(PLAIN, key, content).await;
            }
            Operation::Get(key) => self.get(PLAIN, key).await,
            Operation::Delete(key) => self.delete_if(PLAIN, key, Condition::None).await,
            Operation::PutVersion(key, len) => {
                let content = self.scripted(len);
                self.put_version_of((HISTORY, key), content).await;
            }
            Operation::DeleteToMarker(key) => self.delete_to_marker((HISTORY, key)).await,
            Operation::DeleteNewest(key) => {
                if let Some(version) = self.newest_version(key) {
                    self.delete_known_version(version).await;
                }
            }
            Operation::Suspend => self.set_versioning(Versioning::Suspended).await,
            Operation::Flush => self.flush().await,
            Operation::Checkpoint => self.request(false).await,
            Operation::Compact => self.request(true).await,
        }
    }

    fn scripted(&self, len: u64) -> Content {
        Content { id: self.world.model.borrow_mut().number(), len }
    }

    /// Returns the newest version of a key that exists and whose id is known.
    fn newest_version(&self, key: &str) -> Option<u64> {
        let model = self.world.model.borrow();
        let mut candidates = model.history.candidates();
        candidates.retain(|version| {
            let written = &model.history.written[version];
            written.name == (HISTORY, key) && matches!(written.id, Some(VersionId::Id(_)))
        });
        candidates.last().copied()
    }
}
