//! S3 over HTTP/1.1 without I/O: turns bytes and the current time into typed requests, and
//! responses into bytes.
//!
//! - [`http`]: request heads (RFC 9112) and responses;
//! - [`auth`]: Signature Version 4 in headers, presigned URLs and form policies;
//! - [`body`]: body framing (`Content-Length` and `aws-chunked`) and all declared digests;
//! - [`form`]: uploads from HTML forms;
//! - [`ops`]: routing of requests to operations, and their parameters;
//! - [`sse`]: the SSE-C rules, in the order in which S3 applies them;
//! - [`xml`]: XML documents of requests and responses;
//! - [`Error`]: S3 errors with status, code and message.
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
mod error;
pub mod form;
pub mod http;
pub mod limits;
pub mod ops;
pub mod sse;
pub mod time;
pub mod xml;

pub use error::{Error, ErrorCode};
