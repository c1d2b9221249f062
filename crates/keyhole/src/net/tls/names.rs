//! Selection of the certificate for a client.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// Certificates by host name.
pub(super) struct Names<C> {
    /// For clients without SNI, or with a name that no certificate covers.
    default: C,
    /// By full name, in lower case, in the order given.
    whole: HashMap<String, Vec<C>>,
    /// Wildcard certificates, by the part after `*.`.
    below: HashMap<String, Vec<C>>,
}

impl<C: Clone> Names<C> {
    /// Builds the table from certificates with their names in lower case; the first one is the
    /// default. Returns `None` without certificates.
    pub(super) fn new<'n>(certificates: impl IntoIterator<Item = (C, &'n [String])>) -> Option<Self> {
        let mut default = None;
        let mut whole = HashMap::<_, Vec<_>>::new();
        let mut below = HashMap::<_, Vec<_>>::new();
        for (certificate, names) in certificates {
            for name in names {
                let (of, name) = name.strip_prefix("*.").map_or((&mut whole, &name[..]), |rest| (&mut below, rest));
                of.entry(name.to_owned()).or_default().push(certificate.clone());
            }
            default.get_or_insert(certificate);
        }
        Some(Names { default: default?, whole, below })
    }

    /// Returns the first certificate for a name that `fits`. Full names precede wildcards, which
    /// stand for one label; without a match, the default.
    fn find(&self, name: Option<&str>, fits: impl Fn(&C) -> bool) -> &C {
        let name = name.map(str::to_ascii_lowercase);
        let whole = name.as_deref().and_then(|name| self.whole.get(name));
        let below = name.as_deref().and_then(|name| self.below.get(name.split_once('.')?.1));
        whole.into_iter().chain(below).flatten().find(|certificate| fits(certificate)).unwrap_or(&self.default)
    }
}

impl ResolvesServerCert for Names<Arc<CertifiedKey>> {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // Of two certificates for one name, the first that the client can verify: RSA next to ECDSA
        // serves old clients.
        let fits = |certificate: &Arc<CertifiedKey>| certificate.key.choose_scheme(hello.signature_schemes()).is_some();
        Some(self.find(hello.server_name(), fits).clone())
    }
}

impl<C> fmt::Debug for Names<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.whole.keys()).entries(self.below.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificate_is_selected_by_name() {
        let given = [
            (1, "first.example *.wild.example"),
            (2, "second.example wild.example"),
            (3, "deep.wild.example *.second.example"),
            (4, "first.example *.wild.example"),
            (5, ""),
        ];
        let given = given.map(|(id, names)| (id, names.split_whitespace().map(str::to_owned).collect::<Vec<_>>()));
        let names = Names::new(given.iter().map(|(id, names)| (*id, &names[..]))).unwrap();
        for (name, expected) in [
            (None, 1),
            (Some("unknown.example"), 1),
            (Some("first.example"), 1),
            (Some("second.example"), 2),
            (Some("SECOND.example"), 2),
            // Full names come first; an asterisk stands for one label.
            (Some("a.second.example"), 3),
            (Some("wild.example"), 2),
            (Some("deep.wild.example"), 3),
            (Some("other.wild.example"), 1),
            (Some("a.other.wild.example"), 1),
            (Some("example"), 1),
        ] {
            assert_eq!(*names.find(name, |_| true), expected, "{name:?}");
        }
        // A certificate that does not fit is skipped, in favour of another for the name, then the
        // default.
        let find = |name, no: &[i32]| *names.find(Some(name), |id| !no.contains(id));
        assert_eq!(find("first.example", &[1]), 4);
        assert_eq!(find("a.wild.example", &[1]), 4);
        assert_eq!(find("second.example", &[2]), 1);
        assert_eq!(find("a.second.example", &[3]), 1);
        assert!(Names::<i32>::new([]).is_none());
    }
}
