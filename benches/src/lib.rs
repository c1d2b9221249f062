//! What `keyhole-load` and `keyhole-report` share: the load generator, and what is measured with it.
//!
//! - [`work`]: objects of one size over a number of connections, and what it took;
//! - [`wire`]: a connection, its requests and replies;
//! - [`process`]: what processes and the machine use;
//! - [`report`]: every figure of an S3 server beside its limit, its floor and nginx.
#![deny(unsafe_code)]

mod error;
pub mod process;
pub mod report;
pub mod wire;
pub mod work;

pub use error::{Error, Result};
