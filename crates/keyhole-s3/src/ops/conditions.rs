//! Ranges and conditions (RFC 9110 §13 and §14).

use std::fmt::Display;
use std::ops::Range;

use crate::http::{Headers, RequestHead};
use crate::time::{parse_http_date, parse_iso8601};
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
    const NAMES: [&str; 4] = ["if-match", "if-none-match", "if-modified-since", "if-unmodified-since"];
    let mut found = [const { None::<String> }; NAMES.len()];
    for (field, value) in headers.iter() {
        let Some(name) = field.strip_prefix(prefix).filter(|name| name.starts_with("if-")) else { continue };
        let Some(at) = NAMES.iter().position(|condition| *condition == name) else { continue };
        // A repeated field is a list (RFC 9110 §5.3). Bytes that are not UTF-8 match no ETag.
        let text = String::from_utf8_lossy(value);
        match &mut found[at] {
            Some(list) => list.extend([",", &text]),
            none => *none = Some(text.into_owned()),
        }
    }
    let [if_match, if_none_match, if_modified_since, if_unmodified_since] = found;
    // An invalid date is ignored (RFC 9110 §13.1.3).
    let date = |text: Option<String>| text.and_then(|text| parse_http_date(&text));
    Conditions {
        if_match,
        if_none_match,
        if_modified_since: date(if_modified_since),
        if_unmodified_since: date(if_unmodified_since),
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
    /// The object must have these properties.
    IfMatch(Required),
}

/// The properties that a condition requires of the object.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Required {
    /// The ETag without quotes, or `*` for every object. A name without an object does not fulfil
    /// it.
    pub etag: Option<String>,
    /// The size in bytes.
    pub size: Option<u64>,
    /// The earliest and the latest modification time, in ms since 1970: dates have a resolution of
    /// one second.
    pub time_ms: Option<(u64, u64)>,
}

impl Required {
    /// Returns whether nothing is required.
    pub fn is_empty(&self) -> bool {
        *self == Required::default()
    }

    /// Parses an ETag, quoted or not. A weak one is kept as it is, so that it matches no object
    /// (RFC 9110 §13.1.1).
    pub(crate) fn parse_etag(text: &str) -> String {
        let text = text.trim();
        text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text).to_owned()
    }

    /// Parses a size.
    pub(crate) fn parse_size(text: &str) -> Option<u64> {
        let text = text.trim();
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().ok().filter(|_| is_number)
    }

    /// Parses a modification time: an HTTP date, or an ISO 8601 date, which is exact if it has a
    /// fraction of a second.
    pub(crate) fn parse_time(text: &str) -> Option<(u64, u64)> {
        let text = text.trim();
        let first = parse_http_date(text).or_else(|| parse_iso8601(text))?;
        Some((first, if first % 1000 == 0 { first + 999 } else { first }))
    }
}

/// The headers of DeleteObject that require properties beside the ETag.
const IF_MATCH_SIZE: &str = "x-amz-if-match-size";
const IF_MATCH_TIME: &str = "x-amz-if-match-last-modified-time";

/// Parses the condition of a PUT or a completion.
///
/// # Errors
/// `NotImplemented` for conditions that S3 does not support on writes: dates, an `If-None-Match`
/// other than `*`, more than one ETag, and properties that only a deletion can require.
pub fn write_condition(head: &RequestHead) -> Result<WriteCondition, Error> {
    for name in [IF_MATCH_SIZE, IF_MATCH_TIME] {
        if head.headers.get(name).is_some() {
            return Err(unsupported(name));
        }
    }
    etag_condition(head)
}

/// Parses the condition of a DELETE, which can also require a size and a modification time.
///
/// # Errors
/// Those of [`write_condition`]; `InvalidArgument` for a malformed size or time.
pub fn delete_condition(head: &RequestHead) -> Result<WriteCondition, Error> {
    let mut required = match etag_condition(head)? {
        WriteCondition::None => Required::default(),
        WriteCondition::IfMatch(required) => required,
        WriteCondition::IfAbsent => return Err(unsupported("If-None-Match")),
    };
    required.size = single(head, IF_MATCH_SIZE, Required::parse_size, "The size must be a number of bytes.")?;
    required.time_ms = single(head, IF_MATCH_TIME, Required::parse_time, "The time must be an HTTP date.")?;
    Ok(if required.is_empty() { WriteCondition::None } else { WriteCondition::IfMatch(required) })
}

