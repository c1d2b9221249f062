//! The encoding of a bucket's settings and of tags: little-endian integers, and texts with their
//! length in 2 bytes before them. Rules follow a version byte.

/// The version of the encoding of rules.
const VERSION: u8 = 1;

/// Encodes a list of rules; without rules, the encoding is empty.
pub(super) fn encode_rules<T>(rules: &[T], encode: impl Fn(&T, &mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = Vec::new();
    if !rules.is_empty() {
        bytes.push(VERSION);
        rules.iter().for_each(|rule| encode(rule, &mut bytes));
    }
    bytes
}

/// Decodes a list of at most `max` rules. Returns `None` if the encoding is unknown.
pub(super) fn decode_rules<T>(bytes: &[u8], max: usize, take: impl Fn(&mut &[u8]) -> Option<T>) -> Option<Vec<T>> {
    let mut rules = Vec::new();
    let Some((&version, mut rest)) = bytes.split_first() else { return Some(rules) };
    if version != VERSION || rest.is_empty() {
        return None;
    }
    while !rest.is_empty() && rules.len() < max {
        rules.push(take(&mut rest)?);
    }
    rest.is_empty().then_some(rules)
}

/// Encodes a text of at most 65,535 bytes.
pub(super) fn push_text(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend_from_slice(&(text.len() as u16).to_le_bytes());
    bytes.extend_from_slice(text.as_bytes());
}

/// Takes bytes from the front.
pub(super) fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*taken)
}

/// Takes a text from the front.
pub(super) fn take_text(bytes: &mut &[u8]) -> Option<String> {
    let len = u16::from_le_bytes(take(bytes)?);
    let (text, rest) = bytes.split_at_checked(len.into())?;
    *bytes = rest;
    String::from_utf8(text.to_vec()).ok()
}
