//! The deterministic subset of CBOR used by object heads (RFC 8949 §4.2.1): unsigned integers, byte
//! strings, text strings, arrays and maps, with definite lengths and shortest-form numbers.
//!
//! Library decoders also accept other encodings, which must be rejected here. minicbor with checks
//! around it takes 1.2 KiB (seal) to 1.6 KiB (open) more flash on a Cortex-M4.

use crate::head::HeadError;

/// Major types (RFC 8949 §3.1).
const UNSIGNED: u8 = 0;
const BYTES: u8 = 2;
const TEXT: u8 = 3;
const ARRAY: u8 = 4;
const MAP: u8 = 5;

/// Writes CBOR items into a slice.
pub(crate) struct Writer<'o> {
    out: &'o mut [u8],
    len: usize,
}

impl<'o> Writer<'o> {
    pub(crate) fn new(out: &'o mut [u8]) -> Self {
        Writer { out, len: 0 }
    }

    /// Returns the number of bytes written.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    fn raw(&mut self, bytes: &[u8]) -> Result<(), HeadError> {
        let place = self.out.get_mut(self.len..).and_then(|rest| rest.get_mut(..bytes.len()));
        place.ok_or(HeadError::TooLong)?.copy_from_slice(bytes);
        self.len += bytes.len();
        Ok(())
    }

    fn header(&mut self, major: u8, value: u64) -> Result<(), HeadError> {
        let major = major << 5;
        let be = value.to_be_bytes();
        match value {
            0..24 => self.raw(&[major | be[7]]),
            24..0x100 => self.raw(&[major | 24, be[7]]),
            0x100..0x1_0000 => self.raw(&[major | 25, be[6], be[7]]),
            0x1_0000..0x1_0000_0000 => {
                self.raw(&[major | 26])?;
                self.raw(&be[4..])
            }
            _ => {
                self.raw(&[major | 27])?;
                self.raw(&be)
            }
        }
    }

    pub(crate) fn unsigned(&mut self, value: u64) -> Result<(), HeadError> {
        self.header(UNSIGNED, value)
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result<(), HeadError> {
        self.header(BYTES, bytes.len() as u64)?;
        self.raw(bytes)
    }

    pub(crate) fn text(&mut self, text: &str) -> Result<(), HeadError> {
        self.header(TEXT, text.len() as u64)?;
        self.raw(text.as_bytes())
    }

    pub(crate) fn array(&mut self, len: usize) -> Result<(), HeadError> {
        self.header(ARRAY, len as u64)
    }

    pub(crate) fn map(&mut self, len: usize) -> Result<(), HeadError> {
        self.header(MAP, len as u64)
    }
}

/// Reads CBOR items from a slice.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'i> {
    rest: &'i [u8],
}

impl<'i> Reader<'i> {
    pub(crate) fn new(input: &'i [u8]) -> Self {
        Reader { rest: input }
    }

    /// Returns the unread input.
    pub(crate) fn rest(&self) -> &'i [u8] {
        self.rest
    }

    fn raw(&mut self, len: usize) -> Result<&'i [u8], HeadError> {
        let (bytes, rest) = self.rest.split_at_checked(len).ok_or(HeadError::Truncated)?;
        self.rest = rest;
        Ok(bytes)
    }

    fn header(&mut self, major: u8) -> Result<u64, HeadError> {
        let first = self.raw(1)?[0];
        if first >> 5 != major {
            return Err(HeadError::Type);
        }
        let (width, smallest) = match first & 31 {
            value @ 0..24 => return Ok(u64::from(value)),
            24 => (1, 24),
            25 => (2, 0x100),
            26 => (4, 0x1_0000),
            27 => (8, 0x1_0000_0000),
            _ => return Err(HeadError::NotDeterministic),
        };
        let value = self.raw(width)?.iter().fold(0, |value, byte| value << 8 | u64::from(*byte));
        if value < smallest { Err(HeadError::NotDeterministic) } else { Ok(value) }
    }

    fn string(&mut self, major: u8) -> Result<&'i [u8], HeadError> {
        let len = self.header(major)?;
        self.raw(usize::try_from(len).map_err(|_| HeadError::Truncated)?)
    }

    pub(crate) fn unsigned(&mut self) -> Result<u64, HeadError> {
        self.header(UNSIGNED)
    }

    pub(crate) fn bytes(&mut self) -> Result<&'i [u8], HeadError> {
        self.string(BYTES)
    }

    pub(crate) fn array_of_bytes<const N: usize>(&mut self) -> Result<&'i [u8; N], HeadError> {
        self.bytes()?.try_into().map_err(|_| HeadError::Length)
    }

    pub(crate) fn text(&mut self) -> Result<&'i str, HeadError> {
        core::str::from_utf8(self.string(TEXT)?).map_err(|_| HeadError::Type)
    }

    /// Reads an array header and returns the number of items. Each item takes at least one byte, so
    /// the input bounds a loop over them.
    pub(crate) fn array(&mut self) -> Result<u64, HeadError> {
        self.header(ARRAY)
    }

    /// Reads a map header and returns the number of entries.
    pub(crate) fn map(&mut self) -> Result<u64, HeadError> {
        self.header(MAP)
    }
}
