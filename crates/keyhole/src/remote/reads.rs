//! Reads of evicted objects: the workers ask the thread of the remotes, which has the connections.

use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use keyhole_node::{EvictedBytes, EvictedError, EvictedFuture, EvictedObject, EvictedObjects};
use keyhole_remote::{Download, Names, open_evicted};
use tokio::sync::{mpsc, oneshot};

use super::client::S3Client;
use super::config::{Mode, RemoteConfig};
use super::reports::Reports;

/// Reads that wait to be taken by the thread.
const WAITING_MAX: usize = 64;

/// Received pieces that wait to be taken by the worker.
const PIECES_MAX: usize = 2;

type Piece = Result<Vec<u8>, EvictedError>;

/// A worker's request for a range of a file.
pub(crate) struct ReadRequest {
    object: EvictedObject,
    range: Range<u64>,
    begun: oneshot::Sender<Result<mpsc::Receiver<Piece>, EvictedError>>,
}

impl ReadRequest {
    pub(super) fn object(&self) -> &EvictedObject {
        &self.object
    }
}

/// The workers' end.
pub(crate) struct RemoteReads {
    requests: mpsc::Sender<ReadRequest>,
    reports: Arc<Reports>,
}

impl RemoteReads {
    /// Returns the end of the workers, and that of the thread.
    pub(crate) fn new(reports: Arc<Reports>) -> (Arc<Self>, mpsc::Receiver<ReadRequest>) {
        let (requests, received) = mpsc::channel(WAITING_MAX);
        (Arc::new(RemoteReads { requests, reports }), received)
    }
}

fn shutting_down() -> EvictedError {
    EvictedError::Unavailable("the node is shutting down".to_owned())
}

impl EvictedObjects for RemoteReads {
    fn open(&self, object: EvictedObject, range: Range<u64>) -> EvictedFuture<'static, Box<dyn EvictedBytes>> {
        let requests = self.requests.clone();
        Box::pin(async move {
            let (begun, answer) = oneshot::channel();
            requests.send(ReadRequest { object, range, begun }).await.map_err(|_| shutting_down())?;
            let pieces = answer.await.map_err(|_| shutting_down())??;
            Ok(Box::new(Pieces(pieces)) as Box<dyn EvictedBytes>)
        })
    }

    fn makes_room(&self) -> bool {
        self.reports.is_tiering()
    }
}

struct Pieces(mpsc::Receiver<Piece>);

impl EvictedBytes for Pieces {
    fn next(&mut self) -> EvictedFuture<'_, Option<Vec<u8>>> {
        Box::pin(async { self.0.recv().await.transpose() })
    }
}

/// The thread's end: clients by remote, also for remotes that are paused.
#[derive(Default)]
pub(super) struct ReadClients {
    clients: BTreeMap<String, (RemoteConfig, Rc<S3Client>)>,
}

impl ReadClients {
    /// Returns the clients of the remotes that may have an object.
    pub(super) fn of(&mut self, object: &EvictedObject, configs: &[RemoteConfig]) -> Vec<(usize, Rc<S3Client>)> {
        self.clients.retain(|_, (config, _)| configs.contains(config));
        let mut found = Vec::new();
        for config in configs.iter().filter(|config| config.mode == Mode::Tier) {
            if !config.has_key(&object.bucket, &object.key) {
                continue;
            }
            if !self.clients.contains_key(&config.name) {
                match S3Client::new(config) {
                    Ok(client) => drop(self.clients.insert(config.name.clone(), (config.clone(), Rc::new(client)))),
                    Err(error) => {
                        tracing::warn!(remote = config.name, %error, "cannot read from a remote");
                        continue;
                    }
                }
            }
            found.extend(self.clients.get(&config.name).map(|(_, client)| (config.prefix.len(), client.clone())));
        }
        found
    }
}

/// Serves one read: passes on the bytes of the first remote that has the object.
pub(super) async fn serve(request: ReadRequest, clients: Vec<(usize, Rc<S3Client>)>, store: [u8; 16]) {
    let ReadRequest { object, range, begun } = request;
    let mut failure = EvictedError::Unavailable("no remote of mode tier has the object's key in its source".to_owned());
    for (prefix_len, client) in clients {
        match open_evicted(&*client, &Names::new(prefix_len), store, &object, range.clone()).await {
            Ok(download) => {
                let (sender, pieces) = mpsc::channel(PIECES_MAX);
                if begun.send(Ok(pieces)).is_ok() {
                    pass_on(download, &sender).await;
                }
                return;
            }
            Err(error) => failure = error,
        }
    }
    tracing::debug!(bucket = object.bucket, key = object.key, ?failure, "cannot read an evicted object");
    // The request may have ended.
    let _ = begun.send(Err(failure));
}

/// Passes on all bytes, until the worker wants no more.
async fn pass_on(mut download: impl Download, pieces: &mpsc::Sender<Piece>) {
    loop {
        let piece = match download.next().await {
            Ok(Some(bytes)) => Ok(bytes),
            Ok(None) => return,
            Err(error) => Err(error.into()),
        };
        let is_end = piece.is_err();
        if pieces.send(piece).await.is_err() || is_end {
            return;
        }
    }
}
