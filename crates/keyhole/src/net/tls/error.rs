//! Errors of the TLS configuration.

use std::path::PathBuf;

use rustls::server::VerifierBuilderError;
use rustls_pki_types::pem;
use thiserror::Error;

use super::limits::{CHAIN_MAX, PAIRS_MAX};
use crate::error::FileError;

/// The reason why certificates, keys or revocation lists cannot be used. The message names the file
/// and the way out.
#[derive(Error, Debug)]
pub(crate) enum TlsError {
    #[error(transparent)]
    File(#[from] FileError),

    // Caused by the options.
    #[error("{certificates} --tls-cert and {keys} --tls-key; give each certificate its key, in the same order")]
    UnevenPairs { certificates: usize, keys: usize },
    #[error("too many --tls-cert options ({0}): the limit is {max}", max = PAIRS_MAX)]
    TooManyPairs(usize),
    #[error("no certificate; give --tls-cert and --tls-key")]
    NoPair,

    // Caused by a file.
    #[error("{} is longer than {mib} MiB; give {option} a PEM file", path.display())]
    FileTooLong { path: PathBuf, mib: u64, option: &'static str },
    #[error("invalid PEM file {}: {error}; create it again", path.display())]
    InvalidPem { path: PathBuf, error: pem::Error },
    #[error("no certificate in {}; give {option} a PEM file with BEGIN CERTIFICATE", path.display())]
    NoCertificate { path: PathBuf, option: &'static str },
    #[error("no list of revoked certificates in {}; give {option} a PEM file with BEGIN X509 CRL", path.display())]
    NoList { path: PathBuf, option: &'static str },
    #[error(
        "no private key in {}; give {option} a PEM file with BEGIN PRIVATE KEY, or EC or RSA before PRIVATE",
        path.display()
    )]
    NoKey { path: PathBuf, option: &'static str },
    #[error(
        "the key in {path} is encrypted; decrypt it with openssl pkey -in {path} -out NEW, and give NEW with {option}",
        path = path.display()
    )]
    EncryptedKey { path: PathBuf, option: &'static str },

    // Caused by the content.
    #[error(
        "the certificates in {} have {len} bytes; give the node's own with --tls-cert, and those that it was signed \
         by: up to {} bytes",
        path.display(),
        CHAIN_MAX
    )]
    ChainTooLong { path: PathBuf, len: usize },
    #[error("cannot use the certificate in {}: {error}", path.display())]
    UnreadableCertificate { path: PathBuf, error: CertificateError },
    #[error("cannot use the certificate in {}: {error}", path.display())]
    UnusableCertificate { path: PathBuf, error: rustls::Error },
    #[error("cannot use the key in {}: {error}; give an ECDSA, Ed25519 or RSA key with --tls-key", path.display())]
    UnusableKey { path: PathBuf, error: rustls::Error },
    #[error(
        "the key in {} does not belong to the first certificate in {}; give --tls-key and --tls-cert that were made \
         together, the node's own certificate first",
        key.display(),
        certificate.display()
    )]
    KeyMismatch { key: PathBuf, certificate: PathBuf },
    #[error("cannot use a certificate in {}: {error}; give authorities with --tls-client-ca", path.display())]
    UnusableAuthority { path: PathBuf, error: rustls::Error },
    #[error("cannot use the authorities in {}: {error}", path.display())]
    UnusableAuthorities { path: PathBuf, error: VerifierBuilderError },
    #[error("cannot use a list in {}: {error}", path.display())]
    UnreadableList { path: PathBuf, error: CertificateError },
    #[error(
        "cannot use a list in {}: {error:?}; give lists of revoked certificates with --tls-client-crl",
        path.display()
    )]
    UnusableList { path: PathBuf, error: rustls::CertRevocationListError },
    #[error("cannot set up TLS: {0}")]
    Setup(rustls::Error),
}

/// The reason why a certificate or a revocation list cannot be parsed.
#[derive(Error, Debug)]
pub(crate) enum CertificateError {
    #[error("no certificate: {0}")]
    NoCertificate(String),
    #[error("invalid names: {0}")]
    InvalidNames(String),
    #[error("no list: {0}")]
    NoList(String),
}
