//! The arguments of `keyhole remote`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::target::Target;
use super::transfer::ImportManner;
use super::values::parse_rate;
use crate::remote::{self, Mode, Pattern, Plaintext, Window};

#[derive(Subcommand, Debug)]
pub(crate) enum RemoteCommand {
    /// Add a remote, after a check of the connection.
    Add(AddOptions),
    /// List the remotes.
    List(ListOptions),
    /// Stop shipping to a remote until it is resumed.
    Pause(NamedOptions),
    /// Resume shipping to a remote, with its credentials read again.
    Resume(NamedOptions),
    /// Remove a remote. The objects in it stay.
    Remove(NamedOptions),
    /// Show how far a running node has shipped.
    Status(StatusOptions),
    /// Compare a remote with the store: every name, length and description.
    #[command(after_help = "Exit codes: 0 equal; 1 failed; 2 usage error; 3 the remote differs.")]
    Verify(VerifyOptions),
    /// Copy the objects of a remote into a store, for example after the loss of a machine. Needs no key.
    ///
    /// Run the command again after an interruption: it skips what already exists.
    #[command(
        after_help = "Exit codes: 0 complete; 1 failed, or an object or bucket was refused or differs; 2 usage error; \
                            3 the remote is damaged, the rest was restored."
    )]
    Restore(RestoreOptions),
}

/// The service of a remote, and how to use it.
#[derive(Args, Debug)]
pub(crate) struct ServiceOptions {
    /// The S3 service: https and its host, or http for a service on this machine.
    #[arg(long, value_name = "https://HOST[:PORT]", value_parser = remote::parse_url)]
    pub(crate) url: String,
    /// The bucket in the service, which must exist.
    #[arg(long, value_parser = parse_bucket)]
    pub(crate) bucket: String,
    /// The prefix of all names in the bucket, followed by a /.
    #[arg(long, default_value = "", hide_default_value = true, value_parser = parse_prefix)]
    pub(crate) prefix: String,
    /// The region that requests are signed for.
    #[arg(long, default_value = "us-east-1", value_parser = parse_region)]
    pub(crate) region: String,
    /// The credentials file: as ~/.aws/credentials, and readable by the node's user only. Without
    /// it, the node uses AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY of its environment, or its
    /// user's ~/.aws/credentials.
    #[arg(long, value_name = "FILE")]
    pub(crate) credentials: Option<PathBuf>,
    /// The certificate authorities to trust, in PEM. Without it, those of the system.
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// Allow http:// to other machines: the network sees names, sizes and plaintext objects.
    #[arg(long)]
    pub(crate) insecure_http: bool,
}

#[derive(Args, Debug)]
pub(crate) struct AddOptions {
    #[command(flatten)]
    pub(crate) target: Target,
    /// The name of the remote: lower-case letters, digits and hyphens.
    #[arg(value_parser = parse_name)]
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) service: ServiceOptions,
    /// The objects to ship: BUCKET or BUCKET/PREFIX, where a * at the end matches any rest, such as
    /// photos, photos/2026/* or *. May be given several times.
    #[arg(long = "source", value_name = "PATTERN", required = true)]
    pub(crate) sources: Vec<Pattern>,
    /// The use of the remote.
    #[arg(long, value_enum)]
    pub(crate) mode: Mode,
    /// Keep objects in the remote that are deleted here.
    #[arg(long)]
    pub(crate) keep_deleted: bool,
    /// Whether to ship objects without a customer key, which the service can then read.
    #[arg(long, value_enum, default_value_t = Plaintext::Skip)]
    pub(crate) plaintext: Plaintext,
    /// Limit of the upload rate, such as 10MB/s.
    #[arg(long, value_parser = parse_rate)]
    pub(crate) rate: Option<u64>,
    /// Daily shipping hours in UTC, such as 22:00-06:00. Without it, objects are shipped at any time.
    #[arg(long, value_name = "FROM-TO")]
    pub(crate) window: Option<Window>,
    /// Replace the objects of another store under this prefix, such as one that was restored from it.
    #[arg(long)]
    pub(crate) take_over: bool,
    /// Do not check the connection.
    #[arg(long)]
    pub(crate) no_check: bool,
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
pub(crate) struct NamedOptions {
    #[command(flatten)]
    pub(crate) target: Target,
    /// The name of the remote.
    pub(crate) name: String,
}

#[derive(Args, Debug)]
pub(crate) struct StatusOptions {
    #[command(flatten)]
    pub(crate) target: Target,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct VerifyOptions {
    #[command(flatten)]
    pub(crate) target: Target,
    /// The name of the remote.
    pub(crate) name: String,
    /// Also compare the bytes of all objects.
    #[arg(long)]
    pub(crate) content: bool,
    /// Print a JSON summary at the end.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct RestoreOptions {
    #[command(flatten)]
    pub(crate) target: Target,
    #[command(flatten)]
    pub(crate) service: ServiceOptions,
    /// Only this bucket of the store.
    #[arg(long, value_name = "NAME")]
    pub(crate) only_bucket: Option<String>,
    /// Only objects whose keys have this prefix.
    #[arg(long, value_name = "PREFIX", default_value = "", hide_default_value = true)]
    pub(crate) only_prefix: String,
    /// Limit of the bytes received per second, such as 50MB/s. Default: unlimited.
    #[arg(long, value_name = "SIZE/s", value_parser = parse_rate)]
    pub(crate) rate: Option<u64>,
    #[command(flatten)]
    pub(crate) manner: ImportManner,
}

fn parse_name(text: &str) -> Result<String, impl std::error::Error + use<>> {
    remote::check_name(text).map(|()| text.to_owned())
}

fn parse_bucket(text: &str) -> Result<String, impl std::error::Error + use<>> {
    remote::check_bucket(text).map(|()| text.to_owned())
}

fn parse_prefix(text: &str) -> Result<String, impl std::error::Error + use<>> {
    let prefix = text.strip_suffix('/').unwrap_or(text);
    remote::check_prefix(prefix).map(|()| prefix.to_owned())
}

fn parse_region(text: &str) -> Result<String, impl std::error::Error + use<>> {
    remote::check_region(text).map(|()| text.to_owned())
}
