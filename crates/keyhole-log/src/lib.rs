//! A log-structured storage engine in one file or block device, generic over the disk.
//!
//! [`create`] formats a store, [`open()`] recovers one, and [`worker`] gives each thread a [`Log`]
//! handle and the [`Writer`] that owns the thread's writes. [`reader`] gives further threads handles that
//! only read.
//!
//! # Example
//! ```
//! use keyhole_log::limits::SEGMENT_LEN;
//! use keyhole_log::{Disk, Error, Format, OpenOptions};
//!
//! async fn first_start<D: Disk>(disk: &D, store_id: [u8; 16], now_ms: u64) -> Result<(), Error> {
//!     let format = Format { store_id, capacity: 1 << 30, segment_len: SEGMENT_LEN, created_ms: now_ms };
//!     keyhole_log::create(disk, &format).await?;
//!     let (store, recovery) = keyhole_log::open(disk, OpenOptions::default()).await?;
//!     assert_eq!((store.workers(), recovery.objects), (1, 0));
//!     Ok(())
//! }
//! ```
//! `examples/put_and_get.rs` implements a disk in memory, and stores and reads an object. The
//! [`format`](mod@format) page specifies the bytes on disk, recovery and cleaning.
//!
//! # Invariants
//! - A write acknowledged under [`Durability::Always`] is durable. Any other write is whole or
//!   absent after a crash.
//! - Acknowledged data is never overwritten in place, and no offset is allocated twice.
//! - Dropping a request does not affect in-flight writes: the [`Writer`] owns them.
//! - A failed write or sync poisons the log. Data that verifies stays readable.
//! - A log opened read-only writes nothing, during recovery or later.
//! - Every byte is verified each time it is read.
//! - The crate has no clock, randomness, file access or runtime: time is passed in arguments, and
//!   storage through [`Disk`].
#![forbid(unsafe_code)]

pub mod limits;

mod body;
mod changes;
mod check;
mod disk;
mod draft;
mod error;
mod geometry;
mod index;
mod key_map;
mod locks;
mod log;
mod maintain;
mod numbers;
mod object;
mod open;
mod pin;
mod read;
mod recover;
mod sabotage;
mod segments;
mod sorted;
mod state;
mod stats;
mod store;
mod types;
mod version;
mod version_list;
mod wire;
mod writer;
mod yielding;

#[doc = include_str!("../FORMAT.md")]
pub mod format {}

/// Fuzz targets for all that is parsed from an object file.
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing {
    pub use crate::wire::fuzzing::{block, checkpoint_items, record, record_header, segment_header, superblock};
}

pub use body::NewBody;
pub use changes::{Change, Changed, Changes};
pub use check::{CheckOptions, CheckReport, Finding, Verdict, check};
pub use disk::{Access, Disk, Extent};
pub use error::{Damage, Error, FailedWrite};
#[doc(hidden)]
pub use index::LiveMismatch;
pub use index::{IndexLimits, Removals, Removed};
pub use log::{
    Body, BodyWriter, ChunkTags, Expired, LastBlock, Log, OpenBlock, ScrubCursor, ScrubStep, reader, worker,
};
pub use maintain::{Maintenance, maintenance};
pub use object::{Content, FoundVersion, Object, PutObject, PutPart};
pub use pin::ObjectPin;
pub use recover::{Format, Identity, OpenOptions, Recovery, create, estimate_index, identity, open};
#[cfg(feature = "sabotage")]
pub use sabotage::{Sabotage, sabotage};
pub use state::{Compacted, EvictionCandidate};
pub use stats::{
    BatchHistogram, CleanerStats, SegmentCounts, SegmentKind, SegmentStat, SegmentState, Stats, Syncs, Usage, Written,
};
pub use store::{Activity, Durability, Store};
pub use types::{
    BodyId, BucketInfo, BucketSettings, BucketUsage, CompleteUpload, Condition, CreateUpload, Etag, Expected,
    ExpectedEtag, ListObjects, ListUploads, Listed, ListedUpload, Listing, ParseEtagError, Part, PartInfo, UploadHead,
    UploadListing, UploadRef,
};
pub use version::{
    BucketLock, DefaultRetention, DeletedVersion, Deletion, Lock, Marker, ParseVersionIdError, Retention,
    RetentionMode, RetentionPeriod, StoredVersion, VersionId, Versioning,
};
pub use version_list::{ListVersions, ListedVersion, NoncurrentVersion, VersionInfo, VersionListing};
pub use writer::Writer;
