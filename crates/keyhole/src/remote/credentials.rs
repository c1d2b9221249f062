//! The credentials for a remote: of its file, or those that the AWS tools would use.

use std::ffi::OsString;
use std::fmt;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::error::CredentialsError;
use super::limits::{CREDENTIAL_MAX, CREDENTIALS_MAX};
use crate::error::FileError;
use crate::regular;

const KEY_ID: &str = "aws_access_key_id";
const SECRET_KEY: &str = "aws_secret_access_key";
const SESSION_TOKEN: &str = "aws_session_token";

const KEY_ID_VARIABLE: &str = "AWS_ACCESS_KEY_ID";
const SECRET_KEY_VARIABLE: &str = "AWS_SECRET_ACCESS_KEY";
const SESSION_TOKEN_VARIABLE: &str = "AWS_SESSION_TOKEN";
const PROFILE_VARIABLE: &str = "AWS_PROFILE";
const FILE_VARIABLE: &str = "AWS_SHARED_CREDENTIALS_FILE";

const DEFAULT_PROFILE: &str = "default";

/// The credentials that requests are signed with. Wiped on drop.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Credentials {
    pub(super) key_id: String,
    pub(super) secret_key: Zeroizing<String>,
    pub(super) session_token: Option<Zeroizing<String>>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("key_id", &self.key_id).finish_non_exhaustive()
    }
}

impl Credentials {
    /// Loads the credentials of a file, or of the environment, or of the AWS tools' own file.
    pub(super) fn load(file: Option<&Path>) -> Result<Self, CredentialsError> {
        Self::find(file, &|name| std::env::var_os(name))
    }

    fn find(
        file: Option<&Path>,
        variable: &dyn Fn(&'static str) -> Option<OsString>,
    ) -> Result<Self, CredentialsError> {
        let variable = |name| variable(name).filter(|value| !value.is_empty());
        let profile = variable(PROFILE_VARIABLE).and_then(|profile| profile.into_string().ok());
        let profile = profile.as_deref().unwrap_or(DEFAULT_PROFILE);
        if let Some(file) = file {
            return Self::read(file, profile);
        }
        let text = |name| variable(name).map(|value| Zeroizing::new(value.to_string_lossy().into_owned()));
        match (text(KEY_ID_VARIABLE), text(SECRET_KEY_VARIABLE)) {
            (Some(key_id), Some(secret_key)) => {
                let session_token = text(SESSION_TOKEN_VARIABLE);
                return Credentials { key_id: key_id.to_string(), secret_key, session_token }
                    .checked("the environment");
            }
            (None, None) => {}
            _ => return Err(CredentialsError::Partial),
        }
        if let Some(file) = variable(FILE_VARIABLE) {
            return Self::read(Path::new(&file), profile);
        }
        let home = variable("HOME").ok_or(CredentialsError::None)?;
        let file = PathBuf::from(home).join(".aws/credentials");
        if file.exists() { Self::read(&file, profile) } else { Err(CredentialsError::None) }
    }

    /// Reads a profile of a file.
    fn read(path: &Path, profile: &str) -> Result<Self, CredentialsError> {
        let failed = |error| FileError::new("cannot read the credentials file", path, error);
        let file = regular::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        let mode = metadata.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(CredentialsError::Mode { path: path.to_owned(), mode });
        }
        if metadata.len() > CREDENTIALS_MAX {
            return Err(CredentialsError::TooLong { path: path.to_owned(), max: CREDENTIALS_MAX });
        }
        // Allocated at full size: growing would leave copies behind.
        let mut text = Zeroizing::new(String::with_capacity(metadata.len() as usize + 1));
        let read = file.take(metadata.len()).read_to_string(&mut text);
        read.map_err(|error| match error.kind() {
            // Errors never quote the text.
            io::ErrorKind::InvalidData => failed(io::Error::new(error.kind(), "it is not UTF-8")),
            _ => failed(error),
        })?;
        let found = parse(&text, profile).map_err(|Invalid { line, reason }| CredentialsError::Line {
            path: path.to_owned(),
            line,
            reason,
        })?;
        let name = || profile.to_owned();
        let found = found.ok_or_else(|| CredentialsError::NoProfile { path: path.to_owned(), profile: name() })?;
        let field = |value: Option<&str>, field| {
            let missing = || CredentialsError::NoField { path: path.to_owned(), profile: name(), field };
            value.map(|value| Zeroizing::new(value.to_owned())).ok_or_else(missing)
        };
        let key_id = field(found.key_id, KEY_ID)?.to_string();
        let secret_key = field(found.secret_key, SECRET_KEY)?;
        let session_token = found.session_token.map(|token| Zeroizing::new(token.to_owned()));
        Credentials { key_id, secret_key, session_token }.checked(&path.display().to_string())
    }

