//! Lifecycle rules (AWS, "Managing the lifecycle of objects"): their encoding in bucket settings,
//! and the expiration of objects under them. The XML document is handled in [`xml`](crate::xml).

use std::fmt;

use percent_encoding::utf8_percent_encode;

use crate::limits::{RULE_DAYS_MAX, RULE_ID_MAX, RULE_PREFIX_MAX, RULES_MAX};
use crate::query::ENCODED;
use crate::time::http_date;

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// Expiration of the objects that a rule matches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expiration {
    /// This many days after the object was stored, at the following midnight UTC.
    Days(u32),
    /// From this midnight on, in ms since 1970; applies to objects stored later, too.
    Date(u64),
}

impl Expiration {
    /// Returns the expiration time of an object stored at `stored_ms`.
    fn of(self, stored_ms: u64) -> u64 {
        match self {
            Expiration::Days(days) => midnight_after(stored_ms, days),
            Expiration::Date(date_ms) => date_ms,
        }
    }
}

/// Returns the first midnight at least `days` days after `ms`.
fn midnight_after(ms: u64, days: u32) -> u64 {
    ms.saturating_add(u64::from(days) * DAY_MS).div_ceil(DAY_MS).saturating_mul(DAY_MS)
}

/// A lifecycle rule.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rule {
    /// The id, unique in the bucket.
    pub id: String,
    /// Whether the rule is in effect.
    pub enabled: bool,
    /// Prefix of the keys that the rule matches.
    pub prefix: String,
    /// Whether the prefix came directly in the rule, the deprecated form, not in a `Filter`.
    pub bare_prefix: bool,
    /// Expiration of objects.
    pub expiration: Option<Expiration>,
    /// Days after which an uncompleted upload is aborted, at the following midnight.
    pub abort_days: Option<u32>,
}

/// The rules of a bucket, in the client's order.
///
/// ```
/// let document = b"<LifecycleConfiguration><Rule><Filter/><Status>Enabled</Status>\
///     <Expiration><Days>1</Days></Expiration></Rule></LifecycleConfiguration>";
/// let lifecycle = keyhole_s3::xml::parse_lifecycle(document)?;
/// let due = lifecycle.expiration("reading", 0).expect("a matching rule");
/// assert_eq!(due.at_ms, 24 * 60 * 60 * 1000);
/// # Ok::<(), keyhole_s3::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Lifecycle {
    /// At most [`RULES_MAX`].
    pub rules: Vec<Rule>,
}

/// The scheduled expiration of an object or abortion of an upload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Due<'a> {
    /// Time in ms since 1970.
    pub at_ms: u64,
    /// The id of the rule.
    pub rule: &'a str,
}

impl Due<'_> {
    /// Returns the rule's id, encoded for headers.
    pub fn encoded_rule(&self) -> String {
        utf8_percent_encode(self.rule, &ENCODED).to_string()
    }
}

/// Formats the value of `x-amz-expiration`.
impl fmt::Display for Due<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expiry-date=\"{}\", rule-id=\"{}\"", http_date(self.at_ms), self.encoded_rule())
    }
}

const VERSION: u8 = 1;
const ENABLED: u8 = 1;
const BARE_PREFIX: u8 = 2;
const DAYS: u8 = 4;
const DATE: u8 = 8;
const ABORT: u8 = 16;

