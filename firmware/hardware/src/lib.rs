//! Engines of `keyhole-core` on AES peripherals. All of them compute GHASH in software.
//!
//! | module | peripheral | driver | mode | tested |
//! |---|---|---|---|---|
//! | `stm32` | STM32 CRYP (F4, F7, H7, ...) | embassy-stm32 | counter mode | compiled for `stm32f439zi`, never run |
//! | `stm32` | STM32 AES (H5, WBA, ...) | embassy-stm32 | counter mode | compiled for `stm32h573zi`, never run |
//! | `stm32::saes` | STM32 SAES (H5, WBA, ...) | embassy-stm32 | blocks | compiled for `stm32h573zi`, never run |
//! | `esp` | ESP32-C6 AES | esp-hal | blocks | compiled for `esp32c6`, never run |
//! | [`registers`] | ESP32-C3, C6 and H2 AES | its registers | blocks | against a model of the registers, on the host |
//!
//! **None of them has run on silicon.** Before you use a key, run `keyhole_core::suite::run` on the
//! chip: it finds every wrong byte. The drivers could do all of GCM; only counter mode or single
//! blocks are used, to rely on as little untested hardware as possible.
//!
//! A peripheral is exclusive. An engine here is a *reference* to it: pass `&&peripheral` to
//! `file::seal` or any other function that takes an engine. Each call has exclusive use of the
//! peripheral and leaves no key in it if the driver permits.
#![cfg_attr(not(test), no_std)]

pub mod blocks;
#[cfg(feature = "esp32c6")]
pub mod esp;
pub mod registers;
pub mod shared;
#[cfg(any(feature = "stm32-cryp", feature = "stm32-aes", feature = "stm32-saes"))]
pub mod stm32;
