//! The S3 service of a remote, as the shipping logic uses it.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use hyper::body::Bytes;
use keyhole_remote::{Content, Download, Fields, Head, Listed, Listing, Service, ServiceError};
use object_store::aws::{AmazonS3, AmazonS3Builder, AwsCredential, Checksum};
use object_store::list::{PaginatedListOptions, PaginatedListStore};
use object_store::path::Path;
use object_store::{
    Attribute, AttributeValue, Attributes, BackoffConfig, GetOptions, GetRange, GetResult, ObjectStore, ObjectStoreExt,
    RetryConfig, StaticCredentialProvider,
};

use tokio::sync::Semaphore;

use super::config::RemoteConfig;
use super::connector::Connector;
use super::credentials::Credentials;
use super::crypto::Crypto;
use super::error::RemoteError;
use super::failure;
use super::limits::PAGE_MAX;
use super::transport::Transport;
use super::upload::{memory_of, upload};

/// Limits of the library's retries: for short interruptions only. The shipping logic backs off for
/// longer ones.
const RETRIES_MAX: usize = 3;
const RETRY_TIMEOUT: Duration = Duration::from_secs(10);
const BACKOFF_FIRST: Duration = Duration::from_millis(200);
const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// Time for which the bucket is assumed to exist after a successful request.
const BUCKET_FRESH: Duration = Duration::from_secs(10);

/// The content of a page of a listing.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Page {
    Objects,
    Directories,
}

/// Memory of the uploads to all remotes, in MiB: at least that of the longest part.
const UPLOADS_MIB: u16 = 14;

/// Bounds that memory.
static UPLOADS: Semaphore = Semaphore::const_new(UPLOADS_MIB as usize);

/// The S3 service of a remote. Must be used in a Tokio runtime with I/O and time.
#[derive(Debug)]
pub(crate) struct S3Client {
    store: AmazonS3,
    /// The prefix of names, with a `/` at the end unless it is empty.
    prefix: String,
    /// The time of the last response that came from the bucket.
    bucket_seen: Mutex<Option<Instant>>,
}

impl S3Client {
    /// Creates a client. Reads the credentials and authorities, but does not connect.
    pub(crate) fn new(config: &RemoteConfig) -> Result<Self, RemoteError> {
        let Credentials { key_id, secret_key, session_token } = Credentials::load(config.credentials.as_deref())?;
        // The allocator wipes the library's copies.
        let credential =
            AwsCredential { key_id, secret_key: String::clone(&secret_key), token: session_token.as_deref().cloned() };
        let connector = if config.url.starts_with("https://") {
            Connector::with_tls(config.ca.as_deref())?
        } else {
            Connector::plain()
        };
        let backoff = BackoffConfig { init_backoff: BACKOFF_FIRST, max_backoff: BACKOFF_MAX, base: 2.0 };
        let retry = RetryConfig { backoff, max_retries: RETRIES_MAX, retry_timeout: RETRY_TIMEOUT };
        let store = AmazonS3Builder::new()
            .with_endpoint(&config.url)
            .with_bucket_name(&config.bucket)
            .with_region(&config.region)
            .with_virtual_hosted_style_request(false)
            .with_credentials(Arc::new(StaticCredentialProvider::new(credential)))
            .with_crypto_provider(Arc::new(Crypto))
            .with_checksum_algorithm(Checksum::SHA256)
            .with_disable_bulk_delete(true)
            .with_allow_http(true)
            .with_retry(retry)
            .with_http_connector(Transport::new(connector))
            .build()
            .map_err(|error| RemoteError::Setup(error.to_string()))?;
        let prefix = if config.prefix.is_empty() { String::new() } else { format!("{}/", config.prefix) };
        Ok(S3Client { store, prefix, bucket_seen: Mutex::new(None) })
    }

    /// Checks that the bucket can be listed with these credentials.
    pub(crate) async fn check(&self) -> Result<(), ServiceError> {
        self.page("", None, 1, Page::Objects).await.map(drop)
    }

