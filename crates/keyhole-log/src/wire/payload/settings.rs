//! Payload of records with a bucket's settings. Their kind says which opaque settings follow the
//! fixed ones, so that a bucket without any takes the shortest record.

use super::kind;
use crate::limits::{BUCKET_TAGS_MAX, CORS_MAX, LIFECYCLE_MAX, POLICY_MAX};
use crate::types::BucketSettings;
use crate::version::Versioning;
use crate::wire::Cursor;
use crate::wire::lock::{encode_versioning, parse_versioning};

const _: () = assert!(POLICY_MAX <= LIFECYCLE_MAX && LIFECYCLE_MAX <= u16::MAX as usize);

/// Returns the kind of the record with these settings.
pub(super) fn kind(settings: &BucketSettings) -> u8 {
    let BucketSettings { policy, lifecycle, cors, tags, .. } = settings;
    if settings.versioning != Versioning::Off {
        kind::BUCKET_VERSIONING
    } else if !cors.is_empty() || !tags.is_empty() {
        kind::BUCKET_DOCUMENTS
    } else if !lifecycle.is_empty() {
        kind::BUCKET_LIFECYCLE
    } else if !policy.is_empty() {
        kind::BUCKET_POLICY
    } else {
        kind::BUCKET_SETTINGS
    }
}

pub(super) fn encode(settings: &BucketSettings, out: &mut Vec<u8>) {
    let BucketSettings { policy, lifecycle, cors, tags, .. } = settings;
    let kind = kind(settings);
    settings.encode(out);
    if kind >= kind::BUCKET_POLICY {
        out.extend((policy.len() as u16).to_le_bytes());
        out.extend(policy);
    }
    if kind >= kind::BUCKET_LIFECYCLE {
        out.extend((lifecycle.len() as u16).to_le_bytes());
        out.extend(&lifecycle[..]);
    }
    if kind >= kind::BUCKET_DOCUMENTS {
        for opaque in [cors, tags] {
            out.extend((opaque.len() as u32).to_le_bytes());
            out.extend(&opaque[..]);
        }
    }
    if kind == kind::BUCKET_VERSIONING {
        encode_versioning(settings.versioning, settings.lock, out);
    }
}

/// Parses settings in a record of this kind. `None`: malformed, which includes a kind that another
/// one would replace.
pub(super) fn parse(kind: u8, c: &mut Cursor<'_>) -> Option<BucketSettings> {
    let mut settings = BucketSettings::parse(c)?;
    if kind >= kind::BUCKET_POLICY {
        let len = c.u16().map(usize::from).filter(|len| *len <= POLICY_MAX)?;
        settings.policy = c.bytes(len)?.to_vec();
    }
    if kind >= kind::BUCKET_LIFECYCLE {
        let len = c.u16().map(usize::from).filter(|len| *len <= LIFECYCLE_MAX)?;
        settings.lifecycle = c.bytes(len)?.into();
    }
    if kind >= kind::BUCKET_DOCUMENTS {
        let len = c.u32().map(|len| len as usize).filter(|len| *len <= CORS_MAX)?;
        settings.cors = c.bytes(len)?.into();
        let len = c.u32().map(|len| len as usize).filter(|len| *len <= BUCKET_TAGS_MAX)?;
        settings.tags = c.bytes(len)?.into();
    }
    if kind == kind::BUCKET_VERSIONING {
        (settings.versioning, settings.lock) = parse_versioning(c)?;
    }
    (self::kind(&settings) == kind).then_some(settings)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::payload::RecordPayload;

    fn payload(policy: usize, lifecycle: usize, cors: usize, tags: usize) -> RecordPayload<'static> {
        let settings = BucketSettings {
            quota: Some(1 << 40),
            expire_ms: None,
            policy: vec![6; policy],
            lifecycle: vec![7; lifecycle].into(),
            cors: vec![8; cors].into(),
            tags: vec![9; tags].into(),
            ..BucketSettings::default()
        };
        RecordPayload::BucketSettings { bucket: 1, time_ms: 2, settings }
    }

    fn parsed<'a>(payload: &RecordPayload<'_>, bytes: &'a [u8]) -> Option<RecordPayload<'a>> {
        RecordPayload::parse(payload.kind(), bytes)
    }

    #[test]
    fn settings_round_trip_and_other_lengths_are_rejected() {
        for n in 0..16 {
            let payload = payload(n & 1, n >> 1 & 1, n >> 2 & 1, n >> 3);
            let bytes = payload.encode();
            assert_eq!(parsed(&payload, &bytes).as_ref(), Some(&payload));
            for len in 0..bytes.len() {
                assert_eq!(parsed(&payload, &bytes[..len]), None, "{payload:?} cut to {len}");
            }
            assert_eq!(parsed(&payload, &[&bytes[..], &[0]].concat()), None, "{payload:?} with a byte more");
        }
    }

    #[test]
    fn versioning_round_trips_with_any_settings() {
        for n in 0..16 {
            let mut payload = payload(n & 1, n >> 1 & 1, n >> 2 & 1, n >> 3);
            let RecordPayload::BucketSettings { settings, .. } = &mut payload else { unreachable!("settings") };
            settings.versioning = Versioning::Suspended;
            let bytes = payload.encode();
            assert_eq!(payload.kind(), kind::BUCKET_VERSIONING);
            assert_eq!(parsed(&payload, &bytes).as_ref(), Some(&payload));
            for len in 0..bytes.len() {
                assert_eq!(parsed(&payload, &bytes[..len]), None, "{payload:?} cut to {len}");
            }
        }
    }

    #[test]
    fn opaque_settings_are_limited() {
        let longest = [POLICY_MAX, LIFECYCLE_MAX, CORS_MAX, BUCKET_TAGS_MAX];
        for used in 1..=4 {
            let mut lens = [0; 4];
            lens[..used].copy_from_slice(&longest[..used]);
            for one in 0..used {
                let [policy, lifecycle, cors, tags] = lens;
                let most = payload(policy, lifecycle, cors, tags);
                assert_eq!(parsed(&most, &most.encode()).as_ref(), Some(&most));
                let mut lens = lens;
                lens[one] += 1;
                let [policy, lifecycle, cors, tags] = lens;
                let longer = payload(policy, lifecycle, cors, tags);
                assert_eq!(parsed(&longer, &longer.encode()), None, "{lens:?}");
            }
        }
    }

    #[test]
    fn kind_without_its_setting_is_rejected() {
        for kind in [kind::BUCKET_POLICY, kind::BUCKET_LIFECYCLE, kind::BUCKET_DOCUMENTS] {
            let lens = match kind {
                kind::BUCKET_POLICY => 2,
                kind::BUCKET_LIFECYCLE => 4,
                _ => 12,
            };
            let bytes = [&payload(0, 0, 0, 0).encode()[..], &vec![0; lens]].concat();
            assert_eq!(RecordPayload::parse(kind, &bytes), None, "{kind}");
        }
    }
}
