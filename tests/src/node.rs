//! The binary under test as a running node.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::data::{contains, encodings, files_below};
use crate::http::{Request, Response};
use crate::sigv4::Signer;

/// Timeout for startup and shutdown.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Time after which a node that should have refused to start is considered running.
const REFUSAL_MAX: Duration = Duration::from_secs(20);

/// Log line prefix of a node that is ready.
const READY: &str = "listening on http://";

/// Log line prefix of the TLS listener, printed earlier.
const READY_TLS: &str = "listening on https://";

/// Log line prefix of the admin listener.
const READY_ADMIN: &str = "status page on http://";

/// Returns the binary under test: `KEYHOLE_BIN`, or the result of a Cargo build.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        if let Some(path) = std::env::var_os("KEYHOLE_BIN") {
            return PathBuf::from(path);
        }
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let status = Command::new(cargo)
            .args(["build", "--release", "--locked", "--quiet", "--package", "keyhole"])
            .current_dir(crate::top())
            .status()
            .expect("cargo runs");
        assert!(status.success(), "cannot build the binary");
        crate::target_dir().join("release/keyhole")
    })
}

/// Options for starting a node.
pub struct Launch {
    wrapper: Vec<OsString>,
    program: PathBuf,
    listen: String,
    capacity: Option<String>,
    arguments: Vec<OsString>,
    environment: Vec<(String, OsString)>,
    has_credential: bool,
}

impl Default for Launch {
    fn default() -> Self {
        Launch {
            wrapper: Vec::new(),
            program: binary().to_owned(),
            listen: "127.0.0.1:0".to_owned(),
            capacity: Some("8GiB".to_owned()),
            arguments: Vec::new(),
            environment: Vec::new(),
            has_credential: false,
        }
    }
}

/// The access key of [`Launch::with_credential`].
pub const ACCESS_KEY: &str = "KEYHOLETESTKEY";
/// Its secret access key.
pub const SECRET_KEY: &str = "a-secret-for-tests-alone";

impl Launch {
    /// Adds an argument for `serve`.
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    /// Changes `--capacity`, or removes it.
    pub fn capacity(mut self, capacity: Option<&str>) -> Self {
        self.capacity = capacity.map(str::to_owned);
        self
    }

    /// Listens on this address instead of one chosen by the system.
    pub fn listen(mut self, address: &str) -> Self {
        self.listen = address.to_owned();
        self
    }

