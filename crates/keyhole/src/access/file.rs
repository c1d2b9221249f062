//! The file of access keys: TOML with a `[[key]]` table for each key, private to its owner.

use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use keyhole_node::{AccessKey, Grant};
use keyhole_s3::auth::SecretKey;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::error::AccessError;
use super::grant::{format_grant, parse_grant};
use super::pair::{check, new_pair};
use crate::error::FileError;
use crate::regular;

/// Names in the state directory: the file, and the lock that is held while it changes.
const FILE: &str = "credentials.toml";
const LOCK: &str = "credentials.lock";

/// Limit of the file's length: [`KEYS_MAX`] keys with some grants.
const LEN_MAX: u64 = 4 << 20;

/// Limit of access keys of a node.
const KEYS_MAX: usize = 1000;

/// Limit of grants of a key: each request checks all of them.
const GRANTS_MAX: usize = 64;

/// One access key in the file.
#[derive(Serialize, Deserialize, Clone)]
#[serde(deny_unknown_fields)]
pub(crate) struct KeyEntry {
    pub(crate) access_key: String,
    pub(crate) secret_key: Zeroizing<String>,
    /// The operator's note.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) note: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) created: Option<Timestamp>,
    /// The expiry time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) expires: Option<Timestamp>,
    /// The grants, in the syntax of [`parse_grant`].
    #[serde(with = "grants")]
    pub(crate) grants: Vec<Grant>,
}

impl KeyEntry {
    /// Converts the entry to the key that requests are checked with.
    pub(crate) fn into_key(self) -> AccessKey {
        let KeyEntry { access_key: id, mut secret_key, expires, grants, .. } = self;
        let expires_ms = expires.map(end_ms);
        AccessKey { id, secret: SecretKey::new(std::mem::take(&mut *secret_key)), grants, expires_ms }
    }

    /// Returns whether the key has all rights and no expiry.
    pub(crate) fn is_lasting_admin(&self) -> bool {
        self.expires.is_none() && self.grants.contains(&Grant::all())
    }
}

/// The structure of the file.
#[derive(Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Contents {
    #[serde(default)]
    key: Vec<KeyEntry>,
}

/// The earlier structure, with a single key.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OneKey {
    access_key: String,
    secret_key: Zeroizing<String>,
}

