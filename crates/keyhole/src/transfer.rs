//! Export and import: the format of an export, and its transfer between store and files.
//!
//! An export ([the format](../../docs/EXPORT.md)) is a manifest of JSON lines and a file for each
//! object, as a file tree or a tar stream. The node, or a command with exclusive access to the
//! store, sends and receives objects over a [`protocol`], one after the other and without any key.
//! The command converts objects to files and back, and verifies both.

pub(crate) mod channel;
pub(crate) mod entry;
mod error;
#[cfg(test)]
mod fuzzing;
mod history;
mod invalid;
pub(crate) mod manifest;
mod node;
mod peer;
mod plain;
pub(crate) mod protocol;
pub(crate) mod receiver;
pub(crate) mod sender;
pub(crate) mod settings;
pub(crate) mod tree;
pub(crate) mod versions;

pub(crate) use channel::Channel;
pub(crate) use error::TransferError;
pub(crate) use invalid::EntryError;
pub(crate) use node::{TransferPermit, serve};
pub(crate) use protocol::Direction;
