//! Where certificates come from: files, read at the start, and again when they change.
//!
//! Each pair of a certificate and its key, and what clients' certificates are verified with, is read by itself: where one of them
//! is wrong, what was read before stays in use, and the others go on changing.
//!
//! Whatever changes makes a new [`ServerConfig`], for the handshakes that begin from then on. Connections that are there go on with
//! what they began with. Tickets and sessions belong to a configuration, so a session is resumed under the certificate that it
//! began with, or not at all: no client goes on for hours without having seen the new one.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use keyhole_node::Env;
use keyhole_s3::time::iso8601;
use rustls::crypto::aws_lc_rs::{self, sign};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{
    NoServerSessionStorage, ResolvesServerCert, ServerSessionMemoryCache, VerifierBuilderError, WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys, RootCertStore, ServerConfig};
use rustls_pki_types::CertificateDer;
use tokio::sync::watch;
use zeroize::Zeroize;

use super::certificate::{Facts, ListFacts, subject};
use super::files::{Watched, load_certificates, load_key, load_lists};
use super::names::Names;
use super::{ALPN, CHAIN_MAX, HINTS_MAX, PAIRS_MAX, SESSIONS_MAX};
use crate::cli::{ClientAuth, ServeOptions};
use crate::env::System;
use crate::reload::Reload;

/// How often it is said again that a certificate expires soon.
const SAY_AGAIN: Duration = Duration::from_secs(24 * 60 * 60);

const CERT: &str = "--tls-cert";
const KEY: &str = "--tls-key";
const CLIENT_CA: &str = "--tls-client-ca";
const CLIENT_CRL: &str = "--tls-client-crl";

/// The files that TLS is made of.
pub(crate) struct Files {
    pairs: Vec<PairFiles>,
    clients: Option<ClientFiles>,
}

/// A certificate and its key.
struct PairFiles {
    certificate: PathBuf,
    key: PathBuf,
}

/// What certificates of clients are verified with.
struct ClientFiles {
    authorities: PathBuf,
    revoked: Option<PathBuf>,
    auth: ClientAuth,
}

impl Files {
    /// Those that the options name.
    pub(crate) fn of(options: &ServeOptions) -> Result<Self, String> {
        let (certificates, keys) = (&options.tls_cert, &options.tls_key);
        if certificates.len() != keys.len() {
            return Err(format!(
                "there are {} {CERT} and {} {KEY}; give each certificate its key, in the same order",
                certificates.len(),
                keys.len()
            ));
        }
        if certificates.len() > PAIRS_MAX {
            return Err(format!("there are {} {CERT}; give up to {PAIRS_MAX}", certificates.len()));
        }
        let pair =
            |(certificate, key): (&PathBuf, &PathBuf)| PairFiles { certificate: certificate.clone(), key: key.clone() };
        let clients = options.tls_client_ca.clone().map(|authorities| ClientFiles {
            authorities,
            revoked: options.tls_client_crl.clone(),
            auth: options.tls_client_auth.unwrap_or(ClientAuth::Require),
        });
        Ok(Files { pairs: certificates.iter().zip(keys).map(pair).collect(), clients })
    }
}

/// Files that are read together.
trait Load {
    /// What comes of them.
    type Loaded;

    fn paths(&self) -> Vec<PathBuf>;

    /// An error says which file is wrong, and what to do.
    fn load(&self) -> Result<Self::Loaded, String>;

    /// Says in the log what is of concern now: validity that ends.
    fn voice_concerns(&self, loaded: &Self::Loaded);
}

/// A certificate with its key, ready for use.
struct Pair {
    certified: Arc<CertifiedKey>,
    facts: Facts,
}

impl Load for PairFiles {
    type Loaded = Pair;

    fn paths(&self) -> Vec<PathBuf> {
        vec![self.certificate.clone(), self.key.clone()]
    }

