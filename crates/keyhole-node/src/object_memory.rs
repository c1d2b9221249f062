//! The memory of stored objects while a request holds them: their records, and the lists of parts in
//! them.
//!
//! Most records are short, and the memory of a connection covers them. That of an object with 10,000
//! parts takes up to a megabyte, as do its parts once they are decoded, and what is made of them.
//!
//! # Invariants
//! - The memory is reserved before the record is read, together with all that the request does with
//!   the object. A request that holds it waits for no other memory, so none can deadlock.

use keyhole_log::limits::{
    BLOCK_DATA, BUFFER_LEN, HEAD_MAX, INLINE_MAX, OBJECT_TAGS_MAX, PAGE, RECORD_MAX, buffer_len,
};
use keyhole_log::{Body, FoundVersion, Marker, Object, VersionId};

use crate::admission::{Admitted, ObjectClaim};
use crate::failure::{Result, slow_down};
use crate::limits::{BLOCKS_MIN, COPY_PAGES, LISTING_PAGES, RECORD_FREE, STRIDE};
use crate::node::Node;
use crate::platform::Platform;
use crate::request::{ObjectName, Request};

/// What a request does with a stored object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ObjectUse {
    /// Describes it.
    Describe,
    /// Stores its record again, with other tags.
    Store,
    /// Lists its parts.
    ListParts,
    /// Sends its bytes in pieces.
    Send,
    /// Sends its sealed object file, a block at a time.
    SendSealed,
    /// Stores its bytes or its record again. May read the record of another object of at most
    /// `beside` bytes.
    Copy { beside: usize },
}

impl ObjectUse {
    /// Returns the pages that the use takes beside the record and the parts.
    const fn spare_pages(self) -> usize {
        match self {
            ObjectUse::Describe | ObjectUse::Store => 0,
            ObjectUse::ListParts => LISTING_PAGES,
            ObjectUse::Send => STRIDE / PAGE,
            ObjectUse::SendSealed => BUFFER_LEN / PAGE,
            ObjectUse::Copy { .. } => buffer_len(BLOCK_DATA) / PAGE + COPY_PAGES,
        }
    }

    /// Returns the pages of the use of an object with a record of this length. Another record is
    /// read before anything is made of the object.
    const fn pages(self, record_len: usize) -> usize {
        let of_object = pages_of_object(record_len);
        let with_other = (record_len + record_len / 4).div_ceil(PAGE) + pages_beside(self.beside());
        let most = if of_object > with_other { of_object } else { with_other };
        most + self.spare_pages()
    }

    /// Returns the length of another object's record that may be read beside.
    const fn beside(self) -> usize {
        match self {
            ObjectUse::Copy { beside } => beside,
            _ => 0,
        }
    }
}

/// Returns the pages of a record of so many bytes, of the object that is decoded from it, and of what
/// a reply or another record is made of.
pub(crate) const fn pages_of_object(record_len: usize) -> usize {
    let reading = buffer_pages(record_len) + (record_len + record_len / 4).div_ceil(PAGE);
    let using = (3 * record_len).div_ceil(PAGE);
    if reading > using { reading } else { using }
}

/// Returns the pages of an object that has been read and is being sent: its parts, and the pin of their
/// bodies.
const fn pages_of_sending(record_len: usize) -> usize {
    (record_len + record_len * 7 / 8).div_ceil(PAGE)
}

/// Returns the pages of the buffer that a record is read into.
const fn buffer_pages(record_len: usize) -> usize {
    // A short buffer holds two pages beside the record.
    if record_len + 2 * PAGE <= 2 * INLINE_MAX { record_len.div_ceil(PAGE) + 1 } else { BUFFER_LEN / PAGE }
}

// A worker with the least memory can hold the longest record in each use.
const _: () = {
    const ROOM: usize = (BLOCKS_MIN - 1) * BUFFER_LEN / PAGE;
    assert!(ObjectUse::ListParts.pages(RECORD_MAX) <= ROOM && ObjectUse::SendSealed.pages(RECORD_MAX) <= ROOM);
    let copy = ObjectUse::Copy { beside: RECORD_MAX };
    assert!(copy.pages(RECORD_MAX) <= ROOM);
};

/// Returns the pages of a record and of the object that is decoded from it.
const fn pages_of_record(record_len: usize) -> usize {
    buffer_pages(record_len) + (record_len + record_len / 4).div_ceil(PAGE)
}

/// Returns the pages of a record that is read beside another object; none for a short record.
pub(crate) const fn pages_beside(record_len: usize) -> usize {
    if record_len > RECORD_FREE { pages_of_record(record_len) } else { 0 }
}

/// The memory of an object, until dropped.
#[derive(Default)]
pub(crate) struct ObjectMemory<'n> {
    /// `None` for an object whose record is short.
    reserved: Option<Reserved<'n>>,
}

struct Reserved<'n> {
    object: Admitted<'n>,
    /// Memory of a piece or a block; `None` once it has been taken.
    spare: Option<Admitted<'n>>,
    record_len: usize,
    beside: usize,
}

impl<'n> ObjectMemory<'n> {
    /// Returns the longest record that may be read beside this object without waiting; `None` if the
    /// object has no memory of its own, so that the request may wait.
    pub(crate) fn beside(&self) -> Option<usize> {
        self.reserved.as_ref().map(|reserved| reserved.beside.max(RECORD_FREE))
    }

    /// Returns whether the object has memory of its own, so that the request must not wait for more.
    pub(crate) fn is_reserved(&self) -> bool {
        self.reserved.is_some()
    }

