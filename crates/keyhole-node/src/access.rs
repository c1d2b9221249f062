//! Which access key may do what.
//!
//! A key has grants; each gives rights to the keys with a prefix, in one bucket or in all whose names begin alike. What no grant
//! gives is refused. Nobody is told of an object's absence who could not have listed it.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use keyhole_core::aead::Engine;
use keyhole_log::Disk;
use keyhole_s3::auth::{Credentials, SecretKey};
use keyhole_s3::ops::Operation;
use keyhole_s3::{Error, ErrorCode};

use crate::failure::Result;
use crate::io::Env;
use crate::node::{Node, Request};
use crate::settings::is_meant;

/// One thing that an access key may be allowed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Right {
    /// To get objects, with their metadata and tags.
    Read = 1,
    /// To put objects, over others too, with their metadata and tags; to upload in parts.
    Write = 2,
    /// To list objects and uploads, and to be told that there is no such object.
    List = 4,
    /// To delete objects.
    Delete = 8,
    /// To get sealed object files, without a key.
    ReadSealed = 16,
    /// To put sealed object files, without a key.
    WriteSealed = 32,
    /// All of these; and, without a prefix, to create and delete the bucket, and to change its settings.
    Admin = 64,
}

impl Right {
    /// All of them.
    pub const ALL: [Right; 7] =
        [Right::Read, Right::Write, Right::List, Right::Delete, Right::ReadSealed, Right::WriteSealed, Right::Admin];

    /// How it is written.
    pub const fn name(self) -> &'static str {
        match self {
            Right::Read => "read",
            Right::Write => "write",
            Right::List => "list",
            Right::Delete => "delete",
            Right::ReadSealed => "read-sealed",
            Right::WriteSealed => "write-sealed",
            Right::Admin => "admin",
        }
    }
}

impl FromStr for Right {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        Right::ALL.into_iter().find(|right| right.name() == text).ok_or_else(|| {
            let names = Right::ALL.map(Right::name).join(", ");
            format!("there is no right {text:?}; there are {names}")
        })
    }
}

/// A set of rights.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Rights(u8);

impl Rights {
    /// Whether a right is among them, or all are.
    pub fn has(self, right: Right) -> bool {
        self.0 & (right as u8 | Right::Admin as u8) != 0
    }

    /// Those that were given, in order.
    pub fn iter(self) -> impl Iterator<Item = Right> {
        Right::ALL.into_iter().filter(move |right| self.0 & *right as u8 != 0)
    }
}

impl FromIterator<Right> for Rights {
    fn from_iter<I: IntoIterator<Item = Right>>(rights: I) -> Self {
        Rights(rights.into_iter().fold(0, |all, right| all | right as u8))
    }
}

impl fmt::Debug for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(Right::name)).finish()
    }
}

/// Rights to the keys with a prefix in some buckets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Grant {
    /// A bucket's name, or the beginning of several buckets' and `*`.
    pub bucket: String,
    /// What the keys begin with; nothing is all keys.
    pub prefix: String,
    /// The rights.
    pub rights: Rights,
}

impl Grant {
    /// Everything.
    pub fn all() -> Self {
        Grant { bucket: "*".to_owned(), prefix: String::new(), rights: [Right::Admin].into_iter().collect() }
    }

    fn is_of(&self, bucket: &str) -> bool {
        is_meant(&self.bucket, bucket)
    }
}

/// One access key, its secret, and what it may do.
#[derive(Debug)]
pub struct AccessKey {
    /// The access key itself.
    pub id: String,
    /// Its secret.
    pub secret: SecretKey,
    /// What it may do.
    pub grants: Vec<Grant>,
    /// Until when it is good: milliseconds since 1970; `None`: until it is revoked.
    pub expires_ms: Option<u64>,
}

impl AccessKey {
    /// One that may do everything.
    pub fn admin(id: String, secret: SecretKey) -> Self {
        AccessKey { id, secret, grants: vec![Grant::all()], expires_ms: None }
    }

    fn may(&self, right: Right, bucket: &str, key: &str) -> bool {
        self.grants.iter().any(|grant| grant.rights.has(right) && grant.is_of(bucket) && key.starts_with(&grant.prefix))
    }

    /// Whether it may list something of the bucket.
    fn may_list_any(&self, bucket: &str) -> bool {
        self.grants.iter().any(|grant| grant.is_of(bucket) && grant.rights.has(Right::List))
    }

    /// Whether any grant is about the bucket.
    pub(crate) fn knows(&self, bucket: &str) -> bool {
        self.grants.iter().any(|grant| grant.is_of(bucket))
    }
}

/// All access keys.
#[derive(Debug, Default)]
pub struct AccessTable(HashMap<String, Arc<AccessKey>>);

