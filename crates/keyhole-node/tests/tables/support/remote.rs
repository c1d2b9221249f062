//! A remote in memory, for evicted objects.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Mutex;

use keyhole_node::{EvictedBytes, EvictedError, EvictedFuture, EvictedObject, EvictedObjects};

/// Length of a received piece: not that of a chunk.
const PIECE: usize = 10_000;

/// The files of evicted objects by bucket and key, and the faults of the remote.
#[derive(Default)]
pub(crate) struct MemoryRemote(Mutex<RemoteState>);

#[derive(Default)]
pub(crate) struct RemoteState {
    pub(crate) files: BTreeMap<(String, String), Vec<u8>>,
    /// Whether nothing can be read.
    pub(crate) is_away: bool,
    /// Bytes after which a stream breaks.
    pub(crate) breaks_after: Option<usize>,
    /// Number of streams.
    pub(crate) opened: u64,
}

impl MemoryRemote {
    pub(crate) fn update<T>(&self, update: impl FnOnce(&mut RemoteState) -> T) -> T {
        update(&mut self.0.lock().unwrap())
    }
}

impl EvictedObjects for MemoryRemote {
    fn open(&self, object: EvictedObject, range: Range<u64>) -> EvictedFuture<'static, Box<dyn EvictedBytes>> {
        let mut state = self.0.lock().unwrap();
        state.opened += 1;
        let file = state.files.get(&(object.bucket, object.key)).cloned();
        let (is_away, breaks_after) = (state.is_away, state.breaks_after);
        Box::pin(async move {
            if is_away {
                return Err(EvictedError::Unavailable("away".to_owned()));
            }
            let Some(file) = file.filter(|file| file.len() as u64 == object.file_len) else {
                return Err(EvictedError::Altered("another length".to_owned()));
            };
            let bytes = file[range.start as usize..range.end as usize].to_vec();
            Ok(Box::new(Stream { bytes, at: 0, breaks_after }) as Box<dyn EvictedBytes>)
        })
    }
}

struct Stream {
    bytes: Vec<u8>,
    at: usize,
    breaks_after: Option<usize>,
}

impl EvictedBytes for Stream {
    fn next(&mut self) -> EvictedFuture<'_, Option<Vec<u8>>> {
        Box::pin(async {
            if self.breaks_after.is_some_and(|after| self.at >= after) {
                return Err(EvictedError::Unavailable("the connection broke".to_owned()));
            }
            let end = self.bytes.len().min(self.at + PIECE);
            let piece = self.bytes[self.at..end].to_vec();
            self.at = end;
            Ok((!piece.is_empty()).then_some(piece))
        })
    }
}
