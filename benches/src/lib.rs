//! Common parts of `keyhole-load`, `keyhole-report` and `keyhole-train`: the load generator and its
//! measurements.
//!
//! - [`work`]: load with objects of one size over a number of connections, and its measurement;
//! - [`wire`]: a connection, its requests and replies;
//! - [`process`]: resource usage of processes and of the machine;
//! - [`report`]: all end-to-end figures with their limits, floors and the figures of nginx.
//!
//! `benches/run` runs all measurements. `benches/README.md` describes what is measured and how to
//! read the figures.
#![deny(unsafe_code)]

mod error;
pub mod process;
pub mod report;
pub mod wire;
pub mod work;

pub use error::{Error, Result};
