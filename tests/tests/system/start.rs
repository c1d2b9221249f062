//! Startup: users, environments, and refused starts.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::{Command, Stdio};

use keyhole_tests::node::binary;
use keyhole_tests::{CustomerKey, Launch, Node, Request};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::{Pid, Signal, kill_process};

/// Transfers one SSE-C object there and back.
fn assert_serves(node: &Node) {
    let key = CustomerKey::random();
    node.make_bucket("start");
    let body = vec![7; 3 << 20];
    node.send(&Request::new("PUT", "/start/object").headers(key.headers()).body(body.clone())).expect(200);
    let got = node.send(&Request::new("GET", "/start/object").headers(key.headers())).expect(200);
    assert!(got.body == body, "{} bytes came back", got.body.len());
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|metadata| std::os::unix::fs::MetadataExt::uid(&metadata) == 0)
}

/// Runs the node with the default limits of a login or a service.
#[test]
fn unprivileged_node_with_default_limits_serves() {
    // If the tests run as an ordinary user, so does the node.
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("keyhole");
    fs::copy(binary(), &program).unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let data = directory.path().join("data");
    fs::create_dir(&data).unwrap();
    let mut launch =
        Launch::default().with_credential().program(&program).under(["prlimit", "--memlock=8388608", "--"]);
    if is_root() {
        chown(&data, Some(65534), Some(65534)).unwrap();
        launch = launch.under(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs", "--"]);
    }
    let mut node = launch.arg("--io=uring").start_in(&data);
    let status = fs::read_to_string(format!("/proc/{}/status", node.pid())).unwrap();
    let uid = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap().split_whitespace().next().unwrap();
    assert_ne!(uid, "0");
    assert_serves(&node);
    assert!(node.stop().success());
}

#[test]
fn node_with_epoll_serves() {
    let mut node = Launch::default().with_credential().arg("--io=epoll").start();
    assert_serves(&node);
    assert!(node.stop().success());
}

/// A seccomp filter denies io_uring, as in most containers.
#[test]
fn node_without_io_uring_falls_back_to_epoll() {
    let filter = concat!(env!("CARGO_MANIFEST_DIR"), "/tools/deny-io-uring.py");
    let under = ["python3", filter];
    let node = Launch::default().with_credential().under(under).start();
    assert!(node.log().contains("refuses io_uring"), "{}", node.log());
    assert_serves(&node);
    let directory = tempfile::tempdir().unwrap();
    let (code, message) = Launch::default().under(under).arg("--io=uring").refused_start(directory.path());
    assert_eq!(code, Some(1), "{message}");
    assert!(message.contains("refuses io_uring") && message.contains("--io epoll"), "{message}");
}

#[test]
fn first_start_creates_credential_and_prints_examples() {
    let mut node = Launch::default().start();
    let log = node.log();
    let path = node.data().join("credentials.toml");
    // Its output is a pipe.
    assert!(log.contains(&node.signer().access_key) && log.contains(path.to_str().unwrap()), "{log}");
    assert!(!log.contains(&node.signer().secret_key), "{log}");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_serves(&node);
    let made = node.signer().clone();
    assert!(node.stop().success());
    node.start();
    assert_eq!((&made.access_key, &made.secret_key), (&node.signer().access_key, &node.signer().secret_key));
}

/// Runs the node on a terminal, and returns what it shows until it serves.
fn first_start_on_terminal(data: &Path) -> String {
    let tool = concat!(env!("CARGO_MANIFEST_DIR"), "/tools/run-on-terminal.py");
    let mut command = Command::new("python3");
    command.arg(tool).arg(binary()).args(["serve", "--listen", "127.0.0.1:0", "--data"]).arg(data);
    for name in ["KEYHOLE_ACCESS_KEY", "KEYHOLE_SECRET_KEY", "NOTIFY_SOCKET", "JOURNAL_STREAM"] {
        command.env_remove(name);
    }
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut shown = String::new();
    for line in BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok) {
        shown += &line;
        shown.push('\n');
        if line.starts_with("listening on http://") {
            break;
        }
    }
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert!(child.wait().unwrap().success());
    shown
}

