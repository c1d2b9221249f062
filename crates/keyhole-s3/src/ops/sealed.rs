//! The header that selects sealed object files.

use super::Operation;
use crate::http::RequestHead;
use crate::{Error, ErrorCode};

/// The header that requests the sealed representation, without the key; its value is 1.
pub const SEALED_HEADER: &str = "x-keyhole-sealed";

/// Returns whether a request sends or asks for a sealed object file.
///
/// # Errors
/// `InvalidArgument` for a value other than 1; `InvalidRequest` on an
/// operation that does not support it, since it must never be ignored.
pub fn is_sealed_transfer(head: &RequestHead, operation: &Operation) -> Result<bool, Error> {
    let Some(value) = head.headers.get(SEALED_HEADER) else { return Ok(false) };
    if value != b"1" {
        let value = String::from_utf8_lossy(value);
        return Err(Error::invalid_argument(SEALED_HEADER, value, "x-keyhole-sealed has the value 1, once."));
    }
    if !matches!(operation, Operation::PutObject | Operation::GetObject | Operation::HeadObject) {
        let message = "x-keyhole-sealed goes with PutObject, GetObject and HeadObject alone.";
        return Err(Error::new(ErrorCode::InvalidRequest).with_message(message));
    }
    Ok(true)
}
