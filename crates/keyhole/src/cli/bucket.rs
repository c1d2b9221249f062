//! The arguments of `keyhole bucket`.

use clap::{Args, Subcommand};

use super::target::Target;
use super::values::parse_size;
use crate::control::{Allowed, Anonymous, SseC};

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
    pub(crate) target: Target,
    /// The bucket's name.
    pub(crate) bucket: String,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct SetOptions {
    #[command(flatten)]
    pub(crate) target: Target,
    /// The bucket's name.
    pub(crate) bucket: String,
    /// Limit of the objects' total bytes, such as 10GiB. Writes beyond it get 403 QuotaExceeded.
    #[arg(long, value_name = "SIZE|none", value_parser = parse_quota)]
    pub(crate) quota: Option<NumberOrNone>,
    /// Days after which an object is deleted.
    #[arg(long, value_name = "N|none", value_parser = parse_days)]
    pub(crate) expire_days: Option<NumberOrNone>,
    /// Policy on customer keys: allow them, require them, or forbid them.
    #[arg(long, value_enum)]
    pub(crate) sse_c: Option<SseC>,
    /// The ID of a customer key (`keyhole key id`) that the bucket accepts; others are refused. May
    /// be given several times.
    #[arg(long, value_name = "ID|none")]
    pub(crate) pin: Vec<String>,
    /// Whether an object may be overwritten under another customer key, or by plaintext, by
    /// everyone, or only with the old key as well.
    #[arg(long, value_enum)]
    pub(crate) rekey_by_overwrite: Option<Allowed>,
    /// Whether objects can be read without a signature. Those under customer keys still require
    /// their key.
    #[arg(long, value_enum)]
    pub(crate) anonymous_read: Option<Anonymous>,
}

/// A number, or none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct NumberOrNone(pub(crate) Option<u64>);

pub(crate) const NONE: &str = "none";

fn parse_quota(text: &str) -> Result<NumberOrNone, String> {
    if text == NONE {
        return Ok(NumberOrNone(None));
    }
    parse_size(text).map(|size| NumberOrNone(Some(size))).map_err(|why| format!("{why}, or {NONE}"))
}

fn parse_days(text: &str) -> Result<NumberOrNone, String> {
    if text == NONE {
        return Ok(NumberOrNone(None));
    }
    let days = text.parse::<u32>().ok().filter(|days| *days > 0);
    days.map(|days| NumberOrNone(Some(days.into())))
        .ok_or_else(|| format!("expected a number of days above 0, or {NONE}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quota_and_days_take_number_or_none() {
        assert_eq!(parse_quota("none"), Ok(NumberOrNone(None)));
        assert_eq!(parse_quota("10GiB"), Ok(NumberOrNone(Some(10 << 30))));
        assert_eq!(parse_quota("0"), Ok(NumberOrNone(Some(0))), "nothing may be stored");
        assert_eq!(parse_days("none"), Ok(NumberOrNone(None)));
        assert_eq!(parse_days("30"), Ok(NumberOrNone(Some(30))));
        assert!(parse_quota("much").is_err());
        for bad in ["", "0", "-1", "1.5", "soon"] {
            assert!(parse_days(bad).is_err(), "{bad}");
        }
    }
}
