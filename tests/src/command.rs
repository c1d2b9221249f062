//! Commands of the binary that need no node, with their input and output.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::node::binary;

/// Runs the binary with this standard input, through a pipe.
pub fn run(arguments: &[&str], input: &[u8]) -> Output {
    let mut command = Command::new(binary());
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    std::thread::scope(|scope| {
        // A command that rejects its input does not read all of it.
        scope.spawn(move || drop(stdin.write_all(input)));
        child.wait_with_output().unwrap()
    })
}

/// Returns the standard output. Panics with the standard error if the command failed.
#[track_caller]
pub fn expect_success(arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let output = run(arguments, input);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Returns standard output and standard error of a command that must fail with this exit code.
#[track_caller]
pub fn expect_failure(code: i32, arguments: &[&str], input: &[u8]) -> (Vec<u8>, String) {
    let output = run(arguments, input);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {stderr}");
    assert!(stderr.starts_with("keyhole: ") || stderr.starts_with("error: "), "{stderr}");
    (output.stdout, stderr)
}

/// A temporary directory, removed on drop.
#[derive(Debug)]
pub struct Directory(tempfile::TempDir);

impl Default for Directory {
    fn default() -> Self {
        Self::new()
    }
}

impl Directory {
    /// Creates an empty directory.
    pub fn new() -> Self {
        Directory(tempfile::tempdir().expect("a directory"))
    }

    /// Returns its path.
    pub fn home(&self) -> &Path {
        self.0.path()
    }

    /// Returns the path of a file in it.
    pub fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().expect("a path in UTF-8").to_owned()
    }

    /// Creates a new key file in it and returns its path.
    pub fn key(&self, name: &str) -> String {
        let path = self.path(name);
        expect_success(&["key", "new", &path], b"");
        path
    }
}
