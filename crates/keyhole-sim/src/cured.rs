//! Faults that lives have only as far as the engine withstands them.
//!
//! Each switch belongs to one kind of fault. It is set as soon as the engine withstands the fault, and goes away once all are
//! set. [`Focus`](crate::Focus) gives a life a fault whatever its switch says.

/// Allocations inside the file fail on a full file system (ext4 with holes), also of what is allocated (XFS).
pub const FULL_INSIDE: bool = true;

/// Reads fail each time at a place.
pub const BAD_SECTORS: bool = true;

/// Writes fail each time at a place: recovery goes on in another segment.
pub const UNWRITABLE: bool = true;

/// Uploads are made in rings, and abandoned: a ring drops them as it drops objects.
pub const RING_UPLOADS: bool = true;

/// Writes fail for want of space (btrfs; file systems without allocation in advance).
pub const WRITES_FULL: bool = true;
