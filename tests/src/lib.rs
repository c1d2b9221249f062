//! The harness of the system tests: the real binary, real clients, and an HTTP client that can also
//! send invalid requests.
//!
//! `tests/run` builds the binary, installs the clients, and passes their paths in the environment.
//! A plain `cargo test` builds the binary itself and looks for the clients in the directories of
//! `tests/run`.
//!
//! A test starts a node with [`Launch`] and sends [`Request`]s, or runs a client such as [`Aws`];
//! `tests/tests/system/objects.rs` is a short example.

pub mod aws;
pub mod cgroup;
pub mod command;
pub mod data;
pub mod device;
pub mod faulty;
pub mod form;
pub mod hostile;
pub mod http;
pub mod linearizability;
pub mod load;
pub mod manager;
pub mod mounted;
pub mod node;
pub mod object_file;
pub mod port;
pub mod recorder;
pub mod scan;
pub mod seaweedfs;
pub mod sigv4;
pub mod tls;

pub use aws::Aws;
pub use data::CustomerKey;
pub use http::{Request, Response};
pub use manager::Manager;
pub use node::{Launch, Node};
pub use recorder::Recorder;
pub use seaweedfs::SeaweedFs;
pub use tls::Certificate;

use std::path::{Path, PathBuf};

/// Returns the root directory of the project.
pub fn top() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// Returns the target directory of Cargo.
pub fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| top().join("target"), PathBuf::from)
}
