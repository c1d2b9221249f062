//! Sealed transfer: objects that a client has sealed itself, and sealed objects as they are, without any key.
//!
//! What comes and goes is the sealed object file (`FORMAT.md` of `keyhole-core`, part 5). What can be told without the key is
//! checked when it comes: names, structure, order, lengths. The rest is checked by the first read that brings the key.

use std::ops::Range;

use keyhole_core::aead::Engine;
use keyhole_core::body::{self, MultipartEtag};
use keyhole_core::file::{Decoded, ENTRY_LEN, Entry, FileError, Layout, MEDIA_TYPE, Preface};
use keyhole_core::limits::{CHUNK_LEN, PREFIX_LEN, SALT_LEN, TAG_LEN};
use keyhole_core::{chunked, sse_c::Role};
use keyhole_log::limits::{BLOCK_DATA, CHUNKS_MAX, PARTS_MAX, TAGS_MAX, buffer_len};
use keyhole_log::{
    Body, CompleteUpload, Condition, Content, CreateUpload, Disk, Etag, Object, Part, PutObject, PutPart, Tags,
};
use keyhole_s3::body::{BodyDecoder, Wanted};
use keyhole_s3::http::Response;
use keyhole_s3::ops::{self, SEALED_HEADER};
use keyhole_s3::{Error, ErrorCode, sse};

use crate::download::{Piece, Source};
use crate::failure::{Result, damaged};
use crate::io::{Env, Stream};
use crate::limits::PUT_MAX;
use crate::multipart::UploadId;
use crate::node::{Node, Outcome, Request};
use crate::object::{quoted, range_reply, unmodified, write_condition};
use crate::request::{Connection, Payload, Receiver};
use crate::upload::Stored;

/// Bytes of a chunk and its tag in a message.
const SEALED_CHUNK: usize = CHUNK_LEN + TAG_LEN;

/// Bytes of a message that become one full block.
const SEALED_BLOCK: usize = CHUNKS_MAX * SEALED_CHUNK;

// A block's part of a message, the prefix of the message and the tag of the empty chunk fit into a buffer.
const _: () = assert!(PREFIX_LEN + SEALED_BLOCK + TAG_LEN <= keyhole_log::limits::BUFFER_LEN);

/// What stands in a file before its messages.
struct Front {
    sealed_head: Vec<u8>,
    entries: Vec<Entry>,
    infos_len: u64,
}

impl<D: Disk, E: Engine, V: Env> Node<D, E, V> {
    /// PutObject of a sealed object file.
    pub(crate) async fn put_sealed<S: Stream<Buf = D::Buf>>(
        &self,
        connection: &mut Connection<S>,
        request: Request<'_>,
    ) -> Result<Response> {
        let (bucket, key) = request.object()?;
        self.check_sealed_transfer(&self.policy(bucket)?)?;
        if sse::for_write(request.head, request.secure)?.is_some() {
            return Err(no_key().into());
        }
        sse::no_key_of_nothing(request.head, request.secure)?;
        ops::no_metadata(request.head)?;
        let labels = ops::tags(request.head)?.to_bytes();
        self.require_bucket(bucket)?;
        let condition = write_condition(&request)?;
        let decoder = BodyDecoder::new(request.head, request.payload.clone(), Wanted::None, PUT_MAX)?;
        let _admitted = self.admission.upload(decoder.payload_len()).await?;
        let mut receiver = Receiver::new(connection, decoder);
        let front = self.receive_front(&mut receiver, bucket, key).await?;
        self.skip(&mut receiver, front.infos_len).await?;
        let (etag, time_ms) = match front.entries[..] {
            [Entry { part_number: 0, message_len, .. }] => {
                let stored = self.receive_message(&mut receiver, message_len).await?;
                receiver.finish().await?;
                let etag = Etag { digest: body::etag(&stored.salt), parts: 0 };
                let time_ms = self.env.now_ms();
                self.log
                    .put_object(PutObject {
                        bucket: bucket.to_owned(),
                        key: key.to_owned(),
                        content: Content::New(stored.content, stored.salt),
                        head: front.sealed_head,
                        labels,
                        sealed: true,
                        etag,
                        size: stored.size,
                        time_ms,
                        condition,
                    })
                    .await?;
                (etag, time_ms)
            }
            _ => self.put_sealed_parts(receiver, bucket, key, front, labels, condition).await?,
        };
        let response = Response::new(200).header("ETag", quoted(&etag)).header(SEALED_HEADER, "1");
        Ok(self.with_expiration(response, bucket, key, time_ms))
    }