    fn load(&self) -> Result<Pair, String> {
        let chain = load_certificates(&self.certificate, CERT)?;
        let path = self.certificate.display();
        let len: usize = chain.iter().map(|certificate| certificate.len()).sum();
        if len > CHAIN_MAX {
            return Err(format!(
                "the certificates in {path} have {len} bytes; give the node's own with {CERT}, and those that it was signed by: up \
                 to {CHAIN_MAX} bytes"
            ));
        }
        let facts = Facts::read(&chain[0]).map_err(|error| format!("cannot use the certificate in {path}: {error}"))?;
        let mut der = load_key(&self.key, KEY)?;
        let signing = sign::any_supported_type(&der);
        der.zeroize();
        let signing = signing.map_err(|error| {
            format!(
                "cannot use the key in {}: {error}; give an ECDSA, Ed25519 or RSA key with {KEY}",
                self.key.display()
            )
        })?;
        let certified = CertifiedKey::new(chain, signing);
        match certified.keys_match() {
            // A kind of key that does not show its public half: the first handshake would tell.
            Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
            Err(Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
                return Err(format!(
                    "the key in {} does not belong to the first certificate in {path}; give {KEY} and {CERT} that were made \
                     together, the node's own certificate first",
                    self.key.display(),
                ));
            }
            Err(error) => return Err(format!("cannot use the certificate in {path}: {error}")),
        }
        tracing::info!(
            names = facts.names(),
            expires = iso8601(facts.not_after_ms),
            sha256 = facts.fingerprint(),
            "certificate read from {path}"
        );
        Ok(Pair { certified: Arc::new(certified), facts })
    }

    fn voice_concerns(&self, pair: &Pair) {
        if let Some(concern) = pair.facts.concern(System.now_ms()) {
            tracing::warn!("the certificate in {} {concern}. Replace it and its key", self.certificate.display());
        }
    }
}

/// What certificates of clients are verified with, ready for use.
struct Clients {
    verifier: Arc<dyn ClientCertVerifier>,
    lists: Vec<ListFacts>,
}

impl Load for ClientFiles {
    type Loaded = Clients;

    fn paths(&self) -> Vec<PathBuf> {
        [&self.authorities].into_iter().chain(&self.revoked).cloned().collect()
    }

    fn load(&self) -> Result<Clients, String> {
        let authorities = load_certificates(&self.authorities, CLIENT_CA)?;
        let path = self.authorities.display();
        let mut roots = RootCertStore::empty();
        for authority in &authorities {
            let added = roots.add(authority.clone());
            added.map_err(|error| {
                format!("cannot use a certificate in {path}: {error}; give authorities with {CLIENT_CA}")
            })?;
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
                facts.push(list.map_err(|error| format!("cannot use a list in {}: {error}", path.display()))?);
            }
            warn_of_lacking_lists(&authorities, &facts);
            builder = builder.with_crls(lists);
        }
        let verifier = builder.build().map_err(|error| match (error, &self.revoked) {
            (VerifierBuilderError::InvalidCrl(error), Some(path)) => {
                format!(
                    "cannot use a list in {}: {error:?}; give lists of revoked certificates with {CLIENT_CRL}",
                    path.display()
                )
            }
            (error, _) => format!("cannot use the authorities in {path}: {error}"),
        })?;
        tracing::info!(
            authorities = authorities.len(),
            lists = facts.len(),
            "clients' certificates are verified by {path}"
        );
        Ok(Clients { verifier, lists: facts })
    }

    fn voice_concerns(&self, clients: &Clients) {
        let now_ms = System.now_ms();
        for list in &clients.lists {
            if let Some(next_ms) = list.next_update_ms.filter(|next_ms| *next_ms < now_ms) {
                tracing::warn!(
                    "the list of certificates that {} has revoked is out of date since {}. It stays in use; get a newer one",
                    list.issuer_shown,
                    iso8601(next_ms)
                );
            }
        }
    }
}

