//! Parsing and writing of LifecycleConfiguration.

use super::read::{malformed, walk};
use super::write::Document;
use crate::limits::{RULE_DAYS_MAX, RULE_ID_MAX, RULE_PREFIX_MAX, RULES_MAX};
use crate::ops::{Expiration, Lifecycle, Rule};
use crate::time::{iso8601, parse_date};
use crate::{Error, ErrorCode};

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

fn not_implemented(message: &'static str) -> Error {
    Error::new(ErrorCode::NotImplemented).with_message(message)
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorCode::InvalidArgument).with_message(message.into())
}

/// Sets a value that must not be set yet.
fn once<T>(place: &mut Option<T>, value: T) -> Result<(), Error> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(malformed()),
    }
}

/// Parses a number of days.
fn days(name: &str, text: &str) -> Result<u32, Error> {
    let number: i64 = text.trim().parse().map_err(|_| malformed())?;
    let days = u32::try_from(number).ok().filter(|days| (1..=RULE_DAYS_MAX).contains(days));
    days.ok_or_else(|| invalid(format!("'{name}' must be a positive integer, at most {RULE_DAYS_MAX}.")))
}

fn date(text: &str) -> Result<u64, Error> {
    let date_ms = parse_date(text.trim()).ok_or_else(malformed)?;
    match date_ms % DAY_MS {
        0 => Ok(date_ms),
        _ => Err(invalid("'Date' must be at midnight GMT")),
    }
}

/// A partially parsed rule.
#[derive(Default)]
struct Draft {
    id: Option<String>,
    status: Option<bool>,
    /// Directly in the rule.
    bare_prefix: Option<String>,
    /// In the filter.
    prefix: Option<String>,
    has_filter: bool,
    days: Option<u32>,
    date_ms: Option<u64>,
    has_expiration: bool,
    abort_days: Option<u32>,
    has_abort: bool,
}

impl Draft {
    /// Parses an element of a rule; `path` is relative to the rule.
    fn take(&mut self, path: &[&str], text: &str) -> Result<(), Error> {
        match path {
            ["ID"] => once(&mut self.id, text.to_owned())?,
            ["Status"] => {
                let enabled = match text.trim() {
                    "Enabled" => true,
                    "Disabled" => false,
                    _ => return Err(malformed()),
                };
                once(&mut self.status, enabled)?;
            }
            ["Prefix"] => once(&mut self.bare_prefix, text.to_owned())?,
            ["Filter", "Prefix"] => once(&mut self.prefix, text.to_owned())?,
            ["Filter", "Tag" | "And" | "ObjectSizeGreaterThan" | "ObjectSizeLessThan", ..] => {
                return Err(not_implemented(
                    "Lifecycle rules are by prefix alone, not by tags or sizes. Give each Filter one Prefix, or none.",
                ));
            }
            ["Filter"] if !self.has_filter => self.has_filter = true,
            ["Expiration", "Days"] => once(&mut self.days, days("Days", text)?)?,
            ["Expiration", "Date"] => once(&mut self.date_ms, date(text)?)?,
            ["Expiration", "ExpiredObjectDeleteMarker"] if text.trim() == "false" => {}
            ["Expiration", "ExpiredObjectDeleteMarker"] | ["NoncurrentVersionExpiration", ..] => {
                return Err(not_implemented(
                    "This node has no versions. Leave NoncurrentVersionExpiration and ExpiredObjectDeleteMarker out.",
                ));
            }
            ["Expiration"] if !self.has_expiration => self.has_expiration = true,
            ["Transition" | "NoncurrentVersionTransition", ..] => {
                return Err(not_implemented(
                    "This node has one storage class. Leave Transition and NoncurrentVersionTransition out.",
                ));
            }
            ["AbortIncompleteMultipartUpload", "DaysAfterInitiation"] => {
                once(&mut self.abort_days, days("DaysAfterInitiation", text)?)?;
            }
            ["AbortIncompleteMultipartUpload"] if !self.has_abort => self.has_abort = true,
            _ => return Err(malformed()),
        }
        Ok(())
    }

