//! Daily shipping hours.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::error::ConfigError;

const MINUTE_MS: u64 = 60 * 1000;
const DAY_MINUTES: u64 = 24 * 60;

/// A time span of each day in UTC, which may pass midnight. The end is not part of it.
#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Window {
    /// Begin and end in minutes since midnight; never the same.
    begin: u16,
    end: u16,
}

impl Window {
    /// Returns the time in ms from `now_ms` until the window is open; 0 if it is.
    pub(crate) fn closed_ms(&self, now_ms: u64) -> u64 {
        let day_ms = DAY_MINUTES * MINUTE_MS;
        let since_begin = (now_ms + day_ms - u64::from(self.begin) * MINUTE_MS) % day_ms;
        let minutes = (u64::from(self.end) + DAY_MINUTES - u64::from(self.begin)) % DAY_MINUTES;
        if since_begin < minutes * MINUTE_MS { 0 } else { day_ms - since_begin }
    }
}

/// Parses `HH:MM` into minutes since midnight.
fn minutes(text: &str) -> Option<u16> {
    let (hour, minute) = text.split_once(':')?;
    let number = |text: &str, below: u16| {
        let is_number = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<u16>().ok().filter(|number| is_number && *number < below)
    };
    Some(number(hour, 24)? * 60 + number(minute, 60)?)
}

impl FromStr for Window {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let parse = || {
            let (begin, end) = text.split_once('-')?;
            let window = Window { begin: minutes(begin)?, end: minutes(end)? };
            (window.begin != window.end).then_some(window)
        };
        parse().ok_or_else(|| ConfigError::Window(text.to_owned()))
    }
}

impl TryFrom<String> for Window {
    type Error = ConfigError;

    fn try_from(text: String) -> Result<Self, ConfigError> {
        text.parse()
    }
}

impl From<Window> for String {
    fn from(window: Window) -> Self {
        window.to_string()
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Window { begin, end } = self;
        write!(f, "{:02}:{:02}-{:02}:{:02}", begin / 60, begin % 60, end / 60, end % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the time on some day in ms since 1970.
    fn at(hour: u64, minute: u64) -> u64 {
        (20_000 * DAY_MINUTES + hour * 60 + minute) * MINUTE_MS
    }

    impl Window {
        fn is_open(&self, now_ms: u64) -> bool {
            self.closed_ms(now_ms) == 0
        }
    }

    #[test]
    fn window_is_open_from_begin_until_end() {
        let window: Window = "08:30-17:00".parse().unwrap();
        for (hour, minute, is_open) in [(8, 29, false), (8, 30, true), (16, 59, true), (17, 0, false), (0, 0, false)] {
            assert_eq!(window.is_open(at(hour, minute)), is_open, "{hour}:{minute}");
        }
        assert_eq!(window.closed_ms(at(8, 0)), 30 * MINUTE_MS);
        assert_eq!(window.closed_ms(at(17, 0)), (15 * 60 + 30) * MINUTE_MS);
        assert!(!window.is_open(at(8, 30) - 1) && window.is_open(at(17, 0) - 1), "to the millisecond");
    }

    #[test]
    fn window_may_pass_midnight() {
        let window: Window = "22:00-06:00".parse().unwrap();
        for (hour, minute, is_open) in
            [(21, 59, false), (22, 0, true), (0, 0, true), (5, 59, true), (6, 0, false), (12, 0, false)]
        {
            assert_eq!(window.is_open(at(hour, minute)), is_open, "{hour}:{minute}");
        }
        assert_eq!(window.closed_ms(at(21, 0)), 60 * MINUTE_MS);
        let until_midnight: Window = "22:00-00:00".parse().unwrap();
        assert!(until_midnight.is_open(at(23, 59)) && !until_midnight.is_open(at(0, 0)));
    }

    #[test]
    fn window_is_two_different_times() {
        assert_eq!("22:00-06:00".parse::<Window>().unwrap().to_string(), "22:00-06:00");
        for bad in
            ["", "22:00", "22-06", "22:00-22:00", "24:00-06:00", "22:60-06:00", "+2:00-06:00", "2:00-6:00", "a-b"]
        {
            assert_eq!(bad.parse::<Window>(), Err(ConfigError::Window(bad.to_owned())));
        }
    }
}
