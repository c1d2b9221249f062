//! What a device does, whatever its chip: it samples a [`reading`], seals it in a bounded buffer ([`Package`]), and sends it
//! with one HTTP request ([`upload`](mod@upload)) that it or somebody else has signed.
//!
//! Time, random bytes, the engine and the connection are the board's: they come in as arguments. Nothing is allocated, and
//! nothing here panics on what comes from outside.
#![no_std]
#![forbid(unsafe_code)]

mod open;
mod package;
pub mod reading;
pub mod time;
pub mod upload;

pub use open::{OpenFileError, open};
pub use package::{Package, PackageError};
