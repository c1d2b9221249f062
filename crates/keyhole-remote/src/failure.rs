//! Failures of shipping.

use keyhole_node::transfer::ReadError;
use thiserror::Error;

use crate::service::ServiceError;

/// The reason why shipping has stopped. It is tried again later.
#[derive(Error, Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The service has failed.
    #[error(transparent)]
    Service(#[from] ServiceError),
    /// The store has failed.
    #[error("the store has failed: {0}")]
    Store(String),
    /// The remote belongs to another store, named by its identity.
    #[error(
        "the remote holds the objects of store {0}: choose another prefix, or add the remote with --take-over to \
         replace them"
    )]
    OtherStore(String),
    /// The remote has a newer format.
    #[error("the remote has a format that this version does not know: update Keyhole, or choose another prefix")]
    UnknownFormat,
    /// Too many objects are refused.
    #[error("the remote refuses too many objects, the last one because of: {0}")]
    Exceptions(String),
}

/// The reason why one change is not shipped.
#[derive(Debug)]
pub(crate) enum ItemFailure {
    /// It concerns this object only.
    Exception(String),
    /// It concerns the whole remote.
    Whole(Failure),
}

/// Error codes of requests that the service refuses because of their object.
const OF_OBJECT: [&str; 10] = [
    "EntityTooLarge",
    "ExistingObjectIsDirectory",
    "ExistingObjectIsFile",
    "InvalidArgument",
    "InvalidObjectName",
    "InvalidRequest",
    "InvalidURI",
    "KeyTooLongError",
    "MetadataTooLarge",
    "ObjectExistsAsDirectory",
];

impl From<ServiceError> for ItemFailure {
    fn from(error: ServiceError) -> Self {
        match error {
            ServiceError::Content(error) => ItemFailure::Exception(error.to_string()),
            ServiceError::Refused { ref code, .. } if OF_OBJECT.contains(&&code[..]) => {
                ItemFailure::Exception(error.to_string())
            }
            error => ItemFailure::Whole(error.into()),
        }
    }
}

impl From<ReadError> for ItemFailure {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Damaged(_) | ReadError::Log(keyhole_log::Error::Damaged(_)) => {
                ItemFailure::Exception(error.to_string())
            }
            ReadError::Log(error) => ItemFailure::Whole(Failure::Store(error.to_string())),
        }
    }
}

impl From<keyhole_log::Error> for ItemFailure {
    fn from(error: keyhole_log::Error) -> Self {
        ReadError::Log(error).into()
    }
}
