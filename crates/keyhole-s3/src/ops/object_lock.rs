//! Object lock: retention and legal holds in request and response headers.

use crate::checksum;
use crate::http::RequestHead;
use crate::time::{iso8601, parse_date};
use crate::{Error, ErrorCode};

/// The prefix of the headers of locks.
const LOCK_PREFIX: &str = "x-amz-object-lock-";
/// The header of a retention's mode.
const MODE: &str = "x-amz-object-lock-mode";
/// The header of a retention's end.
const RETAIN_UNTIL: &str = "x-amz-object-lock-retain-until-date";
/// The header of a legal hold.
const LEGAL_HOLD: &str = "x-amz-object-lock-legal-hold";
/// The header that asks to override the mode governance.
const BYPASS: &str = "x-amz-bypass-governance-retention";
/// The header of CreateBucket that enables object lock.
const BUCKET_LOCK: &str = "x-amz-bucket-object-lock-enabled";

/// The mode of a retention.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RetentionMode {
    /// Callers with a right of its own can shorten or remove it.
    Governance,
    /// It can only be extended.
    Compliance,
}

impl RetentionMode {
    /// Returns the name in headers and documents.
    pub const fn name(self) -> &'static str {
        match self {
            RetentionMode::Governance => "GOVERNANCE",
            RetentionMode::Compliance => "COMPLIANCE",
        }
    }

    /// Parses the name.
    pub fn parse(name: &str) -> Option<RetentionMode> {
        [RetentionMode::Governance, RetentionMode::Compliance].into_iter().find(|mode| mode.name() == name)
    }
}

/// The retention of a version.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Retention {
    /// The mode.
    pub mode: RetentionMode,
    /// Its end, in ms since 1970.
    pub until_ms: u64,
}

impl Retention {
    /// Checks that the retention has not ended at `now_ms`.
    ///
    /// # Errors
    /// `InvalidArgument`.
    pub fn check(&self, now_ms: u64) -> Result<(), Error> {
        self.check_argument("RetainUntilDate", now_ms)
    }

    fn check_argument(&self, name: &'static str, now_ms: u64) -> Result<(), Error> {
        if self.until_ms > now_ms { Ok(()) } else { Err(past_argument(name, Some(self.until_ms))) }
    }
}

/// Returns the error for a retention that has ended by the time that it is stored.
pub fn past_retention() -> Error {
    past_argument(RETAIN_UNTIL, None)
}

fn past_argument(name: &'static str, until_ms: Option<u64>) -> Error {
    let shown = until_ms.map(iso8601).unwrap_or_default();
    Error::invalid_argument(name, shown, "The retain until date must be in the future!")
}

/// The length of a default retention.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RetentionPeriod {
    /// Days.
    Days(u32),
    /// Years.
    Years(u32),
}

/// The retention that a bucket gives to new versions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DefaultRetention {
    /// The mode.
    pub mode: RetentionMode,
    /// The length.
    pub period: RetentionPeriod,
}

/// The lock that a request asks for the version that it stores.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RequestedLock {
    /// The retention.
    pub retention: Option<Retention>,
    /// Whether to set a legal hold; `None`: not given.
    pub legal_hold: Option<bool>,
}

impl RequestedLock {
    /// Returns whether the request has no header of a lock.
    pub fn is_absent(&self) -> bool {
        *self == RequestedLock::default()
    }
}

/// Parses the lock headers of a request that stores a version, or the fields of a form.
///
/// # Errors
/// `InvalidArgument`, also for a retention that has ended at the time that `now_ms` returns.
pub fn requested_lock(head: &RequestHead, now_ms: impl FnOnce() -> u64) -> Result<RequestedLock, Error> {
    // One pass over the headers of the many requests without a lock.
    if !head.headers.iter().any(|(name, _)| name.starts_with(LOCK_PREFIX)) {
        return Ok(RequestedLock::default());
    }
    let text = |name: &str| head.headers.get(name).map(String::from_utf8_lossy);
    let legal_hold = match text(LEGAL_HOLD) {
        None => None,
        Some(value) => Some(parse_hold(&value).ok_or_else(|| {
            Error::invalid_argument(LEGAL_HOLD, &value, "Legal Hold must be either of 'ON' or 'OFF'")
        })?),
    };
    let both = "x-amz-object-lock-retain-until-date and x-amz-object-lock-mode must both be supplied";
    let (mode, until) = match (text(MODE), text(RETAIN_UNTIL)) {
        (None, None) => return Ok(RequestedLock { retention: None, legal_hold }),
        (Some(mode), Some(until)) => (mode, until),
        (None, Some(_)) => return Err(Error::invalid_argument(MODE, "", both)),
        (Some(_), None) => return Err(Error::invalid_argument(RETAIN_UNTIL, "", both)),
    };
    let parsed = RetentionMode::parse(&mode);
    let mode = parsed.ok_or_else(|| Error::invalid_argument(MODE, &mode, "Unknown wormMode directive."))?;
    let until_ms = parse_date(until.trim()).ok_or_else(|| {
        let message = "The retain until date must be provided in ISO 8601 format";
        Error::invalid_argument(RETAIN_UNTIL, &until, message)
    })?;
    let retention = Retention { mode, until_ms };
    retention.check_argument(RETAIN_UNTIL, now_ms())?;
    Ok(RequestedLock { retention: Some(retention), legal_hold })
}

