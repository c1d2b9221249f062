//! Where a policy comes from: what a bucket was set to by itself, and what the node has for what was not.
//!
//! What a bucket was set to is kept with its settings, opaque to the log. No bytes: nothing. Otherwise a byte of version, 2; three
//! bytes for [`SseC`], for guarded overwriting, and for reading by everybody, each 255 where it was not set; then ids of keys, 16 bytes
//! each. Version 1 had one byte for all three (the [`SseC`], and 4 more where overwriting is guarded), all of which it set.

use keyhole_log::BucketSettings;
use keyhole_s3::{Error, ErrorCode};

use crate::limits::PINS_MAX;
use crate::policy::{Policy, SseC};

/// What of a policy was set. The rest is as it would be without.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct OwnPolicy {
    /// Whether customer keys are allowed.
    pub sse_c: Option<SseC>,
    /// Ids of the only customer keys that are taken, at most [`PINS_MAX`]; none: any key.
    pub pins: Vec<[u8; 16]>,
    /// Whether overwriting is guarded.
    pub forbids_rekeying: Option<bool>,
    /// Whether everybody may read.
    pub anonymous_read: Option<bool>,
}

const VERSION: u8 = 2;
const UNSET: u8 = 255;

impl OwnPolicy {
    /// As it is kept.
    pub fn encode(&self) -> Vec<u8> {
        if *self == OwnPolicy::default() {
            return Vec::new();
        }
        let flag = |flag: Option<bool>| flag.map_or(UNSET, u8::from);
        let sse_c = self.sse_c.map_or(UNSET, |sse_c| sse_c as u8);
        let front = [VERSION, sse_c, flag(self.forbids_rekeying), flag(self.anonymous_read)];
        [&front[..], self.pins.as_flattened()].concat()
    }

    /// Reads what [`encode`](Self::encode) has made; `None`: it is nothing of that kind.
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

    /// What was set of a bucket. What cannot be read is of a later version, and forbids what it might forbid.
    ///
    /// # Errors
    /// `AccessDenied`.
    pub fn of(settings: &BucketSettings) -> Result<Self, Error> {
        OwnPolicy::decode(&settings.policy).ok_or_else(|| {
            Error::new(ErrorCode::AccessDenied)
                .with_message("The bucket has a policy that this version of the node cannot read. Set it anew.")
        })
    }

    /// What holds where this was set, over what would hold without.
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

/// What the node has for buckets where something was not set: for each pattern of names (a name, or the beginning of names and `*`), the
/// longest pattern first.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PolicyDefaults(Vec<(String, OwnPolicy)>);

impl PolicyDefaults {
    /// Takes patterns with what they stand for, in any order.
    pub fn new(mut of: Vec<(String, OwnPolicy)>) -> Self {
        // A whole name goes before the beginning of names, a longer one before a shorter.
        of.sort_by_key(|(pattern, _)| (pattern.ends_with('*'), std::cmp::Reverse(pattern.len())));
        PolicyDefaults(of)
    }

    /// What holds for a bucket of which nothing was set.
    pub fn of(&self, bucket: &str) -> Policy {
        // From the least specific to the most.
        let fitting = self.0.iter().rev().filter(|(pattern, _)| is_meant(pattern, bucket));
        fitting.fold(Policy::default(), |base, (_, own)| own.clone().over(&base))
    }
}

/// Whether a pattern, a bucket's name or the beginning of names and `*`, means this bucket.
pub(crate) fn is_meant(pattern: &str, bucket: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(beginning) => bucket.starts_with(beginning),
        None => bucket == pattern,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_kept() {
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
    fn version_1_is_read() {
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
    fn what_is_more_specific_goes_first() {
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
