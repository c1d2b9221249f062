//! The binding of stored objects to their heads.
//!
//! This is the one place that makes the sizes of an object trustworthy. The log guarantees that the
//! size of an object is the sum of the sizes of its parts, and that each body is as long as its
//! part. Of a sealed object, the head must say the same: it has the length of a single body, or the
//! manifest of all parts. An object that was completed without its key has neither, so the end of
//! each part is authenticated instead. Only the list of parts is then not authenticated.

use keyhole_core::head::HeadKind;
use keyhole_core::{CustomerKey, body};
use keyhole_log::{Object, UploadRef};
use keyhole_s3::ops::BINDING_HEADER;
use keyhole_s3::{Error, ErrorCode, sse};

use crate::bodies::{check_etag, check_shape};
use crate::failure::{Result, not_authentic};
use crate::object_head::ObjectHead;

/// The extent to which the head of an object authenticates its bodies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Binding {
    /// The object is plaintext: nothing is authenticated.
    Plaintext,
    /// The head authenticates all bodies of the object, and their order.
    Bound,
    /// Each part authenticates by itself, but the list of parts does not: the upload was completed
    /// without the key.
    Unbound,
}

impl Binding {
    /// Checks that the object's parts and their order are authenticated, if the request demands it.
    ///
    /// # Errors
    /// `PreconditionFailed`.
    pub(crate) fn require(self, is_required: bool) -> Result<()> {
        let message = match self {
            _ if !is_required => return Ok(()),
            Binding::Bound => return Ok(()),
            Binding::Unbound => {
                "The upload of the object was completed without its key, so its list of parts is not authenticated. \
                 Compare the ETag with the one that the upload returned, and read without x-keyhole-binding."
            }
            Binding::Plaintext => "The object is plaintext, so nothing of it is authenticated.",
        };
        Err(Error::new(ErrorCode::PreconditionFailed).with_message(message).into())
    }

    /// Returns the binding of the object that an upload becomes.
    ///
    /// # Errors
    /// The error for a missing key, or `PreconditionFailed`, if the request demands an object all of
    /// whose parts are authenticated.
    pub(crate) fn of_completion(upload: &UploadRef, key: Option<&CustomerKey>, is_required: bool) -> Result<Self> {
        let binding = match key {
            _ if !upload.sealed => Binding::Plaintext,
            Some(_) => Binding::Bound,
            None if is_required => return Err(sse::key_required().into()),
            None => Binding::Unbound,
        };
        binding.require(is_required)?;
        Ok(binding)
    }

    /// Returns the header field of objects whose list of parts is not authenticated.
    pub(crate) fn header(self) -> Option<(&'static str, &'static str)> {
        (self == Binding::Unbound).then_some((BINDING_HEADER, "unbound"))
    }
}

/// Checks an object against its opened head.
///
/// # Errors
/// `ObjectDamaged` if the record contradicts itself, and the error for objects that do not
/// authenticate if the head binds other bodies.
pub(crate) fn check(object: &Object, head: &ObjectHead, bucket: &str, key: &str) -> Result<Binding> {
    check_shape(object)?;
    if !object.sealed {
        return Ok(Binding::Plaintext);
    }
    check_sealed(object, head).map_err(|what| not_authentic(&format!("{bucket}/{key}: {what}")))
}

/// Checks that the bodies of a sealed object are those that its head and its ETag bind.
fn check_sealed(object: &Object, head: &ObjectHead) -> std::result::Result<Binding, String> {
    let bodies = check_etag(object)?;
    match head.with(|head| bodies.check(head)).map_err(|error| error.to_string())? {
        body::Binding::Bound => Ok(Binding::Bound),
        body::Binding::Unbound if object.bound => Err("the head does not list the parts".to_owned()),
        body::Binding::Unbound => Ok(Binding::Unbound),
    }
}

/// Checks that the opened head of an upload is not that of an object.
pub(crate) fn check_upload(head: &ObjectHead) -> Result<()> {
    // Heads of uploads that earlier releases created are in the domain of objects.
    let is_earlier = head.plaintext_length.is_none() && head.manifest.is_none() && head.checksums.is_empty();
    if head.kind == HeadKind::Upload || is_earlier {
        return Ok(());
    }
    Err(not_authentic("the head of an upload is that of an object"))
}
