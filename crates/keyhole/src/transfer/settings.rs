//! Which settings of a bucket an import applies: an export may come from elsewhere, so settings that
//! widen rights, delete data or bound a bucket need the operator's consent.

use keyhole_log::{BucketLock, BucketSettings, Versioning};
use keyhole_node::{OwnPolicy, SseC};
use serde::{Deserialize, Serialize};

/// The settings of buckets that an import applies.
#[derive(Serialize, Deserialize, clap::ValueEnum, Clone, Copy, PartialEq, Eq, Default, Debug)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum SettingsChoice {
    /// Only those that narrow what clients may do.
    #[default]
    Safe,
    /// All of them.
    All,
}

impl SettingsChoice {
    /// Returns the settings that a bucket with the settings `current` is to have, if an export has
    /// the settings `full`.
    pub(crate) fn wanted(self, full: &BucketSettings, current: &BucketSettings) -> BucketSettings {
        match self {
            // An export without versioning leaves that of the bucket as it is.
            SettingsChoice::All if full.versioning == Versioning::Off => {
                BucketSettings { versioning: current.versioning, lock: current.lock, ..full.clone() }
            }
            // Object lock stays, and with it versioning.
            SettingsChoice::All if full.lock.is_none() && current.lock.is_some() => {
                BucketSettings { versioning: current.versioning, lock: current.lock, ..full.clone() }
            }
            SettingsChoice::All => full.clone(),
            SettingsChoice::Safe => protected(full, &narrowed(full, current)),
        }
    }
}

/// Returns those of the settings `full` that a bucket gets before its objects: the objects may exceed
/// its quota, and an object that expires gets a delete marker, so that the next version would not
/// follow it.
pub(super) fn before_objects(full: &BucketSettings) -> BucketSettings {
    let unbounded = BucketSettings { quota: None, ..full.clone() };
    if full.versioning == Versioning::Off {
        return unbounded;
    }
    BucketSettings { expire_ms: None, lifecycle: Vec::new().into(), ..unbounded }
}

/// Adds to `current` the versioning and the object lock of `full`, which protect data.
fn protected(full: &BucketSettings, current: &BucketSettings) -> BucketSettings {
    let versioning = match (current.versioning, full.versioning) {
        (Versioning::Off, versioning) => versioning,
        (Versioning::Suspended, Versioning::Enabled) => Versioning::Enabled,
        (versioning, _) => versioning,
    };
    let lock = match (current.lock, full.lock) {
        (Some(own), Some(wanted)) => Some(BucketLock { default: own.default.or(wanted.default) }),
        (own, wanted) => own.or(wanted),
    };
    BucketSettings { versioning, lock, ..current.clone() }
}

/// Adds to `current` those settings of `full` that narrow what clients may do.
fn narrowed(full: &BucketSettings, current: &BucketSettings) -> BucketSettings {
    let (Some(wanted), Some(own)) = (OwnPolicy::decode(&full.policy), OwnPolicy::decode(&current.policy)) else {
        return current.clone();
    };
    let next = OwnPolicy {
        sse_c: wanted.sse_c.filter(|sse_c| *sse_c == SseC::Require).or(own.sse_c),
        pins: if own.pins.is_empty() { wanted.pins } else { own.pins.clone() },
        forbids_rekeying: wanted.forbids_rekeying.filter(|forbids| *forbids).or(own.forbids_rekeying),
        anonymous_read: wanted.anonymous_read.filter(|allows| !allows).or(own.anonymous_read),
    };
    // The same policy may have an older encoding.
    let policy = if next == own { current.policy.clone() } else { next.encode() };
    BucketSettings { policy, ..current.clone() }
}

