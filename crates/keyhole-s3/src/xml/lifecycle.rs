//! Parsing and writing of LifecycleConfiguration.

use super::read::{malformed, walk};
use super::write::Document;
use crate::limits::{RULE_DAYS_MAX, RULE_ID_MAX, RULE_PREFIX_MAX, RULE_VERSIONS_MAX, RULES_MAX};
use crate::ops::{Expiration, FilterForm, Lifecycle, Noncurrent, Rule};
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

/// Parses a number of versions.
fn versions(text: &str) -> Result<u32, Error> {
    let number: i64 = text.trim().parse().map_err(|_| malformed())?;
    let versions = u32::try_from(number).ok().filter(|versions| (1..=RULE_VERSIONS_MAX).contains(versions));
    versions.ok_or_else(|| {
        invalid(format!("'NewerNoncurrentVersions' must be a positive integer, at most {RULE_VERSIONS_MAX}."))
    })
}

fn date(text: &str) -> Result<u64, Error> {
    let date_ms = parse_date(text.trim()).ok_or_else(malformed)?;
    match date_ms % DAY_MS {
        0 => Ok(date_ms),
        _ => Err(invalid("'Date' must be at midnight GMT")),
    }
}

/// Parses a size in bytes.
fn size(name: &str, text: &str) -> Result<u64, Error> {
    let number: i64 = text.trim().parse().map_err(|_| malformed())?;
    u64::try_from(number).map_err(|_| invalid(format!("'{name}' must not be negative.")))
}

fn boolean(text: &str) -> Result<bool, Error> {
    match text.trim() {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(malformed()),
    }
}

fn invalid_request(message: impl Into<String>) -> Error {
    Error::new(ErrorCode::InvalidRequest).with_message(message.into())
}

/// The conditions in a filter, or in its `And`.
#[derive(Default)]
struct Conditions {
    prefix: Option<String>,
    larger_than: Option<u64>,
    smaller_than: Option<u64>,
}

impl Conditions {
    fn take(&mut self, path: &[&str], text: &str) -> Result<(), Error> {
        match path {
            ["Prefix"] => once(&mut self.prefix, text.to_owned()),
            ["ObjectSizeGreaterThan"] => once(&mut self.larger_than, size(path[0], text)?),
            ["ObjectSizeLessThan"] => once(&mut self.smaller_than, size(path[0], text)?),
            ["Tag", ..] => Err(not_implemented(
                "Lifecycle rules are by prefix and size, not by tags. Leave Tag out of each Filter.",
            )),
            _ => Err(malformed()),
        }
    }

    fn count(&self) -> usize {
        usize::from(self.prefix.is_some())
            + usize::from(self.larger_than.is_some())
            + usize::from(self.smaller_than.is_some())
    }

    fn check(&self) -> Result<(), Error> {
        if self.prefix.as_ref().is_some_and(|prefix| prefix.len() > RULE_PREFIX_MAX) {
            return Err(invalid_request(format!("The maximum size of a prefix is {RULE_PREFIX_MAX}.")));
        }
        match (self.larger_than, self.smaller_than) {
            (_, Some(0)) => Err(invalid("'ObjectSizeLessThan' must be a positive integer.")),
            (Some(least), Some(most)) if most <= least => {
                Err(invalid_request("'ObjectSizeLessThan' has to be a value greater than 'ObjectSizeGreaterThan'."))
            }
            _ => Ok(()),
        }
    }
}

/// A partially parsed rule.
#[derive(Default)]
struct Draft {
    id: Option<String>,
    status: Option<bool>,
    /// Directly in the rule.
    bare_prefix: Option<String>,
    filter: Conditions,
    has_filter: bool,
    and: Conditions,
    has_and: bool,
    days: Option<u32>,
    date_ms: Option<u64>,
    delete_marker: Option<bool>,
    has_expiration: bool,
    noncurrent: Noncurrent,
    has_noncurrent: bool,
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
            ["Filter"] if !self.has_filter => self.has_filter = true,
            ["Filter", "And"] if !self.has_and => self.has_and = true,
            ["Filter", "And", rest @ ..] if !self.has_and && !self.has_filter => self.and.take(rest, text)?,
            ["Filter", rest @ ..] if !self.has_filter => self.filter.take(rest, text)?,
            ["Expiration", "Days"] => once(&mut self.days, days("Days", text)?)?,
            ["Expiration", "Date"] => once(&mut self.date_ms, date(text)?)?,
            ["Expiration", "ExpiredObjectDeleteMarker"] => once(&mut self.delete_marker, boolean(text)?)?,
            ["Expiration"] if !self.has_expiration => self.has_expiration = true,
            ["NoncurrentVersionExpiration", "NoncurrentDays"] => {
                once(&mut self.noncurrent.days, days("NoncurrentDays", text)?)?;
            }
            ["NoncurrentVersionExpiration", "NewerNoncurrentVersions"] => {
                once(&mut self.noncurrent.newer, versions(text)?)?;
            }
            ["NoncurrentVersionExpiration"] if !self.has_noncurrent => self.has_noncurrent = true,
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

