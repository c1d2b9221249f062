//! Encoding of values that both records and checkpoint items contain: parts and bucket settings.

use super::Cursor;
use crate::types::{BodyId, BucketSettings, Part};

/// Length of an encoded part.
pub(super) const PART_LEN: usize = 2 + 8 + 8 + 24 + 16;

impl BucketSettings {
    /// Encodes 16 bytes; unset values are all ones. The opaque settings are encoded elsewhere.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend(self.quota.unwrap_or(u64::MAX).to_le_bytes());
        out.extend(self.expire_ms.unwrap_or(u64::MAX).to_le_bytes());
    }

    pub(super) fn parse(c: &mut Cursor<'_>) -> Option<Self> {
        let some = |value| (value != u64::MAX).then_some(value);
        Some(BucketSettings { quota: some(c.u64()?), expire_ms: some(c.u64()?), ..BucketSettings::default() })
    }
}

pub(super) fn encode_part(part: &Part, out: &mut Vec<u8>) {
    out.extend_from_slice(&part.number.to_le_bytes());
    out.extend_from_slice(&part.body.0.to_le_bytes());
    out.extend_from_slice(&part.size.to_le_bytes());
    out.extend_from_slice(&part.salt);
    out.extend_from_slice(&part.etag);
}

pub(super) fn parse_part(c: &mut Cursor<'_>) -> Option<Part> {
    Some(Part { number: c.u16()?, body: BodyId(c.u64()?), size: c.u64()?, salt: c.array()?, etag: c.array()? })
}
