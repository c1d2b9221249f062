//! From a microcontroller to a client: a Cortex-M4 seals an object, any S3 client reads it with the
//! key, and the node cannot.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use keyhole_tests::aws::CLIS;
use keyhole_tests::device::skipped;
use keyhole_tests::{Aws, CustomerKey, Launch, Node, Request};

/// Returns the board's program, built by `firmware/build`, if it and QEMU are available.
fn uploader() -> Option<PathBuf> {
    let usual = || keyhole_tests::target_dir().join("firmware/thumbv7em-none-eabihf/release/upload");
    let program = std::env::var_os("KEYHOLE_FIRMWARE_UPLOAD").map_or_else(usual, PathBuf::from);
    let qemu = Command::new("qemu-system-arm").arg("--version").output().is_ok();
    let is_there = qemu && program.exists();
    assert!(
        is_there || std::env::var_os("KEYHOLE_FIRMWARE_UPLOAD").is_none(),
        "{}, or QEMU, is missing",
        program.display()
    );
    is_there.then_some(program)
}

/// Runs the board with its UART connected to the node. It writes the plaintext of its reading to
/// the directory.
fn run(program: &Path, directory: &Path, node: &Node, customer_key: &CustomerKey, settings: &[String]) -> Output {
    let address = node.address();
    let mut semihosting = "enable=on,target=native,arg=upload,arg=bucket=edge,arg=copy=1".to_owned();
    let fixed = [format!("host={address}"), format!("customer-key={}", hex::encode(customer_key.0))];
    for setting in fixed.iter().chain(settings) {
        semihosting += &format!(",arg={}", setting.replace(',', ",,"));
    }
    let mut qemu = Command::new("timeout");
    qemu.args(["120", "qemu-system-arm", "-M", "mps2-an386", "-display", "none", "-monitor", "none"]);
    qemu.args(["-serial", &format!("tcp:{address}"), "-semihosting-config", &semihosting, "-kernel"]);
    qemu.arg(program).current_dir(directory).output().unwrap()
}

#[test]
fn object_sealed_by_board_is_read_by_clients() {
    let Some(program) = uploader() else {
        return skipped("object_sealed_by_board_is_read_by_clients", "run firmware/build first");
    };
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let mut node = Launch::default().with_credential().capacity(Some("128MiB")).arg("--log=trace").start();
    node.make_bucket("edge");
    let key = CustomerKey::random();
    let other = CustomerKey::random();
    fs::write(path.join("right.key"), key.0).unwrap();
    fs::write(path.join("wrong.key"), other.0).unwrap();
    let signer = node.signer();
    let own = |name: &str| {
        vec![
            format!("key={name}"),
            format!("access-key={}", signer.access_key),
            format!("secret-key={}", signer.secret_key),
            format!("region={}", signer.region),
        ]
    };
    // With a presigned URL the board has no credential.
    let url = Request::new("PUT", "/edge/room/presigned").header("x-keyhole-sealed", "1");
    let url = url.presigned(node.address(), signer, 300).target();
    let presigned = vec!["key=room/presigned".to_owned(), format!("url={url}")];

    let mut readings = Vec::new();
    for (name, settings) in [("room/1", own("room/1")), ("room/presigned", presigned)] {
        let output = run(&program, path, &node, &key, &settings);
        let printed = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{printed}");
        assert!(printed.contains("answered with 200"), "{printed}");
        let reading = fs::read(path.join("reading.txt")).unwrap();
        assert!(reading.len() > 500, "{} bytes", reading.len());
        for cli in CLIS {
            let aws = Aws::new(cli, &node, path);
            let get = |with: &str| format!("aws s3api get-object --bucket edge --key {name} got {with}");
            let with_key =
                |file: &str| get(&format!("--sse-customer-algorithm AES256 --sse-customer-key fileb://{file}"));
            aws.shell(&with_key("right.key"));
            assert_eq!(fs::read(path.join("got")).unwrap(), reading, "{cli}");
            let wrong = aws.shell_error(&with_key("wrong.key"));
            assert!(wrong.contains("AccessDenied"), "{wrong}");
            let without = aws.shell_error(&get(""));
            assert!(without.contains("InvalidRequest"), "{without}");
        }
        readings.push(reading);
    }
    // A refused board reports it, and stores nothing.
    let mut refused = own("room/refused");
    refused[2] = "secret-key=another".to_owned();
    let output = run(&program, path, &node, &key, &refused);
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    node.send(&Request::new("GET", "/edge/room/refused")).expect(404);

    assert!(node.stop().success());
    assert_eq!(node.occurrences_of(&key.0), [""; 0]);
    for reading in &readings {
        let lines = reading.split_inclusive(|byte| *byte == b'\n').take(5);
        for line in lines {
            assert_eq!(node.occurrences_of(line), [""; 0]);
        }
    }
}