    /// Returns the path of a name in the bucket.
    fn path(&self, name: &str) -> Result<Path, ServiceError> {
        let full = format!("{}{name}", self.prefix);
        let parsed = Path::parse(&full).ok().filter(|path| path.as_ref() == full && !name.is_empty());
        let invalid = || ServiceError::Refused {
            code: "InvalidName".to_owned(),
            message: format!("name {name:?} has an empty component, . or .., or a control character"),
        };
        parsed.ok_or_else(invalid)
    }

    /// Notes that a response has come from the bucket.
    fn note_bucket(&self) {
        *self.bucket_seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// Passes on a result, and notes the bucket if it is a success.
    fn noted<T>(&self, result: object_store::Result<T>) -> Result<T, ServiceError> {
        match result {
            Ok(value) => {
                self.note_bucket();
                Ok(value)
            }
            Err(error) => Err(failure::of_store(&error)),
        }
    }

    /// Returns `None` for an object that is missing.
    ///
    /// # Errors
    /// All other errors; that of a listing, if the response to a `HEAD` request has no reason.
    async fn found<T>(&self, result: Result<T, ServiceError>) -> Result<Option<T>, ServiceError> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(failure) if failure::is_ambiguous(&failure) => {
                let seen = *self.bucket_seen.lock().unwrap_or_else(PoisonError::into_inner);
                if seen.is_none_or(|seen| seen.elapsed() > BUCKET_FRESH) {
                    self.check().await?;
                }
                Ok(None)
            }
            Err(failure) if failure::is_missing(&failure) => Ok(None),
            Err(failure) if failure::is_unexplained(&failure) => {
                self.check().await?;
                Err(failure)
            }
            Err(failure) => Err(failure),
        }
    }

    /// Lists at most `max` names, or directories of names.
    async fn page(&self, prefix: &str, token: Option<&str>, max: usize, kind: Page) -> Result<Listing, ServiceError> {
        let full = format!("{}{prefix}", self.prefix);
        let options = PaginatedListOptions {
            page_token: token.map(str::to_owned),
            max_keys: Some(max),
            delimiter: (kind == Page::Directories).then(|| "/".into()),
            ..PaginatedListOptions::default()
        };
        let prefix_or_none = Some(&full[..]).filter(|full| !full.is_empty());
        let page = self.noted(self.store.list_paginated(prefix_or_none, options).await)?;
        let next = page.page_token;
        // Other names are those of a service that ignores a parameter.
        let listed = |name: &Path, len| {
            let name = name.as_ref().strip_prefix(&self.prefix)?;
            name.starts_with(prefix).then(|| Listed { name: name.to_owned(), len })
        };
        let objects: Vec<Listed> = match kind {
            Page::Objects => {
                page.result.objects.iter().filter_map(|found| listed(&found.location, found.size)).collect()
            }
            Page::Directories => page.result.common_prefixes.iter().filter_map(|name| listed(name, 0)).collect(),
        };
        if next.is_some() && next.as_deref() == token {
            return Err(ServiceError::Unavailable("invalid answer: a listing without progress".to_owned()));
        }
        Ok(Listing { objects, next })
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<Option<GetResult>, ServiceError> {
        let result = self.noted(self.store.get_opts(path, options).await);
        self.found(result).await
    }
}

impl Service for S3Client {
    type Download = S3Download;

    fn memory_of(&self, len: u64) -> u64 {
        memory_of(len)
    }

    async fn put(&self, name: &str, fields: &Fields, content: impl Content) -> Result<(), ServiceError> {
        let mib = memory_of(content.total_len()).div_ceil(1 << 20).min(UPLOADS_MIB.into()) as u32;
        let _memory = UPLOADS.acquire_many(mib).await;
        upload(&self.store, &self.path(name)?, attributes(fields)?, content).await?;
        self.note_bucket();
        Ok(())
    }

