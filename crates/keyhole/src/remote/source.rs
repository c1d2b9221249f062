//! The selection of objects that are shipped to a remote.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::error::ConfigError;
use super::limits::{KEY_PREFIX_MAX, SOURCES_MAX};
use crate::access::check_bucket_pattern;

/// Patterns of objects: an object is selected if one of them matches.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
#[serde(transparent)]
pub(crate) struct Source {
    patterns: Vec<Pattern>,
}

impl Source {
    /// Returns the source of everything.
    pub(crate) fn all() -> Self {
        Source::new(vec!["*".parse().expect("a pattern")])
    }

    pub(crate) fn new(patterns: Vec<Pattern>) -> Self {
        Source { patterns }
    }

    /// Returns the patterns.
    pub(crate) fn patterns(&self) -> &[Pattern] {
        &self.patterns
    }

    /// Returns whether objects of a bucket may be selected.
    pub(crate) fn has_bucket(&self, bucket: &str) -> bool {
        self.patterns.iter().any(|pattern| pattern.has_bucket(bucket))
    }

    /// Returns whether an object is selected.
    pub(crate) fn has(&self, bucket: &str, key: &str) -> bool {
        self.patterns.iter().any(|pattern| pattern.has(bucket, key))
    }

    /// Checks the count of patterns.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        match self.patterns.len() {
            0 => Err(ConfigError::NoSource),
            1..=SOURCES_MAX => Ok(()),
            count => Err(ConfigError::TooManySources(count)),
        }
    }
}

/// A pattern: `BUCKET` or `BUCKET/PREFIX`, where a `*` at the end matches any rest. A prefix matches
/// all keys that begin with it, also without the `*`.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Pattern {
    /// The bucket, or the prefix of buckets.
    bucket: String,
    /// Whether `bucket` is a prefix of buckets.
    is_bucket_prefix: bool,
    /// The prefix of keys, if there is a `/`.
    key_prefix: Option<String>,
}

impl Pattern {
    fn has_bucket(&self, bucket: &str) -> bool {
        if self.is_bucket_prefix { bucket.starts_with(&self.bucket) } else { bucket == self.bucket }
    }

    fn has(&self, bucket: &str, key: &str) -> bool {
        self.has_bucket(bucket) && key.starts_with(self.key_prefix.as_deref().unwrap_or_default())
    }
}

impl FromStr for Pattern {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let invalid = || ConfigError::Source(text.to_owned());
        let (bucket, prefix) = match text.split_once('/') {
            None => (text, None),
            Some((bucket, prefix)) => (bucket, Some(prefix.strip_suffix('*').unwrap_or(prefix))),
        };
        check_bucket_pattern(bucket).map_err(|_| invalid())?;
        let name = bucket.strip_suffix('*');
        if let Some(prefix) = prefix {
            let is_valid = name.is_none()
                && prefix.len() <= KEY_PREFIX_MAX
                && !prefix.contains(|c: char| c == '*' || c.is_control());
            if !is_valid {
                return Err(invalid());
            }
        }
        Ok(Pattern {
            bucket: name.unwrap_or(bucket).to_owned(),
            is_bucket_prefix: name.is_some(),
            key_prefix: prefix.map(str::to_owned),
        })
    }
}

impl TryFrom<String> for Pattern {
    type Error = ConfigError;

    fn try_from(text: String) -> Result<Self, ConfigError> {
        text.parse()
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> Self {
        pattern.to_string()
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.key_prefix {
            Some(prefix) => write!(f, "{}/{prefix}*", self.bucket),
            None if self.is_bucket_prefix => write!(f, "{}*", self.bucket),
            None => f.write_str(&self.bucket),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(patterns: &[&str]) -> Source {
        Source::new(patterns.iter().map(|pattern| pattern.parse().unwrap()).collect())
    }

    #[test]
    fn pattern_matches_bucket_and_key_prefix() {
        for (pattern, bucket, key, has_bucket, has) in [
            ("*", "any", "key", true, true),
            ("photos", "photos", "a/b", true, true),
            ("photos", "photos-2", "a", false, false),
            ("photos", "photo", "a", false, false),
            ("photos*", "photos-2", "a", true, true),
            ("photos*", "photos", "a", true, true),
            ("photos*", "photo", "a", false, false),
            ("photos/2026/*", "photos", "2026/a", true, true),
            ("photos/2026/*", "photos", "2025/a", true, false),
            ("photos/2026/*", "photos", "2026", true, false),
            ("photos/2026/", "photos", "2026/a", true, true),
            ("photos/20", "photos", "2026/a", true, true),
            ("photos/", "photos", "a", true, true),
            ("photos/*", "photos", "a", true, true),
            ("photos/a", "photos-2", "a", false, false),
        ] {
            let source = source(&[pattern]);
            assert_eq!(source.has_bucket(bucket), has_bucket, "{pattern} {bucket}");
            assert_eq!(source.has(bucket, key), has, "{pattern} {bucket}/{key}");
        }
    }

    #[test]
    fn any_pattern_selects() {
        let source = source(&["photos/2026/*", "films"]);
        assert!(source.has("films", "a") && source.has("photos", "2026/a"));
        assert!(!source.has("photos", "a") && !source.has_bucket("other"));
    }

    #[test]
    fn star_is_only_allowed_at_the_end() {
        for bad in
            ["", "/", "/a", "pho*tos", "**", "photos*/a", "*/a", "photos/a*b", "photos/**", "Photos", "a_b", "a/\n"]
        {
            assert_eq!(bad.parse::<Pattern>(), Err(ConfigError::Source(bad.to_owned())));
        }
        for (text, shown) in [("photos", "photos"), ("photos/a", "photos/a*"), ("photos/a*", "photos/a*"), ("*", "*")] {
            assert_eq!(text.parse::<Pattern>().unwrap().to_string(), shown);
        }
    }

    #[test]
    fn count_and_length_of_patterns_are_bounded() {
        assert_eq!(source(&[]).check(), Err(ConfigError::NoSource));
        assert_eq!(source(&["a"; SOURCES_MAX]).check(), Ok(()));
        assert_eq!(source(&["a"; SOURCES_MAX + 1]).check(), Err(ConfigError::TooManySources(SOURCES_MAX + 1)));
        let with_prefix = |len| format!("b/{}", "p".repeat(len)).parse::<Pattern>();
        assert!(with_prefix(KEY_PREFIX_MAX).is_ok() && with_prefix(KEY_PREFIX_MAX + 1).is_err());
    }
}
