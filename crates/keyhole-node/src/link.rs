//! The peer of a connection, as admission sees it: its identity, its rate, and the end of its pending
//! operation.

use std::cell::Cell;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::host::Host;
use crate::platform::Stream;

/// The operations of a stream that admission uses, without its type.
trait Peer {
    fn interrupt(&self);

    fn transferred(&self) -> u64;

    fn unsent(&self) -> u64;
}

impl<S: Stream> Peer for S {
    fn interrupt(&self) {
        Stream::interrupt(self);
    }

    fn transferred(&self) -> u64 {
        Stream::transferred(self)
    }

    fn unsent(&self) -> u64 {
        Stream::unsent(self)
    }
}

/// The identity that shares of memory are counted by: an access key, or the address of an unsigned
/// client.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Client(u64);

impl Client {
    /// Returns the identity of a request's sender.
    pub(crate) fn of(access_key: Option<&str>, address: IpAddr) -> Self {
        match access_key {
            Some(key) => Client::hashed(key),
            // A host has a /64 of IPv6 addresses to itself.
            None => Client::hashed(match address.to_canonical() {
                IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
                IpAddr::V6(address) => address.to_bits() >> 64,
            }),
        }
    }

    fn hashed(of: impl Hash) -> Self {
        let mut hasher = DefaultHasher::new();
        of.hash(&mut hasher);
        Client(hasher.finish())
    }
}

/// A connection's peer.
pub(crate) struct Link {
    pub(crate) host: Host,
    peer: Rc<dyn Peer>,
    pub(crate) client: Cell<Client>,
    /// Start of the operation that waits for the peer.
    waiting_since: Cell<Option<Instant>>,
    /// Time spent waiting for the peer, without the pending operation.
    waited: Cell<Duration>,
    is_interrupted: Cell<bool>,
}

/// A point in the history of a link.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark {
    waited: Duration,
    transferred: u64,
}

impl Link {
    pub(crate) fn new<S: Stream>(stream: &Rc<S>, host: Host) -> Rc<Self> {
        Rc::new(Link {
            host,
            peer: stream.clone(),
            client: Cell::default(),
            waiting_since: Cell::new(None),
            waited: Cell::default(),
            is_interrupted: Cell::new(false),
        })
    }

    /// Awaits an operation that depends on the peer.
    pub(crate) async fn waiting<T>(&self, operation: impl Future<Output = T>) -> T {
        self.waiting_since.set(Some(self.host.instant()));
        let output = operation.await;
        self.waited.set(self.waited());
        self.waiting_since.set(None);
        output
    }

    /// Returns the time spent waiting for the peer, with the pending operation.
    fn waited(&self) -> Duration {
        let pending = self.waiting_since.get().map(|since| self.host.instant().saturating_duration_since(since));
        self.waited.get() + pending.unwrap_or_default()
    }

    /// Returns the current point.
    pub(crate) fn mark(&self) -> Mark {
        Mark { waited: self.waited(), transferred: self.peer.transferred() }
    }

    /// Returns how long the peer has been waited for since `mark` beyond the time that its bytes
    /// take at `rate` bytes per second; zero if it is not waited for.
    pub(crate) fn debt(&self, mark: &Mark, rate: u64) -> Duration {
        if self.waiting_since.get().is_none() || self.is_interrupted() {
            return Duration::ZERO;
        }
        let moved = self.peer.transferred().saturating_sub(self.peer.unsent()).saturating_sub(mark.transferred);
        let allowed = Duration::from_secs_f64(moved as f64 / rate as f64);
        self.waited().saturating_sub(mark.waited).saturating_sub(allowed)
    }

    /// Ends the pending operation, and with it the request.
    pub(crate) fn interrupt(&self) {
        self.is_interrupted.set(true);
        self.peer.interrupt();
    }

    /// Returns whether the request was [interrupted](Self::interrupt).
    pub(crate) fn is_interrupted(&self) -> bool {
        self.is_interrupted.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_told_apart_by_key_and_network() {
        let address = |text: &str| Client::of(None, text.parse().unwrap());
        assert_eq!(address("192.0.2.1"), address("::ffff:192.0.2.1"));
        assert_ne!(address("192.0.2.1"), address("192.0.2.2"));
        assert_eq!(address("2001:db8::1"), address("2001:db8::ffff:1"));
        assert_ne!(address("2001:db8::1"), address("2001:db8:0:1::1"));
        let key = |id: &str, at: &str| Client::of(Some(id), at.parse().unwrap());
        assert_eq!(key("a", "192.0.2.1"), key("a", "192.0.2.2"));
        assert_ne!(key("a", "192.0.2.1"), key("b", "192.0.2.1"));
    }
}