impl Lifecycle {
    /// Returns whether there are no rules.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Returns the earliest expiration of an object under the rules.
    pub fn expiration(&self, key: &str, stored_ms: u64) -> Option<Due<'_>> {
        self.first(key, |rule| rule.expiration.map(|expiration| expiration.of(stored_ms)))
    }

    /// Returns the earliest abortion of an upload under the rules.
    pub fn abortion(&self, key: &str, created_ms: u64) -> Option<Due<'_>> {
        self.first(key, |rule| rule.abort_days.map(|days| midnight_after(created_ms, days)))
    }

    fn first(&self, key: &str, at: impl Fn(&Rule) -> Option<u64>) -> Option<Due<'_>> {
        let of_key = self.rules.iter().filter(|rule| rule.enabled && key.starts_with(&rule.prefix));
        of_key.filter_map(|rule| Some(Due { at_ms: at(rule)?, rule: &rule.id })).min_by_key(|due| due.at_ms)
    }

    /// Encodes the rules for the bucket's settings; without rules, the encoding is empty. Otherwise
    /// a version byte (1), and for each rule: a byte of flags (1 enabled, 2 prefix without a
    /// filter, 4 days, 8 a date, 16 days for uploads); the id and the prefix, each a length in 2
    /// bytes and the text; and, as the flags say, days in 4 bytes, a date in 8 bytes (ms since
    /// 1970), days for uploads in 4 bytes. Integers are little-endian.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        if self.is_empty() {
            return bytes;
        }
        bytes.push(VERSION);
        for rule in &self.rules {
            let expiration = match rule.expiration {
                None => 0,
                Some(Expiration::Days(_)) => DAYS,
                Some(Expiration::Date(_)) => DATE,
            };
            let flag = |is: bool, flag: u8| if is { flag } else { 0 };
            let flags = flag(rule.enabled, ENABLED) | flag(rule.bare_prefix, BARE_PREFIX) | expiration;
            bytes.push(flags | flag(rule.abort_days.is_some(), ABORT));
            for text in [&rule.id, &rule.prefix] {
                bytes.extend_from_slice(&(text.len() as u16).to_le_bytes());
                bytes.extend_from_slice(text.as_bytes());
            }
            match rule.expiration {
                None => {}
                Some(Expiration::Days(days)) => bytes.extend_from_slice(&days.to_le_bytes()),
                Some(Expiration::Date(date_ms)) => bytes.extend_from_slice(&date_ms.to_le_bytes()),
            }
            bytes.extend(rule.abort_days.map(u32::to_le_bytes).into_iter().flatten());
        }
        bytes
    }

    /// Decodes the output of [`to_bytes`](Self::to_bytes). Returns `None` if the encoding is
    /// unknown.
    pub fn from_bytes(bytes: &[u8]) -> Option<Lifecycle> {
        let mut lifecycle = Lifecycle::default();
        let Some((&version, mut rest)) = bytes.split_first() else { return Some(lifecycle) };
        if version != VERSION || rest.is_empty() {
            return None;
        }
        while !rest.is_empty() && lifecycle.rules.len() < RULES_MAX {
            lifecycle.rules.push(take_rule(&mut rest)?);
        }
        rest.is_empty().then_some(lifecycle)
    }
}

fn take_rule(bytes: &mut &[u8]) -> Option<Rule> {
    let [flags] = take(bytes)?;
    let id = take_text(bytes)?;
    let prefix = take_text(bytes)?;
    let expiration = match flags & (DAYS | DATE) {
        0 => None,
        DAYS => Some(Expiration::Days(u32::from_le_bytes(take(bytes)?))),
        DATE => Some(Expiration::Date(u64::from_le_bytes(take(bytes)?))),
        _ => return None,
    };
    let abort_days = if flags & ABORT == 0 { None } else { Some(u32::from_le_bytes(take(bytes)?)) };
    let days = |days: u32| (1..=RULE_DAYS_MAX).contains(&days);
    let of_expiration = match expiration {
        Some(Expiration::Days(count)) => days(count),
        _ => true,
    };
    let known = flags < 2 * ABORT && id.chars().count() <= RULE_ID_MAX && prefix.len() <= RULE_PREFIX_MAX;
    (known && of_expiration && abort_days.is_none_or(days)).then_some(Rule {
        id,
        enabled: flags & ENABLED != 0,
        prefix,
        bare_prefix: flags & BARE_PREFIX != 0,
        expiration,
        abort_days,
    })
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*taken)
}

