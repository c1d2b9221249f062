//! The audit log: one line of JSON for each request about sealed objects and for each refused
//! signature, appended to its own file.
//!
//! The workers queue lines, and a thread writes them and makes them durable every second. If the
//! file accepts no writes, lines wait in a bounded queue; when it is full, workers wait for a
//! limited time; then lines are dropped and counted.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use keyhole_node::{Exchange, Services};
use keyhole_s3::time::iso8601;
use serde::Serialize;
use thiserror::Error;

use crate::env::System;
use crate::error::{FileError, SystemError};
use crate::regular;
use crate::reload::Reload;

/// Limit of the queue in bytes.
const BACKLOG_MAX: usize = 4 << 20;

/// Time that a worker waits for room in the queue.
const PATIENCE: Duration = Duration::from_secs(1);

/// Interval of syncs, and delay after a failed write.
const EVERY: Duration = Duration::from_secs(1);

/// The audit log of a node.
pub(crate) struct Audit {
    path: PathBuf,
    state: Mutex<QueueState>,
    /// Signals the writer: lines or shutdown. Signals waiters: room, or everything written.
    changed: Condvar,
}

#[derive(Default)]
struct QueueState {
    lines: Vec<u8>,
    /// Lines are being written.
    writing: bool,
    lost: u64,
    /// The file was moved away and must be reopened.
    reopen: bool,
    end: bool,
}

/// The reason why the audit log cannot be started.
#[derive(Error, Debug)]
pub(crate) enum AuditError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    System(#[from] SystemError),
}

/// Something that the node or the operator did, without a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AuditEvent<'a> {
    pub(crate) operation: &'static str,
    pub(crate) bucket: Option<&'a str>,
    pub(crate) key: Option<&'a str>,
    pub(crate) is_ok: bool,
}

/// One line.
#[derive(Serialize, Clone)]
struct AuditLine<'a> {
    time: String,
    /// None for what the node and the operator do.
    request_id: Option<&'a str>,
    access_key: Option<&'a str>,
    /// The client's address, as reported by trusted proxies.
    client: Option<String>,
    operation: Option<&'static str>,
    bucket: Option<&'a str>,
    key: Option<&'a str>,
    /// An identifier of the customer key, which reveals nothing about the key and cannot be linked
    /// with its identifier in another bucket.
    key_id: Option<String>,
    /// `ok`, the error code, or `aborted`.
    result: &'static str,
    status: Option<u16>,
    received: u64,
    sent: u64,
}

impl AuditLine<'_> {
    /// Encodes the line, line feed included.
    fn encode(&self) -> Vec<u8> {
        let mut line = serde_json::to_vec(self).expect("texts and numbers are JSON");
        line.push(b'\n');
        line
    }
}

impl Audit {
    /// Opens the file and starts the writer thread.
    pub(crate) fn start(path: &Path) -> Result<Arc<Self>, AuditError> {
        let file = open(path).map_err(|error| FileError::new("cannot open the audit log", path, error))?;
        let state = Mutex::new(QueueState::default());
        let changed = Condvar::new();
        let audit = Arc::new(Audit { path: path.to_owned(), state, changed });
        let writer = audit.clone();
        let spawned = thread::Builder::new().name("audit".to_owned()).spawn(move || writer.write(file));
        spawned.map_err(SystemError::thread)?;
        Ok(audit)
    }