/// Parses the state of a legal hold.
pub(crate) fn parse_hold(text: &str) -> Option<bool> {
    match text {
        "ON" => Some(true),
        "OFF" => Some(false),
        _ => None,
    }
}

/// Returns the name of the state of a legal hold.
pub(crate) fn hold_name(is_on: bool) -> &'static str {
    if is_on { "ON" } else { "OFF" }
}

/// Returns the response headers of a version's lock.
pub fn lock_headers(
    retention: Option<Retention>,
    has_legal_hold: bool,
) -> impl Iterator<Item = (&'static str, String)> {
    let retention = retention
        .into_iter()
        .flat_map(|Retention { mode, until_ms }| [(MODE, mode.name().to_owned()), (RETAIN_UNTIL, iso8601(until_ms))]);
    retention.chain(has_legal_hold.then(|| (LEGAL_HOLD, hold_name(true).to_owned())))
}

/// Parses `x-amz-bypass-governance-retention`. `None`: the request does not have it.
///
/// # Errors
/// `InvalidArgument`.
pub fn bypass_governance(head: &RequestHead) -> Result<Option<bool>, Error> {
    boolean(head, BYPASS)
}

/// Returns the error for `x-amz-bypass-governance-retention` on a bucket without object lock.
pub fn bypass_without_lock() -> Error {
    let message = "x-amz-bypass-governance-retention is only applicable to Object Lock enabled buckets.";
    Error::invalid_argument(BYPASS, "", message)
}

/// Parses `x-amz-bucket-object-lock-enabled`.
///
/// # Errors
/// `InvalidArgument`.
pub fn enables_object_lock(head: &RequestHead) -> Result<bool, Error> {
    Ok(boolean(head, BUCKET_LOCK)?.unwrap_or(false))
}

fn boolean(head: &RequestHead, name: &'static str) -> Result<Option<bool>, Error> {
    match head.headers.get(name) {
        None => Ok(None),
        Some(value) if value.eq_ignore_ascii_case(b"true") => Ok(Some(true)),
        Some(value) if value.eq_ignore_ascii_case(b"false") => Ok(Some(false)),
        Some(value) => {
            Err(Error::invalid_argument(name, String::from_utf8_lossy(value), "The value must be true or false."))
        }
    }
}

/// Returns the error for an object lock operation on a bucket without object lock.
pub fn missing_lock_configuration() -> Error {
    Error::new(ErrorCode::InvalidRequest).with_message("Bucket is missing Object Lock Configuration")
}

/// Returns the error for a change that a version's lock prevents.
pub fn protected_by_lock() -> Error {
    Error::new(ErrorCode::AccessDenied).with_message("Access Denied because object protected by object lock.")
}

/// The requests for which S3 requires a digest of the body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DigestedBody {
    /// An object that gets a lock.
    Object,
    /// A part of an object that gets a lock.
    Part,
    /// The document of a lock.
    Document,
}

