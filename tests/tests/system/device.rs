//! A block device as the store: loop devices, which need root. Without root these tests report that
//! they are skipped.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use keyhole_tests::data::bytes;
use keyhole_tests::{CustomerKey, Launch, Node, Request};

use crate::operate::{exits_with, json};

const LEN: u64 = 128 << 20;
const O_EXCL: i32 = 0o200;

/// A loop device over a file of zeros, detached on drop.
struct Device {
    directory: tempfile::TempDir,
    path: PathBuf,
}

impl Device {
    /// Creates a device, or reports that the test is skipped and returns `None`.
    fn new(test: &str) -> Option<Self> {
        let skip = |reason: &str| {
            // The harness captures the output of the print macros.
            let _ = writeln!(std::io::stderr(), "SKIPPED device::{test}: {reason}");
            None
        };
        if fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() != 0) {
            return skip("loop devices need root");
        }
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("image");
        File::create(&file).unwrap().set_len(LEN).unwrap();
        let output = Command::new("losetup").args(["--find", "--show"]).arg(&file).output();
        match output {
            Ok(output) if output.status.success() => {
                let path = PathBuf::from(String::from_utf8(output.stdout).unwrap().trim());
                Some(Device { directory, path })
            }
            Ok(output) => skip(&format!("losetup: {}", String::from_utf8_lossy(&output.stderr).trim())),
            Err(error) => skip(&format!("losetup: {error}")),
        }
    }

    fn state(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    fn text(&self) -> &str {
        self.path.to_str().unwrap()
    }

    fn launch(&self) -> Launch {
        let launch = Launch::default().capacity(None).with_credential();
        launch.arg("--threads=2").arg("--state").arg(self.state())
    }

    fn write(&self, offset: u64, bytes: &[u8]) {
        let device = OpenOptions::new().write(true).open(&self.path).unwrap();
        device.write_all_at(bytes, offset).unwrap();
        device.sync_all().unwrap();
    }

    fn read(&self, offset: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        File::open(&self.path).unwrap().read_exact_at(&mut bytes, offset).unwrap();
        bytes
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("--detach").arg(&self.path).status();
    }
}

#[track_caller]
fn assert_start_refused(launch: &Launch, data: &Path, parts: &[&str]) {
    let (code, message) = launch.refused_start(data);
    assert_eq!(code, Some(1), "{message}");
    for part in parts {
        assert!(message.contains(part), "{part} in: {message}");
    }
}

fn round_trip(node: &Node, path: &str) {
    let key = CustomerKey::random();
    let body = bytes(7, 5 << 20);
    node.send(&Request::new("PUT", path).headers(key.headers()).body(body.clone())).expect(200);
    let got = node.send(&Request::new("GET", path).headers(key.headers())).expect(200);
    assert!(got.body == body);
}

#[test]
fn block_device_is_formatted_served_and_operated() {
    for io in ["uring", "epoll"] {
        let Some(device) = Device::new("block_device_is_formatted_served_and_operated") else { return };
        // Signatures of other formats, at the end and outside the superblock.
        device.write(LEN - 512, b"EFI PART");
        device.write(0x10040, b"_BHRfS_M");
        let io = format!("--io={io}");
        let mut node = device.launch().arg(&io).arg("--format").start_in(&device.path);
        node.make_bucket("device");
        round_trip(&node, "/device/object");
        assert_eq!((device.read(LEN - 512, 8), device.read(0x10040, 8)), (vec![0; 8], vec![0; 8]));

        let state = device.state();
        let state = state.to_str().unwrap();
        let stat = json(&["stat", device.text(), "--state", state, "--json"]);
        assert_eq!((&stat["capacity"], &stat["objects"]), (&LEN.into(), &1.into()));
        exits_with(0, &["scrub", device.text(), "--state", state]);
        // The device is exclusive: other nodes and commands are refused.
        assert_start_refused(&device.launch(), &device.path, &["in use", "--data"]);
        let (_, message) = exits_with(1, &["check", device.text()]);
        assert!(message.contains("in use"), "{message}");
        assert!(node.stop().success());

        assert_eq!(json(&["check", device.text(), "--json"])["objects"], 1);
        assert_eq!(json(&["stat", device.text(), "--json"])["objects"], 1);
        assert_start_refused(
            &device.launch().arg("--format"),
            &device.path,
            &["has a Keyhole store already", "without --format"],
        );
        assert_start_refused(&device.launch().arg("--capacity=1GiB"), &device.path, &["--capacity", &LEN.to_string()]);
        let mut node = device.launch().arg(&io).start_in(&device.path);
        node.send(&Request::new("HEAD", "/device")).expect(200);
        round_trip(&node, "/device/another");
        assert!(node.stop().success());
    }
}

