//! Request bodies: framing, and all digests that a client can declare.
//!
//! A [`BodyDecoder`] is driven by two calls: [`step`](BodyDecoder::step) parses framing,
//! [`payload`](BodyDecoder::payload) takes note of payload bytes, which can thus be received
//! directly into their final buffer.

mod declared;

use keyhole_core::head::{ChecksumAlgorithm, Checksums};
use sha2::{Digest, Sha256};

use self::declared::{declared, decode};
use crate::auth::{BodySignature, BodySignatureKind, ChunkSigner};
use crate::checksum::{self, Hasher};
use crate::http::{self, RequestHead};
use crate::limits::{CHUNK_LINE_MAX, TRAILER_MAX};
use crate::{Error, ErrorCode};

/// The digest that the node itself needs of a body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wanted {
    /// None.
    None,
    /// The MD5: the ETag of a plaintext object.
    Md5,
}

impl Wanted {
    /// Returns the digest needed for the ETag; that of a sealed object does not depend on its
    /// bytes.
    pub fn for_etag(is_sealed: bool) -> Self {
        if is_sealed { Wanted::None } else { Wanted::Md5 }
    }
}

/// The next element of the input.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Parsed framing of this length.
    Skip(usize),
    /// Incomplete; more input is needed.
    Need,
    /// Payload bytes; [`direct`](BodyDecoder::direct) returns their number.
    Payload,
    /// The end of the body.
    Done,
}

/// The verified digests of a body.
#[derive(Clone, Debug)]
pub struct Digests {
    /// The MD5, if it was [`Wanted`].
    pub md5: Option<[u8; 16]>,
    /// The checksums declared by the client, and the one that was computed in addition.
    pub checksums: Checksums,
}

/// A digest that the client declares, in the request head or in the trailer.
struct Declared {
    algorithm: ChecksumAlgorithm,
    /// `None` if another hasher of the body computes the same digest.
    hasher: Option<Hasher>,
    /// The declared value; `None` until the trailer is read.
    expected: Option<Vec<u8>>,
    /// Declared in the trailer.
    in_trailer: bool,
}

/// Decodes one body.
///
/// ```
/// use keyhole_s3::auth::unsigned_body;
/// use keyhole_s3::body::{BodyDecoder, Step, Wanted};
/// use keyhole_s3::http::parse_head;
///
/// let bytes = b"PUT /edge/reading HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\n21.5";
/// let (head, len) = parse_head(bytes)?.expect("a complete head");
/// let mut decoder = BodyDecoder::new(&head, unsigned_body(), Wanted::Md5, 1 << 20)?;
/// let mut input = &bytes[len..];
/// loop {
///     match decoder.step(input)? {
///         Step::Skip(len) => input = &input[len..],
///         Step::Payload => {
///             let (payload, rest) = input.split_at(decoder.direct() as usize);
///             decoder.payload(payload);
///             input = rest;
///         }
///         Step::Need => panic!("a complete body"),
///         Step::Done => break,
///     }
/// }
/// assert!(decoder.finish()?.md5.is_some());
/// # Ok::<(), keyhole_s3::Error>(())
/// ```
pub struct BodyDecoder {
    payload_len: u64,
    remaining: u64,
    /// Remaining bytes of this body on the connection, as far as the request head announces them.
    wire_left: u64,
    /// The outer framing, if `Transfer-Encoding: chunked` wraps the body's own.
    transfer: Option<Transfer>,
    state: FramingState,
    signer: Option<ChunkSigner>,
    has_trailer: bool,
    /// The SHA-256 of the body, or of the current chunk.
    sha256: Option<Sha256>,
    expected_sha256: Option<Box<[u8; 32]>>,
    digester: Digester,
}

