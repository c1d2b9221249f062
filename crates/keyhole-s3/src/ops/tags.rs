//! Tags of objects and buckets (AWS, "Categorizing your objects using tags"): header and storage formats.

use std::borrow::Cow;

use percent_encoding::percent_decode;

use super::Directive;
use super::encoding::{push_text, take_text};
use crate::http::RequestHead;
use crate::limits::{BUCKET_TAGS_MAX, TAG_KEY_MAX, TAG_VALUE_MAX, TAGS_MAX};
use crate::{Error, ErrorCode};

/// The tags of an object or a bucket: unique keys and their values, in the client's order.
///
/// ```
/// use keyhole_s3::ops::Tags;
///
/// let mut tags = Tags::default();
/// tags.push("site".to_owned(), "north".to_owned())?;
/// assert_eq!(Tags::from_bytes(&tags.to_bytes()), Some(tags));
/// # Ok::<(), keyhole_s3::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Tags(Vec<(String, String)>);

impl Tags {
    /// Adds a tag of an object.
    ///
    /// # Errors
    /// `BadRequest` beyond [`TAGS_MAX`]; `InvalidTag` for keys and values that are too long or have
    /// invalid characters, for system keys, and for a repeated key.
    pub fn push(&mut self, key: String, value: String) -> Result<(), Error> {
        self.push_within(TAGS_MAX, "Object tags cannot be greater than 10", key, value)
    }

    /// Adds a tag of a bucket.
    ///
    /// # Errors
    /// `BadRequest` beyond [`BUCKET_TAGS_MAX`]; otherwise those of [`push`](Self::push).
    pub fn push_of_bucket(&mut self, key: String, value: String) -> Result<(), Error> {
        self.push_within(BUCKET_TAGS_MAX, "Bucket tag count cannot be greater than 50", key, value)
    }

    fn push_within(&mut self, max: usize, too_many: &'static str, key: String, value: String) -> Result<(), Error> {
        let invalid = |message: &'static str, name: &'static str, text: &str| {
            Error::new(ErrorCode::InvalidTag).with_message(message).with_field(name, text)
        };
        if key.is_empty() || key.chars().count() > TAG_KEY_MAX || !key.chars().all(is_allowed) {
            return Err(invalid("The TagKey you have provided is invalid", "TagKey", &key));
        }
        if key.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("aws:")) {
            return Err(invalid("System tags cannot be added/updated by requester", "TagKey", &key));
        }
        if value.chars().count() > TAG_VALUE_MAX || !value.chars().all(is_allowed) {
            return Err(invalid("The TagValue you have provided is invalid", "TagValue", &value));
        }
        if self.iter().any(|(other, _)| other == key) {
            return Err(invalid("Cannot provide multiple Tags with the same key", "TagKey", &key));
        }
        if self.0.len() == max {
            return Err(Error::new(ErrorCode::BadRequest).with_message(too_many));
        }
        self.0.push((key, value));
        Ok(())
    }

    /// Iterates over keys and values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// Returns the number of tags.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether there are no tags.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Encodes the tags for storage: for each tag the key and the value, each preceded by its
    /// length in 2 bytes, little-endian.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for text in self.iter().flat_map(|(key, value)| [key, value]) {
            push_text(&mut bytes, text);
        }
        bytes
    }

    /// Decodes the output of [`to_bytes`](Self::to_bytes) for the tags of an object. Returns `None`
    /// for anything else.
    pub fn from_bytes(bytes: &[u8]) -> Option<Tags> {
        Tags::decode(bytes, Tags::push)
    }

    /// Decodes the output of [`to_bytes`](Self::to_bytes) for the tags of a bucket. Returns `None`
    /// for anything else.
    pub fn bucket_from_bytes(bytes: &[u8]) -> Option<Tags> {
        Tags::decode(bytes, Tags::push_of_bucket)
    }

    fn decode(mut bytes: &[u8], push: fn(&mut Tags, String, String) -> Result<(), Error>) -> Option<Tags> {
        let mut tags = Tags::default();
        while !bytes.is_empty() {
            let key = take_text(&mut bytes)?;
            let value = take_text(&mut bytes)?;
            push(&mut tags, key, value).ok()?;
        }
        Some(tags)
    }
}

/// Returns whether a tag may contain `c`: letters, numbers and white space of any script, and `+ -
/// = . _ : / @`.
fn is_allowed(c: char) -> bool {
    c.is_alphanumeric() || (c.is_whitespace() && !c.is_control()) || "+-=._:/@".contains(c)
}

/// Parses the `x-amz-tagging` header of a request that creates an object, in query format.
///
/// # Errors
/// `InvalidArgument` if it is malformed, and the errors of [`Tags::push`].
pub fn tags(head: &RequestHead) -> Result<Tags, Error> {
    let mut tags = Tags::default();
    let Some(value) = head.headers.get("x-amz-tagging") else { return Ok(tags) };
    let malformed = || {
        let message = "The header 'x-amz-tagging' shall be encoded as UTF-8 then URLEncoded URL query parameters without tag name duplicates.";
        Error::invalid_argument("x-amz-tagging", String::from_utf8_lossy(value), message)
    };
    for pair in value.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()) {
        let mut halves = pair.splitn(2, |byte| *byte == b'=');
        let mut text = || decode(halves.next().unwrap_or_default());
        let (Some(key), Some(value)) = (text(), text()) else { return Err(malformed()) };
        tags.push(key, value)?;
    }
    Ok(tags)
}

