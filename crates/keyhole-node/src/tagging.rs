//! Object tags, stored in plaintext for sealed objects too.

use keyhole_log::Object;
use keyhole_log::limits::PAGE;
use keyhole_s3::ops::Tags;
use keyhole_s3::xml;

use crate::failure::{Result, damaged};
use crate::http::{Connection, Response};
use crate::limits::{RECORD_FREE, TAGGING_ATTEMPTS};
use crate::node::Node;
use crate::object_memory::{FoundObject, ObjectUse, pages_of_object};
use crate::platform::Platform;
use crate::request::Request;
use crate::versions::{log_version, object_version};

/// Returns the tags of a stored object.
pub(crate) fn tags_of(object: &Object) -> Result<Tags> {
    Tags::from_bytes(&object.tags).ok_or_else(|| damaged("the tags of an object are invalid"))
}

impl<P: Platform> Node<P> {
    /// Handles GetObjectTagging; requires no customer key.
    pub(crate) async fn object_tagging(&self, request: &Request<'_>) -> Result<Response<'_, P>> {
        let FoundObject { object, memory: _memory, .. } = self.find_described(request).await?;
        Ok(Response::xml(200, xml::tagging(&tags_of(&object)?)).headers(object_version(&object)))
    }

    /// Handles PutObjectTagging: replaces the object's tags. The object keeps its time and ETag.
    pub(crate) async fn put_object_tagging(
        &self,
        connection: &mut Connection<P::Stream>,
        request: &Request<'_>,
    ) -> Result<Response<'_, P>> {
        let record_len = self.record_len_max(request.name()?, request.version().map(log_version));
        let needed = |len| 2 * len + if record_len > RECORD_FREE { pages_of_object(record_len) * PAGE } else { 0 };
        let document = self.document_for(connection, request, needed).await?;
        let version = self.set_tags(request, &xml::parse_tagging(&document)?, record_len).await?;
        Ok(Response::new(200).headers(version))
    }

    /// Handles DeleteObjectTagging.
    pub(crate) async fn delete_object_tagging(&self, request: &Request<'_>) -> Result<Response<'_, P>> {
        let record_len = self.record_len_max(request.name()?, request.version().map(log_version));
        let _memory = self.object_memory(request, record_len, 0, ObjectUse::Store).await?;
        let version = self.set_tags(request, &Tags::default(), record_len).await?;
        Ok(Response::new(204).headers(version))
    }

    /// Sets the tags of the version that the request names, or of the current one. If that is
    /// overwritten concurrently, retries with the new object. The request has memory for a record of
    /// `len_max` bytes. Returns the header of the version.
    async fn set_tags(
        &self,
        request: &Request<'_>,
        tags: &Tags,
        len_max: usize,
    ) -> Result<Option<(&'static str, String)>> {
        let (bucket, key) = request.object()?;
        let mut attempts = 1;
        loop {
            let object = self.find_described_within(request, len_max).await?;
            let version = object_version(&object);
            match self.log.set_tags(bucket, key, object, tags.to_bytes()).await {
                Err(keyhole_log::Error::Conflict) if attempts < TAGGING_ATTEMPTS => attempts += 1,
                Err(error) => return Err(error.into()),
                Ok(()) => return Ok(version),
            }
        }
    }
}
