//! The node's end of the control socket.

use std::cell::Cell;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener as StdListener;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use keyhole_log::{Disk, Log};
use keyhole_node::Config;
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::access::{Access, AccessError};
use crate::audit::{Audit, AuditEvent};
use crate::lock_clock::NodeLockClock;
use crate::reload::Reload;
use crate::remote::{RemoteError, Remotes};

use super::answer::{Replies, accept_clock, answer, failed};
use super::protocol::{Reply, Request};
use super::{REQUEST_MAX, short};
use crate::status::Monitor;
use crate::transfer::{self, Direction};

/// Limit of concurrent connections; further clients are asked to retry later.
const CONNECTIONS_MAX: usize = 4;

/// Backlog of connections that wait to be accepted.
const BACKLOG: i32 = 16;

/// Timeout of a client that sends its request or receives a reply.
const PATIENCE: Duration = Duration::from_secs(10);

/// Delay before the next accept after a failed one (too many open files).
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// The control socket's path, which is removed at the end.
pub(crate) struct Control {
    path: PathBuf,
}

impl Control {
    /// Creates the socket, replacing one left by an earlier node. The store is locked, so no other
    /// node's socket is replaced. It becomes reachable only after its permissions are set.
    pub(crate) fn bind(path: &Path) -> io::Result<(Self, StdListener)> {
        let new = path.with_extension("sock.new");
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let name = short(&new)?;
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.bind(&SockAddr::unix(&name.path)?)?;
        fs::set_permissions(&new, Permissions::from_mode(0o600))?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        fs::rename(&new, path)?;
        Ok((Control { path: path.to_owned() }, StdListener::from(socket)))
    }

    /// Removes the path.
    pub(crate) fn remove(self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!(%error, "the control socket was already removed");
        }
    }
}

/// The state of a running node that requests refer to, in addition to the store.
pub(crate) struct Running {
    pub(crate) config: Arc<Config>,
    pub(crate) access: Access,
    pub(crate) remotes: Remotes,
    pub(crate) monitor: Arc<Monitor>,
    pub(crate) audit: Option<Arc<Audit>>,
    pub(crate) lock_clock: NodeLockClock,
}

impl Running {
    /// Adds a line to the audit log, if there is one.
    fn note(&self, operation: &'static str, bucket: Option<&str>, is_ok: bool) {
        if let Some(audit) = &self.audit {
            audit.note_event(&AuditEvent { operation, bucket, key: None, is_ok });
        }
    }

    /// Reloads the access keys.
    pub(crate) fn reload_access(&self) -> Result<usize, AccessError> {
        let result = self.access.reload(&self.config);
        match &result {
            Ok(keys) => tracing::info!(keys, "reloaded the access keys"),
            Err(error) => tracing::error!(%error, "cannot reload the access keys: keeping the current ones"),
        }
        result
    }

    /// Reloads the remotes.
    pub(crate) fn reload_remotes(&self) -> Result<usize, RemoteError> {
        let result = self.remotes.reload();
        match &result {
            Ok(remotes) => tracing::info!(remotes, "reloaded the remotes"),
            Err(error) => tracing::error!(%error, "cannot reload the remotes: keeping the current ones"),
        }
        result
    }
}

impl Reload for Arc<Running> {
    fn reload(&mut self) {
        // The outcome is logged.
        let _ = self.reload_access();
        let _ = self.reload_remotes();
    }
}

