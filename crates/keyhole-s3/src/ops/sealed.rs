//! The header that selects sealed object files.

use super::Operation;
use crate::http::RequestHead;
use crate::{Error, ErrorCode};

/// The header that requests the sealed representation, without the key; its value is 1.
pub const SEALED_HEADER: &str = "x-keyhole-sealed";

/// The header about the binding of a sealed object to its parts. A response has `unbound` if the list
/// of parts is not authenticated; a request has `required` to refuse such objects.
pub const BINDING_HEADER: &str = "x-keyhole-binding";

/// Returns whether a request accepts only objects all of whose parts are authenticated.
///
/// # Errors
/// `InvalidArgument` for a value other than `required` or a repeated header.
pub fn requires_binding(head: &RequestHead) -> Result<bool, Error> {
    let mut values = head.headers.all(BINDING_HEADER);
    let Some(value) = values.next() else { return Ok(false) };
    if value == b"required" && values.next().is_none() {
        return Ok(true);
    }
    let value = String::from_utf8_lossy(value);
    Err(Error::invalid_argument(BINDING_HEADER, value, "x-keyhole-binding has the value required, once."))
}

/// Checks that an operation can heed [`BINDING_HEADER`], since it must never be ignored.
///
/// # Errors
/// `InvalidRequest` on an operation that does not read an object with its key or complete an
/// upload; `InvalidArgument` as in [`requires_binding`].
pub fn check_binding_header(head: &RequestHead, operation: &Operation, is_sealed: bool) -> Result<(), Error> {
    use Operation as Op;
    let heeds = match operation {
        Op::GetObject | Op::HeadObject => !is_sealed,
        Op::GetObjectAttributes(_) | Op::CopyObject(_) => true,
        Op::UploadPartCopy { .. } | Op::CompleteMultipartUpload { .. } => true,
        _ => false,
    };
    if !requires_binding(head)? || heeds {
        return Ok(());
    }
    let message = "x-keyhole-binding goes with GetObject, HeadObject, GetObjectAttributes, CopyObject, UploadPartCopy \
        and CompleteMultipartUpload, and not with x-keyhole-sealed.";
    Err(Error::new(ErrorCode::InvalidRequest).with_message(message))
}

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::parse_head;

    #[test]
    fn binding_header_is_heeded_or_refused() {
        let check = |operation: &Operation, headers: &str, is_sealed: bool| {
            let text = format!("GET /b/k HTTP/1.1\r\nHost: h\r\n{headers}\r\n");
            let (head, _) = parse_head(text.as_bytes()).unwrap().unwrap();
            check_binding_header(&head, operation, is_sealed)
                .and_then(|()| requires_binding(&head))
                .map_err(|error| error.code)
        };
        let required = "X-Keyhole-Binding: required\r\n";
        let upload_id = [0; 16];
        for operation in [Operation::GetObject, Operation::HeadObject, Operation::CompleteMultipartUpload { upload_id }]
        {
            assert_eq!(check(&operation, "", false), Ok(false));
            assert_eq!(check(&operation, required, false), Ok(true));
            for bad in ["x-keyhole-binding: bound\r\n", "x-keyhole-binding:\r\n"] {
                assert_eq!(check(&operation, bad, false), Err(ErrorCode::InvalidArgument), "{bad}");
            }
        }
        assert_eq!(check(&Operation::GetObject, required, true), Err(ErrorCode::InvalidRequest));
        for operation in [Operation::PutObject, Operation::DeleteObject, Operation::CreateMultipartUpload] {
            assert_eq!(check(&operation, required, false), Err(ErrorCode::InvalidRequest));
            assert_eq!(check(&operation, "", false), Ok(false));
        }
    }
}
