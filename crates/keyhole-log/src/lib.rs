//! A log-structured object file, generic over the disk.
#![forbid(unsafe_code)]

pub mod limits;

mod body;
mod commit;
mod disk;
mod error;
mod index;
mod log;
mod numbers;
mod recover;
mod segments;
mod shared;
mod types;
mod wire;
mod writer;

pub use body::{BodyWriter, LastBlock, NewBody};
pub use disk::Disk;
pub use error::{Damage, Error};
pub use log::{Body, Log, Tags, worker};
pub use recover::{Format, OpenOptions, Recovery, create, open};
pub use shared::{Shared, Sync, Usage};
pub use types::{
    BodyId, BucketInfo, CompleteUpload, Condition, Content, CreateUpload, Etag, ListObjects, ListUploads, Listed,
    ListedUpload, Listing, Object, ParseEtagError, Part, PartInfo, PutObject, PutPart, UploadListing, UploadRef,
};
pub use writer::Writer;
