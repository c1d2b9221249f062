//! `keyhole tls`: self-signed certificates, and inspection of certificates.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use keyhole_node::Services;
use keyhole_s3::time::iso8601;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, SanType, date_time_ymd,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tempfile::NamedTempFile;
use zeroize::Zeroizing;

use super::{CommandError, Result};
use crate::cli::tls::{SelfSignedOptions, TlsCommand};
use crate::env::System;
use crate::net::tls::certificate::CertificateFacts;
use crate::regular;

/// Limit of the length of a file of certificates in bytes, as for those of a node.
const CERTIFICATES_MAX: u64 = 16 << 20;

/// Limit of names in a self-signed certificate.
const HOSTS_MAX: usize = 64;

/// Limit of a common name (RFC 5280, ub-common-name).
const COMMON_NAME_MAX: usize = 64;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Tolerance for clients with slow clocks.
const BEFORE: Duration = DAY;

const CERTIFICATE: &str = "cert.pem";
const KEY: &str = "key.pem";

pub(crate) fn run(command: &TlsCommand) -> Result<()> {
    match command {
        TlsCommand::SelfSigned(options) => self_signed(options),
        TlsCommand::Show { file } => show(file),
    }
}

fn self_signed(options: &SelfSignedOptions) -> Result<()> {
    if options.hosts.len() > HOSTS_MAX {
        return Err(CommandError::Usage(format!("too many names ({}): the limit is {HOSTS_MAX}", options.hosts.len())));
    }
    let paths = [CERTIFICATE, KEY].map(|name| options.out.join(name));
    if let Some(path) = paths.iter().find(|path| !options.force && path.symlink_metadata().is_ok()) {
        return Err(exists(path));
    }
    let (certificate, der, key) =
        make(options).map_err(|error| CommandError::Other(format!("cannot create a certificate: {error}")))?;
    fs::create_dir_all(&options.out)
        .map_err(|error| CommandError::io(format_args!("cannot create {}", options.out.display()), error))?;
    let [certificate_path, key_path] = &paths;
    // The key first: a node that uses both reloads once the certificate is there.
    write(key_path, key.as_bytes(), 0o600, options.force)?;
    write(certificate_path, certificate.as_bytes(), 0o644, options.force)?;
    let facts = CertificateFacts::read(&der)?;
    let certificate = quoted(certificate_path);
    let key = quoted(key_path);
    println!("{certificate} and {key} were written.\n");
    print_facts(&facts);
    println!("\nTo use them:\n");
    println!("  keyhole serve --tls-listen 0.0.0.0:9443 --tls-cert {certificate} --tls-key {key}");
    println!("  aws --endpoint-url https://{}:9443 --ca-bundle {certificate} s3 ls", in_url(&options.hosts[0]));
    println!("\nClients need {CERTIFICATE} only, and trust it directly: have them compare its SHA-256.");
    Ok(())
}

/// Returns a certificate in PEM and in DER, and its key in PEM.
fn make(options: &SelfSignedOptions) -> std::result::Result<(String, Vec<u8>, Zeroizing<String>), rcgen::Error> {
    let now = date_time_ymd(1970, 1, 1) + Duration::from_millis(System.now_ms());
    let mut params = CertificateParams::default();
    for host in &options.hosts {
        params.subject_alt_names.push(match host.parse() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName(host.as_str().try_into()?),
        });
    }
    params.not_before = now - BEFORE;
    params.not_after = now + DAY * options.days;
    // It has no effect, but many tools display it.
    let first = &options.hosts[0];
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, if first.len() > COMMON_NAME_MAX { "keyhole" } else { first });
    // Not an authority: a stolen key cannot sign certificates for other names.
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = Zeroizing::new(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?);
    let certificate = params.self_signed(&*key)?;
    Ok((certificate.pem(), certificate.der().to_vec(), Zeroizing::new(key.serialize_pem())))
}

/// Writes a file atomically: a crash leaves it unchanged, absent or complete.
fn write(path: &Path, contents: &[u8], mode: u32, force: bool) -> Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let write = || -> io::Result<bool> {
        // Private to the owner until its mode is set.
        let mut file = NamedTempFile::new_in(directory)?;
        file.write_all(contents)?;
        file.as_file().set_permissions(Permissions::from_mode(mode))?;
        file.as_file().sync_all()?;
        let kept = if force { file.persist(path) } else { file.persist_noclobber(path) };
        match kept {
            Ok(_) => {}
            Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
            Err(error) => return Err(error.error),
        }
        File::open(directory)?.sync_all()?;
        Ok(true)
    };
    match write() {
        Ok(true) => Ok(()),
        Ok(false) => Err(exists(path)),
        Err(error) => Err(CommandError::io(format_args!("cannot write {}", path.display()), error)),
    }
}

fn exists(path: &Path) -> CommandError {
    CommandError::Other(format!("{} exists; give another --out, or --force to replace it", path.display()))
}

fn show(path: &Path) -> Result<()> {
    let failed = |error| CommandError::io(format_args!("cannot read {}", path.display()), error);
    let pem = regular::read(path, CERTIFICATES_MAX).map_err(failed)?;
    let malformed = |what: &dyn std::fmt::Display| CommandError::Malformed(format!("{}: {what}", path.display()));
    let certificates: std::result::Result<Vec<CertificateDer<'_>>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let certificates = certificates.map_err(|error| malformed(&format_args!("invalid PEM file: {error}")))?;
    if certificates.is_empty() {
        return Err(malformed(&"no certificate in it"));
    }
    let facts: std::result::Result<Vec<CertificateFacts>, _> =
        certificates.iter().map(|certificate| CertificateFacts::read(certificate)).collect();
    for (i, facts) in facts.map_err(|error| malformed(&error))?.iter().enumerate() {
        if i > 0 {
            println!();
        }
        print_facts(facts);
        if let Some(warning) = facts.warning(System.now_ms()) {
            eprintln!("keyhole: WARNING: the certificate of {} {warning}", facts.subject);
        }
    }
    Ok(())
}

fn print_facts(facts: &CertificateFacts) {
    let line = |name: &str, value: &str| println!("{name:<11} {value}");
    line("names", &facts.all_names());
    line("subject", &facts.subject);
    let is_own = if facts.subject == facts.issuer { " (itself)" } else { "" };
    line("issuer", &format!("{}{is_own}", facts.issuer));
    if facts.is_authority {
        line("authority", "yes, may sign certificates");
    }
    line("valid from", &iso8601(facts.not_before_ms));
    line("until", &iso8601(facts.not_after_ms));
    line("key", &facts.key);
    line("serial", &facts.serial);
    line("SHA-256", &facts.fingerprint());
}

/// Quotes a path for a shell.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@".contains(c);
    if text.chars().all(is_plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

/// Formats a host for a URL.
fn in_url(host: &str) -> String {
    match host.parse() {
        Ok(IpAddr::V6(address)) => format!("[{address}]"),
        _ => host.replacen('*', "bucket", 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_quoted_for_a_shell() {
        for (path, expected) in
            [("a/b-1.pem", "a/b-1.pem"), ("my key.pem", "'my key.pem'"), ("it's", r"'it'\''s'"), ("$a", "'$a'")]
        {
            assert_eq!(quoted(Path::new(path)), expected);
        }
        assert_eq!(
            [in_url("::1"), in_url("a.example"), in_url("*.a.example")],
            ["[::1]", "a.example", "bucket.a.example"]
        );
    }
}