/// Decodes a component, in which `+` is a space.
fn decode(text: &[u8]) -> Option<String> {
    let spaced: Vec<u8> = text.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
    percent_decode(&spaced).decode_utf8().ok().map(Cow::into_owned)
}

/// Parses the tags of a copy; `None` copies those of the source.
///
/// # Errors
/// `InvalidArgument` for an `x-amz-tagging-directive` other than COPY and REPLACE, and for tags
/// without REPLACE; the errors of [`tags`].
pub fn copied_tags(head: &RequestHead) -> Result<Option<Tags>, Error> {
    match super::object::directive(head, "x-amz-tagging-directive", "Unknown tagging directive.")? {
        Directive::Replace => tags(head).map(Some),
        Directive::Copy => match head.headers.get("x-amz-tagging") {
            None => Ok(None),
            Some(value) => Err(Error::invalid_argument(
                "x-amz-tagging",
                String::from_utf8_lossy(value),
                "Tags for a copy need x-amz-tagging-directive: REPLACE; without it those of the source are copied.",
            )),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::tests::head;

    fn parse(value: &str) -> Result<Tags, ErrorCode> {
        tags(&head(&format!("PUT /b/k HTTP/1.1\nx-amz-tagging: {value}"))).map_err(|error| error.code)
    }

    #[test]
    fn tag_header_is_decoded() {
        let got = parse("project=key+hole&a%2Fb=%C3%A9&empty=&bare&").unwrap();
        let expected = [("project", "key hole"), ("a/b", "\u{e9}"), ("empty", ""), ("bare", "")];
        assert_eq!(got.iter().collect::<Vec<_>>(), expected);
        assert!(parse("").unwrap().is_empty());
    }

    #[test]
    fn tags_are_accepted_up_to_their_limits() {
        use ErrorCode as C;
        let many = |n: usize| (0..n).map(|i| format!("k{i}=v")).collect::<Vec<_>>().join("&");
        assert_eq!(parse(&many(TAGS_MAX)).unwrap().len(), TAGS_MAX);
        assert_eq!(parse(&many(TAGS_MAX + 1)), Err(C::BadRequest));
        // The limits are in characters, not bytes.
        for (c, value) in [("k", "v"), ("%C3%A9", "%F0%A0%80%80")] {
            let tag = |k: usize, v: usize| parse(&format!("{}={}", c.repeat(k), value.repeat(v)));
            assert!(tag(TAG_KEY_MAX, TAG_VALUE_MAX).is_ok() && tag(1, 0).is_ok());
            assert_eq!(tag(TAG_KEY_MAX + 1, 1), Err(C::InvalidTag));
            assert_eq!(tag(1, TAG_VALUE_MAX + 1), Err(C::InvalidTag));
        }
        for good in ["a=%2B-%3D._%3A/%40%20%E3%80%80%D9%A3", "AWS=1", "awsx:=1"] {
            parse(good).unwrap();
        }
        for bad in ["=v", "a=1&a=2", "a=%00", "a=%09", "a=%3C", "a%26=1", "aws:a=1", "AWS:a=1"] {
            assert_eq!(parse(bad), Err(C::InvalidTag), "{bad}");
        }
        assert_eq!(parse("a=%ff"), Err(C::InvalidArgument));
    }

    #[test]
    fn tags_survive_storage() {
        let tags = parse("a=1&b=&%C3%A9=x").unwrap();
        let bytes = tags.to_bytes();
        assert_eq!(Tags::from_bytes(&bytes), Some(tags));
        assert!(Tags::default().to_bytes().is_empty());
        for len in 0..bytes.len() {
            assert!(Tags::from_bytes(&bytes[..len]).is_none_or(|tags| tags.len() < 3), "{len}");
            assert!(Tags::from_bytes(&[&bytes[..], &[0]].concat()).is_none());
        }
    }

    #[test]
    fn copied_tags_follow_the_directive() {
        let check = |headers: &str| {
            let tags = copied_tags(&head(&format!("PUT /b/k HTTP/1.1{headers}")));
            tags.map(|tags| tags.map(|tags| tags.len())).map_err(|error| error.code)
        };
        assert_eq!(check(""), Ok(None));
        assert_eq!(check("\nx-amz-tagging-directive: COPY"), Ok(None));
        assert_eq!(check("\nx-amz-tagging-directive: REPLACE"), Ok(Some(0)));
        assert_eq!(check("\nx-amz-tagging-directive: REPLACE\nx-amz-tagging: a=b"), Ok(Some(1)));
        assert_eq!(check("\nx-amz-tagging: a=b"), Err(ErrorCode::InvalidArgument));
        assert_eq!(check("\nx-amz-tagging-directive: MOVE"), Err(ErrorCode::InvalidArgument));
    }
}