/// Computes the wanted and the declared digests of a body, each function once.
pub struct Digester {
    /// The MD5 that the node needs, unless it is left to the caller.
    md5: Option<Hasher>,
    is_md5_left: bool,
    /// The MD5 that the caller has computed.
    left_md5: Option<[u8; 16]>,
    declared: Vec<Declared>,
    /// A checksum that is not declared; without a hasher if another one computes the same digest.
    computed: Option<(ChecksumAlgorithm, Option<Hasher>)>,
}

/// Returns the algorithm whose digest this one shares.
fn function(algorithm: ChecksumAlgorithm) -> ChecksumAlgorithm {
    match algorithm {
        ChecksumAlgorithm::ContentMd5 => ChecksumAlgorithm::Md5,
        other => other,
    }
}

impl Digester {
    /// Reads the declared digests from the request head.
    ///
    /// # Errors
    /// `InvalidDigest` and `InvalidRequest` for malformed or ambiguous digests.
    pub fn new(head: &RequestHead, wanted: Wanted) -> Result<Self, Error> {
        let mut digester = Digester { declared: declared(head)?, ..Digester::undeclared(wanted, None) };
        let needs_md5 = digester.needs_md5();
        for index in 0..digester.declared.len() {
            let (earlier, [this, ..]) = digester.declared.split_at_mut(index) else { break };
            let is_md5 = needs_md5 && function(this.algorithm) == ChecksumAlgorithm::Md5;
            if is_md5 || earlier.iter().any(|other| function(other.algorithm) == function(this.algorithm)) {
                this.hasher = None;
            }
        }
        Ok(digester)
    }

    /// Creates a digester without declared digests.
    pub fn undeclared(wanted: Wanted, algorithm: Option<ChecksumAlgorithm>) -> Self {
        let md5 = (wanted == Wanted::Md5).then(|| Hasher::new(ChecksumAlgorithm::ContentMd5));
        let mut digester = Digester { md5, is_md5_left: false, left_md5: None, declared: Vec::new(), computed: None };
        digester.compute(algorithm);
        digester
    }

    /// Sets a checksum to compute in addition to the declared ones.
    fn compute(&mut self, algorithm: Option<ChecksumAlgorithm>) {
        self.computed = algorithm.map(|algorithm| {
            let is_md5 = self.needs_md5() && function(algorithm) == ChecksumAlgorithm::Md5;
            let is_declared = self.declared.iter().any(|other| function(other.algorithm) == function(algorithm));
            (algorithm, (!is_md5 && !is_declared).then(|| Hasher::new(algorithm)))
        });
    }

    /// Leaves a digest to be passed to [`finish_with`](Self::finish_with).
    fn leave(&mut self, algorithm: ChecksumAlgorithm) {
        self.declared.iter_mut().filter(|it| it.algorithm == algorithm).for_each(|it| it.hasher = None);
    }

    /// Returns whether the node needs the MD5.
    fn needs_md5(&self) -> bool {
        self.md5.is_some() || self.is_md5_left
    }

    /// Leaves the [`Wanted`] MD5 to the caller, who passes it to [`set_md5`](Self::set_md5). To be
    /// called before the first bytes. Returns whether an MD5 is wanted.
    pub fn leave_md5(&mut self) -> bool {
        self.is_md5_left = self.md5.take().is_some();
        self.is_md5_left
    }

