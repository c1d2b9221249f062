//! Listening sockets.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use socket2::{Domain, Socket as RawSocket, Type};
use tokio::net::{TcpListener, TcpStream};

use super::error::ListenError;
use super::socket::Socket;
use super::timeouts::Connections;

/// A listening socket.
pub(crate) struct Listener {
    pub(crate) socket: std::net::TcpListener,
    /// Other processes accept from it as well, and may continue after this process ends.
    pub(crate) is_shared: bool,
}

/// A listener that connections are accepted from.
#[allow(async_fn_in_trait)]
pub(crate) trait Accept {
    type Stream: Socket;

    async fn accept(&self, connections: &Rc<Connections>) -> io::Result<Self::Stream>;

    /// Stops accepting: new clients are refused, or wait for the processes that share the socket.
    fn close(self);
}

/// Backlog of each listener: connections that wait to be accepted.
const BACKLOG: i32 = 1024;

/// The listeners of all threads, on one address.
pub(crate) struct Listening {
    pub(crate) listeners: Vec<Listener>,
    pub(crate) address: SocketAddr,
}

/// Binds one listener per thread, all on one port. `option` is the one that the address came from.
pub(crate) fn listen(address: SocketAddr, threads: usize, option: &str) -> Result<Listening, ListenError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::AddrInUse => ListenError::InUse { address, option: option.to_owned() },
        _ => ListenError::Bind { address, source },
    };
    // SO_REUSEPORT would also share the port with another node of the same user. A listener without
    // SO_REUSEPORT detects that node.
    let alone = bind(address, false).map_err(failed)?;
    let address = alone.socket.local_addr().map_err(failed)?;
    if threads == 1 {
        return Ok(Listening { listeners: vec![alone], address });
    }
    drop(alone);
    let listeners = (0..threads).map(|_| bind(address, true)).collect::<Result<_, _>>().map_err(failed)?;
    Ok(Listening { listeners, address })
}

fn bind(address: SocketAddr, shares_port: bool) -> io::Result<Listener> {
    let socket = RawSocket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shares_port)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(Listener { socket: socket.into(), is_shared: false })
}

/// A listener that accepts through epoll. Dropping it leaves no operation in flight.
///
/// If several workers share a socket, each new connection wakes all that wait, and one accepts it.
/// The others make one failing call per connection, not per request.
pub(crate) struct SharedListener(TcpListener);

impl SharedListener {
    pub(crate) fn new(listener: std::net::TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener).map(SharedListener)
    }

    pub(crate) async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        self.0.accept().await
    }
}