/// Names the settings that [`SettingsChoice::Safe`] leaves out.
pub(crate) fn left_out(full: &BucketSettings) -> Vec<&'static str> {
    let own = OwnPolicy::decode(&full.policy).unwrap_or_default();
    let names = [
        (own.anonymous_read == Some(true), "anonymous reads"),
        (own.sse_c.is_some_and(|sse_c| sse_c != SseC::Require), "customer keys allowed or forbidden"),
        (own.forbids_rekeying == Some(false), "rekeying by overwrite allowed"),
        (full.expire_ms.is_some(), "expiry"),
        (!full.lifecycle.is_empty(), "lifecycle rules"),
        (full.quota.is_some(), "quota"),
    ];
    names.into_iter().filter(|(is_set, _)| *is_set).map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use keyhole_log::{DefaultRetention, RetentionMode, RetentionPeriod};

    use super::*;

    fn settings(own: &OwnPolicy) -> BucketSettings {
        BucketSettings { policy: own.encode(), ..BucketSettings::default() }
    }

    #[test]
    fn versioning_and_object_lock_are_only_added() {
        let with = |versioning, lock| BucketSettings { versioning, lock, ..BucketSettings::default() };
        let default = |days| {
            let period = RetentionPeriod::Days(days);
            Some(BucketLock { default: Some(DefaultRetention { mode: RetentionMode::Governance, period }) })
        };
        let off = with(Versioning::Off, None);
        let enabled = with(Versioning::Enabled, None);
        let suspended = with(Versioning::Suspended, None);
        let bare = with(Versioning::Enabled, Some(BucketLock::default()));
        let locked = with(Versioning::Enabled, default(1));
        let other = with(Versioning::Enabled, default(2));
        for (current, full, safe, all) in [
            (&off, &off, &off, &off),
            (&off, &enabled, &enabled, &enabled),
            (&off, &suspended, &suspended, &suspended),
            (&off, &locked, &locked, &locked),
            (&suspended, &off, &suspended, &suspended),
            (&suspended, &enabled, &enabled, &enabled),
            (&enabled, &suspended, &enabled, &suspended),
            (&enabled, &bare, &bare, &bare),
            (&bare, &locked, &locked, &locked),
            (&locked, &bare, &locked, &bare),
            (&locked, &other, &locked, &other),
            (&locked, &off, &locked, &locked),
            (&locked, &suspended, &locked, &locked),
        ] {
            assert_eq!(&SettingsChoice::Safe.wanted(full, current), safe, "{current:?} {full:?}");
            assert_eq!(&SettingsChoice::All.wanted(full, current), all, "{current:?} {full:?}");
        }
        assert!(left_out(&locked).is_empty());
    }

    #[test]
    fn settings_that_delete_versions_come_after_them() {
        let full = BucketSettings {
            quota: Some(1),
            expire_ms: Some(2),
            lifecycle: vec![1, 0].into(),
            ..BucketSettings::default()
        };
        assert_eq!(before_objects(&full), BucketSettings { quota: None, ..full.clone() });
        let versioned = BucketSettings { versioning: Versioning::Enabled, ..BucketSettings::default() };
        assert_eq!(before_objects(&BucketSettings { versioning: Versioning::Enabled, ..full }), versioned);
    }

    #[test]
    fn safe_choice_only_narrows() {
        let wide = OwnPolicy {
            sse_c: Some(SseC::Allow),
            pins: vec![[1; 16]],
            forbids_rekeying: Some(false),
            anonymous_read: Some(true),
        };
        let full =
            BucketSettings { quota: Some(1), expire_ms: Some(2), lifecycle: vec![1, 0].into(), ..settings(&wide) };
        let narrow = OwnPolicy {
            sse_c: Some(SseC::Require),
            pins: vec![[2; 16]],
            forbids_rekeying: Some(true),
            anonymous_read: Some(false),
        };
        let own = BucketSettings { quota: Some(3), expire_ms: Some(4), ..settings(&narrow) };
        let fresh = BucketSettings::default();
        let safe = SettingsChoice::Safe;
        assert_eq!(safe.wanted(&full, &own), own, "nothing widens");
        let pinned = OwnPolicy { pins: vec![[1; 16]], ..OwnPolicy::default() };
        assert_eq!(safe.wanted(&full, &fresh), settings(&pinned));
        assert_eq!(safe.wanted(&settings(&narrow), &fresh), settings(&narrow));
        let forbids = OwnPolicy { sse_c: Some(SseC::Forbid), ..OwnPolicy::default() };
        assert_eq!(safe.wanted(&settings(&forbids), &own), own);
        assert_eq!(SettingsChoice::All.wanted(&full, &own), full);
        assert_eq!(left_out(&full).len(), 6);
        assert!(left_out(&settings(&narrow)).is_empty() && left_out(&fresh).is_empty());
    }
}
