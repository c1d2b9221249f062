//! The options of `keyhole serve`.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, ValueEnum};
use ipnet::IpNet;
use keyhole_node::{OwnPolicy, SseC, TrustedProxies};
use keyhole_s3::ops::HostNames;

use super::values::parse_size;
use crate::access::check_bucket_pattern;

#[derive(Args, Debug)]
pub(crate) struct ServeOptions {
    /// A TOML file with options. The command line and the environment take precedence.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// The data directory, created if it is missing, or a block device.
    #[arg(long, value_name = "PATH", default_value = "./keyhole-data")]
    pub(crate) data: PathBuf,

    /// Create a new store on the device that --data names. All data on the device is lost.
    #[arg(long)]
    pub(crate) format: bool,

    /// Serve reads only: nothing is written to the store, and writes get 503 (ServiceUnavailable).
    /// This is the default for a store on a read-only medium.
    #[arg(long, value_name = "true|false", num_args = 0..=1, require_equals = true, default_missing_value = "true",
        default_value_t = false, action = ArgAction::Set)]
    pub(crate) read_only: bool,

    /// The directory of the credential and the control socket. Default: the data directory; for a
    /// device keyhole/NAME in $XDG_STATE_HOME or in /var/lib, where NAME is the device's name as
    /// given in --data.
    #[arg(long, value_name = "DIR")]
    pub(crate) state: Option<PathBuf>,

    /// The address and port to listen on.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9000")]
    pub(crate) listen: SocketAddr,

    /// The address and port to listen on for HTTPS, in addition to --listen; requires --tls-cert
    /// and --tls-key.
    #[arg(long, value_name = "ADDR", requires_all = ["tls_cert", "tls_key"])]
    pub(crate) tls_listen: Option<SocketAddr>,

    /// A certificate for HTTPS, in PEM: the node's own first, then the rest of its chain. May be
    /// given several times, each with its --tls-key in the same order. A client gets the
    /// certificate for the name that it requests, or else the first.
    #[arg(long = "tls-cert", value_name = "FILE", requires = "tls_listen")]
    pub(crate) tls_cert: Vec<PathBuf>,

    /// The private key of a certificate, in PEM, unencrypted.
    #[arg(long = "tls-key", value_name = "FILE", requires = "tls_listen")]
    pub(crate) tls_key: Vec<PathBuf>,

    /// Request client certificates signed by the authorities in this PEM file. Requests must still
    /// be signed.
    #[arg(long, value_name = "FILE", requires = "tls_listen")]
    pub(crate) tls_client_ca: Option<PathBuf>,

    /// Whether a client certificate is required. Default: require.
    #[arg(long, value_enum, requires = "tls_client_ca")]
    pub(crate) tls_client_auth: Option<ClientAuth>,

    /// Revoked client certificates: a PEM file with one revocation list of each authority.
    #[arg(long, value_name = "FILE", requires = "tls_client_ca")]
    pub(crate) tls_client_crl: Option<PathBuf>,

    /// The address or network, such as 192.0.2.0/24, of proxies whose X-Forwarded-Proto and
    /// X-Forwarded-For are trusted. Customer keys are then accepted over HTTP from a proxy that
    /// received them over HTTPS. May be given several times.
    #[arg(long = "trusted-proxy", value_name = "CIDR", value_parser = TrustedProxies::parse)]
    pub(crate) trusted_proxies: Vec<IpNet>,

    /// The address and port to listen on for metrics, health and the status page, such as
    /// 127.0.0.1:9001: read-only, over plain HTTP, without a credential. Default: none.
    #[arg(long, value_name = "ADDR")]
    pub(crate) admin_listen: Option<SocketAddr>,

    /// Limit of the store's size, such as 10GiB or 500MB. Default: 80 % of the free space when the
    /// object file is created; the whole device.
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub(crate) capacity: Option<u64>,

    /// When a write is made durable. always: before it is acknowledged; no acknowledged write is
    /// ever lost. interval:MS: every MS milliseconds; a power cut or a system crash loses the
    /// acknowledged writes of the last MS milliseconds or slightly more. never: when the system
    /// writes it back; a power cut or a system crash loses about the last half minute. If only the
    /// process ends, even by SIGKILL, nothing is lost in any mode. Every object stays whole or
    /// absent.
    #[arg(long, value_name = "always|interval:MS|never", default_value = "always", value_parser = parse_sync)]
    pub(crate) sync: SyncMode,

    /// Limit of the number of objects and of open multipart uploads. Beyond it, new ones get 507
    /// InsufficientStorage; reads, overwrites and deletions go on. Default: none but the memory for
    /// the index (--memory).
    #[arg(long, value_name = "N")]
    pub(crate) max_objects: Option<u64>,

    /// When the store is full, delete the oldest objects to make room instead of refusing new ones.
    #[arg(long, value_name = "true|false", num_args = 0..=1, require_equals = true, default_missing_value = "true",
        default_value_t = false, action = ArgAction::Set)]
    pub(crate) ring: bool,

    /// The longest leap of the wall clock, in hours, that the clock of object lock follows, also after
    /// a restart. A larger leap ends no retention until it is accepted (`keyhole clock accept`).
    #[arg(long, value_name = "HOURS", default_value = "24", value_parser = parse_leap)]
    pub(crate) lock_clock_leap: Leap,

    /// The region that requests must be signed for.
    #[arg(long, value_name = "NAME", default_value = "us-east-1", value_parser = parse_region)]
    pub(crate) region: String,

    /// A host name of the node, such as s3.example.com: bucket.NAME then addresses a bucket, in
    /// addition to NAME/bucket. May be given several times.
    #[arg(long = "host-name", value_name = "NAME", value_parser = parse_host_name)]
    pub(crate) host_names: Vec<String>,

    /// The default policy of buckets without their own (`keyhole bucket set`):
    /// BUCKET:NAME=VALUE[,NAME=VALUE...], such as *:sse-c=require. A BUCKET that ends in * matches
    /// all buckets with this prefix; the most specific policy takes precedence. Names: sse-c
    /// (allow, require, forbid), rekey-by-overwrite (allow, forbid), anonymous-read (allow,
    /// forbid). May be given several times.
    #[arg(long = "policy", value_name = "POLICY", value_parser = parse_policy)]
    pub(crate) policies: Vec<(String, OwnPolicy)>,

    /// The I/O interface: auto is uring, or epoll if the system refuses io_uring.
    #[arg(long, value_enum, default_value_t = IoMode::Auto)]
    pub(crate) io: IoMode,

    /// The AES-256-GCM engine: auto is accelerated, unless its self-test fails on this machine.
    #[arg(long, value_enum, default_value_t = EngineChoice::Auto)]
    pub(crate) engine: EngineChoice,

    /// Number of worker threads. Default: one for each core.
    #[arg(long, value_name = "N", value_parser = parse_threads)]
    pub(crate) threads: Option<usize>,

    /// Memory budget, such as 64MiB, which determines buffers, threads and connections. The index
    /// takes about 140 bytes per object; when it has used up its part, about a quarter of a small
    /// budget, new objects get 507 InsufficientStorage. Default:
    /// the memory of the machine or the limit of the control group.
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub(crate) memory: Option<u64>,

    /// Grace period in seconds for requests in flight when the node shuts down (SIGTERM). No
    /// further requests are accepted meanwhile.
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = parse_grace)]
    pub(crate) grace: Duration,

    /// Log level of standard error: error, warn, info, debug or trace.
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub(crate) log: tracing::level_filters::LevelFilter,

    /// Log format: text, or one JSON object per line.
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub(crate) log_format: LogFormat,

    /// Audit log: a file that gets one JSON line for each request about an SSE-C object, with time,
    /// client, operation, object, key ID (never the key or its MD5) and result. Reopened on SIGHUP.
    #[arg(long, value_name = "FILE")]
    pub(crate) audit_log: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