/// Where there are lists, who has none is not trusted.
fn warn_of_lacking_lists(authorities: &[CertificateDer<'_>], lists: &[ListFacts]) {
    for (name, shown) in authorities.iter().filter_map(|authority| subject(authority).ok()) {
        if !lists.iter().any(|list| list.issuer == name) {
            tracing::warn!("there is no list of what {shown} has revoked: clients that it has signed are refused");
        }
    }
}

/// Files, and what was made of them last.
struct Part<F: Load> {
    files: F,
    watched: Watched,
    loaded: F::Loaded,
}

impl<F: Load> Part<F> {
    fn open(files: F) -> Result<Self, String> {
        let watched = Watched::new(files.paths());
        let loaded = files.load()?;
        files.voice_concerns(&loaded);
        Ok(Part { files, watched, loaded })
    }

    /// Reads the files again; whether what they have is in use now.
    fn reload(&mut self) -> bool {
        self.watched.about_to_be_read();
        match self.files.load() {
            Ok(loaded) => {
                self.loaded = loaded;
                self.voice_concerns();
                true
            }
            Err(error) => {
                tracing::warn!(
                    "{error}. What was read before stays in use; the files are read again when they change, or on SIGHUP"
                );
                false
            }
        }
    }

    fn look(&mut self) -> bool {
        self.watched.have_changed() && self.reload()
    }

    fn voice_concerns(&self) {
        self.files.voice_concerns(&self.loaded);
    }
}

/// All that TLS is made of, to be read again when it changes.
pub(crate) struct Source {
    pairs: Vec<Part<PairFiles>>,
    clients: Option<Part<ClientFiles>>,
    configs: watch::Sender<Arc<ServerConfig>>,
    concerns_voiced: Instant,
}

impl Source {
    /// Reads the files. An error says which file is wrong, and what to do.
    pub(crate) fn open(files: Files) -> Result<Self, String> {
        let pairs: Vec<_> = files.pairs.into_iter().map(Part::open).collect::<Result<_, _>>()?;
        let clients = files.clients.map(Part::open).transpose()?;
        let config = make(&pairs, clients.as_ref())?;
        Ok(Source { pairs, clients, configs: watch::Sender::new(Arc::new(config)), concerns_voiced: Instant::now() })
    }

    /// What is said to clients, from now on.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Arc<ServerConfig>> {
        self.configs.subscribe()
    }

    /// What was read is in use for the handshakes from now on.
    fn put_in_use(&self) {
        match make(&self.pairs, self.clients.as_ref()) {
            Ok(config) => {
                self.configs.send_replace(Arc::new(config));
                tracing::info!("new TLS connections have the new certificates");
            }
            Err(error) => tracing::error!("{error}. What was read before stays in use"),
        }
    }

    /// Says once a day which certificates expire soon.
    fn voice_concerns(&mut self, now: Instant) {
        if now.duration_since(self.concerns_voiced) >= SAY_AGAIN {
            self.concerns_voiced = now;
            self.pairs.iter().for_each(Part::voice_concerns);
            self.clients.iter().for_each(Part::voice_concerns);
        }
    }

    /// Whether any part has something new, of which each is asked.
    fn any(&mut self, pair: fn(&mut Part<PairFiles>) -> bool, clients: fn(&mut Part<ClientFiles>) -> bool) -> bool {
        let of_pairs = self.pairs.iter_mut().map(pair).fold(false, |any, is_new| any | is_new);
        let of_clients = self.clients.as_mut().is_some_and(clients);
        of_pairs || of_clients
    }
}

impl Reload for Source {
    fn reload(&mut self) {
        if self.any(Part::reload, Part::reload) {
            self.put_in_use();
        }
    }

    fn look(&mut self) {
        if self.any(Part::look, Part::look) {
            self.put_in_use();
        }
        self.voice_concerns(Instant::now());
    }
}

fn make(pairs: &[Part<PairFiles>], clients: Option<&Part<ClientFiles>>) -> Result<ServerConfig, String> {
    let certificates = pairs.iter().map(|pair| (pair.loaded.certified.clone(), &pair.loaded.facts.hosts[..]));
    let names = Names::new(certificates).ok_or_else(|| format!("there is no certificate; give {CERT} and {KEY}"))?;
    let verifier = clients.map(|clients| clients.loaded.verifier.clone());
    config(Arc::new(names), verifier).map_err(|error| format!("cannot set up TLS: {error}"))
}