    /// Sets the MD5 of all bytes, which was [left](Self::leave_md5) to the caller.
    pub fn set_md5(&mut self, md5: [u8; 16]) {
        self.left_md5 = Some(md5);
    }

    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        if let Some(md5) = &mut self.md5 {
            md5.update(bytes);
        }
        let declared = self.declared.iter_mut().filter_map(|declared| declared.hasher.as_mut());
        let computed = self.computed.iter_mut().filter_map(|(_, hasher)| hasher.as_mut());
        declared.chain(computed).for_each(|hasher| hasher.update(bytes));
    }

    /// Verifies all declared digests.
    ///
    /// # Errors
    /// `BadDigest`.
    pub fn finish(self) -> Result<Digests, Error> {
        self.finish_with(None)
    }

    /// Verifies all declared digests. `sha256` is that of the bytes, if it was computed elsewhere.
    fn finish_with(self, sha256: Option<&[u8]>) -> Result<Digests, Error> {
        let internal = |_| Error::new(ErrorCode::InternalError);
        // By function.
        let mut known = Checksums::default();
        let md5: Option<[u8; 16]> = self.md5.and_then(|md5| md5.finish().try_into().ok()).or(self.left_md5);
        if self.is_md5_left && md5.is_none() {
            return Err(Error::new(ErrorCode::InternalError));
        }
        if let Some(md5) = &md5 {
            known.set(ChecksumAlgorithm::Md5, md5).map_err(internal)?;
        }
        if let Some(sha256) = sha256 {
            known.set(ChecksumAlgorithm::Sha256, sha256).map_err(internal)?;
        }
        let mut checksums = Checksums::default();
        let declared = self.declared.into_iter().map(|it| (it.algorithm, it.hasher, Some(it.expected)));
        let computed = self.computed.into_iter().map(|(algorithm, hasher)| (algorithm, hasher, None));
        for (algorithm, hasher, expected) in declared.chain(computed) {
            if let Some(hasher) = hasher {
                known.set(function(algorithm), &hasher.finish()).map_err(internal)?;
            }
            let digest = known.get(function(algorithm)).ok_or_else(|| Error::new(ErrorCode::InternalError))?;
            if expected.is_some_and(|expected| expected.as_deref() != Some(digest)) {
                return Err(checksum::bad_digest(algorithm));
            }
            checksums.set(algorithm, digest).map_err(internal)?;
        }
        Ok(Digests { md5, checksums })
    }
}

enum FramingState {
    /// The rest of the body is payload.
    Whole,
    /// Expects a chunk header.
    Line,
    /// Expects this much of a chunk; the signature of the chunk.
    Chunk(u64, String),
    /// Expects the line that ends a body without a trailer.
    End,
    /// Expects the trailer.
    Trailer,
    Done,
}

/// Decoder of `Transfer-Encoding: chunked` (RFC 9112 §7.1), whose chunks can split the inner
/// framing anywhere.
struct Transfer {
    state: TransferState,
    /// Incomplete inner framing from earlier chunks, at most [`TRAILER_MAX`] bytes.
    gathered: Vec<u8>,
}

enum TransferState {
    /// Expects a chunk size.
    Size,
    /// Expects this many bytes of a chunk, then its line end.
    Data(u64),
    /// Expects the end after the last chunk: ignored trailer fields and an empty line.
    End,
    Done,
}

impl BodyDecoder {
    /// Reads the framing and the declared digests from the request head. A request head without a
    /// length has no body; the [router](crate::ops::route) knows which operations require one.
    ///
    /// # Errors
    /// `MissingContentLength` for a streaming body without its decoded length, `NotImplemented` for
    /// a `Transfer-Encoding` without `aws-chunked`, `EntityTooLarge` (over `max_len` bytes), and
    /// the errors of [`Digester::new`].
    pub fn new(head: &RequestHead, signature: BodySignature, wanted: Wanted, max_len: u64) -> Result<Self, Error> {
        let wire_len = match head.content_length {
            Some(len) => len,
            None if head.is_chunked && !matches!(signature.0, BodySignatureKind::Streaming { .. }) => {
                return Err(http::unsupported_transfer_encoding());
            }
            None if head.is_chunked => u64::MAX,
            None => 0,
        };
        let mut decoder = BodyDecoder {
            payload_len: wire_len,
            remaining: wire_len,
            wire_left: wire_len,
            transfer: head.is_chunked.then_some(Transfer { state: TransferState::Size, gathered: Vec::new() }),
            state: FramingState::Whole,
            signer: None,
            has_trailer: false,
            sha256: None,
            expected_sha256: None,
            digester: Digester::new(head, wanted)?,
        };
        match signature.0 {
            BodySignatureKind::Unsigned => {}
            BodySignatureKind::Signed(expected) => {
                decoder.sha256 = Some(Sha256::new());
                decoder.expected_sha256 = Some(expected);
                decoder.digester.leave(ChecksumAlgorithm::Sha256);
            }
            BodySignatureKind::Streaming { signer, trailer } => {
                decoder.payload_len = decoded_length(head)?;
                decoder.remaining = decoder.payload_len;
                decoder.state = FramingState::Line;
                decoder.sha256 = signer.is_some().then(Sha256::new);
                decoder.signer = signer;
                decoder.has_trailer = trailer;
            }
        }
        if decoder.digester.declared.iter().any(|declared| declared.in_trailer) && !decoder.has_trailer {
            let message = "x-amz-trailer is given, and x-amz-content-sha256 announces no trailer.";
            return Err(Error::new(ErrorCode::InvalidRequest).with_message(message));
        }
        if decoder.payload_len > max_len {
            return Err(Error::new(ErrorCode::EntityTooLarge)
                .with_field("ProposedSize", decoder.payload_len.to_string())
                .with_field("MaxSizeAllowed", max_len.to_string()));
        }
        Ok(decoder)
    }

