//! Listening sockets.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use socket2::{Domain, Socket as RawSocket, Type};
use tokio::net::{TcpListener, TcpStream};

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

/// Binds one listener per thread, all on one port, and returns them with the resulting address.
pub(crate) fn listen(address: SocketAddr, threads: usize, option: &str) -> Result<(Vec<Listener>, SocketAddr), String> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::AddrInUse => {
            format!("{address} is in use by another process; stop it, or give another {option}")
        }
        _ => format!("cannot listen on {address}: {error}"),
    };
    let socket = |address: SocketAddr, shared: bool| {
        let socket = RawSocket::new(Domain::for_address(address), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(shared)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        io::Result::Ok(Listener { socket: std::net::TcpListener::from(socket), is_shared: false })
    };
    // SO_REUSEPORT would also share the port with another node of the same user. A listener without
    // SO_REUSEPORT detects that node.
    let alone = socket(address, false).map_err(failed)?;
    let address = alone.socket.local_addr().map_err(failed)?;
    if threads == 1 {
        return Ok((vec![alone], address));
    }
    drop(alone);
    let listeners: Result<_, _> = (0..threads).map(|_| socket(address, true).map_err(failed)).collect();
    Ok((listeners?, address))
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
