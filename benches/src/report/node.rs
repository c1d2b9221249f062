//! `keyhole serve` as a child process.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use keyhole_tests::Certificate;
use keyhole_tests::sigv4::Signer;
use rustix::process::{Pid, Signal, kill_process};

use super::memory::{self, Limit};
use crate::{Error, Result};

pub(super) const ACCESS_KEY: &str = "report-access-key";
pub(super) const SECRET_KEY: &str = "report-secret-key-of-no-account";
const REGION: &str = "us-east-1";

/// A running node; killed on drop.
pub(super) struct Node {
    child: Child,
    setup: Setup,
    endpoint: String,
    tls_endpoint: Option<String>,
}

/// The program of a node and its store.
#[derive(Clone)]
pub(super) struct Setup {
    pub(super) program: PathBuf,
    pub(super) data: PathBuf,
    pub(super) capacity: u64,
    /// Certificate and private key for HTTPS.
    pub(super) tls: Option<(PathBuf, PathBuf)>,
}

impl Setup {
    /// Returns the setup with HTTPS.
    pub(super) fn with_tls(self, certificate: &Certificate) -> Self {
        Setup { tls: Some((certificate.path(), certificate.key_path())), ..self }
    }

    fn evict(&self) -> Result<()> {
        memory::evict(&self.data).map_err(|error| Error::of(self.data.display(), error))
    }
}

impl Node {
    /// Starts a node with a store of its own, under a memory limit if there is one.
    pub(super) fn start(setup: &Setup, limit: Option<&Limit>) -> Result<Self> {
        let Setup { program, data, capacity, tls } = setup;
        let failed = |error: io::Error| Error::of(format_args!("cannot start {}", program.display()), error);
        let log = data.with_extension("log");
        let mut command = Limit::command(limit, program);
        command.arg("serve").arg("--data").arg(data);
        command.args(["--listen", "127.0.0.1:0", "--log", "error", "--region", REGION]);
        command.args(["--capacity", &capacity.to_string()]);
        if let Some((certificate, key)) = tls {
            command.args(["--tls-listen", "127.0.0.1:0"]);
            command.arg("--tls-cert").arg(certificate).arg("--tls-key").arg(key);
        }
        command.env("KEYHOLE_ACCESS_KEY", ACCESS_KEY).env("KEYHOLE_SECRET_KEY", SECRET_KEY);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(File::create(&log).map_err(failed)?);
        let mut child = command.spawn().map_err(failed)?;
        let mut endpoint = None;
        let mut tls_endpoint = None;
        for line in
            child.stdout.take().into_iter().flat_map(|out| BufReader::new(out).lines()).map_while(io::Result::ok)
        {
            match line.strip_prefix("listening on ") {
                Some(url) if url.starts_with("https://") => tls_endpoint = Some(url.to_owned()),
                Some(url) => {
                    endpoint = Some(url.to_owned());
                    break;
                }
                None => {}
            }
        }
        let Some(endpoint) = endpoint else {
            let _ = child.wait();
            let said = fs::read_to_string(&log).unwrap_or_default();
            return Err(Error::of("the node does not start", said.trim()));
        };
        Ok(Node { child, setup: setup.clone(), endpoint, tls_endpoint })
    }

    /// Shuts it down and starts it again with an empty page cache, under a memory limit if there is
    /// one.
    pub(super) fn restart(self, limit: Option<&Limit>) -> Result<Self> {
        let setup = self.setup.clone();
        self.stop()?;
        setup.evict()?;
        Node::start(&setup, limit)
    }

    /// Removes its store from the page cache.
    pub(super) fn evict(&self) -> Result<()> {
        self.setup.evict()
    }

    pub(super) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    pub(super) fn tls_endpoint(&self) -> Result<&str> {
        self.tls_endpoint.as_deref().ok_or_else(|| Error::new("the node does not listen for HTTPS"))
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns the signer for its requests.
    pub(super) fn signer() -> Signer {
        Signer { access_key: ACCESS_KEY.to_owned(), secret_key: SECRET_KEY.to_owned(), region: REGION.to_owned() }
    }

    /// Returns the index size in bytes that it reports.
    pub(super) fn index_bytes(&self) -> Result<u64> {
        let failed = |error: &dyn std::fmt::Display| Error::of("keyhole stat", error);
        let output = Command::new(&self.setup.program).arg("stat").arg(&self.setup.data).arg("--json").output();
        let output = output.map_err(|error| failed(&error))?;
        if !output.status.success() {
            return Err(failed(&String::from_utf8_lossy(&output.stderr).trim()));
        }
        let stat: serde_json::Value = serde_json::from_slice(&output.stdout).map_err(|error| failed(&error))?;
        stat["index"].as_u64().ok_or_else(|| failed(&"missing memory of the index"))
    }

    /// Shuts it down as an operator does.
    pub(super) fn stop(mut self) -> Result<()> {
        let failed = |error: io::Error| Error::of("cannot end the node", error);
        kill_process(Pid::from_child(&self.child), Signal::TERM).map_err(|error| failed(error.into()))?;
        let status = self.child.wait().map_err(failed)?;
        if status.success() { Ok(()) } else { Err(Error::new(format!("node exited: {status}"))) }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Needed only after a failure; otherwise the process has already ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
