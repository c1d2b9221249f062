//! The store: its location, its locks, and its object file or device.

mod create;
mod device;
mod error;
mod hold;
mod location;
mod lock;
mod marker;
mod open;
mod options;
mod plain;
mod presence;
mod signature;

pub(crate) use error::StoreError;
pub(crate) use hold::hold;
pub(crate) use location::StoreLocation;
pub(crate) use open::{OpenedStore, open};
pub(crate) use options::{ASKED_READ_ONLY, Make, ONLY_LOOKS, StoreOptions};
pub(crate) use plain::{block_on, plain_disk, stepping_disk};
pub(crate) use presence::Presence;
