//! TLS for tests: generated certificates, and a client that trusts them.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType, IsCa, KeyIdMethod,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, RevokedCertParams, SerialNumber, SignatureAlgorithm,
};
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tempfile::TempDir;

use crate::{Launch, Request, Response, sigv4::Signer};

/// Timeout for data from the node.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Names in the node's certificate.
const NAMES: [&str; 2] = ["localhost", "127.0.0.1"];

/// A client connection.
pub type TlsConnection = StreamOwned<ClientConnection, TcpStream>;

/// A certificate and its key.
pub struct IssuedCertificate {
    /// The certificate in PEM.
    pub pem: String,
    /// The certificate in DER.
    pub der: CertificateDer<'static>,
    /// The key in PEM.
    pub key_pem: String,
    serial: SerialNumber,
}

/// A certificate for a node on this machine, issued by its own test CA, in files.
pub struct Certificate {
    home: TempDir,
    authority: CertifiedIssuer<'static, KeyPair>,
    roots: Arc<RootCertStore>,
}

impl Default for Certificate {
    fn default() -> Self {
        Self::new()
    }
}

impl Certificate {
    /// Creates a CA and a certificate.
    pub fn new() -> Self {
        let home = tempfile::tempdir().expect("a directory");
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        // Clients look up a CA by name: make it unique.
        let name = format!("the tests' authority {:016x}", fastrand::u64(..));
        authority.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        let authority = CertifiedIssuer::self_signed(authority, key).expect("a certificate");
        let mut roots = RootCertStore::empty();
        roots.add(authority.der().clone()).expect("an authority");
        let made = Certificate { home, authority, roots: Arc::new(roots) };
        made.issue(&NAMES).write(&made.path(), &made.key_path());
        replace_file(&made.authority_path(), &made.authority.pem());
        made
    }

    /// Issues a certificate for these names.
    pub fn issue(&self, names: &[&str]) -> IssuedCertificate {
        self.issue_with(names, &PKCS_ECDSA_P256_SHA256, 365)
    }

    /// Issues a certificate with this key type, valid for `days` from now; negative if expired.
    pub fn issue_with(&self, names: &[&str], algorithm: &'static SignatureAlgorithm, days: i32) -> IssuedCertificate {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names");
        params.use_authority_key_identifier_extension = true;
        let serial = SerialNumber::from(fastrand::u64(1 << 40..1 << 62));
        params.serial_number = Some(serial.clone());
        let day = Duration::from_secs(24 * 60 * 60);
        let now = rcgen::date_time_ymd(1970, 1, 1) + std::time::UNIX_EPOCH.elapsed().expect("a clock after 1970");
        // An hour of slack makes days whole.
        let after = now + day / 24;
        let length = day * days.unsigned_abs();
        params.not_before = now - 400 * day;
        params.not_after = if days < 0 { after - length } else { after + length };
        let key = KeyPair::generate_for(algorithm).expect("a key");
        let certificate = params.signed_by(&key, &self.authority).expect("a certificate");
        IssuedCertificate {
            pem: certificate.pem(),
            der: certificate.der().clone(),
            key_pem: key.serialize_pem(),
            serial,
        }
    }

    /// Creates a revocation list in PEM whose next update is in `days`; negative if overdue.
    pub fn revoke(&self, revoked: &[&IssuedCertificate], days: i32) -> String {
        let now = rcgen::date_time_ymd(1970, 1, 1) + std::time::UNIX_EPOCH.elapsed().expect("a clock after 1970");
        let day = Duration::from_secs(24 * 60 * 60);
        let length = day * days.unsigned_abs();
        let list = CertificateRevocationListParams {
            this_update: now - 100 * day,
            next_update: if days < 0 { now - length } else { now + length },
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked
                .iter()
                .map(|issued| RevokedCertParams {
                    serial_number: issued.serial.clone(),
                    revocation_time: now - day,
                    reason_code: None,
                    invalidity_date: None,
                })
                .collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.authority).and_then(|list| list.pem()).expect("a list")
    }

    /// Returns the path of the certificate.
    pub fn path(&self) -> PathBuf {
        self.home.path().join("cert.pem")
    }

    /// Returns the path of its key.
    pub fn key_path(&self) -> PathBuf {
        self.home.path().join("key.pem")
    }

    /// Returns the path of the CA certificate.
    pub fn authority_path(&self) -> PathBuf {
        self.home.path().join("authority.pem")
    }

    /// Returns the directory of these files.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// Returns options for a node with a TLS listener on an address.
    pub fn launch(&self, address: &str) -> Launch {
        let listen = Launch::default().with_credential().arg("--tls-listen").arg(address);
        listen.arg("--tls-cert").arg(self.path()).arg("--tls-key").arg(self.key_path())
    }

    /// Returns the configuration of a client that trusts the CA and presents a certificate.
    pub fn client_with(&self, own: &IssuedCertificate) -> Arc<ClientConfig> {
        let key = PrivateKeyDer::from_pem_slice(own.key_pem.as_bytes()).expect("a key");
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions of the provider")
            .with_root_certificates(self.roots.clone())
            .with_client_auth_cert(vec![own.der.clone()], key);
        Arc::new(config.expect("a certificate with its key"))
    }

    /// Returns the configuration of a client that trusts the CA and offers these versions and
    /// protocols.
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

impl IssuedCertificate {
    /// Writes certificate and key to files, each replaced atomically.
    pub fn write(&self, certificate: &Path, key: &Path) {
        replace_file(key, &self.key_pem);
        replace_file(certificate, &self.pem);
    }
}

/// Replaces a file atomically, with access for its owner only.
pub fn replace_file(path: &Path, text: &str) {
    let new = path.with_extension("new");
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new);
    file.and_then(|mut file| file.write_all(text.as_bytes())).expect("a file");
    fs::rename(&new, path).expect("a rename");
}

/// Runs `openssl s_client`, sends `request`, and returns its output and whether the connection was
/// established.
pub fn s_client(to: SocketAddr, arguments: &[&str], request: &str) -> (String, bool) {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", &to.to_string()]).args(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("openssl runs: tests/run installs it");
    // It may exit before it reads the request.
    let _ = child.stdin.take().expect("a pipe").write_all(request.as_bytes());
    let output = child.wait_with_output().expect("openssl runs");
    let text = [output.stdout, output.stderr].concat();
    (String::from_utf8_lossy(&text).into_owned(), output.status.success())
}

/// Connects; the handshake takes place on the first read or write.
pub fn connect(to: SocketAddr, client: &Arc<ClientConfig>) -> io::Result<TlsConnection> {
    connect_as("localhost", to, client)
}

/// Connects with this server name.
pub fn connect_as(name: &str, to: SocketAddr, client: &Arc<ClientConfig>) -> io::Result<TlsConnection> {
    let name = name.to_owned().try_into().expect("a name");
    let connection = ClientConnection::new(client.clone(), name).map_err(io::Error::other)?;
    let tcp = TcpStream::connect(to)?;
    tcp.set_read_timeout(Some(TIMEOUT))?;
    tcp.set_nodelay(true)?;
    Ok(StreamOwned::new(connection, tcp))
}

/// Sends a signed request over a new connection.
pub fn send(request: &Request, to: SocketAddr, signer: &Signer, client: &Arc<ClientConfig>) -> Response {
    let request = request.clone().signed(to, signer);
    let mut connection = connect(to, client).expect("the node listens");
    request.exchange(&mut connection, &request.head(to)).expect("a reply")
}
