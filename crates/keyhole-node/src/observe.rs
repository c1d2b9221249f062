//! Request events for the binary's logs, audit log and metrics.

use std::cell::{Cell, OnceCell};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use keyhole_core::{CustomerKey, key_id};
use keyhole_s3::ErrorCode;
use keyhole_s3::ops::Target;

use crate::access::Caller;

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
    /// The bucket, if it was determined.
    pub bucket: Option<&'a str>,
    /// The key, if it was determined.
    pub key: Option<&'a str>,
    /// The access key, if the signature was verified.
    pub access_key: Option<&'a str>,
    /// The request concerned sealed data: it used a customer key, right or wrong, or transferred a
    /// sealed object file.
    pub sse_c: bool,
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

/// Receives request events.
pub trait Observer: Send + Sync {
    /// Called when the operation of a request is known.
    fn began(&self, _operation: &'static str) {}

    /// Called when a request is complete. Must not block: runs on the worker thread.
    fn finished(&self, exchange: &Exchange<'_>);

    /// Returns whether events need the ids of customer keys, which cost an HMAC each.
    fn wants_key_ids(&self) -> bool {
        false
    }
}

/// The fields collected so far for the current request's [`Exchange`].
#[derive(Default)]
pub(crate) struct Account {
    pub(crate) operation: Cell<Option<&'static str>>,
    /// Customer keys are accepted on this connection.
    pub(crate) is_secure: bool,
    pub(crate) caller: OnceCell<Caller>,
    pub(crate) target: OnceCell<Target>,
    /// Bytes of the response body sent.
    pub(crate) sent: Cell<u64>,
    sse_c: Cell<bool>,
    key_id: Cell<Option<[u8; 16]>>,
    wants_key_ids: bool,
}

impl Account {
    pub(crate) fn new(observer: &dyn Observer, is_secure: bool) -> Self {
        Account { is_secure, wants_key_ids: observer.wants_key_ids(), ..Account::default() }
    }

    /// Records the customer key of the request.
    pub(crate) fn record_key(&self, key: Option<&CustomerKey>, bucket: &str) {
        let Some(key) = key else { return };
        self.sse_c.set(true);
        if self.wants_key_ids {
            self.key_id.set(Some(key_id(key, bucket)));
        }
    }

    /// Records a transfer of sealed bytes without a key.
    pub(crate) fn record_sealed(&self) {
        self.sse_c.set(true);
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
