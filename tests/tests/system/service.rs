//! A node under a service manager: notifications, socket activation, the watchdog.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use keyhole_tests::data::bytes;
use keyhole_tests::device::skipped;
use keyhole_tests::manager::{line, passing_sockets};
use keyhole_tests::node::binary;
use keyhole_tests::tls::send;
use keyhole_tests::{Certificate, CustomerKey, Launch, Manager, Node, Request};
use rustix::process::Signal;
use rustls::version::TLS13;

fn managed(manager: &Manager) -> Launch {
    Launch::default().with_credential().env("NOTIFY_SOCKET", manager.path()).arg("--threads=2")
}

fn over_each_io(check: impl Fn(&str)) {
    for io in ["--io=uring", "--io=epoll"] {
        println!("{io}");
        check(io);
    }
}

#[test]
fn manager_is_notified_of_start_reload_and_stop() {
    over_each_io(|io| {
        let manager = Manager::new();
        let mut node = managed(&manager).arg(io).arg("--grace=7").start();
        let ready = manager.wait_for("READY=1").pop().unwrap();
        // The node accepts connections once it has sent READY=1.
        TcpStream::connect(node.address()).unwrap();
        assert_eq!(line(&ready, "STATUS"), Some(&format!("serving on {}", node.endpoint())[..]));

        node.signal(Signal::HUP);
        let messages = manager.wait_for("READY=1");
        let reloading =
            messages.iter().find(|message| line(message, "RELOADING") == Some("1")).expect("a RELOADING message");
        let now: u64 = fs::read_to_string("/proc/uptime").unwrap().split('.').next().unwrap().parse().unwrap();
        let at: u64 = line(reloading, "MONOTONIC_USEC").unwrap().parse().unwrap();
        assert!((at / 1_000_000).abs_diff(now) < 60, "{at} is not the monotonic clock's");
        node.send(&Request::new("PUT", "/bucket")).expect(200);

        node.signal(Signal::TERM);
        let stopping = manager.wait_for("STOPPING=1").pop().unwrap();
        assert_eq!(
            line(&stopping, "EXTEND_TIMEOUT_USEC"),
            Some("37000000"),
            "the grace period and 30 s for the last writes"
        );
        assert!(node.wait().success(), "{}", node.log());
        assert_eq!(manager.next(Duration::ZERO), None);
    });
}

/// An unreachable notification socket is not fatal.
#[test]
fn start_without_reachable_manager_succeeds() {
    let manager = Manager::new();
    let launch = managed(&manager);
    drop(manager);
    let mut node = launch.start();
    assert!(node.log().contains("cannot notify the service manager"), "{}", node.log());
    assert!(node.stop().success());
}

/// A journal may be readable by users other than the node's.
#[test]
fn generated_secret_is_not_logged_under_manager() {
    let manager = Manager::new();
    let node = Launch::default().env("NOTIFY_SOCKET", manager.path()).start();
    manager.wait_for("READY=1");
    let log = node.log();
    assert!(log.contains("credentials.toml"), "{log}");
    assert!(!log.contains(&node.signer().secret_key), "the secret is in the log");
    node.make_bucket("bucket");
}

/// A long recovery keeps extending its timeout while it makes progress.
#[test]
fn long_recovery_extends_start_timeout() {
    let manager = Manager::new();
    let mut node = managed(&manager).start();
    node.make_bucket("bucket");
    for i in 0..20 {
        node.send(&Request::new("PUT", &format!("/bucket/{i}")).body(bytes(i, 300_000))).expect(200);
    }
    manager.wait_for("READY=1");
    node.kill();
    // Delay each read, so that the recovery takes some seconds.
    let slowly = [
        "strace",
        "-D",
        "-f",
        "-qq",
        "-o",
        "/dev/null",
        "-e",
        "trace=pread64",
        "-e",
        "inject=pread64:delay_exit=50000",
    ];
    node.set_launch(managed(&manager).under(slowly));
    node.start();
    let messages = manager.wait_for("READY=1");
    let waiting: Vec<_> =
        messages.iter().filter(|message| line(message, "EXTEND_TIMEOUT_USEC") == Some("60000000")).collect();
    assert!(waiting.len() >= 2, "{messages:?}");
    for message in waiting {
        assert!(
            line(message, "STATUS").is_some_and(|status| status.starts_with("recovering the store: ")),
            "{message}"
        );
    }
}

