//! The sealed object file: a sealed object with everything needed to open it except the key (see
//! [`format`](crate::format), part 5).
//!
//! A file consists of a [`Preface`], one [`BodyEntry`] per body, the part infos, and the messages of
//! the bodies. This module encodes and decodes these pieces as a stream: [`Preface::decode`]
//! returns how many bytes it needs, and [`Layout`] checks the entries one by one and sums the
//! lengths of the rest. [`open_head`](crate::head::open_head) and
//! [`Bodies::check`](crate::body::Bodies::check) perform the checks that require the key. [`seal`]
//! creates a whole file from a plaintext in memory.

use core::fmt;
use core::ops::Range;

use zeroize::Zeroizing;

use crate::CustomerKey;
use crate::aead::Engine;
use crate::body::context;
use crate::chunked::{Sealer, message_len, plaintext_len};
use crate::head::{Head, HeadError, seal_head};
use crate::limits::{
    BUCKET_MAX, CHUNK_LEN, FILE_CONTENT_MAX, KEY_LEN, OBJECT_KEY_MAX, PART_NUMBER_MAX, PREFIX_LEN, SALT_LEN,
    SEALED_HEAD_MAX, TAG_LEN,
};

/// Magic bytes at the start of a file.
pub const MAGIC: [u8; 8] = *b"KEYHOLE1";

/// Media type of a sealed object file.
pub const MEDIA_TYPE: &str = "application/vnd.keyhole.sealed";

/// Length of an encoded [`BodyEntry`], in bytes.
pub const ENTRY_LEN: usize = 16;

/// Maximum number of bodies of an object.
pub const BODIES_MAX: u32 = PART_NUMBER_MAX;

/// Maximum length of an encoded [`Preface`], in bytes.
pub const PREFACE_MAX: usize = MAGIC.len() + 2 + BUCKET_MAX + 2 + OBJECT_KEY_MAX + 4 + SEALED_HEAD_MAX + 4;

/// Maximum number of bytes that [`seal`] adds to the plaintext and the two names, not counting a
/// tag of [`TAG_LEN`] for each full [`CHUNK_LEN`] of plaintext: the fixed fields of the preface,
/// the entry, the longest object head without metadata, and the body's prefix and tag.
pub const SEAL_OVERHEAD: usize =
    MAGIC.len() + 2 + 2 + 4 + 4 + ENTRY_LEN + (SEALED_HEAD_MIN + 48) + PREFIX_LEN + TAG_LEN;

/// Length of the shortest sealed head: a message of one chunk.
const SEALED_HEAD_MIN: usize = PREFIX_LEN + TAG_LEN;

/// Error in a sealed object file that is detected without the key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum FileError {
    /// The input does not begin with [`MAGIC`].
    Magic,
    /// The bucket or key name is empty, too long, or not UTF-8.
    Name,
    /// The length of the sealed head is out of range.
    Head,
    /// The number of bodies is 0 or exceeds [`BODIES_MAX`].
    Bodies,
    /// Part numbers do not ascend within 1 to 10,000, or part number 0 is not the only one.
    PartNumber,
    /// The length of a body is not a message length.
    BodyLength,
    /// The length of a part info is out of range, or the object has no parts.
    PartInfo,
    /// The lengths add up to more than [`FILE_CONTENT_MAX`].
    TooLong,
    /// The file is truncated, or data follows its end.
    Length,
    /// The output buffer is too short.
    Room,
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FileError::Magic => "missing magic bytes of a sealed object file",
            FileError::Name => "invalid bucket or key name",
            FileError::Head => "invalid length of the sealed head",
            FileError::Bodies => "invalid number of bodies: expected 1 to 10,000",
            FileError::PartNumber => "invalid part numbers: expected ascending numbers from 1 to 10,000",
            FileError::BodyLength => "invalid length of a body",
            FileError::PartInfo => "invalid length of a part info",
            FileError::TooLong => "declared length exceeds the maximum object size",
            FileError::Length => "length differs from the declared length",
            FileError::Room => "output buffer too small",
        })
    }
}

impl core::error::Error for FileError {}

/// Result of decoding the beginning of an input.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Decoded<T> {
    /// The decoded value and its encoded length in bytes.
    Whole(T, usize),
    /// The input is too short. Holds the number of bytes, from the beginning, needed to continue.
    Needs(usize),
}

