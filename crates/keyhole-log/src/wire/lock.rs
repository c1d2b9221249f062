//! The lock of a version and the versioning of a bucket, as records and checkpoints have them.

use super::Cursor;
use crate::version::{BucketLock, DefaultRetention, Lock, Retention, RetentionMode, RetentionPeriod, Versioning};

/// Length of a lock.
pub(crate) const LOCK_LEN: usize = 10;

fn mode_byte(mode: Option<RetentionMode>) -> u8 {
    match mode {
        None => 0,
        Some(RetentionMode::Governance) => 1,
        Some(RetentionMode::Compliance) => 2,
    }
}

/// Parses a mode: 0 for none.
fn parse_mode(byte: u8) -> Option<Option<RetentionMode>> {
    match byte {
        0 => Some(None),
        1 => Some(Some(RetentionMode::Governance)),
        2 => Some(Some(RetentionMode::Compliance)),
        _ => None,
    }
}

pub(super) fn encode_lock(lock: &Lock, out: &mut Vec<u8>) {
    out.extend([mode_byte(lock.retention.map(|retention| retention.mode)), u8::from(lock.hold)]);
    out.extend(lock.retention.map_or(0, |retention| retention.until_ms).to_le_bytes());
}

pub(super) fn parse_lock(c: &mut Cursor<'_>) -> Option<Lock> {
    let [mode, hold @ (0 | 1)] = c.array()? else { return None };
    let until_ms = c.u64()?;
    let retention = match parse_mode(mode)? {
        Some(mode) => Some(Retention { mode, until_ms }),
        None if until_ms == 0 => None,
        None => return None,
    };
    Some(Lock { retention, hold: hold == 1 })
}

/// Encodes the versioning of a bucket, which is not off.
pub(super) fn encode_versioning(versioning: Versioning, lock: Option<BucketLock>, out: &mut Vec<u8>) {
    let default = lock.and_then(|lock| lock.default);
    let (unit, period) = match default.map(|default| default.period) {
        None => (0, 0),
        Some(RetentionPeriod::Days(days)) => (1, days),
        Some(RetentionPeriod::Years(years)) => (2, years),
    };
    let state = if versioning == Versioning::Suspended { 2 } else { 1 };
    out.extend([state, u8::from(lock.is_some()), mode_byte(default.map(|default| default.mode)), unit]);
    out.extend(period.to_le_bytes());
}

pub(super) fn parse_versioning(c: &mut Cursor<'_>) -> Option<(Versioning, Option<BucketLock>)> {
    let [state, is_locked @ (0 | 1), mode, unit] = c.array()? else { return None };
    let period = c.u32()?;
    let versioning = match state {
        1 => Versioning::Enabled,
        2 => Versioning::Suspended,
        _ => return None,
    };
    let period = match (unit, period) {
        (0, 0) => None,
        (1, days) => Some(RetentionPeriod::Days(days)),
        (2, years) => Some(RetentionPeriod::Years(years)),
        _ => return None,
    };
    let default = match (parse_mode(mode)?, period) {
        (None, None) => None,
        (Some(mode), Some(period)) if period.is_valid() => Some(DefaultRetention { mode, period }),
        _ => return None,
    };
    match (versioning, is_locked == 1, default) {
        (_, false, None) => Some((versioning, None)),
        (Versioning::Enabled, true, default) => Some((versioning, Some(BucketLock { default }))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lock_round_trips_and_impossible_ones_are_rejected() {
        let retention = |mode| Some(Retention { mode, until_ms: 77 });
        for retention in [None, retention(RetentionMode::Governance), retention(RetentionMode::Compliance)] {
            for hold in [false, true] {
                let lock = Lock { retention, hold };
                let mut bytes = Vec::new();
                encode_lock(&lock, &mut bytes);
                assert_eq!(bytes.len(), LOCK_LEN);
                assert_eq!(parse_lock(&mut Cursor(&bytes)), Some(lock));
            }
        }
        for bytes in [[3, 0, 1], [1, 2, 1], [0, 0, 1]] {
            let bytes = [&bytes[..], &[0; 7]].concat();
            assert_eq!(parse_lock(&mut Cursor(&bytes)), None, "{bytes:?}");
        }
    }

    #[test]
    fn versioning_round_trips_and_impossible_ones_are_rejected() {
        let of = |period| Some(DefaultRetention { mode: RetentionMode::Compliance, period });
        let locks = [None, of(RetentionPeriod::Days(36_500)), of(RetentionPeriod::Years(1))];
        let locks = locks.map(|default| Some(BucketLock { default }));
        let enabled = locks.into_iter().map(|lock| (Versioning::Enabled, lock));
        for (versioning, lock) in enabled.chain([(Versioning::Enabled, None), (Versioning::Suspended, None)]) {
            let mut bytes = Vec::new();
            encode_versioning(versioning, lock, &mut bytes);
            assert_eq!(parse_versioning(&mut Cursor(&bytes)), Some((versioning, lock)));
        }
        for [state, lock, mode, unit, period] in [
            [0, 0, 0, 0, 0],
            [3, 0, 0, 0, 0],
            [2, 1, 0, 0, 0],
            [1, 2, 0, 0, 0],
            [1, 0, 1, 1, 1],
            [1, 1, 3, 1, 1],
            [1, 1, 1, 0, 0],
            [1, 1, 0, 1, 1],
            [1, 1, 1, 3, 1],
            [1, 1, 1, 1, 0],
            [1, 1, 1, 2, 101],
        ] {
            let bytes = [state, lock, mode, unit, period, 0, 0, 0];
            assert_eq!(parse_versioning(&mut Cursor(&bytes)), None, "{bytes:?}");
        }
    }
}
