//! Sealed objects and SSE-C key handling, for servers and for microcontrollers.
//!
//! A *sealed object* is an S3 object encrypted with a key that its owner brings along with each request (SSE-C). This
//! crate has what both ends need to make and open one:
//!
//! - [`sse_c`]: the three request headers that carry a customer key, and the errors they can have;
//! - [`CustomerKey`] and [`DataKey`]: keys in memory, compared in constant time, wiped when dropped, never printed;
//! - [`aead`]: the seam to AES-256-GCM, in software or in a peripheral;
//! - [`chunked`]: authenticated encryption in chunks of 16 KiB, seekable and truncation-proof;
//! - [`head`]: what describes an object (data key, metadata, checksums), sealed under the customer key;
//! - [`body`]: how the bytes of an object or of a part are bound to it;
//! - [`file`](mod@file): a sealed object as one self-contained file;
//! - `sigv4`, behind the feature of that name: signatures for the requests of devices.
//!
//! The crate needs neither `std` nor an allocator, has no `unsafe` code, and panics on no input: what comes from outside
//! is answered with an error. The [`format`] page has every byte.
#![no_std]
#![forbid(unsafe_code)]

pub mod aead;
pub mod body;
mod cbor;
pub mod chunked;
pub mod file;
pub mod head;
mod key;
mod key_id;
pub mod limits;
#[cfg(feature = "sigv4")]
pub mod sigv4;
pub mod sse_c;
#[cfg(feature = "suite")]
pub mod suite;

#[doc = include_str!("../FORMAT.md")]
pub mod format {}

/// What the README shows is compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}

pub use key::{CustomerKey, DataKey};
pub use key_id::key_id;

/// What was to be opened does not authenticate: it was made with another key, for another place, or it was altered.
///
/// One error for all of these, on purpose: to tell them apart would help who guesses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotAuthentic;

impl core::fmt::Display for NotAuthentic {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("does not authenticate")
    }
}

impl core::error::Error for NotAuthentic {}
