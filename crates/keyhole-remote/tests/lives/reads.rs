//! Reads of evicted objects from the simulated service, as the node makes them.

use std::ops::Range;
use std::sync::Arc;

use futures_channel::{mpsc, oneshot};
use futures_util::StreamExt;
use keyhole_log::{Log, Object};
use keyhole_node::transfer::Export;
use keyhole_node::{EvictedBytes, EvictedError, EvictedFuture, EvictedObject, EvictedObjects};
use keyhole_remote::{Download, Names, open_evicted};
use keyhole_sim::disk::SimDisk;
use keyhole_sim::executor::Executor;

use crate::service::SimService;

/// The received pieces, and the error that ended the download.
type Received = (Vec<Vec<u8>>, Option<EvictedError>);

struct ReadRequest {
    object: EvictedObject,
    range: Range<u64>,
    answer: oneshot::Sender<Result<Received, EvictedError>>,
}

/// Passes reads to the task that has the service.
#[derive(Clone)]
pub(crate) struct SimReads(mpsc::UnboundedSender<ReadRequest>);

impl SimReads {
    /// Starts the task.
    pub(crate) fn start(executor: &mut Executor, service: SimService, store: [u8; 16]) -> Arc<SimReads> {
        let (sender, mut requests) = mpsc::unbounded();
        executor.spawn(async move {
            while let Some(ReadRequest { object, range, answer }) = requests.next().await {
                // The reader may have ended.
                let _ = answer.send(receive(&service, store, &object, range).await);
            }
        });
        Arc::new(SimReads(sender))
    }
}

async fn receive(
    service: &SimService,
    store: [u8; 16],
    object: &EvictedObject,
    range: Range<u64>,
) -> Result<Received, EvictedError> {
    let mut download = open_evicted(service, &Names::new(0), store, object, range).await?;
    let mut pieces = Vec::new();
    loop {
        match download.next().await {
            Ok(Some(piece)) => pieces.push(piece),
            Ok(None) => return Ok((pieces, None)),
            Err(error) => return Ok((pieces, Some(error.into()))),
        }
    }
}

impl EvictedObjects for SimReads {
    fn open(&self, object: EvictedObject, range: Range<u64>) -> EvictedFuture<'static, Box<dyn EvictedBytes>> {
        let (answer, received) = oneshot::channel();
        let sent = self.0.unbounded_send(ReadRequest { object, range, answer });
        Box::pin(async move {
            sent.expect("the task runs");
            let (mut pieces, error) = received.await.expect("the task runs")?;
            pieces.reverse();
            Ok(Box::new(Pieces(pieces, error)) as Box<dyn EvictedBytes>)
        })
    }
}

/// The pieces that were received, the last first.
struct Pieces(Vec<Vec<u8>>, Option<EvictedError>);

impl EvictedBytes for Pieces {
    fn next(&mut self) -> EvictedFuture<'_, Option<Vec<u8>>> {
        Box::pin(async {
            match (self.0.pop(), self.1.take()) {
                (None, Some(error)) => Err(error),
                (piece, error) => {
                    self.1 = error;
                    Ok(piece)
                }
            }
        })
    }
}

/// Reads the file of an object.
pub(crate) async fn read(
    log: &Log<SimDisk>,
    reads: &SimReads,
    bucket: &str,
    key: &str,
    object: &Object,
) -> Result<Vec<u8>, String> {
    let said = |error| format!("{error:?}");
    let mut export = Export::with_evicted(log, bucket, key, object, Some(reads)).map_err(said)?;
    let len = export.file_len() as usize;
    let mut bytes = Vec::new();
    while bytes.len() < len {
        let (buf, at) = export.next().await.map_err(said)?.ok_or("the file is too short")?;
        bytes.extend(&buf.as_ref()[at]);
    }
    Ok(bytes)
}
