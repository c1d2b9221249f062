//! S3 over HTTP/1.1 without I/O: bytes and the time go in, typed requests and the bytes of replies come out.
//!
//! - [`http`]: request heads (RFC 9112) and replies;
//! - [`auth`]: Signature Version 4, in the header, in the query, and of the policy of a form;
//! - [`body`]: the framing of bodies (`Content-Length` and `aws-chunked`) and every digest that a client may declare;
//! - [`form`]: objects that come in an HTML form;
//! - [`ops`]: which operation a request is, with its parameters;
//! - [`sse`]: the rules of SSE-C, in the order in which S3 applies them;
//! - [`xml`]: documents in and out;
//! - [`Error`]: the errors of S3, each with its status, code and message.
//!
//! # Invariants
//! - No input panics, and every buffer has a bound by name ([`limits`]).
//! - A header that asks for encryption is never ignored ([`sse`]).
//! - Request heads carry customer keys: they are wiped when dropped, and `Debug` shows none of their values.
//! - What is not supported is [`ErrorCode::NotImplemented`], never a silent success.
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
