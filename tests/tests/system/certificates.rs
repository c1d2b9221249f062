//! Certificates: replaced at run time, selected by name, requested from clients, created and shown.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use keyhole_tests::command::{Directory, expect_failure, expect_success, run};
use keyhole_tests::data::bytes;
use keyhole_tests::http::object;
use keyhole_tests::tls::{IssuedCertificate, TlsConnection, connect, connect_as, replace_file, s_client};
use keyhole_tests::{Aws, Certificate, CustomerKey, Launch, Node, Request, Response};
use rcgen::{PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256};
use rustls::version::{TLS12, TLS13};

const ANY_PORT: &str = "127.0.0.1:0";

/// Timeout until a change takes effect, on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Time to observe that a change has no effect: several polls of the files.
const OBSERVATION_TIME: Duration = Duration::from_secs(6);

/// Waits until a condition holds.
pub(crate) fn wait_until(what: &str, is_true: impl Fn() -> bool) {
    let started = Instant::now();
    while !is_true() {
        assert!(started.elapsed() < TIMEOUT, "not in time: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Returns the certificate in DER that the node presents to a new client.
fn served_certificate(node: &Node, certificate: &Certificate) -> Vec<u8> {
    let client = certificate.client(&[&TLS13], &[]);
    let mut connection = connect(node.tls_address(), &client).unwrap();
    connection.conn.complete_io(&mut connection.sock).unwrap();
    connection.conn.peer_certificates().unwrap()[0].to_vec()
}

/// A method of replacing the files of a certificate.
#[derive(Clone, Copy, Debug)]
enum Replacement {
    /// Renames, as by editors and `install`, and SIGHUP.
    RenamesAndSighup,
    /// Renames only.
    Renames,
    /// In-place writes, one file after another and in pieces.
    Pieces,
    /// Two symbolic links through a third one that changes: a mounted secret, or a tool that keeps
    /// all versions.
    Links,
}

fn replace(replacement: Replacement, issued: &IssuedCertificate, node: &Node, certificate: &Certificate) {
    let cert = certificate.path();
    let key = certificate.key_path();
    match replacement {
        Replacement::RenamesAndSighup => {
            issued.write(&cert, &key);
            node.reload();
        }
        Replacement::Renames => issued.write(&cert, &key),
        Replacement::Pieces => {
            for (path, text) in [(&cert, &issued.pem), (&key, &issued.key_pem)] {
                for end in [0, text.len() / 3, text.len()] {
                    fs::write(path, &text[..end]).unwrap();
                    thread::sleep(Duration::from_millis(100));
                }
            }
        }
        Replacement::Links => {
            let home = certificate.home();
            let version = home.join(format!("version-{}", fs::read_dir(home).unwrap().count()));
            fs::create_dir(&version).unwrap();
            issued.write(&version.join("cert.pem"), &version.join("key.pem"));
            let link = |to: &Path, at: &Path| {
                let new = home.join("link");
                symlink(to, &new).unwrap();
                fs::rename(&new, at).unwrap();
            };
            link(&version, &home.join("current"));
            for path in [&key, &cert] {
                if fs::read_link(path).is_err() {
                    link(&Path::new("current").join(path.file_name().unwrap()), path);
                }
            }
        }
    }
}

/// Clients that send requests continuously: half of them with a connection per request, half on a
/// persistent one.
struct TlsLoad<'l> {
    node: &'l Node,
    certificate: &'l Certificate,
    stop: AtomicBool,
    requests: AtomicUsize,
    connections: AtomicUsize,
}

impl TlsLoad<'_> {
    const CLIENTS: usize = 10;

    fn run(&self, id: usize) {
        let to = self.node.tls_address();
        let version = if id.is_multiple_of(3) { &TLS12 } else { &TLS13 };
        // Resumes sessions, like real clients.
        let client = self.certificate.client(&[version], &["http/1.1"]);
        let is_kept = id.is_multiple_of(2);
        let open = || {
            self.connections.fetch_add(1, Ordering::Relaxed);
            connect(to, &client).unwrap()
        };
        let key = CustomerKey::random();
        let name = format!("o-{id}");
        let mut kept: Option<TlsConnection> = None;
        for round in 0.. {
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            let body = bytes(round, [100, 70_000, 1_500_000][round as usize % 3]);
            for (method, sent) in [("PUT", &body[..]), ("GET", b"")] {
                let request = object(method, &name).headers(key.headers()).body(sent).signed(to, self.node.signer());
                let reply = if is_kept {
                    request.exchange(kept.get_or_insert_with(open), &request.keep_alive_head(to))
                } else {
                    request.exchange(&mut open(), &request.head(to))
                };
                let response: Response =
                    reply.unwrap_or_else(|error| panic!("client {id}, round {round}, {method}: {error}"));
                let response = response.expect(200);
                assert!(
                    response.is_complete && (method == "PUT" || response.body == body),
                    "client {id}, round {round}"
                );
                self.requests.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// No request fails while the certificate is replaced repeatedly in every way, or while the files
/// are invalid.
#[test]
fn certificate_replaced_under_load_fails_no_request() {
    for io in ["uring", "epoll"] {
        let certificate = Certificate::new();
        let node = certificate.launch(ANY_PORT).arg(format!("--io={io}")).arg("--threads=2").start();
        node.make_bucket("bucket");
        let load = TlsLoad {
            node: &node,
            certificate: &certificate,
            stop: AtomicBool::new(false),
            requests: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
        };
        let replacements = [
            Replacement::RenamesAndSighup,
            Replacement::Renames,
            Replacement::RenamesAndSighup,
            Replacement::Pieces,
            Replacement::RenamesAndSighup,
            Replacement::Links,
            Replacement::Links,
        ];
        thread::scope(|scope| {
            // Stop the clients even if an assertion fails.
            let _stop = StopOnDrop(&load.stop);
            let clients: Vec<_> = (0..TlsLoad::CLIENTS)
                .map(|id| {
                    scope.spawn({
                        let load = &load;
                        move || load.run(id)
                    })
                })
                .collect();
            for replacement in replacements {
                let before = load.requests.load(Ordering::Relaxed);
                let issued = certificate.issue(&["localhost", "127.0.0.1"]);
                replace(replacement, &issued, &node, &certificate);
                wait_until(&format!("{replacement:?}"), || served_certificate(&node, &certificate) == *issued.der);
                wait_until("requests continue", || load.requests.load(Ordering::Relaxed) > before + TlsLoad::CLIENTS);
                assert!(clients.iter().all(|client| !client.is_finished()), "{replacement:?}");
            }
            // An invalid pair is not used.
            let last = served_certificate(&node, &certificate);
            replace_file(&certificate.key_path(), &certificate.issue(&["localhost"]).key_pem);
            node.reload();
            wait_until("a warning", || node.log().contains("does not belong to the first certificate"));
            assert!(served_certificate(&node, &certificate) == last);
            load.stop.store(true, Ordering::Relaxed);
            clients.into_iter().for_each(|client| client.join().unwrap());
        });
        let requests = load.requests.into_inner();
        let connections = load.connections.into_inner();
        println!("--io {io}: {requests} requests on {connections} connections, {} certificates", replacements.len());
        // Persistent connections were kept: one per client that uses them.
        assert!(requests > 200 && connections > 50 && connections < requests, "{requests} on {connections}");
        assert_eq!(node.log().matches("SIGHUP: reloading").count(), 4);
        assert!(!node.log().contains("ERROR"));
    }
}

/// Stops the clients on drop.
struct StopOnDrop<'s>(&'s AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// An invalid pair leaves the current one in use, and the log suggests a remedy. The node retries
/// only when the files change.
#[test]
fn invalid_certificate_leaves_current_one_in_use() {
    let certificate = Certificate::new();
    let node = certificate.launch(ANY_PORT).start();
    let first = served_certificate(&node, &certificate);
    let warnings = || node.log().matches("The previous files stay in use").count();
    for (n, (what, change)) in [
        (
            "invalid PEM file",
            &(|| replace_file(&certificate.path(), "-----BEGIN CERTIFICATE-----\nAAAA\n")) as &dyn Fn(),
        ),
        ("no certificate in", &|| replace_file(&certificate.path(), "")),
        ("cannot read --tls-cert", &|| fs::remove_file(certificate.path()).unwrap()),
        ("does not belong", &|| replace_file(&certificate.path(), &certificate.issue(&["localhost"]).pem)),
    ]
    .into_iter()
    .enumerate()
    {
        change();
        wait_until(what, || node.log().contains(what) && warnings() == n + 1);
        assert!(served_certificate(&node, &certificate) == first, "{what}");
    }
    // Each warning is logged once.
    thread::sleep(OBSERVATION_TIME);
    assert_eq!(warnings(), 4);
    let issued = certificate.issue(&["localhost"]);
    issued.write(&certificate.path(), &certificate.key_path());
    wait_until("the new certificate is in use", || served_certificate(&node, &certificate) == *issued.der);
    assert_eq!(warnings(), 4);
}

#[test]
fn sighup_without_certificates_keeps_node_running() {
    let mut node = Node::with_bucket();
    node.reload();
    wait_until("SIGHUP is logged", || node.log().contains("SIGHUP"));
    node.send(&object("GET", "absent")).expect(404);
    assert!(node.stop().success());
}

/// Returns whether OpenSSL's output contains the certificate in PEM.
fn contains_pem(text: &str, issued: &IssuedCertificate) -> bool {
    let body = |pem: &str| pem.replace("\r\n", "\n").trim().to_owned();
    body(text).contains(&body(&issued.pem))
}

#[test]
fn server_name_selects_certificate() {
    let certificate = Certificate::new();
    let home = certificate.home().to_owned();
    let first = certificate.issue(&["first.example"]);
    first.write(&certificate.path(), &certificate.key_path());
    let second = certificate.issue(&["second.example", "*.wild.example"]);
    let rsa = certificate.issue_with(&["second.example", "rsa.example", "deep.wild.example"], &PKCS_RSA_SHA256, 365);
    let mut launch = certificate.launch(ANY_PORT);
    for (name, issued) in [("second", &second), ("rsa", &rsa)] {
        let cert = home.join(format!("{name}.pem"));
        let key = home.join(format!("{name}.key"));
        issued.write(&cert, &key);
        launch = launch.arg("--tls-cert").arg(&cert).arg("--tls-key").arg(&key);
    }
    let node = launch.start();
    let check = |arguments: &[&str], expected: &IssuedCertificate| {
        for version in ["-tls1_2", "-tls1_3"] {
            let arguments = [arguments, &[version, "-showcerts"]].concat();
            let (text, _) = s_client(node.tls_address(), &arguments, "");
            let shown: Vec<bool> = [&first, &second, &rsa].map(|issued| contains_pem(&text, issued)).into();
            assert!(
                contains_pem(&text, expected) && shown.iter().filter(|is| **is).count() == 1,
                "{arguments:?}: {shown:?} {text}"
            );
        }
    };
    check(&["-noservername"], &first);
    check(&["-servername", "first.example"], &first);
    check(&["-servername", "unknown.example"], &first);
    check(&["-servername", "second.example"], &second);
    check(&["-servername", "SECOND.Example"], &second);
    check(&["-servername", "one.wild.example"], &second);
    check(&["-servername", "wild.example"], &first);
    check(&["-servername", "two.one.wild.example"], &first);
    check(&["-servername", "rsa.example"], &rsa);
    check(&["-servername", "deep.wild.example"], &rsa);
    // Of two certificates for one name, the node presents the one that the client can verify.
    check(&["-servername", "second.example", "-sigalgs", "RSA-PSS+SHA256"], &rsa);

    // Clients accept the certificate of their server name.
    let client = certificate.client(&[&TLS13], &[]);
    for name in ["first.example", "second.example", "any.wild.example", "rsa.example"] {
        let mut connection = connect_as(name, node.tls_address(), &client).unwrap();
        let request = Request::new("GET", "/");
        let response = request.exchange(&mut connection, &request.head(node.tls_address())).unwrap();
        assert_eq!(response.status, 403, "{name}");
    }

    // Each certificate is replaced separately.
    let newer = certificate.issue(&["second.example"]);
    replace_file(&certificate.path(), "nonsense");
    newer.write(&home.join("second.pem"), &home.join("second.key"));
    node.reload();
    wait_until("a warning about the invalid pair", || node.log().contains("The previous files stay in use"));
    let (text, _) = s_client(node.tls_address(), &["-servername", "second.example", "-showcerts"], "");
    assert!(contains_pem(&text, &newer), "{text}");
    let (text, _) = s_client(node.tls_address(), &["-servername", "first.example", "-showcerts"], "");
    assert!(contains_pem(&text, &first), "{text}");
}

/// Sends a signed request with a customer key and returns its status, or `None` if the connection
/// fails.
fn try_put(node: &Node, client: &std::sync::Arc<rustls::ClientConfig>) -> Option<u16> {
    let to = node.tls_address();
    let request = object("PUT", "o").headers(CustomerKey::random().headers()).body("secret").signed(to, node.signer());
    let mut connection = connect(to, client).unwrap();
    request.exchange(&mut connection, &request.head(to)).ok().map(|response| response.status)
}

#[test]
fn client_without_valid_certificate_is_rejected() {
    for io in ["uring", "epoll"] {
        let certificate = Certificate::new();
        let authority = Certificate::new();
        let stranger = Certificate::new();
        let list = certificate.home().join("crl.pem");
        let good = authority.issue(&["good"]);
        let bad = authority.issue(&["bad"]);
        let expired = authority.issue_with(&["late"], &PKCS_ECDSA_P256_SHA256, -1);
        let foreign = stranger.issue(&["good"]);
        replace_file(&list, &authority.revoke(&[], 30));
        let launch = |auth: &[&str]| {
            let launch = certificate.launch(ANY_PORT).arg(format!("--io={io}")).arg("--log=debug");
            let launch = launch.arg("--tls-client-ca").arg(authority.authority_path());
            auth.iter().fold(launch.arg("--tls-client-crl").arg(&list), |launch, argument| launch.arg(argument)).start()
        };
        let with = |own: &IssuedCertificate| certificate.client_with(own);
        let anonymous = certificate.client(&[&TLS12, &TLS13], &[]);

        let node = launch(&[]);
        node.make_bucket("bucket");
        assert_eq!(try_put(&node, &with(&good)), Some(200));
        assert_eq!(try_put(&node, &with(&bad)), Some(200));
        let refusals = || node.log().matches("TLS handshake failed").count();
        assert_eq!(refusals(), 0);
        for (n, client) in [&anonymous, &with(&expired), &with(&foreign)].into_iter().enumerate() {
            assert_eq!(try_put(&node, client), None, "{n}");
            wait_until("a failed handshake is logged", || refusals() == n + 1);
        }
        let log = node.log();
        let lines: Vec<&str> = log.lines().filter(|line| line.contains("TLS handshake failed")).collect();
        assert!(lines.iter().all(|line| line.contains("DEBUG") && line.contains("peer=127.0.0.1:")), "{lines:?}");
        assert!(
            lines[0].contains("peer sent no certificates") || lines[0].contains("NoCertificatesPresented"),
            "{}",
            lines[0]
        );
        assert!(lines[1].contains("xpired") && lines[2].contains("UnknownIssuer"), "{lines:?}");
        // A certificate is not a credential.
        let mut connection = connect(node.tls_address(), &with(&good)).unwrap();
        let unsigned = object("GET", "o");
        let reply = unsigned.exchange(&mut connection, &unsigned.head(node.tls_address())).unwrap();
        assert_eq!(reply.status, 403);
        // Plain HTTP has no certificates.
        node.send(&object("GET", "absent")).expect(404);

        // Revocation applies from the next handshake on, also to clients with a resumable session.
        let client = with(&bad);
        let keeper = with(&bad);
        assert_eq!(try_put(&node, &client), Some(200));
        let mut kept = connect(node.tls_address(), &keeper).unwrap();
        let get = object("GET", "absent").signed(node.tls_address(), node.signer());
        get.exchange(&mut kept, &get.keep_alive_head(node.tls_address())).unwrap().expect(404);
        replace_file(&list, &authority.revoke(&[&bad], 30));
        wait_until("the list is loaded", || node.log().contains("new connections use them"));
        assert_eq!((try_put(&node, &client), try_put(&node, &with(&good))), (None, Some(200)));
        get.exchange(&mut kept, &get.keep_alive_head(node.tls_address())).unwrap().expect(404);
        // An outdated list stays in use, and the log reports it.
        replace_file(&list, &authority.revoke(&[&good], -1));
        wait_until("the list is loaded", || node.log().contains("is out of date since"));
        wait_until("the new list or CA is in use", || try_put(&node, &with(&good)).is_none());
        assert_eq!(try_put(&node, &with(&bad)), Some(200));
        // A second CA without a revocation list.
        replace_file(&authority.authority_path(), &fs::read_to_string(stranger.authority_path()).unwrap());
        wait_until("the new list or CA is in use", || try_put(&node, &with(&bad)).is_none());
        assert!(node.log().contains("no revocation list of"));
        assert_eq!(try_put(&node, &with(&foreign)), None);
        drop(node);

        replace_file(&authority.authority_path(), &fs::read_to_string(certificate.authority_path()).unwrap());
        let own = certificate.issue(&["good"]);
        replace_file(&list, &certificate.revoke(&[], 30));
        let node = launch(&["--tls-client-auth=optional"]);
        node.make_bucket("bucket");
        assert_eq!((try_put(&node, &anonymous), try_put(&node, &with(&own))), (Some(200), Some(200)));
        assert_eq!(try_put(&node, &with(&foreign)), None);
    }
}

#[test]
fn start_with_invalid_client_certificate_options_is_refused() {
    let certificate = Certificate::new();
    let data = certificate.home().join("data");
    let check = |code: i32, launch: Launch, parts: &[&str]| {
        let (got, message) = launch.refused_start(&data);
        assert_eq!(got, Some(code), "{message}");
        assert!(parts.iter().all(|part| message.contains(part)), "{parts:?} in: {message}");
        assert!(!data.exists(), "a refused command creates nothing");
    };
    let cert = certificate.path();
    let ca = certificate.authority_path();
    let launch = || certificate.launch(ANY_PORT);
    check(1, launch().arg("--tls-cert").arg(&cert), &["2 --tls-cert and 1 --tls-key"]);
    check(2, launch().arg("--tls-client-auth=require"), &["--tls-client-ca"]);
    check(2, launch().arg("--tls-client-crl").arg(&ca), &["--tls-client-ca"]);
    check(2, launch().arg("--tls-client-ca").arg(&ca).arg("--tls-client-auth=perhaps"), &["optional, require"]);
    check(2, Launch::default().arg("--tls-client-ca").arg(&ca), &["--tls-listen"]);
    check(1, launch().arg("--tls-client-ca").arg(certificate.key_path()), &["no certificate in", "--tls-client-ca"]);
    check(
        1,
        launch().arg("--tls-client-ca").arg(&ca).arg("--tls-client-crl").arg(&ca),
        &["no list of revoked certificates in", "--tls-client-crl"],
    );
}

#[test]
fn expiring_certificate_is_warned_about() {
    let certificate = Certificate::new();
    for (days, expected) in [(15, None), (13, Some("in 13 days")), (-1, Some("has expired at"))] {
        let issued = certificate.issue_with(&["localhost"], &PKCS_ECDSA_P256_SHA256, days);
        issued.write(&certificate.path(), &certificate.key_path());
        let node = certificate.launch(ANY_PORT).start();
        let log = node.log();
        let warning = log.lines().find(|line| line.contains("WARN") && line.contains("cert.pem"));
        match expected {
            None => assert_eq!(warning, None),
            Some(text) => assert!(warning.unwrap().contains(text), "{log}"),
        }
        // The warning also applies to a certificate loaded later.
        if days == 15 {
            let issued = certificate.issue_with(&["localhost"], &PKCS_ECDSA_P256_SHA256, 3);
            issued.write(&certificate.path(), &certificate.key_path());
            node.reload();
            wait_until("a warning", || node.log().contains("in 3 days"));
        }
        let shown = run(&["tls", "show", certificate.path().to_str().unwrap()], b"");
        assert!(shown.status.success());
        let message = String::from_utf8(shown.stderr).unwrap();
        match expected {
            // The files hold the certificate that expires in 3 days.
            None => assert!(message.contains("in 3 days"), "{message}"),
            Some(text) => assert!(message.contains("WARNING") && message.contains(text), "{message}"),
        }
    }
}

/// Returns the output of `openssl x509` for a certificate.
fn openssl_x509(path: &str, arguments: &[&str]) -> String {
    let mut command = std::process::Command::new("openssl");
    let output = command.args(["x509", "-noout", "-in", path]).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn self_signed_certificate_is_created_served_and_replaced() {
    let directory = Directory::new();
    let out = directory.path("tls");
    let cert = directory.path("tls/cert.pem");
    let key = directory.path("tls/key.pem");
    let make = |more: &[&str]| {
        let arguments = [&["tls", "self-signed", "--host", "localhost", "--out", &out], more].concat();
        String::from_utf8(expect_success(&arguments, b"")).unwrap()
    };
    let message = make(&["--host", "127.0.0.1", "*.s3.example", "::1", "--days", "30"]);
    let mode = |path: &str| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&key), mode(&cert)), (0o600, 0o644));
    assert_eq!(fs::read_dir(&out).unwrap().count(), 2, "temporary files are removed");
    let fingerprint = openssl_x509(&cert, &["-fingerprint", "-sha256"]);
    let fingerprint = fingerprint.split_once('=').unwrap().1;
    assert!(
        message.contains(fingerprint) && message.contains("--ca-bundle") && message.contains("--tls-key"),
        "{message}"
    );
    assert!(!message.contains("PRIVATE"), "{message}");
    let text = openssl_x509(&cert, &["-text"]);
    for part in [
        "DNS:localhost",
        "DNS:*.s3.example",
        "IP Address:127.0.0.1",
        "IP Address:0:0:0:0:0:0:0:1",
        "prime256v1",
        "CA:FALSE",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert!(openssl_x509(&cert, &["-checkend", &(29 * 86400).to_string()]).contains("will not"));
    let verified =
        std::process::Command::new("openssl").args(["verify", "-x509_strict", "-CAfile", &cert, &cert]).output();
    assert!(verified.unwrap().status.success());
    let shown = String::from_utf8(expect_success(&["tls", "show", &cert], b"")).unwrap();
    for part in ["localhost, *.s3.example, 127.0.0.1, ::1", "CN=localhost (itself)", "ECDSA, 256 bits", fingerprint] {
        assert!(shown.contains(part), "{part} in {shown}");
    }

    // A second call must not lose the existing files, in whole or in part.
    let before = [fs::read(&cert).unwrap(), fs::read(&key).unwrap()];
    let arguments = ["tls", "self-signed", "--host", "localhost", "--out", &out];
    assert!(expect_failure(1, &arguments, b"").1.contains("--force"));
    fs::rename(&cert, directory.path("aside.pem")).unwrap();
    assert!(expect_failure(1, &arguments, b"").1.contains("key.pem exists"));
    assert!(!fs::exists(&cert).unwrap());
    fs::rename(directory.path("aside.pem"), &cert).unwrap();
    assert_eq!(before, [fs::read(&cert).unwrap(), fs::read(&key).unwrap()]);

    // A node uses it, the CLI trusts it, and another one replaces it at run time.
    let launch = Launch::default().with_credential().arg("--tls-listen").arg(ANY_PORT);
    let node = launch.arg("--tls-cert").arg(&cert).arg("--tls-key").arg(&key).start();
    node.make_bucket("bucket");
    let aws = Aws::new("KEYHOLE_AWSCLI_2", &node, directory.home()).over_tls(&node, cert.as_ref());
    let copy = "openssl rand -out k 32; echo secret > f; aws s3 cp f s3://bucket/f --quiet --sse-c AES256 --sse-c-key fileb://k";
    aws.shell(copy);
    make(&["--host", "127.0.0.1", "--force"]);
    assert_eq!((mode(&key), mode(&cert)), (0o600, 0o644));
    assert_ne!(before[0], fs::read(&cert).unwrap());
    wait_until("the new certificate is in use", || node.log().contains("new connections use them"));
    aws.shell(copy);
    let old = directory.path("old.pem");
    fs::write(&old, &before[0]).unwrap();
    aws.shell_error(&format!("CA_BUNDLE={old}; aws s3 ls s3://bucket"));
}

#[test]
fn tls_commands_reject_invalid_arguments_and_files() {
    let directory = Directory::new();
    let out = directory.path("tls");
    for bad in [
        &["--host", "a b"][..],
        &["--host", "http://a"],
        &["--host", "*"],
        &["--host", "a", "--days", "0"],
        &["--host", "a", "--days", "3651"],
        &[],
    ] {
        let arguments = [&["tls", "self-signed", "--out", &out], bad].concat();
        expect_failure(2, &arguments, b"");
    }
    let hosts: Vec<String> = (0..65).map(|n| format!("h{n}")).collect();
    let hosts: Vec<&str> = hosts.iter().map(|host| &host[..]).collect();
    let with =
        |count: usize| [&["tls", "self-signed", "--out", &out, "--days", "3650", "--host"], &hosts[..count]].concat();
    assert!(expect_failure(2, &with(65), b"").1.contains("64"));
    assert!(!fs::exists(&out).unwrap(), "a refused command creates nothing");
    expect_success(&with(64), b"");

    fs::write(directory.path("none.pem"), "nothing").unwrap();
    let show = |name: &str| ["tls".to_owned(), "show".to_owned(), directory.path(name)];
    let show = |code, name: &str| {
        let arguments = show(name);
        expect_failure(code, &arguments.each_ref().map(|argument| &argument[..]), b"").1
    };
    assert!(show(1, "absent.pem").contains("absent.pem"));
    assert!(show(3, "none.pem").contains("no certificate"));
    assert!(show(3, "tls/key.pem").contains("no certificate"));
    // All certificates of a chain are shown.
    let cert = fs::read_to_string(directory.path("tls/cert.pem")).unwrap();
    fs::write(directory.path("chain.pem"), cert.repeat(2)).unwrap();
    let shown = String::from_utf8(expect_success(&["tls", "show", &directory.path("chain.pem")], b"")).unwrap();
    assert_eq!(shown.matches("SHA-256").count(), 2);
}
