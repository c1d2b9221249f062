//! Lifecycle rules (AWS, "Managing the lifecycle of objects"): their encoding in bucket settings,
//! and the expiration of objects under them. The XML document is handled in [`xml`](crate::xml).

use std::fmt;

use percent_encoding::utf8_percent_encode;

use super::encoding::{decode_rules, encode_rules, push_text, take, take_text};
use crate::limits::{RULE_DAYS_MAX, RULE_ID_MAX, RULE_PREFIX_MAX, RULE_VERSIONS_MAX, RULES_MAX};
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

/// The form of a rule's filter in its document.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum FilterForm {
    /// A `Filter` with at most one condition.
    #[default]
    Filter,
    /// A `Filter` with its conditions in `And`.
    And,
    /// No `Filter`: the prefix is directly in the rule, the deprecated form.
    BarePrefix,
}

/// Expiration of noncurrent versions.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Noncurrent {
    /// Days after which a version expires that is no longer current, at the following midnight. Without
    /// them, it expires at the first midnight.
    pub days: Option<u32>,
    /// Newer noncurrent versions that are kept in any case.
    pub newer: Option<u32>,
}

/// A lifecycle rule.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Rule {
    /// The id, unique in the bucket.
    pub id: String,
    /// Whether the rule is in effect.
    pub enabled: bool,
    /// The form of the filter.
    pub form: FilterForm,
    /// Prefix of the keys that the rule matches. `None`: the filter has no prefix.
    pub prefix: Option<String>,
    /// The rule matches only objects with more bytes of plaintext.
    pub larger_than: Option<u64>,
    /// The rule matches only objects with fewer bytes of plaintext.
    pub smaller_than: Option<u64>,
    /// Expiration of objects.
    pub expiration: Option<Expiration>,
    /// `ExpiredObjectDeleteMarker`: removes delete markers that are the only version of their key.
    pub delete_marker: Option<bool>,
    /// Expiration of noncurrent versions.
    pub noncurrent: Option<Noncurrent>,
    /// Days after which an uncompleted upload is aborted, at the following midnight.
    pub abort_days: Option<u32>,
}

impl Rule {
    /// Returns whether the rule is in effect for keys like this one.
    fn applies_to(&self, key: &str) -> bool {
        self.enabled && self.prefix.as_ref().is_none_or(|prefix| key.starts_with(&**prefix))
    }

    fn admits(&self, size: u64) -> bool {
        self.larger_than.is_none_or(|least| size > least) && self.smaller_than.is_none_or(|most| size < most)
    }
}

/// The rules of a bucket, in the client's order.
///
/// ```
/// let document = b"<LifecycleConfiguration><Rule><Filter/><Status>Enabled</Status>\
///     <Expiration><Days>1</Days></Expiration></Rule></LifecycleConfiguration>";
/// let lifecycle = keyhole_s3::xml::parse_lifecycle(document)?;
/// let due = lifecycle.expiration("reading", 1000, 0).expect("a matching rule");
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

/// The flags of a rule.
mod flag {
    pub(super) const ENABLED: u8 = 1;
    pub(super) const BARE_PREFIX: u8 = 2;
    pub(super) const DAYS: u8 = 4;
    pub(super) const DATE: u8 = 8;
    pub(super) const ABORT: u8 = 16;
    /// A second byte of flags follows. Builds without it take no such rule for one of theirs.
    pub(super) const MORE: u8 = 32;
}

/// The second byte of flags.
mod more {
    pub(super) const NO_PREFIX: u8 = 1;
    pub(super) const AND: u8 = 2;
    pub(super) const LARGER: u8 = 4;
    pub(super) const SMALLER: u8 = 8;
    pub(super) const KEEPS_DELETE_MARKERS: u8 = 16;
    pub(super) const EXPIRES_DELETE_MARKERS: u8 = 32;
    pub(super) const NONCURRENT_DAYS: u8 = 64;
    pub(super) const NEWER_NONCURRENT: u8 = 128;
}

