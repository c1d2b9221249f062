//! HTTPS, with both kinds of I/O, the AWS CLI, and a client that can also violate the protocol.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use keyhole_tests::data::bytes;
use keyhole_tests::device::skipped;
use keyhole_tests::tls::{TlsConnection, connect, send};
use keyhole_tests::{Aws, Certificate, CustomerKey, Launch, Node, Request, Response};
use rustls::ClientConfig;
use rustls::version::{TLS12, TLS13};

const ANY_PORT: &str = "127.0.0.1:0";

/// Timeout of a handshake, with a margin for a busy machine.
const HANDSHAKE: Duration = Duration::from_secs(10);
const SLACK: Duration = Duration::from_secs(20);

/// A node with a bucket, and a client that trusts it.
struct Fixture {
    node: Node,
    certificate: Certificate,
    client: Arc<ClientConfig>,
}

impl Fixture {
    fn new(io: &str) -> Self {
        let certificate = Certificate::new();
        let node = certificate.launch(ANY_PORT).arg(format!("--io={io}")).arg("--threads=2").start();
        node.make_bucket("bucket");
        let client = certificate.client(&[&TLS13, &TLS12], &["http/1.1"]);
        Fixture { node, certificate, client }
    }

    fn send(&self, request: &Request) -> Response {
        send(request, self.node.tls_address(), self.node.signer(), &self.client)
    }

    fn connect(&self) -> TlsConnection {
        connect(self.node.tls_address(), &self.client).unwrap()
    }

    fn signed(&self, request: Request) -> Request {
        request.signed(self.node.tls_address(), self.node.signer())
    }
}

fn over_each_io(check: impl Fn(&Fixture)) {
    for io in ["uring", "epoll"] {
        println!("--io {io}");
        check(&Fixture::new(io));
    }
}

fn request(method: &str, key: &str) -> Request {
    Request::new(method, &format!("/bucket/{key}"))
}

/// Returns everything that a passive peer receives, and whether the connection was closed cleanly.
fn read_to_close(tcp: &mut TcpStream) -> (Vec<u8>, bool) {
    let mut received = Vec::new();
    tcp.set_read_timeout(Some(HANDSHAKE + SLACK)).unwrap();
    let result = tcp.read_to_end(&mut received);
    (received, result.is_ok())
}

#[test]
fn object_over_tls_is_read_whole_and_in_ranges() {
    let key = CustomerKey::random();
    over_each_io(|fixture| {
        for version in [&TLS12, &TLS13] {
            let client = fixture.certificate.client(&[version], &["http/1.1"]);
            let to = fixture.node.tls_address();
            let send = |request: Request| send(&request, to, fixture.node.signer(), &client);
            for len in [0, 1, 16 << 10, (1 << 20) + 1, 5 << 20] {
                let body = bytes(1, len);
                for headers in [Vec::new(), key.headers().to_vec()] {
                    let with = |method: &str| request(method, "o").headers(headers.clone());
                    send(with("PUT").body(body.clone())).expect(200);
                    let got = send(with("GET")).expect(200);
                    assert!(got.is_complete && got.body == body, "{len} bytes over {version:?}");
                    for (first, last) in [(0, 0), (16_383, 16_384), (16_384, 40_000), (1 << 20, (1 << 20) + 5)] {
                        if first < len {
                            let got = send(with("GET").header("range", format!("bytes={first}-{last}"))).expect(206);
                            assert!(got.body == body[first..=last.min(len - 1)], "{first}-{last} of {len}");
                        }
                    }
                }
            }
            // An object stored over TLS is readable without it, and the reverse.
            let plain = fixture.node.send(&request("GET", "o").headers(key.headers())).expect(200);
            assert_eq!(plain.body.len(), 5 << 20);
            fixture.node.send(&request("PUT", "o").body("plain")).expect(200);
            assert_eq!(send(request("GET", "o")).expect(200).body, b"plain");
        }
    });
}

