//! Virtual-hosted-style addressing: the bucket in the host name (AWS, "Virtual hosting of general
//! purpose buckets").

use std::net::Ipv4Addr;

use crate::http::RequestHead;

/// The host names of the node: `bucket.NAME` addresses a bucket, `NAME` and any other host are
/// path-style.
///
/// ```
/// use keyhole_s3::http::parse_head;
/// use keyhole_s3::ops::{HostNames, route};
///
/// let hosts = HostNames::new(["s3.example.com".to_owned()]);
/// let bytes = b"GET /reading HTTP/1.1\r\nHost: edge.s3.example.com\r\n\r\n";
/// let (head, _) = parse_head(bytes)?.expect("a complete head");
/// assert_eq!(route(&head, &hosts)?.0.bucket.as_deref(), Some("edge"));
/// # Ok::<(), keyhole_s3::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct HostNames(Vec<String>);

impl HostNames {
    /// Creates the set from names that pass [`check`](Self::check).
    pub fn new(names: impl IntoIterator<Item = String>) -> Self {
        let mut names: Vec<String> = names.into_iter().map(|name| name.to_ascii_lowercase()).collect();
        // If a host matches two names, the longer one applies.
        names.sort_by_key(|name| std::cmp::Reverse(name.len()));
        HostNames(names)
    }

    /// Checks that buckets can be addressed below a name.
    ///
    /// # Errors
    /// A message for the operator.
    pub fn check(name: &str) -> Result<(), &'static str> {
        let label = |label: &str| {
            let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
            !label.is_empty() && label.bytes().all(is_inner) && !label.starts_with('-') && !label.ends_with('-')
        };
        if name.parse::<Ipv4Addr>().is_ok() {
            return Err("an address has no names below it; give a name of the DNS");
        }
        if name.len() > 253 || !name.split('.').all(label) {
            return Err("give a name of the DNS, such as s3.example.com, without port and scheme");
        }
        Ok(())
    }

    /// Returns the bucket in the request's host name.
    pub(super) fn bucket(&self, head: &RequestHead) -> Option<String> {
        let host = head.headers.text("host")?.to_ascii_lowercase();
        let host = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
            _ => &host,
        };
        let host = host.strip_suffix('.').unwrap_or(host);
        if self.0.iter().any(|name| name == host) {
            return None;
        }
        let bucket = self.0.iter().find_map(|name| host.strip_suffix(&name[..])?.strip_suffix('.'));
        bucket.map(str::to_owned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names_are_checked() {
        for good in ["s3.example.com", "localhost", "S3.Example", "a-b.c1"] {
            HostNames::check(good).unwrap();
        }
        for bad in ["", ".", "a..b", "a.", "-a", "a-", "10.0.0.1", "a:9000", "http://a", "a/b", "*.a", "é.a"] {
            assert!(HostNames::check(bad).is_err(), "{bad}");
        }
    }
}
