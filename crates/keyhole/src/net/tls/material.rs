//! Certificates with their keys, and the verifier of client certificates, loaded from files.

use std::path::PathBuf;
use std::sync::Arc;

use keyhole_node::Services;
use keyhole_s3::time::iso8601;
use rustls::crypto::aws_lc_rs::{self, sign};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys, RootCertStore};
use rustls_pki_types::CertificateDer;
use zeroize::Zeroize;

use super::certificate::{CertificateFacts, ListFacts, subject};
use super::error::TlsError;
use super::files::{load_certificates, load_key, load_lists};
use super::limits::{CHAIN_MAX, HINTS_MAX};
use crate::cli::serve::ClientAuth;
use crate::env::System;

pub(super) const CERT: &str = "--tls-cert";
pub(super) const KEY: &str = "--tls-key";
const CLIENT_CA: &str = "--tls-client-ca";
const CLIENT_CRL: &str = "--tls-client-crl";

/// The files of a certificate and its key.
pub(super) struct PairFiles {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
}

/// The files that client certificates are verified with.
pub(super) struct ClientFiles {
    pub(super) authorities: PathBuf,
    pub(super) revoked: Option<PathBuf>,
    pub(super) auth: ClientAuth,
}

/// Files that are loaded together.
pub(super) trait Load {
    /// The result of loading.
    type Loaded;

    fn paths(&self) -> Vec<PathBuf>;

    /// Loads the files.
    ///
    /// # Errors
    /// The message names the file that is wrong and how to correct it.
    fn load(&self) -> Result<Self::Loaded, TlsError>;

    /// Logs a warning for each certificate or list that is about to expire.
    fn log_warnings(&self, loaded: &Self::Loaded);
}

/// A certificate with its key, ready for use.
pub(super) struct CertificatePair {
    pub(super) certified: Arc<CertifiedKey>,
    pub(super) facts: CertificateFacts,
}

impl Load for PairFiles {
    type Loaded = CertificatePair;

    fn paths(&self) -> Vec<PathBuf> {
        vec![self.certificate.clone(), self.key.clone()]
    }

    fn load(&self) -> Result<CertificatePair, TlsError> {
        let chain = load_certificates(&self.certificate, CERT)?;
        let path = self.certificate.display();
        let len: usize = chain.iter().map(|certificate| certificate.len()).sum();
        if len > CHAIN_MAX {
            return Err(TlsError::ChainTooLong { path: self.certificate.clone(), len });
        }
        let facts = CertificateFacts::read(&chain[0])
            .map_err(|error| TlsError::UnreadableCertificate { path: self.certificate.clone(), error })?;
        let mut der = load_key(&self.key, KEY)?;
        let signing = sign::any_supported_type(&der);
        der.zeroize();
        let signing = signing.map_err(|error| TlsError::UnusableKey { path: self.key.clone(), error })?;
        let certified = CertifiedKey::new(chain, signing);
        match certified.keys_match() {
            // The key type does not reveal its public half: a mismatch shows in the first
            // handshake.
            Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
            Err(Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
                return Err(TlsError::KeyMismatch { key: self.key.clone(), certificate: self.certificate.clone() });
            }
            Err(error) => {
                return Err(TlsError::UnusableCertificate { path: self.certificate.clone(), error });
            }
        }
        tracing::info!(
            names = facts.names(),
            expires = iso8601(facts.not_after_ms),
            sha256 = facts.fingerprint(),
            "certificate read from {path}"
        );
        Ok(CertificatePair { certified: Arc::new(certified), facts })
    }

    fn log_warnings(&self, pair: &CertificatePair) {
        if let Some(warning) = pair.facts.warning(System.now_ms()) {
            tracing::warn!("the certificate in {} {warning}. Replace it and its key", self.certificate.display());
        }
    }
}

/// The verifier of client certificates, ready for use.
pub(super) struct Clients {
    pub(super) verifier: Arc<dyn ClientCertVerifier>,
    lists: Vec<ListFacts>,
}

