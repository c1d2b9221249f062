//! The unit's sandbox, built from the unit's own settings: the node works within it, and it
//! enforces its restrictions.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;

use keyhole_tests::data::bytes;
use keyhole_tests::manager::passing_sockets;
use keyhole_tests::node::{ACCESS_KEY, SECRET_KEY, binary};
use keyhole_tests::sigv4::Signer;
use keyhole_tests::tls::send;
use keyhole_tests::{Certificate, CustomerKey, Manager, Request, top};
use rustix::process::{Pid, Signal, kill_process};
use rustls::version::TLS13;

/// Debian's own, which has the bindings of libseccomp.
const PYTHON: &str = "/usr/bin/python3";

fn unit() -> PathBuf {
    top().join("crates/keyhole/packaging/keyhole.service")
}

/// The directories of the unit.
struct UnitDirectories {
    home: tempfile::TempDir,
}

impl UnitDirectories {
    fn new() -> Self {
        let directories = UnitDirectories { home: tempfile::tempdir().unwrap() };
        fs::create_dir(directories.state()).unwrap();
        fs::create_dir(directories.configuration()).unwrap();
        // The packaged file, as named in the unit.
        let packaged = top().join("crates/keyhole/packaging/keyhole.toml");
        fs::copy(packaged, directories.configuration().join("keyhole.toml")).unwrap();
        directories
    }

    fn state(&self) -> PathBuf {
        self.home.path().join("state")
    }

    fn configuration(&self) -> PathBuf {
        self.home.path().join("configuration")
    }

    /// Returns the arguments of the unit's program.
    fn arguments() -> Vec<String> {
        let text = fs::read_to_string(unit()).unwrap();
        let start = text.lines().find_map(|line| line.strip_prefix("ExecStart=/usr/bin/keyhole ")).expect("ExecStart");
        start.split_whitespace().map(str::to_owned).collect()
    }

    /// Returns the command of the unit's program in its sandbox, with additional options, and with
    /// additional denied system calls listed first.
    fn command(&self, denied: &[&str], options: &[&str]) -> Vec<String> {
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        let tool = concat!(env!("CARGO_MANIFEST_DIR"), "/tools/unit-sandbox.py").to_owned();
        let directories = [text(&unit()), text(binary()), text(&self.state()), text(&self.configuration())];
        let denied = denied.iter().flat_map(|call| ["--deny", call]);
        let options = ["--capacity", "256MiB"].iter().chain(options).copied().map(str::to_owned);
        let rest = denied.chain(["--"]).map(str::to_owned).chain(Self::arguments()).chain(options);
        [PYTHON.to_owned(), tool].into_iter().chain(directories).chain(rest).collect()
    }

    /// Returns the output of a start that must fail.
    fn refused_start(&self, denied: &[&str], options: &[&str]) -> String {
        let line = self.command(denied, options);
        let output = Command::new(&line[0]).args(&line[1..]).env_remove("NOTIFY_SOCKET").output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    }
}

/// The unit's program, running.
struct Service {
    outer: Child,
    log: PathBuf,
    address: SocketAddr,
    tls_address: Option<SocketAddr>,
}

