//! Access keys and authorization.
//!
//! An access key has grants. Each grant gives rights to the object keys with a prefix, in one
//! bucket or in all buckets with a common name prefix. Everything else is denied. `NoSuchKey` is
//! returned only to callers with the list right; others get `AccessDenied`.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use keyhole_s3::auth::{Credentials, SecretKey};
use keyhole_s3::{Error, ErrorCode};

use crate::failure::Result;
use crate::settings::matches_bucket;

/// A right that a grant can give.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Right {
    /// Get objects with their metadata and tags.
    Read = 1,
    /// Put and overwrite objects with their metadata and tags; multipart uploads.
    Write = 2,
    /// List objects and uploads, and distinguish missing objects from forbidden ones.
    List = 4,
    /// Delete objects.
    Delete = 8,
    /// Get sealed object files without a customer key.
    ReadSealed = 16,
    /// Put sealed object files without a customer key.
    WriteSealed = 32,
    /// All of these. Without a prefix, also create and delete the bucket and change its settings.
    Admin = 64,
    /// Delete versions for good.
    DeleteVersion = 128,
    /// Set retention and legal holds of objects, and remove legal holds.
    Lock = 256,
    /// Delete versions despite a retention of mode governance, and shorten it.
    BypassGovernance = 512,
}

impl Right {
    /// All rights, in order.
    pub const ALL: [Right; 10] = [
        Right::Read,
        Right::Write,
        Right::List,
        Right::Delete,
        Right::DeleteVersion,
        Right::Lock,
        Right::BypassGovernance,
        Right::ReadSealed,
        Right::WriteSealed,
        Right::Admin,
    ];

    /// Returns the name in configuration files.
    pub const fn name(self) -> &'static str {
        match self {
            Right::Read => "read",
            Right::Write => "write",
            Right::List => "list",
            Right::Delete => "delete",
            Right::DeleteVersion => "delete-version",
            Right::Lock => "lock",
            Right::BypassGovernance => "bypass-governance",
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
            format!("unknown right {text:?}: expected one of {names}")
        })
    }
}

/// A set of rights.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Rights(u16);

impl Rights {
    /// Returns whether the set contains `right` or [`Right::Admin`].
    pub fn has(self, right: Right) -> bool {
        self.0 & (right as u16 | Right::Admin as u16) != 0
    }

    /// Iterates over the rights as granted, in order.
    pub fn iter(self) -> impl Iterator<Item = Right> {
        Right::ALL.into_iter().filter(move |right| self.0 & *right as u16 != 0)
    }
}

impl FromIterator<Right> for Rights {
    fn from_iter<I: IntoIterator<Item = Right>>(rights: I) -> Self {
        Rights(rights.into_iter().fold(0, |all, right| all | right as u16))
    }
}

impl fmt::Debug for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(Right::name)).finish()
    }
}

/// Rights to the object keys with a prefix in some buckets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Grant {
    /// A bucket's name, or a prefix of names and `*`.
    pub bucket: String,
    /// A prefix of object keys; empty for all keys.
    pub prefix: String,
    /// The rights.
    pub rights: Rights,
}

impl Grant {
    /// Returns a grant of everything.
    pub fn all() -> Self {
        Grant { bucket: "*".to_owned(), prefix: String::new(), rights: [Right::Admin].into_iter().collect() }
    }

    fn is_of(&self, bucket: &str) -> bool {
        matches_bucket(&self.bucket, bucket)
    }
}

/// An access key, its secret and its grants.
#[derive(Debug)]
pub struct AccessKey {
    /// The access key id.
    pub id: String,
    /// The secret access key.
    pub secret: SecretKey,
    /// The grants.
    pub grants: Vec<Grant>,
    /// Expiration time in milliseconds since 1970; `None`: never.
    pub expires_ms: Option<u64>,
}

impl AccessKey {
    /// Returns an access key with all rights.
    pub fn admin(id: String, secret: SecretKey) -> Self {
        AccessKey { id, secret, grants: vec![Grant::all()], expires_ms: None }
    }

    pub(crate) fn may(&self, right: Right, bucket: &str, key: &str) -> bool {
        self.grants.iter().any(|grant| grant.rights.has(right) && grant.is_of(bucket) && key.starts_with(&grant.prefix))
    }

