//! Trusted proxies and their forwarding headers.
//!
//! # Invariants
//! - Forwarding headers count only on connections from a trusted address, and only as far as
//!   trusted proxies wrote them: the client could have forged anything further away.
//! - Ambiguous values are not trusted: a repeated `X-Forwarded-Proto`, or a list, does not count as
//!   `https`.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use keyhole_s3::http::RequestHead;

use crate::limits::{FORWARDS_MAX, TRUSTED_PROXIES_MAX};

/// The scheme of the client's connection to the nearest proxy.
const PROTO: &str = "x-forwarded-proto";

/// The chain of client addresses; each hop appends the address of its peer.
const FOR: &str = "x-forwarded-for";

/// The addresses of trusted proxies.
#[derive(Clone, Default, Debug)]
pub struct TrustedProxies(Vec<IpNet>);

impl TrustedProxies {
    /// Creates the set from networks.
    pub fn new(networks: Vec<IpNet>) -> Self {
        TrustedProxies(networks)
    }

    /// Parses a network or a single address.
    ///
    /// # Errors
    /// A message for the operator if `text` is neither, or is the network of all addresses, which
    /// is never intended.
    pub fn parse(text: &str) -> Result<IpNet, String> {
        let network = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
        match network {
            Some(network) if network.prefix_len() == 0 => {
                Err("this is every address there is, so anybody could claim anything; give your proxies' addresses"
                    .to_owned())
            }
            Some(network) => Ok(network.trunc()),
            None => Err("give an address or a network, such as 192.0.2.7, 192.0.2.0/24 or 2001:db8::/64".to_owned()),
        }
    }

    /// Returns whether there are more than [`TRUSTED_PROXIES_MAX`]; each peer address is compared
    /// with all of them.
    pub fn are_too_many(&self) -> bool {
        self.0.len() > TRUSTED_PROXIES_MAX
    }

    fn trust(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }

    /// Returns whether a request may carry a customer key; `is_secure` is the answer for the
    /// connection alone. A trusted proxy overrides it: its client may have connected to it in
    /// plaintext although the proxy connects from this machine.
    pub(crate) fn is_secure(&self, head: &RequestHead, is_secure: bool, peer: impl FnOnce() -> SocketAddr) -> bool {
        if self.0.is_empty() || !self.trust(peer().ip()) {
            return is_secure;
        }
        let mut said = head.headers.all(PROTO);
        match (said.next(), said.next()) {
            (None, _) => is_secure,
            (Some(proto), None) => proto.eq_ignore_ascii_case(b"https"),
            (Some(_), Some(_)) => false,
        }
    }

    /// Returns the client's address for logs: the nearest hop of `X-Forwarded-For` that is not a
    /// trusted proxy, or the peer if the peer is not one.
    pub fn client(&self, head: &RequestHead, peer: SocketAddr) -> IpAddr {
        let mut nearest = peer.ip().to_canonical();
        if self.0.is_empty() {
            return nearest;
        }
        let lists: Vec<&[u8]> = head.headers.all(FOR).take(FORWARDS_MAX).collect();
        let hops = lists.iter().rev().flat_map(|list| list.rsplit(|byte| *byte == b','));
        for hop in hops.take(FORWARDS_MAX) {
            if !self.trust(nearest) {
                break;
            }
            // A malformed entry ends the chain at the hop that wrote it.
            let Some(address) = address(hop) else { break };
            nearest = address;
        }
        nearest
    }
}

