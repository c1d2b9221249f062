//! Versions of objects: which one a request names, and the versioning state of buckets.

use keyhole_log::{FoundVersion, Marker, Object, StoredVersion, Versioning};
use keyhole_s3::ops::{self, VersionId};
use keyhole_s3::{Error, ErrorCode, xml};

use crate::access::Right;
use crate::failure::{Failure, Result};
use crate::http::{Connection, Response};
use crate::node::Node;
use crate::object_memory::{FoundObject, NoObject, ObjectUse};
use crate::platform::Platform;
use crate::request::{ObjectName, Request};

/// The header that names a version.
const VERSION_HEADER: &str = "x-amz-version-id";

/// Converts the id of a version for the log.
pub(crate) fn log_version(id: VersionId) -> keyhole_log::VersionId {
    match id {
        VersionId::Null => keyhole_log::VersionId::Null,
        VersionId::Id(id) => keyhole_log::VersionId::Id(id),
    }
}

/// Converts the id of a version from the log.
pub(crate) fn s3_version(id: keyhole_log::VersionId) -> VersionId {
    match id {
        keyhole_log::VersionId::Null => VersionId::Null,
        keyhole_log::VersionId::Id(id) => VersionId::Id(id),
    }
}

/// Returns the header that names an object's version, if its bucket has had versioning configured.
pub(crate) fn object_version(object: &Object) -> Option<(&'static str, String)> {
    version_header(StoredVersion { version: object.version, versioning: object.versioning })
}

/// Returns the header that names a stored version, if its bucket has had versioning configured.
pub(crate) fn version_header(stored: StoredVersion) -> Option<(&'static str, String)> {
    shown_version(stored).map(|id| (VERSION_HEADER, id))
}

/// Returns the id of a version, if its bucket has had versioning configured.
pub(crate) fn shown_version(stored: StoredVersion) -> Option<String> {
    (stored.versioning != Versioning::Off).then(|| stored.version.to_string())
}

impl Request<'_> {
    /// Returns the error for a missing version, or a missing object if no version was named.
    pub(crate) fn no_such_version(&self, name: ObjectName<'_>, version: Option<VersionId>) -> Error {
        let error = Error::new(self.no_such_key(name.bucket, name.key));
        match version {
            Some(id) if error.code == ErrorCode::NoSuchKey => ops::no_such_version(name.key, id),
            _ => error,
        }
    }

    /// Returns the error for a delete marker: a missing object if no version was named.
    pub(crate) fn delete_marker(&self, name: ObjectName<'_>, version: Option<VersionId>, marker: &Marker) -> Error {
        let id = s3_version(marker.version);
        match (version, self.no_such_key(name.bucket, name.key)) {
            (Some(_), _) => ops::is_delete_marker(self.head, id, marker.time_ms),
            (None, ErrorCode::NoSuchKey) => ops::under_delete_marker(Error::new(ErrorCode::NoSuchKey), id),
            (None, code) => Error::new(code),
        }
    }
}

/// Returns the error for a request about the properties of a delete marker.
fn is_marker(request: &Request<'_>, marker: &Marker) -> Error {
    ops::is_delete_marker(request.head, s3_version(marker.version), marker.time_ms)
}