/// A stopped thread of the node.
struct StoppedThread(Child);

impl StoppedThread {
    fn new(node: &Node, thread: &str) -> Self {
        let tool = concat!(env!("CARGO_MANIFEST_DIR"), "/tools/stop-thread.py");
        let mut command = Command::new("python3");
        command.arg(tool).arg(node.pid().to_string()).arg(thread).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut message = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut message).unwrap();
        assert_eq!(message, "stopped\n");
        StoppedThread(child)
    }

    fn resume(mut self) {
        drop(self.0.stdin.take());
        assert!(self.0.wait().unwrap().success());
    }
}

/// The watchdog is notified twice in each period, and not while one of three workers hangs.
#[test]
fn hanging_worker_stops_watchdog_notifications() {
    const PERIOD: Duration = Duration::from_secs(2);
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        return skipped("the watchdog test", "only root may stop a thread of a node");
    }
    over_each_io(|io| {
        let manager = Manager::new();
        let launch =
            Launch::default().with_credential().env("NOTIFY_SOCKET", manager.path()).arg(io).arg("--threads=3");
        let mut node = launch.env("WATCHDOG_USEC", PERIOD.as_micros().to_string()).start();
        manager.wait_for("READY=1");
        let beats = manager.count("WATCHDOG=1", 3 * PERIOD);
        assert!((4..=7).contains(&beats), "{beats} notifications in three periods");
        let stopped = StoppedThread::new(&node, "worker-1");
        // A notification may have been sent since the last check.
        manager.count("WATCHDOG=1", PERIOD / 2 + PERIOD / 8);
        assert_eq!(manager.count("WATCHDOG=1", 2 * PERIOD), 0, "the watchdog is notified although worker-1 hangs");
        assert!(node.log().contains("withholding the watchdog notification worker=1"), "{}", node.log());
        stopped.resume();
        assert!(manager.count("WATCHDOG=1", 2 * PERIOD) >= 2, "notifications resume");
        assert!(node.stop().success());
    });
}

#[test]
fn watchdog_of_other_process_is_not_notified() {
    let manager = Manager::new();
    // The PID is another process's.
    let node = managed(&manager).env("WATCHDOG_USEC", "100000").env("WATCHDOG_PID", "1").start();
    manager.wait_for("READY=1");
    assert_eq!(manager.count("WATCHDOG=1", Duration::from_secs(1)), 0);
    drop(node);
}

/// All workers serve the passed sockets, and the node does not listen on the addresses of its
/// options.
#[test]
fn passed_sockets_are_served_by_all_workers() {
    let certificate = Certificate::new();
    let client = certificate.client(&[&TLS13], &["http/1.1"]);
    over_each_io(|io| {
        let launch = certificate.launch("127.0.0.1:1").listen("127.0.0.1:2").arg(io).arg("--threads=3");
        let mut node = launch.under(passing_sockets(&["https=127.0.0.1:0", "http=127.0.0.1:0"])).start();
        for address in [node.address(), node.tls_address()] {
            assert!(address.port() > 2, "{address} comes from the options");
        }
        node.make_bucket("bucket");
        let key = CustomerKey::random();
        // Enough concurrent connections for every worker to accept some.
        thread::scope(|scope| {
            for i in 0..24 {
                let node = &node;
                let client = &client;
                let key = &key;
                scope.spawn(move || {
                    let object = |method: &str| Request::new(method, &format!("/bucket/{i}")).headers(key.headers());
                    let body = bytes(i, 200_000);
                    let put = object("PUT").body(body.clone());
                    match i % 2 {
                        0 => node.send(&put).expect(200),
                        _ => send(&put, node.tls_address(), node.signer(), client).expect(200),
                    };
                    assert!(node.send(&object("GET")).expect(200).body == body);
                });
            }
        });
        assert!(node.stop().success());
    });
}

