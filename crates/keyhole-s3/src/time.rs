//! The date formats of S3. Times are milliseconds since 1970-01-01T00:00:00Z.

use jiff::Timestamp;
use jiff::fmt::rfc2822;
use jiff::fmt::strtime;
use jiff::tz::TimeZone;

fn timestamp(ms: u64) -> Timestamp {
    // Times after the year 9999 are clamped; the formats cannot express them.
    i64::try_from(ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok()).unwrap_or(Timestamp::MAX)
}

fn format(pattern: &str, ms: u64) -> String {
    let zoned = timestamp(ms).to_zoned_datetime(TimeZone::UTC);
    strtime::format(pattern, &zoned).unwrap_or_default()
}

/// Formats `Mon, 23 Nov 2026 10:11:12 GMT` (RFC 9110 §5.6.7).
pub fn http_date(ms: u64) -> String {
    rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&timestamp(ms)).unwrap_or_default()
}

/// Formats `2026-11-23T10:11:12.345Z`, as in XML documents.
pub fn iso8601(ms: u64) -> String {
    format!("{}.{:03}Z", format("%Y-%m-%dT%H:%M:%S", ms), ms % 1000)
}

/// Parses a date in the preferred form of RFC 9110 §5.6.7.
pub fn parse_http_date(text: &str) -> Option<u64> {
    let zoned = rfc2822::DateTimeParser::new().relaxed_weekday(true).parse_zoned_datetime(text).ok()?;
    u64::try_from(zoned.timestamp().as_millisecond()).ok()
}

/// Parses `2026-11-23T10:11:12.345Z`, with or without the fraction, as in form policies.
pub fn parse_iso8601(text: &str) -> Option<u64> {
    text.strip_suffix('Z').filter(|text| text.as_bytes().get(10) == Some(&b'T'))?;
    u64::try_from(text.parse::<Timestamp>().ok()?.as_millisecond()).ok()
}

/// Parses an ISO 8601 date; the time defaults to midnight, the offset to UTC.
pub fn parse_date(text: &str) -> Option<u64> {
    let timestamp = match text.parse::<Timestamp>() {
        Ok(timestamp) => timestamp,
        Err(_) => text.parse::<jiff::civil::DateTime>().ok()?.to_zoned_datetime(TimeZone::UTC).ok()?.timestamp(),
    };
    u64::try_from(timestamp.as_millisecond()).ok()
}

/// Parses `20261123T101112Z`, the form of `x-amz-date`.
pub fn parse_amz_date(text: &str) -> Option<u64> {
    let bytes: &[u8; 16] = text.as_bytes().try_into().ok()?;
    let number = |at: std::ops::Range<usize>| {
        let digits = &bytes[at];
        let is_number = digits.iter().all(u8::is_ascii_digit);
        is_number.then(|| digits.iter().fold(0_i16, |number, digit| number * 10 + i16::from(digit - b'0')))
    };
    let small = |at| i8::try_from(number(at)?).ok();
    if bytes[8] != b'T' || bytes[15] != b'Z' {
        return None;
    }
    let date = jiff::civil::Date::new(number(0..4)?, small(4..6)?, small(6..8)?).ok()?;
    let time = jiff::civil::Time::new(small(9..11)?, small(11..13)?, small(13..15)?, 0).ok()?;
    let civil = date.to_datetime(time);
    let timestamp = civil.to_zoned_datetime(TimeZone::UTC).ok()?.timestamp();
    u64::try_from(timestamp.as_millisecond()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_formatted() {
        let ms = 1_369_353_600_007;
        assert_eq!(http_date(ms), "Fri, 24 May 2013 00:00:00 GMT");
        assert_eq!(iso8601(ms), "2013-05-24T00:00:00.007Z");
        assert_eq!(http_date(0), "Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(http_date(u64::MAX).len(), 29);
    }

    #[test]
    fn dates_are_parsed_or_rejected() {
        assert_eq!(parse_amz_date("20130524T000000Z"), Some(1_369_353_600_000));
        assert_eq!(parse_http_date("Fri, 24 May 2013 00:00:00 GMT"), Some(1_369_353_600_000));
        for bad in ["", "20130524", "20131324T000000Z", "20130524T000000", "2013-524T000000Z", "20130524T250000Z"] {
            assert_eq!(parse_amz_date(bad), None, "{bad}");
        }
        assert_eq!(parse_iso8601("2013-05-24T00:00:00.007Z"), Some(1_369_353_600_007));
        assert_eq!(parse_iso8601("2013-05-24T00:00:00Z"), Some(1_369_353_600_000));
        for bad in ["", "2013-05-24", "2013-05-24T00:00:00", "2013-05-24 00:00:00Z", "2013-13-24T00:00:00Z"] {
            assert_eq!(parse_iso8601(bad), None, "{bad}");
        }
        for good in ["2013-05-24", "2013-05-24T00:00:00Z", "2013-05-24T00:00:00.000", "2013-05-24T02:00:00+02:00"] {
            assert_eq!(parse_date(good), Some(1_369_353_600_000), "{good}");
        }
        for bad in ["", "soon", "1969-12-31", "2013-02-30", "24 May 2013"] {
            assert_eq!(parse_date(bad), None, "{bad}");
        }
        for bad in ["", "yesterday", "Fri, 24 Foo 2013 00:00:00 GMT"] {
            assert_eq!(parse_http_date(bad), None, "{bad}");
        }
    }
}
