//! Descriptions of buckets and objects in an export.

use aws_lc_rs::digest;
use base64ct::{Base64, Encoding};
use keyhole_log::{BucketSettings, Etag, Lock, VersionId, Versioning};
use keyhole_node::OwnPolicy;
use keyhole_node::transfer::Description;
use keyhole_s3::ops::{Cors, Lifecycle, Tags};
use serde::{Deserialize, Serialize};

use super::invalid::EntryError;
use super::plain::{Plain, from_base64};
use super::versions::{LockEntry, ObjectLockEntry, TIME_MAX_MS, Version, VersioningEntry, name};

/// Length of a SHA-256 in bytes.
pub(crate) const DIGEST_LEN: usize = digest::SHA256_OUTPUT_LEN;

/// A SHA-256.
pub(crate) type Digest = [u8; DIGEST_LEN];

/// A bucket.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
#[serde(deny_unknown_fields)]
pub(crate) struct BucketEntry {
    pub(crate) bucket: String,
    pub(crate) created_ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) quota: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) expire_ms: Option<u64>,
    /// Its policy on customer keys, as a node stores it, in base64.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) policy: String,
    /// Its lifecycle rules, as a node stores them, in base64.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) lifecycle: String,
    /// Its CORS rules, as a node stores them, in base64.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) cors: String,
    /// Its tags, as a node stores them, in base64.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) tags: String,
    /// Its versioning, unless it never had any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) versioning: Option<VersioningEntry>,
    /// Its object lock, if it is enabled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) object_lock: Option<ObjectLockEntry>,
}

impl BucketEntry {
    pub(crate) fn new(bucket: String, created_ms: u64, settings: &BucketSettings) -> Self {
        let BucketSettings { quota, expire_ms, policy, lifecycle, cors, tags, versioning, lock } = settings;
        BucketEntry {
            bucket,
            created_ms,
            quota: *quota,
            expire_ms: *expire_ms,
            policy: Base64::encode_string(policy),
            lifecycle: Base64::encode_string(lifecycle),
            cors: Base64::encode_string(cors),
            tags: Base64::encode_string(tags),
            versioning: VersioningEntry::new(*versioning),
            object_lock: lock.as_ref().map(ObjectLockEntry::new),
        }
    }

    /// Decodes the settings of the bucket.
    pub(crate) fn settings(&self) -> Result<BucketSettings, EntryError> {
        if self.created_ms > TIME_MAX_MS {
            return Err(EntryError::Time);
        }
        let policy = from_base64(&self.policy, "the policy of a bucket")?;
        let lifecycle = from_base64(&self.lifecycle, "the lifecycle of a bucket")?;
        let cors = from_base64(&self.cors, "the CORS rules of a bucket")?;
        let tags = from_base64(&self.tags, "the tags of a bucket")?;
        let is_known = OwnPolicy::decode(&policy).is_some()
            && Lifecycle::from_bytes(&lifecycle).is_some()
            && Cors::from_bytes(&cors).is_some()
            && Tags::bucket_from_bytes(&tags).is_some();
        if !is_known {
            return Err(EntryError::Settings);
        }
        let versioning = self.versioning.map_or(Versioning::Off, Versioning::from);
        if self.object_lock.is_some() && versioning != Versioning::Enabled {
            return Err(EntryError::ObjectLock);
        }
        Ok(BucketSettings {
            quota: self.quota,
            expire_ms: self.expire_ms,
            policy,
            lifecycle: lifecycle.into(),
            cors: cors.into(),
            tags: tags.into(),
            versioning,
            lock: self.object_lock.map(|lock| lock.lock()).transpose()?,
        })
    }
}

