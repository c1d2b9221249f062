//! Operator commands, with and without a running node.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use keyhole_tests::data::{bytes, fresh_seed};
use keyhole_tests::node::binary;
use keyhole_tests::{Launch, Node, Request};
use serde_json::Value;

const SOCKET: &str = "control.sock";
const FILE: &str = "objects.keyhole";

fn run(arguments: &[&str]) -> Output {
    Command::new(binary()).args(arguments).output().unwrap()
}

/// Runs a command that must exit with this code, and returns standard output and standard error.
#[track_caller]
pub(crate) fn exits_with(code: i32, arguments: &[&str]) -> (String, String) {
    let output = run(arguments);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let stdout = text(&output.stdout);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {stdout}{stderr}");
    (stdout, stderr)
}

#[track_caller]
pub(crate) fn json(arguments: &[&str]) -> Value {
    serde_json::from_str(&exits_with(0, arguments).0).unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Stores a world-readable object whose data can be found on the disk.
fn put_plain(node: &Node, path: &str, body: &[u8]) {
    node.send(&Request::new("PUT", path).body(body)).expect(200);
}

/// Changes a byte of the object file at the position of these bytes.
pub(crate) fn damage(file: &Path, body: &[u8]) {
    let mut all = fs::read(file).unwrap();
    let needle = &body[body.len() / 2..body.len() / 2 + 4096];
    let at = all.chunks(4096).position(|page| page == needle).expect("the object is on the disk") * 4096;
    all[at + 7] ^= 1;
    use std::os::unix::fs::FileExt;
    let file = fs::OpenOptions::new().write(true).open(file).unwrap();
    file.write_all_at(&all[at..at + 4096], at as u64).unwrap();
}

/// Sends a line to the socket and returns the replies until the node closes the connection.
fn control_request(socket: &Path, line: &[u8]) -> Vec<Value> {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.write_all(line).unwrap();
    BufReader::new(stream).lines().map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect()
}

#[test]
fn control_socket_is_private_and_removed_at_shutdown() {
    for io in ["uring", "epoll"] {
        let mut node = Launch::default().with_credential().arg(format!("--io={io}")).start();
        let socket = node.data().join(SOCKET);
        let metadata = fs::symlink_metadata(&socket).unwrap();
        assert!(metadata.file_type().is_socket());
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
        let replies = control_request(&socket, b"{\"request\":\"stat\"}\n");
        assert_eq!((replies.len(), &replies[0]["reply"]), (1, &"stat".into()));
        assert!(node.stop().success());
        assert!(!socket.exists(), "an orderly shutdown removes the socket");

        // A crash leaves the socket: commands notice the missing listener, and the next node
        // replaces it.
        node.start();
        node.make_bucket("left");
        node.kill();
        assert!(socket.exists());
        assert_eq!(json(&["stat", text(node.data()), "--json"])["buckets"], 1);
        node.start();
        assert_eq!(control_request(&socket, b"{\"request\":\"stat\"}\n")[0]["buckets"], 1);
        assert!(node.stop().success());
    }
}

#[test]
fn invalid_control_requests_are_refused() {
    let node = Node::new();
    let socket = node.data().join(SOCKET);
    let long = [&b"{\"request\":\"bucket-get\",\"bucket\":\""[..], &[b'b'; 100_000], b"\"}\n"].concat();
    let lines: [&[u8]; 7] = [
        b"\n",
        b"hello\n",
        b"{\"request\":\"format\"}\n",
        b"{\"request\":\"scrub\",\"rate_bytes_per_s\":0}\n",
        b"{\"request\":\"bucket-get\",\"bucket\":\"absent\"}\n",
        b"\xff\xfe\n",
        &long[..8192],
    ];
    for line in lines {
        let replies = control_request(&socket, line);
        assert_eq!((replies.len(), &replies[0]["reply"]), (1, &"failed".into()), "{}", String::from_utf8_lossy(line));
        assert!(!replies[0]["message"].as_str().unwrap().is_empty());
    }
    // Silent connections use up the slots, and block no other clients.
    let quiet: Vec<UnixStream> = (0..4).map(|_| UnixStream::connect(&socket).unwrap()).collect();
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let mut stream = UnixStream::connect(&socket).unwrap();
        let _ = stream.write_all(b"{\"request\":\"stat\"}\n");
        let mut reply = String::new();
        let _ = stream.read_to_string(&mut reply);
        if reply.contains("try again later") {
            break;
        }
        assert!(Instant::now() < deadline, "{reply}");
    }
    node.make_bucket("served");
    drop(quiet);
    let deadline = Instant::now() + Duration::from_secs(20);
    while run(&["stat", text(node.data())]).status.code() != Some(0) {
        assert!(Instant::now() < deadline, "the slots are not freed in time");
    }
}