impl Lifecycle {
    /// Returns whether there are no rules.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Returns the earliest expiration of an object of `size` bytes under the rules.
    pub fn expiration(&self, key: &str, size: u64, stored_ms: u64) -> Option<Due<'_>> {
        self.first(key, |rule| rule.expiration.filter(|_| rule.admits(size)).map(|expiration| expiration.of(stored_ms)))
    }

    /// Returns the earliest expiration of a noncurrent version of `size` bytes under the rules.
    /// `since_ms` is the time at which it became noncurrent, `newer` the number of noncurrent versions
    /// of its key that are newer.
    pub fn noncurrent_expiration(&self, key: &str, size: u64, since_ms: u64, newer: u64) -> Option<Due<'_>> {
        self.first(key, |rule| {
            let noncurrent = rule.noncurrent.filter(|_| rule.admits(size))?;
            let is_kept = noncurrent.newer.is_some_and(|kept| newer < u64::from(kept));
            (!is_kept).then(|| midnight_after(since_ms, noncurrent.days.unwrap_or(0)))
        })
    }

    /// Returns the earliest removal of a delete marker that is the only version of its key: at once
    /// under `ExpiredObjectDeleteMarker`, otherwise when an object of that age would expire.
    pub fn marker_expiration(&self, key: &str, stored_ms: u64) -> Option<Due<'_>> {
        self.first(key, |rule| match rule.expiration.filter(|_| rule.admits(0)) {
            _ if rule.delete_marker == Some(true) => Some(stored_ms),
            Some(_) if rule.delete_marker == Some(false) => None,
            expiration => expiration.map(|expiration| expiration.of(stored_ms)),
        })
    }

    /// Returns the earliest abortion of an upload under the rules.
    pub fn abortion(&self, key: &str, created_ms: u64) -> Option<Due<'_>> {
        self.first(key, |rule| rule.abort_days.map(|days| midnight_after(created_ms, days)))
    }

    fn first(&self, key: &str, at: impl Fn(&Rule) -> Option<u64>) -> Option<Due<'_>> {
        let of_key = self.rules.iter().filter(|rule| rule.applies_to(key));
        of_key.filter_map(|rule| Some(Due { at_ms: at(rule)?, rule: &rule.id })).min_by_key(|due| due.at_ms)
    }

    /// Encodes the rules for the bucket's settings; without rules, the encoding is empty. Otherwise
    /// a version byte (1), and for each rule: a byte of flags (1 enabled, 2 prefix without a
    /// filter, 4 days, 8 a date, 16 days for uploads, 32 a second byte of flags follows: 1 no
    /// prefix, 2 `And`, 4 a lower and 8 an upper limit of the size, 16 `ExpiredObjectDeleteMarker`
    /// false and 32 true, 64 days and 128 number of noncurrent versions); the id and the prefix,
    /// each a length in 2 bytes and the text; and, as the flags say, days in 4 bytes, a date in 8
    /// bytes (ms since 1970), days for uploads in 4 bytes, the lower and the upper limit in 8
    /// bytes, days and number of noncurrent versions in 4 bytes. Integers are little-endian.
    pub fn to_bytes(&self) -> Vec<u8> {
        encode_rules(&self.rules, Rule::encode)
    }

    /// Decodes the output of [`to_bytes`](Self::to_bytes). Returns `None` if the encoding is
    /// unknown.
    pub fn from_bytes(bytes: &[u8]) -> Option<Lifecycle> {
        decode_rules(bytes, RULES_MAX, take_rule).map(|rules| Lifecycle { rules })
    }
}

impl Rule {
    fn flags(&self) -> u8 {
        let is = |is: bool, flag: u8| if is { flag } else { 0 };
        let expiration = match self.expiration {
            None => 0,
            Some(Expiration::Days(_)) => flag::DAYS,
            Some(Expiration::Date(_)) => flag::DATE,
        };
        expiration
            | is(self.enabled, flag::ENABLED)
            | is(self.form == FilterForm::BarePrefix, flag::BARE_PREFIX)
            | is(self.abort_days.is_some(), flag::ABORT)
            | is(self.more_flags() != 0, flag::MORE)
    }

    fn more_flags(&self) -> u8 {
        let is = |is: bool, flag: u8| if is { flag } else { 0 };
        let noncurrent = self.noncurrent.unwrap_or_default();
        is(self.prefix.is_none(), more::NO_PREFIX)
            | is(self.form == FilterForm::And, more::AND)
            | is(self.larger_than.is_some(), more::LARGER)
            | is(self.smaller_than.is_some(), more::SMALLER)
            | is(self.delete_marker == Some(false), more::KEEPS_DELETE_MARKERS)
            | is(self.delete_marker == Some(true), more::EXPIRES_DELETE_MARKERS)
            | is(noncurrent.days.is_some(), more::NONCURRENT_DAYS)
            | is(noncurrent.newer.is_some(), more::NEWER_NONCURRENT)
    }

