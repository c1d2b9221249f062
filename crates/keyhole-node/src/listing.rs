//! Listings of objects, uploads and parts.

use keyhole_core::head::Checksums;
use keyhole_log::{ListObjects, ListUploads, ListVersions, Listed, ListedUpload, ListedVersion, Listing};
use keyhole_s3::ops::VersionId;
use keyhole_s3::{ErrorCode, ops, sse, xml};

use crate::failure::Result;
use crate::http::Response;
use crate::node::Node;
use crate::object_head::ObjectHead;
use crate::plan::UploadId;
use crate::platform::Platform;
use crate::request::Request;
use crate::versions::{log_version, s3_version};

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

    /// Handles ListObjectVersions. In a bucket without versioning, each object is its only version.
    pub(crate) fn list_versions(&self, request: &Request<'_>, query: &ops::ListVersions) -> Result<Response<'_, P>> {
        let bucket = request.bucket()?;
        let list = ListVersions {
            prefix: query.prefix.clone(),
            delimiter: query.delimiter.clone(),
            after: query.key_marker.clone().map(|key| (key, query.version_marker.map(log_version))),
            limit: query.max_keys,
        };
        let listing = self.log.list_versions(bucket, &list)?;
        let entries: Vec<_> = listing.entries.iter().map(version_entry).collect();
        // The place of a version `null` has another id in the log, which no client expects.
        let ends_with_null = matches!(
            listing.entries.last(),
            Some(ListedVersion::Version(version)) if version.version == keyhole_log::VersionId::Null
        );
        let id = |version| if ends_with_null { VersionId::Null } else { s3_version(version) };
        let next = listing.next.as_ref().map(|(key, version)| (&key[..], version.map(id)));
        Ok(Response::xml(200, xml::list_versions(bucket, query, &entries, next)))
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

/// Converts an entry of a listing of versions.
fn version_entry(entry: &ListedVersion) -> xml::VersionEntry<'_> {
    match entry {
        ListedVersion::Version(version) => xml::VersionEntry::Version {
            key: &version.key,
            id: s3_version(version.version),
            is_latest: version.is_latest,
            time_ms: version.time_ms,
            content: (!version.is_marker)
                .then(|| xml::VersionContent { size: version.size, etag: version.etag.to_string() }),
        },
        ListedVersion::Prefix(prefix) => xml::VersionEntry::Prefix(prefix),
    }
}