impl Load for ClientFiles {
    type Loaded = Clients;

    fn paths(&self) -> Vec<PathBuf> {
        [&self.authorities].into_iter().chain(&self.revoked).cloned().collect()
    }

    fn load(&self) -> Result<Clients, TlsError> {
        let authorities = load_certificates(&self.authorities, CLIENT_CA)?;
        let path = self.authorities.display();
        let mut roots = RootCertStore::empty();
        for authority in &authorities {
            roots
                .add(authority.clone())
                .map_err(|error| TlsError::UnusableAuthority { path: self.authorities.clone(), error })?;
        }
        let has_long_names = roots.subjects().iter().map(|name| name.as_ref().len()).sum::<usize>() > HINTS_MAX;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        if has_long_names {
            builder = builder.clear_root_hint_subjects();
        }
        if self.auth == ClientAuth::Optional {
            builder = builder.allow_unauthenticated();
        }
        let mut facts = Vec::new();
        if let Some(path) = &self.revoked {
            let lists = load_lists(path, CLIENT_CRL)?;
            for list in &lists {
                let list = ListFacts::read(list);
                facts.push(list.map_err(|error| TlsError::UnreadableList { path: path.clone(), error })?);
            }
            warn_of_lacking_lists(&authorities, &facts);
            builder = builder.with_crls(lists);
        }
        let verifier = builder.build().map_err(|error| match (error, &self.revoked) {
            (VerifierBuilderError::InvalidCrl(error), Some(path)) => {
                TlsError::UnusableList { path: path.clone(), error }
            }
            (error, _) => TlsError::UnusableAuthorities { path: self.authorities.clone(), error },
        })?;
        tracing::info!(
            authorities = authorities.len(),
            lists = facts.len(),
            "verifying client certificates with {path}"
        );
        Ok(Clients { verifier, lists: facts })
    }

    fn log_warnings(&self, clients: &Clients) {
        let now_ms = System.now_ms();
        for list in &clients.lists {
            if let Some(next_ms) = list.next_update_ms.filter(|next_ms| *next_ms < now_ms) {
                tracing::warn!(
                    "the revocation list of {} is out of date since {}. It stays in use; fetch a newer one",
                    list.issuer_shown,
                    iso8601(next_ms)
                );
            }
        }
    }
}