/// The beginning of a file: names, sealed head, and number of bodies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Preface<'a> {
    /// Bucket that the object head is sealed for.
    pub bucket: &'a str,
    /// Object key (the object's name) that the object head is sealed for.
    pub key: &'a str,
    /// The sealed object head.
    pub sealed_head: &'a [u8],
    /// Number of bodies, and so of entries.
    pub bodies: u32,
}

impl<'a> Preface<'a> {
    /// Returns the encoded length in bytes.
    pub fn encoded_len(&self) -> usize {
        MAGIC.len() + 2 + self.bucket.len() + 2 + self.key.len() + 4 + self.sealed_head.len() + 4
    }

    fn check(&self) -> Result<(), FileError> {
        check_names(self.bucket, self.key)?;
        if !(SEALED_HEAD_MIN..=SEALED_HEAD_MAX).contains(&self.sealed_head.len()) {
            return Err(FileError::Head);
        }
        if !(1..=BODIES_MAX).contains(&self.bodies) { Err(FileError::Bodies) } else { Ok(()) }
    }

    /// Encodes the preface and returns the length written to `out`. [`PREFACE_MAX`] bytes always
    /// suffice.
    ///
    /// # Errors
    /// [`FileError`] if a field is out of range or `out` is too short.
    pub fn encode(&self, out: &mut [u8]) -> Result<usize, FileError> {
        self.check()?;
        let mut to = Output { out, len: 0 };
        to.put_names(self.bucket, self.key)?;
        to.put(&(self.sealed_head.len() as u32).to_be_bytes())?;
        to.put(self.sealed_head)?;
        to.put(&self.bodies.to_be_bytes())?;
        Ok(to.len)
    }

    /// Decodes the preface from `input`, the part of the file received so far.
    ///
    /// # Errors
    /// [`FileError`] as soon as a received field is out of range.
    pub fn decode(input: &'a [u8]) -> Result<Decoded<Preface<'a>>, FileError> {
        let mut at = 0;
        let mut take = |len: usize| {
            let end = at + len;
            let bytes = input.get(at..end).ok_or(end);
            at = end;
            bytes
        };
        /// Returns [`Decoded::Needs`] from the function if the input is too short.
        macro_rules! take {
            ($len:expr) => {
                match take($len) {
                    Ok(bytes) => bytes,
                    Err(needed) => return Ok(Decoded::Needs(needed)),
                }
            };
        }
        if !input.starts_with(&MAGIC[..input.len().min(MAGIC.len())]) {
            return Err(FileError::Magic);
        }
        let _ = take!(MAGIC.len());
        let mut names = [""; 2];
        for (name, max) in names.iter_mut().zip([BUCKET_MAX, OBJECT_KEY_MAX]) {
            let len = be(take!(2)) as usize;
            if !(1..=max).contains(&len) {
                return Err(FileError::Name);
            }
            *name = core::str::from_utf8(take!(len)).map_err(|_| FileError::Name)?;
        }
        let len = be(take!(4)) as usize;
        if !(SEALED_HEAD_MIN..=SEALED_HEAD_MAX).contains(&len) {
            return Err(FileError::Head);
        }
        let sealed_head = take!(len);
        let bodies = be(take!(4)) as u32;
        let [bucket, key] = names;
        let preface = Preface { bucket, key, sealed_head, bodies };
        preface.check()?;
        Ok(Decoded::Whole(preface, at))
    }
}

fn check_names(bucket: &str, key: &str) -> Result<(), FileError> {
    let named = |name: &str, max| (1..=max).contains(&name.len());
    if named(bucket, BUCKET_MAX) && named(key, OBJECT_KEY_MAX) { Ok(()) } else { Err(FileError::Name) }
}

/// An output buffer and the length written to it.
struct Output<'o> {
    out: &'o mut [u8],
    len: usize,
}

impl Output<'_> {
    /// Appends `bytes` and returns the slice that holds them.
    fn put(&mut self, bytes: &[u8]) -> Result<&mut [u8], FileError> {
        let rest = self.out.get_mut(self.len..).ok_or(FileError::Room)?;
        let place = rest.get_mut(..bytes.len()).ok_or(FileError::Room)?;
        place.copy_from_slice(bytes);
        self.len += bytes.len();
        Ok(place)
    }

    /// Writes the fields before the object head's length.
    fn put_names(&mut self, bucket: &str, key: &str) -> Result<(), FileError> {
        self.put(&MAGIC)?;
        for name in [bucket, key] {
            self.put(&(name.len() as u16).to_be_bytes())?;
            self.put(name.as_bytes())?;
        }
        Ok(())
    }
}

