//! Keys in memory.

use core::fmt;

use md5::{Digest, Md5};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::limits::KEY_LEN;

macro_rules! secret_key {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Zeroize, ZeroizeOnDrop)]
        pub struct $name([u8; KEY_LEN]);

        impl $name {
            /// Takes the bytes of a key. The caller wipes its own copy.
            pub fn new(bytes: [u8; KEY_LEN]) -> Self {
                Self(bytes)
            }

            /// The bytes of the key, for a cipher or a key derivation; never for a log, an error or a disk.
            pub fn expose(&self) -> &[u8; KEY_LEN] {
                &self.0
            }
        }

        /// In constant time.
        impl PartialEq for $name {
            fn eq(&self, other: &Self) -> bool {
                self.0.ct_eq(&other.0).into()
            }
        }

        impl Eq for $name {}

        /// Shows that there is a key, not which.
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(redacted)"))
            }
        }
    };
}

secret_key! {
    /// The key that a client brings with a request, and that lives no longer than the request. It seals heads, never data.
    CustomerKey
}

secret_key! {
    /// The random key of one object, or of one multipart upload: it seals bodies, and exists at rest only inside the sealed
    /// head.
    DataKey
}

impl CustomerKey {
    /// The MD5 of the key, which SSE-C has clients send along to find typing errors (RFC 1321). It identifies the key to
    /// who can guess it, so it goes to the client that sent the key and nowhere else.
    pub fn md5(&self) -> [u8; 16] {
        // As a slice: an array given by value would leave a copy of the key behind.
        Md5::digest(self.0.as_slice()).into()
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::format;

    use super::*;

    #[test]
    fn debug_shows_no_byte_of_a_key() {
        assert_eq!(format!("{:?}", CustomerKey::new([0xab; 32])), "CustomerKey(redacted)");
        assert_eq!(format!("{:?}", DataKey::new([0xab; 32])), "DataKey(redacted)");
    }

    #[test]
    fn equality_looks_at_every_byte() {
        for i in 0..KEY_LEN {
            let mut other = [7; KEY_LEN];
            other[i] ^= 1;
            assert_ne!(CustomerKey::new([7; KEY_LEN]), CustomerKey::new(other));
        }
        assert_eq!(CustomerKey::new([7; KEY_LEN]), CustomerKey::new([7; KEY_LEN]));
    }

    #[test]
    fn zeroize_wipes_every_byte() {
        let mut key = CustomerKey::new([7; KEY_LEN]);
        key.zeroize();
        assert_eq!(key.expose(), &[0; KEY_LEN]);
    }
}