/// Maximum of `--lock-clock-leap`, in hours: a year.
const LEAP_MAX_H: u64 = 366 * 24;

/// Limit of the grace period in seconds: an hour.
const GRACE_MAX_S: u64 = 3600;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SyncMode {
    Always,
    Interval(Duration),
    Never,
}

impl fmt::Display for SyncMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SyncMode::Always => f.write_str("always"),
            SyncMode::Interval(period) => write!(f, "interval:{}", period.as_millis()),
            SyncMode::Never => f.write_str("never"),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum IoMode {
    Auto,
    Uring,
    Epoll,
}

/// Whether client certificates are required when they are requested.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum ClientAuth {
    Optional,
    Require,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum EngineChoice {
    Auto,
    Accelerated,
    Portable,
}

fn parse_sync(text: &str) -> Result<SyncMode, String> {
    let interval = || {
        let ms = text.strip_prefix("interval:")?.parse().ok().filter(|ms| *ms > 0)?;
        Some(SyncMode::Interval(Duration::from_millis(ms)))
    };
    match text {
        "always" => Ok(SyncMode::Always),
        "never" => Ok(SyncMode::Never),
        _ => interval().ok_or_else(|| "expected always, never, or interval:MS with milliseconds above 0".to_owned()),
    }
}

fn parse_region(text: &str) -> Result<String, String> {
    let valid = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if valid { Ok(text.to_owned()) } else { Err("expected letters, digits and hyphens".to_owned()) }
}

fn parse_host_name(text: &str) -> Result<String, String> {
    HostNames::check(text).map_err(|error| error.to_string())?;
    Ok(text.to_owned())
}

