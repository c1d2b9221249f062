//! Formatting of figures for people: with units, and few digits.

use std::fmt;

use bytesize::ByteSize;

/// Formats a count with commas between thousands.
pub(crate) fn count(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Formats a number of bytes.
pub(crate) fn size(bytes: u64) -> String {
    ByteSize(bytes).display().iec().to_string()
}

/// Formats a rate per second, without a unit.
pub(crate) fn rate(per_second: f64) -> String {
    match per_second {
        none if none <= 0.0 => "0".to_owned(),
        few if few < 9.95 => format!("{few:.1}"),
        many => count(many.round() as u64),
    }
}

/// Formats a throughput as a number and its unit.
pub(crate) fn throughput(bytes_per_s: f64) -> Quantity {
    let mut value = bytes_per_s.max(0.0);
    if value < 999.5 {
        return Quantity { number: count(value.round() as u64), unit: "B/s" };
    }
    let mut unit = "B/s";
    for larger in ["kB/s", "MB/s", "GB/s"] {
        if value < 999.5 {
            break;
        }
        value /= 1000.0;
        unit = larger;
    }
    Quantity { number: three_digits(value), unit }
}

/// Formats a duration as a number and its unit.
pub(crate) fn duration(seconds: f64) -> Quantity {
    if seconds < 0.000_999_5 {
        Quantity { number: format!("{:.0}", seconds * 1e6), unit: "µs" }
    } else if seconds < 0.999_5 {
        Quantity { number: three_digits(seconds * 1e3), unit: "ms" }
    } else {
        Quantity { number: three_digits(seconds), unit: "s" }
    }
}

/// Formats a duration, or a dash if there is none.
pub(crate) fn duration_or_dash(seconds: Option<f64>) -> String {
    seconds.map_or_else(|| "–".to_owned(), |seconds| duration(seconds).to_string())
}

/// A formatted number and its unit.
pub(crate) struct Quantity {
    pub(crate) number: String,
    pub(crate) unit: &'static str,
}

/// Joins both with a no-break space.
impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\u{a0}{}", self.number, self.unit)
    }
}

fn three_digits(value: f64) -> String {
    match value {
        small if small < 9.995 => format!("{small:.2}"),
        middle if middle < 99.95 => format!("{middle:.1}"),
        large => count(large.round() as u64),
    }
}

/// Formats a time span in its two largest units.
pub(crate) fn span(seconds: f64) -> String {
    let seconds = seconds.max(0.0) as u64;
    let parts = [(seconds / 86_400, "d"), (seconds / 3600 % 24, "h"), (seconds / 60 % 60, "min"), (seconds % 60, "s")];
    let first = parts.iter().position(|(number, _)| *number > 0).unwrap_or(parts.len() - 1);
    let shown: Vec<String> =
        parts[first..].iter().take(2).map(|(number, unit)| format!("{number}\u{a0}{unit}")).collect();
    shown.join(" ")
}

/// Formats a share in percent, or a dash if the whole is zero.
pub(crate) fn share(part: u64, whole: u64) -> String {
    if whole == 0 { "–".to_owned() } else { format!("{:.1}\u{a0}%", 100.0 * part as f64 / whole as f64) }
}

/// Formats a time to the second, such as 2026-11-26 10:46:04 UTC.
pub(crate) fn moment(ms: u64) -> String {
    let iso = keyhole_s3::time::iso8601(ms);
    let (date, time) = iso.split_once('T').unwrap_or((&iso, ""));
    let (time, _) = time.split_once('.').unwrap_or((time, ""));
    format!("{date} {time} UTC")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_sizes_have_units() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(count(number), text);
        }
        assert_eq!(count(u64::MAX), "18,446,744,073,709,551,615");
        assert_eq!((size(0), size(1536), size(5 << 30)), ("0 B".into(), "1.5 KiB".into(), "5.0 GiB".into()));
    }

    #[test]
    fn rates_have_few_digits() {
        for (number, text) in [(0.0, "0"), (0.04, "0.0"), (3.21, "3.2"), (9.96, "10"), (1234.5, "1,235")] {
            assert_eq!(rate(number), text);
        }
        for (bytes, text) in [
            (0.0, "0 B/s"),
            (512.4, "512 B/s"),
            (999.6, "1.00 kB/s"),
            (12_340.0, "12.3 kB/s"),
            (999_600.0, "1.00 MB/s"),
            (123_400_000.0, "123 MB/s"),
            (5.5e12, "5,500 GB/s"),
        ] {
            assert_eq!(throughput(bytes).to_string().replace('\u{a0}', " "), text);
        }
    }

    #[test]
    fn durations_have_units() {
        for (seconds, text) in [
            (0.0, "0 µs"),
            (0.000_123_4, "123 µs"),
            (0.000_999_6, "1.00 ms"),
            (0.012_34, "12.3 ms"),
            (0.999_6, "1.00 s"),
            (100.0, "100 s"),
        ] {
            assert_eq!(duration(seconds).to_string().replace('\u{a0}', " "), text);
        }
        assert_eq!(duration_or_dash(None), "–");
        for (seconds, text) in
            [(0.0, "0 s"), (59.9, "59 s"), (61.0, "1 min 1 s"), (3600.0, "1 h 0 min"), (200_000.0, "2 d 7 h")]
        {
            assert_eq!(span(seconds).replace('\u{a0}', " "), text);
        }
        assert_eq!((share(1, 0), share(1, 3)), ("–".into(), "33.3\u{a0}%".into()));
    }

    #[test]
    fn moment_is_formatted_to_the_second() {
        assert_eq!(moment(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(moment(1_795_689_964_449), "2026-11-26 10:46:04 UTC");
    }
}
