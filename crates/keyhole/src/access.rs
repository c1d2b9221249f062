//! The access keys of the node, from its file and from the environment.

mod file;
mod grant;

use std::path::{Path, PathBuf};

use keyhole_node::{AccessKey, AccessTable, Config};
use keyhole_s3::auth::SecretKey;

use zeroize::Zeroizing;

use crate::env::random;

pub(crate) use file::{AccessFile, Entry, now};
pub(crate) use grant::{check_bucket_pattern, format_grant, parse_grant};

const ACCESS_KEY_VARIABLE: &str = "KEYHOLE_ACCESS_KEY";
const SECRET_KEY_VARIABLE: &str = "KEYHOLE_SECRET_KEY";

/// Lengths of generated access keys and secrets, as at AWS.
const ACCESS_KEY_LEN: usize = 20;
const SECRET_KEY_LEN: usize = 40;
/// Minimum lengths, as in other S3 servers.
const ACCESS_KEY_MIN: usize = 3;
const SECRET_KEY_MIN: usize = 8;
/// Maximum lengths: IAM's for an access key; a secret is hashed as a whole with each signing key.
const ACCESS_KEY_MAX: usize = 128;
const SECRET_KEY_MAX: usize = 1024;

/// The sources of access keys, which can be reloaded.
pub(crate) struct Access {
    file: AccessFile,
    /// The key of the environment, which has all rights.
    of_environment: Option<(String, Zeroizing<String>)>,
}

/// The origin of the keys at the start.
#[derive(Debug)]
pub(crate) enum Origin {
    Environment,
    File(PathBuf),
    /// No key existed: one with all rights was created.
    Made(PathBuf, AccessKey),
}

impl Access {
    /// Loads the keys of the environment and of the file in the state directory. Creates one if
    /// there is none and `may_make`.
    pub(crate) fn load(state: &Path, may_make: bool) -> Result<(Self, AccessTable, Origin), String> {
        let of_environment = of_environment()?;
        let file = AccessFile::in_state(state);
        let origin = match &of_environment {
            Some(_) => Origin::Environment,
            None if file.exists() => Origin::File(file.path().to_owned()),
            None if !may_make => {
                return Err(format!(
                    "no access keys in {}, and none are created for a read-only store: set {ACCESS_KEY_VARIABLE} and \
                     {SECRET_KEY_VARIABLE}, or --state DIR with the keys in it",
                    state.display()
                ));
            }
            None => Origin::Made(file.path().to_owned(), file.make_first()?),
        };
        let access = Access { file, of_environment };
        let table = access.table()?;
        Ok((access, table, origin))
    }

    /// Reloads the file and returns the count of keys. On an error the previous keys stay valid.
    pub(crate) fn reload(&self, config: &Config) -> Result<usize, String> {
        let table = self.table()?;
        let count = table.len();
        config.access.store(table.into());
        Ok(count)
    }

    fn table(&self) -> Result<AccessTable, String> {
        let entries = if self.file.exists() { self.file.read()? } else { Vec::new() };
        let of_environment = self.of_environment.iter();
        let of_environment =
            of_environment.map(|(id, secret)| AccessKey::admin(id.clone(), SecretKey::new(secret.to_string())));
        Ok(entries.into_iter().map(Entry::into_key).chain(of_environment).collect())
    }
}

/// Validates and describes the keys that a node with this state directory would have, without
/// secrets. Creates none.
pub(crate) fn describe(state: &Path) -> Result<String, String> {
    let file = AccessFile::in_state(state);
    let of_file = match file.exists() {
        true => Some(format!("{} in {}", file.read()?.len(), file.path().display())),
        false => None,
    };
    let of_environment =
        of_environment()?.map(|(id, _)| format!("{id} from {ACCESS_KEY_VARIABLE}, its secret redacted"));
    let all: Vec<_> = of_environment.into_iter().chain(of_file).collect();
    Ok(if all.is_empty() { "one is created at the first start".to_owned() } else { all.join("; ") })
}

/// Returns the key of the environment, if there is one.
fn of_environment() -> Result<Option<(String, Zeroizing<String>)>, String> {
    let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    match (variable(ACCESS_KEY_VARIABLE), variable(SECRET_KEY_VARIABLE)) {
        (Some(id), Some(secret)) => {
            check(&id, &secret).map_err(|why| format!("invalid credential in the environment: {why}"))?;
            Ok(Some((id, secret.into())))
        }
        (None, None) => Ok(None),
        _ => Err(format!("partial credential: set both {ACCESS_KEY_VARIABLE} and {SECRET_KEY_VARIABLE}, or neither")),
    }
}

/// Validates the form of an access key and its secret.
pub(crate) fn check(id: &str, secret: &str) -> Result<(), String> {
    let valid = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'/' | b',' | b'=');
    if !(ACCESS_KEY_MIN..=ACCESS_KEY_MAX).contains(&id.len()) || !id.bytes().all(valid) {
        return Err(format!(
            "invalid access key: expected {ACCESS_KEY_MIN} to {ACCESS_KEY_MAX} visible ASCII characters without / , ="
        ));
    }
    match (SECRET_KEY_MIN..=SECRET_KEY_MAX).contains(&secret.len()) {
        true => Ok(()),
        false => Err(format!("invalid secret key: expected {SECRET_KEY_MIN} to {SECRET_KEY_MAX} bytes")),
    }
}

/// Generates an access key and a secret.
pub(crate) fn new_pair() -> (String, Zeroizing<String>) {
    let id = characters(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", ACCESS_KEY_LEN);
    let secret = characters(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+-", SECRET_KEY_LEN);
    (id, secret.into())
}

/// Generates `len` random characters of an alphabet whose length divides 256, so that all are
/// equally likely.
fn characters(alphabet: &[u8], len: usize) -> String {
    assert!(256 % alphabet.len() == 0, "an alphabet of {} characters is uneven", alphabet.len());
    let mut bytes = Zeroizing::new(vec![0; len]);
    random(&mut bytes);
    bytes.iter().map(|byte| char::from(alphabet[usize::from(*byte) % alphabet.len()])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_shortest_and_longest_lengths() {
        let try_one = |id: &str, secret: &str| check(id, secret).is_ok();
        let (long, longer) = ("a".repeat(ACCESS_KEY_MAX), "a".repeat(ACCESS_KEY_MAX + 1));
        assert!(try_one("abc", "12345678") && try_one(&long, &"s".repeat(SECRET_KEY_MAX)));
        assert!(!try_one("ab", "12345678") && !try_one("abc", "1234567") && !try_one("a/c", "12345678"));
        assert!(!try_one(&longer, "12345678") && !try_one("abc", &"s".repeat(SECRET_KEY_MAX + 1)));
    }

    #[test]
    fn pairs_are_made_of_other_characters_each_time() {
        let ((id, secret), other) = (new_pair(), new_pair());
        assert_eq!((id.len(), secret.len()), (ACCESS_KEY_LEN, SECRET_KEY_LEN));
        assert!(check(&id, &secret).is_ok() && id != other.0 && secret != other.1);
    }
}
