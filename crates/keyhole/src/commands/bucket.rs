//! `keyhole bucket`: shows and changes quota, expiry and policy of a bucket.

use clap::{Args, Subcommand, ValueEnum};

use super::operate::{ask, print, size, unexpected};
use super::{Failure, Result};
use crate::cli::{Target, parse_size};
use crate::control::{Allowed, Anonymous, BucketChange, BucketReply, Reply, Request, SseC};

#[derive(Subcommand, Debug)]
pub(crate) enum BucketCommand {
    /// Show the settings of a bucket.
    Get(GetOptions),
    /// Change the given settings of a bucket; the others stay.
    Set(SetOptions),
}

#[derive(Args, Debug)]
pub(crate) struct GetOptions {
    #[command(flatten)]
    target: Target,
    /// The bucket's name.
    bucket: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct SetOptions {
    #[command(flatten)]
    target: Target,
    /// The bucket's name.
    bucket: String,
    /// Limit of the objects' total bytes, such as 10GiB. Writes beyond it get 403 QuotaExceeded.
    #[arg(long, value_name = "SIZE|none", value_parser = parse_quota)]
    quota: Option<Setting>,
    /// Days after which an object is deleted.
    #[arg(long, value_name = "N|none", value_parser = parse_days)]
    expire_days: Option<Setting>,
    /// Policy on customer keys: allow them, require them, or forbid them.
    #[arg(long, value_enum)]
    sse_c: Option<SseC>,
    /// The ID of a customer key (`keyhole key id`) that the bucket accepts; others are refused. May
    /// be given several times.
    #[arg(long, value_name = "ID|none")]
    pin: Vec<String>,
    /// Whether an object may be overwritten under another customer key by everyone, or only with
    /// the old key as well.
    #[arg(long, value_enum)]
    rekey_by_overwrite: Option<Allowed>,
    /// Whether objects can be read without a signature. Those under customer keys still require
    /// their key.
    #[arg(long, value_enum)]
    anonymous_read: Option<Anonymous>,
}

/// A number, or none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Setting(Option<u64>);

const NONE: &str = "none";

fn parse_quota(text: &str) -> std::result::Result<Setting, String> {
    if text == NONE {
        return Ok(Setting(None));
    }
    parse_size(text).map(|size| Setting(Some(size))).map_err(|why| format!("{why}, or {NONE}"))
}

fn parse_days(text: &str) -> std::result::Result<Setting, String> {
    if text == NONE {
        return Ok(Setting(None));
    }
    let days = text.parse::<u32>().ok().filter(|days| *days > 0);
    days.map(|days| Setting(Some(days.into()))).ok_or_else(|| format!("expected a number of days above 0, or {NONE}"))
}

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
                return Err(Failure::Usage(format!("nothing to set: expected {options}")));
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
            Err(Failure::Usage(format!("--pin {NONE} removes all pins and cannot be combined with other pins")))
        }
        ids => Ok(Some(ids.to_vec())),
    }
}

fn show(reply: Reply, json: bool) -> Result<()> {
    let Reply::Bucket(settings) = reply else { return Err(unexpected()) };
    if json {
        let text = serde_json::to_string_pretty(&settings).map_err(|error| Failure::Other(error.to_string()))?;
        print(&format!("{text}\n"));
        return Ok(());
    }
    let BucketReply { bucket, bytes, quota, expire_days, lifecycle_rules, sse_c, pin, .. } = &settings;
    let quota = quota.map_or_else(|| NONE.to_owned(), |quota| format!("{} ({quota} bytes)", size(quota)));
    let days = expire_days.map_or_else(|| NONE.to_owned(), |days| days.to_string());
    let rules = lifecycle_rules.map_or_else(|| "written by a later version".to_owned(), |rules| rules.to_string());
    let word = |value: Option<clap::builder::PossibleValue>| {
        value.map_or_else(String::new, |value| value.get_name().to_owned())
    };
    let pin = if pin.is_empty() { NONE.to_owned() } else { pin.join(", ") };
    print(&format!(
        "bucket: {bucket}\nused: {} ({bytes} bytes)\nquota: {quota}\nexpire-days: {days}\nlifecycle-rules: {rules}\nsse-c: {}\npin: {pin}\n\
         rekey-by-overwrite: {}\nanonymous-read: {}\n",
        size(*bytes),
        word(sse_c.to_possible_value()),
        word(settings.rekey_by_overwrite.to_possible_value()),
        word(settings.anonymous_read.to_possible_value()),
    ));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings() {
        assert_eq!(parse_quota("none"), Ok(Setting(None)));
        assert_eq!(parse_quota("10GiB"), Ok(Setting(Some(10 << 30))));
        assert_eq!(parse_quota("0"), Ok(Setting(Some(0))), "nothing may be stored");
        assert_eq!(parse_days("none"), Ok(Setting(None)));
        assert_eq!(parse_days("30"), Ok(Setting(Some(30))));
        assert!(parse_quota("much").is_err());
        for bad in ["", "0", "-1", "1.5", "soon"] {
            assert!(parse_days(bad).is_err(), "{bad}");
        }
    }
}