impl Service {
    /// Starts it and waits until it listens.
    fn start(directories: &UnitDirectories, line: &[String], manager: Option<&Manager>) -> Self {
        let log = directories.home.path().join("log");
        let mut command = Command::new(&line[0]);
        command.args(&line[1..]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(fs::File::create(&log).unwrap());
        command.env("KEYHOLE_ACCESS_KEY", ACCESS_KEY).env("KEYHOLE_SECRET_KEY", SECRET_KEY).env_remove("NOTIFY_SOCKET");
        if let Some(manager) = manager {
            command.env("NOTIFY_SOCKET", manager.path());
        }
        let mut outer = command.spawn().unwrap();
        let mut address = None;
        let mut tls_address = None;
        for line in BufReader::new(outer.stdout.take().unwrap()).lines().map_while(Result::ok) {
            let parse = |text: &str| text.parse().unwrap();
            tls_address = line.strip_prefix("listening on https://").map(parse).or(tls_address);
            address = line.strip_prefix("listening on http://").map(parse);
            if address.is_some() {
                break;
            }
        }
        let printed = || fs::read_to_string(&log).unwrap();
        Service {
            address: address.unwrap_or_else(|| panic!("the node does not listen: {}", printed())),
            outer,
            tls_address,
            log,
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// Returns the process in the sandbox: the last one without a child.
    fn pid(&self) -> u32 {
        let child = |pid: u32| {
            let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
            children.split_whitespace().next()?.parse().ok()
        };
        let mut pid = self.outer.id();
        while let Some(next) = child(pid) {
            pid = next;
        }
        pid
    }

    fn has_rings(&self) -> bool {
        let open = fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap();
        open.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
            .any(|link| link.ends_with("anon_inode:[io_uring]"))
    }

    fn stop(&mut self) -> ExitStatus {
        kill_process(Pid::from_raw(self.pid() as i32).unwrap(), Signal::TERM).unwrap();
        self.outer.wait().unwrap()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // bubblewrap terminates the processes in it.
        let _ = self.outer.kill();
        let _ = self.outer.wait();
        if thread::panicking() {
            eprintln!("--- the node's log ---\n{}", self.log());
        }
    }
}

fn signer() -> Signer {
    Signer { access_key: ACCESS_KEY.into(), secret_key: SECRET_KEY.into(), region: "us-east-1".into() }
}

/// Transfers SSE-C objects of all kinds over both listeners, with several connections at a time.
fn run_session(service: &Service, certificate: &Certificate) {
    let key = CustomerKey::random();
    let signer = signer();
    let client = certificate.client(&[&TLS13], &["http/1.1"]);
    Request::new("PUT", "/bucket").send(service.address, &signer).expect(200);
    thread::scope(|scope| {
        for i in 0..8 {
            let key = &key;
            let signer = &signer;
            let client = &client;
            scope.spawn(move || {
                let object = |method: &str| Request::new(method, &format!("/bucket/{i}")).headers(key.headers());
                let go = |request: Request| match i % 2 {
                    0 => request.send(service.address, signer),
                    _ => send(&request, service.tls_address.unwrap(), signer, client),
                };
                let body = bytes(i, [0, 1000, 100_000, 5_000_000][i as usize / 2]);
                go(object("PUT").body(body.clone())).expect(200);
                assert!(go(object("GET")).expect(200).body == body);
                go(Request::new("GET", &format!("/bucket/{i}"))).expect(400);
            });
        }
    });
    Request::new("DELETE", "/bucket/0").send(service.address, &signer).expect(204);
}

#[test]
fn session_in_unit_sandbox_succeeds() {
    let certificate = Certificate::new();
    for (io, has_rings) in [("--io=uring", true), ("--io=epoll", false)] {
        println!("{io}");
        let directories = UnitDirectories::new();
        let manager = Manager::new();
        fs::copy(certificate.path(), directories.configuration().join("cert.pem")).unwrap();
        fs::copy(certificate.key_path(), directories.configuration().join("key.pem")).unwrap();
        let tls = ["--tls-listen=127.0.0.1:1", "--tls-cert=/etc/keyhole/cert.pem", "--tls-key=/etc/keyhole/key.pem"];
        let options = [&["--threads=2", io][..], &tls].concat();
        let sandboxed = directories.command(&[], &options);
        let line: Vec<String> =
            passing_sockets(&["http=127.0.0.1:0", "https=127.0.0.1:0"]).into_iter().chain(sandboxed.clone()).collect();
        let mut service = Service::start(&directories, &line, Some(&manager));
        manager.wait_for("READY=1");
        assert_eq!(service.has_rings(), has_rings);
        let status = fs::read_to_string(format!("/proc/{}/status", service.pid())).unwrap();
        for line in
            ["NoNewPrivs:\t1", "Seccomp:\t2", "CapBnd:\t0000000000000000", "CapEff:\t0000000000000000", "Umask:\t0077"]
        {
            assert!(status.contains(line), "{line} in {status}");
        }
        run_session(&service, &certificate);
        assert!(service.stop().success(), "{}", service.log());
        manager.wait_for("STOPPING=1");
        // Without socket activation, and with a store to recover.
        let again = directories.command(&[], &["--listen=127.0.0.1:0", "--threads=2", io]);
        let mut service = Service::start(&directories, &again, None);
        Request::new("HEAD", "/bucket/1").send(service.address, &signer()).expect(400);
        assert!(service.stop().success(), "{}", service.log());
    }
}

/// The sandbox enforces its restrictions, which validates the tests above.
#[test]
fn sandbox_enforces_its_restrictions() {
    let directories = UnitDirectories::new();
    let listen = "--listen=127.0.0.1:0";
    let printed = directories.refused_start(&["io_uring_setup"], &[listen, "--io=uring"]);
    assert!(printed.contains("refuses io_uring"), "{printed}");
    // By default the node works without io_uring.
    let mut service = Service::start(&directories, &directories.command(&["io_uring_setup"], &[listen]), None);
    assert!(service.log().contains("using epoll") && !service.has_rings(), "{}", service.log());
    assert!(service.stop().success());
    // The filter applies to other calls as well.
    let printed = directories.refused_start(&["fdatasync"], &[listen, "--io=epoll"]);
    assert!(printed.contains("Operation not permitted"), "{printed}");
    let elsewhere = directories.refused_start(&[], &[listen, "--state=/var/lib/elsewhere"]);
    assert!(elsewhere.contains("Read-only file system"), "{elsewhere}");
}