    /// Returns the algorithm of the checksum that the client declares, in the request head or the
    /// trailer.
    pub fn checksum_algorithm(&self) -> Option<ChecksumAlgorithm> {
        let algorithms = self.digester.declared.iter().map(|declared| declared.algorithm);
        algorithms.into_iter().find(|algorithm| *algorithm != ChecksumAlgorithm::ContentMd5)
    }

    /// Sets a checksum to compute in addition to the declared ones.
    pub fn compute(&mut self, algorithm: Option<ChecksumAlgorithm>) {
        self.digester.compute(algorithm);
    }

    /// Returns the digests of the payload.
    pub fn digester(&mut self) -> &mut Digester {
        &mut self.digester
    }

    /// Returns the length of the whole payload.
    pub fn payload_len(&self) -> u64 {
        self.payload_len
    }

    /// Returns the number of payload bytes not yet passed to [`payload`](Self::payload).
    pub fn remaining(&self) -> u64 {
        self.remaining
    }

    /// Returns the number of payload bytes before the next framing.
    pub fn direct(&self) -> u64 {
        let direct = match self.state {
            FramingState::Whole => self.remaining,
            FramingState::Chunk(left, _) => left,
            _ => 0,
        };
        match &self.transfer {
            None => direct,
            Some(Transfer { state: TransferState::Data(left), .. }) => direct.min(*left),
            Some(_) => 0,
        }
    }

    /// Parses the beginning of the input. After [`Step::Skip`] the caller drops the skipped bytes;
    /// after [`Step::Payload`], the bytes passed to [`payload`](Self::payload).
    ///
    /// # Errors
    /// Malformed framing, a signature mismatch, or a body shorter than announced.
    pub fn step(&mut self, input: &[u8]) -> Result<Step, Error> {
        if let Some(transfer) = self.transfer.take() {
            let (result, transfer) = self.step_transfer(transfer, input);
            self.transfer = Some(transfer);
            return result;
        }
        let available = usize::try_from(self.wire_left).unwrap_or(usize::MAX).min(input.len());
        let input = &input[..available];
        let step = self.step_within(input)?;
        match step {
            Step::Skip(len) => self.wire_left -= len as u64,
            // The whole body has arrived, but its framing needs more.
            Step::Need if available as u64 == self.wire_left => return Err(Error::new(ErrorCode::IncompleteBody)),
            Step::Payload if self.wire_left == 0 => return Err(Error::new(ErrorCode::IncompleteBody)),
            Step::Done if self.wire_left > 0 => return Err(framing("Something follows the end of the body.")),
            _ => {}
        }
        Ok(step)
    }

