//! The query of a request target, decoded once.
//!
//! # Invariants
//! - The signature's canonical form and the parameters of the operation come from the same decoded
//!   pairs, so a signed query means the same to both.
//! - `+` is a space, as in the forms of browsers and as S3 reads it; `%2B` is a plus sign.

use std::fmt;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use zeroize::Zeroize;

use crate::{Error, ErrorCode};

/// Characters encoded in canonical queries: all but RFC 3986's unreserved characters.
pub(crate) const ENCODED: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The decoded parameters of a query, in order. Wiped on drop, because clients send customer keys
/// here by mistake.
///
/// ```
/// let bytes = b"GET /edge?prefix=a%2Bb+c HTTP/1.1\r\nHost: node\r\n\r\n";
/// let (head, _) = keyhole_s3::http::parse_head(bytes)?.expect("a complete head");
/// assert_eq!(head.query.get("prefix"), Some("a+b c"));
/// # Ok::<(), keyhole_s3::Error>(())
/// ```
#[derive(Default, Clone)]
pub struct Query {
    /// All names and values, concatenated. The capacity is that of the encoded query: it never grows.
    text: String,
    /// End offsets of each parameter's name and value.
    ends: Vec<(usize, usize)>,
}

impl Query {
    /// Parses the query of a target, without `?`.
    ///
    /// # Errors
    /// `InvalidURI` for an invalid escape and for text that is not UTF-8; `InvalidArgument` for a
    /// repeated parameter, `AuthorizationQueryParametersError` if it belongs to a signature.
    pub fn parse(query: &str) -> Result<Query, Error> {
        let mut parsed = Query::default();
        if query.is_empty() {
            return Ok(parsed);
        }
        let mut bytes = Vec::with_capacity(query.len());
        let decoded = decode_pairs(query, &mut bytes, &mut parsed.ends);
        // Moves the buffer; the text is UTF-8 at each boundary because every component is.
        match decoded.map(|()| String::from_utf8(bytes)) {
            Ok(Ok(text)) => parsed.text = text,
            Ok(Err(error)) => {
                error.into_bytes().zeroize();
                return Err(Error::new(ErrorCode::InvalidURI));
            }
            Err(error) => return Err(error),
        }
        parsed.refuse_repeated()?;
        Ok(parsed)
    }

    /// Returns the value of a parameter; empty if it has none.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.pairs().find(|(other, _)| *other == name).map(|(_, value)| value)
    }

    /// Returns whether the query has this parameter, with or without a value.
    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Returns whether there are no parameters.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Iterates over the names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.pairs().map(|(name, _)| name)
    }

    /// Iterates over names and values.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        let starts = std::iter::once(0).chain(self.ends.iter().map(|(_, end)| *end));
        starts.zip(&self.ends).map(|(start, (middle, end))| (&self.text[start..*middle], &self.text[*middle..*end]))
    }

    /// Passes the canonical form (AWS, "Create a canonical request"), without the parameter
    /// `without`, piece by piece to `put`. Makes no copy of the values.
    pub(crate) fn put_canonical(&self, without: Option<&str>, mut put: impl FnMut(&str)) {
        let mut pairs: Vec<(&str, &str)> = self.pairs().filter(|(name, _)| Some(*name) != without).collect();
        pairs.sort_unstable_by(|(name, value), (other_name, other_value)| {
            encoded(name).cmp(encoded(other_name)).then_with(|| encoded(value).cmp(encoded(other_value)))
        });
        for (i, (name, value)) in pairs.into_iter().enumerate() {
            put(if i > 0 { "&" } else { "" });
            percent_encode(name.as_bytes(), &ENCODED).for_each(&mut put);
            put("=");
            percent_encode(value.as_bytes(), &ENCODED).for_each(&mut put);
        }
    }

    /// Rejects a repeated parameter: readers differ on which one counts.
    fn refuse_repeated(&self) -> Result<(), Error> {
        let mut names: Vec<&str> = self.names().collect();
        names.sort_unstable();
        let Some(name) = names.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0]) else { return Ok(()) };
        let is_signing = name.starts_with("X-Amz-");
        let code = if is_signing { ErrorCode::AuthorizationQueryParametersError } else { ErrorCode::InvalidArgument };
        let error = Error::new(code).with_message("A query parameter is given twice. Send each once.");
        Err(if is_signing { error } else { error.with_field("ArgumentName", name) })
    }
}

impl Drop for Query {
    fn drop(&mut self) {
        self.text.zeroize();
    }
}

/// Shows the names only.
impl fmt::Debug for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}

/// Iterates over the bytes of the percent-encoded `text`.
fn encoded(text: &str) -> impl Iterator<Item = u8> {
    percent_encode(text.as_bytes(), &ENCODED).flat_map(str::bytes)
}

/// Decodes all parameters into `out`, which is wiped on an error.
fn decode_pairs(query: &str, out: &mut Vec<u8>, ends: &mut Vec<(usize, usize)>) -> Result<(), Error> {
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let start = out.len();
        let mut is_valid = decode(name, true, out) && std::str::from_utf8(&out[start..]).is_ok();
        let middle = out.len();
        is_valid = is_valid && decode(value, true, out) && std::str::from_utf8(&out[middle..]).is_ok();
        if !is_valid {
            out.zeroize();
            return Err(Error::new(ErrorCode::InvalidURI));
        }
        ends.push((middle, out.len()));
    }
    Ok(())
}

