//! Customer keys over plain HTTP through proxies: both sides of each trust rule.

use std::net::IpAddr;

use keyhole_tests::device::skipped;
use keyhole_tests::http::{connect_from, object, outer_address};
use keyhole_tests::{Certificate, CustomerKey, Launch, Node, Request};
use rustls::version::TLS13;

use keyhole_tests::form::{Form, now_ms};

const LOOPBACK: &str = "127.0.0.1";
const HTTPS: (&str, &str) = ("x-forwarded-proto", "https");
const HTTP: (&str, &str) = ("x-forwarded-proto", "http");

fn node(proxies: &[&str]) -> Node {
    let launch = proxies
        .iter()
        .fold(Launch::default().with_credential(), |launch, proxy| launch.arg("--trusted-proxy").arg(proxy));
    let node = launch.arg("--threads=1").start();
    node.make_bucket("bucket");
    node
}

fn exchange(node: &Node, from: IpAddr, request: &Request) -> u16 {
    let to = node.address();
    let mut connection = connect_from(from, to).expect("a connection from this address");
    let response = request.exchange(&mut connection, &request.head(to)).expect("a reply");
    if response.status != 200 {
        assert_eq!(response.status, 400, "{}", response.text());
        assert!(response.text().contains("must be made over a secure connection"), "{}", response.text());
    }
    response.status
}

/// Returns the status of a PUT with a customer key and unsigned headers added by a proxy. A GET
/// must have the same result.
fn put(node: &Node, from: IpAddr, added: &[(&str, &str)]) -> u16 {
    let key = CustomerKey::random();
    let send = |request: Request| {
        let signed = request.headers(key.headers()).signed(node.address(), node.signer());
        exchange(node, from, &signed.headers(added.iter().copied()))
    };
    let status = send(object("PUT", "o").body("secret"));
    if status == 200 {
        assert_eq!(send(object("GET", "o")), 200);
    }
    status
}

#[test]
fn trusted_proxy_with_https_header_may_send_keys() {
    let Some(from) = outer_address() else {
        return skipped("trusted_proxy_with_https_header_may_send_keys", "this machine has only a loopback address");
    };
    let plain = node(&[]);
    // The header of an untrusted peer is ignored.
    assert_eq!((put(&plain, from, &[]), put(&plain, from, &[HTTPS])), (400, 400));

    let trusting = node(&["203.0.113.0/24", &from.to_string()]);
    assert_eq!(put(&trusting, from, &[HTTPS]), 200);
    assert_eq!(put(&trusting, from, &[("X-Forwarded-Proto", "HTTPS"), ("X-Forwarded-For", "198.51.100.1")]), 200);
    for added in [
        &[][..],
        &[HTTP],
        &[HTTPS, HTTPS],
        &[HTTP, HTTPS],
        &[("x-forwarded-proto", "https, https")],
        &[("x-forwarded-proto", "http, https")],
        &[("x-forwarded-proto", "")],
        &[("forwarded", "for=198.51.100.1;proto=https")],
    ] {
        assert_eq!(put(&trusting, from, added), 400, "{added:?}");
    }
    // A form with a key in a field.
    let form = |added: &[(&str, &str)]| {
        let form = Form::new("form", "secret").fields(CustomerKey::random().headers().iter().cloned());
        let request = form.signed(trusting.signer(), now_ms()).request().headers(added.iter().copied());
        let to = trusting.address();
        let mut connection = connect_from(from, to).unwrap();
        request.exchange(&mut connection, &request.head(to)).unwrap().status
    };
    assert_eq!((form(&[HTTPS]), form(&[HTTP]), form(&[])), (204, 400, 400));

    // Addresses next to the trusted ranges are not trusted.
    let other = node(&["203.0.113.0/24", "2001:db8::/32"]);
    assert_eq!(put(&other, from, &[HTTPS]), 400);
}

#[test]
fn trusted_proxy_on_loopback_with_http_header_is_refused() {
    let loopback: IpAddr = LOOPBACK.parse().unwrap();
    let plain = node(&[]);
    assert_eq!((put(&plain, loopback, &[]), put(&plain, loopback, &[HTTP])), (200, 200));
    let trusting = node(&["127.0.0.0/8"]);
    // A request without the header counts as one from this machine.
    assert_eq!((put(&trusting, loopback, &[]), put(&trusting, loopback, &[HTTPS])), (200, 200));
    assert_eq!((put(&trusting, loopback, &[HTTP]), put(&trusting, loopback, &[HTTPS, HTTPS])), (400, 400));
}

/// A proxy that connects over HTTPS.
#[test]
fn trusted_proxy_over_https_with_http_header_is_refused() {
    let certificate = Certificate::new();
    let node = certificate.launch("127.0.0.1:0").arg("--trusted-proxy").arg(LOOPBACK).start();
    node.make_bucket("bucket");
    let client = certificate.client(&[&TLS13], &[]);
    let put = |added: &[(&str, &str)]| {
        let request = object("PUT", "o").headers(CustomerKey::random().headers()).headers(added.iter().copied());
        keyhole_tests::tls::send(&request.body("secret"), node.tls_address(), node.signer(), &client).status
    };
    assert_eq!((put(&[]), put(&[HTTPS]), put(&[HTTP])), (200, 200, 400));
}

#[test]
fn start_with_invalid_trusted_proxy_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let refused = |proxies: &[&str]| {
        let launch = proxies.iter().fold(Launch::default(), |launch, proxy| launch.arg("--trusted-proxy").arg(proxy));
        launch.refused_start(&home.path().join("data"))
    };
    for bad in ["proxy.example", "10.0.0.0/33", "0.0.0.0/0", "::/0"] {
        let (code, message) = refused(&[bad]);
        assert!(code == Some(2) && message.contains("--trusted-proxy"), "{message}");
    }
    let (code, message) = refused(&["10.0.0.1"; 65]);
    assert!(code == Some(1) && message.contains("64"), "{message}");
}