#[test]
fn foreign_device_is_refused_and_unchanged() {
    let Some(device) = Device::new("foreign_device_is_refused_and_unchanged") else { return };
    let cases: [(u64, &[u8], &str); 6] = [
        (0, b"", "nothing but zeros"),
        (0x200, b"EFI PART", "GPT partition table"),
        (0x438, b"\x53\xef", "ext4 file system"),
        (0, b"XFSB", "XFS file system"),
        (0, b"LUKS\xba\xbe", "LUKS"),
        (0, b"a diary", "unknown"),
    ];
    for (at, mark, name) in cases {
        device.write(0, &[0; 4096]);
        device.write(at, mark);
        let before = device.read(0, 2 << 20);
        assert_start_refused(&device.launch(), &device.path, &["no Keyhole store", name, "--format", "erases"]);
        let (_, message) = exits_with(1, &["check", device.text()]);
        assert!(message.contains(name), "{message}");
        assert!(device.read(0, 2 << 20) == before, "{name}");
        assert!(!device.state().exists(), "a refused start creates no state");
    }
    // A device in use is refused even with consent.
    let user = OpenOptions::new().read(true).custom_flags(O_EXCL).open(&device.path).unwrap();
    let before = device.read(0, 2 << 20);
    assert_start_refused(&device.launch().arg("--format"), &device.path, &["in use", "mounted"]);
    assert!(device.read(0, 2 << 20) == before);
    drop(user);
    assert_start_refused(&device.launch().arg("--format").arg("--capacity=1GiB"), &device.path, &["--capacity"]);
    assert_start_refused(&device.launch().arg("--format").arg("--capacity=1MiB"), &device.path, &["capacity"]);
    assert!(device.read(0, 2 << 20) == before);
    assert_start_refused(&device.launch(), Path::new("/dev/no-such-device"), &["/dev/no-such-device"]);
}

/// A device named by a link, with a capacity below its size, and its state in the default
/// directory.
#[test]
fn linked_device_with_capacity_uses_default_state() {
    let Some(device) = Device::new("linked_device_with_capacity_uses_default_state") else { return };
    let link = device.directory.path().join("by-name");
    symlink(&device.path, &link).unwrap();
    let home = format!("XDG_STATE_HOME={}", device.directory.path().display());
    let launch = Launch::default().capacity(None).with_credential().under(["env", &home]);
    let mut node = launch.arg("--threads=1").arg("--format").arg("--capacity=64MiB").start_in(&link);
    let state = device.directory.path().join("keyhole/by-name");
    assert_eq!(fs::metadata(&state).unwrap().permissions().mode() & 0o777, 0o700);
    assert!(state.join("control.sock").exists());
    node.make_bucket("full");
    let body = bytes(1, 4 << 20);
    let stored = (0..32).take_while(|n| {
        let status = node.send(&Request::new("PUT", &format!("/full/{n}")).body(body.clone())).status;
        assert!(status == 200 || status == 507, "{status}");
        status == 200
    });
    let stored = stored.count();
    assert!((4..16).contains(&stored), "{stored} objects of 4 MiB in 64 MiB");
    assert!(node.stop().success());
    let objects = &json(&["stat", link.to_str().unwrap(), "--json"])["objects"];
    assert_eq!(*objects, stored);
}
