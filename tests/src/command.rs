//! The binary's commands that need no node, with what goes in and what comes out.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::node::binary;

/// Runs the binary with this on its standard input, through a pipe.
pub fn run(arguments: &[&str], input: &[u8]) -> Output {
    let mut command = Command::new(binary());
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    std::thread::scope(|scope| {
        // A command that refuses its input does not read it all.
        scope.spawn(move || drop(stdin.write_all(input)));
        child.wait_with_output().unwrap()
    })
}

/// What it wrote; panics with what it said if it failed.
#[track_caller]
pub fn succeeds(arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let output = run(arguments, input);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// What it wrote, and what it said, having failed with this code.
#[track_caller]
pub fn fails(code: i32, arguments: &[&str], input: &[u8]) -> (Vec<u8>, String) {
    let output = run(arguments, input);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
    assert!(said.starts_with("keyhole: ") || said.starts_with("error: "), "{said}");
    (output.stdout, said)
}

/// A directory that goes when it is dropped.
#[derive(Debug)]
pub struct Directory(tempfile::TempDir);

impl Default for Directory {
    fn default() -> Self {
        Self::new()
    }
}

impl Directory {
    /// An empty one.
    pub fn new() -> Self {
        Directory(tempfile::tempdir().expect("a directory"))
    }

    /// Where it is.
    pub fn home(&self) -> &Path {
        self.0.path()
    }

    /// The path of a file in it.
    pub fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().expect("a path in UTF-8").to_owned()
    }

    /// The path of a file with a new key.
    pub fn key(&self, name: &str) -> String {
        let path = self.path(name);
        succeeds(&["key", "new", &path], b"");
        path
    }
}