impl<P: Platform> Node<P> {
    /// Reads the version of an object that a request names, or its current one, for a use, and reserves
    /// memory for it.
    pub(crate) async fn find_version(
        &self,
        request: &Request<'_>,
        name: ObjectName<'_>,
        version: Option<VersionId>,
        object_use: ObjectUse,
    ) -> Result<FoundObject<'_>> {
        let marked = |marker: &Marker| request.delete_marker(name, version, marker);
        self.find_object_version(request, name, version, object_use, marked).await
    }

    /// Reads the version that a request about the properties of a version names. A delete marker has
    /// none, also if it is the current version.
    pub(crate) async fn find_described(&self, request: &Request<'_>) -> Result<FoundObject<'_>> {
        let marked = |marker: &Marker| is_marker(request, marker);
        self.find_object_version(request, request.name()?, request.version(), ObjectUse::Describe, marked).await
    }

    /// Reads a version that must be an object. `marked` returns the error for a delete marker.
    async fn find_object_version(
        &self,
        request: &Request<'_>,
        name: ObjectName<'_>,
        version: Option<VersionId>,
        object_use: ObjectUse,
        marked: impl FnOnce(&Marker) -> Error,
    ) -> Result<FoundObject<'_>> {
        match self.find_any(request, name, version.map(log_version), object_use).await? {
            Ok(found) => {
                if found.object.sealed {
                    request.account.record_sealed();
                }
                Ok(found)
            }
            Err(NoObject::Marker(marker)) => Err(marked(&marker).into()),
            Err(NoObject::Absent) => Err(request.no_such_version(name, version).into()),
        }
    }

    /// Reads a version like [`find_described`](Self::find_described), for a request that has reserved
    /// memory for a record of `len_max` bytes, and must not wait for more.
    pub(crate) async fn find_described_within(&self, request: &Request<'_>, len_max: usize) -> Result<Object> {
        let name = request.name()?;
        match self.find_any_within(name, request.version().map(log_version), len_max).await? {
            FoundVersion::Object(object, _) => {
                if object.sealed {
                    request.account.record_sealed();
                }
                Ok(object)
            }
            FoundVersion::Marker(marker) => Err(is_marker(request, &marker).into()),
            FoundVersion::Absent | FoundVersion::Long { .. } => {
                Err(request.no_such_version(name, request.version()).into())
            }
        }
    }

    /// Maps a refused change of the version that a request names to the error for the client.
    pub(crate) async fn explain_version(&self, request: &Request<'_>, error: keyhole_log::Error) -> Failure {
        use keyhole_log::Error as Log;
        match error {
            // The log says what is wrong, and the look-up says it of the version.
            Log::IsMarker | Log::NoSuchVersion | Log::NoSuchKey => match self.find_described(request).await {
                Err(failure) => failure,
                Ok(_) => ErrorCode::ConditionalRequestConflict.into(),
            },
            error => error.into(),
        }
    }

    /// Fails unless the node has versioning and object lock.
    pub(crate) fn require_versions(&self) -> Result<()> {
        if self.config.has_versions { Ok(()) } else { Err(ErrorCode::NotImplemented.into()) }
    }

    /// Returns the versioning state of a bucket.
    pub(crate) fn versioning(&self, bucket: &str) -> Result<Versioning> {
        Ok(self.log.bucket_versioning(bucket).ok_or(ErrorCode::NoSuchBucket)?.0)
    }

    /// Returns the right that the deletion of a named version requires. Without versioning, the only
    /// version is the object.
    pub(crate) fn right_to_delete_version(&self, bucket: &str) -> Right {
        match self.versioning(bucket) {
            Ok(Versioning::Off) => Right::Delete,
            _ => Right::DeleteVersion,
        }
    }

    /// Handles GetBucketVersioning.
    pub(crate) fn bucket_versioning(&self, request: &Request<'_>) -> Result<Response<'_, P>> {
        let state = match self.versioning(request.bucket()?)? {
            Versioning::Off => None,
            Versioning::Enabled => Some(ops::Versioning::Enabled),
            Versioning::Suspended => Some(ops::Versioning::Suspended),
        };
        Ok(Response::xml(200, xml::versioning(state)))
    }

    /// Handles PutBucketVersioning.
    pub(crate) async fn put_bucket_versioning(
        &self,
        connection: &mut Connection<P::Stream>,
        request: &Request<'_>,
    ) -> Result<Response<'_, P>> {
        self.require_versions()?;
        let (bucket, document) = self.bucket_document(connection, request).await?;
        let versioning = match xml::parse_versioning(&document)? {
            ops::Versioning::Enabled => Versioning::Enabled,
            ops::Versioning::Suspended => Versioning::Suspended,
        };
        let suspends_lock =
            |settings: &keyhole_log::BucketSettings| settings.lock.is_some() && versioning == Versioning::Suspended;
        self.change_bucket(bucket, |settings| {
            if suspends_lock(settings) {
                let message =
                    "An Object Lock configuration is present on this bucket, so the versioning state cannot be changed.";
                return Err(Error::new(ErrorCode::InvalidBucketState).with_message(message).into());
            }
            settings.versioning = versioning;
            Ok(())
        })
        .await?;
        Ok(Response::new(200))
    }
}
