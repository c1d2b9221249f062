//! The credential that requests are signed with.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use keyhole_s3::auth::{Credentials, SecretKey};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::env::random;

const ACCESS_KEY_VARIABLE: &str = "KEYHOLE_ACCESS_KEY";
const SECRET_KEY_VARIABLE: &str = "KEYHOLE_SECRET_KEY";

/// The file in the data directory that holds the credential.
pub(crate) const FILE: &str = "credentials.toml";

/// Characters of an access key that is made here, and of a secret: as many as AWS's have.
const ACCESS_KEY_LEN: usize = 20;
const SECRET_KEY_LEN: usize = 40;
/// The shortest that is taken, as in other S3 servers.
const ACCESS_KEY_MIN: usize = 3;
const SECRET_KEY_MIN: usize = 8;

/// One access key with its secret.
#[derive(Debug)]
pub(crate) struct Credential {
    pub(crate) access_key: String,
    pub(crate) secret_key: SecretKey,
}

impl Credentials for Credential {
    fn secret(&self, access_key: &str) -> Option<&SecretKey> {
        (access_key == self.access_key).then_some(&self.secret_key)
    }
}

/// Where the credential came from.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Origin {
    Environment,
    File(PathBuf),
    Made(PathBuf),
}

/// The form of the file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Contents {
    access_key: String,
    secret_key: String,
}

/// The credential of the environment, or of the data directory, where one is made if there is none.
pub(crate) fn load(data: &Path) -> Result<(Credential, Origin), String> {
    let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    match (variable(ACCESS_KEY_VARIABLE), variable(SECRET_KEY_VARIABLE)) {
        (Some(access_key), Some(secret_key)) => Ok((
            check(access_key, secret_key).map_err(|why| format!("the credential of the environment: {why}"))?,
            Origin::Environment,
        )),
        (None, None) => load_file(data),
        _ => Err(format!("set both {ACCESS_KEY_VARIABLE} and {SECRET_KEY_VARIABLE}, or neither")),
    }
}

fn check(access_key: String, secret_key: String) -> Result<Credential, String> {
    let secret_key = SecretKey::new(secret_key);
    let valid = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'/' | b',' | b'=');
    if access_key.len() < ACCESS_KEY_MIN || !access_key.bytes().all(valid) {
        return Err(format!("an access key has {ACCESS_KEY_MIN} or more visible characters, none of them / , ="));
    }
    if secret_key.expose().len() < SECRET_KEY_MIN {
        return Err(format!("a secret key has {SECRET_KEY_MIN} or more characters"));
    }
    Ok(Credential { access_key, secret_key })
}

fn load_file(data: &Path) -> Result<(Credential, Origin), String> {
    let path = data.join(FILE);
    let text = match fs::read_to_string(&path) {
        Ok(text) => Zeroizing::new(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let credential = make(&path).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
            return Ok((credential, Origin::Made(path)));
        }
        Err(error) => return Err(format!("cannot read {}: {error}", path.display())),
    };
    let mode = fs::metadata(&path).map(|metadata| metadata.permissions().mode()).unwrap_or_default();
    if mode & 0o077 != 0 {
        tracing::warn!("{} can be read by others; chmod 600 it", path.display());
    }
    // The parser's own message would quote the file.
    let contents: Contents = toml::from_str(&text)
        .map_err(|_| format!("{} must have access_key = \"...\" and secret_key = \"...\"", path.display()))?;
    let credential = check(contents.access_key, contents.secret_key)
        .map_err(|why| format!("the credential in {}: {why}", path.display()))?;
    Ok((credential, Origin::File(path)))
}

/// Makes a credential and keeps it in a file that only the owner can read; a crash leaves it whole or absent.
fn make(path: &Path) -> io::Result<Credential> {
    let access_key = characters(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", ACCESS_KEY_LEN);
    let secret_key = characters(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+-", SECRET_KEY_LEN);
    let contents = Contents { access_key: access_key.clone(), secret_key: secret_key.clone() };
    let text = Zeroizing::new(toml::to_string(&contents).map_err(io::Error::other)?);
    let new = path.with_extension("toml.new");
    let _ = fs::remove_file(&new);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    Ok(Credential { access_key, secret_key: SecretKey::new(secret_key) })
}

/// `len` random characters of an alphabet whose length divides 256, so that each is as likely as the others.
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
    fn a_credential_is_made_once_for_its_owner_alone() {
        let data = tempfile::tempdir().unwrap();
        let (made, origin) = load_file(data.path()).unwrap();
        let path = data.path().join(FILE);
        assert_eq!(origin, Origin::Made(path.clone()));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let (loaded, origin) = load_file(data.path()).unwrap();
        assert_eq!(origin, Origin::File(path));
        assert_eq!((made.access_key.len(), made.secret_key.expose().len()), (ACCESS_KEY_LEN, SECRET_KEY_LEN));
        assert_eq!((&made.access_key, made.secret_key.expose()), (&loaded.access_key, loaded.secret_key.expose()));
        assert!(loaded.secret(&made.access_key).is_some() && loaded.secret("other").is_none());
    }

    #[test]
    fn a_file_that_is_wrong_is_not_quoted() {
        let data = tempfile::tempdir().unwrap();
        fs::write(data.path().join(FILE), "secret_key = hunter2hunter2").unwrap();
        let error = load_file(data.path()).unwrap_err();
        assert!(error.contains("access_key") && !error.contains("hunter2"), "{error}");
    }

    #[test]
    fn credentials_have_shortest_lengths() {
        let try_one = |access: &str, secret: &str| check(access.to_owned(), secret.to_owned()).is_ok();
        assert!(try_one("abc", "12345678"));
        assert!(!try_one("ab", "12345678") && !try_one("abc", "1234567") && !try_one("a/c", "12345678"));
    }
}