    /// Parses S3's own framing.
    fn step_within(&mut self, input: &[u8]) -> Result<Step, Error> {
        match &self.state {
            FramingState::Whole if self.remaining == 0 => Ok(Step::Done),
            FramingState::Whole => Ok(Step::Payload),
            FramingState::Chunk(0, _) => self.chunk_end(input),
            FramingState::Chunk(..) => Ok(Step::Payload),
            FramingState::Line => self.chunk_line(input),
            FramingState::End => self.end(input),
            FramingState::Trailer => self.trailer(input),
            FramingState::Done => Ok(Step::Done),
        }
    }

    /// Parses through `Transfer-Encoding: chunked`.
    fn step_transfer(&mut self, mut transfer: Transfer, input: &[u8]) -> (Result<Step, Error>, Transfer) {
        let result = match &mut transfer.state {
            TransferState::Size => transfer.size(input),
            TransferState::Data(0) => transfer.data_end(input),
            TransferState::Data(left) => {
                let available = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
                let result = self.step_gathered(&mut transfer.gathered, &input[..available]);
                if let Ok(Step::Skip(len)) = result {
                    *left -= len as u64;
                }
                result
            }
            TransferState::End => transfer.end(input),
            TransferState::Done if matches!(self.state, FramingState::Done) => Ok(Step::Done),
            TransferState::Done => Err(Error::new(ErrorCode::IncompleteBody)),
        };
        (result, transfer)
    }

    /// Parses S3's framing in `gathered` followed by `input`, which is empty only if more is
    /// needed.
    fn step_gathered(&mut self, gathered: &mut Vec<u8>, input: &[u8]) -> Result<Step, Error> {
        let before = gathered.len();
        let step = match before {
            0 => self.step_within(input)?,
            _ => {
                gathered.extend_from_slice(&input[..input.len().min(TRAILER_MAX)]);
                let step = self.step_within(gathered);
                gathered.truncate(before);
                step?
            }
        };
        match step {
            Step::Skip(len) => {
                gathered.clear();
                Ok(Step::Skip(len - before))
            }
            Step::Need if input.is_empty() => Ok(Step::Need),
            Step::Need => {
                gathered.extend_from_slice(input);
                Ok(Step::Skip(input.len()))
            }
            Step::Payload => Ok(Step::Payload),
            Step::Done => Err(framing("Something follows the end of the body.")),
        }
    }

    /// Takes note of payload bytes, at most [`direct`](Self::direct) many.
    ///
    /// # Panics
    /// If there are more.
    pub fn payload(&mut self, bytes: &[u8]) {
        let len = bytes.len() as u64;
        assert!(len <= self.direct(), "more payload than follows");
        self.remaining -= len;
        self.wire_left = self.wire_left.saturating_sub(len);
        if let FramingState::Chunk(left, _) = &mut self.state {
            *left -= len;
        }
        if let Some(Transfer { state: TransferState::Data(left), .. }) = &mut self.transfer {
            *left -= len;
        }
        if let Some(sha256) = &mut self.sha256 {
            sha256.update(bytes);
        }
        self.digester.update(bytes);
    }

    /// Verifies all digests. To be called after [`Step::Done`].
    ///
    /// # Errors
    /// `XAmzContentSHA256Mismatch`, `BadDigest`, or `IncompleteBody` if the body has not ended.
    pub fn finish(self) -> Result<Digests, Error> {
        let is_open = self.transfer.is_some_and(|transfer| !matches!(transfer.state, TransferState::Done));
        if self.remaining > 0 || is_open || !matches!(self.state, FramingState::Whole | FramingState::Done) {
            return Err(Error::new(ErrorCode::IncompleteBody));
        }
        let Some((sha256, expected)) = self.sha256.zip(self.expected_sha256) else { return self.digester.finish() };
        let sha256: [u8; 32] = sha256.finalize().into();
        if sha256 != *expected {
            return Err(Error::new(ErrorCode::XAmzContentSHA256Mismatch));
        }
        self.digester.finish_with(Some(&sha256))
    }

