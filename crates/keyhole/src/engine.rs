//! The selectable AES engines: the accelerated one, and the portable one of `keyhole-core`.

mod accelerated;

use keyhole_core::NotAuthentic;
use keyhole_core::aead::{Aead, BLOCK_LEN, Engine, Portable, PortableAead};
use keyhole_core::limits::{KEY_LEN, NONCE_LEN, TAG_LEN};

use accelerated::{Accelerated, AcceleratedAead};

/// The engine selected at start.
#[derive(Clone, Copy, Debug)]
pub(crate) enum AnyEngine {
    Accelerated,
    Portable,
}

impl Engine for AnyEngine {
    type Aead = AnyAead;

    fn aead(&self, key: &[u8; KEY_LEN]) -> AnyAead {
        match self {
            AnyEngine::Accelerated => AnyAead::Accelerated(Accelerated.aead(key)),
            AnyEngine::Portable => AnyAead::Portable(Portable.aead(key)),
        }
    }
}

/// The AEAD of the selected engine.
// There is one for each request, in the request's own memory: a box would add an allocation.
#[allow(clippy::large_enum_variant)]
pub(crate) enum AnyAead {
    Accelerated(AcceleratedAead),
    Portable(PortableAead),
}

impl Aead for AnyAead {
    fn xor_key_stream(&mut self, counter: &[u8; BLOCK_LEN], data: &mut [u8]) {
        match self {
            AnyAead::Accelerated(aead) => aead.xor_key_stream(counter, data),
            AnyAead::Portable(aead) => aead.xor_key_stream(counter, data),
        }
    }

    fn seal(&mut self, nonce: &[u8; NONCE_LEN], data: &mut [u8]) -> [u8; TAG_LEN] {
        match self {
            AnyAead::Accelerated(aead) => aead.seal(nonce, data),
            AnyAead::Portable(aead) => aead.seal(nonce, data),
        }
    }

    fn open(&mut self, nonce: &[u8; NONCE_LEN], data: &mut [u8], tag: &[u8; TAG_LEN]) -> Result<(), NotAuthentic> {
        match self {
            AnyAead::Accelerated(aead) => aead.open(nonce, data, tag),
            AnyAead::Portable(aead) => aead.open(nonce, data, tag),
        }
    }
}

#[cfg(test)]
#[path = "../../keyhole-core/tests/vectors/checks.rs"]
mod checks;

#[cfg(test)]
mod tests {
    use keyhole_core::suite;

    use super::*;

    #[test]
    fn suite_passes_on_each_engine() {
        let mut scratch = vec![0; suite::SCRATCH_LEN];
        suite::run(&Accelerated, &mut scratch).unwrap();
        suite::run(&AnyEngine::Accelerated, &mut scratch).unwrap();
        suite::run(&AnyEngine::Portable, &mut scratch).unwrap();
    }

    #[test]
    fn vectors_pass_on_accelerated_engine() {
        checks::all(&Accelerated);
    }
}
