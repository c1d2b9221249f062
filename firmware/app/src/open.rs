//! Opens a sealed object file in memory, for a device that reads back sealed data.

use core::fmt;
use core::ops::Range;

use keyhole_core::aead::Engine;
use keyhole_core::body::{BindingError, check_whole, context};
use keyhole_core::chunked::Opener;
use keyhole_core::file::{BodyEntry, Decoded, ENTRY_LEN, FileError, Layout, Preface};
use keyhole_core::head::{OpenError, open_head};
use keyhole_core::limits::{CHUNK_LEN, PREFIX_LEN, TAG_LEN};
use keyhole_core::{CustomerKey, DataKey, NotAuthentic};

/// Error opening a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum OpenFileError {
    /// Not a sealed object file.
    File(FileError),
    /// The file belongs to another object.
    Name,
    /// The object has several bodies, or a full chunk or more: too large for a device.
    TooLong,
    /// The object head does not open, most likely because of a wrong key.
    Head(OpenError),
    /// Object head and body do not belong together.
    Binding(BindingError),
    /// Authentication of the body failed.
    NotAuthentic,
}

impl fmt::Display for OpenFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenFileError::File(error) => write!(f, "not a sealed object file: {error}"),
            OpenFileError::Name => f.write_str("the file is that of another object"),
            OpenFileError::TooLong => f.write_str("the object has parts, or 16 KiB and more: open it elsewhere"),
            OpenFileError::Head(error) => write!(f, "the head: {error}"),
            OpenFileError::Binding(error) => error.fmt(f),
            OpenFileError::NotAuthentic => write!(f, "the body: {NotAuthentic}"),
        }
    }
}

impl core::error::Error for OpenFileError {}

impl From<FileError> for OpenFileError {
    fn from(error: FileError) -> Self {
        OpenFileError::File(error)
    }
}

impl From<NotAuthentic> for OpenFileError {
    fn from(_: NotAuthentic) -> Self {
        OpenFileError::NotAuthentic
    }
}

/// Opens a file in place and returns the range of the plaintext. The decrypted object head with the
/// data key stays in the buffer: the caller must wipe it after use.
///
/// # Errors
/// [`OpenFileError`]. In that case the body has not been decrypted.
pub fn open<E: Engine>(
    engine: &E,
    customer_key: &CustomerKey,
    bucket: &str,
    key: &str,
    file: &mut [u8],
) -> Result<Range<usize>, OpenFileError> {
    let Decoded::Whole(preface, preface_len) = Preface::decode(file)? else {
        return Err(FileError::Length.into());
    };
    if (preface.bucket, preface.key) != (bucket, key) {
        return Err(OpenFileError::Name);
    }
    let head_end = preface_len - 4;
    let head_start = head_end - preface.sealed_head.len();
    if preface.bodies != 1 {
        return Err(OpenFileError::TooLong);
    }
    let entry = file[preface_len..].first_chunk::<ENTRY_LEN>().ok_or(FileError::Length)?;
    let entry = BodyEntry::decode(entry);
    let mut layout = Layout::new(1);
    layout.push(&entry)?;
    if layout.finish()?.file_len(&preface) != file.len() as u64 {
        return Err(FileError::Length.into());
    }
    if entry.part_number != 0 || entry.message_len >= (PREFIX_LEN + CHUNK_LEN + TAG_LEN) as u64 {
        return Err(OpenFileError::TooLong);
    }

    let (front, message) = file.split_at_mut(preface_len + ENTRY_LEN);
    let (prefix, rest) = message.split_first_chunk_mut::<PREFIX_LEN>().ok_or(FileError::Length)?;
    let (chunk, tag) = rest.split_last_chunk_mut::<TAG_LEN>().ok_or(FileError::Length)?;
    let head =
        open_head(engine, customer_key, bucket, key, &mut front[head_start..head_end]).map_err(OpenFileError::Head)?;
    check_whole(entry.message_len, &head).map_err(OpenFileError::Binding)?;
    // An object head that opens always has a data key.
    let data_key = DataKey::new(*head.data_key.ok_or(NotAuthentic)?);
    Opener::new(engine, data_key.expose(), prefix, &[&context(0)])?.open_at(0, chunk, tag)?;
    let start = preface_len + ENTRY_LEN + PREFIX_LEN;
    Ok(start..start + chunk.len())
}

#[cfg(test)]
mod tests {
    extern crate std;

    use keyhole_core::aead::Portable;

    use super::*;
    use crate::Package;

    #[test]
    fn sealed_file_opens_unless_modified() {
        let customer_key = CustomerKey::new([7; 32]);
        let mut buffer = [0; 512];
        let mut package = Package::new(&mut buffer, "edge", "a").unwrap();
        package.room()[..16].copy_from_slice(b"temperature 21.5");
        let sealed = package.seal(&Portable, &customer_key, |salt| salt.fill(3), 16).unwrap().to_vec();

        let mut file = sealed.clone();
        let place = open(&Portable, &customer_key, "edge", "a", &mut file).unwrap();
        assert_eq!(&file[place], b"temperature 21.5");
        assert_eq!(open(&Portable, &customer_key, "edge", "b", &mut sealed.clone()), Err(OpenFileError::Name));
        let other = open(&Portable, &CustomerKey::new([8; 32]), "edge", "a", &mut sealed.clone());
        assert_eq!(other, Err(OpenFileError::Head(OpenError::NotAuthentic)));
        for at in 0..sealed.len() {
            let mut file = sealed.clone();
            file[at] ^= 1;
            assert!(open(&Portable, &customer_key, "edge", "a", &mut file).is_err(), "damaged at {at}");
            let mut file = sealed[..at].to_vec();
            assert!(open(&Portable, &customer_key, "edge", "a", &mut file).is_err(), "cut at {at}");
        }
    }
}