/// Many requests on one connection, one of them with a chunked body; then the node closes it with
/// close_notify.
#[test]
fn tls_connection_serves_many_requests() {
    let key = CustomerKey::random();
    over_each_io(|fixture| {
        let mut connection = fixture.connect();
        let mut exchange = |request: Request| {
            let request = fixture.signed(request);
            let head = request.keep_alive_head(fixture.node.tls_address());
            request.exchange(&mut connection, &head).unwrap()
        };
        for round in 0..20 {
            let body = bytes(round, 100_000 * round as usize);
            exchange(request("PUT", "kept").headers(key.headers()).body(body.clone())).expect(200);
            let got = exchange(request("GET", "kept").headers(key.headers())).expect(200);
            assert!(got.is_complete && got.body == body, "{round}");
            exchange(request("GET", "absent")).expect(404);
        }
        assert_eq!(connection.conn.alpn_protocol(), Some(&b"http/1.1"[..]));
        let last = fixture.signed(request("HEAD", "kept").headers(key.headers()));
        last.exchange(&mut connection, &last.head(fixture.node.tls_address())).unwrap().expect(200);
        // Without close_notify this would be an error.
        assert_eq!(connection.read(&mut [0; 16]).unwrap(), 0);
    });
}

/// Two pipelined requests, and a whole body with its head.
#[test]
fn pipelined_requests_are_answered() {
    over_each_io(|fixture| {
        let to = fixture.node.tls_address();
        let body = bytes(3, 30_000);
        let put = fixture.signed(request("PUT", "ahead").body(body.clone()));
        let get = fixture.signed(request("GET", "ahead"));
        let mut connection = fixture.connect();
        let both = [put.keep_alive_head(to).as_bytes(), &body, get.head(to).as_bytes()].concat();
        connection.write_all(&both).unwrap();
        let mut received = Vec::new();
        connection.read_to_end(&mut received).unwrap();
        assert!(received.starts_with(b"HTTP/1.1 200") && received.ends_with(&body));
    });
}

/// The object stays unchanged if the connection is reset, or closed with or without close_notify.
#[test]
fn truncated_upload_over_tls_leaves_old_object() {
    let key = CustomerKey::random();
    over_each_io(|fixture| {
        let old = bytes(4, 3 << 20);
        let put = |body: Vec<u8>| request("PUT", "cut").headers(key.headers()).body(body);
        fixture.send(&put(old.clone())).expect(200);
        for (sent, sends_close) in [(100, false), (2_500_000, false), (2_500_000, true), (0, true)] {
            let new = bytes(5, 4 << 20);
            let cut = fixture.signed(put(new.clone()));
            let mut connection = fixture.connect();
            connection.write_all(cut.head(fixture.node.tls_address()).as_bytes()).unwrap();
            connection.write_all(&new[..sent]).unwrap();
            if sends_close {
                connection.conn.send_close_notify();
            }
            connection.flush().unwrap();
            connection.sock.shutdown(Shutdown::Write).unwrap();
            let mut reply = Vec::new();
            let ended = connection.read_to_end(&mut reply);
            if sends_close {
                // The node answers after a clean close by the client.
                assert!(reply.starts_with(b"HTTP/1.1 400"), "{}", String::from_utf8_lossy(&reply));
            } else {
                assert!(reply.is_empty() && ended.is_err(), "{ended:?}");
            }
            let got = fixture.send(&request("GET", "cut").headers(key.headers())).expect(200);
            assert!(got.body == old, "cut after {sent}");
        }
    });
}

