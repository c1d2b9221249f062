//! Parses a request from bytes, verifies its signature, and routes it to an operation.
//!
//! ```sh
//! cargo run -p keyhole-s3 --example verify_request
//! ```

use keyhole_core::sigv4::{PayloadHash, RequestToSign, Signer};
use keyhole_s3::auth::{Credentials, SecretKey, SigningKeys, authenticate};
use keyhole_s3::http::parse_head;
use keyhole_s3::ops::{HostNames, route};

/// 2026-01-02T03:04:05Z. The crate has no clock: callers pass the time.
const NOW_MS: u64 = 1_767_323_045_000;
const DATE: &str = "20260102T030405Z";
const REGION: &str = "us-east-1";

/// A node with one access key.
struct OneKey(SecretKey);

impl Credentials for OneKey {
    fn secret(&self, access_key: &str) -> Option<&SecretKey> {
        (access_key == "AKID").then_some(&self.0)
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let request = signed_request("secret")?;
    // `None` asks for more bytes: a head may arrive in pieces.
    let (head, len) = parse_head(request.as_bytes())?.ok_or("incomplete request head")?;
    println!("{} {} ({len} bytes, {} headers)", head.method, head.path, head.headers.iter().count());

    let keys = SigningKeys::default();
    let identity = authenticate(&head, &OneKey(SecretKey::new("secret".to_owned())), &keys, REGION, NOW_MS)?;
    let (target, operation) = route(&head, &HostNames::default())?;
    println!("{} may call {} on {target:?}", identity.access_key, operation.name());

    let other = authenticate(&head, &OneKey(SecretKey::new("other".to_owned())), &keys, REGION, NOW_MS);
    let error = other.expect_err("another secret gives another signature");
    let response = error.response(&head.path, "request-1");
    println!("\nwith another secret: {}\n{}", response.status, String::from_utf8_lossy(&response.body));
    Ok(())
}

/// Builds a GET as a client sends it.
fn signed_request(secret_key: &str) -> Result<String, Box<dyn std::error::Error>> {
    let payload = PayloadHash::Unsigned;
    let headers = [("host", "node:9000"), ("x-amz-content-sha256", payload.header_value()), ("x-amz-date", DATE)];
    let request =
        RequestToSign { method: "GET", bucket: Some("edge"), key: "reading", query: &[], headers: &headers, payload };
    let signer = Signer { access_key: "AKID", secret_key, region: REGION };
    let authorization = signer.authorize(&request, DATE)?;
    let mut text = format!("GET {} HTTP/1.1\r\n", request.path());
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    Ok(text + &format!("authorization: {authorization}\r\n\r\n"))
}
