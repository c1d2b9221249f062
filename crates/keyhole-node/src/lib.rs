//! S3 request handling, from the parsed request head to the response: connects the S3 surface
//! ([`keyhole_s3`]), object encryption ([`keyhole_core`]) and the object log ([`keyhole_log`]).
//!
//! The node is generic over the disk, the connection ([`Stream`]), the AES engine and the clock
//! ([`Env`]), so tests run the code that runs in production.
//!
//! # Invariants
//! - The bytes of an SSE-C object are encrypted in the buffer that received them, before the log
//!   gets that buffer. The log sees ciphertext only.
//! - A chunk is sent only after its tag has been verified. If verification fails in the middle of a
//!   response, the connection is aborted, never closed in order.
//! - A customer key lives as long as the request that carried it. It appears in no error, no log
//!   line and no response.
//! - A write is acknowledged only after the log has reported it durable.
//! - A request acquires all its memory at once before it starts ([`limits`]). If it waits too long,
//!   or too many requests wait, the response is 503 `SlowDown`.
#![forbid(unsafe_code)]

mod access;
mod admission;
mod attributes;
mod bucket;
mod copy;
mod download;
mod failure;
mod form;
mod heads;
mod io;
mod lifecycle;
pub mod limits;
mod listing;
mod multipart;
mod node;
mod object;
mod observe;
mod policy;
mod proxy;
mod request;
mod sealed;
mod sealed_file;
mod secret;
mod settings;
mod tagging;
pub mod transfer;
mod upload;

pub use access::{AccessKey, AccessTable, Grant, Right, Rights};
pub use admission::{Gauge, Load, Share};
pub use io::{Env, Stream};
pub use lifecycle::{Pass, clock_behind, expire, rule_count};
pub use node::{Config, Node};
pub use observe::{Exchange, Observer};
pub use policy::{Policy, SseC};
pub use proxy::TrustedProxies;
pub use settings::{OwnPolicy, PolicyDefaults};
