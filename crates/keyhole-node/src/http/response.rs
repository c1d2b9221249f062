//! Responses of handlers.

use keyhole_s3::http;

use crate::admission::Admitted;
use crate::egress::{ObjectSpan, Reader};
use crate::failure::Result;
use crate::object_memory::ObjectMemory;
use crate::platform::{Buf, Platform};
use crate::sealed_file::SealedFile;
use crate::source::{Piece, PieceSource, Span, Whole};

/// A response: status and header fields, and a body that is empty, bytes or a source.
pub(crate) struct Response<'n, P: Platform> {
    /// The head, with the body unless there is a source.
    pub(crate) head: http::Response,
    /// The memory of a long body in `head`.
    pub(crate) admitted: Option<Admitted<'n>>,
    /// The source of the body, if it is sent piece by piece.
    pub(crate) source: Option<Box<ResponseSource<'n, P>>>,
}

/// A body that is read while it is sent.
pub(crate) struct ResponseSource<'n, P: Platform> {
    pub(crate) bytes: SourceBytes<'n, P>,
    /// The memory for a piece of it.
    pub(crate) admitted: Admitted<'n>,
    /// The memory of the list of parts in `bytes`.
    pub(crate) _memory: ObjectMemory<'n>,
}

pub(crate) enum SourceBytes<'n, P: Platform> {
    Object(Reader<'n, P>),
    SealedFile(SealedFile<'n, P::Disk>),
}

impl<'n, P: Platform> Response<'n, P> {
    /// Creates a response without a body.
    pub(crate) fn new(status: u16) -> Self {
        Response { head: http::Response::new(status), admitted: None, source: None }
    }

    /// Creates a response with an XML document.
    pub(crate) fn xml(status: u16, document: String) -> Self {
        Response { head: http::Response::xml(status, document), admitted: None, source: None }
    }

    /// Adds the memory that was reserved for the body, and corrects it to the body's length.
    pub(crate) fn with_memory(mut self, mut admitted: Admitted<'n>) -> Self {
        admitted.set_len(self.head.body.capacity());
        self.admitted = Some(admitted);
        self
    }

    /// Adds a header field; see [`http::Response::header`].
    pub(crate) fn header(mut self, name: impl AsRef<str>, value: impl AsRef<[u8]>) -> Self {
        self.head = self.head.header(name, value);
        self
    }

    /// Adds several header fields.
    pub(crate) fn headers<N: AsRef<str>, V: AsRef<[u8]>>(self, fields: impl IntoIterator<Item = (N, V)>) -> Self {
        fields.into_iter().fold(self, |response, (name, value)| response.header(name, value))
    }

    /// Sets the length to announce.
    pub(crate) fn content_length(mut self, len: u64) -> Self {
        self.head.content_length = Some(len);
        self
    }

    /// Sets the bytes of an object as the body.
    pub(crate) fn object(self, reader: Reader<'n, P>, admitted: Admitted<'n>, memory: ObjectMemory<'n>) -> Self {
        self.with_source(SourceBytes::Object(reader), admitted, memory)
    }

    /// Sets the bytes of a sealed object file as the body.
    pub(crate) fn sealed_file(
        self,
        file: SealedFile<'n, P::Disk>,
        admitted: Admitted<'n>,
        memory: ObjectMemory<'n>,
    ) -> Self {
        self.with_source(SourceBytes::SealedFile(file), admitted, memory)
    }

    fn with_source(mut self, bytes: SourceBytes<'n, P>, admitted: Admitted<'n>, memory: ObjectMemory<'n>) -> Self {
        self.source = Some(Box::new(ResponseSource { bytes, admitted, _memory: memory }));
        self
    }
}

/// A span of either source.
pub(crate) enum SourceSpan<'n, P: Platform> {
    Object(ObjectSpan<'n, P>),
    SealedFile(Whole<Buf<P>>),
}

impl<'n, P: Platform> PieceSource<Buf<P>> for SourceBytes<'n, P> {
    type Span = SourceSpan<'n, P>;

    fn remaining(&self) -> u64 {
        match self {
            SourceBytes::Object(reader) => reader.remaining(),
            SourceBytes::SealedFile(file) => file.remaining(),
        }
    }

    fn piece_len(&self) -> usize {
        match self {
            SourceBytes::Object(reader) => reader.piece_len(),
            SourceBytes::SealedFile(file) => file.piece_len(),
        }
    }

    async fn prepare(&mut self) -> Result<usize> {
        match self {
            SourceBytes::Object(reader) => reader.prepare().await,
            SourceBytes::SealedFile(file) => file.prepare().await,
        }
    }

    async fn read(&mut self, buf: Buf<P>, len: usize) -> Result<Option<SourceSpan<'n, P>>> {
        Ok(match self {
            SourceBytes::Object(reader) => reader.read(buf, len).await?.map(SourceSpan::Object),
            SourceBytes::SealedFile(file) => file.read(buf, len).await?.map(SourceSpan::SealedFile),
        })
    }
}

impl<P: Platform> Span<Buf<P>> for SourceSpan<'_, P> {
    fn len(&self) -> usize {
        match self {
            SourceSpan::Object(span) => span.len(),
            SourceSpan::SealedFile(span) => span.len(),
        }
    }

    async fn verify(&mut self) -> Result<Option<Piece<Buf<P>>>> {
        match self {
            SourceSpan::Object(span) => span.verify().await,
            SourceSpan::SealedFile(span) => span.verify().await,
        }
    }

    fn put_back(&mut self, buf: Buf<P>, sent: std::ops::Range<usize>) {
        match self {
            SourceSpan::Object(span) => span.put_back(buf, sent),
            SourceSpan::SealedFile(span) => span.put_back(buf, sent),
        }
    }
}
