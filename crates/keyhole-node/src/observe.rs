//! Request events for the binary's logs, audit log and metrics.

use std::cell::{Cell, OnceCell, RefCell};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use keyhole_core::{CustomerKey, key_id};
use keyhole_s3::ErrorCode;
use keyhole_s3::ops::Target;

use crate::access::Caller;
use crate::failure::{Cause, FaultKind};
use crate::link::Link;

/// A completed request, successful or not.
#[derive(Clone, Debug)]
pub struct Exchange<'a> {
    /// The request id, as in `x-amz-request-id`.
    pub request_id: &'a str,
    /// The address of the peer.
    pub peer: SocketAddr,
    /// The client's address: the peer's, or the forwarded one if the peer is a trusted proxy.
    pub client: IpAddr,
    /// The connection admits customer keys.
    pub secure: bool,
    /// The method; `-` if the request head could not be read.
    pub method: &'a str,
    /// The raw path. Without the query, which may hold a signature.
    pub resource: &'a str,
    /// The S3 operation, if it was determined.
    pub operation: Option<&'static str>,
    /// The operation that a request with a refused signature names.
    pub claimed_operation: Option<&'static str>,
    /// The bucket, if it was determined.
    pub bucket: Option<&'a str>,
    /// The key, if it was determined.
    pub key: Option<&'a str>,
    /// The access key, if the signature was verified.
    pub access_key: Option<&'a str>,
    /// The request concerned sealed data: an object or upload that it named was sealed before or
    /// after it, it had the headers of a customer key, valid or not, or it transferred a sealed
    /// object file.
    pub sse_c: bool,
    /// The request was signed, and the signature was refused.
    pub is_unauthenticated: bool,
    /// The results for the sealed objects of a request that names several.
    pub sealed_objects: &'a [SealedObject],
    /// The id of the customer key ([`key_id`]), if [`Observer::wants_key_ids`].
    pub key_id: Option<[u8; 16]>,
    /// The response status; 0 if no complete response was sent because the connection broke or was
    /// aborted.
    pub status: u16,
    /// The error code of the response.
    pub error: Option<ErrorCode>,
    /// Bytes of the request body received, without framing.
    pub received: u64,
    /// Bytes of the response body sent.
    pub sent: u64,
    /// Time from the parsed request head to the sent response.
    pub took: Duration,
}

/// The result for one sealed object of a request that names several.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SealedObject {
    /// The object's key.
    pub key: String,
    /// The error, unless the operation succeeded on this object.
    pub error: Option<ErrorCode>,
}

/// A fault of the node or its disk that failed a request.
#[derive(Clone, Copy, Debug)]
pub struct Fault<'a> {
    /// The kind of the fault.
    pub kind: FaultKind,
    /// The id of the request that failed.
    pub request_id: &'a str,
    /// The raw path of the request.
    pub resource: &'a str,
    /// The bucket of the object that was being read, if it was determined.
    pub bucket: Option<&'a str>,
    /// The key of the object that was being read, if it was determined.
    pub key: Option<&'a str>,
    /// A description for the log.
    pub cause: &'a str,
}

