//! Object tags, stored in plaintext for sealed objects too.

use keyhole_log::Object;
use keyhole_s3::ops::Tags;
use keyhole_s3::xml;

use crate::failure::{Result, damaged};
use crate::http::{Connection, Response};
use crate::limits::TAGGING_ATTEMPTS;
use crate::node::Node;
use crate::platform::Platform;
use crate::request::Request;

/// Returns the tags of a stored object.
pub(crate) fn tags_of(object: &Object) -> Result<Tags> {
    Tags::from_bytes(&object.tags).ok_or_else(|| damaged("the tags of an object are invalid"))
}

impl<P: Platform> Node<P> {
    /// Handles GetObjectTagging; requires no customer key.
    pub(crate) async fn object_tagging(&self, request: &Request<'_>) -> Result<Response<'_, P>> {
        let (bucket, key) = request.object()?;
        let object = self.log.object(bucket, key).await?.ok_or_else(|| request.no_such_key(bucket, key))?;
        Ok(Response::xml(200, xml::tagging(&tags_of(&object)?)))
    }

    /// Handles PutObjectTagging: replaces the object's tags. The object keeps its time and ETag.
    pub(crate) async fn put_object_tagging(
        &self,
        connection: &mut Connection<P::Stream>,
        request: &Request<'_>,
    ) -> Result<Response<'_, P>> {
        let document = self.document(connection, request).await?;
        self.set_tags(request, &xml::parse_tagging(&document)?).await?;
        Ok(Response::new(200))
    }

    /// Handles DeleteObjectTagging.
    pub(crate) async fn delete_object_tagging(&self, request: &Request<'_>) -> Result<Response<'_, P>> {
        self.set_tags(request, &Tags::default()).await?;
        Ok(Response::new(204))
    }

    /// Sets the tags of the current object of that name. If it is overwritten concurrently, retries
    /// with the new object.
    async fn set_tags(&self, request: &Request<'_>, tags: &Tags) -> Result<()> {
        let (bucket, key) = request.object()?;
        let mut attempts = 1;
        loop {
            let object = self.log.object(bucket, key).await?.ok_or_else(|| request.no_such_key(bucket, key))?;
            match self.log.set_tags(bucket, key, object, tags.to_bytes()).await {
                Err(keyhole_log::Error::Conflict) if attempts < TAGGING_ATTEMPTS => attempts += 1,
                outcome => return Ok(outcome?),
            }
        }
    }
}
