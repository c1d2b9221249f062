//! A reading and its sealed object file, in one buffer.

use core::fmt;
use core::ops::Range;

use keyhole_core::CustomerKey;
use keyhole_core::aead::Engine;
use keyhole_core::file::{FileError, SEAL_OVERHEAD, seal_in_place};
use keyhole_core::limits::{BUCKET_MAX, CHUNK_LEN, OBJECT_KEY_MAX, TAG_LEN};

/// A buffer to be filled with a reading, which is sealed in place. It must hold the longest
/// reading, the bucket and key name, and [`SEAL_OVERHEAD`].
pub struct Package<'b> {
    buffer: &'b mut [u8],
    bucket: &'b str,
    key: &'b str,
    front: usize,
}

/// Error sealing a reading.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum PackageError {
    /// Bucket or key name is empty or exceeds the limit of S3.
    Name,
    /// The buffer has no space for a reading.
    Room,
    /// The reading is longer than [`Package::room`].
    TooLong,
}

impl fmt::Display for PackageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PackageError::Name => "bucket names have 1 to 63 bytes, key names 1 to 1024",
            PackageError::Room => "the buffer is too short: give it the reading, both names and SEAL_OVERHEAD bytes",
            PackageError::TooLong => "the reading is longer than its room",
        })
    }
}

impl core::error::Error for PackageError {}

impl<'b> Package<'b> {
    /// Creates an empty package for an object name.
    ///
    /// # Errors
    /// [`PackageError::Name`], [`PackageError::Room`].
    pub fn new(buffer: &'b mut [u8], bucket: &'b str, key: &'b str) -> Result<Self, PackageError> {
        if !(1..=BUCKET_MAX).contains(&bucket.len()) || !(1..=OBJECT_KEY_MAX).contains(&key.len()) {
            return Err(PackageError::Name);
        }
        let front = SEAL_OVERHEAD - TAG_LEN + bucket.len() + key.len();
        if buffer.len() <= front + TAG_LEN {
            return Err(PackageError::Room);
        }
        Ok(Package { buffer, bucket, key, front })
    }

    fn place(&self) -> Range<usize> {
        self.front..(self.buffer.len() - TAG_LEN).min(self.front + CHUNK_LEN - 1)
    }

    /// Returns the space for the reading, to be filled from the start. It is shorter than
    /// [`CHUNK_LEN`], since the file has one chunk.
    pub fn room(&mut self) -> &mut [u8] {
        let place = self.place();
        &mut self.buffer[place]
    }

    /// Seals the first `len` bytes of the [`room`](Self::room) and returns the sealed object file.
    /// `random` must fill its argument with fresh random bytes, for the data key and two salts:
    /// repeated bytes disclose readings.
    ///
    /// # Errors
    /// [`PackageError::TooLong`].
    pub fn seal<E: Engine>(
        self,
        engine: &E,
        customer_key: &CustomerKey,
        random: impl FnMut(&mut [u8]),
        len: usize,
    ) -> Result<&'b [u8], PackageError> {
        let place = self.place();
        if len > place.len() {
            return Err(PackageError::TooLong);
        }
        let plaintext = place.start..place.start + len;
        let sealed = seal_in_place(engine, customer_key, random, self.bucket, self.key, self.buffer, plaintext);
        match sealed {
            Ok(file) => Ok(&self.buffer[file]),
            Err(FileError::Name) => Err(PackageError::Name),
            Err(_) => Err(PackageError::Room),
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::{vec, vec::Vec};

    use keyhole_core::aead::Portable;
    use keyhole_core::file;

    use super::*;

    fn random() -> impl FnMut(&mut [u8]) {
        let mut next = 0;
        move |out: &mut [u8]| {
            for byte in out {
                next += 1;
                *byte = next;
            }
        }
    }

    #[test]
    fn sealing_in_place_matches_sealing_at_once() {
        let customer_key = CustomerKey::new([7; 32]);
        for len in [0, 1, 23, 24, 255, 256, 4096, CHUNK_LEN - 1] {
            let reading: Vec<u8> = (0..len).map(|i| i as u8).collect();
            let mut expected = vec![0; len + SEAL_OVERHEAD + 5];
            let expected_len =
                file::seal(&Portable, &customer_key, random(), "b", "name", &reading, &mut expected).unwrap();
            let mut buffer = vec![0; len.max(1) + SEAL_OVERHEAD + 5];
            let mut package = Package::new(&mut buffer, "b", "name").unwrap();
            package.room()[..len].copy_from_slice(&reading);
            let sealed = package.seal(&Portable, &customer_key, random(), len).unwrap();
            assert!(sealed == &expected[..expected_len], "{len}");
        }
    }

    #[test]
    fn oversized_reading_is_rejected() {
        let mut buffer = [0; SEAL_OVERHEAD + 5];
        assert_eq!(Package::new(&mut buffer, "b", "name").err(), Some(PackageError::Room));
        assert_eq!(Package::new(&mut buffer, "", "name").err(), Some(PackageError::Name));
        let mut package = Package::new(&mut buffer, "b", "nam").unwrap();
        assert_eq!(package.room().len(), 1);
        let sealed = package.seal(&Portable, &CustomerKey::new([7; 32]), random(), 2);
        assert_eq!(sealed.err(), Some(PackageError::TooLong));
    }
}
