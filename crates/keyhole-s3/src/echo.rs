//! Client text in errors. Errors are logged on their way, and clients send keys under wrong names: an
//! error shows enough of a value to find it in the request, and no key.

use std::borrow::Cow;

use crate::limits::{ECHO_MAX, ECHO_SHOWN, ERROR_TEXT_MAX};

/// Replaces a text that could be a key.
const REDACTED: &str = "(redacted)";

/// Shortest base64 of a customer key, without padding.
const KEY_BASE64_MIN: usize = 43;

/// Length of a customer key in hexadecimal.
const KEY_HEX_LEN: usize = 64;

/// Returns a client's value for an error: whole up to [`ECHO_MAX`] bytes, otherwise its beginning.
pub(crate) fn echoed(value: &str) -> String {
    if value.len() <= ECHO_MAX { value.to_owned() } else { beginning(value).into_owned() }
}

/// Returns the first [`ECHO_SHOWN`] characters of a value that could be a part of a key.
pub(crate) fn beginning(value: &str) -> Cow<'_, str> {
    match value.char_indices().nth(ECHO_SHOWN) {
        None => Cow::Borrowed(value),
        Some((end, _)) => Cow::Owned(format!("{}...", &value[..end])),
    }
}

/// Returns a text of an error with everything replaced that has the shape of a key, and cut to
/// [`ERROR_TEXT_MAX`] bytes.
pub(crate) fn without_keys(text: &str) -> Cow<'_, str> {
    let end = (0..=text.len().min(ERROR_TEXT_MAX)).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    let text = &text[..end];
    if text.len() < KEY_BASE64_MIN || !text.split(is_separator).any(is_like_key) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    for piece in text.split_inclusive(is_separator) {
        let token = piece.trim_end_matches(is_separator);
        out.push_str(if is_like_key(token) { REDACTED } else { token });
        out.push_str(&piece[token.len()..]);
    }
    Cow::Owned(out)
}

/// Returns whether no key in base64 or hexadecimal, in either alphabet, contains this character.
fn is_separator(c: char) -> bool {
    !(c.is_ascii_alphanumeric() || "+/-_".contains(c))
}

/// Returns whether a token could be a key. Base64 of random bytes has both cases and digits, which
/// tells it from the names of headers.
fn is_like_key(token: &str) -> bool {
    let has = |is_kind: fn(&u8) -> bool| token.as_bytes().iter().any(is_kind);
    let is_hex = token.len() >= KEY_HEX_LEN && token.bytes().all(|byte| byte.is_ascii_hexdigit());
    let is_base64 = token.len() >= KEY_BASE64_MIN
        && has(u8::is_ascii_uppercase)
        && has(u8::is_ascii_lowercase)
        && has(u8::is_ascii_digit);
    is_hex || is_base64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_values_are_cut() {
        let value = |len| "a".repeat(len);
        assert_eq!(echoed(&value(ECHO_MAX)), value(ECHO_MAX));
        assert_eq!(echoed(&value(ECHO_MAX + 1)), value(ECHO_SHOWN) + "...");
        assert_eq!(echoed(&"\u{e9}".repeat(ECHO_MAX)), "\u{e9}".repeat(ECHO_SHOWN) + "...");
        let text = |len| "b ".repeat(len / 2);
        assert_eq!(without_keys(&text(ERROR_TEXT_MAX)), text(ERROR_TEXT_MAX));
        assert_eq!(without_keys(&text(ERROR_TEXT_MAX + 2)), text(ERROR_TEXT_MAX));
    }

    #[test]
    fn keys_are_redacted() {
        let key = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY";
        let url = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY-_DlhYmNkZWY";
        let twice = "TURFeU16UTFOamM0T1dGaVkyUmxaakF4TWpNME5UWTNPRGxoWW1Oa1pXWT0=";
        let hex = "30313233343536373839616263646566".repeat(2);
        for secret in [key, url, twice, &hex, &hex.to_uppercase()] {
            let secret = secret.trim_end_matches('=');
            assert_eq!(without_keys(secret), REDACTED);
            let text = format!("the value '{secret}=' is wrong; send \"{secret}\"");
            assert_eq!(without_keys(&text), "the value '(redacted)=' is wrong; send \"(redacted)\"");
        }
        for text in [
            "",
            "x-amz-copy-source-server-side-encryption-customer-algorithm",
            "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
            "2026-01-01T00:00:00.000Z",
            "00112233445566778899aabbccddeeff",
            &key[1..],
            &hex[1..].replace('a', "z"),
        ] {
            assert_eq!(without_keys(text), text);
        }
    }
}
