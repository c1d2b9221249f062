//! HTTPS: certificates, the handshake, and connections that encrypt.
//!
//! TLS is rustls's, with AWS-LC, and knows nothing of sockets ([`session`]): received bytes go in, bytes to send come out. So it runs
//! over a connection of the ring as over one of epoll ([`stream`]), with their buffers and their time-outs.
//!
//! # Invariants
//! - An operation in flight owns its buffer, and is awaited.
//! - What a connection holds is bounded ([`RECEIVE_LEN`], [`HELD_MAX`], [`SEND_PLAIN`]), and so is the time of its handshake.
//! - Our buffers that held plaintext are wiped as it is taken, and left out of core dumps where it is received.
//! - The end of a connection is the peer's only with `close_notify`; without it only where nothing was under way. We say
//!   `close_notify` where we end in good order, and nowhere else.

mod session;
mod stream;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::aws_lc_rs::{self, sign};
use rustls::server::ServerSessionMemoryCache;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{Error, InconsistentKeys, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::{Zeroize, Zeroizing};

use crate::buffer::Pool;
use crate::worker::{Socket, in_time, timed_out};
use session::Session;
pub(crate) use stream::TlsStream;

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Room for one record as it comes: a header of 5 bytes, 16 KiB, and up to 2 KiB of overhead; whole pages.
const RECORD_ROOM: usize = 20 * 1024;

/// Bytes that a connection receives into: what is left of a record that has begun, and four whole ones. A message of the handshake
/// has to fit.
const RECEIVE_LEN: usize = RECORD_ROOM + 68 * 1024;

/// Plaintext that a connection may hold until it is asked for: what is left of one record, and all that was received besides.
const HELD_MAX: usize = RECEIVE_LEN + RECORD_PLAIN;

/// The most plaintext in one record.
const RECORD_PLAIN: usize = 16 * 1024;

/// Bytes that are encrypted, and sent, at a time: four records.
const SEND_PLAIN: usize = 4 * RECORD_PLAIN;

/// Sessions that clients may resume, of all workers together; the oldest are forgotten.
const SESSIONS_MAX: usize = 256;

/// The only protocol spoken here.
const ALPN: &[u8] = b"http/1.1";

/// What is said to clients, with the certificate and the key of two files. An error says which file is wrong, and what to do.
pub(crate) fn load(certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>, String> {
    let chain = load_chain(certificate)?;
    let mut der = load_key(key)?;
    let signing = sign::any_supported_type(&der);
    der.zeroize();
    let signing = signing.map_err(|error| {
        format!("cannot use the key in {}: {error}; give an ECDSA, Ed25519 or RSA key with --tls-key", key.display())
    })?;
    let certified = CertifiedKey::new(chain, signing);
    match certified.keys_match() {
        // A kind of key that does not show its public half: the first handshake would tell.
        Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
        Err(Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
            return Err(format!(
                "the key in {} does not belong to the first certificate in {}; give --tls-key and --tls-cert that were made \
                 together, the node's own certificate first",
                key.display(),
                certificate.display()
            ));
        }
        Err(error) => return Err(format!("cannot use the certificate in {}: {error}", certificate.display())),
    }
    config(certified).map(Arc::new).map_err(|error| format!("cannot set up TLS: {error}"))
}

/// TLS 1.3 and 1.2, with this certificate.
fn config(certified: CertifiedKey) -> Result<ServerConfig, Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.session_storage = ServerSessionMemoryCache::new(SESSIONS_MAX);
    Ok(config)
}

fn load_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let pem = fs::read(path).map_err(|error| format!("cannot read --tls-cert {}: {error}", path.display()))?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match chain {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        Ok(_) => Err(format!(
            "there is no certificate in {}; give a PEM file with --tls-cert, that has BEGIN CERTIFICATE in it",
            path.display()
        )),
        Err(error) => Err(format!("{} is no sound PEM file: {error}; make it anew", path.display())),
    }
}

fn load_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let pem = fs::read(path).map_err(|error| format!("cannot read --tls-key {}: {error}", path.display()))?;
    let pem = Zeroizing::new(pem);
    let mode = fs::metadata(path).map(|metadata| metadata.permissions().mode()).unwrap_or_default();
    if mode & 0o007 != 0 {
        tracing::warn!("{} can be read by everybody; chmod 600 it", path.display());
    }
    let is_encrypted = pem.windows(ENCRYPTED.len()).any(|window| window == ENCRYPTED);
    // The parser's own message could quote the file.
    match PrivateKeyDer::from_pem_slice(&pem) {
        Ok(key) => Ok(key),
        Err(_) if is_encrypted => Err(format!(
            "the key in {0} is encrypted; decrypt it with openssl pkey -in {0} -out NEW, and give NEW with --tls-key",
            path.display()
        )),
        Err(_) => Err(format!(
            "there is no private key in {}; give a PEM file with --tls-key, that has BEGIN PRIVATE KEY in it, or EC or RSA \
             before PRIVATE",
            path.display()
        )),
    }
}

const ENCRYPTED: &[u8] = b"BEGIN ENCRYPTED PRIVATE KEY";

/// Makes connections TLS connections, for one worker.
#[derive(Clone)]
pub(crate) struct Acceptor {
    config: Arc<ServerConfig>,
    pool: Pool,
}

impl Acceptor {
    pub(crate) fn new(config: Arc<ServerConfig>) -> Self {
        Acceptor { config, pool: Pool::of(RECEIVE_LEN) }
    }

    /// Shakes hands. Where nothing comes of it the connection has been ended.
    pub(crate) async fn accept<P: Socket>(&self, plain: P) -> Option<TlsStream<P>> {
        let session = match Session::new(self.config.clone(), self.pool.take()) {
            Ok(session) => session,
            Err(error) => {
                tracing::error!(%error, "cannot begin a TLS connection");
                plain.abort();
                return None;
            }
        };
        let stream = TlsStream::new(plain, session);
        let (result, was_in_time) = in_time(HANDSHAKE, stream.shake_hands(), || stream.end_at_once()).await;
        match timed_out(result, was_in_time) {
            Ok(()) => Some(stream),
            Err(error) => {
                tracing::debug!(peer = %stream.address(), %error, "no TLS connection came of it");
                stream.end_without_a_word().await;
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(names: &[&str]) -> (tempfile::TempDir, rcgen::CertifiedKey<rcgen::KeyPair>) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("cert.pem"), made.cert.pem()).unwrap();
        fs::write(directory.path().join("key.pem"), made.signing_key.serialize_pem()).unwrap();
        (directory, made)
    }

    #[test]
    fn a_pair_that_belongs_together_is_taken() {
        let (directory, _) = files(&["localhost"]);
        let config = load(&directory.path().join("cert.pem"), &directory.path().join("key.pem")).unwrap();
        assert_eq!(config.alpn_protocols, [ALPN]);
    }

    #[test]
    fn what_is_wrong_with_the_files_is_said() {
        let (one, _) = files(&["localhost"]);
        let (other, _) = files(&["localhost"]);
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
            let error = load(cert, key).unwrap_err();
            assert!(parts.iter().all(|part| error.contains(part)), "{parts:?} in: {error}");
        }
    }
}
