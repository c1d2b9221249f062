//! `keyhole bucket`: how much a bucket may hold, and how long.

use clap::{Args, Subcommand};

use super::operate::{ask, print, size, unexpected};
use super::{Failure, Result};
use crate::cli::{Target, parse_size};
use crate::control::{BucketReply, Reply, Request};

#[derive(Subcommand, Debug)]
pub(crate) enum BucketCommand {
    /// Show the settings of a bucket.
    Get(GetOptions),
    /// Change settings of a bucket; those that are not named stay.
    Set(SetOptions),
}

#[derive(Args, Debug)]
pub(crate) struct GetOptions {
    #[command(flatten)]
    target: Target,
    /// The bucket's name.
    bucket: String,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct SetOptions {
    #[command(flatten)]
    target: Target,
    /// The bucket's name.
    bucket: String,
    /// Bytes that its objects may have together, as in 10GiB. What would be more is refused with 403 QuotaExceeded.
    #[arg(long, value_name = "SIZE|none", value_parser = parse_quota)]
    quota: Option<Setting>,
    /// Days after which an object is deleted.
    #[arg(long, value_name = "N|none", value_parser = parse_days)]
    expire_days: Option<Setting>,
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
    days.map(|days| Setting(Some(days.into()))).ok_or_else(|| format!("give a number of days above 0, or {NONE}"))
}

pub(crate) fn run(command: &BucketCommand) -> Result<()> {
    match command {
        BucketCommand::Get(options) => {
            let request = Request::BucketGet { bucket: options.bucket.clone() };
            show(ask(&options.target, request, |_| {})?, options.json)
        }
        BucketCommand::Set(options) => {
            if options.quota.is_none() && options.expire_days.is_none() {
                return Err(Failure::Usage("say what to set: --quota SIZE|none, --expire-days N|none".to_owned()));
            }
            let request = Request::BucketSet {
                bucket: options.bucket.clone(),
                quota: options.quota.map(|setting| setting.0),
                expire_days: options.expire_days.map(|setting| setting.0),
            };
            show(ask(&options.target, request, |_| {})?, false)
        }
    }
}

fn show(reply: Reply, json: bool) -> Result<()> {
    let Reply::Bucket(settings) = reply else { return Err(unexpected()) };
    if json {
        let text = serde_json::to_string_pretty(&settings).map_err(|error| Failure::Other(error.to_string()))?;
        print(&format!("{text}\n"));
        return Ok(());
    }
    let BucketReply { bucket, bytes, quota, expire_days } = settings;
    let quota = quota.map_or_else(|| NONE.to_owned(), |quota| format!("{} ({quota} bytes)", size(quota)));
    let days = expire_days.map_or_else(|| NONE.to_owned(), |days| days.to_string());
    print(&format!("bucket: {bucket}\nused: {} ({bytes} bytes)\nquota: {quota}\nexpire-days: {days}\n", size(bytes)));
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