/// Plain HTTP, noise and silence get no reply, time out, and disturb no other client.
#[test]
fn non_tls_clients_get_no_reply() {
    over_each_io(|fixture| {
        let to = fixture.node.tls_address();
        let started = Instant::now();
        let mut silent: Vec<TcpStream> = (0..20).map(|_| TcpStream::connect(to).unwrap()).collect();
        // An incomplete record without continuation.
        let mut stalled = TcpStream::connect(to).unwrap();
        stalled.write_all(b"\x16\x03\x01\x02\x00\x01").unwrap();
        for noise in [&b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n"[..], &[0; 5], &bytes(6, 100_000)] {
            let mut tcp = TcpStream::connect(to).unwrap();
            // It may be closed before all is sent.
            let _ = tcp.write_all(noise);
            let (received, in_order) = read_to_close(&mut tcp);
            assert_eq!(received, b"");
            assert!(in_order || noise.len() > 1000, "{} bytes", noise.len());
        }
        // An invalid ClientHello.
        let mut tcp = TcpStream::connect(to).unwrap();
        tcp.write_all(&[&b"\x16\x03\x01\x00\x40\x01\x00\x00\x3c"[..], &[0xff; 60]].concat()).unwrap();
        let (received, _) = read_to_close(&mut tcp);
        assert!(received.is_empty() || received[0] == 21, "an alert at most: {received:?}");

        fixture.send(&request("PUT", "o").body("meanwhile")).expect(200);
        assert_eq!(fixture.send(&request("GET", "o")).expect(200).body, b"meanwhile");
        assert!(started.elapsed() < HANDSHAKE + SLACK);

        for tcp in silent.iter_mut().chain([&mut stalled]) {
            assert_eq!(read_to_close(tcp).0, b"");
        }
        let elapsed = started.elapsed();
        assert!(elapsed >= HANDSHAKE && elapsed < HANDSHAKE + SLACK, "{elapsed:?}");
    });
}

#[test]
fn handshake_with_unsupported_protocol_fails() {
    let fixture = Fixture::new("uring");
    let mut without = connect(fixture.node.tls_address(), &fixture.certificate.client(&[&TLS13], &[])).unwrap();
    let head = fixture.signed(request("GET", "absent"));
    head.exchange(&mut without, &head.head(fixture.node.tls_address())).unwrap().expect(404);
    // A client that offers only HTTP/2 gets an alert.
    let mut other = connect(fixture.node.tls_address(), &fixture.certificate.client(&[&TLS13], &["h2"])).unwrap();
    let error = other.write_all(b"x").and_then(|()| other.read(&mut [0])).unwrap_err();
    assert!(error.to_string().contains("NoApplicationProtocol"), "{error}");
    // A client that does not trust the node disconnects, and the node continues.
    let mut stranger = connect(fixture.node.tls_address(), &Certificate::new().client(&[&TLS13], &[])).unwrap();
    assert!(stranger.write_all(b"x").is_err());
    fixture.send(&request("GET", "absent")).expect(404);
}

/// Returns the network address of this machine, if it has one. Sends no packet.
fn outer_address() -> Option<std::net::IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    socket.local_addr().ok().map(|address| address.ip()).filter(|address| !address.is_loopback())
}

/// A customer key is accepted over TLS from anywhere, and without TLS only from this machine.
#[test]
fn customer_keys_from_network_require_tls() {
    let Some(address) = outer_address() else {
        return skipped("customer_keys_from_network_require_tls", "this machine has only a loopback address");
    };
    for io in ["uring", "epoll"] {
        let certificate = Certificate::new();
        let node = certificate.launch("0.0.0.0:0").listen("0.0.0.0:0").arg(format!("--io={io}")).start();
        let at = |address_of: SocketAddr| SocketAddr::new(address, address_of.port());
        let plain = at(node.address());
        let tls = at(node.tls_address());
        let client = certificate.client(&[&TLS13], &[]);
        Request::new("PUT", "/bucket").send(plain, node.signer()).expect(200);
        let put = request("PUT", "o").headers(CustomerKey::random().headers()).body("secret");
        let refused = put.send(plain, node.signer()).expect(400);
        assert!(refused.text().contains("secure connection"), "{}", refused.text());
        send(&put, tls, node.signer(), &client).expect(200);
    }
}

