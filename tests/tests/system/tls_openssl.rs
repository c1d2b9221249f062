//! TLS checked with OpenSSL: versions, cipher suites, groups, and session resumption.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use keyhole_tests::tls::{replace_file, s_client};
use keyhole_tests::{Certificate, Node};
use rcgen::PKCS_RSA_SHA256;

/// All cipher suites of the node by their OpenSSL names: only forward secrecy and authenticated
/// encryption.
const SUITES_1_3: [&str; 3] = ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"];
const SUITES_ECDSA: [&str; 3] =
    ["ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-CHACHA20-POLY1305"];
const SUITES_RSA: [&str; 3] =
    ["ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-RSA-AES256-GCM-SHA384", "ECDHE-RSA-CHACHA20-POLY1305"];

/// Groups supported by both OpenSSL 3.0 and the node. (OpenSSL 3.0 lacks X25519MLKEM768.)
const GROUPS: [&str; 3] = ["P-256", "P-384", "X25519"];

/// OpenSSL's default refuses weak suites: allow them.
const ALL: &str = "ALL:COMPLEMENTOFALL:@SECLEVEL=0";

const IO: [&str; 2] = ["uring", "epoll"];

/// A request that is refused, so that the node replies before it closes the connection.
const REQUEST: &str = "GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";

fn node(certificate: &Certificate, io: &str) -> Node {
    certificate.launch("127.0.0.1:0").arg(format!("--io={io}")).start()
}

/// Starts a node with an RSA key.
fn node_rsa(certificate: &Certificate, io: &str) -> Node {
    let issued = certificate.issue_with(&["localhost", "127.0.0.1"], &PKCS_RSA_SHA256, 365);
    issued.write(&certificate.path(), &certificate.key_path());
    node(certificate, io)
}

/// Returns the negotiated protocol and cipher suite for this offer, if any.
fn negotiated(to: SocketAddr, arguments: &[&str]) -> Option<(String, String)> {
    let (text, _) = s_client(to, arguments, "");
    let line = text.lines().find(|line| line.starts_with("New, ") || line.starts_with("Reused, "))?;
    let (protocol, suite) = line.split_once(", ")?.1.split_once(", Cipher is ")?;
    (suite != "(NONE)").then(|| (protocol.to_owned(), suite.to_owned()))
}

/// Returns the names of OpenSSL's cipher suites for a version.
fn known_suites(version: &str, list: &str) -> BTreeSet<String> {
    let output = Command::new("openssl").args(["ciphers", "-s", version, list]).output().expect("openssl runs");
    let text = String::from_utf8(output.stdout).unwrap();
    text.trim().split(':').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

fn owned<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
    names.map(str::to_owned).into()
}

#[test]
fn only_tls_1_2_and_1_3_are_accepted() {
    let certificate = Certificate::new();
    for io in IO {
        let node = node(&certificate, io);
        let to = node.tls_address();
        let protocol = |argument: &str| negotiated(to, &[argument, "-cipher", ALL]).map(|(protocol, _)| protocol);
        assert_eq!(protocol("-tls1_3").as_deref(), Some("TLSv1.3"));
        assert_eq!(protocol("-tls1_2").as_deref(), Some("TLSv1.2"));
        // The highest common version.
        assert_eq!(negotiated(to, &[]).unwrap().0, "TLSv1.3");
        assert_eq!(negotiated(to, &["-no_tls1_3"]).unwrap().0, "TLSv1.2");
        for old in ["-tls1_1", "-tls1"] {
            let (text, is_up) = s_client(to, &[old, "-cipher", ALL], REQUEST);
            // The node refuses by an alert; OpenSSL itself does not.
            assert!(!is_up && text.contains("SSL alert number"), "{old}: {text}");
        }
        // OpenSSL is built without SSL 3.
        for (name, version, expected) in [
            ("SSL 3", 0x0300, None),
            ("TLS 1.0", 0x0301, None),
            ("TLS 1.1", 0x0302, None),
            ("TLS 1.2", 0x0303, Some(22)),
        ] {
            let answer = exchange(to, &client_hello(version));
            match expected {
                // An alert: fatal, protocol_version.
                None => assert!(answer.len() == 7 && answer[0] == 21 && answer[5..] == [2, 70], "{name}: {answer:?}"),
                Some(kind) => assert_eq!(answer[0], kind, "{name}: {answer:?}"),
            }
        }
        // SSL 2 has another format.
        let ssl_2 = [0x80, 0x1c, 1, 0, 2, 0, 3, 0, 0, 0, 16, 7, 0, 0xc0];
        assert!(exchange(to, &[&ssl_2[..], &[7; 16]].concat()).first().is_none_or(|kind| *kind == 21));
    }
}

