//! The node accepts the signatures of devices (`keyhole_core::sigv4`).

use keyhole_core::sigv4::{PayloadHash, RequestToSign, Signer};
use keyhole_s3::ErrorCode;
use keyhole_s3::auth::{Credentials, SecretKey, SigningKeys, authenticate};
use keyhole_s3::http::parse_head;

/// 2026-01-02T03:04:05Z
const NOW_MS: u64 = 1_767_323_045_000;
const DATE: &str = "20260102T030405Z";
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";

struct Device(SecretKey);

impl Credentials for Device {
    fn secret(&self, access_key: &str) -> Option<&SecretKey> {
        (access_key == "device").then_some(&self.0)
    }
}

/// Signs a device's upload, replaces some of its text and verifies it as the node does.
fn check(key: &str, query: &[(&str, &str)], (from, to): (&str, &str)) -> Result<(), ErrorCode> {
    let headers = [
        ("host", "node.local:9000"),
        ("x-amz-content-sha256", PayloadHash::Unsigned.header_value()),
        ("x-amz-date", DATE),
        ("x-keyhole-sealed", "1"),
    ];
    let payload = PayloadHash::Unsigned;
    let request = RequestToSign { method: "PUT", bucket: Some("edge"), key, query, headers: &headers, payload };
    let signer = Signer { access_key: "device", secret_key: SECRET, region: "us-east-1" };
    let authorization = signer.authorize(&request, DATE).unwrap();
    let query: Vec<String> = query.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let target = [request.path().to_string(), query.join("&")].join(if query.is_empty() { "" } else { "?" });
    let mut text = format!("PUT {target} HTTP/1.1\r\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str(&format!("authorization: {authorization}\r\ncontent-length: 0\r\n\r\n"));
    assert!(from.is_empty() || text.contains(from), "{from}");
    let text = text.replacen(from, to, usize::from(!from.is_empty()));
    let (head, _) = parse_head(text.as_bytes()).unwrap().unwrap();
    let device = Device(SecretKey::new(SECRET.to_owned()));
    authenticate(&head, &device, &SigningKeys::default(), "us-east-1", NOW_MS).map(|_| ()).map_err(|error| error.code)
}

#[test]
fn device_signatures_are_accepted() {
    for key in ["reading", "room 1/t+u?v&w=x", "ü/€/\u{1f511}", "a//b/../c", "~._-", "%41", "*'();:@,$!"] {
        assert_eq!(check(key, &[], ("", "")), Ok(()), "{key}");
    }
    assert_eq!(check("a", &[("partNumber", "1"), ("uploadId", "u")], ("", "")), Ok(()));
}

#[test]
fn modified_device_requests_are_rejected() {
    let refused = Err(ErrorCode::SignatureDoesNotMatch);
    for change in [("PUT", "GET"), ("/reading", "/readinh"), ("/edge/", "/edgf/"), ("sealed: 1", "sealed: 2")] {
        assert_eq!(check("reading", &[], change), refused, "{change:?}");
    }
    let unsigned = ("x-amz-date: ", "x-amz-meta-a: b\r\nx-amz-date: ");
    assert_eq!(check("reading", &[], unsigned), Err(ErrorCode::AccessDenied));
}
