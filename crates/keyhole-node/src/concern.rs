//! Which requests concern sealed data, for the audit log: decided by the objects and uploads that a
//! request names, not by the headers that it has.
//!
//! A request that seals is recorded where its key is read. This module records objects that were
//! sealed before: when a request is known, whether its signature is valid or not, and again before a
//! write or deletion takes effect, because the object may have been replaced in the meantime.

use keyhole_core::sse_c::SseCTarget;
use keyhole_s3::auth;
use keyhole_s3::http::RequestHead;
use keyhole_s3::ops::{self, Operation, Target, VersionId};
use keyhole_s3::sse::RequestSseC;

use crate::node::Node;
use crate::observe::Account;
use crate::platform::Platform;
use crate::request::ObjectName;
use crate::versions::log_version;

impl<P: Platform> Node<P> {
    /// Records whether the objects and the upload that a request names are sealed.
    pub(crate) fn record_concern(&self, account: &Account, target: &Target, operation: &Operation) {
        use Operation as Op;
        let (Some(bucket), Some(key)) = (&target.bucket, &target.key) else { return };
        self.record_if_sealed(account, ObjectName { bucket, key }, target.version);
        if let Op::CopyObject(source) | Op::UploadPartCopy { source, .. } = operation {
            account.record_source(&source.bucket, &source.key);
            let name = ObjectName { bucket: &source.bucket, key: &source.key };
            self.record_if_sealed(account, name, source.version);
        }
        if let Op::UploadPart { upload_id, .. }
        | Op::UploadPartCopy { upload_id, .. }
        | Op::CompleteMultipartUpload { upload_id, .. }
        | Op::AbortMultipartUpload { upload_id, .. }
        | Op::ListParts { upload_id, .. } = operation
            && self.log.upload(bucket, key, upload_id).is_ok_and(|upload| upload.is_some_and(|upload| upload.sealed))
        {
            account.record_sealed();
        }
    }

    /// Records that the request concerns sealed data if this version of an object, or the current one, is
    /// sealed.
    pub(crate) fn record_if_sealed(&self, account: &Account, name: ObjectName<'_>, version: Option<VersionId>) {
        if !account.concerns_sealed() && self.is_sealed(name, version) {
            account.record_sealed();
        }
    }

    /// Returns whether there is this version of an object, or a current one, and its head is sealed.
    pub(crate) fn is_sealed(&self, ObjectName { bucket, key }: ObjectName<'_>, version: Option<VersionId>) -> bool {
        let Some(version) = version else { return self.log.is_sealed(bucket, key) };
        let info = self.log.version_info(bucket, key, Some(log_version(version)));
        info.is_ok_and(|info| info.is_some_and(|info| info.sealed))
    }

    /// Records a request whose signature was refused, and the object that it names.
    pub(crate) fn record_refused_signature(&self, account: &Account, head: &RequestHead) {
        if auth::is_signed(head) {
            account.record_refused_signature();
        }
        let sse_c = RequestSseC::parse(head, account.is_secure);
        if [SseCTarget::Object, SseCTarget::CopySource].into_iter().any(|target| sse_c.has_headers(target)) {
            account.record_sealed();
        }
        let Ok((target, operation)) = ops::route(head, &self.config.host_names) else { return };
        account.claimed_operation.set(Some(operation.name()));
        self.record_concern(account, account.target.get_or_init(|| target), &operation);
    }
}