/// Seals a plaintext in memory as a whole file without metadata, and returns the length written to
/// `out`.
///
/// For a plaintext below [`CHUNK_LEN`], the lengths of plaintext and names plus [`SEAL_OVERHEAD`]
/// suffice. `random` must fill its argument with fresh random bytes; it generates the data key and
/// two salts.
///
/// # Errors
/// [`FileError::Name`], or [`FileError::Room`] if `out` is too short. `out` then holds neither a
/// file nor plaintext.
pub fn seal<E: Engine>(
    engine: &E,
    customer_key: &CustomerKey,
    mut random: impl FnMut(&mut [u8]),
    bucket: &str,
    key: &str,
    plaintext: &[u8],
    out: &mut [u8],
) -> Result<usize, FileError> {
    let mut to = Output { out, len: 0 };
    let mut sealer = put_front(&mut to, engine, customer_key, &mut random, bucket, key, plaintext.len() as u64)?;
    for chunk in plaintext.chunks(CHUNK_LEN) {
        let tag = sealer.seal_next(to.put(chunk)?);
        to.put(&tag)?;
    }
    if !sealer.is_finished() {
        to.put(&sealer.seal_next(&mut []))?;
    }
    Ok(to.len)
}

/// Returns the length before the body's first chunk in a file made by [`seal`], or `None` for
/// invalid names.
pub fn front_len(bucket: &str, key: &str, plaintext_len: u64) -> Option<usize> {
    check_names(bucket, key).ok()?;
    let number_len = match plaintext_len {
        0..24 => 1,
        24..0x100 => 2,
        0x100..0x1_0000 => 3,
        0x1_0000..0x1_0000_0000 => 5,
        _ => 9,
    };
    // `SEAL_OVERHEAD` assumes the longest object head, whose plaintext length takes 9 bytes.
    Some(SEAL_OVERHEAD - TAG_LEN - 9 + number_len + bucket.len() + key.len())
}

/// Seals a plaintext in place, for callers with memory for only one copy, and returns the range of
/// the file.
///
/// `buffer[plaintext]` holds less than [`CHUNK_LEN`] bytes of plaintext. The file begins
/// [`front_len`] bytes before the plaintext and ends [`TAG_LEN`] bytes after it. See [`seal`] for
/// `random`.
///
/// # Errors
/// [`FileError::Name`], [`FileError::TooLong`] for a full chunk or more, and [`FileError::Room`] if
/// `buffer` is too short before or after the plaintext. `buffer` is then unchanged.
pub fn seal_in_place<E: Engine>(
    engine: &E,
    customer_key: &CustomerKey,
    mut random: impl FnMut(&mut [u8]),
    bucket: &str,
    key: &str,
    buffer: &mut [u8],
    plaintext: Range<usize>,
) -> Result<Range<usize>, FileError> {
    let len = plaintext.end.checked_sub(plaintext.start).ok_or(FileError::Room)?;
    if len >= CHUNK_LEN {
        return Err(FileError::TooLong);
    }
    let front_len = front_len(bucket, key, len as u64).ok_or(FileError::Name)?;
    let start = plaintext.start.checked_sub(front_len).ok_or(FileError::Room)?;
    let file = buffer.get_mut(start..).and_then(|rest| rest.get_mut(..front_len + len + TAG_LEN));
    let (front, rest) = file.ok_or(FileError::Room)?.split_at_mut(front_len);
    let (chunk, tag) = rest.split_at_mut(len);
    let mut to = Output { out: front, len: 0 };
    let mut sealer = put_front(&mut to, engine, customer_key, &mut random, bucket, key, len as u64)?;
    tag.copy_from_slice(&sealer.seal_next(chunk));
    Ok(start..start + front_len + len + TAG_LEN)
}

