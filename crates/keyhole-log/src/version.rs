//! Versions of objects, their locks, and the settings of buckets that concern them.

use std::fmt;
use std::str::FromStr;

use crate::error::Error;
use crate::limits::{RETENTION_DAYS_MAX, RETENTION_YEARS_MAX};

/// The id of a version within its name.
///
/// ```
/// use keyhole_log::VersionId;
///
/// let id = VersionId::Id([0xab; 16]);
/// assert_eq!(id.to_string(), "abababababababababababababababab");
/// assert_eq!("abababababababababababababababab".parse(), Ok(id));
/// assert_eq!("null".parse(), Ok(VersionId::Null));
/// assert!("ABABABABABABABABABABABABABABABAB".parse::<VersionId>().is_err());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum VersionId {
    /// The version that was stored while versioning was off or suspended.
    Null,
    /// A version that was stored while versioning was enabled.
    Id([u8; 16]),
}

/// Formats as `null` or as 32 lower-case hex digits.
impl fmt::Display for VersionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            VersionId::Null => f.write_str("null"),
            VersionId::Id(id) => id.iter().try_for_each(|byte| write!(f, "{byte:02x}")),
        }
    }
}

/// The text is not the id of a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParseVersionIdError;

impl fmt::Display for ParseVersionIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a version id: 32 lower-case hex digits, or null")
    }
}

impl std::error::Error for ParseVersionIdError {}

impl FromStr for VersionId {
    type Err = ParseVersionIdError;

    fn from_str(text: &str) -> Result<Self, ParseVersionIdError> {
        if text == "null" {
            return Ok(VersionId::Null);
        }
        let digits = |byte: &u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte);
        if text.len() != 32 || !text.as_bytes().iter().all(digits) {
            return Err(ParseVersionIdError);
        }
        let id = u128::from_str_radix(text, 16).map_err(|_| ParseVersionIdError)?;
        Ok(VersionId::Id(id.to_be_bytes()))
    }
}

/// The ids of the versions of one store, which are derived from their sequence numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct VersionIds {
    store: u64,
}

impl VersionIds {
    /// Creates the ids of a store.
    pub(crate) fn of(store: &[u8; 16]) -> Self {
        let store = u128::from_be_bytes(*store);
        VersionIds { store: (store >> 64) as u64 ^ store as u64 }
    }

    /// Returns the id of the version with this sequence number.
    pub(crate) fn id(self, seq: u64) -> [u8; 16] {
        (u128::from(self.store) << 64 | u128::from(seq)).to_be_bytes()
    }

    /// Returns the sequence number of the version with this id. `None`: the id is of another store.
    pub(crate) fn seq(self, id: &[u8; 16]) -> Option<u64> {
        let id = u128::from_be_bytes(*id);
        ((id >> 64) as u64 == self.store).then_some(id as u64)
    }
}

/// The versioning state of a bucket.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Versioning {
    /// Never enabled: a write replaces the object.
    #[default]
    Off,
    /// A write adds a version.
    Enabled,
    /// A write replaces the `null` version. Other versions stay.
    Suspended,
}

/// Whether a retention can be shortened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetentionMode {
    /// By requests that bypass it.
    Governance,
    /// Not at all.
    Compliance,
}

/// A time until which a version is neither deleted nor replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Whether it can be shortened.
    pub mode: RetentionMode,
    /// Its end by the lock clock, in ms since 1970.
    pub until_ms: u64,
}

/// The retention and legal hold of a version. The default is neither.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lock {
    /// The retention.
    pub retention: Option<Retention>,
    /// Whether there is a legal hold.
    pub hold: bool,
}

impl Lock {
    /// Returns whether the version must be kept at this time of the lock clock. `bypass`: a retention
    /// of mode governance does not count.
    ///
    /// ```
    /// use keyhole_log::{Lock, Retention, RetentionMode};
    ///
    /// let retention = Some(Retention { mode: RetentionMode::Governance, until_ms: 9 });
    /// let lock = Lock { retention, hold: false };
    /// assert!(lock.keeps(8, false) && !lock.keeps(9, false) && !lock.keeps(8, true));
    /// assert!(Lock { retention: None, hold: true }.keeps(9, true));
    /// ```
    pub fn keeps(&self, clock_ms: u64, bypass: bool) -> bool {
        let retains = |retention: Retention| {
            retention.until_ms > clock_ms && !(bypass && retention.mode == RetentionMode::Governance)
        };
        self.hold || self.retention.is_some_and(retains)
    }

    /// Returns this lock with another retention, if the present one admits it at this time of the lock
    /// clock. `bypass`: a retention of mode governance admits any.
    ///
    /// # Errors
    /// `InvalidRetention` if the new one ends no later than the clock; `Locked` if the present one is in
    /// force and the new one is weaker in any respect.
    pub fn with_retention(self, new: Option<Retention>, bypass: bool, clock_ms: u64) -> Result<Lock, Error> {
        if new.is_some_and(|new| new.until_ms <= clock_ms) {
            return Err(Error::InvalidRetention);
        }
        let admits = |old: Retention| {
            let is_longer = new.is_some_and(|new| {
                new.until_ms >= old.until_ms && (old.mode == RetentionMode::Governance || new.mode == old.mode)
            });
            is_longer || (old.mode == RetentionMode::Governance && bypass)
        };
        let active = self.retention.filter(|old| old.until_ms > clock_ms);
        if active.is_none_or(admits) { Ok(Lock { retention: new, ..self }) } else { Err(Error::Locked) }
    }