impl FromIterator<AccessKey> for AccessTable {
    fn from_iter<I: IntoIterator<Item = AccessKey>>(keys: I) -> Self {
        AccessTable(keys.into_iter().map(|key| (key.id.clone(), Arc::new(key))).collect())
    }
}

impl AccessTable {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The one of this name, if it is good at this time.
    pub(crate) fn key(&self, id: &str, now_ms: u64) -> Option<&Arc<AccessKey>> {
        self.0.get(id).filter(|key| key.expires_ms.is_none_or(|expires| now_ms < expires))
    }
}

impl AccessTable {
    /// Who has signed with this access key.
    pub(crate) fn caller(&self, id: &str, now_ms: u64) -> Result<Caller> {
        Ok(Caller::Key(self.key(id, now_ms).ok_or(ErrorCode::InvalidAccessKeyId)?.clone()))
    }
}

/// The access keys that are good at a time.
pub(crate) struct GoodAt<'t>(pub(crate) &'t AccessTable, pub(crate) u64);

impl Credentials for GoodAt<'_> {
    fn secret(&self, access_key: &str) -> Option<&SecretKey> {
        self.0.key(access_key, self.1).map(|key| &key.secret)
    }
}

/// Who asks.
#[derive(Debug)]
pub(crate) enum Caller {
    Key(Arc<AccessKey>),
    /// Nobody has signed the request.
    Anonymous,
}

impl Caller {
    pub(crate) fn may(&self, right: Right, bucket: &str, key: &str) -> bool {
        matches!(self, Caller::Key(access) if access.may(right, bucket, key))
    }

    /// Its access key, if it has one.
    pub(crate) fn access_key(&self) -> Option<&str> {
        match self {
            Caller::Key(access) => Some(&access.id),
            Caller::Anonymous => None,
        }
    }

    /// Checks that it may.
    ///
    /// # Errors
    /// `AccessDenied`.
    pub(crate) fn require(&self, right: Right, bucket: &str, key: &str) -> std::result::Result<(), Error> {
        if self.may(right, bucket, key) { Ok(()) } else { Err(Error::new(ErrorCode::AccessDenied)) }
    }
}

/// What an operation takes.
enum Needs<'o> {
    /// Nothing: it is about buckets that the caller knows.
    Nothing,
    /// That any grant is about the bucket.
    ToKnow,
    /// That something of the bucket may be listed.
    ToListAny,
    /// This right to the bucket as a whole.
    ForBucket(Right),
    /// The right to list what begins so.
    ToList(&'o str),
    /// This right to the object.
    ForObject(Right),
    /// It is looked at for each object by itself.
    ForEach,
}

fn needs(operation: &Operation, sealed: bool) -> Needs<'_> {
    use Operation as Op;
    match operation {
        Op::ListBuckets => Needs::Nothing,
        Op::HeadBucket | Op::GetBucketLocation | Op::GetBucketVersioning => Needs::ToKnow,
        Op::GetBucketAcl | Op::GetBucketEncryption | Op::GetBucketLifecycle => Needs::ToListAny,
        Op::CreateBucket
        | Op::DeleteBucket
        | Op::PutBucketEncryption
        | Op::DeleteBucketEncryption
        | Op::PutBucketLifecycle
        | Op::DeleteBucketLifecycle => Needs::ForBucket(Right::Admin),
        Op::ListObjects(query) => Needs::ToList(&query.prefix),
        Op::ListObjectsV2(query) => Needs::ToList(&query.prefix),
        Op::ListMultipartUploads(query) => Needs::ToList(&query.prefix),
        Op::DeleteObjects | Op::PostObject => Needs::ForEach,
        Op::PutObject if sealed => Needs::ForObject(Right::WriteSealed),
        Op::GetObject | Op::HeadObject if sealed => Needs::ForObject(Right::ReadSealed),
        Op::GetObject | Op::HeadObject | Op::GetObjectTagging | Op::GetObjectAcl | Op::GetObjectAttributes(_) => {
            Needs::ForObject(Right::Read)
        }
        Op::PutObject
        | Op::CopyObject(_)
        | Op::PutObjectTagging
        | Op::DeleteObjectTagging
        | Op::CreateMultipartUpload
        | Op::UploadPart { .. }
        | Op::UploadPartCopy { .. }
        | Op::CompleteMultipartUpload { .. }
        | Op::AbortMultipartUpload { .. }
        | Op::ListParts { .. } => Needs::ForObject(Right::Write),
        Op::DeleteObject => Needs::ForObject(Right::Delete),
    }
}

