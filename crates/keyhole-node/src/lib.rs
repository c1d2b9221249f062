//! S3 request handling, from the parsed request head to the response: connects the S3 surface
//! ([`keyhole_s3`]), object encryption ([`keyhole_core`]) and the object log ([`keyhole_log`]).
//!
//! A [`Node`] is generic over one [`Platform`]: its disk, its AES engine and its connections. Clocks
//! and random bytes come from a [`Host`]. Tests run the code that runs in production, on memory.
//!
//! # A request
//! [`Node::serve`] receives a request head, authenticates, routes and authorizes the request, and
//! calls the handler of its operation. A write is planned (policy, key, metadata, tags, condition),
//! its body is received, encrypted in place and stored, and it is committed. Each handler returns
//! one response, whose body is empty, bytes, or a source that is read while it is sent.
//!
//! To serve a connection, open a log, create a [`Node`] from it and a [`Config`], and pass each
//! accepted [`Stream`] to it. The crate `keyhole` does so with io_uring and TLS;
//! `crates/keyhole/docs/ARCHITECTURE.md` follows a request through the crates.
//!
//! # Invariants
//! - The bytes of an SSE-C object are encrypted in the buffer that received them, before the log
//!   gets that buffer. The log sees ciphertext only.
//! - A chunk is sent only after its tag has been verified. If verification fails in the middle of a
//!   response, the connection is aborted, never closed in order.
//! - A customer key lives as long as the request that carried it. It appears in no error, no log
//!   line and no response.
//! - A write is acknowledged only after the log has reported it durable.
//! - A request reserves memory for what it holds of bodies, documents and listings, piece by piece
//!   ([`limits`]). If it waits too long, or too many requests wait, the response is 503 `SlowDown`.
#![forbid(unsafe_code)]

mod access;
mod admission;
mod attributes;
mod authorize;
mod binding;
mod bodies;
mod body_memory;
mod bucket;
mod bucket_tags;
mod checked_ends;
mod commit;
mod completed;
mod concern;
mod copy;
mod cors;
mod delete;
mod egress;
mod etag_lanes;
mod evicted;
mod evicted_file;
mod failure;
mod form;
mod guard;
mod host;
mod http;
mod ingest;
mod lifecycle;
pub mod limits;
mod link;
mod listing;
mod lock_clock;
mod message;
mod multipart;
mod node;
mod object;
mod object_head;
mod object_lock;
mod object_memory;
mod observe;
mod part_checksums;
mod plan;
mod platform;
mod policy;
mod proxy;
mod request;
mod response_headers;
mod sealed;
mod sealed_file;
mod secret;
mod serve;
mod settings;
mod source;
mod tagging;
pub mod transfer;
mod verify;
mod versions;

pub use access::{AccessKey, AccessTable, Grant, Right, Rights};
pub use admission::{Gauge, Load, Share};
pub use evicted::{EvictedBytes, EvictedError, EvictedFuture, EvictedObject, EvictedObjects};
pub use failure::FaultKind;
pub use host::{Host, Services};
pub use lifecycle::{
    EXPIRATION, MARKER_EXPIRATION, Pass, UPLOAD_EXPIRATION, VERSION_EXPIRATION, clock_behind, expire, rule_count,
};
pub use lock_clock::{ClockReading, LockClock};
pub use node::{Config, Node};
pub use observe::{Exchange, Fault, Observer, SealedObject};
pub use platform::{Platform, Stream};
pub use policy::{Policy, SseC};
pub use proxy::TrustedProxies;
pub use secret::wipe_stack;
pub use settings::{OwnPolicy, PolicyDefaults};