    /// An object in parts comes as an upload of its own: its parts are stored one by one, and named all at once.
    async fn put_sealed_parts<S: Stream<Buf = D::Buf>>(
        &self,
        receiver: Receiver<'_, S>,
        bucket: &str,
        key: &str,
        front: Front,
        labels: Vec<u8>,
        condition: Condition,
    ) -> Result<(Etag, u64)> {
        let Front { sealed_head: head, entries, .. } = front;
        let id: UploadId = self.env.random_array();
        self.log
            .create_upload(CreateUpload {
                bucket: bucket.to_owned(),
                key: key.to_owned(),
                id,
                head: head.clone(),
                labels,
                sealed: true,
                time_ms: self.env.now_ms(),
                declared: None,
            })
            .await?;
        let outcome = self.receive_parts(receiver, bucket, key, &id, head, &entries, condition).await;
        if outcome.is_err() {
            // If this fails as well, the upload is one that was never completed, and listed as such.
            let _ = self.log.abort_upload(bucket, key, &id, self.env.now_ms()).await;
        }
        outcome
    }

    #[allow(clippy::too_many_arguments)]
    async fn receive_parts<S: Stream<Buf = D::Buf>>(
        &self,
        mut receiver: Receiver<'_, S>,
        bucket: &str,
        key: &str,
        id: &UploadId,
        head: Vec<u8>,
        entries: &[Entry],
        condition: Condition,
    ) -> Result<(Etag, u64)> {
        let upload = self.log.upload(bucket, key, id)?.ok_or(ErrorCode::NoSuchUpload)?;
        let mut digest = MultipartEtag::new();
        for entry in entries {
            let Stored { content, salt, size } = self.receive_message(&mut receiver, entry.message_len).await?;
            let etag = body::etag(&salt);
            digest.update(&etag);
            let (number, time_ms) = (entry.part_number as u16, self.env.now_ms());
            let part = PutPart { upload: upload.clone(), number, salt, etag, size, time_ms, info: Vec::new(), content };
            self.log.put_part(part).await?;
        }
        receiver.finish().await?;
        let parts: Vec<Part> = self.log.parts(&upload, 0, PARTS_MAX)?.into_iter().map(|info| info.part).collect();
        let etag = Etag { digest: digest.finish(), parts: parts.len() as u16 };
        let (size, time_ms) = (parts.iter().map(|part| part.size).sum(), self.env.now_ms());
        let labels = self.log.upload_head(&upload).await?.labels;
        let (bound, infos) = (true, Vec::new());
        let complete = CompleteUpload { upload, parts, head, labels, infos, bound, etag, size, time_ms, condition };
        self.log.complete_upload(complete).await?;
        Ok((etag, time_ms))
    }

    /// Receives what stands before the part infos, and checks all that can be checked without a key.
    async fn receive_front<S: Stream<Buf = D::Buf>>(
        &self,
        receiver: &mut Receiver<'_, S>,
        bucket: &str,
        key: &str,
    ) -> Result<Front> {
        let mut bytes = Vec::new();
        let preface = loop {
            match Preface::decode(&bytes).map_err(malformed)? {
                Decoded::Needs(needed) => {
                    let more = needed - bytes.len();
                    self.receive(receiver, more, &mut bytes).await?;
                }
                Decoded::Whole(preface, _) => break preface,
            }
        };
        if (preface.bucket, preface.key) != (bucket, key) {
            let message = "The sealed object is sealed for another bucket or key. Put it where its names say.";
            return Err(Error::new(ErrorCode::InvalidRequest).with_message(message).into());
        }
        let mut table = Vec::new();
        self.receive(receiver, preface.bodies as usize * ENTRY_LEN, &mut table).await?;
        let (entries, _) = table.as_chunks::<ENTRY_LEN>();
        let entries: Vec<Entry> = entries.iter().map(Entry::decode).collect();
        let mut layout = Layout::new(preface.bodies);
        entries.iter().try_for_each(|entry| layout.push(entry)).map_err(malformed)?;
        let totals = layout.finish().map_err(malformed)?;
        if totals.file_len(&preface) != receiver.len() {
            return Err(malformed(FileError::Length).into());
        }
        Ok(Front { sealed_head: preface.sealed_head.to_vec(), infos_len: totals.infos_len, entries })
    }

