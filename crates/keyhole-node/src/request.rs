//! A parsed and authenticated request.

use std::cell::OnceCell;

use keyhole_core::sse_c::SseCTarget;
use keyhole_s3::auth::BodySignature;
use keyhole_s3::body::{BodyDecoder, Wanted};
use keyhole_s3::http::RequestHead;
use keyhole_s3::ops::{Target, VersionId};
use keyhole_s3::sse::RequestSseC;
use keyhole_s3::{Error, ErrorCode};

use crate::access::{Caller, Right};
use crate::failure::Result;
use crate::observe::Account;

/// A parsed and authenticated request.
pub(crate) struct Request<'r> {
    pub(crate) head: &'r RequestHead,
    pub(crate) target: &'r Target,
    pub(crate) caller: &'r Caller,
    pub(crate) request_id: &'r str,
    /// Collects the fields of the request's [`Exchange`](crate::Exchange).
    pub(crate) account: &'r Account,
    /// How the request body is signed.
    signature: BodySignature,
    sse_c: OnceCell<RequestSseC<'r>>,
}

/// The name of an object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ObjectName<'n> {
    pub(crate) bucket: &'n str,
    pub(crate) key: &'n str,
}

/// The connection's part of a [`Request`].
pub(crate) struct Received<'r> {
    pub(crate) head: &'r RequestHead,
    pub(crate) request_id: &'r str,
    pub(crate) account: &'r Account,
}

impl<'r> Request<'r> {
    pub(crate) fn new(
        received: Received<'r>,
        target: &'r Target,
        caller: &'r Caller,
        signature: BodySignature,
    ) -> Self {
        let Received { head, request_id, account } = received;
        Request { head, target, caller, request_id, account, signature, sse_c: OnceCell::new() }
    }

    /// Returns the SSE-C headers, which are parsed once.
    pub(crate) fn sse_c(&self) -> &RequestSseC<'r> {
        self.sse_c.get_or_init(|| RequestSseC::parse(self.head, self.account.is_secure))
    }

    /// Records that the request has headers of a customer key, valid or not.
    pub(crate) fn record_key_headers(&self) {
        let targets = [SseCTarget::Object, SseCTarget::CopySource];
        if targets.into_iter().any(|target| self.sse_c().has_headers(target)) {
            self.account.record_sealed();
        }
    }

    /// Returns the bucket of the request.
    pub(crate) fn bucket(&self) -> Result<&'r str> {
        self.target.bucket.as_deref().ok_or_else(|| Error::new(ErrorCode::InvalidBucketName).into())
    }

    /// Returns the bucket and the key of the request.
    pub(crate) fn object(&self) -> Result<(&'r str, &'r str)> {
        let key = self.target.key.as_deref().ok_or(ErrorCode::MethodNotAllowed)?;
        Ok((self.bucket()?, key))
    }

    /// Returns the object that the request names.
    pub(crate) fn name(&self) -> Result<ObjectName<'r>> {
        let (bucket, key) = self.object()?;
        Ok(ObjectName { bucket, key })
    }

    /// Returns the version that the request names.
    pub(crate) fn version(&self) -> Option<VersionId> {
        self.target.version
    }

    /// Creates the decoder of the request's body.
    pub(crate) fn decoder(&self, wanted: Wanted, len_max: u64) -> Result<BodyDecoder> {
        Ok(BodyDecoder::new(self.head, self.signature.clone(), wanted, len_max)?)
    }

    /// Returns `NoSuchKey` for callers with the list right, `AccessDenied` for others.
    pub(crate) fn no_such_key(&self, bucket: &str, key: &str) -> ErrorCode {
        if self.caller.may(Right::List, bucket, key) { ErrorCode::NoSuchKey } else { ErrorCode::AccessDenied }
    }
}
