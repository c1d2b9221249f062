//! The application of a device, independent of its chip: it takes a [`reading`], seals it in a
//! bounded buffer ([`Package`]), and uploads it with one HTTP request ([`upload`](mod@upload)) that
//! the device or a third party has signed.
//!
//! The board passes in time, random bytes, engine and connection. The crate does not allocate, and
//! external input cannot make it panic.
#![no_std]
#![forbid(unsafe_code)]

mod open;
mod package;
pub mod reading;
pub mod time;
pub mod upload;

pub use open::{OpenFileError, open};
pub use package::{Package, PackageError};