    /// Returns the form of the filter and its conditions.
    fn conditions(&mut self) -> Result<(FilterForm, Conditions), Error> {
        let filter = std::mem::take(&mut self.filter);
        let and = std::mem::take(&mut self.and);
        let (form, conditions) = match (self.bare_prefix.take(), self.has_filter, self.has_and) {
            (Some(prefix), false, false) => {
                (FilterForm::BarePrefix, Conditions { prefix: Some(prefix), ..Conditions::default() })
            }
            (None, true, true) if filter.count() == 0 && and.count() > 0 => (FilterForm::And, and),
            (None, true, false) if filter.count() <= 1 => (FilterForm::Filter, filter),
            _ => return Err(malformed()),
        };
        conditions.check()?;
        Ok((form, conditions))
    }

    /// Returns the expiration, after a check of what stands beside it.
    fn expiration(&self) -> Result<Option<Expiration>, Error> {
        let is_there = self.days.is_some() || self.date_ms.is_some() || self.delete_marker.is_some();
        if self.has_expiration != is_there {
            return Err(malformed());
        }
        match (self.days, self.date_ms, self.delete_marker) {
            (None, None, _) => Ok(None),
            (Some(days), None, None | Some(false)) => Ok(Some(Expiration::Days(days))),
            (None, Some(date_ms), None | Some(false)) => Ok(Some(Expiration::Date(date_ms))),
            _ => Err(malformed()),
        }
    }

    fn finish(mut self) -> Result<Rule, Error> {
        let (form, conditions) = self.conditions()?;
        let expiration = self.expiration()?;
        if self.has_abort != self.abort_days.is_some() {
            return Err(malformed());
        }
        let noncurrent = self.has_noncurrent.then_some(self.noncurrent);
        if noncurrent == Some(Noncurrent::default()) {
            return Err(malformed());
        }
        if form == FilterForm::BarePrefix && self.noncurrent.newer.is_some() {
            return Err(invalid_request("NewerNoncurrentVersions element can only be used in Lifecycle V2."));
        }
        let has_size = conditions.larger_than.is_some() || conditions.smaller_than.is_some();
        if has_size && (self.has_abort || self.delete_marker == Some(true)) {
            let message = "AbortIncompleteMultipartUpload and ExpiredObjectDeleteMarker cannot be specified with a size: \
                put them into a rule of their own.";
            return Err(invalid_request(message));
        }
        if !self.has_expiration && !self.has_noncurrent && !self.has_abort {
            let message = "At least one action needs to be specified in a rule: Expiration, NoncurrentVersionExpiration \
                or AbortIncompleteMultipartUpload.";
            return Err(invalid_request(message));
        }
        let id = self.id.unwrap_or_default();
        if id.chars().count() > RULE_ID_MAX {
            return Err(invalid(format!("ID length should not exceed allowed limit of {RULE_ID_MAX}")));
        }
        let enabled = self.status.ok_or_else(malformed)?;
        let Conditions { prefix, larger_than, smaller_than } = conditions;
        let Draft { delete_marker, abort_days, .. } = self;
        Ok(Rule {
            id,
            enabled,
            form,
            prefix,
            larger_than,
            smaller_than,
            expiration,
            delete_marker,
            noncurrent,
            abort_days,
        })
    }
}

