//! A simulation of the log on faulty media: many short lives, each determined by its seed.
//!
//! It runs the production engine, which is generic over [`Disk`](keyhole_log::Disk), on a
//! [`SimDisk`](disk::SimDisk) with a seeded executor and virtual time, under clients that race for
//! a few names. It compares every answer with a [`Model`](model::Model) of the possible states, and
//! audits the whole store after every crash.
//!
//! - [`life`](life()): one life. [`lives`]: many, on several threads.
//! - [`exhaustive`]: every short sequence of operations, with every crash and every failed I/O.
//! - `KEYHOLE_SEED=n cargo run --release -p keyhole-sim` repeats one life and prints its events.
//! - `--features small-limits` gives the engine small limits: checkpoints of many records, maps of
//!   many nodes.
//! - `crates/keyhole-sim/mutants/run` reports the mutants of the engine that the lives and the
//!   engine's tests kill.
//!
//! # Invariants
//! - A life follows from its seed alone: it depends on no clock, thread or hash table order.
//! - The medium never does anything that FORMAT.md, section 7, excludes.
//! - Every panic and every deadlock is a failure with a seed.
#![forbid(unsafe_code)]

pub mod content;
pub mod disk;
pub mod executor;
pub mod exhaustive;
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
