//! The bodies of a stored object, as far as its record alone describes them.

use keyhole_core::{body, chunked};
use keyhole_log::limits::PARTS_MAX;
use keyhole_log::{Object, Part};

use crate::failure::{Result, damaged};

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

/// Collects the bodies of an object. Returns `None` if one exceeds the longest message.
pub(crate) fn bodies<'p>(parts: impl IntoIterator<Item = &'p Part>) -> Option<body::Bodies> {
    let mut bodies = body::Bodies::new();
    for part in parts {
        bodies.push(u32::from(part.number), chunked::message_len(part.size)?, &part.salt).ok()?;
    }
    Some(bodies)
}

/// Returns the manifest of a multipart object.
pub(crate) fn manifest<'p>(parts: impl IntoIterator<Item = &'p Part>) -> Result<[u8; 32]> {
    let manifest = bodies(parts).and_then(|bodies| bodies.manifest());
    Ok(manifest.ok_or(keyhole_s3::ErrorCode::EntityTooLarge)?)
}