    fn encode(&self, bytes: &mut Vec<u8>) {
        bytes.push(self.flags());
        bytes.extend(Some(self.more_flags()).filter(|more| *more != 0));
        for text in [&*self.id, self.prefix.as_deref().unwrap_or_default()] {
            push_text(bytes, text);
        }
        match self.expiration {
            None => {}
            Some(Expiration::Days(days)) => bytes.extend_from_slice(&days.to_le_bytes()),
            Some(Expiration::Date(date_ms)) => bytes.extend_from_slice(&date_ms.to_le_bytes()),
        }
        let noncurrent = self.noncurrent.unwrap_or_default();
        bytes.extend(self.abort_days.map(u32::to_le_bytes).into_iter().flatten());
        bytes.extend([self.larger_than, self.smaller_than].into_iter().flatten().flat_map(u64::to_le_bytes));
        bytes.extend([noncurrent.days, noncurrent.newer].into_iter().flatten().flat_map(u32::to_le_bytes));
    }

    /// Returns whether the values are within their limits, so that a document could have them.
    fn is_valid(&self) -> bool {
        let days = |days: Option<u32>| days.is_none_or(|days| (1..=RULE_DAYS_MAX).contains(&days));
        let of_expiration = match self.expiration {
            Some(Expiration::Days(count)) => Some(count),
            _ => None,
        };
        let noncurrent = self.noncurrent.unwrap_or_default();
        let is_bare = self.form == FilterForm::BarePrefix;
        self.id.chars().count() <= RULE_ID_MAX
            && self.prefix.as_ref().is_none_or(|prefix| prefix.len() <= RULE_PREFIX_MAX)
            && days(of_expiration)
            && days(self.abort_days)
            && days(noncurrent.days)
            && noncurrent.newer.is_none_or(|newer| (1..=RULE_VERSIONS_MAX).contains(&newer))
            && !(is_bare && (self.prefix.is_none() || self.larger_than.is_some() || self.smaller_than.is_some()))
    }
}

fn take_rule(bytes: &mut &[u8]) -> Option<Rule> {
    let [flags] = take(bytes)?;
    let [more_flags] = if flags & flag::MORE == 0 { [0] } else { take(bytes)? };
    let has = |flag: u8| more_flags & flag != 0;
    let id = take_text(bytes)?;
    let prefix = take_text(bytes)?;
    let expiration = match flags & (flag::DAYS | flag::DATE) {
        0 => None,
        flag::DAYS => Some(Expiration::Days(u32::from_le_bytes(take(bytes)?))),
        flag::DATE => Some(Expiration::Date(u64::from_le_bytes(take(bytes)?))),
        _ => return None,
    };
    let abort_days = take_if(flags & flag::ABORT != 0, bytes)?.map(u32::from_le_bytes);
    let larger_than = take_if(has(more::LARGER), bytes)?.map(u64::from_le_bytes);
    let smaller_than = take_if(has(more::SMALLER), bytes)?.map(u64::from_le_bytes);
    let days = take_if(has(more::NONCURRENT_DAYS), bytes)?.map(u32::from_le_bytes);
    let newer = take_if(has(more::NEWER_NONCURRENT), bytes)?.map(u32::from_le_bytes);
    let rule = Rule {
        id,
        enabled: flags & flag::ENABLED != 0,
        form: match (flags & flag::BARE_PREFIX != 0, has(more::AND)) {
            (false, false) => FilterForm::Filter,
            (false, true) => FilterForm::And,
            (true, _) => FilterForm::BarePrefix,
        },
        prefix: if has(more::NO_PREFIX) { None } else { Some(prefix) },
        larger_than,
        smaller_than,
        expiration,
        delete_marker: match (has(more::KEEPS_DELETE_MARKERS), has(more::EXPIRES_DELETE_MARKERS)) {
            (false, false) => None,
            (_, expires) => Some(expires),
        },
        noncurrent: (days.is_some() || newer.is_some()).then_some(Noncurrent { days, newer }),
        abort_days,
    };
    // Flags that contradict each other, or that a later version has, are not those of the rule.
    (rule.flags() == flags && rule.more_flags() == more_flags && rule.is_valid()).then_some(rule)
}

