//! Backup and moving: what an export is made of, how it is read, and how it gets from a node to a file and back.
//!
//! An export ([the format](../../docs/EXPORT.md)) is a manifest, of JSON lines, and a file for each object: a tree of files, or a tar
//! stream of the same. The node, or a command that has the store for itself, gives and takes objects over a [`session`], one behind
//! the other and without any key; the command makes files of them, or objects of files, and verifies both.

pub(crate) mod channel;
pub(crate) mod entry;
pub(crate) mod give;
pub(crate) mod manifest;
pub(crate) mod session;
pub(crate) mod take;
pub(crate) mod tree;

pub(crate) use channel::Channel;
pub(crate) use session::{Place, Way, serve};