    /// Parses `size;chunk-signature=hex`, the size in hexadecimal.
    fn chunk_line(&mut self, input: &[u8]) -> Result<Step, Error> {
        let Some((line, len)) = line(input, CHUNK_LINE_MAX)? else { return Ok(Step::Need) };
        let (size, extension) = line.split_once(';').unwrap_or((line, ""));
        let size = chunk_size(size)?;
        let signature = match (&self.signer, extension.strip_prefix("chunk-signature=")) {
            (None, _) => String::new(),
            (Some(_), Some(signature)) => signature.to_owned(),
            (Some(_), None) => return Err(framing("A chunk has no signature.")),
        };
        if size > self.remaining {
            return Err(framing("The chunks are longer than x-amz-decoded-content-length."));
        }
        if size > 0 {
            self.state = FramingState::Chunk(size, signature);
            return Ok(Step::Skip(len));
        }
        if self.remaining > 0 {
            return Err(Error::new(ErrorCode::IncompleteBody));
        }
        self.verify_chunk(&signature)?;
        self.state = if self.has_trailer { FramingState::Trailer } else { FramingState::End };
        Ok(Step::Skip(len))
    }

    /// Parses the line end after a chunk.
    fn chunk_end(&mut self, input: &[u8]) -> Result<Step, Error> {
        match input {
            [b'\r', b'\n', ..] => {
                if let FramingState::Chunk(_, signature) = std::mem::replace(&mut self.state, FramingState::Line) {
                    self.verify_chunk(&signature)?;
                }
                Ok(Step::Skip(2))
            }
            [] | [b'\r'] => Ok(Step::Need),
            _ => Err(framing("A chunk is longer than its size.")),
        }
    }

    fn end(&mut self, input: &[u8]) -> Result<Step, Error> {
        match input {
            [b'\r', b'\n', ..] => {
                self.state = FramingState::Done;
                Ok(Step::Skip(2))
            }
            [] | [b'\r'] => Ok(Step::Need),
            _ => Err(framing("The last chunk must be empty.")),
        }
    }

    fn verify_chunk(&mut self, signature: &str) -> Result<(), Error> {
        let Some(signer) = &mut self.signer else { return Ok(()) };
        let hash = self.sha256.as_mut().map(|sha256| sha256.finalize_reset().into()).unwrap_or_default();
        signer.verify_chunk(hash, signature)
    }

    /// Parses the trailer up to the empty line.
    fn trailer(&mut self, input: &[u8]) -> Result<Step, Error> {
        let Some((lines, consumed)) = trailer_lines(input)? else { return Ok(Step::Need) };
        let mut canonical = String::new();
        let mut signature = None;
        for line in lines {
            let (name, value) = line.split_once(':').ok_or_else(|| framing("A line of the trailer has no colon."))?;
            let name = name.trim().to_ascii_lowercase();
            let value = value.trim();
            if signature.is_some() {
                return Err(framing("Something follows the signature of the trailer."));
            }
            if name == "x-amz-trailer-signature" {
                signature = Some(value.to_owned());
                continue;
            }
            self.trailer_field(&name, value)?;
            canonical += &format!("{name}:{value}\n");
        }
        if let Some(signer) = &mut self.signer {
            let signature = signature.ok_or_else(|| Error::new(ErrorCode::SignatureDoesNotMatch))?;
            signer.verify_trailer(Sha256::digest(canonical.as_bytes()).into(), &signature)?;
        }
        if self.digester.declared.iter().any(|declared| declared.expected.is_none()) {
            return Err(
                Error::new(ErrorCode::InvalidRequest).with_message("The trailer lacks what x-amz-trailer announces.")
            );
        }
        self.state = FramingState::Done;
        Ok(Step::Skip(consumed))
    }

