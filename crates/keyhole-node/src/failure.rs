//! Request failures, and the mapping of the lower crates' errors to S3 error codes.

use std::borrow::Cow;
use std::{fmt, io};

use keyhole_core::NotAuthentic;
use keyhole_core::head::{HeadError, OpenError};
use keyhole_s3::{Error, ErrorCode, ops};

use crate::limits::RETRY_AFTER_S;

/// A request failure.
#[derive(Debug)]
pub(crate) enum Failure {
    /// An S3 error for the client.
    Reply(Error),
    /// A fault of the node or its disk: an S3 error for the client and a cause for the log.
    Fault(Error, Cause),
    /// The connection broke, or must be aborted.
    Connection(io::Error),
}

/// The cause of a fault, for the operator.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Cause {
    pub(crate) kind: FaultKind,
    pub(crate) text: String,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The kinds of faults that an operator handles differently.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FaultKind {
    /// Stored bytes are damaged.
    Damage,
    /// Stored bytes are undamaged and do not authenticate under their key.
    NotAuthentic,
    /// Any other fault of the node or its disk.
    Internal,
}

pub(crate) type Result<T> = std::result::Result<T, Failure>;

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Reply(error)
    }
}

impl From<ErrorCode> for Failure {
    fn from(code: ErrorCode) -> Failure {
        Failure::Reply(Error::new(code))
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        Failure::Connection(error)
    }
}

impl From<keyhole_log::Error> for Failure {
    fn from(error: keyhole_log::Error) -> Failure {
        use keyhole_log::Error as Log;
        let error = match error {
            Log::NoSuchBucket => Error::new(ErrorCode::NoSuchBucket),
            Log::BucketNotEmpty => Error::new(ErrorCode::BucketNotEmpty),
            Log::NoSuchUpload => Error::new(ErrorCode::NoSuchUpload),
            Log::NoSuchKey => Error::new(ErrorCode::NoSuchKey),
            Log::NoSuchVersion => Error::new(ErrorCode::NoSuchVersion),
            Log::IsMarker => Error::new(ErrorCode::MethodNotAllowed).with_header("Allow", "DELETE"),
            Log::Locked => ops::protected_by_lock(),
            Log::NotLockable => ops::missing_lock_configuration(),
            Log::InvalidRetention => ops::past_retention(),
            Log::InvalidBucketState(why) => Error::new(ErrorCode::InvalidBucketState).with_message(why),
            Log::PartChanged => Error::new(ErrorCode::InvalidPart),
            Log::ConditionFailed => Error::new(ErrorCode::PreconditionFailed),
            Log::Conflict => Error::new(ErrorCode::ConditionalRequestConflict),
            Log::QuotaExceeded => Error::new(ErrorCode::QuotaExceeded),
            Log::IndexFull => Error::new(ErrorCode::InsufficientStorage).with_message(
                "The node has no memory for another object name, or its limit of objects is reached. Delete objects, or \
                 ask the operator to raise --memory or --max-objects. Overwriting objects still works.",
            ),
            Log::Full => Error::new(ErrorCode::InsufficientStorage),
            Log::InDoubt => unavailable(
                "The file system of the store is full, and the outcome of this write is unknown. Free some space, then \
                 repeat the request."
                    .into(),
            ),
            // Until the node reads from remotes.
            Log::Evicted => return slow_down(),
            Log::TooLarge(_) => Error::new(ErrorCode::EntityTooLarge),
            Log::Poisoned => unavailable(
                "The store refuses writes since a write to its disk failed. Reads go on. See the log of the node."
                    .into(),
            ),
            Log::ReadOnly(why) => unavailable(format!("The store is read-only: {why}. Reads go on.").into()),
            Log::Damaged(damage) => return damaged(&damage.to_string()),
            other => {
                let text = format!("the object file failed a request: {other}");
                let cause = Cause { kind: FaultKind::Internal, text };
                return Failure::Fault(Error::new(ErrorCode::InternalError), cause);
            }
        };
        Failure::Reply(error)
    }
}

impl From<NotAuthentic> for Failure {
    fn from(_: NotAuthentic) -> Failure {
        not_authentic("a stored body")
    }
}

impl From<HeadError> for Failure {
    fn from(error: HeadError) -> Failure {
        match error {
            HeadError::TooLong => Failure::Reply(Error::new(ErrorCode::MetadataTooLarge)),
            other => damaged(&format!("malformed head: {other}")),
        }
    }
}

impl From<OpenError> for Failure {
    /// A head that does not open: the request's key is not the object's.
    fn from(error: OpenError) -> Failure {
        match error {
            OpenError::Malformed(error) => not_authentic(&format!("malformed sealed head: {error}")),
            _ => Failure::Reply(keyhole_s3::sse::wrong_key()),
        }
    }
}

/// Returns the error for a damaged stored object; `what` goes to the node's log.
pub(crate) fn damaged(what: &str) -> Failure {
    let cause = Cause { kind: FaultKind::Damage, text: format!("damage: {what}") };
    Failure::Fault(Error::new(ErrorCode::ObjectDamaged), cause)
}

/// Returns the error for stored bytes that pass the log's checksums but do not authenticate under
/// the data key from their head: a client sealed them wrongly, or somebody with access to the disk
/// changed them.
pub(crate) fn not_authentic(what: &str) -> Failure {
    let message = "The sealed object does not authenticate.";
    let cause = Cause { kind: FaultKind::NotAuthentic, text: format!("not authentic: {what}") };
    Failure::Fault(Error::new(ErrorCode::InvalidRequest).with_message(message), cause)
}

/// Returns the 503 for a node that refuses all writes until the operator intervenes.
fn unavailable(message: Cow<'static, str>) -> Error {
    let error = Error::new(ErrorCode::ServiceUnavailable).with_message(message);
    error.with_header("Retry-After", RETRY_AFTER_S.to_string())
}

/// Returns the 503 for a node without free memory.
pub(crate) fn slow_down() -> Failure {
    Failure::Reply(Error::new(ErrorCode::SlowDown).with_header("Retry-After", RETRY_AFTER_S.to_string()))
}

/// Returns the 503 for a request that was ended because it was too slow while others waited for its
/// memory.
pub(crate) fn too_slow() -> Failure {
    let message = "The body arrived too slowly while other requests waited for memory. Send it again, or in smaller \
        parts, when the node has less to do.";
    let error = Error::new(ErrorCode::SlowDown).with_message(message);
    Failure::Reply(error.with_header("Retry-After", RETRY_AFTER_S.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused_write_is_503_with_its_reason() {
        for (error, part) in [
            (keyhole_log::Error::Poisoned, "since a write to its disk failed"),
            (keyhole_log::Error::ReadOnly("its file system is mounted read-only".into()), "is mounted read-only"),
        ] {
            let Failure::Reply(error) = Failure::from(error) else { panic!("no fault of this request") };
            assert_eq!((error.code, error.code.status()), (ErrorCode::ServiceUnavailable, 503));
            assert!(error.message.contains(part), "{}", error.message);
            assert_eq!(error.headers, [("Retry-After", RETRY_AFTER_S.to_string())]);
        }
    }
}
