//! Sources of a bucket's policy: the bucket's own settings and the node's defaults.
//!
//! The bucket's own policy is stored in its settings, opaque to the log. Empty bytes: nothing is
//! set. Otherwise: a version byte (2); one byte each for [`SseC`], the rekeying guard and anonymous
//! reads, 255 if unset; then key ids of 16 bytes each. Version 1 had a single byte for all three,
//! always set: the [`SseC`] in the low bits, plus 4 for the rekeying guard.

use keyhole_log::BucketSettings;
use keyhole_s3::{Error, ErrorCode};

use crate::limits::PINS_MAX;
use crate::policy::{Policy, SseC};

/// A bucket's own policy; unset fields fall back to the defaults.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct OwnPolicy {
    /// Whether customer keys are allowed.
    pub sse_c: Option<SseC>,
    /// The ids of the only customer keys accepted, at most [`PINS_MAX`]; empty accepts any key.
    pub pins: Vec<[u8; 16]>,
    /// Whether overwriting an object under another customer key requires the old key too.
    pub forbids_rekeying: Option<bool>,
    /// Whether unsigned requests may read.
    pub anonymous_read: Option<bool>,
}

const VERSION: u8 = 2;
const UNSET: u8 = 255;

impl OwnPolicy {
    /// Encodes the policy for the bucket's settings.
    pub fn encode(&self) -> Vec<u8> {
        if *self == OwnPolicy::default() {
            return Vec::new();
        }
        let flag = |flag: Option<bool>| flag.map_or(UNSET, u8::from);
        let sse_c = self.sse_c.map_or(UNSET, |sse_c| sse_c as u8);
        let front = [VERSION, sse_c, flag(self.forbids_rekeying), flag(self.anonymous_read)];
        [&front[..], self.pins.as_flattened()].concat()
    }

    /// Decodes the output of [`encode`](Self::encode). Returns `None` if the encoding is unknown.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let own = match bytes {
            [] => OwnPolicy::default(),
            [1, flags @ 0..8, pins @ ..] => OwnPolicy {
                sse_c: Some(sse_c(flags & 3)?),
                pins: ids(pins)?,
                forbids_rekeying: Some(flags & 4 != 0),
                anonymous_read: None,
            },
            [VERSION, sse_c_byte, rekeying, anonymous, pins @ ..] => OwnPolicy {
                sse_c: if *sse_c_byte == UNSET { None } else { Some(sse_c(*sse_c_byte)?) },
                pins: ids(pins)?,
                forbids_rekeying: flag(*rekeying)?,
                anonymous_read: flag(*anonymous)?,
            },
            _ => return None,
        };
        (own.pins.len() <= PINS_MAX).then_some(own)
    }

    /// Reads the policy from a bucket's settings. An unreadable policy is from a later version and
    /// may forbid anything, so it is an error.
    ///
    /// # Errors
    /// `AccessDenied`.
    pub fn of(settings: &BucketSettings) -> Result<Self, Error> {
        OwnPolicy::decode(&settings.policy).ok_or_else(|| {
            Error::new(ErrorCode::AccessDenied)
                .with_message("The bucket has a policy that this version of the node cannot read. Set it again.")
        })
    }

    /// Overlays the set fields on `base`.
    pub fn over(self, base: &Policy) -> Policy {
        Policy {
            sse_c: self.sse_c.unwrap_or(base.sse_c),
            pins: if self.pins.is_empty() { base.pins.clone() } else { self.pins },
            forbids_rekeying: self.forbids_rekeying.unwrap_or(base.forbids_rekeying),
            anonymous_read: self.anonymous_read.unwrap_or(base.anonymous_read),
        }
    }
}

fn sse_c(byte: u8) -> Option<SseC> {
    [SseC::Allow, SseC::Require, SseC::Forbid].into_iter().find(|it| *it as u8 == byte)
}

fn flag(byte: u8) -> Option<Option<bool>> {
    match byte {
        0 => Some(Some(false)),
        1 => Some(Some(true)),
        UNSET => Some(None),
        _ => None,
    }
}

fn ids(bytes: &[u8]) -> Option<Vec<[u8; 16]>> {
    let (ids, []) = bytes.as_chunks() else { return None };
    Some(ids.to_vec())
}

