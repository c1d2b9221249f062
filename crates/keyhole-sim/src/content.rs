//! Self-describing body bytes: every page names its body, so that bytes of another body are
//! detected.

use keyhole_log::limits::{BLOCK_DATA, CHUNK_LEN, PAGE};
use keyhole_log::{Body, Disk, Error, Log, NewBody, Object, Part};

use crate::disk::SimDisk;
use crate::random::Random;

/// A body of the workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Content {
    /// Unique within a life.
    pub id: u64,
    /// Length in bytes.
    pub len: u64,
}

thread_local! {
    /// Content of every page after its first 16 bytes.
    static TEMPLATE: Box<[u8; PAGE]> = {
        let mut random = Random::new(0x6b65_7968_6f6c_6500);
        let mut page = Box::new([0; PAGE]);
        page.chunks_exact_mut(8).for_each(|word| word.copy_from_slice(&random.number().to_le_bytes()));
        page
    };
}

impl Content {
    /// Returns whether the body carries tags like a sealed one: one per chunk, and one more if the
    /// last chunk is full.
    fn sealed(self) -> bool {
        self.id.is_multiple_of(2)
    }

    fn tag(self, chunk: u64) -> [u8; 16] {
        let mut tag = [0x77; 16];
        tag[..8].copy_from_slice(&(chunk ^ self.id).to_le_bytes());
        tag
    }

    fn prefix(self) -> [u8; 8] {
        self.id.to_le_bytes()
    }

    fn mark(self, at: u64) -> [u8; 16] {
        let mut mark = [0; 16];
        mark[..8].copy_from_slice(&self.id.to_le_bytes());
        mark[8..].copy_from_slice(&at.to_le_bytes());
        mark
    }

    /// Fills `bytes` with the content from `at` on, a multiple of the page size.
    fn fill(self, at: u64, bytes: &mut [u8]) {
        TEMPLATE.with(|template| {
            for (i, page) in bytes.chunks_mut(PAGE).enumerate() {
                let mark = self.mark(at + (i * PAGE) as u64);
                page.copy_from_slice(&template[..page.len()]);
                let len = page.len().min(16);
                page[..len].copy_from_slice(&mark[..len]);
            }
        });
    }

    /// Returns whether `bytes` equal the content from `at` on.
    fn is(self, at: u64, bytes: &[u8]) -> bool {
        TEMPLATE.with(|template| {
            bytes.chunks(PAGE).enumerate().all(|(i, page)| {
                let mark = self.mark(at + (i * PAGE) as u64);
                let len = page.len().min(16);
                page[..len] == mark[..len] && page[len..] == template[len..page.len()]
            })
        })
    }
}

/// Writes the body and returns it.
///
/// # Errors
/// Errors of the log.
pub async fn write(log: &Log<SimDisk>, content: Content) -> Result<NewBody, Error> {
    let mut writer = log.body_writer();
    let block = BLOCK_DATA as u64;
    let blocks = content.len.div_ceil(block).max(1);
    for index in 0..blocks {
        let at = index * block;
        let len = (content.len - at).min(block) as usize;
        let last = index + 1 == blocks;
        let chunks = if last { len / CHUNK_LEN + 1 } else { len / CHUNK_LEN } as u64;
        let first = at / CHUNK_LEN as u64;
        let tags: Vec<_> =
            if content.sealed() { (0..chunks).map(|chunk| content.tag(first + chunk)).collect() } else { Vec::new() };
        let mut buf = log.disk().buffer();
        content.fill(at, &mut buf.as_mut()[..len]);
        if last {
            return writer.finish(Some((buf, len, &tags)), &content.prefix()).await;
        }
        writer.push(buf, &tags).await?;
    }
    unreachable!("a body has a last block")
}

/// Reads a random range of the chunks of one block of a body, or all of it, and compares it.
///
/// # Errors
/// Errors of the log.
///
/// # Panics
/// If the bytes are wrong.
async fn check_block(log: &Log<SimDisk>, body: &Body, content: Content, index: u64) -> Result<(), Error> {
    let len = body.block_len(index);
    let chunks = len / CHUNK_LEN + 1;
    let (tags, buf) = log.read_block(body, index, 0..chunks, log.disk().buffer()).await;
    let tags = tags?;
    let at = index * BLOCK_DATA as u64;
    assert!(content.is(at, &buf.as_ref()[..len]), "wrong bytes of {content:?} in block {index}");
    let last = index + 1 == body.blocks();
    for chunk in 0..chunks {
        // Only the last block has a tag for the chunk after the last full one.
        let expected = content.sealed() && (last || chunk < len / CHUNK_LEN);
        let tag = content.tag(at / CHUNK_LEN as u64 + chunk as u64);
        assert_eq!(tags.get(chunk), expected.then_some(&tag), "tag {chunk} of {content:?} in block {index}");
    }
    Ok(())
}

/// Reads a whole body and compares it.
///
/// # Errors
/// Errors of the log.
///
/// # Panics
/// If the bytes are wrong.
pub async fn check(log: &Log<SimDisk>, part: &Part, content: Content) -> Result<(), Error> {
    let body = log.body(part).await?;
    assert_eq!((body.len, &body.prefix[..]), (content.len, &content.prefix()[..]), "another body than {content:?}");
    for index in 0..body.blocks() {
        check_block(log, &body, content, index).await?;
    }
    Ok(())
}

/// Checks that no body of an evicted object can be read.
///
/// # Panics
/// If one can be read, or is damaged.
pub async fn check_evicted(log: &Log<SimDisk>, object: &Object) {
    for part in &object.parts {
        let body = log.body(part).await;
        assert!(matches!(body, Err(Error::Evicted)), "a body of an evicted object: {body:?}");
    }
}

/// Reads all bodies of an object and compares them.
///
/// # Errors
/// Errors of the log.
///
/// # Panics
/// If the bytes are wrong.
pub async fn check_all(log: &Log<SimDisk>, object: &Object, contents: &[Content]) -> Result<(), Error> {
    assert_eq!(object.parts.len(), contents.len(), "bodies of an object");
    for (part, content) in object.parts.iter().zip(contents) {
        check(log, part, *content).await?;
    }
    Ok(())
}
