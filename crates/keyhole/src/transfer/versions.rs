//! Descriptions of versions, delete markers and locks in an export.

use keyhole_log::{
    BucketLock, DefaultRetention, Lock, Retention, RetentionMode, RetentionPeriod, VersionId, Versioning,
};
use keyhole_s3::ops;
use serde::{Deserialize, Serialize};

use super::invalid::EntryError;

/// Limit of times, in ms since 1970: the end of the year 9999.
pub(super) const TIME_MAX_MS: u64 = 253_402_300_799_999;

/// The id of a version, serialized as text.
#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Version(pub(crate) VersionId);

impl TryFrom<String> for Version {
    type Error = EntryError;

    fn try_from(text: String) -> Result<Self, EntryError> {
        text.parse().map(Version).map_err(|_| EntryError::Version(text))
    }
}

impl From<Version> for String {
    fn from(version: Version) -> Self {
        version.0.to_string()
    }
}

/// A delete marker.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
#[serde(deny_unknown_fields)]
pub(crate) struct MarkerEntry {
    pub(crate) bucket: String,
    pub(crate) key: String,
    pub(crate) version: Version,
    pub(crate) modified_ms: u64,
}

impl MarkerEntry {
    /// Checks that there can be such a marker.
    pub(crate) fn check(&self) -> Result<(), EntryError> {
        let is_named = ops::check_bucket(&self.bucket).is_ok() && !self.key.is_empty();
        if !is_named || ops::check_key(&self.key).is_err() {
            return Err(EntryError::Name);
        }
        if self.modified_ms > TIME_MAX_MS { Err(EntryError::Time) } else { Ok(()) }
    }

    /// Returns its bucket, key and version for display.
    pub(crate) fn name(&self) -> String {
        name(&self.bucket, &self.key, Some(self.version.0))
    }
}

/// Formats bucket and key, and the version of an object in a bucket with versioning.
pub(crate) fn name(bucket: &str, key: &str, version: Option<VersionId>) -> String {
    let key = key.escape_debug();
    match version {
        Some(version) => format!("{bucket}/{key} (version {version})"),
        None => format!("{bucket}/{key}"),
    }
}

/// The mode of a retention, as S3 names it.
#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum Mode {
    Governance,
    Compliance,
}

impl From<RetentionMode> for Mode {
    fn from(mode: RetentionMode) -> Self {
        match mode {
            RetentionMode::Governance => Mode::Governance,
            RetentionMode::Compliance => Mode::Compliance,
        }
    }
}

impl From<Mode> for RetentionMode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Governance => RetentionMode::Governance,
            Mode::Compliance => RetentionMode::Compliance,
        }
    }
}

/// The retention and legal hold of a version.
#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(deny_unknown_fields)]
pub(crate) struct LockEntry {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) mode: Option<Mode>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) until_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) hold: bool,
}

impl LockEntry {
    /// Describes a lock; `None` if there is none.
    pub(super) fn new(lock: &Lock) -> Option<Self> {
        let entry = LockEntry {
            mode: lock.retention.map(|retention| retention.mode.into()),
            until_ms: lock.retention.map(|retention| retention.until_ms),
            hold: lock.hold,
        };
        (!lock.is_none()).then_some(entry)
    }

    /// Decodes the lock.
    pub(super) fn lock(&self) -> Result<Lock, EntryError> {
        let retention = match (self.mode, self.until_ms) {
            (None, None) if !self.hold => return Err(EntryError::EmptyLock),
            (None, None) => None,
            (Some(_), Some(until_ms)) if until_ms > TIME_MAX_MS => return Err(EntryError::Time),
            (Some(mode), Some(until_ms)) => Some(Retention { mode: mode.into(), until_ms }),
            _ => return Err(EntryError::Retention),
        };
        Ok(Lock { retention, hold: self.hold })
    }
}

/// The versioning state of a bucket that has had versioning.
#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum VersioningEntry {
    Enabled,
    Suspended,
}

impl VersioningEntry {
    /// Describes a state; `None` if the bucket never had versioning.
    pub(super) fn new(versioning: Versioning) -> Option<Self> {
        match versioning {
            Versioning::Off => None,
            Versioning::Enabled => Some(VersioningEntry::Enabled),
            Versioning::Suspended => Some(VersioningEntry::Suspended),
        }
    }
}

impl From<VersioningEntry> for Versioning {
    fn from(entry: VersioningEntry) -> Self {
        match entry {
            VersioningEntry::Enabled => Versioning::Enabled,
            VersioningEntry::Suspended => Versioning::Suspended,
        }
    }
}

/// The object lock of a bucket, with the default retention if it has one.
#[derive(Serialize, Deserialize, Clone, Copy, Default, PartialEq, Eq, Debug)]
#[serde(deny_unknown_fields)]
pub(crate) struct ObjectLockEntry {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) mode: Option<Mode>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) days: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) years: Option<u32>,
}

impl ObjectLockEntry {
    pub(super) fn new(lock: &BucketLock) -> Self {
        let Some(DefaultRetention { mode, period }) = lock.default else { return ObjectLockEntry::default() };
        let (days, years) = match period {
            RetentionPeriod::Days(days) => (Some(days), None),
            RetentionPeriod::Years(years) => (None, Some(years)),
        };
        ObjectLockEntry { mode: Some(mode.into()), days, years }
    }

