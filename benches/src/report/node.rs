//! `keyhole serve` as a child process.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use keyhole_tests::Certificate;
use keyhole_tests::sigv4::Signer;
use rustix::process::{Pid, Signal, kill_process};

use crate::{Error, Result};

const ACCESS_KEY: &str = "report-access-key";
const SECRET_KEY: &str = "report-secret-key-of-no-account";
const REGION: &str = "us-east-1";

/// A running node; killed on drop.
pub(super) struct Node {
    child: Child,
    program: PathBuf,
    data: PathBuf,
    endpoint: String,
    tls_endpoint: Option<String>,
}

impl Node {
    /// Starts a node with a store of its own.
    pub(super) fn start(program: &Path, data: &Path, capacity: u64, tls: Option<&Certificate>) -> Result<Self> {
        let failed = |error: io::Error| Error::of(format_args!("cannot start {}", program.display()), error);
        let log = data.with_extension("log");
        let mut command = Command::new(program);
        command.arg("serve").arg("--data").arg(data);
        command.args(["--listen", "127.0.0.1:0", "--log", "error", "--region", REGION]);
        command.args(["--capacity", &capacity.to_string()]);
        if let Some(certificate) = tls {
            command.args(["--tls-listen", "127.0.0.1:0"]);
            command.arg("--tls-cert").arg(certificate.path()).arg("--tls-key").arg(certificate.key_path());
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
        let program = program.to_owned();
        let data = data.to_owned();
        Ok(Node { child, program, data, endpoint, tls_endpoint })
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
        let output = Command::new(&self.program).arg("stat").arg(&self.data).arg("--json").output();
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
