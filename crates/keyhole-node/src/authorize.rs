//! Authentication and authorization of requests.

use keyhole_s3::auth::{self, BodySignature};
use keyhole_s3::form::Form;
use keyhole_s3::http::RequestHead;
use keyhole_s3::ops::{self, Operation};
use keyhole_s3::{Error, ErrorCode};

use crate::access::{Caller, Right, ValidKeys};
use crate::failure::Result;
use crate::node::Node;
use crate::platform::Platform;
use crate::request::Request;

/// The right that an operation requires.
enum RequiredRight<'o> {
    /// None: the operation shows only buckets that the caller knows.
    None,
    /// Any grant that names the bucket.
    AnyOfBucket,
    /// The list right to any prefix of the bucket.
    ListAny,
    /// A right to the whole bucket.
    Bucket(Right),
    /// The list right to a prefix.
    List(&'o str),
    /// A right to the object.
    Object(Right),
    /// Checked for each object separately.
    EachObject,
}

impl RequiredRight<'_> {
    fn of(operation: &Operation, is_sealed: bool) -> RequiredRight<'_> {
        use Operation as Op;
        match operation {
            // A preflight request is answered without credentials, by the bucket's rules alone.
            Op::ListBuckets(_) | Op::Preflight => RequiredRight::None,
            Op::HeadBucket | Op::GetBucketLocation | Op::GetBucketVersioning | Op::GetObjectLockConfiguration => {
                RequiredRight::AnyOfBucket
            }
            Op::GetBucketAcl
            | Op::GetBucketEncryption
            | Op::GetBucketLifecycle
            | Op::GetBucketCors
            | Op::GetBucketTagging => RequiredRight::ListAny,
            Op::CreateBucket
            | Op::DeleteBucket
            | Op::PutBucketVersioning
            | Op::PutObjectLockConfiguration
            | Op::PutBucketEncryption
            | Op::DeleteBucketEncryption
            | Op::PutBucketLifecycle
            | Op::DeleteBucketLifecycle
            | Op::PutBucketCors
            | Op::DeleteBucketCors
            | Op::PutBucketTagging
            | Op::DeleteBucketTagging => RequiredRight::Bucket(Right::Admin),
            Op::ListObjects(query) => RequiredRight::List(&query.prefix),
            Op::ListObjectsV2(query) => RequiredRight::List(&query.prefix),
            Op::ListObjectVersions(query) => RequiredRight::List(&query.prefix),
            Op::ListMultipartUploads(query) => RequiredRight::List(&query.prefix),
            Op::DeleteObjects | Op::PostObject => RequiredRight::EachObject,
            Op::PutObject if is_sealed => RequiredRight::Object(Right::WriteSealed),
            Op::GetObject | Op::HeadObject if is_sealed => RequiredRight::Object(Right::ReadSealed),
            Op::GetObject
            | Op::HeadObject
            | Op::GetObjectTagging
            | Op::GetObjectAcl
            | Op::GetObjectRetention
            | Op::GetObjectLegalHold
            | Op::GetObjectAttributes(_) => RequiredRight::Object(Right::Read),
            Op::PutObjectRetention | Op::PutObjectLegalHold => RequiredRight::Object(Right::Lock),
            Op::PutObject
            | Op::CopyObject(_)
            | Op::PutObjectTagging
            | Op::DeleteObjectTagging
            | Op::CreateMultipartUpload
            | Op::UploadPart { .. }
            | Op::UploadPartCopy { .. }
            | Op::CompleteMultipartUpload { .. }
            | Op::AbortMultipartUpload { .. }
            | Op::ListParts { .. } => RequiredRight::Object(Right::Write),
            Op::DeleteObject => RequiredRight::Object(Right::Delete),
        }
    }
}

impl<P: Platform> Node<P> {
    /// Verifies the signature. Returns the caller, anonymous if unsigned, and how the body is
    /// signed.
    pub(crate) fn authenticate(&self, head: &RequestHead) -> Result<(Caller, BodySignature)> {
        let access = self.config.access.load();
        let now_ms = self.host.now_ms();
        let keys = ValidKeys { table: &access, now_ms };
        match auth::authenticate(head, &keys, &self.signing_keys, &self.config.region, now_ms) {
            Ok(identity) => Ok((access.caller(&identity.access_key, now_ms)?, identity.body)),
            Err(error) if error.code == ErrorCode::AccessDenied && !auth::is_signed(head) => {
                Ok((Caller::Anonymous, auth::unsigned_body()))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Verifies the signature of a form's policy. Returns the caller.
    pub(crate) fn authenticate_form(&self, form: &Form) -> Result<Caller> {
        let access = self.config.access.load();
        let now_ms = self.host.now_ms();
        let id = auth::authenticate_form(form.fields(), &ValidKeys { table: &access, now_ms }, &self.config.region)?;
        access.caller(&id, now_ms)
    }

    /// Checks that the caller may run the operation.
    ///
    /// # Errors
    /// `AccessDenied`.
    pub(crate) fn authorize(&self, request: &Request<'_>, operation: &Operation, is_sealed: bool) -> Result<()> {
        let access = match request.caller {
            Caller::Key(access) => access,
            Caller::Anonymous => return self.authorize_anonymous(request, operation, is_sealed),
        };
        let bucket = request.target.bucket.as_deref().unwrap_or_default();
        let key = request.target.key.as_deref().unwrap_or_default();
        let required = match (operation, request.version()) {
            (Operation::DeleteObject, Some(_)) => RequiredRight::Object(self.right_to_delete_version(bucket)),
            _ => RequiredRight::of(operation, is_sealed),
        };
        let is_allowed = match required {
            RequiredRight::None | RequiredRight::EachObject => true,
            RequiredRight::AnyOfBucket => access.knows(bucket),
            RequiredRight::ListAny => access.may_list_any(bucket),
            RequiredRight::Bucket(right) => access.may(right, bucket, ""),
            RequiredRight::List(prefix) => access.may(Right::List, bucket, prefix),
            RequiredRight::Object(right) => access.may(right, bucket, key),
        };
        let source = match operation {
            Operation::CopyObject(source) | Operation::UploadPartCopy { source, .. } => Some(source),
            _ => None,
        };
        let may_read = source.is_none_or(|source| access.may(Right::Read, &source.bucket, &source.key));
        if is_allowed && may_read { Ok(()) } else { Err(ErrorCode::AccessDenied.into()) }
    }

    /// Allows unsigned requests to read objects, not older versions of them, if the bucket's policy
    /// permits it.
    fn authorize_anonymous(&self, request: &Request<'_>, operation: &Operation, is_sealed: bool) -> Result<()> {
        let is_read = matches!(operation, Operation::GetObject | Operation::HeadObject)
            && !is_sealed
            && request.version().is_none();
        let bucket = request.target.bucket.as_deref().unwrap_or_default();
        let is_public = is_read && self.policy(bucket)?.anonymous_read;
        if !is_public {
            return Err(ErrorCode::AccessDenied.into());
        }
        if ops::read_options(request.head)?.overrides.iter().any(Option::is_some) {
            let message = "Request specific response headers cannot be used for anonymous GET requests.";
            return Err(Error::new(ErrorCode::InvalidRequest).with_message(message).into());
        }
        Ok(())
    }
}
