//! Listings of objects, uploads and parts.

use keyhole_core::head::Checksums;
use keyhole_log::{ListObjects, ListUploads, Listed, ListedUpload, Listing};
use keyhole_s3::ops::VersionId;
use keyhole_s3::{ErrorCode, ops, sse, xml};

use crate::failure::Result;
use crate::http::Response;
use crate::node::Node;
use crate::object_head::ObjectHead;
use crate::plan::UploadId;
use crate::platform::Platform;
use crate::request::Request;

impl<P: Platform> Node<P> {
    /// Handles ListObjects.
    pub(crate) fn list_objects(&self, request: &Request<'_>, query: &ops::ListObjects) -> Result<Response<'_, P>> {
        let bucket = request.bucket()?;
        let listing =
            self.list(bucket, &query.prefix, query.delimiter.as_ref(), query.marker.clone(), query.max_keys)?;
        let entries = entries(&listing);
        Ok(Response::xml(200, xml::list_objects_v1(bucket, query, &entries, listing.truncated)))
    }

    /// Handles ListObjectsV2.
    pub(crate) fn list_objects_v2(&self, request: &Request<'_>, query: &ops::ListObjectsV2) -> Result<Response<'_, P>> {
        let bucket = request.bucket()?;
        let after = query.continuation.clone().or_else(|| query.start_after.clone());
        let listing = self.list(bucket, &query.prefix, query.delimiter.as_ref(), after, query.max_keys)?;
        let entries = entries(&listing);
        Ok(Response::xml(200, xml::list_objects_v2(bucket, query, &entries, listing.truncated)))
    }

    /// Handles ListObjectVersions: no bucket has versions, so each object is its own latest one.
    pub(crate) fn list_versions(&self, request: &Request<'_>, query: &ops::ListVersions) -> Result<Response<'_, P>> {
        let bucket = request.bucket()?;
        let listing =
            self.list(bucket, &query.prefix, query.delimiter.as_ref(), query.key_marker.clone(), query.max_keys)?;
        let entries = versions(&listing);
        Ok(Response::xml(200, xml::list_versions(bucket, query, &entries, listing.truncated)))
    }

    fn list(
        &self,
        bucket: &str,
        prefix: &str,
        delimiter: Option<&String>,
        after: Option<String>,
        limit: usize,
    ) -> Result<Listing> {
        let query = ListObjects { prefix: prefix.to_owned(), delimiter: delimiter.cloned(), after, limit };
        Ok(self.log.list_objects(bucket, &query)?)
    }

    /// Handles ListMultipartUploads.
    pub(crate) fn list_uploads(&self, request: &Request<'_>, query: &ops::ListUploads) -> Result<Response<'_, P>> {
        let bucket = request.bucket()?;
        let after = query.key_marker.clone().map(|key| (key, query.upload_id_marker));
        let listing = self.log.list_uploads(
            bucket,
            &ListUploads {
                prefix: query.prefix.clone(),
                delimiter: query.delimiter.clone(),
                after,
                limit: query.max_uploads,
            },
        )?;
        let entries: Vec<_> = listing
            .entries
            .iter()
            .map(|entry| match entry {
                ListedUpload::Upload(upload) => {
                    xml::UploadEntry::Upload { key: &upload.key, id: &upload.id, time_ms: upload.time_ms }
                }
                ListedUpload::Prefix(prefix) => xml::UploadEntry::Prefix(prefix),
            })
            .collect();
        Ok(Response::xml(200, xml::list_uploads(bucket, query, &entries, listing.truncated)))
    }

    /// Handles ListParts.
    pub(crate) async fn list_parts(
        &self,
        request: &Request<'_>,
        id: &UploadId,
        marker: u16,
        max: usize,
    ) -> Result<Response<'_, P>> {
        let (bucket, key) = request.object()?;
        let customer_key = request.sse_c().write_key()?;
        request.account.record_key(customer_key.as_deref(), bucket);
        let upload = self.log.upload(bucket, key, id)?.ok_or(ErrorCode::NoSuchUpload)?;
        let head = match (upload.sealed, &customer_key) {
            (false, Some(_)) => return Err(sse::part_mismatch().into()),
            (true, None) if upload.declared.is_some() => return Err(sse::key_required().into()),
            // The response needs nothing from the head.
            (true, None) => ObjectHead::default(),
            (..) => self.upload_head(&upload, customer_key.as_deref()).await?,
        };
        let mut found = self.log.parts(&upload, marker, max + 1)?;
        let truncated = found.len() > max;
        found.truncate(max);
        let mut parts = Vec::with_capacity(found.len());
        for part in &found {
            let checksums = match head.declared {
                None => Checksums::default(),
                Some(_) => {
                    let checksums = self.log.part_checksums(part).await?;
                    self.decode_part_checksums(&checksums, &part.part, head.data_key.as_deref())?
                }
            };
            parts.push(xml::PartEntry {
                number: part.number,
                size: part.size,
                etag: hex::encode(part.etag),
                time_ms: part.time_ms,
                checksums,
            });
        }
        let list = xml::PartList { id, declared: head.declared, marker, max, parts, truncated };
        let response = Response::xml(200, xml::list_parts(bucket, key, &list));
        Ok(self.with_abortion(response, bucket, key, upload.time_ms))
    }
}

/// Converts a listing to entries of the XML document.
fn entries(listing: &Listing) -> Vec<xml::ListEntry<'_>> {
    listing
        .entries
        .iter()
        .map(|entry| match entry {
            Listed::Object { key, size, time_ms, etag, .. } => {
                xml::ListEntry::Object { key, size: *size, time_ms: *time_ms, etag: etag.to_string() }
            }
            Listed::Prefix(prefix) => xml::ListEntry::Prefix(prefix),
        })
        .collect()
}

/// Converts a listing of a bucket without versions to entries of the XML document.
fn versions(listing: &Listing) -> Vec<xml::VersionEntry<'_>> {
    let version = |entry| match entry {
        xml::ListEntry::Object { key, size, time_ms, etag } => xml::VersionEntry::Version {
            key,
            id: VersionId::Null,
            is_latest: true,
            time_ms,
            content: Some(xml::VersionContent { size, etag }),
        },
        xml::ListEntry::Prefix(prefix) => xml::VersionEntry::Prefix(prefix),
    };
    entries(listing).into_iter().map(version).collect()
}