/// Writes everything before the first chunk of an object's only body, and returns its sealer.
fn put_front<E: Engine>(
    to: &mut Output<'_>,
    engine: &E,
    customer_key: &CustomerKey,
    random: &mut dyn FnMut(&mut [u8]),
    bucket: &str,
    key: &str,
    len: u64,
) -> Result<Sealer<E::Aead>, FileError> {
    check_names(bucket, key)?;
    let message_len = message_len(len).ok_or(FileError::TooLong)?;
    let mut data_key = Zeroizing::new([0; KEY_LEN]);
    let mut head_salt = [0; SALT_LEN];
    let mut salt = [0; SALT_LEN];
    random(&mut data_key[..]);
    random(&mut head_salt);
    random(&mut salt);

    to.put_names(bucket, key)?;
    // The length of the object head is known only after it is sealed.
    let before_head = to.len + 4;
    let place = to.out.get_mut(before_head..).ok_or(FileError::Room)?;
    let head = Head { data_key: Some(&data_key), plaintext_length: Some(len), ..Head::default() };
    let head_len = seal_head(engine, customer_key, &head_salt, bucket, key, &head, place);
    let head_len =
        head_len.map_err(|error| if error == HeadError::Name { FileError::Name } else { FileError::Room })?;
    to.put(&(head_len as u32).to_be_bytes())?;
    to.len += head_len;
    to.put(&1u32.to_be_bytes())?;
    to.put(&BodyEntry { part_number: 0, message_len, info_len: 0 }.encode())?;

    let sealer = Sealer::new(engine, &data_key, &salt, &[&context(0)]);
    to.put(&sealer.prefix())?;
    Ok(sealer)
}

/// Decodes a big-endian number of up to 8 bytes.
fn be(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// BodyEntry of one body in the file's table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BodyEntry {
    /// Part number; 0 for the only body of an object without parts.
    pub part_number: u32,
    /// Length of the body's message, in bytes.
    pub message_len: u64,
    /// Length of the part info in bytes; 0 if absent.
    pub info_len: u32,
}

impl BodyEntry {
    /// Encodes the entry.
    pub fn encode(&self) -> [u8; ENTRY_LEN] {
        let mut bytes = [0; ENTRY_LEN];
        bytes[..4].copy_from_slice(&self.part_number.to_be_bytes());
        bytes[4..12].copy_from_slice(&self.message_len.to_be_bytes());
        bytes[12..].copy_from_slice(&self.info_len.to_be_bytes());
        bytes
    }

    /// Decodes an entry without validation; [`Layout::push`] checks it.
    pub fn decode(bytes: &[u8; ENTRY_LEN]) -> BodyEntry {
        BodyEntry {
            part_number: be(&bytes[..4]) as u32,
            message_len: be(&bytes[4..12]),
            info_len: be(&bytes[12..]) as u32,
        }
    }
}

/// Validates the entries of a file in order, and sums their lengths.
///
/// ```
/// use keyhole_core::chunked::message_len;
/// use keyhole_core::file::{BodyEntry, Layout};
///
/// let mut layout = Layout::new(1);
/// layout.push(&BodyEntry { part_number: 0, message_len: message_len(16).unwrap(), info_len: 0 })?;
/// assert_eq!(layout.finish()?.plaintext_len, 16);
/// # Ok::<(), keyhole_core::file::FileError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layout {
    bodies: u32,
    seen: u32,
    last_number: u32,
    totals: Totals,
}

/// Lengths of the content that follows the table of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Totals {
    /// Length of all part infos, in bytes.
    pub infos_len: u64,
    /// Length of all messages, in bytes.
    pub messages_len: u64,
    /// Length of the plaintext in the messages, in bytes.
    pub plaintext_len: u64,
}

impl Totals {
    /// Returns the length of the whole file in bytes. Exact for sums of a [`Layout`]; others
    /// saturate.
    pub fn file_len(&self, preface: &Preface<'_>) -> u64 {
        let table = u64::from(preface.bodies) * ENTRY_LEN as u64;
        let content = self.infos_len.saturating_add(self.messages_len);
        content.saturating_add(table).saturating_add(preface.encoded_len() as u64)
    }
}

impl Layout {
    /// Creates the layout of a file with `bodies` entries, none of them read yet.
    pub fn new(bodies: u32) -> Self {
        Layout { bodies, seen: 0, last_number: 0, totals: Totals::default() }
    }

    /// Validates and adds the next entry.
    ///
    /// # Errors
    /// [`FileError`] if the entry is invalid at this position.
    pub fn push(&mut self, entry: &BodyEntry) -> Result<(), FileError> {
        if self.seen >= self.bodies {
            return Err(FileError::Bodies);
        }
        let is_whole = entry.part_number == 0 && self.bodies == 1;
        let ascends = entry.part_number > self.last_number && entry.part_number <= PART_NUMBER_MAX;
        if !is_whole && !ascends {
            return Err(FileError::PartNumber);
        }
        let info_possible = SEALED_HEAD_MIN..=crate::body::PART_INFO_MAX;
        if entry.info_len != 0 && (is_whole || !info_possible.contains(&(entry.info_len as usize))) {
            return Err(FileError::PartInfo);
        }
        let plaintext = plaintext_len(entry.message_len).ok_or(FileError::BodyLength)?;
        let sum = |a: u64, b: u64| a.checked_add(b).filter(|sum| *sum <= FILE_CONTENT_MAX).ok_or(FileError::TooLong);
        let totals = Totals {
            infos_len: sum(self.totals.infos_len, entry.info_len.into())?,
            messages_len: sum(self.totals.messages_len, entry.message_len)?,
            plaintext_len: sum(self.totals.plaintext_len, plaintext)?,
        };
        sum(totals.infos_len, totals.messages_len)?;
        self.totals = totals;
        self.last_number = entry.part_number;
        self.seen += 1;
        Ok(())
    }