    fn lock(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues the line of one request, and one for each sealed object of a request that names
    /// several.
    pub(crate) fn note(&self, exchange: &Exchange<'_>) {
        let line = AuditLine {
            time: iso8601(System.now_ms()),
            request_id: Some(exchange.request_id),
            access_key: exchange.access_key,
            client: Some(exchange.client.to_string()),
            operation: exchange.operation.or(exchange.claimed_operation),
            bucket: exchange.bucket,
            key: exchange.key,
            key_id: exchange.key_id.map(hex::encode),
            result: match (exchange.status, exchange.error) {
                (_, Some(error)) => error.code(),
                (0, None) => "aborted",
                (_, None) => "ok",
            },
            status: Some(exchange.status),
            received: exchange.received,
            sent: exchange.sent,
        };
        let mut lines = line.encode();
        for object in exchange.sealed_objects {
            let result = object.error.map_or("ok", |error| error.code());
            // The bytes are those of the whole request.
            let line = AuditLine { key: Some(&object.key), result, received: 0, sent: 0, ..line.clone() };
            lines.extend_from_slice(&line.encode());
        }
        self.queue(&lines);
    }

    /// Queues the line of something that the node or the operator did.
    pub(crate) fn note_event(&self, event: &AuditEvent<'_>) {
        let AuditEvent { operation, bucket, key, is_ok } = *event;
        let line = AuditLine {
            time: iso8601(System.now_ms()),
            request_id: None,
            access_key: None,
            client: None,
            operation: Some(operation),
            bucket,
            key,
            key_id: None,
            result: if is_ok { "ok" } else { "failed" },
            status: None,
            received: 0,
            sent: 0,
        };
        self.queue(&line.encode());
    }

    /// Queues lines; waits if the queue is full.
    fn queue(&self, line: &[u8]) {
        let state = self.lock();
        let is_full = |state: &mut QueueState| state.lines.len() + line.len() > BACKLOG_MAX;
        let waited = self.changed.wait_timeout_while(state, PATIENCE, is_full);
        let (mut state, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        if waited.timed_out() {
            state.lost += line.iter().filter(|byte| **byte == b'\n').count() as u64;
            return;
        }
        state.lines.extend_from_slice(line);
        drop(state);
        self.changed.notify_all();
    }

    /// Requests that the file is reopened after log rotation.
    pub(crate) fn reopen(&self) {
        self.lock().reopen = true;
        self.changed.notify_all();
    }

    /// Writes the remaining lines, within a time limit.
    pub(crate) fn finish(&self) {
        self.lock().end = true;
        self.changed.notify_all();
        let unwritten = |state: &mut QueueState| state.writing || !state.lines.is_empty();
        let waited = self.changed.wait_timeout_while(self.lock(), 5 * PATIENCE, unwritten);
        if waited.unwrap_or_else(PoisonError::into_inner).1.timed_out() {
            tracing::error!("cannot write the last lines of the audit log");
        }
    }

    /// Writes lines as they arrive, until shutdown.
    fn write(&self, mut file: File) {
        let mut lines = Vec::new();
        let mut synced = Instant::now();
        let mut is_dirty = false;
        let mut reported = 0;
        loop {
            let taken = self.take(&mut lines, is_dirty);
            if taken.lost > reported {
                tracing::error!(lines = taken.lost - reported, "lost lines of the audit log: writing them timed out");
                reported = taken.lost;
            }
            if taken.reopen {
                match open(&self.path) {
                    Ok(new) => file = new,
                    Err(error) => {
                        tracing::error!(%error, "cannot reopen the audit log: keeping the old file");
                    }
                }
            }
            is_dirty |= !lines.is_empty();
            let mut result = write_some(&mut file, &mut lines);
            if result.is_ok() && is_dirty && (taken.end || synced.elapsed() >= EVERY) {
                result = file.sync_data();
                synced = Instant::now();
                is_dirty = false;
            }
            self.lock().writing = !lines.is_empty();
            self.changed.notify_all();
            if let Err(error) = &result {
                tracing::error!(%error, path = %self.path.display(), "cannot write the audit log");
                thread::sleep(if taken.end { Duration::ZERO } else { EVERY });
            }
            if taken.end {
                return;
            }
        }
    }

    /// Waits for work and takes the queued lines, unless earlier ones are still unwritten.
    fn take(&self, lines: &mut Vec<u8>, is_dirty: bool) -> WriterRequests {
        let idle = |state: &mut QueueState| lines.is_empty() && state.lines.is_empty() && !state.reopen && !state.end;
        let limit = if is_dirty { EVERY } else { Duration::MAX };
        let waited = self.changed.wait_timeout_while(self.lock(), limit, idle);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner).0;
        if lines.is_empty() {
            std::mem::swap(lines, &mut state.lines);
        }
        state.writing = !lines.is_empty();
        let taken = WriterRequests { reopen: std::mem::take(&mut state.reopen), end: state.end, lost: state.lost };
        drop(state);
        self.changed.notify_all();
        taken
    }
}

/// Further requests to the writer.
struct WriterRequests {
    reopen: bool,
    end: bool,
    lost: u64,
}

/// Writes as much as the file accepts; keeps the rest to continue exactly there.
fn write_some(file: &mut impl Write, lines: &mut Vec<u8>) -> io::Result<()> {
    let mut written = 0;
    let result = loop {
        if written == lines.len() {
            break Ok(());
        }
        match file.write(&lines[written..]) {
            Ok(0) => break Err(io::ErrorKind::WriteZero.into()),
            Ok(len) => written += len,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => break Err(error),
        }
    };
    lines.drain(..written);
    result
}

impl Reload for Arc<Audit> {
    fn reload(&mut self) {
        self.reopen();
    }
}

/// Private to the owner, because it reveals who stores what.
fn open(path: &Path) -> io::Result<File> {
    regular::open_with(OpenOptions::new().append(true).create(true).mode(0o600), path)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use keyhole_s3::ErrorCode;

    use super::*;

    fn exchange<'a>(request_id: &'a str, key: &'a str) -> Exchange<'a> {
        Exchange {
            request_id,
            peer: SocketAddr::from(([127, 0, 0, 1], 5)),
            client: [127, 0, 0, 1].into(),
            secure: true,
            method: "GET",
            resource: "/bucket/o",
            operation: Some("GetObject"),
            claimed_operation: None,
            bucket: Some("bucket"),
            key: Some(key),
            access_key: Some("AK"),
            sse_c: true,
            is_unauthenticated: false,
            sealed_objects: &[],
            key_id: Some([7; 16]),
            status: 403,
            error: Some(ErrorCode::AccessDenied),
            received: 0,
            sent: 3,
            took: Duration::ZERO,
        }
    }

    #[test]
    fn each_sealed_object_has_a_line() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.log");
        let audit = Audit::start(&path).unwrap();
        let object = |key: &str, error| keyhole_node::SealedObject { key: key.to_owned(), error };
        let sealed_objects = [object("one", None), object("two", Some(ErrorCode::AccessDenied))];
        let all =
            Exchange { key: None, error: None, status: 200, sealed_objects: &sealed_objects, ..exchange("1", "") };
        audit.note(&all);
        audit.note(&Exchange { status: 0, error: Some(ErrorCode::ObjectDamaged), ..exchange("2", "cut") });
        audit.note(&Exchange { status: 0, error: None, ..exchange("3", "gone") });
        audit.finish();
        let of = |line: &serde_json::Value| {
            ["request_id", "key", "result"].map(|name| line[name].as_str().unwrap_or("-").to_owned())
        };
        let expected = [
            ["1", "-", "ok"],
            ["1", "one", "ok"],
            ["1", "two", "AccessDenied"],
            ["2", "cut", "ObjectDamaged"],
            ["3", "gone", "aborted"],
        ];
        assert_eq!(fs_lines(&path).iter().map(of).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn event_without_request_has_a_line() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.log");
        let audit = Audit::start(&path).unwrap();
        let event = AuditEvent { operation: "Expiration", bucket: Some("bucket"), key: Some("old"), is_ok: true };
        audit.note_event(&event);
        audit.note_event(&AuditEvent { operation: "Import", bucket: None, key: None, is_ok: false });
        audit.finish();
        let lines = fs_lines(&path);
        assert!(lines.iter().all(|line| line["request_id"].is_null() && line["client"].is_null()));
        let of = |line: &serde_json::Value| ["operation", "bucket", "key", "result"].map(|name| line[name].clone());
        assert_eq!(of(&lines[0]), ["Expiration", "bucket", "old", "ok"]);
        assert_eq!((&lines[1]["operation"], &lines[1]["result"]), (&"Import".into(), &"failed".into()));
        assert!(lines[1]["key"].is_null() && lines[1]["status"].is_null());
    }

    #[test]
    fn lines_stay_in_order_across_log_rotation() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.log");
        let audit = Audit::start(&path).unwrap();
        let ids: Vec<String> = (0..2000).map(|index| index.to_string()).collect();
        ids[..1000].iter().for_each(|id| audit.note(&exchange(id, "a\n\"key\"")));
        while fs_lines(&path).len() < 1000 {
            thread::sleep(Duration::from_millis(1));
        }
        let moved = directory.path().join("audit.log.1");
        std::fs::rename(&path, &moved).unwrap();
        audit.reopen();
        ids[1000..].iter().for_each(|id| audit.note(&exchange(id, "o")));
        audit.finish();
        let lines = [fs_lines(&moved), fs_lines(&path)].concat();
        let reported: Vec<&str> = lines.iter().map(|line| line["request_id"].as_str().unwrap()).collect();
        assert_eq!(reported, ids);
        let first = &lines[0];
        assert_eq!((first["key"].as_str(), first["result"].as_str()), (Some("a\n\"key\""), Some("AccessDenied")));
        assert_eq!((first["key_id"].as_str(), first["status"].as_u64()), (Some(&"07".repeat(16)[..]), Some(403)));
        assert!(!fs_lines(&path).is_empty());
    }