/// Returns a well-formed ClientHello of an old version, with the node's suites, group and
/// signatures.
fn client_hello(version: u16) -> Vec<u8> {
    let suites = [0xc02b_u16, 0xc02f, 0x002f, 0x000a].map(u16::to_be_bytes).concat();
    let extensions = [
        // Extended master secret; points, groups, signatures.
        &[0, 23, 0, 0][..],
        &[0, 11, 0, 2, 1, 0],
        &[0, 10, 0, 6, 0, 4, 0, 29, 0, 23],
        &[0, 13, 0, 6, 0, 4, 4, 3, 8, 4],
    ]
    .concat();
    let mut body = version.to_be_bytes().to_vec();
    body.extend([7; 32]);
    body.push(0);
    body.extend(u16::try_from(suites.len()).unwrap().to_be_bytes());
    body.extend(suites);
    body.extend([1, 0]);
    body.extend(u16::try_from(extensions.len()).unwrap().to_be_bytes());
    body.extend(extensions);
    let len = u16::try_from(body.len()).unwrap();
    let message = [&[1, 0][..], &len.to_be_bytes(), &body].concat();
    let record = [22, 3, 0].into_iter().chain((len + 4).to_be_bytes());
    record.chain(message).collect()
}

/// Sends bytes and returns the reply: all of it if the connection is closed, otherwise the
/// immediate part.
fn exchange(to: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut tcp = TcpStream::connect(to).unwrap();
    tcp.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    tcp.write_all(bytes).unwrap();
    let mut answer = vec![0; 64 << 10];
    let len = tcp.read(&mut answer).unwrap_or(0);
    answer.truncate(len);
    answer
}

/// Each suite of OpenSSL is offered alone, to a node with an ECDSA key and to one with an RSA key.
#[test]
fn only_forward_secret_aead_suites_are_accepted() {
    let known = known_suites("-tls1_2", ALL);
    let ours = owned([SUITES_ECDSA, SUITES_RSA].concat().try_into().map(|suites: [&str; 6]| suites).unwrap());
    assert!(ours.is_subset(&known) && known.len() > 60, "{known:?}");
    for (is_rsa, expected) in [(false, SUITES_ECDSA), (true, SUITES_RSA)] {
        let certificate = Certificate::new();
        let node = if is_rsa { node_rsa(&certificate, "uring") } else { node(&certificate, "epoll") };
        let to = node.tls_address();
        let offer = |suite: &&String| {
            let negotiated = negotiated(to, &["-tls1_2", "-cipher", &format!("{suite}:@SECLEVEL=0")]);
            assert!(
                negotiated.iter().all(|(protocol, negotiated)| protocol == "TLSv1.2" && negotiated == *suite),
                "{suite}: {negotiated:?}"
            );
            negotiated.is_some()
        };
        let taken: BTreeSet<String> = known.iter().filter(offer).cloned().collect();
        assert_eq!(taken, owned(expected), "RSA: {is_rsa}");

        let all = ["TLS_AES_128_CCM_SHA256", "TLS_AES_128_CCM_8_SHA256"].into_iter().chain(SUITES_1_3);
        let offer = |suite: &&str| {
            negotiated(to, &["-tls1_3", "-ciphersuites", suite]).is_some_and(|(_, negotiated)| negotiated == **suite)
        };
        let taken: BTreeSet<String> = all.filter(offer).map(str::to_owned).collect();
        assert_eq!(taken, owned(SUITES_1_3));
        // If the client leaves it open, the node chooses the strongest.
        assert_eq!(negotiated(to, &[]).unwrap().1, "TLS_AES_256_GCM_SHA384");
        assert_eq!(negotiated(to, &["-tls1_2"]).unwrap().1, expected[1]);
    }
}

#[test]
fn only_expected_groups_are_accepted() {
    let certificate = Certificate::new();
    // In TLS 1.2 OpenSSL also checks the group of an ECDSA key against its list.
    let node = node_rsa(&certificate, "uring");
    let groups =
        ["P-256", "P-384", "P-521", "X25519", "X448", "ffdhe2048", "ffdhe3072", "brainpoolP256r1", "secp256k1"];
    for version in ["-tls1_2", "-tls1_3"] {
        let offer = |group: &&str| negotiated(node.tls_address(), &[version, "-groups", group]).is_some();
        let taken: BTreeSet<String> = groups.into_iter().filter(offer).map(str::to_owned).collect();
        assert_eq!(taken, owned(GROUPS), "{version}");
    }
}

