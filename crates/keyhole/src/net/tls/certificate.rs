//! The content of certificates, for display and for choosing between certificates. Trust decisions
//! are made elsewhere.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use aws_lc_rs::digest;
use keyhole_s3::time::iso8601;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;
use x509_parser::revocation_list::CertificateRevocationList;
use x509_parser::time::ASN1Time;
use x509_parser::x509::X509Name;

use super::error::CertificateError;

/// Time before expiry from which a certificate causes a warning.
pub(crate) const EXPIRES_SOON: Duration = Duration::from_secs(14 * 24 * 60 * 60);

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// Names shown in one line; the rest are counted.
const NAMES_SHOWN: usize = 8;

/// The displayed content of a certificate.
#[derive(Clone, Debug)]
pub(crate) struct CertificateFacts {
    /// The host names it is valid for, in lower case; one may begin with `*.`.
    pub(crate) hosts: Vec<String>,
    /// The IP addresses it is valid for.
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) subject: String,
    pub(crate) issuer: String,
    pub(crate) serial: String,
    pub(crate) is_authority: bool,
    /// The type of its key.
    pub(crate) key: String,
    /// Milliseconds since 1970-01-01T00:00:00Z.
    pub(crate) not_before_ms: u64,
    pub(crate) not_after_ms: u64,
    /// SHA-256 of the certificate.
    fingerprint: [u8; 32],
}

impl CertificateFacts {
    /// Parses a certificate in DER.
    pub(crate) fn read(der: &[u8]) -> Result<Self, CertificateError> {
        let certificate = parse(der)?;
        let mut hosts = Vec::new();
        let mut addresses = Vec::new();
        let names = certificate.subject_alternative_name();
        let names = names.map_err(|error| CertificateError::InvalidNames(error.to_string()))?;
        for name in names.iter().flat_map(|names| &names.value.general_names) {
            match name {
                GeneralName::DNSName(name) => hosts.push(visible(name).to_ascii_lowercase()),
                GeneralName::IPAddress(bytes) => addresses.extend(address(bytes)),
                _ => {}
            }
        }
        let mut fingerprint = [0; 32];
        fingerprint.copy_from_slice(digest::digest(&digest::SHA256, der).as_ref());
        let validity = certificate.validity();
        Ok(CertificateFacts {
            hosts,
            addresses,
            subject: shown(certificate.subject()),
            issuer: shown(certificate.issuer()),
            serial: certificate.raw_serial_as_string(),
            is_authority: certificate.is_ca(),
            key: key(&certificate),
            not_before_ms: ms(validity.not_before),
            not_after_ms: ms(validity.not_after),
            fingerprint,
        })
    }

    /// Returns the fingerprint in OpenSSL's notation.
    pub(crate) fn fingerprint(&self) -> String {
        let mut text = String::new();
        for (i, byte) in self.fingerprint.iter().enumerate() {
            let colon = if i == 0 { "" } else { ":" };
            write!(text, "{colon}{byte:02X}").expect("a string takes it");
        }
        text
    }

    /// Returns all names, separated by commas.
    pub(crate) fn all_names(&self) -> String {
        self.first_names(usize::MAX)
    }

    /// Returns the first [`NAMES_SHOWN`] names in one line, and the count of the others.
    pub(crate) fn names(&self) -> String {
        self.first_names(NAMES_SHOWN)
    }

    fn first_names(&self, count: usize) -> String {
        let all = self.hosts.iter().cloned().chain(self.addresses.iter().map(IpAddr::to_string));
        let mut names: Vec<String> = all.collect();
        let more = names.len().saturating_sub(count);
        names.truncate(count);
        let mut text = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        if more > 0 {
            write!(text, " and {more} more").expect("a string takes it");
        }
        text
    }

    /// Returns a warning if the certificate is not valid now or expires soon.
    pub(crate) fn warning(&self, now_ms: u64) -> Option<String> {
        let soon_ms = u64::try_from(EXPIRES_SOON.as_millis()).unwrap_or(u64::MAX);
        if now_ms < self.not_before_ms {
            return Some(format!("is not valid before {}: is the clock right?", iso8601(self.not_before_ms)));
        }
        let end = iso8601(self.not_after_ms);
        match self.not_after_ms.checked_sub(now_ms) {
            None => Some(format!("has expired at {end}: clients refuse it")),
            Some(left) if left <= soon_ms => Some(format!("expires at {end}, in {} days", left / DAY_MS)),
            Some(_) => None,
        }
    }
}

/// The displayed content of a revocation list.
#[derive(Debug)]
pub(crate) struct ListFacts {
    /// The name of the issuer, as certificates encode it.
    pub(crate) issuer: Vec<u8>,
    pub(crate) issuer_shown: String,
    /// When the next list is due.
    pub(crate) next_update_ms: Option<u64>,
}

