//! Engines of `keyhole-core` on AES peripherals. GHASH is done in software by all of them.
//!
//! | module | peripheral | through | what it does | where it has run |
//! |---|---|---|---|---|
//! | `stm32` | STM32 CRYP (F4, F7, H7, ...) | embassy-stm32 | counter mode | compiled for `stm32f439zi`, never run |
//! | `stm32` | STM32 AES (H5, WBA, ...) | embassy-stm32 | counter mode | compiled for `stm32h573zi`, never run |
//! | `stm32::saes` | STM32 SAES (H5, WBA, ...) | embassy-stm32 | blocks | compiled for `stm32h573zi`, never run |
//! | `esp` | ESP32-C6 AES | esp-hal | blocks | compiled for `esp32c6`, never run |
//! | [`registers`] | the same, without esp-hal | its registers | blocks | against a model of the registers, on the host |
//!
//! **None of them has run on silicon.** Before the first key goes in, run `keyhole_core::suite::run` on the chip: it finds
//! every byte that is not as it should be. The drivers could do all of GCM; they are asked for counter mode or blocks alone,
//! which leaves least to go wrong that nobody has seen go right.
//!
//! A peripheral is exclusive. An engine here is a *reference* to it: `file::seal(&&peripheral, ...)`, or whatever else takes
//! an engine; each call takes the peripheral and leaves no key in it where the driver lets it.
#![cfg_attr(not(test), no_std)]

pub mod blocks;
#[cfg(feature = "esp32c6")]
pub mod esp;
pub mod registers;
pub mod shared;
#[cfg(any(feature = "stm32-cryp", feature = "stm32-aes", feature = "stm32-saes"))]
pub mod stm32;
