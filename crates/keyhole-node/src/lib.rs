//! One S3 request, from its parsed head to its reply: the room where the S3 surface ([`keyhole_s3`]), the sealed
//! objects ([`keyhole_core`]) and the object file ([`keyhole_log`]) meet.
//!
//! The node is generic over the disk, the connection ([`Stream`]), the AES engine and the clock ([`Env`]), so the code
//! that runs in production is the code that runs in tests.
//!
//! # Invariants
//! - The bytes of an SSE-C object are encrypted in the buffer they were received into, before that buffer is handed to
//!   the log; the log sees ciphertext alone.
//! - A chunk's tag is compared before one of its bytes is sent. Where that fails in the middle of a reply the
//!   connection is aborted, never ended cleanly.
//! - A customer key lives as long as the request that brought it. It is in no error, no log line, no reply.
//! - A reply of success to a write is sent after the log has said that the write is durable.
//! - What a request may hold is taken as a whole before it starts ([`limits`]); beyond that the answer is `SlowDown`.
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
pub mod moving;
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