/// Grants as text in the file.
mod grants {
    use keyhole_node::Grant;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(grants: &[Grant], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(grants.iter().map(super::format_grant))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Grant>, D::Error> {
        let texts = Vec::<String>::deserialize(deserializer)?;
        texts.iter().map(|text| super::parse_grant(text).map_err(D::Error::custom)).collect()
    }
}

/// The file in a state directory.
pub(crate) struct AccessFile {
    path: PathBuf,
}

impl AccessFile {
    pub(crate) fn in_state(state: &Path) -> Self {
        AccessFile { path: state.join(FILE) }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn exists(&self) -> bool {
        fs::symlink_metadata(&self.path).is_ok()
    }

    /// Creates a key with all rights in a new file.
    pub(super) fn make_first(&self) -> Result<AccessKey, AccessError> {
        let (access_key, secret_key) = new_pair();
        let created = Some(now());
        let grants = vec![Grant::all()];
        let entry = KeyEntry { access_key, secret_key, note: None, created, expires: None, grants };
        self.change(|entries| -> Result<(), AccessError> {
            entries.push(entry.clone());
            Ok(())
        })?;
        Ok(entry.into_key())
    }

    /// Reads all keys.
    pub(crate) fn read(&self) -> Result<Vec<KeyEntry>, AccessError> {
        let failed = |error| FileError::new("cannot read", &self.path, error);
        let metadata = fs::metadata(&self.path).map_err(failed)?;
        if metadata.len() > LEN_MAX {
            return Err(AccessError::FileTooLong { path: self.path.clone(), max: LEN_MAX });
        }
        if metadata.permissions().mode() & 0o077 != 0 {
            let path = self.path.display();
            tracing::warn!("{path} is readable by other users; run chmod 600 {path}");
        }
        // Allocated at full size: growing would leave copies behind.
        let mut text = Zeroizing::new(String::with_capacity(metadata.len() as usize + 1));
        let file = regular::open(&self.path).map_err(failed)?;
        file.take(LEN_MAX).read_to_string(&mut text).map_err(failed)?;
        let in_file = |error| AccessError::InFile { path: self.path.clone(), source: Box::new(error) };
        let entries = parse(&text).map_err(in_file)?;
        check_all(&entries).map_err(in_file)?;
        Ok(entries)
    }

    /// Changes the keys under the lock. A crash leaves either the old or the new file.
    pub(crate) fn change<T, E: From<AccessError>>(
        &self,
        change: impl FnOnce(&mut Vec<KeyEntry>) -> Result<T, E>,
    ) -> Result<T, E> {
        let failed = |error| AccessError::from(FileError::new("cannot write", &self.path, error));
        let lock = self.path.with_file_name(LOCK);
        let mut options = OpenOptions::new();
        let lock = regular::open_with(options.write(true).create(true).truncate(false).mode(0o600), &lock);
        let lock = lock.map_err(failed)?;
        lock.lock().map_err(failed)?;
        let mut entries = if self.exists() { self.read()? } else { Vec::new() };
        let result = change(&mut entries)?;
        check_all(&entries)?;
        self.write(entries).map_err(failed)?;
        Ok(result)
    }

    /// Replaces the file.
    fn write(&self, entries: Vec<KeyEntry>) -> io::Result<()> {
        let text = Zeroizing::new(toml::to_string(&Contents { key: entries }).map_err(io::Error::other)?);
        if text.len() as u64 > LEN_MAX {
            return Err(io::Error::other(format!(
                "it would be longer than {LEN_MAX} bytes; revoke keys or reduce their grants"
            )));
        }
        regular::replace(&self.path, text.as_bytes())
    }
}

/// Returns the current time in whole seconds.
pub(crate) fn now() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}

/// Rounds an end up to whole seconds, as the file shows it: it never comes earlier than announced.
pub(crate) fn rounded_end(end: Timestamp) -> Timestamp {
    let seconds = end.as_second() + i64::from(end.subsec_nanosecond() > 0);
    Timestamp::from_second(seconds).unwrap_or(end)
}

/// Returns an end in ms since 1970, rounded up.
fn end_ms(end: Timestamp) -> u64 {
    let ms = end.as_nanosecond().div_euclid(1_000_000) + i128::from(end.as_nanosecond().rem_euclid(1_000_000) > 0);
    u64::try_from(ms).unwrap_or(0)
}

/// Parses the file. Errors never quote its text, as the parser's own messages would.
fn parse(text: &str) -> Result<Vec<KeyEntry>, AccessError> {
    if let Ok(OneKey { access_key, secret_key }) = toml::from_str(text) {
        let grants = vec![Grant::all()];
        return Ok(vec![KeyEntry { access_key, secret_key, note: None, created: None, expires: None, grants }]);
    }
    let contents: Contents = toml::from_str(text).map_err(|error| {
        let line = error.span().map(|span| 1 + text[..span.start.min(text.len())].matches('\n').count());
        let line = line.map_or_else(String::new, |line| format!(" near line {line}"));
        AccessError::InvalidFile { place: line }
    })?;
    Ok(contents.key)
}

fn check_all(entries: &[KeyEntry]) -> Result<(), AccessError> {
    if entries.len() > KEYS_MAX {
        return Err(AccessError::TooManyKeys { count: entries.len(), max: KEYS_MAX });
    }
    let mut ids = std::collections::HashSet::new();
    for entry in entries {
        let id = &entry.access_key;
        check(id, &entry.secret_key).map_err(|source| AccessError::InvalidKey { id: id.clone(), source })?;
        if entry.grants.len() > GRANTS_MAX {
            let count = entry.grants.len();
            return Err(AccessError::TooManyGrants { id: id.clone(), count, max: GRANTS_MAX });
        }
        if !ids.insert(id) {
            return Err(AccessError::Duplicate(id.clone()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> (tempfile::TempDir, AccessFile) {
        let state = tempfile::tempdir().unwrap();
        let file = AccessFile::in_state(state.path());
        (state, file)
    }

    #[test]
    fn first_key_is_private_to_owner() {
        let (_state, file) = file();
        let made = file.make_first().unwrap();
        assert_eq!(fs::metadata(file.path()).unwrap().permissions().mode() & 0o777, 0o600);
        let [entry] = &file.read().unwrap()[..] else { panic!("one key") };
        assert_eq!((&entry.access_key[..], &entry.secret_key[..]), (&made.id[..], made.secret.expose()));
        assert!(entry.is_lasting_admin());
    }

    #[test]
    fn ends_are_rounded_up() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        for (end, rounded) in [
            ("2030-01-01T00:00:00Z", "2030-01-01T00:00:00Z"),
            ("2030-01-01T00:00:00.000000001Z", "2030-01-01T00:00:01Z"),
            ("2030-01-01T00:00:00.999999999Z", "2030-01-01T00:00:01Z"),
        ] {
            assert_eq!(rounded_end(at(end)), at(rounded));
        }
        assert_eq!(end_ms(at("1970-01-01T00:00:01.5Z")), 1500);
        assert_eq!(end_ms(at("1970-01-01T00:00:01.500000001Z")), 1501);
        assert_eq!(end_ms(at("1969-12-31T23:59:59Z")), 0);
    }

    #[test]
    fn file_of_single_key_is_migrated() {
        let (_state, file) = file();
        fs::write(file.path(), "access_key = \"abc\"\nsecret_key = \"12345678\"\n").unwrap();
        assert!(file.read().unwrap()[0].is_lasting_admin());
        file.change(|entries| {
            entries[0].note = Some("first".to_owned());
            Ok::<_, AccessError>(())
        })
        .unwrap();
        assert!(fs::read_to_string(file.path()).unwrap().starts_with("[[key]]"));
        assert_eq!(file.read().unwrap()[0].note.as_deref(), Some("first"));
    }

    #[test]
    fn grants_round_trip_as_text() {
        for text in ["*:admin", "photos:read,list", "cam-*/in/:write", "b/a:b/:delete,read-sealed,write-sealed"] {
            assert_eq!(format_grant(&parse_grant(text).unwrap()), text);
        }
        assert_eq!(parse_grant("b/a:b/:list").unwrap().prefix, "a:b/");
        for bad in [
            "",
            "b",
            "b:",
            ":read",
            "b:all",
            "B:read",
            "b*c:read",
            "b:read,",
            "/p:read",
            &format!("{}:read", "b".repeat(64)),
        ] {
            assert!(parse_grant(bad).is_err(), "{bad}");
        }
        assert!(parse_grant(&format!("{}:read", "b".repeat(63))).is_ok());
    }

    #[test]
    fn errors_of_invalid_file_contain_no_secret() {
        let (_state, file) = file();
        let key = "access_key = \"abc\"\nsecret_key = \"hunter2hunter2\"\n";
        for (text, expected) in [
            ("secret_key = hunter2hunter2".to_owned(), "access_key"),
            (format!("[[key]]\n{key}grants = [\"b:everything\"]\n"), "line"),
            (format!("[[key]]\n{key}"), "grants"),
            (format!("[[key]]\n{key}grants = []\n[[key]]\n{key}grants = []\n"), "duplicate"),
            (format!("[[key]]\n{key}grants = []\nmore = 1\n"), "line"),
        ] {
            fs::write(file.path(), text).unwrap();
            let Err(error) = file.read() else { panic!("it is wrong") };
            let error = error.to_string();
            assert!(error.contains(expected) && !error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn numbers_of_keys_and_grants_are_bounded() {
        let entry = |index: usize, grants: usize| KeyEntry {
            access_key: format!("key{index}"),
            secret_key: "12345678".to_owned().into(),
            note: None,
            created: None,
            expires: None,
            grants: vec![Grant::all(); grants],
        };
        let keys = |count| (0..count).map(|index| entry(index, 1)).collect::<Vec<_>>();
        assert!(check_all(&keys(KEYS_MAX)).is_ok() && check_all(&keys(KEYS_MAX + 1)).is_err());
        assert!(check_all(&[entry(0, GRANTS_MAX)]).is_ok() && check_all(&[entry(0, GRANTS_MAX + 1)]).is_err());
        let (_state, file) = file();
        let one = "[[key]]\naccess_key = \"abc\"\nsecret_key = \"12345678\"\ngrants = []\n";
        let padded = |len: u64| format!("{one}{}", "#".repeat(len as usize - one.len()));
        fs::write(file.path(), padded(LEN_MAX)).unwrap();
        assert!(file.read().is_ok());
        fs::write(file.path(), padded(LEN_MAX + 1)).unwrap();
        assert!(file.read().is_err());
    }
}