    /// Takes the memory of a piece or a block. `None` if the object has no memory of its own.
    pub(crate) fn take_spare(&mut self) -> Option<Admitted<'n>> {
        self.reserved.as_mut().and_then(|reserved| reserved.spare.take())
    }

    /// Reduces the memory to that of a list of parts that is being sent.
    pub(crate) fn shrink_to_sending(&mut self) {
        if let Some(Reserved { object, record_len, .. }) = &mut self.reserved {
            object.set_len(pages_of_sending(*record_len) * PAGE);
        }
    }
}

/// A stored object, with its only body if that was read with it, and the memory of both.
pub(crate) struct FoundObject<'n> {
    pub(crate) object: Object,
    pub(crate) body: Option<Body>,
    pub(crate) memory: ObjectMemory<'n>,
}

/// The reason why a version is not an object.
pub(crate) enum NoObject {
    Absent,
    Marker(Marker),
}

impl<P: Platform> Node<P> {
    /// Reads the current object of a name for a use, and reserves memory for it if its record is long.
    /// `None` if there is none.
    ///
    /// # Errors
    /// `SlowDown`; those of the log.
    pub(crate) async fn find_object(
        &self,
        request: &Request<'_>,
        name: ObjectName<'_>,
        object_use: ObjectUse,
    ) -> Result<Option<FoundObject<'_>>> {
        Ok(self.find_any(request, name, None, object_use).await?.ok())
    }

    /// Looks up a version, the current one if none is named, for a use. Reserves memory for an object
    /// whose record is long.
    ///
    /// # Errors
    /// Those of [`find_object`](Self::find_object).
    pub(crate) async fn find_any(
        &self,
        request: &Request<'_>,
        name: ObjectName<'_>,
        version: Option<VersionId>,
        object_use: ObjectUse,
    ) -> Result<std::result::Result<FoundObject<'_>, NoObject>> {
        let ObjectName { bucket, key } = name;
        let mut memory = ObjectMemory::default();
        loop {
            let len_max = memory.reserved.as_ref().map_or(RECORD_FREE, |reserved| reserved.record_len);
            let found = match object_use {
                ObjectUse::Describe => self.log.version_within(bucket, key, version, len_max).await?,
                _ => self.log.version_with_body(bucket, key, version, len_max).await?,
            };
            match found {
                FoundVersion::Absent => return Ok(Err(NoObject::Absent)),
                FoundVersion::Marker(marker) => return Ok(Err(NoObject::Marker(marker))),
                FoundVersion::Object(object, body) => {
                    return Ok(Ok(FoundObject { object, body, memory }));
                }
                FoundVersion::Long { len, size } => {
                    // It may have been replaced while the request waited.
                    drop(memory);
                    memory = self.object_memory(request, len, size, object_use).await?;
                }
            }
        }
    }

    /// Reserves memory for an object with a record of this length; none if it is short.
    pub(crate) async fn object_memory(
        &self,
        request: &Request<'_>,
        record_len: usize,
        size: u64,
        object_use: ObjectUse,
    ) -> Result<ObjectMemory<'_>> {
        if record_len <= RECORD_FREE {
            return Ok(ObjectMemory::default());
        }
        let beside = object_use.beside();
        let spare = object_use.spare_pages();
        let claim = ObjectClaim {
            pages: object_use.pages(record_len),
            len: if spare == 0 { record_len as u64 } else { size },
            is_write: matches!(object_use, ObjectUse::Copy { .. } | ObjectUse::Store),
        };
        let mut object = self.admission.object(claim, request.account.link()).await?;
        let spare = (spare > 0).then(|| object.split(spare));
        Ok(ObjectMemory { reserved: Some(Reserved { object, spare, record_len, beside }) })
    }

    /// Returns the length of the record that a request reserves memory for, because it will read the
    /// object of this name, or this version, without waiting. Head and tags may have become longer by
    /// then.
    pub(crate) fn record_len_max(&self, name: ObjectName<'_>, version: Option<VersionId>) -> usize {
        match self.log.version_record_len(name.bucket, name.key, version) {
            len if len <= RECORD_FREE => RECORD_FREE,
            len => RECORD_MAX.min(len + HEAD_MAX + OBJECT_TAGS_MAX),
        }
    }

    /// Reads the current object of a name for a request that has reserved memory for a record of
    /// `len_max` bytes, and must not wait for more.
    ///
    /// # Errors
    /// `SlowDown` if the object has been replaced by one with a longer record; those of the log.
    pub(crate) async fn find_object_within(&self, name: ObjectName<'_>, len_max: usize) -> Result<Option<Object>> {
        Ok(self.find_any_within(name, None, len_max).await?.into_object().map(|(object, _)| object))
    }

    /// Looks up a version like [`find_object_within`](Self::find_object_within), the current one if none
    /// is named.
    ///
    /// # Errors
    /// Those of [`find_object_within`](Self::find_object_within).
    pub(crate) async fn find_any_within(
        &self,
        name: ObjectName<'_>,
        version: Option<VersionId>,
        len_max: usize,
    ) -> Result<FoundVersion> {
        match self.log.version_within(name.bucket, name.key, version, len_max.max(RECORD_FREE)).await? {
            FoundVersion::Long { .. } => Err(slow_down()),
            found => Ok(found),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_grow_with_the_record() {
        assert_eq!((pages_beside(RECORD_FREE), pages_beside(RECORD_FREE + 1)), (0, 2 + 1 + 2));
        // 10,000 parts of 58 bytes: the buffer, and the parts.
        assert_eq!(pages_of_object(580_000), BUFFER_LEN / PAGE + 178);
        assert!((1..=RECORD_MAX / PAGE).all(|pages| {
            let len = pages * PAGE;
            pages_of_object(len) >= pages_of_object(len - 1) && pages_of_sending(len) <= pages_of_object(len)
        }));
    }
}
