//! Ships the objects of a store to a bucket of another S3 service, as sealed object files, without any
//! customer key.
//!
//! [`Shipper`] keeps a *remote*, a bucket and prefix in the service, equal to a store of `keyhole-log`. It
//! reads the store, sends its requests through [`Service`], and gets time, randomness and its saved
//! [`Progress`] from [`Env`]. The crate has no sockets, clock or files: the binary `keyhole` implements both
//! traits with an HTTP client and Tokio (`src/remote`), and the tests with a simulation.
//!
//! - [`Shipper::run`] ships until it is dropped; [`Shipper::round`] ships one round of changes;
//! - [`Report`] is the state for the operator;
//! - [`open_evicted`] reads the file of a version that was evicted from the store;
//! - [`read_contents`] passes everything in a remote to a [`Consumer`], to restore a store;
//! - [`Names`] and [`parse_name`] map objects to names in the remote, [`ObjectFields`] is their metadata:
//!   readers of a remote need only these;
//! - [`limits`] names every limit.
//!
//! # Example
//! ```
//! use keyhole_log::{Disk, Log};
//! use keyhole_remote::{Env, Failure, Options, Progress, Service, Shipper};
//!
//! /// Ships until nothing is owed, and returns the number of the last change in the remote.
//! async fn catch_up<D: Disk>(
//!     log: Log<D>,
//!     service: impl Service,
//!     env: impl Env,
//!     saved: Progress,
//! ) -> Result<u64, Failure> {
//!     let options = Options { rate: Some(1_000_000), ..Options::default() };
//!     let mut shipper = Shipper::new(log, service, env, options, saved);
//!     while !shipper.round().await? {}
//!     Ok(shipper.confirmed())
//! }
//! ```
//! `examples/ship_object.rs` implements a service in memory and ships an object to it. `tests/lives` runs
//! thousands of stores with a service that fails, loses replies and disappears for a day.
//!
//! # Invariants
//! - Nothing is queued: the changes to ship follow from the index of the store and one number, the
//!   watermark, which is saved only after the service has confirmed every change up to it.
//! - A crash repeats requests and skips none. A repeated request has the same name and the same content.
//! - Changes of one name are shipped one after the other, in the order of their numbers.
//! - An object is deleted from the remote only if this store has put it there, or if the store has
//!   removed the version of that name.
//! - A version is evicted from the store only after the service has confirmed it, and after a last look at
//!   the remote ([`Options::evicts`]).
//! - Nothing is written to a remote of another store, unless [`Options::takes_over`] is set.
//! - Memory is bounded, whatever is owed: [`limits::IN_FLIGHT_MEMORY`], [`limits::ROUND_CHANGES`],
//!   [`limits::REMOVALS_MAX`].
#![forbid(unsafe_code)]

mod compare;
mod contents;
mod env;
mod evict;
mod failure;
mod fields;
pub mod limits;
mod names;
mod pace;
mod progress;
mod read;
#[cfg_attr(not(feature = "sabotage"), allow(unreachable_pub))]
mod sabotage;
mod service;
mod ship;
mod shipper;

pub use contents::{Consumer, FetchError, ObjectBytes, RemoteObject, read_contents, read_whole};
pub use env::Env;
pub use failure::Failure;
pub use fields::{EntryPlace, Kind, ObjectFields, place_of};
pub use names::{Names, ROOT, RemoteName, entry_name, parse_name};
pub use progress::{Exception, Phase, Progress, Report};
pub use read::open_evicted;
#[cfg(feature = "sabotage")]
pub use sabotage::{Sabotage, sabotage};
pub use service::{Content, ContentError, Download, Fields, Head, Listed, Listing, Service, ServiceError};
pub use shipper::{Eviction, Options, Shipper};