/// Takes bytes if there are any, as flags say. Returns `None` if they are missing.
fn take_if<const N: usize>(is_there: bool, bytes: &mut &[u8]) -> Option<Option<[u8; N]>> {
    if is_there { take(bytes).map(Some) } else { Some(None) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(id: &str, prefix: &str) -> Rule {
        Rule { id: id.to_owned(), enabled: true, prefix: Some(prefix.to_owned()), ..Rule::default() }
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
        let expires =
            |key| lifecycle.expiration(key, 0, MIDNIGHT).map(|due| (due.rule, (due.at_ms - MIDNIGHT) / DAY_MS));
        assert_eq!(expires("a"), Some(("all", 30)));
        assert_eq!(expires("logs"), Some(("all", 30)));
        assert_eq!(expires("logs/a"), Some(("logs, old", 2)));
        assert_eq!(expires("tmp/a"), Some(("past", 0)));
        let aborts = |key| lifecycle.abortion(key, MIDNIGHT).map(|due| (due.rule, (due.at_ms - MIDNIGHT) / DAY_MS));
        assert_eq!(aborts("a"), Some(("uploads", 7)));
        assert_eq!(aborts("logs/a"), Some(("logs, old", 1)));
        assert_eq!(Lifecycle::default().expiration("a", 0, 0), None);
        let expected = "expiry-date=\"Sun, 26 May 2013 00:00:00 GMT\", rule-id=\"logs%2C%20old\"";
        assert_eq!(lifecycle.expiration("logs/a", 0, MIDNIGHT).unwrap().to_string(), expected);
    }

    #[test]
    fn sizes_restrict_expiration() {
        let days = Some(Expiration::Days(1));
        let between = Rule { larger_than: Some(10), smaller_than: Some(20), expiration: days, ..rule("between", "a/") };
        let lifecycle = Lifecycle { rules: vec![between] };
        for (key, size, expected) in
            [("a/x", 10, false), ("a/x", 11, true), ("a/x", 19, true), ("a/x", 20, false), ("b/x", 15, false)]
        {
            assert_eq!(lifecycle.expiration(key, size, MIDNIGHT).is_some(), expected, "{key} {size}");
        }
        let empty = Rule { smaller_than: Some(1), prefix: None, expiration: days, ..rule("empty", "") };
        let lifecycle = Lifecycle { rules: vec![empty] };
        assert!(lifecycle.expiration("a", 0, 0).is_some() && lifecycle.expiration("a", 1, 0).is_none());
    }

    #[test]
    fn noncurrent_versions_expire_by_days_and_number() {
        let noncurrent = |days, newer| Some(Noncurrent { days, newer });
        let rules = vec![
            Rule { noncurrent: noncurrent(Some(3), None), ..rule("days", "a/") },
            Rule { noncurrent: noncurrent(Some(3), Some(2)), ..rule("both", "b/") },
            Rule { noncurrent: noncurrent(None, Some(2)), ..rule("number", "c/") },
            Rule { noncurrent: noncurrent(Some(1), None), larger_than: Some(9), ..rule("large", "d/") },
            Rule { noncurrent: noncurrent(Some(1), None), enabled: false, ..rule("off", "a/") },
            Rule { expiration: Some(Expiration::Days(1)), ..rule("current", "a/") },
        ];
        let lifecycle = Lifecycle { rules };
        for (key, size, newer, expected) in [
            ("a/x", 0, 0, Some(("days", 3))),
            ("a/x", 0, 100, Some(("days", 3))),
            ("b/x", 0, 1, None),
            ("b/x", 0, 2, Some(("both", 3))),
            ("c/x", 0, 1, None),
            ("c/x", 0, 2, Some(("number", 0))),
            ("d/x", 9, 5, None),
            ("d/x", 10, 0, Some(("large", 1))),
            ("e/x", 0, 100, None),
        ] {
            let due = lifecycle.noncurrent_expiration(key, size, MIDNIGHT, newer);
            let due = due.map(|due| (due.rule, (due.at_ms - MIDNIGHT) / DAY_MS));
            assert_eq!(due, expected, "{key} {size} {newer}");
        }
        let due = lifecycle.noncurrent_expiration("c/x", 0, MIDNIGHT + 1, 2).unwrap();
        assert_eq!(due.at_ms, MIDNIGHT + DAY_MS, "at the following midnight");
    }

    #[test]
    fn lone_delete_markers_expire_by_rule_or_with_objects_of_their_age() {
        let days = Some(Expiration::Days(2));
        let rules = vec![
            Rule { delete_marker: Some(true), ..rule("markers", "a/") },
            Rule { expiration: days, ..rule("days", "b/") },
            Rule { expiration: days, delete_marker: Some(false), ..rule("kept", "c/") },
            Rule { expiration: days, larger_than: Some(0), ..rule("large", "d/") },
            Rule { noncurrent: Some(Noncurrent { days: Some(1), newer: None }), ..rule("noncurrent", "e/") },
        ];
        let lifecycle = Lifecycle { rules };
        for (key, expected) in
            [("a/x", Some(("markers", 0))), ("b/x", Some(("days", 2))), ("c/x", None), ("d/x", None), ("e/x", None)]
        {
            let due = lifecycle.marker_expiration(key, MIDNIGHT);
            assert_eq!(due.map(|due| (due.rule, (due.at_ms - MIDNIGHT) / DAY_MS)), expected, "{key}");
        }
    }

    /// Returns rules with each property that is stored since the second byte of flags.
    fn rules_of_more_flags() -> Vec<Rule> {
        let noncurrent = |days, newer| Some(Noncurrent { days, newer });
        vec![
            Rule { prefix: None, ..rule("all", "") },
            Rule { form: FilterForm::And, larger_than: Some(0), smaller_than: Some(u64::MAX), ..rule("and", "p") },
            Rule { form: FilterForm::And, prefix: None, larger_than: Some(1), ..rule("one", "") },
            Rule { prefix: None, smaller_than: Some(1), ..rule("small", "") },
            Rule { delete_marker: Some(false), expiration: Some(Expiration::Days(1)), ..rule("keeps", "") },
            Rule { delete_marker: Some(true), ..rule("markers", "") },
            Rule { noncurrent: noncurrent(Some(1), None), ..rule("noncurrent", "") },
            Rule { noncurrent: noncurrent(None, Some(RULE_VERSIONS_MAX)), abort_days: Some(3), ..rule("newer", "") },
            Rule {
                form: FilterForm::BarePrefix,
                noncurrent: noncurrent(Some(RULE_DAYS_MAX), Some(1)),
                expiration: Some(Expiration::Date(MIDNIGHT)),
                ..rule("bare", "p")
            },
        ]
    }

    /// Rules without the newer properties are stored as earlier builds stored them.
    #[test]
    fn earlier_encoding_is_kept() {
        let old = [1, 5, 1, 0, b'r', 1, 0, b'p', 3, 0, 0, 0, 18, 0, 0, 0, 0, 7, 0, 0, 0];
        let first = Rule { expiration: Some(Expiration::Days(3)), ..rule("r", "p") };
        let form = FilterForm::BarePrefix;
        let second = Rule { form, enabled: false, abort_days: Some(7), ..rule("", "") };
        let lifecycle = Lifecycle { rules: vec![first, second] };
        assert_eq!(lifecycle.to_bytes(), old);
        assert_eq!(Lifecycle::from_bytes(&old), Some(lifecycle));
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
                let prefix = Some(if flag { "é/".repeat(RULE_PREFIX_MAX / 3) } else { String::new() });
                let id = "é".repeat(RULE_ID_MAX);
                let form = if flag { FilterForm::Filter } else { FilterForm::BarePrefix };
                rules.push(Rule { id, enabled: flag, prefix, form, expiration, abort_days, ..Rule::default() });
            }
        }
        rules.extend(rules_of_more_flags());
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
            let noncurrent = Some(Noncurrent { days: Some(days), newer: None });
            assert!(one(Rule { noncurrent, ..rule("", "") }).is_none());
        }
        let newer =
            |newer| one(Rule { noncurrent: Some(Noncurrent { days: None, newer: Some(newer) }), ..rule("", "") });
        assert!(newer(RULE_VERSIONS_MAX).is_some() && newer(RULE_VERSIONS_MAX + 1).is_none() && newer(0).is_none());
        for bad in [
            &[1][..],
            &[2, 0, 0, 0, 0, 0],
            &[1, 64, 0, 0, 0, 0],
            &[1, 12, 0, 0, 0, 0],
            &[1, 0, 1, 0, 0xff, 0, 0],
            // A second byte of flags without any, with contradictory ones, and beside a bare prefix.
            &[1, 32, 0, 0, 0, 0, 0],
            &[1, 32, 48, 0, 0, 0, 0],
            &[1, 34, 1, 0, 0, 0, 0],
            &[1, 34, 2, 0, 0, 0, 0],
        ] {
            assert_eq!(Lifecycle::from_bytes(bad), None, "{bad:?}");
        }
    }
}
