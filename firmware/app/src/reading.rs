//! A reading: lines of text, `seconds,thousandths of a degree Celsius`, as many as fit.

use core::fmt::{self, Write};

/// A temperature sensor.
pub trait Sensor {
    /// Returns the seconds since 1970 and the temperature in thousandths of a degree Celsius.
    fn sample(&mut self) -> (u32, i32);
}

/// A fake sensor with constant values, for boards without sensors.
#[derive(Clone, Debug)]
pub struct Simulated {
    seconds: u32,
    step: u32,
}

impl Simulated {
    /// Creates a sensor whose first sample is at `seconds`, with one more each minute.
    pub const fn new(seconds: u32) -> Self {
        Simulated { seconds, step: 0 }
    }
}

impl Sensor for Simulated {
    fn sample(&mut self) -> (u32, i32) {
        self.step = self.step.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let sample = (self.seconds, 21_000 + (self.step >> 22) as i32);
        self.seconds = self.seconds.wrapping_add(60);
        sample
    }
}

/// Writes up to `lines` samples to `out`, whole lines only, and returns the number of bytes
/// written.
pub fn take(sensor: &mut impl Sensor, lines: usize, out: &mut [u8]) -> usize {
    let mut text = Text { out, len: 0 };
    for _ in 0..lines {
        let (seconds, millidegrees) = sensor.sample();
        let before = text.len;
        if writeln!(text, "{seconds},{millidegrees}").is_err() {
            return before;
        }
    }
    text.len
}

struct Text<'o> {
    out: &'o mut [u8],
    len: usize,
}

impl Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let place = self.out.get_mut(self.len..).and_then(|rest| rest.get_mut(..text.len())).ok_or(fmt::Error)?;
        place.copy_from_slice(text.as_bytes());
        self.len += text.len();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;

    #[test]
    fn readings_contain_whole_lines_only() {
        let mut out = [0; 64];
        let len = take(&mut Simulated::new(1_700_000_000), 3, &mut out);
        let text = core::str::from_utf8(&out[..len]).unwrap();
        assert_eq!(text.lines().count(), 3);
        assert!(text.starts_with("1700000000,2") && text.ends_with('\n'));
        let first = text.find('\n').unwrap() + 1;
        for room in 0..len {
            let cut = take(&mut Simulated::new(1_700_000_000), 3, &mut out[..room]);
            assert!(cut % first == 0 && cut + first > room && cut <= room, "{room}");
        }
    }
}
