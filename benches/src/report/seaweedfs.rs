//! SeaweedFS, another S3 server with SSE-C: all of its servers in one process, on 127.0.0.1 only.

use std::fs::{self, File};
use std::io;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::memory;
use super::node::{ACCESS_KEY, SECRET_KEY};
use crate::{Error, Result};

/// Timeout for startup and shutdown: its parts find each other in several seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// Time between the first answer and a working cluster.
const SETTLING: Duration = Duration::from_secs(8);

/// The ports of its servers, each for HTTP and gRPC.
const PARTS: [&str; 4] = ["master", "volume", "filer", "s3"];

/// A running SeaweedFS with a store of its own.
pub(super) struct SeaweedFs {
    child: Child,
    data: PathBuf,
    endpoint: String,
    /// Its reported version.
    pub(super) version: String,
}

impl SeaweedFs {
    /// Starts the program `weed` in a new directory.
    pub(super) fn start(program: &Path, directory: &Path) -> Result<Self> {
        let failed = |error: io::Error| Error::of(format_args!("cannot start {}", program.display()), error);
        let output = Command::new(program).arg("version").stdin(Stdio::null()).output().map_err(failed)?;
        let version = version_of(&String::from_utf8_lossy(&output.stdout));
        let data = directory.join("data");
        fs::create_dir_all(&data).map_err(failed)?;
        let config = directory.join("s3.json");
        fs::write(&config, credentials()).map_err(failed)?;
        let ports = free_ports(2 * PARTS.len()).map_err(failed)?;
        let log = File::create(directory.join("log")).map_err(failed)?;
        let mut command = Command::new(program);
        command.args(["-logtostderr=true", "server", "-filer", "-s3", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]);
        command.arg(format!("-dir={}", data.display())).arg(format!("-s3.config={}", config.display()));
        for (part, ports) in PARTS.iter().zip(ports.chunks(2)) {
            command.arg(format!("-{part}.port={}", ports[0])).arg(format!("-{part}.port.grpc={}", ports[1]));
        }
        // Without further servers, and without reports to its makers.
        command.args(["-master.telemetry=false", "-s3.iam=false", "-s3.port.iceberg=0", "-s3.port.lance=0"]);
        command.args(["-master.volumeSizeLimitMB=1024", "-volume.max=40"]);
        command.current_dir(directory).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = command.spawn().map_err(failed)?;
        let port = ports[2 * PARTS.len() - 2];
        let mut started = SeaweedFs { child, data, endpoint: format!("http://127.0.0.1:{port}"), version };
        started.wait(port)?;
        Ok(started)
    }

    fn wait(&mut self, port: u16) -> Result<()> {
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if let Some(status) = self.child.try_wait()? {
                return Err(Error::new(format!("SeaweedFS exited: {status}")));
            }
            if begun.elapsed() > PATIENCE {
                return Err(Error::new("SeaweedFS does not get ready"));
            }
            thread::sleep(Duration::from_millis(50));
        }
        thread::sleep(SETTLING);
        Ok(())
    }

    pub(super) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Removes its store from the page cache.
    pub(super) fn evict(&self) -> Result<()> {
        memory::evict(&self.data).map_err(|error| Error::of(self.data.display(), error))
    }
}

impl Drop for SeaweedFs {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let begun = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) {
            if begun.elapsed() > PATIENCE {
                let _ = self.child.kill();
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

fn credentials() -> String {
    serde_json::json!({ "identities": [{
        "name": "report",
        "credentials": [{ "accessKey": ACCESS_KEY, "secretKey": SECRET_KEY }],
        "actions": ["Admin", "Read", "Write", "List"],
    }] })
    .to_string()
}

/// Returns the version in a line such as `version 8000GB 4.48 pypi linux amd64`.
fn version_of(text: &str) -> String {
    let word = text
        .split_ascii_whitespace()
        .find(|word| word.contains('.') && word.chars().all(|c| c.is_ascii_digit() || c == '.'));
    word.unwrap_or("of an unknown version").to_owned()
}

/// Returns ports that were free a moment ago.
fn free_ports(count: usize) -> io::Result<Vec<u16>> {
    let listeners: io::Result<Vec<_>> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0")).collect();
    listeners?.iter().map(|listener| Ok(listener.local_addr()?.port())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_is_found_in_its_line() {
        assert_eq!(version_of("version 8000GB 4.48 pypi linux amd64\n\nFor users, see https://a.b.\n"), "4.48");
        assert_eq!(version_of(""), "of an unknown version");
    }

    #[test]
    fn free_ports_are_distinct() {
        let mut ports = free_ports(8).unwrap();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 8);
        assert!(credentials().contains(ACCESS_KEY));
    }
}