/// Serves until the future is dropped, which also ends the requests in progress.
pub(crate) async fn serve<D: Disk>(listener: StdListener, log: Log<D>, running: Arc<Running>) {
    let listener = match UnixListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "cannot serve the control socket"),
    };
    let mut connections = JoinSet::new();
    let transfers = Rc::new(Cell::new(0));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        match accepted {
            Ok((stream, _)) if connections.len() < CONNECTIONS_MAX => {
                connections.spawn_local(connection(Client(stream), log.clone(), running.clone(), transfers.clone()));
            }
            Ok((stream, _)) => {
                let busy = format!("the node is busy with {CONNECTIONS_MAX} other commands: try again later");
                // A few bytes never block.
                let _ = Client(stream).send(failed(busy)).await;
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection on the control socket");
                sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

async fn connection<D: Disk>(mut peer: Client, log: Log<D>, running: Arc<Running>, transfers: Rc<Cell<usize>>) {
    let result = async {
        let line = timeout(PATIENCE, peer.line()).await.map_err(|_| io::ErrorKind::TimedOut)??;
        let request = match serde_json::from_slice::<Request>(&line) {
            Ok(request) => request,
            Err(error) => return peer.send(failed(format!("invalid request: {error}"))).await,
        };
        // Status queries may arrive every few seconds.
        match request {
            Request::Stat { .. } | Request::Status {} => tracing::debug!(?request, "control"),
            _ => tracing::info!(?request, "control"),
        }
        let direction = match request {
            Request::Export(scope) => Direction::Export(scope),
            Request::Import {} => Direction::Import,
            Request::AccessReload {} => {
                let reloaded = running.reload_access().map(|keys| Reply::AccessReloaded { keys: keys as u64 });
                running.note("AccessReload", None, reloaded.is_ok());
                return peer.send(reloaded.unwrap_or_else(|error| failed(error.to_string()))).await;
            }
            Request::RemotesReload {} => {
                let reloaded = running.reload_remotes().map(|count| Reply::RemotesReloaded { remotes: count as u64 });
                running.note("RemotesReload", None, reloaded.is_ok());
                return peer.send(reloaded.unwrap_or_else(|error| failed(error.to_string()))).await;
            }
            Request::BucketSet(change) => {
                let bucket = change.bucket.clone();
                let request = Request::BucketSet(change);
                let last = answer(&log, Some(&running.monitor), &running.config.defaults, request, &mut peer).await?;
                running.note("BucketSet", Some(&bucket), !matches!(last, Reply::Failed { .. }));
                return peer.send(last).await;
            }
            Request::ClockAccept {} => {
                let accepted = accept_clock(&running.lock_clock, &log).await;
                running.note("ClockAccept", None, accepted.is_ok());
                return peer.send(accepted.unwrap_or_else(|error| failed(error.to_string()))).await;
            }
            request => {
                let last = answer(&log, Some(&running.monitor), &running.config.defaults, request, &mut peer).await?;
                return peer.send(last).await;
            }
        };
        let Some(_permit) = transfer::TransferPermit::take(&transfers) else {
            let busy = "too many exports and imports in progress: try again later";
            return peer.send(failed(busy.to_owned())).await;
        };
        peer.send(Reply::Ready {}).await?;
        let (operation, bucket) = match &direction {
            Direction::Export(scope) => ("Export", scope.bucket.clone()),
            Direction::Import => ("Import", None),
        };
        let evicted = running.config.evicted.as_deref();
        let served = transfer::serve(&log, &direction, peer.0, Some(running.monitor.metrics()), evicted).await;
        running.note(operation, bucket.as_deref(), served.is_ok());
        served
    };
    if let Err(error) = result.await {
        tracing::info!(%error, "a client of the control socket disconnected");
    }
}

/// One client.
struct Client(UnixStream);

impl Client {
    /// Reads the request's line. A line that exceeds the limit is cut and then fails to parse.
    async fn line(&self) -> io::Result<Vec<u8>> {
        let mut line = vec![0; REQUEST_MAX];
        let mut len = 0;
        while len < REQUEST_MAX {
            self.0.readable().await?;
            match self.0.try_read(&mut line[len..]) {
                Ok(0) => break,
                Ok(read) => {
                    let end = line[len..len + read].iter().position(|byte| *byte == b'\n');
                    len = end.map_or(len + read, |end| len + end);
                    if end.is_some() {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        line.truncate(len);
        Ok(line)
    }

    async fn write(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            self.0.writable().await?;
            match self.0.try_write(bytes) {
                Ok(written) => bytes = &bytes[written..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl Replies for Client {
    async fn send(&mut self, reply: Reply) -> io::Result<()> {
        let mut line = serde_json::to_vec(&reply)?;
        line.push(b'\n');
        timeout(PATIENCE, self.write(&line)).await.map_err(|_| io::ErrorKind::TimedOut)?
    }
}
