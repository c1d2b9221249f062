//! Records to write.

use std::fmt;

use crate::index::Effect;
use crate::wire::payload::kind;
use crate::wire::superblock::{VERSION, VERSION_PLAIN, VERSION_VERSIONED};

/// The payload of a record: its encoding, and the bytes of a body that end it.
#[derive(Default)]
pub(crate) struct Payload {
    front: Vec<u8>,
    body: Option<InlineBody>,
}

/// The bytes of an inline body, in the buffer that received them.
struct InlineBody {
    buf: Box<dyn AsRef<[u8]>>,
    len: usize,
}

impl Payload {
    /// Returns a payload that ends with the first `len` bytes of `buf`.
    pub(crate) fn with_body(front: Vec<u8>, buf: impl AsRef<[u8]> + 'static, len: usize) -> Self {
        Payload { front, body: Some(InlineBody { buf: Box::new(buf), len }) }
    }

    pub(crate) fn len(&self) -> usize {
        self.front.len() + self.body.as_ref().map_or(0, |body| body.len)
    }

    /// Returns the two pieces of the payload, the second of which may be empty.
    pub(crate) fn pieces(&self) -> [&[u8]; 2] {
        let body = self.body.as_ref().map_or(&[][..], |body| &(*body.buf).as_ref()[..body.len]);
        [&self.front, body]
    }
}

impl From<Vec<u8>> for Payload {
    fn from(front: Vec<u8>) -> Self {
        Payload { front, body: None }
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Payload").field("len", &self.len()).finish_non_exhaustive()
    }
}

/// A record to write.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(crate) seq: u64,
    pub(crate) kind: u8,
    pub(crate) payload: Payload,
    pub(crate) effect: Effect,
}

impl Draft {
    pub(crate) fn moved(&self) -> bool {
        matches!(self.effect, Effect::Moved(_))
    }

    /// Returns the lowest version of the format that has such a record.
    pub(crate) fn format_version(&self) -> u32 {
        match &self.effect {
            Effect::Put(put) if !put.id.is_null() || !put.lock.is_none() => VERSION_VERSIONED,
            // They were written before, or are the first in a bucket with versioning.
            Effect::Put(_) | Effect::Moved(_) => VERSION_PLAIN,
            Effect::EvictVersion(_) => VERSION,
            _ if self.kind >= kind::BUCKET_VERSIONING => VERSION_VERSIONED,
            _ => VERSION_PLAIN,
        }
    }

    /// Returns whether the record names blocks, which must be durable when it is acknowledged.
    pub(crate) fn has_blocks(&self) -> bool {
        match &self.effect {
            Effect::Body { runs, .. } => !runs.is_empty(),
            // The cleaner wrote the blocks it refers to.
            Effect::Moved(_) => true,
            _ => false,
        }
    }
}
