//! Errors that several areas of the program have in common.

use std::borrow::Cow;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// A failed operation on a file.
#[derive(Error, Debug)]
#[error("{action} {}: {source}", path.display())]
pub(crate) struct FileError {
    /// The start of the message, such as "cannot read".
    action: Cow<'static, str>,
    path: PathBuf,
    source: io::Error,
}

impl FileError {
    pub(crate) fn new(action: impl Into<Cow<'static, str>>, path: &Path, source: io::Error) -> Self {
        FileError { action: action.into(), path: path.to_owned(), source }
    }
}

/// An operation that the system refuses for lack of resources.
#[derive(Error, Debug)]
#[error("{action}: {source}")]
pub(crate) struct SystemError {
    /// The start of the message, such as "cannot start a thread".
    action: &'static str,
    source: io::Error,
}

impl SystemError {
    pub(crate) fn new(action: &'static str, source: io::Error) -> Self {
        SystemError { action, source }
    }

    pub(crate) fn thread(source: io::Error) -> Self {
        SystemError::new("cannot start a thread", source)
    }
}
