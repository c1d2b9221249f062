//! The two kinds of sealed heads, those of objects and those of uploads, each in a domain of its own.

use zeroize::Zeroize;

use super::{Head, HeadError, OpenError, name_lengths, open_map, seal_map};
use crate::CustomerKey;
use crate::aead::Engine;
use crate::limits::SALT_LEN;

const OBJECT_LABEL: &[u8] = b"keyhole.head.v1";
const UPLOAD_LABEL: &[u8] = b"keyhole.upload.v1";

/// The two domains that heads are sealed in. A head opens only in its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum HeadKind {
    /// The head of an object, which binds the object's bodies.
    #[default]
    Object,
    /// The head of a multipart upload, which binds no parts. The object keeps this head if the
    /// upload is completed without the key.
    Upload,
}

impl HeadKind {
    const fn label(self) -> &'static [u8] {
        match self {
            Self::Object => OBJECT_LABEL,
            Self::Upload => UPLOAD_LABEL,
        }
    }
}

/// Identity of a sealed head: its domain and the names that it is bound to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HeadId<'a> {
    /// The domain.
    pub kind: HeadKind,
    /// The bucket.
    pub bucket: &'a str,
    /// The object's key.
    pub key: &'a str,
}

/// Seals a head like [`seal_head`](super::seal_head), as an object's or an upload's.
///
/// # Errors
/// Those of [`seal_head`](super::seal_head), and [`HeadError::Kind`] if the head of an upload has a
/// plaintext length, checksums or a manifest.
pub fn seal_head_of<E: Engine>(
    engine: &E,
    customer_key: &CustomerKey,
    salt: &[u8; SALT_LEN],
    id: &HeadId<'_>,
    head: &Head<'_>,
    out: &mut [u8],
) -> Result<usize, HeadError> {
    check_kind(id.kind, head)?;
    let HeadId { kind, bucket, key } = *id;
    let lengths = name_lengths(bucket, key)?;
    let context = [kind.label(), &lengths[0], bucket.as_bytes(), &lengths[1], key.as_bytes()];
    seal_map(engine, customer_key.expose(), salt, &context, head, out)
}

/// Checks that a sealed head has a data key, and that only an object's head binds bodies.
fn check_kind(kind: HeadKind, head: &Head<'_>) -> Result<(), HeadError> {
    let is_of_object = head.plaintext_length.is_some() || head.manifest.is_some() || !head.checksums.is_empty();
    match kind {
        _ if head.data_key.is_none() => Err(HeadError::DataKey),
        HeadKind::Upload if is_of_object => Err(HeadError::Kind),
        HeadKind::Object | HeadKind::Upload => Ok(()),
    }
}

/// Opens a sealed head like [`open_head`](super::open_head), as an object's or an upload's.
///
/// # Errors
/// Those of [`open_head`](super::open_head). A head of the other kind is not authentic.
pub fn open_head_of<'a, E: Engine>(
    engine: &E,
    customer_key: &CustomerKey,
    id: &HeadId<'_>,
    sealed: &'a mut [u8],
) -> Result<Head<'a>, OpenError> {
    let HeadId { kind, bucket, key } = *id;
    let lengths = name_lengths(bucket, key).inspect_err(|_| sealed.zeroize())?;
    let context = [kind.label(), &lengths[0], bucket.as_bytes(), &lengths[1], key.as_bytes()];
    let opened = open_map(engine, customer_key.expose(), &[&context], sealed, |_, head| check_kind(kind, head));
    opened.map(|(_, head)| head)
}

/// Opens the head that is stored with an object or an upload, of either kind, and returns its kind.
///
/// # Errors
/// Those of [`open_head`](super::open_head).
pub fn open_stored_head<'a, E: Engine>(
    engine: &E,
    customer_key: &CustomerKey,
    bucket: &str,
    key: &str,
    sealed: &'a mut [u8],
) -> Result<(HeadKind, Head<'a>), OpenError> {
    let lengths = name_lengths(bucket, key).inspect_err(|_| sealed.zeroize())?;
    let context = |kind: HeadKind| [kind.label(), &lengths[0], bucket.as_bytes(), &lengths[1], key.as_bytes()];
    let kinds = [HeadKind::Object, HeadKind::Upload];
    let contexts = kinds.map(context);
    let (index, head) =
        open_map(engine, customer_key.expose(), &[&contexts[0], &contexts[1]], sealed, |index, head| {
            check_kind(kinds[index], head)
        })?;
    let kind = kinds[index];
    Ok((kind, head))
}
