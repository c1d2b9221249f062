//! `keyhole access`: manages access keys and their grants.

use std::io::Read;
use std::path::Path;

use comfy_table::Table;
use comfy_table::presets::NOTHING;
use jiff::Timestamp;
use keyhole_node::Grant;
use serde::Serialize;
use zeroize::Zeroizing;

use super::operate::{print, unexpected};
use super::{CommandError, Result};
use crate::access::{self, AccessFile, KeyEntry, format_grant};
use crate::cli::Target;
use crate::cli::access::{AccessCommand, AddOptions, ListOptions, RevokeOptions, RotateOptions, end_of};
use crate::control::{self, Reply, Request};
use crate::regular;
use crate::store::{StoreError, StoreLocation};

pub(crate) fn run(command: &AccessCommand) -> Result<()> {
    match command {
        AccessCommand::Add(options) => add(options),
        AccessCommand::List(options) => list(options),
        AccessCommand::Rotate(options) => rotate(options),
        AccessCommand::Revoke(options) => revoke(options),
    }
}

/// Returns the key file of a store, which must exist: a misspelt path would create keys for no
/// store.
fn file_of(target: &Target) -> Result<(StoreLocation, AccessFile)> {
    let location = StoreLocation::find(&target.data, target.state.as_deref())?;
    if !location.medium().exists() {
        return Err(StoreError::Missing(target.data.clone()).into());
    }
    let file = AccessFile::in_state(&location.state);
    Ok((location, file))
}

/// Changes the keys, and makes the node that serves the store reload them.
fn change<T>(target: &Target, change: impl FnOnce(&mut Vec<KeyEntry>) -> Result<T>) -> Result<T> {
    let (location, file) = file_of(target)?;
    let result = file.change(change)?;
    match control::ask(&location.socket(), &Request::AccessReload {}, &mut |_| {}) {
        Ok(None | Some(Reply::AccessReloaded { .. })) => Ok(result),
        Ok(Some(Reply::Failed { message })) => {
            Err(CommandError::Other(format!("the keys were changed, but the node rejected them: {message}")))
        }
        Ok(Some(_)) => Err(unexpected()),
        Err(why) => Err(CommandError::Other(format!("the keys were changed, but the node was not notified: {why}"))),
    }
}

fn add(options: &AddOptions) -> Result<()> {
    let (id, secret) = match (&options.access_key, &options.secret_file) {
        (Some(id), Some(file)) => (id.clone(), read_secret(file)?),
        _ => access::new_pair(),
    };
    access::check(&id, &secret).map_err(|error| CommandError::Usage(error.to_string()))?;
    let entry = KeyEntry {
        access_key: id,
        secret_key: secret,
        note: options.note.clone(),
        created: Some(access::now()),
        expires: options.expires,
        grants: if options.admin { vec![Grant::all()] } else { options.grants.clone() },
    };
    change(&options.target, |entries| match find(entries, &entry.access_key) {
        Ok(_) => Err(CommandError::Other(format!("access key {} already exists", entry.access_key))),
        Err(_) => {
            entries.push(entry.clone());
            Ok(())
        }
    })?;
    show_new(&entry, options.json)
}

fn read_secret(path: &Path) -> Result<Zeroizing<String>> {
    let failed = |error| CommandError::io(format_args!("cannot read {}", path.display()), error);
    let mut text = Zeroizing::new(String::new());
    let mut reader: Box<dyn Read> = if path.as_os_str() == "-" {
        Box::new(std::io::stdin().lock())
    } else {
        Box::new(regular::open(path).map_err(failed)?)
    };
    reader.by_ref().take(64 << 10).read_to_string(&mut text).map_err(failed)?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    if line.contains(char::is_control) {
        Err(CommandError::Usage(format!("{} has more than one line: a secret key is one line", path.display())))
    } else {
        Ok(line.to_owned().into())
    }
}

fn find(entries: &[KeyEntry], id: &str) -> Result<usize> {
    let at = entries.iter().position(|entry| entry.access_key == id);
    at.ok_or_else(|| CommandError::Other(format!("no access key {id}; see `keyhole access list`")))
}

/// Shows a new key. Its secret is shown only here.
fn show_new(entry: &KeyEntry, json: bool) -> Result<()> {
    let KeyEntry { access_key, secret_key, expires, .. } = entry;
    if json {
        let text = serde_json::json!({ "access_key": access_key, "secret_key": **secret_key, "expires": expires });
        print(&format!("{text}\n"));
    } else {
        print(&format!("AWS_ACCESS_KEY_ID={access_key}\nAWS_SECRET_ACCESS_KEY={}\n", **secret_key));
    }
    Ok(())
}

/// The listed properties of a key.
#[derive(Serialize)]
struct ListedKey<'e> {
    access_key: &'e str,
    note: Option<&'e str>,
    created: Option<Timestamp>,
    expires: Option<Timestamp>,
    expired: bool,
    grants: Vec<String>,
}

fn list(options: &ListOptions) -> Result<()> {
    let (_, file) = file_of(&options.target)?;
    let entries = if file.exists() { file.read()? } else { Vec::new() };
    let listed = |entry| {
        let KeyEntry { access_key, note, created, expires, grants, .. }: &KeyEntry = entry;
        ListedKey {
            access_key,
            note: note.as_deref(),
            created: *created,
            expires: *expires,
            expired: expires.is_some_and(|at| at <= Timestamp::now()),
            grants: grants.iter().map(format_grant).collect(),
        }
    };
    let all: Vec<_> = entries.iter().map(listed).collect();
    if options.json {
        let text = serde_json::to_string_pretty(&all)?;
        print(&format!("{text}\n"));
        return Ok(());
    }
    let mut table = Table::new();
    table.load_preset(NOTHING).set_header(["access key", "grants", "created", "expires", "note"]);
    let time = |at: Option<Timestamp>| at.map_or_else(|| "-".to_owned(), |at| at.to_string());
    for key in &all {
        let expires = if key.expired { format!("{} (expired)", time(key.expires)) } else { time(key.expires) };
        let note = key.note.unwrap_or("-").to_owned();
        table.add_row([key.access_key.to_owned(), key.grants.join("\n"), time(key.created), expires, note]);
    }
    print(&format!("{table}\n"));
    Ok(())
}

fn rotate(options: &RotateOptions) -> Result<()> {
    let (access_key, secret_key) = access::new_pair();
    let new = change(&options.target, |entries| {
        let at = find(entries, &options.access_key)?;
        let old = &mut entries[at];
        let new = KeyEntry { access_key, secret_key, created: Some(access::now()), ..old.clone() };
        match options.keep {
            // The old key's lifetime is never extended.
            Some(span) => {
                let until = end_of(span).map_err(|error| CommandError::Usage(format!("invalid --keep: {error}")))?;
                old.expires = Some(old.expires.map_or(until, |expires| expires.min(until)));
            }
            None => drop(entries.remove(at)),
        }
        entries.push(new.clone());
        Ok(new)
    })?;
    show_new(&new, options.json)
}

fn revoke(options: &RevokeOptions) -> Result<()> {
    change(&options.target, |entries| {
        let at = find(entries, &options.access_key)?;
        let goes = entries.remove(at);
        let is_last = goes.is_lasting_admin() && !entries.iter().any(KeyEntry::is_lasting_admin);
        if is_last && !options.force {
            return Err(CommandError::Other(format!(
                "{} is the last admin access key that does not expire; add another one first, or use --force",
                options.access_key
            )));
        }
        Ok(())
    })
}
