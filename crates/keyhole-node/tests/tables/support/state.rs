//! The content of a node's buckets, as text for comparisons.

use keyhole_log::{ListObjects, ListUploads, ListVersions, Listed, ListedUpload, Log};
use keyhole_sim::disk::SimDisk;

use super::MemoryNode;

/// Maximum entries of a bucket in these tests.
const ENTRIES_MAX: usize = 1000;

/// The content of some buckets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct State {
    /// The records with their positions: equal only if nothing was written in between.
    pub(crate) records: Vec<String>,
    /// The properties that clients see: equal for the same writes to another bucket.
    pub(crate) content: Vec<String>,
}

impl MemoryNode {
    /// Returns the names of all buckets, and the content of those that `concerns` selects.
    pub(crate) fn state(&self, concerns: impl Fn(&str) -> bool) -> State {
        let log = self.log.clone();
        let names: Vec<String> = log.buckets().into_iter().map(|bucket| bucket.name).collect();
        let buckets: Vec<String> = names.iter().filter(|name| concerns(name)).cloned().collect();
        let mut state = State { records: names, content: Vec::new() };
        self.run(async move {
            for bucket in &buckets {
                add_bucket(&log, bucket, &mut state).await;
            }
            state
        })
    }
}

async fn add_bucket(log: &Log<SimDisk>, bucket: &str, state: &mut State) {
    let settings = log.bucket_settings(bucket).expect("a bucket");
    state.records.push(format!("{bucket}: {settings:?}"));
    state.content.push(format!("{bucket}: {:?}", settings.0));
    let all = ListObjects { limit: ENTRIES_MAX, ..ListObjects::default() };
    for entry in log.list_objects(bucket, &all).expect("a listing").entries {
        let Listed::Object { key, .. } = entry else { panic!("a prefix without delimiter") };
        let object = log.object(bucket, key.as_ref()).await.expect("a record").expect("an object");
        let head = String::from_utf8_lossy(&object.head).into_owned();
        let tags = String::from_utf8_lossy(&object.tags).into_owned();
        let content = format!(
            "{bucket}/{key}: {} {} {} {head:?} {tags:?} {:?} {:?}",
            object.size, object.etag, object.sealed, object.part_checksums, object.lock
        );
        state.records.push(format!("{content} {} {}", object.time_ms, object.seq));
        state.content.push(content);
    }
    let all = ListVersions { limit: ENTRIES_MAX, ..ListVersions::default() };
    for entry in log.list_versions(bucket, &all).expect("a listing").entries {
        state.records.push(format!("{entry:?}"));
    }
    let all = ListUploads { limit: ENTRIES_MAX, ..ListUploads::default() };
    for entry in log.list_uploads(bucket, &all).expect("a listing").entries {
        let ListedUpload::Upload(upload) = entry else { panic!("a prefix without delimiter") };
        let head = log.upload_head(&upload).await.expect("a head");
        let content = format!("{bucket}/{}: {} {:?} {head:?}", upload.key, upload.sealed, upload.declared);
        state.records.push(format!("{content} {upload:?}"));
        state.content.push(content);
        for part in log.parts(&upload, 0, ENTRIES_MAX).expect("the parts") {
            state.records.push(format!("{part:?}"));
            state.content.push(format!("{}: {} {:?}", part.number, part.size, part.etag));
        }
    }
}
