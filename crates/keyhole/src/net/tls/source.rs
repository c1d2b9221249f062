//! Loads TLS files at the start and reloads them when they change.
//!
//! Each pair of a certificate and its key, and the client verifier, is loaded by itself: if one
//! fails, its previous version stays in use, and the others still reload.
//!
//! Each change makes a new [`ServerConfig`] for later handshakes; established connections keep
//! their own. Tickets and sessions belong to a configuration, so a session resumes only under the
//! certificate it began with: no client continues for hours without seeing the new one.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::crypto::aws_lc_rs;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, ResolvesServerCert, ServerSessionMemoryCache};
use rustls::{Error, ServerConfig};
use tokio::sync::watch;

use super::error::TlsError;
use super::files::Watched;
use super::limits::{ALPN, PAIRS_MAX, SESSIONS_MAX};
use super::material::{ClientFiles, Load, PairFiles};
use super::names::Names;
use crate::cli::serve::{ClientAuth, ServeOptions};
use crate::reload::Reload;

/// Interval of repeated warnings that a certificate expires soon.
const WARN_EVERY: Duration = Duration::from_secs(24 * 60 * 60);

/// The files of the TLS configuration.
pub(crate) struct Files {
    pairs: Vec<PairFiles>,
    clients: Option<ClientFiles>,
}