    /// Returns whether the key has the list right to any prefix of the bucket.
    pub(crate) fn may_list_any(&self, bucket: &str) -> bool {
        self.grants.iter().any(|grant| grant.is_of(bucket) && grant.rights.has(Right::List))
    }

    /// Returns whether any grant names the bucket.
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
    /// Returns the number of access keys.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether there are no access keys.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the access key with this id, unless it has expired.
    pub(crate) fn key(&self, id: &str, now_ms: u64) -> Option<&Arc<AccessKey>> {
        self.0.get(id).filter(|key| key.expires_ms.is_none_or(|expires| now_ms < expires))
    }
}

impl AccessTable {
    /// Returns the caller that owns an access key.
    pub(crate) fn caller(&self, id: &str, now_ms: u64) -> Result<Caller> {
        Ok(Caller::Key(self.key(id, now_ms).ok_or(ErrorCode::InvalidAccessKeyId)?.clone()))
    }
}

/// The access keys that are valid at a time, in milliseconds since 1970.
pub(crate) struct ValidKeys<'t> {
    pub(crate) table: &'t AccessTable,
    pub(crate) now_ms: u64,
}

impl Credentials for ValidKeys<'_> {
    fn secret(&self, access_key: &str) -> Option<&SecretKey> {
        self.table.key(access_key, self.now_ms).map(|key| &key.secret)
    }
}

/// The sender of a request.
#[derive(Debug)]
pub(crate) enum Caller {
    Key(Arc<AccessKey>),
    /// The request is not signed.
    Anonymous,
}

impl Caller {
    pub(crate) fn may(&self, right: Right, bucket: &str, key: &str) -> bool {
        matches!(self, Caller::Key(access) if access.may(right, bucket, key))
    }

    /// Returns the access key id, if any.
    pub(crate) fn access_key(&self) -> Option<&str> {
        match self {
            Caller::Key(access) => Some(&access.id),
            Caller::Anonymous => None,
        }
    }

    /// Requires a right.
    ///
    /// # Errors
    /// `AccessDenied`.
    pub(crate) fn require(&self, right: Right, bucket: &str, key: &str) -> std::result::Result<(), Error> {
        if self.may(right, bucket, key) { Ok(()) } else { Err(Error::new(ErrorCode::AccessDenied)) }
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
    fn admin_grant_includes_all_rights_to_its_prefix() {
        let admin = key(&[("b", "p/", &[Right::Admin])]);
        for right in Right::ALL {
            assert!(admin.may(right, "b", "p/x") && !admin.may(right, "b", "x"), "{right:?}");
        }
        assert!(!admin.may(Right::Admin, "b", ""), "a prefix is not the bucket");
        assert!(key(&[("*", "", &[Right::Admin])]).may(Right::Admin, "any", ""));
    }

    #[test]
    fn other_rights_do_not_include_those_on_versions() {
        let rest = [Right::Read, Right::Write, Right::List, Right::Delete, Right::ReadSealed, Right::WriteSealed];
        let client = key(&[("b", "", &rest)]);
        for right in [Right::DeleteVersion, Right::Lock, Right::BypassGovernance] {
            assert!(!client.may(right, "b", "x"), "{right:?}");
            let only = key(&[("b", "", &[right])]);
            let others = Right::ALL.into_iter().filter(|other| *other != right);
            assert!(
                only.may(right, "b", "x") && others.into_iter().all(|other| !only.may(other, "b", "x")),
                "{right:?}"
            );
        }
    }

    #[test]
    fn access_key_is_valid_until_it_expires() {
        let expires = AccessKey { expires_ms: Some(1000), ..key(&[]) };
        let table: AccessTable = [expires].into_iter().collect();
        assert!(table.key("camera", 999).is_some() && table.key("camera", 1000).is_none());
        let valid = ValidKeys { table: &table, now_ms: 0 };
        assert!(valid.secret("camera").is_some() && valid.secret("other").is_none());
    }

    #[test]
    fn right_names_are_parsed() {
        for right in Right::ALL {
            assert_eq!(right.name().parse(), Ok(right));
        }
        assert!("everything".parse::<Right>().unwrap_err().contains("read-sealed"));
        let some: Rights = [Right::List, Right::Read].into_iter().collect();
        assert_eq!(some.iter().collect::<Vec<_>>(), [Right::Read, Right::List]);
    }
}