#[test]
fn first_start_on_terminal_prints_secret_and_examples_once() {
    let directory = tempfile::tempdir().unwrap();
    let shown = first_start_on_terminal(directory.path());
    for part in
        ["export AWS_ACCESS_KEY_ID=", "s3api create-bucket", "--sse-c AES256", "--endpoint-url http://127.0.0.1:"]
    {
        assert!(shown.contains(part), "{part} in\n{shown}");
    }
    let text = fs::read_to_string(directory.path().join("credentials.toml")).unwrap();
    let secret = text.split("secret_key = \"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
    assert!(secret.len() > 20 && shown.contains(&format!("export AWS_SECRET_ACCESS_KEY={secret}")), "{shown}");
    let again = first_start_on_terminal(directory.path());
    assert!(again.contains("credential: from") && !again.contains(secret), "{again}");
}

/// Only root can run on another user's directory.
#[test]
fn root_is_warned_of_directory_of_other_user() {
    if !is_root() {
        return;
    }
    let mut node = Launch::default().with_credential().start();
    assert!(!node.log().contains("running as root"), "{}", node.log());
    assert!(node.stop().success());
    chown(node.data(), Some(12345), Some(12345)).unwrap();
    node.start();
    let log = node.log();
    assert_eq!(log.matches("running as root").count(), 1, "{log}");
    assert!(log.contains("user 12345") && log.contains("--reuid 12345"), "{log}");
    assert_serves(&node);
}

/// Files that options name are regular files. Nothing waits for the other end of a FIFO.
#[test]
fn other_kinds_of_file_are_refused() {
    let home = tempfile::tempdir().unwrap();
    let fifo = home.path().join("fifo");
    mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let data = home.path().join("data");
    for (option, kind) in [("--config", "FIFO"), ("--audit-log", "FIFO"), ("--tls-key", "FIFO"), ("--tls-cert", "FIFO")]
    {
        let mut launch = Launch::default().with_credential().arg(option).arg(&fifo);
        if option.starts_with("--tls") {
            let other = if option == "--tls-key" { "--tls-cert" } else { "--tls-key" };
            launch = launch.arg("--tls-listen=127.0.0.1:0").arg(other).arg(&fifo);
        }
        let (code, message) = launch.refused_start(&data);
        assert!(code.is_some_and(|code| code > 0) && message.contains(kind), "{option}: {message}");
    }
    fs::remove_dir_all(&data).ok();
    fs::create_dir(&data).unwrap();
    for name in ["objects.keyhole", "store.toml", "credentials.toml"] {
        mknodat(CWD, data.join(name), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let (code, message) = Launch::default().refused_start(&data);
        assert_eq!(code, Some(1), "{name}: {message}");
        assert!(message.contains(name) && message.contains("FIFO"), "{name}: {message}");
        fs::remove_file(data.join(name)).unwrap();
        for rest in fs::read_dir(&data).unwrap() {
            fs::remove_file(rest.unwrap().path()).unwrap();
        }
    }
}

/// By default the data are in the current directory.
#[test]
fn start_without_options_uses_current_directory() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new(binary());
    // Except for the port: the default one may be in use.
    command.args(["serve", "--listen", "127.0.0.1:0"]).current_dir(&directory).stdout(Stdio::piped());
    command.stderr(Stdio::null()).env_remove("KEYHOLE_ACCESS_KEY").env_remove("KEYHOLE_SECRET_KEY");
    let mut child = command.spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let ready = lines.into_iter().any(|line| line.starts_with("listening on http://127.0.0.1:"));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(ready);
    for name in ["objects.keyhole", "credentials.toml"] {
        let path = directory.path().join("keyhole-data").join(name);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600, "{name}");
    }
}

#[test]
fn start_with_unusable_port_or_data_is_refused() {
    let node = Node::new();
    let directory = tempfile::tempdir().unwrap();
    let check = |launch: Launch, data: &Path, parts: &[&str]| {
        let (code, message) = launch.refused_start(data);
        assert_eq!(code, Some(1), "{message}");
        for part in parts {
            assert!(message.contains(part), "{part} in: {message}");
        }
    };
    let address = node.address().to_string();
    let in_use = Launch::default().listen(&address);
    check(in_use, &directory.path().join("port"), &[&address, "in use", "--listen"]);
    check(Launch::default(), node.data(), &["in use by another", "--data"]);

    let foreign = directory.path().join("foreign");
    fs::create_dir(&foreign).unwrap();
    fs::write(foreign.join("objects.keyhole"), "a diary").unwrap();
    check(Launch::default(), &foreign, &["objects.keyhole"]);
    assert_eq!(fs::read(foreign.join("objects.keyhole")).unwrap(), b"a diary");

    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    check(Launch::default(), &file, &["cannot create the data directory"]);
}

/// Another version in the superblock: the message names both versions, and the file stays
/// unchanged.
#[test]
fn start_with_data_of_other_version_is_refused() {
    let mut node = Node::new();
    node.stop();
    let path = node.data().join("objects.keyhole");
    keyhole_tests::data::set_superblock_version(&path, 999);
    let before = fs::read(&path).unwrap();
    let (code, message) = Launch::default().refused_start(node.data());
    assert_eq!(code, Some(1), "{message}");
    assert!(message.contains("999") && message.contains("version"), "{message}");
    assert!(fs::read(&path).unwrap() == before);
}

#[test]
fn wrong_usage_exits_with_code_2() {
    for arguments in [&["serve", "--io", "magic"][..], &["serve", "--capacity", "lots"], &["sevre"], &[]] {
        let output = Command::new(binary()).args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(!output.stderr.is_empty());
    }
    for arguments in ["--help", "--version"] {
        assert!(Command::new(binary()).arg(arguments).output().unwrap().status.success());
    }
}

/// Requests in flight are answered; then the process exits with 0.
#[test]
fn sigterm_stops_node_cleanly() {
    for io in ["uring", "epoll"] {
        let mut node = Launch::default().with_credential().arg(format!("--io={io}")).start();
        assert_serves(&node);
        assert!(node.stop().success(), "{}", node.log());
        node.start();
        node.send(&Request::new("HEAD", "/start")).expect(200);
    }
}
