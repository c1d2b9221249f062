//! Documents of object lock: the configuration of a bucket, retention and legal holds.

use super::read::{malformed, refused, walk};
use super::write::Document;
use crate::limits::{RETENTION_DAYS_MAX, RETENTION_YEARS_MAX};
use crate::ops::{DefaultRetention, Retention, RetentionMode, RetentionPeriod, hold_name, parse_hold};
use crate::time::{iso8601, parse_date};
use crate::{Error, ErrorCode};

/// Elements of S3 that the node lacks: holds that end with an event.
const EVENT_HOLDS: [&str; 3] = ["DefaultEventHold", "EventHold", "EventHoldDuration"];

/// Sets the value of an element, which may occur once.
fn once<T>(place: &mut Option<T>, value: T) -> Result<(), Error> {
    if place.replace(value).is_some() { Err(malformed()) } else { Ok(()) }
}

fn mode(text: &str) -> Result<RetentionMode, Error> {
    RetentionMode::parse(text.trim()).ok_or_else(malformed)
}

/// Parses the length of a default retention.
fn period(name: &'static str, text: &str, max: u32) -> Result<u32, Error> {
    let number: i64 = text.trim().parse().map_err(|_| malformed())?;
    let invalid = |message: &'static str| Error::invalid_argument(name, text, message);
    match u32::try_from(number) {
        Ok(number) if (1..=max).contains(&number) => Ok(number),
        Ok(1..) => Err(invalid("Default retention period too large.")),
        Err(_) if number > 0 => Err(invalid("Default retention period too large.")),
        Ok(_) | Err(_) => Err(invalid("Default retention period must be a positive integer value.")),
    }
}

/// Parses an `ObjectLockConfiguration` document. Returns the default retention, if it has one.
///
/// # Errors
/// `MalformedXML`, also unless it enables object lock; `InvalidArgument` for periods that S3
/// rejects; `NotImplemented` for event holds.
pub fn parse_object_lock(document: &[u8]) -> Result<Option<DefaultRetention>, Error> {
    let mut is_enabled = None;
    let mut retention_mode = None;
    let mut length = None;
    let mut retention = None;
    let mut rule = None;
    walk(document, |path, text| {
        let ["ObjectLockConfiguration", rest @ ..] = path else { return Err(malformed()) };
        match rest {
            [] => Ok(()),
            ["ObjectLockEnabled"] if text.trim() == "Enabled" => once(&mut is_enabled, ()),
            ["Rule", "DefaultRetention", "Mode"] => once(&mut retention_mode, mode(text)?),
            ["Rule", "DefaultRetention", "Days"] => {
                once(&mut length, RetentionPeriod::Days(period("Days", text, RETENTION_DAYS_MAX)?))
            }
            ["Rule", "DefaultRetention", "Years"] => {
                once(&mut length, RetentionPeriod::Years(period("Years", text, RETENTION_YEARS_MAX)?))
            }
            ["Rule", "DefaultRetention"] => {
                let mode = retention_mode.take().ok_or_else(malformed)?;
                let period = length.take().ok_or_else(malformed)?;
                once(&mut retention, DefaultRetention { mode, period })
            }
            ["Rule"] => once(&mut rule, retention.ok_or_else(malformed)?),
            _ => Err(refused(rest, &EVENT_HOLDS)),
        }
    })?;
    is_enabled.map(|()| rule).ok_or_else(malformed)
}

/// Writes the result of GetObjectLockConfiguration of a bucket with object lock.
pub fn object_lock(default: Option<DefaultRetention>) -> String {
    let mut doc = Document::new("ObjectLockConfiguration");
    doc.text("ObjectLockEnabled", "Enabled");
    if let Some(DefaultRetention { mode, period }) = default {
        doc.open("Rule");
        doc.open("DefaultRetention");
        doc.text("Mode", mode.name());
        match period {
            RetentionPeriod::Days(days) => doc.number("Days", days),
            RetentionPeriod::Years(years) => doc.number("Years", years),
        }
    }
    doc.finish()
}

