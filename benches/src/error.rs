//! The error type of the benchmarks.

use std::fmt;
use std::io;

/// An error message for the user.
#[derive(Debug)]
pub struct Error(String);

/// The result of a fallible function.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Creates an error with this message.
    pub fn new(what: impl Into<String>) -> Self {
        Error(what.into())
    }

    /// Creates an error from a system error and the attempted operation.
    pub fn of(what: impl fmt::Display, error: impl fmt::Display) -> Self {
        Error(format!("{what}: {error}"))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Error(error.to_string())
    }
}