    /// Decodes the object lock.
    pub(super) fn lock(&self) -> Result<BucketLock, EntryError> {
        let period = match (self.mode, self.days, self.years) {
            (None, None, None) => return Ok(BucketLock::default()),
            (Some(_), Some(days), None) => RetentionPeriod::Days(days),
            (Some(_), None, Some(years)) => RetentionPeriod::Years(years),
            _ => return Err(EntryError::DefaultRetention),
        };
        let mode = self.mode.filter(|_| period.is_valid()).ok_or(EntryError::DefaultRetention)?;
        Ok(BucketLock { default: Some(DefaultRetention { mode: mode.into(), period }) })
    }
}

#[cfg(test)]
mod tests {
    use keyhole_log::limits::{RETENTION_DAYS_MAX, RETENTION_YEARS_MAX};

    use super::*;

    #[test]
    fn version_ids_are_null_or_hex() {
        let read = |text: &str| serde_json::from_str::<Version>(&format!("\"{text}\""));
        for text in ["null", "0123456789abcdef0123456789abcdef"] {
            let version = read(text).unwrap();
            assert_eq!(serde_json::to_string(&version).unwrap(), format!("\"{text}\""));
        }
        for bad in ["", "Null", &"0".repeat(31), &"0".repeat(33), &"A".repeat(32), &"g".repeat(32)] {
            let said = read(bad).unwrap_err().to_string();
            assert!(said.contains("version id"), "{said}");
        }
        assert!(serde_json::from_str::<Version>("null").is_err(), "it is text");
    }

    #[test]
    fn locks_round_trip() {
        let retention = |mode, until_ms| Some(Retention { mode, until_ms });
        for lock in [
            Lock { retention: None, hold: true },
            Lock { retention: retention(RetentionMode::Governance, 0), hold: false },
            Lock { retention: retention(RetentionMode::Compliance, TIME_MAX_MS), hold: true },
        ] {
            let entry = LockEntry::new(&lock).unwrap();
            let text = serde_json::to_string(&entry).unwrap();
            let read: LockEntry = serde_json::from_str(&text).unwrap();
            assert_eq!(read.lock().unwrap(), lock, "{text}");
        }
        assert_eq!(LockEntry::new(&Lock::default()), None);
    }

    #[test]
    fn invalid_locks_are_rejected() {
        let check = |text: &str| serde_json::from_str::<LockEntry>(text).unwrap().lock();
        for (text, error) in [
            ("{}", EntryError::EmptyLock),
            (r#"{"hold":false}"#, EntryError::EmptyLock),
            (r#"{"mode":"GOVERNANCE"}"#, EntryError::Retention),
            (r#"{"until_ms":5,"hold":true}"#, EntryError::Retention),
            (r#"{"mode":"COMPLIANCE","until_ms":253402300800000}"#, EntryError::Time),
        ] {
            assert_eq!(check(text).unwrap_err(), error, "{text}");
        }
        for text in [r#"{"mode":"governance","until_ms":5}"#, r#"{"mode":"","until_ms":5}"#, r#"{"held":true}"#] {
            assert!(serde_json::from_str::<LockEntry>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn default_retention_is_bounded() {
        let with = |mode, days, years| ObjectLockEntry { mode, days, years }.lock();
        let mode = Some(Mode::Compliance);
        assert_eq!(with(None, None, None), Ok(BucketLock::default()));
        for (days, years) in
            [(Some(1), None), (Some(RETENTION_DAYS_MAX), None), (None, Some(1)), (None, Some(RETENTION_YEARS_MAX))]
        {
            let lock = with(mode, days, years).unwrap();
            assert_eq!(ObjectLockEntry::new(&lock), ObjectLockEntry { mode, days, years });
        }
        for (mode, days, years) in [
            (mode, None, None),
            (None, Some(1), None),
            (mode, Some(1), Some(1)),
            (mode, Some(0), None),
            (mode, Some(RETENTION_DAYS_MAX + 1), None),
            (mode, None, Some(0)),
            (mode, None, Some(RETENTION_YEARS_MAX + 1)),
        ] {
            assert_eq!(with(mode, days, years), Err(EntryError::DefaultRetention), "{mode:?} {days:?} {years:?}");
        }
    }

    #[test]
    fn marker_names_and_times_are_checked() {
        let marker = MarkerEntry {
            bucket: "bucket".to_owned(),
            key: "k".repeat(1024),
            version: Version(VersionId::Null),
            modified_ms: TIME_MAX_MS,
        };
        assert_eq!(marker.check(), Ok(()));
        for (bad, error) in [
            (MarkerEntry { bucket: "..".to_owned(), ..marker.clone() }, EntryError::Name),
            (MarkerEntry { key: String::new(), ..marker.clone() }, EntryError::Name),
            (MarkerEntry { key: "k".repeat(1025), ..marker.clone() }, EntryError::Name),
            (MarkerEntry { modified_ms: TIME_MAX_MS + 1, ..marker }, EntryError::Time),
        ] {
            assert_eq!(bad.check(), Err(error), "{bad:?}");
        }
    }
}