#[test]
fn stat_and_compact_work_online_and_offline() {
    let mut node = Node::new();
    node.make_bucket("stat");
    for n in 0..3 {
        put_plain(&node, &format!("/stat/{n}"), &bytes(n, 2 << 20));
    }
    node.send(&Request::new("DELETE", "/stat/0")).expect(204);
    let data = node.data().to_owned();
    let check = || {
        let stat = json(&["stat", text(&data), "--json", "--segments"]);
        assert_eq!((&stat["buckets"], &stat["objects"], &stat["uploads"]), (&1.into(), &2.into(), &0.into()));
        assert_eq!(stat["capacity"], 8u64 << 30);
        assert!(stat["live"].as_u64().unwrap() >= 4 << 20, "{stat}");
        assert_eq!(stat["batches"].as_array().unwrap().len(), 10);
        let segments = stat["segments"].as_array().unwrap();
        assert!(segments.iter().any(|segment| segment["kind"] == "body"), "{stat}");
        assert!(json(&["stat", text(&data), "--json"]).get("segments").is_none());
        let (shown, _) = exits_with(0, &["stat", text(&data), "--segments"]);
        for part in ["capacity", "live", "commits per batch", "index memory", "generation", "8.0 GiB"] {
            assert!(shown.contains(part), "{part} in\n{shown}");
        }
        let (stdout, _) = exits_with(0, &["compact", text(&data)]);
        assert!(stdout.contains("segments freed"), "{stdout}");
    };
    check();
    assert!(node.stop().success());
    check();
    node.start();
    assert_eq!(node.send(&Request::new("GET", "/stat/2")).expect(200).body, bytes(2, 2 << 20));
}

#[test]
fn check_and_scrub_report_damaged_object() {
    let mut node = Node::new();
    node.make_bucket("care");
    let seed = fresh_seed();
    let whole = bytes(seed, 3 << 20);
    let hurt = bytes(seed + 1, 3 << 20);
    put_plain(&node, "/care/whole", &whole);
    put_plain(&node, "/care/hurt", &hurt);
    let data = node.data().to_owned();
    let file = data.join(FILE);
    let scrub = ["scrub", text(&data), "--rate", "1GB/s"];

    let (stdout, _) = exits_with(0, &scrub);
    assert!(stdout.contains(" 0 damaged"), "{stdout}");
    let (_, stderr) = exits_with(1, &["check", text(&data)]);
    assert!(stderr.contains("stop it") && stderr.contains("keyhole scrub"), "{stderr}");
    assert!(node.stop().success());
    exits_with(0, &scrub);
    let sound = json(&["check", text(&data), "--json"]);
    assert_eq!((&sound["sound"], &sound["objects"], &sound["buckets"]), (&true.into(), &2.into(), &1.into()));
    let (stdout, _) = exits_with(0, &["check", text(&data)]);
    assert!(stdout.contains("2 objects") && stdout.contains("damaged: 0"), "{stdout}");

    damage(&file, &hurt);
    let before = fs::read(&file).unwrap();
    let (stdout, stderr) = exits_with(4, &["check", text(&data)]);
    assert!(stdout.contains("lost: care/hurt: ") && !stdout.contains("care/whole"), "{stdout}");
    assert!(stderr.contains("damage"), "{stderr}");
    let output = run(&["check", text(&data), "--json"]);
    assert_eq!(output.status.code(), Some(4));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let finding = &report["findings"][0];
    assert_eq!((&finding["bucket"], &finding["key"]), (&"care".into(), &"hurt".into()), "{report}");
    assert_eq!((&finding["verdict"], &report["sound"]), (&"lost".into(), &false.into()));
    assert!(fs::read(&file).unwrap() == before, "a check leaves the file unchanged");

    let found = |code_and_text: (String, String)| {
        let (stdout, _) = code_and_text;
        assert!(stdout.contains("damaged: care/hurt: ") && stdout.contains(" 1 damaged"), "{stdout}");
    };
    found(exits_with(4, &scrub));
    node.start();
    found(exits_with(4, &scrub));
    assert!(node.log().contains("hurt"), "the log names the damaged object");
    assert_eq!(node.send(&Request::new("GET", "/care/whole")).expect(200).body, whole);
}

