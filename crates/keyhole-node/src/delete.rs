//! DeleteObject and DeleteObjects.

use keyhole_log::{Condition, Deletion, Versioning};
use keyhole_s3::limits::DELETE_MAX;
use keyhole_s3::ops::{self, VersionId, WriteCondition};
use keyhole_s3::xml::ObjectToDelete;
use keyhole_s3::{Error, ErrorCode, xml};

use crate::access::Right;
use crate::failure::{Failure, Result};
use crate::http::{Connection, Response};
use crate::limits::{DELETED_OBJECT_MIN, DELETION_LEN};
use crate::node::Node;
use crate::plan::{log_condition, match_condition};
use crate::platform::Platform;
use crate::request::{ObjectName, Request};
use crate::versions::log_version;

/// The effect of a deletion.
#[derive(Default)]
struct Deleted {
    /// The id of the version that was deleted, or of the delete marker that was stored.
    version: Option<String>,
    /// Whether that is a delete marker.
    is_marker: bool,
}

impl<P: Platform> Node<P> {
    /// Handles DeleteObject: 204 whether the object or the version exists or not.
    pub(crate) async fn delete_object(&self, request: &Request<'_>) -> Result<Response<'_, P>> {
        let name = request.name()?;
        let condition = ops::delete_condition(request.head)?;
        let bypass = self.bypasses_governance(request, name.bucket, name.key)?;
        let deleted = match request.version().filter(|version| !self.is_only_version(name.bucket, *version)) {
            None => {
                self.record_if_sealed(request.account, name, None);
                self.delete_current(request, name, log_condition(&condition)).await?
            }
            Some(_) if condition != WriteCondition::None => return Err(condition_on_version().into()),
            Some(version) => self.delete_version(request, name, version, bypass).await?,
        };
        let response = Response::new(204).headers(deleted.version.map(|id| ("x-amz-version-id", id)));
        Ok(if deleted.is_marker { response.header("x-amz-delete-marker", "true") } else { response })
    }

    /// Returns whether this version is the object itself, because its bucket has no versioning.
    fn is_only_version(&self, bucket: &str, version: VersionId) -> bool {
        version == VersionId::Null && matches!(self.versioning(bucket), Ok(Versioning::Off))
    }

    /// Deletes an object if it fulfils a condition. With versioning, stores a delete marker.
    async fn delete_current(
        &self,
        request: &Request<'_>,
        name: ObjectName<'_>,
        condition: Condition,
    ) -> Result<Deleted> {
        let ObjectName { bucket, key } = name;
        match self.log.delete_current(bucket, key, self.host.now_ms(), condition).await {
            Ok(Deletion::Removed(_)) => Ok(Deleted::default()),
            Ok(Deletion::Marker(id)) => Ok(Deleted { version: Some(id.to_string()), is_marker: true }),
            Err(keyhole_log::Error::NoSuchKey) => Err(request.no_such_key(bucket, key).into()),
            Err(error) => Err(error.into()),
        }
    }

    /// Deletes a version for good, unless its lock prevents that.
    async fn delete_version(
        &self,
        request: &Request<'_>,
        name: ObjectName<'_>,
        version: VersionId,
        bypass: bool,
    ) -> Result<Deleted> {
        let ObjectName { bucket, key } = name;
        self.record_if_sealed(request.account, name, Some(version));
        let is_versioned = self.versioning(bucket)? != Versioning::Off;
        let deleted = self.log.delete_version(bucket, key, log_version(version), self.host.now_ms(), bypass).await?;
        Ok(Deleted { version: is_versioned.then(|| version.to_string()), is_marker: deleted.was_marker })
    }

    /// Handles DeleteObjects: up to 1,000 keys, with a result for each.
    pub(crate) async fn delete_objects(
        &self,
        connection: &mut Connection<P::Stream>,
        request: &Request<'_>,
    ) -> Result<Response<'_, P>> {
        let bucket = request.bucket()?;
        self.require_bucket(bucket)?;
        let needed = |len: usize| (2 * len).max(len + bytes_of_deletions(len / DELETED_OBJECT_MIN));
        let document = self.document_for(connection, request, needed).await?;
        let document_len = document.len();
        let delete = xml::parse_delete(&document)?;
        let mut memory = document.into_memory();
        memory.set_len(document_len + bytes_of_deletions(delete.objects.len()));
        // Refuses the header on a bucket without object lock.
        self.bypasses_governance(request, bucket, "")?;
        let deletions = delete.objects.iter().map(async |object| {
            let name = ObjectName { bucket, key: &object.key };
            let is_sealed = match named_version(object) {
                None => self.is_sealed(name, None),
                Some(None) => false,
                Some(version) => self.is_sealed(name, version),
            };
            (is_sealed, self.delete_named(request, object).await)
        });
        // Concurrently, so that the deletions share commits.
        let mut outcomes = futures_util::future::join_all(deletions).await;
        // Entries for the same name may have been in each other's way, and all others are done now.
        for (object, (_, outcome)) in delete.objects.iter().zip(&mut outcomes) {
            if matches!(outcome, Err(Failure::Reply(error)) if error.code == ErrorCode::ConditionalRequestConflict) {
                *outcome = self.delete_named(request, object).await;
            }
        }
        let mut results = Vec::with_capacity(outcomes.len());
        for (ObjectToDelete { key, version_id, .. }, (is_sealed, outcome)) in delete.objects.iter().zip(outcomes) {
            let (marker, error) = match outcome {
                Ok(deleted) => (deleted.version.filter(|_| deleted.is_marker), None),
                Err(Failure::Reply(error)) => (None, Some(error)),
                Err(Failure::Fault(error, cause)) => {
                    let name = (Some(bucket), Some(key.as_str()));
                    self.report_fault(request.request_id, &request.head.path, name, &cause);
                    (None, Some(error))
                }
                Err(Failure::Connection(gone)) => return Err(gone.into()),
            };
            if is_sealed {
                request.account.record_object(key, error.as_ref().map(|error| error.code));
            }
            results.push(xml::Deleted { key, version_id: version_id.as_deref(), marker, error });
        }
        Ok(Response::xml(200, xml::delete_result(&results, delete.quiet)).with_memory(memory))
    }

