//! Bucket operations.

use keyhole_log::{BucketInfo, BucketSettings};
use keyhole_s3::ops::{self, ListBuckets};
use keyhole_s3::xml::CreateBucketRequest;
use keyhole_s3::{Error, ErrorCode, xml};

use crate::access::Caller;
use crate::failure::{Failure, Result};
use crate::http::{Connection, Response};
use crate::node::Node;
use crate::platform::Platform;
use crate::policy::SseC;
use crate::request::Request;
use crate::settings::OwnPolicy;

impl<P: Platform> Node<P> {
    /// Handles ListBuckets: lists the buckets that the caller has a grant for.
    pub(crate) fn list_buckets(&self, request: &Request<'_>, query: &ListBuckets) -> Result<Response<'_, P>> {
        let Caller::Key(access) = request.caller else { return Err(ErrorCode::AccessDenied.into()) };
        let region = &self.config.region;
        let mut buckets = self.log.buckets();
        buckets.retain(|BucketInfo { name, .. }| {
            access.knows(name)
                && query.prefix.as_ref().is_none_or(|prefix| name.starts_with(&**prefix))
                && query.after.as_ref().is_none_or(|after| name > after)
                && query.region.as_ref().is_none_or(|wanted| wanted == region)
        });
        let max = query.max.unwrap_or(usize::MAX);
        let is_truncated = buckets.len() > max;
        buckets.truncate(max);
        let listed: Vec<_> =
            buckets.iter().map(|bucket| xml::Bucket { name: &bucket.name, time_ms: bucket.time_ms }).collect();
        let token = listed.last().filter(|_| is_truncated).map(|last| last.name);
        Ok(Response::xml(200, xml::list_buckets(query, region, &listed, token)))
    }

    /// Handles CreateBucket; repeating it as the owner is not an error, unless with other tags.
    pub(crate) async fn create_bucket(
        &self,
        connection: &mut Connection<P::Stream>,
        request: &Request<'_>,
    ) -> Result<Response<'_, P>> {
        let bucket = request.bucket()?;
        let has_lock = ops::enables_object_lock(request.head)?;
        if has_lock {
            self.require_versions()?;
        }
        let document = self.document(connection, request).await?;
        let CreateBucketRequest { location, tags } = xml::parse_create_bucket(&document)?;
        if let Some(location) = location
            && location != self.config.region
        {
            let message = format!("This node is in the region {}; create the bucket there.", self.config.region);
            return Err(Error::new(ErrorCode::InvalidLocationConstraint).with_message(message).into());
        }
        self.make_bucket(bucket, &tags, has_lock).await?;
        Ok(Response::new(200).header("Location", format!("/{bucket}")))
    }

    /// Handles HeadBucket.
    pub(crate) fn head_bucket(&self, request: &Request<'_>) -> Result<Response<'_, P>> {
        self.require_bucket(request.bucket()?)?;
        Ok(Response::new(200).header("x-amz-bucket-region", self.config.region.clone()))
    }

    /// Handles DeleteBucket.
    pub(crate) async fn delete_bucket(&self, request: &Request<'_>) -> Result<Response<'_, P>> {
        self.log.delete_bucket(request.bucket()?, self.host.now_ms()).await?;
        Ok(Response::new(204))
    }

    /// Handles GetBucketLocation.
    pub(crate) fn bucket_location(&self, request: &Request<'_>) -> Result<Response<'_, P>> {
        self.require_bucket(request.bucket()?)?;
        Ok(Response::xml(200, xml::location(&self.config.region)))
    }

    /// Handles PutBucketEncryption, which can only block or unblock customer keys.
    pub(crate) async fn put_bucket_encryption(
        &self,
        connection: &mut Connection<P::Stream>,
        request: &Request<'_>,
    ) -> Result<Response<'_, P>> {
        let bucket = request.bucket()?;
        let document = self.document(connection, request).await?;
        let blocks = xml::parse_bucket_encryption(&document)?;
        self.block_customer_keys(bucket, blocks).await?;
        Ok(Response::new(200))
    }

    /// Handles GetBucketEncryption.
    pub(crate) fn bucket_encryption(&self, request: &Request<'_>) -> Result<Response<'_, P>> {
        let bucket = request.bucket()?;
        self.require_bucket(bucket)?;
        match self.policy(bucket)?.sse_c {
            SseC::Forbid => Ok(Response::xml(200, xml::bucket_encryption())),
            _ => Err(ErrorCode::ServerSideEncryptionConfigurationNotFoundError.into()),
        }
    }

    /// Handles DeleteBucketEncryption: 204 whether a configuration exists or not.
    pub(crate) async fn delete_bucket_encryption(&self, request: &Request<'_>) -> Result<Response<'_, P>> {
        self.block_customer_keys(request.bucket()?, false).await?;
        Ok(Response::new(204))
    }

    /// Blocks or unblocks customer keys; keeps the operator's other settings.
    async fn block_customer_keys(&self, bucket: &str, blocks: bool) -> Result<()> {
        let change = |settings: &mut BucketSettings| {
            let mut own = OwnPolicy::of(settings)?;
            let holds = own.clone().over(&self.config.defaults.of(bucket)).sse_c;
            let sse_c = match (blocks, holds) {
                (true, SseC::Require) => {
                    let message = "The bucket requires customer-provided keys (SSE-C), so it cannot block them. Its operator \
                        can change that: keyhole bucket set --sse-c allow.";
                    return Err(Error::new(ErrorCode::InvalidRequest).with_message(message).into());
                }
                (true, _) => SseC::Forbid,
                (false, SseC::Forbid) => SseC::Allow,
                (false, other) => other,
            };
            if sse_c != holds {
                own.sse_c = Some(sse_c);
            }
            settings.policy = own.encode();
            Ok(())
        };
        self.change_bucket(bucket, change).await
    }

    /// Changes a bucket's settings.
    pub(crate) async fn change_bucket(
        &self,
        bucket: &str,
        change: impl FnOnce(&mut BucketSettings) -> Result<()>,
    ) -> Result<()> {
        self.log.change_bucket(bucket, self.host.now_ms(), change).await.map_err(|failure: Failure| match failure {
            Failure::Reply(error) if error.code == ErrorCode::ConditionalRequestConflict => {
                ErrorCode::OperationAborted.into()
            }
            other => other,
        })
    }

    /// Handles GetBucketAcl: the owner has FULL_CONTROL.
    pub(crate) fn bucket_acl(&self, request: &Request<'_>) -> Result<Response<'_, P>> {
        self.require_bucket(request.bucket()?)?;
        Ok(Response::xml(200, xml::acl()))
    }
}
