//! What is told of each request once it is over: to logs, audits and metrics, which the binary has.

use std::cell::{Cell, OnceCell};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use keyhole_core::{CustomerKey, key_id};
use keyhole_s3::ErrorCode;
use keyhole_s3::ops::Target;

use crate::access::Caller;

/// One request that is over, whatever became of it.
#[derive(Clone, Debug)]
pub struct Exchange<'a> {
    /// Its id, as the client has it from `x-amz-request-id`.
    pub request_id: &'a str,
    /// The other end of its connection.
    pub peer: SocketAddr,
    /// Who sent it: the peer, or who that says, where it is a trusted proxy.
    pub client: IpAddr,
    /// It came over a connection that a customer key may come over.
    pub secure: bool,
    /// Its method; `-` where its head could not be read.
    pub method: &'a str,
    /// Its path, as it came; no query, for that may hold a signature.
    pub resource: &'a str,
    /// S3's name of the operation, once that was known.
    pub operation: Option<&'static str>,
    /// The bucket, once it was known.
    pub bucket: Option<&'a str>,
    /// The key, once it was known.
    pub key: Option<&'a str>,
    /// Who has signed it, once that was verified.
    pub access_key: Option<&'a str>,
    /// It is about sealed bytes: something was sealed under a customer key or opened with it, or that was not the right one, or a
    /// sealed object came or went as it is.
    pub sse_c: bool,
    /// Which key that was ([`key_id`]), where [`Observer::wants_key_ids`].
    pub key_id: Option<[u8; 16]>,
    /// The status of the reply; 0: there was no whole reply, as the connection was gone or had to be aborted.
    pub status: u16,
    /// The error that the client was told.
    pub error: Option<ErrorCode>,
    /// Bytes of its body that were received, without their framing.
    pub received: u64,
    /// Bytes of the reply's body that were sent.
    pub sent: u64,
    /// From when its head was there to when its reply was sent.
    pub took: Duration,
}

/// Who is told of requests.
pub trait Observer: Send + Sync {
    /// A request was understood so far that its operation is known, and begins.
    fn began(&self, _operation: &'static str) {}

    /// A request is over. Called on the worker's own thread: whatever is done here, everybody waits for.
    fn finished(&self, exchange: &Exchange<'_>);

    /// Whether exchanges are to have ids of customer keys, which take an HMAC each.
    fn wants_key_ids(&self) -> bool {
        false
    }
}

/// What is known so far of the request at hand.
#[derive(Default)]
pub(crate) struct Account {
    pub(crate) operation: Cell<Option<&'static str>>,
    pub(crate) caller: OnceCell<Caller>,
    pub(crate) target: OnceCell<Target>,
    /// Bytes of the reply's body that were sent.
    pub(crate) sent: Cell<u64>,
    sse_c: Cell<bool>,
    key_id: Cell<Option<[u8; 16]>>,
    wants_key_ids: bool,
}

impl Account {
    pub(crate) fn new(observer: &dyn Observer) -> Self {
        Account { wants_key_ids: observer.wants_key_ids(), ..Account::default() }
    }

    /// Takes note of the customer key that the request is about.
    pub(crate) fn uses(&self, key: Option<&CustomerKey>, bucket: &str) {
        let Some(key) = key else { return };
        self.sse_c.set(true);
        if self.wants_key_ids {
            self.key_id.set(Some(key_id(key, bucket)));
        }
    }

    /// Takes note that sealed bytes come or go, without a key.
    pub(crate) fn is_sealed(&self) {
        self.sse_c.set(true);
    }

    pub(crate) fn used(&self) -> (bool, Option<[u8; 16]>) {
        (self.sse_c.get(), self.key_id.get())
    }

    pub(crate) fn add_sent(&self, len: usize) {
        self.sent.set(self.sent.get() + len as u64);
    }
}
