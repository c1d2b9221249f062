//! `keyhole bucket`: shows and changes quota, expiry and policy of a bucket.

use clap::ValueEnum;

use super::operate::{ask, print, size, unexpected};
use super::{CommandError, Result};
use crate::cli::bucket::{BucketCommand, NONE};
use crate::control::{BucketChange, BucketReply, CorsRuleReply, Reply, Request, TagReply};

pub(crate) fn run(command: &BucketCommand) -> Result<()> {
    match command {
        BucketCommand::Get(options) => {
            let request = Request::BucketGet { bucket: options.bucket.clone() };
            show(ask(&options.target, request, |_| {})?, options.json)
        }
        BucketCommand::Set(options) => {
            let change = BucketChange {
                bucket: options.bucket.clone(),
                quota: options.quota.map(|setting| setting.0),
                expire_days: options.expire_days.map(|setting| setting.0),
                sse_c: options.sse_c,
                pin: pins(&options.pin)?,
                rekey_by_overwrite: options.rekey_by_overwrite,
                anonymous_read: options.anonymous_read,
            };
            if change == (BucketChange { bucket: options.bucket.clone(), ..BucketChange::default() }) {
                let options = "--quota SIZE|none, --expire-days N|none, --sse-c allow|require|forbid, --pin ID|none, \
                    --rekey-by-overwrite allow|forbid, --anonymous-read allow|forbid";
                return Err(CommandError::Usage(format!("nothing to set: expected {options}")));
            }
            show(ask(&options.target, Request::BucketSet(change), |_| {})?, false)
        }
    }
}

/// Returns the keys to pin; a single `none` removes the pins.
fn pins(given: &[String]) -> Result<Option<Vec<String>>> {
    match given {
        [] => Ok(None),
        [none] if none == NONE => Ok(Some(Vec::new())),
        ids if ids.iter().any(|id| id == NONE) => {
            Err(CommandError::Usage(format!("--pin {NONE} removes all pins and cannot be combined with other pins")))
        }
        ids => Ok(Some(ids.to_vec())),
    }
}

/// Describes settings that were set through S3 and cannot be decoded.
const LATER: &str = "written by a later version";

/// Describes CORS rules: their number, and methods and origins of each.
fn describe_cors(rules: &[CorsRuleReply]) -> String {
    let each =
        rules.iter().map(|rule| format!("{} from {}", rule.methods.join(" "), printable(&rule.origins.join(" "))));
    match rules.len() {
        0 => "0".to_owned(),
        count => format!("{count} ({})", each.collect::<Vec<_>>().join("; ")),
    }
}

/// Describes the tags of a bucket.
fn describe_tags(tags: &[TagReply]) -> String {
    if tags.is_empty() {
        return NONE.to_owned();
    }
    printable(&tags.iter().map(|TagReply { key, value }| format!("{key}={value}")).collect::<Vec<_>>().join(", "))
}

/// Replaces control characters in a text of an S3 client, which a terminal would obey.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

fn show(reply: Reply, json: bool) -> Result<()> {
    let Reply::Bucket(settings) = reply else { return Err(unexpected()) };
    if json {
        let text = serde_json::to_string_pretty(&settings)?;
        print(&format!("{text}\n"));
        return Ok(());
    }
    let BucketReply { bucket, bytes, quota, expire_days, lifecycle_rules, cors, tags, sse_c, pin, .. } = &settings;
    let quota = quota.map_or_else(|| NONE.to_owned(), |quota| format!("{} ({quota} bytes)", size(quota)));
    let days = expire_days.map_or_else(|| NONE.to_owned(), |days| days.to_string());
    let rules = lifecycle_rules.map_or_else(|| LATER.to_owned(), |rules| rules.to_string());
    let cors = cors.as_deref().map_or_else(|| LATER.to_owned(), describe_cors);
    let tags = tags.as_deref().map_or_else(|| LATER.to_owned(), describe_tags);
    let word = |value: Option<clap::builder::PossibleValue>| {
        value.map_or_else(String::new, |value| value.get_name().to_owned())
    };
    let pin = if pin.is_empty() { NONE.to_owned() } else { pin.join(", ") };
    print(&format!(
        "bucket: {bucket}\nused: {} ({bytes} bytes)\nquota: {quota}\nexpire-days: {days}\nlifecycle-rules: {rules}\n\
         cors-rules: {cors}\ntags: {tags}\nsse-c: {}\npin: {pin}\nrekey-by-overwrite: {}\nanonymous-read: {}\n\
         versioning: {}\nobject-lock: {}\n",
        size(*bytes),
        word(sse_c.to_possible_value()),
        word(settings.rekey_by_overwrite.to_possible_value()),
        word(settings.anonymous_read.to_possible_value()),
        settings.versioning,
        settings.object_lock.as_deref().unwrap_or(NONE),
    ));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cors_rules_and_tags_are_described() {
        let rule = |methods: &[&str], origins: &[&str]| CorsRuleReply {
            id: String::new(),
            origins: origins.iter().map(|it| (*it).to_owned()).collect(),
            methods: methods.iter().map(|it| (*it).to_owned()).collect(),
            headers: Vec::new(),
            expose_headers: Vec::new(),
            max_age_s: None,
        };
        assert_eq!(describe_cors(&[]), "0");
        let rules = [rule(&["GET", "PUT"], &["https://a.example"]), rule(&["GET"], &["*"])];
        assert_eq!(describe_cors(&rules), "2 (GET PUT from https://a.example; GET from *)");
        let tag = |key: &str, value: &str| TagReply { key: key.to_owned(), value: value.to_owned() };
        assert_eq!(describe_tags(&[]), "none");
        assert_eq!(describe_tags(&[tag("team", "edge"), tag("b", "")]), "team=edge, b=");
        assert_eq!(describe_tags(&[tag("a", "\u{1b}[2J")]), "a=\u{fffd}[2J");
    }
}
