//! Customer keys and data keys in memory.

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
            /// Wraps the bytes of a key. The caller wipes its own copy.
            pub fn new(bytes: [u8; KEY_LEN]) -> Self {
                Self(bytes)
            }

            /// Returns the bytes of the key, for ciphers and key derivation only; never log or
            /// store them.
            pub fn expose(&self) -> &[u8; KEY_LEN] {
                &self.0
            }
        }

        /// Compares in constant time.
        impl PartialEq for $name {
            fn eq(&self, other: &Self) -> bool {
                self.0.ct_eq(&other.0).into()
            }
        }

        impl Eq for $name {}

        /// Prints the type name without the key.
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(redacted)"))
            }
        }
    };
}

secret_key! {
    /// A key that a client sends with a request; it is dropped with the request. Seals object
    /// heads, never data.
    ///
    /// ```
    /// use keyhole_core::CustomerKey;
    ///
    /// let key = CustomerKey::new([7; 32]);
    /// assert_eq!(format!("{key:?}"), "CustomerKey(redacted)");
    /// assert_ne!(key, CustomerKey::new([8; 32]));
    /// ```
    CustomerKey
}

secret_key! {
    /// The random key of one object or multipart upload. Seals bodies; at rest it exists only
    /// inside the sealed object head.
    DataKey
}

impl CustomerKey {
    /// Returns the MD5 of the key (RFC 1321), which SSE-C clients send to detect typing errors.
    ///
    /// The digest identifies the key to anyone who can guess it, so return it only to the client
    /// that sent the key.
    pub fn md5(&self) -> [u8; 16] {
        // Pass a slice: an array passed by value would leave a copy of the key on the stack.
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