    /// Receives exactly `len` bytes, at most a block's.
    async fn receive<S: Stream<Buf = D::Buf>>(
        &self,
        receiver: &mut Receiver<'_, S>,
        len: usize,
        into: &mut Vec<u8>,
    ) -> Result<()> {
        let (filled, buf) = receiver.fill(self.log.disk().buffer_of(len), 0..len).await;
        if filled? < len {
            return Err(malformed(FileError::Length).into());
        }
        into.extend_from_slice(&buf.as_ref()[..len]);
        Ok(())
    }

    /// Receives bytes that are not kept: checksums of parts, which an object that is complete has no use for.
    async fn skip<S: Stream<Buf = D::Buf>>(&self, receiver: &mut Receiver<'_, S>, mut len: u64) -> Result<()> {
        while len > 0 {
            let most = len.min(BLOCK_DATA as u64) as usize;
            let (filled, _) = receiver.fill(self.log.disk().buffer_of(most), 0..most).await;
            match filled? {
                0 => return Err(malformed(FileError::Length).into()),
                filled => len -= filled as u64,
            }
        }
        Ok(())
    }

    /// Receives a body's message into blocks: tags go apart from the ciphertext, as they are kept.
    async fn receive_message<S: Stream<Buf = D::Buf>>(
        &self,
        receiver: &mut Receiver<'_, S>,
        message_len: u64,
    ) -> Result<Stored> {
        let mut prefix = Vec::with_capacity(PREFIX_LEN);
        self.receive(receiver, PREFIX_LEN, &mut prefix).await?;
        let mut salt = [0; SALT_LEN];
        salt.copy_from_slice(&prefix[..SALT_LEN]);
        let mut left = message_len - PREFIX_LEN as u64;
        let mut writer = self.log.body_writer();
        let (mut tags, mut size) = (Vec::with_capacity(TAGS_MAX), 0);
        loop {
            let is_last = left <= (SEALED_BLOCK + TAG_LEN) as u64;
            let len = if is_last { left as usize } else { SEALED_BLOCK };
            let (filled, mut buf) = receiver.fill(self.log.disk().buffer_of(buffer_len(len)), 0..len).await;
            if filled? < len {
                return Err(malformed(FileError::Length).into());
            }
            tags.clear();
            let data_len = detach_tags(D::part(&mut buf, 0..len), &mut tags);
            D::enciphered(&mut buf);
            size += data_len as u64;
            if is_last {
                let content = writer.finish(Some((buf, data_len, &tags)), &prefix).await?;
                return Ok(Stored { content, salt, size });
            }
            left -= len as u64;
            writer.push(buf, &tags).await?;
        }
    }

    /// A sealed object, for a read without a key; `None`: what there is to say is in the reply.
    async fn find_sealed(&self, request: &Request<'_>) -> Result<(Object, Option<Response>)> {
        let (bucket, key) = request.object()?;
        let options = ops::read_options(request.head)?;
        if options.part_number.is_some() || options.overrides.iter().any(Option::is_some) {
            let message = "A sealed transfer is of the whole sealed object file, under headers of its own.";
            return Err(Error::new(ErrorCode::InvalidRequest).with_message(message).into());
        }
        if !sse::for_read(request.head, Role::Object, request.secure)?.is_absent() {
            return Err(no_key().into());
        }
        let object = self.log.object(bucket, key).await?.ok_or_else(|| request.no_such_key(bucket, key))?;
        if !object.sealed {
            let message = "The object is not sealed. Get it without x-keyhole-sealed.";
            return Err(Error::new(ErrorCode::InvalidRequest).with_message(message).into());
        }
        let reply = unmodified(request, &object)?;
        Ok((object, reply))
    }

    /// GetObject of a sealed object file: sends its reply itself.
    pub(crate) async fn get_sealed<S: Stream<Buf = D::Buf>>(
        &self,
        connection: &mut Connection<S>,
        request: &Request<'_>,
    ) -> Result<Outcome> {
        let (object, reply) = self.find_sealed(request).await?;
        if let Some(reply) = reply {
            return Ok(Outcome::Reply(reply));
        }
        let mut file = SealedFile::new(self, request, &object)?;
        let range = ops::range(request.head, file.len)?;
        let (bucket, key) = request.object()?;
        let response = sealed_reply(&object, file.len, range.as_ref());
        let response = self.with_expiration(response, bucket, key, object.time_ms);
        file.wanted = range.unwrap_or(0..file.len);
        let _admitted = self.admission.download_sealed(file.wanted.end - file.wanted.start).await?;
        self.send_response(connection, request, response, &mut file).await
    }

