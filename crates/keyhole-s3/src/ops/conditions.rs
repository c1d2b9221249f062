//! Ranges and conditions (RFC 9110 §13 and §14).

use std::ops::Range;

use crate::http::{Headers, RequestHead};
use crate::time::parse_http_date;
use crate::{Error, ErrorCode};

/// The conditions of a read, or on the source of a copy.
#[derive(Clone, Debug, Default)]
pub struct Conditions {
    if_match: Option<String>,
    if_none_match: Option<String>,
    if_modified_since: Option<u64>,
    if_unmodified_since: Option<u64>,
}

/// The result of evaluating conditions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Decision {
    /// The operation proceeds.
    Proceed,
    /// 304: the client's copy is current.
    NotModified,
    /// 412.
    PreconditionFailed,
}

/// Parses the conditions on the request's object.
pub fn conditions(head: &RequestHead) -> Conditions {
    read(&head.headers, "")
}

/// Parses the conditions on the source of a copy.
pub fn copy_conditions(head: &RequestHead) -> Conditions {
    read(&head.headers, "x-amz-copy-source-")
}

fn read(headers: &Headers, prefix: &str) -> Conditions {
    let found = |name: &str| {
        let is_match = |field: &str| field.strip_prefix(prefix) == Some(name);
        headers.iter().find(|(field, _)| is_match(field)).and_then(|(_, value)| std::str::from_utf8(value).ok())
    };
    let text = |name: &str| found(name).map(str::to_owned);
    // An invalid date is ignored (RFC 9110 §13.1.3).
    let date = |name: &str| text(name).and_then(|text| parse_http_date(&text));
    Conditions {
        if_match: text("if-match"),
        if_none_match: text("if-none-match"),
        if_modified_since: date("if-modified-since"),
        if_unmodified_since: date("if-unmodified-since"),
    }
}

impl Conditions {
    /// Returns whether there are no conditions.
    pub fn is_empty(&self) -> bool {
        let Conditions { if_match, if_none_match, if_modified_since, if_unmodified_since } = self;
        if_match.is_none() && if_none_match.is_none() && if_modified_since.is_none() && if_unmodified_since.is_none()
    }

    /// Evaluates the conditions for an object with this ETag (without quotes) and modification
    /// time, or for a missing object (`None`), in the order of RFC 9110 §13.2.2: a date counts only
    /// without an ETag.
    pub fn decide(&self, object: Option<(&str, u64)>) -> Decision {
        let etag = object.map(|(etag, _)| etag);
        // HTTP dates have a resolution of one second.
        let modified = object.map(|(_, ms)| ms / 1000);
        match (&self.if_match, self.if_unmodified_since) {
            (Some(tags), _) if !matches(tags, etag) => return Decision::PreconditionFailed,
            (None, Some(date)) if modified.is_some_and(|modified| modified > date / 1000) => {
                return Decision::PreconditionFailed;
            }
            _ => {}
        }
        match (&self.if_none_match, self.if_modified_since) {
            (Some(tags), _) if matches(tags, etag) => Decision::NotModified,
            (None, Some(date)) if modified.is_some_and(|modified| modified <= date / 1000) => Decision::NotModified,
            _ => Decision::Proceed,
        }
    }
}

/// Returns whether `etag` is in a list of tags, quoted or not, or the list is `*`.
fn matches(tags: &str, etag: Option<&str>) -> bool {
    let Some(etag) = etag else { return false };
    tags.split(',').map(str::trim).any(|tag| {
        let tag = tag.strip_prefix("W/").unwrap_or(tag);
        tag == "*" || tag.trim_matches('"') == etag
    })
}

/// The condition of a write.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum WriteCondition {
    /// No condition.
    None,
    /// The object must not exist.
    IfAbsent,
    /// The object must have this ETag (without quotes).
    IfMatch(String),
}

/// Parses the condition of a PUT, a completion or a DELETE.
///
/// # Errors
/// `NotImplemented` for conditions that S3 does not support on writes: dates, and an
/// `If-None-Match` other than `*`.
pub fn write_condition(head: &RequestHead) -> Result<WriteCondition, Error> {
    let unsupported = |name: &str| {
        Error::new(ErrorCode::NotImplemented)
            .with_message("A header you provided implies functionality that is not implemented")
            .with_field("Header", name)
    };
    for name in ["if-modified-since", "if-unmodified-since"] {
        if head.headers.get(name).is_some() {
            return Err(unsupported(name));
        }
    }
    match (head.headers.get("if-none-match"), head.headers.text("if-match")) {
        (None, None) => Ok(WriteCondition::None),
        (Some(b"*"), None) => Ok(WriteCondition::IfAbsent),
        (Some(_), _) => Err(unsupported("If-None-Match")),
        (None, Some(tag)) if tag == "*" || tag.contains(',') => Err(unsupported("If-Match")),
        (None, Some(tag)) => Ok(WriteCondition::IfMatch(tag.trim_matches('"').to_owned())),
    }
}

/// Returns the requested range of an object of `size` bytes. A malformed header, another unit or
/// several ranges are ignored (RFC 9110 §14.2).
///
/// # Errors
/// `InvalidRange` if the range contains no bytes of the object.
pub fn range(head: &RequestHead, size: u64) -> Result<Option<Range<u64>>, Error> {
    let Some(spec) = head.headers.text("range").and_then(parse_range) else { return Ok(None) };
    let range = match spec {
        (Some(first), last) => first..last.map_or(size, |last| last.saturating_add(1)).min(size),
        (None, Some(suffix)) => size.saturating_sub(suffix)..size,
        (None, None) => return Ok(None),
    };
    if range.start >= range.end {
        return Err(Error::new(ErrorCode::InvalidRange)
            .with_field("RangeRequested", head.headers.text("range").unwrap_or_default())
            .with_field("ActualObjectSize", size.to_string())
            .with_header("Content-Range", format!("bytes */{size}")));
    }
    Ok(Some(range))
}