/// Parses a header that may occur once.
fn single<T>(
    head: &RequestHead,
    name: &'static str,
    parse: impl Fn(&str) -> Option<T>,
    message: &'static str,
) -> Result<Option<T>, Error> {
    let mut values = head.headers.all(name);
    let Some(value) = values.next() else { return Ok(None) };
    let parsed = std::str::from_utf8(value).ok().and_then(parse).filter(|_| values.next().is_none());
    parsed.map(Some).ok_or_else(|| Error::invalid_argument(name, String::from_utf8_lossy(value), message))
}

fn etag_condition(head: &RequestHead) -> Result<WriteCondition, Error> {
    for name in ["if-modified-since", "if-unmodified-since"] {
        if head.headers.get(name).is_some() {
            return Err(unsupported(name));
        }
    }
    let mut tags = head.headers.all("if-match");
    match (head.headers.get("if-none-match"), tags.next()) {
        (None, None) => Ok(WriteCondition::None),
        (Some(b"*"), None) => Ok(WriteCondition::IfAbsent),
        (Some(_), _) => Err(unsupported("If-None-Match")),
        (None, Some(tag)) if tag.contains(&b',') || tags.next().is_some() => Err(unsupported("If-Match")),
        (None, Some(tag)) => {
            let etag = Some(Required::parse_etag(&String::from_utf8_lossy(tag)));
            Ok(WriteCondition::IfMatch(Required { etag, ..Required::default() }))
        }
    }
}

fn unsupported(name: &str) -> Error {
    Error::new(ErrorCode::NotImplemented)
        .with_message("A header you provided implies functionality that is not implemented")
        .with_field("Header", name)
}

