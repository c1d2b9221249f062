//! The memory of a body that is being stored: that of its record if it is short, otherwise one block
//! at a time.

use std::collections::VecDeque;
use std::rc::Rc;

use keyhole_log::limits::INLINE_MAX;
use keyhole_log::{BodyWriter, Disk};

use crate::admission::{Admission, Admitted, BlockClaim};
use crate::failure::Result;
use crate::link::Link;
use crate::source::BodySource;

/// The memory of one body.
pub(crate) struct BodyMemory<'n> {
    admission: &'n Admission,
    link: Rc<Link>,
    /// The body is read from a stored object.
    is_copy: bool,
    /// The memory of one block that the request holds until it ends, so that it never waits.
    kept: Option<Admitted<'n>>,
    /// The memory of a short body and its record.
    record: Option<Admitted<'n>>,
    /// The memory of the block being filled and of those being written, oldest first.
    blocks: VecDeque<Admitted<'n>>,
}

impl<'n> BodyMemory<'n> {
    /// Returns the memory of a body from this peer; none is reserved yet.
    pub(crate) fn new(admission: &'n Admission, link: Rc<Link>) -> Self {
        BodyMemory { admission, link, is_copy: false, kept: None, record: None, blocks: VecDeque::new() }
    }

    /// Returns the memory of a body that is read from a stored object. `kept` is that of one block,
    /// for a request that must not wait for more.
    pub(crate) fn of_copy(admission: &'n Admission, link: Rc<Link>, kept: Option<Admitted<'n>>) -> Self {
        BodyMemory { is_copy: true, ..BodyMemory::keeping(admission, link, kept) }
    }

    /// Returns the memory of a body from this peer. `kept` is that of one block, for a request that
    /// must not wait for more.
    pub(crate) fn keeping(admission: &'n Admission, link: Rc<Link>, kept: Option<Admitted<'n>>) -> Self {
        BodyMemory { kept, ..BodyMemory::new(admission, link) }
    }

    /// Reserves memory for the next block, of at most `block_len` bytes, and releases that of the
    /// blocks that are written. If memory is scarce, first waits for the block's beginning.
    pub(crate) async fn reserve<D: Disk>(
        &mut self,
        source: &mut impl BodySource<D::Buf>,
        writer: &mut BodyWriter<D>,
        block_len: usize,
    ) -> Result<()> {
        let body_len = source.bound();
        if self.admission.is_scarce(body_len) {
            source.warm().await?;
        }
        let in_flight = writer.settle_written()?;
        while self.blocks.len() > in_flight {
            self.blocks.pop_front();
        }
        // Of the body before, if there are several.
        self.record = None;
        if self.kept.is_some() && in_flight == 0 {
            return Ok(());
        }
        if writer.is_empty() && body_len <= INLINE_MAX as u64 {
            self.record = Some(self.admission.record(body_len, &self.link).await?);
            return Ok(());
        }
        let block = BlockClaim { block_len, body_len, is_copy: self.is_copy };
        if let Some(admitted) = self.admission.try_block(block, &self.link) {
            self.blocks.push_back(admitted);
            return Ok(());
        }
        // A waiting request holds nothing that others could wait for.
        writer.settle_all().await?;
        self.blocks.clear();
        if self.kept.is_some() {
            return Ok(());
        }
        self.blocks.push_back(self.admission.block(block, &self.link).await?);
        Ok(())
    }

    /// Releases the memory of a written body, except for that of a short one: it is part of a record
    /// that is still to be written.
    pub(crate) fn written(self) -> Option<Admitted<'n>> {
        self.record.or(self.kept)
    }
}
