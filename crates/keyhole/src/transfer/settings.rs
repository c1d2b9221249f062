//! Which settings of a bucket an import applies: an export may come from elsewhere, so settings that
//! widen rights, delete data or bound a bucket need the operator's consent.

use keyhole_log::{BucketSettings, Versioning};
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
            SettingsChoice::All => full.clone(),
            SettingsChoice::Safe => narrowed(full, current),
        }
    }
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
    use super::*;

    fn settings(own: &OwnPolicy) -> BucketSettings {
        BucketSettings { policy: own.encode(), ..BucketSettings::default() }
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
