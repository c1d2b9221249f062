//! Tags of buckets.

use std::sync::Arc;

use keyhole_log::BucketSettings;
use keyhole_s3::ops::Tags;
use keyhole_s3::{Error, ErrorCode, xml};

use crate::failure::Result;
use crate::http::{Connection, Response};
use crate::node::Node;
use crate::platform::Platform;
use crate::request::Request;

impl<P: Platform> Node<P> {
    /// Creates a bucket with these tags, and with object lock if it is to have one.
    ///
    /// # Errors
    /// `BucketAlreadyOwnedByYou` if the bucket exists with other tags than the given ones, or without
    /// the object lock that it is to have.
    pub(crate) async fn make_bucket(&self, bucket: &str, tags: &Tags, has_lock: bool) -> Result<()> {
        let tags = tags.to_bytes();
        let now_ms = self.host.now_ms();
        if has_lock && self.log.bucket_versioning(bucket).is_none() {
            self.log.start_lock_clock(now_ms).await?;
        }
        let is_new = match has_lock {
            true => self.log.create_locked_bucket(bucket, now_ms, &tags).await?,
            false => self.log.create_tagged_bucket(bucket, now_ms, &tags).await?,
        };
        if is_new {
            return Ok(());
        }
        let settings = self.log.bucket_settings(bucket).map(|(settings, _)| settings).unwrap_or_default();
        let message = if has_lock && settings.lock.is_none() {
            "The bucket exists, and you own it, but without object lock. Set it with PutObjectLockConfiguration."
        } else if !tags.is_empty() && *settings.tags != *tags {
            "The bucket exists, and you own it, but not with these tags. Set them with PutBucketTagging."
        } else {
            return Ok(());
        };
        Err(Error::new(ErrorCode::BucketAlreadyOwnedByYou)
            .with_message(message)
            .with_field("BucketName", bucket)
            .into())
    }

    /// Handles PutBucketTagging: replaces the bucket's tags.
    pub(crate) async fn put_bucket_tagging(
        &self,
        connection: &mut Connection<P::Stream>,
        request: &Request<'_>,
    ) -> Result<Response<'_, P>> {
        let (bucket, document) = self.bucket_document(connection, request).await?;
        let tags = xml::parse_bucket_tagging(&document)?;
        self.set_bucket_tags(bucket, &tags).await?;
        Ok(Response::new(204))
    }

    /// Handles GetBucketTagging.
    pub(crate) fn bucket_tagging(&self, request: &Request<'_>) -> Result<Response<'_, P>> {
        let bucket = request.bucket()?;
        let (settings, _) = self.log.bucket_settings(bucket).ok_or(ErrorCode::NoSuchBucket)?;
        match Tags::bucket_from_bytes(&settings.tags) {
            None => {
                let message = "The bucket has tags that this version of the node cannot read. Set them again.";
                Err(Error::new(ErrorCode::NotImplemented).with_message(message).into())
            }
            Some(tags) if tags.is_empty() => {
                Err(Error::new(ErrorCode::NoSuchTagSet).with_field("BucketName", bucket).into())
            }
            Some(tags) => Ok(Response::xml(200, xml::tagging(&tags))),
        }
    }

    /// Handles DeleteBucketTagging: 204 whether there are tags or not.
    pub(crate) async fn delete_bucket_tagging(&self, request: &Request<'_>) -> Result<Response<'_, P>> {
        self.set_bucket_tags(request.bucket()?, &Tags::default()).await?;
        Ok(Response::new(204))
    }

    async fn set_bucket_tags(&self, bucket: &str, tags: &Tags) -> Result<()> {
        let tags: Arc<[u8]> = tags.to_bytes().into();
        let change = |settings: &mut BucketSettings| {
            settings.tags = tags;
            Ok(())
        };
        self.change_bucket(bucket, change).await
    }
}