    /// Runs the node under a wrapper command that executes it.
    pub fn under<A: AsRef<OsStr>>(mut self, wrapper: impl IntoIterator<Item = A>) -> Self {
        self.wrapper.extend(wrapper.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    /// Uses another copy of the binary.
    pub fn program(mut self, program: &Path) -> Self {
        self.program = program.to_owned();
        self
    }

    /// Passes the tests' credential in the environment.
    pub fn with_credential(mut self) -> Self {
        self.has_credential = true;
        self.env("KEYHOLE_ACCESS_KEY", ACCESS_KEY).env("KEYHOLE_SECRET_KEY", SECRET_KEY)
    }

    /// Sets an environment variable.
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.environment.push((name.to_owned(), value.as_ref().to_owned()));
        self
    }

    fn command(&self, data: &Path) -> Command {
        let line: Vec<&OsStr> = self.wrapper.iter().map(|part| &part[..]).chain([self.program.as_os_str()]).collect();
        let mut command = Command::new(line[0]);
        command.args(&line[1..]).arg("serve").arg("--data").arg(data).args(["--listen", &self.listen]);
        // Repeats the tests with another engine.
        if let Some(engine) = std::env::var_os("KEYHOLE_TEST_ENGINE") {
            command.arg("--engine").arg(engine);
        }
        if let Some(capacity) = &self.capacity {
            command.arg("--capacity").arg(capacity);
        }
        command.args(&self.arguments).env_remove("KEYHOLE_ACCESS_KEY").env_remove("KEYHOLE_SECRET_KEY");
        command.envs(self.environment.iter().cloned()).stdin(Stdio::null());
        command
    }

    /// Starts a node with its own data directory.
    pub fn start(self) -> Node {
        let home = home();
        let data = home.path().join("data");
        self.start_node(home, data)
    }

    /// Starts a node with this data directory.
    pub fn start_in(self, data: &Path) -> Node {
        self.start_node(home(), data.to_owned())
    }

    fn start_node(self, home: TempDir, data: PathBuf) -> Node {
        let mut node = Node {
            launch: self,
            home,
            data,
            child: None,
            address: None,
            tls_address: None,
            admin_address: None,
            signer: None,
            starts: 0,
        };
        node.start();
        node
    }

    /// Starts a node that must refuse to run, and returns its exit code and output. A node that
    /// runs is terminated, and has no exit code.
    pub fn refused_start(&self, data: &Path) -> (Option<i32>, String) {
        let mut command = self.command(data);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary runs");
        let started = Instant::now();
        while child.try_wait().expect("a child").is_none() {
            if started.elapsed() > REFUSAL_MAX {
                child.kill().expect("a child process");
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let output = child.wait_with_output().expect("a child");
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&text).into_owned())
    }
}

/// Creates the directory for a node's data and output.
fn home() -> TempDir {
    tempfile::Builder::new().prefix("keyhole-test-").tempdir().expect("a temporary directory")
}

/// A node that runs or can be restarted, killed on drop.
pub struct Node {
    launch: Launch,
    home: TempDir,
    data: PathBuf,
    child: Option<Child>,
    address: Option<SocketAddr>,
    tls_address: Option<SocketAddr>,
    admin_address: Option<SocketAddr>,
    signer: Option<Signer>,
    starts: usize,
}

impl Node {
    /// Starts a node with two threads, the tests' credential, and a bucket named `bucket`.
    pub fn with_bucket() -> Self {
        let node = Launch::default().with_credential().arg("--threads=2").start();
        node.make_bucket("bucket");
        node
    }

    /// Starts a node with defaults and the tests' credential.
    pub fn new() -> Self {
        Launch::default().with_credential().start()
    }

    /// Changes the options of later starts.
    pub fn set_launch(&mut self, launch: Launch) {
        self.launch = launch;
    }

    /// Starts it (again) and waits until it listens.
    pub fn start(&mut self) {
        assert!(self.child.is_none(), "the node runs already");
        self.starts += 1;
        let log = self.home.path().join(format!("{}.err", self.starts));
        let out_path = self.home.path().join(format!("{}.out", self.starts));
        let mut command = self.launch.command(&self.data);
        command.stderr(File::create(&log).expect("a log")).stdout(File::create(&out_path).expect("a file"));
        self.child = Some(command.spawn().expect("the binary starts"));
        let started = Instant::now();
        let (address, tls_address, admin_address) = loop {
            let text = fs::read_to_string(&out_path).unwrap_or_default();
            let after = |what: &str| text.lines().find_map(|line| line.strip_prefix(what));
            if let Some(address) = after(READY).filter(|_| text.ends_with('\n')) {
                let parse = |address: &str| address.parse().expect("an address");
                let admin = after(READY_ADMIN).map(|address| parse(address.trim_end_matches('/')));
                break (parse(address), after(READY_TLS).map(parse), admin);
            }
            let child = self.child.as_mut().expect("a started child");
            if let Some(status) = child.try_wait().expect("a child") {
                panic!("the node exited with {status}: {}", self.log());
            }
            assert!(started.elapsed() < TIMEOUT, "the node is not ready in time: {}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        };
        self.address = Some(address);
        self.tls_address = tls_address;
        self.admin_address = admin_address;
        let (access_key, secret_key) = if self.launch.has_credential {
            (ACCESS_KEY.to_owned(), SECRET_KEY.to_owned())
        } else {
            self.generated_credential()
        };
        self.signer = Some(Signer { access_key, secret_key, region: "us-east-1".to_owned() });
    }

    /// Returns the credential in the data directory.
    fn generated_credential(&self) -> (String, String) {
        let file = File::open(self.data.join("credentials.toml")).expect("a generated credential");
        let mut values = BufReader::new(file).lines().map_while(Result::ok).filter_map(|line| {
            let (_, value) = line.split_once("_key = ")?;
            Some(value.trim_matches('"').to_owned())
        });
        (values.next().expect("an access key"), values.next().expect("a secret key"))
    }

    /// Returns the data directory.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Returns the address of the HTTP listener.
    pub fn address(&self) -> SocketAddr {
        self.address.expect("the node was started")
    }

    /// Returns the address of the TLS listener.
    pub fn tls_address(&self) -> SocketAddr {
        self.tls_address.expect("the node was started with a TLS listener")
    }

    /// Returns the address of the status page.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin_address.expect("the node was started with an admin listener")
    }

    /// Returns the endpoint URL.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address())
    }