/// Parses the address of a hop, with or without a port.
fn address(hop: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(hop).ok()?.trim();
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()));
    address.map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use keyhole_s3::http::parse_head;

    use super::*;

    fn proxies() -> TrustedProxies {
        TrustedProxies::new(["192.0.2.0/24", "2001:db8::1"].map(|text| TrustedProxies::parse(text).unwrap()).to_vec())
    }

    fn head(fields: &[&str]) -> RequestHead {
        let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
        parse_head(format!("GET /b/k HTTP/1.1\r\nhost: h\r\n{fields}\r\n").as_bytes()).unwrap().unwrap().0
    }

    fn peer(address: &str) -> SocketAddr {
        SocketAddr::new(address.parse().unwrap(), 4711)
    }

    #[test]
    fn networks_and_addresses_are_parsed() {
        let shown = |text| TrustedProxies::parse(text).map(|network| network.to_string());
        assert_eq!(shown("192.0.2.7").unwrap(), "192.0.2.7/32");
        assert_eq!(shown("192.0.2.7/24").unwrap(), "192.0.2.0/24");
        assert_eq!(shown("2001:db8::/64").unwrap(), "2001:db8::/64");
        assert_eq!(shown("0.0.0.0/1").unwrap(), "0.0.0.0/1");
        for bad in ["", "proxy.example", "192.0.2.0/33", "192.0.2", "0.0.0.0/0", "::/0", "192.0.2.1-192.0.2.9"] {
            assert!(shown(bad).is_err(), "{bad}");
        }
        let of = |count| TrustedProxies::new(vec![TrustedProxies::parse("192.0.2.7").unwrap(); count]);
        assert!(!of(TRUSTED_PROXIES_MAX).are_too_many() && of(TRUSTED_PROXIES_MAX + 1).are_too_many());
    }

    #[test]
    fn trusted_proxy_decides_whether_keys_are_admitted() {
        let (near, far) = ("192.0.2.255", "192.0.3.0");
        for (fields, trusted, expected) in [
            // The connection decides unless a trusted proxy overrides it.
            (&[][..], near, [false, true]),
            (&[], far, [false, true]),
            (&["X-Forwarded-Proto: https"], far, [false, true]),
            (&["X-Forwarded-Proto: http"], far, [false, true]),
            // The proxy overrides the connection.
            (&["X-Forwarded-Proto: https"], near, [true, true]),
            (&["x-forwarded-proto: HTTPS"], "2001:db8::1", [true, true]),
            (&["X-Forwarded-Proto: https"], "::ffff:192.0.2.9", [true, true]),
            (&["X-Forwarded-Proto: https"], "2001:db8::2", [false, true]),
            (&["X-Forwarded-Proto: http"], near, [false, false]),
            // Ambiguous values.
            (&["X-Forwarded-Proto: https", "X-Forwarded-Proto: https"], near, [false, false]),
            (&["X-Forwarded-Proto: http", "X-Forwarded-Proto: https"], near, [false, false]),
            (&["X-Forwarded-Proto: https, https"], near, [false, false]),
            (&["X-Forwarded-Proto: http, https"], near, [false, false]),
            (&["X-Forwarded-Proto: https,"], near, [false, false]),
            (&["X-Forwarded-Proto:"], near, [false, false]),
            (&["X-Forwarded-Proto: https:"], near, [false, false]),
            // Other headers are ignored: most proxies pass them on from the client.
            (&["Forwarded: for=198.51.100.1;proto=https"], near, [false, true]),
            (&["X-Forwarded-Scheme: https"], near, [false, true]),
            (&["X-Forwarded-Ssl: on"], near, [false, true]),
        ] {
            for (is_secure, expected) in [false, true].into_iter().zip(expected) {
                let got = proxies().is_secure(&head(fields), is_secure, || peer(trusted));
                assert_eq!(got, expected, "{fields:?} from {trusted}, {is_secure}");
            }
        }
        let untrusting = TrustedProxies::default();
        let never = || panic!("the peer is looked up without a trusted proxy");
        assert!(!untrusting.is_secure(&head(&["X-Forwarded-Proto: https"]), false, never));
        assert!(untrusting.is_secure(&head(&["X-Forwarded-Proto: http"]), true, never));
    }

    #[test]
    fn client_is_the_nearest_hop_that_is_no_proxy() {
        for (fields, from, expected) in [
            (&[][..], "192.0.2.1", "192.0.2.1"),
            (&["X-Forwarded-For: 198.51.100.1"], "192.0.2.1", "198.51.100.1"),
            (&["X-Forwarded-For: 198.51.100.1"], "::ffff:192.0.2.1", "198.51.100.1"),
            // Other peers are not trusted.
            (&["X-Forwarded-For: 198.51.100.1"], "203.0.113.9", "203.0.113.9"),
            (&["X-Forwarded-For: 10.0.0.1, 198.51.100.1"], "192.0.2.1", "198.51.100.1"),
            // Two chained proxies, in one list and in two headers.
            (&["X-Forwarded-For: 10.0.0.1, 198.51.100.1, 192.0.2.77"], "192.0.2.1", "198.51.100.1"),
            (&["X-Forwarded-For: 198.51.100.1", "X-Forwarded-For: 192.0.2.77"], "192.0.2.1", "198.51.100.1"),
            (&["X-Forwarded-For: 192.0.2.77"], "192.0.2.1", "192.0.2.77"),
            // With ports, as some proxies write them.
            (&["X-Forwarded-For: 198.51.100.1:1234"], "192.0.2.1", "198.51.100.1"),
            (&["X-Forwarded-For: [2001:db8:1::1]:1234"], "192.0.2.1", "2001:db8:1::1"),
            (&["X-Forwarded-For: [2001:db8:1::1]"], "192.0.2.1", "2001:db8:1::1"),
            // Malformed entries end the chain.
            (&["X-Forwarded-For: 198.51.100.1, unknown"], "192.0.2.1", "192.0.2.1"),
            (&["X-Forwarded-For: 198.51.100.1,"], "192.0.2.1", "192.0.2.1"),
            (&["X-Forwarded-For: \u{fc}"], "192.0.2.1", "192.0.2.1"),
        ] {
            assert_eq!(proxies().client(&head(fields), peer(from)).to_string(), expected, "{fields:?} from {from}");
        }
        let long = format!("X-Forwarded-For: 198.51.100.1{}", ", 192.0.2.77".repeat(FORWARDS_MAX - 1));
        assert_eq!(proxies().client(&head(&[&long]), peer("192.0.2.1")).to_string(), "198.51.100.1");
        let longer = format!("X-Forwarded-For: 198.51.100.1{}", ", 192.0.2.77".repeat(FORWARDS_MAX));
        assert_eq!(proxies().client(&head(&[&longer]), peer("192.0.2.1")).to_string(), "192.0.2.77");
        let untrusting = TrustedProxies::default();
        assert_eq!(untrusting.client(&head(&[&long]), peer("192.0.2.1")).to_string(), "192.0.2.1");
    }
}