/// Parses a `Retention` document. `None`: it is empty and removes the retention.
///
/// # Errors
/// `MalformedXML`; `NotImplemented` for event holds.
pub fn parse_retention(document: &[u8]) -> Result<Option<Retention>, Error> {
    let mut retention_mode = None;
    let mut until_ms = None;
    walk(document, |path, text| match path {
        ["Retention"] => Ok(()),
        ["Retention", "Mode"] => once(&mut retention_mode, mode(text)?),
        ["Retention", "RetainUntilDate"] => once(&mut until_ms, parse_date(text.trim()).ok_or_else(malformed)?),
        _ => Err(refused(path, &EVENT_HOLDS)),
    })?;
    match (retention_mode, until_ms) {
        (None, None) => Ok(None),
        (Some(mode), Some(until_ms)) => Ok(Some(Retention { mode, until_ms })),
        _ => Err(malformed()),
    }
}

/// Writes the result of GetObjectRetention.
pub fn retention(retention: Retention) -> String {
    let mut doc = Document::new("Retention");
    doc.text("Mode", retention.mode.name());
    doc.text("RetainUntilDate", &iso8601(retention.until_ms));
    doc.finish()
}

/// Parses a `LegalHold` document. Returns whether it sets the hold.
///
/// # Errors
/// `MalformedXML`.
pub fn parse_legal_hold(document: &[u8]) -> Result<bool, Error> {
    let mut is_on = None;
    walk(document, |path, text| match path {
        ["LegalHold"] => Ok(()),
        ["LegalHold", "Status"] => once(&mut is_on, parse_hold(text.trim()).ok_or_else(malformed)?),
        _ => Err(malformed()),
    })?;
    is_on.ok_or_else(malformed)
}

/// Writes the result of GetObjectLegalHold.
pub fn legal_hold(is_on: bool) -> String {
    let mut doc = Document::new("LegalHold");
    doc.text("Status", hold_name(is_on));
    doc.finish()
}

