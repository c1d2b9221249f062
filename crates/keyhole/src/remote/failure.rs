//! Maps responses and errors of the client to [`ServiceError`].

use std::error::Error;
use std::io;

use hyper::StatusCode;
use keyhole_remote::ServiceError;
use object_store::client::{HttpError, HttpErrorKind};

use super::limits::MESSAGE_MAX;

/// The code of a response without one, such as to `HEAD` requests.
pub(super) const NOT_FOUND: &str = "404";

/// The code of a refusal without one.
const FORBIDDEN: &str = "403";

/// The code for an object that does not exist.
pub(super) const NO_SUCH_KEY: &str = "NoSuchKey";

/// Error codes of requests that may succeed later, although their status says otherwise.
const TRANSIENT: [&str; 15] = [
    "BadDigest",
    "ConditionalRequestConflict",
    "IncompleteBody",
    "InternalError",
    "NoSuchUpload",
    "OperationAborted",
    "RequestTimeout",
    "ServiceUnavailable",
    "SlowDown",
    "SlowDownRead",
    "SlowDownWrite",
    "Throttling",
    "ThrottlingException",
    "XAmzContentChecksumMismatch",
    "XAmzContentSHA256Mismatch",
];

/// Returns the error for an unsuccessful response, with the explanation of the service.
pub(super) fn of_response(status: StatusCode, body: &[u8]) -> ServiceError {
    let body = String::from_utf8_lossy(body);
    let code = element(&body, "Code").filter(|code| code.bytes().all(|byte| byte.is_ascii_alphanumeric()));
    let code = code.unwrap_or_else(|| status.as_str().to_owned());
    let message = element(&body, "Message").filter(|message| !message.is_empty());
    let message = message.unwrap_or_else(|| status.canonical_reason().unwrap_or("no explanation").to_owned());
    if is_transient(status, &code) {
        ServiceError::Unavailable(format!("{code}: {message}"))
    } else {
        ServiceError::Refused { code, message }
    }
}

fn is_transient(status: StatusCode, code: &str) -> bool {
    let is_of_server = status.is_server_error()
        && !matches!(
            status,
            StatusCode::NOT_IMPLEMENTED | StatusCode::HTTP_VERSION_NOT_SUPPORTED | StatusCode::INSUFFICIENT_STORAGE
        );
    let is_timing = matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS);
    is_of_server || is_timing || TRANSIENT.contains(&code)
}

/// Returns the text of the first element of this name, in one short line.
fn element(xml: &str, name: &str) -> Option<String> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    let (text, _) = rest.split_once(&format!("</{name}>"))?;
    let text = text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"");
    Some(printable(&text.replace("&apos;", "'").replace("&amp;", "&")))
}

/// Replaces control characters, which a terminal or a log would obey, and cuts a long text.
fn printable(text: &str) -> String {
    let shown = text.chars().take(MESSAGE_MAX);
    shown.map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// Returns the error for a failed response. The library repeats the request if it may succeed soon:
/// all our requests are idempotent.
pub(super) fn http_error_of(failure: ServiceError) -> HttpError {
    let kind = match failure {
        ServiceError::Unavailable(_) => HttpErrorKind::Request,
        ServiceError::Refused { .. } | ServiceError::Content(_) => HttpErrorKind::Unknown,
    };
    HttpError::new(kind, failure)
}

/// Returns the error for a failed connection. `is_new` means that it was never established.
pub(super) fn of_connection(error: &(dyn Error + 'static), is_new: bool) -> HttpError {
    let io_kinds = || causes_of(error).filter_map(|cause| cause.downcast_ref::<io::Error>()).map(io::Error::kind);
    let kind = if io_kinds().any(|kind| kind == io::ErrorKind::TimedOut) {
        HttpErrorKind::Timeout
    } else if causes_of(error).any(|cause| cause.is::<rustls::Error>()) {
        HttpErrorKind::Unknown
    } else if is_new {
        HttpErrorKind::Connect
    } else {
        HttpErrorKind::Request
    };
    let what = if is_new { "cannot connect" } else { "connection failed" };
    HttpError::new(kind, ServiceError::Unavailable(format!("{what}: {}", innermost(error))))
}

/// Returns an error, its cause, the cause of that, and so on.
fn causes_of<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| (*error).source())
}

