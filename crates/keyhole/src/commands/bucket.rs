//! `keyhole bucket`: shows and changes quota, expiry and policy of a bucket.

use clap::ValueEnum;

use super::operate::{ask, print, size, unexpected};
use super::{CommandError, Result};
use crate::cli::bucket::{BucketCommand, NONE};
use crate::control::{BucketChange, BucketReply, Reply, Request};

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

fn show(reply: Reply, json: bool) -> Result<()> {
    let Reply::Bucket(settings) = reply else { return Err(unexpected()) };
    if json {
        let text = serde_json::to_string_pretty(&settings)?;
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
        "bucket: {bucket}\nused: {} ({bytes} bytes)\nquota: {quota}\nexpire-days: {days}\nlifecycle-rules: {rules}\n\
         sse-c: {}\npin: {pin}\nrekey-by-overwrite: {}\nanonymous-read: {}\n",
        size(*bytes),
        word(sse_c.to_possible_value()),
        word(settings.rekey_by_overwrite.to_possible_value()),
        word(settings.anonymous_read.to_possible_value()),
    ));
    Ok(())
}