    /// Returns a signer for the node.
    pub fn signer(&self) -> &Signer {
        self.signer.as_ref().expect("the node was started")
    }

    /// Sends a signed request.
    pub fn send(&self, request: &Request) -> Response {
        request.send(self.address(), self.signer())
    }

    /// Creates a bucket.
    pub fn make_bucket(&self, bucket: &str) {
        self.send(&Request::new("PUT", &format!("/{bucket}"))).expect(200);
    }

    /// Returns the process ID.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("the node runs").id()
    }

    /// Returns the files and logs of the node that contain a secret, with its encoding.
    pub fn occurrences_of(&self, secret: &[u8]) -> Vec<String> {
        let mut files = files_below(self.data());
        files.push(("the log".into(), self.log().into_bytes()));
        let mut found = Vec::new();
        for (encoding, bytes) in encodings(secret) {
            let holders = files.iter().filter(|(_, contents)| contains(contents, &bytes));
            found.extend(holders.map(|(path, _)| format!("{encoding} in {}", path.display())));
        }
        found
    }

    /// Returns all its output on standard output and error.
    pub fn log(&self) -> String {
        let read = |n: usize, kind: &str| {
            let bytes = fs::read(self.home.path().join(format!("{n}.{kind}"))).unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        (1..=self.starts).map(|n| read(n, "out") + &read(n, "err")).collect()
    }

    /// Waits until its starts have logged these words `count` times in all.
    #[track_caller]
    pub fn wait_for_log(&self, words: &str, count: usize) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.log().matches(words).count() < count {
            assert!(Instant::now() < deadline, "{words}: {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Returns its peak resident memory in KiB.
    pub fn peak_resident_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("the node runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("VmHWM");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    /// Returns the CPU time of all its threads.
    pub fn processor_time(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).expect("the node runs");
        // The program name may contain spaces; `utime` and `stime` are the 14th and 15th fields.
        let (_, fields) = stat.rsplit_once(") ").expect("a name in parentheses");
        let ticks: u64 = fields.split(' ').skip(11).take(2).map(|field| field.parse::<u64>().expect("ticks")).sum();
        Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second())
    }

    /// Makes it reload its files, with SIGHUP.
    pub fn reload(&self) {
        self.signal(Signal::HUP);
    }

    /// Sends it a signal without waiting.
    pub fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("the node runs");
        kill_process(Pid::from_child(child), signal).expect("a child process");
    }

    /// Kills it with SIGKILL, like a crash.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("the node runs");
        child.kill().expect("a child process");
        child.wait().expect("a child process");
    }

    /// Terminates it with SIGTERM.
    pub fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait()
    }

    /// Waits for its exit.
    pub fn wait(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("the node runs");
        let started = Instant::now();
        loop {
            if let Some(status) = child.try_wait().expect("a child") {
                return status;
            }
            if started.elapsed() > TIMEOUT {
                child.kill().expect("a child process");
                panic!("the node does not exit in time: {}", self.log());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Default for Node {
    fn default() -> Self {
        Node::new()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- the node's log ---\n{}", self.log());
        }
    }
}
