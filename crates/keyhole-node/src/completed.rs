//! CompleteMultipartUpload sent again, because its first reply was lost.
//!
//! The object's record names the upload that it was made from, so that nothing is kept in memory for
//! ended uploads.

use keyhole_core::head::{ChecksumType, Checksums};
use keyhole_log::Object;
use keyhole_s3::checksum::ObjectChecksums;
use keyhole_s3::{ErrorCode, ops, sse, xml};

use crate::attributes::object_checksums;
use crate::binding::Binding;
use crate::failure::Result;
use crate::http::Response;
use crate::multipart::{WantedObject, names};
use crate::node::Node;
use crate::object_head::{ObjectHead, part_key_failure};
use crate::object_memory::ObjectMemory;
use crate::plan::UploadId;
use crate::platform::Platform;
use crate::request::{ObjectName, Request};
use crate::versions::object_version;

impl<P: Platform> Node<P> {
    /// Answers the completion of an upload that has ended: as the first time if the object is still
    /// the one that this upload was completed to, from the same parts. The condition held then and
    /// is not decided again.
    ///
    /// # Errors
    /// `NoSuchUpload` if it is not; `InvalidPart` for other parts.
    pub(crate) async fn complete_again(
        &self,
        request: &Request<'_>,
        id: &UploadId,
        wanted: &WantedObject<'_>,
    ) -> Result<Response<'_, P>> {
        let name = request.name()?;
        let ObjectName { bucket, key } = name;
        let WantedObject { customer_key, completion, completed, record_len, .. } = wanted;
        let object =
            self.find_object_within(name, *record_len).await?.filter(|object| object.completed.as_ref() == Some(id));
        let object = object.ok_or(ErrorCode::NoSuchUpload)?;
        let are_same = completed.iter().zip(&object.parts).all(|(named, part)| names(named, part));
        if completed.len() != object.parts.len() || !are_same {
            return Err(ErrorCode::InvalidPart.into());
        }
        let is_binding_required = ops::requires_binding(request.head)?;
        let (head, binding) = match (object.sealed, customer_key) {
            (false, Some(_)) => return Err(sse::part_mismatch().into()),
            (true, None) if is_binding_required => return Err(sse::key_required().into()),
            // Without the key, the checksums cannot be read.
            (true, None) => (None, if object.bound { Binding::Bound } else { Binding::Unbound }),
            (_, key_of_object) => {
                // The completion has memory for the object, but not for a piece of it.
                let memory = ObjectMemory::default();
                let opened = self.open_object(&object, *key_of_object, name, request, &memory).await;
                let (head, binding) = opened.map_err(part_key_failure)?;
                (Some(head), binding)
            }
        };
        binding.require(is_binding_required)?;
        let checksums = head.as_ref().map_or_else(Checksums::default, |head| head.checksums);
        let kind = head.as_ref().map_or(ChecksumType::FullObject, |head| object_checksums(&object, head).kind);
        let declared = head.as_ref().and_then(|head| head.declared);
        completion.check(object.size, object.etag.parts, declared, &checksums)?;
        if let Some(head) = &head {
            self.check_named_checksums(wanted, &object, head)?;
        }
        let checksums = ObjectChecksums { checksums: &checksums, kind, parts: object.etag.parts };
        let document = xml::complete_result(bucket, key, &object.etag.to_string(), &checksums);
        let response = Response::xml(200, document);
        let response = self.with_expiration(response, bucket, key, object.size, object.time_ms);
        let response = response.headers(object_version(&object));
        Ok(response.headers(binding.header()))
    }

    /// Compares the part checksums that the client names with the kept ones.
    fn check_named_checksums(&self, wanted: &WantedObject<'_>, object: &Object, head: &ObjectHead) -> Result<()> {
        let kept = self.kept_checksums(object, head, 0..object.parts.len());
        for (named, kept) in wanted.completed.iter().zip(kept) {
            let kept = kept?;
            let mut named = named.checksums.iter();
            if named.any(|(algorithm, digest)| kept.get(algorithm).is_some_and(|kept| kept != digest)) {
                return Err(ErrorCode::InvalidPart.into());
            }
        }
        Ok(())
    }
}
