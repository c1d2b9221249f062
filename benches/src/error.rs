//! What goes wrong, in words.

use std::fmt;
use std::io;

/// Why there is no result, in words for who runs this.
#[derive(Debug)]
pub struct Error(String);

/// What comes of anything that can fail.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error that is told so.
    pub fn new(what: impl Into<String>) -> Self {
        Error(what.into())
    }

    /// An error of the system, with what was tried.
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
