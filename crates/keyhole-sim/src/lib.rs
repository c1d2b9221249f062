//! A simulation of the log on media that fail: many short lives, each of which follows from its seed.
//!
//! The engine is the one of production: it is generic over [`Disk`](keyhole_log::Disk), and here it runs on a
//! [`SimDisk`](disk::SimDisk), in virtual time, on a seeded executor, under clients that race for the same few names. Every
//! answer is compared with a [`Model`](model::Model) of what is possible, and everything that is there is looked at after every
//! crash.
//!
//! - [`life`](life()): one life. [`lives`]: many, on several threads.
//! - `KEYHOLE_SEED=n cargo run --release -p keyhole-sim` repeats one, and prints what happens in it.
//! - `--features small-limits` gives the engine small limits: checkpoints of many records, maps of many nodes.
//! - `crates/keyhole-sim/mutants/run` tells which mutants of the engine the lives and the engine's tests kill.
//!
//! # Invariants
//! - A life follows from its seed alone: no time, no thread, no order of a hash table is in it.
//! - The medium does nothing that FORMAT.md, section 7, excludes.
//! - Whatever panics, or waits for ever, is a failure with a seed.
#![forbid(unsafe_code)]

pub mod content;
pub mod disk;
pub mod executor;
pub mod life;
pub mod model;
mod panics;
pub mod plan;
pub mod random;
pub mod runner;
pub mod work;

pub use life::{Setup, Tally, life};
pub use plan::Focus;
pub use runner::{Failure, Summary, caught, lives, seeds};