    /// Deletes one of the objects of a DeleteObjects.
    async fn delete_named(&self, request: &Request<'_>, object: &ObjectToDelete) -> Result<Deleted> {
        let bucket = request.bucket()?;
        let version = named_version(object);
        let name = ObjectName { bucket, key: &object.key };
        let right = if version.is_some() { self.right_to_delete_version(bucket) } else { Right::Delete };
        request.caller.require(right, bucket, name.key)?;
        match version.filter(|version| version.is_none_or(|version| !self.is_only_version(bucket, version))) {
            None => self.delete_current(request, name, match_condition(&object.required)).await,
            Some(None) => Err(ErrorCode::NoSuchVersion.into()),
            Some(Some(_)) if !object.required.is_empty() => Err(condition_on_version().into()),
            Some(Some(version)) => {
                let bypass = self.bypasses_governance(request, bucket, name.key)?;
                self.delete_version(request, name, version, bypass).await
            }
        }
    }
}

/// Returns the bytes of memory that so many concurrent deletions take, beside the names of the
/// objects.
fn bytes_of_deletions(objects: usize) -> usize {
    objects.min(DELETE_MAX) * DELETION_LEN
}

/// Returns the version that an entry of a DeleteObjects names; `Some(None)` if no version has such an
/// id.
fn named_version(object: &ObjectToDelete) -> Option<Option<VersionId>> {
    object.version_id.as_deref().map(VersionId::parse)
}

/// Returns the error for a condition on the deletion of a version: conditions are about the current
/// one.
fn condition_on_version() -> Error {
    Error::new(ErrorCode::NotImplemented).with_message("A deletion cannot have both a version and a condition.")
}