    /// Returns the credentials if they can be sent in headers.
    fn checked(self, origin: &str) -> Result<Self, CredentialsError> {
        let is_valid =
            |text: &str| (1..=CREDENTIAL_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
        let token = self.session_token.as_deref().map_or("-", |token| token);
        for (field, value) in
            [("access key ID", &self.key_id[..]), ("secret access key", &self.secret_key), ("session token", token)]
        {
            if !is_valid(value) {
                return Err(CredentialsError::Invalid { origin: origin.to_owned(), field });
            }
        }
        Ok(self)
    }
}

/// The fields of a profile.
#[derive(Default, PartialEq, Debug)]
struct Profile<'a> {
    key_id: Option<&'a str>,
    secret_key: Option<&'a str>,
    session_token: Option<&'a str>,
}

/// A line of a credentials file that cannot be parsed.
#[derive(PartialEq, Debug)]
struct Invalid {
    line: usize,
    reason: &'static str,
}

/// Finds a profile in a file with `[PROFILE]` and `NAME = VALUE` lines and comments. Other names,
/// which the AWS tools know, are ignored.
fn parse<'a>(text: &'a str, wanted: &str) -> Result<Option<Profile<'a>>, Invalid> {
    let mut found: Option<Profile<'a>> = None;
    let mut is_inside = None;
    for (at, line) in text.lines().enumerate() {
        let invalid = |reason| Invalid { line: at + 1, reason };
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with(['#', ';']) {
            continue;
        }
        if let Some(rest) = trimmed.strip_prefix('[') {
            let name = rest.strip_suffix(']').ok_or_else(|| invalid("expected ] at the end of the profile's name"))?;
            let is_wanted = name.trim() == wanted;
            if is_wanted && found.is_some() {
                return Err(invalid("the profile is there twice: remove one of them"));
            }
            if is_wanted {
                found = Some(Profile::default());
            }
            is_inside = Some(is_wanted);
            continue;
        }
        let (name, value) = trimmed.split_once('=').ok_or_else(|| invalid("expected [PROFILE] or NAME = VALUE"))?;
        let Some(is_wanted) = is_inside else { return Err(invalid("expected [PROFILE] first")) };
        let Some(profile) = found.as_mut().filter(|_| is_wanted) else { continue };
        let field = match name.trim() {
            KEY_ID => &mut profile.key_id,
            SECRET_KEY => &mut profile.secret_key,
            SESSION_TOKEN => &mut profile.session_token,
            _ => continue,
        };
        if field.replace(value.trim()).is_some() {
            return Err(invalid("the field is there twice: remove one of them"));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const TEXT: &str = "# a comment\n[default]\naws_access_key_id = AKIA1\naws_secret_access_key=s3cr3t/+=\n\
        region = eu-west-1\n\n[ other ]\n; another\naws_access_key_id = AKIA2\naws_secret_access_key = two\n\
        aws_session_token = token==\n";

    /// Writes a file with this mode, in a directory that is named `.aws`.
    fn home(text: &str, mode: u32) -> (tempfile::TempDir, PathBuf) {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join(".aws/credentials");
        fs::create_dir(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        (home, path)
    }

    fn find(file: Option<&Path>, environment: &[(&str, &str)]) -> Result<Credentials, CredentialsError> {
        let value = |name: &str| environment.iter().find(|(it, _)| *it == name).map(|(_, value)| OsString::from(value));
        Credentials::find(file, &|name| value(name))
    }

    fn key_id(file: Option<&Path>, environment: &[(&str, &str)]) -> String {
        find(file, environment).unwrap().key_id
    }

    #[test]
    fn file_has_profiles() {
        let (_home, path) = home(TEXT, 0o600);
        let first = find(Some(&path), &[]).unwrap();
        assert_eq!((&first.key_id[..], &first.secret_key[..]), ("AKIA1", "s3cr3t/+="));
        assert_eq!(first.session_token, None);
        let other = find(Some(&path), &[("AWS_PROFILE", "other")]).unwrap();
        assert_eq!((&other.key_id[..], &other.secret_key[..]), ("AKIA2", "two"));
        assert_eq!(other.session_token.unwrap().as_str(), "token==");
        let error = find(Some(&path), &[("AWS_PROFILE", "third")]).unwrap_err();
        assert!(error.to_string().contains("[third]"), "{error}");
    }

    #[test]
    fn precedence_is_file_environment_shared_file() {
        let (home, path) = home(TEXT, 0o400);
        let home = home.path().to_str().unwrap();
        let shared = path.to_str().unwrap();
        let pair = [("AWS_ACCESS_KEY_ID", "AKIA3"), ("AWS_SECRET_ACCESS_KEY", "three"), ("HOME", home)];
        assert_eq!(key_id(Some(&path), &pair), "AKIA1");
        assert_eq!(key_id(None, &pair), "AKIA3");
        assert_eq!(key_id(None, &[("HOME", home)]), "AKIA1");
        assert_eq!(key_id(None, &[("HOME", home), ("AWS_PROFILE", "other")]), "AKIA2");
        assert_eq!(key_id(None, &[("HOME", "/none"), ("AWS_SHARED_CREDENTIALS_FILE", shared)]), "AKIA1");
        assert_eq!(key_id(None, &[("HOME", home), ("AWS_ACCESS_KEY_ID", "")]), "AKIA1", "empty is absent");
        assert!(matches!(find(None, &pair[..1]), Err(CredentialsError::Partial)));
        assert!(matches!(find(None, &[("HOME", "/none")]), Err(CredentialsError::None)));
        assert!(matches!(find(None, &[]), Err(CredentialsError::None)));
        assert!(matches!(
            find(None, &[("AWS_SHARED_CREDENTIALS_FILE", "/none"), ("HOME", home)]),
            Err(CredentialsError::File(_))
        ));
    }

    #[test]
    fn file_must_be_private_regular_and_short() {
        for mode in [0o640, 0o604, 0o660, 0o644] {
            let (_home, path) = home(TEXT, mode);
            let error = find(Some(&path), &[]).unwrap_err();
            assert!(matches!(error, CredentialsError::Mode { mode: is, .. } if is == mode), "{error}");
        }
        let padded = |len: u64| TEXT.to_owned() + &"\n".repeat(len as usize - TEXT.len());
        let (home, path) = home(&padded(CREDENTIALS_MAX), 0o600);
        assert_eq!(key_id(Some(&path), &[]), "AKIA1");
        fs::write(&path, padded(CREDENTIALS_MAX + 1)).unwrap();
        assert!(matches!(find(Some(&path), &[]), Err(CredentialsError::TooLong { .. })));
        let error = find(Some(home.path()), &[]).unwrap_err().to_string();
        assert!(error.contains("a directory"), "{error}");
    }

    #[test]
    fn invalid_line_is_named_without_its_text() {
        for (text, line) in [
            ("[default]\nsecret", 2),
            ("aws_access_key_id = secret", 1),
            ("[default]\n\n[secret", 3),
            ("[default]\n[default]\n", 2),
            ("[default]\naws_access_key_id=a\naws_access_key_id=secret", 3),
        ] {
            assert_eq!(parse(text, "default").unwrap_err().line, line, "{text}");
            let (_home, path) = home(text, 0o600);
            let error = find(Some(&path), &[]).unwrap_err().to_string();
            assert!(error.contains(&format!("line {line}")) && !error.contains("secret"), "{error}");
        }
        assert_eq!(parse("[other]\naws_access_key_id=a\naws_access_key_id=b", "default"), Ok(None));
    }

    #[test]
    fn missing_and_invalid_fields_are_rejected() {
        for (text, field) in [
            ("[default]\naws_access_key_id=a", SECRET_KEY),
            ("[default]\naws_secret_access_key=a", KEY_ID),
            ("[default]\nrole_arn=a", KEY_ID),
            ("[default]\naws_access_key_id=\naws_secret_access_key=a", "access key ID"),
            ("[default]\naws_access_key_id=a\naws_secret_access_key=a b", "secret access key"),
            ("[default]\naws_access_key_id=a\naws_secret_access_key=b\naws_session_token=\u{e9}", "session token"),
        ] {
            let (_home, path) = home(text, 0o600);
            let error = find(Some(&path), &[]).unwrap_err().to_string();
            assert!(error.contains(field), "{error}");
        }
        let with = |len| [("AWS_ACCESS_KEY_ID", "a".repeat(len)), ("AWS_SECRET_ACCESS_KEY", "b".to_owned())];
        let is_valid = |len| find(None, &with(len).each_ref().map(|(name, value)| (*name, &value[..]))).is_ok();
        assert!(is_valid(CREDENTIAL_MAX) && !is_valid(CREDENTIAL_MAX + 1));
    }

    #[test]
    fn debug_output_has_no_secrets() {
        let (_home, path) = home(TEXT, 0o600);
        let text = format!("{:?}", find(Some(&path), &[("AWS_PROFILE", "other")]).unwrap());
        assert!(text.contains("AKIA2") && !text.contains("two") && !text.contains("token=="), "{text}");
    }
}