#[test]
fn sigterm_closes_tls_connections_cleanly() {
    for io in ["uring", "epoll"] {
        let mut fixture = Fixture::new(io);
        let mut idle = fixture.connect();
        let head = fixture.signed(request("GET", "absent"));
        head.exchange(&mut idle, &head.keep_alive_head(fixture.node.tls_address())).unwrap().expect(404);
        let mut silent = TcpStream::connect(fixture.node.tls_address()).unwrap();
        let started = Instant::now();
        assert!(fixture.node.stop().success(), "{}", fixture.node.log());
        assert!(started.elapsed() < Duration::from_secs(9), "idle connections do not delay the shutdown");
        assert_eq!(idle.read(&mut [0; 16]).unwrap(), 0, "an end with close_notify");
        assert_eq!(read_to_close(&mut silent).0, b"");
        fixture.node.start();
        fixture.send(&request("GET", "absent")).expect(404);
    }
}

#[test]
fn start_with_invalid_tls_options_is_refused() {
    let certificate = Certificate::new();
    let other = Certificate::new();
    let data = certificate.home().join("data");
    let empty = certificate.home().join("empty.pem");
    fs::write(&empty, "").unwrap();
    let absent = certificate.home().join("absent.pem");
    let cert = certificate.path();
    let key = certificate.key_path();
    let listen = || Launch::default().arg("--tls-listen").arg(ANY_PORT);
    let check = |code: i32, launch: Launch, parts: &[&str]| {
        let (got, message) = launch.refused_start(&data);
        assert_eq!(got, Some(code), "{message}");
        for part in parts {
            assert!(message.contains(part), "{part} in: {message}");
        }
        assert!(!data.exists(), "a refused start creates nothing");
    };
    let with =
        |cert: &std::path::Path, key: &std::path::Path| listen().arg("--tls-cert").arg(cert).arg("--tls-key").arg(key);
    check(1, with(&absent, &key), &["absent.pem", "--tls-cert"]);
    check(1, with(&cert, &absent), &["absent.pem", "--tls-key"]);
    check(1, with(&empty, &key), &["no certificate", "--tls-cert"]);
    check(1, with(&cert, &cert), &["no private key", "--tls-key"]);
    check(1, with(&cert, &other.key_path()), &["does not belong"]);
    check(2, listen(), &["--tls-cert", "--tls-key"]);
    check(2, listen().arg("--tls-cert").arg(&cert), &["--tls-key"]);
    check(2, listen().arg("--tls-key").arg(&key), &["--tls-cert"]);
    check(2, Launch::default().arg("--tls-cert").arg(&cert).arg("--tls-key").arg(&key), &["--tls-listen"]);

    let node = certificate.launch(ANY_PORT).start();
    let address = node.tls_address().to_string();
    let (code, message) = certificate.launch(&address).refused_start(&data);
    assert!(code == Some(1) && message.contains("in use") && message.contains("--tls-listen"), "{message}");
}

fn transfer_with_cli(cli: &'static str) {
    over_each_io(|fixture| {
        let directory = tempfile::tempdir().unwrap();
        let aws = Aws::new(cli, &fixture.node, directory.path());
        let aws = aws.over_tls(&fixture.node, &fixture.certificate.authority_path());
        aws.shell("openssl rand -out ssec.key 32");
        for (name, len) in [("empty", 0), ("small", 1024), ("parts", 20 << 20)] {
            fs::write(directory.path().join(name), bytes(7, len)).unwrap();
            let sse = "--quiet --sse-c AES256 --sse-c-key fileb://ssec.key";
            aws.shell(&format!("aws s3 cp {name} s3://bucket/{name} {sse}"));
            aws.shell(&format!("aws s3 cp s3://bucket/{name} {name}.copy {sse}; cmp {name} {name}.copy"));
        }
        let listed = aws.shell("aws s3 ls s3://bucket");
        assert_eq!(listed.lines().count(), 3, "{listed}");
        let untrusted = aws.shell_error("unset CA_BUNDLE; aws s3 ls s3://bucket");
        assert!(untrusted.contains("CERTIFICATE_VERIFY_FAILED") || untrusted.contains("SSL validation"), "{untrusted}");
    });
}

#[test]
fn awscli_2_transfers_sse_c_objects_over_tls() {
    transfer_with_cli("KEYHOLE_AWSCLI_2");
}

#[test]
fn awscli_1_transfers_sse_c_objects_over_tls() {
    transfer_with_cli("KEYHOLE_AWSCLI_1");
}
