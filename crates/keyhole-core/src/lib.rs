//! Sealed objects and SSE-C key handling, for servers and microcontrollers.
//!
//! A *sealed object* is an S3 object encrypted with a key that its owner sends with each request
//! (SSE-C). This crate provides the primitives that clients and servers need to seal and open one:
//!
//! - [`sse_c`]: the three SSE-C request headers, and the errors for malformed ones;
//! - [`CustomerKey`] and [`DataKey`]: keys in memory, compared in constant time, wiped when
//!   dropped, never printed;
//! - [`aead`]: the interface to AES-256-GCM, in software or in a peripheral;
//! - [`chunked`]: seekable authenticated encryption in chunks of 16 KiB that detects truncation;
//! - [`head`]: the object head (data key, metadata, checksums), sealed under the customer key;
//! - [`body`]: the binding of an object's or part's bytes to its object head;
//! - [`file`](mod@file): a sealed object as one self-contained file;
//! - `sigv4`, behind the feature of the same name: request signatures for devices.
//!
//! The crate requires neither `std` nor an allocator and contains no `unsafe` code. It does not
//! panic on malformed input: parsers and decryption return errors.
//!
//! # Example
//! ```
//! use keyhole_core::aead::Portable;
//! use keyhole_core::{CustomerKey, file};
//!
//! # fn fill(bytes: &mut [u8]) { bytes.fill(7) } // A secure generator.
//! let customer_key = CustomerKey::new([7; 32]);
//! let mut sealed = [0; 512];
//! let len = file::seal(&Portable, &customer_key, fill, "edge", "reading", b"21.5", &mut sealed)?;
//! assert_eq!(sealed[..8], file::MAGIC);
//! # assert!(len > 8);
//! # Ok::<(), file::FileError>(())
//! ```
//!
//! # Further reading
//! - `examples/seal_and_open.rs` seals a file and opens it again.
//! - The README shows larger objects, engines for AES hardware, and the limits of wiping.
//! - The [`format`] page specifies every byte; `tests/vectors` has test vectors of an independent
//!   implementation.
//! - `firmware/` has complete programs for microcontrollers.
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

/// Compiles and runs the examples of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}

pub use key::{CustomerKey, DataKey};
pub use key_id::key_id;

/// Authentication failed: the data was sealed with another key, for another name, or was altered.
///
/// One error covers all causes, so that it gives no help to an attacker who guesses keys.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotAuthentic;

impl core::fmt::Display for NotAuthentic {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("does not authenticate")
    }
}

impl core::error::Error for NotAuthentic {}
