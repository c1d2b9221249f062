//! `keyhole access`: manages access keys and their grants.

use std::io::Read;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use comfy_table::Table;
use comfy_table::presets::NOTHING;
use jiff::civil::{Date, Time};
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};
use keyhole_node::Grant;
use serde::Serialize;
use zeroize::Zeroizing;

use super::operate::{print, unexpected};
use super::{Failure, Result};
use crate::access::{self, AccessFile, Entry, format_grant, parse_grant};
use crate::cli::Target;
use crate::control::{self, Reply, Request};
use crate::store::Place;

/// Limit of a note's length.
const NOTE_MAX: usize = 200;

#[derive(Subcommand, Debug)]
pub(crate) enum AccessCommand {
    /// Create an access key and its secret and show them. The secret is shown only once.
    Add(AddOptions),
    /// List the access keys and their grants, without secrets.
    List(ListOptions),
    /// Create a key with the same grants, and remove the old one now or later.
    Rotate(RotateOptions),
    /// Remove an access key: requests signed with it are refused from now on.
    Revoke(RevokeOptions),
}

#[derive(Args, Debug)]
pub(crate) struct AddOptions {
    #[command(flatten)]
    target: Target,
    /// A grant: BUCKET[/PREFIX]:RIGHT[,RIGHT...], such as photos/2026/:read,list. A BUCKET that
    /// ends in * matches all buckets with this prefix. Rights are read, write, list, delete,
    /// read-sealed, write-sealed and admin; admin includes all others and the bucket itself. May be
    /// given several times.
    #[arg(long = "grant", value_name = "GRANT", value_parser = parse_grant, required_unless_present = "admin")]
    grants: Vec<Grant>,
    /// Grant all rights: the same as --grant '*:admin'.
    #[arg(long, conflicts_with = "grants")]
    admin: bool,
    /// A note about the purpose of the key.
    #[arg(long, value_name = "TEXT", value_parser = parse_note)]
    note: Option<String>,
    /// Expiry: a time span, such as 12h or 30d, or a time, such as 2027-01-31 or
    /// 2027-01-31T12:00:00Z.
    #[arg(long, value_name = "WHEN", value_parser = parse_when)]
    expires: Option<Timestamp>,
    /// Use this access key instead of a generated one; requires --secret-file.
    #[arg(long, value_name = "ID", requires = "secret_file")]
    access_key: Option<String>,
    /// The file with the secret of --access-key, in one line; - is standard input.
    #[arg(long, value_name = "FILE", requires = "access_key")]
    secret_file: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct ListOptions {
    #[command(flatten)]
    target: Target,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct RotateOptions {
    #[command(flatten)]
    target: Target,
    /// The access key to replace.
    access_key: String,
    /// Time that the old key stays valid, such as 12h or 7d. Without it, the old key is removed at
    /// once.
    #[arg(long, value_name = "FOR", value_parser = parse_span)]
    keep: Option<Timestamp>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct RevokeOptions {
    #[command(flatten)]
    target: Target,
    /// The access key to remove.
    access_key: String,
    /// Remove it even if it is the last key with all rights.
    #[arg(long)]
    force: bool,
}

fn parse_note(text: &str) -> std::result::Result<String, String> {
    match text.len() <= NOTE_MAX && !text.contains(char::is_control) {
        true => Ok(text.to_owned()),
        false => Err(format!("expected one line of up to {NOTE_MAX} bytes")),
    }
}

/// Parses a time span and returns the time at its end from now.
fn parse_span(text: &str) -> std::result::Result<Timestamp, String> {
    let wrong = |_| format!("invalid time span {text:?}: expected 12h, 7d or 90d, for example");
    let span: Span = text.parse().map_err(wrong)?;
    let now = access::now();
    let then = now.to_zoned_datetime(TimeZone::UTC).checked_add(span).map_err(wrong)?.timestamp();
    if then > now { Ok(then) } else { Err(format!("time span {text:?} does not end in the future")) }
}

fn parse_when(text: &str) -> std::result::Result<Timestamp, String> {
    let at_midnight =
        |date: Date| date.to_datetime(Time::midnight()).to_zoned_datetime(TimeZone::UTC).map(|zoned| zoned.timestamp());
    let then = match (text.parse::<Timestamp>(), text.parse::<Date>().and_then(at_midnight)) {
        (Ok(then), _) | (_, Ok(then)) => then,
        _ => {
            return parse_span(text).map_err(|_| {
                format!("invalid time {text:?}: expected a future time: 30d, 12h, 2027-01-31 or 2027-01-31T12:00:00Z")
            });
        }
    };
    if then > access::now() { Ok(then) } else { Err(format!("time {text:?} is in the past")) }
}

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
fn file_of(target: &Target) -> Result<(Place, AccessFile)> {
    let place = Place::find(&target.data, target.state.as_deref())?;
    if !place.medium().exists() {
        let data = target.data.display();
        return Err(Failure::Other(format!("no store in {data}; `keyhole serve --data {data}` creates one")));
    }
    let file = AccessFile::in_state(&place.state);
    Ok((place, file))
}

/// Changes the keys, and makes the node that serves the store reload them.
fn change<T>(target: &Target, change: impl FnOnce(&mut Vec<Entry>) -> std::result::Result<T, String>) -> Result<T> {
    let (place, file) = file_of(target)?;
    let result = file.change(change)?;
    match control::ask(&place.socket(), &Request::AccessReload {}, &mut |_| {}) {
        Ok(None | Some(Reply::AccessReloaded { .. })) => Ok(result),
        Ok(Some(Reply::Failed { message })) => {
            Err(Failure::Other(format!("the keys were changed, but the node rejected them: {message}")))
        }
        Ok(Some(_)) => Err(unexpected()),
        Err(why) => Err(Failure::Other(format!("the keys were changed, but the node was not notified: {why}"))),
    }
}

fn add(options: &AddOptions) -> Result<()> {
    let (id, secret) = match (&options.access_key, &options.secret_file) {
        (Some(id), Some(file)) => (id.clone(), read_secret(file)?),
        _ => access::new_pair(),
    };
    access::check(&id, &secret).map_err(Failure::Usage)?;
    let entry = Entry {
        access_key: id,
        secret_key: secret,
        note: options.note.clone(),
        created: Some(access::now()),
        expires: options.expires,
        grants: if options.admin { vec![Grant::all()] } else { options.grants.clone() },
    };
    change(&options.target, |entries| match find(entries, &entry.access_key) {
        Ok(_) => Err(format!("access key {} already exists", entry.access_key)),
        Err(_) => {
            entries.push(entry.clone());
            Ok(())
        }
    })?;
    show_new(&entry, options.json)
}

fn read_secret(path: &PathBuf) -> Result<Zeroizing<String>> {
    let failed = |error| Failure::io(format_args!("cannot read {}", path.display()), error);
    let mut text = Zeroizing::new(String::new());
    let mut reader: Box<dyn Read> = match path.as_os_str() == "-" {
        true => Box::new(std::io::stdin().lock()),
        false => Box::new(std::fs::File::open(path).map_err(failed)?),
    };
    reader.by_ref().take(64 << 10).read_to_string(&mut text).map_err(failed)?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    match line.contains(char::is_control) {
        false => Ok(line.to_owned().into()),
        true => Err(Failure::Usage(format!("{} has more than one line: a secret key is one line", path.display()))),
    }
}

fn find(entries: &[Entry], id: &str) -> std::result::Result<usize, String> {
    let at = entries.iter().position(|entry| entry.access_key == id);
    at.ok_or_else(|| format!("no access key {id}; see `keyhole access list`"))
}

/// Shows a new key. Its secret is shown only here.
fn show_new(entry: &Entry, json: bool) -> Result<()> {
    let Entry { access_key, secret_key, expires, .. } = entry;
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
struct Told<'e> {
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
    let told = |entry| {
        let Entry { access_key, note, created, expires, grants, .. }: &Entry = entry;
        Told {
            access_key,
            note: note.as_deref(),
            created: *created,
            expires: *expires,
            expired: expires.is_some_and(|at| at <= Timestamp::now()),
            grants: grants.iter().map(format_grant).collect(),
        }
    };
    let all: Vec<_> = entries.iter().map(told).collect();
    if options.json {
        let text = serde_json::to_string_pretty(&all).map_err(|error| Failure::Other(error.to_string()))?;
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
        let new = Entry { access_key, secret_key, created: Some(access::now()), ..old.clone() };
        match options.keep {
            // The old key's lifetime is never extended.
            Some(until) => old.expires = Some(old.expires.map_or(until, |expires| expires.min(until))),
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
        let is_last = goes.is_lasting_admin() && !entries.iter().any(Entry::is_lasting_admin);
        match is_last && !options.force {
            true => Err(format!(
                "{} is the last admin access key that does not expire; add another one first, or use --force",
                options.access_key
            )),
            false => Ok(()),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_spans_dates_and_moments() {
        let day = jiff::SignedDuration::from_hours(24);
        let near = |then: Timestamp, expected: Timestamp| {
            then.duration_since(expected).abs() < jiff::SignedDuration::from_mins(1)
        };
        assert!(near(parse_when("1d").unwrap(), Timestamp::now() + day));
        assert!(near(parse_span("24h").unwrap(), Timestamp::now() + day));
        assert_eq!(parse_when("2999-01-31").unwrap(), "2999-01-31T00:00:00Z".parse().unwrap());
        assert_eq!(parse_when("2999-01-31T12:00:00Z").unwrap(), "2999-01-31T12:00:00Z".parse().unwrap());
        for bad in ["", "soon", "-1d", "0d", "2001-01-01", "2001-01-01T00:00:00Z", "10"] {
            assert!(parse_when(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn notes_have_a_longest_length() {
        assert!(parse_note(&"n".repeat(NOTE_MAX)).is_ok() && parse_note(&"n".repeat(NOTE_MAX + 1)).is_err());
        assert!(parse_note("two\nlines").is_err());
    }
}