/// Warns of authorities without a list: if any list is given, their clients are not trusted.
fn warn_of_lacking_lists(authorities: &[CertificateDer<'_>], lists: &[ListFacts]) {
    for name in authorities.iter().filter_map(|authority| subject(authority).ok()) {
        if !lists.iter().any(|list| list.issuer == name.encoded) {
            let shown = name.shown;
            tracing::warn!("no revocation list of {shown}: clients with its certificates are refused");
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::fs;
    use std::path::Path;

    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    /// Writes a certificate for these names and its key into a directory.
    pub(in crate::net::tls) fn files(home: &Path, names: &[&str]) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        fs::write(home.join("cert.pem"), made.cert.pem()).unwrap();
        fs::write(home.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
    }

    /// As [`files`], in a new directory.
    pub(in crate::net::tls) fn home(names: &[&str]) -> tempfile::TempDir {
        let home = tempfile::tempdir().unwrap();
        files(home.path(), names);
        home
    }

    /// Writes the certificates of `count` authorities to a file.
    pub(in crate::net::tls) fn authority(path: &Path, count: usize) {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::OrganizationName, "o".repeat(64));
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let pem = params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem();
        fs::write(path, pem.repeat(count)).unwrap();
    }

    fn load(certificate: &Path, key: &Path) -> Result<CertificatePair, TlsError> {
        PairFiles { certificate: certificate.to_owned(), key: key.to_owned() }.load()
    }

    #[test]
    fn invalid_pair_files_are_rejected_with_way_out() {
        let one = home(&["localhost"]);
        let other = home(&["localhost"]);
        let cert = one.path().join("cert.pem");
        let key = one.path().join("key.pem");
        let absent = one.path().join("absent.pem");
        let file = |name: &str, text: &str| {
            let path = one.path().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let encrypted =
            file("encrypted.pem", "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n");
        let traditional = file(
            "traditional.pem",
            "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAAAA\n\
             -----END EC PRIVATE KEY-----\n",
        );
        let cut = file("cut.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n");
        let broken = file("broken.pem", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n");
        let garbled = file("garbled.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
        for (cert, key, parts) in [
            (&absent, &key, ["absent.pem", "--tls-cert"]),
            (&cert, &absent, ["absent.pem", "--tls-key"]),
            (&key, &key, ["no certificate in", "--tls-cert"]),
            (&cert, &cert, ["no private key in", "--tls-key"]),
            (&cert, &other.path().join("key.pem"), ["does not belong", "--tls-key"]),
            (&cert, &encrypted, ["is encrypted", "openssl pkey"]),
            (&cert, &traditional, ["is encrypted", "openssl pkey"]),
            (&cert, &traditional, ["traditional.pem", "--tls-key"]),
            (&cert, &one.path().to_owned(), ["a directory", "--tls-key"]),
            (&cut, &key, ["cut.pem", "PEM"]),
            (&cert, &broken, ["broken.pem", "--tls-key"]),
            (&garbled, &key, ["garbled.pem", "certificate"]),
        ] {
            let error = load(cert, key).err().unwrap().to_string();
            assert!(parts.iter().all(|part| error.contains(part)), "{parts:?} in: {error}");
        }
    }

    #[test]
    fn chain_length_is_bounded() {
        let home = home(&["localhost"]);
        let cert = home.path().join("cert.pem");
        let key = home.path().join("key.pem");
        let own = fs::read_to_string(&cert).unwrap();
        let len = load_certificates(&cert, CERT).unwrap()[0].len();
        let fit = CHAIN_MAX / len;
        fs::write(&cert, own.repeat(fit)).unwrap();
        load(&cert, &key).unwrap();
        fs::write(&cert, own.repeat(fit + 1)).unwrap();
        let error = load(&cert, &key).err().unwrap().to_string();
        assert!(error.contains("32768") && error.contains("--tls-cert"), "{error}");
    }

    fn clients(home: &Path) -> Result<Clients, TlsError> {
        let authorities = home.join("ca.pem");
        let revoked = Some(home.join("crl.pem")).filter(|path| path.exists());
        ClientFiles { authorities, revoked, auth: ClientAuth::Require }.load()
    }

    #[test]
    fn invalid_authorities_and_lists_are_rejected() {
        let home = home(&["localhost"]);
        let at = |name: &str| home.path().join(name);
        let check = |parts: [&str; 2]| {
            let error = clients(home.path()).err().unwrap().to_string();
            assert!(parts.iter().all(|part| error.contains(part)), "{parts:?} in: {error}");
        };
        check(["ca.pem", "--tls-client-ca"]);
        fs::copy(at("key.pem"), at("ca.pem")).unwrap();
        check(["no certificate in", "--tls-client-ca"]);
        fs::write(at("ca.pem"), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
        check(["cannot use a certificate in", "--tls-client-ca"]);
        authority(&at("ca.pem"), 1);
        assert!(clients(home.path()).is_ok());
        fs::copy(at("cert.pem"), at("crl.pem")).unwrap();
        check(["no list of revoked certificates in", "--tls-client-crl"]);
        fs::write(at("crl.pem"), "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n").unwrap();
        check(["cannot use a list in", "crl.pem"]);
    }

    #[test]
    fn names_of_many_authorities_are_omitted() {
        let home = home(&["localhost"]);
        let names_of = |count| {
            authority(&home.path().join("ca.pem"), count);
            clients(home.path()).unwrap().verifier.root_hint_subjects().to_vec()
        };
        let len = names_of(1)[0].as_ref().len();
        let fit = HINTS_MAX / len;
        assert_eq!((names_of(fit).len(), names_of(fit + 1).len()), (fit, 0));
    }
}