/// The node's default policies by bucket pattern (a bucket's name, or a prefix and `*`), the most
/// specific first.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PolicyDefaults(Vec<(String, OwnPolicy)>);

impl PolicyDefaults {
    /// Builds the table from patterns and their policies, in any order.
    pub fn new(mut of: Vec<(String, OwnPolicy)>) -> Self {
        // Exact names before prefixes, longer ones before shorter ones.
        of.sort_by_key(|(pattern, _)| (pattern.ends_with('*'), std::cmp::Reverse(pattern.len())));
        PolicyDefaults(of)
    }

    /// Returns the policy of a bucket without settings: all matching patterns, overlaid.
    pub fn of(&self, bucket: &str) -> Policy {
        // From the least to the most specific.
        let fitting = self.0.iter().rev().filter(|(pattern, _)| matches_bucket(pattern, bucket));
        fitting.fold(Policy::default(), |base, (_, own)| own.clone().over(&base))
    }
}

/// Returns whether a pattern (a bucket's name, or a prefix and `*`) matches `bucket`.
pub(crate) fn matches_bucket(pattern: &str, bucket: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(beginning) => bucket.starts_with(beginning),
        None => bucket == pattern,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_policy_round_trips() {
        let flags = [None, Some(false), Some(true)];
        for sse_c in [None, Some(SseC::Allow), Some(SseC::Require), Some(SseC::Forbid)] {
            for forbids_rekeying in flags {
                for anonymous_read in flags {
                    for pins in [0, 1, PINS_MAX] {
                        let own = OwnPolicy { sse_c, pins: vec![[3; 16]; pins], forbids_rekeying, anonymous_read };
                        assert_eq!(OwnPolicy::decode(&own.encode()), Some(own));
                    }
                }
            }
        }
        assert!(OwnPolicy::default().encode().is_empty());
        let most = OwnPolicy { pins: vec![[3; 16]; PINS_MAX], ..OwnPolicy::default() }.encode();
        assert!(most.len() <= keyhole_log::limits::POLICY_MAX);
        let bad: [&[u8]; 9] = [
            &[1],
            &[0, 0],
            &[3, 0, 0, 0],
            &[1, 3],
            &[1, 8],
            &[1, 0, 5],
            &[2, 3, 0, 0],
            &[2, 0, 2, 0],
            &[&most[..], &[3; 16]].concat(),
        ];
        for bad in bad {
            assert_eq!(OwnPolicy::decode(bad), None, "{bad:?}");
            let settings = BucketSettings { policy: bad.to_vec(), ..BucketSettings::default() };
            assert_eq!(OwnPolicy::of(&settings).unwrap_err().code, ErrorCode::AccessDenied);
        }
    }

    #[test]
    fn version_1_is_decoded() {
        let own = OwnPolicy::decode(&[&[1, 2 + 4][..], &[7; 16]].concat()).unwrap();
        let expected = OwnPolicy {
            sse_c: Some(SseC::Forbid),
            pins: vec![[7; 16]],
            forbids_rekeying: Some(true),
            anonymous_read: None,
        };
        assert_eq!(own, expected);
    }

    #[test]
    fn more_specific_default_takes_precedence() {
        let sse_c = |sse_c| OwnPolicy { sse_c: Some(sse_c), ..OwnPolicy::default() };
        let guarded = OwnPolicy { forbids_rekeying: Some(true), ..OwnPolicy::default() };
        let defaults = PolicyDefaults::new(vec![
            ("*".to_owned(), sse_c(SseC::Require)),
            ("cam-1".to_owned(), sse_c(SseC::Forbid)),
            ("cam-*".to_owned(), guarded),
        ]);
        let of = |bucket| (defaults.of(bucket).sse_c, defaults.of(bucket).forbids_rekeying);
        assert_eq!(of("photos"), (SseC::Require, false));
        assert_eq!(of("cam-2"), (SseC::Require, true));
        assert_eq!(of("cam-1"), (SseC::Forbid, true));
        let own = sse_c(SseC::Allow).over(&defaults.of("cam-1"));
        assert_eq!((own.sse_c, own.forbids_rekeying), (SseC::Allow, true));
        assert_eq!(PolicyDefaults::default().of("any"), Policy::default());
    }
}