    fn fs_lines(path: &Path) -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// A file that accepts some bytes, then fails, then accepts the rest.
    struct Full(Vec<u8>, usize);

    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let len = bytes.len().min(self.1);
            self.0.extend_from_slice(&bytes[..len]);
            self.1 -= len;
            if len == 0 { Err(io::ErrorKind::StorageFull.into()) } else { Ok(len) }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn partial_write_continues_after_full_disk() {
        let mut file = Full(Vec::new(), 5);
        let mut lines = b"a line\nanother\n".to_vec();
        assert!(write_some(&mut file, &mut lines).is_err());
        assert_eq!(lines, b"e\nanother\n");
        file.1 = 100;
        write_some(&mut file, &mut lines).unwrap();
        assert_eq!((&file.0[..], lines.len()), (&b"a line\nanother\n"[..], 0));
    }

    /// A worker waits for a limited time if nothing is written any more.
    #[test]
    fn queue_is_bounded() {
        let state = Mutex::new(QueueState::default());
        let changed = Condvar::new();
        let audit = Audit { path: PathBuf::new(), state, changed };
        audit.note(&exchange("a", "o"));
        let len = audit.lock().lines.len();
        audit.lock().lines.resize(BACKLOG_MAX - len, b' ');
        audit.note(&exchange("b", "o"));
        let counts = || {
            let state = audit.lock();
            (state.lines.len(), state.lost)
        };
        assert_eq!(counts(), (BACKLOG_MAX, 0));
        let begun = Instant::now();
        audit.note(&exchange("c", "o"));
        assert_eq!(counts(), (BACKLOG_MAX, 1));
        assert!(begun.elapsed() >= PATIENCE);
    }
}
