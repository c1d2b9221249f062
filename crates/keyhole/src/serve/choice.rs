//! Choices that depend on the machine: I/O interface, AES engine, listeners.

use std::io;
use std::net::{SocketAddr, TcpListener};

use keyhole_core::suite;
use socket2::{Domain, Socket, Type};

use crate::activation::Listener;
use crate::cli::serve::{EngineChoice, IoMode};
use crate::engine::Chosen;
use crate::uring;

/// Backlog of each listener: connections that wait to be accepted.
const BACKLOG: i32 = 1024;

/// Returns whether to use io_uring.
pub(super) fn choose_io(mode: IoMode) -> Result<bool, String> {
    if mode == IoMode::Epoll {
        return Ok(false);
    }
    match uring::probe() {
        Ok(()) => Ok(true),
        Err(error) if mode == IoMode::Uring => {
            Err(format!("the system refuses io_uring ({error}); allow it, or use --io epoll"))
        }
        Err(error) => {
            eprintln!("keyhole: the system refuses io_uring ({error}); using epoll and plain file I/O");
            Ok(false)
        }
    }
}

/// Returns the requested engine after it has passed the self-test suite on this machine.
pub(super) fn choose_engine(choice: EngineChoice) -> Result<Chosen, String> {
    let passes = |engine: Chosen| suite::run(&engine, &mut vec![0; suite::SCRATCH_LEN]);
    let engine = match choice {
        EngineChoice::Portable => Chosen::Portable,
        EngineChoice::Accelerated | EngineChoice::Auto => Chosen::Accelerated,
    };
    match (passes(engine), choice) {
        (Ok(()), _) => Ok(engine),
        (Err(failure), EngineChoice::Auto) => {
            eprintln!("keyhole: the accelerated engine failed its self-test ({failure}); using the portable one");
            passes(Chosen::Portable)
                .map_err(|failure| format!("the portable engine failed its self-test: {failure}"))?;
            Ok(Chosen::Portable)
        }
        (Err(failure), _) => Err(format!("the engine failed its self-test: {failure}; try another --engine")),
    }
}

/// Binds one listener per thread, all on one port, and returns them with the resulting address.
pub(super) fn listen(address: SocketAddr, threads: usize, option: &str) -> Result<(Vec<Listener>, SocketAddr), String> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::AddrInUse => {
            format!("{address} is in use by another process; stop it, or give another {option}")
        }
        _ => format!("cannot listen on {address}: {error}"),
    };
    let socket = |address: SocketAddr, shared: bool| {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(shared)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        io::Result::Ok(Listener { socket: TcpListener::from(socket), is_shared: false })
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