    /// Returns whether there is neither a retention nor a hold.
    pub fn is_none(&self) -> bool {
        *self == Lock::default()
    }
}

/// The period of a default retention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetentionPeriod {
    /// Days, 1 to [`RETENTION_DAYS_MAX`].
    Days(u32),
    /// Years, 1 to [`RETENTION_YEARS_MAX`]. Each counts as 366 days, so that none is short.
    Years(u32),
}

impl RetentionPeriod {
    /// Returns the period in ms.
    pub fn ms(self) -> u64 {
        const DAY_MS: u64 = 24 * 60 * 60 * 1000;
        match self {
            RetentionPeriod::Days(days) => u64::from(days) * DAY_MS,
            RetentionPeriod::Years(years) => u64::from(years) * 366 * DAY_MS,
        }
    }

    /// Returns whether it is within its limits.
    pub fn is_valid(self) -> bool {
        match self {
            RetentionPeriod::Days(days) => (1..=RETENTION_DAYS_MAX).contains(&days),
            RetentionPeriod::Years(years) => (1..=RETENTION_YEARS_MAX).contains(&years),
        }
    }
}

/// The retention of new versions that come without one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DefaultRetention {
    /// Whether it can be shortened.
    pub mode: RetentionMode,
    /// Its length.
    pub period: RetentionPeriod,
}

/// The object lock of a bucket.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BucketLock {
    /// The retention of new versions that come without one.
    pub default: Option<DefaultRetention>,
}

/// A stored version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredVersion {
    /// Its id.
    pub version: VersionId,
    /// The versioning state of its bucket when it was stored.
    pub versioning: Versioning,
}

/// The effect of a deletion that names no version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deletion {
    /// The bucket is not versioned: the object was deleted, if there was one.
    Removed(bool),
    /// A delete marker with this id was stored.
    Marker(VersionId),
}

/// The effect of the deletion of a version.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DeletedVersion {
    /// Whether the version existed.
    pub existed: bool,
    /// Whether it was a delete marker.
    pub was_marker: bool,
}

/// A delete marker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marker {
    /// Its id.
    pub version: VersionId,
    /// Time of storage, in ms since 1970.
    pub time_ms: u64,
    /// Whether it is the current version.
    pub is_latest: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use RetentionMode::{Compliance, Governance};

    #[test]
    fn version_id_names_store_and_sequence_number() {
        let ids = VersionIds::of(&[0x11, 2, 3, 4, 5, 6, 7, 8, 0x10, 2, 3, 4, 5, 6, 7, 9]);
        let id = ids.id(0x1234);
        assert_eq!(VersionId::Id(id).to_string(), "01000000000000010000000000001234");
        assert_eq!(ids.seq(&id), Some(0x1234));
        assert_eq!(VersionIds::of(&[7; 16]).seq(&id), None, "of another store");
    }

    #[test]
    fn malformed_version_id_is_rejected() {
        for text in
            ["", "Null", "0", "+bababababababababababababababab", &"a".repeat(31), &"a".repeat(33), &"g".repeat(32)]
        {
            assert_eq!(text.parse::<VersionId>(), Err(ParseVersionIdError), "{text}");
        }
    }

    #[test]
    fn retention_period_is_limited() {
        for (most, period) in [
            (RETENTION_DAYS_MAX, RetentionPeriod::Days as fn(u32) -> RetentionPeriod),
            (RETENTION_YEARS_MAX, RetentionPeriod::Years),
        ] {
            assert_eq!([0, 1, most, most + 1].map(|n| period(n).is_valid()), [false, true, true, false]);
        }
        assert_eq!(RetentionPeriod::Years(1).ms(), RetentionPeriod::Days(366).ms());
    }

    fn retention(mode: RetentionMode, until_ms: u64) -> Option<Retention> {
        Some(Retention { mode, until_ms })
    }

    #[test]
    fn retention_is_only_weakened_with_bypass_and_never_in_compliance() {
        let clock = 100;
        let check = |old, new, bypass, admitted: bool| {
            let old = Lock { retention: old, hold: true };
            let result = old.with_retention(new, bypass, clock);
            assert_eq!(result.is_ok(), admitted, "{old:?} {new:?} {bypass}");
            if let Ok(lock) = result {
                assert_eq!(lock, Lock { retention: new, hold: true });
            }
        };
        for bypass in [false, true] {
            check(None, retention(Governance, 101), bypass, true);
            check(None, retention(Governance, 100), bypass, false);
            check(retention(Compliance, 100), None, bypass, true);
            check(retention(Compliance, 101), None, bypass, false);
            check(retention(Compliance, 110), retention(Compliance, 110), bypass, true);
            check(retention(Compliance, 110), retention(Compliance, 109), bypass, false);
            check(retention(Compliance, 110), retention(Governance, 200), bypass, false);
            check(retention(Governance, 110), retention(Compliance, 110), bypass, true);
            check(retention(Governance, 110), retention(Governance, 109), bypass, bypass);
            check(retention(Governance, 110), None, bypass, bypass);
        }
    }
}
