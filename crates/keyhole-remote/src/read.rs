//! Reads of evicted objects.

use std::ops::Range;

use keyhole_node::{EvictedError, EvictedObject};

use crate::fields::ObjectFields;
use crate::names::Names;
use crate::sabotage::{self, Sabotage};
use crate::service::{Service, ServiceError};

/// Begins to read a range of the file of an evicted object of this store. The caller authenticates the
/// bytes.
///
/// # Errors
/// `Unavailable` if the service does not answer; `Altered` if it has another file under the name of the
/// version, or none.
pub async fn open_evicted<S: Service>(
    service: &S,
    names: &Names,
    store: [u8; 16],
    object: &EvictedObject,
    range: Range<u64>,
) -> Result<S::Download, EvictedError> {
    let name = names.stored_version(&object.bucket, &object.key, object.version);
    let altered = |what: &str| EvictedError::Altered(format!("{name} in the remote {what}"));
    let (head, download) = service.get(&name, Some(range)).await?.ok_or_else(|| altered("is missing"))?;
    let Some(fields) = ObjectFields::decode(&head.fields) else { return Err(altered("was not stored by a node")) };
    if !fields.is_object(store, object.number) && !sabotage::is(Sabotage::ReadAnyVersion) {
        return Err(altered("is another version"));
    }
    if head.len != object.file_len {
        return Err(altered("has another length"));
    }
    Ok(download)
}

impl From<ServiceError> for EvictedError {
    fn from(error: ServiceError) -> Self {
        EvictedError::Unavailable(error.to_string())
    }
}