/// Returns the text of the cause that has no cause.
fn innermost(error: &(dyn Error + 'static)) -> String {
    let cause = causes_of(error).last();
    printable(&cause.unwrap_or(error).to_string())
}

/// Returns the cause of an error of the library.
pub(super) fn of_store(error: &object_store::Error) -> ServiceError {
    match causes_of(error).find_map(|cause| cause.downcast_ref::<ServiceError>()) {
        Some(failure) => failure.clone(),
        None => ServiceError::Unavailable(format!("invalid answer: {}", innermost(error))),
    }
}

/// Returns whether an error says that the object does not exist, or perhaps its bucket.
pub(super) fn is_missing(failure: &ServiceError) -> bool {
    matches!(failure, ServiceError::Refused { code, .. } if code == NO_SUCH_KEY || code == NOT_FOUND)
}

/// Returns whether an error leaves open whether the object or the bucket is missing.
pub(super) fn is_ambiguous(failure: &ServiceError) -> bool {
    matches!(failure, ServiceError::Refused { code, .. } if code == NOT_FOUND)
}

/// Returns whether a refusal has no reason.
pub(super) fn is_unexplained(failure: &ServiceError) -> bool {
    matches!(failure, ServiceError::Refused { code, .. } if code == FORBIDDEN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn xml(code: &str) -> String {
        format!("<?xml version=\"1.0\"?>\n<Error><Code>{code}</Code><Message>Why &amp; what</Message></Error>")
    }

    #[test]
    fn status_and_code_decide_whether_request_is_repeated() {
        for (status, code, is_refused) in [
            (400, "SignatureDoesNotMatch", true),
            (400, "InvalidArgument", true),
            (400, "ExpiredToken", true),
            (400, "RequestTimeout", false),
            (400, "BadDigest", false),
            (400, "XAmzContentSHA256Mismatch", false),
            (401, "401", true),
            (403, "AccessDenied", true),
            (404, "NoSuchBucket", true),
            (404, "NoSuchUpload", false),
            (405, "MethodNotAllowed", true),
            (408, "408", false),
            (409, "OperationAborted", false),
            (409, "BucketNotEmpty", true),
            (429, "429", false),
            (301, "PermanentRedirect", true),
            (500, "InternalError", false),
            (501, "NotImplemented", true),
            (502, "502", false),
            (503, "SlowDown", false),
            (504, "504", false),
            (507, "InsufficientStorage", true),
        ] {
            let failure = of_response(StatusCode::from_u16(status).unwrap(), xml(code).as_bytes());
            let message = "Why & what".to_owned();
            let expected = if is_refused {
                ServiceError::Refused { code: code.to_owned(), message }
            } else {
                ServiceError::Unavailable(format!("{code}: {message}"))
            };
            assert_eq!(failure, expected, "{status}");
        }
    }

    #[test]
    fn response_without_xml_has_code_of_status() {
        for body in ["", "<html>no</html>", "\u{0}\u{1}", "<Code></Code", "<Code>a b</Code>"] {
            let failure = of_response(StatusCode::FORBIDDEN, body.as_bytes());
            let expected = ServiceError::Refused { code: "403".to_owned(), message: "Forbidden".to_owned() };
            assert_eq!(failure, expected, "{body}");
        }
        assert!(is_ambiguous(&of_response(StatusCode::NOT_FOUND, b"")));
        let missing = of_response(StatusCode::NOT_FOUND, xml(NO_SUCH_KEY).as_bytes());
        assert!(is_missing(&missing) && !is_ambiguous(&missing));
        assert!(!is_missing(&of_response(StatusCode::NOT_FOUND, xml("NoSuchBucket").as_bytes())));
    }

    #[test]
    fn explanation_is_one_short_printable_line() {
        let body = format!("<Message>\u{1b}[2J\n{}</Message>", "m".repeat(2 * MESSAGE_MAX));
        let ServiceError::Refused { message, .. } = of_response(StatusCode::FORBIDDEN, body.as_bytes()) else {
            panic!("refused");
        };
        assert_eq!(message.chars().count(), MESSAGE_MAX);
        assert!(!message.contains(char::is_control), "{message}");
    }
}
