//! One worker of a node, and what its operations share.

use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;

use arc_swap::ArcSwap;
use keyhole_log::Log;
use keyhole_s3::ErrorCode;
use keyhole_s3::auth::SigningKeys;
use keyhole_s3::body::Wanted;
use keyhole_s3::limits::CORS_DOCUMENT_MAX;
use keyhole_s3::ops::{HostNames, Operation};

use crate::access::AccessTable;
use crate::admission::{Admission, Admitted, Gauge, Share};
use crate::checked_ends::CheckedEnds;
use crate::etag_lanes::EtagLanes;
use crate::evicted::EvictedObjects;
use crate::failure::Result;
use crate::host::Host;
use crate::http::{Connection, Receiver};
use crate::limits::{COMPLETE_DOCUMENT_MAX, DELETE_DOCUMENT_MAX, DOCUMENT_MAX, LIFECYCLE_DOCUMENT_MAX};
use crate::observe::{Account, Observer};
use crate::platform::{Buf, Platform};
use crate::proxy::TrustedProxies;
use crate::request::Request;
use crate::settings::PolicyDefaults;
use crate::source::BodySource;

/// Configuration shared by all workers of a node.
pub struct Config {
    /// The region in the credential scope of signatures.
    pub region: String,
    /// Host names for virtual-hosted-style requests (`BUCKET.HOST`).
    pub host_names: HostNames,
    /// The access keys and their grants; replaceable at run time.
    pub access: ArcSwap<AccessTable>,
    /// Default policies, for settings that a bucket does not have itself.
    pub defaults: PolicyDefaults,
    /// Receives request events.
    pub observer: Box<dyn Observer>,
    /// The proxies whose forwarding headers are trusted.
    pub proxies: TrustedProxies,
    /// The memory limits of each worker's requests.
    pub share: Share,
    /// Where the bytes of evicted objects are read from.
    pub evicted: Option<Arc<dyn EvictedObjects>>,
    /// Whether buckets can have versioning and object lock. Otherwise requests that enable them are
    /// refused with `NotImplemented`.
    pub has_versions: bool,
}

/// One worker of the node: its handle to the log, its AES engine and its memory.
pub struct Node<P: Platform> {
    pub(crate) config: Arc<Config>,
    pub(crate) log: Log<P::Disk>,
    pub(crate) engine: P::Engine,
    pub(crate) host: Host,
    pub(crate) admission: Admission,
    pub(crate) etag_lanes: EtagLanes<Buf<P>>,
    pub(crate) signing_keys: SigningKeys,
    pub(crate) checked_ends: CheckedEnds,
}

impl<P: Platform> Node<P> {
    /// Creates a worker that serves the objects of `log`.
    pub fn new(config: Arc<Config>, log: Log<P::Disk>, engine: P::Engine, host: Host) -> Rc<Self> {
        let admission = Admission::new(config.share);
        let signing_keys = SigningKeys::default();
        let checked_ends = CheckedEnds::default();
        let etag_lanes = EtagLanes::default();
        Rc::new(Node { config, log, engine, host, admission, etag_lanes, signing_keys, checked_ends })
    }

    /// Returns a handle for reading the worker's memory use from any thread.
    pub fn gauge(&self) -> Gauge {
        self.admission.gauge()
    }

    /// Refuses one of the requests that wait for memory with 503 `SlowDown`, because its connection is
    /// needed for another client. Returns whether there was one.
    pub fn shed(&self) -> bool {
        self.admission.shed()
    }

    /// Records and reports the operation of a request.
    pub(crate) fn begin(&self, account: &Account, operation: &Operation) {
        account.operation.set(Some(operation.name()));
        self.config.observer.began(operation.name());
    }

    /// Fails if there is no such bucket.
    pub(crate) fn require_bucket(&self, bucket: &str) -> Result<()> {
        match self.log.bucket(bucket) {
            Some(_) => Ok(()),
            None => Err(ErrorCode::NoSuchBucket.into()),
        }
    }

    /// Receives and verifies the XML document in a request's body.
    pub(crate) async fn document(
        &self,
        connection: &mut Connection<P::Stream>,
        request: &Request<'_>,
    ) -> Result<Document<'_>> {
        self.document_for(connection, request, |len| 2 * len).await
    }

    /// Receives the document of a request like [`document`](Self::document). `needed` returns the
    /// bytes to reserve for a document of a length: for itself, and for all that the request makes
    /// of it, because it must not wait for more.
    pub(crate) async fn document_for(
        &self,
        connection: &mut Connection<P::Stream>,
        request: &Request<'_>,
        needed: impl FnOnce(usize) -> usize,
    ) -> Result<Document<'_>> {
        let decoder = request.decoder(Wanted::None, document_max(request.account.operation.get()))?;
        let mut receiver = Receiver::new(connection, decoder);
        let len = receiver.len();
        if self.admission.is_scarce(len) {
            receiver.warm().await?;
        }
        let needed = needed(usize::try_from(len).unwrap_or(usize::MAX));
        let admitted = self.admission.document(len, needed, request.account.link()).await?;
        Ok(Document { bytes: receiver.read_document().await?, admitted })
    }

    /// Receives the document that replaces a setting of a bucket. Returns the bucket and the document.
    pub(crate) async fn bucket_document<'r>(
        &self,
        connection: &mut Connection<P::Stream>,
        request: &'r Request<'_>,
    ) -> Result<(&'r str, Document<'_>)> {
        let bucket = request.bucket()?;
        self.require_bucket(bucket)?;
        Ok((bucket, self.document(connection, request).await?))
    }
}

/// A received document, in memory that was reserved for it and for what is parsed from it.
pub(crate) struct Document<'n> {
    bytes: Vec<u8>,
    admitted: Admitted<'n>,
}

impl<'n> Document<'n> {
    /// Drops the document. Returns the memory that was reserved for what is made of it.
    pub(crate) fn into_memory(self) -> Admitted<'n> {
        self.admitted
    }
}

impl Deref for Document<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Returns the limit of the document of an operation.
fn document_max(operation: Option<&str>) -> u64 {
    match operation {
        Some("CompleteMultipartUpload") => COMPLETE_DOCUMENT_MAX,
        Some("DeleteObjects") => DELETE_DOCUMENT_MAX,
        Some("PutBucketCors") => CORS_DOCUMENT_MAX as u64,
        Some("PutBucketLifecycleConfiguration") => LIFECYCLE_DOCUMENT_MAX,
        _ => DOCUMENT_MAX,
    }
}