/// Parses a `LifecycleConfiguration` document. Generates ids for rules without one.
///
/// # Errors
/// `MalformedXML`, also for no rules and for repeated elements; `InvalidArgument` and
/// `InvalidRequest` for values and combinations that S3 rejects, the latter also for more than
/// [`RULES_MAX`]; `NotImplemented` for features that this node lacks: filters by tags, transitions.
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
        let containers: &[&str] = match rule.form {
            FilterForm::BarePrefix => &[],
            FilterForm::Filter => &["Filter"],
            FilterForm::And => &["Filter", "And"],
        };
        containers.iter().for_each(|name| doc.open(name));
        if let Some(prefix) = &rule.prefix {
            doc.text("Prefix", prefix);
        }
        if let Some(size) = rule.larger_than {
            doc.number("ObjectSizeGreaterThan", size);
        }
        if let Some(size) = rule.smaller_than {
            doc.number("ObjectSizeLessThan", size);
        }
        containers.iter().for_each(|_| doc.close());
        doc.text("Status", if rule.enabled { "Enabled" } else { "Disabled" });
        if rule.expiration.is_some() || rule.delete_marker.is_some() {
            doc.open("Expiration");
            match rule.expiration {
                None => {}
                Some(Expiration::Days(days)) => doc.number("Days", days),
                Some(Expiration::Date(date_ms)) => doc.text("Date", &iso8601(date_ms)),
            }
            if let Some(expires) = rule.delete_marker {
                doc.flag("ExpiredObjectDeleteMarker", expires);
            }
            doc.close();
        }
        if let Some(Noncurrent { days, newer }) = rule.noncurrent {
            doc.open("NoncurrentVersionExpiration");
            if let Some(days) = days {
                doc.number("NoncurrentDays", days);
            }
            if let Some(newer) = newer {
                doc.number("NewerNoncurrentVersions", newer);
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
        let document = format!(
            "<LifecycleConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">{rules}</LifecycleConfiguration>"
        );
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
            prefix: Some("logs/".to_owned()),
            expiration: Some(Expiration::Days(30)),
            ..Rule::default()
        };
        let second = Rule {
            id: "rule-1".to_owned(),
            form: FilterForm::BarePrefix,
            prefix: Some(String::new()),
            expiration: Some(Expiration::Date(1_767_225_600_000)),
            abort_days: Some(7),
            ..Rule::default()
        };
        assert_eq!(rules, [first, second]);
        for good in ["2026-01-01", "2026-01-01T00:00:00Z", "2026-01-01T01:00:00+01:00", "2026-01-01T00:00:00"] {
            let rules = parse(&rule(&format!("<Expiration><Date>{good}</Date></Expiration>"))).unwrap();
            assert_eq!(rules[0].expiration, Some(Expiration::Date(1_767_225_600_000)), "{good}");
        }
    }

    /// The dialects of clients. Each is returned as it was put.
    #[test]
    fn dialects_are_returned_as_they_were_put() {
        let filters = [
            "<Prefix></Prefix>",
            "<Prefix>x/</Prefix>",
            "<Filter></Filter>",
            "<Filter><Prefix></Prefix></Filter>",
            "<Filter><ObjectSizeGreaterThan>0</ObjectSizeGreaterThan></Filter>",
            "<Filter><ObjectSizeLessThan>1</ObjectSizeLessThan></Filter>",
            "<Filter><And><Prefix>x</Prefix><ObjectSizeGreaterThan>1</ObjectSizeGreaterThan></And></Filter>",
            "<Filter><And><ObjectSizeGreaterThan>1</ObjectSizeGreaterThan><ObjectSizeLessThan>9</ObjectSizeLessThan></And></Filter>",
        ];
        let actions = [
            "<Expiration><Days>1</Days></Expiration>",
            "<Expiration><Days>3</Days><ExpiredObjectDeleteMarker>false</ExpiredObjectDeleteMarker></Expiration>",
            "<Expiration><Date>2037-01-01T00:00:00.000Z</Date></Expiration>",
            "<Expiration><ExpiredObjectDeleteMarker>false</ExpiredObjectDeleteMarker></Expiration>",
            "<NoncurrentVersionExpiration><NoncurrentDays>3</NoncurrentDays></NoncurrentVersionExpiration>",
            "<Expiration><Days>1</Days></Expiration>\
                <NoncurrentVersionExpiration><NoncurrentDays>3</NoncurrentDays></NoncurrentVersionExpiration>",
        ];
        for status in ["Enabled", "Disabled"] {
            for (filter, action) in filters.iter().flat_map(|filter| actions.map(|action| (filter, action))) {
                let rule = format!("<Rule><ID>a</ID>{filter}<Status>{status}</Status>{action}</Rule>");
                let document = format!("<LifecycleConfiguration>{rule}</LifecycleConfiguration>");
                let parsed = parse_lifecycle(document.as_bytes()).unwrap_or_else(|error| panic!("{rule}: {error}"));
                let text = lifecycle(&parsed);
                assert!(text.contains(&rule), "{rule}\n{text}");
                assert_eq!(Lifecycle::from_bytes(&parsed.to_bytes()), Some(parsed), "{rule}");
            }
        }
        let v2 = "<Expiration><ExpiredObjectDeleteMarker>true</ExpiredObjectDeleteMarker></Expiration>\
            <NoncurrentVersionExpiration><NewerNoncurrentVersions>100</NewerNoncurrentVersions></NoncurrentVersionExpiration>\
            <AbortIncompleteMultipartUpload><DaysAfterInitiation>7</DaysAfterInitiation></AbortIncompleteMultipartUpload>";
        let parsed = parse(&rule(v2)).unwrap();
        assert!(lifecycle(&Lifecycle { rules: parsed }).contains(v2));
    }

    #[test]
    fn malformed_lifecycle_rules_are_rejected() {
        use ErrorCode as C;
        let expiration = |inner: &str| rule(&format!("<Expiration>{inner}</Expiration>"));
        let filter = |inner: &str| format!("<Rule><Filter>{inner}</Filter><Status>Enabled</Status>{DAYS}</Rule>");
        let named = |id: &str| rule(&format!("<ID>{id}</ID>{DAYS}"));
        let larger = |size: i64| format!("<ObjectSizeGreaterThan>{size}</ObjectSizeGreaterThan>");
        let newer = |count: u32| format!("<NewerNoncurrentVersions>{count}</NewerNoncurrentVersions>");
        let noncurrent =
            |inner: &str| rule(&format!("<NoncurrentVersionExpiration>{inner}</NoncurrentVersionExpiration>"));
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
            (expiration("<Days>1</Days><ExpiredObjectDeleteMarker>true</ExpiredObjectDeleteMarker>"), C::MalformedXML),
            (expiration("<ExpiredObjectDeleteMarker>no</ExpiredObjectDeleteMarker>"), C::MalformedXML),
            (expiration("<ExpiredObjectDeleteMarker/>"), C::MalformedXML),
            (expiration("<Months>1</Months>"), C::MalformedXML),
            (rule("<Transition><Days>1</Days><StorageClass>GLACIER</StorageClass></Transition>"), C::NotImplemented),
            (
                rule("<NoncurrentVersionTransition><NoncurrentDays>1</NoncurrentDays></NoncurrentVersionTransition>"),
                C::NotImplemented,
            ),
            (rule("<NoncurrentVersionExpiration/>"), C::MalformedXML),
            (noncurrent("<NoncurrentDays>0</NoncurrentDays>"), C::InvalidArgument),
            (noncurrent("<NoncurrentDays>1</NoncurrentDays><NoncurrentDays>1</NoncurrentDays>"), C::MalformedXML),
            (noncurrent("<Days>1</Days>"), C::MalformedXML),
            (noncurrent(&newer(0)), C::InvalidArgument),
            (
                format!(
                    "<Rule><Prefix/><Status>Enabled</Status><NoncurrentVersionExpiration>{}</NoncurrentVersionExpiration></Rule>",
                    newer(1)
                ),
                C::InvalidRequest,
            ),
            (filter("<Tag><Key>a</Key><Value>b</Value></Tag>"), C::NotImplemented),
            (filter("<And><Prefix>a</Prefix><Tag><Key>a</Key><Value>b</Value></Tag></And>"), C::NotImplemented),
            (filter("<And/>"), C::MalformedXML),
            (filter("<And><Prefix>a</Prefix></And><Prefix>a</Prefix>"), C::MalformedXML),
            (filter("<And><Prefix>a</Prefix></And><And><Prefix>b</Prefix></And>"), C::MalformedXML),
            (filter("<And><And><Prefix>a</Prefix></And></And>"), C::MalformedXML),
            (filter("<And><ObjectSize>1</ObjectSize></And>"), C::MalformedXML),
            (filter(&format!("<Prefix>a</Prefix>{}", larger(1))), C::MalformedXML),
            (filter(&larger(-1)), C::InvalidArgument),
            (filter("<ObjectSizeGreaterThan>some</ObjectSizeGreaterThan>"), C::MalformedXML),
            (filter("<ObjectSizeLessThan>0</ObjectSizeLessThan>"), C::InvalidArgument),
            (filter(&format!("<And>{}<ObjectSizeLessThan>5</ObjectSizeLessThan></And>", larger(5))), C::InvalidRequest),
            (
                format!("<Rule><Filter/><Filter>{}</Filter><Status>Enabled</Status>{DAYS}</Rule>", larger(1)),
                C::MalformedXML,
            ),
            (
                format!(
                    "<Rule><Filter>{}</Filter><Status>Enabled</Status><AbortIncompleteMultipartUpload><DaysAfterInitiation>1</DaysAfterInitiation></AbortIncompleteMultipartUpload></Rule>",
                    larger(1)
                ),
                C::InvalidRequest,
            ),
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
        assert!(parse(&noncurrent(&newer(RULE_VERSIONS_MAX))).is_ok());
        assert_eq!(parse(&noncurrent(&newer(RULE_VERSIONS_MAX + 1))), Err(C::InvalidArgument));
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