    /// Returns the sums, after all entries were added.
    ///
    /// # Errors
    /// [`FileError::Bodies`] if entries are missing.
    pub fn finish(&self) -> Result<Totals, FileError> {
        if self.seen == self.bodies && self.seen > 0 { Ok(self.totals) } else { Err(FileError::Bodies) }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec;
    use std::vec::Vec;

    use super::*;
    use crate::chunked::message_len;

    fn preface(bucket: &str, key: &str, head_len: usize, bodies: u32) -> Result<Vec<u8>, FileError> {
        let head = vec![7; head_len];
        let preface = Preface { bucket, key, sealed_head: &head, bodies };
        let mut out = vec![0; PREFACE_MAX + 2000];
        let len = preface.encode(&mut out)?;
        assert_eq!(len, preface.encoded_len());
        out.truncate(len);
        Ok(out)
    }

    #[test]
    fn preface_fields_are_accepted_up_to_their_limits() {
        let name = |len: usize| "n".repeat(len);
        for (bucket, key, head, bodies, expected) in [
            (1, 1, 72, 1, Ok(())),
            (63, 1024, SEALED_HEAD_MAX, 10_000, Ok(())),
            (0, 1, 72, 1, Err(FileError::Name)),
            (64, 1, 72, 1, Err(FileError::Name)),
            (1, 0, 72, 1, Err(FileError::Name)),
            (1, 1025, 72, 1, Err(FileError::Name)),
            (1, 1, 71, 1, Err(FileError::Head)),
            (1, 1, SEALED_HEAD_MAX + 1, 1, Err(FileError::Head)),
            (1, 1, 72, 0, Err(FileError::Bodies)),
            (1, 1, 72, 10_001, Err(FileError::Bodies)),
        ] {
            let written = preface(&name(bucket), &name(key), head, bodies);
            assert_eq!(
                written.as_ref().map(|_| ()).map_err(|error| *error),
                expected,
                "{bucket} {key} {head} {bodies}"
            );
            // Decoding rejects whatever encoding rejects.
            let mut bytes = MAGIC.to_vec();
            for len in [bucket, key] {
                bytes.extend_from_slice(&(len as u16).to_be_bytes());
                bytes.extend_from_slice(name(len).as_bytes());
            }
            bytes.extend_from_slice(&(head as u32).to_be_bytes());
            bytes.extend_from_slice(&vec![7; head]);
            bytes.extend_from_slice(&bodies.to_be_bytes());
            match (Preface::decode(&bytes), written) {
                (Ok(Decoded::Whole(read, len)), Ok(written)) => {
                    assert_eq!((len, &bytes), (bytes.len(), &written));
                    assert_eq!((read.bucket.len(), read.key.len(), read.bodies), (bucket, key, bodies));
                }
                (Err(read), Err(written)) => assert_eq!(read, written),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(preface(&name(63), &name(1024), SEALED_HEAD_MAX, 1).unwrap().len(), PREFACE_MAX);
    }

    #[test]
    fn incomplete_preface_returns_the_needed_length() {
        let bytes = preface("bucket", "a/key", 100, 3).unwrap();
        for len in 0..bytes.len() {
            match Preface::decode(&bytes[..len]).unwrap() {
                Decoded::Needs(needed) => assert!(len < needed && needed <= bytes.len(), "{needed} at {len}"),
                Decoded::Whole(..) => panic!("whole at {len} of {}", bytes.len()),
            }
        }
        assert_eq!(Preface::decode(b"KEYHOLE2"), Err(FileError::Magic));
        assert_eq!(Preface::decode(b"PK"), Err(FileError::Magic));
        let mut latin1 = bytes;
        latin1[10] = 0xe9;
        assert_eq!(Preface::decode(&latin1), Err(FileError::Name));
        let mut small = [0; 10];
        let whole = Preface { bucket: "b", key: "k", sealed_head: &[0; 72], bodies: 1 };
        assert_eq!(whole.encode(&mut small), Err(FileError::Room));
    }

    #[test]
    fn file_length_saturates() {
        let head = vec![7; SEALED_HEAD_MAX];
        let bucket = "b".repeat(BUCKET_MAX);
        let key = "k".repeat(OBJECT_KEY_MAX);
        let preface = Preface { bucket: &bucket, key: &key, sealed_head: &head, bodies: BODIES_MAX };
        let content = |infos_len, messages_len| Totals { infos_len, messages_len, plaintext_len: 0 };
        let front = PREFACE_MAX as u64 + u64::from(BODIES_MAX) * ENTRY_LEN as u64;
        assert_eq!(content(80, FILE_CONTENT_MAX - 80).file_len(&preface), FILE_CONTENT_MAX + front);
        assert!(i64::try_from(FILE_CONTENT_MAX + front).is_ok(), "an offset in a file");
        assert_eq!(content(u64::MAX, u64::MAX).file_len(&preface), u64::MAX);
    }

    #[test]
    fn body_entries_are_accepted_or_rejected() {
        let message = |len| message_len(len).unwrap();
        let entry = |part_number, message_len, info_len| BodyEntry { part_number, message_len, info_len };
        let check = |entries: &[BodyEntry], expected: Result<u64, FileError>| {
            let mut layout = Layout::new(entries.len() as u32);
            let pushed = entries.iter().try_for_each(|entry| {
                assert_eq!(BodyEntry::decode(&entry.encode()), *entry);
                layout.push(entry)
            });
            let plaintext = pushed.and_then(|()| layout.finish()).map(|totals| totals.plaintext_len);
            assert_eq!(plaintext, expected, "{entries:?}");
        };
        check(&[entry(0, 72, 0)], Ok(0));
        check(&[entry(1, message(5), 80), entry(10_000, message(70_000), 0)], Ok(70_005));
        check(&[], Err(FileError::Bodies));
        check(&[entry(0, 72, 0), entry(1, 72, 0)], Err(FileError::PartNumber));
        check(&[entry(2, 72, 0), entry(2, 72, 0)], Err(FileError::PartNumber));
        check(&[entry(2, 72, 0), entry(1, 72, 0)], Err(FileError::PartNumber));
        check(&[entry(10_001, 72, 0)], Err(FileError::PartNumber));
        check(&[entry(0, 71, 0)], Err(FileError::BodyLength));
        check(&[entry(0, 72, 80)], Err(FileError::PartInfo));
        check(&[entry(1, 72, 71)], Err(FileError::PartInfo));
        check(&[entry(1, 72, crate::body::PART_INFO_MAX as u32 + 1)], Err(FileError::PartInfo));
        // The longest possible messages, and one that fills the file up to the limit: with a part
        // info, then one byte more.
        let most = message(((1 << 38) - 1) * 16_384);
        let many: Vec<BodyEntry> = (1..=FILE_CONTENT_MAX / most).map(|number| entry(number as u32, most, 0)).collect();
        let filling = FILE_CONTENT_MAX - many.len() as u64 * most;
        let with = |last: BodyEntry| [&many[..], &[last]].concat();
        let sum = many.len() as u64 * plaintext_len(most).unwrap();
        check(&many, Ok(sum));
        check(&with(entry(5000, filling, 0)), Ok(sum + plaintext_len(filling).unwrap()));
        check(&with(entry(5000, filling + 1, 0)), Err(FileError::TooLong));
        check(&with(entry(5000, filling - 80, 80)), Ok(sum + plaintext_len(filling - 80).unwrap()));
        check(&with(entry(5000, filling - 80, 81)), Err(FileError::TooLong));
        check(&with(entry(5000, most, 0)), Err(FileError::TooLong));
        let many: Vec<BodyEntry> = (1..=5000).map(|number| entry(number, most, 0)).collect();
        check(&many, Err(FileError::TooLong));
        check(&many[..4093], Err(FileError::TooLong));
        let mut layout = Layout::new(2);
        layout.push(&entry(1, 72, 0)).unwrap();
        assert_eq!(layout.finish(), Err(FileError::Bodies));
        layout.push(&entry(2, 72, 0)).unwrap();
        assert_eq!(layout.push(&entry(3, 72, 0)), Err(FileError::Bodies));
    }
}