/// An object, and the file that contains it.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
#[serde(deny_unknown_fields)]
pub(crate) struct ObjectEntry {
    pub(crate) bucket: String,
    pub(crate) key: String,
    /// The path of its file, relative to the top of the export.
    pub(crate) file: FileName,
    /// Length of the file in bytes.
    pub(crate) length: u64,
    /// The SHA-256 of the file, in hex, if it was known when the line was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) sha256: Option<Sha256>,
    /// Whether the file is a sealed object file.
    pub(crate) sealed: bool,
    /// For a sealed multipart object: whether its object head lists the parts.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(crate) bound: bool,
    /// Length of the plaintext in bytes.
    pub(crate) size: u64,
    pub(crate) modified_ms: u64,
    pub(crate) etag: String,
    /// Keys and values, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) tags: Vec<(String, String)>,
    /// Further description of a plaintext object; a sealed object has it in its file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) plain: Option<Plain>,
    /// Its version, in a bucket with versioning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) version: Option<Version>,
    /// Its retention and legal hold, if it has any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) lock: Option<LockEntry>,
}

fn is_false(flag: &bool) -> bool {
    !flag
}

/// A SHA-256, serialized in hex.
#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Sha256(pub(crate) Digest);

impl TryFrom<String> for Sha256 {
    type Error = EntryError;

    fn try_from(text: String) -> Result<Self, EntryError> {
        let mut bytes = [0; DIGEST_LEN];
        let is_canonical = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        match hex::decode_to_slice(&text, &mut bytes) {
            Ok(()) if is_canonical => Ok(Sha256(bytes)),
            _ => Err(EntryError::Sha256),
        }
    }
}

impl From<Sha256> for String {
    fn from(digest: Sha256) -> Self {
        hex::encode(digest.0)
    }
}

/// The name of a file, derived from the identity of its object. Its text form is the path in the
/// export.
#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct FileName {
    pub(crate) id: Digest,
    pub(crate) sealed: bool,
}

/// The directory of the objects' files.
pub(crate) const OBJECTS: &str = "objects";

const SEALED: &str = "sealed";
const PLAIN: &str = "plain";

impl FileName {
    /// Parses the path of a file; `None` if no object's file can have it.
    pub(crate) fn parse(path: &str) -> Option<Self> {
        let (directory, name) = path.strip_prefix(OBJECTS)?.strip_prefix('/')?.split_once('/')?;
        let (hex, kind) = name.split_once('.')?;
        let sealed = [SEALED, PLAIN].contains(&kind).then_some(kind == SEALED)?;
        let Sha256(id) = Sha256::try_from(hex.to_owned()).ok()?;
        (hex.get(..2) == Some(directory)).then_some(FileName { id, sealed })
    }

    /// Returns the directory that contains it.
    pub(crate) fn directory(&self) -> String {
        format!("{OBJECTS}/{:02x}", self.id[0])
    }
}

impl std::fmt::Display for FileName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = if self.sealed { SEALED } else { PLAIN };
        write!(f, "{}/{}.{kind}", self.directory(), hex::encode(self.id))
    }
}

impl TryFrom<String> for FileName {
    type Error = EntryError;

    fn try_from(text: String) -> Result<Self, EntryError> {
        FileName::parse(&text).ok_or(EntryError::FileName(text))
    }
}

impl From<FileName> for String {
    fn from(name: FileName) -> Self {
        name.to_string()
    }
}

/// Returns the identity of an object version: the hash of its names, time, length, ETag, object head
/// as stored, and version id if it has one. Tags and locks are not included, since they change
/// without a new version.
pub(crate) fn identity(description: &Description, head: &[u8]) -> Digest {
    let Description { bucket, key, sealed, size, time_ms, etag, version, .. } = description;
    let mut hash = digest::Context::new(&digest::SHA256);
    hash.update(b"keyhole.export.v1\0");
    for text in [bucket.as_bytes(), key.as_bytes(), etag.to_string().as_bytes(), head] {
        hash.update(&(text.len() as u64).to_be_bytes());
        hash.update(text);
    }
    hash.update(&time_ms.to_be_bytes());
    hash.update(&size.to_be_bytes());
    hash.update(&[u8::from(*sealed)]);
    if let Some(VersionId::Id(id)) = version {
        hash.update(id);
    }
    finish(hash)
}

/// Returns the digest of the hashed bytes.
pub(crate) fn finish(hash: digest::Context) -> Digest {
    hash.finish().as_ref().try_into().expect("SHA-256 has 32 bytes")
}

