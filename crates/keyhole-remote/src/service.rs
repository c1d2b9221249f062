//! The S3 service that holds a remote, as this crate uses it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use thiserror::Error;

/// User metadata of a remote object: names without `x-amz-meta-`, in lower case, and ASCII values.
pub type Fields = BTreeMap<String, String>;

/// A bucket of an S3 service, and a prefix in it. Names are relative to the prefix. No component of a name is empty, `.` or `..`, and no name has control characters.
#[allow(async_fn_in_trait)]
pub trait Service {
    /// The bytes of an object that is being read.
    type Download: Download;

    /// Returns the memory that storing a content of this length takes, in bytes.
    fn memory_of(&self, len: u64) -> u64;

    /// Stores an object, and replaces one of the same name. Returns once the service has confirmed the
    /// whole object by its checksum. After an error, the object may be stored or not.
    ///
    /// # Errors
    /// [`ServiceError`].
    async fn put(&self, name: &str, fields: &Fields, content: impl Content) -> Result<(), ServiceError>;

    /// Returns the metadata of an object, or `None` if it does not exist.
    ///
    /// # Errors
    /// `Refused`, `Unavailable`.
    async fn head(&self, name: &str) -> Result<Option<Head>, ServiceError>;

    /// Begins to read an object, or a range of it. Returns `None` if it does not exist.
    ///
    /// # Errors
    /// `Refused`, `Unavailable`.
    async fn get(&self, name: &str, range: Option<Range<u64>>) -> Result<Option<(Head, Self::Download)>, ServiceError>;

    /// Deletes an object, if it exists.
    ///
    /// # Errors
    /// `Refused`, `Unavailable`.
    async fn delete(&self, name: &str) -> Result<(), ServiceError>;

    /// Returns the first components of the names that have several, sorted.
    ///
    /// # Errors
    /// `Refused`, `Unavailable`.
    async fn directories(&self) -> Result<BTreeSet<String>, ServiceError>;

    /// Lists names with this prefix, at most 1,000: the first ones, or those of the page with this token.
    /// Services differ in their order, so that a name does not tell which names follow.
    ///
    /// # Errors
    /// `Refused`, `Unavailable`.
    async fn list(&self, prefix: &str, token: Option<&str>) -> Result<Listing, ServiceError>;
}

/// The content of an object to store.
#[allow(async_fn_in_trait)]
pub trait Content {
    /// Returns the length of the whole content in bytes.
    fn total_len(&self) -> u64;

    /// Reads the next bytes, at most 1 MiB. Returns `None` at the end.
    ///
    /// # Errors
    /// The local object cannot be read.
    async fn next(&mut self) -> Result<Option<Vec<u8>>, ContentError>;
}

/// The bytes of a remote object.
#[allow(async_fn_in_trait)]
pub trait Download {
    /// Receives the next bytes. Returns `None` at the end; a body that is shorter than announced is an
    /// error.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn next(&mut self) -> Result<Option<Vec<u8>>, ServiceError>;
}

/// The metadata of a remote object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Length of the whole object in bytes.
    pub len: u64,
    /// User metadata.
    pub fields: Fields,
}

/// A page of a listing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// The objects, in the order of the service.
    pub objects: Vec<Listed>,
    /// The token of the next page; `None` after the last one.
    pub next: Option<String>,
}

/// An object in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// Its length in bytes.
    pub len: u64,
}

/// The local object cannot be read.
#[derive(Error, Debug, Clone, PartialEq, Eq)]
#[error("{0}")]
pub struct ContentError(pub String);

/// The failure of a request to the service.
#[derive(Error, Debug, Clone, PartialEq, Eq)]
pub enum ServiceError {
    /// The service has refused the request. It will refuse it again until an operator acts.
    #[error("{code}: {message}")]
    Refused {
        /// The S3 error code or the HTTP status, such as `AccessDenied` or `404`.
        code: String,
        /// The service's explanation.
        message: String,
    },
    /// The service cannot be reached, is overloaded, or has answered with an internal error or with
    /// something that is not S3.
    #[error("{0}")]
    Unavailable(String),
    /// The content to store cannot be read.
    #[error(transparent)]
    Content(#[from] ContentError),
}
