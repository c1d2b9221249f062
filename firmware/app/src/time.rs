//! The date of a signature, for a device that counts seconds.

/// Formats seconds since 1970 as `YYYYMMDDTHHMMSSZ`, in the proleptic Gregorian calendar. Years
/// after 9999 give wrong results.
pub fn amz_date(seconds: u64) -> [u8; 16] {
    let days = seconds / 86_400;
    let second = seconds % 86_400;
    // Days since 0000-03-01: a year that begins in March has its leap day last.
    let days = days + 719_468;
    let era = days / 146_097;
    let day = days % 146_097;
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year + u64::from(month <= 2);

    let mut date = *b"00000000T000000Z";
    let places = [(0, 4, year), (4, 6, month), (6, 8, day), (9, 11, second / 3600)];
    for (from, to, mut number) in places.into_iter().chain([(11, 13, second / 60 % 60), (13, 15, second % 60)]) {
        for digit in date[from..to].iter_mut().rev() {
            *digit = b'0' + (number % 10) as u8;
            number /= 10;
        }
    }
    date
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_formatted() {
        for (seconds, date) in [
            (0, b"19700101T000000Z"),
            (951_782_399, b"20000228T235959Z"),
            (951_782_400, b"20000229T000000Z"),
            (951_868_800, b"20000301T000000Z"),
            (1_369_353_600, b"20130524T000000Z"),
            (1_709_164_800, b"20240229T000000Z"),
            (1_767_322_800, b"20260102T030000Z"),
            (4_107_542_399, b"21000228T235959Z"),
            (4_107_542_400, b"21000301T000000Z"),
            (253_402_300_799, b"99991231T235959Z"),
        ] {
            assert_eq!(&amz_date(seconds), date);
        }
    }
}