impl ListFacts {
    /// Parses a revocation list in DER.
    pub(crate) fn read(der: &[u8]) -> Result<Self, CertificateError> {
        let (_, list) =
            CertificateRevocationList::from_der(der).map_err(|error| CertificateError::NoList(error.to_string()))?;
        Ok(ListFacts {
            issuer: list.issuer().as_raw().to_vec(),
            issuer_shown: shown(list.issuer()),
            next_update_ms: list.next_update().map(ms),
        })
    }
}

/// The name of an authority.
pub(crate) struct AuthorityName {
    /// As its lists encode it.
    pub(crate) encoded: Vec<u8>,
    /// For display.
    pub(crate) shown: String,
}

/// Returns the name of the authority with this certificate in DER.
pub(crate) fn subject(der: &[u8]) -> Result<AuthorityName, CertificateError> {
    let certificate = parse(der)?;
    let encoded = certificate.subject().as_raw().to_vec();
    Ok(AuthorityName { encoded, shown: shown(certificate.subject()) })
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>, CertificateError> {
    let parsed = X509Certificate::from_der(der);
    parsed.map(|(_, certificate)| certificate).map_err(|error| CertificateError::NoCertificate(error.to_string()))
}

/// Replaces control characters, which could control a terminal.
fn visible(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

fn shown(name: &X509Name<'_>) -> String {
    let text = visible(&name.to_string());
    if text.is_empty() { "nobody".to_owned() } else { text }
}

fn ms(time: ASN1Time) -> u64 {
    u64::try_from(time.timestamp()).unwrap_or(0).saturating_mul(1000)
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(|bytes| Ipv4Addr::from(bytes).into());
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(|bytes| Ipv6Addr::from(bytes).into())).ok()
}

fn key(certificate: &X509Certificate<'_>) -> String {
    match certificate.public_key().parsed() {
        Ok(PublicKey::RSA(key)) => format!("RSA, {} bits", key.key_size()),
        Ok(PublicKey::EC(key)) => format!("ECDSA, {} bits", key.key_size()),
        // By the algorithm only: Ed25519 and newer ones.
        _ if certificate.public_key().algorithm.algorithm.to_id_string() == ED25519 => "Ed25519".to_owned(),
        _ => format!("of algorithm {}", certificate.public_key().algorithm.algorithm.to_id_string()),
    }
}

/// RFC 8410.
const ED25519: &str = "1.3.101.112";

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, PKCS_ED25519, SignatureAlgorithm};

    use super::*;

    fn made(names: &[&str], algorithm: &'static SignatureAlgorithm) -> CertificateFacts {
        let mut params =
            CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
        params.not_before = rcgen::date_time_ymd(2026, 1, 1);
        params.not_after = rcgen::date_time_ymd(2027, 1, 1);
        let key = KeyPair::generate_for(algorithm).unwrap();
        CertificateFacts::read(params.self_signed(&key).unwrap().der()).unwrap()
    }

    #[test]
    fn certificate_content_is_read() {
        let facts = made(&["Node.Example", "*.s3.example", "192.0.2.7", "2001:db8::7"], &rcgen::PKCS_ECDSA_P256_SHA256);
        assert_eq!(facts.hosts, ["node.example", "*.s3.example"]);
        assert_eq!(facts.names(), "node.example, *.s3.example, 192.0.2.7, 2001:db8::7");
        assert_eq!(facts.key, "ECDSA, 256 bits");
        assert_eq!(
            (iso8601(facts.not_before_ms), iso8601(facts.not_after_ms)),
            ("2026-01-01T00:00:00.000Z".to_owned(), "2027-01-01T00:00:00.000Z".to_owned())
        );
        assert_eq!(facts.fingerprint().len(), 32 * 3 - 1);
        assert!(!facts.is_authority);
        assert_eq!(made(&[], &PKCS_ED25519).key, "Ed25519");
        assert_eq!(made(&[], &PKCS_ED25519).names(), "none");
        let many: Vec<String> = (0..NAMES_SHOWN + 2).map(|n| format!("n{n}")).collect();
        let many: Vec<&str> = many.iter().map(|name| &name[..]).collect();
        assert!(made(&many, &PKCS_ED25519).names().ends_with("n7 and 2 more"));
        assert!(CertificateFacts::read(b"none").is_err() && CertificateFacts::read(b"").is_err());
    }

    #[test]
    fn certificate_warns_14_days_before_expiry() {
        let facts = made(&["n"], &PKCS_ED25519);
        let begin = facts.not_before_ms;
        let end = facts.not_after_ms;
        let at = |now_ms| facts.warning(now_ms);
        assert!(at(begin - 1).unwrap().contains("is not valid before 2026-01-01"));
        assert_eq!((at(begin), at(end - 14 * DAY_MS - 1)), (None, None));
        assert!(at(end - 14 * DAY_MS).unwrap().contains("expires at 2027-01-01T00:00:00.000Z, in 14 days"));
        assert!(at(end).unwrap().contains("in 0 days"));
        assert!(at(end + 1).unwrap().contains("has expired at 2027-01-01"));
    }

    #[test]
    fn control_characters_are_replaced() {
        assert_eq!(visible("a\x1b[2Jb\u{9b}c"), "a?[2Jb?c");
    }
}