fn take_text(bytes: &mut &[u8]) -> Option<String> {
    let len = u16::from_le_bytes(take(bytes)?);
    let (text, rest) = bytes.split_at_checked(len.into())?;
    *bytes = rest;
    String::from_utf8(text.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(id: &str, prefix: &str) -> Rule {
        Rule {
            id: id.to_owned(),
            enabled: true,
            prefix: prefix.to_owned(),
            bare_prefix: false,
            expiration: None,
            abort_days: None,
        }
    }

    /// 2013-05-24T00:00:00Z
    const MIDNIGHT: u64 = 1_369_353_600_000;

    #[test]
    fn expiration_days_end_at_midnight() {
        let of = |stored, days| Expiration::Days(days).of(stored);
        assert_eq!(of(MIDNIGHT, 1), MIDNIGHT + DAY_MS);
        assert_eq!(of(MIDNIGHT + 1, 1), MIDNIGHT + 2 * DAY_MS);
        assert_eq!(of(MIDNIGHT + DAY_MS - 1, 1), MIDNIGHT + 2 * DAY_MS);
        assert_eq!(of(MIDNIGHT + DAY_MS - 1, 30), MIDNIGHT + 31 * DAY_MS);
        assert!(of(u64::MAX, RULE_DAYS_MAX) >= u64::MAX - DAY_MS);
        assert_eq!(Expiration::Date(MIDNIGHT).of(MIDNIGHT + 5), MIDNIGHT);
    }

    #[test]
    fn earliest_matching_rule_applies() {
        let rules = vec![
            Rule { expiration: Some(Expiration::Days(30)), ..rule("all", "") },
            Rule { expiration: Some(Expiration::Days(2)), abort_days: Some(1), ..rule("logs, old", "logs/") },
            Rule { expiration: Some(Expiration::Days(1)), enabled: false, ..rule("off", "logs/") },
            Rule { expiration: Some(Expiration::Date(MIDNIGHT)), ..rule("past", "tmp/") },
            Rule { abort_days: Some(7), ..rule("uploads", "") },
        ];
        let lifecycle = Lifecycle { rules };
        let expires = |key| lifecycle.expiration(key, MIDNIGHT).map(|due| (due.rule, (due.at_ms - MIDNIGHT) / DAY_MS));
        assert_eq!(expires("a"), Some(("all", 30)));
        assert_eq!(expires("logs"), Some(("all", 30)));
        assert_eq!(expires("logs/a"), Some(("logs, old", 2)));
        assert_eq!(expires("tmp/a"), Some(("past", 0)));
        let aborts = |key| lifecycle.abortion(key, MIDNIGHT).map(|due| (due.rule, (due.at_ms - MIDNIGHT) / DAY_MS));
        assert_eq!(aborts("a"), Some(("uploads", 7)));
        assert_eq!(aborts("logs/a"), Some(("logs, old", 1)));
        assert_eq!(Lifecycle::default().expiration("a", 0), None);
        let expected = "expiry-date=\"Sun, 26 May 2013 00:00:00 GMT\", rule-id=\"logs%2C%20old\"";
        assert_eq!(lifecycle.expiration("logs/a", MIDNIGHT).unwrap().to_string(), expected);
    }

    #[test]
    fn lifecycle_survives_storage() {
        let mut rules = Vec::new();
        for (i, expiration) in
            [None, Some(Expiration::Days(1)), Some(Expiration::Days(RULE_DAYS_MAX)), Some(Expiration::Date(MIDNIGHT))]
                .into_iter()
                .enumerate()
        {
            for abort_days in [None, Some(1), Some(RULE_DAYS_MAX)] {
                let flag = i % 2 == 0;
                let prefix = if flag { "é/".repeat(RULE_PREFIX_MAX / 3) } else { String::new() };
                let id = "é".repeat(RULE_ID_MAX);
                rules.push(Rule { id, enabled: flag, prefix, bare_prefix: !flag, expiration, abort_days });
            }
        }
        let lifecycle = Lifecycle { rules };
        let bytes = lifecycle.to_bytes();
        assert_eq!(Lifecycle::from_bytes(&bytes), Some(lifecycle.clone()));
        assert_eq!(Lifecycle::from_bytes(b""), Some(Lifecycle::default()));
        assert!(Lifecycle::default().to_bytes().is_empty());
        for len in 1..bytes.len() {
            let cut = Lifecycle::from_bytes(&bytes[..len]);
            assert!(cut.is_none_or(|cut| lifecycle.rules.starts_with(&cut.rules) && cut != lifecycle), "{len}");
        }
        let many = |count| Lifecycle { rules: vec![rule("", ""); count] }.to_bytes();
        assert!(
            Lifecycle::from_bytes(&many(RULES_MAX)).is_some() && Lifecycle::from_bytes(&many(RULES_MAX + 1)).is_none()
        );
        let one = |rule: Rule| Lifecycle::from_bytes(&Lifecycle { rules: vec![rule] }.to_bytes());
        assert!(one(rule(&"i".repeat(RULE_ID_MAX), &"p".repeat(RULE_PREFIX_MAX))).is_some());
        assert!(one(rule(&"i".repeat(RULE_ID_MAX + 1), "")).is_none());
        assert!(one(rule("", &"p".repeat(RULE_PREFIX_MAX + 1))).is_none());
        for days in [0, RULE_DAYS_MAX + 1] {
            assert!(one(Rule { expiration: Some(Expiration::Days(days)), ..rule("", "") }).is_none());
            assert!(one(Rule { abort_days: Some(days), ..rule("", "") }).is_none());
        }
        for bad in
            [&[1][..], &[2, 0, 0, 0, 0, 0], &[1, 32, 0, 0, 0, 0], &[1, 12, 0, 0, 0, 0], &[1, 0, 1, 0, 0xff, 0, 0]]
        {
            assert_eq!(Lifecycle::from_bytes(bad), None, "{bad:?}");
        }
    }
}
