//! Buckets: create, list, look at, delete.

use keyhole_core::aead::Engine;
use keyhole_log::Disk;
use keyhole_s3::http::Response;
use keyhole_s3::{Error, ErrorCode, xml};

use crate::failure::Result;
use crate::io::{Env, Stream};
use crate::node::{Node, Request};
use crate::request::Connection;

impl<D: Disk, E: Engine, V: Env> Node<D, E, V> {
    /// ListBuckets.
    pub(crate) fn list_buckets(&self) -> Result<Response> {
        let buckets = self.log.buckets();
        let listed: Vec<_> =
            buckets.iter().map(|bucket| xml::Bucket { name: &bucket.name, time_ms: bucket.time_ms }).collect();
        Ok(Response::xml(200, xml::list_buckets(&listed)))
    }

    /// CreateBucket; again by its owner is no error.
    pub(crate) async fn create_bucket<S: Stream<Buf = D::Buf>>(
        &self,
        connection: &mut Connection<S>,
        request: Request<'_>,
    ) -> Result<Response> {
        let bucket = request.bucket()?;
        let document = self.document(connection, &request).await?;
        if let Some(location) = xml::parse_create_bucket(&document)?
            && location != self.config.region
        {
            let message = format!("This node is in the region {}; create the bucket there.", self.config.region);
            return Err(Error::new(ErrorCode::InvalidLocationConstraint).with_message(message).into());
        }
        self.log.create_bucket(bucket, self.env.now_ms()).await?;
        Ok(Response::new(200).header("Location", format!("/{bucket}")))
    }

    /// HeadBucket.
    pub(crate) fn head_bucket(&self, request: &Request<'_>) -> Result<Response> {
        self.require_bucket(request.bucket()?)?;
        Ok(Response::new(200).header("x-amz-bucket-region", self.config.region.clone()))
    }

    /// DeleteBucket.
    pub(crate) async fn delete_bucket(&self, request: &Request<'_>) -> Result<Response> {
        self.log.delete_bucket(request.bucket()?, self.env.now_ms()).await?;
        Ok(Response::new(204))
    }

    /// GetBucketLocation.
    pub(crate) fn bucket_location(&self, request: &Request<'_>) -> Result<Response> {
        self.require_bucket(request.bucket()?)?;
        Ok(Response::xml(200, xml::location(&self.config.region)))
    }

    /// GetBucketVersioning: never enabled.
    pub(crate) fn bucket_versioning(&self, request: &Request<'_>) -> Result<Response> {
        self.require_bucket(request.bucket()?)?;
        Ok(Response::xml(200, xml::versioning()))
    }

    /// GetBucketAcl: the owner has FULL_CONTROL.
    pub(crate) fn bucket_acl(&self, request: &Request<'_>) -> Result<Response> {
        self.require_bucket(request.bucket()?)?;
        Ok(Response::xml(200, xml::acl()))
    }
}
