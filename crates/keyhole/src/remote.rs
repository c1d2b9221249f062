//! Remotes: buckets in other S3 services that receive copies of the node's objects.
//!
//! This module has their settings and the S3 client; the shipping logic is in `keyhole-remote`.

mod client;
mod config;
mod connector;
mod credentials;
mod crypto;
mod error;
mod failure;
mod feed;
mod file;
mod limits;
mod listing;
mod progress_file;
mod reads;
mod remotes;
mod reports;
mod source;
mod stream;
mod surroundings;
mod thread;
mod transport;
mod upload;
mod window;

pub(crate) use client::{S3Client, S3Download};
pub(crate) use config::{
    Mode, Plaintext, RemoteConfig, check_bucket, check_name, check_prefix, check_region, parse_url,
};
pub(crate) use error::RemoteError;
pub(crate) use file::RemotesFile;
pub(crate) use limits::REMOTES_MAX;
pub(crate) use reads::{ReadRequest, RemoteReads};
pub(crate) use remotes::Remotes;
pub(crate) use reports::Reports;
pub(crate) use source::{Pattern, Source};
pub(crate) use surroundings::StoreRequest;
pub(crate) use thread::{ShippingSetup, start};
pub(crate) use window::Window;
