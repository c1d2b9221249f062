//! nginx as a file server: the cost of a server without encryption, signatures and durability.

use std::fs;
use std::io;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use keyhole_tests::Certificate;
use rustix::process::{Pid, Signal, kill_process};

use super::memory;
use crate::{Error, Result};

/// Number of worker processes.
const WORKERS: usize = 2;

/// Timeout for startup and shutdown.
const PATIENCE: Duration = Duration::from_secs(10);

/// Program names; `/usr/sbin` is not on every `PATH`.
const PROGRAMS: [&str; 2] = ["nginx", "/usr/sbin/nginx"];

/// A running nginx with its own configuration, files and directory.
pub(super) struct Nginx {
    master: Child,
    workers: Vec<u32>,
    files: PathBuf,
    endpoint: String,
    tls_endpoint: String,
    /// Its reported version.
    pub(super) version: String,
}

impl Nginx {
    /// Starts it in a new directory.
    pub(super) fn start(directory: &Path, certificate: &Certificate) -> Result<Self> {
        let failed = |error: io::Error| Error::of("cannot start nginx", error);
        let (program, version) = find()?;
        fs::create_dir_all(directory.join("files")).map_err(failed)?;
        let [port, tls_port] = free_ports().map_err(failed)?;
        let file = directory.join("nginx.conf");
        let is_root = rustix::process::geteuid().is_root();
        fs::write(&file, configuration(directory, certificate, port, tls_port, is_root)).map_err(failed)?;
        let master = Command::new(&program)
            .arg("-e")
            .arg(directory.join("error.log"))
            .arg("-c")
            .arg(&file)
            .arg("-p")
            .arg(directory)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(failed)?;
        let endpoint = format!("http://127.0.0.1:{port}");
        let tls_endpoint = format!("https://127.0.0.1:{tls_port}");
        let files = directory.join("files");
        let mut nginx = Nginx { master, workers: Vec::new(), files, endpoint, tls_endpoint, version };
        nginx.wait(port).map_err(|error| {
            let said = fs::read_to_string(directory.join("error.log")).unwrap_or_default();
            Error::of(error, said.trim())
        })?;
        Ok(nginx)
    }

    /// Waits until it listens, and finds its processes.
    fn wait(&mut self, port: u16) -> Result<()> {
        let begun = Instant::now();
        loop {
            self.workers = children(self.master.id())?;
            if self.workers.len() == WORKERS && TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return Ok(());
            }
            if let Some(status) = self.master.try_wait()? {
                return Err(Error::new(format!("nginx exited: {status}")));
            }
            if begun.elapsed() > PATIENCE {
                return Err(Error::new("nginx does not get ready"));
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    pub(super) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    pub(super) fn tls_endpoint(&self) -> &str {
        &self.tls_endpoint
    }

    /// Removes its files from the page cache.
    pub(super) fn evict(&self) -> Result<()> {
        memory::evict(&self.files).map_err(|error| Error::of(self.files.display(), error))
    }

    /// Returns its worker processes.
    pub(super) fn workers(&self) -> &[u32] {
        &self.workers
    }

    /// Returns all of its processes.
    pub(super) fn pids(&self) -> Vec<u32> {
        [&[self.master.id()], &self.workers[..]].concat()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // The master stops the workers, which SIGKILL would leave running.
        let _ = kill_process(Pid::from_child(&self.master), Signal::TERM);
        let begun = Instant::now();
        while matches!(self.master.try_wait(), Ok(None)) {
            if begun.elapsed() > PATIENCE {
                let _ = self.master.kill();
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Finds the program and its version.
fn find() -> Result<(PathBuf, String)> {
    for program in PROGRAMS {
        if let Ok(output) = Command::new(program).arg("-v").stdin(Stdio::null()).output() {
            let text = String::from_utf8_lossy(&output.stderr);
            let version = text.trim().strip_prefix("nginx version: nginx/").unwrap_or(text.trim());
            return Ok((PathBuf::from(program), version.to_owned()));
        }
    }
    Err(Error::new("nginx not found: install nginx-light, or use benches/run"))
}

/// Returns ports that were free a moment ago.
fn free_ports() -> io::Result<[u16; 2]> {
    let listeners = [TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?];
    Ok([listeners[0].local_addr()?.port(), listeners[1].local_addr()?.port()])
}

/// Returns the current children of a process.
fn children(parent: u32) -> io::Result<Vec<u32>> {
    let mut children = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        // A process that has ended meanwhile is no longer a child.
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        // After the name in parentheses: state, parent.
        let of = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_ascii_whitespace().nth(1)?.parse().ok());
        if of == Some(parent) {
            children.push(pid);
        }
    }
    Ok(children)
}

fn configuration(directory: &Path, certificate: &Certificate, port: u16, tls_port: u16, is_root: bool) -> String {
    // Workers of a root process would run as a user without write permission here.
    let user = if is_root { "user root;\n" } else { "" };
    let at = |name: &str| format!("\"{}\"", directory.join(name).display());
    let pid = at("nginx.pid");
    let files = at("files");
    let body = at("body");
    let other = at("other");
    let cert = certificate.path();
    let key = certificate.key_path();
    format!(
        r#"{user}daemon off;
worker_processes {WORKERS};
worker_rlimit_nofile 4096;
pid {pid};
error_log stderr error;
events {{
  worker_connections 2048;
}}
http {{
  access_log off;
  sendfile on;
  tcp_nopush on;
  tcp_nodelay on;
  keepalive_timeout 1h;
  keepalive_requests 1000000000;
  client_max_body_size 0;
  client_body_buffer_size 64k;
  client_body_temp_path {body};
  proxy_temp_path {other};
  fastcgi_temp_path {other};
  uwsgi_temp_path {other};
  scgi_temp_path {other};
  default_type application/octet-stream;
  server {{
    listen 127.0.0.1:{port};
    listen 127.0.0.1:{tls_port} ssl;
    ssl_certificate "{}";
    ssl_certificate_key "{}";
    ssl_protocols TLSv1.3;
    root {files};
    location / {{
      dav_methods PUT;
      create_full_put_path on;
      dav_access user:rw;
    }}
  }}
}}
"#,
        cert.display(),
        key.display(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_are_found_by_their_parent() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let found = children(std::process::id()).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(found.contains(&child.id()), "{found:?}");
    }

    #[test]
    fn paths_of_the_configuration_are_in_the_directory() {
        let text = configuration(Path::new("/a b"), &Certificate::new(), 1, 2, false);
        assert!(text.starts_with("daemon off;") && text.contains("root \"/a b/files\";"), "{text}");
        assert!(text.contains("listen 127.0.0.1:1;") && text.contains("listen 127.0.0.1:2 ssl;"), "{text}");
    }
}