/// Returns the requested range of an object of `size` bytes, with this ETag (without quotes) and
/// modification time. A malformed header, another unit or several ranges are ignored (RFC 9110
/// §14.2), as is a range whose `If-Range` names another version (§13.1.5).
///
/// A suffix of an empty object is the whole object, as on S3: `Content-Range` cannot express it.
///
/// # Errors
/// `InvalidRange` if the range contains no bytes of the object.
pub fn range(head: &RequestHead, size: u64, etag: &dyn Display, time_ms: u64) -> Result<Option<Range<u64>>, Error> {
    let Some(spec) = head.headers.text("range").and_then(parse_range) else { return Ok(None) };
    if !is_range_current(head, etag, time_ms) {
        return Ok(None);
    }
    let range = match spec {
        (Some(first), last) => first..last.map_or(size, |last| last.saturating_add(1)).min(size),
        (None, Some(1..)) if size == 0 => return Ok(None),
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

/// Returns whether `If-Range` is absent or names the current version: its ETag, which must not be
/// weak, or its modification date.
fn is_range_current(head: &RequestHead, etag: &dyn Display, time_ms: u64) -> bool {
    let mut values = head.headers.all("if-range");
    let Some(value) = values.next() else { return true };
    let Some(text) = std::str::from_utf8(value).ok().filter(|_| values.next().is_none()) else { return false };
    match parse_http_date(text.trim()) {
        Some(date) => date / 1000 == time_ms / 1000,
        None => Required::parse_etag(text) == etag.to_string(),
    }
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
            let head = head(&format!("GET / HTTP/1.1\nRange: {text}"));
            let got = range(&head, size, &"e", 5400).map_err(|error| error.code);
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
        check("bytes=-1", 0, Ok(None));
        check("bytes=-0", 0, Err(ErrorCode::InvalidRange));
        for ignored in ["bytes=5-2", "bytes=a-b", "bytes=0-1,3-4", "items=0-1", "bytes=-", "bytes", "bytes=+1-2"] {
            check(ignored, 10, Ok(None));
        }
    }

    #[test]
    fn unsatisfiable_range_names_the_size() {
        let error = range(&head("GET / HTTP/1.1\nRange: bytes=7-"), 7, &"e", 0).unwrap_err();
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
    fn range_of_another_version_is_ignored() {
        let whole = None;
        let part = Some(2..10);
        for (validator, expected) in [
            ("\"e\"", part.clone()),
            ("e", part.clone()),
            ("Thu, 01 Jan 1970 00:00:05 GMT", part),
            ("Thu, 01 Jan 1970 00:00:04 GMT", whole.clone()),
            ("Thu, 01 Jan 1970 00:00:06 GMT", whole.clone()),
            ("\"x\"", whole.clone()),
            ("W/\"e\"", whole.clone()),
            ("*", whole.clone()),
            ("\"e\", \"x\"", whole.clone()),
            ("", whole),
        ] {
            let head = head(&format!("GET / HTTP/1.1\nRange: bytes=2-\nIf-Range: {validator}"));
            assert_eq!(range(&head, 10, &"e", 5400).unwrap(), expected, "{validator}");
            // An unsatisfiable range of another version is ignored, too.
            assert_eq!(range(&head, 2, &"e", 5400).is_ok(), expected.is_none(), "{validator}");
        }
        assert_eq!(range(&head("GET / HTTP/1.1\nIf-Range: \"e\""), 10, &"e", 5400).unwrap(), None);
    }

    #[test]
    fn write_conditions_are_parsed_or_not_implemented() {
        type Parse = fn(&RequestHead) -> Result<WriteCondition, Error>;
        let parse = |parse: Parse, headers: &str| {
            parse(&head(&format!("PUT /b/k HTTP/1.1{headers}"))).map_err(|error| error.code)
        };
        let tag =
            |tag: &str| Ok(WriteCondition::IfMatch(Required { etag: Some(tag.to_owned()), ..Required::default() }));
        let each: [Parse; 2] = [write_condition, delete_condition];
        for check in each.map(|condition| move |headers: &str| parse(condition, headers)) {
            assert_eq!(check(""), Ok(WriteCondition::None));
            assert_eq!(check("\nIf-Match: \"e\""), tag("e"));
            assert_eq!(check("\nIf-Match: e"), tag("e"));
            assert_eq!(check("\nIf-Match: *"), tag("*"));
            assert_eq!(check("\nIf-Match: W/\"e\""), tag("W/\"e\""));
            for bad in [
                "\nIf-None-Match: \"e\"",
                "\nIf-Match: \"a\", \"b\"",
                "\nIf-Modified-Since: x",
                "\nIf-None-Match: *\nIf-Match: \"e\"",
            ] {
                assert_eq!(check(bad), Err(ErrorCode::NotImplemented), "{bad}");
            }
        }
        let check = |headers: &str| parse(write_condition, headers);
        assert_eq!(check("\nIf-None-Match: *"), Ok(WriteCondition::IfAbsent));
        for bad in ["\nx-amz-if-match-size: 1", "\nx-amz-if-match-last-modified-time: Thu, 01 Jan 1970 00:00:05 GMT"] {
            assert_eq!(check(bad), Err(ErrorCode::NotImplemented), "{bad}");
        }
    }

    #[test]
    fn deletions_require_sizes_and_times() {
        let check = |headers: &str| {
            delete_condition(&head(&format!("DELETE /b/k HTTP/1.1{headers}"))).map_err(|error| error.code)
        };
        let required = |etag: Option<&str>, size, time_ms| {
            Ok(WriteCondition::IfMatch(Required { etag: etag.map(str::to_owned), size, time_ms }))
        };
        let size = "\nx-amz-if-match-size: 7";
        let time = |time: &str| format!("\nx-amz-if-match-last-modified-time: {time}");
        assert_eq!(check(size), required(None, Some(7), None));
        assert_eq!(check(&time("Thu, 01 Jan 1970 00:00:05 GMT")), required(None, None, Some((5000, 5999))));
        assert_eq!(check(&time("1970-01-01T00:00:05.000Z")), required(None, None, Some((5000, 5999))));
        assert_eq!(check(&time("1970-01-01T00:00:05.400Z")), required(None, None, Some((5400, 5400))));
        let all = format!("{size}{}\nIf-Match: *", time("Thu, 01 Jan 1970 00:00:05 GMT"));
        assert_eq!(check(&all), required(Some("*"), Some(7), Some((5000, 5999))));
        for bad in ["-1", "+1", "", "x", "99999999999999999999"] {
            assert_eq!(check(&format!("\nx-amz-if-match-size: {bad}")), Err(ErrorCode::InvalidArgument), "{bad}");
        }
        assert_eq!(check(&time("soon")), Err(ErrorCode::InvalidArgument));
        assert_eq!(check("\nIf-None-Match: *"), Err(ErrorCode::NotImplemented));
    }
}