/// Decodes the path of a target. Returns `None` if nothing in it is encoded.
///
/// # Errors
/// `InvalidURI` for an invalid escape and for text that is not UTF-8.
pub(crate) fn decode_path(path: &str) -> Result<Option<String>, Error> {
    if !path.contains('%') {
        return Ok(None);
    }
    let mut bytes = Vec::with_capacity(path.len());
    let decoded = if decode(path, false, &mut bytes) { String::from_utf8(bytes).ok() } else { None };
    decoded.map(Some).ok_or_else(|| Error::new(ErrorCode::InvalidURI))
}

/// Appends the decoded `text`. Returns `false` at a `%` without two hexadecimal digits, which
/// lenient decoders read in different ways.
fn decode(text: &str, is_plus_space: bool, out: &mut Vec<u8>) -> bool {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        out.push(match byte {
            b'+' if is_plus_space => b' ',
            b'%' => {
                let Some((&[high, low], after)) = rest.split_first_chunk() else { return false };
                let (Some(high), Some(low)) = (digit(high), digit(low)) else { return false };
                rest = after;
                high << 4 | low
            }
            byte => byte,
        });
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(query: &Query, without: Option<&str>) -> String {
        let mut text = String::new();
        query.put_canonical(without, |piece| text.push_str(piece));
        text
    }

    #[test]
    fn canonical_form_encodes_the_decoded_parameters() {
        for (query, expected) in [
            ("", ""),
            ("acl", "acl="),
            ("acl=", "acl="),
            ("&a=1&&b=2&", "a=1&b=2"),
            ("b=2&a=1", "a=1&b=2"),
            ("a=x+y", "a=x%20y"),
            ("a=x%20y", "a=x%20y"),
            ("a=x%2By", "a=x%2By"),
            ("a+b=1", "a%20b=1"),
            ("a=%2f%7e%61", "a=%2F~a"),
            ("a=/~'()*!", "a=%2F~%27%28%29%2A%21"),
            ("a=%252B", "a=%252B"),
            ("a=b=c", "a=b%3Dc"),
            ("a=%26b%3D2", "a=%26b%3D2"),
            ("%61=1", "a=1"),
            ("a=%00", "a=%00"),
            ("k=\u{e9}", "k=%C3%A9"),
            ("k=%c3%a9", "k=%C3%A9"),
            // Sorted by the encoded names.
            ("az=1&a%7B=2", "a%7B=2&az=1"),
        ] {
            assert_eq!(canonical(&Query::parse(query).unwrap(), None), expected, "{query}");
        }
        assert_eq!(canonical(&Query::parse("b=1&a=2&c=3").unwrap(), Some("a")), "b=1&c=3");
    }

    /// The canonical form is a query with the same parameters.
    #[test]
    fn canonical_form_has_the_parameters_of_the_operation() {
        let mut random = fastrand::Rng::with_seed(7);
        let pieces =
            ["a", "b", "+", "%20", "%2B", "%2b", "%25", "%26", "%3D", "&", "=", "/", "%C3%A9", "%00", "\u{e9}"];
        for _ in 0..2000 {
            let query: String = (0..random.usize(..12)).map(|_| *random.choice(&pieces).unwrap()).collect();
            let Ok(parsed) = Query::parse(&query) else { continue };
            let again = Query::parse(&canonical(&parsed, None)).unwrap();
            let sorted = |query: &Query| {
                let mut pairs: Vec<_> = query.pairs().map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
                pairs.sort_unstable();
                pairs
            };
            assert_eq!(sorted(&parsed), sorted(&again), "{query}");
        }
    }

    #[test]
    fn ambiguous_queries_are_rejected() {
        for (query, code) in [
            ("a=1&a=2", ErrorCode::InvalidArgument),
            ("a&b=1&a", ErrorCode::InvalidArgument),
            ("a=1&%61=2", ErrorCode::InvalidArgument),
            ("X-Amz-Date=1&X-Amz-Date=2", ErrorCode::AuthorizationQueryParametersError),
            ("a=%", ErrorCode::InvalidURI),
            ("a=%2", ErrorCode::InvalidURI),
            ("a=%zz", ErrorCode::InvalidURI),
            ("a=%+1", ErrorCode::InvalidURI),
            ("%u0041=1", ErrorCode::InvalidURI),
            ("a=%ff", ErrorCode::InvalidURI),
            // An overlong slash, and a character cut in two by a separator.
            ("a=%C0%AF", ErrorCode::InvalidURI),
            ("a=%C3&%A9=1", ErrorCode::InvalidURI),
            ("%C3=%A9", ErrorCode::InvalidURI),
        ] {
            assert_eq!(Query::parse(query).unwrap_err().code, code, "{query}");
        }
    }

    #[test]
    fn paths_are_decoded_or_rejected() {
        assert_eq!(decode_path("/b/a+b").unwrap(), None);
        assert_eq!(decode_path("/b/a%2bb%2Fc%00").unwrap().as_deref(), Some("/b/a+b/c\0"));
        assert_eq!(decode_path("/b/%252e").unwrap().as_deref(), Some("/b/%2e"));
        for bad in ["/%", "/%2", "/%g0", "/%ff", "/%C0%AF", "/%c0%80"] {
            assert_eq!(decode_path(bad).unwrap_err().code, ErrorCode::InvalidURI, "{bad}");
        }
    }
}