impl ObjectEntry {
    /// Describes an object with the stored object head `head` and a file of `length` bytes.
    pub(crate) fn new(description: &Description, head: &[u8], length: u64) -> Result<Self, EntryError> {
        let Description { bucket, key, sealed, bound, size, time_ms, etag, tags, version, lock, .. } = description;
        let plain = if *sealed { None } else { Some(Plain::new(description)?) };
        Ok(ObjectEntry {
            bucket: bucket.clone(),
            key: key.clone(),
            file: FileName { id: identity(description, head), sealed: *sealed },
            length,
            sha256: None,
            sealed: *sealed,
            bound: *bound,
            size: *size,
            modified_ms: *time_ms,
            etag: etag.to_string(),
            tags: tags.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
            plain,
            version: version.map(Version),
            lock: LockEntry::new(lock),
        })
    }

    /// Names the `null` version, if the object was described before its bucket had versions.
    pub(crate) fn name_null_version(&mut self) {
        self.version.get_or_insert(Version(VersionId::Null));
    }

    /// Decodes the description of the object.
    pub(crate) fn description(&self) -> Result<Description, EntryError> {
        let ObjectEntry { bucket, key, sealed, bound, size, modified_ms, plain, .. } = self;
        let etag: Etag = self.etag.parse().map_err(|_| EntryError::Etag)?;
        let mut tags = Tags::default();
        for (key, value) in &self.tags {
            tags.push(key.clone(), value.clone()).map_err(|error| EntryError::Tags(error.message.to_string()))?;
        }
        if *modified_ms > TIME_MAX_MS {
            return Err(EntryError::Time);
        }
        if self.file.sealed != *sealed {
            return Err(EntryError::FileKind);
        }
        if !sealed && self.length != *size {
            return Err(EntryError::FileLength);
        }
        let version = self.version.map(|version| version.0);
        if version.is_none() && self.lock.is_some() {
            return Err(EntryError::LockWithoutVersion);
        }
        let lock = self.lock.map_or(Ok(Lock::default()), |lock| lock.lock())?;
        let (head, parts) = match plain {
            None if *sealed => (Vec::new(), Vec::new()),
            Some(plain) if !*sealed => (plain.head()?, plain.parts(*size, etag)?),
            _ => return Err(EntryError::Plain),
        };
        let description = Description {
            bucket: bucket.clone(),
            key: key.clone(),
            sealed: *sealed,
            bound: *bound,
            size: *size,
            time_ms: *modified_ms,
            etag,
            tags,
            version,
            lock,
            head,
            parts,
        };
        let invalid = |error: &dyn std::fmt::Display| EntryError::Description(error.to_string());
        description.check().map_err(|error| invalid(&error))?;
        Ok(description)
    }

