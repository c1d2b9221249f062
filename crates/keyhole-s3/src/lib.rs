//! S3 over HTTP/1.1 without I/O: turns bytes and the current time into typed requests, and
//! responses into bytes.
//!
//! - [`http`]: request heads (RFC 9112) and responses;
//! - [`auth`]: Signature Version 4 in headers, presigned URLs and form policies;
//! - [`body`]: body framing (`Content-Length` and `aws-chunked`) and all declared digests;
//! - [`form`]: uploads from HTML forms;
//! - [`ops`]: routing of requests to operations, and their parameters;
//! - [`query`]: the query of a request, read once for signature and operation;
//! - [`sse`]: the SSE-C rules, in the order in which S3 applies them;
//! - [`wipe`]: the wiping of buffers that held keys;
//! - [`xml`]: XML documents of requests and responses;
//! - [`Error`]: S3 errors with status, code and message.
//!
//! # Example
//! ```
//! use keyhole_s3::http::parse_head;
//! use keyhole_s3::ops::{HostNames, route};
//!
//! let bytes = b"GET /edge/reading HTTP/1.1\r\nHost: node\r\n\r\n";
//! let (head, _len) = parse_head(bytes)?.expect("a complete head");
//! let (target, operation) = route(&head, &HostNames::default())?;
//! assert_eq!((target.key.as_deref(), operation.name()), (Some("reading"), "GetObject"));
//! # Ok::<(), keyhole_s3::Error>(())
//! ```
//! `examples/verify_request.rs` verifies the signature as well. The crate `keyhole-node` answers the
//! operations.
//!
//! # Invariants
//! - No input causes a panic, and every buffer has a named limit ([`limits`]).
//! - A header that requests encryption is never ignored ([`sse`]).
//! - Request heads carry customer keys: they are wiped on drop, and `Debug` shows none of their
//!   values.
//! - An unsupported feature is [`ErrorCode::NotImplemented`], never silently ignored.
#![forbid(unsafe_code)]

pub mod auth;
pub mod body;
pub mod checksum;
mod echo;
mod error;
pub mod form;
pub mod http;
pub mod limits;
pub mod ops;
pub mod query;
pub mod sse;
pub mod time;
pub mod wipe;
pub mod xml;

pub use error::{Error, ErrorCode};