impl<D: Disk, E: Engine, V: Env> Node<D, E, V> {
    /// Whether the caller may do this at all.
    ///
    /// # Errors
    /// `AccessDenied`.
    pub(crate) fn authorize(&self, request: &Request<'_>, operation: &Operation, sealed: bool) -> Result<()> {
        let access = match request.caller {
            Caller::Key(access) => access,
            Caller::Anonymous => return self.authorize_anonymous(request, operation, sealed),
        };
        let bucket = request.target.bucket.as_deref().unwrap_or_default();
        let key = request.target.key.as_deref().unwrap_or_default();
        let is_allowed = match needs(operation, sealed) {
            Needs::Nothing | Needs::ForEach => true,
            Needs::ToKnow => access.knows(bucket),
            Needs::ToListAny => access.may_list_any(bucket),
            Needs::ForBucket(right) => access.may(right, bucket, ""),
            Needs::ToList(prefix) => access.may(Right::List, bucket, prefix),
            Needs::ForObject(right) => access.may(right, bucket, key),
        };
        let source = match operation {
            Operation::CopyObject(source) | Operation::UploadPartCopy { source, .. } => Some(source),
            _ => None,
        };
        let may_read = source.is_none_or(|source| access.may(Right::Read, &source.bucket, &source.key));
        if is_allowed && may_read { Ok(()) } else { Err(ErrorCode::AccessDenied.into()) }
    }

    /// What nobody has signed may read objects where the bucket's policy lets everybody.
    fn authorize_anonymous(&self, request: &Request<'_>, operation: &Operation, sealed: bool) -> Result<()> {
        let is_read = matches!(operation, Operation::GetObject | Operation::HeadObject) && !sealed;
        let bucket = request.target.bucket.as_deref().unwrap_or_default();
        let is_public = is_read && self.policy(bucket)?.anonymous_read;
        if is_public { Ok(()) } else { Err(ErrorCode::AccessDenied.into()) }
    }
}

impl Request<'_> {
    /// That there is no such object, for who may know.
    pub(crate) fn no_such_key(&self, bucket: &str, key: &str) -> ErrorCode {
        if self.caller.may(Right::List, bucket, key) { ErrorCode::NoSuchKey } else { ErrorCode::AccessDenied }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(grants: &[(&str, &str, &[Right])]) -> AccessKey {
        let grant = |(bucket, prefix, rights): &(&str, &str, &[Right])| Grant {
            bucket: (*bucket).to_owned(),
            prefix: (*prefix).to_owned(),
            rights: rights.iter().copied().collect(),
        };
        let secret = SecretKey::new("a secret of some length".to_owned());
        AccessKey { id: "camera".to_owned(), secret, grants: grants.iter().map(grant).collect(), expires_ms: None }
    }

    #[test]
    fn grants_give_rights_by_bucket_and_prefix() {
        let camera = key(&[("cam-*", "in/", &[Right::Write]), ("shared", "", &[Right::Read, Right::List])]);
        for (right, bucket, name, expected) in [
            (Right::Write, "cam-1", "in/a", true),
            (Right::Write, "cam-", "in/", true),
            (Right::Write, "cam", "in/a", false),
            (Right::Write, "cam-1", "out/a", false),
            (Right::Write, "cam-1", "in", false),
            (Right::Read, "cam-1", "in/a", false),
            (Right::Read, "shared", "x", true),
            (Right::List, "shared", "", true),
            (Right::Read, "shared2", "x", false),
            (Right::Admin, "shared", "", false),
        ] {
            assert_eq!(camera.may(right, bucket, name), expected, "{right:?} {bucket} {name}");
        }
        assert!(camera.knows("cam-9") && camera.knows("shared") && !camera.knows("other"));
    }

    #[test]
    fn an_admin_has_all_rights_where_it_is_one() {
        let admin = key(&[("b", "p/", &[Right::Admin])]);
        for right in Right::ALL {
            assert!(admin.may(right, "b", "p/x") && !admin.may(right, "b", "x"), "{right:?}");
        }
        assert!(!admin.may(Right::Admin, "b", ""), "a prefix is not the bucket");
        assert!(key(&[("*", "", &[Right::Admin])]).may(Right::Admin, "any", ""));
    }

    #[test]
    fn keys_are_good_until_they_expire() {
        let expires = AccessKey { expires_ms: Some(1000), ..key(&[]) };
        let table: AccessTable = [expires].into_iter().collect();
        assert!(table.key("camera", 999).is_some() && table.key("camera", 1000).is_none());
        assert!(GoodAt(&table, 0).secret("camera").is_some() && GoodAt(&table, 0).secret("other").is_none());
    }

    #[test]
    fn rights_have_names() {
        for right in Right::ALL {
            assert_eq!(right.name().parse(), Ok(right));
        }
        assert!("everything".parse::<Right>().unwrap_err().contains("read-sealed"));
        let some: Rights = [Right::List, Right::Read].into_iter().collect();
        assert_eq!(some.iter().collect::<Vec<_>>(), [Right::Read, Right::List]);
    }
}