/// A slow scrub ends when its client disconnects or its node stops.
#[test]
fn scrub_ends_with_its_client_or_node() {
    let mut node = Node::new();
    node.make_bucket("slow");
    put_plain(&node, "/slow/object", &bytes(1, 4 << 20));
    let socket = node.data().join(SOCKET);
    let begin = || {
        let mut stream = UnixStream::connect(&socket).unwrap();
        stream.write_all(b"{\"request\":\"scrub\",\"rate_bytes_per_s\":1}\n").unwrap();
        let mut lines = BufReader::new(stream);
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        assert!(line.contains("progress"), "{line}");
        lines
    };
    drop(begin());
    let deadline = Instant::now() + Duration::from_secs(20);
    while !node.log().contains("a client of the control socket disconnected") {
        assert!(Instant::now() < deadline, "{}", node.log());
        std::thread::sleep(Duration::from_millis(50));
    }
    let mut lines = begin();
    let begun = Instant::now();
    assert!(node.stop().success());
    assert!(begun.elapsed() < Duration::from_secs(9), "the grace period applies only to requests");
    let mut rest = String::new();
    lines.read_to_string(&mut rest).unwrap();
    assert!(!rest.contains("scrubbed"), "{rest}");
}

#[test]
fn bucket_settings_are_set_and_shown() {
    let node = Node::new();
    node.make_bucket("kept");
    let data = text(node.data()).to_owned();
    let get = || json(&["bucket", "get", &data, "kept", "--json"]);
    assert_eq!((&get()["quota"], &get()["expire_days"]), (&Value::Null, &Value::Null));
    let (stdout, _) = exits_with(0, &["bucket", "set", &data, "kept", "--quota", "1GiB", "--expire-days", "30"]);
    assert!(stdout.contains("1.0 GiB") && stdout.contains("expire-days: 30"), "{stdout}");
    exits_with(0, &["bucket", "set", &data, "kept", "--quota", "none"]);
    assert_eq!((&get()["quota"], &get()["expire_days"]), (&Value::Null, &30.into()), "other settings stay");
    let (_, stderr) = exits_with(1, &["bucket", "get", &data, "absent"]);
    assert!(stderr.contains("no such bucket"), "{stderr}");
    exits_with(1, &["bucket", "set", &data, "absent", "--quota", "1GiB"]);
    exits_with(2, &["bucket", "set", &data, "kept"]);
    exits_with(2, &["bucket", "set", &data, "kept", "--expire-days", "0"]);
}

#[test]
fn put_beyond_quota_is_rejected() {
    let mut node = Node::new();
    node.make_bucket("bound");
    let data = text(node.data()).to_owned();
    exits_with(0, &["bucket", "set", &data, "bound", "--quota", "3MiB"]);
    let put =
        |node: &Node, key: &str| node.send(&Request::new("PUT", &format!("/bound/{key}")).body(bytes(1, 2 << 20)));
    put(&node, "a").expect(200);
    let refused = put(&node, "b").expect(403);
    assert_eq!(refused.element("Code").as_deref(), Some("QuotaExceeded"));
    assert!(node.stop().success());
    assert_eq!(json(&["bucket", "get", &data, "bound", "--json"])["quota"], 3 << 20);
    exits_with(0, &["bucket", "set", &data, "bound", "--quota", "none"]);
    node.start();
    put(&node, "b").expect(200);
}

#[test]
fn commands_without_store_fail() {
    let directory = tempfile::tempdir().unwrap();
    let absent = directory.path().join("absent");
    for command in [&["stat"][..], &["compact"], &["scrub"], &["check"]] {
        let (_, stderr) = exits_with(1, &[command, &[text(&absent)]].concat());
        assert!(stderr.contains("no store in") && stderr.contains("keyhole serve --data"), "{stderr}");
        exits_with(2, command);
    }
    assert!(!absent.exists());
    exits_with(2, &["scrub", text(&absent), "--rate", "0"]);
    let (_, stderr) = Launch::default().arg("--format").refused_start(&absent);
    assert!(stderr.contains("block device"), "{stderr}");

    // A file that is not a store.
    let foreign = directory.path().join("foreign");
    fs::create_dir(&foreign).unwrap();
    fs::write(foreign.join(FILE), "a diary").unwrap();
    for command in ["stat", "check"] {
        let (_, stderr) = exits_with(1, &[command, text(&foreign)]);
        assert!(stderr.contains(FILE), "{stderr}");
    }
    assert_eq!(fs::read(foreign.join(FILE)).unwrap(), b"a diary");
}

/// The state directory is separate from the data and holds the socket.
#[test]
fn separate_state_directory_holds_socket() {
    let directory = tempfile::tempdir().unwrap();
    // Longer than a socket path may be.
    let state = directory.path().join("s".repeat(120));
    let node = Launch::default().with_credential().arg("--state").arg(&state).start();
    node.make_bucket("elsewhere");
    assert_eq!(fs::metadata(&state).unwrap().permissions().mode() & 0o777, 0o700);
    assert!(state.join(SOCKET).exists() && !node.data().join(SOCKET).exists());
    let stat = json(&["stat", text(node.data()), "--state", text(&state), "--json"]);
    assert_eq!(stat["buckets"], 1);
    let (_, stderr) = exits_with(1, &["stat", text(node.data())]);
    assert!(stderr.contains("in use by another"), "{stderr}");
}