/// Returns `New` or `Reused` for each connection.
fn session_states<'t>(text: &'t str, version: &str) -> Vec<&'t str> {
    let lines = text.lines().filter(|line| line.contains(", Cipher is "));
    lines.filter(|line| line.contains(version)).filter_map(|line| line.split(',').next()).collect()
}

/// With tickets, and with server-side sessions, which only TLS 1.2 has for clients without tickets.
const KINDS: [(&str, &[&str]); 3] =
    [("TLSv1.3", &["-tls1_3"]), ("TLSv1.2", &["-tls1_2"]), ("TLSv1.2", &["-tls1_2", "-no_ticket"])];

#[test]
fn sessions_are_resumed() {
    for io in IO {
        let certificate = Certificate::new();
        let node = node(&certificate, io);
        let to = node.tls_address();
        let file = certificate.home().join("session");
        let file = file.to_str().unwrap();
        let trusted = certificate.authority_path();
        let trust = ["-CAfile", trusted.to_str().unwrap(), "-verify_return_error", "-ign_eof"];
        for (version, arguments) in KINDS {
            let connect = |more: &[&str]| {
                let (text, is_up) = s_client(to, &[&trust, arguments, more].concat(), REQUEST);
                assert!(is_up && text.contains("HTTP/1.1 403"), "{version}: {text}");
                text
            };
            let first = connect(&["-sess_out", file]);
            assert_eq!(session_states(&first, version)[0], "New", "{first}");
            for _ in 0..3 {
                let again = connect(&["-sess_in", file]);
                assert_eq!(session_states(&again, version)[0], "Reused", "{arguments:?}: {again}");
            }
        }
        // Five reconnections.
        let (text, _) = s_client(to, &["-tls1_2", "-reconnect"], "");
        assert_eq!(
            session_states(&text, "TLSv1.2"),
            ["New", "Reused", "Reused", "Reused", "Reused", "Reused"],
            "{text}"
        );
    }
}

/// A replaced certificate ends resumption: a stored session is rejected, and the client gets the
/// new certificate.
#[test]
fn replaced_certificate_ends_session_resumption() {
    let certificate = Certificate::new();
    let node = node(&certificate, "uring");
    let to = node.tls_address();
    let file = certificate.home().join("session");
    let file = file.to_str().unwrap();
    for (version, arguments) in KINDS {
        let connect = |more: &[&str]| {
            let (text, _) = s_client(to, &[arguments, &["-ign_eof"], more].concat(), REQUEST);
            session_states(&text, version)[0].to_owned()
        };
        assert_eq!(connect(&["-sess_out", file]), "New");
        assert_eq!(connect(&["-sess_in", file]), "Reused");
        let read_again = node.log().matches("new connections use them").count();
        certificate.issue(&["localhost"]).write(&certificate.path(), &certificate.key_path());
        node.reload();
        super::certificates::wait_until("the certificate is read", || {
            node.log().matches("new connections use them").count() > read_again
        });
        assert_eq!(connect(&["-sess_in", file]), "New", "{arguments:?}");
    }
}

/// A client that is verified by certificate is verified at every connection.
#[test]
fn sessions_of_verified_clients_are_not_resumed() {
    let certificate = Certificate::new();
    let own = certificate.issue(&["client"]);
    let at = |name: &str| certificate.home().join(name).to_str().unwrap().to_owned();
    own.write(at("own.pem").as_ref(), at("own.key").as_ref());
    replace_file(at("ca.pem").as_ref(), &fs::read_to_string(certificate.authority_path()).unwrap());
    let node = certificate.launch("127.0.0.1:0").arg("--tls-client-ca").arg(at("ca.pem")).start();
    for (version, arguments) in KINDS {
        let _ = fs::remove_file(at("session"));
        let connect = |more: &[&str]| {
            let own = ["-cert", &at("own.pem"), "-key", &at("own.key"), "-ign_eof"].map(str::to_owned);
            let own: Vec<&str> = own.iter().map(|argument| &argument[..]).collect();
            let (text, is_up) = s_client(node.tls_address(), &[&own[..], arguments, more].concat(), REQUEST);
            assert!(is_up && text.contains("HTTP/1.1 403"), "{text}");
            session_states(&text, version)[0].to_owned()
        };
        assert_eq!(connect(&["-sess_out", &at("session")]), "New");
        // TLS 1.3 sends no ticket, and OpenSSL writes no session.
        if fs::exists(at("session")).unwrap() {
            assert_eq!(connect(&["-sess_in", &at("session")]), "New", "{arguments:?}");
        }
    }
}
