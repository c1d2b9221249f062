//! Virtual-hosted-style addressing: the bucket in the name of the host ("Virtual hosting of general purpose buckets" of AWS).

use std::net::Ipv4Addr;

use crate::http::RequestHead;

/// The names by which clients reach the node: `bucket.NAME` is a bucket, `NAME` and all else is path-style.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct HostNames(Vec<String>);

impl HostNames {
    /// Names as [`check`](Self::check) takes them.
    pub fn new(names: impl IntoIterator<Item = String>) -> Self {
        let mut names: Vec<String> = names.into_iter().map(|name| name.to_ascii_lowercase()).collect();
        // Of two that a host ends with the longer is meant.
        names.sort_by_key(|name| std::cmp::Reverse(name.len()));
        HostNames(names)
    }

    /// Whether a name may stand behind that of a bucket.
    ///
    /// # Errors
    /// What to do about it.
    pub fn check(name: &str) -> Result<(), &'static str> {
        let label = |label: &str| {
            let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
            !label.is_empty() && label.bytes().all(is_inner) && !label.starts_with('-') && !label.ends_with('-')
        };
        if name.parse::<Ipv4Addr>().is_ok() {
            return Err("an address has no names below it; give a name of the DNS");
        }
        match name.len() <= 253 && name.split('.').all(label) {
            true => Ok(()),
            false => Err("give a name of the DNS, such as s3.example.com, without port and scheme"),
        }
    }

    /// The bucket in the name of the host that the request is for.
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
    fn names() {
        for good in ["s3.example.com", "localhost", "S3.Example", "a-b.c1"] {
            HostNames::check(good).unwrap();
        }
        for bad in ["", ".", "a..b", "a.", "-a", "a-", "10.0.0.1", "a:9000", "http://a", "a/b", "*.a", "é.a"] {
            assert!(HostNames::check(bad).is_err(), "{bad}");
        }
    }
}
