//! The arguments of `keyhole access`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use jiff::civil::{Date, Time};
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};
use keyhole_node::Grant;

use super::target::Target;
use crate::access::{self, parse_grant};

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
    pub(crate) target: Target,
    /// A grant: BUCKET[/PREFIX]:RIGHT[,RIGHT...], such as photos/2026/:read,list. A BUCKET that
    /// ends in * matches all buckets with this prefix. Rights are read, write, list, delete,
    /// delete-version, lock, bypass-governance, read-sealed, write-sealed and admin; admin includes all
    /// others and the bucket itself. May be given several times.
    #[arg(long = "grant", value_name = "GRANT", value_parser = parse_grant, required_unless_present = "admin")]
    pub(crate) grants: Vec<Grant>,
    /// Grant all rights: the same as --grant '*:admin'.
    #[arg(long, conflicts_with = "grants")]
    pub(crate) admin: bool,
    /// A note about the purpose of the key.
    #[arg(long, value_name = "TEXT", value_parser = parse_note)]
    pub(crate) note: Option<String>,
    /// Expiry: a time span, such as 12h or 30d, or a time, such as 2027-01-31 or
    /// 2027-01-31T12:00:00Z.
    #[arg(long, value_name = "WHEN", value_parser = parse_when)]
    pub(crate) expires: Option<Timestamp>,
    /// Use this access key instead of a generated one; requires --secret-file.
    #[arg(long, value_name = "ID", requires = "secret_file")]
    pub(crate) access_key: Option<String>,
    /// The file with the secret of --access-key, in one line; - is standard input.
    #[arg(long, value_name = "FILE", requires = "access_key")]
    pub(crate) secret_file: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct ListOptions {
    #[command(flatten)]
    pub(crate) target: Target,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct RotateOptions {
    #[command(flatten)]
    pub(crate) target: Target,
    /// The access key to replace.
    pub(crate) access_key: String,
    /// Time that the old key stays valid, such as 12h or 7d. Without it, the old key is removed at
    /// once.
    #[arg(long, value_name = "FOR", value_parser = parse_keep)]
    pub(crate) keep: Option<Span>,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct RevokeOptions {
    #[command(flatten)]
    pub(crate) target: Target,
    /// The access key to remove.
    pub(crate) access_key: String,
    /// Remove it even if it is the last key with all rights.
    #[arg(long)]
    pub(crate) force: bool,
}

fn parse_note(text: &str) -> Result<String, String> {
    if text.len() <= NOTE_MAX && !text.contains(char::is_control) {
        Ok(text.to_owned())
    } else {
        Err(format!("expected one line of up to {NOTE_MAX} bytes"))
    }
}

/// Returns the end of a time span that begins now, rounded up to whole seconds.
///
/// # Errors
/// The end is beyond all dates.
pub(crate) fn end_of(span: Span) -> Result<Timestamp, jiff::Error> {
    let end = Timestamp::now().to_zoned_datetime(TimeZone::UTC).checked_add(span)?.timestamp();
    Ok(access::rounded_end(end))
}

/// Parses a time span that ends in the future.
fn parse_keep(text: &str) -> Result<Span, String> {
    let wrong = |_| format!("invalid time span {text:?}: expected 12h, 7d or 90d, for example");
    let span: Span = text.parse().map_err(wrong)?;
    let now = Timestamp::now().to_zoned_datetime(TimeZone::UTC);
    let then = now.checked_add(span).map_err(wrong)?;
    if then > now { Ok(span) } else { Err(format!("time span {text:?} does not end in the future")) }
}

/// Parses a time span and returns the time at its end from now.
fn parse_span(text: &str) -> Result<Timestamp, String> {
    end_of(parse_keep(text)?).map_err(|error| format!("invalid time span {text:?}: {error}"))
}

fn parse_when(text: &str) -> Result<Timestamp, String> {
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
    if then > Timestamp::now() { Ok(access::rounded_end(then)) } else { Err(format!("time {text:?} is in the past")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expiry_takes_span_date_or_time() {
        let day = jiff::SignedDuration::from_hours(24);
        let near = |then: Timestamp, expected: Timestamp| {
            then.duration_since(expected).abs() < jiff::SignedDuration::from_mins(1)
        };
        assert!(near(parse_when("1d").unwrap(), Timestamp::now() + day));
        assert!(near(parse_span("24h").unwrap(), Timestamp::now() + day));
        assert_eq!(parse_when("2999-01-31").unwrap(), "2999-01-31T00:00:00Z".parse().unwrap());
        assert_eq!(parse_when("2999-01-31T12:00:00Z").unwrap(), "2999-01-31T12:00:00Z".parse().unwrap());
        for span in ["1s", "1500ms"] {
            let begun = Timestamp::now();
            let least = begun + jiff::SignedDuration::from_secs(1);
            assert!(parse_span(span).unwrap() >= least && parse_when(span).unwrap() >= least, "{span}");
        }
        for bad in ["", "soon", "-1d", "0d", "2001-01-01", "2001-01-01T00:00:00Z", "10"] {
            assert!(parse_when(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn note_length_is_bounded() {
        assert!(parse_note(&"n".repeat(NOTE_MAX)).is_ok() && parse_note(&"n".repeat(NOTE_MAX + 1)).is_err());
        assert!(parse_note("two\nlines").is_err());
    }
}
