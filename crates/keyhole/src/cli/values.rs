//! Values that several commands take.

use bytesize::ByteSize;

pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    text.parse::<ByteSize>()
        .map(|size| size.as_u64())
        .map_err(|_| "expected a size such as 10GiB, 500MB or 1073741824".to_owned())
}

pub(crate) fn parse_rate(text: &str) -> Result<u64, String> {
    let rate = parse_size(text.strip_suffix("/s").unwrap_or(text)).ok().filter(|rate| *rate > 0);
    rate.ok_or_else(|| "expected a rate such as 50MB/s or 1GiB/s".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_takes_units() {
        assert_eq!(parse_size("10GiB"), Ok(10 << 30));
        assert_eq!(parse_size("500 MB"), Ok(500_000_000));
        assert_eq!(parse_size("123"), Ok(123));
        for bad in ["", "-1", "big", "1XB"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn rate_takes_size_per_second() {
        assert_eq!(parse_rate("50MB/s"), Ok(50_000_000));
        assert_eq!(parse_rate("1GiB"), Ok(1 << 30));
        for bad in ["", "/s", "0", "0MB/s", "fast", "50MB/min"] {
            assert!(parse_rate(bad).is_err(), "{bad}");
        }
    }
}
