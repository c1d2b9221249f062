//! A SeaweedFS cluster on the loopback interface: a master, three volume servers that keep each object
//! twice, a filer and an S3 server.

use std::fs::{self, File};
use std::io;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::node::{ACCESS_KEY, SECRET_KEY};
use crate::port::free_port;
use crate::sigv4::Signer;
use crate::{Request, Response};

/// Timeout for startup.
const PATIENCE: Duration = Duration::from_secs(90);

/// Number of volume servers.
const VOLUMES: usize = 3;

/// A running cluster, terminated on drop.
pub struct SeaweedFs {
    home: TempDir,
    /// The volume servers.
    volumes: Vec<Option<Child>>,
    /// The other servers.
    others: Vec<Child>,
    port: u16,
}

/// Returns the path of the program: `KEYHOLE_WEED`, or where tests/run installs it.
fn program() -> PathBuf {
    let usual = || crate::target_dir().join("venv/bin/weed");
    let program = std::env::var_os("KEYHOLE_WEED").map_or_else(usual, PathBuf::from);
    assert!(program.exists(), "{} is missing: tests/run installs it", program.display());
    program
}

impl SeaweedFs {
    /// Starts a cluster and waits until it stores objects.
    pub fn start() -> Self {
        let home = tempfile::Builder::new().prefix("keyhole-weed-").tempdir().expect("a temporary directory");
        let config = serde_json::json!({ "identities": [{
            "name": "test",
            "credentials": [{ "accessKey": ACCESS_KEY, "secretKey": SECRET_KEY }],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }] });
        fs::write(home.path().join("s3.json"), config.to_string()).expect("a file");
        let ports: Vec<u16> = (0..2 * (3 + VOLUMES)).map(|_| free_port()).collect();
        let pair = |server: usize| (ports[2 * server], ports[2 * server + 1]);
        let at = |server: usize| format!("127.0.0.1:{}.{}", pair(server).0, pair(server).1);
        let listen = |server: usize| {
            let (port, grpc) = pair(server);
            vec![format!("-port={port}"), format!("-port.grpc={grpc}"), "-ip.bind=127.0.0.1".to_owned()]
        };
        let (master, filer, s3) = (0, 1, 2);
        let mut arguments = listen(master);
        arguments.extend(
            ["-ip=127.0.0.1", "-mdir=.", "-defaultReplication=001", "-telemetry=false", "-volumeSizeLimitMB=256"]
                .map(str::to_owned),
        );
        let mut others = vec![spawn(home.path(), "master", &arguments)];
        wait_for(pair(master).0);
        let volume = |index: usize| {
            let mut arguments = listen(3 + index);
            arguments.extend(["-ip=127.0.0.1", "-dir=.", "-max=20", "-dataCenter=dc", "-rack=r"].map(str::to_owned));
            arguments.push(format!("-mserver={}", at(master)));
            Some(spawn(home.path(), &format!("volume{index}"), &arguments))
        };
        let volumes: Vec<_> = (0..VOLUMES).map(volume).collect();
        let mut arguments = listen(filer);
        arguments.extend(["-ip=127.0.0.1", "-defaultReplicaPlacement=001", "-defaultStoreDir=."].map(str::to_owned));
        arguments.push(format!("-master={}", at(master)));
        others.push(spawn(home.path(), "filer", &arguments));
        wait_for(pair(filer).0);
        let mut arguments = listen(s3);
        // Servers with ports of their own, which a second cluster could not have.
        arguments.extend(["-port.iceberg=0", "-port.lance=0"].map(str::to_owned));
        arguments.extend([format!("-filer={}", at(filer)), "-config=../s3.json".to_owned(), "-iam=false".to_owned()]);
        others.push(spawn(home.path(), "s3", &arguments));
        wait_for(pair(s3).0);
        let cluster = SeaweedFs { home, volumes, others, port: pair(s3).0 };
        cluster.wait_until_it_stores();
        cluster
    }

    /// Stores an object once all parts of the cluster have found each other.
    fn wait_until_it_stores(&self) {
        let begun = Instant::now();
        self.retry(begun, || Request::new("PUT", "/probe"));
        self.retry(begun, || Request::new("PUT", "/probe/object").body(vec![1; 100_000]));
    }

    fn retry(&self, begun: Instant, request: impl Fn() -> Request) {
        while self.send(&request()).status != 200 {
            assert!(begun.elapsed() < PATIENCE, "SeaweedFS does not get ready: {}", self.logs());
            thread::sleep(Duration::from_millis(200));
        }
    }

    /// Returns the last lines of all logs.
    fn logs(&self) -> String {
        let servers = ["master", "filer", "s3", "volume0", "volume1", "volume2"];
        let tail = |server: &&str| {
            let text = fs::read_to_string(self.home.path().join(server).join("log")).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            format!("{server}:\n{}\n", lines[lines.len().saturating_sub(8)..].join("\n"))
        };
        servers.iter().map(tail).collect()
    }

    /// Returns the endpoint URL.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Returns a signer for the cluster.
    pub fn signer(&self) -> Signer {
        Signer { access_key: ACCESS_KEY.to_owned(), secret_key: SECRET_KEY.to_owned(), region: "us-east-1".to_owned() }
    }

    /// Sends a signed request.
    pub fn send(&self, request: &Request) -> Response {
        request.send(([127, 0, 0, 1], self.port).into(), &self.signer())
    }

    /// Creates a bucket.
    pub fn make_bucket(&self, bucket: &str) {
        let begun = Instant::now();
        self.retry(begun, || Request::new("PUT", &format!("/{bucket}")));
    }

    /// Kills a volume server with SIGKILL.
    pub fn kill_volume(&mut self, index: usize) {
        let mut child = self.volumes[index].take().expect("it runs");
        child.kill().expect("a child process");
        child.wait().expect("a child process");
    }
}

fn spawn(home: &Path, name: &str, arguments: &[String]) -> Child {
    let directory = home.join(name);
    fs::create_dir(&directory).expect("a new directory");
    let log = File::create(directory.join("log")).expect("a log");
    let kind = name.trim_end_matches(|c: char| c.is_ascii_digit() && name != "s3");
    let mut command = Command::new(program());
    command.arg("-logtostderr=true").arg(kind).args(arguments).current_dir(&directory);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().expect("weed starts")
}

fn wait_for(port: u16) {
    let begun = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(begun.elapsed() < PATIENCE, "a SeaweedFS server does not listen on {port}");
        thread::sleep(Duration::from_millis(50));
    }
}

impl Drop for SeaweedFs {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- SeaweedFS ---\n{}", self.logs());
        }
        let all = self.volumes.iter_mut().flatten().chain(&mut self.others);
        for child in all {
            let _ = kill_process(Pid::from_child(child), Signal::KILL);
            let ended: io::Result<_> = child.wait();
            let _ = ended;
        }
    }
}
