//! Socket activation (`sd_listen_fds(3)`): the service manager opens the sockets, which listen
//! before the node starts and while it restarts.
//!
//! A socket replaces the option that its name stands for: `http` for `--listen`, `https` for
//! `--tls-listen`, `admin` for `--admin-listen`. All workers and the manager share one description,
//! so it must not be shut down.

use std::net::TcpListener;
use std::os::fd::{FromRawFd, OwnedFd};

use socket2::{Domain, Socket, Type};

use super::error::ListenError;
use super::listener::{Listener, Listening};

/// The known names, each with the option that it replaces.
const NAMES: [(&str, &str); 3] = [("http", "--listen"), ("https", "--tls-listen"), ("admin", "--admin-listen")];

/// Inherited sockets that were not taken yet.
#[derive(Debug)]
pub(crate) struct Inherited(Vec<(String, TcpListener)>);

impl Inherited {
    /// Takes the sockets that the environment describes. Call it once, before other threads start.
    pub(crate) fn from_manager() -> Result<Self, ListenError> {
        // Sockets of another process may have any names.
        if sd_notify::listen_fds().map_err(ListenError::InvalidEnvironment)?.len() == 0 {
            return Ok(Inherited(Vec::new()));
        }
        let handed_over = sd_notify::listen_fds_with_names().map_err(ListenError::InvalidEnvironment)?;
        // SAFETY: the manager has opened these for this process, and no other code owns them.
        let own = |fd| unsafe { OwnedFd::from_raw_fd(fd) };
        Inherited::new(handed_over.map(|(fd, name)| (name, own(fd))).collect())
    }

    fn new(sockets: Vec<(String, OwnedFd)>) -> Result<Self, ListenError> {
        let mut taken: Vec<(String, TcpListener)> = Vec::new();
        for (name, fd) in sockets {
            if !NAMES.iter().any(|(known, _)| *known == name) {
                let known = NAMES.map(|(name, _)| name).join(", ");
                return Err(ListenError::UnknownSocket { name, known });
            }
            if taken.iter().any(|(other, _)| *other == name) {
                return Err(ListenError::DuplicateSocket(name));
            }
            let listener = listener(fd).map_err(|why| ListenError::UnusableSocket { name: name.clone(), why })?;
            taken.push((name, listener));
        }
        Ok(Inherited(taken))
    }

    /// Takes the socket of this name, if it was inherited: a listener for each thread.
    pub(crate) fn take(&mut self, name: &str, threads: usize) -> Result<Option<Listening>, ListenError> {
        let Some(at) = self.0.iter().position(|(other, _)| other == name) else { return Ok(None) };
        let (_, socket) = self.0.swap_remove(at);
        let share = || -> std::io::Result<_> {
            // The description is shared: a connection that another worker accepted first must not
            // block this one.
            socket.set_nonblocking(true)?;
            let listeners = (0..threads).map(|_| Ok(Listener { socket: socket.try_clone()?, is_shared: true }));
            Ok(Listening { listeners: listeners.collect::<std::io::Result<_>>()?, address: socket.local_addr()? })
        };
        share().map(Some).map_err(|source| ListenError::Share { name: name.to_owned(), source })
    }

    /// As [`take`](Self::take); otherwise calls `listen` with the option that the name stands for.
    pub(crate) fn take_or(
        &mut self,
        name: &str,
        threads: usize,
        listen: impl FnOnce(&str) -> Result<Listening, ListenError>,
    ) -> Result<Listening, ListenError> {
        match self.take(name, threads)? {
            Some(inherited) => Ok(inherited),
            None => listen(option(name)),
        }
    }

    /// Checks that every inherited socket was taken.
    pub(crate) fn check_all_taken(self) -> Result<(), ListenError> {
        match self.0.into_iter().next() {
            None => Ok(()),
            Some((name, _)) => Err(ListenError::Unused { option: option(&name), name }),
        }
    }
}

/// Returns the option that a socket of this name replaces.
fn option(name: &str) -> &'static str {
    NAMES.iter().find(|(known, _)| *known == name).map_or("", |(_, option)| option)
}

/// Converts the descriptor to a listener, or describes its actual type.
fn listener(fd: OwnedFd) -> Result<TcpListener, &'static str> {
    let socket = Socket::from(fd);
    let is_tcp =
        matches!(socket.r#type(), Ok(Type::STREAM)) && matches!(socket.domain(), Ok(Domain::IPV4 | Domain::IPV6));
    if !is_tcp {
        return Err("is not a TCP socket");
    }
    match socket.is_listener() {
        Ok(true) => Ok(socket.into()),
        _ => Err("does not listen: set Accept=no and ListenStream= in its unit"),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::net::{TcpStream, UdpSocket};
    use std::os::unix::net::UnixListener;

    use super::*;

    fn listening() -> TcpListener {
        TcpListener::bind("127.0.0.1:0").unwrap()
    }

    fn inherit<const N: usize>(sockets: [(&str, OwnedFd); N]) -> Result<Inherited, ListenError> {
        Inherited::new(sockets.into_iter().map(|(name, fd)| (name.to_owned(), fd)).collect())
    }

    #[test]
    fn inherited_socket_is_shared_by_workers() {
        let socket = listening();
        let address = socket.local_addr().unwrap();
        let mut inherited = inherit([("https", listening().into()), ("http", socket.into())]).unwrap();
        let Listening { listeners, address: at } = inherited.take("http", 3).unwrap().unwrap();
        assert_eq!((listeners.len(), at), (3, address));
        assert!(inherited.take("http", 3).unwrap().is_none());
        for listener in &listeners {
            assert!(listener.is_shared);
            let error = listener.socket.accept().unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
            let client = TcpStream::connect(address).unwrap();
            assert_eq!(listener.socket.accept().unwrap().1, client.local_addr().unwrap());
        }
        let error = inherited.check_all_taken().unwrap_err().to_string();
        assert!(error.contains("https") && error.contains("--tls-listen"), "{error}");
        inherit([]).unwrap().check_all_taken().unwrap();
    }

    #[test]
    fn unusable_sockets_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let one = listening();
        let other = listening();
        let connected = TcpStream::connect(one.local_addr().unwrap()).unwrap();
        let cases: [(Result<Inherited, ListenError>, &str); 6] = [
            (inherit([("ftp", other.into())]), "\"ftp\""),
            (inherit([("http", listening().into()), ("http", listening().into())]), "two sockets named http"),
            (inherit([("http", connected.into())]), "does not listen"),
            (inherit([("http", UdpSocket::bind("127.0.0.1:0").unwrap().into())]), "not a TCP socket"),
            (inherit([("https", UnixListener::bind(directory.path().join("s")).unwrap().into())]), "not a TCP socket"),
            (inherit([("http", File::open("/dev/null").unwrap().into())]), "not a TCP socket"),
        ];
        for (result, part) in cases {
            let error = result.unwrap_err().to_string();
            assert!(error.contains(part), "{part} in: {error}");
        }
    }
}
