//! Entries of the index for objects and bodies, and their keys.

use std::borrow::Borrow;

use super::location::{Location, Shares};
use crate::types::{BodyId, Etag, Part};
use crate::wire::payload::ObjectPut;

/// The properties of an object that conditions refer to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Properties {
    pub(crate) etag: Etag,
    pub(crate) size: u64,
    pub(crate) time_ms: u64,
}

/// An object key, ordered by its bytes and searchable by bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key(pub(crate) Box<str>);

impl Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl From<&str> for Key {
    fn from(key: &str) -> Self {
        Key(key.into())
    }
}

/// The bodies of an object, usually one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Bodies {
    One(BodyId),
    // A thin pointer keeps the common variants small.
    #[allow(clippy::box_collection)]
    Many(Box<Vec<BodyId>>),
    /// Those of a delete marker.
    Marker,
}

impl Bodies {
    pub(crate) fn of(parts: &[Part]) -> Self {
        match parts {
            [one] => Bodies::One(one.body),
            _ => Bodies::from_vec(parts.iter().map(|part| part.body).collect()),
        }
    }

    pub(crate) fn from_vec(bodies: Vec<BodyId>) -> Self {
        match bodies[..] {
            [one] => Bodies::One(one),
            _ => Bodies::Many(Box::new(bodies)),
        }
    }

    pub(crate) fn as_slice(&self) -> &[BodyId] {
        match self {
            Bodies::One(one) => std::slice::from_ref(one),
            Bodies::Many(many) => many,
            Bodies::Marker => &[],
        }
    }
}

/// Storage time, number of ETag parts, and flags of a version, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp(pub(super) u64);

impl Stamp {
    const TIME_BITS: u32 = 48;
    const PARTS_BITS: u32 = 14;
    /// Flag of a version that is not the `null` version.
    const VERSION: u64 = 1 << 63;
    const TIME_MAX: u64 = (1 << Self::TIME_BITS) - 1;

    /// Packs the fields. Times after the year 10,000 are clamped to it.
    pub(super) fn new(time_ms: u64, parts: u16, sealed: bool) -> Self {
        // More parts than the format allows are not told apart: such a record is rejected on reading.
        let parts = parts.min((1 << Self::PARTS_BITS) - 1);
        let flags = u64::from(parts) << 1 | u64::from(sealed);
        Stamp(time_ms.min(Self::TIME_MAX) | flags << Self::TIME_BITS)
    }

    /// Returns the stamp of a version that is the `null` version or not.
    pub(super) fn of_version(self, is_null: bool) -> Self {
        Stamp(if is_null { self.0 & !Self::VERSION } else { self.0 | Self::VERSION })
    }

    pub(super) fn is_null(self) -> bool {
        self.0 & Self::VERSION == 0
    }

    pub(super) fn time_ms(self) -> u64 {
        self.0 & Self::TIME_MAX
    }

    pub(super) fn parts(self) -> u16 {
        (self.0 >> (Self::TIME_BITS + 1)) as u16 & ((1 << Self::PARTS_BITS) - 1)
    }

    pub(super) fn sealed(self) -> bool {
        self.0 >> Self::TIME_BITS & 1 == 1
    }
}

/// A version of an object, or a delete marker.
#[derive(Debug, Clone)]
pub(crate) struct ObjectEntry {
    pub(crate) at: Location,
    pub(crate) seq: u64,
    pub(crate) size: u64,
    pub(super) stamp: Stamp,
    pub(super) digest: [u8; 16],
    pub(crate) bodies: Bodies,
}

/// What the entry of an object says of its record, except for its bodies.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ObjectFacts {
    size: u64,
    stamp: Stamp,
    digest: [u8; 16],
}

/// A body.
#[derive(Debug)]
pub(crate) struct BodyEntry {
    pub(crate) at: Location,
    /// The segments of its blocks; empty for an inline body.
    pub(crate) shares: Shares,
    pub(super) refs: u32,
}

const _: () = assert!(size_of::<ObjectEntry>() == 64 && size_of::<(BodyId, BodyEntry)>() == 40);

impl ObjectEntry {
    /// Returns whether this is the entry of the object that a record stores.
    pub(crate) fn is_of(&self, put: &ObjectPut<'_>) -> bool {
        self.facts().are_of(self.bodies.as_slice(), put)
    }

    pub(crate) fn facts(&self) -> ObjectFacts {
        ObjectFacts { size: self.size, stamp: self.stamp, digest: self.digest }
    }

    /// Returns whether this is a delete marker.
    pub(crate) fn is_marker(&self) -> bool {
        matches!(self.bodies, Bodies::Marker)
    }

    /// Returns whether this is the `null` version of its name.
    pub(crate) fn is_null(&self) -> bool {
        self.stamp.is_null()
    }

    pub(crate) fn time_ms(&self) -> u64 {
        self.stamp.time_ms()
    }

    pub(crate) fn etag(&self) -> Etag {
        Etag { digest: self.digest, parts: self.stamp.parts() }
    }

    pub(crate) fn sealed(&self) -> bool {
        self.stamp.sealed()
    }

    pub(crate) fn properties(&self) -> Properties {
        Properties { etag: self.etag(), size: self.size, time_ms: self.time_ms() }
    }
}

impl ObjectFacts {
    /// Returns whether these facts and bodies are those of the object that a record stores.
    pub(crate) fn are_of(&self, bodies: &[BodyId], put: &ObjectPut<'_>) -> bool {
        self.size == put.size
            && self.stamp == Stamp::new(put.time_ms, put.etag.parts, put.sealed).of_version(put.id.is_null())
            && self.digest == put.etag.digest
            && bodies.iter().eq(put.parts.iter().map(|part| &part.body))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamp_of_extreme_values_round_trips() {
        for (time, parts, sealed) in [(0, 0, false), (1_700_000_000_000, 10_000, true), ((1 << 48) - 1, 1, false)] {
            let stamp = Stamp::new(time, parts, sealed);
            for is_null in [true, false] {
                let stamp = stamp.of_version(is_null);
                assert_eq!((stamp.time_ms(), stamp.parts(), stamp.sealed()), (time, parts, sealed));
                assert_eq!(stamp.is_null(), is_null);
            }
        }
        assert_eq!(Stamp::new(u64::MAX, 0, true).time_ms(), (1 << 48) - 1);
    }
}
