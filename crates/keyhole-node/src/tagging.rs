//! The tags of objects: labels in the log, in the clear, whether the object is sealed or not.

use keyhole_core::aead::Engine;
use keyhole_log::{Disk, Object};
use keyhole_s3::http::Response;
use keyhole_s3::ops::Tags;
use keyhole_s3::xml;

use crate::failure::{Result, damaged};
use crate::io::{Env, Stream};
use crate::limits::TAGGING_ATTEMPTS;
use crate::node::{Node, Request};
use crate::request::Connection;

/// The tags of a stored object.
pub(crate) fn tags_of(object: &Object) -> Result<Tags> {
    Tags::from_bytes(&object.labels).ok_or_else(|| damaged("the labels of an object are no tags"))
}

impl<D: Disk, E: Engine, V: Env> Node<D, E, V> {
    /// GetObjectTagging: needs no key.
    pub(crate) async fn object_tagging(&self, request: &Request<'_>) -> Result<Response> {
        let (bucket, key) = request.object()?;
        let object = self.log.object(bucket, key).await?.ok_or_else(|| request.no_such_key(bucket, key))?;
        Ok(Response::xml(200, xml::tagging(&tags_of(&object)?)))
    }

    /// PutObjectTagging: in place of the tags that the object has. Its time and ETag stay.
    pub(crate) async fn put_object_tagging<S: Stream<Buf = D::Buf>>(
        &self,
        connection: &mut Connection<S>,
        request: Request<'_>,
    ) -> Result<Response> {
        let document = self.document(connection, &request).await?;
        self.set_tags(&request, &xml::parse_tagging(&document)?).await?;
        Ok(Response::new(200))
    }

    /// DeleteObjectTagging.
    pub(crate) async fn delete_object_tagging(&self, request: &Request<'_>) -> Result<Response> {
        self.set_tags(request, &Tags::default()).await?;
        Ok(Response::new(204))
    }

    /// Gives the tags to the object that has the name at this moment: where another takes its place meanwhile, to that one.
    async fn set_tags(&self, request: &Request<'_>, tags: &Tags) -> Result<()> {
        let (bucket, key) = request.object()?;
        let mut attempts = 1;
        loop {
            let object = self.log.object(bucket, key).await?.ok_or_else(|| request.no_such_key(bucket, key))?;
            match self.log.set_labels(bucket, key, object, tags.to_bytes()).await {
                Err(keyhole_log::Error::Conflict) if attempts < TAGGING_ATTEMPTS => attempts += 1,
                outcome => return Ok(outcome?),
            }
        }
    }
}
