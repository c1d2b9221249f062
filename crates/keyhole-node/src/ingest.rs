//! Stores a body, received from a client or copied from an object, in blocks of the log.

use keyhole_core::chunked::Sealer;
use keyhole_core::limits::{CHUNK_LEN, SALT_LEN};
use keyhole_core::{DataKey, body};
use keyhole_log::limits::{BLOCK_DATA, CHUNK_TAGS_MAX, INLINE_MAX, buffer_len};
use keyhole_log::{Disk, NewBody};
use keyhole_s3::body::{BodyDecoder, Digests};

use crate::admission::Admitted;
use crate::body_memory::BodyMemory;
use crate::failure::Result;
use crate::http::{Connection, Receiver};
use crate::limits::{MD5_LANES_MIN, RECEIVE_MAX};
use crate::node::Node;
use crate::platform::{Buf, Platform};
use crate::source::BodySource;

/// A stored body that no record refers to yet; its space is garbage if it is dropped.
pub(crate) struct Stored {
    pub(crate) content: NewBody,
    /// The salt of a sealed body's message; zeros for a plaintext body.
    pub(crate) salt: [u8; SALT_LEN],
    /// Length of the plaintext.
    pub(crate) size: u64,
}

/// A stored and verified body, ready to be committed.
pub(crate) struct Ingested<'n> {
    pub(crate) stored: Stored,
    pub(crate) digests: Digests,
    /// The memory of a short body, which its record still needs.
    pub(crate) admitted: Option<Admitted<'n>>,
}

/// The data key and part number (0: not a part) that a body is sealed with.
pub(crate) struct Sealing<'k> {
    pub(crate) data_key: &'k DataKey,
    pub(crate) part_number: u32,
}

impl<P: Platform> Node<P> {
    /// Receives, stores and verifies the body of a request.
    pub(crate) async fn receive(
        &self,
        connection: &mut Connection<P::Stream>,
        decoder: BodyDecoder,
        sealing: Option<Sealing<'_>>,
    ) -> Result<Ingested<'_>> {
        let mut receiver = Receiver::new(connection, decoder);
        let mut memory = BodyMemory::new(&self.admission, receiver.link());
        let stored = self.ingest(&mut receiver, &mut memory, sealing).await?;
        let admitted = memory.written();
        let digests = receiver.finish().await?;
        Ok(Ingested { stored, digests, admitted })
    }

    /// Receives a body into blocks, for which it reserves `memory` one by one, encrypts them in place
    /// if the body is sealed, and passes them to the log's writer. Receives the next block while
    /// earlier ones are written. The body is written on return, but not yet durable.
    ///
    /// The MD5 of a long plaintext body is computed here, together with those of other bodies.
    pub(crate) async fn ingest(
        &self,
        source: &mut impl BodySource<Buf<P>>,
        memory: &mut BodyMemory<'_>,
        sealing: Option<Sealing<'_>>,
    ) -> Result<Stored> {
        let mut salt = [0; SALT_LEN];
        let mut sealer = sealing.map(|sealing| {
            self.host.random(&mut salt);
            Sealer::new(&self.engine, sealing.data_key.expose(), &salt, &[&body::context(sealing.part_number)])
        });
        let prefix = sealer.as_ref().map(Sealer::prefix);
        let is_long = source.bound() >= MD5_LANES_MIN;
        let mut md5 = (sealer.is_none() && is_long && source.leave_md5()).then(|| self.etag_lanes.begin(&self.host));
        let mut writer = self.log.body_writer();
        let mut tags = Vec::with_capacity(CHUNK_TAGS_MAX);
        let mut size = 0;
        loop {
            let limit = usize::try_from(source.bound()).unwrap_or(BLOCK_DATA).min(BLOCK_DATA);
            memory.reserve(source, &mut writer, limit).await?;
            let mut buf = self.log.disk().buffer_with_len(buffer_len(limit));
            // A body in its record has one checksum with it.
            let is_inline = writer.is_empty() && limit <= INLINE_MAX;
            let mut len = 0;
            let mut sealed = 0;
            tags.clear();
            let is_last = loop {
                let (filled, back) = source.fill_some(buf, len..limit.min(len + RECEIVE_MAX), CHUNK_LEN).await;
                buf = back;
                let arrived = len..len + filled?;
                len = arrived.end;
                if let Some(md5) = &mut md5 {
                    buf = md5.update(buf, arrived).await;
                }
                let is_last = source.remaining() == 0;
                let whole = if is_last || len == limit { len } else { len - len % CHUNK_LEN };
                for chunk in <P::Disk>::slice(&mut buf, sealed..whole).chunks_mut(CHUNK_LEN) {
                    if let Some(sealer) = &mut sealer {
                        tags.push(sealer.seal_next(chunk));
                    }
                    if chunk.len() == CHUNK_LEN && !is_inline {
                        writer.checksum(chunk);
                    }
                }
                sealed = whole;
                // After a full last chunk comes the tag of an empty final chunk.
                if let Some(sealer) = sealer.as_mut().filter(|sealer| is_last && !sealer.is_finished()) {
                    tags.push(sealer.seal_next(&mut []));
                }
                if is_last || len == limit {
                    break is_last;
                }
            };
            if sealer.is_some() {
                <P::Disk>::mark_ciphertext(&mut buf);
            }
            size += len as u64;
            if is_last {
                if let Some(md5) = md5 {
                    source.set_md5(md5.finish());
                }
                let prefix = prefix.as_ref().map_or(&[][..], |prefix| prefix);
                let content = writer.finish(Some((buf, len, &tags)), prefix).await?;
                return Ok(Stored { content, salt, size });
            }
            writer.push(buf, &tags).await?;
        }
    }
}