impl Files {
    /// Returns the files that the options name.
    pub(crate) fn from_options(options: &ServeOptions) -> Result<Self, TlsError> {
        let certificates = &options.tls_cert;
        let keys = &options.tls_key;
        if certificates.len() != keys.len() {
            return Err(TlsError::UnevenPairs { certificates: certificates.len(), keys: keys.len() });
        }
        if certificates.len() > PAIRS_MAX {
            return Err(TlsError::TooManyPairs(certificates.len()));
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

/// Files with the result of their last successful load.
struct Part<F: Load> {
    files: F,
    watched: Watched,
    loaded: F::Loaded,
}

impl<F: Load> Part<F> {
    fn open(files: F) -> Result<Self, TlsError> {
        let watched = Watched::new(files.paths());
        let loaded = files.load()?;
        files.log_warnings(&loaded);
        Ok(Part { files, watched, loaded })
    }

    /// Reloads the files; returns whether the new content is in use.
    fn reload(&mut self) -> bool {
        self.watched.about_to_be_read();
        match self.files.load() {
            Ok(loaded) => {
                self.loaded = loaded;
                self.log_warnings();
                true
            }
            Err(error) => {
                tracing::warn!(
                    "{error}. The previous files stay in use; they are reloaded when they change, or on SIGHUP"
                );
                false
            }
        }
    }

    fn reload_if_changed(&mut self) -> bool {
        self.watched.have_changed() && self.reload()
    }

    fn log_warnings(&self) {
        self.files.log_warnings(&self.loaded);
    }
}

/// The sources of the TLS configuration, which are reloaded when they change.
pub(crate) struct TlsSource {
    pairs: Vec<Part<PairFiles>>,
    clients: Option<Part<ClientFiles>>,
    configs: watch::Sender<Arc<ServerConfig>>,
    warned: Instant,
}

impl TlsSource {
    /// Loads the files.
    ///
    /// # Errors
    /// The message names the file that is wrong and how to correct it.
    pub(crate) fn open(files: Files) -> Result<Self, TlsError> {
        let pairs: Vec<_> = files.pairs.into_iter().map(Part::open).collect::<Result<_, _>>()?;
        let clients = files.clients.map(Part::open).transpose()?;
        let config = make(&pairs, clients.as_ref())?;
        Ok(TlsSource { pairs, clients, configs: watch::Sender::new(Arc::new(config)), warned: Instant::now() })
    }

    /// Returns a receiver of the current and later configurations.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Arc<ServerConfig>> {
        self.configs.subscribe()
    }

    /// Publishes the loaded files for later handshakes.
    fn publish(&self) {
        match make(&self.pairs, self.clients.as_ref()) {
            Ok(config) => {
                self.configs.send_replace(Arc::new(config));
                tracing::info!("reloaded the TLS certificates: new connections use them");
            }
            Err(error) => tracing::error!("{error}. The previous files stay in use"),
        }
    }

    /// Logs once a day which certificates expire soon.
    fn log_warnings(&mut self, now: Instant) {
        if now.duration_since(self.warned) >= WARN_EVERY {
            self.warned = now;
            self.pairs.iter().for_each(Part::log_warnings);
            self.clients.iter().for_each(Part::log_warnings);
        }
    }

    /// Returns whether any part has changed; asks every part.
    fn any(&mut self, pair: fn(&mut Part<PairFiles>) -> bool, clients: fn(&mut Part<ClientFiles>) -> bool) -> bool {
        let of_pairs = self.pairs.iter_mut().map(pair).fold(false, |any, is_new| any | is_new);
        let of_clients = self.clients.as_mut().is_some_and(clients);
        of_pairs || of_clients
    }
}

impl Reload for TlsSource {
    fn reload(&mut self) {
        if self.any(Part::reload, Part::reload) {
            self.publish();
        }
    }

    fn reload_if_changed(&mut self) {
        if self.any(Part::reload_if_changed, Part::reload_if_changed) {
            self.publish();
        }
        self.log_warnings(Instant::now());
    }
}

fn make(pairs: &[Part<PairFiles>], clients: Option<&Part<ClientFiles>>) -> Result<ServerConfig, TlsError> {
    let certificates = pairs.iter().map(|pair| (pair.loaded.certified.clone(), &pair.loaded.facts.hosts[..]));
    let names = Names::new(certificates).ok_or(TlsError::NoPair)?;
    let verifier = clients.map(|clients| clients.loaded.verifier.clone());
    config(Arc::new(names), verifier).map_err(TlsError::Setup)
}

/// Returns a configuration for TLS 1.3 and 1.2 with these certificates, and with client
/// certificates if there is a verifier.
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
    // For the node's own record layer.
    config.enable_secret_extraction = true;
    if is_for_anybody {
        // The ticket keys are in memory only, and rotate every few hours.
        config.ticketer = aws_lc_rs::Ticketer::new()?;
        // For TLS 1.2 clients without ticket support.
        config.session_storage = ServerSessionMemoryCache::new(SESSIONS_MAX);
    } else {
        // A resumed session carries the client's earlier certificate without verifying it again, so
        // expiry would go unnoticed. Verify every connection instead.
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

    use super::super::material::tests::{authority, files, home};
    use super::*;
    use crate::cli::{Cli, Command};

    fn pair(home: &Path) -> PairFiles {
        PairFiles { certificate: home.join("cert.pem"), key: home.join("key.pem") }
    }

    fn open(certificate: &Path, key: &Path) -> Result<TlsSource, TlsError> {
        let pair = PairFiles { certificate: certificate.to_owned(), key: key.to_owned() };
        TlsSource::open(Files { pairs: vec![pair], clients: None })
    }

    fn hosts(source: &TlsSource) -> Vec<&str> {
        source.pairs.iter().flat_map(|pair| &pair.loaded.facts.hosts).map(|host| &host[..]).collect()
    }

    #[test]
    fn matching_pair_is_loaded() {
        let home = home(&["localhost"]);
        let source = open(&home.path().join("cert.pem"), &home.path().join("key.pem")).unwrap();
        let config = source.subscribe().borrow().clone();
        assert_eq!(config.alpn_protocols, [ALPN]);
        assert!(config.ticketer.enabled());
    }

    /// Tests both ways to reload, with two pairs.
    #[test]
    fn pairs_reload_independently_if_valid() {
        for by_looking in [false, true] {
            let one = home(&["one"]);
            let two = home(&["two"]);
            let files_of = Files { pairs: vec![pair(one.path()), pair(two.path())], clients: None };
            let mut source = TlsSource::open(files_of).unwrap();
            let mut configs = source.subscribe();
            let mut again = |source: &mut TlsSource| {
                if by_looking {
                    // One poll to see the change, one to see that it has settled.
                    source.reload_if_changed();
                    source.reload_if_changed();
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
    fn warnings_repeat_once_a_day() {
        let home = home(&["localhost"]);
        let mut source = open(&home.path().join("cert.pem"), &home.path().join("key.pem")).unwrap();
        let begin = source.warned;
        let mut again = |after: Duration| {
            source.log_warnings(begin + after);
            source.warned - begin
        };
        assert_eq!(again(WARN_EVERY - Duration::from_secs(1)), Duration::ZERO);
        assert_eq!(again(WARN_EVERY), WARN_EVERY);
        assert_eq!(again(2 * WARN_EVERY - Duration::from_secs(1)), WARN_EVERY);
        assert_eq!(again(2 * WARN_EVERY), 2 * WARN_EVERY);
    }

    #[test]
    fn ticket_is_valid_for_one_configuration() {
        let home = home(&["localhost"]);
        let mut source = open(&home.path().join("cert.pem"), &home.path().join("key.pem")).unwrap();
        let config = || source.subscribe().borrow().clone();
        let old = config();
        let ticket = old.ticketer.encrypt(b"a session").unwrap();
        assert_eq!(old.ticketer.decrypt(&ticket).unwrap(), b"a session");
        source.reload();
        let new = source.subscribe().borrow().clone();
        // A ticket of equal length, so that the refusal is not due to the length.
        new.ticketer.encrypt(b"a session").unwrap();
        assert_eq!(new.ticketer.decrypt(&ticket), None);
        assert!(old.session_storage.put(vec![1], vec![2]));
        assert_eq!(new.session_storage.get(&[1]), None);
    }

    #[test]
    fn sessions_of_verified_clients_are_not_resumed() {
        let home = home(&["localhost"]);
        authority(&home.path().join("ca.pem"), 1);
        let clients =
            ClientFiles { authorities: home.path().join("ca.pem"), revoked: None, auth: ClientAuth::Optional };
        let source = TlsSource::open(Files { pairs: vec![pair(home.path())], clients: Some(clients) }).unwrap();
        let config = source.subscribe().borrow().clone();
        assert!(!config.ticketer.enabled() && !config.session_storage.can_cache());
        assert_eq!(config.send_tls13_tickets, 0);
    }

    #[test]
    fn pair_count_is_bounded() {
        let of = |certificates: usize, keys: usize| {
            let mut line = vec!["keyhole", "serve", "--tls-listen", "127.0.0.1:0"];
            line.extend(["--tls-cert", "c"].repeat(certificates));
            line.extend(["--tls-key", "k"].repeat(keys));
            let Command::Serve(options) = Cli::try_parse_from(line).unwrap().command else { panic!("it is serve") };
            Files::from_options(&options).map(|files| files.pairs.len())
        };
        assert_eq!((of(1, 1).unwrap(), of(PAIRS_MAX, PAIRS_MAX).unwrap()), (1, PAIRS_MAX));
        for (certificates, keys) in [(2, 1), (1, 2), (PAIRS_MAX + 1, PAIRS_MAX + 1)] {
            assert!(of(certificates, keys).is_err(), "{certificates} and {keys}");
        }
    }
}