/// Returns the error for a bucket without object lock.
pub fn no_object_lock(bucket: &str) -> Error {
    Error::new(ErrorCode::ObjectLockConfigurationNotFoundError).with_field("BucketName", bucket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lock_configurations_are_parsed_or_rejected() {
        let parse = |inner: &str| {
            let document = format!("<ObjectLockConfiguration>{inner}</ObjectLockConfiguration>");
            let parsed = parse_object_lock(document.as_bytes()).map_err(|error| error.code)?;
            assert_eq!(parse_object_lock(object_lock(parsed).as_bytes()), Ok(parsed), "{inner}");
            Ok(parsed)
        };
        let enabled = "<ObjectLockEnabled>Enabled</ObjectLockEnabled>";
        let rule = |inner: &str| format!("{enabled}<Rule><DefaultRetention>{inner}</DefaultRetention></Rule>");
        assert_eq!(parse(enabled), Ok(None));
        for mode in [RetentionMode::Governance, RetentionMode::Compliance] {
            for (element, max) in [("Days", RETENTION_DAYS_MAX), ("Years", RETENTION_YEARS_MAX)] {
                let of =
                    |count: i64| parse(&rule(&format!("<Mode>{}</Mode>\n<{element}>{count}</{element}>", mode.name())));
                let expected = |count| match element {
                    "Days" => RetentionPeriod::Days(count),
                    _ => RetentionPeriod::Years(count),
                };
                for count in [1, max] {
                    assert_eq!(of(count.into()), Ok(Some(DefaultRetention { mode, period: expected(count) })));
                }
                for count in [0, -1, i64::from(max) + 1, i64::MAX] {
                    assert_eq!(of(count), Err(ErrorCode::InvalidArgument), "{element} {count}");
                }
            }
        }
        let governance = "<Mode>GOVERNANCE</Mode>";
        use ErrorCode as C;
        for (bad, code) in [
            (String::new(), C::MalformedXML),
            ("<ObjectLockEnabled>Disabled</ObjectLockEnabled>".to_owned(), C::MalformedXML),
            (format!("{enabled}{enabled}"), C::MalformedXML),
            (format!("{enabled}<Rule/>"), C::MalformedXML),
            (rule(""), C::MalformedXML),
            (rule(governance), C::MalformedXML),
            (rule("<Days>1</Days>"), C::MalformedXML),
            (rule(&format!("{governance}<Days>1</Days><Years>1</Years>")), C::MalformedXML),
            (rule(&format!("{governance}<Days>1</Days><Days>1</Days>")), C::MalformedXML),
            (rule(&format!("{governance}<Days>x</Days>")), C::MalformedXML),
            (rule("<Mode>governance</Mode><Days>1</Days>"), C::MalformedXML),
            (rule(&format!("{governance}<Days>1</Days>")).replacen(enabled, "", 1), C::MalformedXML),
            (rule(&format!("{governance}<DefaultEventHold><Days>1</Days></DefaultEventHold>")), C::NotImplemented),
            (format!("{enabled}<Other/>"), C::MalformedXML),
        ] {
            assert_eq!(parse(&bad), Err(code), "{bad}");
        }
        let twice = rule(&format!("{governance}<Days>1</Days>"));
        assert_eq!(parse(&format!("{twice}{}", &twice[enabled.len()..])), Err(C::MalformedXML));
        let retention = &twice[enabled.len() + "<Rule>".len()..twice.len() - "</Rule>".len()];
        assert_eq!(parse(&format!("{enabled}<Rule>{}</Rule>", retention.repeat(2))), Err(C::MalformedXML));
        assert_eq!(parse(&format!("{enabled}{retention}")), Err(C::MalformedXML));
    }

    #[test]
    fn retention_documents_are_parsed_or_rejected() {
        let parse = |inner: &str| {
            let document = format!("<Retention>{inner}</Retention>");
            parse_retention(document.as_bytes()).map_err(|error| error.code)
        };
        assert_eq!(parse(""), Ok(None));
        let until = "<RetainUntilDate>2013-05-24T00:00:00.007Z</RetainUntilDate>";
        for mode in [RetentionMode::Governance, RetentionMode::Compliance] {
            let expected = Retention { mode, until_ms: 1_369_353_600_007 };
            assert_eq!(parse(&format!("<Mode>{}</Mode>{until}", mode.name())), Ok(Some(expected)));
            assert_eq!(parse_retention(retention(expected).as_bytes()), Ok(Some(expected)));
        }
        let governance = "<Mode>GOVERNANCE</Mode>";
        for bad in [
            governance.to_owned(),
            until.to_owned(),
            format!("<Mode>governance</Mode>{until}"),
            format!("<Mode>abc</Mode>{until}"),
            format!("{governance}<RetainUntilDate>soon</RetainUntilDate>"),
            format!("{governance}{governance}{until}"),
            format!("{governance}{until}{until}"),
            format!("{governance}{until}<A/>"),
        ] {
            assert_eq!(parse(&bad), Err(ErrorCode::MalformedXML), "{bad}");
        }
        assert_eq!(parse("<EventHold>ON</EventHold>"), Err(ErrorCode::NotImplemented));
        assert!(
            retention(Retention { mode: RetentionMode::Compliance, until_ms: 0 }).contains("1970-01-01T00:00:00.000Z")
        );
    }

    #[test]
    fn legal_hold_documents_are_parsed_or_rejected() {
        let parse = |document: &str| parse_legal_hold(document.as_bytes()).map_err(|error| error.code);
        for is_on in [false, true] {
            assert_eq!(parse(&legal_hold(is_on)), Ok(is_on));
        }
        for bad in [
            "<LegalHold/>",
            "<LegalHold><Status>abc</Status></LegalHold>",
            "<LegalHold><Status>on</Status></LegalHold>",
            "<LegalHold><Status>ON</Status><Status>ON</Status></LegalHold>",
            "<LegalHold><A/></LegalHold>",
            "<Hold><Status>ON</Status></Hold>",
        ] {
            assert_eq!(parse(bad), Err(ErrorCode::MalformedXML), "{bad}");
        }
    }
}