/// Parses the first and the last position; without the first, the second is the length of a suffix.
fn parse_range(text: &str) -> Option<(Option<u64>, Option<u64>)> {
    let (first, last) = text.trim().strip_prefix("bytes=")?.split_once('-')?;
    let number = |text: &str| match text.trim() {
        "" => Some(None),
        text if text.bytes().all(|byte| byte.is_ascii_digit()) => Some(Some(text.parse().unwrap_or(u64::MAX))),
        _ => None,
    };
    match (number(first)?, number(last)?) {
        (Some(first), Some(last)) if first > last => None,
        (None, None) => None,
        range => Some(range),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::tests::head;

    #[test]
    fn ranges_are_parsed_or_ignored() {
        let check = |text: &str, size, expected: Result<Option<Range<u64>>, ErrorCode>| {
            let got = range(&head(&format!("GET / HTTP/1.1\nRange: {text}")), size).map_err(|error| error.code);
            assert_eq!(got, expected, "{text} of {size}");
        };
        check("bytes=0-0", 10, Ok(Some(0..1)));
        check("bytes=2-5", 10, Ok(Some(2..6)));
        check("bytes=2-", 10, Ok(Some(2..10)));
        check("bytes=2-99999999999999999999", 10, Ok(Some(2..10)));
        check("bytes=-3", 10, Ok(Some(7..10)));
        check("bytes=-30", 10, Ok(Some(0..10)));
        check("bytes=9-", 10, Ok(Some(9..10)));
        check("bytes=10-", 10, Err(ErrorCode::InvalidRange));
        check("bytes=-0", 10, Err(ErrorCode::InvalidRange));
        check("bytes=0-", 0, Err(ErrorCode::InvalidRange));
        check("bytes=-1", 0, Err(ErrorCode::InvalidRange));
        for ignored in ["bytes=5-2", "bytes=a-b", "bytes=0-1,3-4", "items=0-1", "bytes=-", "bytes", "bytes=+1-2"] {
            check(ignored, 10, Ok(None));
        }
    }

    #[test]
    fn unsatisfiable_range_names_the_size() {
        let error = range(&head("GET / HTTP/1.1\nRange: bytes=7-"), 7).unwrap_err();
        assert_eq!(error.headers, [("Content-Range", "bytes */7".to_owned())]);
    }

    #[test]
    fn conditions_are_evaluated_in_order() {
        use Decision::*;
        let early = "Thu, 01 Jan 1970 00:00:01 GMT";
        let late = "Thu, 01 Jan 1970 00:00:09 GMT";
        // The object has the ETag "e" and was modified at 5.4 s.
        let cases = [
            ("".to_owned(), Proceed),
            ("\nIf-Match: \"e\"".to_owned(), Proceed),
            ("\nIf-Match: e".to_owned(), Proceed),
            ("\nIf-Match: *".to_owned(), Proceed),
            ("\nIf-Match: \"x\", \"e\"".to_owned(), Proceed),
            ("\nIf-Match: \"x\"".to_owned(), PreconditionFailed),
            ("\nIf-None-Match: \"e\"".to_owned(), NotModified),
            ("\nIf-None-Match: *".to_owned(), NotModified),
            ("\nIf-None-Match: \"x\"".to_owned(), Proceed),
            (format!("\nIf-Unmodified-Since: {early}"), PreconditionFailed),
            (format!("\nIf-Unmodified-Since: {late}"), Proceed),
            (format!("\nIf-Match: \"e\"\nIf-Unmodified-Since: {early}"), Proceed),
            (format!("\nIf-Modified-Since: {early}"), Proceed),
            (format!("\nIf-Modified-Since: {late}"), NotModified),
            ("\nIf-Modified-Since: Thu, 01 Jan 1970 00:00:05 GMT".to_owned(), NotModified),
            (format!("\nIf-None-Match: \"x\"\nIf-Modified-Since: {late}"), Proceed),
            ("\nIf-Modified-Since: soon".to_owned(), Proceed),
        ];
        for (headers, expected) in cases {
            let head = head(&format!("GET / HTTP/1.1{headers}"));
            assert_eq!(conditions(&head).decide(Some(("e", 5400))), expected, "{headers}");
        }
    }

    #[test]
    fn write_conditions_are_parsed_or_not_implemented() {
        let check =
            |headers: &str| write_condition(&head(&format!("PUT /b/k HTTP/1.1{headers}"))).map_err(|error| error.code);
        assert_eq!(check(""), Ok(WriteCondition::None));
        assert_eq!(check("\nIf-None-Match: *"), Ok(WriteCondition::IfAbsent));
        assert_eq!(check("\nIf-Match: \"e\""), Ok(WriteCondition::IfMatch("e".to_owned())));
        for bad in
            ["\nIf-None-Match: \"e\"", "\nIf-Match: *", "\nIf-Modified-Since: x", "\nIf-None-Match: *\nIf-Match: \"e\""]
        {
            assert_eq!(check(bad), Err(ErrorCode::NotImplemented), "{bad}");
        }
    }
}