/// Parses `BUCKET:NAME=VALUE[,NAME=VALUE...]`.
fn parse_policy(text: &str) -> Result<(String, OwnPolicy), String> {
    let form = "expected BUCKET:NAME=VALUE[,NAME=VALUE...], such as *:sse-c=require";
    let (bucket, settings) = text.split_once(':').ok_or_else(|| form.to_owned())?;
    check_bucket_pattern(bucket).map_err(|error| error.to_string())?;
    let mut own = OwnPolicy::default();
    for setting in settings.split(',') {
        match setting.split_once('=').ok_or_else(|| form.to_owned())? {
            ("sse-c", "allow") => own.sse_c = Some(SseC::Allow),
            ("sse-c", "require") => own.sse_c = Some(SseC::Require),
            ("sse-c", "forbid") => own.sse_c = Some(SseC::Forbid),
            ("rekey-by-overwrite", "allow") => own.forbids_rekeying = Some(false),
            ("rekey-by-overwrite", "forbid") => own.forbids_rekeying = Some(true),
            ("anonymous-read", "allow") => own.anonymous_read = Some(true),
            ("anonymous-read", "forbid") => own.anonymous_read = Some(false),
            ("sse-c", _) => return Err("invalid sse-c: expected allow, require or forbid".to_owned()),
            (name @ ("rekey-by-overwrite" | "anonymous-read"), _) => {
                return Err(format!("invalid {name}: expected allow or forbid"));
            }
            (name, _) => return Err(format!("unknown policy setting {name:?}: {form}")),
        }
    }
    Ok((bucket.to_owned(), own))
}

fn parse_threads(text: &str) -> Result<usize, String> {
    let max = keyhole_log::limits::WORKERS_MAX;
    let threads = text.parse().ok().filter(|threads| (1..=max).contains(threads));
    threads.ok_or_else(|| format!("expected a number from 1 to {max}"))
}

/// A leap of the wall clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Leap(pub(crate) Duration);

fn parse_leap(text: &str) -> Result<Leap, String> {
    let hours = text.parse().ok().filter(|hours| *hours <= LEAP_MAX_H);
    let leap = hours.map(|hours: u64| Leap(Duration::from_secs(hours * 60 * 60)));
    leap.ok_or_else(|| format!("expected hours from 0 to {LEAP_MAX_H}"))
}

fn parse_grace(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|seconds| (1..=GRACE_MAX_S).contains(seconds));
    seconds.map(Duration::from_secs).ok_or_else(|| format!("expected seconds from 1 to {GRACE_MAX_S}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leap_is_limited() {
        let hours = |hours: u64| Ok(Leap(Duration::from_secs(hours * 3600)));
        assert_eq!((parse_leap("0"), parse_leap("24")), (hours(0), hours(24)));
        assert_eq!(hours(24), Ok(Leap(Duration::from_millis(keyhole_node::limits::LOCK_CLOCK_LEAP_MS))));
        assert_eq!(parse_leap(&LEAP_MAX_H.to_string()), hours(LEAP_MAX_H));
        for bad in ["", "-1", "24h", "1.5", &(LEAP_MAX_H + 1).to_string()] {
            assert!(parse_leap(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sync_mode_round_trips() {
        assert_eq!(parse_sync("always"), Ok(SyncMode::Always));
        assert_eq!(parse_sync("interval:250"), Ok(SyncMode::Interval(Duration::from_millis(250))));
        assert_eq!(parse_sync("interval:250").unwrap().to_string(), "interval:250");
        for bad in ["", "interval", "interval:", "interval:0", "interval:-1", "sometimes"] {
            assert!(parse_sync(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn policy_is_parsed() {
        let (bucket, own) = parse_policy("cam-*:sse-c=require,rekey-by-overwrite=forbid").unwrap();
        let expected = OwnPolicy { sse_c: Some(SseC::Require), forbids_rekeying: Some(true), ..OwnPolicy::default() };
        assert_eq!((&bucket[..], own), ("cam-*", expected));
        for bad in
            ["", "b", "b:", ":sse-c=allow", "b:sse-c", "b:sse-c=maybe", "b:quota=1", "B:sse-c=allow", "b:sse-c=allow,"]
        {
            assert!(parse_policy(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn grace_period_is_bounded() {
        assert_eq!(parse_grace("1"), Ok(Duration::from_secs(1)));
        assert_eq!(parse_grace("3600"), Ok(Duration::from_secs(3600)));
        for bad in ["0", "3601", "-1", "10s", ""] {
            assert!(parse_grace(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn threads_are_bounded() {
        assert_eq!(parse_threads("1"), Ok(1));
        assert_eq!(parse_threads("256"), Ok(256));
        assert!(parse_threads("0").is_err() && parse_threads("257").is_err());
    }
}
