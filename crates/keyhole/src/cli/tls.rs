//! The arguments of `keyhole tls`.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use rustls_pki_types::DnsName;

/// Limit of validity in days: ten years.
const DAYS_MAX: u32 = 3650;

#[derive(Subcommand, Debug)]
pub(crate) enum TlsCommand {
    /// Create a self-signed certificate and its key: cert.pem and key.pem.
    SelfSigned(SelfSignedOptions),
    /// Show the content of certificates: names, validity, issuer, fingerprint.
    ///
    /// Warns of certificates that have expired or expire within 14 days. Does not check whether
    /// they are trusted.
    Show {
        /// A PEM file.
        file: PathBuf,
    },
}

#[derive(Args, Debug)]
pub(crate) struct SelfSignedOptions {
    /// Names and addresses that clients use for the node; one host name may begin with *.
    #[arg(long = "host", value_name = "NAME", required = true, num_args = 1.., value_parser = parse_host)]
    pub(crate) hosts: Vec<String>,

    /// Validity in days.
    #[arg(long, value_name = "N", default_value_t = 365,
        value_parser = clap::value_parser!(u32).range(1..=i64::from(DAYS_MAX)))]
    pub(crate) days: u32,

    /// The directory for both files, created if it is missing.
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub(crate) out: PathBuf,

    /// Replace existing files. A node that uses them reloads them by itself.
    #[arg(long)]
    pub(crate) force: bool,
}

fn parse_host(text: &str) -> Result<String, String> {
    let bare = text.strip_prefix("*.").unwrap_or(text);
    // A wildcard name needs two more labels: clients reject one for a whole top-level domain.
    let is_name = DnsName::try_from(bare).is_ok() && (bare.len() == text.len() || bare.contains('.'));
    if is_name || text.parse::<IpAddr>().is_ok() {
        Ok(text.to_ascii_lowercase())
    } else {
        Err("expected a host name such as node.example or *.s3.example, or an address".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_takes_name_wildcard_or_address() {
        for (text, expected) in [
            ("localhost", "localhost"),
            ("Node.Example", "node.example"),
            ("*.s3.example", "*.s3.example"),
            ("192.0.2.7", "192.0.2.7"),
            ("2001:db8::7", "2001:db8::7"),
        ] {
            assert_eq!(parse_host(text).unwrap(), expected);
        }
        for bad in
            ["", "*", "*.", "*.example", "a.*.example", "a b", "http://a", "[::1]", "a:9443", "-a", "\u{e4}.example"]
        {
            assert!(parse_host(bad).is_err(), "{bad}");
        }
    }
}