    fn trailer_field(&mut self, name: &str, value: &str) -> Result<(), Error> {
        let announced =
            |declared: &&mut Declared| declared.in_trailer && checksum::header_name(declared.algorithm) == name;
        let Some(declared) = self.digester.declared.iter_mut().find(announced) else {
            let message = "The trailer has a header that x-amz-trailer does not announce.";
            return Err(Error::new(ErrorCode::InvalidRequest).with_message(message));
        };
        let digest = decode(declared.algorithm, value.as_bytes())?;
        match declared.expected.replace(digest) {
            None => Ok(()),
            Some(_) => Err(framing("The trailer has a header twice.")),
        }
    }
}

impl Transfer {
    /// Parses a hexadecimal size and ignores the chunk extensions after it.
    fn size(&mut self, input: &[u8]) -> Result<Step, Error> {
        let Some((line, len)) = line(input, CHUNK_LINE_MAX)? else { return Ok(Step::Need) };
        let size = line.split(';').next().unwrap_or_default();
        self.state = match chunk_size(size.trim_end_matches([' ', '\t']))? {
            0 => TransferState::End,
            size => TransferState::Data(size),
        };
        Ok(Step::Skip(len))
    }

    /// Parses the line end after a chunk.
    fn data_end(&mut self, input: &[u8]) -> Result<Step, Error> {
        match input {
            [b'\r', b'\n', ..] => {
                self.state = TransferState::Size;
                Ok(Step::Skip(2))
            }
            [] | [b'\r'] => Ok(Step::Need),
            _ => Err(framing("A chunk is longer than its size.")),
        }
    }

    fn end(&mut self, input: &[u8]) -> Result<Step, Error> {
        let Some((_, consumed)) = trailer_lines(input)? else { return Ok(Step::Need) };
        self.state = TransferState::Done;
        Ok(Step::Skip(consumed))
    }
}

fn chunk_size(text: &str) -> Result<u64, Error> {
    let is_hex = !text.is_empty() && text.len() <= 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let size = u64::from_str_radix(text, 16).ok().filter(|_| is_hex);
    size.ok_or_else(|| framing("A chunk size is not a hexadecimal number."))
}

/// Splits the trailer into lines. Returns them and the length up to and including the empty line,
/// or `None` if the trailer is incomplete.
fn trailer_lines(input: &[u8]) -> Result<Option<(Vec<&str>, usize)>, Error> {
    let mut lines = Vec::new();
    let mut len = 0;
    while let Some((line, line_len)) = line(&input[len..], TRAILER_MAX - len)? {
        len += line_len;
        if line.is_empty() {
            return Ok(Some((lines, len)));
        }
        lines.push(line);
    }
    Ok(None)
}

/// Returns a line without its end, and its length including the end; `None` if it is incomplete.
fn line(input: &[u8], max: usize) -> Result<Option<(&str, usize)>, Error> {
    let window = &input[..input.len().min(max)];
    match window.windows(2).position(|pair| pair == b"\r\n") {
        Some(end) => {
            let line = std::str::from_utf8(&window[..end]).map_err(|_| framing("A line of framing is not text."))?;
            Ok(Some((line, end + 2)))
        }
        None if window.len() == max => Err(framing("A line of framing is too long.")),
        None => Ok(None),
    }
}

fn framing(message: &'static str) -> Error {
    Error::new(ErrorCode::InvalidRequest).with_message(message)
}

fn decoded_length(head: &RequestHead) -> Result<u64, Error> {
    let Some(text) = head.headers.text("x-amz-decoded-content-length") else {
        return Err(Error::new(ErrorCode::MissingContentLength)
            .with_message("You must provide x-amz-decoded-content-length with a streaming body."));
    };
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_number).ok_or_else(|| {
        Error::invalid_argument("x-amz-decoded-content-length", text, "x-amz-decoded-content-length must be a number.")
    })
}

#[cfg(test)]
mod tests;