    fn finish(self) -> Result<Rule, Error> {
        let (prefix, bare_prefix) = match (self.bare_prefix, self.has_filter) {
            (Some(prefix), false) => (prefix, true),
            (None, true) => (self.prefix.unwrap_or_default(), false),
            _ => return Err(malformed()),
        };
        if prefix.len() > RULE_PREFIX_MAX {
            let message = format!("The maximum size of a prefix is {RULE_PREFIX_MAX}.");
            return Err(Error::new(ErrorCode::InvalidRequest).with_message(message));
        }
        let expiration = match (self.days, self.date_ms) {
            (Some(days), None) => Some(Expiration::Days(days)),
            (None, Some(date_ms)) => Some(Expiration::Date(date_ms)),
            (None, None) if !self.has_expiration => None,
            _ => return Err(malformed()),
        };
        if self.has_abort != self.abort_days.is_some() {
            return Err(malformed());
        }
        if expiration.is_none() && self.abort_days.is_none() {
            let message =
                "At least one action needs to be specified in a rule: Expiration or AbortIncompleteMultipartUpload.";
            return Err(Error::new(ErrorCode::InvalidRequest).with_message(message));
        }
        let id = self.id.unwrap_or_default();
        if id.chars().count() > RULE_ID_MAX {
            return Err(invalid(format!("ID length should not exceed allowed limit of {RULE_ID_MAX}")));
        }
        let enabled = self.status.ok_or_else(malformed)?;
        Ok(Rule { id, enabled, prefix, bare_prefix, expiration, abort_days: self.abort_days })
    }
}

/// Parses a `LifecycleConfiguration` document. Generates ids for rules without one.
///
/// # Errors
/// `MalformedXML`, also for no rules and for repeated elements; `InvalidArgument` and
/// `InvalidRequest` for values and combinations that S3 rejects, the latter also for more than
/// [`RULES_MAX`]; `NotImplemented` for features that this node lacks: filters other than prefixes,
/// versions, transitions.
pub fn parse_lifecycle(document: &[u8]) -> Result<Lifecycle, Error> {
    let mut lifecycle = Lifecycle::default();
    let mut draft = Draft::default();
    walk(document, |path, text| {
        match path {
            ["LifecycleConfiguration"] => {}
            ["LifecycleConfiguration", "Rule"] => {
                if lifecycle.rules.len() == RULES_MAX {
                    let message = format!(
                        "The number of lifecycle rules must not exceed the allowed limit of {RULES_MAX} rules."
                    );
                    return Err(Error::new(ErrorCode::InvalidRequest).with_message(message));
                }
                lifecycle.rules.push(std::mem::take(&mut draft).finish()?);
            }
            ["LifecycleConfiguration", "Rule", rest @ ..] => draft.take(rest, text)?,
            _ => return Err(malformed()),
        }
        Ok(())
    })?;
    name_all(&mut lifecycle.rules);
    let mut ids: Vec<&str> = lifecycle.rules.iter().map(|rule| &rule.id[..]).collect();
    ids.sort_unstable();
    if let Some(pair) = ids.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(invalid(format!("Rule ID must be unique. Found same ID for more than one rule: {}", pair[0])));
    }
    if lifecycle.is_empty() { Err(malformed()) } else { Ok(lifecycle) }
}

/// Generates ids for rules without one.
fn name_all(rules: &mut [Rule]) {
    let mut number = 0;
    for at in 0..rules.len() {
        while rules[at].id.is_empty() {
            number += 1;
            let id = format!("rule-{number}");
            if rules.iter().all(|rule| rule.id != id) {
                rules[at].id = id;
            }
        }
    }
}