/// Checks that a request has a Content-MD5 or a checksum of its body, in the head or in the trailer.
///
/// # Errors
/// `InvalidRequest`.
pub fn require_digest(head: &RequestHead, body: DigestedBody) -> Result<(), Error> {
    let is_digest =
        |name: &str| name == "content-md5" || name == "x-amz-trailer" || checksum::of_header(name).is_some();
    if head.headers.iter().any(|(name, _)| is_digest(name)) {
        return Ok(());
    }
    let message = match body {
        DigestedBody::Object => {
            "Content-MD5 OR x-amz-checksum- HTTP header is required for Put Object requests with Object Lock parameters"
        }
        DigestedBody::Part => {
            "Content-MD5 OR x-amz-checksum- HTTP header is required for Put Part requests with Object Lock parameters"
        }
        DigestedBody::Document => "Missing required header for this request: Content-MD5 OR x-amz-checksum-*",
    };
    Err(Error::new(ErrorCode::InvalidRequest).with_message(message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::tests::head;

    /// 2013-05-24T00:00:00Z
    const NOW_MS: u64 = 1_369_353_600_000;

    fn put(headers: &str) -> RequestHead {
        head(&format!("PUT /b/k HTTP/1.1\n{headers}"))
    }

    #[test]
    fn lock_headers_are_parsed_and_written() {
        let parse = |headers: &str| requested_lock(&put(headers), || NOW_MS).unwrap();
        assert!(parse("x-amz-acl: private").is_absent());
        for (value, is_on) in [("ON", true), ("OFF", false)] {
            let lock = parse(&format!("x-amz-object-lock-legal-hold: {value}"));
            assert_eq!(lock, RequestedLock { retention: None, legal_hold: Some(is_on) });
        }
        for mode in [RetentionMode::Governance, RetentionMode::Compliance] {
            for until in ["2013-05-24T00:00:00.001Z", "2013-05-24T02:00:00.001+02:00"] {
                let name = mode.name();
                let lock = parse(&format!("{MODE}: {name}\n{RETAIN_UNTIL}: {until}\n{LEGAL_HOLD}: ON"));
                assert_eq!(lock.retention, Some(Retention { mode, until_ms: NOW_MS + 1 }), "{until}");
                let written: Vec<_> = lock_headers(lock.retention, true).collect();
                let headers = written.iter().map(|(name, value)| format!("{name}: {value}\n")).collect::<String>();
                assert_eq!(parse(headers.trim_end()), lock, "{headers}");
            }
        }
        assert_eq!(lock_headers(None, false).count(), 0);
    }

    #[test]
    fn lock_headers_are_rejected_with_their_name_and_message() {
        let date = "2030-01-01T00:00:00Z";
        for (headers, name, message) in [
            (format!("{LEGAL_HOLD}: on"), LEGAL_HOLD, "Legal Hold must be either of 'ON' or 'OFF'"),
            (format!("{LEGAL_HOLD}:"), LEGAL_HOLD, "Legal Hold must be either of 'ON' or 'OFF'"),
            (format!("{RETAIN_UNTIL}: {date}"), MODE, "must both be supplied"),
            (format!("{MODE}: GOVERNANCE"), RETAIN_UNTIL, "must both be supplied"),
            (format!("{MODE}: governance\n{RETAIN_UNTIL}: {date}"), MODE, "Unknown wormMode directive."),
            (format!("{MODE}: COMPLIANCE\n{RETAIN_UNTIL}: soon"), RETAIN_UNTIL, "in ISO 8601 format"),
            (format!("{MODE}: COMPLIANCE\n{RETAIN_UNTIL}: Tue, 01 Jan 2030 00:00:00 GMT"), RETAIN_UNTIL, "ISO 8601"),
            (format!("{MODE}: COMPLIANCE\n{RETAIN_UNTIL}: 2013-05-24T00:00:00Z"), RETAIN_UNTIL, "in the future!"),
        ] {
            let error = requested_lock(&put(&headers), || NOW_MS).unwrap_err();
            assert_eq!(error.code, ErrorCode::InvalidArgument, "{headers}");
            assert!(error.message.contains(message), "{headers}: {}", error.message);
            assert_eq!(error.fields[0], ("ArgumentName", name.to_owned()), "{headers}");
        }
    }

    #[test]
    fn boolean_headers_are_parsed_or_rejected() {
        for (value, expected) in [("true", true), ("True", true), ("false", false), ("FALSE", false)] {
            assert_eq!(bypass_governance(&put(&format!("{BYPASS}: {value}"))), Ok(Some(expected)), "{value}");
            assert_eq!(enables_object_lock(&put(&format!("{BUCKET_LOCK}: {value}"))), Ok(expected), "{value}");
        }
        assert_eq!(bypass_governance(&put("a: b")), Ok(None));
        assert_eq!(enables_object_lock(&put("a: b")), Ok(false));
        for bad in ["", "1", "yes", "tru"] {
            let code = bypass_governance(&put(&format!("{BYPASS}: {bad}"))).unwrap_err().code;
            assert_eq!(code, ErrorCode::InvalidArgument, "{bad}");
            assert!(enables_object_lock(&put(&format!("{BUCKET_LOCK}: {bad}"))).is_err(), "{bad}");
        }
    }

    #[test]
    fn bodies_with_locks_require_a_digest() {
        for body in [DigestedBody::Object, DigestedBody::Part, DigestedBody::Document] {
            for good in [
                "content-md5: a",
                "x-amz-checksum-crc32: a",
                "x-amz-checksum-sha512: a",
                "x-amz-trailer: x-amz-checksum-crc32",
            ] {
                assert_eq!(require_digest(&put(good), body), Ok(()), "{good}");
            }
            for bad in ["x-amz-checksum-mode: ENABLED", "x-amz-checksum-algorithm: SHA256", "x-amz-content-sha256: a"] {
                let error = require_digest(&put(bad), body).unwrap_err();
                assert_eq!(error.code, ErrorCode::InvalidRequest, "{bad}");
                assert!(error.message.contains("Content-MD5 OR x-amz-checksum-"), "{bad}: {}", error.message);
            }
        }
    }
}