    /// HeadObject of a sealed object file.
    pub(crate) async fn head_sealed(&self, request: &Request<'_>) -> Result<Response> {
        let (object, reply) = self.find_sealed(request).await?;
        if let Some(reply) = reply {
            return Ok(reply);
        }
        let len = SealedFile::new(self, request, &object)?.len;
        let range = ops::range(request.head, len)?;
        let bytes = range.as_ref().map_or(len, |range| range.end - range.start);
        let (bucket, key) = request.object()?;
        let response = sealed_reply(&object, len, range.as_ref()).content_length(bytes);
        Ok(self.with_expiration(response, bucket, key, object.time_ms))
    }
}

fn sealed_reply(object: &Object, len: u64, range: Option<&Range<u64>>) -> Response {
    range_reply(object, len, range).header("Content-Type", MEDIA_TYPE).header(SEALED_HEADER, "1")
}

fn no_key() -> Error {
    let message =
        "A sealed transfer is without the key: send x-keyhole-sealed or the headers of a customer key, not both.";
    Error::new(ErrorCode::InvalidRequest).with_message(message)
}

fn malformed(error: FileError) -> Error {
    Error::new(ErrorCode::InvalidRequest).with_message(format!("The sealed object file is malformed: {error}."))
}

/// Moves the tags out from between the chunks at the front of `message`; the bytes that are left of it.
fn detach_tags(message: &mut [u8], tags: &mut Vec<[u8; TAG_LEN]>) -> usize {
    let (mut from, mut to) = (0, 0);
    while from < message.len() {
        let len = CHUNK_LEN.min(message.len() - from - TAG_LEN);
        let mut tag = [0; TAG_LEN];
        tag.copy_from_slice(&message[from + len..][..TAG_LEN]);
        tags.push(tag);
        message.copy_within(from..from + len, to);
        (from, to) = (from + len + TAG_LEN, to + len);
    }
    to
}

/// Puts the tags of `chunks` of a block of `data_len` bytes between them. The message's chunks begin at [`PREFIX_LEN`] then.
fn attach_tags(block: &mut [u8], data_len: usize, chunks: Range<usize>, tags: &Tags) -> Result<()> {
    // From the back, so that nothing is written over that is still to be moved.
    for chunk in chunks.rev() {
        let tag = tags.get(chunk).ok_or_else(|| damaged("a sealed block lacks a tag"))?;
        let from = (chunk * CHUNK_LEN).min(data_len)..((chunk + 1) * CHUNK_LEN).min(data_len);
        let (to, len) = (PREFIX_LEN + chunk * SEALED_CHUNK, from.len());
        block.copy_within(from, to);
        block[to + len..][..TAG_LEN].copy_from_slice(tag);
    }
    Ok(())
}

/// Gives the bytes of the sealed object file of a stored object.
struct SealedFile<'n, D: Disk, E: Engine, V> {
    node: &'n Node<D, E, V>,
    /// What stands before the messages.
    front: Vec<u8>,
    /// The bodies, each with where in the file its message is.
    bodies: Vec<(Part, Range<u64>)>,
    /// The body that was read last, and where in the file its message is.
    current: Option<(Range<u64>, Body)>,
    /// Bytes of the whole file.
    len: u64,
    /// What is still to be sent of it.
    wanted: Range<u64>,
}

impl<'n, D: Disk, E: Engine, V: Env> SealedFile<'n, D, E, V> {
    fn new(node: &'n Node<D, E, V>, request: &Request<'_>, object: &Object) -> Result<Self> {
        let (bucket, key) = request.object()?;
        let impossible = |error: FileError| damaged(&format!("a sealed object makes no file: {error}"));
        let preface = Preface { bucket, key, sealed_head: &object.head, bodies: object.parts.len() as u32 };
        let mut front = vec![0; preface.encoded_len()];
        preface.encode(&mut front).map_err(impossible)?;
        let mut layout = Layout::new(preface.bodies);
        let mut bodies = Vec::with_capacity(object.parts.len());
        for part in &object.parts {
            let message_len = chunked::message_len(part.size).ok_or_else(|| impossible(FileError::BodyLength))?;
            let entry = Entry { part_number: part.number.into(), message_len, info_len: 0 };
            layout.push(&entry).map_err(impossible)?;
            front.extend_from_slice(&entry.encode());
            bodies.push((part.clone(), 0..message_len));
        }
        let mut end = front.len() as u64;
        for (_, at) in &mut bodies {
            *at = end..end + at.end;
            end = at.end;
        }
        Ok(SealedFile { node, front, bodies, current: None, len: end, wanted: 0..end })
    }

