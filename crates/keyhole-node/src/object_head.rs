//! Object heads: encoding from request fields, and opening with the request's key.

use keyhole_core::head::{
    self, ChecksumAlgorithm, ChecksumType, Checksums, Head, HeadError, HeadId, HeadKind, UserMetadata,
};
use keyhole_core::limits::{HEAD_MAX, SALT_LEN, SEALED_HEAD_MAX};
use keyhole_core::{CustomerKey, DataKey};
use keyhole_s3::ops::Metadata;

use crate::failure::{Failure, Result, damaged};
use crate::node::Node;
use crate::platform::Platform;
use crate::secret::Secret;

/// Initial capacity for a sealed head; most fit.
const SEALED_HEAD_USUAL: usize = 1024;

/// An owned object head.
#[derive(Default)]
pub(crate) struct ObjectHead {
    /// The domain that the head is sealed in.
    pub(crate) kind: HeadKind,
    /// Present exactly in the heads of sealed objects.
    pub(crate) data_key: Option<Box<DataKey>>,
    pub(crate) plaintext_length: Option<u64>,
    pub(crate) metadata: Metadata,
    pub(crate) checksums: Checksums,
    pub(crate) manifest: Option<[u8; 32]>,
    pub(crate) declared: Option<(ChecksumAlgorithm, ChecksumType)>,
}

impl ObjectHead {
    /// Calls `f` with the borrowed form that the codec takes.
    pub(crate) fn with<T>(&self, f: impl FnOnce(&Head<'_>) -> T) -> T {
        let user: Vec<(&str, &[u8])> =
            self.metadata.user.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect();
        f(&Head {
            data_key: self.data_key.as_deref().map(DataKey::expose),
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
            kind: HeadKind::default(),
            data_key: head.data_key.map(|key| Box::new(DataKey::new(*key))),
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
    /// Generates a data key, in a box like all keys that outlive a call: a moved future copies only
    /// the pointer.
    pub(crate) fn data_key(&self) -> Box<DataKey> {
        Box::new(DataKey::new(self.host.random_array()))
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
        let id = HeadId { kind: head.kind, bucket, key };
        let seal = |room: usize| {
            let mut bytes = Secret::zeros(room);
            let len = head.with(|head| head::seal_head_of(&self.engine, customer_key, &salt, &id, head, &mut bytes))?;
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
        let (kind, head) = head::open_stored_head(&self.engine, customer_key, bucket, key, &mut bytes)?;
        Ok(ObjectHead { kind, ..ObjectHead::from_borrowed(&head) })
    }
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