    async fn head(&self, name: &str) -> Result<Option<Head>, ServiceError> {
        let options = GetOptions { head: true, ..GetOptions::default() };
        Ok(self.get_opts(&self.path(name)?, options).await?.as_ref().map(head_of))
    }

    async fn get(&self, name: &str, range: Option<Range<u64>>) -> Result<Option<(Head, S3Download)>, ServiceError> {
        if range.as_ref().is_some_and(Range::is_empty) {
            return Ok(self.head(name).await?.map(|head| (head, S3Download::empty())));
        }
        let options = GetOptions { range: range.map(GetRange::Bounded), ..GetOptions::default() };
        let result = self.get_opts(&self.path(name)?, options).await?;
        Ok(result.map(|result| {
            let left = result.range.end - result.range.start;
            (head_of(&result), S3Download { left, stream: result.into_stream() })
        }))
    }

    async fn delete(&self, name: &str) -> Result<(), ServiceError> {
        let result = self.noted(self.store.delete(&self.path(name)?).await);
        self.found(result).await.map(drop)
    }

    async fn directories(&self) -> Result<BTreeSet<String>, ServiceError> {
        let mut found = BTreeSet::new();
        let mut token: Option<String> = None;
        loop {
            let page = self.page("", token.as_deref(), PAGE_MAX, Page::Directories).await?;
            found.extend(page.objects.into_iter().map(|directory| directory.name));
            token = page.next;
            if token.is_none() {
                return Ok(found);
            }
        }
    }

    async fn list(&self, prefix: &str, token: Option<&str>) -> Result<Listing, ServiceError> {
        self.page(prefix, token, PAGE_MAX, Page::Objects).await
    }
}

/// Returns user metadata as the library takes it.
fn attributes(fields: &Fields) -> Result<Attributes, ServiceError> {
    let is_valid = |name: &str, value: &str| {
        let is_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        !name.is_empty()
            && name.bytes().all(is_name)
            && value.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ')
    };
    match fields.iter().find(|(name, value)| !is_valid(name, value)) {
        Some((name, _)) => Err(ServiceError::Refused {
            code: "InvalidMetadata".to_owned(),
            message: format!("metadata {name:?}: expected a name in lower case, and a value in printable ASCII"),
        }),
        None => {
            let attribute = |(name, value): (&String, &String)| {
                (Attribute::Metadata(name.clone().into()), AttributeValue::from(value.clone()))
            };
            Ok(fields.iter().map(attribute).collect())
        }
    }
}

fn head_of(result: &GetResult) -> Head {
    let field = |(attribute, value): (&Attribute, &AttributeValue)| match attribute {
        Attribute::Metadata(name) => Some((name.to_ascii_lowercase(), value.as_ref().to_owned())),
        _ => None,
    };
    Head { len: result.meta.size, fields: result.attributes.iter().filter_map(field).collect() }
}

/// The bytes of an object in the service.
pub(crate) struct S3Download {
    stream: BoxStream<'static, object_store::Result<Bytes>>,
    /// Bytes that must still come.
    left: u64,
}

impl S3Download {
    fn empty() -> Self {
        S3Download { stream: futures_util::stream::empty().boxed(), left: 0 }
    }
}

impl Download for S3Download {
    async fn next(&mut self) -> Result<Option<Vec<u8>>, ServiceError> {
        let invalid = |what: &str| ServiceError::Unavailable(format!("invalid answer: {what}"));
        match self.stream.next().await {
            None if self.left == 0 => Ok(None),
            None => Err(invalid("the body is shorter than announced")),
            Some(Ok(bytes)) => {
                self.left = self
                    .left
                    .checked_sub(bytes.len() as u64)
                    .ok_or_else(|| invalid("the body is longer than announced"))?;
                Ok(Some(bytes.into()))
            }
            Some(Err(error)) => Err(failure::of_store(&error)),
        }
    }
}

#[cfg(test)]
mod tests;
