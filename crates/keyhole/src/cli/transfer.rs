//! The arguments of `keyhole export`, `import` and `verify`.

use std::path::PathBuf;

use clap::Args;

use super::target::Target;
use super::values::parse_rate;
use crate::control::Scope;
use crate::transfer::protocol::Existing;
use crate::transfer::settings::SettingsChoice;

/// The selection of objects, and the rate limit.
#[derive(Args, Debug)]
pub(crate) struct Bounds {
    /// Only this bucket.
    #[arg(long, value_name = "NAME")]
    pub(crate) bucket: Option<String>,
    /// Only objects whose keys have this prefix.
    #[arg(long, value_name = "PREFIX", default_value = "", hide_default_value = true)]
    pub(crate) prefix: String,
    /// Limit of the bytes moved per second, such as 50MB/s. Default: unlimited.
    #[arg(long, value_name = "SIZE/s", value_parser = parse_rate)]
    pub(crate) rate: Option<u64>,
}

impl Bounds {
    pub(crate) fn scope(&self) -> Scope {
        Scope { bucket: self.bucket.clone(), prefix: self.prefix.clone() }
    }
}

#[derive(Args, Debug)]
pub(crate) struct ExportOptions {
    #[command(flatten)]
    pub(crate) target: Target,
    /// The directory to export to, created if it is missing; `-` writes a tar stream to standard
    /// output.
    #[arg(value_name = "DIR|-")]
    pub(crate) to: PathBuf,
    #[command(flatten)]
    pub(crate) bounds: Bounds,
    /// Print a JSON summary at the end; on standard error if the export goes to standard output.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct ImportOptions {
    #[command(flatten)]
    pub(crate) target: Target,
    /// The directory of the export; `-` reads a tar stream from standard input.
    #[arg(value_name = "DIR|-")]
    pub(crate) from: PathBuf,
    #[command(flatten)]
    pub(crate) bounds: Bounds,
    #[command(flatten)]
    pub(crate) manner: ImportManner,
}

/// How objects and buckets are imported.
#[derive(Args, Debug)]
pub(crate) struct ImportManner {
    /// Action if a different object of the same name, or a bucket with other settings, exists.
    /// fail: keep and report it, and end with exit code 1. skip: keep it. replace: replace it.
    #[arg(long, value_enum, default_value_t = Existing::Fail)]
    pub(crate) existing: Existing,
    /// Settings of buckets to apply. safe: those that narrow what clients may do. all: also anonymous
    /// reads, expiry, lifecycle rules, quotas, and policies that allow more. Default: safe, and exit
    /// code 1 if there are others.
    #[arg(long, value_enum, value_name = "WHICH")]
    pub(crate) settings: Option<SettingsChoice>,
    /// Print a JSON summary at the end.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct VerifyOptions {
    /// The directory of the export; `-` reads a tar stream from standard input.
    #[arg(value_name = "DIR|-")]
    pub(crate) from: PathBuf,
    /// Limit of the bytes read per second, such as 50MB/s. Default: unlimited.
    #[arg(long, value_name = "SIZE/s", value_parser = parse_rate)]
    pub(crate) rate: Option<u64>,
    /// Print a JSON summary at the end.
    #[arg(long)]
    pub(crate) json: bool,
}
