//! A node that runs the real binary, and signed requests to it.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use aws_lc_rs::{digest, hmac};
use keyhole_node::Services;

use super::super::{CommandError, Result};
use super::rig::BUCKET;
use crate::env::System;

const ACCESS_KEY: &str = "bench-access-key";
const SECRET_KEY: &str = "bench-secret-key-of-no-account";
const REGION: &str = "us-east-1";

/// Requests to a full node, all of which must be refused.
const REFUSALS: usize = 20;
/// Limit of objects that a full node may still store in its open segments.
const LAST_OBJECTS: usize = 10_000;

/// `keyhole serve` in another process.
pub(super) struct Node {
    child: Child,
    address: SocketAddr,
    begun: Instant,
}

impl Node {
    pub(super) fn start(data: &Path, options: &[&str]) -> Result<Self> {
        let failed = |error| CommandError::io("cannot start a node", error);
        let begun = Instant::now();
        let mut child = Command::new(std::env::current_exe().map_err(failed)?)
            .arg("serve")
            .arg("--data")
            .arg(data)
            .args(["--listen", "127.0.0.1:0", "--log", "error"])
            .args(options)
            .env("KEYHOLE_ACCESS_KEY", ACCESS_KEY)
            .env("KEYHOLE_SECRET_KEY", SECRET_KEY)
            .stdout(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let out = child.stdout.take().expect("it is piped");
        let found = BufReader::new(out)
            .lines()
            .map_while(io::Result::ok)
            .find_map(|line| line.strip_prefix("listening on http://").and_then(|address| address.parse().ok()));
        match found {
            Some(address) => Ok(Node { child, address, begun }),
            None => {
                let _ = child.wait();
                Err(CommandError::Other("the node does not start; see above".to_owned()))
            }
        }
    }

    /// Returns the seconds from the process's start to the reply to a GET.
    pub(super) fn first_get(&self, key: &str) -> Result<f64> {
        match self.request("GET", &format!("/{BUCKET}/{key}"), &[])? {
            200 => Ok(self.begun.elapsed().as_secs_f64()),
            status => Err(CommandError::Other(format!("the node answers a GET with {status}"))),
        }
    }

    /// Sends a request and reads the whole reply; returns its status.
    pub(super) fn request(&self, method: &str, path: &str, body: &[u8]) -> Result<u16> {
        self.exchange(method, path, "", body).map(|(status, _)| status)
    }

    /// Lists objects with a sorted and encoded query; returns the duration in seconds and the whole
    /// reply.
    pub(super) fn list(&self, query: &str) -> Result<(f64, String)> {
        let begun = Instant::now();
        match self.exchange("GET", &format!("/{BUCKET}"), query, &[])? {
            (200, reply) => Ok((begun.elapsed().as_secs_f64(), String::from_utf8_lossy(&reply).into_owned())),
            (status, _) => Err(CommandError::Other(format!("the node answers a listing with {status}"))),
        }
    }

    /// Sends a request and reads the whole reply; returns its status and its bytes.
    fn exchange(&self, method: &str, path: &str, query: &str, body: &[u8]) -> Result<(u16, Vec<u8>)> {
        let failed = |error| CommandError::io("a request to the node", error);
        let mut connection = TcpStream::connect(self.address).map_err(failed)?;
        let head = self.signed_head(method, path, query, body.len());
        // A refusal may arrive before the body is read.
        connection.write_all(head.as_bytes()).map_err(failed)?;
        let _ = connection.write_all(body);
        let mut reply = Vec::new();
        let _ = connection.read_to_end(&mut reply);
        let status = std::str::from_utf8(reply.get(9..12).unwrap_or_default()).ok().and_then(|text| text.parse().ok());
        let status = status.ok_or_else(|| CommandError::Other("the node gives no answer".to_owned()))?;
        Ok((status, reply))
    }

    /// Returns a head with Signature Version 4; the path needs no encoding and the query is
    /// canonical.
    fn signed_head(&self, method: &str, path: &str, query: &str, len: usize) -> String {
        let date: String =
            keyhole_s3::time::iso8601(System.now_ms() / 1000 * 1000).replace(".000", "").replace(['-', ':'], "");
        let host = self.address;
        let payload = "UNSIGNED-PAYLOAD";
        let day = &date[..8];
        let signed = "host;x-amz-content-sha256;x-amz-date";
        let lines = format!("host:{host}\nx-amz-content-sha256:{payload}\nx-amz-date:{date}\n");
        let canonical = format!("{method}\n{path}\n{query}\n{lines}\n{signed}\n{payload}");
        let scope = format!("{day}/{REGION}/s3/aws4_request");
        let hash = hex::encode(digest::digest(&digest::SHA256, canonical.as_bytes()));
        let text = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{hash}");
        let start = format!("AWS4{SECRET_KEY}").into_bytes();
        let key = [day, REGION, "s3", "aws4_request"].iter().fold(start, |key, part| mac(&key, part));
        let signature = hex::encode(mac(&key, &text));
        format!(
            "{method} {path}?{query} HTTP/1.1\r\nHost: {host}\r\nx-amz-content-sha256: {payload}\r\n\
             x-amz-date: {date}\r\nAuthorization: AWS4-HMAC-SHA256 Credential={ACCESS_KEY}/{scope}, \
             SignedHeaders={signed}, Signature={signature}\r\nContent-Length: {len}\r\nConnection: close\r\n\r\n"
        )
    }

    /// Returns the resident memory in bytes.
    pub(super) fn resident(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.map_err(|error| CommandError::io("cannot see the node's memory", error))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok());
        kib.map(|kib| kib << 10)
            .ok_or_else(|| CommandError::Other("the system does not say the node's memory".to_owned()))
    }

    /// Stops the node with SIGTERM.
    pub(super) fn stop(mut self) -> Result<()> {
        let id = i32::try_from(self.child.id()).expect("a process id");
        // SAFETY: the call takes only numbers; the child was not waited for, so the ID is still its
        // own.
        unsafe { libc::kill(id, libc::SIGTERM) };
        let status = self.child.wait().map_err(|error| CommandError::io("cannot wait for the node", error))?;
        if status.success() { Ok(()) } else { Err(CommandError::Other(format!("the node ends with {status}"))) }
    }

    pub(super) fn kill(mut self) -> Result<()> {
        let killed = self.child.kill().and_then(|()| self.child.wait());
        killed.map(drop).map_err(|error| CommandError::io("cannot kill the node", error))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // After a failure; otherwise the process has already ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes()).as_ref().to_vec()
}

/// Serves a full store; returns the count of PUTs with a reply other than 507.
pub(super) fn refusals(data: &Path, len: usize) -> Result<usize> {
    let node = Node::start(data, &["--threads", "1"])?;
    let body = vec![3; len];
    let mut refused = 0;
    let mut others = 0;
    for number in 0..LAST_OBJECTS {
        match node.request("PUT", &format!("/{BUCKET}/more-{number}"), &body)? {
            200 => {}
            507 => refused += 1,
            _ => others += 1,
        }
        if refused + others == REFUSALS {
            node.stop()?;
            return Ok(others);
        }
    }
    Err(CommandError::Other("a store that is full takes thousands of objects".to_owned()))
}
