//! The instructions of `REMOTES.md` for an operator who has lost a machine, followed word by word.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use keyhole_tests::aws::program;
use keyhole_tests::command::Directory;
use keyhole_tests::data::bytes;
use keyhole_tests::node::{ACCESS_KEY, SECRET_KEY, binary};
use keyhole_tests::{CustomerKey, Node, Request, top};

use super::{Remote, free_address, launch, text, verify, wait_until_shipped};
use crate::transfer::stream;
use crate::transfer::versions::set_versioning;

/// Returns the lines of a code block of the page with this label.
fn block(label: &str) -> String {
    let page = fs::read_to_string(top().join("crates/keyhole/docs/REMOTES.md")).unwrap();
    let (_, rest) = page.split_once(&format!("```sh {label}\n")).expect("a block of the page");
    rest.split("```").next().unwrap().to_owned()
}

/// Runs a script in a directory that has the programs of the page.
#[track_caller]
fn follow(directory: &Path, script: &str, variables: &[(&str, &str)]) {
    let programs = directory.join("bin");
    if !programs.exists() {
        fs::create_dir(&programs).unwrap();
        symlink(binary(), programs.join("keyhole")).unwrap();
        symlink(program("KEYHOLE_AWSCLI_2"), programs.join("aws")).unwrap();
    }
    let path = format!("{}:{}", text(&programs), std::env::var("PATH").unwrap());
    let end = "trap 'kill $(jobs -p) 2> /dev/null || :; wait' EXIT";
    let mut command = Command::new("bash");
    command.args(["-euo", "pipefail", "-c", &format!("{end}\n{script}")]).current_dir(directory);
    command.env("PATH", path).envs(variables.iter().copied());
    command.envs([("KEYHOLE_ACCESS_KEY", ACCESS_KEY), ("KEYHOLE_SECRET_KEY", SECRET_KEY)]);
    command.envs([("AWS_ACCESS_KEY_ID", ACCESS_KEY), ("AWS_SECRET_ACCESS_KEY", SECRET_KEY)]);
    command.envs([("AWS_DEFAULT_REGION", "us-east-1"), ("AWS_EC2_METADATA_DISABLED", "true")]);
    command.envs([("AWS_CONFIG_FILE", "/dev/null"), ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")]);
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}\n{text}");
}

#[test]
fn lost_machine_is_rebuilt_as_documented() {
    let service = Node::with_bucket();
    let remote = Remote::new(&service.endpoint());
    let key = CustomerKey::random();
    let mut node = launch().start();
    ["photos", "films"].iter().for_each(|bucket| node.make_bucket(bucket));
    set_versioning(&node, "films", "Enabled");
    let cat = bytes(1, 3_000_000);
    let put = |path: &str| Request::new("PUT", path).headers(key.headers());
    node.send(&put("/photos/cat.jpg").header("x-amz-meta-name", "Minka").body(cat.clone())).expect(200);
    for number in 0..50 {
        node.send(&put(&format!("/photos/{number}")).body(bytes(number, 2000))).expect(200);
        node.send(&put("/films/holidays").body(bytes(number, 20_000))).expect(200);
    }
    node.send(&Request::new("DELETE", "/films/holidays")).expect(204);
    remote.add(&node, &[]);
    wait_until_shipped(&node);
    verify(&node, 0);
    // The machine is lost. Its store serves the comparison only.
    node.kill();

    let directory = Directory::new();
    let data = directory.path("data");
    let address = free_address();
    let variables = [
        ("DATA", &data[..]),
        ("ADDRESS", &address),
        ("URL", &remote.url),
        ("BUCKET", &remote.bucket),
        ("PREFIX", &remote.prefix),
        ("CREDENTIALS", &remote.credentials.path),
    ];
    // The default capacity is most of the disk.
    let rebuild = block("rebuild").replace("--listen", "--capacity 8GiB --listen");
    follow(directory.home(), &rebuild, &variables);
    assert!(stream(node.data(), &[]) == stream(Path::new(&data), &[]));
    // Repeated after an interruption.
    follow(directory.home(), &rebuild, &variables);
    let rebuilt = launch().start_in(Path::new(&data));
    let read = rebuilt.send(&Request::new("GET", "/photos/cat.jpg").headers(key.headers())).expect(200);
    assert!(read.body == cat && read.header("x-amz-meta-name") == Some("Minka"));

    fs::write(directory.path("customer.key"), key.0).unwrap();
    follow(directory.home(), &block("single"), &variables);
    assert!(fs::read(directory.path("cat.jpg")).unwrap() == cat);

    // The rebuilt store takes over the remote.
    remote.add(&rebuilt, &["--take-over"]);
    wait_until_shipped(&rebuilt);
    verify(&rebuilt, 0);
}
