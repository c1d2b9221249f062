//! The binding of stored objects to their heads.
//!
//! This is the one place that makes the sizes of an object trustworthy. The log guarantees that the
//! size of an object is the sum of the sizes of its parts, and that each body is as long as its
//! part. Of a sealed object, the head must say the same: it has the length of a single body, or the
//! manifest of all parts. An object that was completed without its key has neither, so the end of
//! each part is authenticated instead. Only the list of parts is then not authenticated.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use keyhole_core::head::HeadKind;
use keyhole_core::{CustomerKey, DataKey, body, chunked};
use keyhole_log::limits::PARTS_MAX;
use keyhole_log::{Disk, Object, Part, UploadRef};
use keyhole_s3::ops::BINDING_HEADER;
use keyhole_s3::{Error, ErrorCode, sse};

use crate::egress::Reader;
use crate::failure::{Result, damaged, not_authentic};
use crate::http::Response;
use crate::limits::{CHECKED_ENDS_MAX, STRIDE};
use crate::link::Link;
use crate::node::Node;
use crate::object_head::ObjectHead;
use crate::platform::Platform;
use crate::source::PieceSource;

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

    /// Adds the header field of objects whose list of parts is not authenticated.
    pub(crate) fn describe<'n, P: Platform>(self, response: Response<'n, P>) -> Response<'n, P> {
        if self == Binding::Unbound { response.header(BINDING_HEADER, "unbound") } else { response }
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

/// Checks that an object has one body without part number, or as many parts as its ETag says, in
/// ascending order.
pub(crate) fn check_shape(object: &Object) -> Result<()> {
    let numbers = || object.parts.iter().map(|part| usize::from(part.number));
    let is_sound = match (&object.parts[..], usize::from(object.etag.parts)) {
        ([Part { number: 0, .. }], 0) => true,
        (parts, count) => {
            let ascend = numbers().is_sorted_by(|one, next| one < next);
            count > 0 && count == parts.len() && ascend && numbers().all(|number| (1..=PARTS_MAX).contains(&number))
        }
    };
    if is_sound { Ok(()) } else { Err(damaged("an object whose parts are not those of its ETag")) }
}

/// Checks that the ETag of a sealed object is that of its bodies. Needs no key.
pub(crate) fn check_etag(object: &Object) -> std::result::Result<body::Bodies, String> {
    let bodies = bodies(&object.parts).ok_or("a part is too long, or there is no part")?;
    let body::Etag { digest, parts } = bodies.etag();
    if object.etag.digest != digest || u32::from(object.etag.parts) != parts {
        return Err("an object's ETag is not that of its bodies".to_owned());
    }
    Ok(bodies)
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

/// Collects the bodies of an object. Returns `None` if one exceeds the longest message.
pub(crate) fn bodies(parts: &[Part]) -> Option<body::Bodies> {
    let mut bodies = body::Bodies::new();
    for part in parts {
        bodies.push(u32::from(part.number), chunked::message_len(part.size)?, &part.salt).ok()?;
    }
    Some(bodies)
}

/// The manifests of unbound objects whose parts have been found to end where they should. A part's
/// salt is unique, so a manifest stands for the parts' lengths.
#[derive(Default)]
pub(crate) struct CheckedEnds(RefCell<VecDeque<[u8; 32]>>);

impl CheckedEnds {
    fn contains(&self, manifest: &[u8; 32]) -> bool {
        self.0.borrow().contains(manifest)
    }

    fn insert(&self, manifest: [u8; 32]) {
        let mut checked = self.0.borrow_mut();
        if checked.len() == CHECKED_ENDS_MAX {
            checked.pop_front();
        }
        checked.push_back(manifest);
    }
}

impl<P: Platform> Node<P> {
    /// Authenticates the end of each part of an unbound object, and so the sizes of the parts, on
    /// which every range depends. A cache remembers the result.
    ///
    /// # Errors
    /// The errors of reading the parts.
    pub(crate) async fn check_ends(&self, object: &Object, data_key: Option<&DataKey>, link: &Rc<Link>) -> Result<()> {
        let Some(data_key) = data_key else { return Ok(()) };
        let manifest = bodies(&object.parts).and_then(|bodies| bodies.manifest());
        if manifest.is_some_and(|manifest| self.checked_ends.contains(&manifest)) {
            return Ok(());
        }
        let _admitted = self.admission.read(STRIDE as u64, STRIDE, link).await?;
        for part in &object.parts {
            let data_key = Box::new(DataKey::new(*data_key.expose()));
            let last = part.size.saturating_sub(1)..part.size;
            let mut reader = Reader::new(self, std::slice::from_ref(part), Some(data_key), last);
            reader.next(self.log.disk().buffer_with_len(reader.piece_len())).await?;
        }
        manifest.into_iter().for_each(|manifest| self.checked_ends.insert(manifest));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checked_ends_are_bounded() {
        let checked = CheckedEnds::default();
        let manifest = |n: usize| {
            let mut manifest = [0; 32];
            manifest[..8].copy_from_slice(&n.to_le_bytes());
            manifest
        };
        (0..CHECKED_ENDS_MAX).for_each(|n| checked.insert(manifest(n)));
        assert!((0..CHECKED_ENDS_MAX).all(|n| checked.contains(&manifest(n))));
        checked.insert(manifest(CHECKED_ENDS_MAX));
        assert!(!checked.contains(&manifest(0)) && checked.contains(&manifest(1)));
        assert!(checked.contains(&manifest(CHECKED_ENDS_MAX)));
    }
}
