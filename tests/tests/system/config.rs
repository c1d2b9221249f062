//! Configuration: the command line, the environment and a file, under the same names.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use keyhole_tests::command::{Directory, expect_failure, expect_success};
use keyhole_tests::http::object;
use keyhole_tests::node::{ACCESS_KEY, SECRET_KEY, binary};
use keyhole_tests::{CustomerKey, Launch, Request};

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

#[test]
fn node_reads_settings_from_file_and_environment() {
    let directory = Directory::new();
    let path = directory.path("keyhole.toml");
    fs::write(
        &path,
        "region = \"eu-test-1\"\nlog = \"debug\"\nhost-name = [\"s3.test\"]\npolicy = [\"*:sse-c=require\"]\n",
    )
    .unwrap();
    let launch = Launch::default().with_credential().arg("--config").arg(&path);
    let mut node = launch.env("KEYHOLE_REGION", "us-east-1").env("KEYHOLE_THRAEDS", "1").start();
    node.make_bucket("bucket");
    // A request is logged once its reply is in flight.
    let begun = Instant::now();
    while !node.log().contains("DEBUG") && begun.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(node.log().contains("DEBUG") && node.log().contains("did you mean KEYHOLE_THREADS?"), "{}", node.log());

    // The node's policy applies until a bucket has its own.
    let data = node.data().to_str().unwrap().to_owned();
    let refused = node.send(&object("PUT", "o").body("x")).expect(403);
    assert!(refused.text().contains("requires customer-provided keys"), "{}", refused.text());
    let key = CustomerKey::random();
    node.send(&object("PUT", "o").headers(key.headers()).body("x")).expect(200);
    let set = |setting: &str| text(expect_success(&["bucket", "set", &data, "bucket", "--sse-c", setting], b""));
    assert!(text(expect_success(&["bucket", "get", &data, "bucket"], b"")).contains("sse-c: require\n"));
    assert!(set("allow").contains("sse-c: allow\n"));
    node.send(&object("PUT", "o").body("x")).expect(200);
    node.kill();
    node.start();
    node.send(&object("PUT", "o").body("x")).expect(200);
    assert!(set("default").contains("sse-c: require\n"));
    node.send(&object("PUT", "o").body("x")).expect(403);
    let virtual_hosted = Request::new("GET", "/o").header("host", "bucket.s3.test");
    node.send(&virtual_hosted).expect(200);
}

#[test]
fn config_commands_check_and_show_settings() {
    let directory = Directory::new();
    let path = directory.path("keyhole.toml");
    let data = directory.path("data");
    fs::write(&path, format!("data = {data:?}\nthreads = 2\nring = true\ncapacity = \"1GiB\"\n")).unwrap();
    let config = |command: &str, more: &[&str], environment: &[(&str, &str)]| {
        let mut program = Command::new(binary());
        program.args(["config", command, "--config", &path]).args(more).envs(environment.iter().copied());
        let output = program.env_remove("KEYHOLE_ACCESS_KEY").envs(environment.iter().copied()).output().unwrap();
        (output.status.code(), text(output.stdout) + &String::from_utf8_lossy(&output.stderr))
    };
    assert_eq!(config("check", &[], &[]), (Some(0), "the configuration is valid\n".to_owned()));
    assert!(!std::path::Path::new(&data).exists(), "a check creates nothing");
    let secrets = [("KEYHOLE_ACCESS_KEY", ACCESS_KEY), ("KEYHOLE_SECRET_KEY", SECRET_KEY), ("KEYHOLE_THREADS", "1")];
    let (code, shown) = config("show", &["--region", "eu-test-1"], &secrets);
    assert_eq!(code, Some(0), "{shown}");
    for line in [
        "threads = 1  # from KEYHOLE_THREADS".to_owned(),
        format!("ring = true  # from {path}"),
        "region = \"eu-test-1\"  # from the command line".to_owned(),
        "listen = \"127.0.0.1:9000\"".to_owned(),
        "# tls-listen is not set".to_owned(),
        format!("# access keys: {ACCESS_KEY} from KEYHOLE_ACCESS_KEY, its secret redacted"),
    ] {
        assert!(shown.lines().any(|shown| shown == line), "{line} in\n{shown}");
    }
    assert!(!shown.contains(SECRET_KEY));
    // The output is a valid configuration.
    let again = directory.path("again.toml");
    fs::write(&again, &shown).unwrap();
    expect_success(&["config", "check", "--config", &again], b"");
    let json: serde_json::Value = serde_json::from_str(&config("show", &["--json"], &[]).1).unwrap();
    assert_eq!(json["capacity"]["value"], "1GiB");
    assert_eq!(json["capacity"]["from"], path.as_str());

    for (line, code, words) in [
        ("treads = 2", 2, "did you mean \"threads\"?"),
        ("threads = 0", 2, "--threads was set by"),
        ("tls-listen = \"127.0.0.1:0\"", 2, "--tls-cert"),
        ("tls-listen = \"127.0.0.1:0\"\ntls-cert = \"none.pem\"\ntls-key = \"none.pem\"", 1, "none.pem"),
        ("policy = [\"*:sse-c=maybe\"]", 2, "allow, require or forbid"),
        ("data = \"/dev/no-such-device\"", 1, "no-such-device"),
        ("format = true", 2, "command line only"),
    ] {
        fs::write(&path, line).unwrap();
        let message = expect_failure(code, &["config", "check", "--config", &path], b"").1;
        assert!(message.contains(words), "{line}: {message}");
    }
    assert!(expect_failure(2, &["serve", "--config", &directory.path("none.toml")], b"").1.contains("none.toml"));
}