    /// Returns its bucket and key for display, and its version if it has one.
    pub(crate) fn name(&self) -> String {
        name(&self.bucket, &self.key, self.version.map(|version| version.0))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use keyhole_core::body::MultipartEtag;
    use keyhole_core::head::{ChecksumAlgorithm, ChecksumType, Checksums, Head, UserMetadata};
    use keyhole_log::{BucketLock, DefaultRetention, Retention, RetentionMode, RetentionPeriod};
    use keyhole_node::transfer::PartDescription;

    use super::super::plain::encode;
    use super::*;

    /// Returns a plaintext object with every optional element.
    pub(crate) fn description(key: &str, part_sizes: &[u64]) -> Description {
        let mut sums = Checksums::default();
        sums.set(ChecksumAlgorithm::Sha256, &[3; 32]).unwrap();
        sums.set(ChecksumAlgorithm::ContentMd5, &[4; 16]).unwrap();
        let mut fields: [Option<&[u8]>; 6] = [None; 6];
        fields[0] = Some(&b"text/plain"[..]);
        fields[5] = Some(&b"\xff not UTF-8"[..]);
        let user = [("a-name", &b"a \"value\""[..]), ("b", "\u{e9}".as_bytes())];
        let head = encode(&Head {
            fields,
            user_metadata: UserMetadata::new(&user),
            checksums: sums,
            declared: (!part_sizes.is_empty()).then_some((ChecksumAlgorithm::Crc32, ChecksumType::Composite)),
            ..Head::default()
        });
        let mut crc = Checksums::default();
        crc.set(ChecksumAlgorithm::Crc32, &[1, 2, 3, 4]).unwrap();
        let info = encode(&Head { checksums: crc, ..Head::default() }).unwrap();
        let part = |(number, size): (u16, &u64)| PartDescription {
            number,
            size: *size,
            etag: [number as u8; 16],
            checksums: Some(info.clone()),
        };
        let mut parts: Vec<_> = (2..).zip(part_sizes).map(part).collect();
        let mut etag = Etag { digest: [9; 16], parts: parts.len() as u16 };
        if parts.is_empty() {
            parts.push(PartDescription { number: 0, size: 5, etag: etag.digest, checksums: None });
        } else {
            let mut digest = MultipartEtag::new();
            parts.iter().for_each(|part| digest.update(&part.etag));
            etag.digest = digest.finish();
        }
        let mut tags = Tags::default();
        tags.push("z".to_owned(), "1".to_owned()).unwrap();
        tags.push("a".to_owned(), String::new()).unwrap();
        Description {
            bucket: "bucket".to_owned(),
            key: key.to_owned(),
            sealed: false,
            bound: false,
            size: parts.iter().map(|part| part.size).sum(),
            time_ms: 1_700_000_000_123,
            etag,
            tags,
            version: None,
            lock: Lock::default(),
            head: head.unwrap(),
            parts,
        }
    }

    #[test]
    fn object_description_round_trips() {
        for sizes in [&[][..], &[5 << 20, 1], &[0]] {
            for key in ["k", "../../etc/passwd", "a//b/\u{1F511}\n\"", &"\u{1}".repeat(1024)] {
                let description = description(key, sizes);
                let entry = ObjectEntry::new(&description, &description.head, description.size).unwrap();
                let text = serde_json::to_string(&entry).unwrap();
                assert!(!text.contains('\n'), "{text}");
                let read: ObjectEntry = serde_json::from_str(&text).unwrap();
                assert_eq!(read, entry);
                assert_eq!(read.description().unwrap(), description);
                assert_eq!(FileName::parse(&entry.file.to_string()), Some(entry.file));
            }
        }
        let sealed =
            Description { sealed: true, bound: true, head: Vec::new(), parts: Vec::new(), ..description("k", &[]) };
        let entry = ObjectEntry::new(&sealed, b"sealed head", 700).unwrap();
        assert_eq!(entry.plain, None);
        assert_eq!(entry.description().unwrap(), sealed);
    }

    #[test]
    fn bucket_description_round_trips() {
        let settings = BucketSettings {
            quota: Some(7),
            expire_ms: Some(8),
            policy: OwnPolicy { anonymous_read: Some(true), ..OwnPolicy::default() }.encode(),
            lifecycle: Lifecycle::default().to_bytes().into(),
            cors: Cors::default().to_bytes().into(),
            tags: Tags::default().to_bytes().into(),
            ..BucketSettings::default()
        };
        let lock = |days| {
            let period = RetentionPeriod::Days(days);
            BucketLock { default: Some(DefaultRetention { mode: RetentionMode::Compliance, period }) }
        };
        let versioned = |versioning, lock| BucketSettings { versioning, lock, ..settings.clone() };
        for settings in [
            versioned(Versioning::Suspended, None),
            versioned(Versioning::Enabled, None),
            versioned(Versioning::Enabled, Some(BucketLock::default())),
            versioned(Versioning::Enabled, Some(lock(30))),
            settings.clone(),
            BucketSettings::default(),
        ] {
            let bucket = BucketEntry::new("b".to_owned(), 5, &settings);
            let read: BucketEntry = serde_json::from_str(&serde_json::to_string(&bucket).unwrap()).unwrap();
            assert_eq!((read.settings().unwrap(), &read), (settings, &bucket));
        }
    }

    #[test]
    fn unusable_settings_and_times_are_rejected() {
        let bucket = BucketEntry::new("b".to_owned(), TIME_MAX_MS, &BucketSettings::default());
        assert!(bucket.settings().is_ok());
        for bad in [
            BucketEntry { created_ms: TIME_MAX_MS + 1, ..bucket.clone() },
            BucketEntry { policy: Base64::encode_string(&[9, 9]), ..bucket.clone() },
            BucketEntry { lifecycle: Base64::encode_string(&[255, 255, 255]), ..bucket.clone() },
            BucketEntry { object_lock: Some(ObjectLockEntry::default()), ..bucket.clone() },
            BucketEntry {
                versioning: Some(VersioningEntry::Suspended),
                object_lock: Some(ObjectLockEntry::default()),
                ..bucket.clone()
            },
            BucketEntry {
                versioning: Some(VersioningEntry::Enabled),
                object_lock: Some(ObjectLockEntry { days: Some(1), ..ObjectLockEntry::default() }),
                ..bucket
            },
        ] {
            assert!(bad.settings().is_err(), "{bad:?}");
        }
        let at = |time_ms| {
            let description = Description { time_ms, ..description("k", &[]) };
            ObjectEntry::new(&description, &description.head, description.size).unwrap().description()
        };
        assert!(at(TIME_MAX_MS).is_ok());
        assert_eq!(at(TIME_MAX_MS + 1).unwrap_err(), EntryError::Time);
    }

    #[test]
    fn version_and_lock_round_trip() {
        let retention = Some(Retention { mode: RetentionMode::Governance, until_ms: 7 });
        for (version, lock) in [
            (VersionId::Null, Lock::default()),
            (VersionId::Id([0xa1; 16]), Lock { retention, hold: false }),
            (VersionId::Id([0xa1; 16]), Lock { retention, hold: true }),
        ] {
            let description = Description { version: Some(version), lock, ..description("k", &[]) };
            let entry = ObjectEntry::new(&description, &description.head, description.size).unwrap();
            let read: ObjectEntry = serde_json::from_str(&serde_json::to_string(&entry).unwrap()).unwrap();
            assert_eq!(read.description().unwrap(), description);
            assert_eq!(read.name(), format!("bucket/k (version {version})"));
            let without = ObjectEntry { version: None, ..read }.description();
            assert_eq!(without.is_ok(), lock.is_none(), "a lock needs a version");
        }
    }

    #[test]
    fn file_names_outside_the_export_are_rejected() {
        let name = FileName { id: [0xab; 32], sealed: true };
        let text = name.to_string();
        assert_eq!(text, format!("objects/ab/{}.sealed", "ab".repeat(32)));
        for bad in [
            "",
            "objects",
            "objects/ab/",
            "/objects/ab/x.sealed",
            &text.replace("objects", "../objects"),
            &text.replace("ab/", "../"),
            &text.replace("/ab/", "/ac/"),
            &text.replace("sealed", "exe"),
            &text.replace(".sealed", ""),
            &text.to_uppercase(),
            &format!("{text}/.."),
            &text.replace("abab.", "abab/."),
        ] {
            assert_eq!(FileName::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn identity_differs_between_versions() {
        let base = description("k", &[]);
        let id = |description: &Description| identity(description, &description.head);
        let others = [
            Description { bucket: "bucket2".to_owned(), ..base.clone() },
            Description { key: "k2".to_owned(), ..base.clone() },
            Description { time_ms: 1, ..base.clone() },
            Description { size: 6, ..base.clone() },
            Description { sealed: true, ..base.clone() },
            Description { head: vec![1], ..base.clone() },
            Description { version: Some(VersionId::Id([1; 16])), ..base.clone() },
            Description { version: Some(VersionId::Id([2; 16])), ..base.clone() },
        ];
        assert!(others.iter().all(|other| id(other) != id(&base)));
        let ids: std::collections::HashSet<_> = others.iter().map(id).collect();
        assert_eq!(ids.len(), others.len());
        let lock = Lock { hold: true, ..Lock::default() };
        for same in [
            Description { tags: Tags::default(), ..base.clone() },
            Description { version: Some(VersionId::Null), ..base.clone() },
            Description { version: Some(VersionId::Null), lock, ..base.clone() },
        ] {
            assert_eq!(id(&same), id(&base), "tags, locks and `null` are not of it");
        }
    }
}
