//! Object heads: encoding from request fields, and opening with the request's key.

use keyhole_core::head::{self, ChecksumAlgorithm, ChecksumType, Checksums, Head, HeadError, UserMetadata};
use keyhole_core::limits::{HEAD_MAX, SALT_LEN, SEALED_HEAD_MAX};
use keyhole_core::{CustomerKey, DataKey, body, chunked};
use keyhole_log::{Object, Part};
use keyhole_s3::ops::Metadata;

use crate::failure::{Failure, Result, damaged, not_authentic};
use crate::node::Node;
use crate::platform::Platform;
use crate::secret::Secret;

/// Initial capacity for a sealed head; most fit.
const SEALED_HEAD_USUAL: usize = 1024;

/// An owned object head.
#[derive(Default)]
pub(crate) struct ObjectHead {
    /// Present exactly in the heads of sealed objects.
    pub(crate) data_key: Option<DataKey>,
    pub(crate) plaintext_length: Option<u64>,
    pub(crate) metadata: Metadata,
    pub(crate) checksums: Checksums,
    pub(crate) manifest: Option<[u8; 32]>,
    pub(crate) declared: Option<(ChecksumAlgorithm, ChecksumType)>,
}

impl ObjectHead {
    /// Calls `f` with the borrowed form that the codec takes.
    fn with<T>(&self, f: impl FnOnce(&Head<'_>) -> T) -> T {
        let user: Vec<(&str, &[u8])> =
            self.metadata.user.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect();
        f(&Head {
            data_key: self.data_key.as_ref().map(DataKey::expose),
            plaintext_length: self.plaintext_length,
            fields: std::array::from_fn(|i| self.metadata.fields[i].as_deref()),
            user_metadata: UserMetadata::new(&user),
            checksums: self.checksums,
            manifest: self.manifest,
            declared: self.declared,
        })
    }

    fn from_borrowed(head: &Head<'_>) -> ObjectHead {
        ObjectHead {
            data_key: head.data_key.map(|key| DataKey::new(*key)),
            plaintext_length: head.plaintext_length,
            metadata: Metadata {
                fields: std::array::from_fn(|i| head.fields[i].map(<[u8]>::to_vec)),
                user: head.user_metadata.iter().map(|(name, value)| (name.to_owned(), value.to_vec())).collect(),
            },
            checksums: head.checksums,
            manifest: head.manifest,
            declared: head.declared,
        }
    }
}

impl<P: Platform> Node<P> {
    /// Generates a data key.
    pub(crate) fn data_key(&self) -> DataKey {
        DataKey::new(self.host.random_array())
    }

    /// Encodes a head for storage, sealed for `bucket` and `key` if there is a customer key.
    pub(crate) fn write_head(
        &self,
        head: &ObjectHead,
        customer_key: Option<&CustomerKey>,
        bucket: &str,
        key: &str,
    ) -> Result<Vec<u8>> {
        assert_eq!(head.data_key.is_some(), customer_key.is_some(), "sealed heads have data keys, others have none");
        let Some(customer_key) = customer_key else {
            let mut bytes = vec![0; HEAD_MAX];
            let len = head.with(|head| head.encode(&mut bytes))?;
            bytes.truncate(len);
            return Ok(bytes);
        };
        let salt: [u8; SALT_LEN] = self.host.random_array();
        let seal = |room: usize| {
            let mut bytes = Secret::zeros(room);
            let len =
                head.with(|head| head::seal_head(&self.engine, customer_key, &salt, bucket, key, head, &mut bytes))?;
            Ok(bytes[..len].to_vec())
        };
        match seal(SEALED_HEAD_USUAL) {
            Err(HeadError::TooLong) => Ok(seal(SEALED_HEAD_MAX)?),
            sealed => Ok(sealed?),
        }
    }

    /// Decodes a stored head. A head sealed under another key is a 403.
    pub(crate) fn read_head(
        &self,
        bytes: &[u8],
        customer_key: Option<&CustomerKey>,
        bucket: &str,
        key: &str,
    ) -> Result<ObjectHead> {
        let Some(customer_key) = customer_key else {
            let head = Head::decode(bytes)?;
            return match head.data_key {
                None => Ok(ObjectHead::from_borrowed(&head)),
                Some(_) => Err(damaged("the head of a plaintext object has a data key")),
            };
        };
        let mut bytes = Secret::copy(bytes);
        let head = head::open_head(&self.engine, customer_key, bucket, key, &mut bytes)?;
        Ok(ObjectHead::from_borrowed(&head))
    }

    /// Opens the head of a stored object and checks that the head and the ETag bind its bodies.
    pub(crate) fn open_object(
        &self,
        object: &Object,
        customer_key: Option<&CustomerKey>,
        bucket: &str,
        key: &str,
    ) -> Result<ObjectHead> {
        let head = self.read_head(&object.head, customer_key, bucket, key)?;
        if object.sealed {
            check_binding(object, &head).map_err(|what| not_authentic(&format!("{bucket}/{key}: {what}")))?;
        }
        Ok(head)
    }
}

/// Checks that the bodies of a sealed object are those that its head and its ETag bind.
fn check_binding(object: &Object, head: &ObjectHead) -> std::result::Result<(), String> {
    let bodies = bodies(&object.parts).ok_or("a part is too long")?;
    let binding = head.with(|head| bodies.check(head)).map_err(|error| error.to_string())?;
    if object.bound && binding != body::Binding::Bound {
        return Err("the head does not list the parts".to_owned());
    }
    let body::Etag { digest, parts } = bodies.etag();
    if object.etag.digest != digest || u32::from(object.etag.parts) != parts {
        return Err("an object's ETag is not that of its bodies".to_owned());
    }
    Ok(())
}

/// Collects the bodies of an object. Returns `None` if one exceeds the longest message.
fn bodies(parts: &[Part]) -> Option<body::Bodies> {
    let mut bodies = body::Bodies::new();
    for part in parts {
        bodies.push(u32::from(part.number), chunked::message_len(part.size)?, &part.salt).ok()?;
    }
    Some(bodies)
}

/// Returns the manifest of a multipart object.
pub(crate) fn manifest(parts: &[Part]) -> Result<[u8; 32]> {
    let manifest = bodies(parts).and_then(|bodies| bodies.manifest());
    Ok(manifest.ok_or(keyhole_s3::ErrorCode::EntityTooLarge)?)
}

/// Maps a failure to open an upload's head to the error for a part with another key than the
/// upload's.
pub(crate) fn part_key_failure(failure: Failure) -> Failure {
    match failure {
        Failure::Reply(error) if error.code == keyhole_s3::ErrorCode::AccessDenied => {
            Failure::Reply(keyhole_s3::sse::part_key())
        }
        other => other,
    }
}