/// TLS 1.3 and 1.2 with these certificates, and where there is a verifier with those of clients.
pub(super) fn config(
    certificates: Arc<dyn ResolvesServerCert>,
    clients: Option<Arc<dyn ClientCertVerifier>>,
) -> Result<ServerConfig, Error> {
    let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?;
    let is_for_anybody = clients.is_none();
    let builder = match clients {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(certificates);
    config.alpn_protocols = vec![ALPN.to_vec()];
    if is_for_anybody {
        // Its keys are in memory alone, and there are others every few hours.
        config.ticketer = aws_lc_rs::Ticketer::new()?;
        // For clients of TLS 1.2 that take no tickets.
        config.session_storage = ServerSessionMemoryCache::new(SESSIONS_MAX);
    } else {
        // A session that is resumed comes with the certificate that the client had, which nobody looks at again: not whether it
        // has expired meanwhile. Every connection is verified instead.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use clap::Parser;
    use rcgen::{CertificateParams, KeyPair};

    use super::*;
    use crate::cli::{Cli, Command};

    fn files(home: &Path, names: &[&str]) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        fs::write(home.join("cert.pem"), made.cert.pem()).unwrap();
        fs::write(home.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
    }

    fn home(names: &[&str]) -> tempfile::TempDir {
        let home = tempfile::tempdir().unwrap();
        files(home.path(), names);
        home
    }

    fn pair(home: &Path) -> PairFiles {
        PairFiles { certificate: home.join("cert.pem"), key: home.join("key.pem") }
    }

    fn open(certificate: &Path, key: &Path) -> Result<Source, String> {
        let pair = PairFiles { certificate: certificate.to_owned(), key: key.to_owned() };
        Source::open(Files { pairs: vec![pair], clients: None })
    }

    fn hosts(source: &Source) -> Vec<&str> {
        source.pairs.iter().flat_map(|pair| &pair.loaded.facts.hosts).map(|host| &host[..]).collect()
    }

    #[test]
    fn a_pair_that_belongs_together_is_taken() {
        let home = home(&["localhost"]);
        let source = open(&home.path().join("cert.pem"), &home.path().join("key.pem")).unwrap();
        let config = source.subscribe().borrow().clone();
        assert_eq!(config.alpn_protocols, [ALPN]);
        assert!(config.ticketer.enabled());
    }

    #[test]
    fn what_is_wrong_with_the_files_is_said() {
        let (one, other) = (home(&["localhost"]), home(&["localhost"]));
        let (cert, key) = (one.path().join("cert.pem"), one.path().join("key.pem"));
        let absent = one.path().join("absent.pem");
        let file = |name: &str, text: &str| {
            let path = one.path().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let encrypted =
            file("encrypted.pem", "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n");
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
            (&cut, &key, ["cut.pem", "PEM"]),
            (&cert, &broken, ["broken.pem", "--tls-key"]),
            (&garbled, &key, ["garbled.pem", "certificate"]),
        ] {
            let error = open(cert, key).err().unwrap();
            assert!(parts.iter().all(|part| error.contains(part)), "{parts:?} in: {error}");
        }
    }

    #[test]
    fn chains_have_a_longest() {
        let home = home(&["localhost"]);
        let (cert, key) = (home.path().join("cert.pem"), home.path().join("key.pem"));
        let own = fs::read_to_string(&cert).unwrap();
        let len = load_certificates(&cert, CERT).unwrap()[0].len();
        let fit = CHAIN_MAX / len;
        fs::write(&cert, own.repeat(fit)).unwrap();
        open(&cert, &key).unwrap();
        fs::write(&cert, own.repeat(fit + 1)).unwrap();
        let error = open(&cert, &key).err().unwrap();
        assert!(error.contains("32768") && error.contains("--tls-cert"), "{error}");
    }

    /// Both ways to have something read again, of two pairs.
    #[test]
    fn each_pair_changes_by_itself_and_only_for_the_better() {
        for by_looking in [false, true] {
            let (one, two) = (home(&["one"]), home(&["two"]));
            let files_of = Files { pairs: vec![pair(one.path()), pair(two.path())], clients: None };
            let mut source = Source::open(files_of).unwrap();
            let mut configs = source.subscribe();
            let mut again = |source: &mut Source| {
                if by_looking {
                    // Once to see it, once to be sure that it is settled.
                    source.look();
                    source.look();
                } else {
                    source.reload();
                }
                std::mem::replace(&mut configs, source.subscribe()).has_changed().unwrap()
            };
            assert_eq!(again(&mut source), !by_looking, "nothing has changed");

            files(one.path(), &["newer"]);
            fs::write(two.path().join("key.pem"), "half of a k").unwrap();
            assert!(again(&mut source));
            assert_eq!(hosts(&source), ["newer", "two"]);

            files(two.path(), &["mended"]);
            fs::copy(two.path().join("key.pem"), one.path().join("key.pem")).unwrap();
            assert!(again(&mut source));
            assert_eq!(hosts(&source), ["newer", "mended"], "a key of another certificate is not taken");

            fs::remove_file(one.path().join("cert.pem")).unwrap();
            again(&mut source);
            assert_eq!(hosts(&source), ["newer", "mended"]);
            files(one.path(), &["back"]);
            assert!(again(&mut source));
            assert_eq!(hosts(&source), ["back", "mended"]);
        }
    }

    #[test]
    fn a_ticket_is_good_for_one_configuration() {
        let home = home(&["localhost"]);
        let mut source = open(&home.path().join("cert.pem"), &home.path().join("key.pem")).unwrap();
        let config = || source.subscribe().borrow().clone();
        let old = config();
        let ticket = old.ticketer.encrypt(b"a session").unwrap();
        assert_eq!(old.ticketer.decrypt(&ticket).unwrap(), b"a session");
        source.reload();
        let new = source.subscribe().borrow().clone();
        // It has given one as long, so that it is not the length that is refused.
        new.ticketer.encrypt(b"a session").unwrap();
        assert_eq!(new.ticketer.decrypt(&ticket), None);
        assert!(old.session_storage.put(vec![1], vec![2]));
        assert_eq!(new.session_storage.get(&[1]), None);
    }

    /// An authority's certificate in a file.
    fn authority(path: &Path, count: usize) {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::OrganizationName, "o".repeat(64));
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let pem = params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem();
        fs::write(path, pem.repeat(count)).unwrap();
    }

    fn clients(home: &Path) -> Result<Clients, String> {
        let (authorities, revoked) = (home.join("ca.pem"), Some(home.join("crl.pem")).filter(|path| path.exists()));
        ClientFiles { authorities, revoked, auth: ClientAuth::Require }.load()
    }

    #[test]
    fn sessions_of_verified_clients_are_not_resumed() {
        let home = home(&["localhost"]);
        authority(&home.path().join("ca.pem"), 1);
        let clients =
            ClientFiles { authorities: home.path().join("ca.pem"), revoked: None, auth: ClientAuth::Optional };
        let source = Source::open(Files { pairs: vec![pair(home.path())], clients: Some(clients) }).unwrap();
        let config = source.subscribe().borrow().clone();
        assert!(!config.ticketer.enabled() && !config.session_storage.can_cache());
        assert_eq!(config.send_tls13_tickets, 0);
    }

    #[test]
    fn what_is_wrong_with_authorities_and_lists_is_said() {
        let home = home(&["localhost"]);
        let at = |name: &str| home.path().join(name);
        let check = |parts: [&str; 2]| {
            let error = clients(home.path()).err().unwrap();
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
    fn names_of_many_authorities_are_not_told() {
        let home = home(&["localhost"]);
        let told = |count| {
            authority(&home.path().join("ca.pem"), count);
            clients(home.path()).unwrap().verifier.root_hint_subjects().to_vec()
        };
        let len = told(1)[0].as_ref().len();
        let fit = HINTS_MAX / len;
        assert_eq!((told(fit).len(), told(fit + 1).len()), (fit, 0));
    }

    #[test]
    fn pairs_are_counted() {
        let of = |certificates: usize, keys: usize| {
            let mut line = vec!["keyhole", "serve", "--tls-listen", "127.0.0.1:0"];
            line.extend(["--tls-cert", "c"].repeat(certificates));
            line.extend(["--tls-key", "k"].repeat(keys));
            let Command::Serve(options) = Cli::try_parse_from(line).unwrap().command else { panic!("it is serve") };
            Files::of(&options).map(|files| files.pairs.len())
        };
        assert_eq!((of(1, 1), of(PAIRS_MAX, PAIRS_MAX)), (Ok(1), Ok(PAIRS_MAX)));
        for (certificates, keys) in [(2, 1), (1, 2), (PAIRS_MAX + 1, PAIRS_MAX + 1)] {
            assert!(of(certificates, keys).is_err(), "{certificates} and {keys}");
        }
    }
}
