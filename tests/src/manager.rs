//! The service manager's side of the protocols: notifications and socket activation.

use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Timeout of an expected event.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The manager's end of `sd_notify(3)`.
pub struct Manager {
    home: TempDir,
    socket: UnixDatagram,
}

impl Default for Manager {
    fn default() -> Self {
        Self::new()
    }
}

impl Manager {
    /// Creates a manager that has received no message.
    pub fn new() -> Self {
        let home = tempfile::tempdir().expect("a directory");
        let socket = UnixDatagram::bind(home.path().join("notify")).expect("a socket");
        Manager { home, socket }
    }

    /// Returns the value for `NOTIFY_SOCKET`.
    pub fn path(&self) -> PathBuf {
        self.home.path().join("notify")
    }

    /// Returns the next message, if one arrives in time.
    pub fn next(&self, within: Duration) -> Option<String> {
        self.socket.set_read_timeout(Some(within.max(Duration::from_millis(1)))).expect("a timeout");
        let mut message = vec![0; 4096];
        let len = self.socket.recv(&mut message).ok()?;
        message.truncate(len);
        Some(String::from_utf8(message).expect("text"))
    }

    /// Waits for a message with a line that starts with this one. Returns all messages up to and
    /// including it.
    #[track_caller]
    pub fn wait_for(&self, line: &str) -> Vec<String> {
        let begun = Instant::now();
        let mut messages = Vec::new();
        loop {
            match self.next(TIMEOUT.saturating_sub(begun.elapsed())) {
                Some(message) => {
                    let is_expected = message.lines().any(|candidate| candidate.starts_with(line));
                    messages.push(message);
                    if is_expected {
                        return messages;
                    }
                }
                None => panic!("no message {line} in time; received {messages:?}"),
            }
        }
    }

    /// Counts the messages with this line during a time.
    pub fn count(&self, line: &str, within: Duration) -> usize {
        let end = Instant::now() + within;
        let mut count = 0;
        while let Some(message) = self.next(end.saturating_duration_since(Instant::now())) {
            count += usize::from(message.lines().any(|candidate| candidate == line));
            if Instant::now() >= end {
                break;
            }
        }
        count
    }
}

/// Returns the value of a line of a message, as in `line(&message, "STATUS")`.
pub fn line<'m>(message: &'m str, name: &str) -> Option<&'m str> {
    message.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
}

/// Returns a command prefix that passes sockets to a node: `NAME=ADDRESS` each.
pub fn passing_sockets(sockets: &[&str]) -> Vec<String> {
    let tool = concat!(env!("CARGO_MANIFEST_DIR"), "/tools/pass-sockets.py").to_owned();
    ["python3".to_owned(), tool]
        .into_iter()
        .chain(sockets.iter().map(|socket| (*socket).to_owned()))
        .chain(["--".to_owned()])
        .collect()
}