/// Clients that connect before systemd's activation tool starts the node are served by it.
#[test]
fn connection_before_activation_is_served() {
    let address: SocketAddr = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let client = thread::spawn(move || {
        let begun = Instant::now();
        let mut tcp = loop {
            match TcpStream::connect(address) {
                Ok(tcp) => break tcp,
                Err(error) if begun.elapsed() > Duration::from_secs(30) => panic!("{error}"),
                Err(_) => thread::sleep(Duration::from_millis(10)),
            }
        };
        tcp.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
        keyhole_tests::http::read_reply(&mut tcp, "GET", |_| {}).unwrap().status
    });
    let listen = format!("--listen={address}");
    let under =
        ["systemd-socket-activate", &listen, "--fdname=http", "-E", "KEYHOLE_ACCESS_KEY", "-E", "KEYHOLE_SECRET_KEY"];
    let mut node = Launch::default().with_credential().under(under).start();
    assert_eq!(node.address(), address);
    assert_eq!(client.join().unwrap(), 403, "an unsigned request");
    assert!(node.stop().success());
}

#[test]
fn unexpected_passed_sockets_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let refused = |sockets: &[&str], parts: &[&str]| {
        let (code, message) =
            Launch::default().under(passing_sockets(sockets)).refused_start(&directory.path().join("data"));
        assert_eq!(code, Some(1), "{message}");
        assert!(parts.iter().all(|part| message.contains(part)), "{parts:?} in: {message}");
    };
    refused(&["gopher=127.0.0.1:0"], &["gopher", "http, https", "FileDescriptorName="]);
    refused(&["https=127.0.0.1:0"], &["https", "--tls-listen"]);
    refused(&["http=127.0.0.1:0", "http=127.0.0.1:0"], &["two sockets named http"]);
    // Sockets meant for another process are left alone.
    let stray = Launch::default().env("LISTEN_FDS", "1").env("LISTEN_PID", "1").env("LISTEN_FDNAMES", "gopher");
    drop(stray.start());
}

/// The node raises the limits of a login, creates private files only, and never dumps core.
#[test]
fn process_limits_are_set_at_start() {
    let node = Launch::default().with_credential().under(["prlimit", "--nofile=300:4000", "--core=unlimited", "--"]);
    let node = node.arg("--threads=2").start();
    let limits = fs::read_to_string(format!("/proc/{}/limits", node.pid())).unwrap();
    let limit = |name: &str| {
        let line = limits.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().next().unwrap().parse::<u64>().unwrap()
    };
    assert_eq!((limit("Max open files"), limit("Max core file size")), (2 * 1024 + 256, 0));
    let status = fs::read_to_string(format!("/proc/{}/status", node.pid())).unwrap();
    assert!(status.contains("Umask:\t0077"), "{status}");
    for (path, _) in keyhole_tests::data::files_below(node.data()) {
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o077, 0, "{}", path.display());
    }
    assert!(!node.log().contains("open files"), "{}", node.log());
    let narrow =
        Launch::default().with_credential().under(["prlimit", "--nofile=300:400", "--"]).arg("--threads=2").start();
    assert!(narrow.log().contains("allows 400 open files"), "{}", narrow.log());
}

#[test]
fn grace_outside_limits_is_rejected() {
    for (seconds, code) in [("0", 2), ("3601", 2), ("1s", 2)] {
        let arguments = ["serve", "--grace", seconds];
        let output = Command::new(binary()).args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{seconds}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("1 to 3600"));
    }
}
