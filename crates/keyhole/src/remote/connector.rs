//! Connections to the service of a remote.

use std::future::Future;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::Uri;
use hyper_util::rt::TokioIo;
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tower_service::Service;

use super::error::RemoteError;
use super::limits::CA_MAX;
use super::stream::TimedStream;
use crate::error::FileError;
use crate::regular;

/// Timeout of name resolution, TCP and TLS handshake in total.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Timeout of a connection that neither sends nor receives.
const PROGRESS_TIMEOUT: Duration = Duration::from_secs(60);

/// Connects to the service, with TLS if its URL is `https`.
#[derive(Clone)]
pub(super) struct Connector {
    tls: Option<TlsConnector>,
}

impl Connector {
    /// Returns a connector for `http` URLs.
    pub(super) fn plain() -> Self {
        Connector { tls: None }
    }

    /// Returns a connector for `https` URLs that trusts the authorities in a file, or those of the
    /// system.
    pub(super) fn with_tls(ca: Option<&Path>) -> Result<Self, RemoteError> {
        let roots = match ca {
            Some(path) => authorities_in(path)?,
            None => system_authorities()?,
        };
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| RemoteError::Setup(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Connector { tls: Some(TlsConnector::from(Arc::new(config))) })
    }
}

/// Reads authorities from a file in PEM.
fn authorities_in(path: &Path) -> Result<RootCertStore, RemoteError> {
    let invalid = |reason: String| RemoteError::InvalidAuthority { path: path.to_owned(), reason };
    let pem = regular::read(path, CA_MAX).map_err(|error| FileError::new("cannot read", path, error))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| invalid(error.to_string()))?;
        roots.add(certificate).map_err(|error| invalid(error.to_string()))?;
    }
    if roots.is_empty() { Err(RemoteError::NoAuthority(path.to_owned())) } else { Ok(roots) }
}

/// Loads the authorities of the system, usually from `/etc/ssl/certs`.
fn system_authorities() -> Result<RootCertStore, RemoteError> {
    let mut roots = RootCertStore::empty();
    // Single certificates that cannot be read do not matter.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() { Err(RemoteError::NoSystemAuthorities) } else { Ok(roots) }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<TimedStream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let tls = self.tls.clone();
        Box::pin(async move {
            let connected = timeout(CONNECT_TIMEOUT, connect(tls, uri)).await;
            connected.unwrap_or_else(|_| {
                let seconds = CONNECT_TIMEOUT.as_secs();
                Err(io::Error::new(io::ErrorKind::TimedOut, format!("no connection after {seconds} s")))
            })
        })
    }
}

async fn connect(tls: Option<TlsConnector>, uri: Uri) -> io::Result<TokioIo<TimedStream>> {
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
    let port = uri.port_u16().unwrap_or(if tls.is_some() { 443 } else { 80 });
    let tcp = TcpStream::connect((&host[..], port)).await?;
    tcp.set_nodelay(true)?;
    let Some(tls) = tls else { return Ok(TokioIo::new(TimedStream::new(Box::new(tcp), PROGRESS_TIMEOUT))) };
    let name = ServerName::try_from(host).map_err(io::Error::other)?;
    let stream = tls.connect(name, tcp).await.map_err(|error| {
        let is_untrusted = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        match is_untrusted {
            Some(rustls::Error::InvalidCertificate(reason)) => {
                io::Error::other(format!("the certificate of the service is not accepted ({reason}): check --ca"))
            }
            _ => io::Error::new(error.kind(), format!("TLS handshake failed: {error}")),
        }
    })?;
    Ok(TokioIo::new(TimedStream::new(Box::new(stream), PROGRESS_TIMEOUT)))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn file_of_authorities_has_certificates() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("ca.pem");
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(vec!["a".to_owned()]).unwrap().self_signed(&key).unwrap();
        fs::write(&path, certificate.pem()).unwrap();
        assert_eq!(authorities_in(&path).unwrap().len(), 1);
        fs::write(&path, certificate.pem().repeat(2)).unwrap();
        assert_eq!(authorities_in(&path).unwrap().len(), 2);

        for bad in ["", "no certificate", &key.serialize_pem()] {
            fs::write(&path, bad).unwrap();
            assert!(matches!(authorities_in(&path), Err(RemoteError::NoAuthority(_))), "{bad}");
        }
        fs::write(&path, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
        assert!(matches!(authorities_in(&path), Err(RemoteError::InvalidAuthority { .. })));
        fs::write(&path, vec![b'\n'; CA_MAX as usize]).unwrap();
        assert!(matches!(authorities_in(&path), Err(RemoteError::NoAuthority(_))));
        fs::write(&path, vec![b'\n'; CA_MAX as usize + 1]).unwrap();
        assert!(matches!(authorities_in(&path), Err(RemoteError::File(_))));
    }
}
