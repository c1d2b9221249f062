//! The AES accelerator of the ESP32-C3, C6 and H2 through its registers, in its mode "typical AES"
//! (ESP32-C6 Technical Reference Manual, chapter "AES Accelerator"). For use without esp-hal; the
//! clock of the accelerator must be enabled.

use keyhole_core::aead::BLOCK_LEN;
use keyhole_core::limits::KEY_LEN;

use crate::blocks::Blocks;

/// Byte offsets of the registers.
pub mod offset {
    /// Eight words of key.
    pub const KEY: usize = 0x00;
    /// Four words of input.
    pub const TEXT_IN: usize = 0x20;
    /// Four words of output.
    pub const TEXT_OUT: usize = 0x30;
    /// Key length and direction.
    pub const MODE: usize = 0x40;
    /// Write 1 to start.
    pub const TRIGGER: usize = 0x48;
    /// 0 when idle.
    pub const STATE: usize = 0x4c;
    /// 0: typical AES.
    pub const DMA_ENABLE: usize = 0x90;
}

/// `MODE`: encrypt with a key of 256 bits.
pub const ENCRYPT_256: u32 = 2;

/// Access to registers.
pub trait Registers {
    /// Reads the word at a byte offset.
    fn read(&mut self, offset: usize) -> u32;

    /// Writes the word at a byte offset.
    fn write(&mut self, offset: usize, value: u32);
}

/// Memory-mapped registers.
pub struct Mapped(*mut u32);

impl Mapped {
    /// Creates access to the registers from an address on: 0x6008_8000 on the ESP32-C6.
    ///
    /// # Safety
    /// The address must be that of an AES accelerator's registers, and nothing else may use them.
    pub unsafe fn new(address: usize) -> Self {
        Mapped(address as *mut u32)
    }
}

impl Registers for Mapped {
    fn read(&mut self, offset: usize) -> u32 {
        // SAFETY: guaranteed by the caller of `new`; offsets are those of this module.
        unsafe { self.0.byte_add(offset).read_volatile() }
    }

    fn write(&mut self, offset: usize, value: u32) {
        // SAFETY: as above.
        unsafe { self.0.byte_add(offset).write_volatile(value) };
    }
}

/// The accelerator.
pub struct Accelerator<R>(R);

impl<R: Registers> Accelerator<R> {
    /// Takes the accelerator and selects the mode without DMA.
    pub fn new(mut registers: R) -> Self {
        registers.write(offset::DMA_ENABLE, 0);
        Accelerator(registers)
    }

    /// Writes words, which are little-endian.
    fn write(&mut self, offset: usize, bytes: &[u8]) {
        for (i, word) in bytes.as_chunks().0.iter().enumerate() {
            self.0.write(offset + 4 * i, u32::from_le_bytes(*word));
        }
    }
}

impl<R: Registers> Blocks for Accelerator<R> {
    fn load(&mut self, key: &[u8; KEY_LEN]) {
        self.write(offset::KEY, key);
        self.0.write(offset::MODE, ENCRYPT_256);
    }

    fn encrypt(&mut self, block: &mut [u8; BLOCK_LEN]) {
        self.write(offset::TEXT_IN, block);
        self.0.write(offset::TRIGGER, 1);
        while self.0.read(offset::STATE) != 0 {}
        for (i, word) in block.as_chunks_mut().0.iter_mut().enumerate() {
            *word = self.0.read(offset::TEXT_OUT + 4 * i).to_le_bytes();
        }
    }

    fn forget(&mut self) {
        self.write(offset::KEY, &[0; KEY_LEN]);
        // Overwrite the last block of key stream, which is secret too.
        self.encrypt(&mut [0; BLOCK_LEN]);
    }
}

#[cfg(test)]
mod tests {
    use aes::Aes256;
    use aes::cipher::{BlockCipherEncrypt, KeyInit};
    use keyhole_core::CustomerKey;
    use keyhole_core::aead::Portable;
    use keyhole_core::{file, suite};

    use super::*;
    use crate::blocks::ByBlock;
    use crate::shared::Peripheral;

    /// A model of the accelerator: registers, a busy state, and checks for misuse by the driver.
    struct Model {
        words: [u32; 0x28],
        busy: u32,
        blocks: usize,
    }

    impl Model {
        fn new() -> Self {
            Model { words: [0; 0x28], busy: 0, blocks: 0 }
        }

        fn bytes<const N: usize>(&self, offset: usize) -> [u8; N] {
            core::array::from_fn(|i| self.words[(offset + i) / 4].to_le_bytes()[i % 4])
        }
    }

    impl Registers for &mut Model {
        fn read(&mut self, offset: usize) -> u32 {
            match offset {
                offset::STATE => {
                    self.busy = self.busy.saturating_sub(1);
                    u32::from(self.busy > 0)
                }
                offset::TEXT_OUT..offset::MODE => {
                    assert_eq!(self.busy, 0, "read while it works");
                    self.words[offset / 4]
                }
                _ => panic!("nothing reads {offset:#x}"),
            }
        }

        fn write(&mut self, offset: usize, value: u32) {
            assert_eq!(self.busy, 0, "written while it works");
            match offset {
                offset::TRIGGER => {
                    assert_eq!((value, self.words[offset::MODE / 4]), (1, ENCRYPT_256));
                    assert_eq!(self.words[offset::DMA_ENABLE / 4], 0);
                    let mut block = self.bytes::<16>(offset::TEXT_IN).into();
                    Aes256::new(&self.bytes::<32>(offset::KEY).into()).encrypt_block(&mut block);
                    for (i, word) in block.as_chunks().0.iter().enumerate() {
                        self.words[offset::TEXT_OUT / 4 + i] = u32::from_le_bytes(*word);
                    }
                    self.busy = 5;
                    self.blocks += 1;
                }
                offset::KEY..offset::TEXT_OUT | offset::MODE | offset::DMA_ENABLE => self.words[offset / 4] = value,
                _ => panic!("nothing writes {offset:#x}"),
            }
        }
    }

    #[test]
    fn register_model_passes_the_suite() {
        let mut model = Model::new();
        model.words[offset::DMA_ENABLE / 4] = 1;
        let peripheral = Peripheral::new(ByBlock(Accelerator::new(&mut model)));
        suite::run(&&peripheral, &mut vec![0; suite::SCRATCH_LEN]).unwrap();
        assert!(model.blocks > 10_000, "the model was used");
        assert_eq!(model.bytes::<32>(offset::KEY), [0; 32], "no key stays behind");
    }

    #[test]
    fn files_match_the_portable_engine() {
        let mut model = Model::new();
        let peripheral = Peripheral::new(ByBlock(Accelerator::new(&mut model)));
        let key = CustomerKey::new([7; 32]);
        let mut a = [0; 512];
        let mut b = [0; 512];
        let random = |bytes: &mut [u8]| bytes.fill(9);
        let a_len = file::seal(&&peripheral, &key, random, "edge", "a", b"temperature 21.5", &mut a).unwrap();
        let b_len = file::seal(&Portable, &key, random, "edge", "a", b"temperature 21.5", &mut b).unwrap();
        assert_eq!(a[..a_len], b[..b_len]);
    }
}