/// Receives request events.
pub trait Observer: Send + Sync {
    /// Called when the operation of a request is known.
    fn began(&self, _operation: &'static str) {}

    /// Called when a request is complete. Must not block: runs on the worker thread.
    fn finished(&self, exchange: &Exchange<'_>);

    /// Called when a request fails through a fault of the node or its disk, before
    /// [`finished`](Self::finished). Must not block: runs on the worker thread.
    fn fault(&self, _fault: &Fault<'_>) {}

    /// Returns whether events need the ids of customer keys, which cost an HMAC each.
    fn wants_key_ids(&self) -> bool {
        false
    }
}

/// The fields collected so far for the current request's [`Exchange`].
#[derive(Default)]
pub(crate) struct Account {
    pub(crate) operation: Cell<Option<&'static str>>,
    pub(crate) claimed_operation: Cell<Option<&'static str>>,
    /// Customer keys are accepted on this connection.
    pub(crate) is_secure: bool,
    pub(crate) caller: OnceCell<Caller>,
    /// The connection's peer, for admission.
    link: OnceCell<Rc<Link>>,
    pub(crate) target: OnceCell<Target>,
    /// Bytes of the response body sent.
    pub(crate) sent: Cell<u64>,
    /// The key of a form, which its target lacks.
    form_key: OnceCell<String>,
    /// The source of a copy.
    source: OnceCell<(String, String)>,
    is_unauthenticated: Cell<bool>,
    sealed_objects: RefCell<Vec<SealedObject>>,
    fault: RefCell<Option<(ErrorCode, Cause)>>,
    sse_c: Cell<bool>,
    key_id: Cell<Option<[u8; 16]>>,
    wants_key_ids: bool,
}

impl Account {
    pub(crate) fn new(observer: &dyn Observer, is_secure: bool, link: Rc<Link>) -> Self {
        let link = OnceCell::from(link);
        Account { is_secure, wants_key_ids: observer.wants_key_ids(), link, ..Account::default() }
    }

    /// Returns the connection's peer.
    pub(crate) fn link(&self) -> &Rc<Link> {
        self.link.get().expect("an account of a request has a link")
    }

    /// Records the customer key of the request.
    pub(crate) fn record_key(&self, key: Option<&CustomerKey>, bucket: &str) {
        let Some(key) = key else { return };
        self.sse_c.set(true);
        if self.wants_key_ids {
            self.key_id.set(Some(key_id(key, bucket)));
        }
    }

    /// Records that the request concerns sealed data.
    pub(crate) fn record_sealed(&self) {
        self.sse_c.set(true);
    }

    /// Records the key of a form.
    pub(crate) fn record_form_key(&self, key: &str) {
        let _ = self.form_key.set(key.to_owned()); // Called once per request.
    }

    /// Records the source of a copy.
    pub(crate) fn record_source(&self, bucket: &str, key: &str) {
        let _ = self.source.set((bucket.to_owned(), key.to_owned())); // Called once per request.
    }

    /// Records that the signature of the request was refused.
    pub(crate) fn record_refused_signature(&self) {
        self.is_unauthenticated.set(true);
    }

    /// Returns whether the signature of the request was refused.
    pub(crate) fn is_unauthenticated(&self) -> bool {
        self.is_unauthenticated.get()
    }

    /// Records the result for one sealed object of a request that names several.
    pub(crate) fn record_object(&self, key: &str, error: Option<ErrorCode>) {
        self.sse_c.set(true);
        self.sealed_objects.borrow_mut().push(SealedObject { key: key.to_owned(), error });
    }

    /// Takes the results for the sealed objects of a request that names several.
    pub(crate) fn take_sealed_objects(&self) -> Vec<SealedObject> {
        self.sealed_objects.take()
    }

    /// Records the fault that broke off a response.
    pub(crate) fn set_fault(&self, code: ErrorCode, cause: Cause) {
        self.fault.replace(Some((code, cause)));
    }

    /// Takes the fault that broke off a response.
    pub(crate) fn take_fault(&self) -> Option<(ErrorCode, Cause)> {
        self.fault.take()
    }

    /// Returns the bucket of the request.
    pub(crate) fn bucket(&self) -> Option<&str> {
        self.target.get().and_then(|target| target.bucket.as_deref())
    }

    /// Returns the key of the request.
    pub(crate) fn key(&self) -> Option<&str> {
        self.form_key.get().map(String::as_str).or_else(|| self.target.get().and_then(|target| target.key.as_deref()))
    }

    /// Returns bucket and key of the object that the request reads: the source of a copy, or the
    /// object that it names.
    pub(crate) fn read_name(&self) -> (Option<&str>, Option<&str>) {
        match self.source.get() {
            Some((bucket, key)) => (Some(bucket), Some(key)),
            None => (self.bucket(), self.key()),
        }
    }

    /// Returns whether the request concerned sealed data.
    pub(crate) fn concerns_sealed(&self) -> bool {
        self.sse_c.get()
    }

    /// Returns the id of the customer key, if it is wanted.
    pub(crate) fn key_id(&self) -> Option<[u8; 16]> {
        self.key_id.get()
    }

    pub(crate) fn add_sent(&self, len: usize) {
        self.sent.set(self.sent.get() + len as u64);
    }
}
