//! TLS: certificates made for a test, and a client that trusts them.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion};
use tempfile::TempDir;

use crate::{Launch, Request, Response, sigv4::Signer};

/// How long the node may be quiet.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The names that the node's certificate is for.
const NAMES: [&str; 2] = ["localhost", "127.0.0.1"];

/// A client's connection.
pub type Connection = StreamOwned<ClientConnection, TcpStream>;

/// A certificate for a node on this machine, signed by an authority of its own, in files.
pub struct Certificate {
    home: TempDir,
    roots: Arc<RootCertStore>,
}

impl Default for Certificate {
    fn default() -> Self {
        Self::new()
    }
}

impl Certificate {
    /// A new one.
    pub fn new() -> Self {
        let home = tempfile::tempdir().expect("a directory");
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        authority.distinguished_name.push(DnType::CommonName, "the tests' authority");
        let key = || KeyPair::generate().expect("a key");
        let authority = CertifiedIssuer::self_signed(authority, key()).expect("a certificate");
        let mut node = CertificateParams::new(NAMES.map(str::to_owned)).expect("names");
        node.use_authority_key_identifier_extension = true;
        let node_key = key();
        let certificate = node.signed_by(&node_key, &authority).expect("a certificate");
        let mut roots = RootCertStore::empty();
        roots.add(authority.der().clone()).expect("an authority");
        let made = Certificate { home, roots: Arc::new(roots) };
        let write = |path: PathBuf, text: String| {
            let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
            file.and_then(|mut file| file.write_all(text.as_bytes())).expect("a file");
        };
        write(made.path(), certificate.pem());
        write(made.key_path(), node_key.serialize_pem());
        write(made.authority_path(), authority.pem());
        made
    }

    /// The file with the certificate.
    pub fn path(&self) -> PathBuf {
        self.home.path().join("cert.pem")
    }

    /// The file with its key.
    pub fn key_path(&self) -> PathBuf {
        self.home.path().join("key.pem")
    }

    /// The file with the authority's certificate, to be trusted.
    pub fn authority_path(&self) -> PathBuf {
        self.home.path().join("authority.pem")
    }

    /// The directory of them.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// A node with a TLS listener on an address.
    pub fn launch(&self, address: &str) -> Launch {
        let listen = Launch::default().with_credential().arg("--tls-listen").arg(address);
        listen.arg("--tls-cert").arg(self.path()).arg("--tls-key").arg(self.key_path())
    }

    /// A client that trusts the authority and offers these versions and protocols.
    pub fn client(&self, versions: &[&'static SupportedProtocolVersion], protocols: &[&str]) -> Arc<ClientConfig> {
        let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(versions)
            .expect("versions of the provider")
            .with_root_certificates(self.roots.clone())
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        Arc::new(config)
    }
}

/// Connects; the handshake comes with the first byte that is read or written.
pub fn connect(to: SocketAddr, client: &Arc<ClientConfig>) -> io::Result<Connection> {
    let name = "localhost".try_into().expect("a name");
    let connection = ClientConnection::new(client.clone(), name).map_err(io::Error::other)?;
    let tcp = TcpStream::connect(to)?;
    tcp.set_read_timeout(Some(TIMEOUT))?;
    tcp.set_nodelay(true)?;
    Ok(StreamOwned::new(connection, tcp))
}

/// Sends a signed request over a connection of its own.
pub fn send(request: &Request, to: SocketAddr, signer: &Signer, client: &Arc<ClientConfig>) -> Response {
    let request = request.clone().signed(to, signer);
    let mut connection = connect(to, client).expect("the node listens");
    request.exchange(&mut connection, &request.head(to)).expect("a reply")
}
