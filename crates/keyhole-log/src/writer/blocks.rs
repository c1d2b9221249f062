//! Writing of blocks.

use std::rc::Rc;

use futures_channel::oneshot;

use super::context::Context;
use super::job::{BlockWrite, PlacedBlock};
use crate::disk::Disk;
use crate::error::Error;
use crate::open::OpenBody;
use crate::segments::Purpose;
use crate::wire::block::{self, BlockIdentity};
use crate::wire::segment::Kind;

pub(super) async fn write_block<D: Disk>(context: Rc<Context<D>>, block: BlockWrite<D>, placed: PlacedBlock) {
    let BlockWrite { mut buf, body, index, data_len, tags, crcs, ahead, done } = block;
    let PlacedBlock { offset, generation, .. } = placed;
    let id = BlockIdentity { generation, offset, body: body.0, index, data_len };
    let len = block::stored_len(data_len as usize);
    block::emit(&id, &context.store.id, &tags, &crcs, D::slice(&mut buf, 0..len));
    let result = context.write(offset, buf, len).await;
    {
        let mut state = context.store.lock();
        let written = &mut state.counters.written;
        if context.maintains {
            written.moved += len as u64;
            state.counters.cleaner.bytes_moved += len as u64;
        } else {
            written.blocks += len as u64;
            written.appended += u64::from(data_len);
        }
        if let Some(number) = state.segments.number(offset) {
            let end = (offset + len as u64 - state.segments.start(number)) as u32;
            let segment = &mut state.segments.table[number as usize];
            segment.written = segment.written.max(end);
        }
    }
    let result = match result {
        Ok(()) => with_pieces(ahead, placed).await,
        Err(error) => Err(error),
    };
    // If the request was dropped, the pins are dropped here.
    let _ = done.send(result);
}

/// Completes a block after the pieces that were cut off its front.
async fn with_pieces(
    ahead: Vec<oneshot::Receiver<Result<Vec<PlacedBlock>, Error>>>,
    last: PlacedBlock,
) -> Result<Vec<PlacedBlock>, Error> {
    let mut placed = Vec::with_capacity(ahead.len() + 1);
    for piece in ahead {
        placed.append(&mut piece.await.map_err(|_| Error::Closed)??);
    }
    placed.push(last);
    Ok(placed)
}

/// Begins a segment of blocks. `None`: the store is full.
pub(super) async fn begin_body<D: Disk>(context: Rc<Context<D>>) -> Result<Option<OpenBody>, Error> {
    let purpose = if context.maintains { Purpose::Clean(Kind::Body) } else { Purpose::Body };
    let begun = context.begin(Kind::Body, purpose).await?;
    Ok(begun.map(|begun| OpenBody { number: begun.number, generation: begun.generation, at: begun.at, end: begun.end }))
}