    /// Opens the body whose message has this byte of the file.
    async fn open(&mut self, offset: u64) -> Result<(Range<u64>, Body)> {
        if let Some((at, body)) = self.current.take()
            && at.contains(&offset)
        {
            return Ok((at, body));
        }
        let index = self.bodies.partition_point(|(_, at)| at.end <= offset);
        let (part, at) = &self.bodies[index];
        let body = self.node.log.body(part).await?;
        if body.len != part.size || body.prefix.len() != PREFIX_LEN || body.prefix[..SALT_LEN] != part.salt {
            return Err(damaged("a body is not the one that its object names"));
        }
        Ok((at.clone(), body))
    }
}

impl<D: Disk, E: Engine, V: Env> Source<D::Buf> for SealedFile<'_, D, E, V> {
    fn remaining(&self) -> u64 {
        self.wanted.end - self.wanted.start
    }

    fn piece_len(&self) -> usize {
        keyhole_log::limits::BUFFER_LEN
    }

    async fn next(&mut self, mut buf: D::Buf) -> Result<Option<Piece<D::Buf>>> {
        let Range { start, end } = self.wanted;
        if start >= end {
            return Ok(None);
        }
        if start < self.front.len() as u64 {
            let from = start as usize..end.min(self.front.len() as u64) as usize;
            let at = 0..from.len();
            D::part(&mut buf, at.clone()).copy_from_slice(&self.front[from]);
            self.wanted.start += at.len() as u64;
            return Ok(Some(Piece { buf, at }));
        }
        let (message, body) = self.open(start).await?;
        let from = start - message.start;
        let index = (from.saturating_sub(PREFIX_LEN as u64) / SEALED_BLOCK as u64).min(body.blocks() - 1);
        // Where in the message the chunks of this block begin, and where what is wanted of them ends.
        let chunks_at = PREFIX_LEN as u64 + index * SEALED_BLOCK as u64;
        let block_end = match index == body.blocks() - 1 {
            true => message.end - message.start,
            false => chunks_at + SEALED_BLOCK as u64,
        };
        let until = block_end.min(end - message.start);
        let first = from.saturating_sub(chunks_at) as usize / SEALED_CHUNK;
        let chunks = first..(until.saturating_sub(chunks_at) as usize).div_ceil(SEALED_CHUNK).max(first);
        let (tags, mut buf) = self.node.log.read_block(&body, index, chunks.clone(), buf).await;
        let place = PREFIX_LEN + (until.saturating_sub(chunks_at) as usize).div_ceil(SEALED_CHUNK) * SEALED_CHUNK;
        let bytes = D::part(&mut buf, 0..place.min(keyhole_log::limits::BUFFER_LEN));
        attach_tags(bytes, body.block_len(index), chunks, &tags?)?;
        if index == 0 {
            bytes[..PREFIX_LEN].copy_from_slice(&body.prefix);
        }
        // The prefix stands ahead of the first block's chunks only.
        let shift = |offset: u64| (offset + PREFIX_LEN as u64 - chunks_at) as usize;
        let at = shift(from)..shift(until);
        self.wanted.start = message.start + until;
        self.current = Some((message, body));
        Ok(Some(Piece { buf, at }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_come_out_and_go_back() {
        for data_len in [0, 1, CHUNK_LEN - 1, CHUNK_LEN, CHUNK_LEN + 1, BLOCK_DATA - 1, BLOCK_DATA] {
            let count = data_len / CHUNK_LEN + 1;
            let len = data_len + count * TAG_LEN;
            let message: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
            let mut block = message.clone();
            let mut tags = Vec::new();
            assert_eq!((detach_tags(&mut block, &mut tags), tags.len()), (data_len, count));
            for (chunk, tag) in tags.iter().enumerate() {
                let end = ((chunk + 1) * SEALED_CHUNK).min(len);
                assert_eq!(tag[..], message[end - TAG_LEN..end], "{chunk} of {data_len}");
            }
        }
    }
}
