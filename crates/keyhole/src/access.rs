//! The access keys of the node, from its file and from the environment.

mod error;
mod file;
mod grant;
mod limits;
mod pair;

use std::path::{Path, PathBuf};

use keyhole_node::{AccessKey, AccessTable, Config};
use keyhole_s3::auth::SecretKey;

use zeroize::Zeroizing;

pub(crate) use error::AccessError;
pub(crate) use file::{AccessFile, KeyEntry, now, rounded_end};
pub(crate) use grant::{check_bucket_pattern, format_grant, parse_grant};
pub(crate) use pair::{check, new_pair};

const ACCESS_KEY_VARIABLE: &str = "KEYHOLE_ACCESS_KEY";
const SECRET_KEY_VARIABLE: &str = "KEYHOLE_SECRET_KEY";

/// The sources of access keys, which can be reloaded.
pub(crate) struct Access {
    file: AccessFile,
    /// The key of the environment, which has all rights.
    of_environment: Option<(String, Zeroizing<String>)>,
}

/// The origin of the keys at the start.
#[derive(Debug)]
pub(crate) enum KeyOrigin {
    Environment,
    File(PathBuf),
    /// No key existed: one with all rights was created.
    Made(PathBuf, AccessKey),
}

/// The access keys at the start.
pub(crate) struct LoadedAccess {
    pub(crate) access: Access,
    pub(crate) table: AccessTable,
    pub(crate) origin: KeyOrigin,
}

impl Access {
    /// Loads the keys of the environment and of the file in the state directory. Creates one if
    /// there is none and `may_make`.
    pub(crate) fn load(state: &Path, may_make: bool) -> Result<LoadedAccess, AccessError> {
        let of_environment = of_environment()?;
        let file = AccessFile::in_state(state);
        let origin = match &of_environment {
            Some(_) => KeyOrigin::Environment,
            None if file.exists() => KeyOrigin::File(file.path().to_owned()),
            None if !may_make => return Err(AccessError::NoKeys(state.to_owned())),
            None => KeyOrigin::Made(file.path().to_owned(), file.make_first()?),
        };
        let access = Access { file, of_environment };
        let table = access.table()?;
        Ok(LoadedAccess { access, table, origin })
    }

    /// Reloads the file and returns the count of keys. On an error the previous keys stay valid.
    pub(crate) fn reload(&self, config: &Config) -> Result<usize, AccessError> {
        let table = self.table()?;
        let count = table.len();
        config.access.store(table.into());
        Ok(count)
    }

    fn table(&self) -> Result<AccessTable, AccessError> {
        let entries = if self.file.exists() { self.file.read()? } else { Vec::new() };
        let of_environment = self.of_environment.iter();
        let of_environment =
            of_environment.map(|(id, secret)| AccessKey::admin(id.clone(), SecretKey::new(secret.to_string())));
        Ok(entries.into_iter().map(KeyEntry::into_key).chain(of_environment).collect())
    }
}

/// Validates and describes the keys that a node with this state directory would have, without
/// secrets. Creates none.
pub(crate) fn describe(state: &Path) -> Result<String, AccessError> {
    let file = AccessFile::in_state(state);
    let of_file =
        if file.exists() { Some(format!("{} in {}", file.read()?.len(), file.path().display())) } else { None };
    let of_environment =
        of_environment()?.map(|(id, _)| format!("{id} from {ACCESS_KEY_VARIABLE}, its secret redacted"));
    let all: Vec<_> = of_environment.into_iter().chain(of_file).collect();
    Ok(if all.is_empty() { "one is created at the first start".to_owned() } else { all.join("; ") })
}

/// Returns the key of the environment, if there is one.
fn of_environment() -> Result<Option<(String, Zeroizing<String>)>, AccessError> {
    let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    match (variable(ACCESS_KEY_VARIABLE), variable(SECRET_KEY_VARIABLE)) {
        (Some(id), Some(secret)) => {
            check(&id, &secret).map_err(AccessError::InvalidEnvironment)?;
            Ok(Some((id, secret.into())))
        }
        (None, None) => Ok(None),
        _ => Err(AccessError::PartialEnvironment),
    }
}
