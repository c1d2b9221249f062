//! A log-structured object file, generic over the disk.
//!
//! [`create`] makes one, [`open()`] recovers what is in it after whatever happened, and [`worker`] gives each thread a
//! [`Log`] to work with and the [`Writer`] that owns the thread's writes. Every byte on disk is described in [`format`](mod@format).
//!
//! # Invariants
//! - What was acknowledged with [`Sync::Always`] is durable. What was not is whole or absent after a crash.
//! - Nothing acknowledged is written over, and no offset is given out twice.
//! - A request that is given up changes nothing in flight: writes belong to the [`Writer`].
//! - A failed write or sync poisons the log; what can be verified is still read.
//! - A log that is open for reading alone writes nothing: not at the opening, not later.
//! - Every byte that is read is verified, each time.
//! - No clock, randomness, file or runtime is in here: time comes in arguments, storage through [`Disk`].
#![forbid(unsafe_code)]

pub mod limits;

mod begin;
mod body;
mod check;
mod commit;
mod disk;
mod error;
mod index;
mod locks;
mod log;
mod maintain;
mod numbers;
mod recover;
mod sabotage;
mod segments;
mod shared;
mod sorted;
mod stats;
mod types;
mod wire;
mod writer;

#[doc = include_str!("../FORMAT.md")]
pub mod format {}

pub use body::{BodyWriter, LastBlock, NewBody};
pub use check::{CheckOptions, Finding, Report, Verdict, check};
pub use disk::{Disk, Extent};
pub use error::{Damage, Error, FailedWrite};
#[doc(hidden)]
pub use index::LiveMismatch;
pub use log::{Body, Log, OpenBlock, ScrubCursor, ScrubStep, Tags, worker};
pub use maintain::{Compacted, Maintenance, maintenance};
pub use recover::{Format, Identity, OpenOptions, Recovery, create, estimate_index, identity, open};
#[cfg(feature = "sabotage")]
pub use sabotage::{Sabotage, sabotage};
pub use shared::{Activity, Shared, Sync, Usage};
pub use stats::{
    BatchHistogram, CleanerStats, SegmentCounts, SegmentKind, SegmentStat, SegmentState, Stats, Syncs, Written,
};
pub use types::{
    BodyId, BucketInfo, BucketSettings, BucketUsage, CompleteUpload, Condition, Content, CreateUpload, Etag,
    ListObjects, ListUploads, Listed, ListedUpload, Listing, Object, ParseEtagError, Part, PartInfo, PutObject,
    PutPart, UploadHead, UploadListing, UploadRef,
};
pub use writer::Writer;