/// Writes the result of GetBucketLifecycleConfiguration.
pub fn lifecycle(lifecycle: &Lifecycle) -> String {
    let mut doc = Document::new("LifecycleConfiguration");
    for rule in &lifecycle.rules {
        doc.open("Rule");
        doc.text("ID", &rule.id);
        if !rule.bare_prefix {
            doc.open("Filter");
        }
        doc.text("Prefix", &rule.prefix);
        if !rule.bare_prefix {
            doc.close();
        }
        doc.text("Status", if rule.enabled { "Enabled" } else { "Disabled" });
        if let Some(expiration) = rule.expiration {
            doc.open("Expiration");
            match expiration {
                Expiration::Days(days) => doc.number("Days", days),
                Expiration::Date(date_ms) => doc.text("Date", &iso8601(date_ms)),
            }
            doc.close();
        }
        if let Some(days) = rule.abort_days {
            doc.open("AbortIncompleteMultipartUpload");
            doc.number("DaysAfterInitiation", days);
            doc.close();
        }
        doc.close();
    }
    doc.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(rules: &str) -> Result<Vec<Rule>, ErrorCode> {
        let document = format!("<LifecycleConfiguration xmlns=\"x\">{rules}</LifecycleConfiguration>");
        let parsed = parse_lifecycle(document.as_bytes()).map_err(|error| error.code)?;
        // The output parses to the same rules.
        assert_eq!(parse_lifecycle(lifecycle(&parsed).as_bytes()).as_ref(), Ok(&parsed), "{rules}");
        Ok(parsed.rules)
    }

    fn rule(inner: &str) -> String {
        format!("<Rule><Filter/><Status>Enabled</Status>{inner}</Rule>")
    }

    const DAYS: &str = "<Expiration><Days>3</Days></Expiration>";

    #[test]
    fn lifecycle_documents_are_parsed() {
        let text = "<Rule><ID>old &amp; gone</ID><Filter><Prefix>logs/</Prefix></Filter><Status>Enabled</Status>\
            <Expiration><Days>30</Days></Expiration></Rule>\n\
            <Rule><Prefix></Prefix><Status>Disabled</Status>\
            <Expiration><Date>2026-01-01T00:00:00.000Z</Date></Expiration>\
            <AbortIncompleteMultipartUpload><DaysAfterInitiation>7</DaysAfterInitiation></AbortIncompleteMultipartUpload></Rule>";
        let rules = parse(text).unwrap();
        let first = Rule {
            id: "old & gone".to_owned(),
            enabled: true,
            prefix: "logs/".to_owned(),
            bare_prefix: false,
            expiration: Some(Expiration::Days(30)),
            abort_days: None,
        };
        let second = Rule {
            id: "rule-1".to_owned(),
            enabled: false,
            prefix: String::new(),
            bare_prefix: true,
            expiration: Some(Expiration::Date(1_767_225_600_000)),
            abort_days: Some(7),
        };
        assert_eq!(rules, [first, second]);
        for good in ["2026-01-01", "2026-01-01T00:00:00Z", "2026-01-01T01:00:00+01:00", "2026-01-01T00:00:00"] {
            let rules = parse(&rule(&format!("<Expiration><Date>{good}</Date></Expiration>"))).unwrap();
            assert_eq!(rules[0].expiration, Some(Expiration::Date(1_767_225_600_000)), "{good}");
        }
        let none =
            "<Expiration><Days>1</Days><ExpiredObjectDeleteMarker>false</ExpiredObjectDeleteMarker></Expiration>";
        assert!(parse(&rule(none)).is_ok());
    }

    #[test]
    fn malformed_lifecycle_rules_are_rejected() {
        use ErrorCode as C;
        let expiration = |inner: &str| rule(&format!("<Expiration>{inner}</Expiration>"));
        let filter = |inner: &str| format!("<Rule><Filter>{inner}</Filter><Status>Enabled</Status>{DAYS}</Rule>");
        let named = |id: &str| rule(&format!("<ID>{id}</ID>{DAYS}"));
        let most = u64::from(RULE_DAYS_MAX);
        let days = |days: &str| expiration(&format!("<Days>{days}</Days>"));
        let abort = |days: &str| {
            let days = format!("<DaysAfterInitiation>{days}</DaysAfterInitiation>");
            rule(&format!("<AbortIncompleteMultipartUpload>{days}</AbortIncompleteMultipartUpload>"))
        };
        for (bad, code) in [
            (String::new(), C::MalformedXML),
            (rule(""), C::InvalidRequest),
            (rule(&DAYS.repeat(2)), C::MalformedXML),
            (rule("<Expiration/>"), C::MalformedXML),
            (rule("<AbortIncompleteMultipartUpload/>"), C::MalformedXML),
            (rule(&format!("{DAYS}<Unknown/>")), C::MalformedXML),
            (rule(&format!("<Status>Enabled</Status>{DAYS}")), C::MalformedXML),
            (rule(&format!("<Prefix/>{DAYS}")), C::MalformedXML),
            (format!("<Rule><Status>Enabled</Status>{DAYS}</Rule>"), C::MalformedXML),
            (format!("<Rule><Filter/>{DAYS}</Rule>"), C::MalformedXML),
            (format!("<Rule><Filter/><Status>On</Status>{DAYS}</Rule>"), C::MalformedXML),
            (days("0"), C::InvalidArgument),
            (days("-1"), C::InvalidArgument),
            (days(&(most + 1).to_string()), C::InvalidArgument),
            (days("soon"), C::MalformedXML),
            (abort("0"), C::InvalidArgument),
            (expiration("<Date>2026-01-01T00:00:01Z</Date>"), C::InvalidArgument),
            (expiration("<Date>1969-12-31</Date>"), C::MalformedXML),
            (expiration("<Date>tomorrow</Date>"), C::MalformedXML),
            (expiration("<Days>1</Days><Date>2026-01-01</Date>"), C::MalformedXML),
            (expiration("<ExpiredObjectDeleteMarker>true</ExpiredObjectDeleteMarker>"), C::NotImplemented),
            (expiration("<ExpiredObjectDeleteMarker>false</ExpiredObjectDeleteMarker>"), C::MalformedXML),
            (rule("<Transition><Days>1</Days><StorageClass>GLACIER</StorageClass></Transition>"), C::NotImplemented),
            (
                rule("<NoncurrentVersionExpiration><NoncurrentDays>1</NoncurrentDays></NoncurrentVersionExpiration>"),
                C::NotImplemented,
            ),
            (filter("<Tag><Key>a</Key><Value>b</Value></Tag>"), C::NotImplemented),
            (filter("<And><Prefix>a</Prefix></And>"), C::NotImplemented),
            (filter("<ObjectSizeGreaterThan>1</ObjectSizeGreaterThan>"), C::NotImplemented),
            (filter("<Prefix>a</Prefix><Prefix>b</Prefix>"), C::MalformedXML),
            (named("a") + &named("a"), C::InvalidArgument),
        ] {
            assert_eq!(parse(&bad), Err(code), "{bad}");
        }
        let rules = parse(&(named("rule-2") + &rule(DAYS).repeat(2) + &named(""))).unwrap();
        let ids: Vec<_> = rules.iter().map(|rule| &rule.id[..]).collect();
        assert_eq!(ids, ["rule-2", "rule-1", "rule-3", "rule-4"]);
        // Values at the limits and beyond them.
        assert!(parse(&days(&most.to_string())).is_ok() && parse(&abort(&most.to_string())).is_ok());
        assert!(parse(&named(&"é".repeat(RULE_ID_MAX))).is_ok());
        assert_eq!(parse(&named(&"é".repeat(RULE_ID_MAX + 1))), Err(C::InvalidArgument));
        let prefix = |len| filter(&format!("<Prefix>{}</Prefix>", "p".repeat(len)));
        assert!(parse(&prefix(RULE_PREFIX_MAX)).is_ok());
        assert_eq!(parse(&prefix(RULE_PREFIX_MAX + 1)), Err(C::InvalidRequest));
        assert_eq!(parse(&rule(DAYS).repeat(RULES_MAX)).unwrap().len(), RULES_MAX);
        assert_eq!(parse(&rule(DAYS).repeat(RULES_MAX + 1)), Err(C::InvalidRequest));
        for bad in ["", "<Lifecycle/>", "<LifecycleConfiguration/>"] {
            assert_eq!(parse_lifecycle(bad.as_bytes()).unwrap_err().code, C::MalformedXML, "{bad}");
        }
    }
}
